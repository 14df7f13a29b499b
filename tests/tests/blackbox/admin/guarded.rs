//! What the admin listener does with requests that are none of its.

use tests::{Client, Gateway, Origin};

use super::{call, problem};

#[test]
fn every_refusal_is_a_problem() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let gateway = Gateway::front(&origin);
    problem(&call(&gateway, "", ("GET", "/v1/nothing"), &[], ""), 404);
    problem(&call(&gateway, "", ("GET", "/"), &[], ""), 404);
    let answer = call(&gateway, "", ("DELETE", "/v1/spec"), &[], "");
    problem(&answer, 405);
    assert!(answer.field("allow").is_some_and(|field| field.contains("GET")), "{answer:?}");
    problem(&call(&gateway, "", ("POST", "/v1/explain"), &[], "{"), 400);
    problem(&call(&gateway, "", ("POST", "/v1/explain"), &["Content-Type: image/png"], "{}"), 415);
    problem(&call(&gateway, "", ("POST", "/v1/apply"), &["If-Match: x"], "{}"), 400);
    problem(&call(&gateway, "", ("POST", "/v1/apply?dry_run=maybe"), &[], "{}"), 400);
    problem(&call(&gateway, "", ("GET", "/v1/revisions/x"), &[], ""), 400);
    problem(&call(&gateway, "", ("GET", "/v1/revisions/99"), &[], ""), 404);
    problem(&call(&gateway, "", ("GET", "/v1/spec"), &["Origin: http://localhost"], ""), 403);
    let long = format!("Idempotency-Key: {}", "k".repeat(300));
    problem(&call(&gateway, "", ("POST", "/v1/rollback"), &[&long], ""), 400);
    // Announced, not sent: it is refused at once.
    let address = gateway.admin_address();
    let mut client = Client::connect(address.parse().unwrap());
    client.send(format!(
        "POST /v1/apply HTTP/1.1\r\nHost: {address}\r\nContent-Length: 99999999\r\n\r\n"
    ));
    problem(&client.response().unwrap(), 413);
}
