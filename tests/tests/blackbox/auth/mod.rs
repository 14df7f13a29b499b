//! Who may call, and from where.

mod callers;
mod cors;
mod last_use;
mod networks;
mod passwords;
mod services;
mod signed_bodies;
