//! Peers that cost more than they are worth: each gets its GOAWAY in time.

use super::*;
use crate::limits;

/// Sends what `attack` gives for 1, 2, 3… until the connection fails; returns how often. The output
/// is taken each time if `reads`.
#[track_caller]
fn until_calm(
    bench: &mut Bench,
    reads: bool,
    mut attack: impl FnMut(u32) -> Vec<u8>,
) -> (u32, usize) {
    let mut most = 0;
    for n in 1..5000 {
        if !bench.receive(&attack(n)) {
            let error = bench.error.unwrap();
            assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM, "{error}");
            most = most.max(bench.connection.output_len());
            assert_eq!(bench.failure(), ErrorCode::ENHANCE_YOUR_CALM);
            return (n, most);
        }
        most = most.max(bench.connection.output_len());
        if reads {
            bench.frames();
        }
    }
    panic!("never enough");
}

fn heads(bench: &Bench) -> usize {
    bench.seen.iter().filter(|seen| matches!(seen, Seen::Head(..))).count()
}

#[test]
fn rapid_resets() {
    let mut bench = Bench::server();
    let attack = |n: u32| [get(2 * n - 1), rst(2 * n - 1, ErrorCode::CANCEL)].concat();
    let (n, _) = until_calm(&mut bench, true, attack);
    assert_eq!(n, limits::H2_RESETS + 1);
    assert!(heads(&bench) <= 101);
    assert_eq!(bench.connection.stream_count(), 0);
}

#[test]
fn made_you_reset() {
    // Each opens a stream and breaks it, so that we are the one who resets (CVE-2025-8671).
    type Primitive = fn(u32) -> Vec<u8>;
    let primitives: [(&str, Primitive); 7] = [
        ("WINDOW_UPDATE of 0", |id| window_update(id, 0)),
        ("WINDOW_UPDATE overflow", |id| window_update(id, 0x7fff_ffff)),
        ("DATA on half-closed", |id| data(id, false, b"x")),
        ("HEADERS on half-closed", get),
        ("PRIORITY of bad length", |id| frame(kind::PRIORITY, 0, id, &[0; 4])),
        ("PRIORITY on itself", |id| {
            frame(kind::PRIORITY, 0, id, &[0, 0, (id >> 8) as u8, id as u8, 0])
        }),
        ("malformed", |_| Vec::new()),
    ];
    for (name, primitive) in primitives {
        let mut bench = Bench::server();
        let (n, _) = until_calm(&mut bench, true, |n| {
            let id = 2 * n - 1;
            match name {
                "malformed" => headers(id, true, &GET[..3]),
                _ => [get(id), primitive(id)].concat(),
            }
        });
        assert!(n <= limits::H2_RESETS + 1, "{name}: {n}");
        assert_eq!(bench.connection.stream_count(), 0, "{name}");
    }
}

#[test]
fn resets_that_the_caller_blames_on_the_peer() {
    let mut bench = Bench::server();
    let mut n = 0;
    while bench.receive(&get(2 * n + 1)) {
        bench.connection.reset(2 * n + 1, ErrorCode::PROTOCOL_ERROR);
        bench.frames();
        n += 1;
    }
    assert_eq!(n, limits::H2_RESETS + 1);
    assert_eq!(bench.error.unwrap().code, ErrorCode::ENHANCE_YOUR_CALM);
}

#[test]
fn honest_cancelling_goes_on() {
    // Two of three requests run to their end, and one is cancelled, in no time at all.
    let mut bench = Bench::server();
    for n in 0..10_000 {
        let id = 2 * n + 1;
        assert!(bench.receive(&get(id)));
        if n % 3 == 0 {
            assert!(bench.receive(&rst(id, ErrorCode::CANCEL)));
        } else {
            bench.connection.send_head(id, &encoded_status(200), true).unwrap();
        }
        bench.frames();
        bench.take();
    }
    // And cancelling alone, slowly.
    for n in 10_000..12_000 {
        bench.now_ms += 60;
        assert!(bench.receive(&[get(2 * n + 1), rst(2 * n + 1, ErrorCode::CANCEL)].concat()));
        bench.frames();
    }
}

#[test]
fn streams_over_the_number_are_refused_then_the_connection() {
    let mut bench = Bench::new(Config { max_concurrent_streams: 10, ..Config::SERVER });
    let mut refused = 0;
    let (n, _) = until_calm(&mut bench, false, |n| get(2 * n - 1));
    assert_eq!(heads(&bench), 10);
    assert_eq!(bench.connection.stream_count(), 10);
    assert!(n > 10 + limits::H2_RESETS && n < 1000);
    // Refused ones can be tried again.
    let mut bench = Bench::new(Config { max_concurrent_streams: 1, ..Config::SERVER });
    bench.receive(&[get(1), get(3), get(5)].concat());
    for (header, payload) in bench.frames() {
        assert_eq!((header.kind, &payload[..]), (kind::RST_STREAM, &[0, 0, 0, 7][..]));
        refused += 1;
    }
    assert_eq!(refused, 2);
}

#[test]
fn floods_of_frames_without_use() {
    type Flood = fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood); 9] = [
        ("PING", |_| frame(kind::PING, 0, 0, &[0; 8])),
        ("PING acknowledgements", |_| frame(kind::PING, flag::ACK, 0, &[0; 8])),
        ("SETTINGS", |_| settings(&[])),
        ("SETTINGS acknowledgements", |_| frame(kind::SETTINGS, flag::ACK, 0, &[])),
        ("PRIORITY", |_| frame(kind::PRIORITY, 0, 5, &[0, 0, 0, 1, 0])),
        ("WINDOW_UPDATE", |_| window_update(0, 1)),
        ("WINDOW_UPDATE of a stream", |_| window_update(1, 1000)),
        ("empty DATA", |_| data(1, false, b"")),
        ("unknown", |_| frame(0xfa, 0, 1, b"x")),
    ];
    for reads in [true, false] {
        for (name, flood) in floods {
            let mut bench = Bench::server();
            assert!(bench.receive(&headers(1, false, GET)));
            let (n, queued) = until_calm(&mut bench, reads, flood);
            assert!(n < 1000, "{name}: {n}");
            assert!(queued < 32 * 1024, "{name}: {queued} bytes queued");
        }
    }
}

#[test]
fn replies_that_are_not_read() {
    // Useful frames between them earn more, but the queue has its own bound.
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    let attack = |_| [frame(kind::PING, 0, 0, &[0; 8]), data(1, false, b"x")].concat();
    let (n, queued) = until_calm(&mut bench, false, attack);
    assert!(n < 1000 && queued < 32 * 1024);
}

#[test]
fn a_busy_client_may_ask_for_more_and_measure() {
    // gRPC: a PING and two WINDOW_UPDATEs for each frame of a long response.
    let mut bench = Bench::server();
    bench.receive(&get(1));
    bench.connection.send_head(1, &encoded_status(200), false).unwrap();
    for _ in 0..20_000 {
        assert_eq!(bench.connection.send_data(1, &[0; 16_384], false), Ok(16_384));
        assert!(bench.receive(&frame(kind::PING, 0, 0, &[0; 8])));
        for _ in 0..4 {
            assert!(bench.receive(&[window_update(0, 4096), window_update(1, 4096)].concat()));
        }
        bench.frames();
    }
}

#[test]
fn continuation_floods() {
    let mut bench = Bench::server();
    assert!(bench.receive(&frame(kind::HEADERS, flag::END_STREAM, 1, &block(GET))));
    let (n, _) = until_calm(&mut bench, true, |_| frame(kind::CONTINUATION, 0, 1, b""));
    assert_eq!(n as usize, limits::H2_BLOCK_FRAMES);
    // By bytes.
    let mut bench = Bench::server();
    let part = block(&[("a", &"x".repeat(200))]).repeat(80);
    assert!(bench.receive(&frame(kind::HEADERS, flag::END_STREAM, 1, &part)));
    let (n, _) = until_calm(&mut bench, true, |_| frame(kind::CONTINUATION, 0, 1, &part));
    assert!(n <= 8);
}

#[test]
fn hpack_bombs() {
    // An entry of 4 KB, referred to 16,000 times.
    let mut bench = Bench::server();
    let mut bomb = block(GET);
    bomb.extend_from_slice(&[0x40, 1, b'a', 0x7f, 0x91, 0x1e]); // 4,000 bytes.
    bomb.extend_from_slice(&[b'x'; 4000]);
    bomb.extend_from_slice(&[0xbe; 12_000]);
    assert!(!bench.receive(&frame(kind::HEADERS, 5, 1, &bomb)));
    assert_eq!(bench.failure(), ErrorCode::ENHANCE_YOUR_CALM);
    assert_eq!(bench.take(), []);
}

#[test]
fn a_header_list_over_the_limit_is_told_and_the_connection_goes_on() {
    let mut bench = Bench::new(Config { max_fields: 10, ..Config::SERVER });
    let fields = [GET, &[("a", "b"); 7]].concat();
    let mut events = VecDeque::new();
    let bytes = headers(1, true, &fields);
    bench.connection.receive(Chunk::from_vec(bytes), 0, &mut events).unwrap();
    let Some(Event::Head { block, end: true, .. }) = events.pop_front() else { panic!() };
    assert!(block.too_large);
    assert!(bench.receive(&headers(3, true, &fields[..10])));
    assert!(matches!(bench.take()[..], [Seen::Head(3, ..)]));
}

#[test]
fn data_in_crumbs_that_nobody_reads() {
    let mut bench = Bench::server();
    assert!(bench.receive(&headers(1, false, GET)));
    let mut n = 0;
    while bench.receive(&data(1, false, b"x")) {
        n += 1;
        assert!(n < 65_536, "the window was the only bound");
    }
    assert_eq!(bench.failure(), ErrorCode::ENHANCE_YOUR_CALM);
    // Small messages that are read are fine, in any number; and so are many at once.
    let mut bench = Bench::server();
    assert!(bench.receive(&headers(1, false, GET)));
    for _ in 0..50_000 {
        assert!(bench.receive(&data(1, false, b"x")));
        bench.connection.release(1, 1);
        bench.frames();
    }
    bench.take();
    assert!(bench.receive(&data(1, false, b"x").repeat(1_000)));
    assert_eq!(bench.take(), [Seen::Data(1, vec![b'x'; 1_000], false)]);
}
