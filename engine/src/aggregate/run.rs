//! Runs the calls of an aggregate: each at most once, after what it needs, as many at once as may be.
//!
//! All of it is one future that polls the calls under way. Dropped, it gives them up.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::ask::{Asked, asked};
use super::outcome::{Failed, Failure, Outcome, Part, Why};
use super::plan::{Aggregate, Call, HttpCall, Mode, Source};
use super::repeat;
use super::view::{Incoming, View};
use crate::payload::json::Json;

/// Who makes the calls.
pub trait Asker {
    /// Makes one, within its deadline. Dropped, it is given up.
    fn ask<'s>(
        &'s self,
        call: &'s HttpCall,
        asked: Asked,
    ) -> impl Future<Output = Result<Reply, Failure>> + 's;

    /// Monotonic microseconds.
    fn now_us(&self) -> u64;
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

/// The bodies of all answers, for as long as something is made of them.
pub struct Bodies(Box<[OnceCell<Parts>]>);

/// The bodies of one call's items.
type Parts = Box<[OnceCell<Vec<u8>>]>;

impl Bodies {
    pub fn new(calls: usize) -> Bodies {
        Bodies((0..calls).map(|_| OnceCell::new()).collect())
    }

    /// Keeps the body of one of the `units` of a call.
    fn keep(&self, call: usize, units: usize, unit: usize, body: Vec<u8>) -> &[u8] {
        let Some(cell) = self.0.get(call) else { return &[] };
        let bodies = cell.get_or_init(|| (0..units).map(|_| OnceCell::new()).collect());
        bodies.get(unit).map_or(&[], |cell| cell.get_or_init(|| body))
    }
}

/// What a run is given.
pub struct Given<'r, 'a> {
    pub plan: &'a Aggregate,
    pub bodies: &'a Bodies,
    pub request: &'r dyn Incoming,
    /// The request's body, where a template asks for it.
    pub body: Option<Json<'a>>,
    /// Monotonic milliseconds.
    pub deadline_ms: u64,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct Ran<'a> {
    /// By call; `None`: it did not come to an end.
    pub outcomes: Vec<Option<Outcome<'a>>>,
    /// The required call whose failure ended it.
    pub broken: Option<usize>,
}

/// How far a call is.
#[derive(Default)]
enum Progress<'a> {
    #[default]
    Waiting,
    Running(Running<'a>),
    Done,
}

pub(super) struct Running<'a> {
    /// What it is made for; empty: for nothing in particular, once.
    pub items: Vec<Json<'a>>,
    /// Items of each unit, by their places; one unit without items for a plain call.
    pub units: Vec<Vec<usize>>,
    next: usize,
    under_way: usize,
    pub results: Vec<Option<Result<Answer<'a>, Failure>>>,
    started_us: u64,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Json<'a>,
}

/// A call under way, and which of its units.
struct Flight<F> {
    call: usize,
    unit: usize,
    future: Pin<Box<F>>,
}

/// Runs all calls to their end, or until a required one fails. `told`: each that has ended, in that order.
pub async fn run<'a, A: Asker>(
    given: &Given<'_, 'a>,
    asker: &A,
    told: &mut dyn FnMut(usize, &Outcome<'a>),
) -> Ran<'a> {
    let plan = given.plan;
    let mut state = State {
        given,
        outcomes: plan.calls.iter().map(|_| None).collect(),
        progress: plan.calls.iter().map(|_| Progress::Waiting).collect(),
        left_bytes: plan.max_bytes,
        told,
    };
    let mut flights = Vec::new();
    loop {
        // A call that ends at once may be what another one waits for.
        loop {
            let mut moved = false;
            for (at, call) in plan.calls.iter().enumerate() {
                if state.is_ready(at, call) {
                    moved = true;
                    state.begin(at, call, asker.now_us());
                }
                while flights.len() < plan.concurrency
                    && let Some(unit) = state.next_unit(at, call)
                {
                    match state.prepare(at, call, unit, asker.now_us()) {
                        Prepared::Ask(http, asked) => {
                            let future = Box::pin(asker.ask(http, asked));
                            flights.push(Flight { call: at, unit, future });
                        }
                        Prepared::Here(result) => {
                            moved |= state.finish(at, call, unit, result, asker.now_us());
                        }
                    }
                    if let Some(broken) = state.broken(at, call) {
                        return Ran { outcomes: state.outcomes, broken: Some(broken) };
                    }
                }
                if let Some(broken) = state.broken(at, call) {
                    return Ran { outcomes: state.outcomes, broken: Some(broken) };
                }
            }
            if !moved {
                break;
            }
        }
        if flights.is_empty() {
            return Ran { outcomes: state.outcomes, broken: None };
        }
        let (place, result) = next(&mut flights).await;
        let Flight { call: at, unit, .. } = flights.remove(place);
        let Some(call) = plan.calls.get(at) else { continue };
        let result = state.read(at, call, unit, result);
        state.finish(at, call, unit, result, asker.now_us());
        if let Some(broken) = state.broken(at, call) {
            return Ran { outcomes: state.outcomes, broken: Some(broken) };
        }
    }
}

/// The first flight that has come to its end, of those that have at the same time the one that began first.
async fn next<F: Future>(flights: &mut [Flight<F>]) -> (usize, F::Output) {
    poll_fn(|cx| {
        for (place, flight) in flights.iter_mut().enumerate() {
            if let Poll::Ready(output) = flight.future.as_mut().poll(cx) {
                return Poll::Ready((place, output));
            }
        }
        Poll::Pending
    })
    .await
}

enum Prepared<'a> {
    Ask(&'a HttpCall, Asked),
    Here(Result<Answer<'a>, Failure>),
}

struct State<'s, 'r, 'a> {
    given: &'s Given<'r, 'a>,
    outcomes: Vec<Option<Outcome<'a>>>,
    progress: Vec<Progress<'a>>,
    /// What bodies, and copies of what is in them, may still take.
    left_bytes: usize,
    told: &'s mut dyn FnMut(usize, &Outcome<'a>),
}

impl<'a> State<'_, '_, 'a> {
    fn is_ready(&self, at: usize, call: &Call) -> bool {
        let ended = |at: &usize| self.outcomes.get(*at).is_some_and(Option::is_some);
        matches!(self.progress.get(at), Some(Progress::Waiting))
            && call.needs.iter().chain(&call.after).all(ended)
    }

    fn view<'v>(&'v self, item: Option<(usize, &'v Json<'a>)>) -> View<'v, 'a> {
        View {
            request: self.given.request,
            body: self.given.body.as_ref(),
            outcomes: &self.outcomes,
            item,
        }
    }

    /// Finds out whether a call is to be made, and how often.
    fn begin(&mut self, at: usize, call: &'a Call, now_us: u64) {
        if call.when.as_ref().is_some_and(|when| !self.view(None).holds(when)) {
            return self.end(at, Outcome::Skipped);
        }
        let (items, units) = match &call.repeat {
            None => (Vec::new(), vec![Vec::new()]),
            Some(repeat) => match repeat::units(repeat, &self.view(None)) {
                Ok(units) => units,
                Err(why) => {
                    let failure = self.fault(call, Failure::new(why, 502));
                    return self.fail(at, call, failure, None, 0);
                }
            },
        };
        let results = units.iter().map(|_| None).collect();
        let running = Running { items, units, next: 0, under_way: 0, results, started_us: now_us };
        let empty = running.units.is_empty();
        if let Some(progress) = self.progress.get_mut(at) {
            *progress = Progress::Running(running);
        }
        if empty {
            self.conclude(at, call, now_us);
        }
    }

    /// The next unit of a call that is running, if it may begin.
    fn next_unit(&mut self, at: usize, call: &Call) -> Option<usize> {
        let Some(Progress::Running(running)) = self.progress.get_mut(at) else { return None };
        let most = call.repeat.as_ref().map_or(1, |repeat| repeat.concurrency);
        if running.next == running.units.len() || running.under_way >= most {
            return None;
        }
        running.next += 1;
        running.under_way += 1;
        Some(running.next - 1)
    }

    fn prepare(&mut self, at: usize, call: &'a Call, unit: usize, now_us: u64) -> Prepared<'a> {
        let now_ms = now_us / 1_000;
        if now_ms >= self.given.deadline_ms {
            return Prepared::Here(Err(Failure::new(Why::Late, 504)));
        }
        let Some(Progress::Running(running)) = self.progress.get(at) else {
            return Prepared::Here(Err(Failure::new(Why::Late, 504)));
        };
        let item = repeat::item(call, running, unit);
        let view = self.view(item.as_ref().map(|(place, item)| (*place, item)));
        match &call.source {
            Source::Static(body) => Prepared::Here(Ok(Answer {
                status: 200,
                fields: Vec::new(),
                body: body.render(&view).unwrap_or_default(),
            })),
            Source::Http(http) => match asked(call, http, &view) {
                Ok(asked) => {
                    let own_ms = match http.timeout_ms {
                        0 => u64::MAX,
                        ms => now_ms + u64::from(ms),
                    };
                    let deadline_ms = self.given.deadline_ms.min(own_ms);
                    let most_bytes = asked.most_bytes.min(self.left_bytes);
                    Prepared::Ask(http, Asked { deadline_ms, most_bytes, ..asked })
                }
                Err(failure) => Prepared::Here(Err(self.fault(call, failure))),
            },
        }
    }

    /// A call that lacks a value lacks it because of one that it needs, if such a one has none.
    fn fault(&self, call: &Call, failure: Failure) -> Failure {
        let failed = call.needs.iter().find_map(|need| {
            let failed = self.outcomes.get(*need)?.as_ref()?.failed()?;
            Some((need, failed))
        });
        match failed {
            Some((need, failed)) => Failure::new(Why::Needs(*need), failed.why.whole),
            None => failure,
        }
    }

    /// An answer as it counts.
    fn read(
        &mut self,
        at: usize,
        call: &'a Call,
        unit: usize,
        result: Result<Reply, Failure>,
    ) -> Result<Answer<'a>, Failure> {
        let Source::Http(http) = &call.source else {
            return Err(Failure::new(Why::NotJson, 502));
        };
        let reply = result?;
        if !http.succeeds(reply.status) {
            return Err(refused(http, &reply));
        }
        let told = |why| Failure { status: reply.status, ..Failure::new(why, 502) };
        let Some(left) = self.left_bytes.checked_sub(reply.body.len()) else {
            return Err(told(Why::TooLarge));
        };
        self.left_bytes = left;
        let coded = reply.fields.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"content-encoding")
                && !value.eq_ignore_ascii_case(b"identity")
        });
        if coded {
            return Err(told(Why::NotJson));
        }
        let units = match self.progress.get(at) {
            Some(Progress::Running(running)) => running.units.len(),
            _ => 1,
        };
        let bytes = self.given.bodies.keep(at, units, unit, reply.body);
        let body = match bytes {
            [] => Json::Null,
            bytes => Json::parse(bytes)
                .map_err(|_| Failure { status: reply.status, ..Failure::new(Why::NotJson, 502) })?,
        };
        let body =
            if call.unwrap.is_whole() { body } else { call.unwrap.take(body).unwrap_or_default() };
        Ok(Answer { status: reply.status, fields: reply.fields, body })
    }

    /// Notes how a unit ended. Whether the call has ended by it.
    fn finish(
        &mut self,
        at: usize,
        call: &'a Call,
        unit: usize,
        result: Result<Answer<'a>, Failure>,
        now_us: u64,
    ) -> bool {
        let Some(Progress::Running(running)) = self.progress.get_mut(at) else { return false };
        running.under_way = running.under_way.saturating_sub(1);
        if let (Err(failure), Mode::Required) = (&result, &call.mode) {
            let took_us = now_us.saturating_sub(running.started_us);
            let item = running.units.get(unit).and_then(|items| items.first().copied());
            let (failure, skipped) = (failure.clone(), self.is_skipped(call, failure));
            match skipped {
                true => self.end(at, Outcome::Skipped),
                false => self.fail(at, call, failure, item, took_us),
            }
            return true;
        }
        if let Some(place) = running.results.get_mut(unit) {
            *place = Some(result);
        }
        if running.results.iter().any(Option::is_none) {
            return false;
        }
        self.conclude(at, call, now_us);
        true
    }

    /// Whether it lacks a value because a call that it needs was not to be made: then neither is this one.
    fn is_skipped(&self, call: &Call, failure: &Failure) -> bool {
        matches!(failure.why, Why::Value(_))
            && call
                .needs
                .iter()
                .any(|need| matches!(self.outcomes.get(*need), Some(Some(Outcome::Skipped))))
    }

    /// All units of a call have ended.
    fn conclude(&mut self, at: usize, call: &'a Call, now_us: u64) {
        let Some(Progress::Running(running)) = self.progress.get_mut(at).map(std::mem::take) else {
            return;
        };
        let took_us = now_us.saturating_sub(running.started_us);
        match repeat::collect(call, running, &mut self.left_bytes) {
            Ok(part) => self.end(at, Outcome::Answered(Part { took_us, ..part })),
            Err((failure, _)) if self.is_skipped(call, &failure) => self.end(at, Outcome::Skipped),
            Err((failure, item)) => self.fail(at, call, failure, item, took_us),
        }
    }

    fn fail(&mut self, at: usize, call: &Call, why: Failure, item: Option<usize>, took_us: u64) {
        let failed = Failed { why, item, took_us };
        self.end(
            at,
            match &call.mode {
                Mode::Default(value) => Outcome::Stood(value.clone(), failed),
                Mode::Required | Mode::Optional => Outcome::Failed(failed),
            },
        );
    }

    fn end(&mut self, at: usize, outcome: Outcome<'a>) {
        (self.told)(at, &outcome);
        if let Some(progress) = self.progress.get_mut(at) {
            *progress = Progress::Done;
        }
        if let Some(place) = self.outcomes.get_mut(at) {
            *place = Some(outcome);
        }
    }

    /// The call, if it is required and has failed.
    fn broken(&self, at: usize, call: &Call) -> Option<usize> {
        let failed = matches!(self.outcomes.get(at), Some(Some(Outcome::Failed(_))));
        (failed && call.mode == Mode::Required).then_some(at)
    }
}

/// An answer that is no success.
fn refused(http: &HttpCall, reply: &Reply) -> Failure {
    let passed = http.pass.contains(&reply.status);
    let field = |name: &'static str| {
        let mut fields = reply.fields.iter();
        let found = fields.find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))?;
        Some((name, found.1.clone()))
    };
    let field = match reply.status {
        // RFC 9110 §11.6.1: with a challenge.
        401 => field("WWW-Authenticate"),
        _ => field("Retry-After"),
    };
    Failure {
        status: reply.status,
        field: field.filter(|_| passed),
        ..Failure::new(Why::Status, if passed { reply.status } else { 502 })
    }
}
