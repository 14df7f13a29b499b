//! YAML (and so JSON) as a tree that knows where everything stands.
//!
//! The text is not trusted: depth and size (with aliases written out) are bounded, aliases share
//! their node instead of copying it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::json;
use super::problem::Problems;
use super::read::Mark;

/// Deepest nesting. The spec itself needs 6.
const MAX_DEPTH: usize = 64;
/// Most nodes, counting what an alias stands for each time.
const MAX_NODES: usize = 20_000_000;

/// A value and its place.
#[derive(Debug)]
pub struct Node {
    pub mark: Mark,
    pub value: Value,
    /// Nodes in it, itself included, with aliases written out.
    size: usize,
    /// Levels of lists and maps in it, with aliases written out.
    height: usize,
}

#[derive(Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    /// A plain number that is no integer, as it was written.
    Float(String),
    Text(String),
    List(Vec<Rc<Node>>),
    /// In the order of the text, duplicate keys included.
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub key_mark: Mark,
    pub value: Rc<Node>,
}

impl Node {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// A single value as it was written, for messages.
    pub fn excerpt(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Integer(value) => Some(value.to_string()),
            Value::Float(text) | Value::Text(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// Reads the one document of `text`. `None`: an error was added to `problems`.
pub fn parse(text: &str, problems: &mut Problems) -> Option<Rc<Node>> {
    match text.starts_with('{').then(|| json::parse(text)).flatten() {
        Some(root) => Some(root),
        None => parse_yaml(text, problems),
    }
}

pub(super) fn parse_yaml(text: &str, problems: &mut Problems) -> Option<Rc<Node>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = surrogates(text);
    match Builder::default().document(&text) {
        Ok(root) => Some(root),
        Err(Refusal { code, mark, message }) => {
            problems.error(code, mark, "", None, message);
            None
        }
    }
}

/// JSON may write a character past U+FFFF as two escapes (RFC 8259 §7), which YAML does not know:
/// `\ud83d\ude00` becomes `\U0001f600`.
fn surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('{') || !text.contains("\\u") {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(code) = surrogate_pair(escape) {
            out.push_str(&format!("\\U{code:08x}"));
            rest = escape.get(12..).unwrap_or("");
            continue;
        }
        // The backslash and what it escapes, so that `\\u` is not taken for an escape.
        let length = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
        out.push_str(escape.get(..length).unwrap_or(escape));
        rest = escape.get(length..).unwrap_or("");
    }
    out.push_str(rest);
    out.into()
}

fn surrogate_pair(text: &str) -> Option<u32> {
    let unit = |text: Option<&str>| {
        let digits = text?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    };
    let high = unit(text.get(..6)).filter(|unit| (0xd800..0xdc00).contains(unit))?;
    let low = unit(text.get(6..12)).filter(|unit| (0xdc00..0xe000).contains(unit))?;
    Some(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

/// What people usually meant when YAML did not understand them.
fn hint(text: &str, line: usize, info: &str) -> &'static str {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    if info.contains("anchor") {
        "; put text that begins with `*` or `&` in quotes, like \"*.example.com\""
    } else if line.get(..indent).is_some_and(|indent| indent.contains('\t')) {
        "; indent with spaces, not with tabs"
    } else if line.contains("]:") {
        "; put an address in brackets in quotes, like \"[::]:8080\""
    } else if line.contains(": @") || line.contains(": %") || line.contains(": `") {
        "; put text that begins with such a character in quotes"
    } else {
        ""
    }
}

struct Refusal {
    code: &'static str,
    mark: Mark,
    message: String,
}

fn refuse<T>(code: &'static str, mark: Mark, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, mark, message: message.into() })
}

fn mark(marker: Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or map that is not closed yet.
struct Open {
    anchor: usize,
    mark: Mark,
    size: usize,
    height: usize,
    content: Content,
}

pub(super) enum Content {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, key: Option<(String, Mark)> },
}

#[derive(Default)]
pub(super) struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    pub(super) fn into_root(self) -> Option<Rc<Node>> {
        self.root
    }

    /// Begins a list or a map. `None`, here and below: it may not be there.
    pub(super) fn begin(&mut self, mark: Mark, content: Content) -> Option<()> {
        self.open(0, None, mark, "", content).ok()
    }

    pub(super) fn end(&mut self) -> Option<()> {
        self.close().ok()
    }

    /// The key of what comes next in the open map.
    pub(super) fn key(&mut self, name: String, mark: Mark) {
        if let Some(Open { content: Content::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some((name, mark));
        }
    }

    pub(super) fn leaf(&mut self, mark: Mark, value: Value) -> Option<()> {
        self.push(0, Node { mark, value, size: 1, height: 0 }).ok()
    }

    fn document(mut self, text: &str) -> Result<Rc<Node>, Refusal> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.or_else(|error| {
                let mark = mark(*error.marker());
                let hint = hint(text, mark.line, error.info());
                refuse("yaml-syntax", mark, format!("this is not YAML: {}{hint}", error.info()))
            })?;
            self.event(event, mark(span.start))?;
        }
        match self.root {
            Some(root) => Ok(root),
            None => refuse("empty-spec", Mark::START, "the spec is empty; begin with `version: 1`"),
        }
    }

    fn event(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Refusal> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here; a spec is one document";
                    return refuse("multiple-documents", mark, message);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) =
                    self.open.last_mut()
                    && anchor == 0
                {
                    // A key is text however it looks.
                    *key = Some((text.into_owned(), mark));
                    return Ok(());
                }
                let value = scalar(text.into_owned(), style, tag.as_deref(), mark)?;
                self.push(anchor, Node { mark, value, size: 1, height: 0 })
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.place(node.clone(), mark),
                None => refuse("bad-alias", mark, "this alias stands inside what it refers to"),
            },
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, tag.as_deref(), mark, "seq", Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map { entries: Vec::new(), key: None };
                self.open(anchor, tag.as_deref(), mark, "map", content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        mark: Mark,
        kind: &str,
        content: Content,
    ) -> Result<(), Refusal> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() || tag.suffix != kind) {
            return refuse("bad-tag", mark, format!("the tag {tag} is not known; remove it"));
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return refuse("bad-key", mark, "a key must be text, not a list or a map");
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return refuse("too-deep", mark, message);
        }
        self.open.push(Open { anchor, mark, size: 1, height: 1, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refusal> {
        let Some(Open { anchor, mark, size, height, content }) = self.open.pop() else {
            return Ok(());
        };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        self.push(anchor, Node { mark, value, size, height })
    }

    /// Puts a finished node into what is open, and keeps it if it has an anchor.
    fn push(&mut self, anchor: usize, node: Node) -> Result<(), Refusal> {
        let mark = node.mark;
        let node = Rc::new(node);
        // The parser counts anchors from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node, mark)
    }

    fn place(&mut self, node: Rc<Node>, mark: Mark) -> Result<(), Refusal> {
        self.nodes = self.nodes.saturating_add(node.size);
        if self.nodes > MAX_NODES {
            let message = format!("with aliases written out there are over {MAX_NODES} values");
            return refuse("too-many-values", mark, message);
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.height = open.height.max(node.height.saturating_add(1));
        if open.height > MAX_DEPTH {
            let message = format!("with aliases written out, nested deeper than {MAX_DEPTH}");
            return refuse("too-deep", mark, message);
        }
        open.size = open.size.saturating_add(node.size);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key } => match key.take() {
                Some((key, key_mark)) => entries.push(Entry { key, key_mark, value: node }),
                None => match node.excerpt() {
                    Some(text) => *key = Some((text, mark)),
                    None => return refuse("bad-key", mark, "a key must be text"),
                },
            },
        }
        Ok(())
    }
}

/// The core schema of YAML 1.2 (§10.3): what a plain scalar means.
fn scalar(
    text: String,
    style: ScalarStyle,
    tag: Option<&Tag>,
    mark: Mark,
) -> Result<Value, Refusal> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => {
            return Ok(Value::Text(text));
        }
        // `!` alone says "not plain" (§6.9.1).
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => return Ok(Value::Text(text)),
        Some(tag) => {
            return refuse("bad-tag", mark, format!("the tag {tag} is not known; remove it"));
        }
        None => {}
    }
    if style != ScalarStyle::Plain {
        return Ok(Value::Text(text));
    }
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match integer(&text) {
            Some(number) => Value::Integer(number),
            None if is_float(&text) => Value::Float(text),
            None => Value::Text(text),
        },
    })
}

/// A number as JSON writes it.
pub(super) fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") {
        return None;
    }
    match integer(text) {
        Some(number) => Some(Value::Integer(number)),
        None => is_float(text).then(|| Value::Float(text.into())),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (radix, digits) = match text.get(..2) {
        Some("0x") => (16, &text[2..]),
        Some("0o") => (8, &text[2..]),
        _ => (10, text.strip_prefix('+').unwrap_or(text)),
    };
    let signed = radix == 10 && !text.starts_with('+');
    let bare = if signed { digits.strip_prefix('-').unwrap_or(digits) } else { digits };
    let fits = !bare.is_empty() && bare.chars().all(|c| c.is_digit(radix));
    fits.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
}

fn is_float(text: &str) -> bool {
    let special = text.trim_start_matches(['+', '-']);
    matches!(special, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
        || (text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<f64>().is_ok())
}
