//! HPACK (RFC 7541): header blocks as bytes.
//!
//! Decoding keeps the dynamic table that the peer's encoder fills; what we encode uses the static
//! table alone.

mod decode;
mod encode;
mod field;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, HpackError, Limits, Sink};
pub use encode::{Encoder, shortest};
pub use field::{Class, value_is_valid};
