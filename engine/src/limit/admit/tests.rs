//! Limits over real sockets: a shard, the node's ledger without Redis, a client and an origin.

use std::collections::HashMap;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use contract::snapshot::{
    self, Cors, LimitCost, LimitPolicy, LimitQuota, LimitScope, LimitSpan, Limits, Origins,
    Snapshot,
};

use crate::testing::{Reply, ask, gateway, limit_policy, origin};

fn get(gateway: SocketAddr, fields: &str) -> Reply {
    ask(gateway, "GET /users/7", fields)
}

fn policy(name: &str, limit: u64, span: LimitSpan) -> LimitPolicy {
    let by = vec![LimitScope::Header("x-tenant".into())];
    LimitPolicy { by, ..limit_policy(name, limit, span) }
}

const HOUR: LimitSpan = LimitSpan::Sliding(3_600_000);

fn snapshot(origin: SocketAddr, policies: Vec<LimitPolicy>) -> Snapshot {
    let target =
        snapshot::Target { address: origin, name: origin.to_string(), ..Default::default() };
    let upstream =
        snapshot::Upstream { name: "u".into(), targets: vec![target], ..Default::default() };
    let route = snapshot::Route {
        name: "r".into(),
        backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
        max_body_bytes: 1 << 20,
        limits: (0..policies.len() as u32).collect(),
        ..Default::default()
    };
    let limits = Limits { policies, everywhere: vec![] };
    Snapshot { upstreams: vec![upstream], routes: vec![route], limits, ..Default::default() }
}

/// Runs a gateway, and `client` beside it. Returns what was counted, by outcome.
fn run(
    snapshot: Snapshot,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> HashMap<&'static str, u64> {
    gateway(snapshot, client).by_label("sluice_limit_total")
}

#[test]
fn a_limit_holds_for_each_value_and_clients_are_told() {
    let (address, seen) = origin("RateLimit: \"theirs\";r=1\r\nX-RateLimit-Limit: 7\r\n", 0);
    let mut gold = policy("gold", 3, HOUR);
    gold.fields.legacy = true;
    let counts = run(snapshot(address, vec![gold]), |gateway| {
        for left in [2, 1, 0] {
            let reply = get(gateway, "X-Tenant: a\r\n");
            assert_eq!(reply.status(), 200, "{}", reply.0);
            assert_eq!(reply.only("RateLimit-Policy"), "\"gold\";q=3;w=3600");
            let told = reply.only("RateLimit").strip_prefix(&format!("\"gold\";r={left};t="));
            // A slot of the window may be added.
            let reset_s: u64 = told.expect(&reply.0).parse().unwrap();
            assert!((3_590..=3_620).contains(&reset_s), "{reset_s}");
            assert_eq!(reply.only("X-RateLimit-Limit"), "3");
            assert_eq!(reply.only("X-RateLimit-Remaining"), left.to_string());
        }
        let refused = get(gateway, "X-Tenant: a\r\n");
        assert_eq!(refused.status(), 429, "{}", refused.0);
        let wait_s: u64 = refused.only("Retry-After").parse().unwrap();
        assert!((3_590..=3_620).contains(&wait_s), "{wait_s}");
        assert_eq!(refused.only("RateLimit"), format!("\"gold\";r=0;t={wait_s}"));
        assert_eq!(refused.only("Content-Type"), "application/problem+json");
        assert_eq!(get(gateway, "X-Tenant: b\r\n").status(), 200, "another one's is another limit");
    });
    assert_eq!(seen.lock().unwrap().len(), 4);
    assert_eq!((counts["allowed"], counts["limited"]), (4, 1));
}

#[test]
fn calls_are_refused_by_a_status_with_details() {
    let (address, _) = origin("", 0);
    run(snapshot(address, vec![policy("gold", 1, HOUR)]), |gateway| {
        let call =
            || ask(gateway, "POST /s/m", "Content-Type: application/grpc\r\nTE: trailers\r\n");
        call();
        let refused = call();
        assert_eq!((refused.status(), refused.only("grpc-status")), (200, "8"), "{}", refused.0);
        let wait_ms: u64 = refused.only("grpc-retry-pushback-ms").parse().unwrap();
        assert!(wait_ms > 3_500_000, "{wait_ms}");
        let details = refused.only("grpc-status-details-bin");
        let details = STANDARD_NO_PAD.decode(details).unwrap();
        let text = String::from_utf8_lossy(&details);
        assert!(text.contains("type.googleapis.com/google.rpc.RetryInfo"), "{text}");
        assert!(refused.only("RateLimit").starts_with("\"gold\";r=0;t="));
    });
}

#[test]
fn several_limits_are_checked_and_debited_together() {
    let (address, seen) = origin("", 0);
    let all = LimitPolicy { by: vec![LimitScope::Route], ..policy("all", 3, HOUR) };
    let tried = LimitPolicy { dry_run: true, ..policy("tried", 1, HOUR) };
    let policies = vec![policy("gold", 2, HOUR), all, tried];
    let counts = run(snapshot(address, policies), |gateway| {
        let statuses = ["a", "a", "a", "a", "b", "b", "c"]
            .map(|tenant| get(gateway, &format!("X-Tenant: {tenant}\r\n")).status());
        // What `gold` refuses costs nothing of `all`.
        assert_eq!(statuses, [200, 200, 429, 429, 200, 429, 429]);
        let reply = get(gateway, "X-Tenant: d\r\n");
        let told = reply.only("RateLimit-Policy");
        assert_eq!(told, "\"gold\";q=2;w=3600, \"all\";q=3;w=3600", "none of what is only tried");
    });
    assert_eq!(seen.lock().unwrap().len(), 3);
    assert_eq!((counts["limited"], counts["allowed"] + counts["dry_run"]), (5, 3));
}

#[test]
fn an_answer_that_says_its_cost_is_charged_for_it() {
    let (address, _) = origin("X-Cost: 4\r\n", 0);
    let name = "x-cost".into();
    let by_answer = LimitCost::ResponseHeader { name, reserve: 2, most: 100 };
    let points = LimitPolicy { cost: by_answer, ..policy("points", 10, HOUR) };
    run(snapshot(address, vec![points]), |gateway| {
        let statuses: Vec<u16> = (0..5)
            .map(|_| {
                let reply = get(gateway, "");
                assert!(reply.all("x-cost").is_empty(), "{}", reply.0);
                reply.status()
            })
            .collect();
        // 4, 8, and 12 of 10 as only 2 were to be reserved.
        assert_eq!(statuses, [200, 200, 200, 429, 429]);
    });
    let (address, _) = origin("", 0);
    let name = "x-weight".into();
    let by_request = LimitCost::RequestHeader { name, default: 1, most: 6 };
    let points = LimitPolicy { cost: by_request, ..policy("points", 10, HOUR) };
    run(snapshot(address, vec![points]), |gateway| {
        let statuses = ["9", "9", "3", "x", "0"]
            .map(|weight| get(gateway, &format!("X-Weight: {weight}\r\n")).status());
        // 6, 12 is too much, 9, 10 (no number), 11 is too much.
        assert_eq!(statuses, [200, 429, 200, 200, 429]);
    });
}

#[test]
fn only_so_many_are_under_way_at_once() {
    let (address, seen) = origin("", 300);
    let mut two = policy("two", 1, HOUR);
    two.quota = LimitQuota { windows: vec![], concurrency: Some(2) };
    run(snapshot(address, vec![two]), |gateway| {
        for _ in 0..2 {
            let threads: Vec<_> =
                (0..6).map(|_| std::thread::spawn(move || get(gateway, ""))).collect();
            let replies: Vec<Reply> =
                threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let served = replies.iter().filter(|reply| reply.status() == 200).count();
            assert_eq!(served, 2, "{replies:?}");
            assert!(replies.iter().all(|reply| reply.all("RateLimit").is_empty()));
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[test]
fn preflights_and_other_paths_are_not_limited() {
    let (address, _) = origin("", 0);
    let by = vec![LimitScope::Path("/users/{id}".into())];
    let mut snapshot = snapshot(address, vec![LimitPolicy { by, ..policy("users", 1, HOUR) }]);
    snapshot.routes[0].cors = Some(Cors {
        origins: Origins::Any,
        methods: vec![],
        headers: vec![],
        expose: vec![],
        credentials: false,
        max_age_s: 60,
        private_network: false,
    });
    let counts = run(snapshot, |gateway| {
        for _ in 0..3 {
            let fields = "Origin: https://a.test\r\nAccess-Control-Request-Method: GET\r\n";
            assert_eq!(ask(gateway, "OPTIONS /users/7", fields).status(), 204);
            assert_eq!(ask(gateway, "GET /other", "").status(), 200);
        }
        let statuses = ["/users/7", "/users/7/", "/users/8"]
            .map(|path| ask(gateway, &format!("GET {path}"), "").status());
        assert_eq!(statuses, [200, 429, 200]);
    });
    assert_eq!((counts["allowed"], counts["limited"]), (2, 1));
}
