//! What the gateway tells about its upstreams and targets: API, metrics, command line.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tests::origin::{answer, answer_with};
use tests::process::cli;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, eventually, get};

fn upstream(gateway: &Gateway) -> Value {
    gateway.admin_json("/v1/upstreams")[0].take()
}

#[test]
fn checks_are_told_of() {
    let up = Origin::echo();
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, tests::scratch::free_port()));
    let spec = Spec::to(up.address()).target(down, 1).upstream("breaker: {}").upstream(
        "health: { tcp: {}, interval_ms: 200, timeout_ms: 150, healthy_after: 1, unhealthy_after: 1 }",
    );
    let gateway = Gateway::of(&spec);
    let told = || {
        let upstream = upstream(&gateway);
        let [one, two] = [&upstream["targets"][0], &upstream["targets"][1]];
        one["state"] == "healthy"
            && (two["state"] == "unhealthy" && two["reason"] == "check" && two["since_ms"].is_u64())
            && upstream["standing"]["breaker"] == "closed"
            && upstream["standing"]["live_percent"] == 50
    };
    assert!(eventually(PATIENCE, told), "{:#}", upstream(&gateway));
    let outcome = cli(&["get", "upstreams", "--admin", &gateway.admin_address()]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let row = outcome.stdout.lines().find(|line| line.contains("unhealthy")).unwrap_or_default();
    assert!(row.contains(&down.to_string()) && row.contains("check"), "{outcome:?}");
    let (_, metrics) = gateway.admin("/metrics");
    for line in [
        format!(
            "sluice_target_state{{upstream=\"origin\",target=\"{down}\",state=\"unhealthy\"}} 1"
        ),
        "sluice_upstream_breaker{upstream=\"origin\",state=\"closed\"} 1".into(),
        "sluice_upstream_live_ratio{upstream=\"origin\"} 0.500000".into(),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[test]
fn ejections_are_told_of() {
    let good = Origin::start(|_| answer("well"));
    let bad = Origin::start(|_| answer_with("500 Internal Server Error", "", "ill"));
    let spec = Spec::to(good.address()).target(bad.address(), 1).upstream(
        "balance: round_robin, retry: none, outlier: { consecutive_5xx: 3, base_ejection_ms: 600000, \
         max_ejection_ms: 600000 }",
    );
    let gateway = Gateway::of(&spec);
    assert_eq!(upstream(&gateway)["targets"][1]["state"], "unknown");
    let told = || {
        assert!([200, 500].contains(&gateway.ask(get("/")).status));
        upstream(&gateway)["targets"][1]["state"] == "ejected"
    };
    assert!(eventually(PATIENCE, told), "{:#}", upstream(&gateway));
    let told = upstream(&gateway);
    let [one, two] = [&told["targets"][0], &told["targets"][1]];
    assert_eq!((&one["state"], &one["ejections"]), (&"unknown".into(), &0.into()), "{told:#}");
    assert_eq!(two["reason"], "consecutive_5xx", "{told:#}");
    assert_eq!((&two["ejections"], &two["share_percent"]), (&1.into(), &0.into()), "{told:#}");
    assert_eq!(told["standing"]["breaker"], "none", "{told:#}");
    // What is out gets nothing.
    let before = bad.completed();
    for _ in 0..20 {
        assert_eq!(gateway.ask(get("/")).status, 200);
    }
    assert_eq!(bad.completed(), before);
}
