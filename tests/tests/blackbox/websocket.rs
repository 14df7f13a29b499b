//! WebSocket through the gateway (RFC 6455, and RFC 8441 over HTTP/2): upgraded where a route lists
//! it, relayed byte for byte, ended from either side.

use std::time::Duration;

use tests::http2::frame::*;
use tests::http2::{Broken, H2Client, H2Origin, Reply};
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::websocket::{
    self, ACCEPT, BINARY, CLOSE, KEY, PING, PONG, TEXT, echo_origin, masked, parse,
};
use tests::{Authority, Client, Gateway, Origin, PATIENCE, TlsClient, answer, eventually};

fn spec(origin: std::net::SocketAddr) -> Spec {
    Spec::to(origin).listener("h2c: true").route("upgrades: [websocket]")
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// An HTTP/1 client after its handshake.
fn upgraded(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(handshake("/ws"));
    let (_, head) = client.final_head().unwrap();
    assert_eq!(head.status(), Ok(101), "{:?}", head.fields);
    assert_eq!(head.get("sec-websocket-accept"), Some(ACCEPT));
    assert!(head.lists("upgrade", "websocket") && head.lists("connection", "upgrade"));
    client
}

/// Limits and the gateway's own fields are told with the answer that opens the tunnel.
#[test]
fn the_client_is_told_how_much_is_left() {
    let origin = echo_origin();
    let limit = "limits:\n  - { name: few, requests: 3, per: 1h }";
    let gateway = Gateway::single(&spec(origin.address()).also(limit).route("limits: [ few ]"));
    let mut client = gateway.connect();
    client.send(handshake("/ws"));
    let (_, head) = client.final_head().unwrap();
    assert_eq!(head.status(), Ok(101), "{:?}", head.fields);
    assert_eq!(head.get("ratelimit-policy"), Some("\"few\";q=3;w=3600"));
    assert!(head.get("ratelimit").is_some_and(|left| left.starts_with("\"few\";r=2")));
    let (client, stream) = tunnelled(&gateway);
    let so_far = client.so_far(stream);
    assert!(so_far.field("ratelimit").is_some_and(|left| left.starts_with("\"few\";r=1")));
}

/// RFC 8441 §4: an extended CONNECT.
fn connect<'a>(path: &'a str, protocol: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ]
}

/// An HTTP/2 client with a stream that is a WebSocket.
fn tunnelled(gateway: &Gateway) -> (H2Client, u32) {
    let mut client = H2Client::clear(gateway.address());
    // RFC 8441 §3: only after the server's settings allow it.
    assert!(
        client.until(PATIENCE, |client| { client.peer.setting(ENABLE_CONNECT_PROTOCOL, 0) == 1 })
    );
    let stream = client.begin(&connect("/ws", "websocket"), false);
    let answered = client.until(PATIENCE, |client| client.so_far(stream).status != 0);
    let so_far = client.so_far(stream);
    assert!(answered && so_far.status == 200, "{so_far:?}, resets {:?}", client.resets);
    // RFC 8441 §5: the handshake of HTTP/1 has no place here.
    assert_eq!(so_far.field("sec-websocket-accept"), None);
    (client, stream)
}

/// Sends a message over a stream and reads the next one back.
fn exchange(client: &mut H2Client, stream: u32, opcode: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let from = client.so_far(stream).body.len();
    client.body(stream, &masked(opcode, payload), false).unwrap();
    let whole = |client: &H2Client| parse(&client.so_far(stream).body[from..]).is_some();
    assert!(client.until(PATIENCE, whole), "no message back");
    let (opcode, payload, _) = parse(&client.so_far(stream).body[from..]).unwrap();
    (opcode, payload)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 65_521 % 251) as u8).collect()
}

#[test]
fn messages_over_h1() {
    let origin = echo_origin();
    let gateway = Gateway::of(&spec(origin.address()));
    let mut client = upgraded(&gateway);
    for (opcode, payload, back) in [
        (TEXT, b"hello".to_vec(), TEXT),
        (BINARY, pattern(1 << 20), BINARY),
        (PING, b"ping".to_vec(), PONG),
        (TEXT, Vec::new(), TEXT),
    ] {
        client.send(masked(opcode, &payload));
        let (opcode, came) = websocket::read(&mut client.wire).unwrap();
        assert!(opcode == back && came == payload, "{opcode}: {} bytes", came.len());
    }
    client.send(masked(CLOSE, &1000u16.to_be_bytes()));
    assert_eq!(websocket::read(&mut client.wire).unwrap().0, CLOSE);
    client.assert_closed("after Close");
}

#[test]
fn messages_over_h2_to_an_h1_origin() {
    let origin = echo_origin();
    let gateway = Gateway::of(&spec(origin.address()));
    let (mut client, stream) = tunnelled(&gateway);
    assert_eq!(exchange(&mut client, stream, TEXT, b"hello"), (TEXT, b"hello".to_vec()));
    let large = pattern(300_000);
    assert!(exchange(&mut client, stream, BINARY, &large) == (BINARY, large));
    assert_eq!(exchange(&mut client, stream, PING, b"p"), (PONG, b"p".to_vec()));
    // It is one stream of many.
    let other = client.get("/other");
    assert_eq!(client.answer(other).unwrap().text(), "no\n");
    assert_eq!(exchange(&mut client, stream, TEXT, b"still"), (TEXT, b"still".to_vec()));
    // The end of the origin's connection is the end of the stream (RFC 8441 §5).
    assert_eq!(exchange(&mut client, stream, CLOSE, &1000u16.to_be_bytes()).0, CLOSE);
    let end = client.answer(stream);
    assert!(matches!(end, Ok(_) | Err(Broken::Reset(NO_ERROR | CANCEL, _))), "{end:?}");
    client.assert_alive("after a tunnel");
}

#[test]
fn messages_over_tls() {
    let authority = Authority::new("Sockets");
    let site = authority.server(&["a.test"]);
    let scratch = Scratch::new();
    scratch.file("site.pem", &site.cert);
    scratch.file("site.key", &site.key);
    let origin = echo_origin();
    let spec = spec(origin.address()).also_listener(
        "PORTTLS",
        "tls: { certificates: [ { cert: \"{DIR}/site.pem\", key: \"{DIR}/site.key\" } ] }",
    );
    let mut gateway = Gateway::start_in(scratch, &spec.text(), 2);
    let address = gateway.address_of("PORTTLS");
    let tls = TlsClient::new(&authority, "a.test");
    let large = pattern(300_000);

    let mut client = Client::over(tls.connect(address).unwrap().0);
    client.send(handshake("/ws"));
    assert_eq!(client.final_head().unwrap().1.status(), Ok(101));
    for _ in 0..3 {
        client.send(masked(BINARY, &large));
        assert!(websocket::read(&mut client.wire).unwrap() == (BINARY, large.clone()));
    }
    client.send(masked(CLOSE, &1000u16.to_be_bytes()));
    assert_eq!(websocket::read(&mut client.wire).unwrap().0, CLOSE);
    // With close_notify: an end without would be an error here.
    client.assert_closed("after Close");

    let mut client = H2Client::tls(address, &tls);
    let allowed = |client: &H2Client| client.peer.setting(ENABLE_CONNECT_PROTOCOL, 0) == 1;
    assert!(client.until(PATIENCE, allowed));
    let mut fields = connect("/ws", "websocket");
    fields[2].1 = "https";
    let stream = client.begin(&fields, false);
    assert!(client.until(PATIENCE, |client| client.so_far(stream).status == 200));
    for _ in 0..3 {
        assert!(exchange(&mut client, stream, BINARY, &large) == (BINARY, large.clone()));
    }
}

#[test]
fn the_h1_origin_gets_a_handshake_of_its_own() {
    let seen = Origin::start(|seen| {
        let Some(key) = seen.field("sec-websocket-key") else { return answer("no\n") };
        let accept = websocket::accept(key);
        tests::Script::default().send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ))
    })
    .lenient();
    let gateway = Gateway::of(&spec(seen.address()));
    let mut client = H2Client::clear(gateway.address());
    let mut fields = connect("/chat?x=1", "websocket");
    fields.extend([("sec-websocket-protocol", "chat"), ("origin", "http://a.test")]);
    let stream = client.begin(&fields, false);
    assert!(client.until(PATIENCE, |client| client.so_far(stream).status == 200));
    assert_eq!(client.so_far(stream).field("sec-websocket-protocol"), Some("chat"));
    let head = seen.last();
    assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/chat?x=1"));
    assert!(head.head.lists("connection", "upgrade") && head.head.lists("upgrade", "websocket"));
    assert_eq!(head.field("sec-websocket-version"), Some("13"));
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat"));
    assert_eq!(head.field("origin"), Some("http://a.test"));
    let key = head.field("sec-websocket-key").and_then(websocket::unbase64).unwrap_or_default();
    assert_eq!(key.len(), 16, "RFC 6455 §4.1: a nonce of 16 bytes");
}

/// An h2 origin that takes extended CONNECTs.
fn h2_origin() -> H2Origin {
    H2Origin::clear(|seen| match seen.field(":protocol") {
        Some("websocket") => Reply::default().head(&[(":status", "200")]).echo(),
        _ => tests::http2::origin::echo(seen),
    })
}

#[test]
fn messages_to_an_h2_origin() {
    let origin = h2_origin();
    let gateway = Gateway::of(&spec(origin.address()).upstream("protocol: http2"));
    // From h2 the stream is passed on as it is: the origin echoes masked frames.
    let (mut client, stream) = tunnelled(&gateway);
    let large = pattern(300_000);
    assert!(exchange(&mut client, stream, BINARY, &large) == (BINARY, large));
    let seen = origin.last();
    assert_eq!((seen.method(), seen.field(":protocol")), ("CONNECT", Some("websocket")));
    assert_eq!(seen.path(), "/ws");
    client.body(stream, b"", true).unwrap();
    assert!(client.answer(stream).is_ok(), "the end is passed on both ways");
    // From h1 it becomes an extended CONNECT, and the gateway answers the key.
    let mut client = upgraded(&gateway);
    client.send(masked(TEXT, b"hello"));
    assert_eq!(websocket::read(&mut client.wire).unwrap(), (TEXT, b"hello".to_vec()));
    assert_eq!(origin.last().field("sec-websocket-key"), None);
}

#[test]
fn an_h2_origin_without_extended_connect_is_not_asked() {
    let origin = H2Origin::with(&[], tests::http2::origin::echo);
    let gateway = Gateway::of(&spec(origin.address()).upstream("protocol: http2"));
    let mut client = gateway.connect();
    client.send(handshake("/ws"));
    let response = client.response().unwrap();
    assert!(response.status >= 500, "{}", response.head.start);
    assert!(origin.seen().iter().all(|seen| seen.method() != "CONNECT"));
}

#[test]
fn a_route_that_lists_no_upgrade_refuses() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).listener("h2c: true"));
    let mut client = H2Client::clear(gateway.address());
    client.assert_alive("warm");
    let before = origin.completed();
    for protocol in ["websocket", "foo"] {
        let stream = client.begin(&connect("/ws", protocol), false);
        match client.answer(stream) {
            Ok(answer) => assert!(answer.status >= 400, "{protocol}: {answer:?}"),
            Err(Broken::Reset(..)) => {}
            Err(e) => panic!("{protocol}: {e:?}"),
        }
    }
    assert_eq!(origin.completed(), before, "an upgrade that no route lists was forwarded");
    client.assert_alive("after refusals");
    // And where only websocket is listed, nothing else.
    let gateway = Gateway::of(&spec(origin.address()));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&connect("/ws", "connect-udp"), false);
    match client.answer(stream) {
        Ok(answer) => assert!(answer.status >= 400, "{answer:?}"),
        other => assert!(matches!(other, Err(Broken::Reset(..))), "{other:?}"),
    }
}

#[test]
fn an_origins_refusal_is_passed_on() {
    let origin = Origin::canned("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", false);
    let gateway = Gateway::of(&spec(origin.address()));
    let mut client = gateway.connect();
    client.send(handshake("/ws"));
    let response = client.response().unwrap();
    assert_eq!((response.status, response.text()), (403, "no".into()));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&connect("/ws", "websocket"), false);
    let answer = client.answer(stream).unwrap();
    assert_eq!((answer.status, answer.text()), (403, "no".into()));
}

#[test]
fn a_wrong_accept_is_no_handshake() {
    // RFC 6455 §4.1: over h2 the gateway is the client of the handshake, and must look.
    let origin = Origin::canned(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        false,
    )
    .lenient();
    let gateway = Gateway::of(&spec(origin.address()));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&connect("/ws", "websocket"), false);
    match client.answer(stream) {
        Ok(answer) => assert_eq!(answer.status, 502),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_tunnelled_before_the_handshake_is_done() {
    // An origin that takes its time: what the client sends meanwhile is kept back, not lost.
    let origin = Origin::raw(|mut wire, _| {
        let Ok(head) = wire.head() else { return };
        std::thread::sleep(Duration::from_millis(300));
        if !wire.stays_quiet(Duration::from_millis(200)) {
            // Bytes before the 101.
            return wire.reset();
        }
        let accept = websocket::accept(head.get("sec-websocket-key").unwrap_or_default());
        let _ = wire.write(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        );
        while let Ok((opcode, payload)) = websocket::read(&mut wire) {
            let _ = wire.write(&websocket::plain(opcode, &payload));
        }
    });
    let gateway = Gateway::of(&spec(origin.address()));
    let mut client = gateway.connect();
    client.send([handshake("/ws").into_bytes(), masked(TEXT, b"early")].concat());
    let (_, head) = client.final_head().unwrap();
    assert_eq!(head.status(), Ok(101));
    assert_eq!(websocket::read(&mut client.wire).unwrap(), (TEXT, b"early".to_vec()));
    let mut client = H2Client::clear(gateway.address());
    let stream = client.begin(&connect("/ws", "websocket"), false);
    client.body(stream, &masked(TEXT, b"early"), false).unwrap();
    let whole = |client: &H2Client| parse(&client.so_far(stream).body).is_some();
    assert!(client.until(PATIENCE, whole), "{:?}", client.so_far(stream));
}

#[test]
fn idle_tunnels_end() {
    let origin = echo_origin();
    let gateway = Gateway::of(&spec(origin.address()).route("timeouts: { idle_ms: 500 }"));
    let mut client = upgraded(&gateway);
    let (mut h2, stream) = tunnelled(&gateway);
    client.send(masked(TEXT, b"once"));
    assert_eq!(websocket::read(&mut client.wire).unwrap().0, TEXT);
    client.assert_closed("an idle tunnel over h1");
    let end = h2.answer(stream);
    assert!(matches!(end, Ok(_) | Err(Broken::Reset(..))), "an idle tunnel over h2: {end:?}");
    assert!(eventually(PATIENCE, || origin.open() == 0), "the origin's ends stay open");
}

#[test]
fn a_tunnel_that_talks_does_not_idle() {
    let origin = echo_origin();
    let gateway = Gateway::of(&spec(origin.address()).route("timeouts: { idle_ms: 800 }"));
    let (mut client, stream) = tunnelled(&gateway);
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(exchange(&mut client, stream, TEXT, b"tick").1, b"tick");
    }
}

#[test]
fn ends_are_passed_on() {
    let origin = echo_origin();
    let gateway = Gateway::of(&spec(origin.address()));
    // The client resets its stream.
    let (mut client, stream) = tunnelled(&gateway);
    assert!(eventually(PATIENCE, || origin.open() == 1));
    client.send(&Frame::reset(stream, CANCEL));
    assert!(eventually(PATIENCE, || origin.open() == 0), "the origin's end stays open");
    // The client's connection breaks.
    let (client, _) = tunnelled(&gateway);
    assert!(eventually(PATIENCE, || origin.open() == 1));
    drop(client);
    assert!(eventually(PATIENCE, || origin.open() == 0), "the origin's end stays open");
    // The origin goes away.
    let (mut client, stream) = tunnelled(&gateway);
    origin.hang_up();
    let end = client.answer(stream);
    assert!(matches!(end, Ok(_) | Err(Broken::Reset(..))), "{end:?}");
}
