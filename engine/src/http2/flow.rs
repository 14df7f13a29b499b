//! Flow-control windows (RFC 9113 §5.2, §6.9).

/// Largest window (RFC 9113 §6.9.1).
pub(super) const MAX_WINDOW: i64 = 0x7fff_ffff;

/// The first window of connections and, until SETTINGS come, of streams (RFC 9113 §6.9.2).
pub(super) const FIRST_WINDOW: u32 = 65_535;

/// The window would exceed 2^31-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// How much we may send. Below 0 after the peer has made its initial window smaller
/// (RFC 9113 §6.9.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i64);

impl SendWindow {
    pub(super) fn new(size: u32) -> SendWindow {
        SendWindow(i64::from(size))
    }

    #[inline]
    pub(super) fn available(self) -> usize {
        self.0.max(0) as usize
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize) {
        self.0 -= n as i64;
    }

    pub(super) fn grow(&mut self, by: i64) -> Result<(), Overflow> {
        if self.0 + by > MAX_WINDOW {
            return Err(Overflow);
        }
        self.0 += by;
        Ok(())
    }
}

/// How much the peer may send, and what it gets back as its bytes are dealt with.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    available: i64,
    /// Released, but not told yet: updates go out for half a window at a time.
    untold: u32,
    target: u32,
}

impl ReceiveWindow {
    pub(super) fn new(available: u32, target: u32) -> ReceiveWindow {
        ReceiveWindow { available: i64::from(available), untold: 0, target }
    }

    /// Takes what a frame says it holds. False: more than was allowed.
    #[inline]
    pub(super) fn receive(&mut self, n: usize) -> bool {
        self.available -= n as i64;
        self.available >= 0
    }

    /// Gives `n` bytes back; returns the increment to announce, if it is time to.
    #[inline]
    pub(super) fn release(&mut self, n: usize) -> Option<u32> {
        self.untold = self.untold.saturating_add(n as u32);
        if self.untold == 0 || self.untold < self.target / 2 {
            return None;
        }
        self.available += i64::from(self.untold);
        Some(std::mem::take(&mut self.untold))
    }

    pub(super) fn target(&self) -> u32 {
        self.target
    }

    /// Makes the window larger; returns how much to add to an increment.
    pub(super) fn widen(&mut self, target: u32) -> u32 {
        let more = target.saturating_sub(self.target);
        self.target += more;
        self.available += i64::from(more);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_exceed_their_bounds() {
        let mut window = SendWindow::new(10);
        window.take(10);
        assert_eq!(window.grow(-5), Ok(()));
        assert_eq!(window.available(), 0, "below zero");
        assert_eq!(window.grow(MAX_WINDOW + 5), Ok(()));
        assert_eq!(window.grow(1), Err(Overflow));
        assert_eq!(window.available(), MAX_WINDOW as usize);
    }

    #[test]
    fn credit_goes_back_in_halves() {
        let mut window = ReceiveWindow::new(100, 100);
        assert!(window.receive(100));
        assert!(!window.clone().receive(1));
        assert_eq!(window.release(49), None);
        assert_eq!(window.release(1), Some(50));
        assert_eq!(window.widen(200), 100);
        assert!(window.receive(150));
        assert!(!window.receive(1));
    }
}
