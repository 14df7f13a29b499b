//! Getting a snapshot to every shard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use contract::{
    segment::Segment,
    snapshot::{Listener, Snapshot},
};

/// Longest wait for every shard to adopt an epoch.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the supervisor to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes snapshots, one at a time.
pub struct Publisher {
    segment: Arc<Segment>,
    /// The last epoch given out.
    epoch: u64,
}

impl Publisher {
    /// The epoch for the next snapshot. Rises for as long as the segment lives, over all control
    /// processes.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.max(self.segment.epoch()) + 1;
        self.epoch
    }

    /// Whether the engine could take `snapshot`.
    pub fn fits(&self, snapshot: &Snapshot) -> Result<(), String> {
        Ok(())
    }

    /// Opens the listening sockets of `listeners` that are not open yet: all or none of them.
    ///
    /// # Errors
    /// Which one cannot be opened, why, and what to do.
    pub async fn open(&mut self, listeners: &[Listener]) -> Result<(), String> {
        Ok(())
    }

    /// Closes the listening sockets that are not of `listeners`.
    pub async fn close_others(&mut self, listeners: &[Listener]) {}

    /// Publishes `snapshot`; returns when that began.
    pub async fn publish(&mut self, snapshot: &Snapshot) -> Result<Instant, String> {
        Ok(Instant::now())
    }

    /// Waits until every shard serves `epoch`; returns how long that took since `began`.
    pub async fn converge(&mut self, epoch: u64, began: Instant) -> Result<Duration, String> {
        loop {
            let behind: Vec<usize> = (0..self.segment.shards())
                .filter(|shard| self.segment.adopted(*shard) < epoch)
                .collect();
            if behind.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() >= ADOPT_TIMEOUT {
                return Err(format!(
                    "published as epoch {epoch}, but shard{} {} did not take it within {} s; it is \
                     adopted as soon as the engine answers (`sluice status`)",
                    if behind.len() == 1 { "" } else { "s" },
                    behind.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
                    ADOPT_TIMEOUT.as_secs(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
