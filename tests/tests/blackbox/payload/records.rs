//! Bodies that are changed record by record while they stream.

use std::time::Duration;

use tests::origin::answer_with;
use tests::{Origin, Script, get};

use super::{encoded, gateway, post};

#[test]
fn events_are_changed_as_they_come() {
    let origin = Origin::start(|_| {
        Script::default()
            .send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1d\r\nid: 1\ndata: {\"a\":1.10,\"s\":1}\n\r\n",
            )
            .sleep(Duration::from_millis(20))
            .send("1\r\n\n\r\n")
            .sleep(Duration::from_secs(2))
            .send("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
    });
    let settings = "response_body: { from: sse, unreadable: pass, steps: [ remove: /s ] }, \
                    timeouts: { idle_ms: 10000 }";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    client.send(get("/"));
    let mut seen = Vec::new();
    let begun = std::time::Instant::now();
    let mut first = None;
    client
        .stream_to("GET", &mut |part| {
            seen.extend_from_slice(part);
            first.get_or_insert(begun.elapsed());
        })
        .expect("an answer");
    assert_eq!(String::from_utf8_lossy(&seen), "id: 1\ndata: {\"a\":1.10}\n\ndata: [DONE]\n\n");
    // Long before the end.
    assert!(first.is_some_and(|at| at < Duration::from_millis(1_500)), "{first:?}");
}

#[test]
fn lines_are_changed_both_ways() {
    let origin = Origin::start(|seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        answer_with("200 OK", "Content-Type: application/x-ndjson\r\n", &body)
    });
    let settings = "request_body: { from: ndjson, decode: true, max_bytes: 1000, steps: [ wrap: a ] }, \
                    response_body: { from: ndjson, steps: [ { defaults: { b: \"${request.method}\" } } ] }";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    let response = client.ask(post("application/x-ndjson", "", "1.10\n\n[2]"));
    assert_eq!(response.text(), "{\"a\":1.10,\"b\":\"POST\"}\n\n{\"a\":[2],\"b\":\"POST\"}\n");
    assert_eq!(origin.last().body, b"{\"a\":1.10}\n\n{\"a\":[2]}\n");
    let many: String = (1..=50_000).map(|n| format!("{n}12345678901234567890\n")).collect();
    let zipped = encoded("gzip", many.as_bytes());
    let response = client.ask(post("application/x-ndjson", "Content-Encoding: gzip\r\n", &zipped));
    assert_eq!(response.text().lines().count(), 50_000);
    assert!(response.text().starts_with("{\"a\":112345678901234567890,\"b\":\"POST\"}\n"));
    // A record that is too long, or none, ends the request.
    let response =
        gateway.ask(post("application/x-ndjson", "", format!("1\n\"{}\"\n", "x".repeat(2_000))));
    assert_eq!(response.status, 413);
    let response = gateway.ask(post("application/x-ndjson", "", "1\nnope\n"));
    assert_eq!(response.status, 400);
}
