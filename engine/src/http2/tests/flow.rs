//! Flow control, both ways.

use super::*;
use crate::limits;

fn total(seen: &[Seen]) -> usize {
    seen.iter().map(|seen| if let Seen::Data(_, data, _) = seen { data.len() } else { 0 }).sum()
}

/// DATA bytes among frames.
fn sent(frames: &[(FrameHeader, Vec<u8>)]) -> usize {
    let data = frames.iter().filter(|(header, _)| header.kind == kind::DATA);
    data.map(|(_, payload)| payload.len()).sum()
}

fn answering(bench: &mut Bench, ids: &[StreamId]) {
    for &id in ids {
        assert!(bench.receive(&get(id)));
        bench.connection.send_head(id, &encoded_status(200), false).unwrap();
    }
    bench.frames();
    bench.take();
}

#[test]
fn no_more_is_sent_than_the_windows_allow() {
    let mut bench = Bench::server();
    answering(&mut bench, &[1]);
    assert_eq!(bench.connection.capacity(1), 65_535);
    assert_eq!(bench.connection.send_data(1, &[b'x'; 70_000], true), Ok(65_535));
    let frames = bench.frames();
    assert_eq!(sent(&frames), 65_535);
    assert!(frames.iter().all(|(header, _)| header.length <= 16_384 && header.flags == 0));
    assert_eq!(bench.take(), []);
    // The stream's window alone is not enough, nor is the connection's alone.
    assert!(bench.receive(&window_update(1, 5_000)));
    assert_eq!(bench.take(), []);
    assert!(bench.receive(&window_update(0, 4_000)));
    assert_eq!(bench.take(), [Seen::Writable(1)]);
    assert_eq!(bench.connection.send_data(1, &[b'x'; 4_465], true), Ok(4_000));
    assert!(bench.receive(&window_update(0, 10_000)));
    assert_eq!(bench.take(), [Seen::Writable(1)]);
    assert_eq!(bench.connection.send_data(1, &[b'x'; 465], true), Ok(465));
    let frames = bench.frames();
    let (last, _) = frames.last().unwrap();
    assert!(last.has(flag::END_STREAM));
    assert_eq!(bench.connection.stream_count(), 0);
    assert_eq!(bench.connection.send_data(1, b"x", true), Err(Gone));
}

#[test]
fn the_end_needs_no_window() {
    let mut bench = Bench::server();
    answering(&mut bench, &[1, 3]);
    assert_eq!(bench.connection.send_data(1, &[0; 65_535], false), Ok(65_535));
    assert_eq!(bench.connection.send_data(1, b"", true), Ok(0));
    assert_eq!(bench.connection.send_data(3, b"x", true), Ok(0));
    assert_eq!(bench.connection.stream_count(), 1);
}

#[test]
fn the_output_is_bounded_and_taking_it_makes_room() {
    let mut bench = Bench::server();
    bench.receive(&settings(&[(4, 0x7fff_ffff)]));
    bench.receive(&window_update(0, 0x7000_0000));
    answering(&mut bench, &[1]);
    let n = bench.connection.send_data(1, &vec![0; 1 << 20], true).unwrap();
    assert!(n <= limits::H2_OUTPUT && n > limits::H2_OUTPUT / 2);
    assert_eq!(bench.connection.capacity(1), 0);
    assert_eq!(bench.take(), []);
    bench.frames();
    assert_eq!(bench.take(), [Seen::Writable(1)]);
}

#[test]
fn who_has_waited_longest_is_first() {
    let mut bench = Bench::server();
    bench.receive(&settings(&[(4, 1 << 20)]));
    answering(&mut bench, &[1, 3, 5]);
    let mut served = Vec::new();
    let mut turn = vec![1, 3, 5];
    for _ in 0..6 {
        for &id in &turn {
            if bench.connection.send_data(id, &[0; 100_000], false).unwrap() > 0 {
                served.push(id);
            }
        }
        bench.frames();
        bench.take();
        bench.receive(&window_update(0, 1_000));
        let id = |seen: &Seen| if let Seen::Writable(id) = seen { Some(*id) } else { None };
        turn = bench.take().iter().filter_map(id).collect();
    }
    assert_eq!(served, [1, 3, 5, 1, 3, 5]);
}

#[test]
fn a_changed_initial_window_applies_to_open_streams() {
    let mut bench = Bench::server();
    answering(&mut bench, &[1]);
    assert_eq!(bench.connection.send_data(1, &[0; 30_000], false), Ok(30_000));
    assert!(bench.receive(&settings(&[(4, 20_000)])));
    assert_eq!(bench.connection.capacity(1), 0, "10,000 below zero (RFC 9113 §6.9.2)");
    assert_eq!(bench.connection.send_data(1, b"x", false), Ok(0));
    bench.take();
    assert!(bench.receive(&window_update(1, 10_000)));
    assert_eq!(bench.take(), []);
    assert!(bench.receive(&window_update(1, 1)));
    assert_eq!(bench.take(), [Seen::Writable(1)]);
    assert!(bench.receive(&settings(&[(4, 40_000)])));
    assert_eq!(bench.connection.capacity(1), 20_001);
    // With an overflow.
    assert!(bench.receive(&window_update(1, 0x7fff_ffff - 30_001)));
    assert!(!bench.receive(&settings(&[(4, 60_000)])));
    assert_eq!(bench.failure(), ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn overflowing_windows_are_errors() {
    let mut bench = Bench::server();
    bench.receive(&get(1));
    assert!(bench.receive(&window_update(1, 0x7fff_ffff)));
    assert_eq!(bench.reset_sent(1), Some(ErrorCode::FLOW_CONTROL_ERROR));
    assert!(!bench.receive(&window_update(0, 0x7fff_ffff)));
    assert_eq!(bench.failure(), ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn credit_comes_back_as_it_is_released_and_windows_grow() {
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    let (mut told, mut told_connection, mut received) = (0u64, 0u64, 0u64);
    for _ in 0..2_000 {
        assert!(bench.receive(&data(1, false, &[b'x'; 16_384])));
        received += 16_384;
        let n = total(&bench.take());
        assert_eq!(n, 16_384);
        bench.connection.release(1, n);
        for (header, payload) in bench.frames() {
            assert_eq!(header.kind, kind::WINDOW_UPDATE);
            let increment = u64::from(u32::from_be_bytes(payload.try_into().unwrap()));
            match header.stream {
                0 => told_connection += increment,
                _ => told += increment,
            }
        }
    }
    let window = 65_536 + told - received;
    assert!(window > 512 * 1024 && window <= 1024 * 1024, "{window}");
    assert!(received - told_connection < 512 * 1024);
    assert_eq!(bench.connection.unreleased(), 0);
}

#[test]
fn windows_do_not_grow_for_readers_who_do_not_read() {
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    for _ in 0..4 {
        assert!(bench.receive(&data(1, false, &[b'x'; 16_384])));
    }
    assert_eq!(bench.frames(), []);
    assert!(bench.receive(&data(1, false, b"x")), "a stream error only");
    assert_eq!(bench.reset_sent(1), Some(ErrorCode::FLOW_CONTROL_ERROR));
    // What was received still counts for the connection until it is released.
    assert_eq!(bench.connection.unreleased(), 65_536);
    bench.connection.release(1, 65_536);
    assert_eq!(bench.connection.unreleased(), 0);
}

#[test]
fn more_than_the_connections_window_is_its_end() {
    let config = Config { connection_window: 65_535, stream_window: 1 << 20, ..Config::SERVER };
    let mut bench = Bench::new(config);
    bench.receive(&headers(1, false, GET));
    for _ in 0..3 {
        assert!(bench.receive(&data(1, false, &[b'x'; 16_384])));
    }
    assert!(!bench.receive(&data(1, false, &[b'x'; 16_384])));
    assert_eq!(bench.failure(), ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn padding_and_ignored_data_give_their_credit_back() {
    let config = Config { connection_window: 65_535, ..Config::SERVER };
    let mut bench = Bench::new(config);
    bench.receive(&headers(1, false, GET));
    bench.receive(&headers(3, false, GET));
    bench.connection.reset(3, ErrorCode::CANCEL);
    let mut padded = vec![255];
    padded.extend_from_slice(b"x");
    padded.extend_from_slice(&[0; 255]);
    bench.take();
    for _ in 0..1_000 {
        assert!(bench.receive(&frame(kind::DATA, flag::PADDED, 1, &padded)));
        assert!(bench.receive(&data(3, false, &[0; 1_000])));
        assert_eq!(bench.take(), [Seen::Data(1, b"x".to_vec(), false)]);
        bench.connection.release(1, 1);
        bench.frames();
    }
}

#[test]
fn a_stream_reset_in_the_middle_of_a_frame_gives_its_credit_back() {
    let mut bench = Bench::server();
    bench.receive(&headers(1, false, GET));
    bench.take();
    let bytes = data(1, true, &[b'x'; 1_000]);
    assert!(bench.receive(&bytes[..509]));
    assert_eq!(total(&bench.take()), 500);
    bench.connection.reset(1, ErrorCode::CANCEL);
    assert!(bench.receive(&bytes[509..]));
    assert_eq!(bench.take(), []);
    assert_eq!(bench.connection.unreleased(), 500);
    bench.connection.release(1, 500);
    assert_eq!(bench.connection.unreleased(), 0);
    assert!(bench.receive(&get(3)));
}
