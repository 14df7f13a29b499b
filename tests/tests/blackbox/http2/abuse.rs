//! Rows 16 to 19 of the faults table: clients that only want to cost something. Each ends with its
//! connection closed, while others are served.

use std::time::Duration;

use tests::http2::client::request;
use tests::http2::frame::*;
use tests::http2::{Broken, End, Event, H2Client};
use tests::load::{self, Load};
use tests::origin::echo;
use tests::process::rss_kib;
use tests::{Gateway, Origin, PATIENCE, eventually, get};

use super::spec;

/// What one abusive connection may have cost the origin.
const MOST_FORWARDED: usize = 100;
/// Before this many resets the connection must have ended.
const MOST_RESETS: usize = 1_000;

/// An origin that takes its time, so that what is reset is still in flight.
fn slow_origin() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/abuse" => echo(seen).after(Duration::from_millis(300)),
        _ => echo(seen),
    })
}

fn forwarded(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.target == "/abuse").count()
}

/// Runs `abuse` beside good clients, none of whom may notice.
fn beside_good_clients(gateway: &Gateway, abuse: impl FnOnce()) {
    let load = Load::start(gateway.address(), 2, 50, &get("/good"), load::ok);
    load.await_more(20);
    abuse();
    load.await_more(20);
    load.stop_clean();
    let mut good = H2Client::clear(gateway.address());
    good.assert_alive("a good client afterwards");
}

/// Reads what there is without waiting; whether the connection has ended.
fn ended(client: &mut H2Client) -> bool {
    loop {
        match client.peer.event(Duration::from_millis(1)) {
            Ok(Event::GoAway { last, code }) => client.goaways.push((last, code)),
            Ok(Event::Reset { stream, code }) => client.resets.push((stream, code)),
            Ok(_) => {}
            Err(End::TimedOut) => return false,
            Err(_) => return true,
        }
    }
}

#[test]
fn rapid_reset() {
    let origin = slow_origin();
    let gateway = Gateway::of(&spec(&origin));
    beside_good_clients(&gateway, || {
        let mut client = H2Client::clear(gateway.address());
        let mut resets = 0;
        let mut over = false;
        while resets < MOST_RESETS && !over {
            let stream = client.get("/abuse");
            over = !client.peer.send(&Frame::reset(stream, CANCEL));
            resets += 1;
            if resets % 20 == 0 {
                over |= ended(&mut client);
            }
        }
        over |= eventually(PATIENCE, || ended(&mut client));
        assert!(over, "still open after {resets} resets");
        let code = client.goaways.last().map(|&(_, code)| code);
        assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "GOAWAY {code:?}");
    });
    assert!(forwarded(&origin) <= MOST_FORWARDED, "{} were forwarded", forwarded(&origin));
}

/// Ways to make the server reset a stream (CVE-2025-8671): what is sent after a request that is
/// whole already.
/// A name, and the frame that makes the gateway reset a stream.
type Primitive = (&'static str, fn(u32) -> Frame);

fn primitives() -> Vec<Primitive> {
    vec![
        ("WINDOW_UPDATE 0", |stream| Frame::window_update(stream, 0)),
        ("WINDOW_UPDATE overflow", |stream| Frame::window_update(stream, 0x7fff_ffff)),
        ("DATA on a half-closed stream", |stream| Frame::data(stream, "x", false)),
        ("HEADERS on a half-closed stream", |stream| {
            Frame::headers(stream, &request("GET", "/abuse"), true)
        }),
        ("PRIORITY of 4 bytes", |stream| Frame::new(PRIORITY, 0, stream, [0; 4])),
        ("PRIORITY that depends on itself", |stream| {
            let mut payload = stream.to_be_bytes().to_vec();
            payload.push(16);
            Frame::new(PRIORITY, 0, stream, payload)
        }),
    ]
}

#[test]
fn made_you_reset() {
    for (what, frame) in primitives() {
        let origin = slow_origin();
        let gateway = Gateway::of(&spec(&origin));
        beside_good_clients(&gateway, || {
            let mut client = H2Client::clear(gateway.address());
            let mut asked = 0;
            let mut over = false;
            while asked < MOST_RESETS && !over {
                let stream = client.get("/abuse");
                over = !client.peer.send(&frame(stream));
                asked += 1;
                if asked % 20 == 0 {
                    over |= ended(&mut client);
                    let unharmed = client.resets.is_empty() && client.goaways.is_empty();
                    // RFC 9113 §5.3.2: priorities may be ignored. These are good requests then. (Of
                    // the others, it is only that no reset has come yet.)
                    if !over && unharmed && what.starts_with("PRIORITY") {
                        break;
                    }
                }
            }
            let ignored = client.resets.is_empty() && client.goaways.is_empty() && !over;
            if !ignored || !what.starts_with("PRIORITY") {
                over |= eventually(PATIENCE, || ended(&mut client));
                assert!(over, "{what}: still open after {asked}, {} resets", client.resets.len());
            }
        });
        let count = forwarded(&origin);
        assert!(count <= MOST_FORWARDED, "{what}: {count} were forwarded");
    }
}

#[test]
fn resets_of_malformed_requests_are_counted() {
    let origin = slow_origin();
    let gateway = Gateway::of(&spec(&origin));
    beside_good_clients(&gateway, || {
        let mut client = H2Client::clear(gateway.address());
        let mut bad = request("POST", "/abuse");
        bad.push(("content-length", "1"));
        let mut over = false;
        for n in 0..MOST_RESETS {
            let stream = client.begin(&bad, false);
            over = !client.peer.send(&Frame::data(stream, "too long", true));
            over |= n % 20 == 0 && ended(&mut client);
            if over {
                break;
            }
        }
        assert!(over || eventually(PATIENCE, || ended(&mut client)), "still open");
    });
    assert!(forwarded(&origin) <= MOST_FORWARDED, "{} were forwarded", forwarded(&origin));
}

#[test]
fn refused_streams_end_the_connection_in_the_end() {
    let origin = slow_origin();
    let gateway = Gateway::of(&spec(&origin).listener("limits: { max_streams: 10 }"));
    beside_good_clients(&gateway, || {
        let mut client = H2Client::clear(gateway.address());
        let mut over = false;
        // B-57: first REFUSED_STREAM, with persistence GOAWAY.
        for n in 0..5_000 {
            let stream = client.take_stream();
            over = !client.peer.send(&Frame::headers(stream, &request("GET", "/abuse"), true));
            over |= n % 50 == 0 && ended(&mut client);
            if over {
                break;
            }
        }
        assert!(over || eventually(PATIENCE, || ended(&mut client)), "B-57: still open");
    });
    assert!(forwarded(&origin) <= MOST_FORWARDED, "{} were forwarded", forwarded(&origin));
}

#[test]
fn continuation_flood() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let engine = gateway.pid_of("engine");
    for (what, piece) in [("fields", block(&[("x-flood", &"y".repeat(1_000))])), ("empty", vec![])]
    {
        beside_good_clients(&gateway, || {
            let before = rss_kib(engine);
            let mut client = H2Client::clear(gateway.address());
            let stream = client.take_stream();
            client.send(&Frame::new(HEADERS, END_STREAM, stream, block(&request("GET", "/abuse"))));
            let mut sent = 0;
            let mut over = false;
            while sent < 2_000 && !over {
                over = !client.peer.send(&Frame::new(CONTINUATION, 0, stream, piece.clone()));
                sent += 1;
                over |= sent % 10 == 0 && ended(&mut client);
            }
            assert!(over || eventually(PATIENCE, || ended(&mut client)), "{what}: still open");
            let after = rss_kib(engine);
            assert!(after < before + 8 * 1024, "{what}: {before} KiB became {after} KiB");
        });
    }
    assert!(!origin.received("/abuse"));
}

#[test]
fn header_lists_beyond_the_limit() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    beside_good_clients(&gateway, || {
        for (what, fields, size) in
            [("one field", 1, 70_000), ("many fields", 5_000, 10), ("large fields", 20, 4_000)]
        {
            let mut client = H2Client::clear(gateway.address());
            client.assert_alive(what);
            let value = "v".repeat(size);
            let mut all = request("GET", "/abuse");
            all.extend((0..fields).map(|_| ("x-large", value.as_str())));
            let stream = client.begin(&all, true);
            match client.answer(stream) {
                Ok(answer) => assert_eq!(answer.status, 431, "{what}: {answer:?}"),
                Err(Broken::Reset(..) | Broken::GoAway(_) | Broken::Closed) => {}
                Err(e) => panic!("{what}: {e:?}"),
            }
        }
    });
    assert!(!origin.received("/abuse"), "a header list beyond the limit was forwarded");
}

#[test]
fn hpack_bomb() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let engine = gateway.pid_of("engine");
    beside_good_clients(&gateway, || {
        let before = rss_kib(engine);
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = H2Client::clear(gateway.address());
            // One entry that fills the table (RFC 7541 §4.1: 32 bytes and the strings), then as many
            // references to it (index 62, one byte each) as a frame holds: 64 MiB.
            let mut bomb = block(&request("GET", "/abuse"));
            bomb.push(0x40);
            string(&mut bomb, b"x-bomb");
            string(&mut bomb, &vec![b'b'; 4_000]);
            bomb.resize(16_384, 0x80 | 62);
            let stream = client.take_stream();
            client.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, bomb));
            clients.push((client, stream));
        }
        for (client, stream) in &mut clients {
            match client.answer(*stream) {
                Ok(answer) => assert_eq!(answer.status, 431, "{answer:?}"),
                Err(Broken::Reset(..) | Broken::GoAway(_) | Broken::Closed) => {}
                // The strict client knows of no stream here.
                Err(Broken::Malformed(what)) if what.contains("431") => {}
                Err(e) => panic!("{e:?}"),
            }
        }
        let after = rss_kib(engine);
        // 256 KiB for each, and room for what the allocator keeps.
        assert!(after < before + 20 * 256 + 8 * 1024, "{before} KiB became {after} KiB");
    });
    assert!(!origin.received("/abuse"), "a bomb was forwarded");
}

/// Sends `frame` over and over without reading; the connection must end before `most`.
fn flood(client: &mut H2Client, what: &str, most: usize, frame: &Frame) {
    // Written in blocks: a peer that has stopped reading blocks the writer, who gives up then.
    let block: Vec<u8> = (0..50).flat_map(|_| frame.encode()).collect();
    let mut sent = 0;
    while sent < most {
        if !client.peer.write(&block) {
            return;
        }
        sent += 50;
        if sent % 1_000 == 0 && ended(client) {
            return;
        }
    }
    assert!(eventually(PATIENCE, || ended(client)), "{what}: still open after {sent} frames");
}

#[test]
fn floods_of_control_frames() {
    let origin = slow_origin();
    let gateway = Gateway::of(&spec(&origin));
    let engine = gateway.pid_of("engine");
    beside_good_clients(&gateway, || {
        let before = rss_kib(engine);
        for (what, frame) in [
            ("PING", Frame::new(PING, 0, 0, [7; 8])),
            ("SETTINGS", Frame::settings(&[])),
            ("SETTINGS with a table size", Frame::settings(&[(HEADER_TABLE_SIZE, 4096)])),
            ("PRIORITY", Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 16])),
            ("WINDOW_UPDATE", Frame::window_update(0, 1)),
        ] {
            let mut client = H2Client::clear(gateway.address());
            client.get("/abuse");
            flood(&mut client, what, 20_000, &frame);
        }
        for (what, bytes) in [("empty DATA", &[][..]), ("padded empty DATA", &[3, 0, 0, 0])] {
            let mut client = H2Client::clear(gateway.address());
            let stream = client.begin(&request("POST", "/abuse"), false);
            let flags = if bytes.is_empty() { 0 } else { PADDED };
            flood(&mut client, what, 20_000, &Frame::new(DATA, flags, stream, bytes));
        }
        let after = rss_kib(engine);
        assert!(after < before + 16 * 1024, "{before} KiB became {after} KiB");
    });
}

const MUTE: u64 = 100;

/// Clients that send pings and never read.
fn mute_peers(gateway: &Gateway) -> Vec<H2Client> {
    let mut clients = Vec::new();
    for _ in 0..MUTE {
        let tcp = std::net::TcpStream::connect(gateway.address()).unwrap();
        let mut client = H2Client::over(tcp).open(&[]);
        client.peer.stream.tcp().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let block: Vec<u8> =
            (0..500).flat_map(|_| Frame::new(PING, 0, 0, [7; 8]).encode()).collect();
        for _ in 0..100 {
            if !client.peer.write(&block) {
                break;
            }
        }
        clients.push(client);
    }
    clients
}

#[test]
fn a_peer_that_never_reads_fills_no_queue() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let engine = gateway.pid_of("engine");
    let before = rss_kib(engine);
    let _clients = mute_peers(&gateway);
    // The receive buffers of two shards are a pool of fixed size, touched as it is needed.
    let pool = 2 * 1024 * 18;
    let after = rss_kib(engine);
    assert!(after < before + MUTE * 256 + pool + 8 * 1024, "{before} KiB became {after} KiB");
}

#[test]
fn a_budget_is_no_trap_for_good_clients() {
    // Pings, settings and cancelled requests in the measure of a browser.
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin));
    let mut client = H2Client::clear(gateway.address());
    for n in 0..300 {
        client.assert_alive("between");
        if n % 10 == 0 {
            client.send(&Frame::new(PING, 0, 0, [n as u8; 8]));
        }
        if n % 20 == 0 {
            let stream = client.get("/cancelled");
            client.send(&Frame::reset(stream, CANCEL));
        }
        if n == 100 {
            client.send(&Frame::settings(&[(INITIAL_WINDOW_SIZE, 65_535)]));
        }
    }
    assert!(client.until(PATIENCE, |client| client.pongs == 30), "{} pongs", client.pongs);
    assert!(client.goaways.is_empty(), "{:?}", client.goaways);
}
