//! What changes from one spec to another, in the words of the spec and not of its text.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::{
    self, ApiDocument, Authenticator, Consumer, Group, Limit, List, Listener, ProtoSource, Route,
    Spec, Upstream,
};

/// The difference of two specs; see [`diff`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Fields of `node`, `admin`, `access_log`, `redis`, `cache` and `auth`.
    pub settings: Vec<FieldChange>,
    pub authenticators: Changes,
    pub groups: Changes,
    pub consumers: Changes,
    #[serde(default)]
    pub limits: Changes,
    #[serde(default)]
    pub apis: Changes,
    #[serde(default)]
    pub protos: Changes,
    pub listeners: Changes,
    pub upstreams: Changes,
    pub routes: Changes,
    /// Routes that stay but move among those that stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved_routes: Vec<Moved>,
}

/// What happens to the named things of one kind. Each list is in the order of its spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Names with what they bring, in canonical form.
    pub added: Vec<Named>,
    pub removed: Vec<Named>,
    pub changed: Vec<Changed>,
}

/// A listener, upstream or route that comes or goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    pub name: String,
    /// One line that tells a person which it is.
    pub summary: String,
}

/// A listener, upstream or route that is in both specs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ChangedThing")]
pub struct Changed {
    pub name: String,
    pub fields: Vec<FieldChange>,
}

/// A route that moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    pub name: String,
    /// The route that now stands before it; `None`: it is the first.
    pub after: Option<String>,
}

/// One field with its old and its new value; without old it is added, without new removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// Path inside its thing, such as `pool.max_idle` or `targets[10.0.0.1:80].weight`.
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Compares two specs thing by thing (by name) and field by field (on the canonical form, so that
/// short forms, defaults and layout do not count).
pub fn diff(old: &Spec, new: &Spec) -> Diff {
    let mut settings = Vec::new();
    field_changes("node", &value(&old.node), &value(&new.node), &mut settings);
    field_changes("admin", &value(&old.admin), &value(&new.admin), &mut settings);
    field_changes("access_log", &value(&old.access_log), &value(&new.access_log), &mut settings);
    field_changes("redis", &value(&old.redis), &value(&new.redis), &mut settings);
    field_changes("cache", &value(&old.cache), &value(&new.cache), &mut settings);
    field_changes("auth", &value(&old.auth), &value(&new.auth), &mut settings);
    Diff {
        settings,
        authenticators: changes::<Authenticator, _>(&old.authenticators, &new.authenticators),
        groups: changes::<Group, _>(&old.groups, &new.groups),
        consumers: list_changes(&old.consumers, &new.consumers),
        limits: changes::<Limit, _>(&old.limits, &new.limits),
        apis: changes::<ApiDocument, _>(&old.apis, &new.apis),
        protos: changes::<ProtoSource, _>(&old.protos, &new.protos),
        listeners: changes::<Listener, _>(&old.listeners, &new.listeners),
        upstreams: list_changes(&old.upstreams, &new.upstreams),
        routes: list_changes(&old.routes, &new.routes),
        moved_routes: moved(&old.routes, &new.routes),
    }
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }

    /// For people: `+` comes, `-` goes, `~` changes. With `color`, in green, red and yellow.
    pub fn to_text(&self, color: bool) -> String {
        let mut lines = Vec::new();
        self.lines(&mut lines);
        let mut text = String::new();
        for (sign, indent, line) in lines {
            let line = format!("{:indent$}{sign} {line}", "");
            let tone = match sign {
                '+' => "32",
                '-' => "31",
                _ => "33",
            };
            match color {
                true => text.push_str(&format!("\u{1b}[{tone}m{line}\u{1b}[0m\n")),
                false => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }

    fn lines(&self, out: &mut Vec<(char, usize, String)>) {
        out.extend(self.settings.iter().map(|change| field_line(change, 0)));
        let kinds = [
            ("authenticator", &self.authenticators),
            ("group", &self.groups),
            ("consumer", &self.consumers),
            ("limit", &self.limits),
            ("api", &self.apis),
            ("proto", &self.protos),
            ("listener", &self.listeners),
            ("upstream", &self.upstreams),
            ("route", &self.routes),
        ];
        for (kind, changes) in kinds {
            for one in &changes.removed {
                out.push(('-', 0, format!("{kind} {}: {}", one.name, one.summary)));
            }
            for one in &changes.added {
                out.push(('+', 0, format!("{kind} {}: {}", one.name, one.summary)));
            }
            for one in &changes.changed {
                out.push(('~', 0, format!("{kind} {}", one.name)));
                out.extend(one.fields.iter().map(|change| field_line(change, 4)));
            }
        }
        for Moved { name, after } in &self.moved_routes {
            let place = match after {
                Some(after) => format!("after {after}"),
                None => "to the front".into(),
            };
            out.push(('~', 0, format!("route {name}: moved {place}")));
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(false))
    }
}

fn field_line(change: &FieldChange, indent: usize) -> (char, usize, String) {
    let FieldChange { field, old, new } = change;
    match (old, new) {
        (Some(old), Some(new)) => ('~', indent, format!("{field}: {old} -> {new}")),
        (None, Some(new)) => ('+', indent, format!("{field}: {new}")),
        (Some(old), None) => ('-', indent, format!("{field}: {old}")),
        (None, None) => ('~', indent, field.clone()),
    }
}

/// What the diff compares by name.
trait Thing: Serialize + PartialEq {
    fn name(&self) -> &str;
    fn summary(&self) -> String;
}

impl Thing for Authenticator {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.kind.word().into()
    }
}

impl Thing for Group {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.scopes.join(" ")
    }
}

impl Thing for Limit {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        let window = |one: &spec::LimitWindow| format!("{} per {}", one.requests, one.per);
        let windows = self.windows.iter().map(window);
        let concurrency = self.concurrency.map(|most| format!("{most} at once"));
        windows.chain(concurrency).collect::<Vec<_>>().join(", ")
    }
}

impl Thing for ApiDocument {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.openapi.clone()
    }
}

impl Thing for ProtoSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        match (&self.descriptor_set, &self.reflection) {
            (Some(set), _) => set.clone(),
            (None, Some(reflection)) => format!("reflection of {}", reflection.upstream),
            (None, None) => self.files.join(" "),
        }
    }
}

impl Thing for Consumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.credentials()
    }
}

impl Thing for Listener {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.listen.to_string()
    }
}

impl Thing for Upstream {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        let targets: Vec<String> =
            self.targets.iter().map(|target| target.address.to_string()).collect();
        targets.join(", ")
    }
}

impl Thing for Route {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> String {
        self.to_string()
    }
}

/// Only what may differ is compared: long lists have most of their elements in common.
fn list_changes<T: Thing>(old: &List<T>, new: &List<T>) -> Changes {
    if old.is(new) {
        return Changes::default();
    }
    let same = |(one, two): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, two);
    let front = old.iter().zip(new).take_while(same).count();
    let least = old.len().min(new.len()) - front;
    let back = old.iter().rev().zip(new.iter().rev()).take(least).take_while(same).count();
    let part = |list: &List<T>| -> Vec<Arc<T>> {
        list.get(front..list.len() - back).unwrap_or_default().to_vec()
    };
    changes::<T, _>(&part(old), &part(new))
}

fn changes<T: Thing, A: Borrow<T>>(old: &[A], new: &[A]) -> Changes {
    let (old, new) = (old.iter().map(A::borrow), new.iter().map(A::borrow));
    let before: HashMap<&str, &T> = old.clone().map(|one| (one.name(), one)).collect();
    let after: HashMap<&str, &T> = new.clone().map(|one| (one.name(), one)).collect();
    let named = |one: &T| Named { name: one.name().into(), summary: one.summary() };
    let mut changed = Vec::new();
    for one in new.clone() {
        let Some(was) = before.get(one.name()).filter(|was| **was != one) else { continue };
        let mut fields = Vec::new();
        field_changes("", &value(was), &value(one), &mut fields);
        changed.push(Changed { name: one.name().into(), fields });
    }
    Changes {
        added: new.filter(|one| !before.contains_key(one.name())).map(named).collect(),
        removed: old.filter(|one| !after.contains_key(one.name())).map(named).collect(),
        changed,
    }
}

/// The canonical form. Every type of the spec has string keys only, so this cannot fail.
fn value<T: Serialize>(thing: &T) -> Value {
    serde_json::to_value(thing).unwrap_or(Value::Null)
}

fn field_changes(field: &str, old: &Value, new: &Value, out: &mut Vec<FieldChange>) {
    compare(field, Some(old).filter(|v| !v.is_null()), Some(new).filter(|v| !v.is_null()), out);
}

fn compare(field: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    let count = out.len();
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            // Sorted here, as the order of a JSON map depends on how serde_json was built.
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let below = match field {
                    "" => key.clone(),
                    _ => format!("{field}.{key}"),
                };
                compare(&below, old.get(key), new.get(key), out);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            if let (Some(before), Some(after)) = (keyed(old), keyed(new)) {
                for (key, value) in in_order(old, new) {
                    let below = match value {
                        Value::String(_) => field.to_string(),
                        _ => format!("{field}[{key}]"),
                    };
                    compare(&below, before.get(key).copied(), after.get(key).copied(), out);
                }
            }
        }
        _ => {}
    }
    // Single values, lists without keys, and lists that only changed their order.
    if out.len() == count {
        let shown = |value: Option<&Value>| value.map(|value| shown(field, value));
        out.push(FieldChange { field: field.into(), old: shown(old), new: shown(new) });
    }
}

/// A value as people may see it.
fn shown(field: &str, value: &Value) -> Value {
    if spec::is_secret(field) {
        return spec::REDACTED.into();
    }
    let mut value = value.clone();
    spec::redact(&mut value);
    value
}

/// The elements of a list by what identifies them; `None` if something does not, or twice.
fn keyed(list: &[Value]) -> Option<HashMap<&str, &Value>> {
    let mut map = HashMap::with_capacity(list.len());
    for value in list {
        if map.insert(key(value)?, value).is_some() {
            return None;
        }
    }
    Some(map)
}

fn key(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(fields) => {
            let names = ["name", "address", "cert", "username", "id", "kid", "sha256", "claim"];
            names.iter().find_map(|name| fields.get(*name))?.as_str()
        }
        _ => None,
    }
}

/// Each key once: the old list's in its order, then what is new.
fn in_order<'a>(old: &'a [Value], new: &'a [Value]) -> Vec<(&'a str, &'a Value)> {
    let mut seen = HashSet::new();
    let all = old.iter().chain(new).filter_map(|value| Some((key(value)?, value)));
    all.filter(|(key, _)| seen.insert(*key)).collect()
}

/// The fewest routes whose moving explains the new order.
fn moved(old: &List<Route>, new: &List<Route>) -> Vec<Moved> {
    // Without new places there is no move.
    if old.is(new) || old.iter().map(|one| &one.name).eq(new.iter().map(|one| &one.name)) {
        return Vec::new();
    }
    let before: HashMap<&str, usize> = old.iter().map(|one| one.name.as_str()).zip(0..).collect();
    let stay: Vec<(&str, usize)> = new
        .iter()
        .filter_map(|one| Some((one.name.as_str(), *before.get(one.name.as_str())?)))
        .collect();
    let places: Vec<usize> = stay.iter().map(|(_, place)| *place).collect();
    let still = longest_rise(&places);
    let mut out = Vec::new();
    let mut after: Option<&str> = None;
    for (at, (name, _)) in stay.iter().enumerate() {
        if !still.contains(&at) {
            out.push(Moved { name: (*name).into(), after: after.map(Into::into) });
        }
        after = Some(*name);
    }
    out
}

/// Indexes of a longest strictly rising subsequence.
fn longest_rise(values: &[usize]) -> HashSet<usize> {
    // tails[n]: index of the smallest value that ends a rise of n + 1 values.
    let mut tails: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = vec![None; values.len()];
    for (at, value) in values.iter().enumerate() {
        let n = tails.partition_point(|&tail| values[tail] < *value);
        previous[at] = n.checked_sub(1).map(|n| tails[n]);
        match tails.get_mut(n) {
            Some(tail) => *tail = at,
            None => tails.push(at),
        }
    }
    let mut rise = HashSet::new();
    let mut next = tails.last().copied();
    while let Some(at) = next {
        rise.insert(at);
        next = previous[at];
    }
    rise
}

#[cfg(test)]
mod tests;
