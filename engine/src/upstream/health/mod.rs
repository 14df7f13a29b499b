//! Active health checks: what is known of each target, shared by all shards of the node, and how
//! results become a verdict.
//!
//! One shard checks a target (`shard/checks.rs` tells which and when) and writes; all shards read,
//! with one relaxed load per pick.

mod grpc;
mod http;
mod reach;
mod tcp;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use contract::snapshot::{HealthCheck, HealthKind};

use super::pool::Pool;
use crate::io::{Io, Watch};
use crate::plan::{Target, Upstream};

/// A target by its upstream's name and its address, over all plans.
pub type Key = (Box<str>, SocketAddr);

/// Who of `shards` looks after a target (by its [`Key`]) or an upstream as a whole (by its name): the
/// same one whatever else is in the plan.
pub fn checker(of: &(impl Hash + ?Sized), shards: u16) -> u16 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    (hasher.finish() % u64::from(shards.max(1))) as u16
}

/// What is known of one target: a word that its checker alone writes.
#[derive(Debug, Default)]
pub struct Health {
    /// The state in the two lowest bits, above it how many results in a row spoke against it.
    word: AtomicU32,
}

const UNKNOWN: u32 = 0;
const HEALTHY: u32 = 1;
const UNHEALTHY: u32 = 2;
const STATE_BITS: u32 = 2;

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Recovered,
    Lost,
}

impl Health {
    /// Whether requests go there. A target of which nothing is known yet gets them.
    #[inline]
    pub fn is_usable(&self) -> bool {
        // Nothing else is published with the word: a shard may see it one request late.
        self.word.load(Ordering::Relaxed) & ((1 << STATE_BITS) - 1) != UNHEALTHY
    }

    /// What checks have found; `None`: nothing yet.
    pub fn verdict(&self) -> Option<bool> {
        match self.word.load(Ordering::Relaxed) & ((1 << STATE_BITS) - 1) {
            HEALTHY => Some(true),
            UNHEALTHY => Some(false),
            _ => None,
        }
    }

    /// Takes the result of a check. The first one counts at once, later ones once enough of them
    /// in a row say the same.
    pub fn note(&self, success: bool, check: &HealthCheck) -> Option<Change> {
        let word = self.word.load(Ordering::Relaxed);
        let (state, streak) = (word & ((1 << STATE_BITS) - 1), word >> STATE_BITS);
        let said = if success { HEALTHY } else { UNHEALTHY };
        let enough = if success { check.healthy_after } else { check.unhealthy_after };
        let against = streak + 1;
        let next = match state {
            _ if state == said => said,
            UNKNOWN => said,
            _ if against >= enough => said,
            _ => state | against.min(u32::MAX >> STATE_BITS) << STATE_BITS,
        };
        self.word.store(next, Ordering::Relaxed);
        match (state, next) {
            (UNHEALTHY, HEALTHY) => Some(Change::Recovered),
            (UNKNOWN | HEALTHY, UNHEALTHY) => Some(Change::Lost),
            _ => None,
        }
    }
}

/// What a check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Healthy,
    Unhealthy,
    /// Nothing about the target: the pool had no connection left, say.
    Nothing,
}

/// Checks a target once. `watch` carries the check's deadline.
pub async fn check(
    io: &Io,
    watch: &Watch,
    pool: &std::rc::Rc<Pool>,
    upstream: &Upstream,
    target: &Target,
    kind: &HealthKind,
) -> Found {
    match kind {
        HealthKind::Grpc { service } => {
            grpc::check(io, watch, pool, upstream, target, service).await
        }
        HealthKind::Http { path, host, statuses, body } => {
            let (host, body) = (host.as_deref(), body.as_deref());
            let wanted = http::Wanted { path, host, statuses, body };
            http::check(io, watch, pool, upstream, target, wanted).await
        }
        HealthKind::Tcp => tcp::check(io, watch, upstream, target).await,
    }
}

/// The time to the next check: the interval, give or take a tenth, so that nodes and targets do
/// not fall into step. `random` is any word.
pub fn jittered(interval_ms: u32, random: u64) -> u64 {
    let tenth = u64::from(interval_ms) / 10;
    (u64::from(interval_ms) - tenth + random % (2 * tenth + 1)).max(1)
}

#[cfg(test)]
pub(crate) mod tests;
