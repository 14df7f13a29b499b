//! Bodies of requests and answers, changed by a route's rules.

pub mod form;
pub mod json;
pub mod pointer;
pub mod project;
