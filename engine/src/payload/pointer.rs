//! Where in a document a rule is at work: JSON Pointers (RFC 6901), in which `*` stands for every item
//! of an array and every member of an object.

use super::json::{Json, Text};
use crate::limits;

/// A pointer. Empty: the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A member, or an item of an array if it is its index; `-` is behind the last item.
    Name(Box<str>),
    /// `*`
    Each,
}

impl Pointer {
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn parse(text: &str) -> Result<Pointer, String> {
        if text.is_empty() {
            return Ok(Pointer::default());
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a JSON Pointer begins with `/`, such as /user/name".into());
        };
        let segments = rest.split('/').map(|segment| match segment {
            "*" => Ok(Segment::Each),
            name => unescape(name).map(|name| Segment::Name(name.into())),
        });
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        match segments.len() <= limits::POINTER_SEGMENTS {
            true => Ok(Pointer(segments)),
            false => Err(format!("at most {} segments are allowed", limits::POINTER_SEGMENTS)),
        }
    }

    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to and with the last `*`, and what is behind it.
    pub fn split(&self) -> (&[Segment], &[Segment]) {
        let behind = self.0.iter().rposition(|one| *one == Segment::Each).map_or(0, |at| at + 1);
        self.0.split_at(behind)
    }
}

fn unescape(segment: &str) -> Result<String, String> {
    let mut out = String::with_capacity(segment.len());
    let mut chars = segment.chars();
    while let Some(c) = chars.next() {
        match (c, c == '~') {
            (_, false) => out.push(c),
            _ => match chars.next() {
                Some('0') => out.push('~'),
                Some('1') => out.push('/'),
                _ => {
                    return Err(
                        "`~` is followed by 0 (for ~) or 1 (for /) in a JSON Pointer".into()
                    );
                }
            },
        }
    }
    Ok(out)
}

/// The index that a segment is in an array (RFC 6901 §4: without leading zeros).
pub fn index(name: &str) -> Option<usize> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (name == "0" || !name.starts_with('0'))).then(|| name.parse().ok()).flatten()
}

impl<'a> Json<'a> {
    /// What a pointer without `*` points at.
    pub fn at(&self, segments: &[Segment]) -> Option<&Json<'a>> {
        segments.iter().try_fold(self, |value, segment| match (value, segment) {
            (Json::Array(items), Segment::Name(name)) => items.get(index(name)?),
            (value, Segment::Name(name)) => value.member(name),
            (_, Segment::Each) => None,
        })
    }

    /// Calls `work` with everything that the segments point at.
    pub fn each(&mut self, segments: &[Segment], work: &mut dyn FnMut(&mut Json<'a>)) {
        let Some((first, rest)) = segments.split_first() else { return work(self) };
        match (self, first) {
            (Json::Array(items), Segment::Each) => {
                items.iter_mut().for_each(|item| item.each(rest, work));
            }
            (Json::Object(members), Segment::Each) => {
                members.iter_mut().for_each(|(_, value)| value.each(rest, work));
            }
            (value, Segment::Name(name)) => {
                if let Some(child) = value.child(name) {
                    child.each(rest, work);
                }
            }
            _ => {}
        }
    }

    fn child(&mut self, name: &str) -> Option<&mut Json<'a>> {
        match self {
            Json::Array(items) => items.get_mut(index(name)?),
            value => value.member_mut(name),
        }
    }

    /// Takes out what a pointer without `*` points at. Not the whole.
    pub fn take(&mut self, segments: &[Segment]) -> Option<Json<'a>> {
        let (last, before) = segments.split_last()?;
        let Segment::Name(name) = last else { return None };
        let mut parent = self;
        for segment in before {
            let Segment::Name(name) = segment else { return None };
            parent = parent.child(name)?;
        }
        match parent {
            Json::Array(items) => {
                let at = index(name).filter(|at| *at < items.len())?;
                Some(items.remove(at))
            }
            Json::Object(members) => {
                let at = members.iter().position(|(own, _)| own.is(name))?;
                Some(members.remove(at).1)
            }
            _ => None,
        }
    }

    /// Puts a value where a pointer without `*` points, as `add` of RFC 6902 does: it takes the place of a
    /// member and goes before an item. Objects that are missing on the way are made; what cannot have
    /// children is left as it is. Whether it was put anywhere.
    pub fn put(&mut self, segments: &[Segment], value: Json<'a>) -> bool {
        let Some((first, rest)) = segments.split_first() else {
            *self = value;
            return true;
        };
        let Segment::Name(name) = first else { return false };
        match self {
            Json::Array(items) => match (index(name), rest) {
                (Some(at), []) if at <= items.len() => items.insert(at, value),
                (None, []) if &**name == "-" => items.push(value),
                (Some(at), rest) => {
                    return items.get_mut(at).is_some_and(|item| item.put(rest, value));
                }
                _ => return false,
            },
            Json::Object(members) => {
                let at = members.iter().position(|(own, _)| own.is(name));
                match at {
                    Some(at) => return members[at].1.put(rest, value),
                    None => {
                        let mut made = match rest {
                            [] => Json::Null,
                            _ => Json::Object(Vec::new()),
                        };
                        // Nothing half made stays.
                        if !made.put(rest, value) {
                            return false;
                        }
                        members.push((Text::new(name), made));
                    }
                }
            }
            _ => return false,
        }
        true
    }
}
