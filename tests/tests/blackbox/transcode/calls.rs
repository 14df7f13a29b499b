//! Unary calls.

use std::time::Duration;

use serde_json::json;
use tests::http2::{H2Client, H2Origin, Reply};

use super::*;

#[test]
fn requests_become_messages_and_answers_json() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    for (line, body, expected) in [
        (
            "GET /v1/items/7?count=3&tags=a&tags=b&part.name=x",
            "",
            json!({
                "name": "items/7", "count": "3", "tags": ["a", "b"], "part": {"name": "x"}
            }),
        ),
        ("GET /v1/short/a%20b", "", json!("a b")),
        (
            "PUT /v1/items/7",
            r#"{"count": 9007199254740993, "size": "LARGE"}"#,
            json!({
                "name": "items/7", "count": "9007199254740993", "size": "LARGE"
            }),
        ),
        (
            "POST /v1/items/7:sell?count=1",
            r#"{"name": "p"}"#,
            json!({
                "name": "items/7", "count": "1", "part": {"name": "p"}
            }),
        ),
    ] {
        let response = client.ask(request(line, "", body));
        assert_eq!((response.status, json(&response)), (200, expected), "{line}");
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.field("grpc-status"), None);
    }
    let seen = origin.last();
    assert_eq!((seen.method(), seen.path()), ("POST", "/shop.v1.Shop/Sell"));
    assert_eq!(seen.field("te"), Some("trailers"));
    assert_eq!(seen.field("content-type"), Some("application/grpc"));
    assert_eq!(seen.field("x-original-path"), Some("/v1/items/7:sell"));
    assert_eq!(seen.field("x-original-method"), Some("POST"));
    // HEAD is a GET without its body.
    let head =
        gateway.connect().send(request("HEAD /v1/items/7", "", "")).response_to("HEAD").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A client of gRPC is served as it is.
    let mut client = H2Client::clear(gateway.address());
    let mut fields = tests::http2::client::request("POST", "/shop.v1.Shop/Plain");
    fields.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    let answer = client.ask(&fields, &frame(text(1, "x")));
    assert_eq!((answer.body, answer.trailers[0].1.as_str()), (frame(text(1, "x")), "0"));
    // And one of HTTP/2 in JSON.
    let fields = tests::http2::client::request("GET", "/v1/items/8");
    let answer = client.ask(&fields, b"");
    assert_eq!((answer.status, answer.text()), (200, r#"{"name":"items/8"}"#.into()));
}

#[test]
fn what_is_no_call_is_refused_as_a_problem() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, ", max_request_bytes: 1KiB");
    let mut client = gateway.connect();
    let large = format!(r#"{{"tags": ["{}"]}}"#, "x".repeat(2_000));
    for (line, body, status, reason) in [
        ("GET /v1/nothing", "", 404, "no_binding"),
        ("GET /shop.v1.Shop/Plain", "", 404, "no_binding"),
        ("DELETE /v1/items/7", "", 405, "no_binding"),
        ("GET /v1/items/7?nothing=1", "", 400, "not_valid"),
        ("GET /v1/items/7?count=x", "", 400, "not_valid"),
        ("PUT /v1/items/7", r#"{"nothing": 1}"#, 400, "body_unusable"),
        ("PUT /v1/items/7", r#"{"count": "#, 400, "body_unusable"),
        ("PUT /v1/items/7", &large, 413, "body_too_large"),
        ("GET /v1/items/7", "{}", 400, "body_unusable"),
    ] {
        let mut own = gateway.connect();
        let response = own.ask(request(line, "", body));
        assert_eq!(response.status, status, "{line} {}", response.text());
        assert_eq!(response.problem().as_deref(), Ok(reason), "{line}");
    }
    let response = client.ask(request("DELETE /v1/items/7", "", ""));
    let allow = response.field("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
    let form = "PUT /v1/items/7 HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                Content-Length: 3\r\n\r\na=b";
    assert_eq!(gateway.connect().ask(form).status, 415);
    let response = client.ask(request("PUT /v1/items/7", "", r#"{"part": {"count": "secret"}}"#));
    let error = &json(&response)["errors"][0];
    assert_eq!((&error["in"], &error["pointer"]), (&json!("body"), &json!("/part/count")));
    assert!(!response.text().contains("secret"), "{}", response.text());
    assert_eq!(origin.count(), 0);
}

#[test]
fn statuses_become_http_statuses_with_their_details() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    let response = client.ask(request("GET /v1/fail/1", "", ""));
    assert_eq!(response.status, 404);
    assert_eq!(
        json(&response),
        json!({
            "code": 5,
            "message": "no such thing",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "name", "description": "is empty"}]
                },
                {"@type": "type.googleapis.com/no.Such", "value": "AQI="}
            ]
        })
    );
    let quiet = super::gateway(&origin, ", status_details: false");
    let response = quiet.ask(request("GET /v1/fail/1", "", ""));
    assert_eq!(json(&response)["details"], json!([]));
}

#[test]
fn deadlines_are_told_and_kept() {
    let origin = H2Origin::clear(serve).lenient();
    let route = "timeouts: { total_ms: 700 }, transcode: { proto: shop, services: [shop.v1.Shop] }";
    let gateway = started(&origin, route);
    let response = gateway.ask(request("GET /v1/late", "", ""));
    assert_eq!(response.status, 504, "{}", response.text());
    let told = origin.last().field("grpc-timeout").map(String::from).expect("a deadline");
    let ms: u64 = told.strip_suffix('m').and_then(|ms| ms.parse().ok()).expect("milliseconds");
    assert!((1..=700).contains(&ms), "{told}");
    let response = gateway.ask(request("GET /v1/late", "grpc-timeout: 200m\r\n", ""));
    assert_eq!(response.status, 504, "{}", response.text());
    let told = origin.last().field("grpc-timeout").map(String::from).expect("a deadline");
    let ms: u64 = told.strip_suffix('m').and_then(|ms| ms.parse().ok()).expect("milliseconds");
    assert!((1..=200).contains(&ms), "{told}");
}

#[test]
fn raw_bodies_pass_as_they_are() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    let response = gateway.ask(
        "POST /v1/raw HTTP/1.1\r\nHost: a\r\nContent-Type: image/x\r\nContent-Length: 4\r\n\r\n\u{1}{]\"",
    );
    assert_eq!((response.status, response.field("content-type")), (200, Some("image/x")));
    assert_eq!(response.body, b"\x01{]\"");
    let response = gateway.ask(request("GET /v1/download", "", ""));
    assert_eq!((response.status, response.field("content-type")), (200, Some("text/plain")));
    assert_eq!(response.text(), "first second");
}

#[test]
fn answers_that_are_none_are_told_apart() {
    let origin = H2Origin::clear(|seen| {
        let grpc = Reply::default().request().head(OK);
        let name = seen.field("x-case").unwrap_or_default();
        match name {
            "html" => Reply::default()
                .request()
                .head(&[(":status", "502"), ("content-type", "text/html")])
                .data("<html>")
                .end(),
            "json" => Reply::ok("{}"),
            "compressed" => grpc.data([1, 0, 0, 0, 0]).last(END),
            "two" => grpc.data([frame(""), frame("")].concat()).last(END),
            "none" => grpc.last(END),
            "broken" => grpc.data(frame([0xff])).last(END),
            "large" => grpc.data(frame(text(1, "x".repeat(3_000)))).last(END),
            "silent" => grpc.data(frame("")).end(),
            _ => grpc.data(frame("")).last(END),
        }
    });
    let gateway = gateway(&origin, ", max_response_bytes: 2KiB");
    for (case, status, code) in [
        ("html", 502, 14),
        ("json", 500, 2),
        ("compressed", 502, 13),
        ("two", 502, 13),
        ("none", 502, 13),
        ("broken", 502, 13),
        ("silent", 500, 2),
    ] {
        let response = gateway.ask(request("GET /v1/items/7", &format!("X-Case: {case}\r\n"), ""));
        assert_eq!(response.status, status, "{case}: {}", response.text());
        assert_eq!(json(&response)["code"], code, "{case}: {}", response.text());
    }
    let response = gateway.ask(request("GET /v1/items/7", "X-Case: large\r\n", ""));
    assert_eq!((response.status, response.problem().as_deref()), (502, Ok("answer_too_large")));
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn print_options_hold() {
    let origin = H2Origin::clear(serve);
    let print = "{ always_print_primitive_fields: true, enums_as_ints: true, whitespace: true }";
    let gateway = gateway(&origin, &format!(", auto_mapping: true, print: {print}"));
    let response = gateway.ask(request("POST /shop.v1.Shop/Plain", "", r#"{"size": "LARGE"}"#));
    assert_eq!(
        response.text(),
        "{\n  \"name\": \"\",\n  \"count\": \"0\",\n  \"size\": 1,\n  \"tags\": []\n}"
    );
}
