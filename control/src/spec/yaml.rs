//! The canonical form as YAML, for people.

use std::fmt::Write;

use serde_json::Value;

/// `value` as block YAML that [`super::load`] reads back to the same.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0, true);
    out
}

/// Writes `value` after what introduces it; `fresh`: on a new line already.
fn block(out: &mut String, value: &Value, indent: usize, fresh: bool) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            // What it is comes first; the rest as JSON has it.
            let first = |key: &str| matches!(key, "name" | "version");
            let names = fields.iter().filter(|(key, _)| first(key.as_str()));
            let rest = fields.iter().filter(|(key, _)| !first(key.as_str()));
            for (at, (key, value)) in names.chain(rest).enumerate() {
                if at > 0 || !fresh {
                    line(out, indent);
                }
                scalar(out, &Value::String(key.clone()));
                out.push(':');
                match value {
                    Value::Object(below) if !below.is_empty() => {
                        block(out, value, indent + 2, false)
                    }
                    Value::Array(below) if !below.is_empty() => {
                        block(out, value, indent + 2, false)
                    }
                    _ => {
                        out.push(' ');
                        scalar(out, value);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 || !fresh {
                    line(out, indent);
                }
                out.push_str("- ");
                block(out, item, indent + 2, true);
            }
        }
        scalar_value => scalar(out, scalar_value),
    }
    if indent == 0 && fresh {
        out.push('\n');
    }
}

fn line(out: &mut String, indent: usize) {
    // Writing to a String cannot fail.
    _ = write!(out, "\n{:indent$}", "");
}

/// JSON's quoting is YAML's, too; plain only where nobody could take it for anything but text.
fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) if plain(text) => out.push_str(text),
        value => out.push_str(&value.to_string()),
    }
}

fn plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}
