//! Sluice data plane.

pub mod message;
