//! Sluice data plane.

pub mod plan;
pub mod route;
pub mod upstream;
