//! Access records, from the shards' rings to the access log and the metrics; and which API keys were
//! used, which comes the same way.
//!
//! A thread of its own empties the rings; what it knows sits behind one lock that it holds for a
//! batch at a time, and that others take only to publish or to be scraped.

mod line;
mod metrics;
mod names;
mod recent;
mod sink;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use contract::{KeyUse, record::Record, ring::RingReader, segment::Segment, snapshot::Snapshot};

pub use line::date;
pub use metrics::{family, sample, seconds};
pub use recent::Asked;

use self::{
    line::LineWriter,
    metrics::Metrics,
    names::History,
    sink::{BUFFER_BYTES, Destination, Sink},
};
use crate::{
    rollout::{Meter, Tally},
    spec::{AccessLog, LogDestination},
};

/// Pause between rounds while records come, and the longest one while none do.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Longest time a line waits for more lines.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// Keys whose use waits to be taken; those of shards come in portions and are taken all the time.
const MAX_KEY_USES: usize = 100_000;

/// When API keys were used last, in seconds since the Unix epoch, by the SHA-256 of the key.
pub type KeyUses = HashMap<[u8; 32], u64>;

/// The records of this node.
pub struct Records {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Where the access log is when the spec does not say.
    standard: PathBuf,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    lines_dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    history: History,
    metrics: Metrics,
    log: Option<Log>,
    /// What nobody has taken yet.
    key_uses: KeyUses,
    recent: recent::Recent,
    /// While a revision is on trial.
    trial: Option<Meter>,
    /// Records that could not be read.
    garbage: u64,
}

struct Log {
    destination: Destination,
    sink: Sink,
    writer: LineWriter,
    /// Lines not handed over yet.
    lines: Vec<u8>,
}

impl Records {
    /// Starts emptying the rings of `segment`. `standard` is the access log's path when the spec
    /// does not say one.
    ///
    /// # Errors
    /// A ring is being read already, or the thread cannot be started.
    pub fn start(segment: &Segment, standard: PathBuf) -> io::Result<Records> {
        let rings: Option<Vec<RingReader>> =
            (0..segment.shards()).map(|shard| segment.ring_reader(shard)).collect();
        let rings = rings.ok_or_else(|| io::Error::other("a shard's ring is read already"))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            lines_dropped: Arc::default(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("records".into())
            .spawn(move || take_all(rings, &theirs))?;
        Ok(Records { shared, thread: Mutex::new(Some(thread)), standard })
    }

    /// Remembers the names in `snapshot`; to be called before it is published.
    pub fn remember(&self, snapshot: &Snapshot) {
        self.shared.lock().history.add(snapshot);
    }

    /// Writes the access log where `log` says, from now on.
    pub fn write_to(&self, log: &AccessLog) {
        let destination = match log.destination() {
            LogDestination::Off => None,
            LogDestination::Stdout => Some(Destination::Stdout),
            LogDestination::StateDirectory => Some(Destination::File(self.standard.clone())),
            LogDestination::File(path) => Some(Destination::File(path.into())),
        };
        let mut state = self.shared.lock();
        if state.log.as_ref().map(|log| &log.destination) == destination.as_ref() {
            return;
        }
        let old = state.log.take();
        state.log = destination.and_then(|destination| {
            match Sink::start(destination.clone(), Arc::clone(&self.shared.lines_dropped)) {
                Ok(sink) => {
                    let lines = Vec::with_capacity(BUFFER_BYTES + 4_096);
                    Some(Log { destination, sink, writer: LineWriter::default(), lines })
                }
                Err(error) => {
                    eprintln!("sluice: the access log cannot be started: {error}");
                    None
                }
            }
        });
        drop(state);
        // Ending the old one waits for its disk: not under the lock.
        if let Some(mut old) = old {
            old.sink.send(&mut old.lines);
        }
    }

    /// Opens the log file anew, as after a rotation.
    pub fn reopen(&self) {
        if let Some(log) = &self.shared.lock().log {
            log.sink.reopen();
        }
    }

    /// For people: a path, `-` or `off`.
    pub fn destination(&self) -> String {
        match self.shared.lock().log.as_ref().map(|log| &log.destination) {
            None => "off".into(),
            Some(Destination::Stdout) => "-".into(),
            Some(Destination::File(path)) => path.display().to_string(),
        }
    }

    /// Which keys were used since this was asked last.
    pub fn take_key_uses(&self) -> KeyUses {
        std::mem::take(&mut self.shared.lock().key_uses)
    }

    /// What the last requests asked for, oldest first.
    pub fn recent(&self) -> Vec<Asked> {
        self.shared.lock().recent.list()
    }

    /// Meters what is served while a revision is on trial, from epoch `since` on, or no longer. What is
    /// metered for a revision already goes on.
    pub fn meter(&self, trial: Option<(u64, u64)>) {
        let mut state = self.shared.lock();
        if state.trial.as_ref().map(|meter| meter.revision) != trial.map(|(revision, _)| revision) {
            state.trial = trial.and_then(|(revision, since)| Meter::new(revision, since));
        }
    }

    /// What was metered.
    pub fn tally(&self) -> Option<Tally> {
        self.shared.lock().trial.as_ref().map(Meter::tally)
    }

    pub fn lines_dropped(&self) -> u64 {
        self.shared.lines_dropped.load(Ordering::Relaxed)
    }

    /// Appends the metrics as Prometheus text.
    pub fn render(&self, out: &mut String) {
        let state = self.shared.lock();
        state.metrics.render(out);
        family(
            out,
            "sluice_records_garbage_total",
            "counter",
            "Access records that could not be read; each is a defect.",
        );
        sample(out, "sluice_records_garbage_total", &[], state.garbage);
    }

    /// Takes what the rings hold, writes it out and ends the thread.
    pub fn finish(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            // A panic there has been reported on stderr already.
            _ = thread.join();
        }
        // Its sink ends when it has written everything.
        drop(self.shared.lock().log.take());
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, shard: usize, record: &Record<'_>) {
        let State { history, metrics, log, recent, trial, .. } = self;
        recent.take(record);
        if let Some(meter) = trial {
            meter.count(record);
        }
        let names = metrics.count(record, history);
        if let Some(log) = log {
            let route = names.and_then(|names| names.routes.get(record.route as usize));
            let upstream = names.and_then(|names| names.upstreams.get(record.upstream as usize));
            let Log { writer, lines, sink, .. } = log;
            writer.write(
                lines,
                shard,
                record,
                route.map(|name| &**name),
                upstream.map(|name| &**name),
            );
            if lines.len() >= BUFFER_BYTES {
                sink.send(lines);
            }
        }
    }

    fn used(&mut self, KeyUse { digest, used_s }: KeyUse) {
        if let Some(known_s) = self.key_uses.get_mut(&digest) {
            *known_s = used_s.max(*known_s);
        } else if self.key_uses.len() < MAX_KEY_USES {
            self.key_uses.insert(digest, used_s);
        }
    }

    fn flush(&mut self) {
        if let Some(log) = &mut self.log {
            log.sink.send(&mut log.lines);
        }
    }
}

/// The thread: rounds over all rings until told to stop, with pauses that follow the traffic.
fn take_all(mut rings: Vec<RingReader>, shared: &Shared) {
    let mut pause = MIN_PAUSE;
    let mut flushed = Instant::now();
    loop {
        // Read before the round: what came before the stop is taken by it.
        let stop = shared.stop.load(Ordering::Relaxed);
        let mut taken = 0;
        for (shard, ring) in rings.iter_mut().enumerate() {
            taken += take_ring(shard, ring, shared);
        }
        let now = Instant::now();
        if stop || now.duration_since(flushed) >= FLUSH_EVERY {
            shared.lock().flush();
            flushed = now;
        }
        if stop {
            return;
        }
        pause = if taken > 0 { MIN_PAUSE } else { (pause + pause / 4).min(MAX_PAUSE) };
        std::thread::park_timeout(pause);
    }
}

/// Takes what one ring holds at this moment.
fn take_ring(shard: usize, ring: &mut RingReader, shared: &Shared) -> usize {
    let mut state = shared.lock();
    ring.drain(|bytes| match Record::decode(bytes) {
        Some(record) => state.take(shard, &record),
        None => match KeyUse::decode(bytes) {
            Some(used) => state.used(used),
            None => state.garbage += 1,
        },
    })
}
