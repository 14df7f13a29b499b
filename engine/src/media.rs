//! Media types that rules name.

/// Media types: `application/json`, ranges (`text/*`, `*/*`), and `*+json`, which is any kind of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types(Box<[Box<str>]>);

impl Types {
    /// # Errors
    /// The first that is none, by its place in the list, and why.
    pub fn parse(list: &[String]) -> Result<Types, (usize, String)> {
        for (at, text) in list.iter().enumerate() {
            let good = match text.split_once('/') {
                Some((kind, sub)) => {
                    let word = |text: &str| {
                        !text.is_empty()
                            && text.bytes().all(|byte| {
                                byte.is_ascii_lowercase()
                                    || byte.is_ascii_digit()
                                    || b"!#$&^_.+-".contains(&byte)
                            })
                    };
                    (word(kind) || (kind == "*" && sub == "*")) && (word(sub) || sub == "*")
                }
                None => matches!(text.as_str(), "*+json" | "*+xml"),
            };
            if !good {
                let problem = "expected a media type in lower case without parameters, such as \
                               application/json, text/*, *+json or */*";
                return Err((at, problem.into()));
            }
        }
        Ok(Types(list.iter().map(|one| one.as_str().into()).collect()))
    }

    pub fn of(list: &[&str]) -> Types {
        Types(list.iter().map(|one| (*one).into()).collect())
    }

    /// Whether it is one of them. `content_type` with its parameters; empty where there is none, which only
    /// `*/*` takes.
    pub fn take(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii().to_ascii_lowercase();
        self.0.iter().any(|one| match (one.strip_suffix('*'), &**one) {
            (_, "*/*") => true,
            (Some(range), _) => essence.starts_with(range.as_bytes()),
            // RFC 6839 §3.1, RFC 7303 §9.
            (None, "*+json") => {
                matches!(&*essence, b"application/json" | b"text/json")
                    || essence.ends_with(b"+json")
            }
            (None, "*+xml") => {
                matches!(&*essence, b"application/xml" | b"text/xml") || essence.ends_with(b"+xml")
            }
            (None, known) => known.as_bytes() == essence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_taken_by_name_and_range() {
        let types = |list: &[&str]| Types::of(list);
        assert!(types(&["*+json"]).take(b"Application/JSON; charset=utf-8"));
        assert!(types(&["*+json"]).take(b"application/problem+json"));
        assert!(!types(&["*+json"]).take(b"application/jsonx") && !types(&["*+json"]).take(b""));
        assert!(types(&["text/*"]).take(b"text/html") && !types(&["text/*"]).take(b"textual/html"));
        assert!(types(&["*/*"]).take(b"") && types(&["*/*"]).take(b"x"));
        assert!(types(&["*+xml"]).take(b"image/svg+xml"));
        for bad in ["", "json", "Text/html", "a/b; c=d", "*/json", "/x", "x/", "a b/c"] {
            assert!(
                Types::parse(&["a/b".into(), bad.into()]).is_err_and(|(at, _)| at == 1),
                "{bad}"
            );
        }
        assert!(Types::parse(&["a/b".into(), "*/*".into(), "*+json".into()]).is_ok());
    }
}
