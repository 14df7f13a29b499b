//! Nodes that do all that the protocol allows them, and a server: whatever fails, the upstream gets no
//! more than the limit.

mod node;
mod world;

use self::world::World;
use super::Server;
use crate::limit::protocol::{
    Answer, Beat, Beaten, Call, FORGET_MS, MILLION, NodeId, SETTLE_MS, Statement,
};
use crate::limit::rule::{Rule, Span};

const KEY: &str = "sluice:limit:{t}:b";

#[test]
fn whatever_fails_never_over() {
    // One seed again: SIMULATION_SEED=123.
    let only = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok());
    let (from, to) = only.map_or((1, count.unwrap_or(200)), |seed: u64| (seed, seed));
    let mut total = 0;
    for seed in from..=to {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run(30_000, true);
            world.total
        });
        total += run.unwrap_or_else(|_| panic!("SIMULATION_SEED={seed}"));
    }
    assert!(total > 0);
    println!("{total} spent");
}

/// A server and what nodes say to it, by hand.
struct Hand {
    server: Server,
    now: u64,
    seq: u64,
}

const MINUTE: Rule = Rule { limit: 100, span: Span::Sliding { ms: 60_000 } };

impl Hand {
    fn new() -> Hand {
        Hand { server: Server::new("run"), now: 1_000_000, seq: 0 }
    }

    fn usual(&self, node: &str, generation: u64) -> Beat {
        Beat {
            node: node.into(),
            generation,
            run_id: self.server.run_id(),
            heard_ms: self.now,
            share: 0,
            members: Vec::new(),
            gone_ms: FORGET_MS,
            restated: true,
            leaves: false,
        }
    }

    fn beat(&mut self, node: &str, generation: u64, members: &[&str], gone_ms: u64) -> Beaten {
        let members = members.iter().map(|one| NodeId::from(*one)).collect();
        let beat = Beat { members, gone_ms, ..self.usual(node, generation) };
        self.server.beat(&beat, self.now, self.now)
    }

    /// It joins, or has restated.
    fn join(&mut self, node: &str) -> u64 {
        let generation = self.beat(node, 0, &[], FORGET_MS).generation;
        assert!(!self.beat(node, generation, &[], FORGET_MS).was_lost);
        generation
    }

    fn leave(&mut self, node: &str, generation: u64) {
        let beat = Beat { leaves: true, ..self.usual(node, generation) };
        self.server.beat(&beat, 1, self.now);
    }

    fn say(
        &mut self,
        node: &str,
        generation: u64,
        rule: Rule,
        hold: u64,
        want: u64,
    ) -> super::Verdict {
        self.seq += 1;
        let (key, seq) = (KEY.into(), self.seq);
        let (need, waiting, spent) = (want.min(1), want, Vec::new());
        let statement = Statement { key, rule, seq, hold, spent, need, waiting, want };
        let (heard_ms, statements) = (self.now, vec![statement]);
        let call = Call { node: node.into(), generation, heard_ms, statements };
        match self.server.call(&call, self.now) {
            Answer::Verdicts { verdicts, .. } => verdicts[0],
            other => panic!("{other:?}"),
        }
    }

    /// Time passes, in which these beat.
    fn pass(&mut self, ms: u64, nodes: &[&str], generation: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now += 100;
            for node in nodes {
                self.beat(node, generation, &[], FORGET_MS);
            }
        }
    }
}

#[test]
fn nothing_is_granted_before_all_can_have_come() {
    let mut hand = Hand::new();
    let generation = hand.join("a#1");
    assert!(hand.say("a#1", generation, MINUTE, 0, 1).restoring);
    hand.pass(SETTLE_MS, &["a#1"], generation);
    assert_eq!(hand.say("a#1", generation, MINUTE, 0, 1).granted, 1);
}

#[test]
fn what_the_departed_have_spent_is_waited_out_after_a_loss_of_memory() {
    let mut hand = Hand::new();
    let old = hand.join("a#1");
    hand.join("b#1");
    hand.pass(1_000, &["a#1", "b#1"], old);
    hand.leave("b#1", old);
    hand.now += 100;
    let gone_ms = hand.beat("a#1", old, &[], FORGET_MS).gone_ms;
    assert_eq!(gone_ms, 100);
    hand.server.flush();
    hand.now += 5_000;
    let new = hand.beat("a#1", old, &["a#1"], gone_ms + 5_000).generation;
    assert_ne!(old, new);
    hand.beat("a#1", new, &[], FORGET_MS);
    hand.pass(50_000, &["a#1"], new);
    assert!(hand.say("a#1", new, MINUTE, 0, 1).restoring);
    hand.pass(7_000, &["a#1"], new);
    assert_eq!(hand.say("a#1", new, MINUTE, 0, 1).granted, 1);
}

#[test]
fn what_a_forgotten_node_held_counts_as_spent_when_it_was_forgotten() {
    let mut hand = Hand::new();
    let generation = hand.join("a#1");
    hand.join("b#1");
    hand.pass(1_000, &["a#1", "b#1"], generation);
    assert_eq!(hand.say("b#1", generation, MINUTE, 0, 60).granted, 60);
    hand.pass(FORGET_MS - 1_000, &["a#1"], generation);
    assert_eq!(hand.say("a#1", generation, MINUTE, 0, 100).granted, 40, "it may come back");
    hand.pass(30_000, &["a#1"], generation);
    let meanwhile = hand.say("a#1", generation, MINUTE, 0, 100);
    // It may have gone by its part, too.
    assert!(meanwhile.granted <= 40 && meanwhile.used == 60, "{meanwhile:?}");
    hand.pass(32_000, &["a#1"], generation);
    assert_eq!(hand.say("a#1", generation, MINUTE, 0, 100).granted, 100);
    // It comes back: not before it has stated anew it is granted anything.
    assert!(hand.beat("b#1", generation, &[], FORGET_MS).members.len() == 2);
}

#[test]
fn of_a_long_window_a_lost_node_has_what_it_holds_and_of_a_short_one_its_part() {
    let day = Rule { limit: 100, span: Span::Sliding { ms: 86_400_000 } };
    for (rule, left) in [(day, 80), (MINUTE, 50)] {
        let mut hand = Hand::new();
        let generation = hand.join("a#1");
        hand.pass(1_000, &["a#1"], generation);
        hand.join("b#1");
        for _ in 0..3 {
            // Each says which part it goes by.
            hand.now += 100;
            for node in ["a#1", "b#1"] {
                let beat = Beat { share: MILLION / 2, ..hand.usual(node, generation) };
                hand.server.beat(&beat, 1, hand.now);
            }
        }
        assert_eq!(hand.say("b#1", generation, rule, 0, 20).granted, 20);
        hand.pass(2_000, &["a#1"], generation);
        assert_eq!(hand.say("a#1", generation, rule, 0, 100).granted, left);
    }
}

#[test]
fn whoever_comes_from_another_generation_and_whom_it_names_are_awaited() {
    let mut hand = Hand::new();
    let generation = hand.join("new#1");
    hand.pass(SETTLE_MS, &["new#1"], generation);
    assert!(!hand.say("new#1", generation, MINUTE, 0, 0).restoring);
    hand.beat("old#1", 5, &["other#1"], FORGET_MS);
    assert!(hand.say("new#1", generation, MINUTE, 0, 0).restoring);
    hand.beat("old#1", generation, &[], FORGET_MS);
    assert!(hand.say("new#1", generation, MINUTE, 0, 0).restoring, "not all have come");
    hand.beat("other#1", 5, &[], FORGET_MS);
    hand.beat("other#1", generation, &[], FORGET_MS);
    assert!(!hand.say("new#1", generation, MINUTE, 0, 0).restoring);
}

#[test]
fn an_old_beat_makes_no_part_smaller() {
    let mut hand = Hand::new();
    let generation = hand.join("a#1");
    hand.pass(SETTLE_MS, &["a#1"], generation);
    assert_eq!(hand.beat("a#1", generation, &[], FORGET_MS).share, MILLION);
    let before = hand.now;
    hand.now += 50;
    let old = Beat { heard_ms: before - 1, share: 3, ..hand.usual("a#1", generation) };
    hand.server.beat(&old, 1, hand.now);
    assert_eq!(hand.beat("b#1", 0, &[], FORGET_MS).share, 0);
}
