//! Who is calling: the authenticators of a route, one after the other, until it is known.
//!
//! Each authenticator finds its credential in the request, and verifies it unless the shard remembers
//! what came of it. All end in one [`Identity`]. What they refuse is answered at once, by a status and
//! `WWW-Authenticate` alone: a body that told more would tell it to attackers too.

mod api_key;
mod basic;
mod certificate;
pub mod content_digest;
pub mod credentials;
mod external;
pub mod identity;
mod introspection;
pub mod jwt;
pub mod login;
pub mod memory;
pub mod networks;
pub mod policy;
pub mod refusal;
pub mod registry;
mod signature;
pub mod throttle;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use contract::Counter;
use contract::snapshot::{RouteAuth, Unidentified};

pub use self::content_digest::{ContentDigest, Passed};
pub use self::identity::Identity;
pub use self::jwt::{Wishes, fuzz_jwt};
pub use self::memory::Memory;
pub use self::networks::Networks;
pub use self::policy::Policy;
pub use self::refusal::Refusal;
pub use self::registry::{Authenticator, Registry};
pub use self::throttle::Throttle;
use crate::auth::credentials::Found;
use crate::auth::memory::Remembered;
use crate::auth::throttle::{Network, Subject};
use crate::exchange::Request;
use crate::limits;
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
    /// Of whoever sent it, through proxies that are trusted.
    pub address: IpAddr,
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
            address: request.client_address(),
        }
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.shard.io.clock().wall_us() / 1_000
    }

    /// What `find` sees in the authenticator of the same name as `index` in registries that come, until
    /// then (monotonic milliseconds): a request keeps its plan, but may learn from a newer one.
    async fn in_newer<T>(
        self,
        index: u32,
        until_ms: u64,
        find: impl Fn(&registry::Kind) -> Option<T>,
    ) -> Option<T> {
        let own = self.registry.authenticators.get(index as usize)?;
        let mut seen = self.registry.version;
        while self.shard.io.clock().now_ms() < until_ms {
            self.shard.io.sleep_ms(limits::KEY_LOOK_MS).await;
            let plan = self.shard.plan();
            let registry = &plan.plan.auth;
            if registry.version == seen {
                continue;
            }
            seen = registry.version;
            let namesake = registry.authenticators.iter().find(|one| one.name == own.name);
            if let Some(found) = namesake.and_then(|one| find(&one.kind)) {
                return Some(found);
            }
        }
        None
    }

    /// Counts a failure of the caller's.
    fn count(&self, subject: Subject<'_>) {
        let now_ms = self.shard.io.clock().now_ms();
        self.shard.throttle().count(self.registry.throttle, subject, now_ms);
    }

    /// Whether the caller has failed too often, or too many have at this account.
    fn throttled(&self, authenticator: u32, account: Option<&[u8]>) -> Option<Refusal> {
        let (throttle, rules) = (self.shard.throttle(), self.registry.throttle);
        let now_ms = self.shard.io.clock().now_ms();
        let from = Network::from(self.address);
        let by_address = throttle.wait_ms(rules, Subject::Address(from), now_ms);
        let by_account =
            account.filter(|account| !throttle.was_entered(authenticator, account, from)).and_then(
                |account| throttle.wait_ms(rules, Subject::Account(authenticator, account), now_ms),
            );
        let wait_ms = by_address.max(by_account)?;
        Some(Refusal::Throttled(u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX)))
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
    let found = match rules.all {
        true => all(Call::of(shard, registry, request), rules).await,
        false => any(Call::of(shard, registry, request), rules).await,
    };
    // Whoever calls, and also if it is nobody: what only the gateway may tell goes no further.
    credentials::drop_own_fields(request, registry, rules);
    let call = Call::of(shard, registry, request);
    if let Err(Refusal::Invalid) = found {
        call.count(Subject::Address(call.address.into()));
    }
    let caller = found.as_ref().ok().cloned().flatten();
    let judged = found.and_then(|identity| judge(call, route, rules, identity));
    shard.meter.count(counter(&judged), 1);
    request.notes.caller = caller;
    match judged {
        Ok(identity) => {
            if rules.hide_credentials {
                credentials::hide(request, registry, rules);
            }
            if let Some(identity) = &identity {
                request.answer_fields.extend(identity.answer.iter().cloned());
                request.content.clone_from(&identity.content);
            }
            request.identity = identity;
            Ok(())
        }
        Err(refusal) => {
            let mut fields = Vec::new();
            let call = Call::of(shard, registry, request);
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

/// What a judgement counts as.
fn counter(judged: &Result<Option<Rc<Identity>>, Refusal>) -> Counter {
    match judged {
        Ok(Some(identity)) if !identity.anonymous => Counter::AuthKnown,
        Ok(_) => Counter::AuthAnonymous,
        Err(Refusal::Missing) => Counter::AuthMissing,
        Err(Refusal::Invalid | Refusal::Ambiguous) => Counter::AuthInvalid,
        Err(Refusal::Scope | Refusal::Forbidden) => Counter::AuthDenied,
        Err(Refusal::Unavailable) => Counter::AuthUnavailable,
        Err(Refusal::Throttled(_)) => Counter::AuthThrottled,
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
    for (at, authenticator) in call.registry.of(rules).enumerate() {
        let before = || call.registry.of(rules).take(at);
        if authenticator.leaves(call, before) {
            continue;
        }
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
    let (mut stale, mut known) = (None, None);
    if authenticator.is_remembered() {
        match memory.get(call.registry.version, authenticator.index, &credential, now_ms) {
            Some(Remembered::Fresh(outcome)) => {
                call.shard.meter.count(Counter::AuthRemembered, 1);
                match outcome {
                    Outcome::Known(identity) => return bound(call, identity),
                    outcome => known = Some(outcome),
                }
            }
            Some(Remembered::Stale(identity)) => stale = Some(identity),
            None => {}
        }
    }
    // What was good a moment ago is no guess.
    let account = authenticator.account(call, &credential);
    if stale.is_none()
        && authenticator.is_guessable()
        && let Some(refusal) = call.throttled(authenticator.index, account.as_deref())
    {
        return Outcome::Refused(refusal);
    }
    let outcome = match known {
        Some(outcome) => outcome,
        None => verify(call, authenticator, &credential, stale).await,
    };
    match (outcome, account) {
        (Outcome::Known(identity), account) => {
            if let Some(account) = account {
                let from = call.address.into();
                call.shard.throttle().enter(authenticator.index, &account, from);
            }
            bound(call, identity)
        }
        (outcome @ Outcome::Refused(Refusal::Invalid), Some(account)) => {
            call.count(Subject::Account(authenticator.index, &account));
            outcome
        }
        (outcome, _) => outcome,
    }
}

/// Has a credential judged, and remembers what came of it.
async fn verify(
    call: Call<'_>,
    authenticator: &Authenticator,
    credential: &[u8],
    stale: Option<Rc<Identity>>,
) -> Outcome {
    let outcome = match authenticator.verify(call, credential, stale) {
        Check::Now(outcome) => outcome,
        Check::Later(future) => {
            call.shard.meter.count(Counter::StoreQuestions, 1);
            future.await
        }
    };
    if authenticator.remembers(&outcome) {
        let (version, now_ms) = (call.registry.version, call.wall_ms());
        call.shard.memory().put(version, authenticator.index, credential, &outcome, now_ms);
    }
    outcome
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
    call: Call<'_>,
    route: &Route,
    rules: &RouteAuth,
    identity: Option<Rc<Identity>>,
) -> Result<Option<Rc<Identity>>, Refusal> {
    let known = identity.as_deref();
    // Who shows nothing may be let in with a credential.
    let refusal = |refusal| if known.is_some() { refusal } else { Refusal::Missing };
    let has_scope = |scope: &String| known.is_some_and(|known| known.has_scope(scope));
    if !rules.scopes.iter().all(has_scope) {
        return Err(refusal(Refusal::Scope));
    }
    let in_group = |group: &String| known.is_some_and(|known| known.in_group(group));
    if !rules.groups.is_empty() && !rules.groups.iter().any(in_group) {
        return Err(refusal(Refusal::Forbidden));
    }
    match route.policy.as_ref().map(|policy| policy.allows(call, known)) {
        None | Some(Ok(true)) => Ok(identity),
        Some(Ok(false)) => Err(refusal(Refusal::Forbidden)),
        Some(Err(_)) => {
            call.shard.meter.count(Counter::PolicyErrors, 1);
            Err(Refusal::Forbidden)
        }
    }
}

#[cfg(test)]
mod tests;
