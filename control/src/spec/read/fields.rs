//! Reading the fields of one map.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use contract::encode::{
    MAX_AUTHENTICATORS, MAX_CONSUMERS, MAX_ENTRIES, MAX_LIMITS, MAX_LISTENERS, MAX_NETWORKS,
    MAX_REDIS, MAX_ROUTES, MAX_TARGETS, MAX_UPSTREAMS,
};

use super::{Mark, Places};
use crate::spec::problem::{Problems, Severity};
use crate::spec::tree::{Node, Value};

/// What a walk writes to.
pub struct Walk<'p> {
    pub problems: &'p mut Problems,
    pub places: Places,
}

impl Walk<'_> {
    pub fn error(&mut self, code: &'static str, node: &Node, path: &str, message: String) {
        let value = node.excerpt();
        self.problems.error(code, node.mark, path, value.as_deref(), message);
    }

    pub fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let found = match node.excerpt() {
            Some(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
            None => node.kind().into(),
        };
        self.error("wrong-type", node, path, format!("expected {expected}, found {found}"));
    }

    pub fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        self.places.set(path, node.mark);
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                let written = node.excerpt().unwrap_or_default();
                self.wrong_type(node, path, &format!("text (write \"{written}\", in quotes)"));
                None
            }
            _ => {
                self.wrong_type(node, path, "text");
                None
            }
        }
    }

    /// Text that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        node: &Node,
        path: &str,
        code: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(node, path)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(code, node, path, message);
                None
            }
        }
    }

    pub fn number<T: TryFrom<u64>>(
        &mut self,
        node: &Node,
        path: &str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        self.places.set(path, node.mark);
        let (low, high) = range.into_inner();
        let Value::Integer(number) = node.value else {
            self.wrong_type(node, path, &format!("a whole number from {low} to {high}"));
            return None;
        };
        let fits = u64::try_from(number).ok().filter(|n| (low..=high).contains(n));
        let value = fits.and_then(|number| T::try_from(number).ok());
        if value.is_none() {
            let message = format!("{number} is out of range; expected {low} to {high}");
            self.error("out-of-range", node, path, message);
        }
        value
    }

    /// A number with at most `digits` decimals, in units of the last of them.
    pub fn decimal(
        &mut self,
        node: &Node,
        path: &str,
        digits: u32,
        range: RangeInclusive<u16>,
        expected: &str,
    ) -> Option<u16> {
        self.places.set(path, node.mark);
        let number = match &node.value {
            Value::Integer(number) => *number as f64,
            // Infinite when it is no number that Rust knows, as `.inf` is not.
            Value::Float(text) => text.parse().unwrap_or(f64::INFINITY),
            _ => {
                self.wrong_type(node, path, expected);
                return None;
            }
        };
        let parts = number * 10_f64.powi(digits as i32);
        let whole = parts.round();
        let fits = (f64::from(*range.start())..=f64::from(*range.end())).contains(&whole);
        if !fits {
            let written = node.excerpt().unwrap_or_default();
            let message = format!("{written} is out of range; expected {expected}");
            self.error("out-of-range", node, path, message);
            return None;
        }
        // What two numbers of this size differ by when they are written differently is far more.
        if (parts - whole).abs() > 1e-6 {
            let message = format!("at most {digits} decimals are taken; expected {expected}");
            self.error("out-of-range", node, path, message);
            return None;
        }
        Some(whole as u16)
    }

    pub fn flag(&mut self, node: &Node, path: &str) -> Option<bool> {
        self.places.set(path, node.mark);
        match &node.value {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong_type(node, path, "true or false");
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)]) -> Option<T> {
        self.places.set(path, node.mark);
        let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let Value::Text(text) = &node.value else {
            self.wrong_type(node, path, &format!("one of: {}", list()));
            return None;
        };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            let hint = nearest(text, words.iter().map(|(word, _)| *word));
            let message = match hint {
                Some(word) => format!("`{text}` is not known; did you mean `{word}`?"),
                None => format!("`{text}` is not known."),
            };
            self.error("bad-value", node, path, format!("{message} Expected one of: {}", list()));
        }
        found
    }

    /// Each element of a list, read by `read`; what cannot be read is left out.
    pub fn list<T>(
        &mut self,
        node: &Node,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.places.set(path, node.mark);
        match &node.value {
            Value::List(items) => {
                let (count, most) = (items.len(), most(path));
                if count > most {
                    let message = format!("this has {count} entries; expected at most {most}");
                    self.problems.error("too-many", node.mark, path, None, message);
                }
                let items = items.iter().enumerate();
                Some(
                    items
                        .filter_map(|(at, item)| read(self, item, &format!("{path}[{at}]")))
                        .collect(),
                )
            }
            Value::Text(text) if !text.contains('\n') => {
                self.wrong_type(node, path, &format!("a list (write [\"{text}\"])"));
                None
            }
            _ => {
                self.wrong_type(node, path, "a list");
                None
            }
        }
    }

    /// Opens a map and reports what is not in `known` and what is there twice.
    pub fn fields<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        known: &'static [&'static str],
    ) -> Option<Fields<'n>> {
        self.places.set(path, node.mark);
        let Value::Map(entries) = &node.value else {
            let expected = match known {
                [] => "an empty map, {}".into(),
                known => format!("a map with {}", known.join(", ")),
            };
            self.wrong_type(node, path, &expected);
            return None;
        };
        let mut fields = Fields {
            mark: node.mark,
            path: path.into(),
            values: HashMap::new(),
            misspelt: Vec::new(),
        };
        let mut first: HashMap<&str, Mark> = HashMap::new();
        for entry in entries {
            let field = fields.at(&entry.key);
            if let Some(mark) = first.insert(&entry.key, entry.key_mark) {
                first.insert(&entry.key, mark);
                self.problems.add(
                    Severity::Error,
                    "duplicate-key",
                    entry.key_mark,
                    &field,
                    Some(&entry.key),
                    format!("`{}` is there twice; keep one", entry.key),
                    Some(mark),
                );
            } else if let Some(name) = known.iter().find(|name| **name == entry.key) {
                self.places.set(&field, entry.key_mark);
                if !matches!(entry.value.value, Value::Null) {
                    fields.values.insert(name, &entry.value);
                }
            } else {
                let meant = nearest(&entry.key, known.iter().copied());
                fields.misspelt.extend(meant);
                self.unknown(&entry.key, entry.key_mark, &field, known, meant);
            }
        }
        Some(fields)
    }

    fn unknown(&mut self, key: &str, mark: Mark, field: &str, known: &[&str], meant: Option<&str>) {
        let short: String = key.chars().take(60).collect();
        let message = match meant {
            _ if key == "<<" => "merge keys are not supported; use an alias for a whole value \
                                 (`timeouts: *name`)"
                .into(),
            Some(name) => format!("`{short}` is not a field here; did you mean `{name}`?"),
            None if known.is_empty() => format!("`{short}` is not a field here; expected none"),
            None => format!("`{short}` is not a field here; expected {}", known.join(", ")),
        };
        self.problems.error("unknown-field", mark, field, Some(key), message);
    }
}

/// The fields of one map that are known and not null.
pub struct Fields<'n> {
    pub mark: Mark,
    pub path: String,
    values: HashMap<&'static str, &'n Node>,
    /// Fields that an unknown one probably meant.
    misspelt: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The path of a field in this map.
    pub fn at(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.into(),
            path => format!("{path}.{name}"),
        }
    }

    pub fn node(&self, name: &str) -> Option<&'n Node> {
        self.values.get(name).copied()
    }

    /// Whether an unknown field probably meant this one.
    pub fn is_misspelt(&self, name: &str) -> bool {
        self.misspelt.contains(&name)
    }

    /// A field that may be absent; `None` when it is absent or wrong.
    pub fn read<T>(
        &self,
        walk: &mut Walk<'_>,
        name: &str,
        read: impl FnOnce(&mut Walk<'_>, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        read(walk, self.node(name)?, &self.at(name))
    }

    /// A field that must be there.
    pub fn require<T>(
        &self,
        walk: &mut Walk<'_>,
        name: &str,
        expected: &str,
        read: impl FnOnce(&mut Walk<'_>, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        if self.is_misspelt(name) {
            // One slip gives one message.
            walk.problems.mark_broken(&self.at(name));
        } else if self.node(name).is_none() {
            let message = format!("`{name}` is missing; expected {expected}");
            walk.problems.error("missing-field", self.mark, &self.at(name), None, message);
        }
        self.read(walk, name, read)
    }
}

/// Most entries of the list at this path that a snapshot can have. Groups come into it as parts of
/// consumers only.
fn most(path: &str) -> usize {
    match path.rsplit('.').next() {
        Some("listeners") => MAX_LISTENERS,
        Some("upstreams") if path == "upstreams" => MAX_UPSTREAMS,
        Some("routes") => MAX_ROUTES,
        Some("consumers") => MAX_CONSUMERS,
        Some("authenticators") => MAX_AUTHENTICATORS,
        Some("groups") if path == "groups" => usize::MAX,
        Some("limits") if path == "limits" => MAX_LIMITS,
        Some("targets") => MAX_TARGETS,
        Some("allow" | "deny") => MAX_NETWORKS,
        Some("urls") => MAX_REDIS,
        _ => MAX_ENTRIES,
    }
}

/// The word that was probably meant.
pub fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // A name of any length is never near a word of the format; spare the quadratic work.
    if text.len() > 100 {
        return None;
    }
    let folded = text.to_lowercase().replace('-', "_");
    words
        .map(|word| (strsim::damerau_levenshtein(&folded, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
