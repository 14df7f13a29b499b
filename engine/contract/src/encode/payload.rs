//! What a route changes of bodies.

use super::{DecodeError, Fault, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most rules of one kind.
pub const MAX_BODY_RULES: usize = 32;
/// Most operations of a rule.
pub const MAX_BODY_STEPS: usize = 64;
/// Longest value of an operation, and longest jq program, in bytes.
pub const MAX_BODY_VALUE: usize = 256 * 1024;
/// Largest body that a rule may ask for, in bytes.
pub const MAX_CHANGED_BODY: u32 = 64 * 1024 * 1024;
/// Longest that a jq program may run, in milliseconds.
pub const MAX_JQ_MS: u32 = 30_000;

pub(super) fn write(out: &mut Out, payload: &RoutePayload) {
    out.list(&payload.request, write_rule);
    out.list(&payload.response, write_rule);
    out.option(payload.compress.as_ref(), |out, compress| {
        out.list(&compress.codings, |out, (coding, level)| {
            out.u8(match coding {
                ContentCoding::Gzip => 0,
                ContentCoding::Deflate => 1,
                ContentCoding::Brotli => 2,
                ContentCoding::Zstd => 3,
            });
            out.u8(*level);
        });
        out.u32(compress.min_bytes);
        out.texts(&compress.content_types);
    });
}

pub(super) fn read(input: &mut In<'_>) -> Result<RoutePayload, DecodeError> {
    Ok(RoutePayload {
        request: input.list("route.request_body", MAX_BODY_RULES, read_rule)?,
        response: input.list("route.response_body", MAX_BODY_RULES, read_rule)?,
        compress: input.option("route.compress", |input| {
            Ok(Compress {
                codings: input.list("compress.codings", 4, |input| {
                    let coding = match input.u8("compress.coding")? {
                        0 => ContentCoding::Gzip,
                        1 => ContentCoding::Deflate,
                        2 => ContentCoding::Brotli,
                        3 => ContentCoding::Zstd,
                        other => return Err(input.tag("compress.coding", other)),
                    };
                    let level = input.u8("compress.level")?;
                    let levels = coding.levels();
                    let (min, max) = (u64::from(*levels.start()), u64::from(*levels.end()));
                    let wrong = Fault::OutOfRange { found: u64::from(level), min, max };
                    match levels.contains(&level) {
                        true => Ok((coding, level)),
                        false => Err(input.fault("compress.level", wrong)),
                    }
                })?,
                min_bytes: input.u32("compress.min_bytes")?,
                content_types: texts(input, "compress.content_types")?,
            })
        })?,
    })
}

fn texts(input: &mut In<'_>, field: &'static str) -> Result<Vec<String>, DecodeError> {
    input.list(field, MAX_ENTRIES, |input| input.text(field))
}

fn value(input: &mut In<'_>, field: &'static str) -> Result<String, DecodeError> {
    let unsound = input.fault(field, Fault::NotUtf8);
    String::from_utf8(input.blob(field, MAX_BODY_VALUE)?).map_err(|_| unsound)
}

fn write_rule(out: &mut Out, rule: &BodyRule) {
    out.list(&rule.statuses, |out, (first, last)| {
        out.u16(*first);
        out.u16(*last);
    });
    out.texts(&rule.content_types);
    write_form(out, rule.from);
    write_form(out, rule.to);
    out.u8(rule.decode.into());
    out.u32(rule.max_bytes);
    out.u8(rule.pass_unreadable.into());
    out.texts(&rule.arrays);
    out.list(&rule.steps, write_step);
}

fn read_rule(input: &mut In<'_>) -> Result<BodyRule, DecodeError> {
    Ok(BodyRule {
        statuses: input.list("body.statuses", MAX_ENTRIES, |input| {
            Ok((input.u16("body.status")?, input.u16("body.status")?))
        })?,
        content_types: texts(input, "body.content_types")?,
        from: read_form(input)?,
        to: read_form(input)?,
        decode: input.bool("body.decode")?,
        max_bytes: input.u32_within("body.max_bytes", 1, MAX_CHANGED_BODY)?,
        pass_unreadable: input.bool("body.pass_unreadable")?,
        arrays: texts(input, "body.arrays")?,
        steps: input.list("body.steps", MAX_BODY_STEPS, read_step)?,
    })
}

fn write_form(out: &mut Out, form: BodyForm) {
    out.u8(match form {
        BodyForm::Json => 0,
        BodyForm::Form => 1,
        BodyForm::Xml => 2,
        BodyForm::Lines => 3,
        BodyForm::Events => 4,
    });
}

fn read_form(input: &mut In<'_>) -> Result<BodyForm, DecodeError> {
    Ok(match input.u8("body.form")? {
        0 => BodyForm::Json,
        1 => BodyForm::Form,
        2 => BodyForm::Xml,
        3 => BodyForm::Lines,
        4 => BodyForm::Events,
        other => return Err(input.tag("body.form", other)),
    })
}

fn write_step(out: &mut Out, step: &BodyStep) {
    let mut two = |tag: u8, one: &str, value: &str| {
        out.u8(tag);
        out.text(one);
        out.blob(value.as_bytes());
    };
    match step {
        BodyStep::Add { at, value } => two(0, at, value),
        BodyStep::Replace { at, value } => two(1, at, value),
        BodyStep::Remove { at } => two(2, at, ""),
        BodyStep::Move { from, to } => two(3, from, to),
        BodyStep::Copy { from, to } => two(4, from, to),
        BodyStep::Rename { at, name } => two(5, at, name),
        BodyStep::Allow(paths) => {
            out.u8(6);
            out.texts(paths);
        }
        BodyStep::Deny(paths) => {
            out.u8(7);
            out.texts(paths);
        }
        BodyStep::Wrap(name) => two(8, name, ""),
        BodyStep::Unwrap(at) => two(9, at, ""),
        BodyStep::Defaults(value) => two(10, "", value),
        BodyStep::Template(value) => two(11, "", value),
        BodyStep::Jq { program, timeout_ms } => {
            out.u8(12);
            out.blob(program.as_bytes());
            out.u32(*timeout_ms);
        }
    }
}

fn read_step(input: &mut In<'_>) -> Result<BodyStep, DecodeError> {
    let tag = input.u8("body.step")?;
    match tag {
        6 => return Ok(BodyStep::Allow(texts(input, "body.step.allow")?)),
        7 => return Ok(BodyStep::Deny(texts(input, "body.step.deny")?)),
        12 => {
            let program = value(input, "body.step.jq")?;
            let timeout_ms = input.u32_within("body.step.timeout_ms", 1, MAX_JQ_MS)?;
            return Ok(BodyStep::Jq { program, timeout_ms });
        }
        0..=11 => {}
        other => return Err(input.tag("body.step", other)),
    }
    let (one, value) = (input.text("body.step.at")?, value(input, "body.step.value")?);
    Ok(match tag {
        0 => BodyStep::Add { at: one, value },
        1 => BodyStep::Replace { at: one, value },
        2 => BodyStep::Remove { at: one },
        3 => BodyStep::Move { from: one, to: value },
        4 => BodyStep::Copy { from: one, to: value },
        5 => BodyStep::Rename { at: one, name: value },
        8 => BodyStep::Wrap(one),
        9 => BodyStep::Unwrap(one),
        10 => BodyStep::Defaults(value),
        _ => BodyStep::Template(value),
    })
}
