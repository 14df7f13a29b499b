//! Texts of revisions, which may be large.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that costs nothing to clone, and may be one that is not made before somebody reads it.
#[derive(Clone)]
pub struct Text(Arc<Inner>);

struct Inner {
    text: OnceLock<String>,
    make: Box<dyn Fn() -> String + Send + Sync>,
}

impl Text {
    /// What `make` says when it is read for the first time.
    pub fn later(make: impl Fn() -> String + Send + Sync + 'static) -> Text {
        Text(Arc::new(Inner { text: OnceLock::new(), make: Box::new(make) }))
    }

    /// Whether reading it costs nothing.
    pub fn is_made(&self) -> bool {
        self.0.text.get().is_some()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.text.get_or_init(&self.0.make)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Arc::new(Inner { text: text.into(), make: Box::new(String::new) }))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        text.to_owned().into()
    }
}

impl Default for Text {
    fn default() -> Text {
        String::new().into()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        String::deserialize(from).map(Text::from)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        String::json_schema(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_when_it_is_read() {
        let made = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = Arc::clone(&made);
        let text = Text::later(move || {
            format!("made {}", count.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        });
        let other = text.clone();
        assert!(!text.is_made() && other == text, "a clone is equal without being read");
        assert!(!text.is_made());
        assert_eq!((text, &*other), (Text::from("made 0"), "made 0"));
        assert_eq!(made.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
