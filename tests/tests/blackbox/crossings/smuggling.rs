//! What must not change its meaning, or come into being, between one protocol and the other.

use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, H2Client, H2Origin};
use tests::spec::Spec;
use tests::{Gateway, Origin};

const FORBIDDEN: [&str; 9] = [
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "content-type",
    "content-encoding",
    "x-forwarded-for",
    "x-forwarded-client-cert",
    "te",
];

fn gateways() -> (Origin, H2Origin, [Gateway; 2]) {
    let h1 = Origin::echo();
    let h2 = H2Origin::echo();
    let spec = |address| Spec::to(address).listener("h2c: true");
    let gateways = [
        Gateway::of(&spec(h1.address())),
        Gateway::of(&spec(h2.address()).upstream("protocol: http2")),
    ];
    (h1, h2, gateways)
}

#[test]
fn trailers_never_become_what_a_head_decides() {
    let (h1, h2, gateways) = gateways();
    for (n, gateway) in gateways.iter().enumerate() {
        for name in FORBIDDEN {
            // B-39: dropped, or the request is refused.
            let mut client = H2Client::clear(gateway.address());
            let stream = client.begin(&request("POST", "/t"), false);
            client.body(stream, b"body", false).unwrap();
            client.trailers(stream, &[("x-good", "1"), (name, "7")]);
            match client.answer(stream) {
                Ok(answer) => assert!(matches!(answer.status, 200 | 400), "{name}: {answer:?}"),
                Err(Broken::Reset(PROTOCOL_ERROR, _)) => {}
                other => panic!("{name}: {other:?}"),
            }
            client.assert_alive(name);
            // And from HTTP/1.
            let mut client = gateway.connect();
            let response = client.ask(format!(
                "POST /t HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                 4\r\nbody\r\n0\r\nX-Good: 1\r\n{name}: 7\r\n\r\n"
            ));
            assert!(matches!(response.status, 200 | 400), "{name}: {}", response.head.start);
        }
        let trailers: Vec<(String, String)> = if n == 0 {
            h1.seen().into_iter().flat_map(|seen| seen.trailers).collect()
        } else {
            h2.seen().into_iter().flat_map(|seen| seen.trailers).collect()
        };
        let bad = |(name, _): &&(String, String)| {
            FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name))
        };
        assert_eq!(trailers.iter().find(bad), None, "B-39");
    }
}

#[test]
fn malformed_trailers_end_the_request() {
    let (h1, h2, gateways) = gateways();
    for gateway in &gateways {
        for (name, value) in [
            ("x-a", "1\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            ("x-a", "1\n2"),
            ("x-a", "1\x002"),
            ("x\r\ny", "1"),
            ("x y", "1"),
            ("X-Upper", "1"),
            (":path", "/smuggled"),
            (":status", "200"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
        ] {
            let mut client = H2Client::clear(gateway.address());
            client.assert_alive("before");
            let stream = client.begin(&request("POST", "/bad"), false);
            client.body(stream, b"body", false).unwrap();
            client.trailers(stream, &[(name, value)]);
            match client.answer(stream) {
                Err(Broken::Reset(PROTOCOL_ERROR, _)) => {}
                Ok(answer) => assert_eq!(answer.status, 400, "B-50, {name:?}: {value:?}"),
                other => panic!("B-50, {name:?}: {value:?}: {other:?}"),
            }
            client.assert_alive("after");
        }
        // RFC 9113 §8.1: trailers end the stream.
        let mut client = H2Client::clear(gateway.address());
        let stream = client.begin(&request("POST", "/bad"), false);
        client.body(stream, b"body", false).unwrap();
        client.send(&Frame::headers(stream, &[("x-a", "b")], false));
        match client.answer(stream) {
            Err(Broken::Reset(PROTOCOL_ERROR, _) | Broken::GoAway(PROTOCOL_ERROR)) => {}
            Ok(answer) => assert_eq!(answer.status, 400),
            other => panic!("trailers that do not end the stream: {other:?}"),
        }
    }
    assert!(!h1.seen().iter().any(|seen| seen.target == "/bad" && seen.complete));
    assert!(!h1.received("smuggled"));
    assert!(!h2.seen().iter().any(|seen| seen.path() == "/bad" && seen.complete));
}

#[test]
fn fields_of_an_h1_connection_stay_on_it() {
    let (_h1, h2, gateways) = gateways();
    let mut client = gateways[1].connect();
    // The strict origin fails the test on any field of a connection that HTTP/2 has no place for.
    let response = client.ask(
        "POST /hop HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-Hop: 1\r\nX-Kept: 2\r\nTE: trailers, deflate\r\n\
         Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    let seen = h2.last();
    assert_eq!((seen.field("x-hop"), seen.field("x-kept")), (None, Some("2")));
    assert_eq!(seen.field("host"), None, "beside :authority");
    assert_eq!((seen.field(":authority"), seen.body.as_slice()), (Some("a.test"), &b"body"[..]));
    // Names in any case arrive in lower case (RFC 9113 §8.2.1), values as they are.
    let response = client.ask("GET /case HTTP/1.1\r\nhOST: A.test\r\nX-MiXeD: VaLuE\r\n\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(h2.last().field("x-mixed"), Some("VaLuE"));
}

#[test]
fn bad_h1_requests_reach_no_h2_origin() {
    let (_h1, h2, gateways) = gateways();
    for (what, bytes) in [
        (
            "CL and TE",
            "POST /bad HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /bad HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
        ),
        ("a pseudo-field", "GET /bad HTTP/1.1\r\nHost: a.test\r\n:path: /smuggled\r\n\r\n"),
        ("obs-fold", "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: a\r\n :path: /smuggled\r\n\r\n"),
        ("bare CR", "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n"),
        ("two hosts", "GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n"),
        (
            "a bad chunk",
            "POST /cut HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nx\r\n",
        ),
    ] {
        let mut client = gateways[1].connect();
        client.send(bytes);
        if let Ok(response) = client.response() {
            assert_eq!(response.status, 400, "{what}");
        }
    }
    for seen in h2.seen() {
        assert!(seen.path() != "/bad" && seen.path() != "/smuggled", "{seen:?}");
        assert!(seen.path() != "/cut" || !seen.complete, "{seen:?}");
    }
}

#[test]
fn methods_and_targets_keep_their_form() {
    let (h1, h2, gateways) = gateways();
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-OWN"] {
        for path in
            ["/", "/?", "/a?b=c&d", "/%41%c3%a9", "/a;b=c/d", "/~x!$&'()*+,;=:@", "/?q=/../?"]
        {
            let mut client = H2Client::clear(gateways[0].address());
            let answer = client.ask(&request(method, path), b"");
            assert_eq!(answer.status, 200, "{method} {path}");
            let seen = h1.last();
            let through_h1 = (seen.method.clone(), seen.target.clone());
            let response =
                gateways[1].ask(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(response.status, 200, "{method} {path}");
            let seen = h2.last();
            let through_h2 = (seen.method().to_owned(), seen.path().to_owned());
            // One normalisation, whatever is spoken (B-27).
            assert_eq!(through_h1, through_h2, "{method} {path}");
            assert_eq!(through_h1.0, method);
        }
    }
    // OPTIONS * is for the gateway itself (B-34).
    let before = h1.completed();
    let mut client = H2Client::clear(gateways[0].address());
    let answer = client.ask(&request("OPTIONS", "*"), b"");
    assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    // Nor are these forwarded (B-35).
    let answer = client.ask(&request("TRACE", "/trace"), b"");
    assert_eq!(answer.status, 405, "{answer:?}");
    assert_eq!(h1.completed(), before);
}
