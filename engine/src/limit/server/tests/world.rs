//! The server, the lines to it, and what fails.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::Server;
use super::node::{Node, Phase, node};
use crate::limit::protocol::{Answer, Beat, Beaten, Call, FORGET_MS};
use crate::limit::rule::{Rule, Span};
use crate::testing::Random;

/// So far the server's clock is ahead.
const AHEAD_MS: u64 = 500_000;

pub enum Said {
    Call(Call),
    Beat(Beat),
}

pub enum Heard {
    Call(u64, Answer),
    Beat(Beaten),
    Connected(Arc<str>),
}

pub struct World {
    pub random: Random,
    pub rule: Rule,
    pub now: u64,
    pub server: Server,
    pub saved: Option<Server>,
    pub run: u64,
    pub forget_ms: u64,
    /// Who tells a server that has lost its memory of the others; nothing befalls it until then.
    pub witness: Option<usize>,
    pub server_lives: bool,
    pub back_at: u64,
    pub stopped_until: u64,
    pub slow_until: u64,
    pub nodes: Vec<Node>,
    /// When, of which run of the server, from whom over which line.
    pub out: BTreeMap<(u64, u64), (u64, usize, u64, Said)>,
    pub back: BTreeMap<(u64, u64), (usize, u64, Heard)>,
    pub order: u64,
    /// Over each line nothing overtakes.
    pub last_out: BTreeMap<(usize, u64), u64>,
    pub last_back: BTreeMap<(usize, u64), u64>,
    pub spent: VecDeque<(u64, u64)>,
    pub spent_sum: u64,
    pub total: u64,
    pub generations: u64,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let forget_ms = [FORGET_MS, 8_000][random.below(2) as usize];
        let limit = [1, 3, 10, 40, 200][random.below(5) as usize];
        let windows = if forget_ms == FORGET_MS { 5 } else { 4 };
        let ms = [100, 400, 1_000, 3_000, 20_000][random.below(windows) as usize];
        let nodes = 1 + random.below(4);
        let nodes = (0..nodes).map(|at| node(&format!("n{at}"), &mut random, 10_000)).collect();
        World {
            random,
            rule: Rule { limit, span: Span::Sliding { ms } },
            now: 10_000,
            server: Server { forget_ms, ..Server::new("run0") },
            saved: None,
            run: 0,
            forget_ms,
            witness: None,
            server_lives: true,
            back_at: 0,
            stopped_until: 0,
            slow_until: 0,
            nodes,
            out: BTreeMap::new(),
            back: BTreeMap::new(),
            order: 0,
            last_out: BTreeMap::new(),
            last_back: BTreeMap::new(),
            spent: VecDeque::new(),
            spent_sum: 0,
            total: 0,
            generations: 0,
            trace: Vec::new(),
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if std::env::var_os("SIMULATION_SEED").is_some() {
            let what = what();
            self.trace.push(format!("{}: {what}", self.now));
        }
    }

    pub fn run(&mut self, ms: u64, faults: bool) {
        for _ in 0..ms {
            self.now += 1;
            if faults {
                self.fail();
            }
            self.deliver();
            for at in 0..self.nodes.len() {
                self.live(at);
            }
        }
    }

    pub fn fail(&mut self) {
        let now = self.now;
        if !self.server_lives && now >= self.back_at {
            let kept = self.saved.clone().filter(|_| self.random.one_in(2));
            let was_kept = kept.is_some();
            self.run += 1;
            self.server = kept.unwrap_or_else(|| self.server.clone());
            self.server.restart(&format!("run{}", self.run), was_kept);
            self.server_lives = true;
            self.note(|| format!("server is back, with its memory: {was_kept}"));
        }
        let told = |at: usize| {
            let (server, node) = (&self.server, &self.nodes[at]);
            server.made_by == server.run_id && server.generation == node.generation
        };
        if self.server_lives && self.witness.is_some_and(told) {
            self.witness = None;
        }
        if self.random.one_in(3_000) {
            self.saved = Some(self.server.clone());
        }
        if !self.random.one_in(1_200) {
            return;
        }
        let length = [20, 200, 700, 1_500, 6_000, 15_000][self.random.below(6) as usize];
        let length = 1 + self.random.below(length);
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let fault = self.random.below(8);
        if matches!(fault, 2 | 3) {
            // Somebody has to know.
            let Some(witness) = self.find_witness() else { return };
            self.witness = Some(witness);
        } else if fault > 3 && self.witness == Some(at) {
            return;
        }
        self.note(|| format!("fault {fault} for {length} ms, node {at}"));
        match fault {
            0 => self.stopped_until = now + length,
            1 => self.slow_until = now + length,
            2 => self.server.flush(),
            3 if self.server_lives => {
                self.server_lives = false;
                self.back_at = now + length;
                (0..self.nodes.len()).for_each(|at| self.disconnect(at));
            }
            4 | 5 => self.nodes[at].cut_until = now + length,
            6 => {
                self.nodes[at].lives = false;
                self.nodes[at].returns_at = now + length;
            }
            _ => {
                self.nodes[at].leaving = true;
                self.nodes[at].returns_at = now + length;
            }
        }
    }

    /// A node that lives, can be heard, and knows all that the server knows of nodes.
    pub fn find_witness(&self) -> Option<usize> {
        let server = &self.server;
        let gone = server.gone_ms.saturating_sub(AHEAD_MS);
        let knows = |node: &Node| {
            node.lives
                && !node.leaving
                && node.cut_until <= self.now
                && node.phase != Phase::Away
                && node.generation == server.generation
                && server.members.keys().all(|one| node.members.contains(one))
                && node.gone_at.unwrap_or(0) >= gone
        };
        let nobody_else = |at: usize| self.witness.is_none_or(|witness| witness == at);
        (0..self.nodes.len()).find(|at| nobody_else(*at) && knows(&self.nodes[*at]))
    }

    pub fn disconnect(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.line, node.phase) = (node.line + 1, Phase::Away);
        (node.under_way, node.beat_at) = (None, None);
    }

    /// `said` gets to the server.
    pub fn say(&mut self, at: usize, said: Said) {
        let (line, cut) = (self.nodes[at].line, self.nodes[at].cut_until);
        let last = self.last_out.entry((at, line)).or_default();
        *last = (*last).max(self.now.max(cut) + self.random.below(3));
        self.order += 1;
        self.out.insert((*last, self.order), (self.run, at, line, said));
    }

    pub fn deliver(&mut self) {
        while let Some(entry) = self.out.first_entry()
            && entry.key().0 <= self.now
        {
            let ((_, order), (run, at, line, said)) = entry.remove_entry();
            if run != self.run || !self.server_lives {
                continue;
            }
            if self.stopped_until > self.now {
                self.out.insert((self.stopped_until, order), (run, at, line, said));
                continue;
            }
            let now_ms = self.now + AHEAD_MS;
            let random = self.random.next() >> 12;
            let heard = match said {
                Said::Call(call) => {
                    let seq = call.statements[0].seq;
                    Heard::Call(seq, self.server.call(&call, now_ms))
                }
                Said::Beat(beat) => Heard::Beat(self.server.beat(&beat, random, now_ms)),
            };
            self.answer(at, line, heard);
        }
        while let Some(entry) = self.back.first_entry()
            && entry.key().0 <= self.now
        {
            let (_, (at, line, heard)) = entry.remove_entry();
            if self.nodes[at].line == line && self.nodes[at].lives {
                self.hear(at, heard);
            }
        }
    }

    pub fn answer(&mut self, at: usize, line: u64, heard: Heard) {
        let cut = self.nodes[at].cut_until;
        let slow = if self.slow_until > self.now { 200 } else { 0 };
        let last = self.last_back.entry((at, line)).or_default();
        *last = (*last).max(self.now.max(cut) + slow + self.random.below(3));
        self.order += 1;
        self.back.insert((*last, self.order), (at, line, heard));
    }
}
