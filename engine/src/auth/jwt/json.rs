//! JSON in which each name of an object stands once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The object that `bytes` are. `None`: they are none, or a name stands twice in one, so that two
/// readers could take it for different things (RFC 7515 §4, RFC 7519 §4).
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Unambiguous(Value::Object(map))) => Some(map),
        _ => None,
    }
}

struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Unambiguous)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(value)) = from.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            let Unambiguous(value) = from.next_value()?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
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
    fn a_name_stands_once_at_any_depth() {
        assert!(object(br#"{"a":1,"b":{"a":[{"a":null}]}}"#).is_some());
        for twice in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":1,"\u0061":1}"#,
            br#"{"b":{"a":1,"a":2}}"#,
            br#"{"b":[[{"a":1,"a":2}]]}"#,
        ] {
            assert_eq!(object(twice), None, "{}", twice.escape_ascii());
        }
    }

    #[test]
    fn only_whole_objects_are_objects() {
        for bytes in [
            &b""[..],
            b"[]",
            b"1",
            b"{} {}",
            b"{}x",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1e999}",
            br#"{"a":"\ud800"}"#,
            b"{'a':1}",
            b"{\"a\":1,}",
        ] {
            assert_eq!(object(bytes), None, "{}", bytes.escape_ascii());
        }
        let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        assert_eq!(object(deep.as_bytes()), None, "nor do deep ones overflow the stack");
    }

    proptest! {
        #[test]
        fn it_reads_what_the_library_reads(text in r#"\{("[ab]":(-?[0-9.e]{1,4}|"[a-z\\n]{0,4}"|null|true|\[[0-9]?\]|\{\}),?){0,3}\}"#) {
            let theirs = serde_json::from_str::<Value>(&text);
            match (object(text.as_bytes()), theirs) {
                (Some(ours), Ok(Value::Object(theirs))) => prop_assert_eq!(ours, theirs),
                (None, Ok(theirs)) => {
                    let names = ["\"a\"", "\"b\""].map(|name| text.matches(name).count());
                    prop_assert!(names.iter().any(|count| *count > 1), "{}", theirs);
                }
                (ours, theirs) => prop_assert!(ours.is_none() && theirs.is_err()),
            }
        }
    }
}
