//! Every way through the gateway: HTTP/1 and HTTP/2 clients, in clear text and over TLS, to HTTP/1
//! and HTTP/2 origins, in clear text and over TLS. What goes in must come out, whatever is between.

use std::time::Duration;

use tests::http2::client::request;
use tests::http2::frame::{ENHANCE_YOUR_CALM, NO_ERROR};
use tests::http2::{Broken, H2Client, H2Origin, H2Seen, Reply};
use tests::message::values;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{
    Authority, Client, Framing, Gateway, Origin, PATIENCE, Script, Seen, TlsClient, TlsServer,
    WireError, eventually,
};

/// How a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    H1,
    H1Tls,
    H2c,
    H2Tls,
}

const FRONTS: [Front; 4] = [Front::H1, Front::H1Tls, Front::H2c, Front::H2Tls];
/// The upstreams, by the first segment of the path.
const BEHINDS: [&str; 4] = ["h1", "h2", "h1s", "h2s"];

type Fields = Vec<(String, String)>;

/// What an origin of either kind was sent.
#[derive(Debug, Clone)]
struct Got {
    method: String,
    path: String,
    authority: String,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    complete: bool,
}

impl Got {
    fn of_h1(seen: &Seen) -> Got {
        Got {
            method: seen.method.clone(),
            path: seen.target.clone(),
            authority: seen.field("host").unwrap_or_default().into(),
            fields: seen.head.fields.clone(),
            body: seen.body.clone(),
            trailers: seen.trailers.clone(),
            complete: seen.complete,
        }
    }

    fn of_h2(seen: &H2Seen) -> Got {
        Got {
            method: seen.method().into(),
            path: seen.path().into(),
            authority: seen.field(":authority").or(seen.field("host")).unwrap_or_default().into(),
            fields: seen.fields.clone(),
            body: seen.body.clone(),
            trailers: seen.trailers.clone(),
            complete: seen.complete,
        }
    }

    fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }
}

/// What a client of either kind was answered.
#[derive(Debug, Clone)]
struct Came {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    /// The 103s before it.
    hints: usize,
}

impl Came {
    fn field(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known,
    Unknown,
}

struct World {
    gateway: Gateway,
    authority: Authority,
    h1: [Origin; 2],
    h2: [H2Origin; 2],
    tls: std::net::SocketAddr,
}

/// The last segment of a path says what the origins do.
fn deed(path: &str) -> &str {
    path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}

fn answer_h1(seen: &Seen) -> Script {
    let send = |text: &str| Script::default().send(text);
    match deed(&seen.target) {
        "echo" => {
            let length = seen.body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            send(&head).send(seen.body.clone())
        }
        "trailers" => send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
        ),
        "204" => send("HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"),
        "304" => send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        "length" => send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        "hints" => send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        "cookies" => send(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 0\r\n\r\n",
        ),
        "cut" => send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .sleep(Duration::from_millis(100))
            .close(),
        _ => tests::origin::echo(seen),
    }
}

fn answer_h2(seen: &H2Seen) -> Reply {
    let ok = [(":status", "200")];
    match deed(seen.path()) {
        "echo" => match seen.field("content-length") {
            Some(n) => Reply::default().head(&[(":status", "200"), ("content-length", n)]).echo(),
            None => Reply::default().head(&ok).echo(),
        },
        "trailers" => Reply::default()
            .request()
            .head(&[(":status", "200"), ("trailer", "x-sum")])
            .data("hello")
            .last(&[("x-sum", "42")]),
        "204" => Reply::default().request().last(&[(":status", "204"), ("x-a", "b")]),
        "304" => Reply::default().request().last(&[(":status", "304"), ("etag", "\"x\"")]),
        "length" => {
            Reply::default().request().last(&[(":status", "200"), ("content-length", "1000")])
        }
        "hints" => Reply::default()
            .request()
            .head(&[(":status", "103"), ("link", "</a.css>; rel=preload")])
            .head(&ok)
            .data("ok")
            .end(),
        "cookies" => Reply::default().request().last(&[
            (":status", "200"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2; Path=/"),
        ]),
        "cut" => Reply::default()
            .head(&[(":status", "200"), ("content-length", "100")])
            .data("half")
            .sleep(Duration::from_millis(100))
            .reset(2),
        _ => tests::http2::origin::echo(seen),
    }
}

impl World {
    fn new() -> World {
        let authority = Authority::new("Crossings");
        let site = authority.server(&["a.test"]);
        let behind = authority.server(&["127.0.0.1", "up.test"]);
        let h1 = [
            Origin::start(answer_h1),
            Origin::tls(TlsServer::new(&behind, &["http/1.1"]), answer_h1),
        ];
        let h2 = [
            H2Origin::clear(answer_h2),
            H2Origin::tls(TlsServer::new(&behind, &["h2", "http/1.1"]), answer_h2),
        ];
        let scratch = Scratch::new();
        scratch.file("site.pem", &site.cert);
        scratch.file("site.key", &site.key);
        scratch.file("ca.pem", authority.pem());
        let tls = "tls: { ca: \"{DIR}/ca.pem\", server_name: up.test }";
        let route = |name: &str| {
            format!(
                "{{ name: {name}, match: {{ path: {{ prefix: /{name} }} }}, upstream: {name} }}"
            )
        };
        let spec = Spec::to(h1[0].address())
            .listener("h2c: true")
            .also_listener(
                "PORTTLS",
                "tls: { certificates: [ { cert: \"{DIR}/site.pem\", key: \"{DIR}/site.key\" } ] }",
            )
            .also_upstream("h1", h1[0].address(), "")
            .also_upstream("h1s", h1[1].address(), tls)
            .also_upstream("h2", h2[0].address(), "protocol: http2")
            .also_upstream("h2s", h2[1].address(), &format!("protocol: auto, {tls}"))
            .also_route(&route("h1"))
            .also_route(&route("h1s"))
            .also_route(&route("h2"))
            .also_route(&route("h2s"));
        let mut gateway = Gateway::start_in(scratch, &spec.text(), 2);
        let tls = gateway.address_of("PORTTLS");
        World { gateway, authority, h1, h2, tls }
    }

    fn tls(&self) -> TlsClient {
        TlsClient::new(&self.authority, "a.test")
    }

    /// The latest request that a kind of origin was sent for `path`.
    fn got(&self, behind: &str, path: &str) -> Option<Got> {
        let all: Vec<Got> = match behind {
            "h1" => self.h1[0].seen().iter().map(Got::of_h1).collect(),
            "h1s" => self.h1[1].seen().iter().map(Got::of_h1).collect(),
            "h2" => self.h2[0].seen().iter().map(Got::of_h2).collect(),
            _ => self.h2[1].seen().iter().map(Got::of_h2).collect(),
        };
        all.into_iter().rev().find(|got| got.path == path)
    }

    fn ask(
        &self,
        front: Front,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<(&[u8], Length)>,
        trailers: &[(&str, &str)],
    ) -> Result<Came, String> {
        match front {
            Front::H1 | Front::H1Tls => self.ask_h1(front, method, path, fields, body, trailers),
            _ => self.ask_h2(front, method, path, fields, body, trailers),
        }
    }

    fn h1_client(&self, front: Front) -> Client {
        match front {
            Front::H1Tls => Client::over(self.tls().connect(self.tls).expect("handshake").0),
            _ => self.gateway.connect(),
        }
    }

    fn h2_client(&self, front: Front) -> H2Client {
        match front {
            Front::H2Tls => H2Client::tls(self.tls, &self.tls()),
            _ => H2Client::clear(self.gateway.address()),
        }
    }

    fn ask_h1(
        &self,
        front: Front,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<(&[u8], Length)>,
        trailers: &[(&str, &str)],
    ) -> Result<Came, String> {
        let mut client = self.h1_client(front);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = Vec::new();
        match body {
            None => head.push_str("\r\n"),
            Some((body, Length::Known)) => {
                head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
                bytes.extend_from_slice(body);
            }
            Some((body, Length::Unknown)) => {
                head.push_str("Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(10_000) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                }
                bytes.extend_from_slice(b"\r\n");
            }
        }
        client.send([head.as_bytes(), &bytes].concat());
        let response = client.response_to(method).map_err(|e| format!("{e:?}"))?;
        // The connection must be fit for another request, whatever this one was.
        if !response.says_close() && response.framing != Framing::UntilClose {
            client.send("GET /h1/after HTTP/1.1\r\nHost: a.test\r\n\r\n");
            match client.response() {
                Ok(next) if next.text() == "GET /h1/after\n" => {}
                other => return Err(format!("the next request: {other:?}")),
            }
        }
        Ok(Came {
            status: response.status,
            fields: response.head.fields,
            body: response.body,
            trailers: response.trailers,
            hints: response.interim.iter().filter(|head| head.status() == Ok(103)).count(),
        })
    }

    fn ask_h2(
        &self,
        front: Front,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<(&[u8], Length)>,
        trailers: &[(&str, &str)],
    ) -> Result<Came, String> {
        let mut client = self.h2_client(front);
        let mut all = request(method, path);
        if front == Front::H2Tls {
            all[1].1 = "https";
        }
        all.extend_from_slice(fields);
        let length = body.map(|(body, _)| body.len().to_string()).unwrap_or_default();
        if let Some((_, Length::Known)) = body {
            all.push(("content-length", &length));
        }
        let stream = client.begin(&all, body.is_none());
        if let Some((body, _)) = body {
            client.body(stream, body, trailers.is_empty()).map_err(|e| format!("body: {e:?}"))?;
            if !trailers.is_empty() {
                client.trailers(stream, trailers);
            }
        }
        let answer = client.answer(stream).map_err(|e| format!("{e:?}"))?;
        let after = client.get("/h1/after");
        match client.answer(after) {
            Ok(next) if next.text() == "GET /h1/after\n" => {}
            other => return Err(format!("the next request: {other:?}")),
        }
        let hint = |fields: &&Fields| values(fields, ":status") == ["103"];
        Ok(Came {
            status: answer.status,
            hints: answer.interim.iter().filter(hint).count(),
            fields: answer.fields,
            body: answer.body,
            trailers: answer.trailers,
        })
    }

    /// Runs `test` for each crossing and collects what went wrong.
    fn each(&self, test: impl Fn(&World, Front, &str) -> Result<(), String>) {
        let mut failures = Vec::new();
        for front in FRONTS {
            for behind in BEHINDS {
                if let Err(e) = test(self, front, behind) {
                    failures.push(format!("{front:?} to {behind}: {e}"));
                }
            }
        }
        assert!(failures.is_empty(), "{} of 16:\n{}", failures.len(), failures.join("\n"));
    }
}

/// Fails with both sides when they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 65_521 % 251) as u8).collect()
}

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
