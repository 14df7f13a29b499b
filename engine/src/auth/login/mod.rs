//! The login of browsers: authorization code with PKCE (RFC 6749 §4.1, RFC 7636, OpenID Connect Core
//! 1.0 §3.1), and a session in an encrypted cookie.
//!
//! A navigation without a session is sent to the provider ([`Login::begin`]), comes back to the callback
//! path ([`own_path`]), and is sent on to where it wanted to go, now with a session. The gateway keeps
//! nothing: what it has to know later is in cookies that only it can read, so any shard of any node goes
//! on with what another one began.

mod cookie;
mod refresh;
mod seal;
mod session;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::record::Reason;
use contract::snapshot::{self, CredentialSource, Snapshot};
use form_urlencoded::Serializer;
use serde_json::{Map, Value};

use self::cookie::Setting;
use self::refresh::{Refreshed, Refreshes};
use self::seal::{Seals, random};
use self::session::{Flow, Session, Tokens};
use super::credentials::{self, Found};
use super::jwt::claims::{self, Claims};
use super::jwt::parse::Token;
use super::jwt::verify::{KeySet, Verdict};
use super::registry::{Kind, Unfit, key_set};
use super::{Call, Check, Identity, Outcome, Refusal, Registry};
use crate::exchange::Request;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::shard::Shard;
use crate::store::http::{Clients, Endpoint, Failure};
use crate::store::oauth_client::OAuthClient;

/// An authenticator by sessions.
#[derive(Debug)]
pub struct Login {
    /// The cookie, to hide it.
    pub from: Box<[CredentialSource]>,
    rules: snapshot::Login,
    seals: Seals,
    provider: Arc<Provider>,
}

/// Whom the gateway asks about a login. Shared with the store thread.
#[derive(Debug)]
struct Provider {
    client: OAuthClient,
    client_id: Box<str>,
    issuer: Option<Box<str>>,
    token: Endpoint,
    keys: Arc<KeySet>,
    leeway_s: u64,
    refreshes: Refreshes,
}

/// Fields of an answer.
type Fields = Vec<(&'static str, Vec<u8>)>;

impl Login {
    pub fn build(from: &snapshot::Login, snapshot: &Snapshot) -> Result<Login, Unfit> {
        let keys = KeySet::build(key_set(snapshot, from.keys)?);
        let seals = Seals::new(&from.cookie_keys);
        if seals.is_empty() {
            return Err(("cookie_keys".into(), "is empty; sessions need a key".into()));
        }
        let identity = OAuthClient::identity(&from.client);
        let provider = Provider {
            client: OAuthClient::build(&from.client)?,
            client_id: from.client.id.as_str().into(),
            issuer: from.tokens.issuer.as_deref().map(Into::into),
            token: Endpoint::build(&from.token, identity, snapshot)?,
            keys: keys.map_err(|problem| ("keys".to_string(), problem))?,
            leeway_s: from.tokens.leeway_s.into(),
            refreshes: Refreshes::default(),
        };
        let sources: Vec<CredentialSource> = cookie::names(&from.cookie)
            .map(|name| CredentialSource::Cookie(name.into_owned()))
            .collect();
        Ok(Login { from: sources.into(), rules: from.clone(), seals, provider: Arc::new(provider) })
    }

    /// The session of a request, sealed.
    pub fn credential<'a>(&'a self, call: Call<'a>) -> Found<'a> {
        match cookie::whole(call.head, call.bytes, &self.rules.cookie) {
            Some(sealed) => Found::One(sealed),
            None => Found::Absent,
        }
    }

    pub fn verify<'a>(&'a self, call: Call<'a>, index: u32, credential: &[u8]) -> Check<'a> {
        let opened = self.seals.open(&self.rules.cookie, credential);
        // What we cannot read is as good as none: keys come and go, and a browser that is told to log in
        // again can do so. One that is told that its cookie is wrong cannot do anything.
        let Some(session) = opened.and_then(|bytes| Session::from_bytes(&bytes)) else {
            return Check::Now(Outcome::Absent);
        };
        let now_s = call.wall_ms() / 1_000;
        let end_s = session.begun_s.saturating_add(self.rules.lifetime_s.into());
        if now_s >= end_s {
            return Check::Now(Outcome::Absent);
        }
        let over = session.expires_s != 0 && now_s + limits::REFRESH_AHEAD_S >= session.expires_s;
        if !over {
            return Check::Now(self.identify(call, index, &session, Vec::new()));
        }
        if session.refresh_token.is_some() {
            let key = ring::digest::digest(&ring::digest::SHA256, credential);
            return Check::later(self.refresh(call, index, key, session));
        }
        match self.rules.forward_token {
            // The upstream would refuse it.
            true => Check::Now(Outcome::Absent),
            false => Check::Now(self.identify(call, index, &session, Vec::new())),
        }
    }

    /// Who a session is of. `cookies`: what the browser is to keep in its place.
    fn identify(
        &self,
        call: Call<'_>,
        index: u32,
        session: &Session,
        cookies: Vec<Vec<u8>>,
    ) -> Outcome {
        let (tokens, now_ms) = (&self.rules.tokens, call.wall_ms());
        let found = claims::identify(tokens, call.registry, index, session.claims.clone(), now_ms);
        let identity = match found {
            Ok(identity) => identity,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let mut fields = identity.fields.to_vec();
        if self.rules.forward_token
            && let Some(token) = &session.access_token
        {
            let value = format!("Bearer {token}").into_bytes();
            fields.push(("authorization".into(), value.into()));
        }
        let mut end_s = session.begun_s.saturating_add(self.rules.lifetime_s.into());
        if session.expires_s != 0 && (session.refresh_token.is_some() || self.rules.forward_token) {
            end_s = end_s.min(session.expires_s.saturating_sub(limits::REFRESH_AHEAD_S));
        }
        let most_ms =
            if cookies.is_empty() { limits::AUTH_SESSION_MS } else { limits::REFRESHED_MS };
        Outcome::Known(
            Identity {
                fields: fields.into(),
                until_ms: end_s.saturating_mul(1_000).min(now_ms + most_ms),
                answer: cookies.into_iter().map(|line| ("Set-Cookie", line)).collect(),
                ..identity
            }
            .into(),
        )
    }

    /// A session whose access token is over, with a new one. All requests of the node with that cookie
    /// wait for one question: a refresh token may be good only once (RFC 9700 §4.14.2).
    async fn refresh(
        &self,
        call: Call<'_>,
        index: u32,
        key: ring::digest::Digest,
        session: Session,
    ) -> Outcome {
        let (provider, http) = (self.provider.clone(), call.shard.desk().store().http());
        let now_ms = call.wall_ms();
        let asked = call
            .shard
            .desk()
            .ask(async move { provider.refreshed(&http, key, session, now_ms).await });
        match asked.await {
            Ok(Refreshed::Now(session)) => {
                let setting = self.setting(call);
                match self.sealed(&session, setting) {
                    Some(cookies) => self.identify(call, index, &session, cookies),
                    None => Outcome::Refused(Refusal::Unavailable),
                }
            }
            // The provider has ended it: a new login may do.
            Ok(Refreshed::Over) => Outcome::Absent,
            Ok(Refreshed::Unknown) | Err(_) => Outcome::Refused(Refusal::Unavailable),
        }
    }

    fn sealed(&self, session: &Session, setting: Setting<'_>) -> Option<Vec<Vec<u8>>> {
        let sealed = self.seals.seal(&self.rules.cookie, &session.to_bytes())?;
        cookie::set(&self.rules.cookie, &sealed, setting)
    }

    fn setting(&self, call: Call<'_>) -> Setting<'static> {
        let secure = is_secure(call);
        Setting { path: "/", max_age_s: self.rules.lifetime_s, secure }
    }

    /// Sends a navigation to the provider. `None`: this is no navigation, or the provider is not known
    /// yet; then it is refused as any other.
    pub fn begin(&self, call: Call<'_>, fields: &mut Fields) -> Option<LocalReply> {
        if !is_navigation(call) {
            return None;
        }
        if self.rules.authorization_url.is_empty() {
            fields.push(("Retry-After", b"1".to_vec()));
            return Some(LocalReply::new(503, Reason::AuthUnavailable));
        }
        let query = call.head.query(call.bytes);
        let path = match call.head.path(call.bytes) {
            [] => &b"/"[..],
            path => path,
        };
        let back = match query {
            Some(query) => [path, b"?", query].concat(),
            None => path.to_vec(),
        };
        let back = String::from_utf8(back).ok().filter(|back| back.len() <= limits::LOGIN_BACK);
        let flow = Flow {
            state: random(16)?,
            nonce: random(16)?,
            verifier: random(32)?,
            back: back.unwrap_or_else(|| "/".into()),
            begun_s: call.wall_ms() / 1_000,
        };
        let name = self.flow_cookie(&flow.state);
        let sealed = self.seals.seal(&name, &flow.to_bytes())?;
        let path = &self.rules.callback_path;
        let secure = is_secure(call);
        let setting = Setting { path, max_age_s: limits::LOGIN_S, secure };
        let location = self.authorization(call, &flow)?;
        fields.push(("Set-Cookie", cookie::line(&name, &sealed, setting)));
        Some(redirect(location, fields))
    }

    /// One for each login under way, as a browser may begin several at once.
    fn flow_cookie(&self, state: &str) -> String {
        let short: String = state.chars().take(8).collect();
        format!("{}_{short}", self.rules.cookie)
    }

    /// RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core §3.1.2.1.
    fn authorization(&self, call: Call<'_>, flow: &Flow) -> Option<String> {
        let challenge = ring::digest::digest(&ring::digest::SHA256, flow.verifier.as_bytes());
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("redirect_uri", &self.redirect_uri(call)?)
            .append_pair("scope", &self.rules.scopes.join(" "))
            .append_pair("state", &flow.state)
            .append_pair("nonce", &flow.nonce)
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256");
        let url = &self.rules.authorization_url;
        let separator = if url.contains('?') { '&' } else { '?' };
        Some(format!("{url}{separator}{}", query.finish()))
    }

    fn redirect_uri(&self, call: Call<'_>) -> Option<String> {
        Some(format!("{}{}", origin(call)?, self.rules.callback_path))
    }

    /// The browser comes back from the provider.
    async fn finish(&self, call: Call<'_>, index: u32, fields: &mut Fields) -> LocalReply {
        let refused = || LocalReply::new(401, Reason::CredentialInvalid);
        let query = call.head.query(call.bytes).unwrap_or_default();
        let parameters: Vec<_> = form_urlencoded::parse(query).collect();
        let parameter = |wanted: &str| {
            let mut found = parameters.iter().filter(|(name, _)| name == wanted);
            // RFC 6749 §3.1: none may be there twice.
            found.next().map(|(_, value)| value.as_ref()).filter(|_| found.next().is_none())
        };
        let Some(state) = parameter("state") else { return refused() };
        let name = self.flow_cookie(state);
        let flow = cookie::one(call.head, call.bytes, &name)
            .and_then(|sealed| self.seals.open(&name, sealed))
            .and_then(|bytes| Flow::from_bytes(&bytes));
        let now_ms = call.wall_ms();
        let in_time =
            |flow: &Flow| now_ms / 1_000 < flow.begun_s.saturating_add(limits::LOGIN_S.into());
        // Another browser's login is not this one's (RFC 9700 §4.7).
        let Some(flow) = flow.filter(|flow| flow.state == state && in_time(flow)) else {
            return refused();
        };
        let path = &self.rules.callback_path;
        let setting = Setting { path, max_age_s: 0, secure: is_secure(call) };
        fields.push(("Set-Cookie", cookie::line(&name, "", setting)));
        // RFC 9207 §2.4: an answer of another provider.
        if let (Some(given), Some(issuer)) = (parameter("iss"), &self.provider.issuer)
            && given != &**issuer
        {
            return refused();
        }
        let (Some(code), Some(redirect_uri)) = (parameter("code"), self.redirect_uri(call)) else {
            // The user has said no, or the provider cannot now.
            return match parameter("error") {
                Some("temporarily_unavailable" | "server_error") => unavailable(fields),
                _ => LocalReply::new(403, Reason::Forbidden),
            };
        };
        let (provider, http) = (self.provider.clone(), call.shard.desk().store().http());
        let (code, verifier) = (code.to_owned(), flow.verifier.clone());
        let asked = call.shard.desk().ask(async move {
            provider.exchange(&http, &code, &redirect_uri, &verifier, now_ms).await
        });
        let tokens = match asked.await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err(Refusal::Unavailable)) | Err(_) => return unavailable(fields),
            Ok(Err(_)) => return refused(),
        };
        let claims = match self.claims(call, index, tokens.id_token.as_deref()).await {
            Ok(claims) => claims,
            Err(Refusal::Unavailable) => return unavailable(fields),
            Err(_) => return refused(),
        };
        // OpenID Connect Core §3.1.3.7, 11: the token is of this login.
        if claims.get("nonce").and_then(Value::as_str) != Some(&flow.nonce) {
            return refused();
        }
        let tokens = Tokens {
            access_token: tokens.access_token.filter(|_| self.rules.forward_token),
            ..tokens
        };
        let session = Session::new(&claims, tokens, now_ms / 1_000);
        if let Outcome::Refused(_) = self.identify(call, index, &session, Vec::new()) {
            // Who they are is known, but they are not wanted here.
            return LocalReply::new(403, Reason::Forbidden);
        }
        match self.sealed(&session, self.setting(call)) {
            Some(cookies) => {
                fields.extend(cookies.into_iter().map(|line| ("Set-Cookie", line)));
                redirect(local(&flow.back).to_owned(), fields)
            }
            None => LocalReply::new(500, Reason::Internal),
        }
    }

    /// What an identity token says, if it is good. A key that nobody knows is waited for: the token comes
    /// from the provider itself, so there is one.
    async fn claims(
        &self,
        call: Call<'_>,
        index: u32,
        id_token: Option<&str>,
    ) -> Result<Claims, Refusal> {
        let token = Token::read(id_token.unwrap_or_default().as_bytes());
        let token = token.map_err(|_| Refusal::Invalid)?;
        let own = &self.provider.keys;
        if own.loaded && own.judge(&token) != Verdict::Unknown {
            return self.provider.believed(own, &token, call.wall_ms());
        }
        match self.fresh_keys(call, index, &token).await {
            Some(keys) => self.provider.believed(&keys, &token, call.wall_ms()),
            None => Err(Refusal::Unavailable),
        }
    }

    /// The provider's keys with the one that `token` names, once control has fetched them.
    async fn fresh_keys(&self, call: Call<'_>, index: u32, token: &Token) -> Option<Arc<KeySet>> {
        let shard = call.shard;
        shard.wish(self.provider.keys.wish?);
        let until_ms = shard.io.clock().now_ms() + limits::LOGIN_KEY_MS;
        let find = |kind: &Kind| match kind {
            Kind::Login(login) if login.provider.issuer == self.provider.issuer => {
                let keys = &login.provider.keys;
                let known = keys.loaded && keys.judge(token) != Verdict::Unknown;
                known.then(|| keys.clone())
            }
            _ => None,
        };
        call.in_newer(index, until_ms, find).await
    }

    /// Forgets the session here, and has the provider forget it (OpenID Connect RP-Initiated Logout 1.0).
    fn logout(&self, call: Call<'_>, fields: &mut Fields) -> LocalReply {
        let removed = cookie::remove(&self.rules.cookie, self.setting(call));
        fields.extend(removed.into_iter().map(|line| ("Set-Cookie", line)));
        let after = local(&self.rules.after_logout);
        let url = &self.rules.end_session_url;
        let location = match origin(call) {
            Some(origin) if !url.is_empty() => {
                let mut query = Serializer::new(String::new());
                query
                    .append_pair("client_id", &self.provider.client_id)
                    .append_pair("post_logout_redirect_uri", &format!("{origin}{after}"));
                let separator = if url.contains('?') { '&' } else { '?' };
                format!("{url}{separator}{}", query.finish())
            }
            _ => after.to_owned(),
        };
        redirect(location, fields)
    }
}

impl Provider {
    /// Tokens for a code (RFC 6749 §4.1.3).
    async fn exchange(
        &self,
        http: &Clients,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now_ms: u64,
    ) -> Result<Tokens, Refusal> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        self.ask(http, &parameters, now_ms).await
    }

    /// Asks for tokens.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: the server says no. [`Refusal::Unavailable`]: it cannot be asked, or will
    /// not have us.
    async fn ask(
        &self,
        http: &Clients,
        parameters: &[(&str, &str)],
        now_ms: u64,
    ) -> Result<Tokens, Refusal> {
        let asked = async {
            let question = self.client.question(&self.token, parameters, now_ms).await?;
            let answer = http.ask(&self.token, question).await?;
            // RFC 6749 §5.2: the grant is not good, which is the browser's business, not the operator's.
            if answer.status == 400 && is_refused_grant(&answer.body) {
                return Ok(None);
            }
            let object = answer.object()?;
            let tokens = Tokens::read(object, now_ms / 1_000);
            tokens.map(Some).ok_or(Failure::Malformed("these are no tokens"))
        };
        match asked.await {
            Ok(Some(tokens)) => Ok(tokens),
            Ok(None) => Err(Refusal::Invalid),
            Err(failure) => {
                self.token.complain(&failure);
                Err(Refusal::Unavailable)
            }
        }
    }

    /// The claims of an identity token for us (OpenID Connect Core §3.1.3.7).
    fn believed(&self, keys: &KeySet, token: &Token, now_ms: u64) -> Result<Claims, Refusal> {
        if keys.judge(token) != Verdict::Good {
            return Err(Refusal::Invalid);
        }
        let claims: Map<String, Value> =
            super::jwt::json::object(&token.payload).ok_or(Refusal::Invalid)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let number = |name: &str| claims.get(name).and_then(Value::as_f64);
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let authorized = text("azp").is_none_or(|azp| azp == &*self.client_id);
        let ours = audiences.contains(&&*self.client_id) && authorized;
        let issuer = self.issuer.as_deref().is_none_or(|issuer| text("iss") == Some(issuer));
        let now_s = now_ms as f64 / 1_000.0;
        let leeway_s = self.leeway_s as f64;
        let live = number("exp").is_some_and(|exp| exp + leeway_s > now_s)
            && number("iat").is_none_or(|iat| iat <= now_s + leeway_s);
        let good = ours && issuer && live && text("sub").is_some();
        good.then_some(claims).ok_or(Refusal::Invalid)
    }
}

fn is_refused_grant(body: &[u8]) -> bool {
    let error: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let error = error.as_ref().and_then(|object| object.get("error")).and_then(Value::as_str);
    error == Some("invalid_grant")
}

/// Answers what comes to the gateway's own paths: a login's callback and its logout.
///
/// # Errors
/// The answer, where the path is one of those.
pub async fn own_path(
    shard: &Shard,
    registry: &Registry,
    request: &mut Request,
) -> Result<(), LocalReply> {
    let Some((index, login, path)) = registry.own_path(request.path()) else { return Ok(()) };
    let mut fields = Vec::new();
    let call = Call::of(shard, registry, request);
    let reply = match (path, call.head.method(call.bytes)) {
        (OwnPath::Callback, b"GET") => login.finish(call, index, &mut fields).await,
        (OwnPath::Logout, b"GET" | b"POST") => login.logout(call, &mut fields),
        (OwnPath::Callback, _) => LocalReply::method_not_allowed(b"GET".to_vec()),
        (OwnPath::Logout, _) => LocalReply::method_not_allowed(b"GET, POST".to_vec()),
    };
    fields.push(("Cache-Control", b"no-store".to_vec()));
    request.answer_fields.append(&mut fields);
    Err(reply)
}

/// What a path of the gateway's own is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPath {
    Callback,
    Logout,
}

impl Login {
    pub fn own_path(&self, path: &[u8]) -> Option<OwnPath> {
        match path {
            path if path == self.rules.callback_path.as_bytes() => Some(OwnPath::Callback),
            path if path == self.rules.logout_path.as_bytes() => Some(OwnPath::Logout),
            _ => None,
        }
    }
}

fn unavailable(fields: &mut Fields) -> LocalReply {
    fields.push(("Retry-After", b"1".to_vec()));
    LocalReply::new(503, Reason::AuthUnavailable)
}

fn redirect(location: String, fields: &mut Fields) -> LocalReply {
    fields.push(("Location", location.into_bytes()));
    LocalReply::new(302, Reason::Login).with_text(302, "", "")
}

/// Only ever a path of this host: what begins with two slashes names another one.
fn local(path: &str) -> &str {
    let second = path.as_bytes().get(1);
    match path.starts_with('/') && !matches!(second, Some(b'/' | b'\\')) {
        true => path,
        false => "/",
    }
}

/// Whether a browser has gone here, and would follow to a page: what a script asks for gets its 401.
fn is_navigation(call: Call<'_>) -> bool {
    if !matches!(call.head.method(call.bytes), b"GET" | b"HEAD") || call.head.upgrade.is_some() {
        return false;
    }
    let first = |name: &[u8]| credentials::fields(call.head, call.bytes, name).next();
    match first(b"sec-fetch-mode") {
        Some(mode) => mode == b"navigate",
        None => first(b"accept").is_some_and(|accept| {
            accept
                .split(|&byte| byte == b',')
                .any(|kind| kind.trim_ascii().starts_with(b"text/html"))
        }),
    }
}

/// Whether the browser came over TLS: to us, or to a proxy whose word counts.
fn is_secure(call: Call<'_>) -> bool {
    let told = || credentials::fields(call.head, call.bytes, b"x-forwarded-proto").next();
    call.client.tls.is_some() || (call.client.trusted && told() == Some(b"https"))
}

/// `https://host[:port]` as the browser knows it.
fn origin(call: Call<'_>) -> Option<String> {
    let told = credentials::fields(call.head, call.bytes, b"x-forwarded-host").next();
    let told = told.filter(|_| call.client.trusted);
    let own = call.head.authority().map(|span| span.of(call.bytes));
    let host: Cow<'_, str> = String::from_utf8_lossy(told.or(own)?);
    Some(format!("{}://{host}", if is_secure(call) { "https" } else { "http" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_host_are_gone_back_to() {
        for (path, expected) in [
            ("/a?b=1", "/a?b=1"),
            ("/", "/"),
            ("//evil.test/x", "/"),
            ("/\\evil.test", "/"),
            ("https://evil.test/", "/"),
            ("", "/"),
        ] {
            assert_eq!(local(path), expected, "{path}");
        }
    }

    #[test]
    fn a_refused_grant_is_told_from_a_broken_server() {
        assert!(is_refused_grant(br#"{"error":"invalid_grant"}"#));
        for other in [&br#"{"error":"invalid_client"}"#[..], b"{}", b"<html>", b""] {
            assert!(!is_refused_grant(other));
        }
    }
}
