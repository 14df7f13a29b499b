//! What happened in a simulation: one in which nothing goes wrong proves nothing.

use contract::record::RetryStop;

use crate::upstream::Refusal;

/// Over all seeds.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
    pub cut: u64,
    pub abandoned: u64,
    pub refused: [u64; 5],
    pub retries: u64,
    /// Of those, over a fresh connection without a permit.
    pub stale: u64,
    pub stops: [u64; RetryStop::ALL.len()],
    pub hedges: u64,
    pub hedges_won: u64,
    /// One of two tries had failed, and the other went on.
    pub gave_way: u64,
    pub hedges_over_budget: u64,
    /// There was no other target.
    pub hedges_alone: u64,
    pub mirrored: u64,
    pub mirrors_full: u64,
    /// The mirror did not take it.
    pub mirrors_refused: u64,
    pub mirrors_failed: u64,
    pub mirrors_late: u64,
    pub connections: u64,
    /// Requests that shared a connection in their time.
    pub shared: u64,
    /// Who waited for a connection that another one opened.
    pub waited: u64,
    pub streams_refused: u64,
    pub goaways: u64,
    /// Streams that a GOAWAY had left out.
    pub left_out: u64,
    /// Connections that died under several streams.
    pub died_in_use: u64,
    /// Streams that were lost with their connections.
    pub lost: u64,
    /// Of all that happened, in its order.
    pub story: u64,
}

impl Tally {
    /// Something happened (FNV-1a).
    pub fn tell(&mut self, what: &[u64]) {
        for word in what {
            self.story = (self.story ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        self.refused[refusal as usize] += 1;
    }

    /// Panics unless each thing has happened so often as to mean something.
    pub fn prove(&self) {
        let many = [
            ("answers", self.answered),
            ("failures", self.failed),
            ("cut answers", self.cut),
            ("clients that went", self.abandoned),
            ("refusals", self.refused.iter().sum()),
            ("retries", self.retries),
            ("stale connections", self.stale),
            ("hedges", self.hedges),
            ("hedges that won", self.hedges_won),
            ("failures beside another try", self.gave_way),
            ("hedges over the budget", self.hedges_over_budget),
            ("hedges without another target", self.hedges_alone),
            ("mirrored", self.mirrored),
            ("mirrors over their bound", self.mirrors_full),
            ("mirrors that took nothing", self.mirrors_refused),
            ("mirrors that failed", self.mirrors_failed),
            ("mirrors that took too long", self.mirrors_late),
            ("connections", self.connections),
            ("shared connections", self.shared),
            ("waits for a connection", self.waited),
            ("refused streams", self.streams_refused),
            ("GOAWAYs", self.goaways),
            ("streams above a GOAWAY", self.left_out),
            ("connections that died in use", self.died_in_use),
            ("lost streams", self.lost),
        ];
        for (what, times) in many {
            assert!(times >= 100, "{what}: {times}, of {self:?}");
        }
        for (stop, times) in RetryStop::ALL.into_iter().zip(self.stops) {
            assert!(times > 0, "no retry was ever stopped by {}", stop.name());
        }
    }
}
