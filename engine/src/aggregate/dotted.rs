//! Dotted paths into JSON, such as `data.items`. A dot in a name is written `\.`.

use crate::limits;
use crate::payload::json::{Json, Text};

/// Names from the outside in. Empty: the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dotted(Box<[Box<str>]>);

impl Dotted {
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Dotted, String> {
        if text.is_empty() {
            return Ok(Dotted::default());
        }
        let mut names = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let c = match c {
                '.' => {
                    names.push(String::new());
                    continue;
                }
                '\\' => match chars.next() {
                    Some(c @ ('.' | '\\')) => c,
                    _ => return Err("`\\` is followed by the dot or `\\` it stands for".into()),
                },
                c => c,
            };
            if let Some(last) = names.last_mut() {
                last.push(c);
            }
        }
        if names.iter().any(String::is_empty) {
            return Err("a path is names with dots between them, such as data.items".into());
        }
        match names.len() <= limits::POINTER_SEGMENTS {
            true => Ok(Dotted(names.into_iter().map(Box::from).collect())),
            false => Err(format!("at most {} names are allowed", limits::POINTER_SEGMENTS)),
        }
    }

    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands there. Names of digits are places in lists.
    pub fn find<'j, 'a>(&self, value: &'j Json<'a>) -> Option<&'j Json<'a>> {
        self.0.iter().try_fold(value, |value, name| match value {
            Json::Array(items) => items.get(name.parse::<usize>().ok()?),
            value => value.member(name),
        })
    }

    /// What stands there, taken out of the rest.
    pub fn take<'a>(&self, mut value: Json<'a>) -> Option<Json<'a>> {
        for name in &self.0 {
            let found = match &mut value {
                Json::Array(items) => items.get_mut(name.parse::<usize>().ok()?)?,
                value => value.member_mut(name)?,
            };
            value = std::mem::take(found);
        }
        Some(value)
    }

    /// Puts a value there. Objects that are missing on the way are made, nulls are replaced by them; what
    /// is anything else stays, and the value is dropped.
    pub fn put<'a>(&self, into: &mut Json<'a>, value: Json<'a>) {
        put(&self.0, into, value);
    }

    /// Calls `work` with what stands there, through lists on the way: `orders.items` is the items of every
    /// order.
    pub fn each<'a>(&self, value: &mut Json<'a>, work: &mut dyn FnMut(&mut Json<'a>)) {
        each(&self.0, value, work);
    }
}

fn put<'a>(names: &[Box<str>], into: &mut Json<'a>, value: Json<'a>) {
    let Some((first, rest)) = names.split_first() else {
        *into = value;
        return;
    };
    if *into == Json::Null {
        *into = Json::Object(Vec::new());
    }
    match into.member_mut(first) {
        Some(member) => put(rest, member, value),
        None => {
            let Json::Object(members) = into else { return };
            let mut made = Json::Null;
            put(rest, &mut made, value);
            members.push((Text::new(first), made));
        }
    }
}

fn each<'a>(names: &[Box<str>], value: &mut Json<'a>, work: &mut dyn FnMut(&mut Json<'a>)) {
    match (names.split_first(), value) {
        (None, value) => work(value),
        (Some(_), Json::Array(items)) => items.iter_mut().for_each(|item| each(names, item, work)),
        (Some((first, rest)), value) => {
            if let Some(member) = value.member_mut(first) {
                each(rest, member, work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn text(value: &Json<'_>) -> String {
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn finds_takes_and_puts() {
        let path = |text| Dotted::parse(text).unwrap();
        let value = json(r#"{"a":{"b":[{"c":12345678901234567890123}]},"d.e":2}"#);
        assert_eq!(path("a.b.0.c").find(&value).map(text).unwrap(), "12345678901234567890123");
        assert_eq!(path(r"d\.e").find(&value).map(text).unwrap(), "2");
        assert_eq!(path("").find(&value), Some(&value));
        assert_eq!(path("a.x").find(&value), None);
        assert_eq!(path("a.b").take(value.clone()).map(|v| text(&v)).unwrap().len(), 31);
        let mut value = value;
        path("a.n.m").put(&mut value, Json::Bool(true));
        path("a.b.x").put(&mut value, Json::Bool(true));
        assert_eq!(text(value.member("a").unwrap().member("n").unwrap()), r#"{"m":true}"#);
    }

    #[test]
    fn goes_through_lists() {
        let mut value = json(r#"{"o":[{"i":[1]},{"i":[2]},{"j":3},4]}"#);
        let mut seen = Vec::new();
        Dotted::parse("o.i").unwrap().each(&mut value, &mut |found| seen.push(text(found)));
        assert_eq!(seen, ["[1]", "[2]"]);
    }

    #[test]
    fn refuses_what_is_no_path() {
        for bad in [".", "a..b", "a.", r"a\b"] {
            assert!(Dotted::parse(bad).is_err(), "{bad}");
        }
    }
}
