//! Request bodies that have to be sent twice, and those that cannot be.

use std::time::Duration;

use tests::http2::H2Client;
use tests::http2::client::request;
use tests::spec::Spec;
use tests::{Gateway, Origin, Script, answer};

use super::*;

/// A body in which every place is different.
fn body(bytes: usize) -> String {
    (0..).flat_map(|n: u32| format!("{n:x},").into_bytes()).map(char::from).take(bytes).collect()
}

fn put(body: &str) -> String {
    with_body("PUT", body)
}

fn chunked(body: &str) -> String {
    let mut text =
        "PUT /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for piece in body.as_bytes().chunks(1_000) {
        let piece = String::from_utf8_lossy(piece);
        text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    text.push_str("0\r\n\r\n");
    text
}

#[test]
fn a_kept_body_is_sent_again_byte_for_byte() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(reset());
    let spec = turns(&[&bad, &good], &[QUICK]).listener("h2c: true");
    let gateway = Gateway::single(&spec);
    for bytes in [0, 1, 5_000, 60_000] {
        let body = body(bytes);
        for request in [put(&body), chunked(&body)] {
            bad.origin.forget();
            good.origin.forget();
            let mut client = gateway.connect();
            for _ in 0..2 {
                let answer = client.ask(&request);
                assert_eq!(answer.text(), "good", "{bytes}: {}", answer.head.start);
            }
            assert!(
                bad.seen() > 0 && good.seen() == 2,
                "{bytes}: {} and {}",
                bad.seen(),
                good.seen()
            );
            for seen in good.origin.seen() {
                assert!(seen.body == body.as_bytes(), "{bytes}: {} came", seen.body.len());
            }
        }
        let mut client = H2Client::clear(gateway.address());
        good.origin.forget();
        for _ in 0..2 {
            let answer = client.ask(&request("PUT", "/x"), body.as_bytes());
            assert_eq!((answer.status, answer.text()), (200, "good".into()), "{bytes} over h2");
        }
        assert!(good.origin.seen().iter().all(|seen| seen.body == body.as_bytes()));
    }
}

/// The first part is with the bad one already when the rest of the body arrives.
#[test]
fn a_body_that_was_on_its_way_is_sent_from_its_start() {
    let bad = Origin::raw(|mut wire, _| {
        let _ = wire.head();
        let _ = wire.body(5, &mut |_| {});
        wire.reset();
    });
    let good = Moody::new("good");
    let spec = Spec::to(bad.address())
        .target(good.origin.address(), 1)
        .upstream("balance: round_robin, outlier: none")
        .upstream(QUICK);
    let gateway = Gateway::single(&spec);
    for _ in 0..4 {
        let mut client = gateway.connect();
        client.send("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nfirst");
        std::thread::sleep(Duration::from_millis(150));
        client.send("last!");
        let answer = client.response().expect("an answer");
        assert_eq!(answer.text(), "good", "{}", answer.head.start);
    }
    assert!(bad.accepted() > 0);
    assert!(good.origin.seen().iter().all(|seen| seen.body == b"firstlast!"));
}

#[test]
fn a_larger_body_is_sent_once() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    bad.turn(reset());
    let retry = "retry: { body_bytes: 1KiB, backoff_base_ms: 1 }";
    let gateway = Gateway::single(&turns(&[&bad, &good], &[retry]));
    for request in [put(&body(200_000)), chunked(&body(200_000))] {
        bad.origin.forget();
        good.origin.forget();
        let mut answers: Vec<u16> = (0..4).map(|_| gateway.ask(&request).status).collect();
        answers.sort_unstable();
        assert_eq!(answers, [200, 200, 502, 502]);
        assert_eq!((bad.seen(), good.seen()), (2, 2));
    }
    // A small one is sent again all the same.
    let small = put(&body(500));
    assert!((0..4).all(|_| gateway.ask(&small).status == 200));
    let log = gateway.access_log();
    assert!(
        log.is_empty()
            || eventually(PATIENCE, || gateway.access_log().contains("\"retry_stopped\":\"body\""))
    );
}

#[test]
fn nothing_was_sent_so_any_body_may_go_elsewhere() {
    let good = Moody::new("good");
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], tests::scratch::free_port()));
    let spec = turns(&[&good], &["retry: { body_bytes: 1KiB }"]).target(dead, 1);
    let gateway = Gateway::single(&spec);
    let body = body(300_000);
    for _ in 0..4 {
        for request in [with_body("POST", &body), chunked(&body).replace("PUT", "POST")] {
            assert_eq!(gateway.ask(&request).text(), "good");
        }
    }
    assert!(good.origin.seen().iter().all(|seen| seen.body == body.as_bytes()));
}

/// The origin answers before it has read the body, and that is its answer.
#[test]
fn an_early_answer_is_no_failure() {
    let origin = Origin::early(|_| answer("early").sleep(Duration::from_millis(50)));
    let gateway = Gateway::single(&Spec::to(origin.address()).upstream(QUICK));
    for _ in 0..3 {
        let answer = gateway.ask(put(&body(3_000)));
        assert_eq!((answer.status, answer.text()), (200, "early".into()));
    }
    origin.await_seen(3);
    assert_eq!(origin.seen().len(), 3);
}

#[test]
fn a_client_that_goes_away_is_no_failure_of_the_target() {
    let only = Moody::new("only");
    only.turn(Script::default().sleep(Duration::from_millis(300)).send("HTTP/1.1 204 X\r\n\r\n"));
    let other = Moody::new("other");
    other.turn(Script::default().sleep(Duration::from_millis(300)).send("HTTP/1.1 204 X\r\n\r\n"));
    let spec = upstream(&[&only, &other], &["balance: round_robin", QUICK]);
    let gateway = Gateway::single(&spec);
    for _ in 0..12 {
        let mut client = gateway.connect();
        client.send(put("hello"));
        std::thread::sleep(Duration::from_millis(20));
        drop(client);
    }
    assert!(eventually(PATIENCE, || standing(&gateway)["standing"]["active_requests"] == 0));
    only.heal();
    other.heal();
    assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
    for moody in [&only, &other] {
        assert_ne!(state_of(&gateway, moody), "ejected", "{}", moody.name);
    }
}
