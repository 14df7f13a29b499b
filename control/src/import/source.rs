//! Reading a YAML or JSON document that is no spec, with the lines of everything.

use std::rc::Rc;

use super::Place;
use crate::spec::{Problems, Tree, TreeValue, tree};
use crate::yaml::{Map, Yaml};

/// A value in the document, or the absence of one: asking it for more gives more absence.
#[derive(Clone, Copy)]
pub struct View<'d> {
    file: &'d str,
    node: Option<&'d Tree>,
}

/// Parses `text`.
///
/// # Errors
/// It is no YAML, with line and column.
pub fn parse(file: &str, text: &str) -> Result<Rc<Tree>, String> {
    let mut problems = Problems::new(file);
    let root = tree(text, &mut problems);
    root.ok_or_else(|| {
        let problem = problems.finish().into_iter().next();
        problem.map_or_else(|| format!("{file} is empty"), |one| one.to_string())
    })
}

impl<'d> View<'d> {
    pub fn new(file: &'d str, root: &'d Tree) -> View<'d> {
        View { file, node: Some(root) }
    }

    pub fn place(&self) -> Place {
        let line = self.node.map_or(1, |node| node.mark.line);
        Place { file: self.file.into(), line }
    }

    /// There is something, and it is not null.
    pub fn is_some(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.value, TreeValue::Null))
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.map(|node| &node.value), Some(TreeValue::Map(_)))
    }

    /// The value of a field. Of two with one name the last counts, as most parsers have it.
    pub fn get(&self, key: &str) -> View<'d> {
        let node = self.entries().filter(|(name, _)| *name == key).last();
        node.map_or(View { node: None, ..*self }, |(_, view)| view)
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'d str, View<'d>)> + use<'d> {
        let entries = match self.node.map(|node| &node.value) {
            Some(TreeValue::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let file = self.file;
        entries.iter().map(move |one| (one.key.as_str(), View { file, node: Some(&one.value) }))
    }

    pub fn items(&self) -> impl Iterator<Item = View<'d>> + use<'d> {
        let items = match self.node.map(|node| &node.value) {
            Some(TreeValue::List(items)) => items.as_slice(),
            _ => &[],
        };
        let file = self.file;
        items.iter().map(move |one| View { file, node: Some(one.as_ref()) })
    }

    /// The items of a list, or the one value that stands in its place.
    pub fn texts(&self) -> Vec<String> {
        match self.text() {
            Some(text) => vec![text],
            None => self.items().filter_map(|one| one.text()).collect(),
        }
    }

    /// A single value as it was written.
    pub fn text(&self) -> Option<String> {
        self.node?.excerpt()
    }

    pub fn flag(&self) -> Option<bool> {
        match self.node?.value {
            TreeValue::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<u64> {
        match &self.node?.value {
            TreeValue::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A number that may have a fraction, in thousandths.
    pub fn thousandths(&self) -> Option<u64> {
        let number: f64 = match &self.node?.value {
            TreeValue::Integer(number) => return u64::try_from(*number).ok()?.checked_mul(1_000),
            TreeValue::Float(text) => text.parse().ok()?,
            _ => return None,
        };
        (number.is_finite() && (0.0..1e12).contains(&number)).then(|| (number * 1e3).round() as u64)
    }

    /// The value as it is, to be written again.
    pub fn yaml(&self) -> Yaml {
        match self.node.map(|node| &node.value) {
            None | Some(TreeValue::Null) => Yaml::Null,
            Some(TreeValue::Bool(value)) => (*value).into(),
            Some(TreeValue::Integer(number)) => Yaml::Number(number.to_string()),
            Some(TreeValue::Float(text)) => Yaml::Number(text.clone()),
            Some(TreeValue::Text(text)) => text.as_str().into(),
            Some(TreeValue::List(_)) => Yaml::List(self.items().map(|one| one.yaml()).collect()),
            Some(TreeValue::Map(_)) => {
                let mut map = Map::new();
                for (key, value) in self.entries() {
                    map.set(key, value.yaml());
                }
                map.into()
            }
        }
    }
}
