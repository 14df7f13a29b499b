//! Upstream connections: kept, reused only when clean, retried once when stale.

use std::time::Duration;

use tests::origin::echo;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Script, answer, eventually, get};

const POST: &str = "POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn one_connection_serves_clients_in_turn() {
    let origin = Origin::echo();
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for n in 0..20 {
        // A new client each time: the upstream connection outlives it.
        assert_eq!(gateway.ask(get(&format!("/{n}"))).status, 200);
    }
    assert_eq!(origin.completed(), 20);
    assert_eq!(origin.accepted(), 1, "upstream connections must be pooled");
}

#[test]
fn a_badly_ended_answer_is_the_connections_last() {
    for (what, bytes) in [
        (
            "Connection: close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "bytes after the answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "bytes after a chunked answer",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
        ),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("a body on 204", "HTTP/1.1 204 No Content\r\n\r\nevil"),
    ] {
        let origin = Origin::canned(bytes, false);
        let gateway = Gateway::single(&Spec::to(origin.address()));
        let mut client = gateway.connect();
        for n in 0..4 {
            let response = client.ask(get("/"));
            assert!(!response.text().contains("evil"), "{what}: answer {n} holds bytes of another");
            assert!(
                response.status == 200 || response.status == 204,
                "{what}: {}",
                response.head.start
            );
            // Stray bytes may come in a packet of their own: give them time to arrive.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(origin.accepted(), 4, "{what}: the connection was used again");
    }
}

#[test]
fn stray_bytes_on_an_idle_connection_are_never_an_answer() {
    let origin = Origin::start(|seen| {
        if seen.target == "/poison" {
            answer("fine")
                .sleep(Duration::from_millis(100))
                .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        } else {
            echo(seen)
        }
    });
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for _ in 0..3 {
        assert_eq!(gateway.ask(get("/poison")).text(), "fine");
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(gateway.ask(get("/clean")).text(), "GET /clean\n");
    }
}

#[test]
fn a_request_whose_client_left_does_not_poison_the_next() {
    let origin = Origin::start(|seen| {
        if seen.target == "/slow" {
            answer("slow").after(Duration::from_millis(300))
        } else {
            echo(seen)
        }
    });
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for _ in 0..5 {
        let mut client = gateway.connect();
        client.send(get("/slow"));
        origin.await_seen(1);
        client.wire.reset();
        assert_eq!(gateway.ask(get("/next")).text(), "GET /next\n");
        origin.forget();
    }
    assert!(!eventually(Duration::from_millis(500), || gateway.ask(get("/next")).text()
        != "GET /next\n"));
}

#[test]
fn a_stale_connection_is_retried_once_for_get() {
    let origin = Origin::echo();
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for n in 0..10 {
        assert_eq!(gateway.ask(get(&format!("/{n}"))).status, 200, "request {n}");
        origin.hang_up();
    }
    // Closed at the very moment of reuse: the request is read, nothing is answered.
    let closing =
        Origin::start(|seen| if seen.nth == 0 { echo(seen) } else { Script::default().close() });
    let gateway = Gateway::single(&Spec::to(closing.address()));
    let mut client = gateway.connect();
    for n in 0..10 {
        let response = client.ask(get(&format!("/{n}")));
        assert_eq!((response.status, response.text()), (200, format!("GET /{n}\n")), "request {n}");
    }
    let resetting =
        Origin::start(|seen| if seen.nth == 0 { echo(seen) } else { Script::default().reset() });
    let gateway = Gateway::single(&Spec::to(resetting.address()));
    let mut client = gateway.connect();
    for n in 0..10 {
        assert_eq!(client.ask(get(&format!("/{n}"))).status, 200, "request {n} after RST");
    }
}

#[test]
fn a_post_that_may_have_been_processed_is_never_sent_twice() {
    let origin =
        Origin::start(
            |seen| {
                if seen.method == "POST" { Script::default().close() } else { echo(seen) }
            },
        );
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for _ in 0..5 {
        // Fills the pool, so that the POST goes over a used connection.
        assert_eq!(gateway.ask(get("/warm")).status, 200);
        let response = gateway.ask(POST);
        assert_eq!(response.status, 502);
        response.problem().unwrap();
        let posts = origin.seen().iter().filter(|seen| seen.method == "POST").count();
        assert_eq!(posts, 1, "a POST was delivered {posts} times");
        origin.forget();
    }
}

#[test]
fn a_fresh_connection_that_fails_is_not_retried_for_ever() {
    let origin = Origin::start(|_| Script::default().close());
    let gateway = Gateway::single(&Spec::to(origin.address()));
    let response = gateway.ask(get("/"));
    assert_eq!(response.status, 502);
    response.problem().unwrap();
    assert_eq!(origin.completed(), 3, "as often as `retry.attempts` says");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let origin = Origin::echo();
    let gateway = Gateway::single(
        &Spec::to(origin.address()).upstream("pool: { max_idle: 8, idle_timeout_ms: 200 }"),
    );
    assert_eq!(gateway.ask(get("/")).status, 200);
    assert!(eventually(PATIENCE, || origin.open() == 0), "an idle connection stays open");
    assert_eq!(gateway.ask(get("/")).status, 200);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn idle_connections_are_capped() {
    let origin = Origin::start(|_| answer("x").after(Duration::from_millis(200)));
    let gateway = Gateway::single(&Spec::to(origin.address()).upstream("pool: { max_idle: 2 }"));
    let mut clients: Vec<_> = (0..10).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(get("/"));
    });
    for client in &mut clients {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
    assert!(
        eventually(PATIENCE, || origin.open() <= 2),
        "{} idle connections are kept",
        origin.open()
    );
}

#[test]
fn open_connections_are_capped_and_requests_wait_for_one() {
    let origin = Origin::start(|_| answer("x").after(Duration::from_millis(100)));
    let gateway = Gateway::single(
        &Spec::to(origin.address())
            .upstream("pool: { max_connections: 2 }, timeouts: { connect_ms: 10000 }"),
    );
    let mut clients: Vec<_> = (0..10).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| {
        client.send(get("/"));
    });
    for client in &mut clients {
        assert_eq!(client.response().map(|response| response.status), Ok(200));
    }
    assert_eq!(origin.accepted(), 2, "more connections than max_connections");
    // Past the connect time-out, waiting ends in 503.
    let origin = Origin::start(|_| answer("x").after(Duration::from_secs(5)));
    let gateway = Gateway::single(
        &Spec::to(origin.address())
            .upstream("pool: { max_connections: 1 }, timeouts: { connect_ms: 200 }"),
    );
    let mut busy = gateway.connect();
    busy.send(get("/"));
    origin.await_seen(1);
    let response = gateway.ask(get("/"));
    assert!(matches!(response.status, 503 | 504), "{}", response.head.start);
    response.problem().unwrap();
    assert_eq!(busy.response().map(|response| response.status), Ok(200));
}

#[test]
fn an_answer_before_the_body_was_read_leaves_no_bytes_behind() {
    // The origin answers and keeps the connection without reading the body: what is left of the
    // body must not be taken for the next request, so the connection must not be used again.
    let origin = Origin::raw(|mut wire, _| {
        while wire.head().is_ok() {
            if wire.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    });
    let gateway = Gateway::single(&Spec::to(origin.address()));
    for _ in 0..5 {
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
        let response = client.response().unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(response.status, 401);
        drop(client);
        assert_eq!(gateway.ask(get("/next")).status, 401);
    }
    assert!(
        origin.accepted() >= 6,
        "{} connections: one was used again with its body unsent",
        origin.accepted()
    );
}
