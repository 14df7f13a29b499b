use std::sync::Arc;

use contract::snapshot::{LimitMode, OnStoreFailure};
use smallvec::smallvec;

use super::*;
use crate::limit::messages::Spent;
use crate::limit::protocol::{ALONE_MS, FORGET_MS, RESTATE_MS, SETTLE_MS};
use crate::limit::rule::{Rule, Span};
use crate::limit::server::Server;

const START: u64 = 1_000_000;

fn bucket(name: &str, limit: u64, mode: LimitMode) -> Arc<Bucket> {
    Arc::new(Bucket {
        name: name.into(),
        tag: "acme".into(),
        consumer: "acme".into(),
        rule: Rule { limit, span: Span::Sliding { ms: 1_000 } },
        mode,
        on_store_failure: OnStoreFailure::Share,
    })
}

fn ask(id: BucketId, bucket: Option<&Arc<Bucket>>, need: u64, want: u64) -> Ask {
    Ask {
        id,
        bucket: bucket.cloned(),
        hold: 0,
        spent: smallvec![],
        need,
        waiting: need,
        want,
        debt: 0,
        last: false,
    }
}

fn output(ledger: &mut Ledger) -> Output {
    let mut out = Output::default();
    ledger.take_output(&mut out);
    out
}

/// A ledger with one server that answers at once.
struct Pair {
    ledger: Ledger,
    server: Server,
    told: Vec<(u16, Told)>,
    calls: Vec<Call>,
    beats: Vec<Beat>,
    /// What was said last to another node, if there is one.
    other: Option<Beaten>,
}

impl Pair {
    fn new(now_ms: u64) -> Pair {
        // Its server grants from then on.
        let begun_ms = now_ms - SETTLE_MS;
        let mut ledger = Ledger::new(2, "one#1".into());
        ledger.set_servers(&["redis".into()], 5, begun_ms);
        let server = Server::new("run");
        let (told, calls, beats) = (Vec::new(), Vec::new(), Vec::new());
        let mut pair = Pair { ledger, server, told, calls, beats, other: None };
        pair.ledger.connected(0, "run".into(), begun_ms);
        (0..10).for_each(|step| pair.pass(begun_ms + step * 100));
        assert!(pair.ledger.is_ready(0));
        pair
    }

    /// A shard asks for one token of bucket 1, spends it, and gives back what else it was granted.
    fn spend_one(&mut self, bucket: &Arc<Bucket>, now_ms: u64) {
        self.ledger.ask(0, ask(1, Some(bucket), 1, 1), now_ms);
        self.pass(now_ms);
        let spent = smallvec![Spent { at_ms: now_ms + 1, tokens: 1 }];
        self.ledger.ask(0, Ask { spent, ..ask(1, None, 0, 0) }, now_ms + 2);
    }

    /// Another node joins.
    fn join(&mut self, now_ms: u64) {
        self.other = Some(self.beat_of_other(0, 0, now_ms));
        (1..5).for_each(|step| self.pass(now_ms + step * 100));
        assert_eq!(self.other.as_ref().unwrap().members.len(), 2);
    }

    fn beat_of_other(&mut self, heard_ms: u64, share: u64, now_ms: u64) -> Beaten {
        let beat = Beat {
            node: "two#1".into(),
            generation: 77,
            run_id: "run".into(),
            heard_ms,
            share,
            members: Vec::new(),
            gone_ms: FORGET_MS,
            restated: true,
            leaves: false,
        };
        self.server.beat(&beat, 77, now_ms)
    }

    /// Whatever is said is answered.
    fn pass(&mut self, now_ms: u64) {
        if let Some(last) = self.other.take() {
            self.other = Some(self.beat_of_other(last.now_ms, last.share, now_ms));
        }
        self.ledger.tick(now_ms);
        for _ in 0..10 {
            let out = output(&mut self.ledger);
            self.answer(out, now_ms);
        }
    }

    fn answer(&mut self, out: Output, now_ms: u64) {
        for (server, number, call) in out.calls {
            let answer = self.server.call(&call, now_ms);
            self.calls.push(call);
            self.ledger.answered(server, number, Ok(answer), now_ms);
        }
        for (server, beat) in out.beats {
            let beaten = self.server.beat(&beat, 77, now_ms);
            self.beats.push(beat);
            self.ledger.beaten(server, Ok(beaten), now_ms);
        }
        self.told.extend(out.told);
    }
}

#[test]
fn without_servers_the_ledger_is_the_truth() {
    let mut ledger = Ledger::new(2, "one#1".into());
    let gold = bucket("gold", 10, LimitMode::Leased);
    ledger.ask(0, ask(1, Some(&gold), 1, 4), START);
    ledger.ask(1, ask(1, Some(&gold), 6, 6), START);
    let told = output(&mut ledger).told;
    assert_eq!(
        told.iter().map(|(shard, told)| (*shard, told.granted)).collect::<Vec<_>>(),
        [(0, 4), (1, 6)]
    );
    // All is spent: nothing before the first leaves the window.
    let spent = smallvec![Spent { at_ms: START + 5, tokens: 4 }];
    ledger.ask(0, Ask { spent, ..ask(1, None, 1, 1) }, START + 5);
    let told = output(&mut ledger).told;
    // Shard 1 is asked to give back first.
    assert_eq!((told.len(), told[0].0, told[0].1.answers, told[0].1.fair), (1, 1, false, 0));
    let spent = smallvec![Spent { at_ms: START + 6, tokens: 6 }];
    ledger.ask(1, Ask { spent, ..ask(1, None, 0, 0) }, START + 6);
    let told = output(&mut ledger).told;
    let refused = told.iter().find(|(shard, _)| *shard == 0).map(|(_, told)| told).unwrap();
    assert!(refused.answers && refused.granted == 0);
    assert_eq!(refused.retry_at_ms, START + 1_006);
    ledger.ask(0, ask(1, None, 4, 4), START + 1_006);
    assert_eq!(output(&mut ledger).told[0].1.granted, 4);
}

#[test]
fn what_the_ledger_does_not_know_it_wants_to_be_told() {
    let mut ledger = Ledger::new(1, "one#1".into());
    ledger.ask(0, ask(1, None, 1, 1), START);
    let told = output(&mut ledger).told;
    assert!(told[0].1.unknown && told[0].1.answers && told[0].1.granted == 0);
}

#[test]
fn a_calendar_quota_comes_free_when_its_period_ends() {
    let mut ledger = Ledger::new(1, "one#1".into());
    ledger.set_wall(START + 50_000_000, START);
    let span = Span::Until { wall_ms: START + 50_007_000 };
    let day = Arc::new(Bucket {
        name: "day".into(),
        tag: "".into(),
        consumer: "".into(),
        rule: Rule { limit: 1, span },
        mode: LimitMode::Local,
        on_store_failure: OnStoreFailure::Share,
    });
    ledger.ask(0, ask(1, Some(&day), 1, 1), START);
    let spent = smallvec![Spent { at_ms: START, tokens: 1 }];
    ledger.ask(0, Ask { spent, ..ask(1, None, 1, 1) }, START + 2_000);
    let told = output(&mut ledger).told;
    assert_eq!((told[1].1.granted, told[1].1.retry_at_ms), (0, START + 7_000));
}

#[test]
fn windows_of_a_request_go_in_one_call_and_the_next_out_of_the_pool() {
    let mut pair = Pair::new(START);
    let now_ms = START + 400;
    let (second, minute) =
        (bucket("a", 100, LimitMode::Leased), bucket("b", 1_000, LimitMode::Leased));
    pair.ledger.ask(0, ask(1, Some(&second), 1, 1), now_ms);
    pair.ledger.ask(0, ask(2, Some(&minute), 1, 1), now_ms);
    pair.pass(now_ms);
    assert_eq!(pair.calls.iter().map(|call| call.statements.len()).collect::<Vec<_>>(), [2]);
    assert_eq!(pair.told.len(), 2);
    assert!(pair.told.iter().all(|(_, told)| told.granted >= 1 && told.state == State::Exact));
    // The other shard has its part of what was leased in advance.
    pair.told.clear();
    pair.ledger.ask(1, ask(1, Some(&second), 1, 10), now_ms + 1);
    let out = output(&mut pair.ledger);
    assert_eq!((out.calls.len(), out.told.len(), out.told[0].1.granted), (0, 1, 10));
}

#[test]
fn strict_keeps_nothing() {
    let mut pair = Pair::new(START);
    let strict = bucket("s", 100, LimitMode::Strict);
    pair.ledger.ask(0, ask(1, Some(&strict), 1, 50), START + 400);
    pair.pass(START + 400);
    assert_eq!((pair.told[0].1.granted, pair.calls[0].statements[0].want), (1, 1));
    let (used, held) = pair.server.taken("sluice:limit:{acme}:s", &strict.rule, START + 400);
    assert_eq!((used, held), (0, 1));
}

#[test]
fn a_silent_server_is_not_waited_for_and_its_late_answer_is_taken() {
    let mut pair = Pair::new(START);
    let now_ms = START + 400;
    let gold = bucket("gold", 100, LimitMode::Leased);
    pair.ledger.ask(0, ask(1, Some(&gold), 1, 1), now_ms);
    let out = output(&mut pair.ledger);
    let (server, number, call) = out.calls.into_iter().next().unwrap();
    assert!(pair.ledger.next_ms() <= now_ms + 5);
    // A single answer may be late.
    pair.ledger.tick(now_ms + 5);
    assert_eq!(output(&mut pair.ledger).told.len(), 0);
    pair.ledger.tick(now_ms + limits::LIMIT_SOON_MS - 1);
    assert!(pair.ledger.is_ready(0) && output(&mut pair.ledger).told.is_empty());
    assert!(pair.ledger.next_ms() <= now_ms + limits::LIMIT_SOON_MS);
    // It stays away: nobody waits any more.
    let now_ms = now_ms + limits::LIMIT_SOON_MS - 15;
    pair.ledger.tick(now_ms + 15);
    assert!(!pair.ledger.is_ready(0));
    let told = output(&mut pair.ledger).told;
    assert_eq!((told.len(), told[0].1.state, told[0].1.granted), (1, State::Share, 0));
    assert_eq!((pair.ledger.counts().servers_lost, pair.ledger.counts().losses), (1, 1));
    pair.ledger.ask(1, ask(1, Some(&gold), 1, 1), now_ms + 16);
    assert_eq!(output(&mut pair.ledger).told.len(), 1);
    // What lay about of beats is lost.
    pair.ledger.beaten(0, Err(Failed), now_ms + 20);
    // The late answer; what it grants is not lost for long.
    let answer = pair.server.call(&call, now_ms + 30);
    pair.ledger.answered(server, number, Ok(answer), now_ms + 30);
    pair.told.clear();
    (1..5).for_each(|step| pair.pass(now_ms + 30 + step * 100));
    assert!(pair.ledger.is_ready(0));
    pair.ledger.ask(1, ask(1, None, 1, 1), now_ms + 500);
    pair.pass(now_ms + 500);
    let last = &pair.told.last().unwrap().1;
    assert_eq!((last.state, last.granted > 0), (State::Exact, true));
}

#[test]
fn where_a_limit_is_open_or_denied_requests_wait_for_the_time_out_alone() {
    for (failure, state) in
        [(OnStoreFailure::Open, State::Open), (OnStoreFailure::Deny, State::Denied)]
    {
        let mut pair = Pair::new(START);
        let now_ms = START + 400;
        let gold = Arc::new(Bucket {
            on_store_failure: failure,
            ..Arc::into_inner(bucket("gold", 100, LimitMode::Leased)).unwrap()
        });
        pair.ledger.ask(0, ask(1, Some(&gold), 1, 1), now_ms);
        let out = output(&mut pair.ledger);
        pair.ledger.tick(now_ms + 4);
        assert!(output(&mut pair.ledger).told.is_empty());
        assert_eq!(pair.ledger.next_ms(), now_ms + 5);
        pair.ledger.tick(now_ms + 5);
        let told = output(&mut pair.ledger).told;
        assert_eq!((told.len(), told[0].1.state, told[0].1.granted), (1, state, 0));
        assert!(pair.ledger.is_ready(0), "it is late, and not lost");
        // The answer, and all is as it was.
        pair.answer(out, now_ms + 8);
        pair.ledger.ask(0, ask(1, None, 1, 1), now_ms + 9);
        pair.pass(now_ms + 9);
        let last = &pair.told.last().unwrap().1;
        assert_eq!((last.state, last.granted), (State::Exact, 1));
    }
}

#[test]
fn who_leaves_gives_back_before_it_says_so() {
    let mut pair = Pair::new(START);
    let gold = bucket("gold", 100, LimitMode::Leased);
    pair.ledger.ask(0, ask(1, Some(&gold), 1, 10), START + 400);
    pair.pass(START + 400);
    let spent = smallvec![Spent { at_ms: START + 401, tokens: 1 }];
    let hold = pair.told[0].1.granted - 1;
    pair.ledger.ask(0, Ask { spent, hold, ..ask(1, None, 0, 0) }, START + 402);
    pair.ledger.leave(START + 410);
    assert!(!pair.ledger.has_left());
    (0..3).for_each(|step| pair.pass(START + 410 + step * 100));
    assert!(pair.ledger.has_left());
    let leaves: Vec<bool> = pair.beats.iter().map(|beat| beat.leaves).collect();
    assert_eq!(leaves.iter().filter(|leaves| **leaves).count(), 1);
    // What the shard had not given back may have been spent.
    let taken = pair.server.taken("sluice:limit:{acme}:gold", &gold.rule, START + 610);
    assert_eq!(taken, (1 + hold, 0));
}

#[test]
fn what_rests_goes_back_and_is_forgotten_and_comes_again() {
    let mut pair = Pair::new(START - 500);
    pair.join(START - 100);
    let gold = bucket("gold", 100, LimitMode::Leased);
    let key = "sluice:limit:{acme}:gold";
    pair.spend_one(&gold, START + 400);
    assert!(pair.server.taken(key, &gold.rule, START + 402).1 > 1);
    (1..10).for_each(|step| pair.pass(START + 402 + step * 50));
    assert_eq!(pair.server.taken(key, &gold.rule, START + 900), (1, 0));
    (1..60).for_each(|step| pair.pass(START + 900 + step * 50));
    assert_eq!((pair.ledger.counts().buckets, pair.ledger.keys.len()), (0, 0));
    // Its statements are new to the server.
    pair.told.clear();
    pair.ledger.ask(0, ask(1, Some(&gold), 1, 1), START + 4_000);
    pair.pass(START + 4_000);
    assert!(pair.told[0].1.granted >= 1);
}

#[test]
fn where_no_other_node_is_what_rests_stays_for_a_window() {
    let mut pair = Pair::new(START);
    let gold = bucket("gold", 100, LimitMode::Leased);
    let key = "sluice:limit:{acme}:gold";
    pair.spend_one(&gold, START + 400);
    (1..10).for_each(|step| pair.pass(START + 402 + step * 50));
    assert_eq!(pair.server.taken(key, &gold.rule, START + 900), (1, 99));
    (1..60).for_each(|step| pair.pass(START + 900 + step * 50));
    assert_eq!((pair.ledger.counts().buckets, pair.ledger.keys.len()), (0, 0));
    assert_eq!(pair.server.taken(key, &gold.rule, START + 3_900), (0, 0));
}

#[test]
fn a_busy_server_is_asked_no_more_than_it_answers_soon_and_who_waits_comes_first() {
    let mut pair = Pair::new(START);
    let buckets: Vec<Arc<Bucket>> =
        (0..400).map(|n| bucket(&format!("b{n}"), 100, LimitMode::Leased)).collect();
    let all = 0..buckets.len();
    let id = |n: usize| n as BucketId + 1;
    for n in all.clone() {
        pair.ledger.ask(0, ask(id(n), Some(&buckets[n]), 1, 1), START + 400);
    }
    let out = output(&mut pair.ledger);
    let statements =
        |out: &Output| -> usize { out.calls.iter().map(|(.., call)| call.statements.len()).sum() };
    assert_eq!(out.calls.len(), limits::LIMIT_CALLS);
    assert_eq!(statements(&out), limits::LIMIT_CALLS * limits::LIMIT_STATEMENTS);
    // Nothing more before an answer, and then as much as was answered.
    assert!(output(&mut pair.ledger).calls.is_empty());
    let mut out = out;
    let rest = out.calls.split_off(1);
    pair.answer(out, START + 401);
    let more = output(&mut pair.ledger);
    assert_eq!(statements(&more), limits::LIMIT_STATEMENTS);
    pair.answer(Output { calls: rest, ..Output::default() }, START + 402);
    pair.answer(more, START + 402);
    (0..10).for_each(|_| pair.pass(START + 402));
    let mut held =
        |n: usize| pair.server.taken(&bucket_key(&buckets[n]), &buckets[n].rule, START + 402).1;
    assert!(all.clone().all(|n| held(n) > 0));

    // All are at rest and go back, which nobody waits for: somebody does for the last of them, and for
    // one that is new.
    (5..14).for_each(|step| pair.pass(START + step * 100));
    pair.ledger.tick(START + 1_450);
    let late = bucket("late", 100, LimitMode::Leased);
    pair.ledger.ask(1, ask(1_000, Some(&late), 1, 1), START + 1_450);
    pair.ledger.ask(1, ask(id(399), Some(&buckets[399]), 100, 100), START + 1_450);
    let out = output(&mut pair.ledger);
    let first: Vec<&str> =
        out.calls[0].2.statements.iter().take(2).map(|statement| &*statement.key).collect();
    assert_eq!(first, ["sluice:limit:{acme}:late", "sluice:limit:{acme}:b399"]);
}

#[test]
fn who_lacks_what_another_shard_holds_asks_again_soon() {
    let mut pair = Pair::new(START);
    let one = bucket("one", 1, LimitMode::Leased);
    pair.ledger.ask(0, ask(1, Some(&one), 1, 1), START + 400);
    pair.pass(START + 400);
    assert_eq!(pair.told[0].1.granted, 1);
    pair.told.clear();
    // Nothing is spent anywhere, so no time is known at which anything leaves a window.
    pair.ledger.ask(1, ask(1, None, 1, 1), START + 401);
    (0..10).for_each(|step| pair.pass(START + 401 + step * 5));
    let refused = pair.told.iter().find(|(shard, told)| *shard == 1 && told.answers);
    let (_, refused) = refused.expect("it is answered");
    assert_eq!(refused.granted, 0);
    assert!(refused.retry_at_ms < START + 600, "not before {}", refused.retry_at_ms - START);
    // The other shard gives it back, and it is there.
    pair.ledger.ask(0, ask(1, None, 0, 0), START + 460);
    pair.told.clear();
    pair.ledger.ask(1, ask(1, None, 1, 1), START + 470);
    (0..5).for_each(|step| pair.pass(START + 470 + step * 5));
    assert!(pair.told.iter().any(|(shard, told)| *shard == 1 && told.granted == 1));
}

#[test]
fn what_others_miss_is_had_back() {
    let mut pair = Pair::new(START - 500);
    pair.join(START - 100);
    let gold = bucket("gold", 10, LimitMode::Leased);
    pair.ledger.ask(0, ask(1, Some(&gold), 10, 10), START + 400);
    pair.pass(START + 400);
    pair.told.clear();
    let beaten = Beaten {
        now_ms: START + 450,
        generation: 77,
        share: 500_000,
        members: vec!["one#1".into(), "two#1".into()],
        recalled: vec!["sluice:limit:{acme}:gold".into()],
        was_lost: false,
        gone_ms: FORGET_MS,
    };
    pair.ledger.tick(START + 500);
    assert_eq!(output(&mut pair.ledger).beats.len(), 1);
    pair.ledger.beaten(0, Ok(beaten), START + 500);
    let told = output(&mut pair.ledger).told;
    assert_eq!((told.len(), told[0].0, told[0].1.answers, told[0].1.fair), (1, 0, false, 0));
    pair.ledger.ask(0, ask(1, None, 0, 0), START + 501);
    (0..4).for_each(|step| pair.pass(START + 501 + step * 30));
    assert_eq!(pair.server.taken("sluice:limit:{acme}:gold", &gold.rule, START + 600), (0, 0));
}

#[test]
fn a_bucket_is_small() {
    let entry = size_of::<entry::Entry>() + size_of::<(BucketId, Box<entry::Entry>)>();
    assert!(entry <= 248, "{entry} bytes");
}

#[test]
fn buckets_are_listed_by_consumer() {
    let mut ledger = Ledger::new(1, "one#1".into());
    let gold = bucket("gold", 10, LimitMode::Local);
    ledger.ask(0, ask(1, Some(&gold), 1, 3), START);
    let lines = ledger.list("acme", 10);
    assert_eq!((lines.len(), lines[0].leased, lines[0].state.as_str()), (1, 3, "exact"));
    assert!(ledger.list("other", 10).is_empty() && ledger.list("", 0).is_empty());
}

fn hour() -> Arc<Bucket> {
    let rule = Rule { limit: 100, span: Span::Sliding { ms: 3_600_000 } };
    let gold = bucket("hour", 100, LimitMode::Leased);
    let Bucket { mode, on_store_failure, .. } = *gold;
    let (name, tag, consumer) = (gold.name.clone(), gold.tag.clone(), gold.consumer.clone());
    Arc::new(Bucket { name, tag, consumer, rule, mode, on_store_failure })
}

#[test]
fn what_is_held_is_stated_anew_before_the_server_forgets_it() {
    let mut pair = Pair::new(START);
    pair.ledger.ask(0, ask(1, Some(&hour()), 1, 10), START + 400);
    pair.pass(START + 400);
    let hold = pair.told[0].1.granted;
    pair.ledger.ask(0, Ask { hold, ..ask(1, None, 0, 0) }, START + 410);
    (1..100).for_each(|step| pair.pass(START + 410 + step * 100));
    pair.calls.clear();
    (0..RESTATE_MS / 100).for_each(|step| pair.pass(START + 10_400 + step * 100));
    let told: Vec<u64> = pair.calls.iter().map(|call| call.statements[0].hold).collect();
    assert!(!told.is_empty() && told.iter().all(|held| *held >= hold), "{told:?}");
}

#[test]
fn who_is_forgotten_goes_on_by_its_part() {
    let mut pair = Pair::new(START);
    pair.ledger.ask(0, ask(1, Some(&hour()), 1, 10), START + 400);
    pair.pass(START + 400);
    pair.ledger.disconnected(0, START + 500);
    let mut now_ms = START + 500;
    while now_ms < START + ALONE_MS + 60_000 {
        now_ms += 1_000;
        pair.ledger.tick(now_ms);
    }
    pair.ledger.ask(0, ask(1, None, 1, 1), now_ms);
    let told = output(&mut pair.ledger).told;
    let (_, last) = told.last().unwrap();
    assert_eq!((last.state, last.granted > 0), (State::Share, true), "{told:?}");
    // It comes again as one that has no part yet.
    pair.beats.clear();
    pair.ledger.connected(0, "run".into(), now_ms + 10);
    pair.pass(now_ms + 10);
    assert_eq!(pair.beats[0].share, 0);
}
