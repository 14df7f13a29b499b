use super::*;
use crate::sealed::seal;
use rustix::io::pwrite;

const SHARDS: u16 = 3;

fn pair() -> (OwnedFd, Segment, Segment) {
    let (fd, created) = Segment::create(SHARDS, MIN_RING).unwrap();
    let opened = Segment::open(&fd).unwrap();
    (fd, created, opened)
}

#[test]
fn two_mappings_see_the_same() {
    let (fd, a, b) = pair();
    drop(fd);
    assert_eq!((b.shards(), b.ring_bytes()), (SHARDS, MIN_RING));
    a.publish(7);
    assert_eq!(b.epoch(), 7);
    assert_eq!(b.wait_epoch(0, Duration::from_secs(10)), 7);
    for shard in 0..SHARDS {
        let (wrote, reads) = (a.shard(shard), b.shard(shard));
        assert_eq!(reads.state(), ShardState::Absent);
        wrote.set_adopted(u64::from(shard) + 1);
        wrote.beat(u64::from(shard) + 2);
        wrote.set_state(ShardState::Serving);
        wrote.count(Counter::DriverWaits, 2);
        wrote.count(Counter::DriverWaits, u64::from(shard));
    }
    for shard in 0..SHARDS {
        let reads = b.shard(shard);
        assert_eq!(reads.adopted(), u64::from(shard) + 1);
        assert_eq!(reads.heartbeat(), u64::from(shard) + 2);
        assert_eq!(reads.state(), ShardState::Serving);
        let counters = reads.counters();
        assert_eq!(counters[Counter::DriverWaits as usize], 2 + u64::from(shard));
        assert_eq!(counters.iter().sum::<u64>(), 2 + u64::from(shard));
    }
}

#[test]
fn a_wake_crosses_mappings() {
    let (_fd, a, b) = pair();
    let waiter = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 3 {
            seen = b.wait_epoch(seen, Duration::from_secs(20));
        }
    });
    for epoch in 1..=3 {
        a.publish(epoch);
    }
    waiter.join().unwrap();
}

#[test]
fn a_new_engine_closes_what_the_last_left_open() {
    let (_fd, a, _b) = pair();
    let shard = a.shard(1);
    shard.count(Counter::Accepted, 10);
    shard.count(Counter::Closed, 4);
    shard.set_adopted(9);
    shard.set_state(ShardState::Serving);
    shard.start(123);
    assert_eq!(shard.get(Counter::Closed), 10);
    assert_eq!((shard.adopted(), shard.heartbeat()), (0, 123));
    assert_eq!(shard.state(), ShardState::Starting);
}

#[test]
fn one_writer_and_one_reader_per_shard() {
    let (_fd, a, b) = pair();
    let writer = a.ring_writer(0).unwrap();
    assert!(a.clone().ring_writer(0).is_none());
    let _other = a.ring_writer(1).unwrap();
    let reader = a.ring_reader(0).unwrap();
    assert!(a.ring_reader(0).is_none());
    assert!(b.ring_reader(0).is_some(), "another mapping stands for another process");
    drop((writer, reader));
    assert!(a.ring_writer(0).is_some() && a.ring_reader(0).is_some());
    assert!(a.ring_writer(SHARDS).is_none());
}

#[test]
fn an_end_outlives_the_segment() {
    let (fd, a, b) = pair();
    let mut writer = a.ring_writer(2).unwrap();
    let shard = a.shard(2);
    drop((fd, a));
    assert!(writer.push(b"still here"));
    shard.count(Counter::RecordsPushed, 1);
    let mut got = Vec::new();
    b.ring_reader(2).unwrap().drain(|message| got.push(message.to_vec()));
    assert_eq!(got, [b"still here"]);
}

#[test]
fn the_size_is_sealed() {
    let (fd, _a, _b) = pair();
    assert!(ftruncate(&fd, 0).is_err());
    assert!(ftruncate(&fd, 1 << 30).is_err());
}

#[test]
fn impossible_layouts_are_not_created() {
    for (shards, ring) in [
        (0, MIN_RING),
        (MAX_SHARDS + 1, MIN_RING),
        (1, MIN_RING / 2),
        (1, MIN_RING + 8),
        (1, MAX_RING * 2),
    ] {
        let error = Segment::create(shards, ring).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn what_is_no_segment_is_refused() {
    let refuse = |change: &dyn Fn(&OwnedFd)| {
        let (fd, _segment) = Segment::create(1, MIN_RING).unwrap();
        change(&fd);
        Segment::open(&fd).err().unwrap()
    };
    let put = |at: u64, value: u32| {
        refuse(&move |fd| assert_eq!(pwrite(fd, &value.to_le_bytes(), at), Ok(4)))
    };
    assert!(matches!(put(0, 0), SegmentError::Magic { .. }));
    let version = put(8, 99);
    assert!(matches!(version, SegmentError::Version { found: 99 }));
    assert!(version.to_string().contains("restart `sluice up`"), "{version}");
    assert!(matches!(put(12, 0), SegmentError::Layout { shards: 0, .. }));
    assert!(matches!(put(12, 2), SegmentError::Size { .. }));
    assert!(matches!(put(16, 100), SegmentError::Layout { ring_bytes: 100, .. }));
    assert!(matches!(put(16, MIN_RING * 2), SegmentError::Size { .. }));
    assert!(matches!(put(20, 1), SegmentError::Layout { counters: 1, .. }));
    let sealed = seal(&[0; 64]).unwrap();
    assert!(matches!(Segment::open(&sealed), Err(SegmentError::Size { found: 64 })));
    let open = memory_file("open").unwrap();
    ftruncate(&open, PAGE as u64).unwrap();
    assert!(matches!(Segment::open(&open), Err(SegmentError::NotSealed)));
}
