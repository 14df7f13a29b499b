//! Active checks over HTTP and by connecting, and the floor of what must be alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tests::spec::Spec;
use tests::{Gateway, Origin, answer};

use super::*;

const OFTEN: &str = "interval_ms: 100, timeout_ms: 100, healthy_after: 1, unhealthy_after: 1";

/// An origin whose `/healthz` says what the number tells it to, and which counts the rest.
fn checked(says: Arc<AtomicU16>, name: &'static str) -> Origin {
    Origin::start(move |seen| match (seen.target.as_str(), says.load(Ordering::SeqCst)) {
        ("/healthz?deep", 0) => answer("all is ill"),
        ("/healthz?deep", status) => {
            tests::origin::answer_with(&format!("{status} X"), "", "all is well")
        }
        _ => answer(name),
    })
}

fn work(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.target == "/x").count()
}

#[test]
fn http_checks_ask_for_a_status_and_a_text() {
    let says = Arc::new(AtomicU16::new(200));
    let ill = checked(says.clone(), "ill");
    let well = checked(Arc::new(AtomicU16::new(301)), "well");
    let health = format!(
        "health: {{ http: {{ path: \"/healthz?deep\", host: check.test, \
         statuses: [\"200-299\", 301], body: well }}, {OFTEN} }}, retry: none, balance: round_robin"
    );
    let spec = Spec::to(ill.address()).target(well.address(), 1).upstream(&health);
    let gateway = Gateway::single(&spec);
    let uses_both = || {
        ill.forget();
        assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
        work(&ill) > 0
    };
    assert!(eventually(PATIENCE, uses_both), "both are well");
    let check = || ill.seen().into_iter().find(|seen| seen.target == "/healthz?deep");
    assert!(eventually(PATIENCE, || check().is_some()));
    let check = check().expect("a check");
    assert_eq!((check.method.as_str(), check.field("host")), ("GET", Some("check.test")));
    // Another status; then the right one without the text.
    for bad in [503, 0] {
        says.store(bad, Ordering::SeqCst);
        let avoided = || {
            ill.forget();
            assert_eq!(statuses(&ask(&gateway, 6)), [200; 6]);
            work(&ill) == 0
        };
        assert!(eventually(PATIENCE, avoided), "{bad}: it is still used");
        let states = || standing(&gateway)["targets"].to_string();
        assert!(eventually(PATIENCE, || states().contains("unhealthy")), "{}", states());
        says.store(200, Ordering::SeqCst);
        assert!(eventually(PATIENCE, uses_both), "{bad}: it is not used again");
    }
    let failures = || gateway.metric("sluice_shard_health_check_failures_total");
    assert!(eventually(PATIENCE, || failures() >= Some(2.0)), "{:?}", failures());
}

#[test]
fn tcp_checks_keep_clear_of_a_closed_port() {
    let good = Origin::echo();
    let port = tests::scratch::free_port();
    let dead = SocketAddr::from(([127, 0, 0, 1], port));
    let health = format!(
        "health: {{ tcp: {{}}, {OFTEN} }}, retry: none, balance: round_robin, outlier: none"
    );
    let spec = Spec::to(good.address()).target(dead, 1).upstream(&health);
    let gateway = Gateway::single(&spec);
    assert!(eventually(PATIENCE, || statuses(&ask(&gateway, 4)) == [200; 4]));
    assert_eq!(statuses(&ask(&gateway, 20)), [200; 20], "it stays out");
    let late = Origin::start_at(Some(dead), tests::origin::echo);
    let used = || {
        assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
        late.completed() > 0
    };
    assert!(eventually(PATIENCE, used), "it is there and not used");
}

#[test]
fn below_the_floor_is_the_fallback_for_all() {
    let says = [(); 2].map(|()| Arc::new(AtomicU16::new(200)));
    let origins = [checked(says[0].clone(), "a"), checked(says[1].clone(), "b")];
    let health = format!(
        "health: {{ http: {{ path: \"/healthz?deep\" }}, {OFTEN} }}, retry: none, \
         balance: round_robin, min_live_percent: 60"
    );
    let spec = Spec::to(origins[0].address()).target(origins[1].address(), 1).upstream(&health);
    let gateway = Gateway::single(&spec);
    assert!(eventually(PATIENCE, || statuses(&ask(&gateway, 4)) == [200; 4]));
    says[0].store(503, Ordering::SeqCst);
    assert!(eventually(PATIENCE, || statuses(&ask(&gateway, 4)) == [503; 4]), "half is alive");
    let answers = ask(&gateway, 1);
    assert_eq!(answers[0].problem().as_deref(), Ok("below_floor"));
    assert!(eventually(PATIENCE, || standing(&gateway)["standing"]["live_percent"] == 50));
    says[0].store(200, Ordering::SeqCst);
    assert!(eventually(PATIENCE, || statuses(&ask(&gateway, 4)) == [200; 4]), "all are alive");
}

/// A target that a check finds well is used at once, however long it was to be out.
#[test]
fn a_check_that_succeeds_ends_an_ejection() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let health = format!(
        "health: {{ http: {{ path: /healthz }}, {OFTEN} }}, retry: none, balance: round_robin, \
         outlier: {{ base_ejection_ms: 300000, slow_start_ms: 0 }}"
    );
    let gateway = Gateway::single(&upstream(&[&bad, &good], &[&health]));
    bad.turn(reset());
    ask(&gateway, 10);
    bad.heal();
    bad.origin.forget();
    let work = || bad.origin.seen().iter().any(|seen| seen.target == "/x");
    let back = || {
        assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
        work()
    };
    assert!(eventually(PATIENCE, back), "it stays out");
}
