//! Answers that a route gives itself: redirects, and static ones.

use contract::record::Reason;
use contract::snapshot::{OwnAnswer, StaticBody, status_has_body};

use super::build::{Problem, own_field, template};
use super::fields::is_plain;
use super::is_authority;
use super::values::RequestValues;
use crate::answer::Answer;
use crate::local_reply::LocalReply;
use crate::shard::Shard;
use crate::template::{Escape, JsonTemplate, Scope, Template, Values, is_field_value};

#[derive(Clone, Debug, PartialEq)]
pub enum Own {
    Redirect(Redirect),
    Static(Static),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    status: u16,
    /// Scheme and authority, in a location that has one. Apart, as no value may end it.
    site: Option<Template>,
    rest: Template,
    keep_path: bool,
    keep_query: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Static {
    status: u16,
    content_type: Box<str>,
    headers: Box<[(Box<str>, Template)]>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Empty,
    Text(Template, Escape),
    Json(JsonTemplate),
}

impl Own {
    pub(super) fn build(from: &OwnAnswer, scope: &Scope) -> Result<Own, Problem> {
        match from {
            OwnAnswer::Redirect { status, location, keep_path, keep_query } => {
                Redirect::build(*status, location, *keep_path, *keep_query, scope)
                    .map(Own::Redirect)
            }
            OwnAnswer::Static { status, content_type, headers, body } => {
                Static::build(*status, content_type, headers, body, scope).map(Own::Static)
            }
        }
    }

    /// The answer.
    ///
    /// # Errors
    /// 400 when the request lacks a value that is needed.
    pub fn give(
        &self,
        shard: &Shard,
        values: &RequestValues<'_>,
        is_head: bool,
    ) -> Result<Answer, LocalReply> {
        let missing = || LocalReply::new(400, Reason::ValueMissing);
        match self {
            Own::Redirect(redirect) => {
                let location = redirect.location(values).ok_or_else(missing)?;
                Answer::own(
                    shard,
                    is_head,
                    redirect.status,
                    &[(b"Location", &location)],
                    Vec::new(),
                )
            }
            Own::Static(answer) => {
                let body = answer.body(values).ok_or_else(missing)?;
                let mut fields: Vec<(&[u8], Vec<u8>)> = Vec::new();
                if !answer.content_type.is_empty() {
                    fields.push((b"Content-Type", answer.content_type.as_bytes().to_vec()));
                }
                for (name, value) in &answer.headers {
                    let mut text = Vec::new();
                    match value.text(values, Escape::Header, &mut text) {
                        Ok(()) => fields.push((name.as_bytes(), text.trim_ascii().to_vec())),
                        Err(why) if why.unfit => {
                            shard.meter.count(contract::Counter::ValuesUnfit, 1)
                        }
                        Err(_) => {}
                    }
                }
                let fields: Vec<(&[u8], &[u8])> =
                    fields.iter().map(|(name, value)| (*name, &**value)).collect();
                Answer::own(shard, is_head, answer.status, &fields, body)
            }
        }
    }

    /// The reason that records have.
    pub fn reason(&self) -> Reason {
        match self {
            Own::Redirect(_) => Reason::Redirected,
            Own::Static(_) => Reason::Static,
        }
    }
}

impl Redirect {
    fn build(
        status: u16,
        location: &str,
        keep_path: bool,
        keep_query: bool,
        scope: &Scope,
    ) -> Result<Redirect, Problem> {
        let fault = |field: &str, problem: String| (format!("redirect.{field}"), problem);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let problem = format!("{status} is no redirect; expected 301, 302, 303, 307 or 308");
            return Err(fault("status", problem));
        }
        let compile =
            |text: &str| template(text, scope).map_err(|problem| fault("location", problem));
        // So that places in errors are those of the whole text.
        compile(location)?;
        let (site, rest) = split(location);
        if site.is_none() && !location.starts_with('/') && !location.starts_with("${") {
            let problem = "expected a path that begins with `/`, or https://host/path";
            return Err(fault("location", problem.into()));
        }
        if keep_query && rest.contains('#') {
            let problem = "a query cannot go behind a fragment; leave one of them out";
            return Err(fault("keep_query", problem.into()));
        }
        if keep_path && rest.contains(['?', '#']) {
            let problem = "a path cannot go behind a query or fragment; leave one of them out";
            return Err(fault("keep_path", problem.into()));
        }
        let redirect = Redirect {
            status,
            site: site.map(compile).transpose()?,
            rest: compile(rest)?,
            keep_path,
            keep_query,
        };
        let sound = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let literals = [redirect.site.as_ref(), Some(&redirect.rest)];
        for text in literals.into_iter().flatten().flat_map(Template::literals) {
            if !sound(text) {
                let problem = "what is no placeholder must be a URI: percent-encode what needs it";
                return Err(fault("location", problem.into()));
            }
        }
        if let Some(text) = redirect.site.as_ref().and_then(Template::literal)
            && !is_site(text.as_bytes())
        {
            let problem = format!("`{text}` is no http:// or https:// and a host");
            return Err(fault("location", problem));
        }
        if site.is_none() && redirect.rest.literals().next().is_some_and(|l| l.starts_with("//")) {
            let problem = "begins with `//`, which leads to another host; write https:// before it";
            return Err(fault("location", problem.into()));
        }
        Ok(redirect)
    }

    /// `None`: a value is missing, or would lead elsewhere.
    fn location(&self, values: &RequestValues<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(128);
        if let Some(site) = &self.site {
            site.text(values, Escape::None, &mut out).ok()?;
            if !is_site(&out) {
                return None;
            }
        }
        let site = out.len();
        self.rest.text(values, Escape::Query, &mut out).ok()?;
        if self.keep_path {
            if out.len() > site && out.last() == Some(&b'/') {
                out.pop();
            }
            out.extend_from_slice(values.path());
        }
        let rest = out.get(site..).unwrap_or_default();
        // `//host` is another site (RFC 3986 §4.2), and so is `host` behind ours.
        let apart = rest.is_empty() || matches!(rest.first(), Some(b'/' | b'?' | b'#'));
        let leads_away = self.site.is_none() && (rest.starts_with(b"//") || rest.is_empty());
        if !apart || leads_away {
            return None;
        }
        if self.keep_query
            && let Some(query) = values.query().filter(|query| !query.is_empty())
        {
            out.push(if rest.contains(&b'?') { b'&' } else { b'?' });
            out.extend_from_slice(query);
        }
        is_field_value(&out).then_some(out)
    }
}

/// Scheme and authority, and the rest. Placeholders are left whole.
fn split(location: &str) -> (Option<&str>, &str) {
    let (mut depth, mut quoted, mut slashes) = (0u32, false, 0);
    let bytes = location.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' if depth > 0 => quoted = !quoted,
            b'{' if depth == 0 && at > 0 && bytes.get(at - 1) == Some(&b'$') => depth = 1,
            b'}' if depth > 0 && !quoted => depth = 0,
            b'/' if depth == 0 && slashes == 0 => match location.get(..at + 2) {
                Some(start) if start.ends_with("://") => {
                    slashes = 2;
                    at += 1;
                }
                _ => return (None, location),
            },
            b'/' | b'?' | b'#' if depth == 0 => {
                return match slashes {
                    2 => (location.get(..at), location.get(at..).unwrap_or_default()),
                    _ => (None, location),
                };
            }
            _ => {}
        }
        at += 1;
    }
    if slashes == 2 { (Some(location), "") } else { (None, location) }
}

fn is_site(site: &[u8]) -> bool {
    let authority = site.strip_prefix(b"https://").or_else(|| site.strip_prefix(b"http://"));
    authority.is_some_and(is_authority)
}

impl Static {
    fn build(
        status: u16,
        content_type: &str,
        headers: &[(String, String)],
        body: &StaticBody,
        scope: &Scope,
    ) -> Result<Static, Problem> {
        let fault = |field: &str, problem: String| (format!("respond.{field}"), problem);
        if !(200..=599).contains(&status) {
            let problem = format!("{status} is no status of a final answer; expected 200 to 599");
            return Err(fault("status", problem));
        }
        if *body != StaticBody::Empty && !status_has_body(status) {
            return Err(fault("body", format!("an answer with status {status} has no body")));
        }
        if !is_plain(content_type) {
            return Err(fault("content_type", "is no value of a header field".into()));
        }
        let mut compiled = Vec::with_capacity(headers.len());
        for (name, text) in headers {
            let place = format!("headers.{name}");
            own_field(name).map_err(|problem| fault(&place, problem))?;
            if name.eq_ignore_ascii_case("content-type") {
                let problem = "use content_type, which also says how values are escaped";
                return Err(fault(&place, problem.into()));
            }
            let value = template(text, scope).map_err(|problem| fault(&place, problem))?;
            if value.literal().is_some_and(|text| !is_plain(text)) {
                let problem = "a value has no line ends, no other control characters and no space \
                               around it";
                return Err(fault(&place, problem.into()));
            }
            compiled.push((name.as_str().into(), value));
        }
        let body = match body {
            StaticBody::Empty => Body::Empty,
            StaticBody::Text(text) => {
                let body = template(text, scope).map_err(|problem| fault("body", problem))?;
                Body::Text(body, escape_of(content_type))
            }
            StaticBody::Json(text) => {
                let value = serde_json::from_str(text)
                    .map_err(|error| fault("json", format!("is no JSON: {error}")))?;
                let body = JsonTemplate::compile(&value, scope).map_err(|error| {
                    fault("json", format!("{} (at byte {} of it)", error.problem, error.at))
                })?;
                Body::Json(body)
            }
        };
        Ok(Static { status, content_type: content_type.into(), headers: compiled.into(), body })
    }

    fn body(&self, values: &dyn Values) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match &self.body {
            Body::Empty => {}
            Body::Text(text, escape) => text.text(values, *escape, &mut out).ok()?,
            Body::Json(json) => {
                let value = json.render(values).ok()?;
                serde_json::to_writer(&mut out, &value).ok()?;
                out.push(b'\n');
            }
        }
        Some(out)
    }
}

/// Values in markup must stay text.
fn escape_of(content_type: &str) -> Escape {
    let kind = content_type.to_ascii_lowercase();
    if kind.contains("html") || kind.contains("xml") { Escape::Html } else { Escape::None }
}
