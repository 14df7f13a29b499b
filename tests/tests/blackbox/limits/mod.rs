//! How much callers may ask for, as they see it. What limits let through under load and faults is
//! measured by tests of their own (`tests/limits/`).

mod costs;
mod nodes;
mod rules;
mod scopes;
mod tell;

use tests::spec::Spec;
use tests::{Gateway, Origin, Response};

/// One route for everything, to which all of `limits` hold; each is a policy without its name's quotes,
/// such as `{ name: few, requests: 3, per: 1h }`.
fn spec(origin: &Origin, limits: &[&str]) -> Spec {
    Spec::to(origin.address()).also(&entry(limits)).route(&format!("limits: [ {} ]", names(limits)))
}

/// The spec's `limits`.
fn entry(limits: &[&str]) -> String {
    let lines = limits.iter().map(|limit| format!("\n  - {limit}"));
    format!("limits:{}", lines.collect::<String>())
}

fn names(limits: &[&str]) -> String {
    let name = |limit: &&str| {
        let (_, rest) = limit.split_once("name: ").expect("a name");
        rest.split([',', ' ']).next().unwrap_or_default().to_owned()
    };
    limits.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn ask(gateway: &Gateway, target: &str, fields: &str) -> Response {
    gateway.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

/// Asks `times`; how many were let in. Others must be told that it was too much.
#[track_caller]
fn let_in(gateway: &Gateway, target: &str, fields: &str, times: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..times {
        let response = ask(gateway, target, fields);
        match response.status {
            200 => admitted += 1,
            _ => limited(&response),
        }
    }
    admitted
}

/// Asserts that this says 429, as documented.
#[track_caller]
fn limited(response: &Response) {
    assert_eq!(response.status, 429, "{:?}", response.head);
    assert_eq!(response.problem().as_deref(), Ok("rate_limited"));
}
