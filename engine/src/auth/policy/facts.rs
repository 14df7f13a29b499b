//! What a policy may ask about: the request, the consumer, the claims. Nothing is made ready before it is
//! asked for.

use std::net::IpAddr;

use cel::common::types::{CelBool, CelString, CelTimestamp};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use chrono::DateTime;
use serde_json::Value as Json;

use super::super::{Call, Identity};
use super::values::{Claims, Headers, Lazy, Query, text, texts};
use super::{NETWORKS, PATTERNS, Policy};

/// A request and its caller.
pub struct Facts<'a> {
    pub policy: &'a Policy,
    pub method: &'a [u8],
    /// Without a port.
    pub host: &'a [u8],
    /// In normal form.
    pub path: &'a [u8],
    pub query: &'a [u8],
    pub headers: Headers<'a>,
    pub ip: IpAddr,
    pub wall_ms: u64,
    pub caller: Option<Caller<'a>>,
}

/// Of an identity what policies may ask about.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub id: &'a str,
    pub groups: &'a [Box<str>],
    pub scopes: &'a [Box<str>],
    pub anonymous: bool,
    pub claims: Option<&'a serde_json::Map<String, Json>>,
}

impl<'a> From<&'a Identity> for Caller<'a> {
    fn from(identity: &'a Identity) -> Caller<'a> {
        Caller {
            id: &identity.id,
            groups: &identity.groups,
            scopes: &identity.scopes,
            anonymous: identity.anonymous,
            claims: identity.claims.as_deref(),
        }
    }
}

impl<'a> Facts<'a> {
    pub fn new(policy: &'a Policy, call: Call<'a>, identity: Option<&'a Identity>) -> Facts<'a> {
        let (head, bytes) = (call.head, call.bytes);
        Facts {
            policy,
            method: head.method(bytes),
            host: head.site.as_ref().map_or(&[], |site| site.host.of(bytes)),
            path: call.path,
            query: head.query(bytes).unwrap_or_default(),
            headers: Headers { fields: &head.fields, bytes, trusted: call.client.trusted },
            ip: call.address,
            wall_ms: call.wall_ms(),
            caller: identity.map(Caller::from),
        }
    }
}

impl VariableResolver for Facts<'_> {
    /// The interpreter asks for the longest name first: for `request.headers.host` it comes here with that,
    /// then with `request.headers`.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let caller = self.caller;
        let truth = |value: bool| Some(CowVal::owned(CelBool::from(value)));
        match variable {
            "request.method" => Some(text(self.method)),
            "request.host" if self.host.iter().any(u8::is_ascii_uppercase) => {
                let host = String::from_utf8_lossy(self.host).to_ascii_lowercase();
                Some(CowVal::owned(CelString::from(host)))
            }
            "request.host" => Some(text(self.host)),
            "request.path" => Some(text(self.path)),
            "request.query" => Some(CowVal::owned(Lazy(Query(self.query)))),
            "request.headers" => Some(CowVal::owned(Lazy(self.headers))),
            "request.ip" => {
                Some(CowVal::owned(CelString::from(self.ip.to_canonical().to_string())))
            }
            "request.time" => {
                let time = DateTime::from_timestamp_millis(i64::try_from(self.wall_ms).ok()?)?;
                Some(CowVal::owned(CelTimestamp::from(time.fixed_offset())))
            }
            "consumer.id" => Some(CowVal::owned(CelString::from(caller.map_or("", |who| who.id)))),
            "consumer.groups" => texts(caller.map_or(&[], |who| who.groups)),
            "consumer.scopes" => texts(caller.map_or(&[], |who| who.scopes)),
            "consumer.anonymous" => truth(caller.is_some_and(|who| who.anonymous)),
            "consumer.known" => truth(caller.is_some_and(|who| !who.anonymous)),
            "claims" => Some(CowVal::owned(Lazy(Claims(caller.and_then(|who| who.claims))))),
            _ => self.constant(variable),
        }
    }
}

impl Facts<'_> {
    /// What was read when the policy was compiled. No name in a text begins like those.
    fn constant<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(at) = variable.strip_prefix(PATTERNS) {
            let pattern = self.policy.patterns.get(at.parse::<usize>().ok()?)?;
            return Some(CowVal::Borrowed(pattern));
        }
        let at = variable.strip_prefix(NETWORKS)?;
        let network = self.policy.networks.get(at.parse::<usize>().ok()?)?;
        Some(CowVal::Borrowed(network))
    }
}
