//! gRPC clients of a JSON service.

use serde_json::json;
use tests::Origin;
use tests::http2::H2Client;
use tests::message::values;
use tests::origin::{answer, answer_with};

use super::*;

fn call(client: &mut H2Client, method: &str, message: &[u8]) -> (tests::http2::Answer, u32) {
    let path = format!("/shop.v1.Shop/{method}");
    let mut fields = tests::http2::client::request("POST", &path);
    fields.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    let answer = client.ask(&fields, &frame(message));
    let all =
        [values(&answer.trailers, "grpc-status"), values(&answer.fields, "grpc-status")].concat();
    let status = all.first().and_then(|code| code.parse().ok()).expect("a status");
    (answer, status)
}

#[test]
fn calls_become_requests_and_json_answers() {
    let origin = Origin::start(|seen| match &*seen.target {
        "/v1/items/no" => {
            let fields = "Content-Type: application/json\r\n";
            answer_with("404 Not Found", fields, r#"{"message": "no such item"}"#)
        }
        "/v1/items/odd" => answer("<html>"),
        _ => answer(r#"{"name": "there", "count": "7"}"#),
    });
    let scratch = Scratch::new();
    scratch.file("shop.proto", PROTO);
    scratch.file("item.proto", ITEM);
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .route("transcode: { proto: shop, services: [shop.v1.Shop], to: json }")
        .also("protos: [{ name: shop, files: [\"{DIR}/shop.proto\"] }]");
    let gateway = Gateway::start_in(scratch, &spec.text(), 1);
    let mut client = H2Client::clear(gateway.address());
    let there = [text(1, "there"), number(2, 7)].concat();

    let message =
        [text(1, "items/a b"), number(2, 3), text(4, "x&y"), text(5, text(1, "p"))].concat();
    let (got, status) = call(&mut client, "Get", &message);
    assert_eq!((status, got.body), (0, frame(&there)));
    let seen = origin.last();
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.target, "/v1/items/a%20b?count=3&part.name=p&tags=x%26y");

    let (_, status) = call(&mut client, "Put", &[text(1, "items/7"), number(3, 1)].concat());
    let seen = origin.last();
    assert_eq!((status, &*seen.method, &*seen.target), (0, "PUT", "/v1/items/7"));
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), json!({"size": "LARGE"}));
    assert_eq!(seen.field("content-type"), Some("application/json"));

    let (got, status) = call(&mut client, "Get", &text(1, "items/no"));
    assert_eq!((status, got.body.len()), (5, 0));
    assert_eq!(got.trailer("grpc-message"), Some("no such item"));
    // What is no JSON, a name that does not fit the path, a stream, an unknown method.
    assert_eq!(call(&mut client, "Get", &text(1, "items/odd")).1, 13);
    assert_eq!(call(&mut client, "Get", &text(1, "other/7")).1, 3);
    assert_eq!(call(&mut client, "Get", &text(1, "items/..")).1, 3);
    assert_eq!(call(&mut client, "List", b"").1, 12);
    assert_eq!(call(&mut client, "Nothing", b"").1, 12);
}
