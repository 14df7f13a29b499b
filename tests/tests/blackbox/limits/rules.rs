//! Windows, bursts, calendars, concurrency, several policies at once, changes of the spec.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tests::{Client, Gateway, Origin, PATIENCE, answer, eventually, get};

use super::*;

#[test]
fn a_limit_holds_over_all_shards_and_slides() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin, &["{ name: few, requests: 5, per: 1s }"]));
    assert_eq!(let_in(&gateway, "/", "", 5), 5, "as many as may be, however shards share them");
    limited(&ask(&gateway, "/", ""));
    // What is refused does not count: who goes on asking gets in as soon as there is room.
    assert!(eventually(PATIENCE, || ask(&gateway, "/", "").status == 200));
}

#[test]
fn what_is_refused_never_reaches_an_upstream() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin, &["{ name: few, requests: 7, per: 1h }"]));
    assert_eq!(let_in(&gateway, "/", "", 30), 7);
    assert_eq!(origin.completed(), 7);
}

#[test]
fn a_burst_is_a_limit_of_its_own() {
    let origin = Origin::echo();
    // 4 within 4/3600 of an hour, which is 4 s.
    let gateway =
        Gateway::of(&spec(&origin, &["{ name: smooth, requests: 3600, per: 1h, burst: 4 }"]));
    assert_eq!(let_in(&gateway, "/", "", 12), 4);
    assert!(eventually(PATIENCE, || ask(&gateway, "/", "").status == 200), "long before the hour");
}

#[test]
fn a_quota_of_the_calendar() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin, &["{ name: yearly, requests: 4, per: year }"]));
    assert_eq!(let_in(&gateway, "/", "", 12), 4);
    let refused = ask(&gateway, "/", "");
    limited(&refused);
    let wait: u64 = refused.field("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=366 * 86_400).contains(&wait), "{wait}");
}

#[test]
fn several_policies_let_in_together_or_not_at_all() {
    let origin = Origin::echo();
    let limits = [
        "{ name: all, requests: 5, per: 1h }",
        "{ name: each, by: [ { header: x-who } ], requests: 1, per: 1h }",
    ];
    let gateway = Gateway::of(&spec(&origin, &limits));
    assert_eq!(let_in(&gateway, "/", "X-Who: greedy\r\n", 20), 1);
    // Had those that `each` refused been counted by `all`, nothing were left.
    for who in ["b", "c", "d", "e"] {
        assert_eq!(let_in(&gateway, "/", &format!("X-Who: {who}\r\n"), 1), 1, "{who}");
    }
    assert_eq!(let_in(&gateway, "/", "X-Who: f\r\n", 3), 0);
    assert_eq!(origin.completed(), 5);
}

/// An origin that answers when it is told to.
struct Held {
    origin: Origin,
    waiting: Arc<Mutex<Vec<Sender<()>>>>,
}

impl Held {
    fn new() -> Held {
        let waiting: Arc<Mutex<Vec<Sender<()>>>> = Arc::default();
        let held = waiting.clone();
        let origin = Origin::start(move |seen| {
            if seen.target == "/hold" {
                let (release, released): (Sender<()>, Receiver<()>) = channel();
                held.lock().expect("those held").push(release);
                let _ = released.recv_timeout(PATIENCE);
            }
            answer("held")
        });
        Held { origin, waiting }
    }

    fn count(&self) -> usize {
        self.waiting.lock().expect("those held").len()
    }
}

#[test]
fn only_so_many_at_once() {
    let held = Held::new();
    let gateway = Gateway::of(&spec(&held.origin, &["{ name: slots, concurrency: 3 }"]));
    let hold = || {
        let mut client = gateway.connect();
        client.send(get("/hold"));
        client
    };
    let mut clients: Vec<Client> = (0..3).map(|_| hold()).collect();
    assert!(eventually(PATIENCE, || held.count() == 3));
    for _ in 0..6 {
        limited(&ask(&gateway, "/", ""));
    }
    // One answered, one gone away: two places.
    held.waiting.lock().expect("those held").remove(0);
    let answered = clients.iter_mut().position(|client| {
        client.patience(std::time::Duration::from_millis(300)).response().is_ok()
    });
    clients.remove(answered.expect("one is answered"));
    // A FIN alone may be a client's that reads on.
    clients.remove(0).wire.reset();
    assert!(eventually(PATIENCE, || ask(&gateway, "/", "").status == 200));
    // Two of the first are still on the origin's list. A place that another shard has is asked for, not
    // waited for.
    for expected in [3, 4] {
        let taken = || {
            clients.push(hold());
            eventually(std::time::Duration::from_millis(300), || held.count() >= expected)
        };
        assert!(eventually(PATIENCE, taken), "{} of {expected} are held", held.count());
    }
    for _ in 0..6 {
        limited(&ask(&gateway, "/", ""));
    }
    held.waiting.lock().expect("those held").clear();
}

#[test]
fn dry_runs_refuse_nothing() {
    let origin = Origin::echo();
    let gateway =
        Gateway::of(&spec(&origin, &["{ name: trial, requests: 2, per: 1h, dry_run: true }"]));
    assert_eq!(let_in(&gateway, "/", "", 10), 10);
}

/// A count of `sluice_shard_limit_total`.
fn outcome(gateway: &Gateway, outcome: &str) -> f64 {
    let (_, metrics) = gateway.admin("/metrics");
    let of = |line: &&str| {
        line.starts_with("sluice_shard_limit_total{")
            && line.contains(&format!("outcome=\"{outcome}\""))
    };
    let values = metrics.lines().filter(of).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[test]
fn an_apply_forgets_nothing() {
    let origin = Origin::echo();
    let limits = |requests: u32| {
        format!("{{ name: lasting, by: [ {{ header: x-who }} ], requests: {requests}, per: 1h }}")
    };
    let mut gateway = Gateway::of(&spec(&origin, &[&limits(5)]));
    let who = "X-Who: a\r\n";
    assert_eq!(let_in(&gateway, "/", who, 3), 3);
    // Something else changes.
    let other = spec(&origin, &[&limits(5)])
        .also_route("{ name: more, match: { path: /more }, upstream: origin }");
    gateway.apply(&other.text());
    assert_eq!(let_in(&gateway, "/", who, 10), 2, "three of five were used up");
    assert_eq!(let_in(&gateway, "/more", who, 3), 3, "not limited");
    // More is allowed, then less.
    gateway.apply(&spec(&origin, &[&limits(8)]).text());
    assert_eq!(let_in(&gateway, "/", who, 10), 3, "five of eight were used up");
    gateway.apply(&spec(&origin, &[&limits(4)]).text());
    assert_eq!(let_in(&gateway, "/", who, 10), 0, "eight of four were used up");
    assert_eq!(let_in(&gateway, "/", "X-Who: b\r\n", 10), 4);
    assert!(outcome(&gateway, "limited") >= 20.0 && outcome(&gateway, "allowed") >= 12.0);
}

#[test]
fn a_larger_window_with_a_smaller_limit_is_refused_by_check() {
    let origin = Origin::echo();
    let fine = "{ name: two, windows: [ { requests: 5, per: 1s }, { requests: 100, per: 1m } ] }";
    let mut gateway = Gateway::of(&spec(&origin, &[fine]));
    let wrong = "{ name: two, windows: [ { requests: 5, per: 1s }, { requests: 4, per: 1m } ] }";
    let (status, body) = gateway.try_apply(&spec(&origin, &[wrong]).text());
    assert!((400..500).contains(&status), "{status} {body}");
    assert_eq!(let_in(&gateway, "/", "", 5), 5, "the old one holds");
}
