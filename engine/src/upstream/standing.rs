//! Whether a target may be picked.

/// What becomes of picks for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets this share of its weight, in thousandths: less than 1,000 while it comes back slowly.
    Usable(u16),
    /// Left out for doing worse than others; used all the same when too few are left.
    Ejected,
    /// Down, as far as active checks and breakers tell.
    Unusable,
}

impl Standing {
    /// A target that gets all of its weight.
    pub const FULL: Standing = Standing::Usable(1_000);
}
