//! Work that computes for long: few of a kind at once, and few that wait. Whoever comes when all places
//! are taken is told so at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// The places for one kind of work.
#[derive(Debug)]
pub struct Places {
    working: Semaphore,
    /// With those that wait.
    taken: AtomicUsize,
    most: usize,
}

impl Places {
    /// `working` at once, `most` with those that wait.
    pub fn new(working: usize, most: usize) -> Arc<Places> {
        let (working, taken) = (Semaphore::new(working), AtomicUsize::new(0));
        Arc::new(Places { working, taken, most })
    }

    /// A place; `None`: there are too many already.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }
}

/// A place among them, until it is dropped.
pub struct Place(Arc<Places>);

impl Place {
    /// Has `work` done on a thread that may block. `None`: it panicked.
    pub async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let _working = self.0.working.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
