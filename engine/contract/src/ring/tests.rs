use super::*;
use crate::record::{MAX_TEXT, Record};
use crate::segment::Segment;
use crate::targets::Table;
use proptest::prelude::*;
use rustix::io::{pread, pwrite};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

const PAGE: u64 = 4096;
/// Where the first shard's page lies in the segment, and its ring; see `segment.rs`.
const SHARD: u64 = PAGE + size_of::<Table>() as u64;
const BUFFER: u64 = SHARD + PAGE;

struct Rig {
    fd: OwnedFd,
    segment: Segment,
}

impl Rig {
    fn new() -> Rig {
        let (fd, segment) = Segment::create(1, MIN_RING).unwrap();
        Rig { fd, segment }
    }

    fn ends(&self) -> (RingWriter, RingReader) {
        (self.segment.ring_writer(0).unwrap(), self.segment.ring_reader(0).unwrap())
    }

    fn tail_at(&self) -> u64 {
        // The only word of the shard's page that moves with a push.
        let page = || {
            let mut page = [0; PAGE as usize];
            assert_eq!(pread(&self.fd, &mut page, SHARD), Ok(page.len()));
            page
        };
        let before = page();
        assert!(self.segment.ring_writer(0).unwrap().push(b"x"));
        let after = page();
        let moved = (0..before.len()).find(|at| before[*at] != after[*at]).unwrap();
        SHARD + (moved as u64 & !7)
    }

    fn scribble(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.fd, bytes, at), Ok(bytes.len()));
    }
}

fn drained(reader: &mut RingReader) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let count = reader.drain(|message| got.push(message.to_vec()));
    assert_eq!(count, got.len());
    got
}

#[test]
fn messages_of_any_length_arrive_in_order() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    assert_eq!(reader.drain(|_| panic!("empty")), 0);
    for len in (0..200).chain([MAX_MESSAGE - 1, MAX_MESSAGE]) {
        let message = vec![len as u8; len];
        assert!(writer.push(&message), "{len}");
        assert_eq!(drained(&mut reader), [message]);
    }
    assert!(!writer.push(&vec![0; MAX_MESSAGE + 1]));
    assert_eq!(drained(&mut reader), Vec::<Vec<u8>>::new());
    assert_eq!(reader.corruptions(), 0);
}

#[test]
fn a_full_ring_refuses_and_recovers() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    // 24 bytes do not divide the buffer, so each round begins elsewhere and the end is skipped.
    for round in 0..50u8 {
        let mut pushed = 0;
        while writer.push(&[round; 9]) {
            pushed += 1;
        }
        assert!(pushed >= MIN_RING as usize / 24 - 1, "{pushed}");
        assert_eq!(drained(&mut reader), vec![vec![round; 9]; pushed]);
    }
    assert_eq!(reader.corruptions(), 0);
}

#[test]
fn what_is_not_filled_is_not_there() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    assert!(!writer.push_with(100, |_| None));
    assert!(writer.push_with(100, |room| {
        room[..2].copy_from_slice(b"ab");
        Some(2)
    }));
    assert!(writer.push(b"c"));
    assert_eq!(drained(&mut reader), [&b"ab"[..], b"c"]);
}

#[test]
fn records_go_through_in_place() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    let long = [b'a'; MAX_TEXT];
    let record = Record { status: 200, path: b"/users/7", user_agent: &long, ..Record::default() };
    assert!(writer.push_record(&record));
    let mut count = 0;
    reader.drain(|bytes| {
        assert_eq!(Record::decode(bytes), Some(record));
        count += 1;
    });
    assert_eq!(count, 1);
}

#[test]
fn restarted_ends_continue() {
    let rig = Rig::new();
    for n in 0..5_000u32 {
        let (mut writer, mut reader) = rig.ends();
        assert!(writer.push(&n.to_le_bytes()));
        assert!(writer.push(&[n as u8; 77]));
        if n % 3 == 0 {
            // This reader dies with messages in the ring; the next one gets them.
            drop(reader);
            reader = rig.segment.ring_reader(0).unwrap();
        }
        assert_eq!(drained(&mut reader), [n.to_le_bytes().to_vec(), vec![n as u8; 77]]);
        assert_eq!(reader.corruptions(), 0);
    }
}

#[test]
fn a_panic_in_the_taker_repeats_nothing() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    assert!(writer.push(b"first") && writer.push(b"second"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reader.drain(|message| assert_ne!(message, b"first"));
    }));
    assert!(panicked.is_err());
    assert_eq!(drained(&mut reader), [b"second"]);
}

#[test]
fn a_corrupt_header_is_skipped_and_counted() {
    let lies: [u64; 5] = [
        u64::MAX,
        header(5) ^ 1 << 40,
        header(MAX_MESSAGE as u32 + 1),
        // More than the writer wrote.
        header(MAX_MESSAGE as u32),
        // A skip past the writer's tail.
        header(SKIP),
    ];
    for lie in lies {
        let rig = Rig::new();
        let (mut writer, mut reader) = rig.ends();
        assert!(writer.push(b"lost") && writer.push(b"lost too"));
        rig.scribble(BUFFER, &lie.to_le_bytes());
        assert_eq!(drained(&mut reader), Vec::<Vec<u8>>::new());
        assert_eq!(reader.corruptions(), 1, "{lie:#x}");
        assert!(writer.push(b"found"));
        assert_eq!(drained(&mut reader), [b"found"]);
        assert_eq!(reader.corruptions(), 1);
    }
}

#[test]
fn a_corrupt_tail_is_survived_and_mended_by_the_next_writer() {
    for lie in [3u64, u64::MAX, u64::from(MIN_RING) + 64, 1 << 40] {
        let rig = Rig::new();
        let tail_at = rig.tail_at();
        let mut reader = rig.segment.ring_reader(0).unwrap();
        assert_eq!(drained(&mut reader), [b"x"]);
        rig.scribble(tail_at, &lie.to_le_bytes());
        assert_eq!(drained(&mut reader), Vec::<Vec<u8>>::new());
        assert_eq!(reader.corruptions(), 1, "{lie:#x}");
        // Whatever the reader thinks, a new writer and it come together again.
        let mut writer = rig.segment.ring_writer(0).unwrap();
        let mut arrived = Vec::new();
        for n in 0..4u8 {
            writer.push(&[n]);
            arrived.extend(drained(&mut reader));
        }
        assert_eq!(arrived.last(), Some(&vec![3]), "{lie:#x}: {arrived:?}");
    }
}

#[test]
fn two_threads_lose_nothing_that_was_accepted() {
    let rig = Rig::new();
    let (mut writer, mut reader) = rig.ends();
    const MESSAGES: u32 = 200_000;
    let producer = std::thread::spawn(move || {
        for n in 0..MESSAGES {
            let len = 4 + n as usize % 250;
            let mut message = vec![n as u8; len];
            message[..4].copy_from_slice(&n.to_le_bytes());
            while !writer.push(&message) {
                std::thread::yield_now();
            }
        }
    });
    let mut next = 0u32;
    while next < MESSAGES {
        let taken = reader.drain(|message| {
            assert_eq!(message[..4], next.to_le_bytes());
            assert_eq!(message.len(), 4 + next as usize % 250);
            assert!(message[4..].iter().all(|byte| *byte == next as u8));
            next += 1;
        });
        if taken == 0 {
            assert!(next == MESSAGES || !producer.is_finished() || reader.drain(|_| next += 1) > 0);
            std::thread::yield_now();
        }
    }
    producer.join().unwrap();
    assert_eq!(reader.corruptions(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a queue that holds what was accepted, with ends that are taken anew at times.
    #[test]
    fn the_ring_is_a_queue(steps in prop::collection::vec((0..=MAX_MESSAGE, 0..8u8), 1..200)) {
        let rig = Rig::new();
        let (mut writer, mut reader) = rig.ends();
        let mut model = VecDeque::new();
        for (n, (len, step)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    prop_assert_eq!(drained(&mut reader), model.drain(..).collect::<Vec<_>>());
                    // Empty, it takes whatever is allowed.
                    prop_assert!(writer.push(&vec![0; len]));
                    model.push_back(vec![0; len]);
                }
                1 => {
                    drop((writer, reader));
                    (writer, reader) = rig.ends();
                }
                _ => {
                    let message = vec![n as u8; len];
                    if writer.push(&message) {
                        model.push_back(message);
                    }
                }
            }
        }
        prop_assert_eq!(drained(&mut reader), Vec::from(model));
        prop_assert_eq!(reader.corruptions(), 0);
    }

    /// Memory full of noise: the reader ends, and the ring works again.
    #[test]
    fn noise_in_the_ring_never_panics(
        noise in prop::collection::vec(any::<u64>(), 1..64),
        lens in prop::collection::vec(0..3000u32, 1..64),
        tail in 0..4096u64,
    ) {
        let rig = Rig::new();
        let tail_at = rig.tail_at();
        let mut bytes = Vec::new();
        for (noise, len) in noise.iter().zip(&lens) {
            // Some headers right, so that the reader gets past the first.
            bytes.extend_from_slice(&header(*len).to_le_bytes());
            bytes.extend_from_slice(&noise.to_le_bytes());
        }
        rig.scribble(BUFFER, &bytes);
        rig.scribble(tail_at, &tail.to_le_bytes());
        let mut reader = rig.segment.ring_reader(0).unwrap();
        reader.drain(|message| assert!(message.len() <= MAX_MESSAGE));
        let mut writer = rig.segment.ring_writer(0).unwrap();
        reader.drain(|_| {});
        prop_assert!(writer.push(b"works"));
        prop_assert_eq!(drained(&mut reader), vec![b"works".to_vec()]);
    }
}
