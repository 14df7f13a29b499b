//! Rules as the snapshot has them, compiled.

use contract::snapshot::{BodyForm, BodyRule, BodyStep, RoutePayload};

use super::Payload;
use super::jq::Program;
use super::json::Json;
use super::pointer::Pointer;
use super::project::Tree;
use super::rule::{Rule, Work};
use super::steps::{self, Step};
use super::template::Made;
use crate::coding::Compression;
use crate::limits;
use crate::media::Types;
use crate::template::Scope;

/// What is wrong, by field of the route.
pub type Problem = (String, String);

impl Payload {
    /// `scope`: of the route's requests.
    ///
    /// # Errors
    /// The first rule that cannot be.
    pub fn build(from: &RoutePayload, scope: &Scope) -> Result<Payload, Problem> {
        let rules = |name: &str, list: &[BodyRule], scope: &Scope| {
            let list = list.iter().enumerate().map(|(at, rule)| {
                build(rule, scope).map_err(|(field, why)| (format!("{name}[{at}].{field}"), why))
            });
            list.collect::<Result<Box<[Rule]>, Problem>>()
        };
        let scope = scope.clone().with_body();
        let request = rules("request_body", &from.request, &scope)?;
        let response = rules("response_body", &from.response, &scope.with_response())?;
        let compress = from.compress.as_ref().map(Compression::build).transpose();
        let compress = compress.map_err(|(field, why)| (format!("compress.{field}"), why))?;
        let asks = response.iter().any(|rule| !rule.asks.is_empty());
        Ok(Payload { request, response, compress, keeps: asks })
    }
}

fn build(from: &BodyRule, scope: &Scope) -> Result<Rule, Problem> {
    use BodyForm::{Events, Form, Json as JsonForm, Lines, Xml};
    for (at, (first, last)) in from.statuses.iter().enumerate() {
        if !(100..=599).contains(first) || !(first..=&599).contains(&last) {
            return Err((format!("statuses[{at}]"), "expected statuses from 100 to 599".into()));
        }
    }
    let types = match from.content_types.is_empty() {
        false => Types::parse(&from.content_types)
            .map_err(|(at, why)| (format!("content_types[{at}]"), why))?,
        true => Types::of(match from.from {
            JsonForm => &["*+json"],
            Form => &["application/x-www-form-urlencoded"],
            Xml => &["*+xml"],
            Lines => &["application/x-ndjson", "application/ndjson", "application/jsonl"],
            Events => &["text/event-stream"],
        }),
    };
    match (from.from, from.to) {
        (JsonForm | Form | Xml, JsonForm | Form) | (Lines, Lines) | (Events, Events) => {}
        _ => {
            let why = "expected json or form for what is json, form or xml, and nothing else for \
                       ndjson and sse, which stay what they are";
            return Err(("to".into(), why.into()));
        }
    }
    if from.max_bytes == 0 {
        return Err(("max_bytes".into(), "expected at least 1".into()));
    }
    let arrays = Tree::parse(from.arrays.iter().map(String::as_str));
    let arrays = arrays.map_err(|why| ("arrays".to_string(), why))?;
    if !from.arrays.is_empty() && from.from != Xml {
        return Err(("arrays".into(), "only XML has elements that may be arrays".into()));
    }
    let mut work: Vec<Work> = Vec::new();
    let mut asks = Vec::new();
    for (at, one) in from.steps.iter().enumerate() {
        let place = |(field, why): (&str, String)| match field {
            "" => (format!("steps[{at}]"), why),
            field => (format!("steps[{at}].{field}"), why),
        };
        if let BodyStep::Jq { program, timeout_ms } = one {
            if matches!(from.from, Lines | Events) {
                let why = "jq cannot be used where records are changed while they stream";
                return Err(place(("jq", why.into())));
            }
            compile_jq(program).map_err(|why| place(("jq", why)))?;
            work.push(Work::Jq { program: program.as_str().into(), timeout_ms: *timeout_ms });
            continue;
        }
        let step = step(one, scope).map_err(place)?;
        step.asks(&mut asks);
        match work.last_mut() {
            Some(Work::Steps(list)) => {
                let mut more = std::mem::take(list).into_vec();
                more.push(step);
                *list = more.into();
            }
            _ => work.push(Work::Steps([step].into())),
        }
    }
    Ok(Rule {
        statuses: from.statuses.clone().into(),
        types,
        from: from.from,
        to: from.to,
        decode: from.decode,
        most: from.max_bytes as usize,
        pass: from.pass_unreadable,
        arrays,
        work: work.into(),
        asks: asks.into(),
    })
}

/// Whether a program can be run, on a stack that is deep enough for any.
fn compile_jq(program: &str) -> Result<(), String> {
    let program = program.to_string();
    let compile = move || Program::compile(&program).map(drop);
    let thread = std::thread::Builder::new().stack_size(limits::JQ_STACK).spawn(compile);
    let failed = || "it cannot be compiled".to_string();
    thread.map_err(|_| failed())?.join().map_err(|_| failed())?
}

fn step(from: &BodyStep, scope: &Scope) -> Result<Step, (&'static str, String)> {
    let pointer =
        |field: &'static str, text: &str| Pointer::parse(text).map_err(|why| (field, why));
    let part = |field: &'static str, text: &str| {
        let pointer = pointer(field, text)?;
        match pointer.is_whole() {
            false => Ok(pointer),
            true => Err((field, "expected a pointer to a part of the body, such as /user".into())),
        }
    };
    let made = |field: &'static str, text: &str| {
        let value = Json::parse(text.as_bytes()).map_err(|error| (field, error.to_string()))?;
        Made::compile(&value, scope).map_err(|error| (field, error.to_string()))
    };
    let tree = |field: &'static str, paths: &[String]| {
        if paths.is_empty() {
            return Err((field, "expected at least one path".into()));
        }
        Tree::parse(paths.iter().map(String::as_str)).map_err(|why| (field, why))
    };
    let both = |kind: &'static str, from: &str, to: &str| {
        let (from_field, to_field) = match kind {
            "move" => ("move.from", "move.to"),
            _ => ("copy.from", "copy.to"),
        };
        let (from, to) = (part(from_field, from)?, part(to_field, to)?);
        if !steps::go_together(&from, &to) {
            let why = "`from` and `to` must be the same up to their last `*`";
            return Err((to_field, why.into()));
        }
        if from.split().1.is_empty() || to.split().1.is_empty() {
            return Err((from_field, "something must follow the last `*`".into()));
        }
        if kind == "move" && steps::is_within(&from, &to) {
            return Err((to_field, "nothing can be moved into itself".into()));
        }
        Ok((from, to))
    };
    Ok(match from {
        BodyStep::Add { at, value } => {
            let at = pointer("add.at", at)?;
            if !at.is_whole() && at.split().1.is_empty() {
                let why = "something must follow the last `*`; `replace` changes what is there";
                return Err(("add.at", why.into()));
            }
            Step::Add { at, value: made("add.value", value)? }
        }
        BodyStep::Replace { at, value } => {
            Step::Replace { at: pointer("replace.at", at)?, value: made("replace.value", value)? }
        }
        BodyStep::Remove { at } => Step::Remove { at: part("remove", at)? },
        BodyStep::Move { from, to } => {
            let (from, to) = both("move", from, to)?;
            Step::Move { from, to }
        }
        BodyStep::Copy { from, to } => {
            let (from, to) = both("copy", from, to)?;
            Step::Copy { from, to }
        }
        BodyStep::Rename { at, name } => {
            let at = part("rename.at", at)?;
            if at.split().1.is_empty() {
                return Err(("rename.at", "expected the name of a member at its end".into()));
            }
            Step::Rename { at, name: name.as_str().into() }
        }
        BodyStep::Allow(paths) => Step::Allow(tree("allow", paths)?),
        BodyStep::Deny(paths) => Step::Deny(tree("deny", paths)?),
        BodyStep::Wrap(name) => Step::Wrap(name.as_str().into()),
        BodyStep::Unwrap(at) => {
            let at = part("unwrap", at)?;
            if !at.split().0.is_empty() {
                return Err(("unwrap", "expected a pointer without `*`".into()));
            }
            Step::Unwrap(at)
        }
        BodyStep::Defaults(value) => match made("defaults", value)? {
            made @ (Made::Object(_) | Made::Fixed(Json::Object(_))) => Step::Defaults(made),
            _ => return Err(("defaults", "expected an object".into())),
        },
        BodyStep::Template(value) => Step::Template(made("template", value)?),
        BodyStep::Jq { .. } => return Err(("jq", "this is no operation".into())),
    })
}
