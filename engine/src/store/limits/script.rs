//! What the scripts are told and answer.

use std::sync::Arc;

use fred::types::Value;

use crate::limit::protocol::{
    Answer, Beat, Beaten, Call, FORGET_MS, NodeId, SETTLE_MS, SILENT_MS, Verdict,
};
use crate::limit::rule::Span;

/// The scripts' text.
pub const CALL: &str = include_str!("call.lua");
pub const BEAT: &str = include_str!("beat.lua");

/// Before every key.
const LIMIT: &str = "sluice:limit:";

/// The keys that are about the node's fellows; the scripts find the place of others by the first one.
const COMMON: [&str; 6] = ["generation", "members", "shares", "awaited", "dead", "beaten"];

/// Where keys are: `None` on a server of its own, and else in that partition of a cluster, whose tag has
/// all of them in one slot.
pub type Place = Option<&'static str>;

fn common(place: Place, name: &str) -> String {
    format!("{LIMIT}{{{}}}:{name}", place.unwrap_or("nodes"))
}

/// `sluice:limit:{TAG}:NAME` as it is called there: Redis goes by the first braces alone.
fn placed(place: Place, key: &str) -> String {
    match place {
        None => key.to_owned(),
        Some(tag) => format!("{LIMIT}{{{tag}}}{}", key.strip_prefix(LIMIT).unwrap_or(key)),
    }
}

/// As [`crate::limit::protocol`] calls it.
fn unplaced(place: Place, key: &str) -> Arc<str> {
    let rest = place.and_then(|tag| key.strip_prefix(&format!("{LIMIT}{{{tag}}}")));
    rest.map_or_else(|| key.into(), |rest| format!("{LIMIT}{rest}").into())
}

/// An answer that no script of ours gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Keys and arguments of an EVALSHA.
pub type Arguments = (Vec<String>, Vec<String>);

/// `now_ms`: in place of the server's time, for tests.
pub fn call(call: &Call, place: Place, now_ms: Option<u64>) -> Arguments {
    let mut keys: Vec<String> = Vec::with_capacity(COMMON.len() + call.statements.len());
    keys.extend(COMMON.map(|name| common(place, name)));
    let mut args = vec![
        now_ms.map(|ms| ms.to_string()).unwrap_or_default(),
        call.node.to_string(),
        call.generation.to_string(),
        call.heard_ms.to_string(),
        SILENT_MS.to_string(),
        FORGET_MS.to_string(),
    ];
    for one in &call.statements {
        keys.push(placed(place, &one.key));
        let (kind, window) = match one.rule.span {
            Span::Sliding { ms } => ("s", ms),
            Span::Until { wall_ms } => ("u", wall_ms),
            Span::Concurrent => ("c", 0),
        };
        args.extend([one.rule.limit.to_string(), kind.into()]);
        let span = one.rule.span;
        let numbers = [window, span.slot_ms(), span.reach_ms(), one.seq, one.hold];
        let wishes = [one.need, one.waiting, one.want, one.spent.len() as u64];
        args.extend(numbers.into_iter().chain(wishes).map(|number| number.to_string()));
        args.extend(
            one.spent.iter().flat_map(|(age, tokens)| [age.to_string(), tokens.to_string()]),
        );
    }
    (keys, args)
}

/// # Errors
/// It is none.
pub fn answer(value: &Value) -> Result<Answer, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed) };
    let kind = parts.first().and_then(Value::as_str).ok_or(Malformed)?;
    let now_ms = number(parts.get(1))?;
    match &*kind {
        "g" => Ok(Answer::Generation { now_ms, generation: number(parts.get(2))? }),
        "u" => Ok(Answer::Unheard { now_ms }),
        "v" => {
            let numbers: Vec<u64> =
                parts.iter().skip(2).map(|part| number(Some(part))).collect::<Result<_, _>>()?;
            let (all, rest) = numbers.as_chunks::<6>();
            if !rest.is_empty() {
                return Err(Malformed);
            }
            let verdicts =
                all.iter().map(|&[granted, fair, used, held, oldest_ms, flags]| Verdict {
                    granted,
                    fair,
                    used,
                    held,
                    oldest_ms,
                    stale: flags & 1 != 0,
                    restoring: flags & 2 != 0,
                });
            Ok(Answer::Verdicts { now_ms, verdicts: verdicts.collect() })
        }
        _ => Err(Malformed),
    }
}

/// `random` names a generation, should one begin: below 2⁵³.
pub fn beat(beat: &Beat, random: u64, place: Place, now_ms: Option<u64>) -> Arguments {
    let mut keys: Vec<String> = COMMON.map(|name| common(place, name)).into();
    keys.push(common(place, &format!("recall:{}", beat.node)));
    let flag = |flag: bool| String::from(if flag { "1" } else { "0" });
    let mut args = vec![
        now_ms.map(|ms| ms.to_string()).unwrap_or_default(),
        beat.node.to_string(),
        beat.generation.to_string(),
        beat.run_id.to_string(),
        beat.heard_ms.to_string(),
        beat.share.to_string(),
        beat.gone_ms.to_string(),
        flag(beat.restated),
        flag(beat.leaves),
        random.to_string(),
        SILENT_MS.to_string(),
        FORGET_MS.to_string(),
        SETTLE_MS.to_string(),
    ];
    args.extend(beat.members.iter().map(|member| member.to_string()));
    (keys, args)
}

/// # Errors
/// It is none.
pub fn beaten(value: &Value, place: Place) -> Result<Beaten, Malformed> {
    let Value::Array(parts) = value else { return Err(Malformed) };
    let texts = |part: Option<&Value>| -> Result<Vec<Arc<str>>, Malformed> {
        let Some(Value::Array(texts)) = part else { return Err(Malformed) };
        let text = |value: &Value| value.as_str().map(|text| Arc::from(&*text)).ok_or(Malformed);
        texts.iter().map(text).collect()
    };
    let mut members: Vec<NodeId> = texts(parts.get(4))?;
    members.sort();
    let mut recalled = texts(parts.get(5))?;
    recalled.iter_mut().for_each(|key| *key = unplaced(place, key));
    recalled.sort();
    Ok(Beaten {
        now_ms: number(parts.first())?,
        generation: number(parts.get(1))?,
        share: number(parts.get(2))?,
        was_lost: number(parts.get(3))? != 0,
        members,
        recalled,
        gone_ms: number(parts.get(6))?,
    })
}

fn number(value: Option<&Value>) -> Result<u64, Malformed> {
    let value = value.ok_or(Malformed)?;
    value.as_str().and_then(|text| text.parse().ok()).ok_or(Malformed)
}
