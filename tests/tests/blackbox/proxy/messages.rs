//! Messages and their framing, both ways (RFC 9112).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tests::origin::{answer_with, echo};
use tests::spec::Spec;
use tests::{Framing, Gateway, Origin, PATIENCE, Script, WireError, answer, eventually, get};

#[test]
fn keep_alive_serves_many_requests() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for n in 0..200 {
        let response = client.ask(get(&format!("/{n}?q={n}")));
        assert_eq!(response.text(), format!("GET /{n}?q={n}\n"));
        assert!(!response.says_close(), "closed after {n}");
    }
    assert_eq!(origin.completed(), 200);
    assert_eq!(origin.accepted(), 1, "one client connection needs one upstream connection");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    // The first answers are slower than the last: order must not be luck.
    let origin = Origin::start(|seen| {
        let slow = if seen.target.ends_with('0') { 150 } else { 0 };
        answer(&format!("{}\n", seen.target)).after(Duration::from_millis(slow))
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let mut bytes = String::new();
    for n in 0..10 {
        if n % 3 == 1 {
            bytes.push_str(&format!(
                "POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nGET "
            ));
        } else {
            bytes.push_str(&get(&format!("/{n}")));
        }
    }
    client.send(bytes);
    for n in 0..10 {
        let response = client.response().unwrap_or_else(|e| panic!("answer {n}: {e:?}"));
        assert_eq!(response.text(), format!("/{n}\n"));
    }
}

#[test]
fn a_chunked_request_arrives_whole_with_its_trailers() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask(
        "POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n\
         5\r\nhello\r\n00A\r\n, chunked \r\n5\r\nworld\r\n000\r\nX-Sum: abc\r\nX-Two: 2\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    let seen = origin.last();
    assert_eq!(seen.body, b"hello, chunked world");
    let trailers = &seen.trailers;
    let has = |name: &str, value: &str| {
        trailers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
    };
    assert!(has("x-sum", "abc") && has("x-two", "2"), "trailers {trailers:?}");
    assert!(!seen.head.has("x-sum"), "a trailer was merged into the head");
    client.assert_alive("after a chunked request");
}

#[test]
fn a_chunked_answer_arrives_whole_with_its_trailers() {
    let origin = Origin::canned(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: abc\r\n\r\n",
        false,
    );
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for _ in 0..3 {
        let response = client.ask(get("/"));
        assert_eq!(response.framing, Framing::Chunked);
        assert_eq!(response.text(), "hello, world");
        let sums: Vec<&(String, String)> = response.trailers.iter().collect();
        assert_eq!(sums.len(), 1, "trailers {:?}", response.trailers);
        assert!(sums[0].0.eq_ignore_ascii_case("x-sum") && sums[0].1 == "abc");
    }
    assert_eq!(origin.accepted(), 1, "a cleanly ended chunked answer leaves the connection usable");
}

#[test]
fn head_has_the_length_and_no_body() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/chunked" => {
            Script::default().send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
        "/long" => Script::default().send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for target in ["/long", "/chunked", "/long"] {
        let response = client.ask(format!("HEAD {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(response.status, 200);
        if target == "/long" {
            assert_eq!(response.field("content-length"), Some("12345"));
        }
        client.assert_alive("after HEAD");
    }
    assert_eq!(origin.accepted(), 1, "HEAD leaves the upstream connection usable");
}

#[test]
fn statuses_without_a_body() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/204" => Script::default().send("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => Script::default()
            .send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n"),
        "/205" => answer_with("205 Reset Content", "", ""),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for status in [204, 304, 205] {
        let response = client.ask(get(&format!("/{status}")));
        assert_eq!(response.status, status);
        assert!(response.body.is_empty());
        if status == 204 {
            assert!(
                !response.head.has("content-length") && !response.head.has("transfer-encoding")
            );
        }
        client.assert_alive("after a status without a body");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn early_hints_are_relayed_before_the_answer() {
    let origin = Origin::start(|_| {
        Script::default()
            .send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
            .sleep(Duration::from_millis(50))
            .send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.ask(get("/"));
        assert_eq!((response.status, response.text()), (200, "ok".into()));
        let links: Vec<_> =
            response.interim.iter().map(|head| (head.status(), head.get("link"))).collect();
        assert_eq!(
            links,
            [(Ok(103), Some("</a.css>; rel=preload")), (Ok(103), Some("</b.css>; rel=preload"))]
        );
    }
    // HTTP/1.0 knows no 1xx (RFC 9110 §15.2).
    let response = gateway.ask("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.status, 200);
    assert!(response.interim.is_empty(), "1xx to an HTTP/1.0 client");
}

#[test]
fn expect_continue_is_honoured() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client.send(format!(
            "PUT /c HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
        ));
        let interim = client.wire.head().unwrap_or_else(|e| panic!("waiting for 100: {e:?}"));
        assert_eq!(interim.status(), Ok(100));
        client.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
        let response = client.response().unwrap_or_else(|e| panic!("after 100: {e:?}"));
        assert_eq!(response.status, 200);
        assert_eq!(origin.last().body, b"hello");
    }
    // A client that does not wait must not hang, and gets one final answer.
    client.send(
        "PUT /d HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    );
    let response = client.response().unwrap_or_else(|e| panic!("without waiting: {e:?}"));
    assert_eq!((response.status, response.text()), (200, "PUT /d\n".into()));
}

#[test]
fn the_absolute_form_is_forwarded_in_origin_form() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for (target, forwarded, host) in [
        ("http://a.test/x?y=1", "/x?y=1", "a.test"),
        ("http://a.test", "/", "a.test"),
        ("http://a.test?y", "/?y", "a.test"),
        ("HTTP://A.test:8080/x", "/x", "a.test:8080"),
    ] {
        let authority = target.split('/').nth(2).unwrap().split('?').next().unwrap();
        let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        assert_eq!(response.text(), format!("GET {forwarded}\n"), "{target}");
        let seen = origin.last();
        assert!(
            seen.field("host").is_some_and(|h| h.eq_ignore_ascii_case(host)),
            "{target}: {:?}",
            seen.field("host")
        );
    }
}

#[test]
fn http_10_clients() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/chunked" => Script::default()
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask("GET /plain HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.text(), "GET /plain\n");
    client.assert_closed("HTTP/1.0 without keep-alive");
    assert_eq!(origin.last().version, "HTTP/1.1", "the gateway speaks its own version upstream");

    let mut client = gateway.connect();
    for n in 0..3 {
        let response = client
            .ask(format!("GET /{n} HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n"));
        assert_eq!(response.text(), format!("GET /{n}\n"));
        assert!(
            response.head.lists("connection", "keep-alive"),
            "RFC 9112 §9.3: {:?}",
            response.head.fields
        );
    }

    // Chunked must not be sent to an HTTP/1.0 client (RFC 9112 §6.1).
    let mut client = gateway.connect();
    let response = client.ask("GET /chunked HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.text(), "hello");
    assert_ne!(response.framing, Framing::Chunked);
    // HTTP/1.0 may do without Host.
    let response = gateway.ask("GET /no-host HTTP/1.0\r\n\r\n");
    assert!(matches!(response.status, 200 | 400), "{}", response.head.start);
}

#[test]
fn http_10_origins_and_bodies_until_close() {
    let origin = Origin::start(|seen| {
        let script = Script::default();
        match seen.target.as_str() {
            "/10" => script.send("HTTP/1.0 200 OK\r\n\r\nold body").close(),
            "/10-length" => script.send("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"),
            "/10-keep" => script
                .send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold"),
            _ => script.send("HTTP/1.1 200 OK\r\n\r\n").send("x".repeat(100_000)).half_close(),
        }
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for (target, length) in
        [("/10", 8), ("/until-close", 100_000), ("/10-length", 3), ("/10-keep", 3)]
    {
        let response = client.ask(get(target));
        assert_eq!((response.status, response.body.len()), (200, length), "{target}");
        // The end must be told apart from a cut: chunked, so that the client's connection stays.
        assert_ne!(response.framing, Framing::UntilClose, "{target} to an HTTP/1.1 client");
        assert!(response.head.start.starts_with("HTTP/1.1 "), "{target}: {}", response.head.start);
    }
    let response = gateway.ask("GET /until-close HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(response.body.len(), 100_000, "until close to an HTTP/1.0 client");
    // An HTTP/1.0 answer without keep-alive ends that connection.
    let mut client = gateway.connect();
    let (before, target) = (origin.accepted(), "/10-length");
    for _ in 0..3 {
        client.ask(get(target));
    }
    assert!(origin.accepted() >= before + 2, "an HTTP/1.0 origin connection was reused");
}

#[test]
fn an_early_answer_comes_through_while_the_client_uploads() {
    let origin = Origin::early(|_| answer_with("403 Forbidden", "", "no\n").close());
    let gateway = Gateway::of(&Spec::to(origin.address()).route("max_body_bytes: 200000000"));
    let mut client = gateway.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let response = client.response().unwrap_or_else(|e| panic!("early answer: {e:?}"));
    assert_eq!((response.status, response.text()), (403, "no\n".into()));
    // The rest may be read and thrown away or refused by a close, never parsed.
    client.send(get("/smuggled"));
    assert!(
        matches!(
            client.response(),
            Err(WireError::Closed | WireError::Reset(_) | WireError::TimedOut(_))
        ),
        "the rest of the body was parsed"
    );
    assert!(!origin.received("GET /smuggled"));
}

#[test]
fn an_early_answer_that_keeps_streaming_does_not_stop_the_upload() {
    // Answers at once, reads all of the body, then ends its answer.
    let whole = Arc::new(AtomicBool::new(false));
    let flag = whole.clone();
    let origin = Origin::raw(move |mut wire, _| {
        let Ok(_) = wire.head() else { return };
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        if wire.body(200_000, &mut |_| {}).is_ok() {
            flag.store(true, Ordering::SeqCst);
            let _ = wire.write(b"3\r\nend\r\n0\r\n\r\n");
            let _ = wire.until_close(&mut |_| {});
        }
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n");
    client.send(vec![b'x'; 1_000]);
    let (_, head) =
        client.final_head().unwrap_or_else(|e| panic!("the head while uploading: {e:?}"));
    assert_eq!(head.status(), Ok(200));
    for _ in 0..199 {
        client.send(vec![b'x'; 1_000]);
    }
    let mut body = Vec::new();
    client
        .wire
        .chunked(&mut |bytes| body.extend_from_slice(bytes))
        .unwrap_or_else(|e| panic!("the rest of the answer: {e:?}"));
    assert_eq!(body, b"beginend");
    assert!(whole.load(Ordering::SeqCst), "the upload did not reach the origin whole");
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let origin = Origin::start(|seen| echo(seen).after(Duration::from_millis(200)));
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    client.send(get("/1") + &get("/2"));
    client.wire.half_close();
    for target in ["/1", "/2"] {
        let response = client.response().unwrap_or_else(|e| panic!("{target} after FIN: {e:?}"));
        assert_eq!(response.text(), format!("GET {target}\n"));
    }
    client.assert_closed("after the last answer to a half-closed client");
}

#[test]
fn a_client_that_goes_away_ends_the_upstream_request() {
    let origin = Origin::raw(|mut wire, _| {
        if wire.head().is_ok() {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while wire
                .write(b"400\r\n")
                .and_then(|()| wire.write(&[b'x'; 1024]))
                .and_then(|()| wire.write(b"\r\n"))
                .is_ok()
            {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    client.send(get("/"));
    client.final_head().unwrap_or_else(|e| panic!("{e:?}"));
    client.wire.reset();
    assert!(eventually(PATIENCE, || origin.open() == 0), "the upstream goes on for nobody");
}

#[test]
fn connection_close_is_obeyed_and_announced() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/close" => answer_with("200 OK", "Connection: close\r\n", "bye\n").close(),
        _ => echo(seen),
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert!(response.says_close());
    client.assert_closed("the client asked for a close");
    // The origin's close is between it and the gateway.
    let mut client = gateway.connect();
    for target in ["/close", "/close", "/open"] {
        let response = client.ask(get(target));
        assert_eq!(response.status, 200);
        assert!(!response.says_close(), "the origin's Connection: close was passed on");
    }
}

#[test]
fn statuses_and_reasons_pass_unchanged() {
    let origin = Origin::start(|seen| {
        let status = seen.target.trim_start_matches('/').replace('_', " ");
        answer_with(&status, "X-Same: yes\r\n", "body\n")
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for status in [200, 201, 202, 206, 301, 307, 400, 401, 404, 418, 429, 499, 500, 503, 599, 799] {
        let response = client.ask(get(&format!("/{status}_Word")));
        assert_eq!(response.status, status);
        assert_eq!((response.field("x-same"), response.text()), (Some("yes"), "body\n".into()));
    }
}
