//! The way of a request before its handler: who asks, the whole body, what they may; and what is
//! written down of it afterwards.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Extension, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde_json::Value;

use super::{Problem, bounds::Bounds, guard::Guard};
use crate::{
    access::{Gate, Principal, Proof},
    running::Running,
    spec::{self, Role},
    store::{AuditDraft, Remembered},
};

/// Longest time for a body to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer to a change that is kept for its idempotency key, in bytes.
const MAX_REMEMBERED: usize = 1 << 20;
/// Refused attempts that are written down at once, and then one per second: who may do nothing must
/// not fill the disk.
const REFUSALS: f64 = 100.0;

/// From where a connection comes, and what its client certificate says.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Names in its certificate, which has been verified.
    pub names: Vec<String>,
}

/// Who asks, once let in.
#[derive(Clone, Debug)]
pub struct Caller {
    pub by: Principal,
    /// Address.
    pub source: String,
    /// What the audit log calls what is asked for.
    pub action: &'static str,
    pub target: String,
}

impl Caller {
    /// The entry of the audit log for what it is about to do.
    pub fn deed(&self, claimed: &str) -> AuditDraft {
        AuditDraft {
            actor: self.by.author(claimed),
            source: self.source.clone(),
            action: self.action.into(),
            target: self.target.clone(),
            revision: None,
            outcome: "done".into(),
        }
    }
}

/// What admission needs to know.
#[derive(Clone)]
pub struct Door {
    pub running: Running,
    pub gate: Gate,
    pub guard: Guard,
    /// Changes with an idempotency key that are under way.
    pub under_way: UnderWay,
    pub refusals: Arc<Mutex<Refusals>>,
}

/// How many refused attempts may still be written down.
pub struct Refusals {
    left: f64,
    since: Instant,
    /// Those that were not, since the last that was.
    skipped: u64,
}

impl Refusals {
    pub fn new() -> Refusals {
        Refusals { left: REFUSALS, since: Instant::now(), skipped: 0 }
    }

    /// How many were skipped before this one; `None`: it is skipped itself.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        (self.left, self.since) = ((self.left + passed).min(REFUSALS), now);
        if self.left < 1.0 {
            self.skipped += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.skipped))
    }
}

/// Lets in who is known, with the body that they bring.
pub async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let current = door.running.current();
    let access = &current.spec.admin.access;
    if let Err(why) = door.guard.judge(&path, request.headers(), !access.is_empty()) {
        return Problem::forbidden(why).into_response();
    }
    if !path.starts_with("/v1/") {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let source = peer.as_ref().map(|peer| peer.address.ip().to_string()).unwrap_or_default();
    let proof = match proof(request.headers(), peer) {
        Ok(proof) => proof,
        Err(problem) => return problem.into_response(),
    };
    let Some(by) = door.gate.identify(access, &proof) else {
        if !request.method().is_safe() {
            let entry = AuditDraft {
                actor: String::new(),
                source,
                action: request.method().as_str().to_ascii_lowercase(),
                target: target(&path),
                revision: None,
                outcome: "refused: nobody is proven".into(),
            };
            door.refused(entry).await;
        }
        return unknown(proof.token.is_some());
    };
    drop(current);
    request.extensions_mut().insert((by, source));
    // Once who asks is known: nobody else makes us keep anything.
    match whole(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What somebody shows. One who sends a token means it: a certificate does not make up for a wrong one.
fn proof(headers: &HeaderMap, peer: Option<Peer>) -> Result<Proof, Problem> {
    let names = peer.map(|peer| peer.names).unwrap_or_default();
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), more) = (fields.next(), fields.next()) else {
        return Ok(Proof { token: None, names });
    };
    if more.is_some() {
        return Err(Problem::bad_request("there is more than one Authorization field"));
    }
    // RFC 9110 §11.1: the scheme in any case. Of another scheme nothing is known.
    let token = field.to_str().ok().and_then(|field| {
        let (scheme, token) = field.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    Ok(Proof { token: Some(token.unwrap_or_default()), names })
}

fn unknown(shown: bool) -> Response {
    let (challenge, detail) = match shown {
        true => ("Bearer realm=\"sluice\", error=\"invalid_token\"", "nobody here has this token"),
        false => (
            "Bearer realm=\"sluice\"",
            "say who you are: `Authorization: Bearer slt_...`, or a client certificate",
        ),
    };
    let mut answer = Problem::unauthorized(detail).into_response();
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

/// The request with all of its body.
async fn whole(request: Request) -> Result<Request, Problem> {
    let most = spec::MAX_BYTES + 1;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse::<u64>().ok())
        .is_some_and(|length| length > most as u64)
    {
        return Err(Problem::too_large());
    }
    let (parts, body) = request.into_parts();
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, most)).await;
    match bytes.map_err(|_| Problem::timeout())? {
        Ok(bytes) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Err(error) => {
            use std::error::Error;
            let large = error
                .source()
                .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
            Err(if large {
                Problem::too_large()
            } else {
                Problem::bad_request("the body broke off")
            })
        }
    }
}

/// What an operation asks of who calls it.
#[derive(Clone)]
pub struct Rule {
    pub action: &'static str,
    pub role: Role,
    pub changes: bool,
    /// Media types that it takes.
    pub takes: &'static [&'static str],
    pub bounds: Bounds,
}

/// What the clients of before, and curl, say of the text of a spec.
const LOOSE: [&str; 6] = [
    "text/plain",
    "text/yaml",
    "text/x-yaml",
    "application/x-yaml",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
];

/// Judges by `rule`, and runs changes to their end even when nobody waits for the answer any more.
pub async fn judge(
    State((door, rule)): State<(Door, Rule)>,
    Extension((by, source)): Extension<(Principal, String)>,
    mut request: Request,
    next: Next,
) -> Response {
    let target = target(request.uri().path());
    let caller = Caller { by, source, action: rule.action, target };
    if let Err(why) = caller.by.has(rule.role) {
        let refused = AuditDraft { outcome: format!("refused: {why}"), ..caller.deed("") };
        door.refused(refused).await;
        return Problem::forbidden(why).into_response();
    }
    let (uri, headers) = (request.uri(), request.headers());
    if let Err(problem) = media(headers, rule.takes).and_then(|()| rule.bounds.judge(uri, headers))
    {
        return problem.into_response();
    }
    request.extensions_mut().insert(caller.clone());
    if !rule.changes {
        return next.run(request).await;
    }
    let key = match key(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    // A task of its own: a client that goes away must not leave a change half made.
    let change = tokio::spawn(async move { door.change(caller, key, request, next).await });
    change.await.unwrap_or_else(|error| Problem::internal(error.to_string()).into_response())
}

fn media(headers: &HeaderMap, takes: &[&str]) -> Result<(), Problem> {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim();
    let is = |known: &&str| known.eq_ignore_ascii_case(kind);
    // Without a body it does not matter what it is said to be.
    if takes.is_empty() || takes.iter().any(is) {
        return Ok(());
    }
    let loose = !takes.contains(&"application/merge-patch+json") && takes != super::operation::JSON;
    match loose && LOOSE.iter().any(is) {
        true => Ok(()),
        false => Err(Problem::media_type(format!(
            "`{kind}` is not taken here; expected {}",
            takes.join(" or ")
        ))),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) => Ok(Some(key.into())),
        _ => Err(Problem::bad_request("Idempotency-Key: expected 1 to 255 printable characters")),
    }
}

fn target(path: &str) -> String {
    let path = path.strip_prefix("/v1/").unwrap_or(path);
    path.chars().filter(|c| !c.is_control()).take(300).collect()
}

impl Door {
    /// Writes a refused attempt down.
    async fn refused(&self, mut entry: AuditDraft) {
        let skipped = {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.take(Instant::now())
        };
        match skipped {
            None => return,
            Some(0) => {}
            Some(skipped) => entry.outcome.push_str(&format!(" ({skipped} more before it)")),
        }
        if let Err(error) = self.running.store().audit(entry).await {
            eprintln!("sluice: a refused attempt could not be written down: {error}");
        }
    }

    async fn change(
        self,
        caller: Caller,
        key: Option<String>,
        request: Request,
        next: Next,
    ) -> Response {
        let Some(key) = key else { return self.noted(&caller, next.run(request).await).await };
        let who = format!("{}@{:?}", caller.by.name, caller.by.via);
        let (request, fingerprint) = match fingerprint(request).await {
            Ok(both) => both,
            Err(problem) => return problem.into_response(),
        };
        let held = Held::take(&self.under_way, &key, &who);
        let Some(_held) = held else {
            return Problem::conflict(
                "a request with this idempotency key is under way; ask again when it is done",
            )
            .into_response();
        };
        match self.running.store().idempotent(&key, &who).await {
            Ok(None) => {}
            Ok(Some(before)) if before.fingerprint == fingerprint => return replayed(before),
            Ok(Some(_)) => {
                return Problem::reused(
                    "this idempotency key was used for another request; take a new one",
                )
                .into_response();
            }
            Err(error) => {
                return Problem::from(crate::running::Refused::Store(error)).into_response();
            }
        }
        let answer = self.noted(&caller, next.run(request).await).await;
        self.remember(&key, &who, fingerprint, answer).await
    }

    /// Writes down that a change was refused to somebody; one that was made is noted with its revision.
    async fn noted(&self, caller: &Caller, answer: Response) -> Response {
        if answer.status() == StatusCode::FORBIDDEN {
            let why =
                answer.extensions().get::<super::problem::Detail>().map(|detail| detail.0.clone());
            let outcome = format!("refused: {}", why.unwrap_or_default());
            self.refused(AuditDraft { outcome, ..caller.deed("") }).await;
        }
        answer
    }

    async fn remember(
        &self,
        key: &str,
        who: &str,
        fingerprint: String,
        answer: Response,
    ) -> Response {
        // What failed on our side may be tried again.
        if answer.status().is_server_error() {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let Ok(body) = to_bytes(body, MAX_REMEMBERED).await else {
            return Problem::internal("the answer is too large to be kept").into_response();
        };
        let kept =
            Remembered { fingerprint, status: parts.status.as_u16(), body: without_key(&body) };
        if let Err(error) = self.running.store().remember(key, who, kept).await {
            eprintln!(
                "sluice: the answer to a change could not be kept for its idempotency key: {error}"
            );
        }
        Response::from_parts(parts, Body::from(body))
    }
}

/// A new API key is told once, and never stored.
fn without_key(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut fields)) if fields.contains_key("key") => {
            fields.insert("key".into(), Value::Null);
            Value::Object(fields).to_string().into_bytes()
        }
        _ => body.to_vec(),
    }
}

fn replayed(before: Remembered) -> Response {
    let status = StatusCode::from_u16(before.status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let fields = [(CONTENT_TYPE.as_str(), kind), ("idempotency-replayed", "true")];
    (status, fields, before.body).into_response()
}

/// SHA-256 of what is asked for, in hexadecimal, and the request as it was.
async fn fingerprint(request: Request) -> Result<(Request, String), Problem> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, spec::MAX_BYTES + 1).await;
    let body = body.map_err(|error| Problem::internal(error.to_string()))?;
    let mut context = Context::new(&SHA256);
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), &body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let fingerprint = HEXLOWER.encode(context.finish().as_ref());
    Ok((Request::from_parts(parts, Body::from(body)), fingerprint))
}

/// Changes with an idempotency key that are under way: the key, and whose it is.
pub type UnderWay = Arc<Mutex<HashSet<(String, String)>>>;

/// An idempotency key in use.
struct Held {
    under_way: UnderWay,
    key: (String, String),
}

impl Held {
    /// `None`: it is in use already.
    fn take(under_way: &UnderWay, key: &str, who: &str) -> Option<Held> {
        let key = (key.to_owned(), who.to_owned());
        let new = {
            let mut held = under_way.lock().unwrap_or_else(PoisonError::into_inner);
            held.insert(key.clone())
        };
        // Not before: one that is made and dropped would give the other's key back.
        new.then(|| Held { under_way: Arc::clone(under_way), key })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_written_down_with_a_bound() {
        let mut refusals = Refusals::new();
        let start = refusals.since;
        assert!((0..100).all(|_| refusals.take(start) == Some(0)));
        assert!((0..7).all(|_| refusals.take(start).is_none()));
        assert_eq!(refusals.take(start + Duration::from_secs(1)), Some(7));
        assert_eq!(refusals.take(start + Duration::from_secs(1)), None);
    }

    #[test]
    fn an_idempotency_key_is_in_use_once() {
        let under_way = UnderWay::default();
        let held = Held::take(&under_way, "k", "ann");
        assert!(held.is_some());
        assert!(Held::take(&under_way, "k", "ann").is_none());
        assert!(Held::take(&under_way, "k", "ann").is_none());
        assert!(Held::take(&under_way, "k", "ben").is_some());
        drop(held);
        assert!(Held::take(&under_way, "k", "ann").is_some());
    }

    #[test]
    fn new_keys_are_not_kept() {
        assert_eq!(
            without_key(br#"{"key":"slk_x","sha256":"a"}"#),
            br#"{"key":null,"sha256":"a"}"#
        );
        assert_eq!(without_key(br#"{"revision": 1}"#), br#"{"revision": 1}"#);
    }

    #[test]
    fn media_types_are_taken_as_said_and_specs_as_before() {
        let judge = |kind: &'static str, takes| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
            media(&headers, takes).is_ok()
        };
        use super::super::operation::{JSON, PATCH, SPEC};
        assert!(judge("application/json; charset=utf-8", JSON) && judge("Application/JSON", PATCH));
        assert!(
            !judge("text/plain", JSON) && !judge("application/yaml", PATCH) && !judge("", JSON)
        );
        assert!(
            judge("application/yaml", SPEC)
                && judge("text/plain", SPEC)
                && judge("application/x-www-form-urlencoded", SPEC)
        );
        assert!(!judge("multipart/form-data; boundary=x", SPEC));
        assert!(media(&HeaderMap::new(), JSON).is_ok());
    }
}
