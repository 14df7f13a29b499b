//! Documents and what they refer to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Number, Value as Json};

use crate::material::file;
use crate::spec::Problems;
use crate::spec::tree::{self, Node, Value};

/// Largest document, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Most files that an API is described in.
const MAX_FILES: usize = 200;
/// Longest chain of references to references.
const MAX_HOPS: usize = 32;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Empty: it stands in the spec.
    file: String,
    line: usize,
    message: String,
}

impl Broken {
    pub fn at(file: &str, line: usize, message: impl Into<String>) -> Broken {
        Broken { file: file.trim_matches('\0').into(), line, message: message.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => f.write_str(&self.message),
            (file, 0) => write!(f, "{file}: {}", self.message),
            (file, line) => write!(f, "{file}:{line}: {}", self.message),
        }
    }
}

/// A part of a document: its file, the JSON pointer to it, and what stands there.
#[derive(Clone, Debug)]
pub struct Part {
    pub file: String,
    pub pointer: String,
    pub node: Rc<Node>,
}

/// Documents by their file.
#[derive(Debug, Default)]
pub struct Documents {
    open: BTreeMap<String, Rc<Node>>,
}

impl Documents {
    /// Files that were read.
    pub fn files(&self) -> Vec<String> {
        self.open.keys().filter(|file| file.starts_with('/')).cloned().collect()
    }

    pub fn open(&mut self, file: &str) -> Result<Rc<Node>, Broken> {
        if let Some(root) = self.open.get(file) {
            return Ok(root.clone());
        }
        if self.open.len() >= MAX_FILES {
            let message =
                format!("an API may be described in {MAX_FILES} files, and this is one more");
            return Err(Broken::at(file, 0, message));
        }
        // The message has the file's name in it.
        let read = file::read(file, MAX_DOCUMENT).map_err(|message| Broken::at("", 0, message));
        let text = String::from_utf8(read?.0);
        let text = text.map_err(|_| Broken::at(file, 0, "it is not UTF-8"))?;
        let root = parsed(file, &text)?;
        self.open.insert(file.into(), root.clone());
        Ok(root)
    }

    /// What stands in the spec itself, under a name that no file has.
    pub fn inline(&mut self, name: &str, value: &Json) -> Result<Rc<Node>, Broken> {
        let root = parsed(name, &value.to_string())?;
        self.open.insert(name.into(), root.clone());
        Ok(root)
    }

    /// What a `$ref` in `file` means, if that is one; else `part` itself.
    pub fn resolved(&mut self, part: Part) -> Result<Part, Broken> {
        let mut part = part;
        for _ in 0..MAX_HOPS {
            match member(&part.node, "$ref") {
                Some(reference) => part = self.follow(&part.file, reference)?,
                None => return Ok(part),
            }
        }
        Err(Broken::at(
            &part.file,
            part.node.mark.line,
            "references lead to references without end",
        ))
    }

    /// What `reference`, which stands in `file`, refers to.
    pub fn follow(&mut self, file: &str, reference: &Node) -> Result<Part, Broken> {
        let line = reference.mark.line;
        let broken = |message: String| Broken::at(file, line, message);
        let Value::Text(text) = &reference.value else {
            return Err(broken("`$ref` must be text".into()));
        };
        let (name, pointer) = text.split_once('#').unwrap_or((text, ""));
        let target = match name {
            "" => file.to_owned(),
            name if name.contains("://") || name.starts_with("//") => {
                return Err(broken(format!(
                    "`{text}` is elsewhere; only what is in this file or in files beside it is followed"
                )));
            }
            name if name.starts_with('/') => {
                return Err(broken(format!("`{text}` must be relative to this file")));
            }
            _ if !file.starts_with('/') => {
                return Err(broken(format!(
                    "`{text}`: what stands in a spec cannot refer to files"
                )));
            }
            name => beside(file, name),
        };
        let root = self.open(&target).map_err(|error| match error.line {
            0 => broken(format!("`$ref: {text}`: {error}")),
            _ => error,
        })?;
        let mut node = root;
        for token in pointer.split('/').skip(1) {
            let token = percent_decoded(token).replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Value::Map(_) => child(&node, &token),
                Value::List(items) => {
                    token.parse().ok().and_then(|at: usize| items.get(at)).cloned()
                }
                _ => None,
            };
            node = next.ok_or_else(|| broken(format!("`$ref: {text}` leads nowhere")))?;
        }
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(broken(format!(
                "`$ref: {text}`: anchors are not supported; use a JSON pointer"
            )));
        }
        Ok(Part { file: target, pointer: pointer.into(), node })
    }
}

fn parsed(file: &str, text: &str) -> Result<Rc<Node>, Broken> {
    let mut problems = Problems::new(file);
    tree::parse(text, &mut problems).ok_or_else(|| match problems.finish().first() {
        Some(problem) => Broken::at(file, problem.line, problem.message.clone()),
        None => Broken::at(file, 0, "it is neither YAML nor JSON"),
    })
}

fn beside(file: &str, name: &str) -> String {
    let directory = Path::new(file).parent().unwrap_or(Path::new("/"));
    let mut path = PathBuf::new();
    for part in directory.join(percent_decoded(name)).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.to_string_lossy().into_owned()
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn child(node: &Node, name: &str) -> Option<Rc<Node>> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name).map(|entry| entry.value.clone())
}

/// The member of that name, shared.
pub fn shared(node: &Node, name: &str) -> Option<Rc<Node>> {
    child(node, name).filter(|node| !matches!(node.value, Value::Null))
}

pub fn member<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name).map(|entry| &*entry.value)
}

pub fn text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    match &member(node, name)?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

pub fn flag(node: &Node, name: &str) -> Option<bool> {
    match member(node, name)?.value {
        Value::Bool(value) => Some(value),
        _ => None,
    }
}

/// A node as JSON. What JSON has no number for is null.
pub fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => Number::from_f64(*number as f64).map_or(Json::Null, Json::Number),
        },
        Value::Float(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            number.map_or(Json::Null, Json::Number)
        }
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(|item| json(item)).collect(),
        Value::Map(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.insert(entry.key.clone(), json(&entry.value));
            }
            Json::Object(map)
        }
    }
}
