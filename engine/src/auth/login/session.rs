//! A session: what a browser keeps of a login, sealed in its cookie.

use serde_json::{Map, Value, json};

/// Claims of the identity token that say something of that token alone, not of who it is about.
const OF_THE_TOKEN: [&str; 8] =
    ["exp", "iat", "nbf", "nonce", "at_hash", "c_hash", "jti", "auth_time"];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Of the identity token.
    pub claims: Map<String, Value>,
    /// Kept only where upstreams get it.
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    /// When the access token ends; seconds since the Unix epoch, 0: not said.
    pub expires_s: u64,
    /// When the login was; a refresh does not move it.
    pub begun_s: u64,
}

impl Session {
    pub fn new(claims: &Map<String, Value>, tokens: Tokens, now_s: u64) -> Session {
        let lasting = |name: &&str| !OF_THE_TOKEN.contains(name);
        let names = claims.keys().map(String::as_str).filter(lasting);
        let claims = names.filter_map(|name| Some((name.into(), claims.get(name)?.clone())));
        Session {
            claims: claims.collect(),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expires_s: tokens.expires_s,
            begun_s: now_s,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut object = Map::new();
        object.insert("c".into(), Value::Object(self.claims.clone()));
        object.insert("b".into(), json!(self.begun_s));
        object.insert("x".into(), json!(self.expires_s));
        if let Some(token) = &self.access_token {
            object.insert("a".into(), json!(token));
        }
        if let Some(token) = &self.refresh_token {
            object.insert("r".into(), json!(token));
        }
        Value::Object(object).to_string().into_bytes()
    }

    /// Only what [`Session::to_bytes`] wrote gets here (it was sealed), perhaps in an earlier release.
    pub fn from_bytes(bytes: &[u8]) -> Option<Session> {
        let mut object: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let mut text = |name: &str| match object.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (access_token, refresh_token) = (text("a"), text("r"));
        let Some(Value::Object(claims)) = object.remove("c") else { return None };
        Some(Session {
            claims,
            access_token,
            refresh_token,
            expires_s: object.get("x")?.as_u64()?,
            begun_s: object.get("b")?.as_u64()?,
        })
    }
}

/// What the token endpoint gave (RFC 6749 §5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub id_token: Option<String>,
    pub access_token: Option<String>,
    pub refresh_token: Option<String>,
    /// Seconds since the Unix epoch; 0: not said.
    pub expires_s: u64,
}

impl Tokens {
    /// `None`: that is no answer to a question for tokens.
    pub fn read(mut answer: Map<String, Value>, now_s: u64) -> Option<Tokens> {
        // RFC 6749 §7.1: a type that is not understood must not be used.
        let is_bearer = answer.get("token_type")?.as_str()?.eq_ignore_ascii_case("bearer");
        let lifetime_s = match answer.get("expires_in") {
            None => None,
            // Some servers write it as a text.
            Some(Value::String(text)) => Some(text.parse().ok()?),
            Some(number) => Some(number.as_u64()?),
        };
        let mut text = |name: &str| match answer.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let tokens = Tokens {
            id_token: text("id_token"),
            access_token: Some(text("access_token")?),
            refresh_token: text("refresh_token"),
            expires_s: lifetime_s.map_or(0, |lifetime_s: u64| now_s.saturating_add(lifetime_s)),
        };
        is_bearer.then_some(tokens)
    }
}

/// A login that has begun: what the browser keeps until it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub state: String,
    pub nonce: String,
    /// RFC 7636 §4.1.
    pub verifier: String,
    /// Path and query to go to afterwards.
    pub back: String,
    pub begun_s: u64,
}

impl Flow {
    pub fn to_bytes(&self) -> Vec<u8> {
        let Flow { state, nonce, verifier, back, begun_s } = self;
        json!([state, nonce, verifier, back, begun_s]).to_string().into_bytes()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Flow> {
        let (state, nonce, verifier, back, begun_s) = serde_json::from_slice(bytes).ok()?;
        Some(Flow { state, nonce, verifier, back, begun_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn sessions_and_flows_come_back_as_they_were() {
        let claims = object(json!({"sub": "ann", "iss": "i", "exp": 7, "nonce": "n", "g": ["a"]}));
        let tokens = Tokens {
            access_token: Some("at".into()),
            refresh_token: Some("rt".into()),
            expires_s: 99,
            ..Tokens::default()
        };
        let session = Session::new(&claims, tokens, 5);
        assert_eq!(session.claims, object(json!({"sub": "ann", "iss": "i", "g": ["a"]})));
        assert_eq!(Session::from_bytes(&session.to_bytes()), Some(session.clone()));
        let bare = Session { access_token: None, refresh_token: None, ..session };
        assert_eq!(Session::from_bytes(&bare.to_bytes()), Some(bare));
        assert_eq!(Session::from_bytes(b"{}"), None);
        let flow = Flow {
            state: "s".into(),
            nonce: "n".into(),
            verifier: "v".into(),
            back: "/a?b".into(),
            begun_s: 3,
        };
        assert_eq!(Flow::from_bytes(&flow.to_bytes()), Some(flow));
    }

    #[test]
    fn answers_of_token_endpoints() {
        let good = json!({"access_token": "a", "token_type": "bearer", "expires_in": 60});
        let read = |value: Value| Tokens::read(object(value), 100);
        assert_eq!(read(good).unwrap().expires_s, 160);
        assert!(read(json!({"access_token": "a", "token_type": "mac"})).is_none());
        assert!(read(json!({"token_type": "Bearer"})).is_none());
        assert!(read(json!({"access_token": 1, "token_type": "Bearer"})).is_none());
        let endless = json!({"access_token": "a", "token_type": "Bearer", "id_token": "i"});
        assert_eq!(read(endless).unwrap().expires_s, 0);
    }
}
