//! Who may call, and from where.

mod cors;
mod networks;
mod passwords;
