//! An API key's record in Redis: a JSON text.

use std::sync::Arc;

use contract::snapshot::{is_redis_item, is_redis_word};
use serde_json::Value;

use crate::limits;

/// What Redis says of a key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Name of a consumer, whether the registry has it or not.
    pub consumer: Arc<str>,
    /// In place of the consumer's.
    pub groups: Option<Arc<[Box<str>]>>,
    /// In place of the consumer's. Sorted, none twice.
    pub scopes: Option<Arc<[Box<str>]>>,
    /// Name of a limit policy, in place of the consumer's.
    pub limits: Option<Arc<str>>,
    /// Milliseconds since the Unix epoch; `u64::MAX`: never.
    pub expires_ms: u64,
    /// The key's first characters.
    pub prefix: Option<Arc<str>>,
}

/// What is wrong with a record: the member, or all of it. Never its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Record {
    /// Reads a record. A member that this version does not know may narrow what the key is good for,
    /// so it makes the record unfit.
    ///
    /// # Errors
    /// It does not say who calls, or not in this form.
    pub fn parse(text: &[u8]) -> Result<Record, Malformed> {
        if text.len() > limits::KEY_RECORD {
            return Err(Malformed("it is too long"));
        }
        let Ok(Value::Object(members)) = serde_json::from_slice(text) else {
            return Err(Malformed("it is no JSON object"));
        };
        let mut record = Record { expires_ms: u64::MAX, ..Record::default() };
        for (name, value) in members {
            // `null` is as good as nothing.
            if value.is_null() {
                continue;
            }
            match &*name {
                "consumer" => record.consumer = word(value).ok_or(Malformed("consumer"))?,
                "groups" => record.groups = Some(words(value, false).ok_or(Malformed("groups"))?),
                "scopes" => record.scopes = Some(words(value, true).ok_or(Malformed("scopes"))?),
                "limits" => record.limits = Some(word(value).ok_or(Malformed("limits"))?),
                "prefix" => record.prefix = Some(word(value).ok_or(Malformed("prefix"))?),
                "expires_ms" => {
                    let at_ms = value.as_u64().filter(|at_ms| *at_ms > 0);
                    record.expires_ms = at_ms.ok_or(Malformed("expires_ms"))?;
                }
                _ => return Err(Malformed("it has a member that is not known")),
            }
        }
        if record.consumer.is_empty() {
            return Err(Malformed("consumer"));
        }
        Ok(record)
    }
}

fn word(value: Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) if is_redis_word(&text) => Some(text.into()),
        _ => None,
    }
}

fn words(value: Value, sorted: bool) -> Option<Arc<[Box<str>]>> {
    let Value::Array(values) = value else { return None };
    let mut words = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::String(text) if is_redis_item(&text) => words.push(text.into_boxed_str()),
            _ => return None,
        }
    }
    if sorted {
        words.sort_unstable();
        words.dedup();
    }
    Some(words.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(list: &[&str]) -> Option<Arc<[Box<str>]>> {
        Some(list.iter().map(|text| Box::from(*text)).collect())
    }

    #[test]
    fn a_record_says_who_calls_and_what_differs() {
        let record = Record::parse(
            br#"{"consumer":"acme","groups":["gold","eu"],"scopes":["b","a","b"],"limits":"fast",
                "expires_ms":1700000000000,"prefix":"slk_ab12"}"#,
        );
        let wanted = Record {
            consumer: "acme".into(),
            groups: texts(&["gold", "eu"]),
            scopes: texts(&["a", "b"]),
            limits: Some("fast".into()),
            expires_ms: 1_700_000_000_000,
            prefix: Some("slk_ab12".into()),
        };
        assert_eq!(record, Ok(wanted));
        let least = Record::parse(br#"{"consumer":"acme","scopes":null}"#).unwrap();
        assert_eq!((least.scopes, least.expires_ms), (None, u64::MAX));
        assert_eq!(Record::parse(br#"{"consumer":"a","scopes":[]}"#).unwrap().scopes, texts(&[]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (text, wrong) in [
            (&b""[..], "it is no JSON object"),
            (b"acme", "it is no JSON object"),
            (b"[]", "it is no JSON object"),
            (b"{}", "consumer"),
            (br#"{"consumer":""}"#, "consumer"),
            (br#"{"consumer":7}"#, "consumer"),
            (b"{\"consumer\":\"a\\r\\nX-Admin: 1\"}", "consumer"),
            (br#"{"consumer":" a"}"#, "consumer"),
            (br#"{"consumer":"a","scope":"read"}"#, "it has a member that is not known"),
            (br#"{"consumer":"a","scopes":"read"}"#, "scopes"),
            (br#"{"consumer":"a","scopes":["read write"]}"#, "scopes"),
            (br#"{"consumer":"a","groups":["a,b"]}"#, "groups"),
            (br#"{"consumer":"a","groups":[null]}"#, "groups"),
            (br#"{"consumer":"a","expires_ms":-1}"#, "expires_ms"),
            (br#"{"consumer":"a","expires_ms":0}"#, "expires_ms"),
            (br#"{"consumer":"a","expires_ms":"soon"}"#, "expires_ms"),
            (br#"{"consumer":"a"} "#, ""),
        ] {
            let found = Record::parse(text);
            let found = found.err().map_or("", |Malformed(wrong)| wrong);
            assert_eq!(found, wrong, "{}", String::from_utf8_lossy(text));
        }
        let long = format!(r#"{{"consumer":"{}"}}"#, "a".repeat(257));
        assert_eq!(Record::parse(long.as_bytes()), Err(Malformed("consumer")));
        let long = " ".repeat(limits::KEY_RECORD + 1);
        assert_eq!(Record::parse(long.as_bytes()), Err(Malformed("it is too long")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(&bytes);
        }

        #[test]
        fn nothing_of_a_record_can_end_a_field(
            name in "[\\x00-\\x7f]{0,8}",
            group in "[\\x00-\\x7f]{0,8}",
        ) {
            let text = serde_json::json!({"consumer": name, "groups": [group]}).to_string();
            if let Ok(record) = Record::parse(text.as_bytes()) {
                let groups = record.groups.unwrap();
                let mut told = record.consumer.bytes().chain(groups.iter().flat_map(|g| g.bytes()));
                prop_assert!(told.all(|byte| !byte.is_ascii_control()));
            }
        }
    }
}
