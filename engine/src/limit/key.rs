//! Which bucket a request is counted in: its id, which costs no memory, and its name, which is made once.
//!
//! The id is a keyed hash of what stands in the name, so that nobody can bring two callers together, or
//! aim at someone else's bucket. What makes a difference in one makes one in the other.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;

use chrono::{DateTime, Datelike, Timelike};
use contract::snapshot::CalendarUnit;
use ring::digest::{SHA256, digest};

use super::messages::{Bucket, BucketId};
use super::policy::{Length, Policy, Scope, Window};
use super::rule::{Rule, Span};
use crate::auth::Identity;
use crate::limits;
use crate::message::{Name, RequestHead};

/// The keys of the hash: SipHash twice, under keys of the system's randomness. One for all shards of a
/// process, as they tell the ledger of the same buckets.
#[derive(Clone, Debug, Default)]
pub struct Keys([RandomState; 2]);

impl Keys {
    fn hash(&self) -> Hash {
        Hash(self.0.each_ref().map(RandomState::build_hasher))
    }
}

struct Hash([DefaultHasher; 2]);

impl Hash {
    fn part(&mut self, at: usize, tag: Tag, value: &[u8]) {
        let head = (at as u64) << 48 | (tag as u64) << 40 | value.len() as u64;
        for half in &mut self.0 {
            half.write_u64(head);
            half.write(value);
        }
    }

    fn finish(self) -> u128 {
        let [low, high] = self.0;
        u128::from(high.finish()) << 64 | u128::from(low.finish())
    }
}

/// What a value is. The same scope may be met by different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Plain,
    /// A caller who is no consumer of ours, by what its authenticator calls it.
    Caller,
    /// One address or network, as it is written in bytes with its prefix length behind.
    Address,
}

/// A request as limits see it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub identity: Option<&'a Identity>,
    /// By which the tier was chosen.
    pub group: Option<&'a str>,
    pub address: Address<'a>,
    pub head: &'a RequestHead,
    pub bytes: &'a [u8],
    /// In normal form.
    pub path: &'a [u8],
    pub route: &'a str,
}

/// The client's address, looked up when it is needed.
pub type Address<'a> = &'a dyn Fn() -> IpAddr;

impl<'a> Subject<'a> {
    /// Whoever is known by more than that it is nobody known.
    fn known(&self) -> Option<&'a Identity> {
        self.identity.filter(|identity| !identity.anonymous && !identity.id.is_empty())
    }

    fn consumer(&self, mut part: impl FnMut(Tag, &[u8])) {
        match self.known() {
            Some(known) if known.consumer.is_some() => part(Tag::Plain, known.id.as_bytes()),
            Some(known) => part(Tag::Caller, known.id.as_bytes()),
            // What one subscriber has.
            None => network((self.address)(), 32, 64, |value| part(Tag::Address, value)),
        }
    }

    /// Shows each value that this scope counts by, at least one. `false`: the request is none of those
    /// that are limited.
    fn values(&self, scope: &Scope, mut part: impl FnMut(Tag, &[u8])) -> bool {
        match scope {
            Scope::Consumer => self.consumer(part),
            Scope::Credential => match self.known().and_then(|known| known.credential.as_deref()) {
                Some(credential) => part(Tag::Plain, credential.as_bytes()),
                None => self.consumer(part),
            },
            Scope::Group => {
                let first = || self.identity.and_then(|known| known.groups.first()).map(|g| &**g);
                part(Tag::Plain, self.group.or_else(first).unwrap_or_default().as_bytes());
            }
            Scope::Address { v4, v6 } => {
                network((self.address)(), *v4, *v6, |value| part(Tag::Address, value));
            }
            Scope::Header { id, name } => {
                let mut absent = true;
                for field in self.head.fields.iter().filter(|field| field.id == *id) {
                    let other = *id == Name::Other;
                    let named = |own: &[u8]| own.eq_ignore_ascii_case(name.as_bytes());
                    if !other || named(field.name.of(self.bytes)) {
                        absent = false;
                        part(Tag::Plain, field.value.of(self.bytes));
                    }
                }
                if absent {
                    part(Tag::Plain, b"");
                }
            }
            Scope::Path(template) => {
                let Some(values) = template.values(self.path) else { return false };
                values.iter().for_each(|value| part(Tag::Plain, value));
                if values.is_empty() {
                    part(Tag::Plain, b"");
                }
            }
            Scope::Route => part(Tag::Plain, self.route.as_bytes()),
        }
        true
    }

    /// The hash of all values; `None`: the policy does not hold for this request.
    pub fn hash(&self, keys: &Keys, policy: &Policy) -> Option<u128> {
        let mut hash = keys.hash();
        for (at, scope) in policy.by.iter().enumerate() {
            if !self.values(scope, |tag, value| hash.part(at, tag, value)) {
                return None;
            }
        }
        Some(hash.finish())
    }

    /// The bucket by name, and all that holds for it.
    pub fn bucket(&self, policy: &Policy, window: &Window, rule: Rule, wall_ms: u64) -> Bucket {
        let mut values = String::new();
        for (at, scope) in policy.by.iter().enumerate() {
            values.push(if at == 0 { ':' } else { ',' });
            scope.label(&mut values);
            let mut first = true;
            self.values(scope, |tag, value| {
                values.push_str(if first { "=" } else { "," });
                first = false;
                write_value(&mut values, tag, value);
            });
        }
        let mut name = String::from(&*window.label);
        if let Length::Calendar(unit) = window.length {
            name.push('-');
            write_period(&mut name, unit, wall_ms);
        }
        name.push_str(&values);
        let by_caller = |scope: &Scope| matches!(scope, Scope::Consumer | Scope::Credential);
        let caller = self.known().filter(|_| policy.by.iter().any(by_caller));
        let mut consumer = String::new();
        if let Some(caller) = caller {
            escape(&mut consumer, caller.id.as_bytes(), VALUES);
        }
        let tag = match &*consumer {
            // All windows of a policy on one server.
            "" => format!("{}{values}", window.label.split(':').next().unwrap_or_default()),
            consumer => consumer.to_string(),
        };
        Bucket {
            name: shorten(name, limits::BUCKET_NAME).into(),
            tag: shorten(tag, limits::BUCKET_TAG).into(),
            consumer: shorten(consumer, limits::BUCKET_TAG).into(),
            rule,
            mode: policy.mode,
            on_store_failure: policy.on_store_failure,
        }
    }
}

/// The id of a window's bucket, whose values have that hash, and its rule at this time.
#[inline]
pub fn identify(values: u128, window: &Window, wall_ms: u64) -> (BucketId, Rule) {
    // The hash is one of a secret key: nobody can choose values that make up for the fingerprints.
    let id = values ^ window.fingerprint;
    let (id, span) = match window.length {
        Length::Sliding(ms) => (id, Span::Sliding { ms }),
        Length::Concurrent => (id, Span::Concurrent),
        Length::Calendar(unit) => {
            let (period, end_ms) = period(unit, wall_ms);
            // Odd, so that no two periods are the same (Knuth's, of 128 bits, as in PCG).
            let spread = u128::from(period).wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645);
            (id ^ spread, Span::Until { wall_ms: end_ms })
        }
    };
    (id, Rule { limit: window.limit, span })
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const WEEK_MS: u64 = 7 * DAY_MS;

/// The calendar's period at that time: its number since 1970, and its end.
fn period(unit: CalendarUnit, wall_ms: u64) -> (u64, u64) {
    let plain = |length_ms: u64, shift_ms: u64| {
        let period = (wall_ms + shift_ms) / length_ms;
        (period, (period + 1) * length_ms - shift_ms)
    };
    match unit {
        CalendarUnit::Minute => plain(MINUTE_MS, 0),
        CalendarUnit::Hour => plain(HOUR_MS, 0),
        CalendarUnit::Day => plain(DAY_MS, 0),
        // 1 January 1970 was a Thursday.
        CalendarUnit::Week => plain(WEEK_MS, 3 * DAY_MS),
        CalendarUnit::Month | CalendarUnit::Year => {
            let now = date(wall_ms);
            let months = match unit {
                CalendarUnit::Month => 1,
                _ => 12,
            };
            let index = u64::try_from(now.year()).unwrap_or(0) * 12 + u64::from(now.month0());
            let period = index / months;
            let next = (period + 1) * months;
            (period, first_of(next))
        }
    }
}

/// When a month begins, by its number since the year 0.
fn first_of(month: u64) -> u64 {
    let year = i32::try_from(month / 12).unwrap_or(i32::MAX);
    let day = chrono::NaiveDate::from_ymd_opt(year, (month % 12) as u32 + 1, 1);
    let start = day.and_then(|day| day.and_hms_opt(0, 0, 0));
    let ms = start.map_or(i64::MAX, |start| start.and_utc().timestamp_millis());
    u64::try_from(ms).unwrap_or(0)
}

fn date(wall_ms: u64) -> DateTime<chrono::Utc> {
    let ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// The period as people write it (ISO 8601).
fn write_period(out: &mut String, unit: CalendarUnit, wall_ms: u64) {
    let now = date(wall_ms);
    let (year, month, day) = (now.year(), now.month(), now.day());
    let _ = match unit {
        CalendarUnit::Year => write!(out, "{year}"),
        CalendarUnit::Month => write!(out, "{year}-{month:02}"),
        CalendarUnit::Week => {
            let week = now.iso_week();
            write!(out, "{}-W{:02}", week.year(), week.week())
        }
        CalendarUnit::Day => write!(out, "{year}-{month:02}-{day:02}"),
        CalendarUnit::Hour => write!(out, "{year}-{month:02}-{day:02}T{:02}", now.hour()),
        CalendarUnit::Minute => {
            write!(out, "{year}-{month:02}-{day:02}T{:02}{:02}", now.hour(), now.minute())
        }
    };
}

/// The network of an address, its prefix length behind. An IPv4-mapped address is one of IPv4.
fn network<T>(address: IpAddr, v4: u8, v6: u8, then: impl FnOnce(&[u8]) -> T) -> T {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4.min(32))).unwrap_or(0);
            let [a, b, c, d] = (u32::from(ip) & mask).to_be_bytes();
            then(&[a, b, c, d, v4])
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6.min(128))).unwrap_or(0);
            let mut all = [v6; 17];
            for (slot, byte) in all.iter_mut().zip((u128::from(ip) & mask).to_be_bytes()) {
                *slot = byte;
            }
            then(&all)
        }
    }
}

fn write_value(out: &mut String, tag: Tag, value: &[u8]) {
    match tag {
        Tag::Plain => escape(out, value, VALUES),
        Tag::Caller => {
            out.push_str("caller%");
            escape(out, value, VALUES);
        }
        // Neither can be a name: `%` stands in no name but before two digits, in capitals.
        Tag::Address => {
            let (ip, prefix): (IpAddr, u8) = match value {
                [a, b, c, d, prefix] => ([*a, *b, *c, *d].into(), *prefix),
                _ => {
                    let ip = value.first_chunk::<16>().copied().unwrap_or_default();
                    (ip.into(), value.last().copied().unwrap_or_default())
                }
            };
            let _ = write!(out, "ip%{ip}/{prefix}");
        }
    }
}

/// Beside letters, digits, `-`, `.` and `_`, what stands in values as it is.
pub const VALUES: &[u8] = b"+/:=@";
/// The same in names of policies, tiers and fields.
pub const NAMES: &[u8] = b"+@";

/// Appends `text`; what is not `plain` is percent-encoded, so that no two texts become one.
pub fn escape(out: &mut String, text: &[u8], plain: &[u8]) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || plain.contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A text that is too long, cut, with a hash of all of it behind: the same on all nodes.
fn shorten(mut text: String, most: usize) -> String {
    const HEX: usize = 32;
    if text.len() <= most {
        return text;
    }
    let hash = digest(&SHA256, text.as_bytes());
    // `~` stands in no other.
    text.truncate(most - HEX - 1);
    text.push('~');
    for byte in hash.as_ref().iter().take(HEX / 2) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
