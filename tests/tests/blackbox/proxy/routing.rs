//! Which route, which upstream, which target, and how the path is rewritten.

use std::collections::BTreeMap;

use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Client, Gateway, Origin, get};

/// An origin that signs its answers with a name, followed by the target it was asked for.
fn named(name: &'static str) -> Origin {
    Origin::start(move |seen| answer_with("200 OK", "", &format!("{name} {}", seen.target)))
}

/// A spec whose upstreams are called after their origins, and these routes (one flow mapping each).
fn spec(origins: &[(&str, &Origin)], routes: &[&str]) -> String {
    let mut text = String::from(
        "version: 1\nadmin: { listen: \"127.0.0.1:{ADMIN}\" }\n\
         listeners:\n  - { name: web, listen: \"127.0.0.1:{PORT}\" }\nupstreams:\n",
    );
    for (name, origin) in origins {
        text.push_str(&format!(
            "  - {{ name: {name}, targets: [ {{ address: \"{}\" }} ] }}\n",
            origin.address()
        ));
    }
    text.push_str("routes:\n");
    for route in routes {
        text.push_str(&format!("  - {route}\n"));
    }
    text
}

fn ask(client: &mut Client, method: &str, host: &str, target: &str, fields: &str) -> (u16, String) {
    let response =
        client.ask(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    (response.status, response.text())
}

#[test]
fn hosts_exact_before_wildcard_before_none() {
    let (exact, wild, none) = (named("exact"), named("wild"), named("none"));
    let gateway = Gateway::start(&spec(
        &[("exact", &exact), ("wild", &wild), ("none", &none)],
        &[
            "{ name: none, match: { path: { prefix: / } }, upstream: none }",
            "{ name: wild, match: { hosts: [\"*.shop.test\"], path: { prefix: / } }, upstream: wild }",
            "{ name: exact, match: { hosts: [api.shop.test], path: { prefix: /api } }, upstream: exact }",
        ],
    ));
    let mut client = gateway.connect();
    for (host, target, by) in [
        ("api.shop.test", "/api/x", "exact"),
        ("API.Shop.Test", "/api", "exact"),
        ("api.shop.test:8080", "/api", "exact"),
        ("www.shop.test", "/api", "wild"),
        ("a.b.shop.test", "/", "wild"),
        ("shop.test", "/", "none"),
        ("xshop.test", "/", "none"),
        ("other.test", "/api", "none"),
        ("127.0.0.1", "/", "none"),
    ] {
        let answer = ask(&mut client, "GET", host, target, "");
        assert_eq!(answer, (200, format!("{by} {target}")), "{host}{target}");
    }
}

#[test]
fn paths_exact_before_longest_prefix_before_regex() {
    let (a, b, c, d, e) =
        (named("exact"), named("long"), named("short"), named("regex"), named("none"));
    let gateway = Gateway::start(&spec(
        &[("exact", &a), ("long", &b), ("short", &c), ("regex", &d), ("none", &e)],
        &[
            "{ name: regex, match: { path: { regex: \"^/[a-z]+/[0-9]+$\" } }, upstream: regex }",
            "{ name: short, match: { path: { prefix: /users } }, upstream: short }",
            "{ name: long, match: { path: { prefix: /users/7/orders } }, upstream: long }",
            "{ name: exact, match: { path: { exact: /users/7 } }, upstream: exact }",
        ],
    ));
    let mut client = gateway.connect();
    for (target, by) in [
        ("/users/7", "exact"),
        ("/users/7?x=1", "exact"),
        ("/users/8", "short"),
        ("/users", "short"),
        ("/users/", "short"),
        ("/users/7/orders", "long"),
        ("/users/7/orders/1", "long"),
        ("/users/7/ordersx", "short"),
        ("/items/42", "regex"),
    ] {
        assert_eq!(
            ask(&mut client, "GET", "a.test", target, ""),
            (200, format!("{by} {target}")),
            "{target}"
        );
    }
    for target in ["/usersx", "/items/x", "/", "/Users/8", "/items/42/1"] {
        assert_eq!(ask(&mut client, "GET", "a.test", target, "").0, 404, "{target}");
    }
}

#[test]
fn the_path_decides_before_the_method() {
    let (a, b) = (named("read"), named("write"));
    let gateway = Gateway::start(&spec(
        &[("read", &a), ("write", &b)],
        &[
            "{ name: read, match: { path: { prefix: /x }, methods: [GET, HEAD] }, upstream: read }",
            "{ name: write, match: { path: { prefix: /x }, methods: [POST] }, upstream: write }",
            "{ name: any, match: { path: { prefix: / }, methods: [DELETE] }, upstream: write }",
        ],
    ));
    let mut client = gateway.connect();
    assert_eq!(ask(&mut client, "GET", "a.test", "/x", ""), (200, "read /x".into()));
    assert_eq!(
        ask(&mut client, "POST", "a.test", "/x", "Content-Length: 0\r\n"),
        (200, "write /x".into())
    );
    for method in ["PUT", "DELETE", "PATCH"] {
        let response = client
            .ask(format!("{method} /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(
            response.status, 405,
            "{method}: a shorter prefix with that method must not win"
        );
        let mut allowed: Vec<_> =
            response.field("allow").unwrap_or_default().split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["GET", "HEAD", "POST"], "{method}");
        response.problem().unwrap();
    }
    assert_eq!(ask(&mut client, "DELETE", "a.test", "/y", ""), (200, "write /y".into()));
}

#[test]
fn header_and_query_conditions() {
    let (beta, old, pre, rest) = (named("beta"), named("old"), named("debug"), named("rest"));
    let gateway = Gateway::start(&spec(
        &[("beta", &beta), ("old", &old), ("debug", &pre), ("rest", &rest)],
        &[
            "{ name: beta, match: { path: { prefix: / }, headers: [ { name: X-Beta, exact: \"yes\" } ] }, upstream: beta }",
            "{ name: old, match: { path: { prefix: / }, headers: [ { name: User-Agent, regex: \"^Old/[0-9]+\" } ] }, upstream: old }",
            "{ name: debug, match: { path: { prefix: / }, query: [ { name: debug, present: true }, { name: level, exact: \"a b\" } ] }, upstream: debug }",
            "{ name: rest, match: { path: { prefix: / } }, upstream: rest }",
        ],
    ));
    let mut client = gateway.connect();
    for (target, fields, by) in [
        ("/", "x-beta: yes\r\n", "beta"),
        ("/", "X-Beta: no\r\n", "rest"),
        ("/", "User-Agent: Old/3.1\r\n", "old"),
        ("/", "User-Agent: New Old/3\r\n", "rest"),
        ("/?debug&level=a%20b", "", "debug"),
        ("/?level=a+b&debug=", "", "debug"),
        ("/?debug", "", "rest"),
        ("/?xdebug&level=a%20b", "", "rest"),
        ("/?%64ebug=1&level=a%20b", "", "debug"),
        ("/", "", "rest"),
    ] {
        // A `+` in a query is a space to forms only: either reading is fine for that one.
        let (status, text) = ask(&mut client, "GET", "a.test", target, fields);
        assert_eq!(status, 200);
        if !target.contains('+') {
            assert_eq!(text, format!("{by} {target}"), "{target} {fields:?}");
        }
    }
}

#[test]
fn rewrites() {
    let a = named("a");
    let gateway = Gateway::start(&spec(
        &[("a", &a)],
        &[
            "{ name: strip, match: { path: { prefix: /strip/me } }, rewrite: { strip_prefix: true }, upstream: a }",
            "{ name: replace, match: { path: { prefix: /v1 } }, rewrite: { replace_prefix: /v2/api }, upstream: a }",
            "{ name: exact, match: { path: { exact: /one } }, rewrite: { replace_prefix: /two }, upstream: a }",
            "{ name: keep, match: { path: { prefix: /keep } }, upstream: a }",
        ],
    ));
    let mut client = gateway.connect();
    for (target, forwarded) in [
        ("/strip/me/x/y?q=%20", "/x/y?q=%20"),
        ("/strip/me", "/"),
        ("/strip/me/", "/"),
        ("/strip/me?x", "/?x"),
        ("/v1/users", "/v2/api/users"),
        ("/v1", "/v2/api"),
        ("/v1?a=/b", "/v2/api?a=/b"),
        ("/one", "/two"),
        ("/keep/a%20b/c?d=e%2Ff&g", "/keep/a%20b/c?d=e%2Ff&g"),
        ("/keep/?", "/keep/?"),
        ("/keep/~user/!$&'()*+,;=:@", "/keep/~user/!$&'()*+,;=:@"),
    ] {
        let (status, text) = ask(&mut client, "GET", "a.test", target, "");
        assert_eq!(status, 200, "{target}");
        let seen = text.trim_start_matches("a ");
        assert!(
            seen == forwarded || (forwarded == "/keep/?" && seen == "/keep/"),
            "{target} was forwarded as {seen} instead of {forwarded}"
        );
    }
}

/// Asks `n` times on one connection and counts who answered.
fn shares(gateway: &Gateway, n: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.connect();
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let (status, text) = ask(&mut client, "GET", "a.test", "/", "");
        assert_eq!(status, 200);
        *counts.entry(text.split(' ').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn canary_weights_are_exact_shares() {
    let (stable, canary, off) = (named("stable"), named("canary"), named("off"));
    let gateway = Gateway::start_with(
        &spec(
            &[("stable", &stable), ("canary", &canary), ("off", &off)],
            &[
                "{ name: all, match: { path: { prefix: / } }, upstreams: [ { name: stable, weight: 95 }, \
               { name: canary, weight: 5 }, { name: off, weight: 0 } ] }",
            ],
        ),
        1,
    );
    assert_eq!(shares(&gateway, 400), counts(&[("stable", 380), ("canary", 20)]));
}

#[test]
fn balance_round_robin_and_weighted() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let spec = |balance: &str, weights: [u32; 3]| {
        Spec::default()
            .target(a.address(), weights[0])
            .target(b.address(), weights[1])
            .target(c.address(), weights[2])
            .upstream(&format!("balance: {balance}"))
    };
    let gateway = Gateway::single(&spec("round_robin", [1, 1, 1]));
    assert_eq!(shares(&gateway, 90), counts(&[("a", 30), ("b", 30), ("c", 30)]));
    drop(gateway);
    let gateway = Gateway::single(&spec("weighted", [5, 1, 1]));
    assert_eq!(shares(&gateway, 70), counts(&[("a", 50), ("b", 10), ("c", 10)]));
    // Smooth: the heavy one never has all its turns in a row (a a b a c a a).
    let mut client = gateway.connect();
    let turns: String = (0..14)
        .map(|_| ask(&mut client, "GET", "a.test", "/", "").1.chars().next().unwrap_or('?'))
        .collect();
    assert!(!turns.contains("aaaaa"), "{turns}");
}

#[test]
fn balance_least_connections_avoids_the_busy_one() {
    let slow = Origin::start(|_| {
        answer_with("200 OK", "", "slow x").after(std::time::Duration::from_secs(3))
    });
    let fast = named("fast");
    let gateway = Gateway::single(
        &Spec::default()
            .target(slow.address(), 1)
            .target(fast.address(), 1)
            .upstream("balance: least_connections"),
    );
    // Occupy the slow one: of two requests at once, one goes to each.
    let (mut one, mut two) = (gateway.connect(), gateway.connect());
    one.send(get("/"));
    two.send(get("/"));
    assert!(tests::eventually(tests::PATIENCE, || slow.completed() == 1 && fast.completed() >= 1));
    assert_eq!(shares(&gateway, 20), counts(&[("fast", 20)]), "the idle target must get all");
}

#[test]
fn no_route_is_404_and_no_target_503() {
    let a = named("a");
    let gateway = Gateway::start(&spec(
        &[("a", &a)],
        &["{ name: only, match: { hosts: [a.test], path: { exact: /only } }, upstream: a }"],
    ));
    let response = gateway.ask(get("/other"));
    assert_eq!((response.status, response.problem().as_deref()), (404, Ok("no_route")));
    let gateway = Gateway::start(
        "version: 1\nadmin: { listen: \"127.0.0.1:{ADMIN}\" }\nlisteners:\n  - { name: web, listen: \"127.0.0.1:{PORT}\" }\n\
         upstreams:\n  - { name: gone, targets: [ \"no-such-host.invalid:80\" ] }\n\
         routes:\n  - { name: all, match: { path: { prefix: / } }, upstream: gone }\n",
    );
    let response = gateway.ask(get("/"));
    assert_eq!(response.status, 503, "an unresolved name is no target");
    response.problem().unwrap();
}

#[test]
fn host_names_are_resolved() {
    let a = named("a");
    let port = a.address().port();
    let gateway = Gateway::start(&format!(
        "version: 1\nadmin: {{ listen: \"127.0.0.1:{{ADMIN}}\" }}\nlisteners:\n  - {{ name: web, listen: \"127.0.0.1:{{PORT}}\" }}\n\
         upstreams:\n  - {{ name: local, targets: [ \"localhost:{port}\" ] }}\n\
         routes:\n  - {{ name: all, match: {{ path: {{ prefix: / }} }}, upstream: local }}\n"
    ));
    // localhost may also be ::1, where this origin does not listen; that target is passed over.
    assert!(tests::eventually(tests::PATIENCE, || gateway.ask(get("/")).status == 200));
}
