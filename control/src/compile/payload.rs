//! What routes change of bodies.

use contract::snapshot as flat;
use serde_json::Value;

use crate::spec::{BodyForm, BodyRule, BodyStep, Compress, Route, Unreadable};

/// `None`: nothing.
pub fn payload(route: &Route) -> Option<Box<flat::RoutePayload>> {
    let payload = flat::RoutePayload {
        request: route.request_body.iter().map(rule).collect(),
        response: route.response_body.iter().map(rule).collect(),
        compress: route.compress.as_ref().map(compress),
    };
    (payload != flat::RoutePayload::default()).then(|| Box::new(payload))
}

fn rule(rule: &BodyRule) -> flat::BodyRule {
    let to = rule.to.unwrap_or(match rule.from {
        BodyForm::Xml => BodyForm::Json,
        from => from,
    });
    flat::BodyRule {
        statuses: rule.statuses.iter().map(|range| (range.first, range.last)).collect(),
        content_types: rule.content_types.clone(),
        from: form(rule.from),
        to: form(to),
        decode: rule.decode,
        max_bytes: u32::try_from(rule.max_bytes).unwrap_or(u32::MAX),
        pass_unreadable: rule.unreadable == Unreadable::Pass,
        arrays: rule.arrays.clone(),
        steps: rule.steps.iter().map(|one| step(one, rule.jq_timeout_ms)).collect(),
    }
}

fn form(form: BodyForm) -> flat::BodyForm {
    match form {
        BodyForm::Json => flat::BodyForm::Json,
        BodyForm::Form => flat::BodyForm::Form,
        BodyForm::Xml => flat::BodyForm::Xml,
        BodyForm::Ndjson => flat::BodyForm::Lines,
        BodyForm::Sse => flat::BodyForm::Events,
    }
}

fn step(step: &BodyStep, timeout_ms: u32) -> flat::BodyStep {
    match step.clone() {
        BodyStep::Add(put) => flat::BodyStep::Add { at: put.at, value: put.value.to_string() },
        BodyStep::Replace(put) => {
            flat::BodyStep::Replace { at: put.at, value: put.value.to_string() }
        }
        BodyStep::Remove(at) => flat::BodyStep::Remove { at },
        BodyStep::Move(both) => flat::BodyStep::Move { from: both.from, to: both.to },
        BodyStep::Copy(both) => flat::BodyStep::Copy { from: both.from, to: both.to },
        BodyStep::Rename(new) => flat::BodyStep::Rename { at: new.at, name: new.name },
        BodyStep::Allow(paths) => flat::BodyStep::Allow(paths),
        BodyStep::Deny(paths) => flat::BodyStep::Deny(paths),
        BodyStep::Wrap(name) => flat::BodyStep::Wrap(name),
        BodyStep::Unwrap(at) => flat::BodyStep::Unwrap(at),
        BodyStep::Defaults(members) => flat::BodyStep::Defaults(Value::Object(members).to_string()),
        BodyStep::Template(value) => flat::BodyStep::Template(value.to_string()),
        BodyStep::Jq(program) => flat::BodyStep::Jq { program, timeout_ms },
    }
}

fn compress(compress: &Compress) -> flat::Compress {
    let codings = compress.codings.iter().map(|name| {
        let coding = name.coding();
        (coding, compress.levels.get(name).copied().unwrap_or(coding.default_level()))
    });
    flat::Compress {
        codings: codings.collect(),
        min_bytes: compress.min_bytes,
        content_types: compress.content_types.clone(),
    }
}
