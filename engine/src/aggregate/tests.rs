//! Aggregates with upstreams that are simulated, in time that is, too.

mod compose;
mod graph;
mod plan;
mod repeat;
mod wire;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use contract::record::Reason;
use contract::snapshot::{
    self, AggregateBody, AggregateResponse, CallMode, CallSource, Projection,
};

use super::ask::Asked;
use super::compose::{compose, errors, render};
use super::outcome::{Failure, Outcome, Why};
use super::plan::{Aggregate, HttpCall};
use super::run::{Asker, Bodies, Given, Ran, Reply, run};
use super::view::{Incoming, View};
use crate::payload::json::Json;
use crate::template::{Reference, Scope, Values};

/// A request with some header fields and parameters.
#[derive(Default)]
struct Asking {
    fields: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

impl Values for Asking {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        let (list, name) = match what {
            Reference::Header(name) => (&self.fields, &name.text),
            Reference::Query(name) => (&self.query, name),
            _ => return None,
        };
        let found = list.iter().find(|(own, _)| *own == &**name);
        found.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    }
}

impl Incoming for Asking {
    fn parameters(&self, name: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        let query = self.query.iter().filter(|(own, _)| *own == name);
        query.for_each(|(name, value)| each(name.as_bytes(), value.as_bytes()));
    }
}

/// What an upstream does with a call: after so many milliseconds.
#[derive(Clone, Debug)]
enum Does {
    Answers(u16, String),
    Breaks(Reason),
}

/// The upstreams, by the first segment of the path.
#[derive(Default)]
struct World {
    now_us: Cell<u64>,
    due_us: RefCell<Vec<u64>>,
    does: HashMap<String, (u64, Does)>,
    fields: Vec<(&'static str, &'static str)>,
    /// When which call began (`>`) and ended (`<`).
    log: RefCell<Vec<(u64, char, String)>>,
    asked: RefCell<Vec<(String, Asked)>>,
    under_way: Cell<usize>,
    most: Cell<usize>,
}

impl World {
    fn new(does: &[(&str, u64, u16, &str)]) -> World {
        let does = does.iter().map(|(name, ms, status, body)| {
            ((*name).into(), (*ms, Does::Answers(*status, (*body).into())))
        });
        World { does: does.collect(), ..World::default() }
    }

    /// Runs a future, with the time going on whenever nothing else does.
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            let now = self.now_us.get();
            let due = self.due_us.borrow().iter().copied().filter(|due| *due > now).min();
            self.now_us.set(due.expect("somebody is waited for"));
        }
    }

    fn asked(&self, name: &str) -> Vec<Asked> {
        let all = self.asked.borrow();
        all.iter().filter(|(own, _)| own == name).map(|(_, asked)| asked.clone()).collect()
    }

    fn target(&self, name: &str) -> String {
        let asked = self.asked(name);
        assert_eq!(asked.len(), 1, "{name}");
        String::from_utf8(asked[0].target.clone()).unwrap()
    }
}

struct UnderWay<'w>(&'w Cell<usize>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Asker for World {
    async fn ask<'s>(&'s self, _: &'s HttpCall, asked: Asked) -> Result<Reply, Failure> {
        let target = String::from_utf8(asked.target.clone()).unwrap();
        let name = target.split(['/', '?']).nth(1).unwrap().to_owned();
        self.asked.borrow_mut().push((name.clone(), asked.clone()));
        self.log.borrow_mut().push((self.now_us.get() / 1000, '>', name.clone()));
        self.under_way.set(self.under_way.get() + 1);
        let _under_way = UnderWay(&self.under_way);
        self.most.set(self.most.get().max(self.under_way.get()));
        let (ms, mut does) =
            self.does.get(&name).cloned().unwrap_or((0, Does::Breaks(Reason::NoTarget)));
        let mut due_us = self.now_us.get() + ms * 1000;
        if due_us > asked.deadline_ms * 1000 {
            due_us = asked.deadline_ms * 1000;
            does = Does::Breaks(Reason::TotalTimeout);
        }
        self.due_us.borrow_mut().push(due_us);
        poll_fn(|_| match self.now_us.get() >= due_us {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        self.log.borrow_mut().push((self.now_us.get() / 1000, '<', name));
        let fields = self.fields.iter();
        let fields =
            fields.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        match does {
            Does::Answers(status, body) => {
                Ok(Reply { status, fields: fields.collect(), body: body.into_bytes() })
            }
            Does::Breaks(reason) => {
                let status = if reason == Reason::TotalTimeout { 504 } else { 503 };
                Err(Failure::unanswered(&crate::local_reply::LocalReply::new(status, reason)))
            }
        }
    }

    fn now_us(&self) -> u64 {
        self.now_us.get()
    }
}

/// A call of the upstream with its name.
fn call(name: &str, path: &str) -> snapshot::AggregateCall {
    snapshot::AggregateCall {
        name: name.into(),
        source: CallSource::Http(Box::new(snapshot::HttpCall {
            method: "GET".into(),
            path: path.into(),
            success: vec![(200, 299)],
            pass: vec![404],
            max_bytes: 1 << 20,
            ..snapshot::HttpCall::default()
        })),
        after: Vec::new(),
        when: None,
        mode: CallMode::Required,
        repeat: None,
        unwrap: String::new(),
        projection: Projection::default(),
        hidden: false,
        group: String::new(),
    }
}

fn http(call: &mut snapshot::AggregateCall) -> &mut snapshot::HttpCall {
    match &mut call.source {
        CallSource::Http(http) => http,
        CallSource::Static(_) => panic!("a static call"),
    }
}

fn optional(name: &str, path: &str) -> snapshot::AggregateCall {
    snapshot::AggregateCall { mode: CallMode::Optional, ..call(name, path) }
}

fn aggregate(calls: Vec<snapshot::AggregateCall>) -> snapshot::Aggregate {
    snapshot::Aggregate {
        calls,
        response: AggregateResponse {
            status: 200,
            body: AggregateBody::Group,
            join: Vec::new(),
            projection: Projection::default(),
            headers: Vec::new(),
        },
        deadline_ms: 1_000,
        concurrency: 16,
        max_bytes: 1 << 20,
        errors: true,
        server_timing: false,
        stream: false,
    }
}

fn build(from: &snapshot::Aggregate) -> Aggregate {
    Aggregate::build(from, &Scope::request(Vec::new()), 1, &[]).unwrap()
}

/// Runs an aggregate for a request, and looks at how that ended.
fn running<T>(
    plan: &Aggregate,
    request: &Asking,
    world: &World,
    look: impl FnOnce(&mut Ran<'_>, &Given<'_, '_>) -> T,
) -> T {
    let bodies = Bodies::new(plan.calls.len());
    let deadline_ms = u64::from(plan.deadline_ms);
    let given = Given { plan, bodies: &bodies, request, body: None, deadline_ms };
    let mut told = Vec::new();
    let mut tell = |at: usize, _: &Outcome<'_>| told.push(at);
    let mut ran = world.block_on(run(&given, world, &mut tell));
    assert_eq!(world.under_way.get(), 0, "none is left under way");
    let ended = ran.outcomes.iter().filter(|outcome| outcome.is_some()).count();
    assert_eq!(told.len(), ended, "each is told of once");
    look(&mut ran, &given)
}

/// The body of the answer.
fn body(from: &snapshot::Aggregate, world: &World) -> String {
    let plan = build(from);
    running(&plan, &Asking::default(), world, |ran, given| {
        assert_eq!(ran.broken, None, "{:?}", errors(&plan, &ran.outcomes));
        let view = View { request: given.request, body: None, outcomes: &ran.outcomes, item: None };
        let rendered = render(&plan, &view);
        let body = compose(&plan, &mut ran.outcomes, rendered).unwrap();
        text(&body)
    })
}

/// The call that broke, the status of the whole, and the list of errors.
fn broken(from: &snapshot::Aggregate, world: &World) -> (String, u16, String) {
    let plan = build(from);
    running(&plan, &Asking::default(), world, |ran, _| {
        let at = ran.broken.expect("a required call fails");
        let failed = ran.outcomes[at].as_ref().and_then(Outcome::failed).unwrap();
        let errors = errors(&plan, &ran.outcomes).unwrap();
        (plan.calls[at].name.to_string(), failed.why.whole, text(&errors))
    })
}

fn text(json: &Json<'_>) -> String {
    String::from_utf8(json.to_vec()).unwrap()
}

/// What failed, and why.
fn failures(ran: &Ran<'_>) -> Vec<(usize, Why)> {
    let outcomes = ran.outcomes.iter().enumerate();
    outcomes.filter_map(|(at, one)| Some((at, one.as_ref()?.failed()?.why.why))).collect()
}
