//! What tells stored answers apart, made of the request as its upstream will see it.

use contract::snapshot::{CacheQuery, RouteCache};
use ring::digest::{Context, SHA256};

use super::vary;
use crate::answer::Edit;
use crate::auth::Identity;
use crate::auth::credentials::{Hidden, decoded, parameters};
use crate::exchange::Request;
use crate::limits;
use crate::message::{Field, Name, RequestHead};
use crate::shape::FieldRules;

/// The two halves of a key: what is asked for, and in which way. An unsafe request makes all answers of
/// its `uri` invalid, whatever their `way` (RFC 9111 §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Host, path and query, each ended by a 0.
    pub uri: Box<[u8]>,
    /// Route, scheme, and by choice fields and the caller.
    pub way: Box<[u8]>,
}

impl Key {
    /// The host and the path of it.
    pub fn place(&self) -> (&[u8], &[u8]) {
        let mut parts = self.uri.split(|&byte| byte == 0);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    pub fn len(&self) -> usize {
        self.uri.len() + self.way.len()
    }
}

/// The fields of a request by which one of several answers is selected, and its values of them
/// (RFC 9111 §4.1).
pub type Selecting = Box<[(Box<[u8]>, Option<Box<[u8]>>)]>;

/// A request as its upstream will see it, but for what the gateway says of the client.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub head: &'a RequestHead,
    /// Those that the head was read from.
    pub bytes: &'a [u8],
    pub edit: Option<&'a Edit>,
    pub hidden: Option<&'a Hidden>,
    pub identity: Option<&'a Identity>,
    /// What the route makes of its fields as they are written.
    pub rules: Option<&'a FieldRules>,
}

impl<'a> View<'a> {
    pub fn of(request: &'a Request) -> View<'a> {
        View::with(request, request.bytes())
    }

    /// With the head's bytes, where the request does not have them any more.
    pub fn with(request: &'a Request, bytes: &'a [u8]) -> View<'a> {
        let route = request.notes.route.map(|index| request.plan.plan.route(index));
        let shape = route.and_then(|route| route.shape.as_deref());
        View {
            head: &request.head,
            bytes,
            edit: request.edit.as_deref(),
            hidden: request.hidden.as_deref(),
            identity: request.identity.as_deref(),
            rules: shape.map(|shape| &shape.request.fields),
        }
    }

    /// The fields that came and go on, as they are.
    pub fn fields(self) -> impl Iterator<Item = &'a Field> {
        self.head.fields.iter().filter(move |field| {
            field.forwarded()
                && !self.edit.is_some_and(|edit| edit.drops(field.name.of(self.bytes)))
        })
    }

    /// All lines of a field (lower case).
    pub fn lines(self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let id = Name::classify(name);
        let cookies = self.hidden.and_then(|hidden| hidden.cookies.as_deref());
        let cookies = cookies.filter(|_| id == Name::Cookie);
        let came = self.fields().filter(move |field| {
            cookies.is_none()
                && field.id == id
                && (id != Name::Other || field.name.of(self.bytes).eq_ignore_ascii_case(name))
        });
        let added = self.edit.map_or(&[][..], |edit| &edit.fields);
        let added = added.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        came.map(move |field| field.value.of(self.bytes))
            .chain(cookies.filter(|cookies| !cookies.is_empty()))
            .chain(added.map(|(_, value)| &**value))
    }

    pub fn line(self, name: &'a [u8]) -> Option<&'a [u8]> {
        self.lines(name).next()
    }

    /// The query that goes on, without `?`.
    pub fn query(self) -> Option<&'a [u8]> {
        let edited = self.edit.and_then(|edit| edit.query.as_deref());
        let hidden = || self.hidden.and_then(|hidden| hidden.query.as_deref());
        match edited.or_else(hidden) {
            Some(query) => Some(query).filter(|query| !query.is_empty()),
            None => self.head.query(self.bytes),
        }
    }

    /// Whether the upstream's value of a field is not known here: the gateway says it of the caller, or a
    /// rule of the route makes it.
    fn is_made_up(self, name: &[u8]) -> bool {
        self.identity.is_some_and(|identity| identity.tells(name))
            || self.rules.is_some_and(|rules| rules.names().any(|own| own.as_bytes() == name))
    }

    /// The values that select an answer that depends on these fields. `None`: one of them is what the
    /// gateway says of the caller, or they are too large to be kept.
    pub fn selecting(self, names: &[Box<[u8]>]) -> Option<Selecting> {
        let mut bytes = 0;
        let mut select = |name: &[u8]| {
            if self.is_made_up(name) {
                return None;
            }
            let value = vary::normalise(name, self.lines(name));
            bytes += name.len() + value.as_ref().map_or(0, |value| value.len());
            (bytes <= limits::CACHE_SELECTING_BYTES).then(|| (name.into(), value))
        };
        names.iter().map(|name| select(name)).collect()
    }

    /// Whether an answer with these values is one to this request.
    pub fn selects(self, selecting: &Selecting) -> bool {
        selecting.iter().all(|(name, value)| {
            !self.is_made_up(name)
                && vary::normalise(name, self.lines(name)).as_deref() == value.as_deref()
        })
    }
}

/// Whether the request says who it is from, in a way that its upstream may see or that it was let in by.
pub fn has_credentials(request: &Request) -> bool {
    let shown = request.head.fields.iter().any(|field| field.id == Name::Authorization);
    let certified = request.client.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
    shown || certified || caller(request).is_some()
}

fn caller(request: &Request) -> Option<&Identity> {
    request.identity.as_deref().filter(|identity| !identity.anonymous)
}

/// Whether answers to the request are kept for its caller alone.
pub fn is_partitioned(request: &Request, rules: &RouteCache) -> bool {
    rules.by_consumer && caller(request).is_some()
}

/// What a request asks for: host, path and query.
pub fn uri(host: &[u8], path: &[u8], query: Option<&[u8]>, rules: &RouteCache) -> Box<[u8]> {
    let mut out = Vec::with_capacity(host.len() + path.len() + query.map_or(0, <[u8]>::len) + 4);
    out.extend(host.iter().map(u8::to_ascii_lowercase));
    out.push(0);
    out.extend_from_slice(path);
    out.push(0);
    if let Some(query) = query {
        parts_of_query(query, &rules.query, &mut out);
    }
    out.push(0);
    out.into()
}

fn parts_of_query(query: &[u8], which: &CacheQuery, out: &mut Vec<u8>) {
    let (names, listed) = match which {
        CacheQuery::All => {
            out.push(b'?');
            return out.extend_from_slice(query);
        }
        CacheQuery::Only(names) => (names, true),
        CacheQuery::Except(names) => (names, false),
    };
    for (name, value) in parameters(query) {
        let plain = decoded(name);
        if names.iter().any(|known| known.as_bytes() == &*plain) == listed {
            out.push(b'&');
            out.extend_from_slice(name);
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

/// The key of a request.
pub fn key(request: &Request, route: &str, rules: &RouteCache) -> Key {
    let view = View::of(request);
    let host = request.head.site.map_or(&[][..], |site| site.whole.of(view.bytes));
    let uri = uri(host, request.path(), view.query(), rules);
    let mut way = Vec::with_capacity(route.len() + 8);
    way.extend_from_slice(route.as_bytes());
    way.push(0);
    way.push(if request.client.tls.is_some() { b's' } else { b'p' });
    if let Some(host) = view.edit.and_then(|edit| edit.host.as_deref()) {
        way.extend_from_slice(host);
    }
    way.push(0);
    for name in &rules.headers {
        let value = vary::normalise(name.as_bytes(), view.lines(name.as_bytes()));
        match value {
            Some(value) => {
                way.push(b'=');
                way.extend_from_slice(&value);
            }
            None => way.push(b'-'),
        }
        way.push(0);
    }
    if rules.by_consumer {
        match caller(request) {
            Some(identity) => way.extend_from_slice(&partition(identity, view)),
            None => way.push(b'-'),
        }
    }
    Key { uri, way: way.into() }
}

/// All that an upstream learns of a caller but by which credential, and what the caller may do: two requests
/// that differ in any of it may be answered differently. As a digest: some of it is secret.
fn partition(identity: &Identity, view: View<'_>) -> [u8; 32] {
    let mut all = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        all.update(&(part.len() as u64).to_be_bytes());
        all.update(part);
    };
    add(&[identity.consumer.is_some().into()]);
    add(identity.id.as_bytes());
    // Subjects are those of one issuer.
    let issuer = identity.claims.as_ref().and_then(|claims| claims.get("iss")?.as_str());
    add(issuer.unwrap_or_default().as_bytes());
    for list in [&identity.groups, &identity.scopes] {
        add(&(list.len() as u64).to_be_bytes());
        list.iter().for_each(|item| add(item.as_bytes()));
    }
    for (name, value) in identity.fields.iter() {
        add(name.as_bytes());
        add(value);
    }
    view.lines(b"authorization").for_each(add);
    let mut out = [0; 32];
    out.copy_from_slice(all.finish().as_ref());
    out
}
