//! Every client before every origin: who asks how, who answers how, and what came of it.

use std::time::Duration;
use tests::http2::client::request;
use tests::http2::{H2Client, H2Origin, H2Seen, Reply};
use tests::message::values;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Authority, Client, Framing, Gateway, Origin, Script, Seen, TlsClient, TlsServer};

/// How a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    H1,
    H1Tls,
    H2c,
    H2Tls,
}

pub(super) const FRONTS: [Front; 4] = [Front::H1, Front::H1Tls, Front::H2c, Front::H2Tls];
/// The upstreams, by the first segment of the path.
pub(super) const BEHINDS: [&str; 4] = ["h1", "h2", "h1s", "h2s"];

type Fields = Vec<(String, String)>;

/// What an origin of either kind was sent.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    pub(super) complete: bool,
}

impl Got {
    pub(super) fn of_h1(seen: &Seen) -> Got {
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

    pub(super) fn of_h2(seen: &H2Seen) -> Got {
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

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }
}

/// What a client of either kind was answered.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    /// The 103s before it.
    pub(super) hints: usize,
}

impl Came {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        values(&self.fields, name).first().copied()
    }
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known,
    Unknown,
}

pub(super) struct World {
    pub(super) gateway: Gateway,
    pub(super) authority: Authority,
    pub(super) h1: [Origin; 2],
    pub(super) h2: [H2Origin; 2],
    pub(super) tls: std::net::SocketAddr,
}

/// The last segment of a path says what the origins do.
pub(super) fn deed(path: &str) -> &str {
    path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}

pub(super) fn answer_h1(seen: &Seen) -> Script {
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

pub(super) fn answer_h2(seen: &H2Seen) -> Reply {
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
    pub(super) fn new() -> World {
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

    pub(super) fn tls(&self) -> TlsClient {
        TlsClient::new(&self.authority, "a.test")
    }

    /// The latest request that a kind of origin was sent for `path`.
    pub(super) fn got(&self, behind: &str, path: &str) -> Option<Got> {
        let all: Vec<Got> = match behind {
            "h1" => self.h1[0].seen().iter().map(Got::of_h1).collect(),
            "h1s" => self.h1[1].seen().iter().map(Got::of_h1).collect(),
            "h2" => self.h2[0].seen().iter().map(Got::of_h2).collect(),
            _ => self.h2[1].seen().iter().map(Got::of_h2).collect(),
        };
        all.into_iter().rev().find(|got| got.path == path)
    }

    pub(super) fn ask(
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

    pub(super) fn h1_client(&self, front: Front) -> Client {
        match front {
            Front::H1Tls => Client::over(self.tls().connect(self.tls).expect("handshake").0),
            _ => self.gateway.connect(),
        }
    }

    pub(super) fn h2_client(&self, front: Front) -> H2Client {
        match front {
            Front::H2Tls => H2Client::tls(self.tls, &self.tls()),
            _ => H2Client::clear(self.gateway.address()),
        }
    }

    pub(super) fn ask_h1(
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

    pub(super) fn ask_h2(
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
    pub(super) fn each(&self, test: impl Fn(&World, Front, &str) -> Result<(), String>) {
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
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: T,
    wanted: T,
) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

pub(super) fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 65_521 % 251) as u8).collect()
}
