use super::*;

fn text(top: &str, route: &str) -> String {
    format!(
        "version: 1\n{top}\nlisteners: [{{name: web, listen: ':8080'}}]\n\
         upstreams: [{{name: u, targets: ['127.0.0.1:1']}}]\n\
         routes:\n  - {{name: r, upstream: u, cache: {route}}}\n"
    )
}

fn loaded(text: &str) -> Spec {
    load("cache.yaml", text).spec.expect("loads")
}

/// The codes and fields of what is wrong.
fn wrong(top: &str, route: &str) -> Vec<(String, String)> {
    let problems = load("cache.yaml", &text(top, route)).problems;
    problems.iter().map(|one| (one.code.to_string(), one.field.clone())).collect()
}

#[test]
fn is_off_and_has_usual_values() {
    let spec = loaded(&text("", "{}"));
    assert_eq!(spec.routes[0].cache, Some(RouteCache::default()));
    assert_eq!(spec.cache, Cache::default());
    assert_eq!(spec.cache.max_bytes, 64 << 20);
    let small = loaded(&text("cache: {max_bytes: 1MiB}", "{}")).cache;
    assert_eq!(small, Cache { max_bytes: 1 << 20, max_object_bytes: 256 << 10 });
}

#[test]
fn all_of_it_is_read() {
    let route = "{ttl_ms: 5, heuristic_percent: 10, statuses: [200, 404], stale_while_revalidate_ms: 6, \
                 stale_if_error_ms: 7, key: {query: {except: [utm_source]}, headers: [Accept-Language]}, \
                 set_cookie: strip, tag_header: Cache-Tag, ignore_request_cache_control: true, \
                 coalesce_ms: 0, cache_status: false}";
    let spec = loaded(&text("cache: {max_bytes: 8MiB, max_object_bytes: 2MiB}", route));
    let want = RouteCache {
        ttl_ms: 5,
        heuristic_percent: 10,
        statuses: vec![200, 404],
        stale_while_revalidate_ms: 6,
        stale_if_error_ms: 7,
        key: CacheKey {
            query: QueryKey::Except(vec!["utm_source".into()]),
            headers: vec!["accept-language".into()],
            consumer: false,
        },
        set_cookie: SetCookie::Strip,
        tag_header: "cache-tag".into(),
        ignore_request_cache_control: true,
        coalesce_ms: 0,
        cache_status: false,
    };
    assert_eq!(spec.routes[0].cache, Some(want));
    assert_eq!(spec.cache, Cache { max_bytes: 8 << 20, max_object_bytes: 2 << 20 });
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let of = |code: &str, field: &str| vec![(code.to_owned(), format!("routes[0].cache.{field}"))];
    assert_eq!(wrong("", "{statuses: [206]}"), of("bad-value", "statuses[0]"));
    assert_eq!(wrong("", "{statuses: [200, 200]}"), of("bad-value", "statuses[1]"));
    assert_eq!(wrong("", "{statuses: [100]}"), of("out-of-range", "statuses[0]"));
    assert_eq!(wrong("", "{set_cookie: keep}"), of("bad-value", "set_cookie"));
    assert_eq!(wrong("", "{key: {query: {only: [a], except: [b]}}}").len(), 1);
    assert_eq!(wrong("", "{key: {headers: [a, A]}}"), of("duplicate-value", "key.headers[1]"));
    assert_eq!(wrong("", "{key: {consumer: true}}"), of("no-consumers", "key.consumer"));
    assert_eq!(wrong("", "{coalesce_ms: 60001}"), of("out-of-range", "coalesce_ms"));
    let top = wrong("cache: {max_bytes: 1MiB, max_object_bytes: 1MiB}", "{}");
    assert_eq!(top, [("out-of-range".to_owned(), "cache.max_object_bytes".to_owned())]);
    let off = wrong("cache: {max_bytes: 0}", "{}");
    assert_eq!(off, [("cache-off".to_owned(), "routes[0].cache".to_owned())]);
}
