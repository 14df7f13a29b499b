//! Makes one answer of those of the calls.

use std::collections::HashMap;

use super::outcome::{Failure, Outcome};
use super::plan::{Aggregate, Body, Call, Join};
use super::repeat::{index, key};
use super::view::View;
use crate::payload::json::{Json, Text};

/// Members of an object from which on they are found by an index.
const INDEXED: usize = 16;

/// What has become too large to be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The body of the answer. Takes the calls' bodies out of `outcomes`. `rendered`: what the body's template
/// gives, where there is one.
///
/// # Errors
/// Copies in it would take more than all answers may.
pub fn compose<'a>(
    plan: &Aggregate,
    outcomes: &mut [Option<Outcome<'a>>],
    rendered: Option<Json<'a>>,
) -> Result<Json<'a>, TooLarge> {
    let mut left = plan.max_bytes.saturating_mul(2);
    let mut spend = |value: &Json<'a>| match left.checked_sub(value.weight()) {
        Some(rest) => {
            left = rest;
            Ok(())
        }
        None => Err(TooLarge),
    };
    let failures = if plan.errors { errors(plan, outcomes) } else { None };
    let mut whole = match (&plan.body, rendered) {
        (Body::Template(_), Some(body)) => {
            spend(&body)?;
            body
        }
        (Body::Template(_), None) => Json::Null,
        (Body::Group, _) => Json::Object(Vec::with_capacity(plan.calls.len() + 1)),
        (Body::Deep, _) => Json::Object(Vec::new()),
        (Body::Append, _) => Json::Array(Vec::new()),
    };
    if !matches!(plan.body, Body::Template(_)) {
        for (at, call) in plan.calls.iter().enumerate().filter(|(_, call)| !call.hidden) {
            let Some(outcome) = outcomes.get_mut(at).and_then(Option::as_mut) else { continue };
            let body = match plan.joins(at) {
                true => outcome.body().cloned(),
                false => outcome.take_body(),
            };
            let Some(mut body) = body else { continue };
            if plan.joins(at) {
                spend(&body)?;
            }
            call.projection.apply(&mut body);
            add(&plan.body, call, &mut whole, body);
        }
    }
    for join in &plan.join {
        let answer = outcomes.get(join.call).and_then(|outcome| outcome.as_ref()?.body());
        self::join(join, plan.calls.get(join.call), answer, &mut whole, &mut spend)?;
    }
    plan.projection.apply(&mut whole);
    if let Some(failures) = failures {
        whole.set_member("errors", failures);
    }
    Ok(whole)
}

fn add<'a>(how: &Body, call: &Call, whole: &mut Json<'a>, body: Json<'a>) {
    match (how, whole) {
        (Body::Append, Json::Array(items)) => match body {
            Json::Array(more) => items.extend(more),
            Json::Null => {}
            one => items.push(one),
        },
        (Body::Deep, whole) => match body {
            Json::Object(_) => merge(whole, body),
            Json::Null => {}
            other => whole.set_member(&call.key, other),
        },
        (_, whole) => whole.set_member(&call.key, body),
    }
}

/// Puts the members of `from` into `into`, those of objects into objects. Where both have another value,
/// that of `from` stays.
fn merge<'a>(into: &mut Json<'a>, from: Json<'a>) {
    let (members, more) = match (into, from) {
        (Json::Object(members), Json::Object(more)) => (members, more),
        (into, from) => {
            *into = from;
            return;
        }
    };
    if members.is_empty() {
        *members = more;
        return;
    }
    if members.len() < INDEXED || more.len() < INDEXED {
        for (name, value) in more {
            match members.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => merge(own, value),
                None => members.push((name, value)),
            }
        }
        return;
    }
    let known: HashMap<String, usize> = members
        .iter()
        .enumerate()
        .map(|(at, (name, _))| (name.decoded().into_owned(), at))
        .collect();
    for (name, value) in more {
        let own = known.get(&*name.decoded()).and_then(|at| members.get_mut(*at));
        match own {
            Some((_, own)) => merge(own, value),
            // No name is twice in `more`.
            None => members.push((name, value)),
        }
    }
}

fn join<'a>(
    join: &Join,
    call: Option<&Call>,
    answer: Option<&Json<'a>>,
    whole: &mut Json<'a>,
    spend: &mut impl FnMut(&Json<'a>) -> Result<(), TooLarge>,
) -> Result<(), TooLarge> {
    // A call without an answer leaves the items as they are: nobody has looked.
    let Some(answer) = answer else { return Ok(()) };
    let elements = match join.from.find(answer) {
        Some(Json::Array(elements)) => elements.as_slice(),
        _ => &[],
    };
    let index = index(elements, &join.by);
    let mut result = Ok(());
    join.list.each(whole, &mut |list| {
        let items = match list {
            Json::Array(items) => items.as_mut_slice(),
            one => std::slice::from_mut(one),
        };
        for item in items.iter_mut().filter(|item| matches!(item, Json::Object(_))) {
            let found = join.key.find(item).and_then(key);
            let found = found.and_then(|key| index.get(&key)).map_or(&[][..], Vec::as_slice);
            let wanted = if join.many { found } else { found.get(..1).unwrap_or_default() };
            for element in wanted {
                if result.is_ok() {
                    result = spend(element);
                }
            }
            if result.is_err() {
                return;
            }
            let mut copies = wanted.iter().map(|element| {
                let mut copy = (*element).clone();
                if let Some(call) = call {
                    call.projection.apply(&mut copy);
                }
                copy
            });
            let value = match join.many {
                true => Json::Array(copies.collect()),
                false => copies.next().unwrap_or_default(),
            };
            join.into.put(item, value);
        }
    });
    result
}

/// The list of what failed; `None`: nothing did.
pub fn errors(plan: &Aggregate, outcomes: &[Option<Outcome<'_>>]) -> Option<Json<'static>> {
    let mut list = Vec::new();
    for (call, outcome) in plan.calls.iter().zip(outcomes) {
        match outcome {
            Some(Outcome::Answered(part)) => {
                list.extend(
                    part.items.iter().map(|(item, why)| error(plan, call, why, Some(*item))),
                );
            }
            Some(outcome) => {
                let failed = outcome.failed();
                list.extend(failed.map(|failed| error(plan, call, &failed.why, failed.item)));
            }
            None => {}
        }
    }
    (!list.is_empty()).then_some(Json::Array(list))
}

/// That a call failed, and why.
pub fn error(plan: &Aggregate, call: &Call, why: &Failure, item: Option<usize>) -> Json<'static> {
    use super::outcome::Why;
    let mut members = vec![(Text::new("call"), Json::string(&call.name))];
    if let Some(item) = item {
        members.push((Text::new("item"), Json::number(item as u64)));
    }
    members.push((Text::new("reason"), Json::string(why.reason())));
    if why.status != 0 {
        members.push((Text::new("status"), Json::number(why.status.into())));
    }
    if let Some(place) = why.place() {
        members.push((Text::new("where"), Json::string(place)));
    }
    if let Why::Needs(need) = why.why
        && let Some(need) = plan.calls.get(need)
    {
        members.push((Text::new("needs"), Json::string(&need.name)));
    }
    Json::Object(members)
}

/// What the body's template gives, where there is one.
pub fn render<'a>(plan: &Aggregate, view: &View<'_, 'a>) -> Option<Json<'a>> {
    match &plan.body {
        Body::Template(template) => template.render(view),
        Body::Group | Body::Deep | Body::Append => None,
    }
}
