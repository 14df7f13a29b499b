//! Every wait ends. Deadlines are set short and only their effect is judged, never how long it took.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tests::spec::Spec;
use tests::{Client, Gateway, Origin, PATIENCE, Script, WireError, answer, eventually, get};

#[test]
fn a_slow_head_gets_408() {
    let origin = Origin::echo();
    let gateway =
        Gateway::of(&Spec::to(origin.address()).listener("limits: { header_timeout_ms: 300 }"));
    for bytes in ["GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: ", "GET /"] {
        let mut client = gateway.connect();
        client.send(bytes);
        let response = client.response().unwrap_or_else(|e| panic!("{bytes:?}: {e:?}"));
        assert_eq!(response.status, 408, "{bytes:?}");
        response.problem().unwrap();
        client.assert_closed("after 408");
    }
    // Bytes that trickle in do not push the deadline on.
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nX: ");
    let ended = eventually(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(20));
        client.try_send(b"x").is_err()
    });
    assert!(ended, "a dribbling client is served for ever");
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn an_idle_connection_is_closed_quietly() {
    let origin = Origin::echo();
    let gateway =
        Gateway::of(&Spec::to(origin.address()).listener("limits: { idle_timeout_ms: 300 }"));
    let mut client = gateway.connect();
    assert_eq!(client.ask(get("/")).status, 200);
    client.assert_closed("an idle keep-alive connection");
}

#[test]
fn a_silent_origin_gets_504() {
    let origin = Origin::start(|_| Script::default().sleep(Duration::from_secs(20)));
    let gateway =
        Gateway::of(&Spec::to(origin.address()).upstream("timeouts: { first_byte_ms: 300 }"));
    let mut client = gateway.connect();
    let response = client.ask(get("/"));
    assert_eq!(response.status, 504);
    response.problem().unwrap();
    client.send(get("/again"));
    assert_eq!(client.response().map(|r| r.status), Ok(504), "the client's connection stays");
    assert_eq!(origin.accepted(), 2, "a connection that owes an answer is not used again");
}

#[test]
fn a_route_has_its_own_deadlines() {
    let origin = Origin::start(|_| answer("late").after(Duration::from_millis(800)));
    let spec = Spec::to(origin.address()).upstream("timeouts: { first_byte_ms: 10000 }").also_route(
        "{ name: fast, match: { path: { prefix: /fast } }, upstream: origin, timeouts: { first_byte_ms: 100 } }",
    );
    let gateway = Gateway::of(&spec);
    assert_eq!(gateway.ask(get("/fast")).status, 504);
    assert_eq!(gateway.ask(get("/slow")).status, 200);
}

#[test]
fn a_target_that_does_not_answer_the_handshake() {
    // A full backlog drops SYNs: nobody accepts, and the queue is filled first.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300))
    {
        held.push(stream);
        assert!(held.len() < 10_000, "this kernel's backlog has no end");
    }
    let gateway = Gateway::of(&Spec::to(address).upstream("timeouts: { connect_ms: 300 }"));
    let response = gateway.ask(get("/"));
    assert!(matches!(response.status, 502..=504), "{}", response.head.start);
    response.problem().unwrap();
    drop(held);
}

#[test]
fn a_refused_connection_is_503_or_502() {
    let port = tests::scratch::free_port();
    let gateway = Gateway::of(&Spec::to((Ipv4Addr::LOCALHOST, port).into()));
    let mut client = gateway.connect();
    let response = client.ask(get("/"));
    assert!(matches!(response.status, 502 | 503), "{}", response.head.start);
    response.problem().unwrap();
    client.send(get("/again"));
    assert!(client.response().is_ok(), "the client's connection stays");
    // And it is used as soon as it is there.
    let origin = Origin::start_at(Some((Ipv4Addr::LOCALHOST, port).into()), tests::origin::echo);
    assert!(eventually(PATIENCE, || gateway.ask(get("/")).status == 200));
    drop(origin);
}

#[test]
fn one_dead_target_of_two_is_passed_over() {
    let origin = Origin::echo();
    let dead = (Ipv4Addr::LOCALHOST, tests::scratch::free_port()).into();
    let spec = Spec::to(origin.address()).target(dead, 1).upstream("balance: round_robin");
    let gateway = Gateway::single(&spec);
    let mut client = gateway.connect();
    for n in 0..20 {
        // Nothing was sent, so any request may be tried elsewhere.
        let response =
            client.ask("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(response.status, 200, "request {n}");
    }
    assert_eq!(origin.completed(), 20);
}

#[test]
fn a_body_that_stops_is_cut_detectably() {
    for head in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3e7\r\nsome");
        let origin = Origin::start(move |_| {
            Script::default().send(bytes.clone()).sleep(Duration::from_secs(20))
        });
        let gateway =
            Gateway::of(&Spec::to(origin.address()).upstream("timeouts: { idle_ms: 300 }"));
        let mut client = gateway.connect();
        client.send(get("/"));
        match client.response() {
            Err(WireError::Truncated(_) | WireError::Reset(_)) => {}
            other => panic!("{head}: a stopped body must be cut, not {other:?}"),
        }
    }
}

#[test]
fn the_whole_exchange_has_a_deadline() {
    // Sends a little for ever, so that no other deadline ends it.
    let origin = Origin::raw(|mut wire, _| {
        if wire.head().is_ok() {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while wire.write(b"1\r\nx\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let gateway = Gateway::of(&Spec::to(origin.address()).upstream("timeouts: { total_ms: 700 }"));
    let mut client = gateway.connect();
    client.send(get("/"));
    match client.response() {
        Err(WireError::Truncated(_) | WireError::Reset(_)) => {}
        other => panic!("an endless answer must be cut, not {other:?}"),
    }
    assert!(eventually(PATIENCE, || origin.open() == 0), "the upstream connection stays open");
}

#[test]
fn b43_a_body_that_stops_coming_gets_408() {
    let origin = Origin::echo();
    // 500 B/s judged over 10 s: the longest wait of the suites.
    let gateway =
        Gateway::of(&Spec::to(origin.address()).listener("limits: { min_body_rate: 500 }"));
    for (framing, body) in [("Content-Length: 100", "x"), ("Transfer-Encoding: chunked", "5\r\nhe")]
    {
        let mut client = gateway.connect();
        client.patience(Duration::from_secs(40));
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n{body}"));
        match client.response() {
            Ok(response) => {
                assert_eq!(response.status, 408, "B-43 {framing}");
                client.assert_closed("B-43");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("B-43 {framing}: {e:?}"),
        }
    }
    assert!(
        eventually(PATIENCE, || origin.open() == 0),
        "B-43: the upstream request is not aborted"
    );
    assert_eq!(origin.completed(), 0, "B-43");
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let origin = Origin::raw(|mut wire, _| {
        if wire.head().is_ok() {
            let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\n");
            while wire.write(&[b'x'; 65_536]).is_ok() {}
        }
    });
    let gateway =
        Gateway::of(&Spec::to(origin.address()).listener("limits: { write_timeout_ms: 500 }"));
    let mut client = gateway.connect();
    client.wire.small_buffers();
    client.send(get("/"));
    // Reads the head and then nothing.
    client.final_head().unwrap_or_else(|e| panic!("{e:?}"));
    assert!(eventually(PATIENCE, || origin.open() == 0), "a stuck client is held for ever");
}

#[test]
fn connections_over_the_limit_are_closed_and_the_others_stay() {
    let origin = Origin::echo();
    let gateway =
        Gateway::single(&Spec::to(origin.address()).listener("limits: { max_connections: 5 }"));
    let mut inside: Vec<Client> = (0..5).map(|_| gateway.connect()).collect();
    for client in &mut inside {
        assert_eq!(client.ask(get("/in")).status, 200);
    }
    for _ in 0..20 {
        let mut outside = gateway.connect();
        outside.send(get("/out"));
        match outside.response() {
            Ok(response) => assert_eq!(response.status, 503),
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("over the limit: {e:?}"),
        }
    }
    for client in &mut inside {
        assert_eq!(client.ask(get("/in")).status, 200, "a connection inside the limit");
    }
    drop(inside);
    assert!(
        eventually(PATIENCE, || {
            let mut client = gateway.connect();
            client.send(get("/after")).response().is_ok_and(|response| response.status == 200)
        }),
        "room is not given back"
    );
    assert!(!origin.received("/out"));
}

#[test]
fn requests_per_connection_are_counted() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("limits: { max_requests: 3 }"));
    let mut client = gateway.connect();
    for n in 1..=3 {
        let response = client.ask(get("/"));
        assert_eq!(response.status, 200);
        assert_eq!(response.says_close(), n == 3, "request {n}");
    }
    client.assert_closed("after the last request allowed");
}

#[test]
fn listener_sizes_are_obeyed() {
    let origin = Origin::echo();
    let gateway = Gateway::of(
        &Spec::to(origin.address()).listener("limits: { max_head_bytes: 2048, max_fields: 5 }"),
    );
    let fields = |n: usize| (0..n).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let status = |fields: &str| {
        gateway.ask(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).status
    };
    assert_eq!(status(&fields(4)), 200);
    assert_eq!(status(&fields(5)), 431);
    assert_eq!(status(&format!("X: {}\r\n", "y".repeat(1_000))), 200);
    assert_eq!(status(&format!("X: {}\r\n", "y".repeat(2_100))), 431);
}
