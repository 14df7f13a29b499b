//! How things stand, for the API, the command line and Prometheus.

use contract::Counter;

use super::{MAX_SILENT_MS, Running, monotonic_ms};
use crate::api::model::{self, Status, Unresolved};
use crate::keys::{self, ProviderState};

impl Running {
    fn shard_states(&self) -> Vec<model::Shard> {
        let segment = &self.shared.segment;
        let now_ms = monotonic_ms();
        let states = (0..segment.shards()).map(|shard| {
            let view = segment.shard(shard);
            let silent_ms = now_ms.saturating_sub(view.heartbeat());
            let counters = view.counters();
            let count = |counter: Counter| counters.get(counter as usize).copied().unwrap_or(0);
            model::Shard {
                shard: shard.into(),
                epoch: view.adopted(),
                healthy: view.adopted() > 0 && silent_ms <= MAX_SILENT_MS,
                silent_ms,
                requests: count(Counter::Requests),
                connections: crate::metrics::open_connections(&counters),
                records_dropped: count(Counter::RecordsDropped),
            }
        });
        states.collect()
    }

    /// # Errors
    /// Why the gateway is not ready for traffic.
    pub fn ready(&self) -> Result<(), String> {
        let epoch = self.current().snapshot.epoch;
        for shard in self.shard_states() {
            if !shard.healthy {
                return Err(format!("shard {} does not answer", shard.shard));
            }
            if shard.epoch != epoch {
                return Err(format!(
                    "shard {} serves epoch {}, not {epoch}",
                    shard.shard, shard.epoch
                ));
            }
        }
        Ok(())
    }

    pub fn status(&self) -> Status {
        let current = self.current();
        let epoch = current.snapshot.epoch;
        let shards = self.shard_states();
        let unresolved = self.shared.resolver.states().into_iter().filter_map(|state| {
            let error = state.error?;
            let known = if state.addresses.is_empty() { "" } else { " (last addresses kept)" };
            Some(Unresolved { host: state.host, error: format!("{error}{known}") })
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: current.revision.id,
            epoch,
            converged: shards.iter().all(|shard| shard.epoch == epoch),
            convergence_us: current.convergence.map(|time| time.as_micros() as u64),
            engine: self.shared.engine_state.describe(),
            control_uptime_ms: self.shared.started.elapsed().as_millis() as u64,
            shards,
            access_log: model::AccessLog {
                path: self.shared.records.destination(),
                lines_dropped: self.shared.records.lines_dropped(),
            },
            unresolved: unresolved.collect(),
            certificate_errors: self.file_errors(),
            store: self.shared.store.place(),
            store_error: self.store_error(),
            revision_error: self.revision_error(),
        }
    }

    /// How upstreams and their targets stand.
    pub fn upstreams(&self) -> Vec<model::Upstream> {
        crate::standing::upstreams(&self.current().snapshot, &self.shared.segment)
    }

    /// How the providers stand that the running spec names.
    pub fn providers(&self) -> Vec<ProviderState> {
        self.shared.providers.states(&keys::sources(&self.current().spec))
    }

    /// Everything as Prometheus text.
    pub fn metrics(&self) -> String {
        let mut text = String::with_capacity(64 * 1024);
        crate::metrics::render(&mut text, &self.status(), &self.shared.segment);
        crate::metrics::limits(&mut text, &self.shared.segment.figures());
        crate::metrics::cache(&mut text, &self.shared.segment.figures());
        crate::metrics::upstreams(&mut text, &self.upstreams());
        crate::metrics::providers(&mut text, &self.providers());
        crate::metrics::certificates(&mut text, &crate::api::certificates(&self.current()));
        self.shared.records.render(&mut text);
        text
    }
}
