//! What processors say becomes edits, and nothing that they may not.

use proptest::prelude::*;
use prost::Message;

use super::wire::{BoolValue, HeaderValueOption, PhaseResponse, ProcessingResponse};
use super::*;
use std::slice::from_ref;

fn option(name: &str, value: &[u8], append: Option<bool>, action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.to_vec(), raw_value: vec![] }),
        append: append.map(|value| BoolValue { value }),
        append_action: action,
    }
}

fn edit(set: Vec<HeaderValueOption>, remove: &[&str], there: &[&str]) -> Edit {
    let remove_headers = remove.iter().map(|name| (*name).to_string()).collect();
    let mutation = HeaderMutation { set_headers: set, remove_headers };
    let mut edit = Edit::default();
    change_fields(&mut edit, &mutation, |name| {
        there.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name))
    });
    edit
}

fn fields(edit: &Edit) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    edit.fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn fields_are_set_added_and_removed_as_envoy_does() {
    let one = |append, action, there: &[&str]| {
        let edit = edit(vec![option("x-a", b"1", append, action)], &[], there);
        (edit.drops(b"X-A"), edit.fields.len())
    };
    // Not said: in place of what is there; behind it where that is asked for.
    assert_eq!(one(None, 0, &["x-a"]), (true, 1));
    assert_eq!(one(Some(false), 0, &["x-a"]), (true, 1));
    assert_eq!(one(Some(true), 0, &["x-a"]), (false, 1));
    assert_eq!(one(None, 1, &["X-A"]), (false, 0));
    assert_eq!(one(None, 1, &[]), (true, 1));
    assert_eq!(one(None, 2, &["x-a"]), (true, 1));
    assert_eq!(one(None, 3, &[]), (false, 0));
    assert_eq!(one(None, 3, &["x-a"]), (true, 1));
    let edit = edit(vec![option("x-b", b"2", None, 1)], &["x-b", "x-c"], &["x-b"]);
    assert!(edit.drops(b"x-b") && edit.drops(b"x-c"));
    assert_eq!(fields(&edit), [("x-b".into(), "2".into())], "removed first, and so absent");
}

#[test]
fn the_gateways_own_fields_are_not_to_be_changed() {
    for name in [
        "Content-Length",
        "transfer-encoding",
        "host",
        "via",
        "X-Forwarded-For",
        "x-consumer-id",
        "x-forwarded-client-cert",
        ":path",
        "",
        "a b",
        "x\r\ny",
    ] {
        let edit = edit(vec![option(name, b"1", None, 2)], &[name], &[]);
        assert_eq!(edit, Edit::default(), "{name:?}");
    }
    for value in [&b"a\r\nb"[..], b"a\0", b" a", b"a\x7f", b"a\n"] {
        assert_eq!(edit(vec![option("x-a", value, None, 2)], &[], &[]), Edit::default());
    }
}

fn framed(messages: &[ProcessingResponse]) -> Vec<u8> {
    let mut body = Vec::new();
    for message in messages {
        let bytes = message.encode_to_vec();
        body.push(0);
        body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        body.extend_from_slice(&bytes);
    }
    body
}

fn called(body: Vec<u8>, trailers: &[u8]) -> Called {
    Called { status: 200, body, trailers: trailers.to_vec(), ..Called::default() }
}

#[test]
fn a_call_must_say_as_much_as_it_was_asked() {
    let go = ProcessingResponse { told: Some(Told::RequestHeaders(PhaseResponse::default())) };
    let good = b"grpc-status: 0\r\n";
    let ok = |body, trailers: &[u8], phases| outcome(&called(body, trailers), phases).is_ok();
    assert!(ok(framed(from_ref(&go)), good, 1));
    assert!(ok(framed(&[go.clone(), go.clone()]), good, 2));
    assert!(!ok(framed(from_ref(&go)), good, 2), "half of it");
    assert!(!ok(framed(from_ref(&go)), b"grpc-status: 13\r\n", 1));
    assert!(!ok(framed(from_ref(&go)), b"", 1), "no status");
    assert!(!ok(framed(&[ProcessingResponse { told: None }]), good, 1));
    let mut cut = framed(from_ref(&go));
    cut.pop();
    assert!(!ok(cut, good, 1));
    let mut compressed = framed(&[go]);
    compressed[0] = 1;
    assert!(!ok(compressed, good, 1));
    // An answer counts whatever follows.
    let answer = ProcessingResponse { told: Some(Told::Immediate(ImmediateResponse::default())) };
    let said = outcome(&called(framed(&[answer]), b""), 2);
    assert!(matches!(said, Ok(Outcome::Answer(_))));
}

proptest! {
    #[test]
    fn any_answer_of_a_processor_is_read_or_refused(
        body in prop::collection::vec(any::<u8>(), 0..200),
        length in 0u32..200,
    ) {
        fuzz_processor(&body);
        let framed = [&[0][..], &length.to_be_bytes(), &body].concat();
        fuzz_processor(&framed);
    }

    #[test]
    fn whatever_is_set_is_a_valid_field(
        name in ".{0,12}",
        value in prop::collection::vec(any::<u8>(), 0..12),
        action in -1..5i32,
        append in any::<Option<bool>>(),
    ) {
        let edit = edit(vec![option(&name, &value, append, action)], &[&name], &[]);
        for (name, value) in &edit.fields {
            prop_assert!(is_name(name) && is_value(value) && is_free(name));
        }
    }
}
