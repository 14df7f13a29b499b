use std::collections::HashMap;

use contract::snapshot::OnStoreFailure;
use proptest::prelude::*;

use super::*;
use crate::limit::messages::Spent;
use crate::limit::rule::{Rule, Span};

fn want(id: u128, cost: u64, span: Span, limit: u64) -> Want {
    Want {
        id,
        rule: Rule { limit, span },
        mode: LimitMode::Leased,
        on_store_failure: OnStoreFailure::Share,
        cost,
        until: if span == Span::Concurrent { Until::Ended } else { Until::Reached },
        dry_run: false,
        policy: 0,
    }
}

const SECOND: Span = Span::Sliding { ms: 1_000 };

fn second(id: u128, cost: u64) -> Want {
    want(id, cost, SECOND, 100)
}

fn bucket(want: &Want) -> Arc<Bucket> {
    Arc::new(Bucket {
        name: format!("b{}", want.id).into(),
        tag: "t".into(),
        consumer: "".into(),
        rule: want.rule,
        mode: want.mode,
        on_store_failure: want.on_store_failure,
    })
}

fn told(id: u128, granted: u64, fair: u64) -> Told {
    Told {
        id,
        answers: true,
        granted,
        fair,
        remaining: 50,
        retry_at_ms: 0,
        reset_at_ms: 0,
        state: State::Exact,
        unknown: false,
    }
}

/// A shard without requests around it.
#[derive(Default)]
struct Bench {
    leases: Leases,
    places: Few<u32>,
}

impl Bench {
    fn take(&mut self, wants: &[Want], now_ms: u64) -> (Outcome, Few<Hold>) {
        let mut holds = Few::new();
        let make = |at: usize| bucket(&wants[at]);
        let outcome = self.leases.take(wants, now_ms, make, &mut self.places, &mut holds);
        (outcome, holds)
    }

    /// A request that finds it dry, and what is asked for it.
    fn wait(&mut self, wants: &[Want], now_ms: u64) -> (Rc<Parked>, Vec<Ask>) {
        assert_eq!(self.take(wants, now_ms).0, Outcome::Dry);
        let parked = Rc::new(Parked::default());
        assert!(self.leases.wait(wants, &self.places.clone(), &parked, now_ms));
        (parked, self.leases.tick(now_ms))
    }

    /// A lease with so many tokens.
    fn granted(&mut self, want: &Want, tokens: u64, now_ms: u64) {
        let (parked, asks) = self.wait(std::slice::from_ref(want), now_ms);
        assert_eq!(asks.len(), 1);
        self.leases.told(&told(want.id, tokens, tokens), now_ms);
        assert!(parked.was_woken());
        assert!(self.leases.tick(now_ms).is_empty());
    }
}

const TAKEN: Outcome = Outcome::Taken { shared: false, over: false };

#[test]
fn a_dry_lease_asks_once_for_all_that_wait() {
    let mut bench = Bench::default();
    let wants = [second(1, 2)];
    let (first, asks) = bench.wait(&wants, 10);
    let ask = &asks[0];
    assert_eq!((ask.need, ask.waiting, ask.want, ask.hold), (2, 2, 2, 0));
    assert!(ask.bucket.is_some() && !ask.last);
    // Others come while it is under way.
    let (second, asks) = bench.wait(&wants, 11);
    assert!(asks.is_empty());
    bench.leases.told(&told(1, 2, 50), 12);
    assert!(first.was_woken() && second.was_woken());
    assert_eq!(bench.take(&wants, 12).0, TAKEN);
    let (_, asks) = bench.wait(&wants, 12);
    assert_eq!((asks[0].need, asks[0].hold, asks[0].bucket.is_some()), (2, 2, false));
}

#[test]
fn where_nothing_is_to_be_had_nobody_asks() {
    let mut bench = Bench::default();
    let wants = [second(1, 1)];
    bench.wait(&wants, 10);
    bench.leases.told(&Told { retry_at_ms: 500, ..told(1, 0, 0) }, 12);
    let refused = Outcome::Refused { at: 0, retry_at_ms: 500 };
    assert_eq!(bench.take(&wants, 12).0, refused);
    assert_eq!(bench.take(&wants, 499).0, refused);
    assert!(bench.leases.tick(499).is_empty());
    assert_eq!(bench.take(&wants, 500).0, Outcome::Dry);
    // Who needs less may get it: it is another question.
    let mut bench = Bench::default();
    bench.wait(&[second(1, 6)], 10);
    bench.leases.told(&Told { retry_at_ms: 500, ..told(1, 0, 0) }, 12);
    assert_eq!(bench.take(&[second(1, 5)], 12).0, Outcome::Dry);
    assert_eq!(bench.take(&[second(1, 7)], 12).0, refused);
    // More than there can ever be.
    let never = Outcome::Refused { at: 0, retry_at_ms: 1_600 };
    assert_eq!(bench.take(&[second(1, 101)], 600).0, never);
}

#[test]
fn all_or_nothing() {
    let mut bench = Bench::default();
    bench.granted(&second(1, 1), 5, 10);
    bench.granted(&second(2, 1), 1, 10);
    let both = [second(1, 1), second(2, 1)];
    assert_eq!(bench.take(&both, 11).0, TAKEN);
    // Only one of them is dry.
    let (_, asks) = bench.wait(&both, 12);
    assert_eq!(asks.iter().map(|ask| ask.id).collect::<Vec<_>>(), [2]);
    bench.leases.told(&Told { retry_at_ms: 900, ..told(2, 0, 0) }, 13);
    assert_eq!(bench.take(&both, 14).0, Outcome::Refused { at: 1, retry_at_ms: 900 });
    assert_eq!(bench.leases.all[0].tokens, 4);
}

#[test]
fn what_is_taken_is_spent_when_the_answer_comes_or_the_upstream_has_it_surely() {
    let mut bench = Bench::default();
    bench.granted(&second(1, 1), 10, 1_000);
    let (_, mut answered) = bench.take(&[second(1, 1)], 1_000);
    let (_, mut slow) = bench.take(&[second(1, 1)], 1_001);
    bench.leases.settle(&mut answered[0], None, 1_003);
    bench.leases.settle(&mut answered[0], None, 1_004);
    // A second's reach is 5 ms.
    let due_ms = bench.leases.due_ms().unwrap();
    assert_eq!(due_ms, 1_062);
    let asks = bench.leases.tick(1_070);
    let spent = [Spent { at_ms: 1_003, tokens: 1 }, Spent { at_ms: 1_006, tokens: 1 }];
    assert_eq!((&asks[0].spent[..], asks[0].hold, asks[0].need), (&spent[..], 8, 0));
    // Its answer comes at last: it was spent.
    bench.leases.settle(&mut slow[0], None, 5_000);
    bench.leases.end(&mut slow[0], 6_000);
    bench.leases.told(&told(1, 0, 50), 1_071);
    assert!(bench.leases.tick(6_000).is_empty());
}

#[test]
fn concurrent_requests_give_back_what_they_had() {
    let mut bench = Bench::default();
    let wants = [want(1, 1, Span::Concurrent, 5)];
    bench.granted(&wants[0], 1, 10);
    let (_, mut holds) = bench.take(&wants, 10);
    bench.leases.settle(&mut holds[0], None, 11);
    let (parked, asks) = bench.wait(&wants, 12);
    assert_eq!((asks[0].hold, asks[0].need), (1, 1));
    bench.leases.end(&mut holds[0], 13);
    assert!(parked.was_woken(), "what came back is for who waits");
    bench.leases.end(&mut holds[0], 14);
    let (outcome, mut holds) = bench.take(&wants, 15);
    assert_eq!((outcome, bench.leases.all[0].held()), (TAKEN, 1));
    // Another shard needs it.
    bench.leases.told(&Told { retry_at_ms: 100, ..told(1, 0, 0) }, 16);
    assert!(bench.leases.tick(16).is_empty());
    bench.leases.end(&mut holds[0], 17);
    let asks = bench.leases.tick(17);
    assert_eq!((asks[0].hold, asks[0].spent.len()), (0, 0));
}

#[test]
fn an_answer_says_what_it_has_cost() {
    let mut bench = Bench::default();
    let wants = [Want { until: Until::Answered, ..second(1, 4) }];
    bench.granted(&wants[0], 12, 10);
    let (_, mut less) = bench.take(&wants, 10);
    let (_, mut more) = bench.take(&wants, 10);
    assert_eq!(bench.leases.all[0].held(), 12, "nothing is spent before the answer");
    bench.leases.settle(&mut less[0], Some(1), 300);
    bench.leases.settle(&mut less[0], Some(9), 300);
    assert_eq!(bench.leases.all[0].tokens, 7);
    bench.leases.settle(&mut more[0], Some(20), 301);
    let asks = bench.leases.tick(301);
    let spent: u64 = asks[0].spent.iter().map(|one| one.tokens).sum();
    assert_eq!((asks[0].hold, spent, asks[0].debt), (0, 1 + 4 + 7, 9));
}

#[test]
fn more_than_fair_goes_back_and_what_lies_idle() {
    let mut bench = Bench::default();
    let wants = [second(1, 1)];
    bench.granted(&wants[0], 10, 10);
    bench.take(&wants, 10);
    bench.leases.told(&Told { answers: false, ..told(1, 0, 4) }, 12);
    let asks = bench.leases.tick(12);
    assert_eq!((asks[0].hold, asks[0].need, asks[0].want), (4, 0, 0));
    bench.leases.told(&told(1, 0, 4), 13);
    bench.leases.tick(500);
    bench.leases.told(&told(1, 0, 4), 501);
    for _ in 0..4 {
        bench.leases.sweep(1_100);
    }
    let asks = bench.leases.tick(1_100);
    assert_eq!((asks.len(), asks[0].hold, asks[0].last), (1, 0, false));
    bench.leases.told(&told(1, 0, 4), 1_101);
    bench.leases.sweep(10_020);
    let asks = bench.leases.tick(10_020);
    assert_eq!((asks[0].hold, asks[0].last), (0, true));
    assert!(bench.leases.is_empty());
    // It is made anew, in the same place.
    assert_eq!(&*bench.wait(&wants, 10_030).1[0].bucket.as_ref().unwrap().name, "b1");
}

#[test]
fn a_busy_key_asks_ahead() {
    let mut bench = Bench::default();
    let wants = [want(1, 1, SECOND, 100_000)];
    bench.granted(&wants[0], 400, 1_000);
    let (mut now_ms, mut asked, mut waits) = (1_000, 0, 0);
    // 2,000 a second, for ten seconds, and an answer takes 3 ms.
    let mut answers: Vec<(u64, Told)> = Vec::new();
    for at in 0..20_000 {
        now_ms = 1_000 + at / 2;
        answers.retain(|(due_ms, told)| {
            if *due_ms <= now_ms {
                bench.leases.told(told, now_ms);
            }
            *due_ms > now_ms
        });
        match bench.take(&wants, now_ms).0 {
            Outcome::Dry => waits += 1,
            outcome => assert_eq!(outcome, TAKEN),
        }
        for ask in bench.leases.tick(now_ms) {
            asked += 1;
            answers.push((now_ms + 3, told(1, ask.want, 10_000)));
        }
    }
    assert!(waits == 0 && asked < 600, "{waits} waits, {asked} asks until {now_ms}");
}

#[test]
fn without_the_store_it_is_as_the_policy_says() {
    let mut bench = Bench::default();
    let wants = [second(1, 1)];
    bench.wait(&wants, 10);
    bench.leases.told(&Told { state: State::Open, ..told(1, 0, 0) }, 12);
    let shared = Outcome::Taken { shared: true, over: false };
    assert_eq!(bench.take(&wants, 20).0, shared);
    assert!(bench.leases.tick(20).is_empty());
    // Now and then it asks whether that is over.
    assert_eq!(bench.take(&wants, 120).0, shared);
    assert_eq!(bench.leases.tick(120)[0].need, 1);
    bench.leases.told(&Told { state: State::Denied, ..told(1, 0, 0) }, 121);
    assert_eq!(bench.take(&wants, 130).0, Outcome::Unavailable);
    bench.wait(&wants, 230);
    bench.leases.told(&Told { state: State::Share, ..told(1, 3, 3) }, 231);
    assert_eq!(bench.take(&wants, 232).0, shared);
}

#[test]
fn a_dry_run_refuses_nobody() {
    let mut bench = Bench::default();
    let tried = Want { dry_run: true, ..second(2, 1) };
    bench.granted(&second(1, 1), 5, 10);
    let both = [second(1, 1), tried];
    let (outcome, holds) = bench.take(&both, 10);
    assert_eq!((outcome, holds.len()), (TAKEN, 1), "nothing is known of it yet");
    assert_eq!(bench.leases.tick(10)[0].need, 1);
    bench.leases.told(&Told { retry_at_ms: 50, ..told(2, 1, 0) }, 11);
    assert_eq!(bench.take(&both, 11).1.len(), 2);
    let (outcome, holds) = bench.take(&both, 12);
    assert_eq!((outcome, holds.len()), (Outcome::Taken { shared: false, over: true }, 1));
}

#[test]
fn another_rule_goes_with_the_next_ask_and_what_is_not_known_is_named() {
    let mut bench = Bench::default();
    bench.granted(&second(1, 1), 5, 10);
    let other = want(1, 1, SECOND, 7);
    assert_eq!(bench.take(&[other], 11).0, TAKEN);
    let asks = bench.leases.tick(11);
    assert_eq!((asks[0].bucket.as_ref().unwrap().rule.limit, asks[0].hold), (7, 5));
    bench.leases.told(&Told { unknown: true, ..told(1, 0, 0) }, 12);
    let (_, asks) = bench.wait(&[other], 13);
    assert_eq!((asks[0].bucket.is_some(), asks[0].need), (true, 1));
}

#[test]
fn with_too_many_keys_those_go_that_nobody_uses_now() {
    let mut leases = Bench::default();
    for id in 0..limits::LEASES as u128 {
        assert_eq!(leases.take(&[second(id, 1)], 10).0, Outcome::Dry);
    }
    assert_eq!(leases.take(&[second(u128::MAX, 1)], 11).0, Outcome::Dry);
    assert!(leases.leases.len() <= limits::LEASES);
    assert!(leases.leases.tick(11).is_empty(), "the ledger never knew them");
}

/// What can happen to a shard.
#[derive(Clone, Debug)]
enum Step {
    Take(Vec<(u8, u8)>),
    Settle(usize, Option<u8>),
    End(usize),
    /// An answer, with so much of what was asked for, or of what is free.
    Answer(usize, u8, u8),
    Fair(u8, u8),
    Pass(u16),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..6u8, 1..4u8), 1..4).prop_map(Step::Take),
        4 => (0..64usize, proptest::option::of(0..9u8)).prop_map(|(at, cost)| Step::Settle(at, cost)),
        4 => (0..64usize).prop_map(Step::End),
        6 => (0..8usize, 0..9u8, 0..20u8).prop_map(|(at, more, fair)| Step::Answer(at, more, fair)),
        1 => (0..6u8, 0..20u8).prop_map(|(id, fair)| Step::Fair(id, fair)),
        4 => (0..300u16).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ]
}

/// Two of each kind.
fn kind(id: u8, cost: u8) -> Want {
    let (id, cost) = (u128::from(id), u64::from(cost));
    match id {
        0 | 1 => want(id, cost, SECOND, 20),
        2 => Want { until: Until::Answered, ..want(id, cost, Span::Sliding { ms: 60_000 }, 20) },
        3 => want(id, cost, Span::Until { wall_ms: 9_999 }, 20),
        _ => want(id, 1, Span::Concurrent, 20),
    }
}

/// What the ledger believes, and what truly happened.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    held: u64,
    granted: u64,
    back: u64,
    told: u64,
    debt: u64,
    asking: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: what was granted is held, under way, spent and not told, told, or given back.
    #[test]
    fn tokens_are_never_made(steps in proptest::collection::vec(step(), 1..200)) {
        let mut bench = Bench::default();
        let mut books: HashMap<u128, Books> = HashMap::new();
        let mut under_way: Vec<Few<Hold>> = Vec::new();
        let mut open: Vec<Ask> = Vec::new();
        let mut now_ms = 5_000;
        for step in steps {
            match step {
                Step::Take(few) => {
                    let mut wants: Vec<Want> = few.iter().map(|(id, cost)| kind(*id, *cost)).collect();
                    wants.sort_by_key(|want| want.id);
                    wants.dedup_by_key(|want| want.id);
                    let before: Vec<u64> = wants.iter().map(|want| free(&bench, want.id)).collect();
                    let (outcome, holds) = bench.take(&wants, now_ms);
                    let after: Vec<u64> = wants.iter().map(|want| free(&bench, want.id)).collect();
                    match outcome {
                        Outcome::Taken { .. } => {
                            for ((want, before), after) in wants.iter().zip(&before).zip(&after) {
                                prop_assert_eq!(*before, after + want.cost);
                            }
                            under_way.push(holds);
                        }
                        _ => {
                            prop_assert_eq!(before, after, "all or nothing");
                            prop_assert!(holds.is_empty());
                        }
                    }
                    if outcome == Outcome::Dry {
                        let places = bench.places.clone();
                        bench.leases.wait(&wants, &places, &Rc::default(), now_ms);
                    }
                }
                Step::Settle(at, cost) if !under_way.is_empty() => {
                    let at = at % under_way.len();
                    for hold in &mut under_way[at] {
                        bench.leases.settle(hold, cost.map(u64::from), now_ms);
                    }
                }
                Step::End(at) if !under_way.is_empty() => {
                    let mut holds = under_way.swap_remove(at % under_way.len());
                    for hold in &mut holds {
                        bench.leases.end(hold, now_ms);
                        bench.leases.end(hold, now_ms);
                    }
                }
                Step::Answer(at, more, fair) if !open.is_empty() => {
                    let ask = open.remove(at % open.len());
                    let book = books.get_mut(&ask.id).unwrap();
                    book.asking = false;
                    let granted = if u64::from(more) < ask.need { 0 } else { u64::from(more).min(ask.want) };
                    book.granted += granted;
                    book.held += granted;
                    let retry_at_ms = if granted == 0 { now_ms + u64::from(more) } else { 0 };
                    bench.leases.told(&Told { retry_at_ms, ..told(ask.id, granted, fair.into()) }, now_ms);
                }
                Step::Fair(id, fair) => {
                    let one = Told { answers: false, ..told(id.into(), 0, fair.into()) };
                    bench.leases.told(&one, now_ms);
                }
                Step::Pass(ms) => now_ms += u64::from(ms),
                Step::Sweep => bench.leases.sweep(now_ms),
                _ => {}
            }
            for ask in bench.leases.tick(now_ms) {
                let book = books.entry(ask.id).or_default();
                prop_assert!(!book.asking, "one at a time");
                let spent: u64 = ask.spent.iter().map(|one| one.tokens).sum();
                prop_assert!(ask.spent.iter().all(|one| one.at_ms <= now_ms));
                prop_assert!(ask.hold + spent <= book.held, "{ask:?} {book:?}");
                prop_assert!(ask.want >= ask.waiting && ask.waiting >= ask.need);
                book.back += book.held - ask.hold - spent;
                (book.held, book.told) = (ask.hold, book.told + spent);
                book.debt += ask.debt;
                if !ask.last {
                    book.asking = true;
                    open.push(ask);
                }
            }
            for lease in bench.leases.all.iter().filter(|lease| !lease.flags.vacant) {
                let book = books.get(&lease.id).copied().unwrap_or_default();
                let spent: u64 = lease.busy.iter().flat_map(|busy| &busy.spent).map(|one| one.tokens).sum();
                prop_assert_eq!(lease.held() + spent, book.held, "{:?}", lease.id);
                prop_assert_eq!(book.granted, book.held + book.told + book.back);
                let taken: u64 = under_way.iter().flatten().filter(|hold| {
                    hold.id == lease.id && (hold.until == Until::Ended || !hold.settled)
                        && hold.until != Until::Reached
                }).map(|hold| hold.cost).sum();
                prop_assert_eq!(lease.open, taken, "what lasts is held");
            }
        }
    }
}

fn free(bench: &Bench, id: u128) -> u64 {
    let place = bench.leases.table.get(&id).copied();
    place.and_then(|place| bench.leases.lease(place)).map_or(0, |lease| lease.tokens)
}
