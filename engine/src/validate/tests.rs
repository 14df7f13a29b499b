//! Whole requests against an API.

use contract::snapshot::Validation;
use proptest::prelude::*;

use super::api::{Api, Schemas};
use super::schema::{Memory, Schema};
use super::*;
use crate::message::{HeadLimits, Progress, RequestHead};

fn api() -> Api {
    let (from, validation) = fuzz::things();
    let memory = Memory::default();
    Api::build(&from, &Schemas { from: &validation, memory: &memory }).unwrap()
}

/// What is wrong with the parameters of `GET target` with these fields, as `in pointer: message`.
fn faults(target: &str, fields: &str) -> Vec<String> {
    let (api, text) = (api(), format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let mut head = RequestHead::new();
    assert_eq!(head.parse(text.as_bytes(), &HeadLimits::REQUEST), Ok(Progress::Complete));
    let found = api.find(b"GET", head.path(text.as_bytes()));
    let found = found.unwrap_or_else(|missing| panic!("{target}: {missing:?}"));
    let mut faults = Faults::default();
    parameter::judge(&found, &head, text.as_bytes(), &mut faults);
    let told = |fault: &Fault| {
        let place = serde_json::to_string(&fault.place).unwrap();
        format!("{} {}: {}", place.trim_matches('"'), fault.pointer, fault.message)
    };
    faults.into_list().iter().map(told).collect()
}

#[test]
fn parameters_of_every_form_are_read() {
    let none: [String; 0] = [];
    assert_eq!(faults("/things/7?limit=5", ""), none);
    assert_eq!(
        faults("/things/7?limit=5&any=7&tag=a&tag=b&ids=1,2&p=a%7Cb&f%5Bname%5D=a", ""),
        none
    );
    assert_eq!(
        faults("/things/7?limit=%35&f%5Bname%5D=a&f%5Bsize%5D=9&j=%7B%22name%22:%22a%22%7D", ""),
        none
    );
    assert_eq!(faults("/things/7?limit=5", "X-Ids: 1, 2\r\nCookie: a=b; s=true\r\n"), none);

    let one = |target: &str, fields: &str| -> String {
        let list = faults(target, fields);
        assert_eq!(list.len(), 1, "{target} {fields} {list:?}");
        list.into_iter().next().unwrap()
    };
    assert_eq!(one("/things/7", ""), "query /limit: it is required");
    assert_eq!(one("/things/x?limit=5", ""), "path /id: value is not of type \"integer\"");
    assert_eq!(one("/things/7?limit=5&limit=6", ""), "query /limit: it is there more than once");
    assert!(one("/things/7?limit=101", "").contains("/limit: value is greater than"));
    for (query, at) in [
        ("any=x", "/any"),
        ("tag=a&tag=b&tag=c", "/tag"),
        ("ids=1,2,3", "/ids"),
        ("p=a%7Cb%7Cc", "/p"),
        ("f%5Bsize%5D=9", "/f"),
        ("f%5Bname%5D=a&f%5Bsize%5D=x", "/f/size"),
        ("f%5Bname%5D=a&f%5Bname%5D=b", "/f"),
        ("j=%7B", "/j"),
        ("tag=%ff", "/tag"),
    ] {
        let fault = one(&format!("/things/7?limit=5&{query}"), "");
        assert!(fault.starts_with(&format!("query {at}: ")), "{query}: {fault}");
    }
    // Three parts, over two lines.
    assert!(one("/things/7?limit=5", "X-Ids: 1\r\nX-Ids: 2,3\r\n").starts_with("header /x-ids:"));
    assert!(one("/things/7?limit=5", "Cookie: s=1\r\n").starts_with("cookie /s:"));
}

#[test]
fn what_is_wrong_is_said_without_the_value() {
    let schema = Schema::build(
        r#"{"type":"object","properties":{"id":{},"pin":{"type":"integer"},"mail":{"format":"email","type":"string"},
            "kind":{"enum":["a"]},"list":{"items":{"type":"string","maxLength":2}}},"required":["id"],
            "additionalProperties":false}"#,
    )
    .unwrap();
    let secret = "s3cr3t-value";
    let body = format!(
        r#"{{"pin":"{secret}","mail":"{secret}","kind":"{secret}","list":["{secret}"],"other":"{secret}"}}"#
    );
    let list = compare(&schema, body.as_bytes()).into_list();
    let told = serde_json::to_string(&list).unwrap();
    assert!(!told.contains("s3cr3t"), "{told}");
    let at: Vec<&str> = list.iter().map(|fault| &*fault.pointer).collect();
    for pointer in ["/pin", "/mail", "/kind", "/list/0", ""] {
        assert!(at.contains(&pointer), "{pointer} in {told}");
    }
    assert_eq!(compare(&schema, b"{\"id\":1}").into_list(), []);
}

#[test]
fn schemas_that_refer_to_themselves_end() {
    for text in [
        r##"{"$ref":"#"}"##,
        r##"{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}"##,
        r##"{"not":{"$ref":"#"}}"##,
    ] {
        if let Ok(schema) = Schema::build(text) {
            compare(&schema, b"{\"a\":[1]}");
        }
    }
    // Nothing is fetched, from nowhere.
    for reference in ["https://example.com/a.json", "file:///etc/passwd", "other.json"] {
        assert!(Schema::build(&format!(r#"{{"$ref":"{reference}"}}"#)).is_err(), "{reference}");
    }
}

#[test]
fn patterns_cannot_be_made_to_take_forever() {
    let evil = |pattern: &str| {
        let text = serde_json::json!({"type": "string", "pattern": pattern}).to_string();
        let schema = Schema::build(&text).unwrap();
        let body = format!("\"{}!\"", "a".repeat(10_000));
        assert!(!compare(&schema, body.as_bytes()).is_empty(), "{pattern}");
    };
    evil("^(a+)+$");
    evil("^(?=(a+)+b)(a|a?)+$");
}

#[test]
fn equal_schemas_are_compiled_once() {
    let memory = Memory::default();
    let one = memory.schema("{\"type\":\"string\"}").unwrap();
    let again = memory.schema("{\"type\":\"string\"}").unwrap();
    assert!(Arc::ptr_eq(&one, &again));
    drop((one, again));
    memory.sweep();
    assert!(memory.schema("{\"type\":1}").is_err());
    let (from, _) = fuzz::things();
    let none = Validation::default();
    assert!(Api::build(&from, &Schemas { from: &none, memory: &memory }).is_err());
}

proptest! {
    #[test]
    fn no_request_is_too_odd(
        query in "[a-z\\[\\]=&%0-9+,|]{0,60}",
        path in "/things/[a-z0-9.%/]{0,12}",
        body in "[\\[\\]{}:,\"a-z0-9.\\-]{0,60}",
    ) {
        fuzz_validate(format!("GET {path}?{query} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        fuzz_validate(body.as_bytes());
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_validate(&bytes);
    }
}
