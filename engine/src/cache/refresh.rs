//! Asking an upstream about a stored answer: what its 304 makes of it, and asking beside the requests
//! that use it meanwhile (RFC 5861 §3).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use contract::snapshot::{CacheCookies, HostHeader, RouteCache};

use super::freshness::{Facts, judge};
use super::key::{self, View};
use super::object::{self, Draft, Object};
use super::said::Said;
use super::vary::Vary;
use crate::call::{Call, Called, Caller, call};
use crate::exchange::Request;
use crate::message::Name;
use crate::plan::Backend;
use crate::route::{RouteIndex, rewrite_path};
use crate::shard::Shard;

/// What a 304 with these fields makes of a stored answer (RFC 9111 §3.2, §4.3.4), and whether that may be
/// kept.
///
/// # Errors
/// It is another answer than the one that was asked about: nothing changes.
pub fn confirmed(
    object: &Object,
    fields: &[(&[u8], &[u8])],
    rules: &RouteCache,
    facts: &Facts,
) -> Result<(Draft, bool), ()> {
    let kept = rules.set_cookie == CacheCookies::Store;
    let cookie = |name: &[u8]| Name::classify(name) == Name::SetCookie;
    let fields: Vec<(&[u8], &[u8])> =
        fields.iter().filter(|(name, _)| kept || !cookie(name)).copied().collect();
    let merged = object::updated(&object.draft.fields, &fields);
    // Its age is what the 304 says of it, not what was told with the first answer.
    let age = fields.iter().filter(|(name, _)| Name::classify(name) == Name::Age);
    let said = Said::read(object::lines(&merged).chain(age.copied()));
    // It varies by what was selected by; another Vary would need other values of requests.
    let Vary::On(names) = &said.vary else { return Err(()) };
    if !names.iter().eq(object.draft.selecting.iter().map(|(name, _)| name)) {
        return Err(());
    }
    let judged = judge(rules, &said, facts);
    let may = judged.is_ok();
    let fields = object::block(object::lines(&merged), &said, rules, facts.wall_s);
    let tagged = object::lines(&merged);
    let tagged = tagged.filter(|(name, _)| name.eq_ignore_ascii_case(rules.tag_header.as_bytes()));
    let tags = object::tags(tagged.map(|(_, value)| value));
    let freshness = judged.unwrap_or_else(|_| object.draft.freshness.clone());
    Ok((Draft { fields, freshness, tags, ..object.draft.clone() }, may))
}

/// Asks about an answer that goes to a client meanwhile. Who begins this has claimed it.
pub fn begin(
    shard: &Shard,
    request: &Request,
    view: View<'_>,
    index: RouteIndex,
    object: &Arc<Object>,
) {
    let Some(own) = shard.own() else { return };
    let question = Question::of(request, view, index, object);
    shard.io.spawn(async move { question.go(&own).await });
}

/// All that is needed to ask again without the request.
struct Question {
    caller: Caller,
    index: RouteIndex,
    object: Arc<Object>,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    authority: Vec<u8>,
    /// Said by a rule of the route.
    host: Option<Vec<u8>>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// As with the request itself.
    partitioned: bool,
    shared_credentials: bool,
}

impl Question {
    fn of(request: &Request, view: View<'_>, index: RouteIndex, object: &Arc<Object>) -> Question {
        let rules = request.plan.plan.route(index).cache.as_deref();
        let partitioned = rules.is_some_and(|rules| key::is_partitioned(request, rules));
        // Not what is about the answer that the client gets, nor what each message has of its own.
        let own = |name: &[u8]| {
            matches!(
                Name::classify(name),
                Name::Host
                    | Name::ContentLength
                    | Name::Range
                    | Name::IfRange
                    | Name::IfNoneMatch
                    | Name::IfModifiedSince
                    | Name::CacheControl
                    | Name::Expect
                    | Name::XRequestId
            )
        };
        let hidden = view.hidden.and_then(|hidden| hidden.cookies.as_deref());
        let came =
            view.fields().map(|field| (field.name.of(view.bytes), field.value.of(view.bytes)));
        let came =
            came.filter(|(name, _)| hidden.is_none() || Name::classify(name) != Name::Cookie);
        let cookies = hidden.filter(|cookies| !cookies.is_empty());
        let added = view.edit.map_or(&[][..], |edit| &edit.fields);
        let added = added.iter().map(|(name, value)| (&**name, &**value));
        let all = came.chain(cookies.map(|cookies| (&b"Cookie"[..], cookies))).chain(added);
        let all = all.filter(|(name, _)| !own(name));
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> =
            all.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        for (name, of) in
            [(&b"If-None-Match"[..], &b"etag"[..]), (b"If-Modified-Since", b"last-modified")]
        {
            if let Some(value) = object.field(of) {
                fields.push((name.to_vec(), value.to_vec()));
            }
        }
        let site = request.head.site.map_or(&[][..], |site| site.whole.of(view.bytes));
        Question {
            caller: Caller::of(request),
            index,
            object: object.clone(),
            path: request.path().to_vec(),
            query: view.query().map(<[u8]>::to_vec),
            authority: site.to_vec(),
            host: view.edit.and_then(|edit| edit.host.clone()),
            fields,
            partitioned,
            shared_credentials: !partitioned && key::has_credentials(request),
        }
    }

    async fn go(self, shard: &Rc<Shard>) {
        if self.ask(shard).await.is_some() {
            self.object.unclaim();
        }
        // Where that has failed, the claim lasts for its time, and the next request asks then.
    }

    async fn ask(&self, shard: &Shard) -> Option<()> {
        let plan = self.caller.plan.clone();
        let route = plan.plan.route(self.index);
        let rules = route.cache.as_deref()?;
        let Backend { upstream, .. } = plan.backend(self.index)?;
        let mut target = Vec::new();
        rewrite_path(&route.rewrite, &self.path, &mut target);
        if target.is_empty() {
            target.clone_from(&self.path);
        }
        if let Some(query) = &self.query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        let preserved = match plan.plan.upstreams.get(upstream as usize)?.host_header {
            HostHeader::Preserve => Some(&*self.authority).filter(|host| !host.is_empty()),
            HostHeader::Target | HostHeader::Literal(_) => None,
        };
        let most = usize::try_from(plan.plan.cache.max_object_bytes).unwrap_or(usize::MAX);
        let clock = shard.io.clock();
        let (asked_ms, since) = (clock.now_ms(), shard.cache().since(&self.object.draft.key));
        let question = Call {
            route,
            upstream,
            method: b"GET",
            host: self.host.as_deref().or(preserved),
            target: &target,
            fields: &self.fields,
            body: None,
            is_grpc: false,
            deadline_ms: 0,
            most_bytes: most,
        };
        let called = call(shard, &self.caller, question).await.ok()?;
        if called.status >= 500 {
            return None;
        }
        let facts = Facts {
            status: called.status,
            // It was stored for whoever may have it; what is new has to say so again.
            shared_credentials: self.shared_credentials,
            unkept: false,
            asked_ms,
            now_ms: clock.now_ms(),
            wall_s: clock.wall_us() / 1_000_000,
        };
        self.learn(shard, rules, called, facts, since);
        Some(())
    }

    fn learn(
        &self,
        shard: &Shard,
        rules: &RouteCache,
        called: Called,
        facts: Facts,
        since: super::store::Since,
    ) {
        let store = shard.cache();
        let fields: Vec<(&[u8], &[u8])> =
            called.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        if called.status == 304 {
            let facts = Facts { status: self.object.draft.status, ..facts };
            match confirmed(&self.object, &fields, rules, &facts) {
                Ok((draft, true)) => {
                    store.insert(Object::new(draft, self.object.body.clone()), since, None);
                }
                Ok((_, false)) | Err(()) => store.remove(&self.object),
            }
            return;
        }
        let said = Said::read(fields.iter().copied());
        let (Ok(freshness), Vary::On(names)) = (judge(rules, &said, &facts), &said.vary) else {
            return store.remove(&self.object);
        };
        let old = &self.object.draft;
        // By other fields than before: the next request that misses finds out.
        if !names.iter().eq(old.selecting.iter().map(|(name, _)| name)) {
            return store.remove(&self.object);
        }
        let tagged = fields.iter().copied();
        let tagged =
            tagged.filter(|(name, _)| name.eq_ignore_ascii_case(rules.tag_header.as_bytes()));
        let draft = Draft {
            status: called.status,
            fields: object::block(fields.iter().copied(), &said, rules, facts.wall_s),
            freshness,
            for_all: self.partitioned || said.control.public || said.control.s_maxage_s.is_some(),
            tags: object::tags(tagged.map(|(_, value)| value)),
            ..old.clone()
        };
        let mut body = called.body;
        body.shrink_to_fit();
        store.insert(Object::new(draft, Bytes::from(body)), since, None);
    }
}
