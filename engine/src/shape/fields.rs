//! Rules for the fields of a head: compiled with the route, judged once per message, applied as the head
//! is written.

use contract::snapshot::{NameRules, fixed_field};
use smallvec::SmallVec;

use super::build::{Problem, template};
use crate::answer::Edit;
use crate::message::fields::{Field, is_tchar};
use crate::message::{HeadWriter, Name};
use crate::template::{Escape, FieldName, Scope, Template, Values, is_field_value};

/// Most rules for the fields of one head: each has a bit in [`Judged`].
pub const MAX_RULES: usize = 64;

/// What is changed of a head's fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldRules {
    /// At most [`MAX_RULES`].
    rules: Box<[Rule]>,
    /// Which known names they are about, as bits by number.
    known: u128,
    /// How long the other names are that they are about; 63 is as long or longer.
    lengths: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// Of the field that it looks at (rename, copy), or that it is about.
    name: FieldName,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Rename(FieldName),
    Copy(FieldName),
    Remove,
    Set(Template),
    Add(Template),
}

/// Which rules hold for a message, and the values that they have for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// By the number of the rule.
    holds: u64,
    /// Rendered values, one behind the other, and where each ends.
    text: Vec<u8>,
    ends: SmallVec<[u32; 6]>,
}

impl FieldRules {
    /// # Errors
    /// The field of the rule that cannot be, and why.
    pub(super) fn build(
        from: &NameRules,
        scope: &Scope,
        of_answer: bool,
    ) -> Result<FieldRules, Problem> {
        let mut rules = Vec::new();
        let mut changed: Vec<&str> = Vec::new();
        let name = |kind: &str, key: &str, name: &str| {
            if name.is_empty() || !name.bytes().all(is_tchar) {
                return Err((place(kind, key), format!("`{name}` is no name of a header field")));
            }
            match fixed_field(&name.to_ascii_lowercase(), of_answer) {
                Some(why) => {
                    Err((place(kind, key), format!("`{name}` is not changed here: {why}")))
                }
                None => Ok(FieldName::new(name)),
            }
        };
        for (kind, pairs) in [("rename", &from.rename), ("copy", &from.copy)] {
            for (source, target) in pairs {
                let (source, target) = (name(kind, source, source)?, name(kind, source, target)?);
                let what = match kind {
                    "rename" => What::Rename(target),
                    _ => What::Copy(target),
                };
                rules.push(Rule { name: source, what });
            }
        }
        for field in &from.remove {
            rules.push(Rule { name: name("remove", field, field)?, what: What::Remove });
        }
        for (kind, pairs) in [("set", &from.set), ("add", &from.add)] {
            for (field, text) in pairs {
                let value =
                    template(text, scope).map_err(|problem| (place(kind, field), problem))?;
                if value.literal().is_some_and(|text| !is_plain(text)) {
                    let problem = "a value has no line ends, no other control characters and no \
                                   space around it";
                    return Err((place(kind, field), problem.into()));
                }
                let what = if kind == "set" { What::Set(value) } else { What::Add(value) };
                rules.push(Rule { name: name(kind, field, field)?, what });
            }
        }
        if rules.len() > MAX_RULES {
            return Err((String::new(), format!("more than {MAX_RULES} rules for fields")));
        }
        for (kind, names) in changes(from) {
            for name in names {
                if changed.contains(&name) {
                    let problem = format!("`{name}` is changed by another rule already; keep one");
                    return Err((place(kind, name), problem));
                }
                changed.push(name);
            }
        }
        let (mut known, mut lengths) = (0, 0);
        for name in rules.iter().flat_map(Rule::names) {
            match name.id {
                Name::Other => lengths |= 1 << name.text.len().min(63),
                id => known |= 1 << id as u8,
            }
        }
        Ok(FieldRules { rules: rules.into(), known, lengths })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The names that they change, lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let changed = |rule: &Rule, name: &FieldName| {
            !matches!(rule.what, What::Copy(_)) || *name == *rule.target()
        };
        let all = self.rules.iter().flat_map(|rule| rule.names().map(move |name| (rule, name)));
        all.filter(move |(rule, name)| changed(rule, name)).map(|(_, name)| &*name.text)
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.rules.iter().filter_map(|rule| match &rule.what {
            What::Set(template) | What::Add(template) => Some(template),
            _ => None,
        })
    }

    /// Judges a head of these fields. `taken`: names that are not to be touched after all. The number
    /// is that of values that could not stand in a field.
    pub fn judge(
        &self,
        from: &dyn Values,
        fields: &[Field],
        bytes: &[u8],
        taken: impl Fn(&[u8]) -> bool,
        judged: &mut Judged,
    ) -> u64 {
        let mut unfit = 0;
        for (at, rule) in self.rules.iter().enumerate() {
            let holds = !taken(rule.target().text.as_bytes())
                && match &rule.what {
                    What::Remove => true,
                    What::Rename(_) | What::Copy(_) => {
                        fields.iter().any(|field| rule.name.is(field, bytes) && field.forwarded())
                    }
                    What::Set(template) | What::Add(template) if template.literal().is_some() => {
                        true
                    }
                    What::Set(template) | What::Add(template) => {
                        match template.text(from, Escape::Header, &mut judged.text) {
                            Ok(()) => judged.end(),
                            Err(missing) => {
                                unfit += u64::from(missing.unfit);
                                false
                            }
                        }
                    }
                };
            judged.holds |= u64::from(holds) << at;
        }
        unfit
    }

    /// Whether a field goes on as it is. Otherwise `out` has what goes on of it. `except`: a name that is
    /// not written.
    #[inline]
    pub fn pass(
        &self,
        judged: &Judged,
        field: &Field,
        bytes: &[u8],
        except: Option<Name>,
        out: &mut HeadWriter<'_>,
    ) -> bool {
        let concerned = match field.id {
            Name::Other => self.lengths >> field.name.len().min(63) & 1 != 0,
            id => self.known >> id as u8 & 1 != 0,
        };
        !concerned || self.pass_slowly(judged, field, bytes, except, out)
    }

    fn pass_slowly(
        &self,
        judged: &Judged,
        field: &Field,
        bytes: &[u8],
        except: Option<Name>,
        out: &mut HeadWriter<'_>,
    ) -> bool {
        let mut stays = true;
        for (at, rule) in self.rules.iter().enumerate() {
            if judged.holds >> at & 1 == 0 {
                continue;
            }
            match &rule.what {
                What::Remove | What::Set(_) => stays &= !rule.name.is(field, bytes),
                What::Add(_) => {}
                What::Rename(to) | What::Copy(to) => {
                    if rule.name.is(field, bytes) {
                        stays &= matches!(rule.what, What::Copy(_));
                        if field.forwarded() && except != Some(to.id) {
                            out.field(to.text.as_bytes(), field.value.of(bytes));
                        }
                    } else {
                        stays &= !to.is(field, bytes);
                    }
                }
            }
        }
        stays
    }

    /// Whether a rule that holds puts something else in place of the fields of that name.
    pub fn replaces(&self, judged: &Judged, name: &[u8]) -> bool {
        self.rules.iter().enumerate().any(|(at, rule)| {
            judged.holds >> at & 1 != 0
                && matches!(rule.what, What::Set(_) | What::Remove)
                && name.eq_ignore_ascii_case(rule.name.text.as_bytes())
        })
    }

    /// Writes what is set and added. `except`: a name that is not written.
    pub fn finish(&self, edit: &Edit, except: Option<Name>, out: &mut HeadWriter<'_>) {
        let judged = &edit.judged;
        let mut values = judged.values();
        for (at, rule) in self.rules.iter().enumerate() {
            if judged.holds >> at & 1 == 0 {
                continue;
            }
            let (What::Set(template) | What::Add(template)) = &rule.what else { continue };
            let value = match template.literal() {
                Some(text) => text.as_bytes(),
                None => values.next().unwrap_or_default(),
            };
            if except != Some(rule.name.id) && !edit.drops(rule.name.text.as_bytes()) {
                out.field(rule.name.text.as_bytes(), value);
            }
        }
    }
}

impl Judged {
    /// Takes what was rendered last; a value that is empty is none.
    fn end(&mut self) -> bool {
        let start = self.ends.last().map_or(0, |end| *end as usize);
        // RFC 9110 §5.5: no value begins or ends with a space.
        let trimmed = self.text.get(start..).unwrap_or_default().trim_ascii();
        let (lead, length) = match self.text.get(start..) {
            Some(all) => (all.len() - all.trim_ascii_start().len(), trimmed.len()),
            None => (0, 0),
        };
        if lead > 0 {
            self.text.drain(start..start + lead);
        }
        self.text.truncate(start + length);
        if length > 0 {
            self.ends.push(self.text.len() as u32);
        }
        length > 0
    }

    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let value = self.text.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            value
        })
    }

    /// Nothing of the head is changed.
    pub fn is_idle(&self) -> bool {
        self.holds == 0
    }
}

impl Rule {
    fn names(&self) -> impl Iterator<Item = &FieldName> {
        let to = match &self.what {
            What::Rename(to) | What::Copy(to) => Some(to),
            _ => None,
        };
        [Some(&self.name), to].into_iter().flatten()
    }

    /// The name that it changes.
    fn target(&self) -> &FieldName {
        match &self.what {
            What::Rename(to) | What::Copy(to) => to,
            _ => &self.name,
        }
    }
}

impl FieldName {
    /// Whether that is the field's name.
    #[inline]
    pub fn is(&self, field: &Field, bytes: &[u8]) -> bool {
        field.id == self.id
            && (self.id != Name::Other
                || field.name.of(bytes).eq_ignore_ascii_case(self.text.as_bytes()))
    }
}

/// The names that rules change, by kind.
pub(super) fn changes(rules: &NameRules) -> [(&'static str, Vec<&str>); 5] {
    let renamed = [sources(&rules.rename), targets(&rules.rename)].concat();
    [
        ("rename", renamed),
        ("copy", targets(&rules.copy)),
        ("remove", rules.remove.iter().map(String::as_str).collect()),
        ("set", sources(&rules.set)),
        // Several values may be added.
        ("add", Vec::new()),
    ]
}

fn sources(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(from, _)| from.as_str()).collect()
}

fn targets(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(_, to)| to.as_str()).collect()
}

/// Where a rule stands.
pub(super) fn place(kind: &str, key: &str) -> String {
    format!(".{kind}.{key}")
}

/// Whether an operator's text can be a field's value.
pub(super) fn is_plain(text: &str) -> bool {
    is_field_value(text.as_bytes()) && text.trim_ascii().len() == text.len()
}
