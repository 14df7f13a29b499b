//! Snapshot → what authenticators look callers up in. Built once per version of the snapshot's auth
//! part, and shared by the plans that have it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{
    self, AuthenticatorKind, ConsumerIndex, CredentialSource, KeySet, RouteAuth, Snapshot,
};

use super::api_key::{self, ApiKeys, ConsumerKeys};
use super::basic::Basic;
use super::certificate::Certificates;
use super::credentials::{self, Found};
use super::external::External;
use super::introspection::{self, Introspection};
use super::jwt::Jwt;
use super::login::{Login, OwnPath};
use super::signature::Signature;
use super::{Call, Check, Identity, Outcome, throttle};
use crate::limits;
use crate::plan::PlanError;
use crate::store::Store;

/// All that identifies callers.
#[derive(Debug, Default)]
pub struct Registry {
    /// Of the snapshot's auth part.
    pub version: u64,
    /// How many failures are too many.
    pub throttle: throttle::Rules,
    pub consumers: Box<[Consumer]>,
    pub authenticators: Box<[Authenticator]>,
    /// Of all consumers.
    pub api_keys: ConsumerKeys,
    /// Those that are logins.
    logins: Box<[u32]>,
    /// Consumers by name.
    names: HashMap<Box<str>, ConsumerIndex>,
    /// Consumers by authenticator, and by what it calls them.
    subjects: HashMap<(u32, Box<str>), ConsumerIndex>,
}

/// Someone who calls.
#[derive(Debug)]
pub struct Consumer {
    pub name: Arc<str>,
    pub groups: Arc<[Box<str>]>,
    /// Sorted.
    pub scopes: Arc<[Box<str>]>,
    pub limits: Option<Arc<str>>,
}

/// One way to prove who one is.
#[derive(Debug)]
pub struct Authenticator {
    /// Its place in [`Registry::authenticators`].
    pub index: u32,
    pub name: Box<str>,
    pub kind: Kind,
    /// Fields (lower case) by which only the gateway may tell upstreams what it has found out.
    pub own_fields: Box<[Box<str>]>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few of them, and they stay where they are")]
pub enum Kind {
    ApiKey(ApiKeys),
    Jwt(Jwt),
    Introspection(Introspection),
    Login(Login),
    Certificate(Certificates),
    Basic(Basic),
    Signature(Signature),
    External(External),
}

impl Registry {
    /// # Errors
    /// Names the first authenticator or consumer that cannot be used.
    pub fn build(snapshot: &Snapshot) -> Result<Registry, PlanError> {
        let auth = &snapshot.auth;
        let consumers = auth.consumers.iter().map(|from| Consumer {
            name: from.name.as_str().into(),
            groups: boxed(&from.groups),
            scopes: boxed(&from.scopes),
            limits: from.limits.as_deref().map(Arc::from),
        });
        let mut registry = Registry {
            version: auth.version,
            throttle: auth.throttle.into(),
            consumers: consumers.collect(),
            api_keys: api_key::index(&auth.consumers),
            ..Registry::default()
        };
        for (index, consumer) in auth.consumers.iter().enumerate() {
            registry.names.insert(consumer.name.as_str().into(), index as u32);
            for subject in &consumer.subjects {
                let key = (subject.authenticator, subject.value.as_str().into());
                registry.subjects.insert(key, index as u32);
            }
        }
        let mut authenticators = Vec::with_capacity(auth.authenticators.len());
        for (index, from) in auth.authenticators.iter().enumerate() {
            let kind = Kind::build(&from.kind, snapshot).map_err(|(field, problem)| PlanError {
                entity: "authenticator",
                name: from.name.clone(),
                field,
                problem,
            })?;
            let name = from.name.as_str().into();
            let own_fields = own_fields(&from.kind);
            authenticators.push(Authenticator { index: index as u32, name, kind, own_fields });
        }
        let is_login = |from: &&Authenticator| matches!(from.kind, Kind::Login(_));
        registry.logins = authenticators.iter().filter(is_login).map(|from| from.index).collect();
        registry.authenticators = authenticators.into();
        Ok(registry)
    }

    /// Opens what is asked outside, before the first caller comes.
    pub fn open(&self, store: &Store) {
        for authenticator in &self.authenticators {
            if let Kind::ApiKey(keys) = &authenticator.kind {
                keys.open(store);
            }
        }
    }

    /// The authenticators that a route takes, in its order.
    pub fn of<'a>(&'a self, rules: &'a RouteAuth) -> impl Iterator<Item = &'a Authenticator> {
        rules.authenticators.iter().filter_map(|index| self.authenticators.get(*index as usize))
    }

    /// The login that a path of the gateway's own belongs to.
    pub fn own_path(&self, path: &[u8]) -> Option<(u32, &Login, OwnPath)> {
        self.logins.iter().find_map(|index| match &self.authenticators.get(*index as usize)?.kind {
            Kind::Login(login) => Some((*index, login, login.own_path(path)?)),
            _ => None,
        })
    }

    pub fn consumer(&self, index: ConsumerIndex) -> Option<&Consumer> {
        self.consumers.get(index as usize)
    }

    /// The consumer that `authenticator` means by `subject`: one that lists it, else one of that name.
    pub fn by_subject(&self, authenticator: u32, subject: &str) -> Option<ConsumerIndex> {
        // The key is a pair of owned texts; look-ups happen once per credential, not per request.
        let listed = self.subjects.get(&(authenticator, subject.into()));
        listed.or_else(|| self.names.get(subject)).copied()
    }

    pub fn by_name(&self, name: &str) -> Option<ConsumerIndex> {
        self.names.get(name).copied()
    }

    /// The identity of a consumer, without anything of a credential.
    pub fn identity(&self, index: ConsumerIndex) -> Identity {
        let Some(consumer) = self.consumer(index) else { return Identity::default() };
        Identity {
            consumer: Some(index),
            id: consumer.name.clone(),
            groups: consumer.groups.clone(),
            scopes: consumer.scopes.clone(),
            limits: consumer.limits.clone(),
            ..Identity::default()
        }
    }

    /// The identity of those who show nothing, where a route lets them in as a consumer.
    pub fn anonymous(&self, index: ConsumerIndex) -> Identity {
        Identity { anonymous: true, ..self.identity(index) }
    }
}

/// Texts as identities share them.
pub fn boxed(texts: &[String]) -> Arc<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// The fields that an authenticator sets, when it does.
fn own_fields(from: &AuthenticatorKind) -> Box<[Box<str>]> {
    let tokens = match from {
        AuthenticatorKind::Jwt(jwt) => &jwt.tokens,
        AuthenticatorKind::Introspection(introspection) => &introspection.tokens,
        AuthenticatorKind::Login(login) => &login.tokens,
        AuthenticatorKind::External(external) => {
            return external.take.iter().map(|name| name.as_str().into()).collect();
        }
        AuthenticatorKind::ApiKey(_)
        | AuthenticatorKind::Certificate(_)
        | AuthenticatorKind::Basic(_)
        | AuthenticatorKind::Signature(_) => return [].into(),
    };
    tokens.claim_headers.iter().map(|(_, name)| name.as_str().into()).collect()
}

/// What is wrong with an authenticator: the field, and what to write instead.
pub type Unfit = (String, String);

impl Kind {
    fn build(from: &AuthenticatorKind, snapshot: &Snapshot) -> Result<Kind, Unfit> {
        Ok(match from {
            AuthenticatorKind::ApiKey(from) => Kind::ApiKey(ApiKeys::build(from, snapshot)?),
            AuthenticatorKind::Jwt(from) => Kind::Jwt(Jwt::build(from, snapshot)?),
            AuthenticatorKind::Introspection(from) => {
                Kind::Introspection(Introspection::build(from, snapshot)?)
            }
            AuthenticatorKind::Login(from) => Kind::Login(Login::build(from, snapshot)?),
            AuthenticatorKind::Certificate(from) => {
                Kind::Certificate(Certificates::build(from, snapshot)?)
            }
            AuthenticatorKind::Basic(from) => Kind::Basic(Basic::build(from, snapshot)?),
            AuthenticatorKind::Signature(from) => {
                Kind::Signature(Signature::build(from, snapshot)?)
            }
            AuthenticatorKind::External(from) => Kind::External(External::build(from, snapshot)?),
        })
    }

    /// The scheme of its challenge, with its parameters; empty: none.
    pub fn scheme(&self) -> String {
        let bearer = self.sources().iter().any(|source| {
            matches!(source, CredentialSource::Header { scheme: Some(scheme), .. }
                if scheme.eq_ignore_ascii_case("bearer"))
        });
        match self {
            Kind::Basic(basic) => basic.challenge(),
            Kind::Signature(_) => "Signature realm=\"sluice\"".into(),
            Kind::ApiKey(_) if !bearer => "ApiKey realm=\"sluice\"".into(),
            Kind::Jwt(_) | Kind::Introspection(_) | Kind::ApiKey(_) => {
                "Bearer realm=\"sluice\"".into()
            }
            Kind::Login(_) | Kind::Certificate(_) | Kind::External(_) => String::new(),
        }
    }

    /// Where its credentials are.
    pub fn sources(&self) -> &[CredentialSource] {
        match self {
            Kind::ApiKey(keys) => &keys.from,
            Kind::Jwt(jwt) => &jwt.rules.tokens.from,
            Kind::Introspection(introspection) => &introspection.tokens.from,
            Kind::Login(login) => &login.from,
            Kind::Basic(basic) => &basic.from,
            Kind::Signature(signature) => &signature.from,
            Kind::Certificate(_) | Kind::External(_) => &[],
        }
    }
}

impl Authenticator {
    /// Its credential in the request.
    #[inline]
    pub fn credential<'a>(&'a self, call: Call<'a>) -> Found<'a> {
        match &self.kind {
            Kind::Certificate(_) => match call.client.tls.as_ref().and_then(|t| t.peer.as_ref()) {
                Some(peer) => Found::One(Cow::Borrowed(&peer.fingerprint)),
                None => Found::Absent,
            },
            Kind::External(external) => external.credential(call),
            Kind::Basic(basic) => basic.credential(call),
            Kind::Signature(signature) => signature.credential(call),
            Kind::Login(login) => login.credential(call),
            kind => credentials::find(call, kind.sources()),
        }
    }

    /// Whether someone may try what is good. Of a certificate the handshake has seen the key.
    pub fn is_guessable(&self) -> bool {
        !matches!(self.kind, Kind::Certificate(_))
    }

    /// What a credential names that others may guess at: a user, the beginning of a key.
    pub fn account<'a>(&self, call: Call<'_>, credential: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match &self.kind {
            Kind::ApiKey(_) => credential.get(..limits::THROTTLE_PREFIX).map(Cow::Borrowed),
            Kind::Basic(basic) => basic.user(call).map(|user| Cow::Owned(user.into_bytes())),
            _ => None,
        }
    }

    /// Whether it leaves its credential to those that come `before` it, where any is enough: a JWT is
    /// judged by who knows its issuer, whom the authorization server is not asked to overrule.
    pub fn leaves<'a, I>(&self, call: Call<'a>, before: impl FnOnce() -> I) -> bool
    where
        I: Iterator<Item = &'a Authenticator>,
    {
        let Kind::Introspection(introspection) = &self.kind else { return false };
        let Found::One(token) = credentials::find(call, &introspection.tokens.from) else {
            return false;
        };
        before().any(|one| match &one.kind {
            Kind::Jwt(jwt) => introspection::is_jwt_of(&token, &jwt.rules.tokens),
            _ => false,
        })
    }

    /// Whether outcomes are remembered by their credential alone.
    pub fn is_remembered(&self) -> bool {
        match &self.kind {
            Kind::Signature(_) => false,
            Kind::External(external) => external.is_remembered(),
            _ => true,
        }
    }

    /// Whether this outcome is one that shards remember.
    pub fn remembers(&self, outcome: &Outcome) -> bool {
        match &self.kind {
            Kind::ApiKey(keys) if matches!(outcome, Outcome::Refused(_)) => {
                keys.remembers_refusals()
            }
            _ => self.is_remembered(),
        }
    }

    /// Judges a credential. `stale` is what was known of it and is to be asked for again.
    pub fn verify<'a>(
        &'a self,
        call: Call<'a>,
        credential: &[u8],
        stale: Option<Rc<Identity>>,
    ) -> Check<'a> {
        match &self.kind {
            Kind::ApiKey(keys) => keys.verify(call, credential, stale),
            Kind::Jwt(jwt) => jwt.verify(call, self.index, credential),
            Kind::Introspection(introspection) => {
                introspection.verify(call, self.index, credential)
            }
            Kind::Login(login) => login.verify(call, self.index, credential),
            Kind::Certificate(certificates) => certificates.verify(call),
            Kind::Basic(basic) => basic.verify(call),
            Kind::Signature(signature) => signature.verify(call, credential),
            Kind::External(external) => external.verify(call, self.index, credential),
        }
    }
}

/// The key set that an authenticator names.
///
/// # Errors
/// There is none of that number: control and engine disagree.
pub fn key_set(snapshot: &Snapshot, index: snapshot::KeySetIndex) -> Result<&KeySet, Unfit> {
    let missing = || ("keys".to_string(), format!("there is no key set {index} in the snapshot"));
    snapshot.auth.key_sets.get(index as usize).ok_or_else(missing)
}
