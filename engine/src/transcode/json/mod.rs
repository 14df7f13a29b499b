//! Between JSON and the wire format, in one pass and with nothing built in between: the JSON mapping of
//! protocol buffers (<https://protobuf.dev/programming-guides/json/>).

mod base64;
#[cfg(test)]
mod conformance;
mod known;
mod read;
mod reader;
mod scalar;
mod text;
mod values;
mod write;

use std::borrow::Cow;

pub use self::read::Reading;
pub use self::text::write_text;
pub use self::write::Printing;
use crate::limits;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte of the text.
    pub at: usize,
    /// JSON Pointer (RFC 6901).
    pub pointer: String,
    pub problem: Cow<'static, str>,
}

impl Fault {
    pub fn at(at: usize, problem: &'static str) -> Fault {
        Fault { at, pointer: String::new(), problem: Cow::Borrowed(problem) }
    }

    /// The same, in a member of that name.
    fn inside(mut self, name: &str) -> Fault {
        let mut pointer = String::with_capacity(name.len() + self.pointer.len() + 1);
        pointer.push('/');
        let most = limits::FAULT_TEXT.saturating_sub(self.pointer.len() + 1);
        for character in name.chars() {
            if pointer.len() + 4 > most {
                break;
            }
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                other => pointer.push(other),
            }
        }
        pointer.push_str(&self.pointer);
        if pointer.len() <= limits::FAULT_TEXT {
            self.pointer = pointer;
        }
        self
    }
}

/// A message that has no JSON: it is malformed, or holds what JSON cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unprintable(pub &'static str);

impl From<super::wire::Malformed> for Unprintable {
    fn from(_: super::wire::Malformed) -> Unprintable {
        Unprintable("the message is malformed")
    }
}

/// The bytes that a base64 text stands for.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    base64::decode(text)
}

pub fn to_base64(bytes: &[u8], out: &mut Vec<u8>) {
    base64::encode(bytes, out);
}
