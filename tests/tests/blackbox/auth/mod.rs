//! Who may call, and from where.

mod callers;
mod cors;
mod networks;
mod passwords;
mod services;
mod signed_bodies;
