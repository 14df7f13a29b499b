//! What the engine tells of its upstreams and their targets: a table in the segment.
//!
//! The engine process writes, control reads without trust. Each entry is some independent atomics: a
//! reader may see a mixture of two moments, which the next look mends; nothing is decided by it.
//! An entry is found by its key only: readers take the whole table.

use std::net::{IpAddr, SocketAddr};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::segment::Keeper;

/// Most upstreams and targets that are told of; what is beyond is not shown.
pub const CAPACITY: usize = 8192;

/// The key of a target, or without an address of the upstream as a whole: FNV-1a of 64 bits over the
/// name, a zero byte and the address. Never 0.
pub fn key(upstream: &str, target: Option<SocketAddr>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mix = |hash: u64, bytes: &[u8]| {
        bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    };
    let mut hash = mix(mix(OFFSET, upstream.as_bytes()), &[0]);
    if let Some(target) = target {
        hash = match target.ip() {
            IpAddr::V4(ip) => mix(hash, &ip.octets()),
            IpAddr::V6(ip) => mix(hash, &ip.octets()),
        };
        hash = mix(hash, &target.port().to_le_bytes());
    }
    hash.max(1)
}

/// What is known of a target, or of an upstream's breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Standing {
    /// Nothing speaks against it, and no check has spoken for it.
    #[default]
    Unknown = 0,
    /// Its checks succeed.
    Healthy = 1,
    /// Its checks fail.
    Unhealthy = 2,
    /// Left out for a while as it did worse than it should.
    Ejected = 3,
    /// Its circuit breaker is open.
    Open = 4,
    /// Its circuit breaker lets probes through.
    HalfOpen = 5,
    /// It came back and gets a growing share.
    SlowStart = 6,
}

impl Standing {
    /// In the order of their numbers.
    pub const ALL: [Standing; 7] = [
        Standing::Unknown,
        Standing::Healthy,
        Standing::Unhealthy,
        Standing::Ejected,
        Standing::Open,
        Standing::HalfOpen,
        Standing::SlowStart,
    ];

    /// What people read.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Unknown => "unknown",
            Standing::Healthy => "healthy",
            Standing::Unhealthy => "unhealthy",
            Standing::Ejected => "ejected",
            Standing::Open => "open",
            Standing::HalfOpen => "half_open",
            Standing::SlowStart => "slow_start",
        }
    }
}

/// Why it stands as it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    #[default]
    None = 0,
    /// Active checks said so.
    Check = 1,
    /// 5xx in a row.
    Consecutive5xx = 2,
    /// Failures of a gateway's kind in a row.
    ConsecutiveGateway = 3,
    /// Its success rate was below the fleet's.
    SuccessRate = 4,
    /// Its latency was above the fleet's.
    Latency = 5,
    /// Errors in a row opened the breaker.
    ConsecutiveErrors = 6,
    /// The share of errors opened the breaker.
    ErrorRatio = 7,
    /// The share of slow calls opened the breaker.
    SlowRatio = 8,
    /// A probe failed, so the breaker opened again.
    ProbeFailed = 9,
}

impl Cause {
    /// In the order of their numbers.
    pub const ALL: [Cause; 10] = [
        Cause::None,
        Cause::Check,
        Cause::Consecutive5xx,
        Cause::ConsecutiveGateway,
        Cause::SuccessRate,
        Cause::Latency,
        Cause::ConsecutiveErrors,
        Cause::ErrorRatio,
        Cause::SlowRatio,
        Cause::ProbeFailed,
    ];

    /// Why a target is ejected.
    pub const EJECTIONS: [Cause; 4] =
        [Cause::Consecutive5xx, Cause::ConsecutiveGateway, Cause::SuccessRate, Cause::Latency];

    /// Why a breaker opens.
    pub const OPENINGS: [Cause; 4] =
        [Cause::ConsecutiveErrors, Cause::ErrorRatio, Cause::SlowRatio, Cause::ProbeFailed];

    /// What people and programs read.
    pub fn name(self) -> &'static str {
        match self {
            Cause::None => "none",
            Cause::Check => "check",
            Cause::Consecutive5xx => "consecutive_5xx",
            Cause::ConsecutiveGateway => "consecutive_gateway",
            Cause::SuccessRate => "success_rate",
            Cause::Latency => "latency",
            Cause::ConsecutiveErrors => "consecutive_errors",
            Cause::ErrorRatio => "error_ratio",
            Cause::SlowRatio => "slow_ratio",
            Cause::ProbeFailed => "probe_failed",
        }
    }
}

#[derive(Default)]
#[repr(C, align(64))]
struct Entry {
    key: AtomicU64,
    since_ms: AtomicU64,
    standing: AtomicU32,
    cause: AtomicU32,
    in_flight: AtomicU32,
    share_permille: AtomicU32,
    limit: AtomicU32,
    retries: AtomicU32,
    returns: AtomicU32,
    probes: AtomicU32,
    /// By number of the cause.
    counts: [AtomicU32; Cause::ALL.len()],
}

/// The table as it lies in the segment.
#[repr(C, align(4096))]
pub(crate) struct Table {
    lost: AtomicU64,
    entries: [Entry; CAPACITY],
}

/// What an entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub standing: Standing,
    pub cause: Cause,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Requests now there, of all shards.
    pub in_flight: u32,
    /// How often that happened since the engine began: ejections of a target, openings of a target's or
    /// an upstream's breaker.
    pub counts: Counts,
    /// Ejections of a target that are over.
    pub returns: u32,
    /// Requests that a half-open breaker let through.
    pub probes: u32,
    /// Of a target: the share of its weight that it gets, in thousandths. Of an upstream: the share
    /// of its weight that is alive.
    pub share_permille: u32,
    /// Of an upstream: its adaptive bound of requests in flight; 0: none.
    pub limit: u32,
    /// Of an upstream: retries and hedges under way.
    pub retries: u32,
}

/// How often something happened, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u32; Cause::ALL.len()]);

impl Counts {
    pub fn of(&self, cause: Cause) -> u32 {
        self.0.get(cause as usize).copied().unwrap_or_default()
    }

    /// Ejections for whatever cause.
    pub fn ejections(&self) -> u32 {
        Cause::EJECTIONS.iter().fold(0, |sum: u32, cause| sum.saturating_add(self.of(*cause)))
    }

    /// Openings of a breaker for whatever cause.
    pub fn openings(&self) -> u32 {
        Cause::OPENINGS.iter().fold(0, |sum: u32, cause| sum.saturating_add(self.of(*cause)))
    }
}

/// The table, for a process that maps its segment.
#[derive(Clone)]
pub struct Targets {
    table: NonNull<Table>,
    _segment: Keeper,
}

// SAFETY: the pointer is into a mapping of the process that `_segment` keeps, to atomics only.
unsafe impl Send for Targets {}
// SAFETY: as above.
unsafe impl Sync for Targets {}

impl Targets {
    /// # Safety
    /// `table` is aligned, within the mapping that `segment` keeps, and has room for a [`Table`].
    pub(crate) unsafe fn new(table: NonNull<Table>, segment: Keeper) -> Targets {
        Targets { table, _segment: segment }
    }

    fn table(&self) -> &Table {
        // SAFETY: as `new` demands; atomics only, for which any bytes are valid.
        unsafe { self.table.as_ref() }
    }

    fn entries(&self) -> &[Entry; CAPACITY] {
        &self.table().entries
    }

    /// How often an upstream or target found no place since the engine began: then it is not told of.
    pub fn lost(&self) -> u64 {
        self.table().lost.load(Ordering::Relaxed)
    }

    /// A new engine begins: what its predecessor told is over.
    pub fn clear(&self) {
        self.table().lost.store(0, Ordering::Relaxed);
        for entry in self.entries() {
            // Pages that nobody has written stay unused.
            if entry.key.load(Ordering::Relaxed) != 0 {
                entry.key.store(0, Ordering::Relaxed);
            }
        }
    }

    /// An entry for `key`, given back when dropped; `None`: the table is full. For the engine only,
    /// which claims a key once at a time.
    pub fn claim(&self, key: u64) -> Option<TargetEntry> {
        let entries = self.entries();
        let first = key as usize % CAPACITY;
        let at = (first..CAPACITY).chain(0..first).find(|&at| {
            let taken = entries.get(at).map(|entry| {
                // Fields are of the last owner until they are set.
                entry.key.compare_exchange(0, u64::MAX, Ordering::AcqRel, Ordering::Relaxed)
            });
            matches!(taken, Some(Ok(_)))
        });
        let Some(at) = at else {
            self.table().lost.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let entry = TargetEntry { targets: self.clone(), at };
        let fields = entry.entry();
        fields.in_flight.store(0, Ordering::Relaxed);
        fields.retries.store(0, Ordering::Relaxed);
        fields.returns.store(0, Ordering::Relaxed);
        fields.probes.store(0, Ordering::Relaxed);
        fields.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        fields.limit.store(0, Ordering::Relaxed);
        fields.since_ms.store(0, Ordering::Relaxed);
        fields.share_permille.store(1_000, Ordering::Relaxed);
        entry.stand(Standing::Unknown, Cause::None, 0);
        fields.key.store(key, Ordering::Release);
        Some(entry)
    }

    /// All that is told, by key. A standing that this program does not know is read as unknown.
    pub fn read(&self) -> impl Iterator<Item = (u64, Told)> {
        self.entries().iter().filter_map(|entry| {
            let key = entry.key.load(Ordering::Acquire);
            if key == 0 || key == u64::MAX {
                return None;
            }
            let load = |word: &AtomicU32| word.load(Ordering::Relaxed);
            let standing = Standing::ALL.get(load(&entry.standing) as usize);
            let cause = Cause::ALL.get(load(&entry.cause) as usize);
            let told = Told {
                standing: standing.copied().unwrap_or_default(),
                cause: cause.copied().unwrap_or_default(),
                since_ms: entry.since_ms.load(Ordering::Relaxed),
                // Sums of changes that are told one after another: below 0 for a moment.
                in_flight: (load(&entry.in_flight) as i32).max(0) as u32,
                counts: Counts(entry.counts.each_ref().map(load)),
                returns: load(&entry.returns),
                probes: load(&entry.probes),
                share_permille: load(&entry.share_permille).min(1_000),
                limit: load(&entry.limit),
                retries: load(&entry.retries),
            };
            Some((key, told))
        })
    }
}

/// One entry, written by the shards of an engine. Each may write; the last one stands.
pub struct TargetEntry {
    targets: Targets,
    at: usize,
}

impl std::fmt::Debug for TargetEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TargetEntry").field(&self.at).finish()
    }
}

impl TargetEntry {
    fn entry(&self) -> &Entry {
        &self.targets.entries()[self.at]
    }

    /// How it stands at `since_ms` of the wall clock, which is kept while that does not change.
    pub fn stand(&self, standing: Standing, cause: Cause, since_ms: u64) {
        let entry = self.entry();
        let (standing, cause) = (standing as u32, cause as u32);
        let same = entry.standing.load(Ordering::Relaxed) == standing
            && entry.cause.load(Ordering::Relaxed) == cause;
        // Looked at far more often than changed: the line stays with all who look.
        if same && entry.since_ms.load(Ordering::Relaxed) != 0 {
            return;
        }
        entry.standing.store(standing, Ordering::Relaxed);
        entry.cause.store(cause, Ordering::Relaxed);
        entry.since_ms.store(since_ms, Ordering::Relaxed);
    }

    /// The requests there have changed by so many.
    pub fn add_in_flight(&self, change: i32) {
        self.entry().in_flight.fetch_add(change as u32, Ordering::Relaxed);
    }

    /// How often it was ejected, or its breaker opened, for that cause.
    pub fn set_count(&self, cause: Cause, count: u32) {
        if let Some(known) = self.entry().counts.get(cause as usize) {
            update(known, count);
        }
    }

    /// How many of its ejections are over.
    pub fn set_returns(&self, count: u32) {
        update(&self.entry().returns, count);
    }

    /// How many requests its breaker let through while half open.
    pub fn set_probes(&self, count: u32) {
        update(&self.entry().probes, count);
    }

    /// The requests there are so many.
    pub fn set_in_flight(&self, count: u32) {
        self.entry().in_flight.store(count, Ordering::Relaxed);
    }

    pub fn set_share(&self, permille: u32) {
        update(&self.entry().share_permille, permille);
    }

    pub fn set_limit(&self, limit: u32) {
        self.entry().limit.store(limit, Ordering::Relaxed);
    }

    pub fn set_retries(&self, retries: u32) {
        self.entry().retries.store(retries, Ordering::Relaxed);
    }
}

/// Writes only what is new, for the same reason.
fn update(cell: &AtomicU32, value: u32) {
    if cell.load(Ordering::Relaxed) != value {
        cell.store(value, Ordering::Relaxed);
    }
}

impl Drop for TargetEntry {
    fn drop(&mut self) {
        self.entry().key.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;
    use crate::ring::MIN_RING;

    #[test]
    fn entries_are_seen_by_others_and_freed() {
        let (fd, segment) = Segment::create(2, MIN_RING).unwrap();
        let other = Segment::open(&fd).unwrap();
        let address = "127.0.0.1:80".parse().unwrap();
        let one = segment.targets().claim(key("u", Some(address))).unwrap();
        let whole = segment.targets().claim(key("u", None)).unwrap();
        one.stand(Standing::Ejected, Cause::Latency, 7);
        one.stand(Standing::Ejected, Cause::Latency, 9);
        one.add_in_flight(5);
        one.add_in_flight(-2);
        one.set_count(Cause::Latency, 2);
        one.set_count(Cause::ProbeFailed, 1);
        one.set_returns(1);
        one.set_probes(5);
        whole.set_limit(3);
        whole.add_in_flight(-2);
        let told: std::collections::HashMap<u64, Told> = other.targets().read().collect();
        let target = told[&key("u", Some(address))];
        assert_eq!((target.standing, target.cause), (Standing::Ejected, Cause::Latency));
        assert_eq!((target.since_ms, target.in_flight, target.returns), (7, 3, 1));
        assert_eq!((target.counts.of(Cause::Latency), target.counts.ejections()), (2, 2));
        assert_eq!((target.counts.openings(), target.probes), (1, 5));
        assert_eq!((told[&key("u", None)].limit, told[&key("u", None)].in_flight), (3, 0));
        drop(one);
        assert_eq!(other.targets().read().count(), 1);
        other.targets().clear();
        assert_eq!(segment.targets().read().count(), 0);
    }

    #[test]
    fn a_full_table_gives_no_more() {
        let (_fd, segment) = Segment::create(1, MIN_RING).unwrap();
        let targets = segment.targets();
        let mut all: Vec<TargetEntry> =
            (1..=CAPACITY as u64).map(|n| targets.claim(n * 3).unwrap()).collect();
        assert_eq!(targets.lost(), 0);
        assert!(targets.claim(1).is_none());
        assert_eq!(targets.lost(), 1);
        all.pop();
        assert!(targets.claim(1).is_some());
        assert_eq!(targets.read().count(), CAPACITY - 1);
    }

    #[test]
    fn keys_tell_names_and_addresses_apart() {
        let at = |text: &str| Some(text.parse().unwrap());
        let all = [
            key("u", None),
            key("u", at("127.0.0.1:80")),
            key("u", at("127.0.0.1:81")),
            key("u", at("127.0.0.2:80")),
            key("u", at("[::1]:80")),
            key("v", at("127.0.0.1:80")),
        ];
        let apart: std::collections::HashSet<u64> = all.into_iter().collect();
        assert_eq!(apart.len(), all.len());
    }
}
