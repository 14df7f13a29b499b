//! Rules for cookies: those of a request, and those that an answer sets (RFC 6265).

use contract::snapshot::{
    self, CookieAttributes, CookieRewrite, SameSite, is_attribute_value, is_cookie_value,
};

use super::build::{Problem, template};
use crate::message::fields::is_tchar;
use crate::template::{Escape, Scope, Template, Values};

/// Rules for the cookies of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CookieRules {
    set: Box<[(Box<[u8]>, Template)]>,
    remove: Box<[Box<[u8]>]>,
}

/// The names of all rules once each.
fn unique<'a>(names: impl Iterator<Item = (&'static str, &'a str)>) -> Result<(), Problem> {
    let mut seen: Vec<&str> = Vec::new();
    for (kind, name) in names {
        let place = || format!(".{kind}.{name}");
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return Err((place(), format!("`{name}` is no name of a cookie")));
        }
        if seen.contains(&name) {
            let problem = format!("`{name}` is changed by another rule already; keep one");
            return Err((place(), problem));
        }
        seen.push(name);
    }
    Ok(())
}

/// A template for the value of a cookie.
fn value(kind: &str, name: &str, text: &str, scope: &Scope) -> Result<Template, Problem> {
    let place = || format!(".{kind}.{name}");
    let value = template(text, scope).map_err(|problem| (place(), problem))?;
    match value.literal() {
        Some(text) if !is_cookie_value(text.as_bytes()) => {
            let problem = "a cookie's value has no spaces, quotes, commas, semicolons, backslashes \
                           or characters beyond ASCII; encode it";
            Err((place(), problem.into()))
        }
        _ => Ok(value),
    }
}

/// Appends `name=value`. Nothing where there is no value, or none that can be a cookie's: `Some(1)`
/// counts the latter.
fn put(name: &[u8], value: &Template, from: &dyn Values, out: &mut Vec<u8>) -> Result<(), u64> {
    let start = out.len();
    out.extend_from_slice(name);
    out.push(b'=');
    let begin = out.len();
    let rendered = value.text(from, Escape::None, out);
    let fits = out.get(begin..).is_some_and(is_cookie_value);
    if rendered.is_ok() && fits {
        return Ok(());
    }
    out.truncate(start);
    Err(u64::from(rendered.is_ok()))
}

impl CookieRules {
    pub(super) fn build(
        from: &snapshot::CookieRules,
        scope: &Scope,
    ) -> Result<CookieRules, Problem> {
        let set = from.set.iter().map(|(name, _)| ("set", name.as_str()));
        unique(set.chain(from.remove.iter().map(|name| ("remove", name.as_str()))))?;
        let set = from
            .set
            .iter()
            .map(|(name, text)| Ok((name.as_bytes().into(), value("set", name, text, scope)?)));
        let remove = from.remove.iter().map(|name| name.as_bytes().into()).collect();
        Ok(CookieRules { set: set.collect::<Result<_, Problem>>()?, remove })
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// The one line of cookies in place of `lines`, which may be empty. The number is that of values
    /// that cannot be a cookie's.
    pub fn render<'l>(
        &self,
        values: &dyn Values,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> (Vec<u8>, u64) {
        let mut unfit = 0;
        let mut new = Vec::new();
        let mut set: Vec<&[u8]> = Vec::new();
        for (name, value) in &self.set {
            let start = new.len();
            if start > 0 {
                new.extend_from_slice(b"; ");
            }
            match put(name, value, values, &mut new) {
                Ok(()) => set.push(name),
                Err(count) => {
                    unfit += count;
                    new.truncate(start);
                }
            }
        }
        let mut out = Vec::with_capacity(new.len() + 128);
        for pair in lines.flat_map(|line| line.split(|byte| *byte == b';')) {
            let pair = pair.trim_ascii();
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            let goes = self.remove.iter().any(|own| **own == *name) || set.contains(&name);
            if !pair.is_empty() && !goes {
                if !out.is_empty() {
                    out.extend_from_slice(b"; ");
                }
                out.extend_from_slice(pair);
            }
        }
        if !out.is_empty() && !new.is_empty() {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(&new);
        (out, unfit)
    }
}

/// Rules for the cookies that an answer sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerCookies {
    set: Box<[New]>,
    remove: Box<[Box<[u8]>]>,
    rewrite: Box<[CookieRewrite]>,
}

#[derive(Clone, Debug, PartialEq)]
struct New {
    name: Box<[u8]>,
    value: Template,
    /// What stands behind the value.
    attributes: Box<[u8]>,
}

impl AnswerCookies {
    pub(super) fn build(
        from: &snapshot::AnswerCookies,
        scope: &Scope,
    ) -> Result<AnswerCookies, Problem> {
        let set = from.set.iter().map(|cookie| ("set", cookie.name.as_str()));
        unique(set.chain(from.remove.iter().map(|name| ("remove", name.as_str()))))?;
        let mut new = Vec::with_capacity(from.set.len());
        for cookie in &from.set {
            let place = format!(".set.{}", cookie.name);
            sound(&cookie.attributes).map_err(|problem| (place.clone(), problem))?;
            suits_prefix(&cookie.name, &cookie.attributes).map_err(|problem| (place, problem))?;
            let mut attributes = Vec::new();
            write_attributes(&cookie.attributes, &mut attributes);
            new.push(New {
                name: cookie.name.as_bytes().into(),
                value: value("set", &cookie.name, &cookie.value, scope)?,
                attributes: attributes.into(),
            });
        }
        for (at, rewrite) in from.rewrite.iter().enumerate() {
            let place = || format!(".rewrite[{at}]");
            sound(&rewrite.attributes).map_err(|problem| (place(), problem))?;
            if rewrite.attributes == CookieAttributes::default() {
                return Err((place(), "changes nothing".into()));
            }
        }
        Ok(AnswerCookies {
            set: new.into(),
            remove: from.remove.iter().map(|name| name.as_bytes().into()).collect(),
            rewrite: from.rewrite.as_slice().into(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.rewrite.is_empty()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.set.iter().map(|new| &new.value)
    }

    /// The values of `Set-Cookie` fields that are set, with the number of those that cannot be.
    pub fn render(&self, values: &dyn Values) -> (Vec<Vec<u8>>, u64) {
        let mut unfit = 0;
        let mut fields = Vec::with_capacity(self.set.len());
        for new in &self.set {
            let mut field = Vec::with_capacity(64 + new.attributes.len());
            match put(&new.name, &new.value, values, &mut field) {
                Ok(()) => {
                    field.extend_from_slice(&new.attributes);
                    fields.push(field);
                }
                Err(count) => unfit += count,
            }
        }
        (fields, unfit)
    }

    /// What becomes of a `Set-Cookie` field of the upstream's. `set`: the fields that are set, whose names
    /// it may not have.
    pub fn pass<'v>(&self, value: &'v [u8], set: &[Vec<u8>]) -> Option<std::borrow::Cow<'v, [u8]>> {
        use std::borrow::Cow;
        let name = cookie_name(value);
        let goes = self.remove.iter().any(|own| **own == *name)
            || set.iter().any(|field| cookie_name(field) == name);
        if goes {
            return None;
        }
        let own = |rewrite: &&CookieRewrite| {
            rewrite.name.as_ref().is_none_or(|own| own.as_bytes() == name)
        };
        let mut passed = Cow::Borrowed(value);
        for rewrite in self.rewrite.iter().filter(own) {
            passed = Cow::Owned(rewritten(&passed, &rewrite.attributes));
        }
        Some(passed)
    }
}

fn cookie_name(value: &[u8]) -> &[u8] {
    let pair = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
    pair.get(..at).unwrap_or_default().trim_ascii()
}

/// The field's value with these attributes in place of its own.
fn rewritten(value: &[u8], new: &CookieAttributes) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 32);
    for (at, part) in value.split(|byte| *byte == b';').enumerate() {
        let part = part.trim_ascii();
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
        let replaced = at > 0
            && (part.is_empty()
                || (new.domain.is_some() && is("domain"))
                || (new.path.is_some() && is("path"))
                || (new.secure.is_some() && is("secure"))
                || (new.http_only.is_some() && is("httponly"))
                || (new.same_site.is_some() && is("samesite"))
                || (new.max_age_s.is_some() && (is("max-age") || is("expires"))));
        if !replaced {
            if at > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(part);
        }
    }
    write_attributes(new, &mut out);
    out
}

fn write_attributes(attributes: &CookieAttributes, out: &mut Vec<u8>) {
    let mut put = |name: &str, value: &str| {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
    };
    if let Some(domain) = attributes.domain.as_deref().filter(|text| !text.is_empty()) {
        put("Domain=", domain);
    }
    if let Some(path) = attributes.path.as_deref().filter(|text| !text.is_empty()) {
        put("Path=", path);
    }
    if let Some(age) = attributes.max_age_s {
        put("Max-Age=", &age.to_string());
    }
    if attributes.secure == Some(true) {
        put("Secure", "");
    }
    if attributes.http_only == Some(true) {
        put("HttpOnly", "");
    }
    match attributes.same_site {
        Some(SameSite::Strict) => put("SameSite=", "Strict"),
        Some(SameSite::Lax) => put("SameSite=", "Lax"),
        Some(SameSite::None) => put("SameSite=", "None"),
        None => {}
    }
}

fn sound(attributes: &CookieAttributes) -> Result<(), String> {
    for (name, text) in [("domain", &attributes.domain), ("path", &attributes.path)] {
        if text.as_ref().is_some_and(|text| !is_attribute_value(text)) {
            return Err(format!("its {name} has bytes that cannot stand there, such as `;`"));
        }
    }
    match (attributes.same_site, attributes.secure) {
        (Some(SameSite::None), Some(false)) => {
            Err("same_site: none needs secure: true, or browsers refuse the cookie".into())
        }
        _ => Ok(()),
    }
}

/// RFC 6265bis §4.1.3.
fn suits_prefix(name: &str, attributes: &CookieAttributes) -> Result<(), String> {
    let secure = attributes.secure == Some(true);
    let own = attributes.domain.is_none() && attributes.path.as_deref() == Some("/");
    let starts =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix));
    if starts("__Host-") && !(secure && own) {
        return Err("a cookie of this name needs secure: true, path: / and no domain".into());
    }
    if starts("__Secure-") && !secure {
        return Err("a cookie of this name needs secure: true".into());
    }
    if attributes.same_site == Some(SameSite::None) && !secure {
        return Err("same_site: none needs secure: true, or browsers refuse the cookie".into());
    }
    Ok(())
}
