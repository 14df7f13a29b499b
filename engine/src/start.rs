//! The engine process: its shards' threads, and the one thread that listens to the supervisor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use contract::bus::{Bus, Message};
use contract::encode::Known;
use contract::sealed::{read_sealed, seal};
use contract::{CacheReport, LimitLine, Purge, Segment, ShardState, Snapshot};

use crate::auth::Throttle;
use crate::cache;
use crate::io::{Io, Launch, RingConfig, StartError, Swap, launch};
use crate::limits;
use crate::listener::Listeners;
use crate::observe::Meter;
use crate::overload::{MEMORY_PERIOD, Memory};
use crate::plan::{self, Plan};
use crate::shard::{Seat, Shard};
use crate::store::Store;
use crate::upstream::book::Book;

/// What the supervisor hands to an engine.
pub struct Start {
    /// One end of a [`Bus`]; the supervisor has the other.
    pub bus: OwnedFd,
    /// The node's shared memory.
    pub segment: OwnedFd,
    /// One shard per entry, pinned to that CPU.
    pub cpus: Vec<usize>,
}

/// How long after its bytes a snapshot may be published; an unpublished one is forgotten.
const PUBLISH_WAIT: Duration = Duration::from_secs(5);
/// How nice the thread is that builds plans, beside shards of 0: they go first.
const LESS: i32 = 15;
/// A shard that panics is started again; this often within a life, then the process gives up and
/// the supervisor starts a new one.
const SHARD_RESTARTS: u32 = 100;

/// What a shard is told by the supervisor's thread: state, not events, so that a restarted shard
/// finds it as well.
struct Mailbox {
    sockets: Mutex<HashMap<SocketAddr, OwnedFd>>,
    /// Milliseconds that the drain may take; 0: no drain.
    drain_ms: AtomicU32,
    /// An eventfd; written after every change and every new plan.
    wake: OwnedFd,
}

impl Mailbox {
    fn sockets(&self) -> MutexGuard<'_, HashMap<SocketAddr, OwnedFd>> {
        self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Runs the engine until it is told to drain, or the supervisor is gone.
///
/// # Errors
/// [`StartError`] when the first snapshot never comes or a shard cannot start.
pub fn run(start: Start) -> Result<(), StartError> {
    let bus = Bus::from_fd(start.bus).map_err(|error| {
        StartError::new(format!("the supervisor's bus is unusable: {error}"), RESTART)
    })?;
    let segment = Segment::open(&start.segment).map_err(|error| {
        StartError::new(format!("the node's shared memory is unusable: {error}"), RESTART)
    })?;
    if usize::from(segment.shards()) < start.cpus.len() {
        return Err(StartError::new(
            format!("the shared memory is for {} shards", segment.shards()),
            RESTART,
        ));
    }
    let store = Store::start(start.cpus.len()).map_err(|error| {
        StartError::new(format!("the store thread: {error}"), "raise `ulimit -u` and `ulimit -n`")
    })?;
    store.limits().measure(segment.figures());
    let book = Book::new(segment.shards(), Some(segment.targets()));
    let cache = cache::Store::new(0, Some(segment.figures()));
    let mut node = Node {
        bus,
        segment,
        mailboxes: Vec::new(),
        plans: None,
        retired: RefCell::default(),
        known: RefCell::default(),
        shared: plan::Memory::default(),
        book: Arc::new(book),
        memory: Arc::default(),
        store,
        throttle: Arc::default(),
        cache,
    };
    for _ in &start.cpus {
        node.mailboxes.push(Arc::new(Mailbox {
            sockets: Mutex::default(),
            drain_ms: AtomicU32::new(0),
            wake: eventfd()?,
        }));
    }
    let Some(plans) = node.first_plan()? else { return Ok(()) };
    node.configure_cache(&plans.get());
    node.plans = Some(plans.clone());
    node.memory.look();
    let mut threads = Vec::new();
    for (index, cpu) in start.cpus.iter().enumerate() {
        threads.push(node.start_shard(index as u16, *cpu, plans.clone())?);
    }
    let ready = Message::Ready { pid: std::process::id(), shards: start.cpus.len() as u16 };
    let _ = node.bus.send(&ready);
    // From here on this thread builds plans, for which no request waits.
    contract::background::give_way(LESS);
    node.listen();
    let failed = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    // Nothing is spent any more.
    node.store.limits().leave();
    let _ = node.bus.send(&Message::Drained);
    if failed > 0 {
        return Err(StartError::new(format!("{failed} shards failed for good"), RESTART));
    }
    Ok(())
}

const RESTART: &str = "the supervisor starts the engine anew; if this repeats, report the log";

fn eventfd() -> Result<OwnedFd, StartError> {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).map_err(|error| {
        StartError::new(format!("eventfd: {error}"), "raise the limit of open files (ulimit -n)")
    })
}

struct Node {
    bus: Bus,
    segment: Segment,
    mailboxes: Vec<Arc<Mailbox>>,
    plans: Option<Arc<Swap<Plan>>>,
    /// Replaced plans, until no shard has them any more: a large one takes long to free, so this
    /// thread does it.
    retired: RefCell<Vec<Arc<Plan>>>,
    /// What the last snapshot may have in common with the next one.
    known: RefCell<Option<Known>>,
    /// TLS sessions and configurations, kept over plans.
    shared: plan::Memory,
    /// What is known of upstreams and targets, kept over plans.
    book: Arc<Book>,
    memory: Arc<Memory>,
    store: Arc<Store>,
    throttle: Arc<Throttle>,
    cache: Arc<cache::Store>,
}

impl Node {
    /// Waits for a snapshot that can be served. `None`: told to stop before it came.
    fn first_plan(&self) -> Result<Option<Arc<Swap<Plan>>>, StartError> {
        loop {
            match self.bus.recv() {
                Ok(Some(Message::Snapshot { epoch, fd })) => match self.build(epoch, &fd) {
                    Ok(plan) => return Ok(Some(Arc::new(Swap::new(Arc::new(plan), epoch)))),
                    Err(reason) => {
                        let _ = self.bus.send(&Message::Rejected { epoch, reason });
                    }
                },
                Ok(Some(Message::Drain { .. })) | Ok(None) => return Ok(None),
                Ok(Some(message)) => self.sockets(message),
                Err(error) => {
                    return Err(StartError::new(format!("the supervisor's bus: {error}"), RESTART));
                }
            }
        }
    }

    /// Follows the supervisor until the drain, and watches the memory.
    fn listen(&self) {
        loop {
            match self.bus.recv_timeout(MEMORY_PERIOD) {
                Err(error) if error.kind() == ErrorKind::TimedOut => self.memory.look(),
                Ok(Some(Message::Snapshot { epoch, fd })) => self.adopt(epoch, &fd),
                Ok(Some(Message::Drain { timeout_ms })) => return self.drain(timeout_ms.max(1)),
                Ok(Some(Message::ListLimits { id, consumer, most })) => {
                    self.list_limits(id, &consumer, most);
                }
                Ok(Some(Message::AskCache { id, purge })) => self.tell_cache(id, purge.as_ref()),
                Ok(Some(message)) => self.sockets(message),
                // Without a supervisor there is no one to own the sockets: end quickly.
                Ok(None) | Err(_) => return self.drain(1),
            }
        }
    }

    /// Tells control how limits stand.
    fn list_limits(&self, id: u64, consumer: &str, most: u32) {
        let lines = self.store.limits().list(consumer, most as usize);
        match seal(&LimitLine::encode(&lines)) {
            Ok(fd) => drop(self.bus.send(&Message::Limits { id, fd })),
            Err(error) => eprintln!("sluice: limits cannot be told: {error}"),
        }
    }

    fn configure_cache(&self, plan: &Plan) {
        self.cache.configure(usize::try_from(plan.cache.max_bytes).unwrap_or(usize::MAX));
    }

    /// Has stored answers go, and tells control how the cache stands.
    fn tell_cache(&self, id: u64, purge: Option<&Purge>) {
        let purged = purge.map_or(0, |purge| self.cache.purge(purge));
        let report = CacheReport { purged, ..self.cache.report() };
        match seal(&report.encode()) {
            Ok(fd) => drop(self.bus.send(&Message::Cache { id, fd })),
            Err(error) => eprintln!("sluice: the cache cannot be told of: {error}"),
        }
    }

    fn sockets(&self, message: Message) {
        match message {
            Message::Listener { address, sockets } => {
                for (mailbox, socket) in self.mailboxes.iter().zip(sockets) {
                    mailbox.sockets().insert(address, socket);
                }
            }
            Message::CloseListener { address } => {
                for mailbox in &self.mailboxes {
                    mailbox.sockets().remove(&address);
                }
            }
            _ => return,
        }
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
    }

    fn build(&self, epoch: u64, fd: &OwnedFd) -> Result<Plan, String> {
        let bytes = read_sealed(fd).map_err(|error| error.to_string())?;
        let snapshot = Snapshot::decode_after(&bytes, self.known.borrow().as_ref());
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        *self.known.borrow_mut() = Some(Known::of(&snapshot));
        if snapshot.epoch != epoch {
            return Err(format!("epoch {} where {epoch} was announced", snapshot.epoch));
        }
        let plan = Plan::build_with(snapshot, &self.shared).map_err(|error| error.to_string())?;
        plan.auth.open(&self.store);
        Ok(plan)
    }

    /// Builds the plan off the hot path, waits for its publication, puts it in place.
    fn adopt(&self, epoch: u64, fd: &OwnedFd) {
        let Some(plans) = &self.plans else { return };
        match self.build(epoch, fd) {
            Ok(plan) => {
                let mut seen = self.segment.epoch();
                let deadline = std::time::Duration::from_millis(100);
                let mut waited = Duration::ZERO;
                while seen < epoch && waited < PUBLISH_WAIT {
                    seen = self.segment.wait_epoch(seen, deadline);
                    waited += deadline;
                }
                if seen < epoch {
                    return;
                }
                let mut retired = self.retired.borrow_mut();
                retired.retain(|plan| Arc::strong_count(plan) > 1);
                retired.push(plans.get());
                self.configure_cache(&plan);
                plans.set(Arc::new(plan), epoch);
                self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
            }
            Err(reason) => {
                let _ = self.bus.send(&Message::Rejected { epoch, reason });
            }
        }
    }

    fn drain(&self, timeout_ms: u32) {
        self.memory.forget();
        for mailbox in &self.mailboxes {
            mailbox.drain_ms.store(timeout_ms, Ordering::Release);
            mailbox.wake();
        }
    }

    fn start_shard(
        &self,
        index: u16,
        cpu: usize,
        plans: Arc<Swap<Plan>>,
    ) -> Result<JoinHandle<()>, StartError> {
        let segment = self.segment.clone();
        let mailbox = self.mailboxes[usize::from(index)].clone();
        let shards = self.mailboxes.len() as u16;
        let (book, memory) = (self.book.clone(), self.memory.clone());
        let (store, throttle) = (self.store.clone(), self.throttle.clone());
        let wishes = Some(self.segment.wishes());
        let cache = self.cache.clone();
        let seat = Seat { index, shards, book, memory, store, throttle, wishes, cache };
        let (report, reported) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                keep_running(&seat, cpu, &segment, &mailbox, &plans, report);
            })
            .map_err(|error| {
                StartError::new(format!("a shard's thread: {error}"), "raise `ulimit -u`")
            })?;
        match reported.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(StartError::new(format!("shard {index} panicked as it started"), RESTART))
            }
        }
    }
}

/// Runs a shard, and again after a panic: its connections are lost, its sockets are not.
fn keep_running(
    seat: &Seat,
    cpu: usize,
    segment: &Segment,
    mailbox: &Arc<Mailbox>,
    plans: &Arc<Swap<Plan>>,
    report: mpsc::Sender<Result<(), StartError>>,
) {
    let index = seat.index;
    for _ in 0..SHARD_RESTARTS {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let ring = segment.ring_writer(index).ok_or_else(|| {
                StartError::new(
                    format!("the shared memory has no place for shard {index}"),
                    RESTART,
                )
            })?;
            let view = segment.shard(index);
            let (mailbox, plans, seat) = (mailbox.clone(), plans.clone(), seat.clone());
            let started = report.clone();
            let place = Launch { cpu: Some(cpu), ring: RingConfig::default() };
            launch(
                place,
                move || drop(started.send(Ok(()))),
                move |io| shard(io, Meter::new(view, ring), plans, mailbox, seat),
            )
        }));
        match ran {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let _ = report.send(Err(error));
                return;
            }
            Err(_) => eprintln!("sluice: shard {index} panicked and is started again"),
        }
    }
    std::process::abort();
}

async fn shard(io: Io, meter: Meter, plans: Arc<Swap<Plan>>, mailbox: Arc<Mailbox>, seat: Seat) {
    let mut seed = [0u8; 16];
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    let seed = u128::from_ne_bytes(seed) | 1;
    let shard = Shard::new(io.clone(), meter, plans, seat, [seed as u64, (seed >> 64) as u64]);
    shard.meter.state(ShardState::Serving);
    let listeners = Listeners::new(shard.clone());
    listeners.sync(&mailbox.sockets());
    let house = shard.clone();
    io.spawn(async move { house.keep_house().await });
    io.spawn(shard.clone().check_targets());
    io.spawn(shard.clone().talk_to_store());
    let drain_ms = loop {
        let drain_ms = mailbox.drain_ms.load(Ordering::Acquire);
        if drain_ms > 0 {
            break drain_ms;
        }
        if io.readable(mailbox.wake.as_fd()).await.is_err() {
            break 1;
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&mailbox.wake, &mut count);
        shard.plan();
        listeners.sync(&mailbox.sockets());
    };
    shard.meter.state(ShardState::Draining);
    shard.drain();
    let deadline_ms = io.clock().now_ms() + u64::from(drain_ms);
    // What waits in the backlog is still served: closing a listening socket resets it.
    io.sleep_ms(limits::BACKLOG_MS.min(u64::from(drain_ms))).await;
    mailbox.sockets().clear();
    listeners.sync(&HashMap::new());
    while shard.connections() > 0 && io.clock().now_ms() < deadline_ms {
        io.sleep_ms(10).await;
    }
    shard.leave_limits();
    shard.tell_key_uses();
    shard.meter.housekeeping(&io);
    shard.meter.state(ShardState::Stopped);
}
