//! What a route changes of requests and answers.

use super::{DecodeError, Fault, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Longest body of an answer of the gateway's own, in bytes.
pub const MAX_STATIC_BODY: usize = 256 * 1024;
/// Most rules of one kind.
pub const MAX_SHAPE_RULES: usize = 64;

pub(super) fn write(out: &mut Out, shape: &RouteShape) {
    let request = &shape.request;
    out.option(request.method.as_ref(), |out, method| out.text(method));
    out.option(request.host.as_ref(), |out, host| out.text(host));
    out.option(request.path.as_ref(), |out, path| match path {
        PathShape::Whole(path) => {
            out.u8(0);
            out.text(path);
        }
        PathShape::Replace { pattern, with } => {
            out.u8(1);
            out.text(pattern);
            out.text(with);
        }
    });
    write_names(out, &request.query);
    write_names(out, &request.headers);
    out.list(&request.cookies.set, write_pair);
    out.texts(&request.cookies.remove);
    let response = &shape.response;
    out.list(&response.status, |out, rule| {
        out.u16(rule.first);
        out.u16(rule.last);
        out.u16(rule.to);
    });
    write_names(out, &response.headers);
    out.list(&response.cookies.set, |out, cookie| {
        out.text(&cookie.name);
        out.text(&cookie.value);
        write_attributes(out, &cookie.attributes);
    });
    out.texts(&response.cookies.remove);
    out.list(&response.cookies.rewrite, |out, rewrite| {
        out.option(rewrite.name.as_ref(), |out, name| out.text(name));
        write_attributes(out, &rewrite.attributes);
    });
    out.option(response.max_body_bytes.as_ref(), |out, bytes| out.u64(*bytes));
    out.option(shape.answer.as_ref(), write_answer);
}

pub(super) fn read(input: &mut In<'_>) -> Result<RouteShape, DecodeError> {
    Ok(RouteShape {
        request: RequestShape {
            method: input.option("request.method", |input| input.text("request.method"))?,
            host: input.option("request.host", |input| input.text("request.host"))?,
            path: input.option("request.path", |input| {
                Ok(match input.u8("request.path")? {
                    0 => PathShape::Whole(input.text("request.path")?),
                    1 => PathShape::Replace {
                        pattern: input.text("request.path.regex")?,
                        with: input.text("request.path.with")?,
                    },
                    other => return Err(input.tag("request.path", other)),
                })
            })?,
            query: read_names(input)?,
            headers: read_names(input)?,
            cookies: CookieRules {
                set: input.list("cookies.set", MAX_SHAPE_RULES, read_pair)?,
                remove: input.texts("cookies.remove", MAX_SHAPE_RULES)?,
            },
        },
        response: ResponseShape {
            status: input.list("response.status", MAX_ENTRIES, |input| {
                Ok(StatusRule {
                    first: input.u16("status.first")?,
                    last: input.u16("status.last")?,
                    to: input.u16("status.to")?,
                })
            })?,
            headers: read_names(input)?,
            cookies: AnswerCookies {
                set: input.list("cookies.set", MAX_SHAPE_RULES, |input| {
                    Ok(NewCookie {
                        name: input.text("cookie.name")?,
                        value: input.text("cookie.value")?,
                        attributes: read_attributes(input)?,
                    })
                })?,
                remove: input.texts("cookies.remove", MAX_SHAPE_RULES)?,
                rewrite: input.list("cookies.rewrite", MAX_SHAPE_RULES, |input| {
                    Ok(CookieRewrite {
                        name: input.option("cookie.name", |input| input.text("cookie.name"))?,
                        attributes: read_attributes(input)?,
                    })
                })?,
            },
            max_body_bytes: input
                .option("response.max_body_bytes", |input| input.u64("response.max_body_bytes"))?,
        },
        answer: input.option("route.answer", read_answer)?,
    })
}

fn write_pair(out: &mut Out, (one, other): &(String, String)) {
    out.text(one);
    out.text(other);
}

fn read_pair(input: &mut In<'_>) -> Result<(String, String), DecodeError> {
    Ok((input.text("rule.name")?, input.text("rule.value")?))
}

fn write_names(out: &mut Out, rules: &NameRules) {
    out.list(&rules.rename, write_pair);
    out.list(&rules.copy, write_pair);
    out.texts(&rules.remove);
    out.list(&rules.set, write_pair);
    out.list(&rules.add, write_pair);
}

fn read_names(input: &mut In<'_>) -> Result<NameRules, DecodeError> {
    Ok(NameRules {
        rename: input.list("rules.rename", MAX_SHAPE_RULES, read_pair)?,
        copy: input.list("rules.copy", MAX_SHAPE_RULES, read_pair)?,
        remove: input.texts("rules.remove", MAX_SHAPE_RULES)?,
        set: input.list("rules.set", MAX_SHAPE_RULES, read_pair)?,
        add: input.list("rules.add", MAX_SHAPE_RULES, read_pair)?,
    })
}

fn write_attributes(out: &mut Out, attributes: &CookieAttributes) {
    out.option(attributes.domain.as_ref(), |out, domain| out.text(domain));
    out.option(attributes.path.as_ref(), |out, path| out.text(path));
    out.option(attributes.secure.as_ref(), |out, on| out.u8((*on).into()));
    out.option(attributes.http_only.as_ref(), |out, on| out.u8((*on).into()));
    out.option(attributes.same_site.as_ref(), |out, site| {
        out.u8(match site {
            SameSite::Strict => 0,
            SameSite::Lax => 1,
            SameSite::None => 2,
        });
    });
    out.option(attributes.max_age_s.as_ref(), |out, age| out.u64(age.cast_unsigned()));
}

fn read_attributes(input: &mut In<'_>) -> Result<CookieAttributes, DecodeError> {
    Ok(CookieAttributes {
        domain: input.option("cookie.domain", |input| input.text("cookie.domain"))?,
        path: input.option("cookie.path", |input| input.text("cookie.path"))?,
        secure: input.option("cookie.secure", |input| input.bool("cookie.secure"))?,
        http_only: input.option("cookie.http_only", |input| input.bool("cookie.http_only"))?,
        same_site: input.option("cookie.same_site", |input| {
            Ok(match input.u8("cookie.same_site")? {
                0 => SameSite::Strict,
                1 => SameSite::Lax,
                2 => SameSite::None,
                other => return Err(input.tag("cookie.same_site", other)),
            })
        })?,
        max_age_s: input
            .option("cookie.max_age", |input| Ok(input.u64("cookie.max_age")?.cast_signed()))?,
    })
}

fn write_answer(out: &mut Out, answer: &OwnAnswer) {
    match answer {
        OwnAnswer::Redirect { status, location, keep_path, keep_query } => {
            out.u8(0);
            out.u16(*status);
            out.text(location);
            out.u8((*keep_path).into());
            out.u8((*keep_query).into());
        }
        OwnAnswer::Static { status, content_type, headers, body } => {
            out.u8(1);
            out.u16(*status);
            out.text(content_type);
            out.list(headers, write_pair);
            match body {
                StaticBody::Empty => out.u8(0),
                StaticBody::Text(text) => {
                    out.u8(1);
                    out.blob(text.as_bytes());
                }
                StaticBody::Json(text) => {
                    out.u8(2);
                    out.blob(text.as_bytes());
                }
            }
        }
    }
}

fn read_answer(input: &mut In<'_>) -> Result<OwnAnswer, DecodeError> {
    Ok(match input.u8("route.answer")? {
        0 => OwnAnswer::Redirect {
            status: input.u16("redirect.status")?,
            location: input.text("redirect.location")?,
            keep_path: input.bool("redirect.keep_path")?,
            keep_query: input.bool("redirect.keep_query")?,
        },
        1 => OwnAnswer::Static {
            status: input.u16("respond.status")?,
            content_type: input.text("respond.content_type")?,
            headers: input.list("respond.headers", MAX_SHAPE_RULES, read_pair)?,
            body: match input.u8("respond.body")? {
                0 => StaticBody::Empty,
                1 => StaticBody::Text(read_body(input)?),
                2 => StaticBody::Json(read_body(input)?),
                other => return Err(input.tag("respond.body", other)),
            },
        },
        other => return Err(input.tag("route.answer", other)),
    })
}

fn read_body(input: &mut In<'_>) -> Result<String, DecodeError> {
    let unsound = input.fault("respond.body", Fault::NotUtf8);
    String::from_utf8(input.blob("respond.body", MAX_STATIC_BODY)?).map_err(|_| unsound)
}
