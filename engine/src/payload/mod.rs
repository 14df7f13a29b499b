//! Bodies of requests and answers, changed by a route's rules.

pub mod form;
pub mod jq;
pub mod json;
pub mod pointer;
pub mod project;
pub mod records;
pub mod steps;
pub mod template;
pub mod xml;
