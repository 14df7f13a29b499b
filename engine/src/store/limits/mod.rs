//! The node's ledger at work: on the store thread, between shards and Redis.
//!
//! Shards put what they say into one queue, and find what they are told in one of their own; no lock is
//! between them. Whoever puts something in wakes the other ([`super::wake_queue`]): the store thread by a
//! permit that stays until it is taken, a shard by its eventfd.

mod link;
mod partition;
pub mod script;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc as blocking};
use std::time::Duration;

use contract::LimitLine;
use contract::figures::{Figure, Figures};
use crossbeam_queue::SegQueue;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::link::{Connection, Event, What};
use self::partition::PARTITIONS;
use super::redis::Settings;
use super::wake_queue::{Bell, WakeQueue};
use super::{Inbox, Task, deliver};
use crate::io::{monotonic_ms, wall_ms};
use crate::limit::ledger::{Counts, Ledger, Output};
use crate::limit::messages::Ask;
use crate::limit::protocol::NodeId;
use crate::limits;

/// Where shards and the ledger meet.
#[derive(Debug)]
pub struct Hub {
    /// What shards say. Its bell rings for whatever else the store thread has to look at, too.
    asks: WakeQueue<SegQueue<(u16, Ask)>, Notify>,
    commands: UnboundedSender<Command>,
    /// The last settings, so that the same again are no news.
    settings: Mutex<Option<Given>>,
    figures: Arc<OnceLock<Figures>>,
    left: AtomicBool,
}

#[derive(Clone, Debug, PartialEq)]
struct Given {
    redis: Option<Settings>,
    node: String,
    timeout_ms: u32,
}

enum Command {
    Settings(Given),
    List(String, usize, blocking::Sender<Vec<LimitLine>>),
    Leave(blocking::Sender<()>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Hub {
    pub(super) fn start(runtime: &Handle, inboxes: &[Arc<Inbox>]) -> (Arc<Hub>, Task) {
        let (commands, orders) = unbounded_channel();
        let hub = Arc::new(Hub {
            asks: WakeQueue::new(SegQueue::new(), Notify::new()),
            commands,
            settings: Mutex::default(),
            figures: Arc::default(),
            left: AtomicBool::new(false),
        });
        let inboxes = inboxes.to_vec();
        let work = run(hub.clone(), orders, inboxes, runtime.clone());
        let task = Task::spawn(runtime, work);
        (hub, task)
    }

    pub(super) fn ask(&self, shard: u16, ask: Ask) {
        self.asks.put((shard, ask));
    }

    /// Counts there from now on.
    pub fn measure(&self, figures: Figures) {
        let _ = self.figures.set(figures);
    }

    /// What limits are kept in (`None`: this node alone), what the node is called (empty: as its host),
    /// and how long a request may wait. The same again changes nothing.
    pub fn configure(&self, redis: Option<&Settings>, node: &str, timeout_ms: u32) {
        let given = Given { redis: redis.cloned(), node: node.into(), timeout_ms };
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if settings.as_ref() != Some(&given) {
            *settings = Some(given.clone());
            self.command(Command::Settings(given));
        }
    }

    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        self.asks.bell().ring();
    }

    /// How buckets stand, those of a consumer alone if it is named. Blocks: not for shards.
    pub fn list(&self, consumer: &str, most: usize) -> Vec<LimitLine> {
        let (answer, answered) = blocking::channel();
        self.command(Command::List(consumer.into(), most, answer));
        answered.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }

    /// Gives everything back: the process ends. Blocks, but not for long.
    pub fn leave(&self) {
        if self.left.swap(true, Ordering::Relaxed) {
            return;
        }
        let (done, is_done) = blocking::channel();
        self.command(Command::Leave(done));
        let _ = is_done.recv_timeout(Duration::from_millis(limits::LIMIT_FAREWELL_MS));
    }
}

/// `NAME#RANDOM`, of characters that stand in a key as they are.
fn node_id(name: &str) -> NodeId {
    let host = rustix::system::uname();
    let name = match name {
        "" => host.nodename().to_str().unwrap_or("node"),
        name => name,
    };
    let sound = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().map(sound).take(64).collect();
    format!("{name}#{:08x}", random() as u32).into()
}

/// Below 2⁵³, as Redis' numbers are.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    (u64::from_ne_bytes(bytes) >> 11).max(1)
}

/// All that the task has.
struct Work {
    hub: Arc<Hub>,
    inboxes: Vec<Arc<Inbox>>,
    runtime: Handle,
    ledger: Ledger,
    given: Option<Given>,
    /// Of the settings: what comes from links of others is of no interest.
    life: u64,
    links: Vec<Task>,
    connections: Vec<Option<Connection>>,
    /// As messages call the cluster, if the servers are its partitions.
    cluster: Option<Arc<str>>,
    /// Of servers, or partitions.
    names: Vec<Arc<str>>,
    /// As people were told last.
    lost: Vec<bool>,
    /// When people are told of partitions: several are lost and come back at about the same time.
    tell_at_ms: Option<u64>,
    /// Why there is no connection, as people were told last; empty: there is one.
    refusals: Vec<String>,
    events: UnboundedSender<Event>,
    counted: Counts,
    leaving: Option<blocking::Sender<()>>,
    output: Output,
}

async fn run(
    hub: Arc<Hub>,
    mut orders: UnboundedReceiver<Command>,
    inboxes: Vec<Arc<Inbox>>,
    runtime: Handle,
) {
    let (events, mut news) = unbounded_channel();
    let shards = u16::try_from(inboxes.len()).unwrap_or(u16::MAX);
    let mut work = Work {
        hub: hub.clone(),
        inboxes,
        runtime,
        ledger: Ledger::new(shards, node_id("")),
        given: None,
        life: 0,
        links: Vec::new(),
        connections: Vec::new(),
        cluster: None,
        names: Vec::new(),
        lost: Vec::new(),
        tell_at_ms: None,
        refusals: Vec::new(),
        events,
        counted: Counts::default(),
        leaving: None,
        output: Output::default(),
    };
    let mut wall_at_ms = 0;
    loop {
        // The wall's clock may be set.
        if monotonic_ms() >= wall_at_ms {
            work.ledger.set_wall(wall_ms(), monotonic_ms());
            wall_at_ms = monotonic_ms() + 1_000;
        }
        while let Ok(command) = orders.try_recv() {
            work.order(command, shards);
        }
        while let Ok(event) = news.try_recv() {
            work.hear(event);
        }
        hub.asks.take(limits::LIMIT_CHECKS, |(shard, ask)| {
            work.ledger.ask(shard, ask, monotonic_ms());
        });
        if monotonic_ms() >= work.ledger.next_ms() {
            work.ledger.tick(monotonic_ms());
        }
        work.send();
        if !hub.asks.is_empty() {
            // Others have their turn, too.
            tokio::task::yield_now().await;
            continue;
        }
        let wait_ms = work.ledger.next_ms().saturating_sub(monotonic_ms()).clamp(1, 1_000);
        tokio::select! {
            () = hub.asks.bell().notified() => {}
            event = news.recv() => if let Some(event) = event { work.hear(event) },
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                // This thread may have slept longer than it meant to: answers that lie there by now are read
                // before anybody is held to be silent.
                for _ in 0..HOPS {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// From a socket to this task an answer goes through fred's reader, the task that asked, and our queue; each
/// yield lets all who are ready run, and looks at the sockets.
const HOPS: usize = 4;

impl Work {
    fn order(&mut self, command: Command, shards: u16) {
        match command {
            Command::Settings(given) => self.settle(given, shards),
            Command::List(consumer, most, answer) => {
                let _ = answer.send(self.ledger.list(&consumer, most));
            }
            Command::Leave(done) => {
                // What shards said when they ended.
                self.hub.asks.take(usize::MAX, |(shard, ask)| {
                    self.ledger.ask(shard, ask, monotonic_ms());
                });
                self.ledger.leave(monotonic_ms());
                self.leaving = Some(done);
            }
        }
    }

    fn settle(&mut self, given: Given, _shards: u16) {
        let timeout_ms = given.timeout_ms.into();
        let same = self.given.as_ref().is_some_and(|old| old.redis == given.redis);
        if self.given.as_ref().map(|old| &old.node) != Some(&given.node) && !same {
            self.ledger.rename(node_id(&given.node));
        }
        if !same {
            self.life += 1;
            let settings = given.redis.as_ref();
            let names = settings.map(Settings::names).unwrap_or_default();
            self.cluster =
                names.first().filter(|_| settings.is_some_and(|one| one.cluster)).cloned();
            self.names = match &self.cluster {
                // The same on all nodes, whichever addresses they know.
                Some(_) => PARTITIONS.map(Arc::from).into(),
                None => names,
            };
            self.connections = self.names.iter().map(|_| None).collect();
            self.lost = vec![true; self.names.len()];
            self.tell_at_ms = None;
            self.refusals = vec![String::new(); self.names.len()];
            self.links = settings.map_or_else(Vec::new, |settings| {
                let link = |server| {
                    let work = link::keep(self.life, server, settings.clone(), self.events.clone());
                    Task::spawn(&self.runtime, work)
                };
                (0..self.names.len()).map(link).collect()
            });
        }
        self.ledger.set_servers(&self.names, timeout_ms, monotonic_ms());
        self.given = Some(given);
    }

    fn hear(&mut self, event: Event) {
        let Event { life, server, what } = event;
        if life != self.life {
            return;
        }
        let now_ms = monotonic_ms();
        match what {
            What::Connected(connection, run_id) => {
                self.connections[server] = Some(connection);
                self.refusals[server].clear();
                self.ledger.connected(server, run_id, now_ms);
            }
            What::Refused(why) => {
                // Once, not with each attempt, nor for each partition.
                if self.refusals[server] != why {
                    let name = self.cluster.as_ref().unwrap_or(&self.names[server]);
                    if self.cluster.is_none() || !self.refusals.contains(&why) {
                        eprintln!("sluice: Redis at {name} cannot be asked for limits: {why}");
                    }
                    self.refusals[server] = why;
                }
            }
            What::Disconnected => {
                self.connections[server] = None;
                self.ledger.disconnected(server, now_ms);
            }
            What::Answered(call, answer, us) => {
                if answer.is_ok()
                    && let Some(figures) = self.hub.figures.get()
                {
                    figures.took(us);
                }
                self.ledger.answered(server, call, answer, now_ms);
            }
            What::Beaten(beat) => self.ledger.beaten(server, beat, now_ms),
        }
    }

    /// Sends what the ledger has to say.
    fn send(&mut self) {
        let mut output = std::mem::take(&mut self.output);
        self.ledger.take_output(&mut output);
        for (server, number, call) in output.calls.drain(..) {
            let (events, life) = (self.events.clone(), self.life);
            let connection = self.connections.get(server).cloned().flatten();
            self.runtime.spawn(async move {
                let (answer, us) = match connection {
                    Some(connection) => connection.call(call).await,
                    None => (Err(crate::limit::ledger::Failed), 0),
                };
                let what = What::Answered(number, answer, us);
                let _ = events.send(Event { life, server, what });
            });
        }
        for (server, beat) in output.beats.drain(..) {
            let (events, life) = (self.events.clone(), self.life);
            let connection = self.connections.get(server).cloned().flatten();
            self.runtime.spawn(async move {
                let beat = match connection {
                    Some(connection) => connection.beat(beat, random()).await,
                    None => Err(crate::limit::ledger::Failed),
                };
                let _ = events.send(Event { life, server, what: What::Beaten(beat) });
            });
        }
        deliver(&mut output.told, &self.inboxes);
        self.output = output;
        if self.leaving.is_some()
            && self.ledger.has_left()
            && let Some(done) = self.leaving.take()
        {
            let _ = done.send(());
        }
        self.count();
    }

    /// Tells people how many partitions are lost, once for those that are at about the same time.
    fn tell_of_cluster(&mut self, name: &str) {
        let lost: Vec<bool> = (0..self.names.len()).map(|at| !self.ledger.is_ready(at)).collect();
        if lost == self.lost {
            self.tell_at_ms = None;
            return;
        }
        let now_ms = monotonic_ms();
        if now_ms < *self.tell_at_ms.get_or_insert(now_ms + limits::LIMIT_TELL_MS) {
            return;
        }
        let (count, of) = (lost.iter().filter(|lost| **lost).count(), lost.len());
        match count {
            0 => eprintln!("sluice: the Redis Cluster at {name} keeps limits"),
            _ => eprintln!(
                "sluice: {count} of {of} partitions of the Redis Cluster at {name} cannot be asked: their \
                 limits go by on_store_failure"
            ),
        }
        (self.lost, self.tell_at_ms) = (lost, None);
    }

    fn tell_of_servers(&mut self) {
        for server in 0..self.names.len() {
            let lost = !self.ledger.is_ready(server);
            if lost == self.lost[server] {
                continue;
            }
            self.lost[server] = lost;
            let name = &self.names[server];
            match lost {
                true => eprintln!(
                    "sluice: Redis at {name} cannot be asked: its limits go by on_store_failure"
                ),
                false => eprintln!("sluice: Redis at {name} keeps limits"),
            }
        }
    }

    /// Tells people, and the figures, what has changed.
    fn count(&mut self) {
        match self.cluster.clone() {
            Some(name) => self.tell_of_cluster(&name),
            None => self.tell_of_servers(),
        }
        let Some(figures) = self.hub.figures.get() else { return };
        let (now, before) = (self.ledger.counts(), self.counted);
        if now == before {
            return;
        }
        figures.add(Figure::Calls, now.calls.saturating_sub(before.calls));
        figures.add(Figure::Failures, now.failures.saturating_sub(before.failures));
        figures.add(Figure::Losses, now.losses.saturating_sub(before.losses));
        figures.add(Figure::Generations, now.generations.saturating_sub(before.generations));
        figures.set(Figure::Servers, now.servers);
        figures.set(Figure::ServersLost, now.servers_lost);
        figures.set(Figure::Buckets, now.buckets);
        self.counted = now;
    }
}
