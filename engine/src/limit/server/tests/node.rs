//! A node that does all that the protocol allows it.

use std::sync::Arc;

use super::super::whole_ms;
use super::KEY;
use super::world::{Heard, Said, World};
use crate::limit::log::Log;
use crate::limit::protocol::{Answer, BEAT_MS, Beat, Call, MILLION, NodeId, SILENT_MS, Statement};
use crate::limit::rule::{Rule, Span};
use crate::testing::Random;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Away,
    Beating,
    Restating,
    Ready,
}

/// The node's own limit.
pub struct Alone {
    pub allowance: u64,
    /// Spent since, and what was not stated before.
    pub log: Log,
}

pub struct Node {
    pub id: NodeId,
    pub lives: bool,
    pub line: u64,
    pub phase: Phase,
    pub run_id: Arc<str>,
    pub generation: u64,
    pub heard_server_ms: u64,
    pub heard_ms: u64,
    /// When that was asked for.
    pub asked_ms: u64,
    /// The same of answers that came while it decided by the truth.
    pub sure_ms: u64,
    pub gone_at: Option<u64>,
    pub share: u64,
    pub smaller: Option<u64>,
    pub members: Vec<NodeId>,
    pub hold: u64,
    /// Since when it holds more than its part.
    pub much_since: Option<u64>,
    pub unstated: Vec<(u64, u64)>,
    pub stated: Vec<(u64, u64)>,
    /// All that it has spent.
    pub log: Log,
    pub alone: Option<Alone>,
    pub seq: u64,
    /// It has to state anew what it holds.
    pub unsaid: bool,
    pub under_way: Option<(u64, u64)>,
    pub beat_at: Option<u64>,
    pub next_beat: u64,
    pub cut_until: u64,
    /// A connection is under way until then.
    pub connects_until: u64,
    /// One in so many milliseconds it wants to spend.
    pub leisure: u64,
    pub greed: u64,
    pub returns_at: u64,
    pub leaving: bool,
}

pub fn node(name: &str, random: &mut Random, now: u64) -> Node {
    Node {
        id: format!("{name}#{:x}", random.next() >> 32).into(),
        lives: true,
        line: 0,
        phase: Phase::Away,
        run_id: "".into(),
        generation: 0,
        heard_server_ms: 0,
        heard_ms: now,
        asked_ms: now,
        sure_ms: now,
        gone_at: None,
        share: 0,
        smaller: None,
        members: Vec::new(),
        hold: 0,
        much_since: None,
        unstated: Vec::new(),
        stated: Vec::new(),
        log: Log::default(),
        alone: None,
        seq: 0,
        unsaid: false,
        under_way: None,
        beat_at: None,
        next_beat: 0,
        cut_until: 0,
        connects_until: 0,
        leisure: 1 + random.below(20),
        greed: 1 + random.below(8),
        returns_at: 0,
        leaving: false,
    }
}

impl World {
    pub fn hear(&mut self, at: usize, heard: Heard) {
        let (now, rule) = (self.now, self.rule);
        let node = &mut self.nodes[at];
        match heard {
            Heard::Connected(run_id) => {
                (node.run_id, node.phase) = (run_id, Phase::Beating);
                node.next_beat = now;
            }
            Heard::Call(seq, answer) => {
                let Some((_, sent)) = node.under_way.filter(|(have, _)| *have == seq) else {
                    return;
                };
                node.under_way = None;
                match answer {
                    Answer::Verdicts { now_ms, verdicts } => {
                        node.heard_server_ms = node.heard_server_ms.max(now_ms);
                        node.heard_ms = now;
                        node.heard(sent);
                        if !verdicts[0].stale {
                            node.unsaid = false;
                            node.stated.clear();
                            if node.alone.is_none() {
                                node.hold += verdicts[0].granted;
                            }
                        }
                        let verdict = verdicts[0];
                        let id = node.id.clone();
                        self.note(|| format!("{id} hears {verdict:?}"));
                    }
                    _ if node.phase != Phase::Away => {
                        (node.phase, node.next_beat) = (Phase::Beating, now);
                    }
                    _ => {}
                }
            }
            Heard::Beat(beaten) => {
                let id = node.id.clone();
                // Before it has heard again.
                let allowance = node.allowance(&rule, self.forget_ms, now);
                let asked = node.beat_at.take().unwrap_or(0);
                node.heard(asked);
                if node.generation != beaten.generation {
                    node.heard_server_ms = 0;
                }
                node.heard_server_ms = node.heard_server_ms.max(beaten.now_ms);
                node.heard_ms = now;
                if beaten.gone_ms < self.forget_ms {
                    node.gone_at = node.gone_at.max(Some(now - beaten.gone_ms));
                }
                match beaten.share < node.share {
                    true => node.smaller = Some(beaten.share),
                    false => (node.share, node.smaller) = (beaten.share, None),
                }
                node.members = beaten.members.clone();
                let another = node.generation != beaten.generation;
                if another || beaten.was_lost {
                    self.generations += u64::from(another);
                    node.generation = beaten.generation;
                    node.phase = Phase::Restating;
                    node.under_way = None;
                    // All that it has spent, or what was not acknowledged.
                    node.stated.append(&mut node.unstated);
                    let mut alone = node.alone.take();
                    if let Some(alone) = &mut alone {
                        alone.log.advance(rule.span, now);
                    }
                    node.log.advance(rule.span, now);
                    let log = match &alone {
                        _ if another => {
                            node.stated.clear();
                            Some(&node.log)
                        }
                        Some(alone) => Some(&alone.log),
                        None => None,
                    };
                    let ages = log.into_iter().flat_map(|log| log.ages(rule.span));
                    node.stated.extend(ages.map(|(age, tokens)| (now - age, tokens)));
                    if let Some(alone) = alone {
                        let left = allowance.saturating_sub(alone.log.used());
                        node.hold = node.hold.min(left);
                    }
                    node.unsaid = true;
                } else if node.phase != Phase::Away {
                    node.phase = Phase::Ready;
                }
                self.note(|| format!("{id} hears {beaten:?}"));
            }
        }
    }

    pub fn live(&mut self, at: usize) {
        let (now, rule) = (self.now, self.rule);
        if !self.nodes[at].lives {
            if now >= self.nodes[at].returns_at {
                let name = format!("n{at}");
                let line = self.nodes[at].line + 1;
                self.nodes[at] = node(&name, &mut self.random, now);
                self.nodes[at].line = line;
                let id = self.nodes[at].id.clone();
                self.note(|| format!("{id} starts"));
            }
            return;
        }
        // It notices sooner or later that nothing comes, and connects anew.
        let node = &self.nodes[at];
        let silent_ms = now - node.heard_ms;
        let stuck = silent_ms > 600 && node.phase != Phase::Away;
        if stuck && self.random.one_in(400) {
            self.disconnect(at);
        }
        let node = &self.nodes[at];
        let reachable = self.server_lives && self.stopped_until <= now && node.cut_until <= now;
        let idle = node.phase == Phase::Away && now >= node.connects_until;
        if idle && reachable && self.random.one_in(30) {
            let (line, run_id) = (node.line + 1, self.server.run_id());
            (self.nodes[at].line, self.nodes[at].connects_until) = (line, now + 300);
            self.answer(at, line, Heard::Connected(run_id));
            // Until then it is away.
        }
        let node = &mut self.nodes[at];
        if self.random.one_in(500) {
            (node.leisure, node.greed) = (1 + self.random.below(60), 1 + self.random.below(12));
        }
        let part = part_of(rule.limit, node.smaller.unwrap_or(node.share).min(node.share));
        // More than its part is for who waits: what is still there goes back.
        match node.hold > part {
            false => node.much_since = None,
            true if node.much_since.is_none_or(|since| now - since < SILENT_MS / 4) => {
                node.much_since.get_or_insert(now);
            }
            true => node.hold = part,
        }
        if now - node.asked_ms >= self.forget_ms - 500 {
            (node.hold, node.share, node.smaller) = (0, 0, None);
            if let Some(alone) = &mut node.alone {
                alone.allowance = 0;
            }
        }
        // An answer that does not come.
        let late = node.under_way.is_some_and(|(_, sent)| now - sent > 10);
        if node.alone.is_none() && (node.phase != Phase::Ready || late && self.random.one_in(20)) {
            self.lapse(at);
        }
        self.beat(at);
        self.state(at);
        if self.random.one_in(self.nodes[at].leisure) {
            let tokens = 1 + self.random.below(self.nodes[at].greed);
            (0..tokens).for_each(|_| self.spend(at));
        }
    }

    pub fn lapse(&mut self, at: usize) {
        let (now, span) = (self.now, self.rule.span);
        let node = &mut self.nodes[at];
        let mut log = Log::default();
        log.advance(span, now);
        let mut allowance = node.hold;
        for (at_ms, tokens) in node.unstated.drain(..) {
            allowance += tokens;
            log.spend(span, at_ms, tokens);
        }
        node.alone = Some(Alone { allowance, log });
    }

    pub fn beat(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.phase == Phase::Away || node.beat_at.is_some() || now < node.next_beat {
            return;
        }
        let restated = match node.phase {
            Phase::Restating => !node.unsaid,
            phase => phase == Phase::Ready,
        };
        if node.phase == Phase::Restating && !restated {
            return;
        }
        if let Some(smaller) =
            node.smaller.filter(|smaller| node.hold <= part_of(self.rule.limit, *smaller))
        {
            (node.share, node.smaller) = (smaller, None);
        }
        let leaves =
            node.leaving && node.hold == 0 && node.unstated.is_empty() && node.stated.is_empty();
        let leaves = leaves && node.under_way.is_none() && node.alone.is_none();
        node.beat_at = Some(now);
        node.next_beat = now + BEAT_MS;
        let beat = Beat {
            node: node.id.clone(),
            generation: node.generation,
            run_id: node.run_id.clone(),
            heard_ms: node.heard_server_ms,
            share: node.share,
            members: node.members.clone(),
            gone_ms: node
                .gone_at
                .map_or(self.forget_ms, |gone_at| (now - gone_at).min(self.forget_ms)),
            restated,
            leaves,
        };
        if leaves {
            node.lives = false;
        }
        self.note(|| format!("{beat:?}"));
        self.say(at, Said::Beat(beat));
    }

    pub fn state(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.under_way.is_some() || !matches!(node.phase, Phase::Ready | Phase::Restating) {
            return;
        }
        if node.phase == Phase::Ready && !self.random.one_in(8) && !node.leaving {
            return;
        }
        if node.phase == Phase::Restating && !node.unsaid {
            return;
        }
        let span = self.rule.span;
        let allowance = node.allowance(&self.rule, self.forget_ms, now);
        if let Some(mut alone) = node.alone.take() {
            alone.log.advance(span, now);
            node.hold = node.hold.min(allowance.saturating_sub(alone.log.used()));
            let ages = alone.log.ages(span);
            node.unstated.extend(ages.map(|(age, tokens)| (now - age, tokens)));
        }
        if node.leaving || self.random.one_in(5) {
            node.hold = 0;
        }
        node.stated.append(&mut node.unstated);
        node.seq += 1;
        node.under_way = Some((node.seq, now));
        let part = part_of(self.rule.limit, node.smaller.unwrap_or(node.share).min(node.share));
        let need = if node.leaving { 0 } else { self.random.below(4) };
        let waiting = need + if node.leaving { 0 } else { self.random.below(4) };
        let want = if node.leaving { 0 } else { waiting.max(part.saturating_sub(node.hold)) };
        let statement = Statement {
            key: KEY.into(),
            rule: self.rule,
            seq: node.seq,
            hold: node.hold,
            spent: node.stated.iter().map(|(at, tokens)| (now - at, *tokens)).collect(),
            need,
            waiting,
            want,
        };
        let call = Call {
            node: node.id.clone(),
            generation: node.generation,
            heard_ms: node.heard_server_ms,
            statements: vec![statement],
        };
        self.note(|| format!("{call:?}"));
        self.say(at, Said::Call(call));
    }

    pub fn spend(&mut self, at: usize) {
        let (now, rule) = (self.now, self.rule);
        let node = &mut self.nodes[at];
        if node.leaving {
            return;
        }
        let allowance = node.allowance(&rule, self.forget_ms, now);
        match &mut node.alone {
            None if node.hold == 0 => return,
            None => {
                node.hold -= 1;
                node.unstated.push((now, 1));
            }
            Some(alone) => {
                alone.log.advance(rule.span, now);
                if alone.log.used() >= allowance {
                    return;
                }
                alone.log.spend(rule.span, now, 1);
            }
        }
        node.log.advance(rule.span, now);
        node.log.spend(rule.span, now, 1);
        let Span::Sliding { ms } = rule.span else { return };
        self.spent.push_back((now, 1));
        (self.spent_sum, self.total) = (self.spent_sum + 1, self.total + 1);
        while let Some(&(first, tokens)) = self.spent.front()
            && first + ms <= now
        {
            self.spent.pop_front();
            self.spent_sum -= tokens;
        }
        let (sum, limit) = (self.spent_sum, rule.limit);
        let id = self.nodes[at].id.clone();
        let alone = self.nodes[at].alone.is_some();
        self.note(|| format!("{id} spends, alone {alone}: {sum} of {limit}"));
        if sum > limit {
            self.trace.iter().for_each(|line| println!("{line}"));
            panic!("{sum} of {limit} within {ms} ms");
        }
    }
}

impl Node {
    /// An answer to what it said then.
    fn heard(&mut self, asked: u64) {
        self.asked_ms = self.asked_ms.max(asked);
        if self.phase == Phase::Ready && self.alone.is_none() {
            self.sure_ms = self.sure_ms.max(asked);
        }
    }

    /// What is left of its own limit by now.
    fn allowance(&self, rule: &Rule, forget_ms: u64, now: u64) -> u64 {
        let before = self.alone.as_ref().map_or(0, |alone| alone.allowance);
        let part = part_of(rule.limit, self.share);
        let silent_ms = now - self.heard_ms;
        match now - self.asked_ms {
            alone_ms if alone_ms >= forget_ms - 500 => 0,
            _ if now - self.sure_ms < SILENT_MS / 2 => before,
            _ if silent_ms < 2 * SILENT_MS + whole_ms(rule.span) => before.min(part),
            _ => part,
        }
    }
}

fn part_of(limit: u64, share: u64) -> u64 {
    limit * share / MILLION
}
