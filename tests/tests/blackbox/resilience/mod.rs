//! Upstreams that fail, are slow, or are asked too much: what clients see of it, and what the
//! origins do. Everything about time is set short, and only its effect is judged.

mod balance;
mod bodies;
mod breakers;
mod calls;
mod deadlines;
mod ejection;
mod events;
mod health;
mod hedging;
mod limits;
mod mirror;
mod retries;
mod rows;
mod tell;

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, Script, eventually, get};

/// No pauses to wait for.
const QUICK: &str = "retry: { backoff_base_ms: 1, backoff_max_ms: 1 }";

/// An origin that does what it was last told to; well, it answers 200 with its name.
struct Moody {
    origin: Origin,
    mood: Arc<Mutex<Option<Script>>>,
    name: &'static str,
}

impl Moody {
    fn new(name: &'static str) -> Moody {
        let mood = Arc::new(Mutex::new(None::<Script>));
        let now = mood.clone();
        let origin = Origin::start(move |seen| {
            if seen.target == "/healthz" {
                return tests::answer("ok");
            }
            let mood = now.lock().expect("a mood").clone();
            mood.unwrap_or_else(|| tests::answer(name))
        });
        Moody { origin, mood, name }
    }

    /// From now on it answers everything like this.
    fn turn(&self, mood: Script) {
        *self.mood.lock().expect("a mood") = Some(mood);
    }

    fn heal(&self) {
        *self.mood.lock().expect("a mood") = None;
    }

    fn seen(&self) -> usize {
        self.origin.completed()
    }
}

/// An answer of a status that says by whom it was given.
fn status(line: &str) -> Script {
    answer_with(line, "X-From: origin\r\n", "no\n")
}

fn reset() -> Script {
    Script::default().reset()
}

/// An upstream of these, with more settings.
fn upstream(moody: &[&Moody], settings: &[&str]) -> Spec {
    let mut spec = Spec::default();
    for one in moody {
        spec = spec.target(one.origin.address(), 1);
    }
    settings.iter().fold(spec, |spec, setting| spec.upstream(setting))
}

/// Each in turn, and none is ever left out: what happens to a request is then certain.
fn turns(moody: &[&Moody], settings: &[&str]) -> Spec {
    upstream(moody, settings).upstream("balance: round_robin, outlier: none")
}

/// So many GETs one after the other over one connection.
fn ask(gateway: &Gateway, n: usize) -> Vec<Response> {
    let mut client = gateway.connect();
    (0..n).map(|_| client.ask(get("/x"))).collect()
}

fn statuses(answers: &[Response]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

/// What the admin listener says of the upstream `origin`.
fn standing(gateway: &Gateway) -> Value {
    let all = gateway.admin_json("/v1/upstreams");
    let list = all.as_array().or_else(|| all["items"].as_array()).expect("a list of upstreams");
    list.iter().find(|one| one["name"] == "origin").expect("the upstream").clone()
}

/// The state of a target, as the admin listener has it.
fn state_of(gateway: &Gateway, moody: &Moody) -> String {
    let address = moody.origin.address().to_string();
    let standing = standing(gateway);
    let targets = standing["targets"].as_array().expect("targets");
    let target = targets.iter().find(|one| one["address"] == address.as_str());
    target.expect("the target")["state"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a target is said to be in a state; what is told follows what is done.
#[track_caller]
fn await_state(gateway: &Gateway, moody: &Moody, state: &str) {
    let is = || state_of(gateway, moody) == state;
    let now = || state_of(gateway, moody);
    assert!(eventually(PATIENCE, is), "{} is {} and not {state}", moody.name, now());
}

/// The newest line of the access log, once there are `n`.
#[track_caller]
fn log_line(gateway: &Gateway, n: usize) -> Value {
    let lines = || gateway.access_log().lines().count();
    assert!(eventually(PATIENCE, || lines() >= n), "{} of {n} lines", lines());
    let log = gateway.access_log();
    let line = log.lines().nth(n - 1).unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn with_body(method: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n{body}")
}
