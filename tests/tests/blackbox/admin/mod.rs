//! The admin API: single things, access, the audit log.

mod access;
mod entities;
mod guarded;

use serde_json::Value;
use tests::{Client, Gateway, Response};

/// A request to the admin listener; `fields` are whole lines.
#[track_caller]
pub fn call(
    gateway: &Gateway,
    token: &str,
    (method, path): (&str, &str),
    fields: &[&str],
    body: &str,
) -> Response {
    let address = gateway.admin_address();
    let mut client = Client::connect(address.parse().expect("an address"));
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !token.is_empty() {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    for field in fields {
        head.push_str(&format!("{field}\r\n"));
    }
    if !body.is_empty() && !fields.iter().any(|field| field.starts_with("Content-Type")) {
        head.push_str("Content-Type: application/json\r\n");
    }
    client.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    client.response_to(method).unwrap_or_else(|e| panic!("{method} {path}: {e:?}"))
}

#[track_caller]
pub fn json(answer: &Response) -> Value {
    serde_json::from_str(&answer.text())
        .unwrap_or_else(|e| panic!("no JSON ({e}): {}", answer.text()))
}

/// That an answer is a problem of this status, and its detail.
#[track_caller]
pub fn problem(answer: &Response, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    let document = json(answer);
    assert_eq!(document["status"], status);
    document["detail"].as_str().expect("a detail").to_owned()
}
