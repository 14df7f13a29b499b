//! The router against a model of it: a linear scan that follows the words of the specification.

use std::collections::BTreeSet;

use contract::snapshot::{
    Backend, FieldMatch, PathMatch, PathRewrite, Route, Snapshot, Timeouts, Upstream, ValueMatch,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    Miss, Query, Router,
    explain::{ExplainRequest, Outcome, Verdict, explain},
    path, rewrite_path,
};

pub(super) fn route(name: &str, hosts: &[&str], path: PathMatch) -> Route {
    Route {
        name: name.into(),
        hosts: hosts.iter().map(|&host| host.into()).collect(),
        path,
        methods: vec![],
        headers: vec![],
        query: vec![],
        rewrite: PathRewrite::Keep,
        backends: vec![Backend { upstream: 0, weight: 1 }],
        timeouts: Timeouts { connect_ms: 0, first_byte_ms: 0, idle_ms: 0, try_ms: 0, total_ms: 0 },
        max_body_bytes: 1 << 20,
        upgrades: vec![],
        ..Default::default()
    }
}

pub(super) fn snapshot(routes: Vec<Route>) -> Snapshot {
    let upstream = Upstream {
        name: "u".into(),
        balance: Default::default(),
        targets: vec![],
        pool: Default::default(),
        timeouts: Default::default(),
        host_header: Default::default(),
        protocol: Default::default(),
        tls: None,
        health: None,
        ..Default::default()
    };
    Snapshot { upstreams: vec![upstream], routes, ..Snapshot::default() }
}

#[derive(Clone, Debug)]
struct Request {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Route(usize),
    Allow(BTreeSet<String>),
    NotFound,
}

// The model.

fn host_rank(pattern: &str, host: &str) -> Option<usize> {
    let host = host.to_lowercase();
    let host = host.split(':').next().unwrap();
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern.strip_prefix('*') {
        // What the star stands for is at least one character before the dot.
        Some(suffix) => {
            (host.ends_with(suffix) && host.len() > suffix.len()).then_some(suffix.len())
        }
        None => (host == pattern).then_some(usize::MAX),
    }
}

fn path_rank(pattern: &PathMatch, path: &str) -> Option<usize> {
    match pattern {
        PathMatch::Exact(exact) => (exact == path).then_some(usize::MAX),
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let below = format!("{prefix}/");
            (path == prefix || path.starts_with(&below)).then_some(1 + prefix.len())
        }
        PathMatch::Regex(regex) => regex::Regex::new(regex).unwrap().is_match(path).then_some(0),
        PathMatch::Template(template) => {
            let start = template.split("/{").next().unwrap();
            let words = |text: &str| text.split('/').skip(1).map(String::from).collect::<Vec<_>>();
            let (wanted, given) = (words(template), words(path));
            let rest = wanted.last().is_some_and(|last| last.ends_with("...}"));
            let fits = match rest {
                true => given.len() >= wanted.len(),
                false => given.len() == wanted.len(),
            };
            let same = wanted.iter().zip(&given).all(|(wanted, given)| match wanted.as_str() {
                name if name.ends_with("...}") => true,
                name if name.starts_with('{') => !given.is_empty(),
                literal => literal == given,
            });
            (fits && same).then_some(1 + start.len())
        }
    }
}

fn value_holds(value: &ValueMatch, text: &str) -> bool {
    match value {
        ValueMatch::Present => true,
        ValueMatch::Exact(exact) => exact == text,
        ValueMatch::Regex(regex) => regex::Regex::new(regex).unwrap().is_match(text),
    }
}

fn conditions_hold(route: &Route, request: &Request) -> bool {
    let unescape = |text: &str| text.replace('+', " ").replace("%61", "a").replace("%20", " ");
    let pairs: Vec<(String, String)> = match &request.query {
        None => vec![],
        Some(query) => query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (unescape(name), unescape(value)))
            .collect(),
    };
    let any = |fields: &[(String, String)], field: &FieldMatch| {
        fields.iter().any(|(name, value)| {
            name.to_lowercase() == field.name && value_holds(&field.value, value)
        })
    };
    route.headers.iter().all(|field| any(&request.headers, field))
        && route.query.iter().all(|field| any(&pairs, field))
}

fn model(routes: &[Route], request: &Request) -> Answer {
    let mut entries = vec![];
    for (index, route) in routes.iter().enumerate() {
        let hosts: Vec<Option<usize>> = match route.hosts.as_slice() {
            [] => vec![Some(0)],
            hosts => hosts.iter().map(|pattern| host_rank(pattern, &request.host)).collect(),
        };
        for host in hosts.into_iter().flatten() {
            if let Some(path) = path_rank(&route.path, &request.path)
                && conditions_hold(route, request)
            {
                entries.push(((host, path), index));
            }
        }
    }
    let Some(best) = entries.iter().map(|&(tier, _)| tier).max() else { return Answer::NotFound };
    let tier = || entries.iter().filter(|entry| entry.0 == best).map(|&(_, index)| index);
    let named = |index: usize| match &routes[index].path {
        PathMatch::Template(template) => {
            let literals =
                template.split('/').skip(1).filter(|word| !word.starts_with('{')).count();
            (1, 2 * literals + usize::from(!template.ends_with("...}")))
        }
        _ => (0, 0),
    };
    let conditions = |index: usize| {
        let (one, nearness) = named(index);
        (routes[index].headers.len() + routes[index].query.len() + one, nearness)
    };
    let with_method = tier()
        .filter(|&i| routes[i].methods.is_empty() || routes[i].methods.contains(&request.method));
    match with_method.min_by_key(|&i| (std::cmp::Reverse(conditions(i)), i)) {
        Some(index) => Answer::Route(index),
        None => Answer::Allow(tier().flat_map(|i| routes[i].methods.clone()).collect()),
    }
}

// The router.

fn with_query<T>(request: &Request, use_it: impl FnOnce(&Query<'_>) -> T) -> T {
    use_it(&Query {
        host: request.host.as_bytes(),
        path: request.path.as_bytes(),
        query: request.query.as_deref().map(str::as_bytes),
        method: request.method.as_bytes(),
        headers: &request.headers,
    })
}

fn actual(router: &Router, request: &Request) -> Answer {
    match with_query(request, |query| router.find(query)) {
        Ok(index) => Answer::Route(index as usize),
        Err(Miss::NotFound) => Answer::NotFound,
        Err(Miss::MethodNotAllowed(allow)) => Answer::Allow(
            router.allowed(allow).map(|name| String::from_utf8(name.to_vec()).unwrap()).collect(),
        ),
    }
}

// Small worlds, so that routes and requests meet often.

fn text(options: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    select(options.to_vec()).prop_map(String::from)
}

fn some_path() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "ab"]), 0..4).prop_flat_map(|segments| {
        any::<bool>().prop_map(move |slash| match (segments.join("/"), slash) {
            (path, true) if !path.is_empty() => format!("/{path}/"),
            (path, _) => format!("/{path}"),
        })
    })
}

fn some_field() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        text(&["1", "a a", ""]).prop_map(ValueMatch::Exact),
        text(&["^1", "a"]).prop_map(ValueMatch::Regex),
    ];
    (text(&["a", "x-b"]), value).prop_map(|(name, value)| FieldMatch { name, value })
}

fn some_route() -> impl Strategy<Value = Route> {
    let hosts = text(&["a.test", "b.a.test", "*.test", "*.a.test", "*.b.a.test", "test"]);
    let path = prop_oneof![
        2 => some_path().prop_map(PathMatch::Exact),
        4 => some_path().prop_map(PathMatch::Prefix),
        1 => text(&["^/a", "b", "^/a/b/?$", "/ab", "."]).prop_map(PathMatch::Regex),
        2 => text(&["/{x}", "/a/{x}", "/a/{x...}", "/{x}/b", "/a/{x}/b", "/a/{x}/{y}", "/{x...}"])
            .prop_map(PathMatch::Template),
    ];
    let fields = || prop_oneof![3 => Just(vec![]), 1 => vec(some_field(), 0..3)];
    let methods = vec(text(&["GET", "HEAD", "POST", "BREW"]), 0..3);
    (vec(hosts, 0..3), path, methods, fields(), fields()).prop_map(
        |(hosts, path, methods, headers, query)| Route {
            hosts,
            methods,
            headers,
            query,
            ..route("r", &[], path)
        },
    )
}

fn some_request() -> impl Strategy<Value = Request> {
    let hosts = ["a.test", "B.a.TEST:80", "c.b.a.test", "x.test.", "test", "other", "", ".test"];
    let query = text(&["a=1", "a", "x-b=a+a&a=", "%61=a%20a", "x-b=1&a=2", "", "&&", "b=a"]);
    let field = (text(&["A", "x-B", "c"]), text(&["1", "a a", "", "12"]));
    (
        text(&["GET", "HEAD", "POST", "BREW", "get", "PUT"]),
        text(&hosts),
        some_path(),
        option::of(query),
        vec(field, 0..3),
    )
        .prop_map(|(method, host, path, query, headers)| Request {
            method,
            host,
            path,
            query,
            headers,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_model(
        routes in vec(some_route(), 0..12),
        requests in vec(some_request(), 1..8),
    ) {
        let router = Router::build(&routes).unwrap();
        for request in &requests {
            prop_assert_eq!(actual(&router, request), model(&routes, request), "{:?}", request);
        }
    }

    #[test]
    fn explains_what_it_does(
        routes in vec(some_route(), 0..6),
        request in some_request(),
    ) {
        let explained = explain(snapshot(routes.clone()), &ExplainRequest {
            method: request.method.clone(),
            host: request.host.clone(),
            path_and_query: match &request.query {
                Some(query) => format!("{}?{query}", request.path),
                None => request.path.clone(),
            },
            headers: request.headers.clone(),
        }).unwrap();
        let outcome = match explained.outcome {
            Outcome::Matched(matched) => Answer::Route(matched.index),
            Outcome::NotFound => Answer::NotFound,
            Outcome::MethodNotAllowed { allow } => Answer::Allow(allow.into_iter().collect()),
            Outcome::BadPath { problem } => panic!("{problem}"),
        };
        let expected = model(&routes, &request);
        let rest = routes.len() - usize::from(matches!(expected, Answer::Route(_)));
        prop_assert_eq!(outcome, expected);
        prop_assert_eq!(explained.others.len(), rest);
        prop_assert!(explained.others.is_sorted_by_key(|other| other.verdict));
        for other in explained.others {
            // Alone in the world the route does what its verdict says.
            let alone = model(std::slice::from_ref(&routes[other.index]), &request);
            prop_assert_eq!(other.verdict == Verdict::Outranked, alone == Answer::Route(0));
            prop_assert_eq!(other.verdict == Verdict::Method, matches!(alone, Answer::Allow(_)));
        }
    }
}

fn any_route() -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        ".{0,9}".prop_map(PathMatch::Exact),
        "/?.{0,9}".prop_map(PathMatch::Prefix),
        "[a-z(){},?*+|.0-9]{0,9}".prop_map(PathMatch::Regex),
        "/?[a-z{}./]{0,9}".prop_map(PathMatch::Template),
    ];
    let field = (".{0,3}", "[a(+]{0,3}")
        .prop_map(|(name, value)| FieldMatch { name, value: ValueMatch::Regex(value) });
    let rewrite =
        prop_oneof![Just(PathRewrite::StripPrefix), ".{0,3}".prop_map(PathRewrite::ReplacePrefix),];
    (vec(".{0,5}", 0..2), path, vec(".{0,3}", 0..2), vec(field, 0..2), rewrite).prop_map(
        |(hosts, path, methods, query, rewrite)| Route {
            hosts,
            methods,
            query,
            rewrite,
            ..route("r", &[], path)
        },
    )
}

proptest! {
    #[test]
    fn any_snapshot_and_request_is_survived(
        routes in vec(any_route(), 0..3),
        host: Vec<u8>, path: Vec<u8>, query: Option<Vec<u8>>, method: Vec<u8>,
    ) {
        let headers: Vec<(String, String)> = vec![];
        let (path, query) = (path.as_slice(), query.as_deref());
        let request = Query { host: &host, path, query, method: &method, headers: &headers };
        if let Ok(plan) = crate::plan::Plan::build(snapshot(routes))
            && let Ok(index) = plan.router.find(&request)
        {
            let mut out = Vec::new();
            let rewritten = rewrite_path(&plan.route(index).rewrite, path, &mut out);
            prop_assert!(rewritten == path || rewritten.starts_with(b"/") || !path.starts_with(b"/"));
        }
    }
}

// What the words say, one by one.

fn request(method: &str, host: &str, path: &str) -> Request {
    let mut out = Vec::new();
    let path = path::normalise(path.as_bytes(), &mut out).unwrap();
    Request {
        method: method.into(),
        host: host.into(),
        path: String::from_utf8(path.to_vec()).unwrap(),
        query: None,
        headers: vec![],
    }
}

#[test]
fn hosts_and_paths_fall_through() {
    let prefix = |path: &str| PathMatch::Prefix(path.into());
    let routes = [
        route("any", &[], prefix("/")),
        route("wild", &["*.example.com"], prefix("/w")),
        route("deep", &["*.b.example.com"], prefix("/d")),
        route("exact", &["a.b.example.com"], prefix("/e")),
        route("exact-exact", &["a.b.example.com"], PathMatch::Exact("/e/x".into())),
        route("regex", &["a.b.example.com"], PathMatch::Regex(r"^/[0-9]+$".into())),
    ];
    let router = Router::build(&routes).unwrap();
    let found = |host: &str, path: &str| match actual(&router, &request("GET", host, path)) {
        Answer::Route(index) => routes[index].name.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(found("a.b.example.com", "/e/x"), "exact-exact");
    assert_eq!(found("A.b.Example.com.:8080", "/e/x/"), "exact");
    assert_eq!(found("a.b.example.com", "/ex"), "any");
    assert_eq!(found("a.b.example.com", "/123"), "regex");
    assert_eq!(found("a.b.example.com", "/d/1"), "deep");
    assert_eq!(found("a.b.example.com", "/w"), "wild");
    assert_eq!(found("b.example.com", "/w"), "wild");
    assert_eq!(found("b.example.com", "/d"), "any");
    assert_eq!(found("example.com", "/w"), "any");
    assert_eq!(found("", "/w"), "any");
    assert_eq!(found("a.b.example.com", "/e/../w"), "wild");
}

#[test]
fn methods_are_told_in_allow() {
    let mut get = route("get", &[], PathMatch::Prefix("/a".into()));
    get.methods = vec!["GET".into(), "BREW".into()];
    let mut post = route("post", &[], PathMatch::Prefix("/a/".into()));
    post.methods = vec!["POST".into()];
    let other = route("other", &[], PathMatch::Prefix("/".into()));
    let router = Router::build(&[get, post, other]).unwrap();
    let outcome = with_query(&request("HEAD", "", "/a/b"), |query| router.find(query));
    let Err(Miss::MethodNotAllowed(allow)) = outcome else { panic!("{outcome:?}") };
    let mut text = Vec::new();
    router.write_allow(allow, &mut text);
    assert_eq!(text, b"GET, POST, BREW");
    assert_eq!(actual(&router, &request("POST", "", "/a")), Answer::Route(1));
    assert_eq!(actual(&router, &request("HEAD", "", "/b")), Answer::Route(2));
}

#[test]
fn a_large_table_finds_each_of_its_routes() {
    let path = |i: usize| format!("/api/v{}/service-{i}/items", i % 3);
    let routes: Vec<Route> =
        (0..3000).map(|i| route("r", &[], PathMatch::Prefix(path(i)))).collect();
    let router = Router::build(&routes).unwrap();
    for i in 0..3000 {
        let below = format!("{}/7", path(i));
        assert_eq!(actual(&router, &request("GET", "h", &below)), Answer::Route(i));
        let beside = format!("{}x", path(i));
        assert_eq!(actual(&router, &request("GET", "h", &beside)), Answer::NotFound);
    }
}

#[test]
fn explains_in_words() {
    let mut old = route("old", &["api.example.com"], PathMatch::Prefix("/users".into()));
    old.rewrite = PathRewrite::ReplacePrefix("/v2".into());
    let mut beta = route("beta", &["api.example.com"], PathMatch::Prefix("/users".into()));
    beta.headers =
        vec![FieldMatch { name: "x-beta".into(), value: ValueMatch::Exact("yes".into()) }];
    let mut write = route("write", &["api.example.com"], PathMatch::Exact("/users/7".into()));
    write.query = vec![FieldMatch { name: "force".into(), value: ValueMatch::Present }];
    let routes = vec![
        route("all", &[], PathMatch::Prefix("/".into())),
        route("shop", &["shop.example.com", "*.shop.example.com"], PathMatch::Prefix("/".into())),
        old,
        beta,
        write,
        route("orders", &[], PathMatch::Prefix("/orders".into())),
        route("later", &["api.example.com"], PathMatch::Prefix("/users".into())),
    ];
    let request = ExplainRequest {
        method: "GET".into(),
        host: "API.example.com".into(),
        path_and_query: "/x/../users//7?full=1".into(),
        headers: vec![("X-Beta".into(), "no".into())],
    };
    let explained = explain(snapshot(routes), &request).unwrap();
    assert_eq!(explained.path, "/users/7");
    let Outcome::Matched(matched) = explained.outcome else { panic!("{explained:?}") };
    assert_eq!((matched.index, matched.route.as_str()), (2, "old"));
    assert_eq!(matched.rewritten, "/v2/7?full=1");
    assert_eq!(matched.backends[0].upstream, "u");
    let others: Vec<String> = explained
        .others
        .iter()
        .map(|other| format!("{} {}: {}", other.route, other.verdict.as_str(), other.text))
        .collect();
    assert_eq!(
        others,
        [
            r#"all outranked: matches too, but "old" goes first: its host is more specific"#,
            r#"later outranked: matches too, but "old" goes first: it comes earlier in the spec"#,
            r#"write query: no query parameter "force""#,
            r#"beta header: no header "x-beta" with the value "yes""#,
            r#"orders path: path "/users/7" is not at or below "/orders""#,
            r#"shop host: host "api.example.com" is not one of shop.example.com, *.shop.example.com"#,
        ]
    );
}

#[test]
fn explains_a_bad_path() {
    let request = ExplainRequest { path_and_query: "/a%2fb".into(), ..Default::default() };
    let explained = explain(snapshot(vec![]), &request).unwrap();
    assert!(matches!(explained.outcome, Outcome::BadPath { .. }));
}

#[test]
fn errors_name_the_route_and_the_field() {
    let field = |value| vec![FieldMatch { name: "x".into(), value: ValueMatch::Regex(value) }];
    let plain = || route("r1", &[], PathMatch::Prefix("/".into()));
    let cases = [
        (Route { path: PathMatch::Regex("(".into()), ..plain() }, "path"),
        (Route { path: PathMatch::Prefix("users".into()), ..plain() }, "path"),
        (Route { hosts: vec!["a".into(), "*".into()], ..plain() }, "hosts[1]"),
        (Route { headers: field("[".into()), ..plain() }, "headers[0].value"),
        (Route { query: field("*".into()), ..plain() }, "query[0].value"),
        (Route { backends: vec![], ..plain() }, "backends"),
        (
            Route { backends: vec![Backend { upstream: 1, weight: 1 }], ..plain() },
            "backends[0].upstream",
        ),
        (
            Route {
                path: PathMatch::Regex("a".into()),
                rewrite: PathRewrite::StripPrefix,
                ..plain()
            },
            "rewrite",
        ),
    ];
    for (route, field) in cases {
        let error = crate::plan::Plan::build(snapshot(vec![route])).unwrap_err();
        assert_eq!((error.name.as_str(), error.field.as_str()), ("r1", field), "{error}");
    }
    assert!(crate::plan::Plan::build(snapshot(vec![plain()])).is_ok());
}
