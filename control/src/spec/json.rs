//! JSON as a tree, without the detour by YAML: specs of programs are JSON, and may be large.

use std::rc::Rc;

use super::read::Mark;
use super::tree::{Builder, Content, Node, Value, number};

/// Reads `text` as [`super::tree::parse`] would. `None`: it is no JSON, or not as it may be, and the
/// YAML parser is to say what is wrong with it.
pub(super) fn parse(text: &str) -> Option<Rc<Node>> {
    let bytes = text.as_bytes();
    let mut reader = Reader { text, bytes, at: 0, line: 1, start: 0, builder: Builder::default() };
    reader.document()?;
    reader.builder.into_root()
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    line: usize,
    /// What is to be taken from `at` for a column: where the line begins, and the bytes in it so far
    /// that begin no character.
    start: usize,
    builder: Builder,
}

impl Reader<'_> {
    fn mark(&self) -> Mark {
        Mark { line: self.line, column: self.at - self.start + 1 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.start = self.at;
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        self.space();
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Without recursion: the builder knows what is open, and bounds how deep.
    fn document(&mut self) -> Option<()> {
        // What closes each open list or map.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            let mark = self.mark();
            match self.peek()? {
                b'{' | b'[' => {
                    let map = self.peek()? == b'{';
                    self.at += 1;
                    let (content, end) = match map {
                        true => (Content::Map { entries: Vec::new(), key: None }, b'}'),
                        false => (Content::List(Vec::new()), b']'),
                    };
                    self.builder.begin(mark, content)?;
                    open.push(end);
                    if self.take(end).is_none() {
                        if map {
                            self.key()?;
                        }
                        continue;
                    }
                    self.builder.end()?;
                    open.pop();
                }
                b'"' => {
                    let text = self.string()?;
                    self.builder.leaf(mark, Value::Text(text))?;
                }
                _ => {
                    let value = self.word()?;
                    self.builder.leaf(mark, value)?;
                }
            }
            // After a value: what it closes, or what comes next to it.
            loop {
                let Some(end) = open.last().copied() else {
                    self.space();
                    return (self.at == self.bytes.len()).then_some(());
                };
                if self.take(end).is_some() {
                    self.builder.end()?;
                    open.pop();
                    continue;
                }
                self.take(b',')?;
                if end == b'}' {
                    self.key()?;
                }
                break;
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.space();
        let mark = self.mark();
        let key = self.string()?;
        self.builder.key(key, mark);
        self.take(b':')
    }

    fn word(&mut self) -> Option<Value> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'E' | b'+' | b'-' | b'.'))
            .unwrap_or(rest.len());
        let word = self.text.get(self.at..self.at + length)?;
        self.at += length;
        Some(match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word if word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => number(word)?,
            _ => return None,
        })
    }

    fn string(&mut self) -> Option<String> {
        (self.peek()? == b'"').then(|| self.at += 1)?;
        let mut text = String::new();
        loop {
            let rest = self.bytes.get(self.at..)?;
            let length =
                rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f))?;
            let plain = self.text.get(self.at..self.at + length)?;
            text.push_str(plain);
            if !plain.is_ascii() {
                self.start += length - plain.chars().count();
            }
            self.at += length;
            match rest.get(length)? {
                b'"' => {
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => text.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let escaped = *self.bytes.get(self.at + 1)?;
        self.at += 2;
        Some(match escaped {
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            // Pairs of surrogates are rare enough to go the long way.
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| hex)?)?
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::spec::problem::Problems;
    use crate::spec::tree;

    fn by_yaml(text: &str) -> String {
        let mut problems = Problems::new("t");
        format!("{:?}", tree::parse_yaml(text, &mut problems).expect("is YAML"))
    }

    #[test]
    fn it_is_the_tree_that_the_yaml_parser_makes() {
        for text in [
            "{}",
            "{ \"a\": [1, -2, 3.5, 1e3, true, null, \"x\"],\n  \"b\" : {\"c\":[] , \"d\":{}}\n}\n",
            "{\"ä\":\"öü\", \"a\":\"\\u00e4\\n\\\"\\/\\\\\",\n \"é\": 1}",
            "{\"a\":1,\"a\":2}",
        ] {
            let node = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(format!("{node:?}"), by_yaml(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_left_to_the_yaml_parser() {
        for text in [
            "",
            "{",
            "{a: 1}",
            "{\"a\":1,}",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":01x}",
            "{\"a\":nul}",
            "{} {}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"",
            "{\"a\":1e}",
            "{\"a\":'x'}",
            "{1:2}",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse(&"[".repeat(100)).is_none());
        assert!(parse(&format!("{}{}", "[".repeat(65), "]".repeat(65))).is_none());
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<i64>().prop_map(Json::from),
            "[ -~äöü€]{0,12}".prop_map(Json::String),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
                prop::collection::vec(("[ -~ä]{0,8}", inner), 0..5)
                    .prop_map(|fields| Json::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_read_alike(value in json(), pretty: bool) {
            let value = serde_json::json!({ "root": value });
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            prop_assert_eq!(format!("{:?}", parse(&text).unwrap()), by_yaml(&text));
        }
    }
}
