//! What outlives a plan: built configurations, as an epoch comes with every DNS answer and leaves
//! most as it was; clients' sessions with them; and the sessions that early data depends on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contract::snapshot::{ListenerTls, Protocol, Snapshot, UpstreamTls};

use super::client::{self, ClientSide};
use super::identity::{Fingerprint, Unusable};
use super::server::{self, ServerSide};
use super::sessions::Sessions;

/// Made once by the engine's start and given to every plan.
#[derive(Default)]
pub struct Memory {
    sessions: Arc<Sessions>,
    built: Mutex<Built>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

#[derive(Default)]
struct Built {
    listeners: HashMap<Fingerprint, Arc<ServerSide>>,
    upstreams: HashMap<Fingerprint, Arc<ClientSide>>,
}

impl Memory {
    pub(super) fn sessions(&self) -> Arc<Sessions> {
        self.sessions.clone()
    }

    /// The listener's side, as it was built before or anew.
    ///
    /// # Errors
    /// What in the spec must be mended.
    pub fn listener(
        &self,
        tls: &ListenerTls,
        snapshot: &Snapshot,
    ) -> Result<Arc<ServerSide>, Unusable> {
        let fingerprint = server::fingerprint(tls, snapshot);
        if let Some(known) = self.built().listeners.get(&fingerprint) {
            return Ok(known.clone());
        }
        let side = Arc::new(ServerSide::build(tls, snapshot, self)?);
        self.built().listeners.insert(fingerprint, side.clone());
        Ok(side)
    }

    /// The upstream's side, as it was built before or anew.
    ///
    /// # Errors
    /// What in the spec must be mended.
    pub fn upstream(
        &self,
        tls: &UpstreamTls,
        protocol: Protocol,
        snapshot: &Snapshot,
    ) -> Result<Arc<ClientSide>, Unusable> {
        let fingerprint = client::fingerprint(tls, protocol, snapshot);
        if let Some(known) = self.built().upstreams.get(&fingerprint) {
            return Ok(known.clone());
        }
        let side = Arc::new(ClientSide::build(tls, protocol, snapshot)?);
        self.built().upstreams.insert(fingerprint, side.clone());
        Ok(side)
    }

    /// Forgets what no plan and no connection has any more. Called when a plan is built.
    pub fn sweep(&self) {
        let built = &mut *self.built();
        built.listeners.retain(|_, side| Arc::strong_count(side) > 1);
        built.upstreams.retain(|_, side| Arc::strong_count(side) > 1);
    }

    fn built(&self) -> std::sync::MutexGuard<'_, Built> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
