//! Retries, breakers, fallbacks and the rest: any of them, broken ones, and what is said of these.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::broken::{mentions, says};
use crate::spec::*;

pub fn or_none<T: Clone + std::fmt::Debug + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = OrNone<T>> {
    prop_oneof![Just(OrNone::NONE), some.prop_map(OrNone::Some)]
}

prop_compose! {
    pub fn retry()(
        attempts in 1u8..=10,
        [connect, refused, reset, timeout] in any::<[bool; 4]>(),
        statuses in btree_set(400u16..=599, 1..4),
        grpc_statuses in btree_set(select(&GrpcStatus::ALL[..]), 0..4),
        methods in prop_oneof![
            Just(RetryMethods::Idempotent),
            Just(RetryMethods::Any),
            subsequence(vec!["GET".to_string(), "POST".into(), "PURGE".into()], 1..=3)
                .prop_map(RetryMethods::Listed),
        ],
        [one, other] in [0u32..=60_000, 0u32..=60_000],
        retry_after_max_ms in 0u32..=3_600_000,
        body_bytes in 0u32..=16 << 20,
    ) -> Retry {
        Retry {
            attempts,
            on: RetryOn {
                connect, refused, reset, timeout,
                statuses: statuses.into_iter().collect(),
                grpc_statuses: grpc_statuses.into_iter().collect(),
            },
            methods,
            backoff_base_ms: one.min(other),
            backoff_max_ms: one.max(other),
            retry_after_max_ms,
            body_bytes,
        }
    }
}

pub fn hedge() -> impl Strategy<Value = Hedge> {
    (500u16..=999, 0u32..=86_400_000)
        .prop_map(|(quantile_permille, min_ms)| Hedge { quantile_permille, min_ms })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (0u32..=10_000_000, 0u32..=10_000_000)
        .prop_map(|(max_requests, max_pending)| Bounds { max_requests, max_pending })
}

prop_compose! {
    fn breaker()(
        consecutive in 1u32..=1_000_000,
        [error_percent, slow_percent] in [0u8..=100, 0u8..=100],
        slow_ms in 1u32..=86_400_000,
        window_ms in 100u32..=3_600_000,
        min_requests in 1u32..=1_000_000,
        open_ms in 1u32..=86_400_000,
        probes in 1u32..=1000,
    ) -> Breaker {
        Breaker {
            consecutive, error_percent, slow_percent, slow_ms, window_ms, min_requests, open_ms,
            probes,
        }
    }
}

prop_compose! {
    fn outlier()(
        [consecutive_5xx, consecutive_gateway] in [0u32..=1_000_000, 0u32..=1_000_000],
        interval_ms in 100u32..=3_600_000,
        min_targets in 2u32..=10_000,
        min_requests in 1u32..=10_000_000,
        stdev_permille in 0u32..=10_000,
        latency_percent in prop_oneof![Just(0u32), 101u32..=100_000],
        [one, other] in [1u32..=86_400_000, 1u32..=86_400_000],
        [max_ejected_percent, panic_percent] in [0u8..=100, 0u8..=100],
        slow_start_ms in 0u32..=3_600_000,
    ) -> Outlier {
        Outlier {
            consecutive_5xx, consecutive_gateway, interval_ms, min_targets, min_requests,
            stdev_permille, latency_percent, base_ejection_ms: one.min(other),
            max_ejection_ms: one.max(other), max_ejected_percent, panic_percent, slow_start_ms,
        }
    }
}

fn concurrency() -> impl Strategy<Value = AdaptiveConcurrency> {
    (1u32..=10_000_000, 1u32..=10_000_000, 0u32..=1000).prop_map(
        |(one, other, tolerance_percent)| AdaptiveConcurrency {
            min: one.min(other),
            max: one.max(other),
            tolerance_percent,
        },
    )
}

fn fallback(at: usize) -> impl Strategy<Value = Fallback> {
    let bodies = vec(select(vec!["try later", "ü\n", "", "true"]), 1);
    let answer = (select(vec![200u16, 404, 503, 599]), bodies).prop_map(|(status, bodies)| {
        let content_type = "application/json; charset=utf-8".into();
        Fallback::Answer(FallbackAnswer { status, content_type, body: bodies.concat() })
    });
    let other = match at.checked_sub(1) {
        Some(before) => Fallback::Upstream(format!("upstream-{before}")),
        None => Fallback::Refuse,
    };
    prop_oneof![Just(Fallback::Refuse), Just(other), answer]
}

prop_compose! {
    /// An upstream, of which only what this file is about matters. Its fallback is one before it, so
    /// that no circle is closed.
    pub fn upstream(at: usize)(
        min_live_percent in 0u8..=100,
        retry in retry(),
        (percent, min) in (0u8..=100, 0u32..=1_000_000),
        hedge in or_none(hedge()),
        [bounds, target_bounds] in [bounds(), bounds()],
        breaker in or_none(breaker()),
        target_breaker in or_none(breaker()),
        fallback in fallback(at),
        outlier in or_none(outlier()),
        concurrency in or_none(concurrency()),
    ) -> Upstream {
        Upstream {
            min_live_percent,
            retry,
            retry_budget: RetryBudget { percent, min },
            hedge,
            bounds,
            target_bounds,
            breaker,
            target_breaker,
            fallback,
            outlier,
            concurrency,
            ..Upstream::default()
        }
    }
}

/// A case of an upstream `u` with the given fields on line 6, beside another one `v`.
#[track_caller]
fn on_upstream(fields: &str, expected: &[&str]) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
         routes: [{{name: r, upstream: u}}, {{name: s, match: {{path: /v}}, upstream: v}}]\n\
         upstreams:\n- name: u\n  {fields}\n  targets: ['1.2.3.4:5']\n\
         - {{name: v, targets: ['1.2.3.4:6']}}\n"
    );
    says(&text, expected).join("\n")
}

/// A case of a route `r` to `u` with the given fields on line 8, beside another upstream `v`.
#[track_caller]
fn on_route(fields: &str, expected: &[&str]) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
         upstreams: [{{name: u, targets: ['1.2.3.4:5']}}, {{name: v, targets: ['1.2.3.4:6']}}]\n\
         routes:\n- {{name: s, match: {{path: /v}}, upstream: v}}\n- name: r\n  upstream: u\n  \
         {fields}\n"
    );
    says(&text, expected).join("\n")
}

#[test]
fn retries() {
    on_upstream("retry: {}", &[]);
    on_upstream("retry: none", &[]);
    mentions(&on_upstream("retry: 3", &["6:10 wrong-type"]), "a map like {attempts: 3}, or none");
    on_upstream("retry: never", &["6:10 wrong-type"]);
    on_upstream("retry: {attempts: 0}", &["6:21 out-of-range"]);
    on_upstream("retry: {attempts: 11}", &["6:21 out-of-range"]);
    mentions(
        &on_upstream("retry: {on: [conect]}", &["6:16 bad-value"]),
        "did you mean `connect`? Expected one of: connect, refused, reset, timeout, cancelled",
    );
    on_upstream("retry: {on: [unavailable]}", &[]);
    mentions(&on_upstream("retry: {on: [unavaliable]}", &["6:16 bad-value"]), "`unavailable`?");
    on_upstream("retry: {on: [14]}", &["6:16 out-of-range"]);
    on_upstream("retry: {on: [internal, 503, internal]}", &["6:31 duplicate-value"]);
    mentions(
        &on_upstream("retry: {on: [resource_exhausted]}", &["6:15 unused-grpc-status"]),
        "every gRPC call is a POST",
    );
    on_upstream("retry: {on: [resource_exhausted], methods: any}", &[]);
    on_upstream("retry: {on: [resource_exhausted], methods: [GET, POST]}", &[]);
    on_upstream("retry: {on: [connect]}", &[]);
    on_upstream("retry: {on: [200]}", &["6:16 out-of-range"]);
    on_upstream("retry: {on: [600]}", &["6:16 out-of-range"]);
    on_upstream("retry: {on: [503, 429, 503]}", &["6:26 duplicate-value"]);
    on_upstream("retry: {on: [reset, reset]}", &["6:23 duplicate-value"]);
    on_upstream("retry: {on: [[reset]]}", &["6:16 wrong-type"]);
    mentions(&on_upstream("retry: {on: []}", &["6:15 empty-list"]), "`retry: none`");
    on_upstream("retry: {on: reset}", &["6:15 wrong-type"]);
    on_upstream("retry: {methods: safe}", &["6:20 bad-value"]);
    on_upstream("retry: {methods: [get]}", &["6:21 bad-method"]);
    on_upstream("retry: {methods: []}", &["6:20 empty-list"]);
    on_upstream("retry: {methods: 1}", &["6:20 wrong-type"]);
    on_upstream("retry: {body_bytes: 17MiB}", &["6:23 out-of-range"]);
    on_upstream("retry: {body_bytes: many}", &["6:23 bad-size"]);
    on_upstream("retry: {backoff_base_ms: 300, backoff_max_ms: 299}", &["6:49 min-above-max"]);
    // A longer base than the usual longest pause needs no second number.
    on_upstream("retry: {backoff_base_ms: 300}", &[]);
    on_upstream("retry: {attempt: 2}", &["6:11 unknown-field"]);
    on_upstream("retry_budget: {percent: 101}", &["6:27 out-of-range"]);
    mentions(
        &on_upstream("retry_budget: {percent: 0, min: 0}", &["6:17 unused-retry"]),
        "nothing is ever retried",
    );
    on_upstream("retry: none\n  retry_budget: {percent: 0, min: 0}", &[]);
    on_route("retry: {on: [100]}", &["8:16 out-of-range"]);
    on_route("retry: none", &[]);
}

#[test]
fn hedges() {
    on_upstream("hedge: {}", &[]);
    on_upstream("hedge: none", &[]);
    on_upstream("hedge: {quantile: 0.999, min_ms: 0}", &[]);
    mentions(
        &on_upstream("hedge: {quantile: 95}", &["6:21 out-of-range"]),
        "from 0.5 to 0.999, such as 0.95",
    );
    on_upstream("hedge: {quantile: 0.95001}", &["6:21 out-of-range"]);
    on_upstream("hedge: {quantile: 1.0}", &["6:21 out-of-range"]);
    on_upstream("hedge: {quantile: .nan}", &["6:21 out-of-range"]);
    on_upstream("hedge: {quantile: p95}", &["6:21 wrong-type"]);
    on_upstream("hedge: true", &["6:10 wrong-type"]);
    let broke = "retry: none\n  retry_budget: {percent: 0, min: 0}";
    let message = on_upstream(&format!("hedge: {{}}\n  {broke}"), &["6:10 unused-hedge"]);
    mentions(&message, "no hedge is ever sent");
    on_route("hedge: {quantile: 0.9}", &[]);
    on_route("hedge: none", &[]);
}

#[test]
fn bounds_and_breakers() {
    on_upstream("bounds: {max_requests: 100, max_pending: 10}", &[]);
    on_upstream("bounds: {max_connections: 100}", &["6:12 unknown-field"]);
    on_upstream("breaker: {}", &[]);
    on_upstream("breaker: none", &[]);
    mentions(&on_upstream("breaker: {error_percent: 0}", &["6:12 empty-breaker"]), "never opens");
    on_upstream("target_breaker: {error_percent: 0, consecutive: 5}", &[]);
    mentions(&on_upstream("breaker: {slow_percent: 5}", &["6:27 missing-field"]), "slow_ms");
    on_upstream("breaker: {slow_ms: 5}", &["6:22 unused-slow-ms"]);
    on_upstream("breaker: {slow_percent: 50, slow_ms: 5}", &[]);
    on_upstream(
        "target_breaker: {probes: 0, open_ms: 0}",
        &["6:28 out-of-range", "6:40 out-of-range"],
    );
    on_upstream("breaker: {error_percent: 101}", &["6:28 out-of-range"]);
    on_upstream("min_live_percent: 101", &["6:21 out-of-range"]);
    on_upstream("min_live_percent: 50", &[]);
    on_upstream("min_live_percent: 50\n  outlier: none", &["6:21 unused-floor"]);
    on_upstream("concurrency: {}", &[]);
    on_upstream("concurrency: {min: 9, max: 8}", &["6:30 min-above-max"]);
    on_upstream("concurrency: {min: 0}", &["6:22 out-of-range"]);
}

#[test]
fn outliers() {
    on_upstream("outlier: none", &[]);
    on_upstream("outlier: {consecutive_5xx: 0, latency_percent: 300}", &[]);
    on_upstream("outlier: {base_ejection_ms: 2, max_ejection_ms: 1}", &["6:51 min-above-max"]);
    on_upstream("outlier: {base_ejection_ms: 400000}", &[]);
    mentions(
        &on_upstream("outlier: {latency_percent: 100}", &["6:30 out-of-range"]),
        "above their median",
    );
    on_upstream("outlier: {min_targets: 1}", &["6:26 out-of-range"]);
    mentions(
        &on_upstream("outlier: {consecutive_5x: 1}", &["6:13 unknown-field"]),
        "did you mean `consecutive_5xx`?",
    );
}

#[test]
fn fallbacks() {
    on_upstream("fallback: none", &[]);
    on_upstream("fallback: {}", &[]);
    on_upstream("fallback: {status: 200, content_type: text/html, body: '<p>'}", &[]);
    on_upstream("fallback: {upstream: v}", &[]);
    on_upstream("fallback: later", &["6:13 wrong-type"]);
    on_upstream("fallback: {status: 199}", &["6:22 out-of-range"]);
    mentions(&on_upstream("fallback: {status: 204}", &["6:22 bad-status"]), "has no body");
    on_upstream("fallback: {content_type: \"a\\nb\"}", &["6:28 bad-value"]);
    on_upstream("fallback: {upstream: v, status: 200}", &["6:24 conflicting-fields"]);
    mentions(
        &on_upstream("fallback: {upstream: w}", &["6:24 unknown-upstream"]),
        "there is no upstream `w`",
    );
    on_upstream("fallback: {upstream: ''}", &["6:24 bad-name"]);
    mentions(
        &on_upstream("fallback: {upstream: u}", &["6:24 fallback-cycle"]),
        "cannot stand in for itself",
    );
    let circle = |last: &str| {
        format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
             routes: [{{name: r, upstream: a}}]\nupstreams:\n\
             - {{name: a, targets: ['1.2.3.4:5'], fallback: {{upstream: b}}}}\n\
             - {{name: b, targets: ['1.2.3.4:5'], fallback: {{upstream: c}}}}\n\
             - {{name: c, targets: ['1.2.3.4:5'], fallback: {{upstream: d}}}}\n\
             - {{name: d, targets: ['1.2.3.4:5'], fallback: {last}}}\n"
        )
    };
    says(&circle("none"), &[]);
    let message = &says(&circle("{upstream: b}"), &["8:58 fallback-cycle"])[0];
    mentions(message, "the fallback of `b` leads here");
    mentions(message, "(see t.yaml:6:47)");
    // What only a fallback or a mirror names is in use.
    let text = circle("none").replace("upstream: a}", "upstream: d, mirror: {upstream: a}}");
    says(&text, &[]);
}

#[test]
fn balances() {
    let hash = |text: &str, expected: &[&str]| on_upstream(&format!("balance: {text}"), expected);
    hash("power_of_two", &[]);
    hash("{hash: client_ip}", &[]);
    hash("{hash: {header: X-User}, load_percent: 101}", &[]);
    hash("{hash: {cookie: sid}}", &[]);
    mentions(&hash("hash", &["6:12 bad-value"]), "write {hash: client_ip}");
    hash("{hash: {cookie: sid}, load_percent: 100}", &["6:48 out-of-range"]);
    hash("{load_percent: 120}", &["6:12 missing-field"]);
    hash("{hash: cookie}", &["6:19 wrong-type"]);
    hash("{hash: {}}", &["6:19 missing-field"]);
    hash("{hash: {header: a, cookie: b}}", &["6:31 conflicting-fields"]);
    hash("{hash: {header: 'a b'}}", &["6:28 bad-field-name"]);
    mentions(
        &hash("random", &["6:12 bad-value"]),
        "power_of_two, round_robin, weighted, least_connections, hash",
    );
    let targets = |text: &str| {
        format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
             routes: [{{name: r, upstream: u}}]\nupstreams:\n- {{name: u, targets: [{text}]}}\n"
        )
    };
    let near = targets("{address: 'a:1', priority: 255, locality: eu}");
    says(&near, &["5:65 unused-locality"]);
    says(&format!("{near}node: {{locality: eu}}"), &[]);
    says(&targets("{address: 'a:1', priority: 256}"), &["5:50 out-of-range"]);
    says(&format!("{near}node: {{locality: 'e u'}}"), &["6:18 bad-name"]);
}

#[test]
fn checks() {
    let health =
        |text: &str, expected: &[&str]| on_upstream(&format!("health: {{{text}}}"), expected);
    health("tcp: {}", &[]);
    health("http: {path: /}", &[]);
    health("http: {path: '/a?b', host: 'a:1', statuses: ['200-299', 301], body: ok}", &[]);
    mentions(&health("timeout_ms: 5", &["6:11 missing-field"]), "one of: grpc, http, tcp");
    mentions(
        &health("tcp: {}, http: {path: /}", &["6:12 conflicting-fields"]),
        "http and tcp exclude each other",
    );
    health("htp: {path: /}", &["6:12 unknown-field"]);
    health("tcp: {port: 1}", &["6:18 unknown-field"]);
    health("tcp: true", &["6:17 wrong-type"]);
    health("http: {}", &["6:18 missing-field"]);
    health("http: {path: up}", &["6:25 bad-path"]);
    health("http: {path: '/a b'}", &["6:25 bad-path"]);
    health("http: {path: /, host: 'a b'}", &["6:34 bad-host"]);
    health("http: {path: /, statuses: []}", &["6:38 empty-list"]);
    health("http: {path: /, statuses: [600]}", &["6:39 out-of-range"]);
    mentions(
        &health("http: {path: /, statuses: ['299-200']}", &["6:39 bad-status"]),
        "write \"200-299\"",
    );
    health("http: {path: /, statuses: [2xx]}", &["6:39 bad-status"]);
    health("http: {path: /, body: ''}", &["6:34 bad-value"]);
}

#[test]
fn tries_end_before_the_whole() {
    on_upstream("timeouts: {try_ms: 100, total_ms: 100}", &[]);
    on_upstream("timeouts: {try_ms: none, total_ms: 100}", &[]);
    mentions(
        &on_upstream("timeouts: {try_ms: 101, total_ms: 100}", &["6:22 try-past-total"]),
        "get 100 ms",
    );
    on_upstream("timeouts: {try_ms: never}", &["6:22 wrong-type"]);
    on_route("timeouts: {try_ms: 300001}", &["8:22 try-past-total"]);
    on_route("timeouts: {total_ms: none, try_ms: 300001}", &[]);
}

#[test]
fn what_routes_add() {
    on_route("priority: critical", &[]);
    mentions(&on_route("priority: urgent", &["8:13 bad-value"]), "low, normal, high, critical");
    on_route("mirror: {upstream: v, percent: 0.01}", &[]);
    on_route("mirror: {upstream: v}", &[]);
    on_route("mirror: {upstream: v, percent: 100.5}", &["8:34 out-of-range"]);
    on_route("mirror: {upstream: v, percent: 0.001}", &["8:34 out-of-range"]);
    on_route("mirror: {percent: 1}", &["8:11 missing-field"]);
    on_route("mirror: v", &["8:11 wrong-type"]);
    on_route("mirror: {upstream: w}", &["8:22 unknown-upstream"]);
    mentions(&on_route("mirror: {upstream: u}", &["8:22 mirror-to-itself"]), "some twice");
    on_route("deadline_header: x-deadline", &[]);
    on_route("deadline_header: 'x y'", &["8:20 bad-field-name"]);
    mentions(&on_route("deadline_header: Host", &["8:20 bad-field-name"]), "of its own");
    let overload = |text: &str, expected: &[&str]| {
        on_route(&format!("priority: low\nnode: {{overload: {{{text}}}}}"), expected)
    };
    overload("queue_delay_ms: 0, memory_percent: 0", &[]);
    overload("memory_percent: 101", &["9:35 out-of-range"]);
}

#[test]
fn words_of_nothing_are_canonical() {
    let text = "version: 1\nlisteners: [{name: a, listen: ':1'}]\n\
                upstreams: [{name: u, targets: ['1.2.3.4:5'], outlier: none, retry: none}]\n\
                routes: [{name: r, upstream: u, hedge: none}]\n";
    let spec = load("t", text).spec.expect("loads");
    let value = serde_json::to_value(&spec).expect("serialises");
    let upstream = &value["upstreams"][0];
    assert_eq!(upstream["outlier"], "none");
    assert_eq!(upstream["breaker"], "none");
    assert_eq!(upstream["balance"], "power_of_two");
    assert_eq!(upstream["retry"]["attempts"], 1);
    assert_eq!(upstream["retry"]["on"][0], "connect");
    assert_eq!(upstream["retry"]["on"][4], 502);
    assert_eq!(upstream["retry"]["on"][7], "unavailable");
    assert_eq!(value["routes"][0]["hedge"], "none");
    assert_eq!(value["routes"][0].get("retry"), None);
}
