//! Who is calling: the authenticators of a route, one after the other, until it is known.
//!
//! Each authenticator finds its credential in the request, and verifies it unless the shard remembers
//! what came of it. All end in one [`Identity`]. What they refuse is answered at once, by a status and
//! `WWW-Authenticate` alone: a body that told more would tell it to attackers too.

mod api_key;
mod basic;
mod certificate;
pub mod credentials;
mod external;
pub mod identity;
mod introspection;
mod jwt;
pub mod login;
pub mod memory;
pub mod refusal;
pub mod registry;
mod signature;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use contract::snapshot::{RouteAuth, Unidentified};

pub use self::identity::Identity;
pub use self::memory::Memory;
pub use self::refusal::Refusal;
pub use self::registry::{Authenticator, Registry};
use crate::auth::credentials::Found;
use crate::auth::memory::Remembered;
use crate::exchange::Request;
use crate::local_reply::LocalReply;
use crate::message::RequestHead;
use crate::plan::Route;
use crate::rewrite::Client;
use crate::shard::Shard;

/// A request as authenticators see it.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub shard: &'a Shard,
    pub registry: &'a Registry,
    pub head: &'a RequestHead,
    pub bytes: &'a [u8],
    /// In normal form.
    pub path: &'a [u8],
    pub client: &'a Client,
}

impl<'a> Call<'a> {
    pub fn of(shard: &'a Shard, registry: &'a Registry, request: &'a Request) -> Call<'a> {
        Call {
            shard,
            registry,
            head: &request.head,
            bytes: request.bytes(),
            path: request.path(),
            client: &request.client,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.shard.io.clock().wall_us() / 1_000
    }
}

/// What an authenticator says of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// There is no credential for it.
    Absent,
    Known(Rc<Identity>),
    Refused(Refusal),
}

/// An outcome, or the way to it where someone else has to be asked.
pub enum Check<'a> {
    Now(Outcome),
    Later(Pin<Box<dyn Future<Output = Outcome> + 'a>>),
}

impl<'a> Check<'a> {
    pub fn known(identity: Identity) -> Check<'a> {
        Check::Now(Outcome::Known(Rc::new(identity)))
    }

    pub fn refused(refusal: Refusal) -> Check<'a> {
        Check::Now(Outcome::Refused(refusal))
    }

    pub fn later(future: impl Future<Output = Outcome> + 'a) -> Check<'a> {
        Check::Later(Box::pin(future))
    }
}

/// Identifies the caller of `request` and judges whether it may do this.
///
/// # Errors
/// What the caller is answered: 400, 401, 403, 429 or 503.
pub async fn admit(shard: &Shard, request: &mut Request, route: &Route) -> Result<(), LocalReply> {
    let Some(rules) = &route.auth else { return Ok(()) };
    let plan = request.plan.clone();
    let registry = &*plan.plan.auth;
    let call = Call::of(shard, registry, request);
    let found = match rules.all {
        true => all(call, rules).await,
        false => any(call, rules).await,
    };
    let judged = found.and_then(|identity| judge(call, rules, identity));
    match judged {
        Ok(identity) => {
            if rules.hide_credentials {
                credentials::hide(request, registry, rules);
            }
            if let Some(identity) = &identity {
                request.answer_fields.extend(identity.answer.iter().cloned());
            }
            request.identity = identity;
            Ok(())
        }
        Err(refusal) => {
            let mut fields = Vec::new();
            let login = match refusal {
                Refusal::Missing => begin_login(call, rules, &mut fields),
                _ => None,
            };
            let reply = login.unwrap_or_else(|| refusal.reply(registry, rules, &mut fields));
            request.answer_fields.append(&mut fields);
            Err(reply)
        }
    }
}

/// Sends a browser without a session to log in, where the route has a login.
fn begin_login(
    call: Call<'_>,
    rules: &RouteAuth,
    fields: &mut Vec<(&'static str, Vec<u8>)>,
) -> Option<LocalReply> {
    call.registry.of(rules).find_map(|authenticator| match &authenticator.kind {
        registry::Kind::Login(login) => login.begin(call, fields),
        _ => None,
    })
}

/// The first authenticator that knows the caller. Where none does, a wrong credential counts more than
/// a missing one: nobody gets in as anonymous with a key that was revoked.
async fn any(call: Call<'_>, rules: &RouteAuth) -> Result<Option<Rc<Identity>>, Refusal> {
    let mut refused = None;
    for authenticator in call.registry.of(rules) {
        match check(call, authenticator).await {
            Outcome::Absent => {}
            Outcome::Known(identity) => return Ok(Some(identity)),
            // Two of one credential are a question of their own.
            Outcome::Refused(Refusal::Ambiguous) => return Err(Refusal::Ambiguous),
            Outcome::Refused(refusal) => refused = Some(Refusal::graver(refused, refusal)),
        }
    }
    match refused {
        Some(refusal) => Err(refusal),
        None => unidentified(call.registry, rules),
    }
}

/// All authenticators have to know the caller, as the same one.
async fn all(call: Call<'_>, rules: &RouteAuth) -> Result<Option<Rc<Identity>>, Refusal> {
    let mut found: Option<Rc<Identity>> = None;
    let mut absent = 0;
    for authenticator in call.registry.of(rules) {
        match check(call, authenticator).await {
            Outcome::Absent => absent += 1,
            Outcome::Refused(refusal) => return Err(refusal),
            Outcome::Known(identity) => {
                found = Some(match found {
                    None => identity,
                    Some(before) => Rc::new(before.with(&identity).ok_or(Refusal::Invalid)?),
                });
            }
        }
    }
    match (found, absent) {
        (Some(identity), 0) => Ok(Some(identity)),
        // Some of them, but not all.
        (Some(_), _) => Err(Refusal::Missing),
        (None, _) => unidentified(call.registry, rules),
    }
}

fn unidentified(registry: &Registry, rules: &RouteAuth) -> Result<Option<Rc<Identity>>, Refusal> {
    match rules.unidentified {
        Unidentified::Refuse => Err(Refusal::Missing),
        Unidentified::Pass => Ok(None),
        Unidentified::As(consumer) => Ok(Some(Rc::new(registry.anonymous(consumer)))),
    }
}

/// One authenticator's outcome; most are remembered.
async fn check(call: Call<'_>, authenticator: &Authenticator) -> Outcome {
    let credential = match authenticator.credential(call) {
        Found::Absent => return Outcome::Absent,
        Found::Several => return Outcome::Refused(Refusal::Ambiguous),
        Found::One(credential) => credential,
    };
    let now_ms = call.wall_ms();
    let memory = call.shard.memory();
    let mut stale = None;
    if authenticator.is_remembered() {
        match memory.get(call.registry.version, authenticator.index, &credential, now_ms) {
            Some(Remembered::Fresh(Outcome::Known(identity))) => return bound(call, identity),
            Some(Remembered::Fresh(outcome)) => return outcome,
            Some(Remembered::Stale(identity)) => stale = Some(identity),
            None => {}
        }
    }
    let outcome = match authenticator.verify(call, &credential, stale) {
        Check::Now(outcome) => outcome,
        Check::Later(future) => future.await,
    };
    if authenticator.is_remembered() {
        memory.put(call.registry.version, authenticator.index, &credential, &outcome, now_ms);
    }
    match outcome {
        Outcome::Known(identity) => bound(call, identity),
        outcome => outcome,
    }
}

/// A token that is bound to a certificate is good only on connections with it (RFC 8705 §3). Asked
/// each time: the token is remembered, the connection is another one.
fn bound(call: Call<'_>, identity: Rc<Identity>) -> Outcome {
    let Some(wanted) = &identity.certificate else { return Outcome::Known(identity) };
    let shown = call.client.tls.as_ref().and_then(|tls| tls.peer.as_ref());
    match shown {
        Some(peer) if peer.fingerprint == *wanted => Outcome::Known(identity),
        _ => Outcome::Refused(Refusal::Invalid),
    }
}

/// Whether the caller may do this, as far as scopes, groups and the policy say.
fn judge(
    _call: Call<'_>,
    rules: &RouteAuth,
    identity: Option<Rc<Identity>>,
) -> Result<Option<Rc<Identity>>, Refusal> {
    let has_scope = |scope: &String| match &identity {
        Some(identity) => identity.has_scope(scope),
        None => false,
    };
    if !rules.scopes.iter().all(has_scope) {
        return Err(if identity.is_some() { Refusal::Scope } else { Refusal::Missing });
    }
    let in_group = |group: &String| match &identity {
        Some(identity) => identity.in_group(group),
        None => false,
    };
    if !rules.groups.is_empty() && !rules.groups.iter().any(in_group) {
        return Err(if identity.is_some() { Refusal::Forbidden } else { Refusal::Missing });
    }
    Ok(identity)
}
