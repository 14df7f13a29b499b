//! Entry point for fuzzing: it panics where a promise is broken, never on bad input.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{
    CallPart, Escape, JsonTemplate, Reference, Scope, Template, Values, is_field_value, text_of,
};

/// Everything that there is.
pub(super) fn everything() -> Scope {
    let names = |names: [&str; 2]| names.map(String::from);
    Scope::request(names(["id", "1"]))
        .with_response()
        .with_body()
        .with_calls(names(["users", "stock"]))
        .with_item()
}

/// Answers everything with one JSON value, or with text that is nobody's friend.
pub(super) struct Nasty(pub Value);

impl Values for Nasty {
    fn text(&self, what: &Reference) -> Option<Cow<'_, [u8]>> {
        match what {
            Reference::Claim(pointer) | Reference::Body(pointer) | Reference::Item(pointer) => {
                pointer.find(&self.0).and_then(text_of)
            }
            Reference::Call { part: CallPart::Body(pointer), .. } => {
                pointer.find(&self.0).and_then(text_of)
            }
            Reference::Cookie(_) => None,
            Reference::Path => Some(Cow::Borrowed(b"/a%20b/c")),
            _ => Some(Cow::Borrowed(b"a\r\nb: c\0/../\xff\"%2F ")),
        }
    }

    fn value(&self, what: &Reference) -> Option<Value> {
        match what {
            Reference::Claim(pointer) | Reference::Body(pointer) | Reference::Item(pointer) => {
                pointer.find(&self.0).cloned()
            }
            what => {
                let text = self.text(what)?;
                Some(Value::String(String::from_utf8_lossy(&text).into_owned()))
            }
        }
    }
}

/// Compiles `data` as a template; what compiles is rendered in every way.
#[doc(hidden)]
pub fn fuzz_template(data: &[u8]) {
    static KNOWN: OnceLock<(Scope, Nasty)> = OnceLock::new();
    let (scope, values) = KNOWN.get_or_init(|| {
        let value = json!({"a": [1, 2.5, null, "x\r\n"], "b": {"c": true}, "sub": "me"});
        (everything(), Nasty(value))
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    let template = match Template::compile(text, scope) {
        Ok(template) => template,
        Err(error) => {
            assert!(error.at <= text.len() && text.is_char_boundary(error.at));
            assert!(!error.problem.is_empty());
            return;
        }
    };
    let start = b"before".to_vec();
    for escape in [Escape::None, Escape::Path, Escape::Query, Escape::Html, Escape::Header] {
        let mut out = start.clone();
        let rendered = template.text(values, escape, &mut out);
        assert!(out.starts_with(&start));
        match rendered {
            Err(_) => assert_eq!(out, start),
            Ok(()) if escape == Escape::Header && is_field_value(data) => {
                // Literals in quotes may hold escapes, but what they become is looked at, too.
                assert!(is_field_value(&out), "{out:?}");
            }
            Ok(()) => {}
        }
    }
    if let Some(literal) = template.literal() {
        let mut out = Vec::new();
        assert!(template.text(values, Escape::None, &mut out).is_ok());
        assert_eq!(out, literal.as_bytes());
        assert_eq!(template.value(values), Some(Value::String(literal.into())));
    }
    let json = json!([text, {"a": text}]);
    let json = JsonTemplate::compile(&json, scope);
    let json = json.map(|json| json.render(values));
    assert!(json.is_ok_and(|value| value.is_ok() == template.value(values).is_some()));
}
