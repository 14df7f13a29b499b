//! How soon a bucket is looked at, told, given back and forgotten, by its rule.

use super::super::rule::{Rule, Span};

/// How often a bucket is looked at without being asked, in milliseconds.
pub fn check_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms / 16).clamp(25, 2_000),
        Span::Until { .. } | Span::Concurrent => 500,
    }
}

/// The same where nothing is held or untold, but what was spent is remembered.
pub fn idle_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Until { .. } => 30_000,
        Span::Sliding { .. } | Span::Concurrent => check_ms(rule),
    }
}

/// What was spent is told at the latest after this.
pub fn patience_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms / 8).min(10_000),
        Span::Until { .. } | Span::Concurrent => 1_000,
    }
}

/// How long a bucket of which nothing counts is remembered after the last ask.
pub fn memory_ms(rule: &Rule) -> u64 {
    match rule.span {
        Span::Sliding { ms } => (ms + ms / 4).max(1_000),
        Span::Until { .. } => 60_000,
        Span::Concurrent => 10_000,
    }
}

/// What nodes hold of such a window at rest goes back whole.
pub fn is_short(rule: &Rule) -> bool {
    matches!(rule.span, Span::Sliding { ms } if ms <= 10_000)
}

/// How long a bucket is not asked for until it is at rest. `alone`: there is no other node.
pub fn rest_ms(rule: &Rule, alone: bool) -> u64 {
    match rule.span {
        // What rests elsewhere is soon missed in a short window; where nobody else is, it is not.
        Span::Sliding { ms } if ms <= 10_000 && !alone => (ms / 20).max(50),
        Span::Sliding { ms } => ms.clamp(50, 60_000),
        Span::Until { .. } => 10_000,
        Span::Concurrent => 1_000,
    }
}
