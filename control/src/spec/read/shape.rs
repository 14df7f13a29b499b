//! What routes change of requests and answers, and what they answer themselves. Templates are compiled
//! by the engine, whose judgement follows (`crate::fit`).

use std::collections::BTreeMap;

use contract::encode::{MAX_SHAPE_RULES, MAX_STATIC_BODY};
use contract::snapshot::{fixed_field, status_has_body};

use super::fields::{Fields, Walk};
use super::parts::flag;
use super::route::size;
use super::validate::value;
use crate::spec::model::{
    AnswerCookieEdits, CookieEdits, CookieRewrite, CookieSite, NameEdits, NewCookie, PathEdit,
    PathReplace, Redirect, Respond, RouteRequest, RouteResponse, found, ok, root,
};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

/// What names are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    Answer,
    Query,
    Cookie,
}

pub(super) fn request(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RouteRequest> {
    let f = walk.fields(node, path, &["method", "host", "path", "query", "headers", "cookies"])?;
    let method = f.read(walk, "method", |walk, node, path| {
        walk.parsed(node, path, "bad-method", scalars::method)
    });
    Some(RouteRequest {
        method,
        host: f.read(walk, "host", filled),
        path: f.read(walk, "path", path_edit),
        query: f.read(walk, "query", |w, n, p| names(w, n, p, Of::Query)).unwrap_or_default(),
        headers: f.read(walk, "headers", |w, n, p| names(w, n, p, Of::Request)).unwrap_or_default(),
        cookies: f.read(walk, "cookies", cookies).unwrap_or_default(),
    })
}

pub(super) fn response(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RouteResponse> {
    let f = walk.fields(node, path, &["status", "headers", "cookies", "max_body_bytes"])?;
    Some(RouteResponse {
        status: f.read(walk, "status", statuses).unwrap_or_default(),
        headers: f.read(walk, "headers", |w, n, p| names(w, n, p, Of::Answer)).unwrap_or_default(),
        cookies: f.read(walk, "cookies", answer_cookies).unwrap_or_default(),
        max_body_bytes: f.read(walk, "max_body_bytes", size),
    })
}

pub(super) fn redirect(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Redirect> {
    if let Value::Text(_) = node.value {
        let location = filled(walk, node, path)?;
        return Some(Redirect { status: found(), location, keep_path: false, keep_query: false });
    }
    let f = walk.fields(node, path, &["status", "location", "keep_path", "keep_query"])?;
    let status = f.read(walk, "status", |walk, node, path| {
        let status: u16 = walk.number(node, path, 301..=308)?;
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let message = format!("{status} is no redirect; expected 301, 302, 303, 307 or 308");
            walk.error("bad-value", node, path, message);
            return None;
        }
        Some(status)
    });
    let location = f.require(walk, "location", "a path, or https://host/path", filled);
    Some(Redirect {
        status: status.unwrap_or_else(found),
        location: location.unwrap_or_default(),
        keep_path: flag(walk, &f, "keep_path", false),
        keep_query: flag(walk, &f, "keep_query", false),
    })
}

pub(super) fn respond(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Respond> {
    let f = walk.fields(node, path, &["status", "content_type", "headers", "body", "json"])?;
    let status = f.read(walk, "status", |w, n, p| w.number(n, p, 200..=599)).unwrap_or_else(ok);
    let json = f.read(walk, "json", |walk, node, path| {
        walk.places.set(path, node.mark);
        value(walk, node, path)
    });
    let body = f.read(walk, "body", |walk, node, path| walk.text(node, path));
    let length = body.as_ref().map(String::len).max(json.as_ref().map(|j| j.to_string().len()));
    let there = f.node("body").or(f.node("json"));
    if let Some(node) = there {
        let name = if f.node("body").is_some() { "body" } else { "json" };
        if f.node("body").is_some() && f.node("json").is_some() {
            let message = "body and json exclude each other; keep one";
            walk.error("conflicting-fields", node, &f.at(name), message.into());
        } else if !status_has_body(status) {
            let message = format!("an answer with status {status} has no body; leave it out");
            walk.error("conflicting-fields", node, &f.at(name), message);
        } else if length.is_some_and(|length| length > MAX_STATIC_BODY) {
            let message = format!("at most {MAX_STATIC_BODY} bytes (256KiB) are answered this way");
            walk.error("out-of-range", node, &f.at(name), message);
        }
    }
    let headers = f.read(walk, "headers", |walk, node, path| {
        map(walk, node, path, Of::Answer, |walk, node, path| walk.text(node, path))
    });
    Some(Respond {
        status,
        content_type: f.read(walk, "content_type", |walk, node, path| {
            walk.parsed(node, path, "bad-value", scalars::field_value)
        }),
        headers: headers.unwrap_or_default(),
        body,
        json,
    })
}

/// Text that is not empty.
fn filled(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-value", |text| match text {
        "" => Err("expected a text that is not empty; leave it out instead".into()),
        text => Ok(text.into()),
    })
}

fn path_edit(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<PathEdit> {
    match node.value {
        Value::Text(_) => filled(walk, node, path).map(PathEdit::Whole),
        Value::Map(_) => {
            let f = walk.fields(node, path, &["regex", "with"])?;
            let regex = f.require(walk, "regex", "a regular expression", |walk, node, path| {
                walk.parsed(node, path, "bad-regex", scalars::regex)
            });
            let with =
                f.require(walk, "with", "what to put in place of what it matches", |w, n, p| {
                    w.text(n, p)
                });
            Some(PathEdit::Replace(PathReplace { regex: regex?, with: with? }))
        }
        _ => {
            walk.wrong_type(node, path, "a path like \"/v2/${path.rest}\", or regex and with");
            None
        }
    }
}

fn names(walk: &mut Walk<'_>, node: &Node, path: &str, of: Of) -> Option<NameEdits> {
    let f = walk.fields(node, path, &["rename", "copy", "remove", "set", "add"])?;
    let moved = |walk: &mut Walk<'_>, f: &Fields<'_>, kind: &str| {
        f.read(walk, kind, |walk, node, path| {
            map(walk, node, path, of, |walk, node, path| {
                walk.parsed(node, path, "bad-field-name", |text| name(text, of))
            })
        })
    };
    let valued = |walk: &mut Walk<'_>, f: &Fields<'_>, kind: &str| {
        f.read(walk, kind, |walk, node, path| map(walk, node, path, of, |w, n, p| w.text(n, p)))
    };
    let edits = NameEdits {
        rename: moved(walk, &f, "rename").unwrap_or_default(),
        copy: moved(walk, &f, "copy").unwrap_or_default(),
        remove: f.read(walk, "remove", |w, n, p| removed(w, n, p, of)).unwrap_or_default(),
        set: valued(walk, &f, "set").unwrap_or_default(),
        add: valued(walk, &f, "add").unwrap_or_default(),
    };
    let all = [edits.rename.len(), edits.copy.len(), edits.remove.len(), edits.set.len()];
    if all.into_iter().sum::<usize>() + edits.add.len() > MAX_SHAPE_RULES {
        let message = format!("at most {MAX_SHAPE_RULES} names are changed at one place");
        walk.error("too-many", node, path, message);
    }
    Some(edits)
}

fn removed(walk: &mut Walk<'_>, node: &Node, path: &str, of: Of) -> Option<Vec<String>> {
    super::route::unique(walk, node, path, "bad-field-name", |text| name(text, of))
}

/// A name as the rules of its kind have it.
fn name(text: &str, of: Of) -> Result<String, String> {
    match of {
        Of::Query if text.is_empty() => Err("expected the name of a query parameter".into()),
        Of::Query => Ok(text.into()),
        Of::Cookie if scalars::is_token(text) => Ok(text.into()),
        Of::Cookie => Err("expected the name of a cookie, like session".into()),
        Of::Request | Of::Answer => {
            let lower = text.to_ascii_lowercase();
            if let Some(why) = fixed_field(&lower, of == Of::Answer) {
                return Err(format!("`{text}` is not changed here: {why}"));
            }
            scalars::field_name(text)
        }
    }
}

/// A map from names to what `read` takes.
fn map<T>(
    walk: &mut Walk<'_>,
    node: &Node,
    path: &str,
    of: Of,
    mut read: impl FnMut(&mut Walk<'_>, &Node, &str) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    walk.places.set(path, node.mark);
    let Value::Map(entries) = &node.value else {
        walk.wrong_type(node, path, "a map from names");
        return None;
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let key = Some(entry.key.as_str());
        let named = match name(&entry.key, of) {
            Ok(name) => name,
            Err(message) => {
                let field = format!("{path}.{}", entry.key);
                walk.problems.error("bad-field-name", entry.key_mark, &field, key, message);
                continue;
            }
        };
        let field = format!("{path}.{named}");
        if found.contains_key(&named) {
            let message = format!("`{named}` is there twice; keep one");
            walk.problems.error("duplicate-key", entry.key_mark, &field, key, message);
            continue;
        }
        if let Some(value) = read(walk, &entry.value, &field) {
            found.insert(named, value);
        }
    }
    Some(found)
}

fn cookies(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CookieEdits> {
    let f = walk.fields(node, path, &["set", "remove"])?;
    let set = f.read(walk, "set", |walk, node, path| {
        map(walk, node, path, Of::Cookie, |walk, node, path| walk.text(node, path))
    });
    let remove = f.read(walk, "remove", |w, n, p| removed(w, n, p, Of::Cookie));
    Some(CookieEdits { set: set.unwrap_or_default(), remove: remove.unwrap_or_default() })
}

fn answer_cookies(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AnswerCookieEdits> {
    let f = walk.fields(node, path, &["set", "remove", "rewrite"])?;
    let set = f.read(walk, "set", |w, n, p| map(w, n, p, Of::Cookie, new_cookie));
    Some(AnswerCookieEdits {
        set: set.unwrap_or_default(),
        remove: f.read(walk, "remove", |w, n, p| removed(w, n, p, Of::Cookie)).unwrap_or_default(),
        rewrite: f
            .read(walk, "rewrite", |walk, node, path| walk.list(node, path, cookie_rewrite))
            .unwrap_or_default(),
    })
}

const SITES: &[(&str, CookieSite)] =
    &[("strict", CookieSite::Strict), ("lax", CookieSite::Lax), ("none", CookieSite::None)];

fn new_cookie(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<NewCookie> {
    const KNOWN: &[&str] =
        &["value", "domain", "path", "secure", "http_only", "same_site", "max_age"];
    if let Value::Text(_) = node.value {
        let value = walk.text(node, path)?;
        return Some(NewCookie {
            value,
            domain: None,
            path: root(),
            secure: false,
            http_only: false,
            same_site: None,
            max_age: None,
        });
    }
    let f = walk.fields(node, path, KNOWN)?;
    let value = f.require(walk, "value", "the cookie's value", |w, n, p| w.text(n, p));
    Some(NewCookie {
        value: value?,
        domain: f.read(walk, "domain", filled),
        path: f.read(walk, "path", filled).unwrap_or_else(root),
        secure: flag(walk, &f, "secure", false),
        http_only: flag(walk, &f, "http_only", false),
        same_site: f.read(walk, "same_site", |w, n, p| w.word(n, p, SITES)),
        max_age: f.read(walk, "max_age", age),
    })
}

fn cookie_rewrite(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CookieRewrite> {
    const KNOWN: &[&str] =
        &["name", "domain", "path", "secure", "http_only", "same_site", "max_age"];
    let f = walk.fields(node, path, KNOWN)?;
    Some(CookieRewrite {
        name: f.read(walk, "name", |walk, node, path| {
            walk.parsed(node, path, "bad-field-name", |text| name(text, Of::Cookie))
        }),
        domain: f.read(walk, "domain", |w, n, p| w.text(n, p)),
        path: f.read(walk, "path", |w, n, p| w.text(n, p)),
        secure: f.read(walk, "secure", |w, n, p| w.flag(n, p)),
        http_only: f.read(walk, "http_only", |w, n, p| w.flag(n, p)),
        same_site: f.read(walk, "same_site", |w, n, p| w.word(n, p, SITES)),
        max_age: f.read(walk, "max_age", age),
    })
}

/// Seconds, which may be less than none.
fn age(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<i64> {
    walk.places.set(path, node.mark);
    match node.value {
        Value::Integer(seconds) if (-1..=1 << 53).contains(&seconds) => seconds.try_into().ok(),
        _ => {
            walk.wrong_type(node, path, "a number of seconds");
            None
        }
    }
}

fn statuses(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<BTreeMap<String, u16>> {
    walk.places.set(path, node.mark);
    let Value::Map(entries) = &node.value else {
        walk.wrong_type(node, path, "a map from statuses, like {404: 410, 5xx: 503}");
        return None;
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let field = format!("{path}.{}", entry.key);
        let key = Some(entry.key.as_str());
        let from = match answer_statuses(&entry.key) {
            Ok(from) => from,
            Err(message) => {
                walk.problems.error("bad-value", entry.key_mark, &field, key, message);
                continue;
            }
        };
        let to = walk.number::<u16>(&entry.value, &field, 200..=599);
        let Some(to) = to else { continue };
        if !status_has_body(to) {
            let message = format!("an answer with status {to} has no body, and this one may");
            walk.error("bad-value", &entry.value, &field, message);
        } else if found.insert(from.clone(), to).is_some() {
            let message = format!("`{from}` is there twice; keep one");
            walk.problems.error("duplicate-key", entry.key_mark, &field, key, message);
        }
    }
    Some(found)
}

/// `404`, `500-599` or `5xx`, as one of the first two.
fn answer_statuses(text: &str) -> Result<String, String> {
    let class = text.strip_suffix("xx").filter(|class| class.len() == 1);
    let range = match class {
        Some(class) => scalars::status_range(&format!("{class}00-{class}99")),
        None => scalars::status_range(text),
    };
    let wanted = "expected a status like 404, or several like 5xx or \"500-599\"";
    let range = range.map_err(|_| wanted.to_owned())?;
    if range.first < 200 {
        return Err("only final answers have another status: 200 to 599".into());
    }
    match range.first == range.last {
        true if !status_has_body(range.first) => {
            Err(format!("an answer with status {} has no body, so it stays", range.first))
        }
        true => Ok(range.first.to_string()),
        false => Ok(format!("{}-{}", range.first, range.last)),
    }
}
