//! Whether a trial is a success.

use super::{Rollout, Side};
use crate::store::NodeReport;

/// A node that says nothing for longer is gone, in milliseconds.
pub const MAX_SILENT_MS: u64 = 10_000;

/// How many times the planned time it is waited for enough requests.
const PATIENCE: u64 = 3;

/// Fewer errors than this prove nothing.
const MIN_ERRORS: u64 = 5;

/// Before its end a trial is ended by its p99 only with so many times the requests that are needed at its
/// end: the p99 of a hundred requests is one of them.
const EARLY_FACTOR: u64 = 10;

/// A p99 that is worse by less than this is not felt, in microseconds.
const MIN_SLOWER_US: u64 = 2_000;

/// What is to be done about a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// For people: what it waits for.
    Wait(String),
    /// For people: why.
    Promote(String),
    RollBack(String),
}

/// Judges `rollout`, which lasts, by what `nodes` say at `now_ms` of the store's clock.
pub fn judge(rollout: &Rollout, nodes: &[NodeReport], now_ms: u64) -> Verdict {
    for name in &rollout.canaries {
        let Some(node) = nodes.iter().find(|node| node.name == *name) else {
            return Verdict::RollBack(format!("the node {name} is gone"));
        };
        if now_ms.saturating_sub(node.seen_ms) > MAX_SILENT_MS {
            return Verdict::RollBack(format!("the node {name} is silent"));
        }
        if let Some(error) = node.error.as_ref().filter(|_| node.served != rollout.revision) {
            return Verdict::RollBack(format!("the node {name} cannot take it: {error}"));
        }
    }
    let (canaries, rest) = rollout.sides(nodes);
    let rules = &rollout.rules;
    let (watch_s, passed_s) =
        (u64::from(rules.watch_s), now_ms.saturating_sub(rollout.started_ms) / 1_000);
    let enough =
        |side: &Side, factor: u64| side.requests >= rules.min_requests.saturating_mul(factor);
    let over = passed_s >= watch_s;
    if enough(&canaries, 1) {
        let (theirs, ours) = (canaries.error_percent(), rest.error_percent());
        if canaries.errors >= MIN_ERRORS && theirs > ours + rules.max_errors {
            return Verdict::RollBack(format!(
                "{theirs:.2} % of {} requests were answered with 5xx, and {ours:.2} % of {} elsewhere",
                canaries.requests, rest.requests
            ));
        }
    }
    let factor = if over { 1 } else { EARLY_FACTOR };
    if enough(&canaries, factor)
        && enough(&rest, factor)
        && let (Some(theirs), Some(ours)) = (canaries.p99_us, rest.p99_us)
        && theirs as f64 > ours as f64 * rules.max_p99_ratio
        && theirs.saturating_sub(ours) > MIN_SLOWER_US
    {
        let ms = |us: u64| us as f64 / 1_000.0;
        return Verdict::RollBack(format!(
            "the p99 is {:.1} ms, and {:.1} ms elsewhere",
            ms(theirs),
            ms(ours)
        ));
    }
    if !over {
        return Verdict::Wait(format!("{} s more of watching", watch_s - passed_s));
    }
    let lacking: Vec<String> = [("the canaries", &canaries), ("the rest", &rest)]
        .into_iter()
        .filter(|(_, side)| !enough(side, 1))
        .map(|(name, side)| format!("{name} served {} of {}", side.requests, rules.min_requests))
        .collect();
    if lacking.is_empty() {
        return Verdict::Promote(format!(
            "after {passed_s} s: {:.2} % of {} requests with 5xx, and {:.2} % of {} elsewhere",
            canaries.error_percent(),
            canaries.requests,
            rest.error_percent(),
            rest.requests
        ));
    }
    let lacking = lacking.join(", ");
    match passed_s >= watch_s.saturating_mul(PATIENCE) {
        true => Verdict::RollBack(format!("too few requests to judge: {lacking}")),
        false => Verdict::Wait(format!("more requests: {lacking}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Rules, State, Tally};

    fn rollout() -> Rollout {
        Rollout {
            revision: 7,
            base: 6,
            canaries: vec!["a".into()],
            rules: Rules::default(),
            author: String::new(),
            started_ms: 1_000_000,
            state: State::Watching,
            reason: String::new(),
            ended_ms: None,
        }
    }

    fn node(name: &str, requests: u64, errors: u64, us: u64) -> NodeReport {
        NodeReport {
            name: name.into(),
            served: if name == "a" { 7 } else { 6 },
            seen_ms: 1_000_000,
            trial: Some(Tally { revision: 7, requests, errors, durations: vec![(us, requests)] }),
            ..NodeReport::default()
        }
    }

    fn judged(nodes: &[NodeReport], after_s: u64) -> Verdict {
        let now_ms = 1_000_000 + after_s * 1_000;
        let seen = |node: &NodeReport| NodeReport { seen_ms: now_ms, ..node.clone() };
        judge(&rollout(), &nodes.iter().map(seen).collect::<Vec<_>>(), now_ms)
    }

    #[track_caller]
    fn is(verdict: Verdict, wanted: fn(String) -> Verdict, part: &str) {
        let text = match &verdict {
            Verdict::Wait(text) | Verdict::Promote(text) | Verdict::RollBack(text) => text.clone(),
        };
        assert_eq!(verdict, wanted(text.clone()), "{text}");
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn what_is_as_good_is_promoted_at_the_end() {
        let nodes = [node("a", 500, 1, 900), node("b", 900, 1, 1_000)];
        is(judged(&nodes, 59), Verdict::Wait, "1 s more");
        is(judged(&nodes, 60), Verdict::Promote, "0.20 % of 500");
    }

    #[test]
    fn errors_end_it_at_once() {
        let bad = [node("a", 100, 5, 900), node("b", 900, 0, 1_000)];
        is(judged(&bad, 3), Verdict::RollBack, "5.00 % of 100");
        // Elsewhere it is no better.
        let all = [node("a", 100, 5, 900), node("b", 900, 40, 1_000)];
        is(judged(&all, 3), Verdict::Wait, "57 s");
        is(judged(&all, 60), Verdict::Promote, "");
        // Too few to know.
        is(judged(&[node("a", 99, 50, 900), node("b", 900, 0, 900)], 3), Verdict::Wait, "");
        is(judged(&[node("a", 100, 4, 900), node("b", 900, 0, 900)], 3), Verdict::Wait, "");
    }

    #[test]
    fn slowness_ends_it_when_it_is_sure() {
        let slow = |count| [node("a", count, 0, 9_000), node("b", 5_000, 0, 1_000)];
        is(judged(&slow(1_000), 3), Verdict::RollBack, "9.0 ms");
        is(judged(&slow(999), 3), Verdict::Wait, "");
        is(judged(&slow(999), 60), Verdict::RollBack, "p99");
        // Twice as slow, and nobody feels it.
        is(judged(&[node("a", 5_000, 0, 700), node("b", 5_000, 0, 100)], 60), Verdict::Promote, "");
    }

    #[test]
    fn without_traffic_nothing_is_promoted() {
        let quiet = [node("a", 99, 0, 900), node("b", 900, 0, 1_000)];
        is(judged(&quiet, 60), Verdict::Wait, "the canaries served 99 of 100");
        is(judged(&quiet, 180), Verdict::RollBack, "too few");
        is(judged(&[node("a", 900, 0, 900)], 60), Verdict::Wait, "the rest served 0");
    }

    #[test]
    fn a_canary_that_is_gone_or_cannot_take_it_ends_it() {
        is(judged(&[node("b", 900, 0, 1_000)], 3), Verdict::RollBack, "is gone");
        let faulty = NodeReport {
            served: 6,
            error: Some("revision 7: no such file".into()),
            ..node("a", 0, 0, 1)
        };
        is(judged(&[faulty, node("b", 900, 0, 1_000)], 3), Verdict::RollBack, "no such file");
        let nodes = [node("a", 100, 0, 900), node("b", 900, 0, 1_000)];
        is(judge(&rollout(), &nodes, 1_010_001), Verdict::RollBack, "is silent");
        is(judge(&rollout(), &nodes, 1_010_000), Verdict::Wait, "");
        // Of another trial.
        let mut old = node("a", 900, 900, 1);
        old.trial = old.trial.map(|trial| Tally { revision: 5, ..trial });
        is(judged(&[old, node("b", 900, 0, 1_000)], 3), Verdict::Wait, "");
    }
}
