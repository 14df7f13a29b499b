//! Rules over real sockets: a shard, a client, and an origin that tells what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use contract::snapshot::{
    self, AnswerCookies, CookieAttributes, CookieRewrite, CookieRules, NameRules, NewCookie,
    OwnAnswer, PathMatch, PathRewrite, PathShape, RequestShape, ResponseShape, RouteShape,
    SameSite, Snapshot, StaticBody, StatusRule,
};
use proptest::prelude::*;

use super::Judged;
use super::build::scope;
use super::captures::Captures;
use super::fields::FieldRules;
use crate::answer::Edit;
use crate::message::{Dialect, HeadLimits, HeadWriter, RequestHead};
use crate::plan::Plan;
use crate::template::{Reference, Values};
use crate::testing::{Reply, ask, field, fields, gateway, origin};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn route(path: PathMatch, shape: RouteShape) -> snapshot::Route {
    let answers = shape.answer.is_some();
    let backends = vec![snapshot::Backend { upstream: 0, weight: 1 }];
    snapshot::Route {
        name: "r".into(),
        path,
        backends: if answers { vec![] } else { backends },
        max_body_bytes: 1 << 20,
        shape: Some(Box::new(shape)),
        ..Default::default()
    }
}

fn snapshot(origin: SocketAddr, route: snapshot::Route) -> Snapshot {
    let target =
        snapshot::Target { address: origin, name: origin.to_string(), ..Default::default() };
    let upstream =
        snapshot::Upstream { name: "u".into(), targets: vec![target], ..Default::default() };
    Snapshot { upstreams: vec![upstream], routes: vec![route], ..Default::default() }
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.into())
}

/// What the origin got for one request, and what the client.
fn exchange(
    route: snapshot::Route,
    answer: &'static str,
    line: &'static str,
    with: &'static str,
) -> (Option<String>, Reply) {
    let (address, seen) = origin(answer, 0);
    let reply: Arc<Mutex<Option<Reply>>> = Arc::default();
    let told = reply.clone();
    gateway(snapshot(address, route), move |gateway| {
        *told.lock().unwrap() = Some(ask(gateway, line, with));
    });
    let reply = reply.lock().unwrap().take().unwrap();
    let seen = seen.lock().unwrap().first().cloned();
    (seen, reply)
}

fn request_shape(request: RequestShape) -> RouteShape {
    RouteShape { request, ..Default::default() }
}

fn response_shape(response: ResponseShape) -> RouteShape {
    RouteShape { response, ..Default::default() }
}

#[test]
fn fields_of_requests_are_renamed_copied_removed_set_and_added() {
    let headers = NameRules {
        rename: pairs(&[("x-old", "x-new"), ("x-none", "x-stays")]),
        copy: pairs(&[("user-agent", "x-agent")]),
        remove: texts(&["x-gone", "accept"]),
        set: pairs(&[
            ("x-set", "${path.rest | upper}-${query.q}"),
            ("x-missing", "${query.none}"),
            ("x-bad", "${query.bad}"),
            ("x-literal", "as it is"),
            ("x-client", "${client.address} ${request.method} ${request.host} ${route.name}"),
        ]),
        add: pairs(&[("x-more", "${header.x-more | default(\"1\")}+"), ("x-empty", "${query.e}")]),
    };
    let shape = request_shape(RequestShape { headers, ..Default::default() });
    let (seen, _) = exchange(
        route(prefix("/a"), shape),
        "",
        "GET /a/b%20c?q=%C3%A9&bad=x%0D%0Ay:%20z&e=",
        "X-Old: 1\r\nX-Old: 2\r\nX-New: theirs\r\nX-Stays: s\r\nUser-Agent: me\r\nX-Gone: g\r\n\
         Accept: */*\r\nX-Set: theirs\r\nX-Missing: m\r\nX-Bad: b\r\nX-More: a\r\nX-More: b\r\n",
    );
    let seen = seen.unwrap();
    assert_eq!(fields(&seen, "x-new"), ["1", "2"]);
    assert_eq!(fields(&seen, "x-old"), [""; 0]);
    assert_eq!(fields(&seen, "x-stays"), ["s"]);
    assert_eq!((fields(&seen, "user-agent"), fields(&seen, "x-agent")), (vec!["me"], vec!["me"]));
    assert_eq!(fields(&seen, "x-gone").len() + fields(&seen, "accept").len(), 0);
    assert_eq!(fields(&seen, "x-set"), ["B C-é"]);
    assert_eq!((fields(&seen, "x-missing"), fields(&seen, "x-bad")), (vec!["m"], vec!["b"]));
    assert_eq!(fields(&seen, "x-literal"), ["as it is"]);
    assert_eq!(fields(&seen, "x-client"), ["127.0.0.1 GET h r"]);
    assert_eq!(fields(&seen, "x-more"), ["a", "b", "a, b+"]);
    assert_eq!(fields(&seen, "x-empty"), [""; 0]);
    assert!(!seen.contains("y: z"), "{seen}");
}

#[test]
fn values_that_cannot_stand_in_a_field_are_counted() {
    let headers = NameRules { set: pairs(&[("x-a", "${query.q}")]), ..Default::default() };
    let shape = request_shape(RequestShape { headers, ..Default::default() });
    let (address, seen) = origin("", 0);
    let counts = gateway(snapshot(address, route(prefix("/"), shape)), |gateway| {
        for query in ["%01", "a%0Ab", "%0d", "%7f", "ok"] {
            let line = format!("GET /?q={query}");
            assert_eq!(ask(gateway, &line, "").status(), 200);
        }
    });
    assert_eq!(counts.by_name()["sluice_template_values_unfit_total"], 4);
    let seen = seen.lock().unwrap();
    let set: Vec<_> = seen.iter().flat_map(|head| fields(head, "x-a")).collect();
    assert_eq!(set, ["ok"]);
}

#[test]
fn method_host_path_query_and_cookies_of_requests() {
    let request = RequestShape {
        method: Some("POST".into()),
        host: Some("${path[1]}.internal:81".into()),
        path: Some(PathShape::Whole("/v2/${path.id}${path[3] | default(\"\")}".into())),
        query: NameRules {
            rename: pairs(&[("a", "b")]),
            copy: pairs(&[("c", "d")]),
            remove: texts(&["api key"]),
            set: pairs(&[("s", "x&${path.id}"), ("none", "${query.absent}")]),
            add: pairs(&[("a2", "${query.a}")]),
        },
        cookies: CookieRules {
            set: pairs(&[("t", "${query.a}"), ("bad", "${query.c}")]),
            remove: texts(&["gone"]),
        },
        ..Default::default()
    };
    let path = PathMatch::Regex("^/([a-z]+)/(?P<id>[^/]+)(/.*)?$".into());
    let (seen, _) = exchange(
        route(path, request_shape(request)),
        "",
        "GET /eu/7%3B/x/y?a=1&b=theirs&api+key=k&c=x%3By&keep=%20&s=old&none=n",
        "Cookie: one=1; gone=2; t=old\r\n",
    );
    let seen = seen.unwrap();
    let line = seen.lines().next().unwrap();
    let query = "b=1&d=x%3By&c=x%3By&keep=%20&none=n&s=x%267%3B&a2=1";
    assert_eq!(line, format!("POST /v2/7%3B/x/y?{query} HTTP/1.1"));
    assert_eq!(field(&seen, "host"), Some("eu.internal:81"));
    assert_eq!(field(&seen, "x-forwarded-host"), Some("h"));
    assert_eq!(fields(&seen, "cookie"), ["one=1; t=1"]);
    assert_eq!(fields(&seen, "content-length"), ["0"]);
}

#[test]
fn a_query_that_loses_all_is_none() {
    let query = NameRules { remove: texts(&["a"]), ..Default::default() };
    let shape = request_shape(RequestShape { query, ..Default::default() });
    let (seen, _) = exchange(route(prefix("/"), shape), "", "GET /x?a=1&%61", "");
    assert!(seen.unwrap().starts_with("GET /x HTTP/1.1\r\n"));
}

#[test]
fn parts_of_paths_give_way() {
    let replace = |pattern: &str, with: &str| {
        let path = PathShape::Replace { pattern: pattern.into(), with: with.into() };
        request_shape(RequestShape { path: Some(path), ..Default::default() })
    };
    for (pattern, with, line, want) in [
        ("/v([0-9]+)/", "/api/${path[1]}/", "GET /x/v2/y", "/x/api/2/y"),
        ("a", "${query.with}", "GET /banana?with=o", "/bonono?with=o"),
        ("^/(?P<x>[^/]+)/(?P<y>.*)$", "/${path.y}/${path.x}", "GET /1/2/3", "/2/3/1"),
        ("none", "x", "GET /same", "/same"),
    ] {
        let (seen, _) = exchange(route(prefix("/"), replace(pattern, with)), "", line, "");
        assert!(seen.unwrap().starts_with(&format!("GET {want} HTTP/1.1\r\n")), "{pattern}");
    }
}

#[test]
fn no_value_makes_a_path_or_host_lead_elsewhere() {
    let path = PathShape::Whole("/safe/${query.p}/end".into());
    let request = RequestShape { path: Some(path), ..Default::default() };
    let shape = || request_shape(request.clone());
    for (value, status) in [
        ("ok", 200),
        ("..", 400),
        (".", 400),
        ("%2e%2E", 400),
        ("..%2F..", 400),
        ("a%5Cb", 400),
        ("%00", 400),
        ("a%0D%0Ab", 200),
        ("a%20b%3F%23", 200),
        ("..;x", 400),
    ] {
        let line: &'static str = format!("GET /?p={value}").leak();
        let (seen, reply) = exchange(route(prefix("/"), shape()), "", line, "");
        assert_eq!(reply.status(), status, "{value}");
        assert_eq!(seen.is_some(), status == 200, "{value}");
        if let Some(seen) = seen {
            assert!(seen.starts_with("GET /safe/"), "{seen}");
            assert!(seen.lines().next().unwrap().contains("/end?p="), "{seen}");
        }
    }
    let (_, reply) = exchange(route(prefix("/"), shape()), "", "GET /", "");
    assert_eq!(reply.status(), 400, "a value that is needed is missing");
    let host = RequestShape { host: Some("${query.h}".into()), ..Default::default() };
    for (line, status) in [
        ("GET /?h=a.example:80", 200),
        ("GET /?h=a%0D%0Ab", 400),
        ("GET /?h=a/b", 400),
        ("GET /?h=", 400),
        ("GET /", 400),
    ] {
        let shape = request_shape(host.clone());
        assert_eq!(exchange(route(prefix("/"), shape), "", line, "").1.status(), status, "{line}");
    }
}

#[test]
fn answers_are_changed_too() {
    let response = ResponseShape {
        status: vec![
            StatusRule { first: 200, last: 200, to: 299 },
            StatusRule { first: 200, last: 299, to: 298 },
        ],
        headers: NameRules {
            rename: pairs(&[("x-old", "x-new")]),
            copy: pairs(&[("etag", "x-etag")]),
            remove: texts(&["server"]),
            set: pairs(&[
                ("x-set", "${response.status} ${response.header.x-old} ${path.rest} ${query.q}"),
                ("x-head", "${header.x-in}"),
            ]),
            add: pairs(&[("vary", "Origin")]),
        },
        cookies: AnswerCookies {
            set: vec![NewCookie {
                name: "own".into(),
                value: "${query.q}".into(),
                attributes: CookieAttributes {
                    path: Some("/".into()),
                    secure: Some(true),
                    http_only: Some(true),
                    same_site: Some(SameSite::Lax),
                    max_age_s: Some(60),
                    ..Default::default()
                },
            }],
            remove: texts(&["gone"]),
            rewrite: vec![
                CookieRewrite {
                    name: None,
                    attributes: CookieAttributes {
                        domain: Some("shop.example".into()),
                        ..Default::default()
                    },
                },
                CookieRewrite {
                    name: Some("b".into()),
                    attributes: CookieAttributes {
                        path: Some(String::new()),
                        secure: Some(true),
                        http_only: Some(false),
                        same_site: Some(SameSite::Strict),
                        max_age_s: Some(1),
                        domain: None,
                    },
                },
            ],
        },
        max_body_bytes: None,
    };
    let from = snapshot::Route {
        rewrite: PathRewrite::ReplacePrefix("/elsewhere".into()),
        ..route(prefix("/in"), response_shape(response))
    };
    let (_, reply) = exchange(
        from,
        "X-Old: 1\r\nX-Old: 2\r\nServer: s\r\nETag: \"e\"\r\nX-Set: theirs\r\nVary: Accept\r\n\
         Set-Cookie: a=1; Path=/x\r\nSet-Cookie: own=theirs\r\nSet-Cookie: gone=1\r\n\
         Set-Cookie: b=2;Path=/; HttpOnly ;expires=never; Other=x; domain=in\r\n",
        "POST /in/p?q=7",
        "X-In: i\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert_eq!(reply.status(), 299);
    assert_eq!(reply.all("x-new"), ["1", "2"]);
    assert_eq!((reply.all("x-old").len(), reply.all("server").len()), (0, 0));
    assert_eq!((reply.only("etag"), reply.only("x-etag")), ("\"e\"", "\"e\""));
    assert_eq!(reply.only("x-set"), "200 1, 2 p 7", "of the path that was matched");
    assert_eq!(reply.only("x-head"), "i", "though the body is gone");
    assert_eq!(reply.all("vary"), ["Accept", "Origin"]);
    assert_eq!(
        reply.all("set-cookie"),
        [
            "a=1; Path=/x; Domain=shop.example",
            "b=2; Other=x; Domain=shop.example; Max-Age=1; Secure; SameSite=Strict",
            "own=7; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax",
        ]
    );
}

#[test]
fn answers_of_the_gateways_own_stay_as_they_are() {
    let headers = NameRules { set: pairs(&[("x-a", "1")]), ..Default::default() };
    let status = vec![StatusRule { first: 400, last: 599, to: 200 }];
    let response = ResponseShape { headers, status, ..Default::default() };
    let from =
        snapshot::Route { max_body_bytes: 1, ..route(prefix("/"), response_shape(response)) };
    let (seen, reply) = exchange(from, "", "POST /", "Content-Length: 2\r\n\r\nhi");
    assert!(seen.is_none());
    assert_eq!((reply.status(), reply.all("x-a").len()), (413, 0));
}

fn own(answer: OwnAnswer) -> RouteShape {
    let headers = NameRules { set: pairs(&[("x-route", "${route.name}")]), ..Default::default() };
    let response = ResponseShape { headers, ..Default::default() };
    RouteShape { answer: Some(answer), response, ..Default::default() }
}

fn redirect(location: &str, keep_path: bool, keep_query: bool) -> RouteShape {
    own(OwnAnswer::Redirect { status: 308, location: location.into(), keep_path, keep_query })
}

#[test]
fn redirects() {
    for (location, keep, line, want) in [
        ("/new/${path.rest}", (false, false), "GET /old/a%20b/c?x=1", "/new/a%20b/c"),
        ("/new", (true, true), "GET /old/a?x=1", "/new/old/a?x=1"),
        ("https://x.example/", (true, true), "GET /old/a", "https://x.example/old/a"),
        ("https://x.example", (true, false), "GET /old", "https://x.example/old"),
        ("https://x.example", (false, true), "GET /old?x", "https://x.example?x"),
        ("${request.scheme}://${request.host}/y", (false, false), "GET /old", "http://h/y"),
        ("https://${query.t}.x.example/", (false, false), "GET /old?t=eu", "https://eu.x.example/"),
        ("/?next=${query.n}", (false, true), "GET /old?n=a/%26", "/?next=a%2F%26&n=a/%26"),
        ("${path}/", (false, false), "GET /old", "/old/"),
    ] {
        let from = route(prefix("/old"), redirect(location, keep.0, keep.1));
        let (seen, reply) = exchange(from, "", line, "");
        assert!(seen.is_none());
        assert_eq!((reply.status(), reply.only("location")), (308, want), "{location}");
        assert_eq!((reply.only("x-route"), reply.only("content-length")), ("r", "0"));
    }
    for (location, line) in [
        ("https://${query.t}.x.example/", "GET /old?t=evil.example/"),
        ("https://${query.t}.x.example/", "GET /old?t=a@evil.example%23"),
        ("https://${query.t}.x.example/", "GET /old?t=a%0D%0Ab"),
        ("https://${query.t}.x.example/", "GET /old"),
        ("/${query.none}", "GET /old"),
        ("/${path.rest}", "GET /old"),
    ] {
        let from = route(prefix("/old"), redirect(location, false, false));
        assert_eq!(exchange(from, "", line, "").1.status(), 400, "{location} {line}");
    }
}

#[test]
fn static_answers() {
    let answer = |status, content_type: &str, body| {
        let headers = pairs(&[("cache-control", "max-age=60"), ("x-q", "${query.q}")]);
        own(OwnAnswer::Static { status, content_type: content_type.into(), headers, body })
    };
    let text = StaticBody::Text("hello ${query.q | default(\"you\")}".into());
    let plain = || route(prefix("/"), answer(201, "text/plain", text.clone()));
    let (_, reply) = exchange(plain(), "", "GET /?q=me", "");
    assert_eq!((reply.status(), reply.only("content-length")), (201, "8"));
    assert_eq!((reply.only("content-type"), reply.only("x-q")), ("text/plain", "me"));
    assert_eq!(reply.only("cache-control"), "max-age=60");
    let (_, reply) = exchange(plain(), "", "HEAD /", "");
    assert_eq!((reply.status(), reply.all("x-q").len()), (201, 0));
    let (_, reply) = exchange(plain(), "", "POST /?q=a%0Ab", "Content-Length: 2\r\n\r\nhi");
    assert_eq!((reply.status(), reply.all("x-q").len()), (201, 0), "what is bad is left out");
    let html = StaticBody::Text("<b>${query.q}</b>".into());
    let from = route(prefix("/"), answer(200, "text/html", html));
    let (_, reply) = exchange(from, "", "GET /?q=<i>", "");
    assert_eq!(reply.status(), 400, "no such byte in a query");
    let html = StaticBody::Text("<b>${query.q}</b>".into());
    let from = route(prefix("/"), answer(200, "text/html", html));
    let (_, reply) = exchange(from, "", "GET /?q=%3Ci%3E", "");
    assert_eq!(reply.only("content-length"), "<b>&lt;i&gt;</b>".len().to_string());
    let json = StaticBody::Json(r#"{"q":"${query.q}","n":[1,"${time.unix}"]}"#.into());
    let from = || route(prefix("/"), answer(200, "application/json", json.clone()));
    assert_eq!(exchange(from(), "", "GET /?q=%22", "").1.status(), 200);
    assert_eq!(exchange(from(), "", "GET /", "").1.status(), 400);
    let none = route(prefix("/"), answer(204, "", StaticBody::Empty));
    let (_, reply) = exchange(none, "", "GET /", "");
    assert_eq!((reply.status(), reply.all("content-length").len()), (204, 0));
}

/// What building a route says: field and problem.
fn refused(from: snapshot::Route) -> (String, String) {
    let upstreams = vec![snapshot::Upstream { name: "u".into(), ..Default::default() }];
    let snapshot = Snapshot { upstreams, routes: vec![from], ..Default::default() };
    let error = Plan::build(snapshot).unwrap_err();
    (error.field, error.problem)
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let headers =
        |rules: NameRules| request_shape(RequestShape { headers: rules, ..Default::default() });
    let set = |name: &str, value: &str| {
        headers(NameRules { set: pairs(&[(name, value)]), ..Default::default() })
    };
    let path = |text: &str| {
        let path = Some(PathShape::Whole(text.into()));
        request_shape(RequestShape { path, ..Default::default() })
    };
    let body = |content_type: &str, status, body| {
        let content_type = content_type.into();
        own(OwnAnswer::Static { status, content_type, headers: vec![], body })
    };
    let twice =
        NameRules { remove: texts(&["x-a"]), set: pairs(&[("x-a", "1")]), ..Default::default() };
    let cookie = |name: &str, attributes| {
        let set = vec![NewCookie { name: name.into(), value: "1".into(), attributes }];
        let cookies = AnswerCookies { set, ..Default::default() };
        response_shape(ResponseShape { cookies, ..Default::default() })
    };
    for (shape, field, problem) in [
        (set("host", "a"), "request.headers.set.host", "use request.host"),
        (set("content-length", "1"), "request.headers.set.content-length", "the gateway sees to"),
        (set("x-forwarded-for", "1"), "request.headers.set.x-forwarded-for", "${client.address}"),
        (set("x-consumer-id", "1"), "request.headers.set.x-consumer-id", "${consumer.id}"),
        (set("cookie", "1"), "request.headers.set.cookie", "request.cookies"),
        (set("x y", "1"), "request.headers.set.x y", "is no name of a header field"),
        (set("x-a", "a\nb"), "request.headers.set.x-a", "no line ends"),
        (set("x-a", "${x}"), "request.headers.set.x-a", "`x` is unknown; expected path"),
        (set("x-a", "${claim.sub}"), "request.headers.set.x-a", "`claim` is not at hand here"),
        (set("x-a", "a${path.id}"), "request.headers.set.x-a", "(at byte 7 of it)"),
        (set("x-a", "${response.status}"), "request.headers.set.x-a", "not at hand"),
        (headers(twice), "request.headers.set.x-a", "changed by another rule"),
        (path("v2"), "request.path", "begins with `/`"),
        (path("/a?b"), "request.path", "use request.query"),
        (path("/a/../b"), "request.path", "normal form"),
        (redirect("new", false, false), "redirect.location", "begins with `/`, or https://"),
        (redirect("//evil", false, false), "redirect.location", "leads to another host"),
        (redirect("https://a b/", false, false), "redirect.location", "must be a URI"),
        (redirect("ftp://a/", false, false), "redirect.location", "is no http:// or https://"),
        (redirect("/a#b", false, true), "redirect.keep_query", "behind a fragment"),
        (body("text/plain", 304, StaticBody::Text("x".into())), "respond.body", "has no body"),
        (body("", 200, StaticBody::Json("{".into())), "respond.json", "is no JSON"),
        (cookie("a b", Default::default()), "response.cookies.set.a b", "no name of a cookie"),
        (cookie("__Host-a", Default::default()), "response.cookies.set.__Host-a", "secure: true"),
    ] {
        let (at, text) = refused(route(prefix("/a"), shape));
        assert_eq!(at, field, "{text}");
        assert!(text.contains(problem), "{at}: {text}");
    }
    let (at, text) = refused(snapshot::Route {
        rewrite: PathRewrite::StripPrefix,
        ..route(prefix("/a"), path("/b"))
    });
    assert!(at == "request.path" && text.contains("`rewrite` changes the path"), "{text}");
    let backends = vec![snapshot::Backend { upstream: 0, weight: 1 }];
    let both = snapshot::Route { backends, ..route(prefix("/"), redirect("/x", false, false)) };
    assert!(refused(both).1.contains("leave `upstream` out"));
}

/// One value for everything.
struct Same(Vec<u8>);

impl Values for Same {
    fn text(&self, _: &Reference) -> Option<std::borrow::Cow<'_, [u8]>> {
        Some(std::borrow::Cow::Borrowed(&self.0))
    }
}

proptest! {
    #[test]
    fn whatever_values_are_a_head_stays_a_head(
        value in proptest::collection::vec(any::<u8>(), 0..40),
        theirs in "[!-~]{0,20}",
        http2: bool,
    ) {
        let rules = NameRules {
            rename: pairs(&[("x-r", "x-s")]),
            set: pairs(&[("x-a", "${query.a}"), ("x-b", "b ${query.b}\tc")]),
            add: pairs(&[("x-c", "${header.c}")]),
            ..Default::default()
        };
        let from = snapshot::Route::default();
        let scope = scope(&from, &Captures::Exact);
        let rules = FieldRules::build(&rules, &scope, false).unwrap();
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\nX-R: {theirs}\r\nX-A: x\r\n\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes(), &HeadLimits::REQUEST).unwrap();
        let mut judged = Judged::default();
        let values = Same(value.clone());
        rules.judge(&values, &head.fields, text.as_bytes(), |_| false, &mut judged);
        let edit = Edit { judged, ..Edit::default() };
        let dialect = if http2 { Dialect::Http2 } else { Dialect::Http1 };
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out, dialect);
        let mut passed = 0;
        for field in &head.fields {
            passed += usize::from(rules.pass(&edit.judged, field, text.as_bytes(), None, &mut writer));
        }
        rules.finish(&edit, None, &mut writer);
        if http2 {
            return Ok(());
        }
        let fits = value.iter().all(|b| matches!(b, b'\t' | 0x20..=0x7e | 0x80..));
        let bare = !value.trim_ascii().is_empty();
        let (set, both, added) = (fits && bare, fits, fits && bare);
        let lines = 1 + usize::from(set) + usize::from(both) + usize::from(added);
        prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), lines);
        prop_assert_eq!(passed, 1 + usize::from(!set), "Host, and X-A where it is not set");
        // What was written is a head with the fields that were meant, and no others.
        let mut whole = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
        whole.extend_from_slice(&out);
        whole.extend_from_slice(b"\r\n");
        let mut read = RequestHead::new();
        read.parse(&whole, &HeadLimits::REQUEST).unwrap();
        prop_assert_eq!(read.fields.len(), 1 + lines);
        if set {
            prop_assert_eq!(read.other(&whole, b"x-a"), Some(value.trim_ascii()));
        }
    }
}
