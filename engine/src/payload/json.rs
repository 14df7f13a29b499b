//! JSON that keeps what nobody touches: the order of members, numbers as they were written
//! (1234567890123456789012 and 1.10 stay so), strings with their escapes. Reading is total and bounded;
//! what is borrowed from the input is not copied.
//!
//! An object that has a name twice keeps the last of the two (as most parsers do), so that nothing
//! behind the gateway can read it otherwise, and nothing hides from a rule.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use crate::limits;

/// A value. `PartialEq` compares texts: 1.0 and 1.00 are not the same here.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Json<'a> {
    #[default]
    Null,
    Bool(bool),
    /// As it was written; always a number by RFC 8259 §6.
    Number(Cow<'a, str>),
    String(Text<'a>),
    Array(Vec<Json<'a>>),
    /// No name is there twice.
    Object(Vec<(Text<'a>, Json<'a>)>),
}

/// A string as it stands between its quotes, escapes and all.
#[derive(Clone, Debug, Default)]
pub struct Text<'a>(Cow<'a, str>);

/// Why something is no JSON that can be read. Never says what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Where, in bytes.
    pub at: usize,
    pub problem: &'static str,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.problem, self.at)
    }
}

impl<'a> Text<'a> {
    pub fn new(text: &str) -> Text<'static> {
        let mut out = String::with_capacity(text.len());
        escape(text, &mut out);
        Text(Cow::Owned(out))
    }

    /// The string that is meant. Half of a surrogate pair becomes U+FFFD.
    pub fn decoded(&self) -> Cow<'_, str> {
        match self.0.contains('\\') {
            false => Cow::Borrowed(&self.0),
            true => Cow::Owned(unescape(&self.0)),
        }
    }

    pub fn is(&self, text: &str) -> bool {
        *self.0 == *text && !text.contains('\\') || self.0.contains('\\') && self.decoded() == text
    }

    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }

    fn borrowed(&self) -> Text<'_> {
        Text(Cow::Borrowed(&self.0))
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Text<'_>) -> bool {
        self.0 == other.0 || self.decoded() == other.decoded()
    }
}

impl<'a> Json<'a> {
    /// Reads one document; a byte order mark before it is skipped (RFC 8259 §8.1).
    ///
    /// # Errors
    /// It is no JSON, nests deeper than [`limits::JSON_DEPTH`] or has more than [`limits::JSON_VALUES`]
    /// values.
    pub fn parse(bytes: &'a [u8]) -> Result<Json<'a>, NotJson> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| NotJson { at: error.valid_up_to(), problem: "this is not UTF-8" })?;
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut parser = Parser { text, at, left: limits::JSON_VALUES };
        let value = parser.value(limits::JSON_DEPTH)?;
        parser.space();
        match parser.at == text.len() {
            true => Ok(value),
            false => Err(parser.wrong("there is something behind the JSON")),
        }
    }

    pub fn string(text: &str) -> Json<'static> {
        Json::String(Text::new(text))
    }

    pub fn number(number: u64) -> Json<'static> {
        Json::Number(Cow::Owned(number.to_string()))
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Json<'a>> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(own, _)| own.is(name)).map(|(_, value)| value)
    }

    pub fn member_mut(&mut self, name: &str) -> Option<&mut Json<'a>> {
        let Json::Object(members) = self else { return None };
        members.iter_mut().find(|(own, _)| own.is(name)).map(|(_, value)| value)
    }

    /// Puts a member at its place, or at the end; nothing happens to what is no object.
    pub fn set_member(&mut self, name: &str, value: Json<'a>) {
        if let Some(old) = self.member_mut(name) {
            *old = value;
        } else if let Json::Object(members) = self {
            members.push((Text::new(name), value));
        }
    }

    /// The same value, borrowing from this one.
    pub fn borrowed(&self) -> Json<'_> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(on) => Json::Bool(*on),
            Json::Number(text) => Json::Number(Cow::Borrowed(text)),
            Json::String(text) => Json::String(text.borrowed()),
            Json::Array(items) => Json::Array(items.iter().map(Json::borrowed).collect()),
            Json::Object(members) => Json::Object(
                members.iter().map(|(name, value)| (name.borrowed(), value.borrowed())).collect(),
            ),
        }
    }

    pub fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(on) => Json::Bool(on),
            Json::Number(text) => Json::Number(Cow::Owned(text.into_owned())),
            Json::String(text) => Json::String(text.into_owned()),
            Json::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Json::Object(members) => Json::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .collect(),
            ),
        }
    }

    /// About how much memory a copy of it takes, in bytes.
    pub fn weight(&self) -> usize {
        let own = size_of::<Json<'_>>();
        own + match self {
            Json::Null | Json::Bool(_) => 0,
            Json::Number(text) => text.len(),
            Json::String(text) => text.0.len(),
            Json::Array(items) => items.iter().map(Json::weight).sum(),
            Json::Object(members) => members
                .iter()
                .map(|(name, value)| size_of::<Text<'_>>() + name.0.len() + value.weight())
                .sum(),
        }
    }

    /// Writes it without any space.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(true) => out.extend_from_slice(b"true"),
            Json::Bool(false) => out.extend_from_slice(b"false"),
            Json::Number(text) => out.extend_from_slice(text.as_bytes()),
            Json::String(text) => text.write(out),
            Json::Array(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    name.write(out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// What it is as a text: a string without quotes, JSON for everything else.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Json::String(text) => text.decoded(),
            Json::Number(text) => Cow::Borrowed(text),
            Json::Null => Cow::Borrowed("null"),
            Json::Bool(true) => Cow::Borrowed("true"),
            Json::Bool(false) => Cow::Borrowed("false"),
            value => Cow::Owned(String::from_utf8_lossy(&value.to_vec()).into_owned()),
        }
    }
}

impl From<&serde_json::Value> for Json<'static> {
    fn from(value: &serde_json::Value) -> Json<'static> {
        use serde_json::Value;
        match value {
            Value::Null => Json::Null,
            Value::Bool(on) => Json::Bool(*on),
            Value::Number(number) => Json::Number(Cow::Owned(number.to_string())),
            Value::String(text) => Json::string(text),
            Value::Array(items) => Json::Array(items.iter().map(Json::from).collect()),
            Value::Object(members) => Json::Object(
                members.iter().map(|(name, value)| (Text::new(name), value.into())).collect(),
            ),
        }
    }
}

impl Text<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.0.as_bytes());
        out.push(b'"');
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (c, used) = escaped(&rest[at..]);
        out.push(c);
        rest = &rest[at + used..];
    }
    out.push_str(rest);
    out
}

/// The character that the escape at the beginning of `raw` stands for, and how long the escape is.
fn escaped(raw: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let simple = match raw.as_bytes().get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let high = unit(0).unwrap_or(0xfffd);
            if let (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) = (high, unit(6)) {
                let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
            }
            return (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6.min(raw.len()));
        }
        Some(c) => char::from(*c),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2.min(raw.len()))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    left: usize,
}

impl<'a> Parser<'a> {
    fn wrong(&self, problem: &'static str) -> NotJson {
        NotJson { at: self.at, problem }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.space();
        self.peek()
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, NotJson> {
        self.left = self.left.checked_sub(1).ok_or(self.wrong("there are too many values"))?;
        match self.next() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(_) => Err(self.wrong("expected a value")),
            None => Err(self.wrong("the JSON ends too early")),
        }
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, NotJson> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.wrong("expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Json<'a>, NotJson> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Json::Number(Cow::Borrowed(&self.text[start..self.at])))
    }

    /// A string; this stands at its first quote.
    fn string(&mut self) -> Result<Text<'a>, NotJson> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let text = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Text(Cow::Borrowed(text)));
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err(self.wrong("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.wrong("a string has no end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        let bytes = &self.text.as_bytes()[self.at..];
        let used = match bytes.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u')
                if bytes.get(2..6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                6
            }
            _ => return Err(self.wrong("there is no such escape")),
        };
        self.at += used;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, NotJson> {
        let depth = depth.checked_sub(1).ok_or(self.wrong("it nests too deep"))?;
        self.at += 1;
        let mut items = Vec::new();
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.wrong("expected , or ]")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, NotJson> {
        let depth = depth.checked_sub(1).ok_or(self.wrong("it nests too deep"))?;
        self.at += 1;
        let mut members = Vec::new();
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.next() != Some(b'"') {
                return Err(self.wrong("expected a name"));
            }
            let name = self.string()?;
            if self.next() != Some(b':') {
                return Err(self.wrong("expected :"));
            }
            self.at += 1;
            let value = self.value(depth)?;
            members.push((name, value));
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(unique(members)));
                }
                _ => return Err(self.wrong("expected , or }")),
            }
        }
    }
}

/// Keeps the last value of each name, where the first one stood.
fn unique<'a>(mut members: Vec<(Text<'a>, Json<'a>)>) -> Vec<(Text<'a>, Json<'a>)> {
    /// From here on a hash table is cheaper than looking at all pairs.
    const FEW: usize = 12;
    if members.len() <= FEW {
        let mut at = 1;
        while at < members.len() {
            match members[..at].iter().position(|(name, _)| *name == members[at].0) {
                Some(first) => members[first].1 = members.remove(at).1,
                None => at += 1,
            }
        }
        return members;
    }
    let mut places = HashMap::with_capacity(members.len());
    let doubled = members.iter().enumerate().any(|(at, (name, _))| {
        let decoded = name.decoded();
        places.insert(decoded, at).is_some()
    });
    if !doubled {
        return members;
    }
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut out: Vec<(Text<'a>, Json<'a>)> = Vec::new();
    for (name, value) in members {
        match places.get(&*name.decoded()) {
            Some(&first) => out[first].1 = value,
            None => {
                places.insert(name.decoded().into_owned(), out.len());
                out.push((name, value));
            }
        }
    }
    out
}

#[cfg(test)]
pub mod tests;
