//! Sessions remembered on the server's side, for listeners with early data: each can be used once,
//! in whatever shard, which is what keeps early data from being replayed (RFC 8446 §8.1).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::pki_types::UnixTime;
use rustls::server::StoresServerSessions;

use super::identity::Fingerprint;
use crate::limits;

const PARTS: usize = 16;

struct Session {
    state: Vec<u8>,
    /// Seconds since the epoch.
    since: u64,
}

impl Session {
    fn fresh(&self) -> bool {
        let age = UnixTime::now().as_secs().saturating_sub(self.since);
        age <= u64::from(limits::TLS_SESSION_S)
    }
}

#[derive(Default)]
struct Part {
    sessions: HashMap<Vec<u8>, Session>,
    /// In the order they came, those taken meanwhile too.
    order: VecDeque<Vec<u8>>,
}

/// All sessions of the process. Holds a bounded number; the oldest make room.
#[derive(Default)]
pub(super) struct Sessions {
    parts: [Mutex<Part>; PARTS],
}

impl Sessions {
    fn part(&self, key: &[u8]) -> MutexGuard<'_, Part> {
        // Session ids are random: any byte of one spreads them.
        let at = usize::from(key.last().copied().unwrap_or(0)) % PARTS;
        let part = self.parts.get(at).unwrap_or(&self.parts[0]);
        part.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if value.len() > limits::TLS_SESSION_BYTES {
            return false;
        }
        let part = &mut *self.part(&key);
        while part.order.len() >= limits::TLS_SESSIONS / PARTS {
            let Some(oldest) = part.order.pop_front() else { break };
            part.sessions.remove(&oldest);
        }
        part.order.push_back(key.clone());
        let since = UnixTime::now().as_secs();
        part.sessions.insert(key, Session { state: value, since });
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let part = self.part(key);
        part.sessions
            .get(key)
            .filter(|session| session.fresh())
            .map(|session| session.state.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.part(key).sessions.remove(key)?;
        session.fresh().then_some(session.state)
    }
}

/// The sessions of one site, apart from those of sites that trust others.
pub(super) struct SiteSessions {
    pub(super) sessions: Arc<Sessions>,
    pub(super) policy: Fingerprint,
}

impl SiteSessions {
    fn key(&self, id: &[u8]) -> Vec<u8> {
        [self.policy.as_slice(), id].concat()
    }
}

impl std::fmt::Debug for SiteSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SiteSessions")
    }
}

impl StoresServerSessions for SiteSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(self.key(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_taken_once_and_the_oldest_make_room() {
        let sessions = Arc::new(Sessions::default());
        let site = |policy| SiteSessions { sessions: sessions.clone(), policy: [policy; 32] };
        let (one, two) = (site(1), site(2));
        assert!(one.put(vec![7; 32], vec![1]));
        assert_eq!(two.take(&[7; 32]), None, "another policy");
        assert_eq!(one.get(&[7; 32]), Some(vec![1]));
        assert_eq!(one.take(&[7; 32]), Some(vec![1]));
        assert_eq!(one.take(&[7; 32]), None, "a replay");
        assert!(!one.put(vec![8; 32], vec![0; limits::TLS_SESSION_BYTES + 1]));
        for n in 0..2 * limits::TLS_SESSIONS as u32 {
            assert!(one.put(n.to_le_bytes().to_vec(), vec![0]));
        }
        let held: usize =
            sessions.parts.iter().map(|part| part.lock().unwrap().sessions.len()).sum();
        assert!(held <= limits::TLS_SESSIONS, "{held}");
        let order: usize = sessions.parts.iter().map(|part| part.lock().unwrap().order.len()).sum();
        assert!(order <= limits::TLS_SESSIONS, "{order}");
    }
}
