//! What a shard tells control: exact counters in shared memory, and one record per request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use contract::record::{Reason, Record, RetryStop};
use contract::ring::RingWriter;
use contract::{Counter, KeyUse, ShardState, ShardView};

use crate::auth::Identity;
use crate::io::Io;
use crate::message::Version;

/// A shard's counters, and its ring of records and of uses of API keys.
pub struct Meter {
    counters: ShardView,
    ring: RefCell<RingWriter>,
    /// What of the reactor's counts is in the counters already.
    told: Cell<[u64; 7]>,
}

impl Meter {
    pub fn new(counters: ShardView, ring: RingWriter) -> Meter {
        Meter { counters, ring: RefCell::new(ring), told: Cell::default() }
    }

    #[inline]
    pub fn count(&self, counter: Counter, n: u64) {
        self.counters.count(counter, n);
    }

    pub fn adopted(&self, epoch: u64) {
        self.counters.count(Counter::PlanSwaps, 1);
        self.counters.set_adopted(epoch);
    }

    pub fn closed(&self) {
        self.counters.count(Counter::Closed, 1);
    }

    /// The shard takes its place: nothing adopted yet.
    pub fn start(&self, io: &Io) {
        self.counters.start(io.clock().now_ms());
    }

    pub fn state(&self, state: ShardState) {
        self.counters.set_state(state);
    }

    /// Brings the counters up to what the reactor counted, and shows that the shard lives.
    pub fn housekeeping(&self, io: &Io) {
        let counts = io.counts();
        let pairs = [
            (Counter::DriverEnters, &counts.enters),
            (Counter::DriverWaits, &counts.waits),
            (Counter::BuffersExhausted, &counts.starved),
            (Counter::OneShotRecvs, &counts.one_shot),
            (Counter::CqOverflows, &counts.overflows),
            (Counter::ShortSends, &counts.short_sends),
            (Counter::Panics, &counts.panics),
        ];
        let mut told = self.told.get();
        for ((counter, count), told) in pairs.into_iter().zip(&mut told) {
            self.count(counter, count.get() - *told);
            *told = count.get();
        }
        self.told.set(told);
        self.counters.beat(io.clock().now_ms());
    }

    /// Tells control that a key was used. False: the ring is full, to be told again.
    pub fn used(&self, used: &KeyUse) -> bool {
        self.ring.borrow_mut().push(&used.encode())
    }

    /// Counts a finished request and hands its record to control; a full ring drops it and counts.
    #[inline]
    pub fn record(&self, record: &Record<'_>) {
        if record.status != 0 {
            self.count(Counter::of_status(record.status), 1);
        }
        self.count(Counter::Requests, 1);
        self.count(Counter::ClientBytesIn, record.request_bytes);
        self.count(Counter::ClientBytesOut, record.response_bytes);
        let pushed = self.ring.borrow_mut().push_record(record);
        self.count(if pushed { Counter::RecordsPushed } else { Counter::RecordsDropped }, 1);
    }
}

/// What a request tells of itself as it goes on; becomes its record.
#[derive(Default)]
pub struct Notes {
    /// Method, host, path and user agent, end to end.
    text: Vec<u8>,
    ends: [usize; 4],
    pub started_us: u64,
    pub connect_us: u32,
    pub first_byte_us: u32,
    pub route: Option<u32>,
    pub upstream: Option<u32>,
    pub target: Option<std::net::SocketAddr>,
    pub attempts: u8,
    pub retry_stopped: RetryStop,
    pub reason: Reason,
    pub version: Version,
    pub request_bytes: u64,
    /// Who called, once it is known, let in or not. (Not the name: shards share it, and would fight for
    /// its count of references with every request.)
    pub caller: Option<Rc<Identity>>,
}

impl Notes {
    pub fn new(started_us: u64, version: Version, text: Vec<u8>, parts: [&[u8]; 4]) -> Notes {
        let mut notes = Notes { started_us, version, text, ..Notes::default() };
        for (part, end) in parts.into_iter().zip(&mut notes.ends) {
            let cut = part.len().min(contract::record::MAX_TEXT);
            notes.text.extend_from_slice(part.get(..cut).unwrap_or_default());
            *end = notes.text.len();
        }
        notes
    }

    fn part(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..self.ends[index]).unwrap_or_default()
    }

    /// The record of the finished request.
    pub fn record<'a>(&'a self, io: &Io, end: End<'a>) -> Record<'a> {
        let duration = io.clock().now_us().saturating_sub(self.started_us);
        Record {
            time_us: io.clock().wall_us(),
            duration_us: u32::try_from(duration).unwrap_or(u32::MAX),
            first_byte_us: self.first_byte_us,
            connect_us: self.connect_us,
            epoch: end.epoch,
            route: self.route.unwrap_or(u32::MAX),
            upstream: self.upstream.unwrap_or(u32::MAX),
            status: end.status,
            reason: self.reason,
            attempts: self.attempts,
            retry_stopped: self.retry_stopped,
            version: self.version.number(),
            request_bytes: self.request_bytes,
            response_bytes: end.response_bytes,
            client: Some(end.client),
            target: self.target,
            request_id: end.request_id,
            method: self.part(0),
            host: self.part(1),
            path: self.part(2),
            user_agent: self.part(3),
            consumer: self.caller.as_ref().map_or(&[], |caller| caller.id.as_bytes()),
        }
    }

    /// The memory, for reuse.
    pub fn into_text(self) -> Vec<u8> {
        self.text
    }
}

/// The end of a request, as the connection knows it.
pub struct End<'a> {
    pub epoch: u64,
    pub status: u16,
    pub response_bytes: u64,
    pub client: std::net::SocketAddr,
    pub request_id: &'a [u8],
}
