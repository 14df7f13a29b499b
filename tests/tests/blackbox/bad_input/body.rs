//! Rows on framing: lengths, codings, chunks, trailers, bodies that nobody wants.

use super::*;

#[test]
fn b05_to_b10_content_length() {
    let mut cases = vec![
        Case::new(
            "B-05",
            post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new(
            "B-05",
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new(
            "B-05",
            post(b"Transfer-Encoding: chunked\r\nContent-Length: 0", b"0\r\n\r\n"),
            &[400],
        ),
        Case::new("B-06", post(b"Content-Length: 5\r\nContent-Length: 6", b"hello!"), &[400]),
        Case::new("B-06", post(b"Content-Length: 5, 6", b"hello!"), &[400]),
        Case::new("B-07", post(b"Content-Length: 5\r\nContent-Length: 5", b"hello"), &[400]),
        Case::new("B-07", post(b"Content-Length: 5, 5", b"hello"), &[400]),
        Case::new("B-09", post(b"Content-Length: 18446744073709551616", b""), &[400]),
        Case::new("B-09", post(b"Content-Length: 18446744073709551621", b"hello"), &[400]),
        Case::new("B-09", post(b"Content-Length: 1000000000000000000000000000000", b""), &[400]),
    ];
    for value in [
        "+5", "-1", "-0", "0x5", "1_0", "1 0", "5;", "", "\t", "1\t0", "5.0", "5e0", "five",
        "\u{665}",
    ] {
        let field = format!("Content-Length: {value}");
        cases.push(Case::new("B-08", post(field.as_bytes(), b"hello"), &[400]));
    }
    run(&cases);
}

#[test]
fn b10_a_length_with_leading_zeros_is_refused_or_canonical() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (value, body) in [("010", "0123456789"), ("00", "")] {
        let mut client = gateway.connect();
        let response =
            client.ask(post(format!("Content-Length: {value}").as_bytes(), body.as_bytes()));
        if response.status == 400 {
            client.assert_closed("B-10");
            continue;
        }
        assert_eq!(response.status, 200, "B-10 {value}");
        let seen = origin.last();
        assert_eq!(seen.body, body.as_bytes(), "B-10 {value}");
        assert_ne!(seen.field("content-length"), Some(value), "B-10: must be canonical");
        client.assert_alive("B-10");
    }
}

#[test]
fn b11_to_b16_transfer_encoding() {
    let mut cases = Vec::new();
    for coding in ["xchunked", "gzip", "identity", "chunkedd", "chunked;x=y"] {
        let field = format!("Transfer-Encoding: {coding}");
        cases.push(Case::new("B-11", post(field.as_bytes(), b"0\r\n\r\n"), &[501]));
    }
    cases.push(Case::new("B-11", post(b"Transfer-Encoding:", b"0\r\n\r\n"), &[400]));
    cases.push(Case::new("B-11", post(b"Transfer-Encoding: ", b"0\r\n\r\n"), &[400]));
    for fields in ["Transfer-Encoding: chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked"]
    {
        let bytes = format!("POST /bad HTTP/1.0\r\nHost: a.test\r\n{fields}\r\n\r\n0\r\n\r\n");
        cases.push(Case::new("B-12", bytes, &[400]));
    }
    for coding in ["chunked, gzip", "chunked, chunked", "chunked,chunked", "chunked, identity"] {
        let field = format!("Transfer-Encoding: {coding}");
        cases.push(Case::new("B-13", post(field.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: , chunked",
    ] {
        cases.push(Case::new("B-14", post(fields.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    for value in [
        &b"\x0bchunked"[..],
        b"chunked\x0b",
        b"\x0cchunked",
        b"chunked\x0c",
        b"chunked\0",
        b"\0chunked",
        b"\x85chunked",
        b"chunked\x85",
        b"\xa0chunked",
        b"chunked\xa0",
        b"\"chunked\"",
        b"chu\x00nked",
    ] {
        let field = [b"Transfer-Encoding: ", value].concat();
        cases.push(Case::new("B-15", post(&field, b"0\r\n\r\n"), &[400]));
    }
    // ' may stand in a token, so this is an unknown coding as well as a quoted one.
    cases.push(Case::new("B-15", post(b"Transfer-Encoding: 'chunked'", b"0\r\n\r\n"), &[400, 501]));
    for name in ["Transfer-Encoding ", "Transfer-Encoding\t", "Content-Length ", "X-Any "] {
        let value = if name.starts_with('C') { "5" } else { "chunked" };
        let field = format!("{name}: {value}");
        cases.push(Case::new("B-16", post(field.as_bytes(), b"0\r\n\r\n"), &[400]));
    }
    run(&cases);
}

#[test]
fn b36_to_b38_chunks() {
    let mut cases = Vec::new();
    for size in [
        "+5",
        "-1",
        "0x5",
        "5_0",
        " 5",
        "5 ",
        "\t5",
        "",
        "g",
        "00000000000000005",
        "fffffffffffffffff",
        "5\0",
        "5,",
        "5:",
    ] {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n");
        cases.push(Case::new("B-36", chunked(body.as_bytes()), &[400]).unfinished());
    }
    // A size that is only too large may also be called that.
    let huge = chunked(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n");
    cases.push(Case::new("B-36", huge, &[400, 413]).unfinished().open_ended());
    for body in [
        &b"5\r\nhelloo\r\n0\r\n\r\n"[..],
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"hello",
    ] {
        cases.push(Case::new("B-37", chunked(body), &[400]).unfinished());
    }
    for extension in [
        &b";"[..],
        b"; ",
        b";a=\0",
        b";a=b\rc",
        b";a=b\nc",
        b";=b",
        b"; =b",
        b";a=\"b",
        b";a b",
        b";a=(b)",
        b";\x01",
        b";;",
        b";a=b;",
    ] {
        let body = [b"5", extension, b"\r\nhello\r\n0\r\n\r\n"].concat();
        cases.push(Case::new("B-38", chunked(&body), &[400]).unfinished());
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5_000));
    cases.push(Case::new("B-38", chunked(long.as_bytes()), &[400]).unfinished());
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(60));
    cases.push(Case::new("B-38", chunked(many.as_bytes()), &[400]).unfinished());
    run(&cases);
}

#[test]
fn b38_good_extensions_are_read_and_never_forwarded() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    let response = client.ask(chunked(b"5;a=b\r\nhello\r\n1;secret=\"q;\"\r\n!\r\n0;last\r\n\r\n"));
    assert_eq!(response.status, 200, "B-38");
    assert_eq!(origin.last().body, b"hello!", "B-38");
    assert!(
        !origin.received("secret") && !origin.received("a=b"),
        "B-38: an extension went through"
    );
    client.assert_alive("B-38");
}

#[test]
fn b39_forbidden_trailers_are_dropped_or_refused() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for trailer in [
        "Content-Length: 77",
        "Transfer-Encoding: chunked",
        "Host: evil.test",
        "Authorization: Basic evil",
        "Content-Type: text/evil",
        "Connection: close",
        "X-Forwarded-For: 6.6.6.6",
    ] {
        let mut client = gateway.connect();
        let bytes =
            chunked(format!("5\r\nhello\r\n0\r\n{trailer}\r\nX-Fine: 1\r\n\r\n").as_bytes());
        let response = client.ask(bytes);
        if response.status == 400 {
            client.assert_closed("B-39");
            continue;
        }
        assert_eq!(response.status, 200, "B-39 {trailer}");
        let (name, value) = trailer.split_once(": ").unwrap();
        let seen = origin.last();
        assert_eq!(seen.body, b"hello", "B-39 {trailer}");
        assert!(
            seen.trailers.iter().all(|(n, _)| !n.eq_ignore_ascii_case(name)),
            "B-39 {trailer} in {:?}",
            seen.trailers
        );
        if value.len() > 8 || value == "77" {
            assert!(
                seen.head.fields.iter().all(|(_, v)| v != value || name == "Transfer-Encoding"),
                "B-39 {trailer} merged into the head"
            );
        }
        client.assert_alive("B-39");
    }
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\n:path: /x\r\n\r\n"), &[400])
                .unfinished(),
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\nNo Token: x\r\n\r\n"), &[400])
                .unfinished(),
            Case::new("B-39", chunked(b"5\r\nhello\r\n0\r\n folded\r\n\r\n"), &[400]).unfinished(),
        ],
    );
}

#[test]
fn b40_an_upgrade_refused_by_the_origin_is_no_tunnel() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("upgrades: [foo]"));
    for token in ["foo", "websocket", "h2c"] {
        let before = origin.completed();
        let mut client = gateway.connect();
        client.send(format!(
            "GET /upgrade HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\n{}",
            get("/second")
        ));
        let first = client.response().unwrap_or_else(|e| panic!("B-40 {token}: {e:?}"));
        assert_eq!(first.text(), "GET /upgrade\n", "B-40 {token}");
        match client.response() {
            Ok(second) => {
                assert_eq!(second.text(), "GET /second\n", "B-40 {token}");
                assert_eq!(origin.completed() - before, 2, "B-40 {token}");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-40 {token}: {e:?}"),
        }
    }
    let seen = origin.seen();
    let unlisted = seen
        .iter()
        .filter(|seen| seen.target == "/upgrade")
        .filter(|seen| seen.field("upgrade").is_some_and(|token| token != "foo"));
    assert_eq!(unlisted.count(), 0, "an Upgrade that the route does not allow was forwarded");
}

#[test]
fn b41_the_body_of_a_request_answered_early_is_never_a_request() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address()).matching("hosts: [a.test]").also_route(
            "{ name: get, match: { hosts: [a.test], path: { exact: /get }, methods: [GET] }, upstream: origin }",
        ),
    );
    let small = SMUGGLED.repeat(3);
    let large = SMUGGLED.repeat(40_000);
    for (host, path, status) in [("other.test", "/bad", 404), ("a.test", "/get", 405)] {
        for body in [&small, &large] {
            for chunked in [false, true] {
                let mut client = gateway.connect();
                let body_bytes = if chunked {
                    format!(
                        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                        body.len()
                    )
                } else {
                    format!("Content-Length: {}\r\n\r\n{body}", body.len())
                };
                client.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{body_bytes}"));
                let what = format!("B-41 {status}, {} bytes, chunked {chunked}", body.len());
                let response = client.response().unwrap_or_else(|e| panic!("{what}: {e:?}"));
                assert_eq!(response.status, status, "{what}");
                client.send(get("/after"));
                match client.response() {
                    Ok(next) => assert_eq!(next.text(), "GET /after\n", "{what}"),
                    Err(WireError::Closed | WireError::Reset(_)) => {
                        assert!(response.says_close(), "{what}: closed without saying so");
                    }
                    Err(e) => panic!("{what}: {e:?}"),
                }
            }
        }
    }
    assert!(!origin.received("/smuggled"), "B-41: a body was parsed as a request");
}

#[test]
fn b43_a_body_cut_by_fin_never_completes_upstream() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for (fields, body) in [
        ("Content-Length: 100", "x".repeat(50)),
        ("Transfer-Encoding: chunked", "32\r\n".to_owned() + &"x".repeat(50) + "\r\n"),
        ("Transfer-Encoding: chunked", "32\r\n".to_owned() + &"x".repeat(50) + "\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "64\r\n".to_owned() + &"x".repeat(50)),
    ] {
        let mut client = gateway.connect();
        client.send(post(fields.as_bytes(), body.as_bytes()));
        client.wire.half_close();
        match client.response() {
            Ok(response) => {
                assert!(matches!(response.status, 400 | 408), "B-43 {}", response.status)
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-43 {fields}: {e:?}"),
        }
    }
    // The origin's connections must end, or it would wait for the rest for ever.
    assert!(eventually(PATIENCE, || origin.open() == 0), "B-43: upstream requests are not aborted");
    assert_eq!(origin.completed(), 0, "B-43");
}

#[test]
fn b46_bodies_over_the_limit() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).route("max_body_bytes: 1000"));
    let body = "x".repeat(1001);
    let mut cases = vec![
        Case::new("B-46", post(b"Content-Length: 1001", body.as_bytes()), &[413]),
        Case::new("B-46", post(b"Content-Length: 9000000000000000000", b""), &[413]).open_ended(),
        Case::new("B-46", post(b"Content-Length: 1000", &body.as_bytes()[..1000]), &[200])
            .forwarded(),
        Case::new("B-46", chunked(format!("3e9\r\n{body}\r\n0\r\n\r\n").as_bytes()), &[413])
            .unfinished(),
        Case::new(
            "B-46",
            chunked(format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1001)).as_bytes()),
            &[413],
        )
        .unfinished(),
        Case::new(
            "B-46",
            chunked(format!("3e8\r\n{}\r\n0\r\n\r\n", &body[..1000]).as_bytes()),
            &[200],
        )
        .forwarded(),
    ];
    cases.push(
        Case::new("B-46", chunked(b"7fffffffffffffff\r\nx"), &[413]).unfinished().open_ended(),
    );
    run_on(&gateway, &origin, &cases);
}

#[test]
fn b47_bodies_on_methods_without_meaning_for_them() {
    let mut cases = Vec::new();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let head = format!("{method} /body HTTP/1.1\r\nHost: a.test\r\n");
        cases.push(
            Case::new(
                "B-47",
                format!("{head}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
                &[200, 400],
            )
            .forwarded(),
        );
        cases.push(
            Case::new(
                "B-47",
                format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
                    SMUGGLED.len()
                ),
                &[200, 400],
            )
            .forwarded(),
        );
    }
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    for case in &cases {
        attempt(&gateway, &origin, case, b"").unwrap_or_else(|e| panic!("{}: {e}", case.name()));
    }
    let targets = origin.seen();
    assert!(
        targets.iter().all(|seen| seen.target != "/smuggled"),
        "B-47: a body was parsed as a request"
    );
}
