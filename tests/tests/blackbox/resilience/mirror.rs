//! Copies for another upstream, whose answers nobody sees.

use std::time::Duration;

use tests::http2::H2Client;
use tests::http2::client::request;
use tests::spec::Spec;
use tests::{Gateway, Script, get};

use super::*;

fn spec(moody: &Moody, shadow: &Moody, percent: &str) -> Spec {
    turns(&[moody], &[])
        .listener("h2c: true")
        .also_upstream("shadow", shadow.origin.address(), "retry: none")
        .route(&format!("mirror: {{ upstream: shadow, percent: {percent} }}"))
}

#[test]
fn every_request_goes_to_the_shadow_as_well() {
    let (live, shadow) = (Moody::new("live"), Moody::new("shadow"));
    shadow.turn(tests::origin::answer_with("200 OK", "X-Shadow: yes\r\n", "shadow"));
    let gateway = Gateway::single(&spec(&live, &shadow, "100"));
    let mut client = gateway.connect();
    for n in 0..10 {
        let answer = match n % 2 {
            0 => client.ask(get("/x?y=1")),
            _ => client.ask(with_body("POST", "hello")),
        };
        assert_eq!((answer.status, answer.text()), (200, "live".into()));
        assert_eq!(answer.field("x-shadow"), None);
    }
    let mut h2 = H2Client::clear(gateway.address());
    assert_eq!(h2.ask(&request("GET", "/h2"), b"").text(), "live");
    assert!(eventually(PATIENCE, || shadow.seen() == 11), "{} copies", shadow.seen());
    for copy in shadow.origin.seen() {
        assert_eq!(copy.field("x-sluice-mirror"), Some("1"), "{copy:?}");
        assert_eq!(copy.field("host"), Some("a.test"));
        let original = live.origin.seen().into_iter().find(|seen| {
            (&seen.method, &seen.target, &seen.body) == (&copy.method, &copy.target, &copy.body)
        });
        assert!(original.is_some(), "no request was like {copy:?}");
        assert_eq!(original.expect("one").field("x-sluice-mirror"), None);
    }
    assert_eq!(live.seen(), 11);
    assert!(eventually(PATIENCE, || gateway.metric("sluice_shard_mirrored_total") == Some(11.0)));
}

#[test]
fn a_share_is_a_share() {
    let (live, shadow) = (Moody::new("live"), Moody::new("shadow"));
    let gateway = Gateway::single(&spec(&live, &shadow, "20"));
    assert_eq!(statuses(&ask(&gateway, 500)), [200; 500]);
    // About a hundred; these bounds are eight standard deviations away.
    assert!(eventually(PATIENCE, || shadow.seen() > 28), "{} copies", shadow.seen());
    assert!(shadow.seen() < 172, "{} copies", shadow.seen());
}

#[test]
fn a_shadow_that_is_slow_broken_or_gone_harms_nobody() {
    let (live, shadow) = (Moody::new("live"), Moody::new("shadow"));
    let gateway = Gateway::single(&spec(&live, &shadow, "100"));
    for mood in [
        reset(),
        Script::default().send("garbage\r\n\r\n"),
        Script::default().sleep(Duration::from_secs(20)),
        Script::default().send("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nsome"),
    ] {
        shadow.turn(mood);
        let answers = ask(&gateway, 50);
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == "live"));
    }
    drop(shadow);
    assert_eq!(statuses(&ask(&gateway, 50)), [200; 50]);
    // What does not fit is counted, and not sent.
    let large = with_body("POST", &"x".repeat(500_000));
    assert_eq!(gateway.ask(&large).text(), "live");
    let dropped = || gateway.metric("sluice_shard_mirrors_dropped_total");
    assert!(eventually(PATIENCE, || dropped() >= Some(1.0)));
}
