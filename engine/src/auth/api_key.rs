//! API keys: looked up by their SHA-256, in the snapshot and then, where that is set, in Redis.
//!
//! Keys have 256 random bits, so a plain hash is enough: there is nothing to guess from it, and it is
//! compared by looking it up, which tells nothing of the key either.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use contract::Counter;
use contract::snapshot::{self, ConsumerIndex, CredentialSource, KeyStore, Snapshot};
use foldhash::quality::RandomState;
use ring::digest::{SHA256, digest};

use super::registry::{Registry, Unfit, boxed};
use super::{Call, Check, Identity, Outcome, Refusal};
use crate::limits;
use crate::store::keys::{Answer, Digest, Keys, Record, Settings, Standing};
use crate::store::{NoAnswer, Store, redis};

/// An authenticator by API keys.
#[derive(Debug)]
pub struct ApiKeys {
    pub from: Box<[CredentialSource]>,
    redis: Option<InRedis>,
}

/// Keys that are not in the snapshot.
#[derive(Debug)]
struct InRedis {
    settings: Settings,
    grace_ms: u64,
    /// Opened when the plan is put in place, as control builds plans without a store.
    keys: OnceLock<Arc<Keys>>,
}

impl InRedis {
    fn keys(&self, store: &Store) -> &Arc<Keys> {
        self.keys.get_or_init(|| store.keys(&self.settings))
    }
}

impl ApiKeys {
    pub fn build(from: &snapshot::ApiKeys, snapshot: &Snapshot) -> Result<ApiKeys, Unfit> {
        let redis = match &from.store {
            KeyStore::Embedded => None,
            KeyStore::Redis(keys) => {
                let redis = snapshot.auth.redis.as_ref().ok_or_else(|| {
                    ("store".to_string(), "there is no redis to look them up in".to_string())
                })?;
                let redis = redis::Settings::of(redis, snapshot)
                    .map_err(|unusable| (unusable.field, unusable.problem))?;
                let settings = Settings { redis, keys: keys.clone() };
                let grace_ms = keys.grace_ms.into();
                Some(InRedis { settings, grace_ms, keys: OnceLock::new() })
            }
        };
        Ok(ApiKeys { from: from.from.clone().into(), redis })
    }

    /// Connects to where keys are, before the first of them comes.
    pub fn open(&self, store: &Store) {
        if let Some(redis) = &self.redis {
            redis.keys(store);
        }
    }

    /// Whether a shard may remember that a key is wrong. Of keys in Redis the node does: it is told when
    /// one is added.
    pub fn remembers_refusals(&self) -> bool {
        self.redis.is_none()
    }

    pub fn verify<'a>(
        &'a self,
        call: Call<'a>,
        credential: &[u8],
        stale: Option<Rc<Identity>>,
    ) -> Check<'a> {
        let Some(digest) = digest_of(credential) else { return Check::refused(Refusal::Invalid) };
        if let Some(key) = call.registry.api_keys.get(&digest) {
            let now_ms = call.wall_ms();
            let outcome = key.outcome(call.registry, now_ms);
            if matches!(outcome, Outcome::Known(_)) {
                call.shard.key_uses().note(&digest, now_ms);
            }
            return Check::Now(outcome);
        }
        let Some(redis) = &self.redis else { return Check::refused(Refusal::Invalid) };
        let desk = call.shard.desk();
        let keys = redis.keys(desk.store());
        if let Some(answer) = keys.recall(&digest, call.shard.io.clock().now_ms()) {
            return Check::Now(told(call, answer));
        }
        let asked = desk.ask(keys.look_up(digest));
        Check::later(async move {
            match (asked.await, stale) {
                (Ok(answer), _) => told(call, answer),
                // The store thread has too much to do, which is not the caller's fault.
                (Err(NoAnswer), Some(known))
                    if call.wall_ms() < known.fresh_ms.saturating_add(redis.grace_ms) =>
                {
                    call.shard.meter.count(Counter::KeysOnGrace, 1);
                    Outcome::Known(known)
                }
                (Err(NoAnswer), _) => told(call, Answer::Unavailable),
            }
        })
    }
}

/// The hash of what can be a key at all.
fn digest_of(key: &[u8]) -> Option<Digest> {
    if !limits::API_KEY.contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    digest(&SHA256, key).as_ref().try_into().ok()
}

/// What becomes of a request, by what Redis says of its key.
fn told(call: Call<'_>, answer: Answer) -> Outcome {
    let meter = &call.shard.meter;
    match answer {
        Answer::Known(standing) => {
            meter.count(Counter::KeysOnGrace, u64::from(standing.on_grace));
            identity(call.registry, standing, call.wall_ms())
        }
        Answer::Unknown => Outcome::Refused(Refusal::Invalid),
        Answer::Malformed => {
            meter.count(Counter::KeyRecordsMalformed, 1);
            Outcome::Refused(Refusal::Unavailable)
        }
        Answer::Unavailable => Outcome::Refused(Refusal::Unavailable),
    }
}

/// The caller that a record names: a consumer of the registry, but for what the record says itself, or
/// one that only Redis knows.
fn identity(registry: &Registry, standing: Standing, now_ms: u64) -> Outcome {
    let Record { consumer, groups, scopes, limits, expires_ms, prefix } = &*standing.record;
    if *expires_ms <= now_ms {
        return Outcome::Refused(Refusal::Invalid);
    }
    let mut identity = match registry.by_name(consumer) {
        Some(index) => registry.identity(index),
        None => Identity { id: consumer.clone(), ..Identity::default() },
    };
    if let Some(groups) = groups {
        identity.groups = groups.clone();
    }
    if let Some(scopes) = scopes {
        identity.scopes = scopes.clone();
    }
    if let Some(limits) = limits {
        identity.limits = Some(limits.clone());
    }
    identity.credential = prefix.clone();
    identity.until_ms = (now_ms + limits::KEY_REMEMBER_MS)
        .min(*expires_ms)
        .min(now_ms.saturating_add(standing.ends_ms));
    // Where it is believed for this once only, it is stale at once.
    identity.fresh_ms = now_ms.saturating_add(standing.fresh_ms);
    identity.revoked = Some(standing.revoked);
    Outcome::Known(Rc::new(identity))
}

/// A consumer's key, as the registry has it.
#[derive(Debug)]
pub struct ConsumerKey {
    consumer: ConsumerIndex,
    prefix: Option<Arc<str>>,
    /// `u64::MAX`: never.
    expires_ms: u64,
    /// What is left of the consumer's scopes; `None`: all of them.
    scopes: Option<Arc<[Box<str>]>>,
    limits: Option<Arc<str>>,
}

/// All consumers' keys by their digest. Hashed at random again, as whoever knows the digests could
/// choose keys so that they collide.
pub type ConsumerKeys = HashMap<Digest, ConsumerKey, RandomState>;

/// The keys of all consumers.
pub fn index(consumers: &[snapshot::Consumer]) -> ConsumerKeys {
    let count = consumers.iter().map(|consumer| consumer.api_keys.len()).sum();
    let mut keys = ConsumerKeys::with_capacity_and_hasher(count, RandomState::default());
    for (at, consumer) in consumers.iter().enumerate() {
        for from in &consumer.api_keys {
            let narrowed = from.scopes.as_ref().map(|scopes| {
                // A key never has more than its consumer.
                let both: Vec<String> = scopes
                    .iter()
                    .filter(|scope| consumer.scopes.contains(scope))
                    .cloned()
                    .collect();
                boxed(&both)
            });
            let key = ConsumerKey {
                consumer: at as ConsumerIndex,
                prefix: Some(from.prefix.as_str())
                    .filter(|prefix| !prefix.is_empty())
                    .map(Arc::from),
                expires_ms: if from.expires_ms == 0 { u64::MAX } else { from.expires_ms },
                scopes: narrowed,
                limits: from.limits.as_deref().map(Arc::from),
            };
            // Control sees to it that no two consumers have one key.
            keys.entry(from.digest).or_insert(key);
        }
    }
    keys
}

impl ConsumerKey {
    fn outcome(&self, registry: &Registry, now_ms: u64) -> Outcome {
        if self.expires_ms <= now_ms {
            return Outcome::Refused(Refusal::Invalid);
        }
        let mut identity = registry.identity(self.consumer);
        if let Some(scopes) = &self.scopes {
            identity.scopes = scopes.clone();
        }
        if let Some(limits) = &self.limits {
            identity.limits = Some(limits.clone());
        }
        identity.credential = self.prefix.clone();
        identity.until_ms = (now_ms + limits::KEY_REMEMBER_MS).min(self.expires_ms);
        // Then it is looked up again, by which its use is noted.
        identity.fresh_ms = now_ms + limits::KEY_USED_MS;
        Outcome::Known(Rc::new(identity))
    }
}
