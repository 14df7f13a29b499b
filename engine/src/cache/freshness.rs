//! May an answer be kept, how long is it good, and what may be done with it then (RFC 9111 §3, §4.2;
//! RFC 5861). Pure: times are arguments.

use contract::snapshot::{CacheCookies, RouteCache};

use super::directives::Wishes;
use super::said::{Age, Said};
use super::vary::Vary;
use crate::limits;

/// How long a stored answer is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Seconds that it is fresh for.
    pub lifetime_s: u64,
    /// How old it was when it came.
    pub initial_age_s: u64,
    /// When it came, in monotonic milliseconds.
    pub received_ms: u64,
    /// It is never used without being asked about (`no-cache`).
    pub always_asked: bool,
    /// It is never used once it is stale (`must-revalidate`, `proxy-revalidate`, `s-maxage`).
    pub strict: bool,
    /// Seconds past its lifetime in which it is used while it is asked about, or where that fails.
    pub while_revalidate_s: u64,
    pub if_error_s: u64,
}

/// What may be done with a stored answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Fresh,
    /// It is stale, and the client takes that.
    Stale,
    /// It is stale; it is used, and asked about meanwhile.
    Refresh,
    /// It has to be asked about first.
    Ask,
}

impl Freshness {
    /// RFC 9111 §4.2.3.
    pub fn age_s(&self, now_ms: u64) -> u64 {
        let resident_s = now_ms.saturating_sub(self.received_ms) / 1_000;
        self.initial_age_s.saturating_add(resident_s)
    }

    /// Seconds that it is still fresh for; negative: it has been stale for so long.
    pub fn left_s(&self, now_ms: u64) -> i64 {
        let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        signed(self.lifetime_s).saturating_sub(signed(self.age_s(now_ms)))
    }

    /// What a request with these wishes may have of it (RFC 9111 §4, §5.2.1).
    pub fn usage(&self, wishes: &Wishes, now_ms: u64) -> Use {
        let (age_s, left_s) = (self.age_s(now_ms), self.left_s(now_ms));
        let wanted = wishes.max_age_s.is_none_or(|most| age_s <= most)
            && wishes.min_fresh_s.is_none_or(|least| left_s >= least as i64);
        if self.always_asked || wishes.no_cache || !wanted {
            return Use::Ask;
        }
        // RFC 9111 §4.2: fresh while its lifetime is greater than its age.
        if left_s > 0 {
            return Use::Fresh;
        }
        let stale_s = left_s.unsigned_abs();
        match self.strict {
            true => Use::Ask,
            false if wishes.max_stale_s.is_some_and(|most| stale_s <= most) => Use::Stale,
            false if stale_s < self.while_revalidate_s => Use::Refresh,
            false => Use::Ask,
        }
    }

    /// Whether it may be used because there is nothing better (RFC 5861 §4, RFC 9111 §4.2.4).
    pub fn covers_errors(&self, now_ms: u64) -> bool {
        let left_s = self.left_s(now_ms);
        !self.strict
            && !self.always_asked
            && (left_s > 0 || left_s.unsigned_abs() < self.if_error_s)
    }

    /// Whether there is anything that it can still be used for, should it have no validator.
    fn is_of_use(&self) -> bool {
        let windows_s = match self.strict {
            true => 0,
            false => self.while_revalidate_s.max(self.if_error_s),
        };
        !self.always_asked && self.lifetime_s.saturating_add(windows_s) > self.initial_age_s
    }
}

/// Why an answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// Its status, or the route's list of them.
    Status,
    NoStore,
    Private,
    /// It is for a caller who has shown credentials, and does not say that others may have it.
    Authorization,
    /// It depends on more than is known.
    Vary,
    SetCookie,
    /// It says nothing of how long it is good.
    NoFreshness,
    /// It could not be used once.
    Useless,
}

/// What an answer came about by.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub status: u16,
    /// The request had credentials, and what is kept of it would be for others, too.
    pub shared_credentials: bool,
    /// The request must not be stored (`no-store`).
    pub unkept: bool,
    /// When it was asked for and when its head came, in monotonic milliseconds.
    pub asked_ms: u64,
    pub now_ms: u64,
    /// Seconds since 1970.
    pub wall_s: u64,
}

/// RFC 9110 §15.1.
fn is_heuristic(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether the meaning of a status for caches is known here (RFC 9111 §5.2.2.3).
fn is_understood(status: u16) -> bool {
    let known = crate::message::write::phrase(status);
    !known.is_empty() && !matches!(status, 206 | 304)
}

/// How long the answer is good, if it may be kept (RFC 9111 §3).
///
/// # Errors
/// Why it may not.
pub fn judge(rules: &RouteCache, said: &Said, facts: &Facts) -> Result<Freshness, Unstorable> {
    let control = &said.control;
    let listed = rules.statuses.is_empty() || rules.statuses.contains(&facts.status);
    // Parts of answers are not put together; 304 is about a stored one.
    if facts.status < 200 || matches!(facts.status, 206 | 304) || !listed {
        return Err(Unstorable::Status);
    }
    if control.must_understand && !is_understood(facts.status) {
        return Err(Unstorable::Status);
    }
    // RFC 9111 §5.2.2.3: who understands the status may ignore no-store beside must-understand.
    if facts.unkept || (control.no_store && !control.must_understand) {
        return Err(Unstorable::NoStore);
    }
    if control.private.is_all() {
        return Err(Unstorable::Private);
    }
    // RFC 9111 §3.5, but for must-revalidate, which answers have that mean nobody else.
    if facts.shared_credentials && !control.public && control.s_maxage_s.is_none() {
        return Err(Unstorable::Authorization);
    }
    if said.vary == Vary::Any {
        return Err(Unstorable::Vary);
    }
    if said.sets_cookie
        && rules.set_cookie == CacheCookies::Refuse
        && !control.private.names(b"set-cookie")
        && !control.no_cache.names(b"set-cookie")
    {
        return Err(Unstorable::SetCookie);
    }
    let date_s = said.date_s.unwrap_or(facts.wall_s);
    let lifetime_s = lifetime_s(rules, said, facts.status, date_s);
    let asked = control.no_cache.is_all() && said.has_validator();
    let lifetime_s = match lifetime_s {
        Some(seconds) => seconds,
        None if asked && (control.public || is_heuristic(facts.status)) => 0,
        None => return Err(Unstorable::NoFreshness),
    };
    let window = |own: Option<u64>, rule_ms: u64| own.unwrap_or(rule_ms / 1_000);
    let delay_s = facts.now_ms.saturating_sub(facts.asked_ms) / 1_000;
    let told_s = match said.age {
        Age::Unsaid => 0,
        Age::Seconds(seconds) => seconds,
        // Of unknown age, so not fresh.
        Age::Unclear => lifetime_s,
    };
    let freshness = Freshness {
        lifetime_s,
        // RFC 9111 §4.2.3: apparent_age, and corrected_age_value.
        initial_age_s: facts.wall_s.saturating_sub(date_s).max(told_s.saturating_add(delay_s)),
        received_ms: facts.now_ms,
        always_asked: control.no_cache.is_all(),
        // RFC 9111 §5.2.2.10: s-maxage implies proxy-revalidate.
        strict: control.must_revalidate || control.proxy_revalidate || control.s_maxage_s.is_some(),
        while_revalidate_s: window(
            control.stale_while_revalidate_s,
            rules.stale_while_revalidate_ms,
        ),
        if_error_s: window(control.stale_if_error_s, rules.stale_if_error_ms),
    };
    match said.has_validator() || freshness.is_of_use() {
        true => Ok(freshness),
        false => Err(Unstorable::Useless),
    }
}

/// RFC 9111 §4.2.1, §4.2.2. `None`: nothing says so.
fn lifetime_s(rules: &RouteCache, said: &Said, status: u16, date_s: u64) -> Option<u64> {
    let control = &said.control;
    if let Some(seconds) = control.s_maxage_s.or(control.max_age_s) {
        return Some(seconds);
    }
    if let Some(at) = said.expires_s {
        return Some(at.saturating_sub(date_s));
    }
    if !is_heuristic(status) && !control.public && !rules.statuses.contains(&status) {
        return None;
    }
    if rules.ttl_ms > 0 {
        return Some(rules.ttl_ms / 1_000);
    }
    let since_s = date_s.saturating_sub(said.last_modified_s?);
    let seconds = since_s.saturating_mul(u64::from(rules.heuristic_percent)) / 100;
    (rules.heuristic_percent > 0).then(|| seconds.min(limits::CACHE_HEURISTIC_S))
}

#[cfg(test)]
mod tests;
