//! What one bucket allows, and how its time is cut.

/// What one bucket allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// At least 1.
    pub limit: u64,
    pub span: Span,
}

/// How long what was spent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// For so many milliseconds.
    Sliding { ms: u64 },
    /// Until the calendar's period ends, at this time in milliseconds since the Unix epoch. The next
    /// period is another bucket.
    Until { wall_ms: u64 },
    /// Not at all: only what is held counts. A token is given back when its request ends.
    Concurrent,
}

/// Into how many slots a window is cut.
pub const SLOTS: u64 = 512;

impl Span {
    /// Length of a slot: all that is spent in one leaves the window together, a window's length after
    /// the slot's end. 0 where there are no slots.
    pub fn slot_ms(self) -> u64 {
        match self {
            Span::Sliding { ms } => (ms / SLOTS).max(1),
            Span::Until { .. } | Span::Concurrent => 0,
        }
    }

    /// How long a request under way is taken to have reached its upstream at the latest: until its
    /// answer begins, or this. A 200th of the window: what it costs is within what a limit may fall
    /// short, and what it saves is a request too many in the upstream's own window.
    pub fn reach_ms(self) -> u64 {
        match self {
            Span::Sliding { ms } => (ms / 200).clamp(1, 1_000),
            Span::Until { .. } | Span::Concurrent => 0,
        }
    }
}
