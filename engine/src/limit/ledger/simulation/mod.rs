//! Nodes, shards and servers in one process and in virtual time, with faults, all by a seed.

mod check;
mod faults;
mod shard;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use contract::snapshot::{LimitMode, OnStoreFailure};

use super::{Failed, Ledger, Output};
use crate::limit::messages::{Ask, Bucket, Told};
use crate::limit::protocol::{Answer, Beat, Beaten, Call};
use crate::limit::rule::{Rule, Span};
use crate::limit::server::Server;
use crate::testing::Random;
use shard::Shard;

/// Times are in microseconds.
const MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Uniform,
    Poisson,
    /// All that comes within a window comes at its edge.
    Bursts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// For 5 s; what lies in its sockets is read afterwards.
    Stopped,
    /// Killed and restarted with nothing, or with what it had saved a second before.
    Killed {
        kept: bool,
    },
    /// Answers come 200 ms late, for 3 s.
    Slow,
    Flushed,
    /// A node is cut off for 4 s. `breaks`: it notices after half a second.
    CutOff {
        breaks: bool,
    },
    NodeKilled,
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub seed: u64,
    pub nodes: usize,
    pub shards: u16,
    pub servers: usize,
    pub limit: u64,
    pub window_ms: u64,
    /// Times the limit.
    pub load: f64,
    pub demand: Demand,
    pub fault: Fault,
    pub fault_at_ms: u64,
    pub length_ms: u64,
    pub mode: LimitMode,
    /// Nodes of the demand: the rest gets none.
    pub busy: usize,
}

enum Event {
    Request { node: usize, shard: usize },
    Told { node: usize, run: u64, shard: usize, told: Told },
    Ask { node: usize, run: u64, shard: usize, ask: Ask },
    ToServer { node: usize, server: usize, epoch: u64, said: Said },
    ToNode { node: usize, server: usize, epoch: u64, answer: Heard },
    Tick { node: usize, run: u64 },
    Look { node: usize, run: u64, shard: usize },
    Fault(u32),
}

enum Said {
    Call(u64, Call),
    Beat(Beat),
}

enum Heard {
    Call(u64, Answer),
    Beat(Beaten),
    Connected(Arc<str>),
}

struct Timed(u64, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Node {
    ledger: Ledger,
    /// Counts restarts.
    run: u64,
    alive: bool,
    shards: Vec<Shard>,
    lines: Vec<Line>,
    /// Until when it is cut off.
    cut_until: u64,
}

/// A connection; whatever was said on an earlier one is of an earlier epoch.
#[derive(Default)]
struct Line {
    epoch: u64,
    up: bool,
    /// Messages stay in their order.
    out: u64,
    back: u64,
}

struct Host {
    server: Server,
    saved: Option<Server>,
    runs: u64,
    alive: bool,
    stopped_until: u64,
    slow_until: u64,
}

pub struct World {
    setting: Setting,
    random: Random,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<Timed>>,
    nodes: Vec<Node>,
    hosts: Vec<Host>,
    rule: Rule,
    /// When requests came, were admitted, and reached the upstream.
    pub came: Vec<u64>,
    pub admitted: Vec<u64>,
    pub reached: Vec<u64>,
    pub refused: u64,
    pub calls: u64,
}

impl World {
    pub fn new(setting: Setting) -> World {
        let rule = Rule { limit: setting.limit, span: Span::Sliding { ms: setting.window_ms } };
        let host = |at: usize| Host {
            server: Server::new(&format!("server{at}")),
            saved: None,
            runs: 0,
            alive: true,
            stopped_until: 0,
            slow_until: 0,
        };
        let mut world = World {
            random: Random(setting.seed),
            // The server has a while before anything is wanted of it.
            now: 99_000 * MS,
            order: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            hosts: (0..setting.servers).map(host).collect(),
            rule,
            came: Vec::new(),
            admitted: Vec::new(),
            reached: Vec::new(),
            refused: 0,
            calls: 0,
            setting,
        };
        for at in 0..world.setting.nodes {
            let node = world.node(at, 0);
            world.nodes.push(node);
            world.begin(at);
        }
        world.run_for(1_000 * MS);
        world.plan_demand();
        let fault_at = world.now + world.setting.fault_at_ms * MS;
        world.push(fault_at.saturating_sub(1_000 * MS), Event::Fault(0));
        world.push(fault_at, Event::Fault(1));
        world
    }

    fn node(&self, at: usize, run: u64) -> Node {
        let names = self.names();
        let mut ledger = Ledger::new(self.setting.shards, format!("n{at}#{run}").into());
        ledger.set_servers(&names, 5, self.now / MS);
        let bucket = Arc::new(Bucket {
            name: "gold:consumer=acme".into(),
            tag: "acme".into(),
            consumer: "acme".into(),
            rule: self.rule,
            mode: self.setting.mode,
            on_store_failure: OnStoreFailure::Share,
        });
        let shards = (0..self.setting.shards).map(|_| Shard::new(7, bucket.clone())).collect();
        let lines = names.iter().map(|_| Line::default()).collect();
        Node { ledger, run, alive: true, shards, lines, cut_until: 0 }
    }

    fn names(&self) -> Vec<Arc<str>> {
        (0..self.setting.servers).map(|at| format!("redis{at}").into()).collect()
    }

    /// A node's first doings.
    fn begin(&mut self, node: usize) {
        let run = self.nodes[node].run;
        for server in 0..self.hosts.len() {
            self.connect(node, server, self.now + MS);
        }
        self.push(self.now, Event::Tick { node, run });
        for shard in 0..usize::from(self.setting.shards) {
            self.push(self.now + MS, Event::Look { node, run, shard });
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Timed(at, self.order, event)));
    }

    fn plan_demand(&mut self) {
        let Setting { window_ms, limit, load, demand, length_ms, busy, .. } = self.setting;
        let (window, length) = (window_ms * MS, length_ms * MS);
        let gap = (window as f64 / (limit as f64 * load)).max(1.0);
        let begin = self.now + 50 * MS;
        let mut at = begin as f64;
        while at < (self.now + length) as f64 {
            let time = at as u64;
            let time = match demand {
                Demand::Uniform | Demand::Poisson => time,
                // The last 20th of each window has it all.
                Demand::Bursts => {
                    let within = (time - begin) % window;
                    time - within + window - window / 20 + within / 20
                }
            };
            let node = self.random.below(busy as u64) as usize;
            let shard = self.random.below(u64::from(self.setting.shards)) as usize;
            self.came.push(time);
            self.push(time, Event::Request { node, shard });
            at += match demand {
                Demand::Poisson => -gap * (1.0 - self.random.unit()).ln(),
                _ => gap,
            };
        }
    }

    pub fn run(&mut self) {
        self.run_for(self.setting.length_ms * MS);
    }

    fn run_for(&mut self, length: u64) {
        let end = self.now + length;
        while let Some(Reverse(Timed(at, order, event))) = self.events.pop() {
            if at > end {
                self.events.push(Reverse(Timed(at, order, event)));
                break;
            }
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = end;
    }

    fn ms(&self) -> u64 {
        self.now / MS
    }

    fn is_now(&self, node: usize, run: u64) -> bool {
        self.nodes[node].alive && self.nodes[node].run == run
    }

    fn happen(&mut self, event: Event) {
        let now_ms = self.ms();
        // Answers come at any time up to when a request is taken for arrived.
        let answer_ms = 1 + self.random.below(self.rule.span.reach_ms());
        match event {
            Event::Request { node, shard } => {
                if self.nodes[node].alive {
                    let fate = self.nodes[node].shards[shard].request(now_ms, answer_ms);
                    self.count(&fate, answer_ms);
                    self.look(node, shard);
                }
            }
            Event::Look { node, run, shard } => {
                if self.is_now(node, run) {
                    self.look(node, shard);
                    self.push(self.now + 2 * MS, Event::Look { node, run, shard });
                }
            }
            Event::Told { node, run, shard, told } => {
                if self.is_now(node, run) {
                    let fate = self.nodes[node].shards[shard].tell(&told, now_ms, answer_ms);
                    self.count(&fate, answer_ms);
                    self.look(node, shard);
                }
            }
            Event::Ask { node, run, shard, ask } => {
                if self.is_now(node, run) {
                    self.nodes[node].ledger.ask(shard as u16, ask, now_ms);
                    self.flush(node);
                }
            }
            Event::Tick { node, run } => {
                if self.is_now(node, run) {
                    let due = self.nodes[node].ledger.next_ms() <= now_ms;
                    if due {
                        self.nodes[node].ledger.tick(now_ms);
                        self.flush(node);
                    }
                    self.push(self.now + MS, Event::Tick { node, run });
                }
            }
            Event::ToServer { node, server, epoch, said } => {
                self.serve(node, server, epoch, said);
            }
            Event::ToNode { node, server, epoch, answer } => {
                self.hear(node, server, epoch, answer);
            }
            Event::Fault(step) => self.fail(step),
        }
    }

    fn count(&mut self, fate: &shard::Fate, answer_ms: u64) {
        self.refused += fate.refused;
        for _ in 0..fate.admitted {
            self.admitted.push(self.now);
            // Before its answer; the shard's clock has whole milliseconds.
            let answered = (self.ms() + answer_ms) * MS;
            self.reached.push(self.now + self.random.below(answered.saturating_sub(self.now)));
        }
    }

    fn look(&mut self, node: usize, shard: usize) {
        let now_ms = self.ms();
        if let Some(ask) = self.nodes[node].shards[shard].ask(now_ms, self.setting.window_ms) {
            let run = self.nodes[node].run;
            let at = self.now + 20 + self.random.below(100);
            self.push(at, Event::Ask { node, run, shard, ask });
        }
    }

    fn flush(&mut self, node: usize) {
        let mut output = Output::default();
        self.nodes[node].ledger.take_output(&mut output);
        let run = self.nodes[node].run;
        for (shard, told) in output.told {
            let at = self.now + 150;
            self.push(at, Event::Told { node, run, shard: usize::from(shard), told });
        }
        self.calls += output.calls.len() as u64;
        for (server, number, call) in output.calls {
            self.send(node, server, Said::Call(number, call));
        }
        for (server, beat) in output.beats {
            self.send(node, server, Said::Beat(beat));
        }
    }

    fn send(&mut self, node: usize, server: usize, said: Said) {
        let delay = 50 + self.random.below(400);
        let cut_until = self.nodes[node].cut_until;
        let line = &mut self.nodes[node].lines[server];
        if !line.up {
            return;
        }
        line.out = line.out.max(self.now.max(cut_until) + delay);
        let (at, epoch) = (line.out, line.epoch);
        self.push(at, Event::ToServer { node, server, epoch, said });
    }

    fn connect(&mut self, node: usize, server: usize, at: u64) {
        let line = &mut self.nodes[node].lines[server];
        line.epoch += 1;
        line.up = true;
        let epoch = line.epoch;
        let run_id = self.hosts[server].server.run_id();
        let at = at.max(self.hosts[server].stopped_until).max(self.nodes[node].cut_until);
        let answer = Heard::Connected(run_id);
        self.push(at, Event::ToNode { node, server, epoch, answer });
    }

    /// A connection is gone, and the node knows.
    fn disconnect(&mut self, node: usize, server: usize) {
        let now_ms = self.ms();
        let node_ = &mut self.nodes[node];
        node_.lines[server].epoch += 1;
        node_.lines[server].up = false;
        node_.ledger.disconnected(server, now_ms);
        self.flush(node);
    }

    fn serve(&mut self, node: usize, server: usize, epoch: u64, said: Said) {
        let now = self.now;
        let host = &mut self.hosts[server];
        if !host.alive {
            return;
        }
        if host.stopped_until > now {
            // In its order, when the server goes on.
            let at = host.stopped_until;
            return self.push(at, Event::ToServer { node, server, epoch, said });
        }
        let server_ms = now / MS + 7_777;
        let random = self.random.next() >> 12;
        let answer = match said {
            Said::Call(number, call) => Heard::Call(number, host.server.call(&call, server_ms)),
            Said::Beat(beat) => Heard::Beat(host.server.beat(&beat, random, server_ms)),
        };
        let slow = if host.slow_until > now { 200 * MS } else { 0 };
        let delay = 50 + self.random.below(400);
        let cut_until = self.nodes[node].cut_until;
        let line = &mut self.nodes[node].lines[server];
        line.back = line.back.max(now.max(cut_until) + slow + delay);
        let at = line.back;
        self.push(at, Event::ToNode { node, server, epoch, answer });
    }

    fn hear(&mut self, node: usize, server: usize, epoch: u64, answer: Heard) {
        let now_ms = self.ms();
        let host_alive = self.hosts[server].alive;
        let node_ = &mut self.nodes[node];
        if !node_.alive || node_.lines[server].epoch != epoch || !host_alive {
            return;
        }
        match answer {
            Heard::Connected(run_id) => node_.ledger.connected(server, run_id, now_ms),
            Heard::Call(number, answer) => {
                node_.ledger.answered(server, number, Ok::<_, Failed>(answer), now_ms);
            }
            Heard::Beat(beaten) => node_.ledger.beaten(server, Ok(beaten), now_ms),
        }
        self.flush(node);
    }
}
