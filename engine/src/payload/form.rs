//! `application/x-www-form-urlencoded` as JSON and back (WHATWG URL §5).
//!
//! `a=1&b=2&b=3` is `{"a":"1","b":["2","3"]}`: values are strings, a name that is there more than once is
//! an array. Back: strings, numbers and booleans as they are, null as nothing at all, an array once for
//! each of its items, anything deeper as JSON.

use form_urlencoded::Serializer;

use super::json::{Json, Text};
use crate::limits;

/// # Errors
/// There are more than [`limits::FORM_PAIRS`] pairs.
pub fn read(bytes: &[u8]) -> Result<Json<'static>, &'static str> {
    let mut places = std::collections::HashMap::new();
    let mut members: Vec<(Text<'static>, Json<'static>)> = Vec::new();
    for (at, (name, value)) in form_urlencoded::parse(bytes).enumerate() {
        if at >= limits::FORM_PAIRS {
            return Err("there are too many pairs in the form");
        }
        let value = Json::string(&value);
        match places.get(&name) {
            None => {
                members.push((Text::new(&name), value));
                places.insert(name, members.len() - 1);
            }
            Some(&at) => match &mut members[at].1 {
                Json::Array(items) => items.push(value),
                one => {
                    let first = std::mem::take(one);
                    *one = Json::Array(vec![first, value]);
                }
            },
        }
    }
    Ok(Json::Object(members))
}

/// # Errors
/// It is no object.
pub fn write(value: &Json<'_>) -> Result<Vec<u8>, &'static str> {
    let Json::Object(members) = value else {
        return Err("only an object can be written as a form");
    };
    let mut out = Serializer::new(String::new());
    for (name, value) in members {
        let name = name.decoded();
        match value {
            Json::Null => {}
            Json::Array(items) => {
                for item in items {
                    out.append_pair(&name, &item.to_text());
                }
            }
            value => drop(out.append_pair(&name, &value.to_text())),
        }
    }
    Ok(out.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(form: &str) -> String {
        String::from_utf8(read(form.as_bytes()).unwrap().to_vec()).unwrap()
    }

    fn form(json: &str) -> String {
        String::from_utf8(write(&Json::parse(json.as_bytes()).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn forms_are_objects() {
        assert_eq!(
            json("a=1&b=2&b=3&c&d=%C3%A9+x%22&b=4"),
            r#"{"a":"1","b":["2","3","4"],"c":"","d":"é x\""}"#
        );
        assert_eq!(json(""), "{}");
        assert_eq!(json("=&%zz=%ff"), "{\"\":\"\",\"%zz\":\"\u{fffd}\"}");
        assert!(read("a&".repeat(limits::FORM_PAIRS + 1).as_bytes()).is_err());
    }

    #[test]
    fn objects_are_forms() {
        let text = r#"{"a":1.10,"b":["x y",true],"c":null,"d":{"e":[1]},"é":"&=","big":1234567890123456789012}"#;
        let want = "a=1.10&b=x+y&b=true&d=%7B%22e%22%3A%5B1%5D%7D&%C3%A9=%26%3D&big=1234567890123456789012";
        assert_eq!(form(text), want);
        assert!(write(&Json::parse(b"[1]").unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn a_form_is_the_same_after_both_ways(pairs in prop::collection::vec((".{0,4}", ".{0,6}"), 0..8)) {
            let mut names = std::collections::HashSet::new();
            let pairs: Vec<_> = pairs.into_iter().filter(|(name, _)| names.insert(name.clone())).collect();
            let text = Serializer::new(String::new()).extend_pairs(&pairs).finish();
            let back = write(&read(text.as_bytes()).unwrap()).unwrap();
            prop_assert_eq!(back, text.into_bytes());
        }
    }
}
