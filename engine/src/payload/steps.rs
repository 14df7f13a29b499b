//! The operations of a rule, one after the other. One whose place is not there does nothing: a body that has
//! no `password` needs none removed.

use super::json::Json;
use super::pointer::{Pointer, Segment};
use super::project::{self, Tree};
use super::template::{From, Known, Made};
use crate::limits;
use crate::template::Reference;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Puts a value: in place of a member, before an item, `-` behind the last one. Objects that are missing
    /// on the way are made.
    Add {
        at: Pointer,
        value: Made,
    },
    /// Puts a value in place of one that is there.
    Replace {
        at: Pointer,
        value: Made,
    },
    Remove {
        at: Pointer,
    },
    /// `*` in both stands for the same.
    Move {
        from: Pointer,
        to: Pointer,
    },
    Copy {
        from: Pointer,
        to: Pointer,
    },
    /// Gives a member another name, at its place.
    Rename {
        at: Pointer,
        name: Box<str>,
    },
    Allow(Tree),
    Deny(Tree),
    /// Makes the body the only member of an object.
    Wrap(Box<str>),
    /// Puts what is there in place of the whole body.
    Unwrap(Pointer),
    /// Adds members that are not there, in objects in objects, too.
    Defaults(Made),
    /// Puts a value in place of the whole body.
    Template(Made),
}

/// The operations have made too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// Whether two pointers that work together name the same things by their `*`.
pub fn go_together(from: &Pointer, to: &Pointer) -> bool {
    from.split().0 == to.split().0
}

/// Whether `to` is `from`, or within it.
pub fn is_within(from: &Pointer, to: &Pointer) -> bool {
    to.segments().starts_with(from.segments())
}

impl Step {
    /// What its templates ask for, the body left out.
    pub fn asks(&self, list: &mut Vec<Reference>) {
        match self {
            Step::Add { value, .. }
            | Step::Replace { value, .. }
            | Step::Defaults(value)
            | Step::Template(value) => value.asks(list),
            _ => {}
        }
    }

    /// # Errors
    /// More than `left` bytes would be added; `left` is what is left of them.
    pub fn apply<'a>(
        &'a self,
        body: &mut Json<'a>,
        known: &Known,
        left: &mut usize,
    ) -> Result<(), TooMuch> {
        let mut spend = |value: &Json<'_>| {
            *left = left.checked_sub(value.weight()).ok_or(TooMuch)?;
            Ok::<(), TooMuch>(())
        };
        match self {
            Step::Add { at, value } => {
                let Some(value) = value.render(&From { known, body }) else { return Ok(()) };
                let (before, behind) = at.split();
                let mut enough = Ok(());
                body.each(before, &mut |place| {
                    if enough.is_ok() {
                        enough = spend(&value);
                    }
                    if enough.is_ok() {
                        place.put(behind, value.clone());
                    }
                });
                enough
            }
            Step::Replace { at, value } => {
                let Some(value) = value.render(&From { known, body }) else { return Ok(()) };
                let mut enough = Ok(());
                body.each(at.segments(), &mut |place| {
                    if enough.is_ok() {
                        enough = spend(&value);
                    }
                    if enough.is_ok() {
                        *place = value.clone();
                    }
                });
                enough
            }
            Step::Remove { at } => {
                remove(body, at.segments());
                Ok(())
            }
            Step::Move { from, to } => {
                let (before, (from, to)) = (from.split().0, (from.split().1, to.split().1));
                body.each(before, &mut |place| {
                    // Back where it was, almost, if there is no such place.
                    if let Some(value) = place.take(from)
                        && !place.put(to, value.clone())
                    {
                        place.put(from, value);
                    }
                });
                Ok(())
            }
            Step::Copy { from, to } => {
                let (before, (from, to)) = (from.split().0, (from.split().1, to.split().1));
                let mut enough = Ok(());
                body.each(before, &mut |place| {
                    let Some(value) = place.at(from) else { return };
                    if enough.is_ok() {
                        enough = spend(value);
                    }
                    if enough.is_ok() {
                        let value = value.clone();
                        place.put(to, value);
                    }
                });
                enough
            }
            Step::Rename { at, name } => {
                if let Some((last, before)) = at.segments().split_last() {
                    body.each(before, &mut |place| rename(place, last, name));
                }
                Ok(())
            }
            Step::Allow(tree) => {
                project::allow(body, tree);
                Ok(())
            }
            Step::Deny(tree) => {
                project::deny(body, tree);
                Ok(())
            }
            Step::Wrap(name) => {
                let inner = std::mem::take(body);
                *body = Json::Object(Vec::new());
                body.set_member(name, inner);
                Ok(())
            }
            Step::Unwrap(at) => {
                if let Some(value) = body.take(at.segments()) {
                    *body = value;
                }
                Ok(())
            }
            Step::Defaults(value) => {
                let Some(value) = value.render(&From { known, body }) else { return Ok(()) };
                spend(&value)?;
                merge(body, value);
                Ok(())
            }
            Step::Template(value) => {
                let value = value.render(&From { known, body }).unwrap_or_default();
                spend(&value)?;
                *body = value;
                Ok(())
            }
        }
    }
}

fn remove(value: &mut Json<'_>, segments: &[Segment]) {
    let Some((last, before)) = segments.split_last() else { return };
    value.each(before, &mut |place| match (last, place) {
        (Segment::Each, Json::Array(items)) => items.clear(),
        (Segment::Each, Json::Object(members)) => members.clear(),
        (Segment::Name(_), place) => drop(place.take(std::slice::from_ref(last))),
        _ => {}
    });
}

fn rename(place: &mut Json<'_>, old: &Segment, name: &str) {
    let (Json::Object(members), Segment::Name(old)) = (place, old) else { return };
    if **old == *name || !members.iter().any(|(own, _)| own.is(old)) {
        return;
    }
    members.retain(|(own, _)| !own.is(name));
    if let Some((own, _)) = members.iter_mut().find(|(own, _)| own.is(old)) {
        *own = super::json::Text::new(name);
    }
}

/// Adds what is not there.
fn merge<'a>(body: &mut Json<'a>, defaults: Json<'a>) {
    let Json::Object(defaults) = defaults else { return };
    for (name, value) in defaults {
        let decoded = name.decoded().into_owned();
        match body.member_mut(&decoded) {
            Some(own) => merge(own, value),
            None => body.set_member(&decoded, value),
        }
    }
}

/// Applies steps in their order.
///
/// # Errors
/// They add more than [`limits::PAYLOAD_ADDED`].
pub fn apply<'a>(steps: &'a [Step], body: &mut Json<'a>, known: &Known) -> Result<(), TooMuch> {
    let mut left = limits::PAYLOAD_ADDED;
    steps.iter().try_for_each(|step| step.apply(body, known, &mut left))
}

#[cfg(test)]
mod tests;
