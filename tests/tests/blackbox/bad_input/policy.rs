//! Rows on meaning: paths, expectations, identity fields, other protocols, handshakes.

use std::time::Duration;

use tests::{Framing, answer};

use super::*;

#[test]
fn b04_the_absolute_form_decides_over_host() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask("GET http://b.test/absolute?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    if response.status != 400 {
        assert_eq!(response.status, 200, "B-04");
        let seen = origin.last();
        assert_eq!(seen.field("host"), Some("b.test"), "B-04: Host must follow the target");
        assert_eq!(seen.target, "/absolute?q=1", "B-04");
        client.assert_alive("B-04");
    }
}

/// What a careless origin would make of a path: decoded, dots resolved, slashes merged.
fn as_an_origin_reads(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair: Vec<u8> = bytes.by_ref().take(2).collect();
            let text = String::from_utf8_lossy(&pair).into_owned();
            decoded.push(u8::from_str_radix(&text, 16).unwrap_or(b'?'));
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[test]
fn b27_one_normalisation_for_matching_and_forwarding() {
    let public = Origin::echo();
    let private = Origin::echo();
    let spec = Spec::to(public.address())
        .also_upstream("private", private.address(), "")
        .also_route("{ name: admin, match: { path: { prefix: /admin } }, upstream: private }");
    let gateway = Gateway::of(&spec);
    for target in [
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/./admin",
        "//admin",
        "/%61dmin",
        "/admi%6E/",
        "/x/..//admin",
        "/a/b/../../admin/x",
        "/x%2f..%2fadmin",
        "/x%2F%2e%2e%2Fadmin",
        "/%2fadmin",
        "/..%2fadmin",
        "/x/..%5cadmin",
        "/%5cadmin",
        "/.%2fadmin",
        "/x/%2e./admin",
        "///admin",
        "/admin/../admin",
        "/../admin",
        "/../../admin",
        "/%2e%2e/admin",
        "/x/..;/admin",
    ] {
        let response = gateway.ask(get(target));
        assert!(
            matches!(response.status, 200 | 400 | 404),
            "B-27 {target}: {:?}",
            response.head.start
        );
        if response.status == 200 && !target.contains("..;") {
            let forwarded = response.text();
            let forwarded = forwarded.trim_end().trim_start_matches("GET ");
            let again = as_an_origin_reads(forwarded);
            assert!(
                again == "/admin" || again.starts_with("/admin/"),
                "B-27 {target} was forwarded as {forwarded}"
            );
            assert!(!forwarded.contains("/../"), "B-27 {target} was forwarded as {forwarded}");
        }
    }
    for seen in public.seen() {
        let path = as_an_origin_reads(&seen.target);
        assert!(
            path != "/admin" && !path.starts_with("/admin/"),
            "B-27: the public origin was given {}",
            seen.target
        );
    }
    assert!(private.completed() >= 2, "B-27: /./admin and /%61dmin must reach the admin route");
    for (target, expected) in [("/a/../b", "/b"), ("/a/./b", "/a/b"), ("/a/b;x=1", "/a/b;x=1")] {
        let response = gateway.ask(get(target));
        if response.status == 200 {
            assert_eq!(response.text(), format!("GET {expected}\n"), "B-27 {target}");
        } else {
            assert_eq!(response.status, 400, "B-27 {target}");
        }
    }
}

#[test]
fn b42_expectations() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address()).matching("hosts: [a.test]").route("max_body_bytes: 10"),
    );
    let expecting = |host: &str, length: usize, what: &str| {
        format!(
            "POST /bad HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: {what}\r\n\r\n"
        )
    };
    for (host, status) in [("a.test", 413), ("other.test", 404)] {
        let mut client = gateway.connect();
        client.send(expecting(host, 100, "100-continue"));
        let response = client.response().unwrap_or_else(|e| panic!("B-42 {status}: {e:?}"));
        assert_eq!(response.status, status, "B-42");
        assert!(response.interim.is_empty(), "B-42 {status}: no 100 before a refusal");
        client.assert_closed("B-42: the body is unread");
    }
    run_on(
        &gateway,
        &origin,
        &[Case::new(
            "B-42",
            "GET /bad HTTP/1.1\r\nHost: a.test\r\nExpect: something\r\n\r\n",
            &[417],
        )
        .keep()],
    );
    assert_eq!(origin.seen().iter().filter(|seen| seen.target == "/bad").count(), 0, "B-42");
}

#[test]
fn b44_connection_cannot_strip_what_the_gateway_says() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut cases = Vec::new();
    for named in ["Host", "Content-Length", "Transfer-Encoding", "close, host", "HOST"] {
        cases.push(Case::new(
            "B-44",
            post(format!("Connection: {named}\r\nContent-Length: 5").as_bytes(), b"hello"),
            &[400],
        ));
    }
    run_on(&gateway, &origin, &cases);
    let response = gateway.ask(with(
        b"Connection: Authorization, X-User, X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Via, close\r\n\
          Authorization: secret\r\nX-User: me\r\nX-Forwarded-For: 6.6.6.6\r\nKept: yes",
    ));
    assert_eq!(response.status, 200, "B-44");
    let seen = origin.last();
    assert!(
        seen.all("authorization").is_empty() && seen.all("x-user").is_empty(),
        "B-44: {:?}",
        seen.head.fields
    );
    assert_eq!(seen.field("kept"), Some("yes"), "B-44");
    assert_eq!(
        seen.field("x-forwarded-for"),
        Some("127.0.0.1"),
        "B-44: the gateway's own field is set after"
    );
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "B-44");
    assert!(seen.field("x-request-id").is_some(), "B-44");
    assert_eq!(seen.field("via"), Some("1.1 sluice"), "B-44");
}

#[test]
fn b45_spoofed_identity_fields() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("forwarded: true"));
    let response = gateway.ask(with(
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
          X-Forwarded-Host: evil.test\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n\
          X-Consumer-Id: root\r\nX-Consumer-Username: root",
    ));
    assert_eq!(response.status, 200, "B-45");
    let seen = origin.last();
    for (name, value) in &seen.head.fields {
        for evil in ["6.6.6.6", "7.7.7.7", "evil.test", "https", "root"] {
            assert!(!value.contains(evil), "B-45: {name}: {value} comes from an untrusted client");
        }
    }
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "B-45");
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "B-45");
    assert_eq!(seen.field("x-forwarded-host"), Some("a.test"), "B-45");
    assert!(
        seen.field("forwarded").is_some_and(|v| v.contains("for=127.0.0.1")),
        "B-45: {:?}",
        seen.all("forwarded")
    );
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-45", with(b"Via: 1.1 sluice"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.0 other, 1.1 sluice (x)"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.0 other\r\nVia: 1.1 sluice"), &[502, 508]),
            Case::new("B-45", with(b"Via: 1.1 sluicegate"), &[200]).forwarded(),
        ],
    );
}

#[test]
fn b48_other_protocols() {
    // The beginning of a TLS 1.2 ClientHello record.
    let tls = [&b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..], &[0x5a; 194]].concat();
    // A fixed xorshift stream: the same 512 bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random: Vec<u8> = (0..512)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    run(&[
        Case::new("B-48", tls, &[400, 0]).open_ended(),
        Case::new("B-48", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 405, 501, 505]).open_ended(),
        Case::new("B-48", random, &[400, 0]).open_ended(),
        Case::new("B-48", [0u8; 512], &[400, 0]).open_ended(),
        Case::new("B-48", [0xff_u8; 512], &[400, 0]).open_ended(),
        Case::new("B-48", "SSH-2.0-OpenSSH_9.2\r\n", &[400, 0]).open_ended(),
    ]);
}

#[test]
fn b48_saying_nothing_ends_in_a_close() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address())
            .listener("limits: { header_timeout_ms: 300, idle_timeout_ms: 300 }"),
    );
    for bytes in ["", "G", "GET / HT", "GET / HTTP/1.1\r\nHost: a.test\r\n"] {
        let mut client = gateway.connect();
        client.send(bytes);
        match client.response() {
            Ok(response) => {
                assert_eq!(response.status, 408, "B-48 after {bytes:?}");
                client.assert_closed("B-48");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-48 after {bytes:?}: {e:?}"),
        }
    }
    assert_eq!(origin.accepted(), 0, "B-48");
}

#[test]
fn b49_ten_good_then_one_bad() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut bytes: String = (0..10).map(|n| get(&format!("/{n}"))).collect();
    bytes.push_str("GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n");
    bytes.push_str(SMUGGLED);
    let mut client = gateway.connect();
    client.send(bytes);
    for n in 0..10 {
        let response = client.response().unwrap_or_else(|e| panic!("B-49, answer {n}: {e:?}"));
        assert_eq!(response.text(), format!("GET /{n}\n"), "B-49");
    }
    let bad = client.response().unwrap_or_else(|e| panic!("B-49, the 400: {e:?}"));
    assert_eq!(bad.status, 400, "B-49");
    client.assert_closed("B-49");
    assert!(!origin.received("/bad") && !origin.received("/smuggled"), "B-49");
}

/// An origin that accepts WebSocket handshakes and then echoes bytes.
fn websocket_origin() -> Origin {
    Origin::start(|seen| {
        if !seen.head.lists("connection", "upgrade") || seen.field("upgrade").is_none() {
            return answer("no upgrade\n");
        }
        tests::Script::default().send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello from the origin",
        )
    })
    .lenient()
}

#[test]
fn b58_websocket_handshakes() {
    let origin = websocket_origin();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("upgrades: [websocket]"));
    let handshake = |method: &str, fields: &str| {
        format!("{method} /ws HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
    };
    let (connection, upgrade) = ("Connection: Upgrade\r\n", "Upgrade: websocket\r\n");
    let (key, version) =
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n");

    let mut client = gateway.connect();
    client.send(handshake("GET", &format!("{connection}{upgrade}{key}{version}")));
    let (_, head) = client.final_head().unwrap_or_else(|e| panic!("B-58, good: {e:?}"));
    assert_eq!(head.status(), Ok(101), "B-58, good");
    assert!(head.lists("connection", "upgrade") && head.has("upgrade"), "B-58: {:?}", head.fields);
    let mut early = Vec::new();
    client
        .wire
        .body(21, &mut |bytes| early.extend_from_slice(bytes))
        .unwrap_or_else(|e| panic!("B-58: {e:?}"));
    assert_eq!(early, b"hello from the origin", "B-58: bytes pass once it is a tunnel");
    drop(client);

    for (what, method, fields, statuses) in [
        ("no key", "GET", format!("{connection}{upgrade}{version}"), &[400][..]),
        (
            "short key",
            "GET",
            format!("{connection}{upgrade}Sec-WebSocket-Key: dGhl\r\n{version}"),
            &[400],
        ),
        (
            "version 12",
            "GET",
            format!("{connection}{upgrade}{key}Sec-WebSocket-Version: 12\r\n"),
            &[426],
        ),
        (
            "POST",
            "POST",
            format!("{connection}{upgrade}{key}{version}Content-Length: 0\r\n"),
            &[400],
        ),
    ] {
        let response = gateway.ask(handshake(method, &fields));
        assert!(statuses.contains(&response.status), "B-58, {what}: {}", response.head.start);
        if response.status == 426 {
            assert_eq!(response.field("sec-websocket-version"), Some("13"), "B-58, {what}");
        }
    }
    let response = gateway.ask(handshake("GET", &format!("{upgrade}{key}{version}")));
    assert_eq!(
        (response.status, response.text()),
        (200, "no upgrade\n".into()),
        "B-58, no Connection: upgrade"
    );
}

#[test]
fn every_400_is_the_same_400() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let bodies: Vec<String> = [
        "GET /bad HTTP/1.1\r\n\r\n".to_owned(),
        get("/%zz"),
        "GET / HTTP/1.1\r\nHost: a.test\r\nX Y: z\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1, 2\r\n\r\n".to_owned(),
        "\x16\x03\x01 nonsense\r\n\r\n".to_owned(),
    ]
    .iter()
    .map(|bytes| {
        let response = gateway.ask(bytes);
        assert_eq!(response.status, 400, "{bytes:?}");
        let id = response.field("x-request-id").unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "{bytes:?}: no request id");
        assert_ne!(response.framing, Framing::UntilClose, "{bytes:?}");
        response.text().replace(&id, "ID")
    })
    .collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
}

/// Each bad head also comes one byte at a time: how bytes are cut must not change the judgement.
#[test]
fn dribbled_bytes_are_judged_alike() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (bytes, status) in [
        (get("/fine"), 200),
        (format!("\r\n{}", get("/fine")), 200),
        (String::from_utf8_lossy(&chunked(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")).into_owned(), 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned(), 400),
        (String::from_utf8_lossy(&chunked(b"5\r\nhelloX\r\n0\r\n\r\n")).into_owned(), 400),
    ] {
        let mut client = gateway.connect();
        for byte in bytes.as_bytes() {
            client.send([*byte]);
            std::thread::sleep(Duration::from_micros(300));
        }
        let response = client.response().unwrap_or_else(|e| panic!("{bytes:?}: {e:?}"));
        assert_eq!(response.status, status, "{bytes:?} byte by byte");
    }
}
