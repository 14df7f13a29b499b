//! Targets that do worse than they should are left out, and come back.

use std::time::Duration;

use tests::{Gateway, Script, get};

use super::*;

fn outlier(more: &str) -> String {
    format!("balance: round_robin, retry: none, outlier: {{ slow_start_ms: 0{more} }}")
}

#[test]
fn three_failures_and_it_is_out_until_its_time_is_over() {
    for mood in
        [reset(), status("503 Service Unavailable"), Script::default().send("garbage\r\n\r\n")]
    {
        let (bad, good) = (Moody::new("bad"), Moody::new("good"));
        let settings = outlier(", base_ejection_ms: 1500");
        let gateway = Gateway::single(&upstream(&[&bad, &good], &[&settings]));
        assert_eq!(statuses(&ask(&gateway, 6)), [200; 6]);
        bad.turn(mood);
        bad.origin.forget();
        let answers = statuses(&ask(&gateway, 60));
        let failed = answers.iter().filter(|&&status| status != 200).count();
        assert!((1..=3).contains(&failed), "{failed} failures: {answers:?}");
        // One more may have been sent over a connection that had served before, which says nothing
        // about its target and is tried again at once.
        assert!(bad.seen() <= 4, "{} requests reached it", bad.seen());
        await_state(&gateway, &bad, "ejected");
        assert_ne!(state_of(&gateway, &good), "ejected");
        let ejections = || gateway.metric("sluice_target_ejections_total");
        assert!(eventually(PATIENCE, || ejections() >= Some(1.0)));
        bad.heal();
        let back = || {
            assert_eq!(statuses(&ask(&gateway, 2)), [200; 2]);
            bad.seen() > 4
        };
        assert!(eventually(PATIENCE, back), "it does not come back");
        let forgiven = || state_of(&gateway, &bad) != "ejected";
        assert!(eventually(PATIENCE, forgiven), "{} {}", bad.seen(), standing(&gateway));
    }
}

#[test]
fn server_errors_take_five_and_a_success_forgives() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let gateway = Gateway::single(&upstream(&[&bad, &good], &[&outlier("")]));
    for _ in 0..5 {
        // Two failures, then a success: never three in a row.
        bad.turn(status("503 Service Unavailable"));
        ask(&gateway, 4);
        bad.heal();
        ask(&gateway, 2);
    }
    assert_ne!(state_of(&gateway, &bad), "ejected");
    bad.turn(status("500 Internal Server Error"));
    bad.origin.forget();
    let answers = statuses(&ask(&gateway, 40));
    assert_eq!(answers.iter().filter(|&&status| status == 500).count(), 5, "{answers:?}");
    assert_eq!(bad.seen(), 5);
    await_state(&gateway, &bad, "ejected");
}

/// A peer may close what is idle, so that is free; but not for ever, with nothing else from it.
#[test]
fn a_target_that_drops_all_its_connections_is_out() {
    const CLIENTS: usize = 24;
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let gateway = Gateway::single(&upstream(&[&bad, &good], &[&outlier("")]));
    // Many at once make many connections.
    let slow = tests::answer("slow").after(Duration::from_millis(400));
    bad.turn(slow.clone());
    good.turn(slow);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| assert_eq!(gateway.ask(get("/x")).status, 200));
        }
    });
    assert!(bad.origin.open() >= 8, "{} connections", bad.origin.open());
    good.heal();
    bad.turn(reset());
    bad.origin.forget();
    // None of them fails: each had gone stale, and was sent again.
    assert_eq!(statuses(&ask(&gateway, 60)), [200; 60]);
    assert_eq!(bad.seen(), 6, "three are free, three are failures");
    await_state(&gateway, &bad, "ejected");
    let stale =
        || gateway.admin("/metrics").1.contains("retries_total{shard=\"0\",reason=\"stale\"} 6");
    assert!(eventually(PATIENCE, stale));
}

#[test]
fn shards_judge_together() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let gateway = Gateway::of(&upstream(&[&bad, &good], &[&outlier("")]));
    bad.turn(reset());
    // Each on a connection of its own, so that both shards have some.
    let failed = (0..60).filter(|_| gateway.ask(get("/x")).status != 200).count();
    assert!((1..=3).contains(&failed), "{failed} failures");
}

#[test]
fn one_always_stays() {
    // A single target has nobody to stand in for it.
    let only = Moody::new("only");
    only.turn(reset());
    let gateway = Gateway::single(&upstream(&[&only], &[&outlier("")]));
    assert_eq!(statuses(&ask(&gateway, 20)), [502; 20]);
    assert_eq!(only.seen(), 20);
    only.heal();
    assert_eq!(statuses(&ask(&gateway, 5)), [200; 5], "at once");
    // Of two that are bad only one may be out.
    let (one, two) = (Moody::new("one"), Moody::new("two"));
    one.turn(reset());
    two.turn(reset());
    let gateway = Gateway::single(&upstream(&[&one, &two], &[&outlier("")]));
    assert_eq!(statuses(&ask(&gateway, 20)), [502; 20]);
    let out = || [&one, &two].iter().filter(|moody| state_of(&gateway, moody) == "ejected").count();
    assert!(eventually(PATIENCE, || out() == 1), "{} are out", out());
    one.heal();
    two.heal();
    assert_eq!(statuses(&ask(&gateway, 5)), [200; 5]);
}

#[test]
fn with_too_few_left_all_are_used() {
    let moody = ["a", "b", "c", "d"].map(Moody::new);
    let all: Vec<&Moody> = moody.iter().collect();
    let settings = outlier(", max_ejected_percent: 100, panic_percent: 60");
    let gateway = Gateway::single(&upstream(&all, &[&settings]));
    for bad in &moody[..2] {
        bad.turn(reset());
    }
    ask(&gateway, 60);
    for bad in &moody[..2] {
        bad.origin.forget();
        await_state(&gateway, bad, "ejected");
    }
    // Half of them is less than 60 %: the ejections are not heeded.
    ask(&gateway, 8);
    assert!(moody[..2].iter().all(|bad| bad.seen() > 0), "not used though few are left");
}

#[test]
fn without_the_rule_nobody_is_left_out() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(reset());
    let gateway = Gateway::single(&turns(&[&bad, &good], &["retry: none"]));
    let answers = statuses(&ask(&gateway, 40));
    assert_eq!(answers.iter().filter(|&&status| status == 502).count(), 20, "{answers:?}");
}

#[test]
fn a_slow_start_is_a_share_that_grows() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let settings = "balance: weighted, retry: none, \
                    outlier: { base_ejection_ms: 300, slow_start_ms: 60000 }";
    let gateway = Gateway::single(&upstream(&[&bad, &good], &[settings]));
    bad.turn(reset());
    ask(&gateway, 20);
    bad.heal();
    assert!(eventually(PATIENCE, || state_of(&gateway, &bad) == "slow_start"));
    bad.origin.forget();
    good.origin.forget();
    assert_eq!(statuses(&ask(&gateway, 200)), [200; 200]);
    let (few, many) = (bad.seen(), good.seen());
    assert!(few > 0 && few * 3 < many, "{few} beside {many}");
}

/// A time-out of the client's making must not get targets ejected.
#[test]
fn a_hung_target_is_out_after_three() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(Script::default().sleep(Duration::from_secs(20)));
    let settings = outlier("");
    let gateway =
        Gateway::single(&upstream(&[&bad, &good], &[&settings, "timeouts: { try_ms: 100 }"]));
    let answers = statuses(&ask(&gateway, 30));
    let failed = answers.iter().filter(|&&status| status == 504).count();
    assert!((1..=3).contains(&failed), "{answers:?}");
}
