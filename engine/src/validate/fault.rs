//! What is wrong with a request, as its sender is told.

use serde::Serialize;

use crate::limits;

/// Where in a request something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum In {
    Path,
    Query,
    Header,
    Cookie,
    Body,
}

/// One thing that is wrong. It never says what a value is, only what it is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    #[serde(rename = "in")]
    pub place: In,
    /// A JSON pointer (RFC 6901) into the body, or to the parameter and into it; empty: all of it.
    pub pointer: String,
    pub message: String,
}

impl Fault {
    /// Texts that are too long are cut.
    pub fn new(place: In, pointer: &str, message: &str) -> Fault {
        Fault { place, pointer: cut(pointer), message: cut(message) }
    }
}

/// The first [`limits::FAULTS`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, place: In, pointer: &str, message: &str) {
        if !self.is_full() {
            self.0.push(Fault::new(place, pointer, message));
        }
    }

    pub fn is_full(&self) -> bool {
        self.0.len() >= limits::FAULTS
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_list(self) -> Vec<Fault> {
        self.0
    }
}

/// At most [`limits::FAULT_TEXT`] bytes of `text`: names in it may be the client's.
fn cut(text: &str) -> String {
    if text.len() <= limits::FAULT_TEXT {
        return text.into();
    }
    let end = (0..=limits::FAULT_TEXT - 3).rev().find(|end| text.is_char_boundary(*end));
    format!("{}...", &text[..end.unwrap_or(0)])
}

/// The JSON pointer to a member of that name (RFC 6901 §3).
pub fn member(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_and_they_are_short() {
        let mut faults = Faults::default();
        for _ in 0..100 {
            faults.add(In::Body, &"ü".repeat(1_000), &"x".repeat(1_000));
        }
        let list = faults.into_list();
        assert_eq!(list.len(), limits::FAULTS);
        assert!(list.iter().all(|fault| fault.pointer.len() <= limits::FAULT_TEXT));
        assert!(list[0].message.ends_with("..."));
        assert_eq!(member("a/b~c"), "/a~1b~0c");
    }
}
