//! What the gateway counts of all this, in `/metrics`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tests::{Gateway, Script, get};

use super::*;

/// The sum of the series of `name` that have all of these labels.
fn counted(gateway: &Gateway, name: &str, labels: &[&str]) -> f64 {
    let (_, text) = gateway.admin("/metrics");
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits for a count; what is told follows what is done.
#[track_caller]
fn await_count(gateway: &Gateway, name: &str, labels: &[&str], test: impl Fn(f64) -> bool) {
    let now = || counted(gateway, name, labels);
    assert!(eventually(PATIENCE, || test(now())), "{name} {labels:?} is {}", now());
}

/// There is a series, and it is 0: what happens first shows as a rise.
#[track_caller]
fn begins_at_0(gateway: &Gateway, series: &str) {
    let (_, text) = gateway.admin("/metrics");
    assert!(text.contains(&format!("{series} 0\n")), "{series}\n{text}");
}

#[test]
fn ejections_and_returns() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let outlier = "balance: round_robin, retry: none, \
                   outlier: { base_ejection_ms: 300, slow_start_ms: 0 }";
    let gateway = Gateway::single(&upstream(&[&bad, &good], &[outlier]));
    let target = format!("target=\"{}\"", bad.origin.address());
    let labels = [r#"upstream="origin""#, &target];
    const EJECTIONS: &str = "sluice_target_ejections_total";
    const RETURNS: &str = "sluice_target_returns_total";
    begins_at_0(&gateway, &format!("{EJECTIONS}{{{},reason=\"latency\"}}", labels.join(",")));
    bad.turn(status("503 Service Unavailable"));
    // Three of six go there.
    ask(&gateway, 6);
    let gateways = [&labels[..], &[r#"reason="consecutive_gateway""#]].concat();
    await_count(&gateway, EJECTIONS, &gateways, |n| n == 1.0);
    await_count(&gateway, RETURNS, &labels, |n| n == 1.0);
    bad.turn(status("500 Internal Server Error"));
    ask(&gateway, 10);
    let others = [&labels[..], &[r#"reason="consecutive_5xx""#]].concat();
    await_count(&gateway, EJECTIONS, &others, |n| n == 1.0);
    assert_eq!(counted(&gateway, EJECTIONS, &labels), 2.0);
    await_count(&gateway, RETURNS, &labels, |n| n == 2.0);
    let all = [good.origin.address().to_string()];
    assert_eq!(counted(&gateway, EJECTIONS, &[&all[0]]), 0.0);
}

#[test]
fn openings_and_probes() {
    for (setting, family) in [("breaker", "upstream"), ("target_breaker", "target")] {
        let only = Moody::new("only");
        only.turn(status("500 Internal Server Error"));
        let breaker = format!(
            "{setting}: {{ consecutive: 3, error_percent: 0, open_ms: 100, probes: 1 }}, retry: none"
        );
        let gateway = Gateway::single(&turns(&[&only], &[&breaker]));
        let opens = format!("sluice_{family}_breaker_opens_total");
        let probes = format!("sluice_{family}_breaker_probes_total");
        ask(&gateway, 5);
        await_count(&gateway, &opens, &[r#"reason="consecutive_errors""#], |n| n == 1.0);
        let failed = || {
            ask(&gateway, 1);
            counted(&gateway, &opens, &[r#"reason="probe_failed""#]) > 0.0
        };
        assert!(eventually(PATIENCE, failed), "{setting}: no probe failed");
        only.heal();
        assert!(eventually(PATIENCE, || ask(&gateway, 1)[0].status == 200));
        // One that failed, one that closed it; each was an answer of the origin's.
        let let_through = (only.seen() - 3) as f64;
        assert!(let_through >= 2.0);
        await_count(&gateway, &probes, &[], |n| n == let_through);
        // The other kind is not there.
        let other = if family == "target" { "upstream" } else { "target" };
        let (_, text) = gateway.admin("/metrics");
        assert!(!text.contains(&format!("sluice_{other}_breaker_opens_total{{")), "{text}");
    }
}

#[test]
fn retries_by_reason() {
    const RETRIES: &str = "sluice_shard_upstream_retries_total";
    let hang = Script::default().sleep(Duration::from_secs(20));
    let garbage = Script::default().send("garbage\r\n\r\n");
    for (mood, reason) in [
        (status("503 Service Unavailable"), "status"),
        (garbage, "invalid"),
        (hang, "timeout"),
        (reset(), "reset"),
    ] {
        let (bad, good) = (Moody::new("bad"), Moody::new("good"));
        bad.turn(mood);
        let settings = [QUICK, "timeouts: { try_ms: 200 }"];
        let gateway = Gateway::single(&turns(&[&bad, &good], &settings));
        begins_at_0(&gateway, &format!("{RETRIES}{{shard=\"0\",reason=\"{reason}\"}}"));
        assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
        let label = format!("reason=\"{reason}\"");
        await_count(&gateway, RETRIES, &[&label], |n| n == bad.seen() as f64 && n >= 2.0);
        assert_eq!(counted(&gateway, RETRIES, &[]), bad.seen() as f64, "{reason}: and no other");
    }
    // A target that is not there, and connections that go stale.
    let good = Moody::new("good");
    let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, tests::scratch::free_port()));
    let gateway = Gateway::single(&turns(&[&good], &[QUICK]).target(gone, 1));
    assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
    await_count(&gateway, RETRIES, &[r#"reason="connect""#], |n| n >= 2.0);
    let forgetful = tests::Origin::start(|seen| match seen.nth {
        0 => tests::answer("well"),
        _ => Script::default().reset(),
    });
    let gateway = Gateway::single(&tests::spec::Spec::to(forgetful.address()).upstream(QUICK));
    for _ in 0..4 {
        assert_eq!(gateway.ask(get("/x")).status, 200);
    }
    await_count(&gateway, RETRIES, &[r#"reason="stale""#], |n| n == 3.0);
}
