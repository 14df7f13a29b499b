//! Rules for the parameters of a query.

use contract::snapshot::NameRules;

use super::build::{Problem, template};
use super::fields::{changes, place};
use crate::auth::credentials::decoded;
use crate::template::{Escape, Scope, Template, Values, write_query};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryRules {
    rename: Box<[(Name, Name)]>,
    copy: Box<[(Name, Name)]>,
    remove: Box<[Name]>,
    set: Box<[(Name, Template)]>,
    add: Box<[(Name, Template)]>,
}

#[derive(Clone, Debug, PartialEq)]
struct Name {
    plain: Box<[u8]>,
    encoded: Box<[u8]>,
}

impl Name {
    fn new(text: &str) -> Name {
        Name { plain: text.as_bytes().into(), encoded: encoded(text).into_bytes().into() }
    }

    fn is(&self, raw: &[u8]) -> bool {
        *raw == *self.encoded || *decoded(raw) == *self.plain
    }
}

fn encoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    write_query(text.as_bytes(), &mut out);
    // ASCII by now.
    String::from_utf8_lossy(&out).into_owned()
}

impl QueryRules {
    pub(super) fn build(from: &NameRules, scope: &Scope) -> Result<QueryRules, Problem> {
        let mut changed: Vec<&str> = Vec::new();
        for (kind, names) in changes(from) {
            for name in names {
                if name.is_empty() {
                    return Err((format!(".{kind}"), "a parameter has a name".into()));
                }
                if changed.contains(&name) {
                    let problem = format!("`{name}` is changed by another rule already; keep one");
                    return Err((place(kind, name), problem));
                }
                changed.push(name);
            }
        }
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(from, to)| (Name::new(from), Name::new(to))).collect()
        };
        let templates = |kind: &str, pairs: &[(String, String)]| {
            let compile = |(name, text): &(String, String)| {
                let value =
                    template(text, scope).map_err(|problem| (place(kind, name), problem))?;
                Ok((Name::new(name), value.map_literals(encoded)))
            };
            pairs.iter().map(compile).collect::<Result<Box<[_]>, Problem>>()
        };
        Ok(QueryRules {
            rename: pairs(&from.rename),
            copy: pairs(&from.copy),
            remove: from.remove.iter().map(|name| Name::new(name)).collect(),
            set: templates("set", &from.set)?,
            add: templates("add", &from.add)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.rename.is_empty()
            && self.copy.is_empty()
            && self.remove.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
    }

    /// The query in place of `old`. A rule whose value is missing is skipped.
    pub fn render(&self, values: &dyn Values, old: Option<&[u8]>) -> Vec<u8> {
        let old = old.unwrap_or_default();
        let mut out = Vec::with_capacity(old.len() + 64);
        let mut new = Vec::new();
        // What is set is known before anything of its name goes.
        let mut put = |rules: &[(Name, Template)], which: &mut u64| {
            for (at, (name, template)) in rules.iter().enumerate() {
                let start = new.len();
                new.push(b'&');
                new.extend_from_slice(&name.encoded);
                new.push(b'=');
                let text = match template.literal() {
                    Some(text) => {
                        new.extend_from_slice(text.as_bytes());
                        true
                    }
                    None => {
                        let begin = new.len();
                        let whole = template.text(values, Escape::Query, &mut new).is_ok();
                        whole && new.len() > begin
                    }
                };
                match text {
                    true => *which |= 1 << (at & 63),
                    false => new.truncate(start),
                }
            }
        };
        let (mut set, mut added) = (0, 0);
        put(&self.set, &mut set);
        put(&self.add, &mut added);
        let there = |name: &Name| pairs(old).any(|(raw, _)| name.is(raw));
        let moved = |list: &[(Name, Name)]| -> u64 {
            let found = list.iter().enumerate().filter(|(_, (from, _))| there(from));
            found.fold(0, |bits, (at, _)| bits | 1 << (at & 63))
        };
        let (renamed, copied) = (moved(&self.rename), moved(&self.copy));
        let bit = |bits: u64, at: usize| bits >> (at & 63) & 1 != 0;
        for (raw, value) in pairs(old) {
            let mut stays = !self.remove.iter().any(|name| name.is(raw));
            let sets = self.set.iter().enumerate();
            stays &= !sets.into_iter().any(|(at, (name, _))| bit(set, at) && name.is(raw));
            for (list, bits, copies) in [(&self.rename, renamed, false), (&self.copy, copied, true)]
            {
                for (at, (from, to)) in list.iter().enumerate() {
                    if !bit(bits, at) {
                        continue;
                    }
                    if from.is(raw) {
                        stays &= copies;
                        push(&mut out, &to.encoded, value);
                    } else {
                        stays &= !to.is(raw);
                    }
                }
            }
            if stays {
                push(&mut out, raw, value);
            }
        }
        let new = if out.is_empty() { new.get(1..).unwrap_or_default() } else { &new };
        out.extend_from_slice(new);
        out
    }
}

/// The pairs of a query: name and what is behind it, with its `=`.
fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_at(memchr::memchr(b'=', pair).unwrap_or(pair.len())))
}

fn push(out: &mut Vec<u8>, name: &[u8], rest: &[u8]) {
    if !out.is_empty() {
        out.push(b'&');
    }
    out.extend_from_slice(name);
    out.extend_from_slice(rest);
}
