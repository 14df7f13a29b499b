//! The router's explanation of one request, as the API and the command line carry it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The request to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub method: String,
    /// May have a port; empty: none.
    #[serde(default)]
    pub host: String,
    /// As on the request line, `/users/7?full=1`.
    pub path_and_query: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

impl Question {
    /// The request for `url`, which may be absolute (`http://host/path?query`) or just a path.
    pub fn new(
        method: &str,
        url: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Question, &'static str> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let (host, target) = match rest {
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                rest.split_at(end)
            }
            None if url.starts_with('/') => ("", url),
            None => return Err("the URL must begin with http://, https:// or /"),
        };
        // A fragment never leaves the client.
        let target = target.split('#').next().unwrap_or_default();
        let path_and_query =
            if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = named.map_or(host, |(_, value)| value).to_owned();
        let headers =
            headers.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")).collect();
        Ok(Question { method: method.to_ascii_uppercase(), host, path_and_query, headers })
    }
}

/// What the gateway does with a request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The path that was matched, in normal form.
    pub path: String,
    /// Every route but the one that matched, the nearest to matching first.
    pub others: Vec<Other>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    Matched {
        route: String,
        /// Path and query as the upstream gets them.
        rewritten: String,
        backends: Vec<Share>,
    },
    NotFound,
    MethodNotAllowed {
        allow: Vec<String>,
    },
    BadPath {
        problem: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub upstream: String,
    pub weight: u32,
}

/// A route that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    pub route: String,
    /// One stable word: `outranked`, `method`, `query`, `header`, `path`, `host`.
    pub verdict: String,
    /// The verdict for people.
    pub why: String,
}

impl Explanation {
    /// For people; `all` shows also the routes that are far from matching.
    pub fn to_text(&self, all: bool) -> String {
        const NEAR: usize = 10;
        let mut text = String::new();
        // Writing to a String cannot fail.
        _ = match &self.outcome {
            Outcome::Matched { route, rewritten, backends } => {
                let total: u32 = backends.iter().map(|share| share.weight).sum();
                let shares: Vec<String> = backends
                    .iter()
                    .map(|share| match backends.len() {
                        1 => share.upstream.clone(),
                        _ => format!("{} ({} of {total})", share.upstream, share.weight),
                    })
                    .collect();
                writeln!(
                    text,
                    "route     {route}\nupstream  {}\npath      {rewritten}",
                    shares.join(", ")
                )
            }
            Outcome::NotFound => writeln!(text, "no route matches: the answer is 404"),
            Outcome::MethodNotAllowed { allow } => writeln!(
                text,
                "the path matches, the method does not: the answer is 405 with Allow: {}",
                allow.join(", ")
            ),
            Outcome::BadPath { problem } => {
                writeln!(text, "the path is refused before routing: the answer is 400 ({problem})")
            }
        };
        if self.others.is_empty() {
            return text;
        }
        text.push_str("\nother routes, nearest first:\n");
        let shown = if all { self.others.len() } else { NEAR.min(self.others.len()) };
        let wide = self.others.iter().take(shown).map(|other| other.route.len()).max().unwrap_or(0);
        for other in self.others.iter().take(shown) {
            _ = writeln!(text, "  {:wide$}  {}", other.route, other.why);
        }
        if shown < self.others.len() {
            _ = writeln!(text, "  … {} more (--all shows them)", self.others.len() - shown);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_questions() {
        let ask = |url| Question::new("get", url, vec![]).unwrap();
        let question = ask("http://a.example:8080/x?y=1#z");
        assert_eq!(question.method, "GET");
        assert_eq!((&*question.host, &*question.path_and_query), ("a.example:8080", "/x?y=1"));
        assert_eq!(ask("http://a.example").path_and_query, "/");
        assert_eq!(ask("https://a.example?q").path_and_query, "/?q");
        assert_eq!(ask("/only").host, "");
        assert!(Question::new("GET", "a.example/x", vec![]).is_err());
    }

    #[test]
    fn a_host_header_wins_over_the_url() {
        let headers = vec![("Host".into(), "b".into()), ("X-A".into(), "1".into())];
        let question = Question::new("GET", "http://a/", headers).unwrap();
        assert_eq!(question.host, "b");
        assert_eq!(question.headers, [("X-A".to_string(), "1".to_string())]);
    }
}
