//! Every way through the gateway: HTTP/1 and HTTP/2 clients, in clear text and over TLS, to HTTP/1
//! and HTTP/2 origins, in clear text and over TLS. What goes in must come out, whatever is between.

mod smuggling;
mod world;

use std::time::Duration;

use tests::http2::client::request;
use tests::http2::frame::{ENHANCE_YOUR_CALM, NO_ERROR};
use tests::http2::{Broken, H2Client, H2Origin, Reply};
use tests::message::values;
use tests::spec::Spec;
use tests::{Framing, Gateway, Origin, PATIENCE, Script, WireError, eventually};

use self::world::*;

#[test]
fn plain_requests() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/plain?x=1&y=%20");
        let fields = [("x-one", "1"), ("x-two", "a, b"), ("x-two", "c"), ("accept", "*/*")];
        let came = world.ask(front, "GET", &path, &fields, None, &[])?;
        same("answer", String::from_utf8_lossy(&came.body).as_ref(), &format!("GET {path}\n"))?;
        let got = world.got(behind, &path).ok_or("the origin saw nothing")?;
        same("method", got.method.as_str(), "GET")?;
        same("authority", got.authority.as_str(), "a.test")?;
        same("field", got.all("x-one"), vec!["1"])?;
        same("fields", got.all("x-two").join(", ").as_str(), "a, b, c")?;
        same("body", got.body.len(), 0)?;
        same("framing", got.all("transfer-encoding").len() + got.all("content-length").len(), 0)?;
        let proto = if matches!(front, Front::H1 | Front::H2c) { "http" } else { "https" };
        same("x-forwarded-proto", got.all("x-forwarded-proto"), vec![proto])?;
        same("x-forwarded-for", got.all("x-forwarded-for"), vec!["127.0.0.1"])
    });
}

#[test]
fn bodies_both_ways() {
    let world = World::new();
    let large = pattern(1 << 20);
    for length in [Length::Known, Length::Unknown] {
        for body in [&large[..], b"x", b""] {
            world.each(|world, front, behind| {
                let path = format!("/{behind}/{length:?}/{}/echo", body.len());
                let came = world.ask(front, "POST", &path, &[], Some((body, length)), &[])?;
                same("status", came.status, 200)?;
                same("echo", came.body.len(), body.len())?;
                let got = world.got(behind, &path).ok_or("the origin saw nothing")?;
                if came.body != body || got.body != body {
                    return Err(format!("{length:?}: the bytes of {} changed", body.len()));
                }
                same("whole", got.complete, true)
            });
        }
    }
}

#[test]
fn trailers_both_ways() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/trailers");
        // A client asks for trailers (RFC 9110 §6.5.1); in HTTP/1 by a field of the connection.
        let fields: &[(&str, &str)] = match front {
            Front::H1 | Front::H1Tls => &[("te", "trailers"), ("connection", "te")],
            _ => &[("te", "trailers")],
        };
        let body = Some((&b"body"[..], Length::Unknown));
        let came = world.ask(front, "POST", &path, fields, body, &[("x-check", "7")])?;
        same("body", came.body.as_slice(), b"hello")?;
        same("trailers", pairs(&came.trailers), vec![("x-sum", "42")])?;
        let got = world.got(behind, &path).ok_or("the origin saw nothing")?;
        same("body", got.body.as_slice(), b"body")?;
        same("request trailers", pairs(&got.trailers), vec![("x-check", "7")])
    });
}

#[test]
fn answers_without_a_body() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/204");
        let came = world.ask(front, "GET", &path, &[], None, &[])?;
        same("204", (came.status, came.body.len(), came.field("x-a")), (204, 0, Some("b")))?;
        same("204's length", came.field("content-length"), None)?;
        let came = world.ask(front, "GET", &format!("/{behind}/304"), &[], None, &[])?;
        same("304", (came.status, came.body.len(), came.field("etag")), (304, 0, Some("\"x\"")))?;
        let came = world.ask(front, "HEAD", &format!("/{behind}/length"), &[], None, &[])?;
        same("HEAD", (came.status, came.body.len()), (200, 0))?;
        same("HEAD's length", came.field("content-length"), Some("1000"))
    });
}

#[test]
fn interim_answers() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/hints");
        let came = world.ask(front, "GET", &path, &[], None, &[])?;
        same("103", (came.status, came.hints, came.body.as_slice()), (200, 1, &b"ok"[..]))?;
        // A client that does not wait for 100 gets its answer all the same.
        let path = format!("/{behind}/continue/echo");
        let expect = [("expect", "100-continue")];
        let came = world.ask(front, "POST", &path, &expect, Some((b"sent", Length::Known)), &[])?;
        same("expect", (came.status, came.body.as_slice()), (200, &b"sent"[..]))
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/echo");
        if matches!(front, Front::H1 | Front::H1Tls) {
            let mut client = world.h1_client(front);
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            ));
            let interim = client.wire.head().map_err(|e| format!("waiting for 100: {e:?}"))?;
            same("interim", interim.status(), Ok(100))?;
            let response = client.send("body").response().map_err(|e| format!("{e:?}"))?;
            return same("echo", response.text().as_str(), "body");
        }
        let mut client = world.h2_client(front);
        let mut fields = request("POST", &path);
        if front == Front::H2Tls {
            fields[1].1 = "https";
        }
        fields.extend([("expect", "100-continue"), ("content-length", "4")]);
        let stream = client.begin(&fields, false);
        if !client.until(PATIENCE, |client| !client.so_far(stream).interim.is_empty()) {
            return Err("no 100".into());
        }
        client.body(stream, b"body", true).map_err(|e| format!("{e:?}"))?;
        let answer = client.answer(stream).map_err(|e| format!("{e:?}"))?;
        same("echo", answer.text().as_str(), "body")
    });
}

#[test]
fn cookies() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/cookies");
        // RFC 9113 §8.2.3: HTTP/2 may cut the field into crumbs, HTTP/1 may not.
        let fields: &[(&str, &str)] = match front {
            Front::H1 | Front::H1Tls => &[("cookie", "a=1; b=2")],
            _ => &[("cookie", "a=1"), ("cookie", "b=2")],
        };
        let came = world.ask(front, "GET", &path, fields, None, &[])?;
        same("set-cookie", values(&came.fields, "set-cookie"), vec!["a=1", "b=2; Path=/"])?;
        let got = world.got(behind, &path).ok_or("the origin saw nothing")?;
        same("cookie", got.all("cookie").join("; ").as_str(), "a=1; b=2")?;
        if behind.starts_with("h1") {
            same("cookie lines", got.all("cookie").len(), 1)?;
        }
        Ok(())
    });
}

#[test]
fn large_heads() {
    let value = "v".repeat(6_000);
    let world = World::new();
    world.each(|world, front, behind| {
        let path = format!("/{behind}/large");
        let fields: Vec<(&str, &str)> =
            ["x-a", "x-b", "x-c", "x-d"].into_iter().map(|name| (name, value.as_str())).collect();
        let came = world.ask(front, "GET", &path, &fields, None, &[])?;
        same("status", came.status, 200)?;
        let got = world.got(behind, &path).ok_or("the origin saw nothing")?;
        for (name, value) in fields {
            same(name, got.all(name) == [value], true)?;
        }
        Ok(())
    });
}

#[test]
fn a_cut_answer_never_looks_whole() {
    World::new().each(|world, front, behind| {
        let path = format!("/{behind}/cut");
        match front {
            Front::H1 | Front::H1Tls => {
                let mut client = world.h1_client(front);
                client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
                match client.response() {
                    Ok(response) if response.status == 502 => Ok(()),
                    Err(WireError::Truncated(_) | WireError::Reset(_) | WireError::Closed) => {
                        Ok(())
                    }
                    other => Err(format!("{other:?}")),
                }
            }
            _ => {
                let mut client = world.h2_client(front);
                let stream = client.get(&path);
                match client.answer(stream) {
                    Ok(answer) if answer.status == 502 => {}
                    Err(Broken::Reset(code, _))
                        if code != NO_ERROR && code != ENHANCE_YOUR_CALM => {}
                    other => return Err(format!("{other:?}")),
                }
                client.assert_alive("after a cut answer");
                Ok(())
            }
        }
    });
}

/// An origin that answers on seeing the head of a request whose body is still to come.
#[test]
fn early_answers() {
    let reply = "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nearly";
    let h1 = Origin::early(move |seen| match seen.target.as_str() {
        "/h1/early" => Script::default().send(reply),
        _ => tests::origin::echo(seen),
    });
    let h2 = H2Origin::clear(|seen| match seen.path() {
        "/h2/early" => Reply::default().head(&[(":status", "403")]).data("early").end(),
        _ => tests::http2::origin::echo(seen),
    });
    let spec = Spec::to(h1.address())
        .listener("h2c: true")
        .also_upstream("h2", h2.address(), "protocol: http2")
        .also_route("{ name: h2, match: { path: { prefix: /h2 } }, upstream: h2 }");
    let gateway = Gateway::of(&spec);
    for path in ["/h1/early", "/h2/early"] {
        // HTTP/2: the answer is whole while the request is not.
        let mut client = H2Client::clear(gateway.address());
        let stream = client.begin(&request("POST", path), false);
        client.body(stream, &[0; 1_000], false).unwrap();
        let answer = client.answer(stream).unwrap_or_else(|e| panic!("{path}: {e:?}"));
        assert_eq!((answer.status, answer.text()), (403, "early".into()), "{path}");
        // What still comes is thrown away or was told to stop; the connection lives.
        client.send(&tests::http2::Frame::data(stream, vec![0; 1_000], true));
        client.assert_alive(path);

        // HTTP/1: drained or closed, and what remains is never a request (B-41).
        let mut client = gateway.connect();
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000\r\n\r\n"));
        client.send([b'x'; 1_000]);
        let response = client.response().unwrap_or_else(|e| panic!("{path}: {e:?}"));
        assert_eq!((response.status, response.text()), (403, "early".into()), "{path}");
        client.send([b'x'; 1_000]);
        client.assert_closed_or_alive(path);
    }
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_request_with_it() {
    let h2 = H2Origin::clear(|_| Reply::default().sleep(Duration::from_secs(60)));
    let gateway = Gateway::of(&Spec::to(h2.address()).upstream("protocol: http2"));
    let mut client = gateway.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n");
    h2.await_one("asked", |seen| seen.path() == "/wait");
    client.wire.reset();
    h2.await_one("cancelled", |seen| seen.reset.is_some());
    assert!(eventually(PATIENCE, || h2.open() <= 1), "the connection itself stays");
}

#[test]
fn streams_of_an_h2_origin_fail_alone() {
    let h2 = H2Origin::clear(|seen| match seen.path() {
        "/reset" => Reply::default().reset(2),
        "/refused" => Reply::default().reset(7),
        "/slow" => Reply::default()
            .sleep(Duration::from_millis(500))
            .head(&[(":status", "200")])
            .data("slow")
            .end(),
        _ => tests::http2::origin::echo(seen),
    });
    let spec = Spec::to(h2.address()).listener("h2c: true").upstream("protocol: http2");
    let gateway = Gateway::single(&spec);
    let mut client = H2Client::clear(gateway.address());
    let slow = client.get("/slow");
    let reset = client.get("/reset");
    match client.answer(reset) {
        Ok(answer) => assert_eq!(answer.status, 502),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.answer(slow).unwrap().text(), "slow");
    client.assert_alive("after a reset upstream");
}

#[test]
fn an_h2_origin_that_says_goaway_is_left_without_a_failure() {
    let h2 = H2Origin::clear(|seen| match seen.path() {
        "/last" => Reply::default().goaway(NO_ERROR).head(&[(":status", "200")]).data("last").end(),
        _ => tests::http2::origin::echo(seen),
    });
    let spec = Spec::to(h2.address()).listener("h2c: true").upstream("protocol: http2");
    let gateway = Gateway::single(&spec);
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("before");
    for _ in 0..5 {
        assert_eq!(client.ask(&request("GET", "/last"), b"").text(), "last");
        client.assert_alive("after GOAWAY");
    }
    assert!(h2.accepted() >= 5, "{} connections", h2.accepted());
}

#[test]
fn events_arrive_at_once() {
    // Each event is sent a while after the one before, so that waiting for more would show.
    let h1 = Origin::start(|_| {
        let mut script =
            Script::default().send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for n in 0..3 {
            script =
                script.send(format!("9\r\ndata: {n}\n\n\r\n")).sleep(Duration::from_millis(400));
        }
        script.sleep(Duration::from_secs(60))
    });
    let h2 = H2Origin::clear(|_| {
        let mut reply =
            Reply::default().head(&[(":status", "200"), ("content-type", "text/event-stream")]);
        for n in 0..3 {
            reply = reply.data(format!("data: {n}\n\n")).sleep(Duration::from_millis(400));
        }
        reply.sleep(Duration::from_secs(60))
    });
    let spec = Spec::to(h1.address())
        .listener("h2c: true")
        .also_upstream("h2", h2.address(), "protocol: http2")
        .also_route("{ name: h2, match: { path: { prefix: /h2 } }, upstream: h2 }");
    let gateway = Gateway::of(&spec);
    for path in ["/h1/events", "/h2/events"] {
        let mut client = H2Client::clear(gateway.address());
        let stream = client.get(path);
        // The stream never ends: only what is passed on at once can be seen.
        for n in 0..3 {
            let wanted: String = (0..=n).map(|n| format!("data: {n}\n\n")).collect();
            let there =
                client.until(PATIENCE, |client| client.so_far(stream).body.len() >= wanted.len());
            assert!(there, "{path} over h2: event {n}");
            assert_eq!(client.so_far(stream).text(), wanted);
        }
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let (_, head) = client.final_head().unwrap_or_else(|e| panic!("{path} over h1: {e:?}"));
        assert_eq!(head.announced(), Ok(Some(Framing::Chunked)), "{path}");
        let mut came = Vec::new();
        while came.len() < 27 {
            let mut chunk = |bytes: &[u8]| came.extend_from_slice(bytes);
            // One chunk at a time; the gateway may cut them as it likes.
            let line = client.wire.chunk_size().unwrap_or_else(|e| panic!("{path} over h1: {e:?}"));
            client.wire.body(line, &mut chunk).unwrap();
            // The line end behind a chunk comes with the next one.
            if came.len() < 27 {
                client.wire.body(2, &mut |_| {}).unwrap();
            }
        }
        assert_eq!(came, b"data: 0\n\ndata: 1\n\ndata: 2\n\n");
    }
}
