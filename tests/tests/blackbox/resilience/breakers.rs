//! Circuit breakers, and what clients get while one is open.

use std::time::Duration;

use tests::{Gateway, get};

use super::*;

const BREAKER: &str =
    "breaker: { consecutive: 3, error_percent: 0, open_ms: 700, probes: 1 }, retry: none";

fn breaker_of(gateway: &Gateway) -> String {
    standing(gateway)["standing"]["breaker"].as_str().unwrap_or_default().to_owned()
}

fn becomes(gateway: &Gateway, state: &str) {
    let is = || breaker_of(gateway) == state;
    assert!(eventually(PATIENCE, is), "{} instead of {state}", breaker_of(gateway));
}

#[test]
fn a_breaker_opens_probes_and_closes() {
    let only = Moody::new("only");
    let fallback = "fallback: { status: 203, content_type: text/plain, body: \"try later\" }";
    let gateway = Gateway::single(&turns(&[&only], &[BREAKER, fallback]));
    assert_eq!(statuses(&ask(&gateway, 3)), [200; 3]);
    becomes(&gateway, "closed");
    only.turn(status("500 Internal Server Error"));
    only.origin.forget();
    let answers = ask(&gateway, 20);
    // The requests that opened it have the origin's answers, the others the fallback.
    assert_eq!(statuses(&answers[..3]), [500; 3]);
    for answer in &answers[3..] {
        assert_eq!((answer.status, answer.text()), (203, "try later".into()));
        assert_eq!(answer.field("content-type"), Some("text/plain"));
        assert!(!answer.says_close());
    }
    assert_eq!(only.seen(), 3, "an open breaker lets nothing through");
    becomes(&gateway, "open");
    // A probe that fails opens it again.
    let probed = || {
        ask(&gateway, 1);
        only.seen() > 3
    };
    assert!(eventually(PATIENCE, probed), "no probe is let through");
    assert_eq!(gateway.ask(get("/x")).status, 203, "it is open again");
    // One that succeeds closes it.
    only.heal();
    assert!(eventually(PATIENCE, || ask(&gateway, 1)[0].status == 200));
    assert_eq!(statuses(&ask(&gateway, 10)), [200; 10]);
    becomes(&gateway, "closed");
    let opens = || gateway.metric("sluice_upstream_breaker_opens_total");
    assert!(eventually(PATIENCE, || opens() >= Some(2.0)), "{:?}", opens());
    let fallbacks = || gateway.metric("sluice_shard_upstream_fallbacks_total");
    assert!(eventually(PATIENCE, || fallbacks() >= Some(17.0)), "{:?}", fallbacks());
}

#[test]
fn without_a_fallback_it_is_a_503_of_our_own() {
    let only = Moody::new("only");
    only.turn(reset());
    let gateway = Gateway::single(&turns(&[&only], &[BREAKER]));
    let answers = ask(&gateway, 6);
    assert_eq!(statuses(&answers), [502, 502, 502, 503, 503, 503]);
    assert_eq!(answers[5].problem().as_deref(), Ok("breaker_open"));
    assert_eq!(log_line(&gateway, 6)["reason"], "breaker_open");
}

#[test]
fn another_upstream_stands_in() {
    let (only, other) = (Moody::new("only"), Moody::new("other"));
    only.turn(status("500 Internal Server Error"));
    let spec = turns(&[&only], &[BREAKER, "fallback: { upstream: spare }"]).also_upstream(
        "spare",
        other.origin.address(),
        "",
    );
    let gateway = Gateway::single(&spec);
    let answers = ask(&gateway, 6);
    assert_eq!(statuses(&answers), [500, 500, 500, 200, 200, 200]);
    assert_eq!(answers[5].text(), "other");
    // With a body, too.
    let answer = gateway.ask(with_body("POST", "hello"));
    assert_eq!(answer.text(), "other");
    assert_eq!(other.origin.last().body, b"hello");
}

#[test]
fn shares_of_failed_and_of_slow_requests_open_it() {
    for (breaker, moods) in [
        (
            "breaker: { error_percent: 50, min_requests: 8, open_ms: 60000 }",
            [None, Some(status("500 X"))],
        ),
        (
            "breaker: { error_percent: 0, slow_percent: 50, slow_ms: 50, min_requests: 8, open_ms: 60000 }",
            [None, Some(tests::answer("slow").after(Duration::from_millis(90)))],
        ),
    ] {
        let only = Moody::new("only");
        let gateway = Gateway::single(&turns(&[&only], &[breaker, "retry: none"]));
        let mut n = 0;
        let opened = eventually(PATIENCE, || {
            match &moods[n % 2] {
                Some(mood) => only.turn(mood.clone()),
                None => only.heal(),
            }
            n += 1;
            ask(&gateway, 1)[0].status == 503
        });
        assert!(opened, "{breaker}: still closed after {n}");
        assert!(n > 8, "{breaker}: opened after {n}, too few to judge");
        becomes(&gateway, "open");
    }
}

#[test]
fn a_targets_breaker_leaves_out_that_target() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(status("500 Internal Server Error"));
    let breaker = "target_breaker: { consecutive: 3, error_percent: 0, open_ms: 700, probes: 1 }, retry: none";
    let gateway = Gateway::single(&turns(&[&bad, &good], &[breaker]));
    let answers = statuses(&ask(&gateway, 30));
    assert_eq!(answers.iter().filter(|&&status| status == 500).count(), 3, "{answers:?}");
    assert_eq!(bad.seen(), 3);
    assert!(eventually(PATIENCE, || state_of(&gateway, &bad) == "open"));
    bad.heal();
    let back = || {
        ask(&gateway, 2);
        bad.seen() > 4
    };
    assert!(eventually(PATIENCE, back), "it does not come back");
    assert_eq!(statuses(&ask(&gateway, 10)), [200; 10]);
}
