//! The way of a request to a route with a cache.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{CacheCookies, RouteCache};
use tokio::sync::watch;

use super::condition::{Conditions, Part, Validators, part};
use super::directives::Wishes;
use super::fill::Fill;
use super::freshness::{Facts, Unstorable, Use, judge};
use super::key::{self, Key, View};
use super::object::{self, Draft, Object};
use super::refresh;
use super::said::Said;
use super::store::{Found, Joined, Leader, Since, Store};
use super::told::{Forwarded, Told};
use super::vary::Vary;
use crate::answer::Answer;
use crate::exchange::{Request, Responder};
use crate::io::Chunk;
use crate::limit;
use crate::local_reply::LocalReply;
use crate::message::{BodyFraming, Name, ResponseHead, write};
use crate::pipeline;
use crate::plan::Route;
use crate::route::RouteIndex;
use crate::shard::Shard;

/// What a cache does with a request, by its method and form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// GET, or HEAD, which a stored GET answers.
    Look,
    /// Nothing.
    Pass,
    /// It changes what is there (RFC 9111 §4.4). So does what is not known to be safe.
    Change,
}

/// Answers a request by what is stored, or has its upstream answer it and stores that.
///
/// # Errors
/// As [`crate::forward::forward`]; 504 for a request that takes only what is stored.
pub async fn serve(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    index: RouteIndex,
    rules: &RouteCache,
) -> Result<Answer, LocalReply> {
    let plan = request.plan.clone();
    let route = plan.plan.route(index);
    let why = match kind(request) {
        Kind::Look => {
            let mut visit = Visit::new(shard, request, responder, route, index, rules);
            return visit.serve(request).await;
        }
        Kind::Change => Forwarded::Method,
        Kind::Pass => Forwarded::Bypass,
    };
    shard.meter.count(Counter::CacheBypassed, 1);
    let change = (why == Forwarded::Method).then(|| {
        let host = request.head.site.map_or(&[][..], |site| site.whole.of(request.bytes()));
        (host.to_vec(), key::key(request, &route.name, rules).uri)
    });
    let mut answer = pipeline::produce(shard, request, responder, index).await?;
    if let Some((host, uri)) = change
        && (200..400).contains(&answer.head.status)
    {
        invalidate(shard.cache(), &host, &uri, &answer, rules);
    }
    tell(&mut answer, Told::forwarded(why), request, rules);
    Ok(answer)
}

fn kind(request: &Request) -> Kind {
    let pass = request.upgrade.is_some()
        || request.grpc.is_some()
        || request.web.is_some()
        || request.head.fields.iter().any(|field| {
            // RFC 9111 §4.3.2: not for a cache to judge.
            matches!(field.id, Name::IfMatch | Name::IfUnmodifiedSince)
        });
    match request.method_out() {
        b"GET" | b"HEAD" if !pass && request.head.framing.is_empty() => Kind::Look,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PROPFIND" | b"REPORT" | b"SEARCH"
        | b"QUERY" => Kind::Pass,
        _ => Kind::Change,
    }
}

/// What an unsafe request was for, and what its answer names at the same host, has changed.
fn invalidate(store: &Store, host: &[u8], uri: &[u8], answer: &Answer, rules: &RouteCache) {
    store.invalidate(uri);
    let (head, bytes) = (&answer.head, answer.bytes.bytes());
    let base = Key { uri: uri.into(), way: Box::default() };
    let location = head.value(bytes, Name::Location);
    for place in location.into_iter().chain(head.other(bytes, b"content-location")) {
        if let Some((path, query)) = same_host(place, host, base.place().1) {
            store.invalidate(&key::uri(host, &path, query, rules));
        }
    }
}

/// Path and query of a reference to the same host (RFC 9111 §4.4: others are not ours to judge).
fn same_host<'a>(place: &'a [u8], host: &[u8], base: &[u8]) -> Option<(Vec<u8>, Option<&'a [u8]>)> {
    let place = place.split(|&byte| byte == b'#').next().unwrap_or_default();
    let at = memchr::memchr(b'?', place).unwrap_or(place.len());
    let (path, query) = (&place[..at], place.get(at + 1..));
    let rest = match path {
        [b'/', b'/', rest @ ..] => Some(rest),
        path => {
            let scheme = memchr::memmem::find(path, b"://");
            scheme.filter(|at| !path[..*at].contains(&b'/')).and_then(|at| path.get(at + 3..))
        }
    };
    let path = match (rest, path) {
        (Some(rest), _) => {
            let at = memchr::memchr(b'/', rest).unwrap_or(rest.len());
            if !rest[..at].eq_ignore_ascii_case(host) {
                return None;
            }
            if at == rest.len() { b"/".to_vec() } else { rest[at..].to_vec() }
        }
        (None, [b'/', ..]) => path.to_vec(),
        (None, path) => {
            let end = memchr::memrchr(b'/', base).map_or(0, |at| at + 1);
            [base.get(..end).unwrap_or_default(), path].concat()
        }
    };
    let mut normal = Vec::new();
    let path = crate::route::path::normalise(&path, &mut normal).ok()?.to_vec();
    Some((path, query))
}

/// One request's visit to the cache.
struct Visit<'a> {
    shard: &'a Shard,
    responder: &'a Responder,
    route: &'a Route,
    index: RouteIndex,
    rules: &'a RouteCache,
    key: Key,
    wishes: Wishes,
    /// The head's bytes, which the request may lose as it is sent.
    head: Vec<u8>,
    /// It has credentials, and what is stored under its key is not its caller's alone.
    shared_credentials: bool,
    partitioned: bool,
    has_conditions: bool,
}

impl<'a> Visit<'a> {
    fn new(
        shard: &'a Shard,
        request: &Request,
        responder: &'a Responder,
        route: &'a Route,
        index: RouteIndex,
        rules: &'a RouteCache,
    ) -> Visit<'a> {
        let mut wishes = Wishes::default();
        let view = View::of(request);
        if rules.heed_requests {
            view.lines(b"cache-control").for_each(|line| wishes.line(line));
        }
        let partitioned = key::is_partitioned(request, rules);
        let conditions = [&b"if-none-match"[..], b"if-modified-since"];
        Visit {
            shard,
            responder,
            route,
            index,
            rules,
            key: key::key(request, &route.name, rules),
            wishes,
            head: request.bytes().get(..request.head.head_len).unwrap_or_default().to_vec(),
            shared_credentials: !partitioned && key::has_credentials(request),
            partitioned,
            has_conditions: conditions.into_iter().any(|name| view.line(name).is_some()),
        }
    }

    fn store(&self) -> &'a Arc<Store> {
        self.shard.cache()
    }

    fn now_ms(&self) -> u64 {
        self.shard.io.clock().now_ms()
    }

    fn is_head(&self) -> bool {
        self.responder.is_head
    }

    fn count(&self, counter: Counter) {
        self.shard.meter.count(counter, 1);
    }

    async fn serve(&mut self, request: &mut Request) -> Result<Answer, LocalReply> {
        let ranged = !self.is_head() && View::with(request, &self.head).line(b"range").is_some();
        let mut leader = None;
        let mut waited = false;
        let (stale, why) = loop {
            let now_ms = self.now_ms();
            let view = View::with(request, &self.head);
            let found = self.store().find(&self.key, |object| {
                (object.draft.for_all || !self.shared_credentials)
                    && view.selects(&object.draft.selecting)
            });
            let (stale, why) = match found {
                Found::Nothing => (None, Forwarded::UriMiss),
                Found::Others => (None, Forwarded::VaryMiss),
                Found::One(object) => {
                    let freshness = &object.draft.freshness;
                    let told = Told { collapsed: waited, ..Told::hit(freshness, now_ms) };
                    match freshness.usage(&self.wishes, now_ms) {
                        Use::Fresh => {
                            self.count(match waited {
                                true => Counter::CacheCoalesced,
                                false => Counter::CacheHits,
                            });
                            return self.answer(request, &object, &[], told);
                        }
                        Use::Stale => {
                            self.count(Counter::CacheStale);
                            return self.answer(request, &object, &[], told);
                        }
                        Use::Refresh => {
                            if object.claim(now_ms) {
                                let view = View::with(request, &self.head);
                                refresh::begin(self.shard, request, view, self.index, &object);
                            }
                            self.count(Counter::CacheStale);
                            return self.answer(request, &object, &[], told);
                        }
                        Use::Ask if freshness.left_s(now_ms) > 0 && !freshness.always_asked => {
                            (Some(object), Forwarded::Request)
                        }
                        Use::Ask => (Some(object), Forwarded::Stale),
                    }
                }
            };
            if self.wishes.only_if_cached {
                // RFC 9111 §5.2.1.7.
                self.count(Counter::CacheMisses);
                return Err(LocalReply::new(504, Reason::OnlyIfCached));
            }
            let asked = stale.as_ref().is_some_and(|object| object.draft.freshness.always_asked);
            let together = !waited
                && !ranged
                && !asked
                && !self.is_head()
                && !self.has_conditions
                && !self.wishes.no_store
                && why != Forwarded::Request
                && self.rules.coalesce_ms > 0;
            if !together {
                break (stale, why);
            }
            match self.store().join(&self.key, now_ms) {
                Joined::Leads(own) => {
                    leader = Some(own);
                    break (stale, why);
                }
                Joined::Alone => break (stale, why),
                Joined::Follows(begun_ms, others) => {
                    self.wait(begun_ms, others).await?;
                    waited = true;
                }
            }
        };
        let why = if ranged && stale.is_none() { Forwarded::Partial } else { why };
        self.ask(request, stale, why, ranged, leader).await
    }

    /// Waits for what another request brings: not longer than the route says, since that was sent.
    async fn wait(&self, begun_ms: u64, mut others: watch::Receiver<()>) -> Result<(), LocalReply> {
        let until_ms = begun_ms + u64::from(self.rules.coalesce_ms);
        let left_ms = until_ms.saturating_sub(self.now_ms());
        if left_ms == 0 {
            return Ok(());
        }
        // A waker of another shard's would not reach this one; the store thread's answer does.
        let over = self.shard.desk().ask(async move {
            let _ = tokio::time::timeout(Duration::from_millis(left_ms), others.changed()).await;
        });
        let mut over = pin!(over);
        let gone = poll_fn(|cx| {
            if over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.responder.down.poll_gone(cx).map(|()| true)
        });
        let watch = &self.responder.watch;
        watch.set_at(until_ms.max(1));
        match watch.bound(gone).await {
            Ok(true) => Err(LocalReply::closing(0, Reason::ClientAborted)),
            // Its answer is there, was not for others, or took too long.
            Ok(false) | Err(_) => Ok(()),
        }
    }

    /// Has the upstream answer, and makes what can be made of that.
    async fn ask(
        &mut self,
        request: &mut Request,
        stale: Option<Arc<Object>>,
        why: Forwarded,
        ranged: bool,
        leader: Option<Leader>,
    ) -> Result<Answer, LocalReply> {
        let asked_ms = self.now_ms();
        let since = self.store().since(&self.key);
        let asks = match &stale {
            Some(object) if !ranged => {
                let (etag, changed) = (object.field(b"etag"), object.field(b"last-modified"));
                etag.is_some() || changed.is_some()
            }
            _ => false,
        };
        let mine = stale.clone().filter(|_| asks);
        if let Some(object) = &mine {
            // RFC 9111 §4.3.1.
            let edit = request.edit();
            for name in [&b"if-none-match"[..], b"if-modified-since", b"if-range"] {
                edit.remove(name);
            }
            let pairs =
                [(&b"If-None-Match"[..], &b"etag"[..]), (b"If-Modified-Since", b"last-modified")];
            for (name, of) in pairs {
                if let Some(value) = object.field(of) {
                    edit.fields.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        let answered = pipeline::produce(self.shard, request, self.responder, self.index).await;
        let now_ms = self.now_ms();
        let covered = stale.as_ref().filter(|object| object.draft.freshness.covers_errors(now_ms));
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(reply) => match covered {
                // RFC 5861 §4.
                Some(object) if matches!(reply.status, 500 | 502..=504) => {
                    drop(leader);
                    return self.instead(request, object, why, None);
                }
                _ => return Err(reply),
            },
        };
        let status = answer.head.status;
        match (&mine, covered) {
            (Some(object), _) if status == 304 => {
                let object = object.clone();
                return self.confirmed(request, object, answer, why, since, asked_ms).await;
            }
            (_, Some(object)) if matches!(status, 500 | 502..=504) => {
                drop(leader);
                drop(answer);
                return self.instead(request, object, why, Some(status));
            }
            _ => {}
        }
        let stored =
            !ranged && self.keep(request, &mut answer, stale.as_ref(), since, asked_ms, leader);
        self.count(Counter::CacheMisses);
        let told = Told { stored, ..Told::forwarded(why) };
        tell(&mut answer, told, request, self.rules);
        Ok(answer)
    }

    /// The stored answer in place of an error.
    fn instead(
        &self,
        request: &mut Request,
        object: &Object,
        why: Forwarded,
        status: Option<u16>,
    ) -> Result<Answer, LocalReply> {
        self.count(Counter::CacheStale);
        let ttl_s = Some(object.draft.freshness.left_s(self.now_ms()));
        let told = Told { status, ttl_s, ..Told::forwarded(why) };
        self.answer(request, object, &[], told)
    }

    /// The stored answer is as it was (RFC 9111 §4.3.4).
    async fn confirmed(
        &self,
        request: &mut Request,
        object: Arc<Object>,
        answer: Answer,
        why: Forwarded,
        since: Since,
        asked_ms: u64,
    ) -> Result<Answer, LocalReply> {
        let whole = answer.gather(self.shard, self.responder, None, 0).await?;
        let fields: Vec<(&[u8], &[u8])> = whole.fields().collect();
        let facts = self.facts(object.draft.status, asked_ms);
        let new = refresh::confirmed(&object, &fields, self.rules, &facts);
        let object = match new {
            Ok((draft, true)) => {
                let object = Arc::new(Object::new(draft.clone(), object.body.clone()));
                self.store().insert(Object::new(draft, object.body.clone()), since, None);
                object
            }
            Ok((draft, false)) => {
                // It says of itself that it is not to be kept any longer.
                self.store().remove(&object);
                Arc::new(Object::new(draft, object.body.clone()))
            }
            Err(()) => object,
        };
        self.count(Counter::CacheRevalidated);
        // Not kept, but this client's.
        let cookies = self.rules.set_cookie == CacheCookies::Refuse;
        let cookies =
            fields.iter().filter(|(name, _)| cookies && Name::classify(name) == Name::SetCookie);
        let more: Vec<(&[u8], &[u8])> = cookies.copied().collect();
        let ttl_s = Some(object.draft.freshness.left_s(self.now_ms()));
        let told = Told { status: Some(304), ttl_s, ..Told::forwarded(why) };
        self.answer(request, &object, &more, told)
    }

    fn facts(&self, status: u16, asked_ms: u64) -> Facts {
        let clock = self.shard.io.clock();
        Facts {
            status,
            shared_credentials: self.shared_credentials,
            unkept: self.wishes.no_store,
            asked_ms,
            now_ms: clock.now_ms(),
            wall_s: clock.wall_us() / 1_000_000,
        }
    }

    /// Has the answer stored as it is relayed, if it may be.
    fn keep(
        &self,
        request: &Request,
        answer: &mut Answer,
        stale: Option<&Arc<Object>>,
        since: Since,
        asked_ms: u64,
        leader: Option<Leader>,
    ) -> bool {
        let facts = self.facts(answer.head.status, asked_ms);
        let draft = match self.is_head() {
            true => return false,
            // What is stored is told again as it is: without what changes it on its way.
            false if !answer.filters.is_empty() || answer.edit.is_some() => return false,
            false => self.draft(request, &answer.head, answer.bytes.bytes(), &facts),
        };
        let draft = match draft {
            Ok(draft) => draft,
            Err(_) => {
                if leader.is_some() {
                    self.store().leave_alone(&self.key, facts.now_ms);
                }
                // What is new is not kept, and what is kept is not new.
                if let Some(object) = stale.filter(|_| facts.status < 500) {
                    self.store().remove(object);
                }
                return false;
            }
        };
        let mut leader = leader;
        if draft.freshness.left_s(facts.now_ms) <= 0 && leader.take().is_some() {
            // Nobody else could use it now.
            self.store().leave_alone(&self.key, facts.now_ms);
        }
        let length = match answer.head.framing {
            BodyFraming::None | BodyFraming::Length(0) => {
                return self.store().insert(Object::new(draft, Bytes::new()), since, None);
            }
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked => None,
            // It cannot be told from one that was cut off.
            BodyFraming::UntilClose => return false,
        };
        let most = usize::try_from(request.plan.plan.cache.max_object_bytes).unwrap_or(usize::MAX);
        let most = most.min(u32::MAX as usize);
        answer.fill = Fill::new(self.store(), draft, since, most, length, leader);
        answer.fill.is_some()
    }

    fn draft(
        &self,
        request: &Request,
        head: &ResponseHead,
        bytes: &[u8],
        facts: &Facts,
    ) -> Result<Draft, Unstorable> {
        let fields = || {
            let own = head.fields.iter().filter(|field| field.forwarded());
            own.map(|field| (field.name.of(bytes), field.value.of(bytes)))
        };
        let said = Said::read(fields());
        let freshness = judge(self.rules, &said, facts)?;
        let Vary::On(names) = &said.vary else { return Err(Unstorable::Vary) };
        let selecting = View::with(request, &self.head).selecting(names);
        let tagged = fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(self.rules.tag_header.as_bytes()));
        Ok(Draft {
            key: self.key.clone(),
            selecting: selecting.ok_or(Unstorable::Vary)?,
            route: self.route.name.clone(),
            status: facts.status,
            fields: object::block(fields(), &said, self.rules, facts.wall_s),
            freshness,
            for_all: self.partitioned || said.control.public || said.control.s_maxage_s.is_some(),
            tags: object::tags(tagged.map(|(_, value)| value)),
        })
    }

    /// Answers by a stored answer, or by what the request wants of it.
    fn answer(
        &self,
        request: &mut Request,
        object: &Object,
        more: &[(&[u8], &[u8])],
        told: Told,
    ) -> Result<Answer, LocalReply> {
        // The client's, not those of a question of our own.
        let came = |name: Name| {
            let field = request.head.fields.iter().find(|field| field.id == name && !field.drop);
            field.map(|field| field.value.of(&self.head))
        };
        let tags = request.head.fields.iter().filter(|field| field.id == Name::IfNoneMatch);
        let tags: Vec<&[u8]> = tags.map(|field| field.value.of(&self.head)).collect();
        // Of an answer that is changed there are no parts.
        let whole = request.edit.as_deref().is_some_and(|edit| edit.drops(b"range"));
        let conditions = Conditions {
            if_none_match: &tags,
            if_modified_since: came(Name::IfModifiedSince),
            range: came(Name::Range).filter(|_| !self.is_head() && !whole),
            if_range: came(Name::IfRange),
        };
        let validators = Validators {
            etag: object.field(b"etag"),
            last_modified: object.field(b"last-modified"),
            date: object.field(b"date"),
        };
        let wanted = match object.draft.status {
            200 => part(&conditions, &validators, object.body.len()),
            _ => Part::Whole,
        };
        let (status, data) = match wanted {
            Part::Whole => (object.draft.status, object.body.clone()),
            Part::Unchanged => (304, Bytes::new()),
            Part::Range(start, end) => (206, object.body.slice(start..end)),
            Part::Unsatisfiable => (416, Bytes::new()),
        };
        let mut text = Vec::with_capacity(object.draft.fields.len() + 256);
        write::bare_status_line(&mut text, status);
        if wanted == Part::Unsatisfiable {
            write::field(&mut text, b"Date", &self.shard.date());
        } else {
            for (name, value) in object::lines(&object.draft.fields) {
                // RFC 9110 §15.4.5.
                let of_body = wanted == Part::Unchanged && is_of_body(name);
                if !of_body {
                    write::field(&mut text, name, value);
                }
            }
            // RFC 9111 §5.1.
            let age_s = object.draft.freshness.age_s(self.now_ms());
            write::field_decimal(&mut text, b"Age", age_s.min(1 << 31));
        }
        for (name, value) in more {
            write::field(&mut text, name, value);
        }
        let length = object.body.len() as u64;
        match wanted {
            Part::Range(start, end) => {
                let range = format!("bytes {start}-{}/{length}", end - 1);
                write::field(&mut text, b"Content-Range", range.as_bytes());
            }
            Part::Unsatisfiable => {
                write::field(&mut text, b"Content-Range", format!("bytes */{length}").as_bytes());
            }
            Part::Whole | Part::Unchanged => {}
        }
        if !matches!(status, 204 | 304) {
            write::field_decimal(&mut text, b"Content-Length", data.len() as u64);
        }
        text.extend_from_slice(b"\r\n");
        let data = (!data.is_empty() && !self.is_head()).then(|| Chunk::shared(data));
        let mut answer = Answer::of_text(self.shard, self.is_head(), text, data);
        // What the request took of limits is spent, as if an upstream had answered.
        limit::settle(request, &mut answer);
        let mut answer = answer?;
        tell(&mut answer, told, request, self.rules);
        Ok(answer)
    }
}

fn is_of_body(name: &[u8]) -> bool {
    let of_content = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
    of_content && !name.eq_ignore_ascii_case(b"content-location")
}

/// Adds `Cache-Status`.
fn tell(answer: &mut Answer, told: Told, request: &Request, rules: &RouteCache) {
    if rules.tell {
        let mut value = Vec::with_capacity(48);
        told.write(request.plan.plan.node.via.as_bytes(), &mut value);
        answer.edit.get_or_insert_default().fields.push((b"Cache-Status".to_vec(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_the_same_host_or_nowhere() {
        let of = |place: &str| {
            let found = same_host(place.as_bytes(), b"api.test:8080", b"/a/b");
            found.map(|(path, query)| {
                let query = query.map(|query| String::from_utf8_lossy(query).into_owned());
                (String::from_utf8(path).unwrap(), query)
            })
        };
        let at = |path: &str| Some((path.to_owned(), None));
        assert_eq!(of("/x"), at("/x"));
        assert_eq!(of("c"), at("/a/c"));
        assert_eq!(of("../c#d"), at("/c"));
        assert_eq!(of("http://API.test:8080/x"), at("/x"));
        assert_eq!(of("//api.test:8080"), at("/"));
        assert_eq!(of("/x?y=/z"), Some(("/x".into(), Some("y=/z".into()))));
        assert_eq!(of("https://other.test/x"), None);
        assert_eq!(of("//other.test/x"), None);
    }
}
