//! What a peer may cost (RFC 9113 §10.5). Frames without use to anyone draw on a budget that
//! useful ones and time fill again; when it is empty, the connection ends with ENHANCE_YOUR_CALM.

use super::error::ConnectionError;
use crate::limits;

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths.
    tokens: u64,
    most: u64,
    /// Thousandths per millisecond: tokens per second.
    rate: u64,
    at_ms: u64,
}

impl Bucket {
    const fn new(most: u32, rate: u32) -> Bucket {
        let most = most as u64 * 1000;
        Bucket { tokens: most, most, rate: rate as u64, at_ms: 0 }
    }

    fn earn(&mut self, tokens: u32) {
        self.tokens = (self.tokens + u64::from(tokens) * 1000).min(self.most);
    }

    /// False: it is empty.
    fn spend(&mut self, tokens: u32, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        self.tokens = self.tokens.saturating_add(passed.saturating_mul(self.rate)).min(self.most);
        match self.tokens.checked_sub(u64::from(tokens) * 1000) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// The budgets of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    resets: Bucket,
    control: Bucket,
    /// DATA bytes sent for which the peer has not returned credit: each counts for its stream and
    /// for the connection.
    credit_owed: u64,
    /// Replies queued since the output was last taken.
    replies: usize,
}

/// Tokens of a reset; a refused stream costs one, a finished one earns one.
const RESET: u32 = 2;

impl Budget {
    pub(super) fn new() -> Budget {
        Budget {
            resets: Bucket::new(RESET * limits::H2_RESETS, RESET * limits::H2_RESETS_PER_SECOND),
            control: Bucket::new(limits::H2_CONTROL_FRAMES, limits::H2_CONTROL_FRAMES_PER_SECOND),
            credit_owed: 0,
            replies: 0,
        }
    }

    /// A stream ended before its time by the peer's doing: its RST_STREAM, or a fault of its own
    /// that made us reset it ("MadeYouReset", CVE-2025-8671).
    pub(super) fn reset(&mut self, now_ms: u64) -> Result<(), ConnectionError> {
        match self.resets.spend(RESET, now_ms) {
            true => Ok(()),
            false => Err(ConnectionError::calm("too many resets")),
        }
    }

    /// A stream over the announced number.
    pub(super) fn refused(&mut self, now_ms: u64) -> Result<(), ConnectionError> {
        match self.resets.spend(1, now_ms) {
            true => Ok(()),
            false => Err(ConnectionError::calm("too many streams at a time")),
        }
    }

    /// A stream went all its way.
    pub(super) fn finished(&mut self) {
        self.resets.earn(1);
    }

    /// A frame that does nothing for any message.
    pub(super) fn control(&mut self, cost: u32, now_ms: u64) -> Result<(), ConnectionError> {
        match self.control.spend(cost, now_ms) {
            true => Ok(()),
            false => Err(ConnectionError::calm("too many control frames")),
        }
    }

    /// A HEADERS or DATA frame went either way.
    #[inline]
    pub(super) fn useful(&mut self) {
        self.control.earn(limits::H2_CONTROL_FRAMES_EARNED);
    }

    /// DATA was sent: as many bytes of credit may come back twice.
    #[inline]
    pub(super) fn sent(&mut self, n: usize) {
        self.credit_owed = self.credit_owed.saturating_add(2 * n as u64);
        self.useful();
    }

    /// A WINDOW_UPDATE. Free if it gives back what we used, and not in crumbs.
    pub(super) fn credit(&mut self, increment: u32, now_ms: u64) -> Result<(), ConnectionError> {
        if increment >= limits::H2_CRUMB
            && let Some(left) = self.credit_owed.checked_sub(u64::from(increment))
        {
            self.credit_owed = left;
            return Ok(());
        }
        self.control(1, now_ms)
    }

    /// A reply to a control frame is queued.
    pub(super) fn reply(&mut self) -> Result<(), ConnectionError> {
        self.replies += 1;
        match self.replies > limits::H2_QUEUED_REPLIES {
            true => Err(ConnectionError::calm("replies are not read")),
            false => Ok(()),
        }
    }

    /// The output was taken.
    pub(super) fn taken(&mut self) {
        self.replies = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_with_time_up_to_the_most() {
        let mut bucket = Bucket::new(10, 2);
        assert!((0..10).all(|_| bucket.spend(1, 5)));
        assert!(!bucket.spend(1, 5));
        assert!(bucket.spend(1, 505));
        assert!(!bucket.spend(1, 505));
        assert!(!bucket.spend(1, 1), "time does not run backwards");
        assert!((0..10).all(|_| bucket.spend(1, u64::MAX)));
        assert!(!bucket.spend(1, u64::MAX));
    }

    #[test]
    fn returning_what_was_sent_is_free() {
        let mut budget = Budget::new();
        for _ in 0..10_000 {
            budget.sent(16_384);
            for _ in 0..16 {
                budget.credit(1024, 0).unwrap(); // In small steps, for the stream...
                budget.credit(1024, 0).unwrap(); // ...and for the connection.
            }
        }
        assert!((0..1000).any(|_| budget.credit(1024, 0).is_err()));
    }
}
