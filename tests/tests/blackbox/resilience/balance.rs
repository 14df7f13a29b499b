//! How requests are spread over targets.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::Gateway;
use tests::spec::Spec;

use super::*;

fn named() -> [Moody; 4] {
    ["a", "b", "c", "d"].map(Moody::new)
}

fn by(gateway: &Gateway, field: &str) -> String {
    gateway.ask(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n")).text()
}

#[test]
fn a_hash_sends_each_key_to_its_target_and_moves_few() {
    let moody = named();
    let all: Vec<&Moody> = moody.iter().collect();
    let hash = "balance: { hash: { header: X-User } }, outlier: none";
    // On both shards alike.
    let mut gateway = Gateway::of(&upstream(&all, &[hash]));
    let place = |gateway: &Gateway, user: usize| by(gateway, &format!("X-User: u{user}"));
    let places: BTreeMap<usize, String> =
        (0..40).map(|user| (user, place(&gateway, user))).collect();
    for (user, at) in &places {
        for _ in 0..3 {
            assert_eq!(&place(&gateway, *user), at, "user {user}");
        }
    }
    for name in ["a", "b", "c", "d"] {
        assert!(places.values().any(|at| at == name), "nobody is sent to {name}: {places:?}");
    }
    // Without one target only its own keys move.
    gateway.apply(&upstream(&all[..3], &[hash]).text());
    let moved = || places.iter().all(|(user, _)| place(&gateway, *user) != "d");
    assert!(eventually(PATIENCE, moved));
    let strayed = places.iter().filter(|(user, at)| *at != "d" && place(&gateway, **user) != **at);
    assert!(strayed.count() <= 4, "keys of the others moved, too");
}

#[test]
fn a_hash_may_be_of_a_cookie_or_the_client() {
    let moody = named();
    let all: Vec<&Moody> = moody.iter().collect();
    let gateway =
        Gateway::single(&upstream(&all, &["balance: { hash: { cookie: sid } }, outlier: none"]));
    let mut places = Vec::new();
    for user in 0..20 {
        let field = format!("Cookie: other=1; sid=s{user}; more=2");
        let at = by(&gateway, &field);
        assert_eq!(by(&gateway, &format!("Cookie: sid=s{user}")), at, "user {user}");
        places.push(at);
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 1, "all are sent to {places:?}");

    let gateway =
        Gateway::single(&upstream(&all, &["balance: { hash: client_ip }, outlier: none"]));
    let at = by(&gateway, "X: y");
    for _ in 0..10 {
        assert_eq!(by(&gateway, "X: y"), at, "one client, one target");
    }
}

#[test]
fn a_key_whose_target_is_gone_goes_elsewhere() {
    let moody = named();
    let all: Vec<&Moody> = moody.iter().collect();
    let gateway =
        Gateway::single(&upstream(&all, &["balance: { hash: { header: x-user } }", QUICK]));
    let at = by(&gateway, "X-User: me");
    let home = moody.iter().find(|one| one.name == at).expect("one of them");
    home.turn(reset());
    for _ in 0..10 {
        let other = by(&gateway, "X-User: me");
        assert!(other.len() == 1 && other != at, "{other:?}");
    }
}

/// Asked by eight at once, who leave a slow one alone where it is looked at how it does.
fn share_of_slow(policy: &str) -> f64 {
    let moody = named();
    let all: Vec<&Moody> = moody.iter().collect();
    moody[0].turn(tests::answer("a").after(Duration::from_millis(60)));
    let gateway = Gateway::single(&upstream(&all, &[policy, "outlier: none"]));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(statuses(&ask(&gateway, 60)), [200; 60]));
        }
    });
    moody[0].seen() as f64 / 480.0
}

#[test]
fn a_slow_target_gets_less_where_it_is_looked_at() {
    assert_eq!(share_of_slow("balance: round_robin"), 0.25);
    for policy in ["balance: power_of_two", "balance: least_connections"] {
        let share = share_of_slow(policy);
        assert!(share < 0.15, "{policy}: {share}");
    }
}

#[test]
fn weights_are_shares() {
    for policy in ["weighted", "power_of_two"] {
        let (light, heavy) = (Moody::new("light"), Moody::new("heavy"));
        let spec = Spec::to(light.origin.address())
            .target(heavy.origin.address(), 4)
            .upstream(&format!("balance: {policy}, outlier: none"));
        let gateway = Gateway::single(&spec);
        assert_eq!(statuses(&ask(&gateway, 500)), [200; 500]);
        assert!(light.seen() > 0, "{policy}: the light one gets nothing");
        assert!(light.seen() < heavy.seen(), "{policy}: {} and {}", light.seen(), heavy.seen());
        if policy == "weighted" {
            assert_eq!((light.seen(), heavy.seen()), (100, 400));
        }
    }
}

/// A spec whose targets are more than an address.
fn targets(list: &[(&Moody, &str)], more: &str) -> String {
    let list: Vec<String> = list
        .iter()
        .map(|(moody, what)| format!("{{ address: \"{}\", {what} }}", moody.origin.address()))
        .collect();
    let list = list.join(", ");
    format!(
        "version: 1\n\
         admin: {{ listen: \"127.0.0.1:{{ADMIN}}\" }}\n\
         access_log: {{ path: \"{{DIR}}/access.jsonl\" }}\n\
         node: {{ locality: eu-1a }}\n\
         listeners: [ {{ name: web, listen: \"127.0.0.1:{{PORT}}\" }} ]\n\
         upstreams: [ {{ name: origin, targets: [ {list} ], {more} }} ]\n\
         routes: [ {{ name: all, match: {{ path: {{ prefix: / }} }}, upstream: origin }} ]\n"
    )
}

/// Each fails in turn; the requests never do.
fn take_over(first: &Moody, second: &Moody, spec: &str) {
    let gateway = Gateway::start_with(spec, 1);
    assert_eq!(statuses(&ask(&gateway, 30)), [200; 30]);
    assert_eq!((first.seen(), second.seen()), (30, 0), "the first bears all");
    first.turn(reset());
    assert_eq!(statuses(&ask(&gateway, 30)), [200; 30], "the second takes over");
    assert!(second.seen() >= 27, "{}", second.seen());
    first.heal();
    let back = || {
        ask(&gateway, 5);
        second.origin.forget();
        ask(&gateway, 5);
        second.seen() == 0
    };
    assert!(eventually(PATIENCE, back), "the first is not used again");
}

const SOON: &str = "outlier: { base_ejection_ms: 300, slow_start_ms: 0, panic_percent: 0 }, \
                    retry: { backoff_base_ms: 1 }";

#[test]
fn a_second_priority_stands_by() {
    let (first, second) = (Moody::new("first"), Moody::new("second"));
    let spec = targets(&[(&first, "priority: 0"), (&second, "priority: 1")], SOON);
    take_over(&first, &second, &spec);
}

#[test]
fn the_nodes_own_locality_is_preferred() {
    let (near, far) = (Moody::new("near"), Moody::new("far"));
    let spec = targets(&[(&far, "locality: eu-1b"), (&near, "locality: eu-1a")], SOON);
    take_over(&near, &far, &spec);
}
