//! JSON as strictly as it can be read: what an upstream might understand otherwise is refused.

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits;

/// A document, and how many values are in it.
pub struct Document {
    pub value: Value,
    pub size: usize,
}

/// Reads one document. Nesting is bounded by serde_json (128), the number of values by
/// [`limits::VALIDATED_VALUES`].
///
/// # Errors
/// What is wrong with it, and where; never what stands there. Also for an object that has a name
/// twice: parsers differ in which of them counts (RFC 8259 §4).
pub fn parse(bytes: &[u8]) -> Result<Document, String> {
    let mut left = limits::VALIDATED_VALUES;
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Values { left: &mut left }.deserialize(&mut input);
    let value = value.and_then(|value| input.end().map(|()| value));
    match value {
        Ok(value) => Ok(Document { value, size: limits::VALIDATED_VALUES - left }),
        Err(error) => Err(format!("this is not JSON that can be read: {error}")),
    }
}

struct Values<'l> {
    left: &'l mut usize,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => return Err(D::Error::custom("there are too many values in it")),
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number is too large"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Values { left: self.left })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Values { left: self.left })?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("an object has a name twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"[{"b":{"a":1,"\u0061":2}}]"#,
            "1 2",
            "{}x",
            "",
            "\u{feff}1",
            "1e999",
            "NaN",
            "\"\\ud800\"",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse("[".repeat(1_000).as_bytes()).is_err());
        let many = format!("[{}0]", "0,".repeat(limits::VALIDATED_VALUES));
        assert!(parse(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_reads(bytes in "[\\[\\]{}:,\"a0-9.e\\-nulltrefas \\\\]{0,40}") {
            if let Ok(document) = parse(bytes.as_bytes()) {
                prop_assert_eq!(document.value, serde_json::from_str::<Value>(&bytes).unwrap());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
