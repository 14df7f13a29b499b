//! Rows on the request head: Host, field lines, line ends, request line, sizes, versions.

use super::*;

#[test]
fn b01_to_b04_host() {
    let mut cases = vec![
        Case::new("B-01", "GET /bad HTTP/1.1\r\n\r\n", &[400]),
        Case::new("B-02", "GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", &[400]),
        Case::new("B-02", "GET /bad HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", &[400]),
        Case::new(
            "B-02",
            "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: y\r\nhOST: a.test\r\n\r\n",
            &[400],
        ),
    ];
    for host in ["a.test, b.test", "a,b"] {
        cases.push(Case::new("B-02", format!("GET /bad HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]));
    }
    for host in [
        "user@a.test",
        "user:pw@a.test",
        "a.test/x",
        "a.test?x",
        "a.test#x",
        "a .test",
        "",
        " ",
        "a.test:99999",
        "a.test:x",
        "a.test:80:80",
        "a.test:-1",
        "[::1",
        "::1]",
        "[x]",
        "a\\b",
        "a<b",
        "a%zz",
    ] {
        cases.push(Case::new("B-03", format!("GET /bad HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]));
    }
    run(&cases);
}

#[test]
fn b17_to_b20_field_lines() {
    let mut cases = vec![
        Case::new("B-17", with(b"X-A: b\r\n c"), &[400]),
        Case::new("B-17", with(b"X-A: b\r\n\tc"), &[400]),
        Case::new("B-17", with(b"X-A:\r\n b"), &[400]),
        Case::new("B-17", post(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"), &[400]),
        Case::new("B-17", with(b"X-A: b\r\n "), &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n Host: a.test\r\n\r\n", &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n\tHost: a.test\r\n\r\n", &[400]),
        Case::new("B-18", "GET /bad HTTP/1.1\r\n X: y\r\nHost: a.test\r\n\r\n", &[400]),
    ];
    for field in [
        &b"NoColon"[..],
        b": value",
        b"X Y: z",
        b"X\xc3\xa9: z",
        b"X(Y): z",
        b"X\"Y: z",
        b"X/Y: z",
        b"X@Y: z",
        b"X\x00Y: z",
        b"X\x7fY: z",
        b"[X]: z",
        b"X\t: z",
        b"\x01: z",
        b"X,Y: z",
        b"=X: z",
        b"{X}: z",
        b"Transfer_Encoding: chunked",
        b"Content_Length: 5",
        b"X_Y: z",
        b"_X: z",
        b"X_: z",
    ] {
        cases.push(Case::new("B-19", with(field), &[400]));
    }
    for byte in (0u8..0x20).filter(|b| !b"\t\r\n".contains(b)).chain([0x7f]) {
        cases.push(Case::new("B-20", with(&[b"X-A: b", &[byte][..], b"c"].concat()), &[400]));
    }
    cases.push(Case::new("B-20", with(b"X-A: b\rc"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\nc"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\nX-B: c"), &[400]));
    cases.push(Case::new("B-20", with(b"X-A: b\r"), &[400]));
    run(&cases);
}

#[test]
fn b19_underscore_fields_may_be_dropped_instead() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("underscore_fields: drop"));
    let mut client = gateway.connect();
    let response = client.ask(with(b"X_Y: secret\r\nX-Z: kept"));
    assert_eq!(response.status, 200, "B-19 drop: {:?}", response.text());
    assert!(!origin.received("secret"), "B-19 drop: the field must go");
    assert_eq!(origin.last().field("x-z"), Some("kept"), "B-19 drop: the others stay");
    client.assert_alive("B-19 drop");
}

#[test]
fn b21_b22_line_ends() {
    run(&[
        Case::new("B-21", "GET /bad HTTP/1.1\nHost: a.test\r\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\r\nX: y\n\r\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\nHost: a.test\n\n", &[400]),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\r\n\n", &[400]).open_ended(),
        Case::new("B-21", "GET /bad HTTP/1.1\r\nHost: a.test\n\r\n", &[400]),
        Case::new("B-21", chunked(b"5\nhello\r\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\n\r\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\r\n\n"), &[400]).unfinished(),
        Case::new("B-21", chunked(b"5\r\nhello\r\n0\r\nX-T: y\n\r\n"), &[400]).unfinished(),
        Case::new("B-22", "GET /bad HTTP/1.1\rHost: a.test\r\n\r\n", &[400]),
        Case::new("B-22", "GET /bad HTTP/1.1\r\nHost: a.test\rX: y\r\n\r\n", &[400]),
        Case::new("B-22", "GET /bad HTTP/1.1\rHost: a.test\r\r", &[400]).open_ended(),
        Case::new("B-22", chunked(b"5\rhello\r\n0\r\n\r\n"), &[400]).unfinished(),
        Case::new("B-22", chunked(b"5\r\nhello\r0\r\n\r\n"), &[400]).unfinished(),
    ]);
}

#[test]
fn b23_to_b26_request_line() {
    let mut cases = vec![
        Case::new("B-23", format!("\r\n{}", get("/good")), &[200]).forwarded(),
        Case::new("B-23", format!("\r\n\r\n\r\n{}", get("/bad")), &[400]),
        Case::new("B-23", format!("{}{}", "\r\n".repeat(50), get("/bad")), &[400]),
    ];
    for bad in [
        &b"GET  /bad HTTP/1.1"[..],
        b"GET /bad  HTTP/1.1",
        b"GET\t/bad HTTP/1.1",
        b"GET /bad\tHTTP/1.1",
        b"GET /bad HTTP/1.1 ",
        b"GET /bad HTTP/1.1\t",
        b" GET /bad HTTP/1.1",
        b"\tGET /bad HTTP/1.1",
        b"GET /bad HTTP/1.1 x",
        b"GET\x0b/bad HTTP/1.1",
    ] {
        cases.push(Case::new("B-24", line(bad), &[400]));
    }
    for target in [
        &b"/a b"[..],
        b"/bad#frag",
        b"/b\xc3\xa4d",
        b"/\xff",
        b"/a\\b",
        b"/a<b",
        b"/a>b",
        b"/a\"b",
        b"/a{b",
        b"/a}b",
        b"/a|b",
        b"/a^b",
        b"/a`b",
        b"bad",
        b"",
        b"/a\x00b",
        b"/a\x7fb",
        b"/?a#b",
        b"/?a\\b",
        b"http:///bad",
        b"http://",
        b"http://u@a.test/bad",
    ] {
        cases.push(Case::new("B-25", line(&[b"GET ", target, b" HTTP/1.1"].concat()), &[400]));
    }
    for target in ["/%zz", "/%0", "/%", "/%00", "/a%00b", "/%C0%AF", "/%c0%ae%c0%ae/", "/%E0%80%AF"]
    {
        cases.push(Case::new("B-26", get(target), &[400]));
    }
    run(&cases);
}

#[test]
fn b28_b29_sizes() {
    let long_line = |length: usize| {
        // "GET " + target + " HTTP/1.1" is what the table counts.
        let target = format!("/{}", "a".repeat(length - "GET / HTTP/1.1".len()));
        get(&target)
    };
    let fields = |count: usize, size: usize| {
        let lines: Vec<String> =
            (0..count).map(|n| format!("X-{n}: {}", "v".repeat(size))).collect();
        with(lines.join("\r\n").as_bytes())
    };
    run(&[
        Case::new("B-28", long_line(4_000), &[200]).forwarded(),
        Case::new("B-28", long_line(8_000), &[200]).forwarded(),
        Case::new("B-28", long_line(40_000), &[414]),
        Case::new("B-28", long_line(200_000), &[414]),
        Case::new("B-29", fields(90, 10), &[200]).forwarded(),
        Case::new("B-29", fields(40, 500), &[200]).forwarded(),
        Case::new("B-29", fields(40, 1_000), &[431]),
        Case::new("B-29", fields(1, 200_000), &[431]),
        Case::new("B-29", fields(101, 1), &[431]),
        Case::new("B-29", fields(1_000, 1), &[431]),
        Case::new("B-29", with(format!("{}: v", "n".repeat(257)).as_bytes()), &[431]),
        Case::new("B-29", with(format!("{}: v", "n".repeat(200)).as_bytes()), &[200]).forwarded(),
        // Endless heads are refused before they end.
        Case::new("B-28", format!("GET /{}", "a".repeat(100_000)), &[414]).open_ended(),
        Case::new("B-29", format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(100_000)), &[431])
            .open_ended(),
    ]);
}

#[test]
fn b30_methods_are_never_folded() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).also_route(
        "{ name: only, match: { path: { prefix: /only }, methods: [GET, POST] }, upstream: origin }",
    ));
    let line =
        |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    run_on(
        &gateway,
        &origin,
        &[
            Case::new("B-30", line(&"M".repeat(33), "/bad"), &[501]),
            Case::new("B-30", line(&"M".repeat(5_000), "/bad"), &[501]),
            Case::new("B-30", line("G(T", "/bad"), &[400]),
            Case::new("B-30", line("", "/bad"), &[400]),
        ],
    );
    for method in ["get", "Get", "BREW"] {
        let mut client = gateway.connect();
        let response = client.ask(line(method, "/only"));
        assert_eq!(response.status, 405, "B-30 {method}");
        let mut allowed: Vec<&str> =
            response.field("allow").unwrap_or_default().split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "POST"], "B-30 {method}");
        client.assert_alive("B-30");
        let response = gateway.ask(line(method, "/any"));
        if response.status == 200 {
            assert_eq!(response.text(), format!("{method} /any\n"), "B-30: never folded");
        } else {
            assert_eq!(response.status, 405, "B-30 {method}");
        }
    }
}

#[test]
fn b31_to_b35_versions_and_forms() {
    let mut cases = Vec::new();
    for version in [
        "HTTP/1.32",
        "HTTP/01.1",
        "HTTP/1",
        "http/1.1",
        "HTTP/ 1.1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.1.1",
        "HTTP 1.1",
        "HTTPS/1.1",
        "HTTP/1,1",
        "HTTP/a.b",
        "HTTP/+1.1",
        "Http/1.1",
        "H",
        "HTTP/",
    ] {
        cases.push(Case::new("B-31", line(format!("GET /bad {version}").as_bytes()), &[400]));
    }
    for version in ["HTTP/2.0", "HTTP/3.0"] {
        cases.push(Case::new("B-32", line(format!("GET /bad {version}").as_bytes()), &[505]));
    }
    cases.push(Case::new("B-33", "GET /bad\r\n\r\n", &[400]));
    cases.push(Case::new("B-33", line(b"GET /bad"), &[400]));
    cases.push(Case::new("B-34", line(b"GET * HTTP/1.1"), &[400]));
    cases.push(Case::new("B-34", line(b"OPTIONS *x HTTP/1.1"), &[400]));
    cases.push(Case::new("B-34", line(b"OPTIONS * HTTP/1.1"), &[200, 204]).keep());
    cases.push(Case::new(
        "B-35",
        "CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n",
        &[405, 501],
    ));
    cases.push(Case::new(
        "B-35",
        "CONNECT /bad HTTP/1.1\r\nHost: a.test\r\n\r\n",
        &[400, 405, 501],
    ));
    cases.push(Case::new("B-35", line(b"TRACE /bad HTTP/1.1"), &[405]).keep());
    run(&cases);
}
