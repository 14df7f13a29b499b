//! What the running spec names, one by one.

use std::sync::{Arc, LazyLock};

use axum::{
    Json,
    body::Bytes,
    extract::Extension,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION},
    },
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use ring::{
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Problem,
    admit::Caller,
    extract::{Params, Place, object, tags},
    model::Applied,
    page::Page,
};
use crate::{
    running::{Aim, Change, Current, Placing, Refused, Running},
    spec::{self, DEFAULT_WORKSPACE, Spec},
};

/// A kind of things with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Authenticators,
    Groups,
    Consumers,
    Limits,
    Apis,
    Protos,
    Listeners,
    Upstreams,
    Routes,
}

/// Does the same with the list of whichever kind.
macro_rules! with_list {
    ($kind:expr, $spec:expr, $list:ident => $do:expr) => {
        match $kind {
            Kind::Authenticators => {
                let $list = &$spec.authenticators;
                $do
            }
            Kind::Groups => {
                let $list = &$spec.groups;
                $do
            }
            Kind::Consumers => {
                let $list = $spec.consumers.plain();
                $do
            }
            Kind::Limits => {
                let $list = &$spec.limits;
                $do
            }
            Kind::Apis => {
                let $list = &$spec.apis;
                $do
            }
            Kind::Protos => {
                let $list = &$spec.protos;
                $do
            }
            Kind::Listeners => {
                let $list = &$spec.listeners;
                $do
            }
            Kind::Upstreams => {
                let $list = $spec.upstreams.plain();
                $do
            }
            Kind::Routes => {
                let $list = $spec.routes.plain();
                $do
            }
        }
    };
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Authenticators,
        Kind::Groups,
        Kind::Consumers,
        Kind::Limits,
        Kind::Apis,
        Kind::Protos,
        Kind::Listeners,
        Kind::Upstreams,
        Kind::Routes,
    ];

    /// As the spec calls them.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Authenticators => "authenticators",
            Kind::Groups => "groups",
            Kind::Consumers => "consumers",
            Kind::Limits => "limits",
            Kind::Apis => "apis",
            Kind::Protos => "protos",
            Kind::Listeners => "listeners",
            Kind::Upstreams => "upstreams",
            Kind::Routes => "routes",
        }
    }

    pub fn noun(self) -> &'static str {
        self.plural().strip_suffix('s').unwrap_or_default()
    }

    pub fn schema(self, g: &mut SchemaGenerator) -> Value {
        let schema = match self {
            Kind::Authenticators => g.subschema_for::<spec::Authenticator>(),
            Kind::Groups => g.subschema_for::<spec::Group>(),
            Kind::Consumers => g.subschema_for::<spec::Consumer>(),
            Kind::Limits => g.subschema_for::<spec::Limit>(),
            Kind::Apis => g.subschema_for::<spec::ApiDocument>(),
            Kind::Protos => g.subschema_for::<spec::ProtoSource>(),
            Kind::Listeners => g.subschema_for::<spec::Listener>(),
            Kind::Upstreams => g.subschema_for::<spec::Upstream>(),
            Kind::Routes => g.subschema_for::<spec::Route>(),
        };
        schema.to_value()
    }

    fn missing(self, name: &str) -> String {
        format!("there is no {} `{name}`", self.noun())
    }
}

/// The thing of this name in canonical form, secrets and all.
fn find(spec: &Spec, kind: Kind, name: &str) -> Option<Value> {
    with_list!(kind, spec, list => {
        let one = list.iter().find(|one| one.name == name)?;
        serde_json::to_value(one).ok()
    })
}

/// Where the thing of this name stands in its list.
fn place(spec: &Spec, kind: Kind, name: &str) -> Option<usize> {
    with_list!(kind, spec, list => list.iter().position(|one| one.name == name))
}

fn count(spec: &Spec, kind: Kind) -> usize {
    with_list!(kind, spec, list => list.len())
}

/// The tag of a thing: it changes with whatever changes of it.
///
/// A tag tells nothing of secrets: one that stands in the spec may be guessed, and so goes in under a
/// key of this process only.
pub fn tag(whole: &Value) -> String {
    static KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(|| {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).ok()?;
        Some(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    });
    let mut shown = whole.clone();
    spec::redact(&mut shown);
    let hash = match (shown == *whole, KEY.as_ref()) {
        (false, Some(key)) => hmac::sign(key, whole.to_string().as_bytes()).as_ref().to_vec(),
        _ => digest(&SHA256, shown.to_string().as_bytes()).as_ref().to_vec(),
    };
    HEXLOWER.encode(hash.get(..12).unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Entries at most; without it 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Where to go on; from the Link field of the page before.
    #[schemars(length(max = 500))]
    cursor: Option<String>,
    /// Only those whose names begin so.
    prefix: Option<String>,
    /// Only those of this workspace.
    workspace: Option<String>,
}

pub async fn list(
    kind: Kind,
    running: Running,
    Params(query): Params<ListQuery>,
) -> Result<Response, Problem> {
    let page = Page::new(query.limit, query.cursor.as_deref())?;
    if kind == Kind::Listeners && query.workspace.is_some() {
        return Err(Problem::bad_request("listeners are of no workspace"));
    }
    let current = running.current();
    let prefix = query.prefix.as_deref().unwrap_or_default();
    let mut entries: Vec<Value> = with_list!(kind, current.spec, list => {
        let start = page.after.as_ref().map_or(0, |after| {
            // The place of one that has gone meanwhile is in the cursor, too.
            let (at, name) = after.split_once(' ').unwrap_or(("0", after));
            let found = list.iter().position(|one| one.name == name).map(|at| at + 1);
            found.or_else(|| at.parse().ok()).unwrap_or(0)
        });
        let rows = list.iter().enumerate().skip(start).filter(|(_, one)| one.name.starts_with(prefix));
        let rows = rows.filter_map(|(at, one)| Some((at, serde_json::to_value(one).ok()?)));
        let own = rows.filter(|(_, one)| {
            let own = one.get("workspace").and_then(Value::as_str).unwrap_or(DEFAULT_WORKSPACE);
            query.workspace.as_deref().is_none_or(|wanted| wanted == own)
        });
        own.take(page.limit + 1).map(|(at, mut one)| {
            spec::redact(&mut one);
            serde_json::json!([at, one])
        }).collect()
    });
    let mut path = format!("/v1/spec/{}", kind.plural());
    for (name, value) in [("prefix", &query.prefix), ("workspace", &query.workspace)] {
        if let Some(value) = value {
            let joint = if path.contains('?') { '&' } else { '?' };
            path.push_str(&format!("{joint}{name}={}", escaped(value)));
        }
    }
    let last = entries
        .get(page.limit.saturating_sub(1))
        .map(|row| format!("{} {}", row[0], row[1]["name"].as_str().unwrap_or_default()));
    let entries = entries.iter_mut().map(|row| row[1].take()).collect();
    Ok(page.answer(&path, entries, |_| last.clone().unwrap_or_default()).into_response())
}

/// For a query; other than letters and digits as their bytes.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub async fn get(
    kind: Kind,
    running: Running,
    Place(name): Place<String>,
) -> Result<Response, Problem> {
    let mut one = find(&running.current().spec, kind, &name)
        .ok_or_else(|| Problem::not_found(kind.missing(&name)))?;
    let tag = etag(&one);
    spec::redact(&mut one);
    Ok(([(ETAG, tag)], Json(one)).into_response())
}

fn etag(whole: &Value) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", tag(whole)))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

/// How a change is to be made.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeQuery {
    /// Only say what would change.
    dry_run: Option<bool>,
    /// Why, for the list of revisions.
    #[schemars(length(max = 1000))]
    message: Option<String>,
    /// Whose change it is, where nobody is listed: who is, cannot claim to be another.
    #[schemars(length(max = 200))]
    author: Option<String>,
}

/// As [`ChangeQuery`], with a place among the routes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceQuery {
    /// Only say what would change.
    dry_run: Option<bool>,
    /// Why, for the list of revisions.
    #[schemars(length(max = 1000))]
    message: Option<String>,
    /// Whose change it is, where nobody is listed: who is, cannot claim to be another.
    #[schemars(length(max = 200))]
    author: Option<String>,
    /// Put the route before this one.
    #[schemars(length(max = 100))]
    before: Option<String>,
    /// Put the route after this one.
    #[schemars(length(max = 100))]
    after: Option<String>,
}

impl PlaceQuery {
    fn split(self) -> (ChangeQuery, Option<String>, Option<String>) {
        let PlaceQuery { dry_run, message, author, before, after } = self;
        (ChangeQuery { dry_run, message, author }, before, after)
    }
}

impl ChangeQuery {
    pub fn change(self, caller: Caller, message: String) -> Change {
        let author = caller.by.author(self.author.as_deref().unwrap_or_default());
        Change {
            source_name: "api".into(),
            source: Vec::new(),
            message: self.message.filter(|text| !text.is_empty()).unwrap_or(message),
            dry_run: self.dry_run.unwrap_or(false),
            over: None,
            audit: Some(caller.deed(&author)),
            author,
            by: caller.by,
            trial: None,
        }
    }
}

/// What a thing must be like for a change to be made.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    matching: Option<Vec<String>>,
    none: Option<Vec<String>>,
}

impl Conditions {
    pub fn read(headers: &HeaderMap) -> Result<Conditions, Problem> {
        Ok(Conditions { matching: tags(headers, IF_MATCH)?, none: tags(headers, IF_NONE_MATCH)? })
    }

    /// RFC 9110 §13.2.2.
    pub fn judge(&self, what: &str, now: Option<&Value>) -> Result<(), Refused> {
        let own = now.map(tag);
        let hit = |tags: &[String]| {
            own.as_ref().is_some_and(|own| tags.iter().any(|tag| tag == "*" || tag == own))
        };
        if self.matching.as_deref().is_some_and(|tags| !hit(tags)) {
            let why = if now.is_some() { "is another now" } else { "does not exist" };
            return Err(Refused::Precondition(format!("{what} {why}; look at it and try again")));
        }
        match self.none.as_deref().is_some_and(hit) {
            true => Err(Refused::Precondition(format!("{what} exists already"))),
            false => Ok(()),
        }
    }
}

/// The list of a kind in the canonical form of a spec.
pub fn entries(spec: &mut Value, kind: Kind) -> Result<&mut Vec<Value>, Refused> {
    let list = spec.get_mut(kind.plural()).and_then(Value::as_array_mut);
    list.ok_or_else(|| Refused::Internal(format!("the spec has no {}", kind.plural())))
}

/// What becomes of a thing.
#[derive(Clone)]
enum Wish {
    Put(Map<String, Value>),
    Patch(Map<String, Value>),
    Delete,
}

pub async fn put(
    kind: Kind,
    (running, Place(name), Params(query)): (Running, Place<String>, Params<PlaceQuery>),
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = object(&body)?;
    same_name(&fields, &name)?;
    fields.insert("name".into(), name.as_str().into());
    alter(kind, running, name, query, caller, &headers, Wish::Put(fields)).await
}

pub async fn patch(
    kind: Kind,
    (running, Place(name), Params(query)): (Running, Place<String>, Params<PlaceQuery>),
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = object(&body)?;
    same_name(&fields, &name)?;
    alter(kind, running, name, query, caller, &headers, Wish::Patch(fields)).await
}

pub async fn delete(
    kind: Kind,
    (running, Place(name), Params(query)): (Running, Place<String>, Params<ChangeQuery>),
    (Extension(caller), headers): (Extension<Caller>, HeaderMap),
) -> Result<Response, Problem> {
    let ChangeQuery { dry_run, message, author } = query;
    let query = PlaceQuery { dry_run, message, author, ..PlaceQuery::default() };
    alter(kind, running, name, query, caller, &headers, Wish::Delete).await
}

/// Others refer to things by their names: a new name is a new thing.
fn same_name(fields: &Map<String, Value>, name: &str) -> Result<(), Problem> {
    match fields.get("name") {
        None => Ok(()),
        Some(Value::String(own)) if own == name => Ok(()),
        Some(own) => {
            Err(Problem::conflict(format!("the name in the body is {own}, in the path `{name}`")))
        }
    }
}

async fn alter(
    kind: Kind,
    running: Running,
    name: String,
    query: PlaceQuery,
    caller: Caller,
    headers: &HeaderMap,
    wish: Wish,
) -> Result<Response, Problem> {
    let (query, before, after) = query.split();
    if kind != Kind::Routes && (before.is_some() || after.is_some()) {
        return Err(Problem::bad_request("only routes have an order"));
    }
    if before.is_some() && after.is_some() {
        return Err(Problem::bad_request("before and after exclude each other"));
    }
    let conditions = Conditions::read(headers)?;
    let what = format!("the {} `{name}`", kind.noun());
    let verb = match &wish {
        Wish::Put(_) => "put",
        Wish::Patch(_) => "change",
        Wish::Delete => "delete",
    };
    let change = query.change(caller, format!("{verb} {} {name}", kind.noun()));
    let aim: Aim = {
        let (what, name) = (what.clone(), name.clone());
        Arc::new(move |current: &Current| {
            let was = find(&current.spec, kind, &name);
            if was.is_none() && !matches!(wish, Wish::Put(_)) {
                return Err(Refused::NoEntity(kind.missing(&name)));
            }
            conditions.judge(&what, was.as_ref())?;
            let at = place(&current.spec, kind, &name);
            let new = match &wish {
                Wish::Delete => return Ok(Placing { take: at, put: None }),
                Wish::Put(fields) => Value::Object(fields.clone()),
                Wish::Patch(fields) => {
                    let mut new = was.unwrap_or_default();
                    // The short form takes the place of the long one.
                    if kind == Kind::Routes
                        && fields.contains_key("upstream")
                        && let Some(new) = new.as_object_mut()
                    {
                        new.remove("upstreams");
                    }
                    merge(&mut new, fields);
                    new
                }
            };
            // Of what stays when it is taken out.
            let without = |place: usize| place - usize::from(at.is_some_and(|at| at < place));
            let to = match (at, before.as_deref().or(after.as_deref())) {
                (Some(at), None) => at,
                (None, None) => count(&current.spec, kind),
                (at, Some(anchor)) => {
                    let found = place(&current.spec, kind, anchor);
                    let found = found.filter(|found| Some(*found) != at);
                    let found = found.ok_or_else(|| Refused::Conflict(kind.missing(anchor)))?;
                    without(found) + usize::from(after.is_some())
                }
            };
            Ok(Placing { take: at, put: Some((to, new)) })
        })
    };
    let applied = running.revise_one(change, kind.plural(), aim).await?;
    Ok(answer(kind, &running, &name, applied))
}

/// The answer to a change of one thing.
fn answer(kind: Kind, running: &Running, name: &str, applied: Applied) -> Response {
    let added = applied.diff[kind.plural()]["added"].as_array();
    let created =
        !applied.dry_run && added.is_some_and(|list| list.iter().any(|one| one["name"] == name));
    let mut headers = HeaderMap::new();
    let current = running.current();
    if !applied.dry_run
        && current.revision.id == applied.revision
        && let Some(one) = find(&current.spec, kind, name)
    {
        headers.insert(ETAG, etag(&one));
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    if created
        && let Ok(place) = HeaderValue::from_str(&format!("/v1/spec/{}/{name}", kind.plural()))
    {
        headers.insert(LOCATION, place);
    }
    (status, headers, Json(applied)).into_response()
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(fields.remove(name)),
            Value::Object(below) => merge(fields.entry(name.clone()).or_insert(Value::Null), below),
            value => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_the_rfc_has_it() {
        // RFC 7396, appendix A, where the patch is an object.
        for (mut target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            merge(&mut target, patch.as_object().unwrap());
            assert_eq!(target, merged);
        }
    }

    #[test]
    fn tags_tell_changes_but_no_secrets() {
        let one = json!({"name": "a", "secret": {"inline": "x"}});
        let other = json!({"name": "a", "secret": {"inline": "y"}});
        assert_ne!(tag(&one), tag(&other));
        assert_eq!(tag(&one), tag(&one.clone()));
        let mut shown = one.clone();
        spec::redact(&mut shown);
        assert_ne!(tag(&one), tag(&shown));
    }

    #[test]
    fn conditions_hold_for_what_there_is() {
        let one = json!({"name": "a"});
        let judge = |matching: Option<&str>, none: Option<&str>, now: Option<&Value>| {
            let list = |tag: Option<&str>| tag.map(|tag| vec![tag.to_owned()]);
            Conditions { matching: list(matching), none: list(none) }.judge("it", now).is_ok()
        };
        assert!(judge(None, None, None) && judge(Some("*"), None, Some(&one)));
        assert!(judge(Some(&tag(&one)), None, Some(&one)) && !judge(Some("x"), None, Some(&one)));
        assert!(!judge(Some("*"), None, None));
        assert!(judge(None, Some("*"), None) && !judge(None, Some("*"), Some(&one)));
    }
}
