//! Questions to the engine, through the supervisor: what only it knows, and tells when it is asked.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::bus::{Bus, Message};
use contract::sealed::read_sealed;
use contract::{CacheReport, LimitLine, Purge};
use tokio::sync::oneshot;

/// An engine that serves answers within a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most questions under way.
const MAX_WAITING: usize = 64;

/// Who asks. Clones ask over the same bus.
#[derive(Clone)]
pub struct Inquiry {
    bus: Arc<Bus>,
    waiting: Waiting,
    last: Arc<AtomicU64>,
}

/// Who waits for which answer.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<u64, oneshot::Sender<OwnedFd>>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to whoever waits for it.
    pub fn answer(&self, id: u64, fd: OwnedFd) {
        let asked = self.lock().remove(&id);
        if let Some(asked) = asked {
            let _ = asked.send(fd);
        }
    }
}

impl Inquiry {
    /// `waiting` is told of the answers that come over `bus`.
    pub fn new(bus: Arc<Bus>, waiting: Waiting) -> Inquiry {
        Inquiry { bus, waiting, last: Arc::default() }
    }

    /// The buckets that the engine has now, those of a consumer alone if it is named: the ones that
    /// are nearest to their limits first.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn limits(
        &self,
        consumer: Option<&str>,
        most: u32,
    ) -> Result<Vec<LimitLine>, String> {
        let consumer = consumer.unwrap_or_default().to_owned();
        let bytes = self.ask(|id| Message::ListLimits { id, consumer, most }).await?;
        LimitLine::decode(&bytes).map_err(|error| error.to_string())
    }

    /// How the cache stands, once what `purge` says has gone.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn cache(&self, purge: Option<Purge>) -> Result<CacheReport, String> {
        let bytes = self.ask(|id| Message::AskCache { id, purge }).await?;
        CacheReport::decode(&bytes).map_err(|error| error.to_string())
    }

    async fn ask(&self, question: impl FnOnce(u64) -> Message) -> Result<Vec<u8>, String> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (asked, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            waiting.retain(|_, asked| !asked.is_closed());
            if waiting.len() >= MAX_WAITING {
                return Err("too many ask the engine at once: try again".into());
            }
            waiting.insert(id, asked);
        }
        self.bus
            .send(&question(id))
            .map_err(|error| format!("the supervisor cannot be told: {error}"))?;
        let fd = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| "the engine does not answer (`sluice status` tells how it is)")?
            .map_err(|_| "the supervisor is gone")?;
        read_sealed(&fd).map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_finds_who_asked() {
        let (ours, theirs) = Bus::pair().unwrap();
        let waiting = Waiting::default();
        let inquiry = Inquiry::new(Arc::new(ours), waiting.clone());
        let engine = std::thread::spawn(move || {
            while let Ok(Some(Message::ListLimits { id, consumer, most })) = theirs.recv() {
                let line = LimitLine { consumer, limit: most.into(), ..LimitLine::default() };
                let fd = contract::bus::seal(&LimitLine::encode(&[line])).unwrap();
                // An answer that nobody waits for does no harm.
                waiting.answer(id + 100, fd.try_clone().unwrap());
                waiting.answer(id, fd);
            }
        });
        let (one, two) = tokio::join!(inquiry.limits(Some("acme"), 3), inquiry.limits(None, 4));
        assert_eq!(one.unwrap()[0].consumer, "acme");
        assert_eq!(two.unwrap()[0].limit, 4);
        drop(inquiry);
        engine.join().unwrap();
    }
}
