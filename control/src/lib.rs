//! Sluice's control process, its supervisor and its command line.
//!
//! `sluice up` is the [`supervise`] process: it owns the listening sockets and keeps two children
//! alive, control ([`run`]) and the engine (which only `main.rs` knows, see [`entry`]). Control
//! turns a [`spec`] into a snapshot and publishes it ([`running`], [`publish`]), and turns the
//! engine's records into an access log and metrics ([`records`]).

#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod bind;
mod check;
pub mod cli;
pub mod compile;
pub mod demo;
pub mod diff;
pub mod entry;
pub mod explain;
mod exposition;
pub mod fit;
pub mod import;
pub mod inquiry;
pub mod keys;
pub mod material;
mod metrics;
pub mod place;
pub mod publish;
pub mod records;
pub mod resolve;
pub mod rollout;
pub mod run;
pub mod running;
pub mod spec;
mod standing;
pub mod store;
pub mod supervise;
pub mod tickets;
pub mod yaml;
