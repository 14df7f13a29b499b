//! What routes change of requests and answers, and what they answer themselves: HTTP/1 and HTTP/2
//! clients before HTTP/1 and HTTP/2 origins.

use tests::http2::client::request;
use tests::http2::{H2Client, H2Origin, Reply};
use tests::message::values;
use tests::spec::Spec;
use tests::{Gateway, Origin, cli};

type Fields = Vec<(String, String)>;

/// Rules of one route, before one origin of each kind: `/h1` and `/h2` lead there.
struct World {
    gateway: Gateway,
    h1: Origin,
    h2: H2Origin,
}

/// What came of one request: at the origin (its first line's words), and at the client.
struct Came {
    line: String,
    seen: Fields,
    status: u16,
    fields: Fields,
    body: String,
}

impl Came {
    fn sent(&self, name: &str) -> Vec<&str> {
        values(&self.seen, name)
    }

    fn got(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }
}

impl World {
    fn new(rules: &str) -> World {
        let h1 = Origin::start(|_| {
            tests::origin::answer_with(
                "404 Not Found",
                "X-Old: 1\r\nServer: s\r\nSet-Cookie: a=1; Domain=in\r\nSet-Cookie: gone=1\r\n",
                "body",
            )
        });
        let h2 = H2Origin::clear(|_| {
            let head = [
                (":status", "404"),
                ("x-old", "1"),
                ("server", "s"),
                ("set-cookie", "a=1; Domain=in"),
                ("set-cookie", "gone=1"),
            ];
            Reply::default().request().head(&head).data("body").end()
        });
        let spec = Spec::to(h1.address())
            .listener("h2c: true")
            .also_upstream("two", h2.address(), "protocol: http2")
            .also_route(&format!(
                "{{ name: h1, match: {{ path: /h1 }}, upstream: origin, {rules} }}"
            ))
            .also_route(&format!("{{ name: h2, match: {{ path: /h2 }}, upstream: two, {rules} }}"));
        World { gateway: Gateway::of(&spec), h1, h2 }
    }

    /// With each client at each origin.
    fn each(&self, rest: &str, fields: &[(&str, &str)], judge: impl Fn(&Came, &str)) {
        for behind in ["h1", "h2"] {
            for front in ["h1", "h2"] {
                let target = format!("/{behind}{rest}");
                let (status, got, body) = match front {
                    "h1" => {
                        let lines =
                            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
                        let lines: String = lines.collect();
                        let response = self
                            .gateway
                            .ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n"));
                        (response.status, response.head.fields.clone(), response.text())
                    }
                    _ => {
                        let mut head = request("GET", &target);
                        head.extend_from_slice(fields);
                        let mut client = H2Client::clear(self.gateway.address());
                        let answer = client.ask(&head, b"");
                        (answer.status, answer.fields.clone(), answer.text())
                    }
                };
                let (line, seen) = match behind {
                    "h1" => {
                        let seen = self.h1.last();
                        (format!("{} {}", seen.method, seen.target), seen.head.fields.clone())
                    }
                    _ => {
                        let seen = self.h2.last();
                        (format!("{} {}", seen.method(), seen.path()), seen.fields.clone())
                    }
                };
                let came = Came { line, seen, status, fields: got, body };
                judge(&came, &format!("{front} to {behind}"));
            }
        }
    }
}

#[test]
fn requests_and_answers_are_changed_whatever_is_spoken() {
    let world = World::new(
        "request: { \
            path: \"/v2/${path.rest}\", host: \"${route.name}.internal\", \
            query: { set: { n: \"${path.rest}&\" }, remove: [gone], rename: { a: b } }, \
            headers: { set: { X-Set: \"${query.q | upper}\" }, remove: [X-Gone], \
                       rename: { X-Old: X-New }, copy: { User-Agent: X-Agent } }, \
            cookies: { set: { t: \"${header.x-old}\" }, remove: [gone] } }, \
         response: { \
            status: { 404: 200 }, \
            headers: { rename: { X-Old: X-New }, remove: [Server], \
                       set: { X-From: \"${response.status} ${path.rest} ${header.x-old}\" } }, \
            cookies: { remove: [gone], rewrite: [{ domain: shop.example, secure: true }], \
                       set: { own: { value: \"${query.q}\", http_only: true, same_site: lax } } } }",
    );
    let fields =
        [("user-agent", "me"), ("x-old", "o"), ("x-gone", "g"), ("cookie", "one=1; gone=2")];
    world.each("/x%20y?q=v&gone=1&a=1", &fields, |came, way| {
        assert_eq!(came.line, "GET /v2/x%20y?q=v&b=1&n=x%20y%26", "{way}");
        let host = [came.sent("host"), came.sent(":authority")].concat();
        assert_eq!(host, [format!("{}.internal", &way[way.len() - 2..])], "{way}");
        assert_eq!((came.sent("x-set"), came.sent("x-agent")), (vec!["V"], vec!["me"]), "{way}");
        assert_eq!((came.sent("x-old").len(), came.sent("x-new")), (0, vec!["o"]), "{way}");
        assert_eq!(came.sent("x-gone").len(), 0, "{way}");
        assert_eq!(came.sent("cookie").join("; "), "one=1; t=o", "{way}");
        assert_eq!((came.status, came.body.as_str()), (200, "body"), "{way}");
        assert_eq!((came.got("x-new"), came.got("x-old").len()), (vec!["1"], 0), "{way}");
        assert_eq!((came.got("server").len(), came.got("x-from")), (0, vec!["404 x y o"]), "{way}");
        assert_eq!(
            came.got("set-cookie"),
            ["a=1; Domain=shop.example; Secure", "own=v; Path=/; HttpOnly; SameSite=Lax"],
            "{way}"
        );
    });
}

#[test]
fn nothing_in_a_value_ends_a_field() {
    let world = World::new(
        "request: { headers: { set: { X-Set: \"${query.q}\" } }, cookies: { set: { c: \"${query.q}\" } } }, \
         response: { headers: { set: { X-Set: \"${query.q}\" } }, cookies: { set: { c: \"${query.q}\" } } }",
    );
    for bad in ["a%0D%0AX-Evil:%201", "a%0aX-Evil:1", "a%01", "a%0D"] {
        world.each(&format!("?q={bad}"), &[], |came, way| {
            for name in ["x-set", "x-evil", "cookie"] {
                assert_eq!(came.sent(name).len(), 0, "{name} {bad} {way}: {:?}", came.seen);
            }
            for name in ["x-set", "x-evil"] {
                assert_eq!(came.got(name).len(), 0, "{name} {bad} {way}: {:?}", came.fields);
            }
            assert_eq!(came.got("set-cookie").len(), 2, "{bad} {way}");
        });
    }
    let unfit = world.gateway.metric("sluice_shard_template_values_unfit_total");
    assert_eq!(unfit, Some(64.0), "four values, four ways, four rules");
}

#[test]
fn the_gateway_answers_itself() {
    let gateway = Gateway::start(
        "version: 1
admin: { listen: \"127.0.0.1:{ADMIN}\" }
access_log: { path: \"{DIR}/access.jsonl\" }
listeners: [ { name: web, listen: \"127.0.0.1:{PORT}\", h2c: true } ]
routes:
- { name: old, match: { path: /old }, redirect: { status: 308, location: \"/new/${path.rest}\", keep_query: true } }
- name: status
  match: { path: /status }
  respond: { status: 201, headers: { X-Id: \"${request.id}\" }, json: { ok: true, n: [1, \"${query.n | int | default(0)}\"] } }
  response: { headers: { set: { X-Route: \"${route.name}\" } } }
- { name: text, match: { path: /text }, respond: { body: \"hello ${query.who | default(\\\"you\\\")}\\n\" } }
",
    );
    let response = gateway.ask("GET /old/a%20b?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.field("location")), (308, Some("/new/a%20b?x=1")));
    assert_eq!(response.body.len(), 0);
    let response = gateway.ask("GET /old HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.problem().as_deref()), (400, Ok("value_missing")));
    let mut client = gateway.connect();
    // With bodies, which are of no interest, the connection goes on all the same.
    for _ in 0..3 {
        let post = "POST /status?n=7 HTTP/1.1\r\nHost: a\r\nX-Request-Id: me\r\nContent-Length: 2\r\n\r\nhi";
        let response = client.ask(post);
        assert_eq!(
            (response.status, response.text().as_str()),
            (201, "{\"n\":[1,7],\"ok\":true}\n")
        );
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(
            (response.field("x-id"), response.field("x-route")),
            (Some("me"), Some("status"))
        );
    }
    let head = client.send("HEAD /text HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    let head = head.expect("an answer");
    assert_eq!(
        (head.status, head.body.len(), head.field("content-type")),
        (200, 0, Some("text/plain; charset=utf-8"))
    );
    let mut client = H2Client::clear(gateway.address());
    let answer = client.ask(&request("GET", "/text?who=me"), b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello me\n"));
    let answer = client.ask(&request("POST", "/old/x"), b"some body");
    assert_eq!((answer.status, answer.field("location")), (308, Some("/new/x")));
    let answer = client.ask(&request("GET", "/text"), b"");
    assert_eq!(answer.text(), "hello you\n", "after a body that nobody read");
}

#[test]
fn bodies_of_answers_are_bounded() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/chunked" => tests::Script::default()
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .sleep(std::time::Duration::from_millis(50))
            .send("6\r\n world\r\n0\r\n\r\n"),
        "/large" => tests::origin::answer("hello world"),
        _ => tests::origin::answer("hello"),
    });
    let spec = Spec::to(origin.address()).listener("h2c: true");
    let gateway = Gateway::of(&spec.route("response: { max_body_bytes: 10 }"));
    let ask = |path: &str| gateway.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((ask("/small").status, ask("/small").text().as_str()), (200, "hello"));
    let response = ask("/large");
    assert_eq!((response.status, response.problem().as_deref()), (502, Ok("answer_too_large")));
    let mut client = gateway.connect();
    client.send("GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response().is_err(), "it is cut, and does not look whole");
    let mut client = H2Client::clear(gateway.address());
    let stream = client.get("/chunked");
    assert!(client.answer(stream).is_err());
    client.assert_alive("after a cut answer");
    let head =
        gateway.connect().send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n").response_to("HEAD");
    assert_eq!(head.expect("an answer").status, 200, "which has no body");
}

#[test]
fn what_cannot_be_is_refused_where_it_stands() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address());
    let gateway = Gateway::of(&spec);
    let check = |rules: &str| {
        let text = spec.clone().route(rules).text();
        let path = gateway.dir().join("bad.yaml");
        let text = text.replace("{ADMIN}", "9").replace("{PORT}", "8").replace("{DIR}", "/tmp");
        std::fs::write(&path, text).expect("can write");
        let outcome = cli(&["check", path.to_str().expect("is text")]);
        (outcome.code, outcome.text())
    };
    assert_eq!(check("request: { headers: { set: { X-A: \"${path.rest}\" } } }").0, Some(0));
    for (rules, told) in [
        (
            "request: { headers: { set: { X-A: \"${pth.rest}\" } } }",
            "`pth` is unknown; expected path",
        ),
        ("request: { headers: { set: { X-A: \"${path.id}\" } } }", "no part of the path `id`"),
        ("request: { headers: { set: { X-A: \"a${query.b\" } } }", "expected `}`"),
        ("request: { headers: { set: { Host: a } } }", "use request.host"),
        ("request: { headers: { set: { X-A: \"${claim.sub}\" } } }", "`claim` is not at hand here"),
        ("request: { path: /x }, rewrite: { strip_prefix: true }", "`rewrite` changes the path"),
        ("redirect: /x", "exclude each other"),
    ] {
        let (code, text) = check(rules);
        assert!(code != Some(0) && text.contains(told), "{rules}: {text}");
        assert!(text.contains("routes[0]"), "{rules}: {text}");
    }
}
