//! When the API keys of the spec were used last: shards tell, the store keeps it over restarts.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Running, Store, unix_now};
use crate::records::KeyUses;

/// How often it is written. Each key's use is told once a minute.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// How long it is kept, in seconds: as in Redis.
const KEPT_S: u64 = 400 * 24 * 3_600;

/// What is known.
pub(super) struct Known(Mutex<State>);

struct State {
    all: KeyUses,
    /// What of it is not in the store.
    unwritten: KeyUses,
}

impl Known {
    /// What is in the store. Where that cannot be read, nothing is known, which is no reason not to
    /// serve.
    pub async fn of(store: &Store) -> Known {
        let all = store.key_uses().await.unwrap_or_else(|error| {
            eprintln!("sluice: when API keys were used cannot be read: {error}");
            KeyUses::default()
        });
        Known(Mutex::new(State { all, unwritten: KeyUses::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, uses: KeyUses) {
        for (digest, used_s) in uses {
            let known_s = self.all.entry(digest).or_default();
            if used_s > *known_s {
                *known_s = used_s;
                self.unwritten.insert(digest, used_s);
            }
        }
    }
}

impl Running {
    /// When API keys were used last.
    pub fn key_uses(&self) -> KeyUses {
        let mut state = self.shared.key_uses.lock();
        state.learn(self.shared.records.take_key_uses());
        state.all.clone()
    }

    /// Writes when keys were used, once in a while. Runs for ever.
    pub async fn follow_key_uses(&self) {
        loop {
            tokio::time::sleep(WRITE_INTERVAL).await;
            self.write_key_uses().await;
        }
    }

    pub(super) async fn write_key_uses(&self) {
        let since_s = unix_now().unsigned_abs().saturating_sub(KEPT_S);
        let uses = {
            let mut state = self.shared.key_uses.lock();
            state.learn(self.shared.records.take_key_uses());
            std::mem::take(&mut state.unwritten)
        };
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.shared.store.note_key_uses(uses.clone(), since_s).await {
            eprintln!("sluice: when API keys were used cannot be written: {error}");
            let mut state = self.shared.key_uses.lock();
            for (digest, used_s) in uses {
                state.unwritten.entry(digest).or_insert(used_s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_use_counts_and_is_written_once() {
        let mut state = State { all: KeyUses::default(), unwritten: KeyUses::default() };
        state.learn(KeyUses::from([([1; 32], 10), ([2; 32], 20)]));
        assert_eq!(std::mem::take(&mut state.unwritten).len(), 2);
        // Shards tell in any order.
        state.learn(KeyUses::from([([1; 32], 9), ([2; 32], 21)]));
        assert_eq!(state.unwritten, KeyUses::from([([2; 32], 21)]));
        assert_eq!(state.all, KeyUses::from([([1; 32], 10), ([2; 32], 21)]));
    }
}
