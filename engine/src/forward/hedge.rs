//! A second try beside a slow first one: the first answer counts, the other try is cancelled.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use contract::Counter;

use super::attempt::Attempt;
use super::course::Outcome;
use super::errand::{Caught, Failed, Tried, micros};
use crate::upstream::{InFlight, Verdict};

/// Runs `first`, and beside it another try once it has taken `after_ms`: at another target, within
/// the retry budget, or not at all. Only for requests that are whole, and harmless to send twice.
pub async fn race(first: Attempt<'_, '_>, flight: InFlight, after_ms: u64) -> Tried {
    let errand = first.errand;
    let shard = errand.shard;
    let clock = shard.io.clock();
    let timer = shard.io.watch();
    timer.set_in(after_ms);
    let begun_us = clock.now_us();
    let mut one = Box::pin(first.run(&flight));
    let early = poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(tried) => Poll::Ready(Some(tried)),
        Poll::Pending => timer.poll_elapsed(cx).map(|_| None),
    });
    if let Some(tried) = early.await {
        drop(one);
        return (tried, flight);
    }
    let permit = errand.state.retry_permit();
    if permit.is_none() {
        shard.meter.count(Counter::RetriesOverBudget, 1);
    }
    let watch = Rc::new(shard.io.watch());
    let beside = permit.as_ref().and_then(|_| errand.pick_beside(flight.index));
    let second = beside.and_then(|beside| {
        let attempt = errand.begin(beside.index, watch, false, true)?;
        Some((attempt, beside))
    });
    let Some((second, beside)) = second else {
        let tried = one.as_mut().await;
        drop(one);
        return (tried, flight);
    };
    shard.meter.count(Counter::Hedges, 1);
    let hedged_us = clock.now_us();
    let mut two = Box::pin(second.run(&beside));
    let (tried, by_second) = both(one.as_mut(), two.as_mut(), |tried, by_second| {
        // A failure gives way to the try that still goes on, unless it is the request's own.
        let (index, since_us) = match by_second {
            false => (flight.index, begun_us),
            true => (beside.index, hedged_us),
        };
        let outcome = match tried {
            Ok(caught) if !errand.is_failure(caught) => return false,
            Ok(caught) => errand.answered(caught),
            Err(failed) if is_final(failed) => return false,
            Err(failed) => failed.outcome,
        };
        errand.note(index);
        let flight = if by_second { &beside } else { &flight };
        let took_us = micros(clock.now_us() - since_us);
        flight.judge(outcome.verdict(), took_us, clock.now_ms());
        true
    })
    .await;
    drop((one, two));
    let now_us = clock.now_us();
    let (won, lost, lost_us) = match by_second {
        true => (beside, flight, begun_us),
        false => (flight, beside, hedged_us),
    };
    if !tried.gave_way {
        lost.judge(Verdict::Nothing, micros(now_us - lost_us), clock.now_ms());
    }
    if by_second && tried.result.is_ok() {
        shard.meter.count(Counter::HedgesWon, 1);
    }
    if let Some(target) = errand.upstream.targets.get(won.index) {
        errand.request.borrow_mut().notes.target = Some(target.address);
    }
    drop(permit);
    (tried.result, won)
}

fn is_final(failed: &Failed) -> bool {
    matches!(failed.outcome, Outcome::Ours | Outcome::ClientDeadline)
}

struct Decided {
    result: Result<Caught, Failed>,
    /// The other one had failed before, and was judged.
    gave_way: bool,
}

/// Polls both until one has a result that counts. The first result for which `gives_way` says so is
/// dropped, and the other one waited for. Also tells whether it was the second's.
async fn both(
    mut one: Pin<&mut impl Future<Output = Result<Caught, Failed>>>,
    mut two: Pin<&mut impl Future<Output = Result<Caught, Failed>>>,
    mut gives_way: impl FnMut(&Result<Caught, Failed>, bool) -> bool,
) -> (Decided, bool) {
    let mut over = [false; 2];
    poll_fn(|cx: &mut Context<'_>| {
        for second in [false, true] {
            if over[usize::from(second)] {
                continue;
            }
            let polled = if second { two.as_mut().poll(cx) } else { one.as_mut().poll(cx) };
            let Poll::Ready(result) = polled else { continue };
            let gave_way = over[usize::from(!second)];
            if !gave_way && gives_way(&result, second) {
                over[usize::from(second)] = true;
                continue;
            }
            return Poll::Ready((Decided { result, gave_way }, second));
        }
        Poll::Pending
    })
    .await
}
