//! The router's explanation of one request, as the API and the command line carry it.

use std::fmt::{self, Write};

use contract::snapshot::{AuthenticatorKind, Snapshot, Unidentified};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod changes;
mod limits;

pub use changes::changes;
pub use limits::{Met, Tier, met};

/// The request to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    pub method: String,
    /// May have a port; empty: none.
    #[serde(default)]
    pub host: String,
    /// As on the request line, `/users/7?full=1`.
    pub path_and_query: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Who calls, where that matters: for limits. Credentials are not looked at.
    #[serde(default)]
    pub consumer: Option<String>,
    /// With which of its keys in the spec, by what people recognise it: its prefix, or the beginning of
    /// its hash.
    #[serde(default)]
    pub key: Option<String>,
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
        let (method, consumer, key) = (method.to_ascii_uppercase(), None, None);
        Ok(Question { method, host, path_and_query, headers, consumer, key })
    }

    /// # Errors
    /// There is no such consumer, or it has no such key.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), String> {
        let Some(name) = &self.consumer else {
            return match self.key {
                Some(_) => Err("say whose key that is, too: --consumer NAME".into()),
                None => Ok(()),
            };
        };
        let Some(consumer) = snapshot.auth.consumers.iter().find(|one| one.name == *name) else {
            return Err(format!(
                "there is no consumer `{name}`; `sluice get consumers` lists them"
            ));
        };
        let known: Vec<&str> = consumer.api_keys.iter().map(|key| &*key.prefix).collect();
        match &self.key {
            Some(key) if known.is_empty() => {
                Err(format!("consumer `{name}` has no key in the spec, so none is called `{key}`"))
            }
            Some(key) if !known.contains(&key.as_str()) => Err(format!(
                "consumer `{name}` has no key `{key}` in the spec; it has {}",
                known.join(", ")
            )),
            _ => Ok(()),
        }
    }
}

/// What the gateway does with a request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The path that was matched, in normal form.
    pub path: String,
    /// Every route but the one that matched, the nearest to matching first.
    pub others: Vec<Other>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    Matched {
        route: String,
        /// Path and query as the upstream gets them.
        rewritten: String,
        backends: Vec<Share>,
        /// What is asked of the caller; null: nothing.
        #[serde(default)]
        asked: Option<Box<Asked>>,
        /// All of them must have room.
        #[serde(default)]
        limits: Vec<Met>,
        /// What the route changes, or answers itself, beside `rewritten`; values are its templates.
        #[serde(default)]
        changes: Vec<String>,
    },
    NotFound,
    MethodNotAllowed {
        allow: Vec<String>,
    },
    BadPath {
        problem: String,
    },
}

/// What a route asks of its callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// Names, with the kind of each.
    pub authenticators: Vec<(String, String)>,
    /// All of them have to know the caller; otherwise any of them is enough.
    pub all: bool,
    /// Requests without a credential go on.
    pub optional: bool,
    /// As this consumer's.
    pub anonymous: Option<String>,
    pub scopes: Vec<String>,
    /// One of them is needed.
    pub groups: Vec<String>,
    pub policy: Option<String>,
}

/// What the route of this name asks of its callers.
pub fn asked(snapshot: &Snapshot, route: &str) -> Option<Box<Asked>> {
    let route = snapshot.routes.iter().find(|one| one.name == route)?;
    let rules = route.auth.as_ref()?;
    let auth = &snapshot.auth;
    let authenticator = |at: &u32| {
        let one = auth.authenticators.get(*at as usize)?;
        Some((one.name.clone(), word(&one.kind).to_owned()))
    };
    let anonymous = match rules.unidentified {
        Unidentified::As(at) => auth.consumers.get(at as usize).map(|one| one.name.clone()),
        Unidentified::Pass | Unidentified::Refuse => None,
    };
    Some(Box::new(Asked {
        authenticators: rules.authenticators.iter().filter_map(authenticator).collect(),
        all: rules.all,
        optional: rules.unidentified == Unidentified::Pass,
        anonymous,
        scopes: rules.scopes.clone(),
        groups: rules.groups.clone(),
        policy: rules.policy.clone(),
    }))
}

/// A kind of authenticator, as the spec calls it.
pub fn word(kind: &AuthenticatorKind) -> &'static str {
    match kind {
        AuthenticatorKind::ApiKey(_) => "api_key",
        AuthenticatorKind::Jwt(_) => "jwt",
        AuthenticatorKind::Introspection(_) => "introspection",
        AuthenticatorKind::Login(_) => "login",
        AuthenticatorKind::Certificate(_) => "certificate",
        AuthenticatorKind::Basic(_) => "basic",
        AuthenticatorKind::Signature(_) => "signature",
        AuthenticatorKind::External(_) => "external",
    }
}

impl fmt::Display for Asked {
    /// For people: `any of keys (api_key), corp (jwt); scopes orders:read`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.authenticators.iter().map(|(name, kind)| format!("{name} ({kind})"));
        let names: Vec<String> = names.collect();
        match (names.len(), self.all) {
            (1, _) => {}
            (_, true) => f.write_str("all of ")?,
            (_, false) => f.write_str("any of ")?,
        }
        f.write_str(&names.join(", "))?;
        if self.optional {
            f.write_str(", or nobody")?;
        }
        if let Some(consumer) = &self.anonymous {
            write!(f, ", or nobody as {consumer}")?;
        }
        if !self.scopes.is_empty() {
            write!(f, "; scopes {}", self.scopes.join(" "))?;
        }
        if !self.groups.is_empty() {
            write!(f, "; in {}", self.groups.join(" or "))?;
        }
        match &self.policy {
            Some(policy) => {
                let words: Vec<&str> = policy.split_whitespace().collect();
                write!(f, "; {}", words.join(" "))
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ShareOfRoute")]
pub struct Share {
    pub upstream: String,
    pub weight: u32,
}

/// A route that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
            Outcome::Matched { route, rewritten, backends, asked, limits, changes } => {
                let total: u32 = backends.iter().map(|share| share.weight).sum();
                let shares: Vec<String> = backends
                    .iter()
                    .map(|share| match backends.len() {
                        1 => share.upstream.clone(),
                        _ => format!("{} ({} of {total})", share.upstream, share.weight),
                    })
                    .collect();
                let asked = asked.as_ref().map(|asked| format!("auth      {asked}\n"));
                let upstream = match shares.as_slice() {
                    [] => String::new(),
                    shares => format!("upstream  {}\n", shares.join(", ")),
                };
                let words = ["changes  ", "         "].into_iter();
                let words = words.chain(std::iter::repeat("         "));
                let changes = words.zip(changes).map(|(word, line)| format!("{word} {line}\n"));
                write!(
                    text,
                    "route     {route}\n{}{upstream}path      {rewritten}\n{}",
                    asked.unwrap_or_default(),
                    changes.collect::<String>()
                )
                .and_then(|()| match limits.as_slice() {
                    [] => Ok(()),
                    limits => {
                        text.push_str("\nlimits, all of which must have room:\n");
                        let table = limits::table(limits);
                        table.lines().try_for_each(|line| writeln!(text, "  {line}"))
                    }
                })
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
    fn what_is_asked_of_callers_is_told() {
        let text = "version: 1
listeners: [{name: a, listen: ':1'}]
upstreams: [{name: u, targets: ['10.0.0.1:1']}]
authenticators: [{name: keys, api_key: }, {name: people, basic: {}}]
consumers: [{name: guest}]
groups: [{name: gold}, {name: staff}]
routes:
- {name: open, upstream: u}
- {name: one, upstream: u, match: {path: /one}, auth: keys}
- name: more
  upstream: u
  match: {path: /more}
  auth: {all: [keys, people], anonymous: guest, scopes: [a, b], groups: [gold, staff], policy: '1
    == 1'}
";
        let loaded = crate::spec::load("t.yaml", text);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        let snapshot = crate::fit::plain(&spec, &crate::material::Material::default());
        let told = |route| asked(&snapshot, route).map(|asked| asked.to_string());
        assert_eq!(told("open"), None);
        assert_eq!(told("one").as_deref(), Some("keys (api_key)"));
        assert_eq!(
            told("more").as_deref(),
            Some(
                "all of keys (api_key), people (basic), or nobody as guest; scopes a b; in gold or \
                 staff; 1 == 1"
            )
        );
        let outcome = Outcome::Matched {
            route: "one".into(),
            rewritten: "/one".into(),
            backends: vec![Share { upstream: "u".into(), weight: 1 }],
            asked: asked(&snapshot, "one"),
            limits: Vec::new(),
            changes: Vec::new(),
        };
        let answer = Explanation { outcome, path: "/one".into(), others: Vec::new() };
        let expected = "route     one\nauth      keys (api_key)\nupstream  u\npath      /one\n";
        assert_eq!(answer.to_text(false), expected);
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), answer);
        // As control of an earlier release answers.
        let old = json.replace(",\"limits\":[],\"changes\":[]", "");
        assert_ne!(old, json);
        assert_eq!(serde_json::from_str::<Explanation>(&old).unwrap(), answer);
    }

    #[test]
    fn limits_are_told_below_the_route() {
        let text = "version: 1
listeners: [{name: a, listen: ':1'}]
upstreams: [{name: u, targets: ['10.0.0.1:1']}]
limits: [{name: plan, by: [address], requests: 5, per: 1s, mode: local}]
consumers:
- name: acme
  api_keys: [{sha256: '0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a', prefix: acme_x}, {sha256: '0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b'}]
- name: bare
routes: [{name: one, upstream: u, limits: [plan]}]
";
        let spec = crate::spec::load("t.yaml", text).spec.unwrap();
        let snapshot = crate::fit::plain(&spec, &crate::material::Material::default());
        let outcome = Outcome::Matched {
            route: "one".into(),
            rewritten: "/".into(),
            backends: vec![Share { upstream: "u".into(), weight: 1 }],
            asked: None,
            limits: met(&snapshot, "one", None, None, |_| true),
            changes: Vec::new(),
        };
        let answer = Explanation { outcome, path: "/".into(), others: Vec::new() };
        let expected = "route     one
upstream  u
path      /

limits, all of which must have room:
  LIMIT  OF     BY       QUOTA     COST  MODE
  plan   route  address  5 per 1s  1     local
";
        assert_eq!(answer.to_text(false), expected);
        let mut question = Question::new("GET", "/", vec![]).unwrap();
        assert_eq!(question.check(&snapshot), Ok(()));
        question.consumer = Some("acme".into());
        assert_eq!(question.check(&snapshot), Ok(()));
        question.consumer = Some("acne".into());
        assert!(question.check(&snapshot).unwrap_err().contains("`acne`"));
        let with = |consumer: Option<&str>, key: &str| {
            let (consumer, key) = (consumer.map(Into::into), Some(key.into()));
            Question { consumer, key, ..question.clone() }.check(&snapshot)
        };
        assert_eq!(with(Some("acme"), "acme_x"), Ok(()));
        assert_eq!(with(Some("acme"), "0b0b0b0b"), Ok(()));
        let unknown = with(Some("acme"), "acme_y").unwrap_err();
        assert_eq!(
            unknown,
            "consumer `acme` has no key `acme_y` in the spec; it has acme_x, 0b0b0b0b"
        );
        assert!(with(Some("bare"), "acme_x").unwrap_err().contains("no key in the spec"));
        assert!(with(Some("acne"), "acme_x").unwrap_err().contains("no consumer"));
        assert!(with(None, "acme_x").unwrap_err().contains("--consumer"));
    }

    #[test]
    fn what_is_changed_is_told() {
        let text = "version: 1
listeners: [{name: a, listen: ':1'}]
upstreams: [{name: u, targets: ['10.0.0.1:1']}]
routes:
- name: one
  upstream: u
  request: {path: '/v2/${path.rest}', headers: {set: {x-a: '1'}, remove: [x-b]}}
  response: {status: {404: 410, 5xx: 503}, cookies: {rewrite: [{secure: true}]}}
- {name: two, match: {path: /two}, redirect: '/new/${path.rest}'}
";
        let spec = crate::spec::load("t.yaml", text).spec.unwrap();
        let snapshot = crate::fit::plain(&spec, &crate::material::Material::default());
        let told = |route: &str, backends: Vec<Share>| {
            let outcome = Outcome::Matched {
                route: route.into(),
                rewritten: "/".into(),
                backends,
                asked: None,
                limits: Vec::new(),
                changes: changes(&snapshot, route),
            };
            let answer = Explanation { outcome, path: "/".into(), others: Vec::new() };
            answer.to_text(false)
        };
        let expected = "route     one
upstream  u
path      /
changes   path /v2/${path.rest}
          request headers x-b, x-a
          status 404 becomes 410
          status 500-599 becomes 503
          attributes of response cookies
";
        assert_eq!(told("one", vec![Share { upstream: "u".into(), weight: 1 }]), expected);
        let expected = "route     two
path      /
changes   answered with 302 to /new/${path.rest}
";
        assert_eq!(told("two", vec![]), expected);
    }

    #[test]
    fn a_host_header_wins_over_the_url() {
        let headers = vec![("Host".into(), "b".into()), ("X-A".into(), "1".into())];
        let question = Question::new("GET", "http://a/", headers).unwrap();
        assert_eq!(question.host, "b");
        assert_eq!(question.headers, [("X-A".to_string(), "1".to_string())]);
    }
}
