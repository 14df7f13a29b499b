//! Writing YAML for people: maps in their order, short things on one line, comments where they belong.
//!
//! What is written reads back to the same values, also where YAML 1.1 would see something else (`no`,
//! `1e3`, `0o7`, `~`).

use serde_json::Value;

/// Longest map or list that is written on one line, in characters.
const MAX_FLOW: usize = 90;

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    Null,
    Bool(bool),
    /// As it is to stand there.
    Number(String),
    Text(String),
    List(Vec<Yaml>),
    Map(Map),
}

/// A map in its order. Entries may have a comment above them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<(String, Yaml, Vec<String>)>,
    /// A field that comes next has these above it.
    comments: Vec<String>,
}

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    /// Adds a field at the end.
    pub fn set(&mut self, key: &str, value: impl Into<Yaml>) -> &mut Map {
        let comments = std::mem::take(&mut self.comments);
        self.entries.push((key.into(), value.into(), comments));
        self
    }

    /// As [`Map::set`], for chains.
    pub fn with(mut self, key: &str, value: impl Into<Yaml>) -> Map {
        self.set(key, value);
        self
    }

    /// Puts a comment above the field that comes next.
    pub fn comment(&mut self, text: impl Into<String>) -> &mut Map {
        self.comments.push(text.into());
        self
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Yaml> {
        self.entries.iter().find(|(name, ..)| name == key).map(|(_, value, _)| value)
    }

    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|(name, ..)| name != key);
    }

    /// How many items the list `key` has; 0 if it is none.
    pub fn len_of(&self, key: &str) -> usize {
        match self.get(key) {
            Some(Yaml::List(list)) => list.len(),
            _ => 0,
        }
    }

    /// Takes an item out of the list `key`.
    pub fn remove_from(&mut self, key: &str, at: usize) {
        let list = self.entries.iter_mut().find(|(name, ..)| name == key);
        if let Some((_, Yaml::List(list), _)) = list
            && at < list.len()
        {
            list.remove(at);
        }
    }

    pub fn list(&mut self, key: &str) -> Option<&mut Vec<Yaml>> {
        self.entries.iter_mut().find_map(|(name, value, _)| match value {
            Yaml::List(list) if name == key => Some(list),
            _ => None,
        })
    }

    /// Adds the fields of `other` at the end.
    pub fn append(&mut self, other: Map) {
        self.entries.extend(other.entries);
    }

    /// The map below `key`, which is added if it is not there.
    pub fn map(&mut self, key: &str) -> &mut Map {
        let found = self.entries.iter().position(|(name, ..)| name == key);
        let at = found.unwrap_or_else(|| {
            self.set(key, Map::new());
            self.entries.len() - 1
        });
        let value = &mut self.entries[at].1;
        if !matches!(value, Yaml::Map(_)) {
            *value = Yaml::Map(Map::new());
        }
        match value {
            Yaml::Map(map) => map,
            _ => unreachable!("it was made a map just now"),
        }
    }
}

impl From<Map> for Yaml {
    fn from(map: Map) -> Yaml {
        Yaml::Map(map)
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Yaml {
        Yaml::Text(text.into())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Yaml {
        Yaml::Text(text)
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Yaml {
        Yaml::Bool(value)
    }
}

impl From<u64> for Yaml {
    fn from(value: u64) -> Yaml {
        Yaml::Number(value.to_string())
    }
}

impl<T: Into<Yaml>> From<Vec<T>> for Yaml {
    fn from(list: Vec<T>) -> Yaml {
        Yaml::List(list.into_iter().map(Into::into).collect())
    }
}

impl From<&Value> for Yaml {
    fn from(value: &Value) -> Yaml {
        match value {
            Value::Null => Yaml::Null,
            Value::Bool(value) => Yaml::Bool(*value),
            Value::Number(number) => Yaml::Number(number.to_string()),
            Value::String(text) => Yaml::Text(text.clone()),
            Value::Array(list) => Yaml::List(list.iter().map(Yaml::from).collect()),
            Value::Object(fields) => {
                // What it is comes first; the rest as it stands there.
                let first = |key: &str| matches!(key, "version" | "name");
                let (names, rest): (Vec<_>, Vec<_>) =
                    fields.iter().partition(|(key, _)| first(key));
                let mut map = Map::new();
                for (key, value) in names.into_iter().chain(rest) {
                    map.set(key, Yaml::from(value));
                }
                Yaml::Map(map)
            }
        }
    }
}

impl Yaml {
    /// As a document. Its top level is never on one line.
    pub fn document(&self) -> String {
        let mut out = String::new();
        match self {
            Yaml::Map(map) if !map.is_empty() => block_map(map, 0, &mut out),
            other => other.below(0, &mut out),
        }
        out
    }

    /// After `key:` or `-`, to the end of the line and whatever lies below.
    fn below(&self, indent: usize, out: &mut String) {
        if let Some(flow) = self.flow().filter(|flow| flow.chars().count() <= MAX_FLOW) {
            out.push_str(&format!(" {flow}\n"));
            return;
        }
        match self {
            Yaml::List(list) => {
                out.push('\n');
                for item in list {
                    out.push_str(&format!("{:indent$}-", ""));
                    match item {
                        // The first field stands beside the dash.
                        Yaml::Map(map) if item.flow_fits().is_none() && map.starts_bare() => {
                            let mut text = String::new();
                            block_map(map, indent + 2, &mut text);
                            out.push(' ');
                            out.push_str(text.trim_start_matches(' '));
                        }
                        item => item.below(indent + 2, out),
                    }
                }
            }
            Yaml::Map(map) => {
                out.push('\n');
                block_map(map, indent, out);
            }
            // A scalar always has a form on one line.
            scalar => out.push_str(&format!(" {}\n", scalar.flow().unwrap_or_default())),
        }
    }

    fn flow_fits(&self) -> Option<String> {
        self.flow().filter(|flow| flow.chars().count() <= MAX_FLOW)
    }

    /// On one line; `None`: it has comments, or maps with more than one field below a map.
    fn flow(&self) -> Option<String> {
        Some(match self {
            Yaml::Null => "null".into(),
            Yaml::Bool(value) => value.to_string(),
            Yaml::Number(number) => number.clone(),
            Yaml::Text(text) => scalar(text),
            Yaml::List(list) => {
                let items: Vec<String> = list.iter().map(Yaml::flow).collect::<Option<_>>()?;
                let plain = !list.iter().any(|item| matches!(item, Yaml::Map(_)));
                // A list of maps is easier to read and to change with one on a line.
                (plain || list.is_empty()).then(|| format!("[{}]", items.join(", ")))?
            }
            Yaml::Map(map) => {
                if map.entries.iter().any(|(.., comments)| !comments.is_empty()) {
                    return None;
                }
                let fields = map.entries.iter().map(|(key, value, _)| {
                    let deep = matches!(value, Yaml::Map(below) if below.entries.len() > 2);
                    let value = value.flow().filter(|_| !deep)?;
                    Some(format!("{}: {value}", scalar(key)))
                });
                let fields: Vec<String> = fields.collect::<Option<_>>()?;
                if fields.is_empty() { "{}".into() } else { format!("{{{}}}", fields.join(", ")) }
            }
        })
    }
}

impl Map {
    fn starts_bare(&self) -> bool {
        self.entries.first().is_some_and(|(.., comments)| comments.is_empty())
    }
}

fn block_map(map: &Map, indent: usize, out: &mut String) {
    for (key, value, comments) in &map.entries {
        for comment in comments {
            for line in comment.lines() {
                out.push_str(&format!("{:indent$}# {}\n", "", harmless(line)));
            }
        }
        out.push_str(&format!("{:indent$}{}:", "", scalar(key)));
        value.below(indent + 2, out);
    }
    for comment in map.comments.iter().flat_map(|comment| comment.lines()) {
        out.push_str(&format!("{:indent$}# {}\n", "", harmless(comment)));
    }
}

/// A comment with nothing in it that would end it, or that YAML does not allow.
pub fn harmless(line: &str) -> String {
    line.chars().map(|c| if printable(c) { c } else { '\u{fffd}' }).collect()
}

/// What YAML 1.2 §5.1 lets stand as it is, less the ends of lines and the byte order mark.
fn printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text, in quotes where it would be taken for something else.
fn scalar(text: &str) -> String {
    if plain(text) {
        return text.into();
    }
    let simple = text.chars().all(printable) && !text.contains(['\\', '\'']);
    // Single quotes leave backslashes of regular expressions as they are.
    if text.chars().all(printable) && (simple || text.contains('\\')) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if printable(c) => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

fn plain(text: &str) -> bool {
    const WORDS: [&str; 11] =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "none", "nan"];
    let begins = |c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '$' | '^');
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "-_./$^+@()|~=*".contains(c);
    text.chars().next().is_some_and(begins)
        && text.chars().all(goes_on)
        // `none` is a word of the spec, which it takes bare or in quotes.
        && (text == "none" || !WORDS.contains(&text.to_ascii_lowercase().as_str()))
        && text.len() <= 200
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::tests::as_json;

    fn anything() -> impl Strategy<Value = Value> {
        let words = [
            "no",
            "NULL",
            "~",
            "1e3",
            "0o7",
            "0x1f",
            ".5",
            "-",
            "- a",
            "a: b",
            "# c",
            "a #b",
            "",
            " ",
            "*x",
            "&y",
            "!z",
            "%w",
            "@v",
            "`u",
            "{",
            "[",
            "?",
            "|",
            ">",
            "---",
            "2026-11-24",
            "12:30",
            "1_000",
            ".inf",
            "'",
            "\"",
            "\\d+",
            "it's",
            "\u{85}",
            "ü",
        ];
        let text = prop_oneof![
            proptest::sample::select(words.to_vec()).prop_map(String::from),
            any::<String>(),
            "[a-z/:#'\"\\\\ {}\\[\\],&*-]{0,12}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let fields = proptest::collection::btree_map(text.clone(), inner.clone(), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in anything()) {
            let text = Yaml::from(&value).document();
            prop_assert_eq!(as_json(&text), value, "{}", text);
        }
    }

    #[test]
    fn it_looks_as_a_person_would_write_it() {
        let mut map = Map::new();
        map.set("version", 1_u64);
        map.comment("Where clients come.\nAll of them.");
        map.set("listeners", vec![Map::new().with("name", "web").with("listen", ":8080")]);
        let long = "a-rather-long-name.of-a-host.example.com:8080";
        map.set(
            "upstreams",
            vec![
                Map::new()
                    .with("name", "users")
                    .with("targets", vec![long, long, long])
                    .with("balance", "round_robin"),
            ],
        );
        map.set("regex", r"^/v\d+/it's$");
        map.comment("The end.");
        assert_eq!(
            Yaml::from(map).document(),
            format!(
                "version: 1
# Where clients come.
# All of them.
listeners:
  - {{name: web, listen: ':8080'}}
upstreams:
  - name: users
    targets:
      - '{long}'
      - '{long}'
      - '{long}'
    balance: round_robin
regex: '^/v\\d+/it''s$'
# The end.
"
            )
        );
    }
}
