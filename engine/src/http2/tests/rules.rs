//! RFC 9113 rule by rule: what is a stream error, a connection error, or fine.

use super::*;

/// Expects that `bytes`, behind an open request on stream 1, end the connection with `code`.
#[track_caller]
fn fails(bytes: &[u8], code: ErrorCode) {
    let mut bench = Bench::server();
    assert!(bench.receive(&headers(1, false, GET)));
    assert!(!bench.receive(bytes), "goes on");
    assert_eq!(bench.failure(), code, "{}", bench.error.unwrap());
    assert!(!bench.receive(&get(3)), "an end is an end");
}

/// Expects that stream `id` is reset with `code` after `bytes`, and that the connection goes on.
#[track_caller]
fn resets(bench: &mut Bench, bytes: &[u8], id: StreamId, code: ErrorCode) {
    bench.frames();
    assert!(bench.receive(bytes), "{:?}", bench.error);
    assert_eq!(bench.reset_sent(id), Some(code));
    assert!(!bench.connection.is_open(id));
    assert!(bench.receive(&get(1001)));
}

fn long(kind: u8, flags: u8, stream: StreamId, n: usize) -> Vec<u8> {
    frame(kind, flags, stream, &vec![0; n])
}

#[test]
fn a_plain_exchange() {
    let mut bench = Bench::server();
    assert!(bench.receive(&headers(1, false, GET)));
    assert!(bench.receive(&data(1, false, b"ab")));
    assert!(bench.receive(&data(1, true, b"")));
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    assert_eq!(
        bench.take(),
        [
            Seen::Head(1, pairs(GET), false),
            Seen::Data(1, b"ab".to_vec(), false),
            Seen::Data(1, Vec::new(), true),
        ]
    );
    bench.connection.send_head(1, &encoded_status(103), false).unwrap();
    bench.connection.send_head(1, &encoded_status(200), false).unwrap();
    assert_eq!(bench.connection.send_data(1, b"cd", false), Ok(2));
    bench.connection.send_trailers(1, &block(&[("x", "y")])).unwrap();
    let kinds: Vec<_> =
        bench.frames().into_iter().map(|(header, _)| (header.kind, header.flags)).collect();
    assert_eq!(kinds, [(1, 4), (1, 4), (0, 0), (1, 5)]);
    assert_eq!(bench.connection.stream_count(), 0);
    assert_eq!(bench.connection.send_data(1, b"e", true), Err(Gone));
}

#[test]
fn the_beginning() {
    let mut bench = Connection::new(Config::SERVER);
    let mut events = VecDeque::new();
    let error = bench.receive(Chunk::copy_of(b"GET / HTTP/1.1\r\n"), 0, &mut events).unwrap_err();
    assert_eq!(error.code, ErrorCode::PROTOCOL_ERROR);
    for first in [get(1), frame(kind::PING, 0, 0, &[0; 8]), frame(kind::SETTINGS, 1, 0, &[])] {
        let mut connection = Connection::new(Config::SERVER);
        let bytes = [&PREFACE[..], &first].concat();
        let error = connection.receive(Chunk::from_vec(bytes), 0, &mut events).unwrap_err();
        assert_eq!(error.code, ErrorCode::PROTOCOL_ERROR);
    }
}

#[test]
fn frames_of_bad_size() {
    use ErrorCode as E;
    fails(&long(kind::PING, 0, 0, 7), E::FRAME_SIZE_ERROR);
    fails(&long(kind::PING, 1, 0, 9), E::FRAME_SIZE_ERROR);
    fails(&long(kind::SETTINGS, 0, 0, 5), E::FRAME_SIZE_ERROR);
    fails(&long(kind::SETTINGS, 1, 0, 6), E::FRAME_SIZE_ERROR);
    fails(&long(kind::WINDOW_UPDATE, 0, 0, 3), E::FRAME_SIZE_ERROR);
    fails(&long(kind::WINDOW_UPDATE, 0, 1, 5), E::FRAME_SIZE_ERROR);
    fails(&long(kind::RST_STREAM, 0, 1, 3), E::FRAME_SIZE_ERROR);
    fails(&long(kind::GOAWAY, 0, 0, 7), E::FRAME_SIZE_ERROR);
    fails(&long(kind::HEADERS, flag::PRIORITY | flag::END_HEADERS, 3, 4), E::FRAME_SIZE_ERROR);
    fails(&long(kind::DATA, 0, 1, 16_385)[..9], E::FRAME_SIZE_ERROR);
    fails(&long(kind::HEADERS, 0, 3, 16_385)[..9], E::FRAME_SIZE_ERROR);
    fails(&long(0xbe, 0, 3, 16_385)[..9], E::FRAME_SIZE_ERROR);
    let mut bench = Bench::server();
    assert!(bench.receive(&get(1)));
    resets(&mut bench, &long(kind::PRIORITY, 0, 1, 4), 1, E::FRAME_SIZE_ERROR);
}

#[test]
fn frames_on_the_wrong_stream() {
    use ErrorCode as E;
    for kind in [kind::DATA, kind::HEADERS, kind::PRIORITY, kind::CONTINUATION] {
        fails(&long(kind, 0, 0, 5), E::PROTOCOL_ERROR);
    }
    fails(&long(kind::RST_STREAM, 0, 0, 4), E::PROTOCOL_ERROR);
    fails(&long(kind::SETTINGS, 0, 1, 6), E::PROTOCOL_ERROR);
    fails(&long(kind::PING, 0, 1, 8), E::PROTOCOL_ERROR);
    fails(&long(kind::GOAWAY, 0, 1, 8), E::PROTOCOL_ERROR);
    // Idle ones (§5.1).
    fails(&data(3, false, b"x"), E::PROTOCOL_ERROR);
    fails(&rst(3, E::CANCEL), E::PROTOCOL_ERROR);
    fails(&window_update(3, 1), E::PROTOCOL_ERROR);
    fails(&data(2, false, b"x"), E::PROTOCOL_ERROR);
    // Even, or going backwards (§5.1.1).
    fails(&get(2), E::PROTOCOL_ERROR);
    fails(&[get(5), get(3)].concat(), E::PROTOCOL_ERROR);
    fails(&frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), E::PROTOCOL_ERROR);
}

#[test]
fn settings_values() {
    use ErrorCode as E;
    fails(&settings(&[(2, 2)]), E::PROTOCOL_ERROR);
    fails(&settings(&[(4, 0x8000_0000)]), E::FLOW_CONTROL_ERROR);
    fails(&settings(&[(5, 16_383)]), E::PROTOCOL_ERROR);
    fails(&settings(&[(5, 0x0100_0000)]), E::PROTOCOL_ERROR);
    fails(&settings(&[(8, 2)]), E::PROTOCOL_ERROR);
    let mut bench = Bench::server();
    assert!(bench.receive(&settings(&[(2, 1), (5, 16_777_215), (6, 5), (8, 1), (0x4242, 7)])));
    assert_eq!(bench.take(), [Seen::SettingsChanged]);
    assert_eq!(
        bench.frames(),
        [(
            FrameHeader { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 },
            Vec::new()
        )]
    );
    assert!(bench.connection.peer_allows_extended_connect());
    assert_eq!(bench.connection.peer_max_header_list(), 5);
    assert!(!bench.receive(&settings(&[(8, 0)])), "RFC 8441 §3");
    let mut bench = Bench::client();
    assert!(!bench.receive(&settings(&[(2, 1)])), "a server must not");
}

#[test]
fn acknowledgements_are_awaited() {
    let mut bench = Bench::server();
    assert!(!bench.connection.overdue(11_000));
    assert!(bench.connection.overdue(11_001));
    assert!(bench.receive(&frame(kind::SETTINGS, flag::ACK, 0, &[])));
    assert!(!bench.connection.overdue(99_000));
    bench.connection.send_ping(99_000);
    let frames = bench.frames();
    assert_eq!(frames[0].0.kind, kind::PING);
    assert!(bench.connection.overdue(109_001));
    assert!(bench.receive(&frame(kind::PING, flag::ACK, 0, &[9; 8])), "not ours");
    assert!(bench.connection.overdue(109_001));
    assert!(bench.receive(&frame(kind::PING, flag::ACK, 0, &frames[0].1)));
    assert!(!bench.connection.overdue(109_001));
    assert_eq!(bench.take(), [Seen::PingAck]);
    assert!(bench.receive(&frame(kind::PING, 0, 0, b"12345678")));
    assert_eq!(
        bench.frames()[0],
        (
            FrameHeader { length: 8, kind: kind::PING, flags: flag::ACK, stream: 0 },
            b"12345678".to_vec()
        )
    );
}

#[test]
fn closed_streams() {
    use ErrorCode as E;
    // Half-closed (remote): a stream error.
    let mut bench = Bench::server();
    bench.receive(&get(1));
    resets(&mut bench, &data(1, false, b"x"), 1, E::STREAM_CLOSED);
    let mut bench = Bench::server();
    bench.receive(&get(1));
    resets(&mut bench, &get(1), 1, E::STREAM_CLOSED);
    // Closed by END_STREAM on both sides: the connection's end.
    for bytes in [data(1, true, b"x"), get(1)] {
        let mut bench = Bench::server();
        bench.receive(&get(1));
        bench.connection.send_head(1, &encoded_status(200), true).unwrap();
        assert!(bench.receive(&window_update(1, 9)), "may still be under way");
        assert!(bench.receive(&rst(1, E::CANCEL)), "may still be under way");
        assert!(bench.receive(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 0])));
        assert!(!bench.receive(&bytes));
        assert_eq!(bench.failure(), E::STREAM_CLOSED);
    }
    // Closed by the peer's RST_STREAM: a stream error.
    for bytes in [data(1, true, b"x"), get(1)] {
        let mut bench = Bench::server();
        bench.receive(&[headers(1, false, GET), rst(1, E::CANCEL)].concat());
        assert_eq!(bench.take().last(), Some(&Seen::Reset(1, E::CANCEL, true)));
        resets(&mut bench, &bytes, 1, E::STREAM_CLOSED);
    }
    // Closed by ours: ignored, but the compression state lives on.
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    bench.connection.reset(1, E::CANCEL);
    bench.take();
    bench.frames();
    let trailers = frame(kind::HEADERS, 5, 1, &[0x40, 1, b'a', 1, b'b']);
    assert!(bench.receive(&[data(1, false, b"x"), trailers, window_update(1, 0)].concat()));
    assert_eq!((bench.take(), bench.frames()), (vec![], vec![]));
    let mut request = block(GET);
    request.push(0xbe);
    assert!(bench.receive(&frame(kind::HEADERS, 5, 3, &request)));
    assert!(matches!(&bench.take()[..], [Seen::Head(3, fields, true)] if fields.len() == 5));
}

#[test]
fn header_blocks_are_not_interrupted() {
    use ErrorCode as E;
    let open = frame(kind::HEADERS, 0, 3, &block(GET));
    for other in [
        data(1, false, b"x"),
        get(5),
        frame(kind::CONTINUATION, 4, 1, b""),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(0xfa, 0, 0, b"x"),
    ] {
        fails(&[open.clone(), other].concat(), E::PROTOCOL_ERROR);
    }
    fails(&frame(kind::CONTINUATION, 4, 1, b""), E::PROTOCOL_ERROR);
    let mut bench = Bench::server();
    let bytes = block(GET);
    let (a, b) = bytes.split_at(11);
    assert!(bench.receive(&frame(kind::HEADERS, flag::END_STREAM, 1, a)));
    assert!(bench.receive(&frame(kind::CONTINUATION, 0, 1, b)));
    assert_eq!(bench.take(), []);
    assert!(bench.connection.partial_since().is_some());
    assert!(bench.receive(&frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"")));
    assert_eq!(bench.connection.partial_since(), None);
    assert!(matches!(bench.take()[..], [Seen::Head(1, _, true)]));
    fails(&frame(kind::HEADERS, 5, 3, &[0xff; 9]), E::COMPRESSION_ERROR);
}

#[test]
fn padding_and_priority() {
    use ErrorCode as E;
    let mut padded = vec![3];
    padded.extend(block(GET));
    padded.extend([0; 3]);
    let mut bench = Bench::server();
    assert!(bench.receive(&frame(kind::HEADERS, 5 | flag::PADDED, 1, &padded)));
    let mut prioritised = vec![0, 0, 0, 1, 7];
    prioritised.extend(block(GET));
    assert!(bench.receive(&frame(kind::HEADERS, 5 | flag::PRIORITY, 3, &prioritised)));
    assert!(bench.receive(&frame(kind::HEADERS, 4, 5, &block(GET))));
    bench.take();
    assert!(bench.receive(&frame(kind::DATA, 9, 5, b"\x02abc\0\0")));
    assert_eq!(bench.take(), [Seen::Data(5, b"abc".to_vec(), true)]);
    fails(&frame(kind::DATA, flag::PADDED, 1, b"\x04abc"), E::PROTOCOL_ERROR);
    fails(&frame(kind::DATA, flag::PADDED, 1, b""), E::FRAME_SIZE_ERROR);
    fails(&frame(kind::HEADERS, 5 | flag::PADDED, 3, &[9, 0x82]), E::PROTOCOL_ERROR);
    // A stream that depends on itself.
    let mut selfish = vec![0, 0, 0, 5, 7];
    selfish.extend(block(GET));
    let bytes = frame(kind::HEADERS, 5 | flag::PRIORITY, 5, &selfish);
    resets(&mut Bench::server(), &bytes, 5, E::PROTOCOL_ERROR);
    fails(&frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 3, 7]), E::PROTOCOL_ERROR);
}

#[test]
fn malformed_requests() {
    let with = |name: &'static str, value: &'static str| [GET, &[(name, value)]].concat();
    let without =
        |gone: &str| -> Vec<_> { GET.iter().copied().filter(|(name, _)| *name != gone).collect() };
    for fields in [
        with("Upper", "x"),
        with("with space", "x"),
        with("a:b", "x"),
        with("", "x"),
        with("a", "b\0"),
        with("a", "b\r\nc: d"),
        with("a", " b"),
        with("a", "b\t"),
        with("connection", "close"),
        with("keep-alive", "x"),
        with("proxy-connection", "x"),
        with("transfer-encoding", "chunked"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with(":status", "200"),
        with(":unknown", "x"),
        with(":path", "/again"),
        with(":protocol", "websocket"),
        with("content-length", "5"),
        with("content-length", "x"),
        with("content-length", "00"),
        with("host", "\u{7f}"),
        without(":method"),
        without(":path"),
        without(":scheme"),
        [&GET[..3], &[(":path", "")]].concat(),
        [&GET[..2], &[("a", "b")], &GET[2..]].concat(),
        [&[(":method", "G T")], &GET[1..]].concat(),
        [&[(":method", "CONNECT")], &GET[1..]].concat(),
        vec![(":method", "CONNECT")],
        [with("content-length", "0"), vec![("content-length", "0")]].concat(),
        [with("host", "a.test"), vec![("host", "a.test")]].concat(),
    ] {
        let mut bench = Bench::server();
        assert!(bench.receive(&headers(1, true, &fields)), "{fields:?}");
        assert_eq!(bench.take(), [], "{fields:?}");
        assert_eq!(bench.reset_sent(1), Some(ErrorCode::PROTOCOL_ERROR), "{fields:?}");
        assert!(bench.receive(&get(3)));
    }
    for fields in [
        with("te", "Trailers"),
        with("content-length", "0"),
        with("a", ""),
        with("host", "other.test"),
        without(":authority"),
        vec![(":method", "CONNECT"), (":authority", "a.test:443")],
        [&GET[..3], &[(":path", "*")]].concat(),
    ] {
        let mut bench = Bench::server();
        assert!(bench.receive(&headers(1, true, &fields)));
        assert!(matches!(bench.take()[..], [Seen::Head(1, ..)]), "{fields:?}");
    }
}

#[test]
fn extended_connect_where_announced() {
    let fields = [&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat();
    let mut bench = Bench::new(Config { extended_connect: true, ..Config::SERVER });
    assert!(bench.receive(&headers(1, false, &fields)));
    assert!(matches!(bench.take()[..], [Seen::Head(1, ..)]));
    resets(&mut bench, &headers(3, false, &fields[..3]), 3, ErrorCode::PROTOCOL_ERROR);
    resets(&mut Bench::server(), &headers(1, false, &fields), 1, ErrorCode::PROTOCOL_ERROR);
}

#[test]
fn content_length_is_what_comes() {
    let fields = [GET, &[("content-length", "3")]].concat();
    let head = headers(1, false, &fields);
    for good in [
        data(1, true, b"abc"),
        [data(1, false, b"ab"), data(1, true, b"c")].concat(),
        [data(1, false, b"abc"), headers(1, true, &[("x", "y")])].concat(),
    ] {
        let mut bench = Bench::server();
        assert!(bench.receive(&[head.clone(), good].concat()));
        assert_eq!(bench.reset_sent(1), None);
    }
    for bad in [
        data(1, true, b"ab"),
        data(1, false, b"abcd"),
        data(1, true, b""),
        [data(1, false, b"ab"), headers(1, true, &[("x", "y")])].concat(),
    ] {
        let mut bench = Bench::server();
        resets(&mut bench, &[head.clone(), bad].concat(), 1, ErrorCode::PROTOCOL_ERROR);
        assert!(bench.take().contains(&Seen::Reset(1, ErrorCode::PROTOCOL_ERROR, false)));
    }
}

#[test]
fn trailers() {
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    bench.take();
    assert!(bench.receive(&headers(1, true, &[("x", "y")])));
    assert_eq!(bench.take(), [Seen::Trailers(1, vec![("x".to_owned(), "y".to_owned())])]);
    for (end, fields) in [(false, ("x", "y")), (true, (":path", "/")), (true, ("te", "x"))] {
        let mut bench = Bench::server();
        bench.receive(&headers(1, false, GET));
        resets(&mut bench, &headers(1, end, &[fields]), 1, ErrorCode::PROTOCOL_ERROR);
    }
}

#[test]
fn responses() {
    let request = |kind| {
        let mut bench = Bench::client();
        assert_eq!(bench.connection.open(&block(GET), true, kind), Ok(1));
        bench.frames();
        bench
    };
    use RequestKind::{Connect, Head, Plain};
    let with = |code, length| headers(1, true, &[(":status", code), ("content-length", length)]);
    for (kind, good) in [
        (Plain, headers(1, true, &status("200"))),
        (Plain, with("304", "9")),
        (Plain, with("204", "9")),
        (Head, with("200", "9")),
        (Connect, headers(1, false, &[(":status", "200"), ("content-length", "9")])),
        (Plain, [headers(1, false, &status("103")), headers(1, true, &status("200"))].concat()),
        (Plain, [headers(1, false, &status("200")), data(1, true, b"x")].concat()),
        (Plain, [headers(1, false, &status("200")), headers(1, true, &[("a", "b")])].concat()),
    ] {
        let mut bench = request(kind);
        assert!(bench.receive(&good));
        assert_eq!(bench.reset_sent(1), None);
        assert!(matches!(bench.take().first(), Some(Seen::Head(1, ..))));
    }
    for (kind, bad) in [
        (Plain, headers(1, true, &[])),
        (Plain, headers(1, true, GET)),
        (Plain, headers(1, true, &status("20"))),
        (Plain, headers(1, true, &status("2000"))),
        (Plain, headers(1, true, &status("099"))),
        (Plain, headers(1, true, &status("101"))),
        (Plain, headers(1, true, &status("100"))),
        (Plain, headers(1, true, &[(":status", "200"), (":status", "200")])),
        (Plain, with("200", "9")),
        (Plain, data(1, true, b"x")),
        (Plain, [headers(1, false, &status("103")), data(1, true, b"x")].concat()),
        (Head, [headers(1, false, &status("200")), data(1, true, b"x")].concat()),
        (Plain, [headers(1, false, &status("204")), data(1, true, b"x")].concat()),
        (Plain, [headers(1, false, &status("200")), headers(1, false, &status("200"))].concat()),
    ] {
        let mut bench = request(kind);
        assert!(bench.receive(&bad), "{bad:?}");
        assert_eq!(bench.reset_sent(1), Some(ErrorCode::PROTOCOL_ERROR), "{bad:?}");
        assert!(bench.take().contains(&Seen::Reset(1, ErrorCode::PROTOCOL_ERROR, false)));
    }
    for bad in [headers(3, true, &status("200")), headers(2, true, &status("200"))] {
        let mut bench = request(Plain);
        assert!(!bench.receive(&bad));
        assert_eq!(bench.failure(), ErrorCode::PROTOCOL_ERROR);
    }
}

#[test]
fn a_client_respects_the_number_of_streams() {
    let mut bench = Bench::client();
    let open = |bench: &mut Bench| bench.connection.open(&block(GET), true, RequestKind::Plain);
    assert!(bench.receive(&settings(&[(3, 2)])));
    assert_eq!(bench.connection.available_streams(), 2);
    assert_eq!((open(&mut bench), open(&mut bench)), (Ok(1), Ok(3)));
    assert_eq!(open(&mut bench), Err(OpenError::NoCapacity));
    assert!(bench.receive(&headers(1, true, &status("200"))));
    assert_eq!(open(&mut bench), Ok(5));
}

#[test]
fn goaway() {
    // A client: streams above the last one can be tried elsewhere.
    let mut bench = Bench::client();
    for _ in 0..3 {
        bench.connection.open(&block(GET), true, RequestKind::Plain).unwrap();
    }
    bench.take();
    assert!(bench.receive(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])));
    assert_eq!(
        bench.take(),
        [
            Seen::GoingAway(1, ErrorCode::NO_ERROR),
            Seen::Reset(3, ErrorCode::REFUSED_STREAM, true),
            Seen::Reset(5, ErrorCode::REFUSED_STREAM, true),
        ]
    );
    let again = bench.connection.open(&block(GET), true, RequestKind::Plain);
    assert_eq!(again, Err(OpenError::GoingAway));
    assert!(bench.receive(&headers(1, true, &status("200"))));
    assert!(bench.connection.is_idle());
    // A server: first "no more, please", then the last stream.
    let mut bench = Bench::server();
    bench.receive(&get(1));
    bench.connection.shut_down();
    assert_eq!(bench.frames()[0].1, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(bench.receive(&get(3)), "was under way");
    bench.connection.finish_shutdown();
    assert_eq!(bench.frames()[0].1, [0, 0, 0, 3, 0, 0, 0, 0]);
    bench.take();
    assert!(bench.receive(&[headers(5, false, GET), data(5, true, b"x")].concat()));
    assert_eq!(bench.take(), [], "ignored");
    assert_eq!(bench.connection.stream_count(), 2);
}

#[test]
fn a_smaller_header_table_of_the_peer_is_confirmed() {
    let mut bench = Bench::server();
    bench.receive(&settings(&[(1, 0)]));
    bench.receive(&[get(1), get(3)].concat());
    bench.frames();
    bench.connection.send_head(1, &encoded_status(200), true).unwrap();
    bench.connection.send_head(3, &encoded_status(200), true).unwrap();
    let frames = bench.frames();
    assert_eq!((&frames[0].1[..], &frames[1].1[..]), (&[0x20, 0x88][..], &[0x88][..]));
}

#[test]
fn large_blocks_are_cut() {
    let mut bench = Bench::server();
    bench.receive(&get(1));
    let large = block(&[("a", "~!~"); 10_000]);
    bench.connection.send_head(1, &large, true).unwrap();
    let frames = bench.frames();
    assert!(frames.len() > 2 && frames.iter().all(|(header, _)| header.length <= 16_384));
    let kinds: Vec<_> = frames.iter().map(|(header, _)| (header.kind, header.flags)).collect();
    assert_eq!(kinds.first(), Some(&(kind::HEADERS, flag::END_STREAM)));
    assert_eq!(kinds.last(), Some(&(kind::CONTINUATION, flag::END_HEADERS)));
    assert_eq!(frames.iter().flat_map(|(_, part)| part.clone()).collect::<Vec<_>>(), large);
}
