//! Answers compressed by negotiation.

use std::time::Duration;

use tests::origin::answer_with;
use tests::{Origin, Script};

use super::{decoded, encoded, gateway};

fn origin() -> Origin {
    Origin::start(|seen| {
        let long = "hello hello hello ".repeat(2_000);
        match seen.target.as_str() {
            "/small" => answer_with("200 OK", "Content-Type: text/plain\r\n", "hello"),
            "/png" => answer_with("200 OK", "Content-Type: image/png\r\n", &long),
            "/fixed" => {
                let fields =
                    "Content-Type: text/plain\r\nCache-Control: max-age=1, no-transform\r\n";
                answer_with("200 OK", fields, &long)
            }
            "/vary" => answer_with(
                "200 OK",
                "Content-Type: text/plain\r\nVary: accept-encoding\r\n",
                &long,
            ),
            "/coded" => {
                let body = encoded("gzip", long.as_bytes());
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                Script::default().send([head.as_bytes(), &body].concat())
            }
            _ => answer_with(
                "200 OK",
                "Content-Type: text/html; charset=utf-8\r\nETag: \"1\"\r\n",
                &long,
            ),
        }
    })
}

fn get(target: &str, accept: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n")
}

#[test]
fn clients_get_what_they_like_best() {
    let origin = origin();
    let gateway = gateway(&origin, "compress: true");
    let mut client = gateway.connect();
    let long = "hello hello hello ".repeat(2_000).into_bytes();
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("br, gzip", Some("br")),
        ("gzip;q=1, br;q=0.5", Some("gzip")),
        ("deflate", None),
        ("identity", None),
        ("", None),
        ("*", Some("zstd")),
        ("gzip;q=0", None),
    ] {
        let response = client.ask(get("/", accept));
        assert_eq!(response.field("content-encoding"), coding, "{accept}");
        assert_eq!(decoded(&response), long, "{accept}");
        assert_eq!(response.field("vary"), Some("Accept-Encoding"));
        let etag = if coding.is_some() { "W/\"1\"" } else { "\"1\"" };
        assert_eq!(response.field("etag"), Some(etag));
        assert!(coding.is_none() || response.body.len() < long.len() / 10);
    }
    for target in ["/small", "/png", "/fixed"] {
        assert_eq!(client.ask(get(target, "gzip")).field("content-encoding"), None, "{target}");
    }
    let response = client.ask(get("/coded", "gzip"));
    assert_eq!(decoded(&response), long);
    assert_eq!(client.ask(get("/vary", "gzip")).head.all("vary"), ["accept-encoding"]);
    let quiet =
        "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nCache-Control: no-transform\r\n\r\n";
    assert_eq!(client.ask(quiet).field("content-encoding"), None);
    client.send(get("/", "gzip").replacen("GET", "HEAD", 1));
    let response = client.response_to("HEAD").expect("an answer");
    assert_eq!(response.field("content-encoding"), Some("gzip"));
    assert_eq!(response.field("content-length"), None);
}

#[test]
fn changed_answers_are_compressed_after_that() {
    let origin = Origin::start(|_| {
        let items = format!("{{\"s\":1,\"l\":[{}1]}}", "1234567890123456789012,".repeat(5_000));
        answer_with("200 OK", "Content-Type: application/json\r\n", &items)
    });
    let settings = "response_body: { steps: [ remove: /s ] }, \
                    compress: { codings: [ br, gzip ], levels: { br: 1 } }";
    let gateway = gateway(&origin, settings);
    let response = gateway.ask(get("/", "gzip, br"));
    assert_eq!(response.field("content-encoding"), Some("br"));
    assert!(response.field("content-length").is_some());
    let plain = String::from_utf8(decoded(&response)).expect("text");
    assert!(plain.starts_with("{\"l\":[1234567890123456789012,"), "{}", &plain[..40]);
}

#[test]
fn events_are_sent_as_they_come() {
    let origin = Origin::start(|_| {
        Script::default()
            .send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                 9\r\ndata: 1\n\n\r\n",
            )
            .sleep(Duration::from_secs(2))
            .send("9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    });
    let gateway = gateway(&origin, "compress: true, timeouts: { idle_ms: 10000 }");
    let mut client = gateway.connect();
    client.send(get("/", "gzip"));
    let mut seen = Vec::new();
    let begun = std::time::Instant::now();
    let mut readable = None;
    client
        .stream_to("GET", &mut |part| {
            use std::io::Read;
            seen.extend_from_slice(part);
            let mut out = [0; 9];
            if flate2::read::GzDecoder::new(&seen[..]).read_exact(&mut out).is_ok() {
                readable.get_or_insert(begun.elapsed());
            }
        })
        .expect("an answer");
    assert!(readable.is_some_and(|at| at < Duration::from_millis(1_500)), "{readable:?}");
}
