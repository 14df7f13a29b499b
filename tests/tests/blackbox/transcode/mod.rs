//! JSON clients of gRPC services, and gRPC clients of JSON services.

mod calls;
mod descriptors;
mod reverse;
mod streams;

use serde_json::Value;
use tests::http2::{H2Origin, H2Seen, Reply};
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Gateway, Response};

const PROTO: &str = r#"syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "item.proto";

service Shop {
  rpc Get(Item) returns (Item) {
    option (google.api.http) = {
      get: "/v1/{name=items/*}"
      additional_bindings { get: "/v1/short/{name}" response_body: "name" }
    };
  }
  rpc Put(Item) returns (Item) {
    option (google.api.http) = { put: "/v1/{name=items/*}" body: "*" };
  }
  rpc Sell(Item) returns (Item) {
    option (google.api.http) = { post: "/v1/{name=items/*}:sell" body: "part" };
  }
  rpc Fail(Item) returns (Item) { option (google.api.http) = { get: "/v1/fail/{count}" }; }
  rpc Late(Item) returns (Item) { option (google.api.http) = { get: "/v1/late" }; }
  rpc Odd(Item) returns (Item) { option (google.api.http) = { get: "/v1/odd/{name}" }; }
  rpc List(Item) returns (stream Item) { option (google.api.http) = { get: "/v1/items" }; }
  rpc Send(stream Item) returns (Item) { option (google.api.http) = { post: "/v1/send" body: "*" }; }
  rpc Talk(stream Item) returns (stream Item) {
    option (google.api.http) = { post: "/v1/talk" body: "*" };
  }
  rpc Upload(google.api.HttpBody) returns (google.api.HttpBody) {
    option (google.api.http) = { post: "/v1/raw" body: "*" };
  }
  rpc Download(Item) returns (stream google.api.HttpBody) {
    option (google.api.http) = { get: "/v1/download" };
  }
  rpc Plain(Item) returns (Item);
}
"#;
const ITEM: &str = r#"syntax = "proto3";
package shop.v1;
message Item {
  string name = 1;
  int64 count = 2;
  Size size = 3;
  repeated string tags = 4;
  Item part = 5;
}
enum Size { SMALL = 0; LARGE = 1; }
"#;

/// A field of a message: text or bytes.
fn text(number: u8, text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = text.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(text);
    out
}

/// A field of a message: a small number.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn frame(message: impl AsRef<[u8]>) -> Vec<u8> {
    let message = message.as_ref();
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const END: &[(&str, &str)] = &[("grpc-status", "0")];

fn gateway(origin: &H2Origin, settings: &str) -> Gateway {
    started(origin, &format!("transcode: {{ proto: shop, services: [shop.v1.Shop]{settings} }}"))
}

fn started(origin: &H2Origin, route: &str) -> Gateway {
    let scratch = Scratch::new();
    scratch.file("shop.proto", PROTO);
    scratch.file("item.proto", ITEM);
    Gateway::start_in(scratch, &spec(origin, route).text(), 1)
}

fn spec(origin: &H2Origin, route: &str) -> Spec {
    Spec::to(origin.address())
        .listener("h2c: true")
        .upstream("protocol: http2")
        .route(route)
        .also("protos: [{ name: shop, files: [\"{DIR}/shop.proto\"] }]")
}

fn request(line: &str, fields: &str, body: &str) -> String {
    let length = match body.is_empty() {
        true => String::new(),
        false => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
    };
    format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}{length}\r\n{body}")
}

fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{error}: {}", response.text()))
}

/// What the service does.
fn serve(seen: &H2Seen) -> Reply {
    let method = seen.path().strip_prefix("/shop.v1.Shop/").unwrap_or_default();
    match method {
        // What was sent comes back.
        "Get" | "Put" | "Sell" | "Plain" => {
            Reply::default().request().head(OK).answer(<[u8]>::to_vec).last(END)
        }
        "Send" => Reply::default().request().head(OK).answer(counted).last(END),
        "Talk" => Reply::default().head(OK).echo(),
        "List" => {
            let mut reply = Reply::default().request().head(OK);
            for name in ["one", "two", "three"] {
                reply = reply.data(frame(text(1, name)));
            }
            match seen.field("x-fail") {
                Some(_) => reply.last(&[("grpc-status", "8"), ("grpc-message", "no%20more")]),
                None => reply.last(END),
            }
        }
        "Fail" => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "no%20such%20thing"),
            // google.rpc.Status of code 5 with a BadRequest and a type that nobody knows.
            (
                "grpc-status-details-bin",
                &tests::websocket::base64(
                    &[
                        number(1, 5),
                        text(2, "no such thing"),
                        text(
                            3,
                            [
                                text(1, "type.googleapis.com/google.rpc.BadRequest"),
                                text(2, text(1, [text(1, "name"), text(2, "is empty")].concat())),
                            ]
                            .concat(),
                        ),
                        text(3, [text(1, "type.googleapis.com/no.Such"), text(2, [1, 2])].concat()),
                    ]
                    .concat(),
                ),
            ),
        ]),
        "Late" => Reply::default().sleep(std::time::Duration::from_secs(60)),
        "Upload" => Reply::default().request().head(OK).answer(<[u8]>::to_vec).last(END),
        "Download" => Reply::default()
            .request()
            .head(OK)
            .data(frame([text(1, "text/plain"), text(2, "first ")].concat()))
            .data(frame(text(2, "second")))
            .last(END),
        _ => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
        ]),
    }
}

/// How many messages there were, as an item.
fn counted(mut body: &[u8]) -> Vec<u8> {
    let mut count = 0;
    while let Some(head) = body.first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        body = &body[5 + length..];
        count += 1;
    }
    frame(number(2, count))
}
