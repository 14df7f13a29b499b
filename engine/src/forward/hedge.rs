//! A second try beside a slow first one: the first answer counts, the other try is cancelled. Which
//! of two counts is up to `race.rs`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;

use super::attempt::Attempt;
use super::errand::{Caught, Errand, Failed, Tried, micros};
use super::race::{Lane, NoRace, Race, Ruling};
use crate::upstream::InFlight;

/// How a try has ended. What counts it came along, and is given up with it.
type Ended = (Result<Caught, Failed>, InFlight);

/// Runs `first`, and beside it another try once it has taken `after_ms`: at another target, within
/// the retry budget, or not at all. Only for requests that are whole, and harmless to send twice.
pub async fn run(first: Attempt<'_, '_>, flight: InFlight, after_ms: u64) -> Tried {
    let errand = first.errand;
    let shard = errand.shard;
    let clock = shard.io.clock();
    let timer = shard.io.watch();
    timer.set_in(after_ms);
    let (begun_us, index) = (clock.now_us(), flight.index);
    let mut one = Box::pin(ended(first, flight));
    let early = poll_fn(|cx| match one.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => timer.poll_elapsed(cx).map(|_| None),
    });
    if let Some((result, flight)) = early.await {
        return Tried { result, flight, begun_us };
    }
    let pick = || {
        let beside = errand.pick_beside(index)?;
        let watch = Rc::new(shard.io.watch());
        Some((errand.begin(beside.index, watch, false, true)?, beside))
    };
    let permit = || errand.state.retry_permit();
    let (race, (second, beside)) = match Race::begin(begun_us, clock.now_us(), permit, pick) {
        Ok(begun) => begun,
        Err(none) => {
            let over = u64::from(none == NoRace::Budget);
            shard.meter.count(Counter::RetriesOverBudget, over);
            let (result, flight) = one.await;
            return Tried { result, flight, begun_us };
        }
    };
    shard.meter.count(Counter::Hedges, 1);
    let two = Box::pin(ended(second, beside));
    let (tried, lane) = both(errand, race, one, two).await;
    if lane == Lane::Second && tried.result.is_ok() {
        shard.meter.count(Counter::HedgesWon, 1);
    }
    if let Some(target) = errand.upstream.targets.get(tried.flight.index) {
        errand.request.borrow_mut().notes.target = Some(target.address);
    }
    tried
}

async fn ended(attempt: Attempt<'_, '_>, flight: InFlight) -> Ended {
    (attempt.run(&flight).await, flight)
}

/// Polls both until the end of one counts. The other one is dropped then, and what counted it: that
/// says nothing of its target.
async fn both<F: Future<Output = Ended>, S: Future<Output = Ended>>(
    errand: &Errand<'_>,
    mut race: Race,
    one: Pin<Box<F>>,
    two: Pin<Box<S>>,
) -> (Tried, Lane) {
    let clock = errand.shard.io.clock();
    let (mut one, mut two) = (Some(one), Some(two));
    poll_fn(|cx| {
        for lane in [Lane::First, Lane::Second] {
            let polled = match lane {
                Lane::First => one.as_mut().map(|one| one.as_mut().poll(cx)),
                Lane::Second => two.as_mut().map(|two| two.as_mut().poll(cx)),
            };
            let Some(Poll::Ready((result, flight))) = polled else { continue };
            let begun_us = race.begun_us(lane);
            let outcome = errand.outcome(&result);
            match race.ends(lane, outcome, &errand.route.retry(errand.upstream).statuses) {
                Ruling::Counts => {
                    return Poll::Ready((Tried { result, flight, begun_us }, lane));
                }
                Ruling::GivesWay { verdict, failed } => {
                    if failed {
                        errand.note(flight.index);
                    }
                    flight.judge(verdict, micros(clock.now_us() - begun_us), clock.now_ms());
                    match lane {
                        Lane::First => one = None,
                        Lane::Second => two = None,
                    }
                }
            }
        }
        Poll::Pending
    })
    .await
}
