//! A second try beside a slow first one.

use std::time::Duration;

use tests::{Gateway, Script, get};

use super::*;

const HEDGE: &str = "hedge: { quantile: 0.9, min_ms: 40 }";

/// A gateway that knows how quick its upstream usually is.
fn warm(moody: &[&Moody], settings: &[&str]) -> Gateway {
    let gateway = Gateway::single(&turns(moody, settings));
    assert!(ask(&gateway, 300).iter().all(|answer| answer.status == 200));
    gateway
}

fn late(name: &str) -> Script {
    tests::answer(name).after(Duration::from_millis(1_500))
}

#[test]
fn a_slow_try_gets_another_beside_it_and_the_first_answer_counts() {
    let (slow, quick) = (Moody::new("slow"), Moody::new("quick"));
    let gateway = warm(&[&slow, &quick], &[HEDGE]);
    slow.turn(late("slow"));
    let before = (slow.seen(), quick.seen());
    for n in 0..8 {
        let answer = gateway.ask(get("/x"));
        assert_eq!((answer.status, answer.text()), (200, "quick".into()), "request {n}");
    }
    // A hedge takes a turn, too: how many began at the slow one is the balancer's matter.
    let began = (slow.seen() - before.0) as f64;
    assert!(began > 0.0 && quick.seen() - before.1 == 8);
    for name in ["sluice_shard_upstream_hedges_total", "sluice_shard_upstream_hedges_won_total"] {
        let metric = || gateway.metric(name);
        assert!(eventually(PATIENCE, || metric() == Some(began)), "{name}: {:?}", metric());
    }
    // The one that lost is cancelled, and says nothing about its target.
    assert!(eventually(PATIENCE, || standing(&gateway)["standing"]["active_retries"] == 0));
    assert_ne!(state_of(&gateway, &slow), "ejected");
}

#[test]
fn only_what_may_be_sent_twice_is() {
    let (slow, quick) = (Moody::new("slow"), Moody::new("quick"));
    let gateway = warm(&[&slow, &quick], &[HEDGE]);
    let late = |name: &str| tests::answer(name).after(Duration::from_millis(300));
    slow.turn(late("slow"));
    quick.turn(late("quick"));
    let before = slow.seen() + quick.seen();
    for _ in 0..4 {
        assert_eq!(gateway.ask(with_body("POST", "hi")).status, 200);
    }
    assert_eq!(slow.seen() + quick.seen() - before, 4, "each exactly once");
    assert_eq!(gateway.ask(with_body("PUT", "hi")).status, 200);
    assert_eq!(slow.seen() + quick.seen() - before, 6, "this one may");
}

#[test]
fn no_budget_no_hedge() {
    let (slow, quick) = (Moody::new("slow"), Moody::new("quick"));
    let gateway = warm(
        &[&slow, &quick],
        &["hedge: { quantile: 0.9, min_ms: 40 }", "retry_budget: { percent: 1, min: 0 }"],
    );
    let late = tests::answer("slow").after(Duration::from_millis(300));
    slow.turn(late);
    let texts: Vec<String> = (0..4).map(|_| gateway.ask(get("/x")).text()).collect();
    assert_eq!(texts.iter().filter(|text| *text == "slow").count(), 2, "{texts:?}");
    assert_eq!(gateway.metric("sluice_shard_upstream_hedges_total"), Some(0.0));
}

#[test]
fn a_first_try_that_fails_while_the_second_is_out_gives_way() {
    let (bad, quick) = (Moody::new("bad"), Moody::new("quick"));
    let gateway = warm(&[&bad, &quick], &[HEDGE, "retry: none"]);
    bad.turn(Script::default().sleep(Duration::from_millis(120)).reset());
    quick.turn(tests::answer("quick").after(Duration::from_millis(250)));
    for n in 0..4 {
        let answer = gateway.ask(get("/x"));
        assert_eq!((answer.status, answer.text()), (200, "quick".into()), "request {n}");
    }
}
