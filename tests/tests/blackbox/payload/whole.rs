//! Bodies that are read whole.

use tests::http2::H2Client;
use tests::http2::client::request;
use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Gateway, Origin, get};

use super::{decoded, encoded, gateway, post};

const JSON: &str = "application/json";

/// Answers with the request's body, as its type.
fn mirror() -> Origin {
    Origin::start(|seen| {
        let content_type = seen.field("content-type").unwrap_or("text/plain").to_string();
        let body = String::from_utf8_lossy(&seen.body);
        answer_with("200 OK", &format!("Content-Type: {content_type}\r\nETag: \"1\"\r\n"), &body)
    })
}

#[test]
fn requests_are_changed_and_what_is_not_touched_stays() {
    let origin = mirror();
    let gateway = gateway(
        &origin,
        "request_body: { steps: [ remove: /secret, { add: { at: /meta/by, value: \"${query.id}\" } }, \
         { move: { from: /items/*/meta/sku, to: /items/*/sku } }, { rename: { at: /a, name: b } }, \
         { defaults: { currency: EUR, meta: { v: 1 } } } ] }",
    );
    let body = r#"{"z": 1234567890123456789012, "price": 1.10, "secret": 1, "a": "\u00e9",
        "items": [{"meta": {"sku": "x"}}, {}]}"#;
    let mut client = gateway.connect();
    let response = client.ask(post(JSON, "Content-MD5: x\r\n", body));
    let want = r#"{"z":1234567890123456789012,"price":1.10,"b":"\u00e9","items":[{"meta":{},"sku":"x"},{}],"meta":{"by":"7","v":1},"currency":"EUR"}"#;
    assert_eq!(response.text(), want);
    let seen = origin.last();
    assert_eq!(seen.field("content-length"), Some(want.len().to_string().as_str()));
    assert_eq!(seen.field("content-md5"), None);
    // Other types, and what has no body, are not looked at; chunks are as good as a length.
    assert_eq!(client.ask(post("text/plain", "", "{\"secret\":1}")).text(), "{\"secret\":1}");
    assert_eq!(client.ask(get("/")).status, 200);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/problem+json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\n{\"sec\r\n8\r\nret\":1}\n\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunked).text(), r#"{"currency":"EUR","meta":{"v":1}}"#);
    // A large one is changed elsewhere.
    let long = format!("[{}1]", "{\"secret\":1},".repeat(20_000));
    assert_eq!(client.ask(post(JSON, "", &long)).text(), long);
    let long = format!("{{\"secret\":1,\"l\":{long}}}");
    let response = client.ask(post(JSON, "", &long));
    assert!(response.text().starts_with("{\"l\":[{\"secret\":1},"), "{}", response.status);
}

#[test]
fn what_is_no_json_or_too_large_is_refused() {
    let origin = mirror();
    let gateway = gateway(&origin, "request_body: { max_bytes: 100, steps: [ wrap: data ] }");
    let mut client = gateway.connect();
    let response = client.ask(post(JSON, "", "{\"a\": nope}"));
    assert_eq!((response.status, response.problem().as_deref()), (400, Ok("body_unusable")));
    assert!(response.text().contains("at byte 6"), "{}", response.text());
    let long = format!("\"{}\"", "x".repeat(100));
    assert_eq!(gateway.ask(post(JSON, "", &long)).status, 413);
    let response = client.ask(post(JSON, "Content-Encoding: gzip\r\n", encoded("gzip", b"{}")));
    assert_eq!((response.status, response.field("accept-encoding")), (415, Some("identity")));
    assert_eq!(client.ask(post(JSON, "", "{}")).text(), "{\"data\":{}}");
    assert_eq!(origin.completed(), 1);
}

#[test]
fn requests_are_decoded_and_bombs_are_not() {
    let origin = mirror();
    let gateway = gateway(&origin, "request_body: { decode: true, steps: [ remove: /a ] }");
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let fields = format!("Content-Encoding: {coding}\r\n");
        let response = gateway.ask(post(JSON, &fields, encoded(coding, b"{\"a\":1,\"b\":2}")));
        assert_eq!(response.text(), "{\"b\":2}", "{coding}");
        assert_eq!(origin.last().field("content-encoding"), None);
        let bomb = encoded(coding, &vec![b' '; 30 << 20]);
        let response = gateway.ask(post(JSON, &fields, &bomb[..bomb.len().min(1 << 20)]));
        assert_eq!(response.status, 413, "{coding}");
        let response = gateway.ask(post(JSON, &fields, "{}"));
        assert_eq!(response.status, 400, "{coding}");
    }
    let response = gateway.ask(post(JSON, "Content-Encoding: compress\r\n", "x"));
    assert_eq!(response.field("accept-encoding"), Some("gzip, deflate, br, zstd"));
}

#[test]
fn answers_are_changed_by_status_and_type() {
    let origin = Origin::start(|seen| {
        let body = r#"{"id":1,"password":"x","items":[{"p":1.10,"cost":2}]}"#;
        let fields = "Content-Type: application/json\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";
        let coding = seen.target.trim_start_matches('/');
        match coding {
            "error" => answer_with("500 No", fields, body),
            "html" => answer_with("200 OK", "Content-Type: text/html\r\n", body),
            "broken" => answer_with("200 OK", fields, "{\"password\":1"),
            "part" => answer_with("206 Part", fields, body),
            "gzip" | "br" | "zstd" | "deflate" => {
                let body = encoded(coding, body.as_bytes());
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{fields}Content-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                tests::Script::default().send([head.as_bytes(), &body].concat())
            }
            _ => answer_with("200 OK", fields, body),
        }
    });
    let settings = "response_body: [ { statuses: [ 200-299 ], steps: [ allow: [ id, items.p ], \
                    { template: { data: \"${body}\", by: \"${request.method} ${response.status}\" } } ] }, \
                    { steps: [ { template: { error: \"${response.status}\" } } ] } ]";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    let want = r#"{"by":"GET 200","data":{"id":1,"items":[{"p":1.10}]}}"#;
    for target in ["/", "/gzip", "/br", "/zstd", "/deflate"] {
        let response = client.ask(get(target));
        assert_eq!(response.text(), want, "{target}");
        assert_eq!(response.field("etag"), Some("W/\"v1\""));
        assert_eq!(response.field("content-encoding"), None);
        assert_eq!(response.field("accept-ranges"), None);
    }
    assert_eq!(client.ask(get("/error")).text(), "{\"error\":500}");
    assert!(client.ask(get("/html")).text().contains("password"));
    // What cannot be read is not let through.
    for target in ["/broken", "/part"] {
        let response = client.ask(get(target));
        assert_eq!((response.status, response.problem().as_deref()), (502, Ok("answer_unusable")));
    }
    // A part of a body would be another way round the rules.
    client.ask("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\nAccept-Encoding: br, dcb\r\n\r\n");
    assert_eq!(origin.last().field("range"), None);
    assert_eq!(origin.last().field("accept-encoding"), Some("br"));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response_to("HEAD").expect("an answer");
    assert_eq!(
        (response.field("content-length"), response.field("etag")),
        (None, Some("W/\"v1\""))
    );
}

#[test]
fn forms_and_xml_are_json() {
    let origin = mirror();
    let to_json = "request_body: [ { from: form, to: json, steps: [ { add: { at: /n, value: 1 } } ] }, \
                   { from: xml, arrays: [ order.item ] }, { to: form } ]";
    let gateway = gateway(&origin, to_json);
    let mut client = gateway.connect();
    let response = client.ask(post("application/x-www-form-urlencoded", "", "a=1&b=x+y&b=%C3%A9"));
    assert_eq!(response.text(), r#"{"a":"1","b":["x y","é"],"n":1}"#);
    assert_eq!(response.field("content-type"), Some(JSON));
    let xml = "<?xml version=\"1.0\"?><order id='7'><item>a</item></order>";
    let response = client.ask(post("text/xml; charset=utf-8", "", xml));
    assert_eq!(response.text(), r#"{"order":{"@id":"7","item":["a"]}}"#);
    let bomb = "<!DOCTYPE a [<!ENTITY x 'xx'>]><a>&x;</a>";
    assert_eq!(client.ask(post("text/xml", "", bomb)).status, 400);
    let response = client.ask(post(JSON, "", r#"{"a":1.10,"l":[1,"é"]}"#));
    assert_eq!(response.text(), "a=1.10&l=1&l=%C3%A9");
    assert_eq!(client.ask(post(JSON, "", "[1]")).status, 400);
}

#[test]
fn what_cannot_be_read_may_pass() {
    let origin = mirror();
    let settings = "request_body: { unreadable: pass, steps: [ wrap: a ] }, \
                    response_body: { unreadable: pass, steps: [ wrap: b ] }";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    assert_eq!(client.ask(post(JSON, "", "not json")).text(), "not json");
    assert_eq!(client.ask(post(JSON, "", "1")).text(), r#"{"b":{"a":1}}"#);
    let body = encoded("gzip", b"1");
    assert_eq!(client.ask(post(JSON, "Content-Encoding: gzip\r\n", &body)).status, 200);
    assert_eq!(origin.last().body, body);
}

#[test]
fn bodies_are_changed_over_http2_too() {
    let origin = mirror();
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .route("request_body: { steps: [ wrap: a ] }, response_body: { steps: [ wrap: b ] }");
    let gateway = Gateway::single(&spec);
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("POST", "/");
    fields.push(("content-type", JSON));
    let response = client.ask(&fields, b"[1.10]");
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"b":{"a":[1.10]}}"#));
}

#[test]
fn rules_that_cannot_be_are_refused_with_their_place() {
    let origin = Origin::echo();
    let mut gateway = Gateway::front(&origin);
    for (settings, place, why) in [
        (
            "request_body: { steps: [ remove: a ] }",
            "request_body[0].steps[0].remove",
            "begins with `/`",
        ),
        (
            "request_body: { steps: [ remove: \"\" ] }",
            "request_body[0].steps[0].remove",
            "part of the body",
        ),
        (
            "response_body: { steps: [ { move: { from: /a/*/b, to: /c } } ] }",
            "steps[0].move.to",
            "last `*`",
        ),
        (
            "response_body: { steps: [ { move: { from: /a, to: /a/b } } ] }",
            "steps[0].move.to",
            "itself",
        ),
        ("response_body: { steps: [ allow: [ a..b ] ] }", "steps[0].allow", "dots between"),
        ("request_body: { steps: [ template: \"${nope.x}\" ] }", "steps[0].template", "nope"),
        (
            "request_body: { steps: [ template: \"${response.status}\" ] }",
            "steps[0].template",
            "response",
        ),
        ("response_body: { steps: [ jq: \".a |\" ] }", "steps[0].jq", "expected"),
        ("response_body: { steps: [ jq: \"env.HOME\" ] }", "steps[0].jq", "env"),
        ("response_body: { from: sse, steps: [ jq: \".a\" ] }", "steps[0].jq", "stream"),
        ("response_body: { from: ndjson, to: json }", "response_body[0].to", "ndjson"),
        ("response_body: { content_types: [ JSON ] }", "content_types[0]", "media type"),
    ] {
        let spec = Spec::to(origin.address()).route(settings);
        let (status, text) = gateway.try_apply(&spec.text());
        assert!(status >= 400 && text.contains(place) && text.contains(why), "{settings}: {text}");
    }
}

/// The cache keeps what the upstream has sent; rules see each answer that leaves.
#[test]
fn answers_from_the_cache_are_changed_like_others() {
    let origin = Origin::start(|_| {
        let fields =
            "Content-Type: application/json\r\nCache-Control: max-age=60\r\nETag: \"v1\"\r\n";
        answer_with("200 OK", fields, r#"{"id":1,"password":"x"}"#)
    });
    let gateway = gateway(&origin, "cache: {}, response_body: { steps: [ deny: [ password ] ] }");
    let mut client = gateway.connect();
    for fields in ["", "", "Range: bytes=0-5\r\n"] {
        let response = client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!((response.status, response.text().as_str()), (200, "{\"id\":1}"), "{fields}");
    }
    assert_eq!(origin.completed(), 1);
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: W/\"v1\"\r\n\r\n";
    assert_eq!(client.ask(asked).status, 304);
}

#[test]
fn what_was_validated_is_changed_after_that() {
    let origin = mirror();
    let settings = "validate: { body: { schema: { type: object, required: [ a ] } } }, \
                    request_body: { steps: [ rename: { at: /a, name: b } ] }, compress: true";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    assert_eq!(client.ask(post(JSON, "", "{\"b\":1}")).status, 400);
    assert_eq!(client.ask(post(JSON, "", "{\"a\":1}")).text(), "{\"b\":1}");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    let response = client.ask(post(JSON, "Accept-Encoding: gzip\r\n", &long));
    assert_eq!(decoded(&response), long.replace("\"a\"", "\"b\"").into_bytes());
}
