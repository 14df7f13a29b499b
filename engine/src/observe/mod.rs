//! What a shard tells control: exact counters in shared memory, and one record per request.

use std::cell::RefCell;

use contract::record::{Reason, Record};
use contract::ring::RingWriter;
use contract::segment::{Counter, ShardView};

use crate::io::Io;
use crate::message::Version;

/// A shard's counters and its ring of records.
pub struct Meter {
    counters: ShardView,
    ring: RefCell<RingWriter>,
}

impl Meter {
    pub fn new(counters: ShardView, ring: RingWriter) -> Meter {
        Meter { counters, ring: RefCell::new(ring) }
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

    /// Copies what the reactor counted, and shows that the shard lives.
    pub fn housekeeping(&self, io: &Io, connections: u32, upstream_connections: u32) {
        let (counts, counters) = (io.counts(), &self.counters);
        counters.set(Counter::DriverEnters, counts.enters.get());
        counters.set(Counter::DriverWaits, counts.waits.get());
        counters.set(Counter::BuffersExhausted, counts.starved.get());
        counters.set(Counter::OneShotRecvs, counts.one_shot.get());
        counters.set(Counter::CqOverflows, counts.overflows.get());
        counters.set(Counter::ShortSends, counts.short_sends.get());
        counters.set(Counter::Panics, counts.panics.get());
        counters.set(Counter::ConnectionsOpen, u64::from(connections));
        counters.set(Counter::UpstreamConnectionsOpen, u64::from(upstream_connections));
        counters.beat(io.clock().now_ms());
    }

    /// Counts a finished request and hands its record to control; a full ring drops it and counts.
    #[inline]
    pub fn record(&self, record: &Record<'_>) {
        let class = match record.status / 100 {
            1 => Counter::Responses1xx,
            2 => Counter::Responses2xx,
            3 => Counter::Responses3xx,
            4 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        };
        if record.status != 0 {
            self.count(class, 1);
        }
        self.count(Counter::Requests, 1);
        self.count(Counter::ClientBytesIn, record.request_bytes);
        self.count(Counter::ClientBytesOut, record.response_bytes);
        let mut ring = self.ring.borrow_mut();
        let pushed =
            ring.push_with(contract::record::MAX_RECORD, |space| record.encode_into(space));
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
    pub reason: Reason,
    pub version: Version,
    pub request_bytes: u64,
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
