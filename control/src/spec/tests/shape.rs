//! What routes change and answer themselves: any of it, and what is wrong with some.

use std::collections::BTreeMap;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::random::texts;
use crate::spec::*;

fn map(names: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, String>> {
    let values = select(texts(&["${path}", "a b", "$${x}", "1", "é\"'"]));
    subsequence(texts(names), 0..=names.len())
        .prop_flat_map(move |names| (Just(names.clone()), vec![values.clone(); names.len()]))
        .prop_map(|(names, values)| names.into_iter().zip(values).collect())
}

fn names() -> impl Strategy<Value = NameEdits> {
    let moved = || subsequence(texts(&["x-a", "x-b"]), 0..=2);
    let moved = || {
        moved().prop_map(|names| names.into_iter().map(|name| (name, "x-to".to_owned())).collect())
    };
    let remove = subsequence(texts(&["x-c", "1", "null"]), 0..=3);
    (moved(), moved(), remove, map(&["x-d", "true"]), map(&["x-e"]))
        .prop_map(|(rename, copy, remove, set, add)| NameEdits { rename, copy, remove, set, add })
}

fn site() -> impl Strategy<Value = Option<CookieSite>> {
    option::of(select(vec![CookieSite::Strict, CookieSite::Lax, CookieSite::None]))
}

prop_compose! {
    fn request()(
        method in option::of(select(texts(&["GET", "PURGE"]))),
        host in option::of(select(texts(&["a.example:1", "${query.h}"]))),
        (whole, replaces) in any::<(bool, bool)>(),
        query in names(),
        headers in names(),
        set in map(&["a", "b"]),
        remove in subsequence(texts(&["c", "d"]), 0..=2),
    ) -> RouteRequest {
        let replace = || PathReplace { regex: "^/a".into(), with: "/${path[1]}".into() };
        let path = match replaces {
            true => Some(PathEdit::Replace(replace())),
            false => whole.then(|| PathEdit::Whole("/v2${path}".into())),
        };
        RouteRequest { method, host, path, query, headers, cookies: CookieEdits { set, remove } }
    }
}

prop_compose! {
    fn response()(
        status in subsequence(vec![("404", 410), ("500-599", 503), ("200", 201)], 0..=3),
        headers in names(),
        set in map(&["a", "b"]),
        remove in subsequence(texts(&["c", "d"]), 0..=2),
        (same_site, other_site) in (site(), site()),
        (secure, http_only, max_age) in any::<(bool, Option<bool>, Option<u32>)>(),
        domain in option::of(select(texts(&["", "a.example"]))),
        rewrites in 0usize..2,
        max_body_bytes in option::of(0u64..=1 << 53),
    ) -> RouteResponse {
        let max_age = max_age.map(|age| i64::from(age) - 1);
        let new = |value| NewCookie {
            value,
            domain: domain.clone().filter(|domain| !domain.is_empty()),
            path: "/x".into(),
            secure,
            http_only: http_only == Some(true),
            same_site,
            max_age,
        };
        let rewrite = CookieRewrite {
            name: secure.then(|| "sid".into()),
            path: domain.clone(),
            domain: domain.clone(),
            secure: Some(secure),
            http_only,
            same_site: other_site,
            max_age,
        };
        let set = set.into_iter().map(|(name, value)| (name, new(value))).collect();
        let cookies = AnswerCookieEdits { set, remove, rewrite: vec![rewrite; rewrites] };
        let status = status.into_iter().map(|(from, to)| (from.into(), to)).collect();
        RouteResponse { status, headers, cookies, max_body_bytes }
    }
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = select(vec![301, 302, 303, 307, 308]);
    let location = select(texts(&["/x", "https://a.example/${path.rest}"]));
    (status, location, any::<(bool, bool)>()).prop_map(
        |(status, location, (keep_path, keep_query))| Redirect {
            status,
            location,
            keep_path,
            keep_query,
        },
    )
}

fn respond() -> impl Strategy<Value = Respond> {
    let json = select(vec![
        serde_json::json!({"a": ["${path}", 1.5, null], "b": {}}),
        serde_json::json!("text"),
    ]);
    let body = option::of(select(texts(&["", "hi ${client.address}\n"])));
    (200u16..=203, body, option::of(json), map(&["x-a", "x-b"]), any::<bool>()).prop_map(
        |(status, body, json, headers, typed)| Respond {
            status,
            content_type: typed.then(|| "text/css".into()),
            headers,
            json: json.filter(|_| body.is_none()),
            body,
        },
    )
}

pub type Any = (Option<RouteRequest>, Option<RouteResponse>, Option<Redirect>, Option<Respond>);

/// At most one answer of the gateway's own.
pub fn shape() -> BoxedStrategy<Any> {
    let own = prop_oneof![
        4 => Just((None, None)),
        1 => redirect().prop_map(|redirect| (Some(redirect), None)).boxed(),
        1 => respond().prop_map(|respond| (None, Some(respond))).boxed()
    ];
    // Boxed: their trees would fill a test's stack.
    (option::of(request().boxed()), option::of(response().boxed()), own.boxed())
        .prop_map(|(request, response, (redirect, respond))| (request, response, redirect, respond))
        .boxed()
}

fn route(fields: &str) -> Loaded {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\nupstreams: [{{name: u, targets: \
         ['10.0.0.1:1']}}]\nroutes:\n- name: r\n{fields}"
    );
    load("t.yaml", &text)
}

#[test]
fn short_forms_are_read() {
    let loaded = route(
        "  upstream: u\n  request: {path: '/v2/${path.rest}', headers: {set: {X-Tenant: acme}}}\n  \
         response: {status: {404: 410, 5xx: 503}, max_body_bytes: 1MiB, cookies: {set: {a: b}}}\n\
         - {name: q, match: {path: /q}, redirect: /x}\n",
    );
    let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    let route = &spec.routes[0];
    let request = route.request.as_ref().unwrap();
    assert_eq!(request.headers.set["x-tenant"], "acme");
    let response = route.response.as_ref().unwrap();
    let statuses: Vec<_> = response.status.iter().map(|(from, to)| (from.as_str(), *to)).collect();
    assert_eq!(statuses, [("404", 410), ("500-599", 503)]);
    assert_eq!(response.max_body_bytes, Some(1 << 20));
    assert_eq!(response.cookies.set["a"].path, "/");
    let redirect = spec.routes[1].redirect.as_ref().unwrap();
    assert_eq!((redirect.status, redirect.location.as_str()), (302, "/x"));
    assert_eq!(spec.routes[1].to_string(), "* * /q* -> 302 /x");
}

#[test]
fn slips_are_named_where_they_are() {
    for (fields, field, message) in [
        ("  request: {headers: {set: {Host: x}}}\n", ".request.headers.set.Host", "request.host"),
        (
            "  request: {headers: {remove: [Via]}}\n",
            ".request.headers.remove[0]",
            "which the gateway does itself",
        ),
        (
            "  response: {headers: {add: {Set-Cookie: x}}}\n",
            ".response.headers.add.Set-Cookie",
            "response.cookies",
        ),
        (
            "  request: {headers: {rename: {x-a: X-Consumer-Id}}}\n",
            ".request.headers.rename.x-a",
            "${consumer.id}",
        ),
        ("  request: {method: TRACE}\n", ".request.method", "never forwarded"),
        ("  request: {path: {regex: '('}}\n", ".request.path.regex", "the pattern is wrong"),
        ("  request: {path: 5}\n", ".request.path", "regex and with"),
        ("  request: {cookies: {set: {'a b': x}}}\n", ".request.cookies.set.a b", "a cookie"),
        ("  response: {status: {204: 200}}\n", ".response.status.204", "so it stays"),
        ("  response: {status: {404: 204}}\n", ".response.status.404", "has no body"),
        ("  response: {status: {abc: 200}}\n", ".response.status.abc", "like 5xx"),
        ("  response: {status: {101: 200}}\n", ".response.status.101", "200 to 599"),
        ("  redirect: /x\n", ".upstream", "exclude each other"),
        ("  respond: {body: a, json: b}\n", ".respond.body", "exclude each other"),
        ("  respond: {status: 304, body: a}\n", ".respond.body", "has no body"),
        ("  redirect: {status: 304, location: /x}\n", ".redirect.status", "is no redirect"),
        ("  request: {query: {rename: {'': a}}}\n", ".request.query.rename.", "query parameter"),
        ("  request: {heders: {}}\n", ".request.heders", "did you mean `headers`"),
    ] {
        let loaded = route(&format!("  upstream: u\n{fields}"));
        let found = loaded.problems.iter().find(|one| one.field == format!("routes[0]{field}"));
        let found = found.unwrap_or_else(|| panic!("{fields}: {:?}", loaded.problems));
        assert!(found.message.contains(message), "{fields}: {}", found.message);
    }
}
