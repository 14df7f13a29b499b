//! Snapshot → what the plan knows of limits: policies, and which of them hold where.

use std::collections::HashMap;

use contract::snapshot::{
    CalendarUnit, LimitCost, LimitFields, LimitIndex, LimitMode, LimitPolicy, LimitQuota,
    LimitScope, LimitSpan, Limits, OnStoreFailure, Snapshot,
};
use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

use super::key;
use crate::limits;
use crate::message::Name;
use crate::plan::PlanError;
use crate::store::Store;
use crate::store::redis::Settings;

/// All policies of a plan.
#[derive(Debug, Default)]
pub struct Policies {
    all: Box<[Policy]>,
    names: HashMap<Box<str>, LimitIndex>,
    everywhere: Box<[LimitIndex]>,
    place: Place,
}

/// Where it is counted.
#[derive(Debug, Default)]
struct Place {
    /// `None`: this node alone.
    redis: Option<Settings>,
    /// What the node is called.
    node: Box<str>,
    /// Longest that a request waits for Redis.
    timeout_ms: u32,
}

/// One policy: several limits on the same thing.
#[derive(Debug)]
pub struct Policy {
    pub name: Box<str>,
    /// As fields for clients call it.
    pub quoted: Box<str>,
    /// Together. Empty: all requests are counted as one.
    pub by: Box<[Scope]>,
    quota: Quota,
    tiers: Box<[(Box<str>, Quota)]>,
    pub cost: LimitCost,
    pub mode: LimitMode,
    pub on_store_failure: OnStoreFailure,
    pub dry_run: bool,
    pub fields: LimitFields,
}

/// What requests are told apart by.
#[derive(Debug)]
pub enum Scope {
    Consumer,
    Credential,
    Group,
    /// Prefix lengths.
    Address {
        v4: u8,
        v6: u8,
    },
    Header {
        id: Name,
        name: Box<str>,
    },
    Path(Template),
    Route,
}

/// How much.
#[derive(Debug, Default)]
pub struct Quota {
    /// The concurrency limit is the last of them. Each counts for itself.
    pub windows: Box<[Window]>,
    /// The first window as `RateLimit-Policy` says it, such as `"gold";q=100;w=60`; empty: there is none.
    pub told: Box<[u8]>,
}

/// One window of a quota.
#[derive(Debug)]
pub struct Window {
    pub limit: u64,
    pub length: Length,
    /// Beginning of its buckets' names, before the calendar's period: `gold:1s`, `gold/premium:day`.
    pub label: Box<str>,
    /// Tells its buckets from those of other windows: of all that stands in their names beside the values.
    pub fingerprint: u128,
}

/// How long what was spent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Milliseconds.
    Sliding(u64),
    Calendar(CalendarUnit),
    Concurrent,
}

/// What is wrong: the field in the policy, and the problem.
type Unfit = (String, String);

impl Policies {
    /// The policies of a snapshot, and where they are counted.
    ///
    /// # Errors
    /// As [`Policies::build`], or Redis' settings cannot be used.
    pub fn of(snapshot: &Snapshot) -> Result<Policies, PlanError> {
        let policies = Policies::build(&snapshot.limits)?;
        // Without limits nobody is to be asked.
        let from = snapshot.auth.redis.as_ref().filter(|_| !policies.all.is_empty());
        let redis = from.map(|from| Settings::of(from, snapshot)).transpose();
        let redis = redis.map_err(|error| PlanError {
            entity: "limits",
            name: String::new(),
            field: error.field,
            problem: error.problem,
        })?;
        let timeout_ms = from.map_or(0, |from| from.limits_timeout_ms);
        let place = Place { redis, node: snapshot.node.name.as_str().into(), timeout_ms };
        Ok(Policies { place, ..policies })
    }

    /// Has the ledger count where these say.
    pub fn open(&self, store: &Store) {
        let Place { redis, node, timeout_ms } = &self.place;
        store.limits().configure(redis.as_ref(), node, *timeout_ms);
    }

    /// # Errors
    /// Names the first policy that cannot be used.
    pub fn build(from: &Limits) -> Result<Policies, PlanError> {
        let mut names = HashMap::new();
        let mut all = Vec::with_capacity(from.policies.len());
        for (index, policy) in from.policies.iter().enumerate() {
            let error = |(field, problem)| PlanError {
                entity: "limit policy",
                name: policy.name.clone(),
                field,
                problem,
            };
            all.push(Policy::build(policy).map_err(error)?);
            if names.insert(policy.name.as_str().into(), index as LimitIndex).is_some() {
                return Err(error(("name".into(), "is another policy's, too".into())));
            }
        }
        let error = |problem| PlanError {
            entity: "limits",
            name: String::new(),
            field: "everywhere".into(),
            problem,
        };
        let policies = Policies { all: all.into(), names, ..Policies::default() };
        let everywhere = policies.known(&from.everywhere).map_err(error)?;
        Ok(Policies { everywhere: everywhere.into(), ..policies })
    }

    fn known(&self, indexes: &[LimitIndex]) -> Result<Vec<LimitIndex>, String> {
        let count = self.all.len();
        match indexes.iter().find(|index| **index as usize >= count) {
            Some(index) => Err(format!("policy {index} of {count} does not exist")),
            None => Ok(indexes.to_vec()),
        }
    }

    /// What holds on a route with these policies of its own, each once.
    ///
    /// # Errors
    /// One of them does not exist.
    pub fn on_route(&self, own: &[LimitIndex]) -> Result<Box<[LimitIndex]>, String> {
        let mut all = Vec::new();
        for index in self.everywhere.iter().copied().chain(self.known(own)?) {
            if !all.contains(&index) {
                all.push(index);
            }
        }
        Ok(all.into())
    }

    #[inline]
    pub fn get(&self, index: LimitIndex) -> Option<&Policy> {
        self.all.get(index as usize)
    }

    /// The policy that a consumer or a credential names. Records in Redis may name what is not there.
    #[inline]
    pub fn named(&self, name: &str) -> Option<LimitIndex> {
        self.names.get(name).copied()
    }
}

impl Policy {
    fn build(from: &LimitPolicy) -> Result<Policy, Unfit> {
        let mut by = Vec::with_capacity(from.by.len());
        for (at, scope) in from.by.iter().enumerate() {
            let unfit = |(field, problem)| (format!("by[{at}].{field}"), problem);
            by.push(Scope::build(scope).map_err(unfit)?);
        }
        let quota = Quota::build(&from.name, None, &by, &from.quota)
            .map_err(|(field, problem)| (format!("quota.{field}"), problem))?;
        let mut tiers = Vec::with_capacity(from.tiers.len());
        for (at, tier) in from.tiers.iter().enumerate() {
            let quota = Quota::build(&from.name, Some(&tier.group), &by, &tier.quota)
                .map_err(|(field, problem)| (format!("tiers[{at}].quota.{field}"), problem))?;
            tiers.push((tier.group.as_str().into(), quota));
        }
        if let LimitCost::RequestHeader { name, .. } | LimitCost::ResponseHeader { name, .. } =
            &from.cost
            && name.is_empty()
        {
            return Err(("cost.name".into(), "is empty; name a field".into()));
        }
        Ok(Policy {
            name: from.name.as_str().into(),
            quoted: quoted(&from.name).into(),
            by: by.into(),
            quota,
            tiers: tiers.into(),
            cost: from.cost.clone(),
            mode: from.mode,
            on_store_failure: from.on_store_failure,
            dry_run: from.dry_run,
            fields: from.fields,
        })
    }

    /// The quota of whoever is in these groups; its place, and the group that it was chosen by.
    #[inline]
    pub fn quota_of(&self, in_group: impl Fn(&str) -> bool) -> (u8, Option<&str>) {
        for (at, (group, _)) in self.tiers.iter().enumerate().take(usize::from(u8::MAX)) {
            if in_group(group) {
                return (at as u8 + 1, Some(group));
            }
        }
        (0, None)
    }

    /// The quota at a place that [`Policy::quota_of`] gave.
    #[inline]
    pub fn quota(&self, place: u8) -> &Quota {
        match usize::from(place).checked_sub(1).and_then(|at| self.tiers.get(at)) {
            Some((_, quota)) => quota,
            None => &self.quota,
        }
    }

    /// The group that the quota at that place is for.
    pub fn group(&self, place: u8) -> Option<&str> {
        let tier = usize::from(place).checked_sub(1).and_then(|at| self.tiers.get(at));
        tier.map(|(group, _)| &**group)
    }

    /// Whether clients are told of it, where this quota holds.
    pub fn shows(&self, place: u8) -> bool {
        let told = self.fields.standard || self.fields.legacy;
        told && !self.dry_run && !self.quota(place).told.is_empty()
    }

    /// What is reserved for a request, but for what its fields say.
    pub fn reserved(&self) -> u32 {
        match self.cost {
            LimitCost::Fixed(cost) => cost.max(1),
            LimitCost::RequestHeader { default, .. } => default.max(1),
            LimitCost::ResponseHeader { reserve, .. } => reserve.max(1),
        }
    }
}

impl Quota {
    fn build(
        policy: &str,
        tier: Option<&str>,
        by: &[Scope],
        from: &LimitQuota,
    ) -> Result<Quota, Unfit> {
        let mut lengths: Vec<(Length, u64)> = Vec::with_capacity(from.windows.len() + 1);
        for (at, window) in from.windows.iter().enumerate() {
            let unfit =
                |field: &str, problem: &str| (format!("windows[{at}].{field}"), problem.into());
            let length = match window.span {
                LimitSpan::Sliding(ms) if !(10..=MONTH_MS).contains(&ms) => {
                    return Err(unfit("span", "is not from 10 ms to 31 days"));
                }
                LimitSpan::Sliding(ms) => Length::Sliding(ms),
                LimitSpan::Calendar(unit) => Length::Calendar(unit),
            };
            if window.limit == 0 {
                return Err(unfit("limit", "is 0; it must be at least 1"));
            }
            // A burst may have come to the length of another window.
            match lengths.iter_mut().find(|(known, _)| *known == length) {
                Some((_, limit)) => *limit = window.limit.min(*limit),
                None => lengths.push((length, window.limit)),
            }
        }
        match from.concurrency {
            Some(0) => return Err(("concurrency".into(), "is 0; it must be at least 1".into())),
            Some(most) => lengths.push((Length::Concurrent, most.into())),
            None => {}
        }
        let mut head = String::new();
        key::escape(&mut head, policy.as_bytes(), key::NAMES);
        if let Some(tier) = tier {
            head.push('/');
            key::escape(&mut head, tier.as_bytes(), key::NAMES);
        }
        let window = |(length, limit): &(Length, u64)| {
            let label = format!("{head}:{}", length.label());
            let mut all = label.clone();
            for scope in by {
                all.push(',');
                scope.label(&mut all);
            }
            let hash = digest(&SHA256, all.as_bytes());
            let half = hash.as_ref().first_chunk::<16>().copied().unwrap_or_default();
            let fingerprint = u128::from_le_bytes(half);
            Window { limit: *limit, length: *length, label: label.into(), fingerprint }
        };
        let windows: Box<[Window]> = lengths.iter().map(window).collect();
        let told = windows.first().map_or_else(Box::default, |first| told(policy, first));
        Ok(Quota { windows, told })
    }
}

const MONTH_MS: u64 = 31 * 24 * 3_600_000;

/// `"gold";q=100;w=60` (draft-ietf-httpapi-ratelimit-headers-10 §3). `w` only where it is whole seconds.
fn told(policy: &str, first: &Window) -> Box<[u8]> {
    let seconds = match first.length {
        Length::Concurrent => return Box::default(),
        Length::Sliding(ms) => (ms % 1_000 == 0).then_some(ms / 1_000),
        Length::Calendar(unit) => match unit {
            CalendarUnit::Minute => Some(60),
            CalendarUnit::Hour => Some(3_600),
            CalendarUnit::Day => Some(24 * 3_600),
            CalendarUnit::Week => Some(7 * 24 * 3_600),
            CalendarUnit::Month | CalendarUnit::Year => None,
        },
    };
    let mut out = quoted(policy);
    out.push_str(&format!(";q={}", first.limit));
    if let Some(seconds) = seconds {
        out.push_str(&format!(";w={seconds}"));
    }
    out.into_bytes().into()
}

/// A structured field's string (RFC 9651 §3.3.3), which is of printable ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            ' '..='~' => out.push(char),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

impl Length {
    /// In names of buckets; of a calendar's the period is still to follow.
    fn label(self) -> String {
        match self {
            Length::Sliding(ms) => {
                let units = [(24 * 3_600_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
                let whole = units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit));
                let (unit, name) = whole.unwrap_or((1, "ms"));
                format!("{}{name}", ms / unit)
            }
            Length::Calendar(unit) => match unit {
                CalendarUnit::Minute => "minute",
                CalendarUnit::Hour => "hour",
                CalendarUnit::Day => "day",
                CalendarUnit::Week => "week",
                CalendarUnit::Month => "month",
                CalendarUnit::Year => "year",
            }
            .into(),
            Length::Concurrent => "concurrent".into(),
        }
    }
}

impl Scope {
    fn build(from: &LimitScope) -> Result<Scope, Unfit> {
        Ok(match from {
            LimitScope::Consumer => Scope::Consumer,
            LimitScope::Credential => Scope::Credential,
            LimitScope::Group => Scope::Group,
            LimitScope::Address { v4, v6 } => {
                if *v4 > 32 || *v6 > 128 {
                    let problem = "is longer than an address: at most 32, and 128 for IPv6";
                    return Err(("address".into(), problem.into()));
                }
                Scope::Address { v4: *v4, v6: *v6 }
            }
            LimitScope::Header(name) => {
                if name.is_empty() {
                    return Err(("header".into(), "is empty; name a field".into()));
                }
                let name = name.to_ascii_lowercase();
                Scope::Header { id: Name::classify(name.as_bytes()), name: name.into() }
            }
            LimitScope::Path(template) => {
                let template = Template::build(template);
                Scope::Path(template.map_err(|problem| ("path".into(), problem))?)
            }
            LimitScope::Route => Scope::Route,
        })
    }

    /// What names of buckets call it.
    pub fn label(&self, out: &mut String) {
        match self {
            Scope::Consumer => out.push_str("consumer"),
            Scope::Credential => out.push_str("credential"),
            Scope::Group => out.push_str("group"),
            Scope::Address { .. } => out.push_str("address"),
            Scope::Header { name, .. } => {
                out.push_str("header.");
                key::escape(out, name.as_bytes(), key::NAMES);
            }
            Scope::Path(template) => {
                out.push_str("path");
                for name in &template.names {
                    out.push('.');
                    key::escape(out, name.as_bytes(), key::NAMES);
                }
            }
            Scope::Route => out.push_str("route"),
        }
    }
}

/// A path with places for values, such as `/users/{id}/*`.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// `None`: a value.
    segments: Box<[Option<Box<[u8]>>]>,
    names: Box<[Box<str>]>,
    /// More segments may follow.
    open: bool,
}

/// What a template takes out of a path.
pub type Values<'a> = SmallVec<[&'a [u8]; 4]>;

impl Template {
    fn build(text: &str) -> Result<Template, String> {
        let rest = text.strip_prefix('/').ok_or("does not begin with `/`")?;
        let (rest, open) = match rest.strip_suffix('*') {
            Some("") => ("", true),
            Some(rest) => (rest.strip_suffix('/').ok_or("has a `*` that is no segment")?, true),
            None => (rest, false),
        };
        let (mut segments, mut names) = (Vec::new(), Vec::new());
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            match name {
                Some(name) if name.is_empty() || name.contains(['{', '}']) => {
                    return Err(format!("`{segment}` has no name; write `{{id}}`"));
                }
                Some(name) => {
                    segments.push(None);
                    names.push(name.into());
                }
                None if segment.contains(['{', '}', '*']) => {
                    return Err(format!(
                        "`{segment}` is neither a text nor a `{{name}}`, and `*` stands last"
                    ));
                }
                None => segments.push(Some(segment.as_bytes().into())),
            }
        }
        // `/users/` is `/users`.
        if !open && segments.last().is_some_and(|last| last.as_deref() == Some(&b""[..])) {
            segments.pop();
        }
        if names.len() > limits::TEMPLATE_NAMES {
            return Err(format!("has more than {} names", limits::TEMPLATE_NAMES));
        }
        Ok(Template { segments: segments.into(), names: names.into(), open })
    }

    /// The values in `path`, which is in normal form; `None`: it is not of this form.
    pub fn values<'a>(&self, path: &'a [u8]) -> Option<Values<'a>> {
        let path = path.strip_prefix(b"/")?;
        // A slash at the end makes no other thing of it, or limits could be got round by one.
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut given = path.split(|&byte| byte == b'/').filter(|_| !path.is_empty());
        let mut values = Values::new();
        for segment in &self.segments {
            let given = given.next()?;
            match segment {
                Some(text) if **text == *given => {}
                Some(_) => return None,
                None if given.is_empty() => return None,
                None => values.push(given),
            }
        }
        (self.open || given.next().is_none()).then_some(values)
    }
}

#[cfg(test)]
mod tests;
