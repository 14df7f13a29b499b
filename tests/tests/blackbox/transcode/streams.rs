//! Streams of requests and answers.

use std::time::Duration;

use serde_json::json;
use tests::http2::{H2Client, H2Origin, Reply};
use tests::{Framing, PATIENCE};

use super::*;

#[test]
fn streams_of_answers_are_arrays_lines_or_events() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    let items = [json!({"name": "one"}), json!({"name": "two"}), json!({"name": "three"})];
    let response = gateway.ask(request("GET /v1/items", "", ""));
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(json(&response), json!(items));
    let response = gateway.ask(request("GET /v1/items", "Accept: application/x-ndjson\r\n", ""));
    assert_eq!(response.field("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, items);
    let response = gateway.ask(request("GET /v1/items", "Accept: text/event-stream\r\n", ""));
    assert_eq!(response.field("content-type"), Some("text/event-stream"));
    assert_eq!(
        response.text(),
        "data: {\"name\":\"one\"}\n\ndata: {\"name\":\"two\"}\n\ndata: {\"name\":\"three\"}\n\n"
    );
}

#[test]
fn errors_in_the_middle_of_a_stream_are_its_last_element() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    let error = json!({"code": 8, "message": "no more", "details": []});
    let response = gateway.ask(request("GET /v1/items", "X-Fail: 1\r\n", ""));
    assert_eq!((response.status, &json(&response)[3]), (200, &json!({"error": error})));
    let fields = "X-Fail: 1\r\nAccept: text/event-stream\r\n";
    let response = gateway.ask(request("GET /v1/items", fields, ""));
    assert!(
        response.text().ends_with(&format!("event: error\ndata: {error}\n\n")) || {
            let data = response.text();
            let data = data.rsplit("event: error\ndata: ").next().unwrap().trim().to_owned();
            serde_json::from_str::<Value>(&data).unwrap() == error
        }
    );
    // What breaks off says so, too.
    let origin = H2Origin::clear(|_| {
        Reply::default()
            .request()
            .head(OK)
            .data(frame(text(1, "one")))
            .sleep(Duration::from_millis(100))
            .reset(2)
    });
    let gateway = super::gateway(&origin, "");
    let response = gateway.ask(request("GET /v1/items", "", ""));
    let told = json(&response);
    assert_eq!((&told[0]["name"], &told[1]["error"]["code"]), (&json!("one"), &json!(14)));
    let origin = H2Origin::clear(|_| {
        Reply::default()
            .request()
            .head(OK)
            .data(frame(text(1, "one")))
            .data(frame([0xff]))
            .last(END)
    })
    .lenient();
    let gateway = super::gateway(&origin, ", streams: ndjson");
    let response = gateway.ask(request("GET /v1/items", "", ""));
    let text = response.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\"code\":13"), "{text}");
}

#[test]
fn messages_are_told_as_they_come() {
    let origin = H2Origin::clear(|_| {
        let mut reply = Reply::default().request().head(OK);
        for name in ["one", "two"] {
            reply = reply.data(frame(text(1, name))).sleep(Duration::from_secs(2));
        }
        reply.last(END)
    });
    let gateway = gateway(&origin, ", streams: ndjson");
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&tests::http2::client::request("GET", "/v1/items"), true);
    let first = client.until(Duration::from_millis(1_500), |client| {
        client.so_far(stream).text() == "{\"name\":\"one\"}\n"
    });
    assert!(first, "{:?}", client.so_far(stream));
    assert!(client.answer(stream).is_ok());
}

#[test]
fn streams_of_requests_go_on_as_they_come() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    for body in
        ["[{\"name\":\"a\"},{\"name\":\"b\"},{}]", "{\"name\":\"a\"}\n{\"name\":\"b\"}\n{}\n"]
    {
        let response = gateway.ask(request("POST /v1/send", "", body));
        assert_eq!((response.status, json(&response)), (200, json!({"count": "3"})), "{body}");
    }
    let response = gateway.ask(request("POST /v1/send", "", "[]"));
    assert_eq!(json(&response), json!({}), "{}", response.text());
    let response = gateway.ask(request("POST /v1/send", "", "[{\"name\":\"a\"},{\"name\":1}]"));
    assert_eq!(response.status, 400);
    assert_eq!(json(&response)["errors"][0]["pointer"], "/1/name");
    // Both ways at once: each message comes back before the next is sent.
    let mut client = H2Client::clear(gateway.address());
    let mut fields = tests::http2::client::request("POST", "/v1/talk");
    fields.extend([("content-type", "application/x-ndjson"), ("accept", "application/x-ndjson")]);
    let stream = client.begin(&fields, false);
    let mut sent = String::new();
    for n in 0..5 {
        let line = format!("{{\"name\":\"{n}\"}}\n");
        client.body(stream, line.as_bytes(), false).unwrap();
        sent.push_str(&line);
        let there = client.until(PATIENCE, |client| client.so_far(stream).text() == sent);
        assert!(there, "{n}: {:?}", client.so_far(stream));
    }
    client.body(stream, b"", true).unwrap();
    let answer = client.answer(stream).unwrap();
    // The echo ends without a status.
    assert!(answer.text().contains("\"error\""), "{answer:?}");
    // In chunks of HTTP/1, cut anywhere.
    let chunked = "POST /v1/send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\n[{\"na\r\n9\r\nme\":\"x\"},\r\n3\r\n{}]\r\n0\r\n\r\n";
    let response = gateway.ask(chunked);
    assert_eq!(json(&response), json!({"count": "2"}), "{}", response.text());
    let _ = Framing::None;
}
