//! Asking an upstream about a stored answer: what its 304 makes of it, and asking beside the requests
//! that use it meanwhile (RFC 5861 §3).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use contract::Counter;
use contract::snapshot::{CacheCookies, ListenerLimits, RouteCache};

use super::freshness::{Facts, judge};
use super::key;
use super::object::{self, Draft, Object};
use super::said::Said;
use super::store::Since;
use super::vary::Vary;
use crate::answer::{Answer, Whole};
use crate::exchange::{Downstream, Request, Responder};
use crate::io::Chunk;
use crate::message::{BodyFraming, Name, Version};
use crate::pipeline;
use crate::rewrite::Client;
use crate::route::RouteIndex;
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
    if !object::fits(&fields) {
        return Err(());
    }
    let tagged = object::lines(&merged);
    let tagged = tagged.filter(|(name, _)| name.eq_ignore_ascii_case(rules.tag_header.as_bytes()));
    let tags = object::tags(tagged.map(|(_, value)| value));
    let freshness = judged.unwrap_or_else(|_| object.draft.freshness.clone());
    Ok((Draft { fields, freshness, tags, ..object.draft.clone() }, may))
}

/// Asks about an answer that goes to a client meanwhile. Who begins this has claimed it. `head`: the bytes of
/// the request's head.
pub fn begin(
    shard: &Shard,
    request: &Request,
    head: &[u8],
    index: RouteIndex,
    object: &Arc<Object>,
) {
    let Some(own) = shard.own() else { return };
    let question = Question::of(shard, request, head, index, object);
    shard.io.spawn(async move { question.go(&own).await });
}

/// The request once more, without its client.
struct Question {
    request: Request,
    index: RouteIndex,
    object: Arc<Object>,
    partitioned: bool,
    shared_credentials: bool,
}

impl Question {
    fn of(
        shard: &Shard,
        from: &Request,
        head: &[u8],
        index: RouteIndex,
        object: &Arc<Object>,
    ) -> Question {
        let bytes = Chunk::copy_of(head);
        let started_us = shard.io.clock().now_us();
        let plan = from.plan.clone();
        // What is asked now is no early data.
        let client = Client { early: false, ..from.client.clone() };
        let mut request = Request::new(shard, plan, from.head.clone(), bytes, client, started_us);
        request.id = from.id;
        request.normal_path = from.normal_path.clone();
        request.identity = from.identity.clone();
        request.hidden = from.hidden.clone();
        request.edit = from.edit.clone();
        request.notes.route = from.notes.route;
        ask_about(&mut request, object);
        // The whole is asked for, with whatever method it was found.
        let edit = request.edit();
        edit.remove(b"range");
        edit.method = Some(b"GET".to_vec());
        let rules = from.plan.plan.route(index).cache.as_deref();
        let partitioned = rules.is_some_and(|rules| key::is_partitioned(from, rules));
        Question {
            request,
            index,
            object: object.clone(),
            partitioned,
            shared_credentials: !partitioned && key::has_credentials(from),
        }
    }

    async fn go(mut self, shard: &Rc<Shard>) {
        let answered = self.ask(shard).await;
        let Question { request, object, .. } = self;
        shard.meter.count(Counter::UpstreamBytesOut, request.notes.request_bytes);
        shard.io.give_vec(request.notes.into_text());
        shard.give_request_head(request.head);
        // Where that has failed, the claim lasts for its time, and the next request asks then.
        if answered.is_some() {
            object.unclaim();
        }
    }

    async fn ask(&mut self, shard: &Shard) -> Option<()> {
        let plan = self.request.plan.clone();
        let rules = plan.plan.route(self.index).cache.as_deref()?;
        let responder = Responder {
            down: Downstream::Nobody,
            watch: Rc::new(shard.io.watch()),
            limits: ListenerLimits::default(),
            is_head: false,
            version: Version::V11,
            keep_alive: true,
            peer: self.request.client.address,
        };
        let most = usize::try_from(plan.plan.cache.max_object_bytes).unwrap_or(usize::MAX);
        let clock = shard.io.clock();
        let (asked_ms, since) = (clock.now_ms(), shard.cache().since(&self.object.draft.key));
        let answer = pipeline::produce(shard, &mut self.request, &responder, self.index).await;
        let answer = answer.ok()?;
        // What else is changed on its way would be missing in what is stored.
        if answer.head.status >= 500 || !is_plain(&answer) {
            return None;
        }
        let facts = Facts {
            status: answer.head.status,
            // It was stored for whoever may have it; what is new has to say so again.
            shared_credentials: self.shared_credentials,
            unkept: false,
            asked_ms,
            now_ms: clock.now_ms(),
            wall_s: clock.wall_us() / 1_000_000,
        };
        // Of unknown end: it may be cut off.
        let ended = answer.head.framing != BodyFraming::UntilClose;
        let whole = answer.gather(shard, &responder, None, most).await.ok()?;
        shard.meter.count(Counter::UpstreamBytesIn, whole.body.len() as u64);
        self.learn(shard, rules, whole, facts, since, ended);
        Some(())
    }

    fn learn(
        &self,
        shard: &Shard,
        rules: &RouteCache,
        whole: Whole,
        facts: Facts,
        since: Since,
        ended: bool,
    ) {
        let store = shard.cache();
        let fields: Vec<(&[u8], &[u8])> = whole.fields().collect();
        if facts.status == 304 {
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
        let judged = judge(rules, &said, &facts);
        let (Ok(freshness), Vary::On(names), true) = (judged, &said.vary, ended) else {
            return store.remove(&self.object);
        };
        let old = &self.object.draft;
        // By other fields than before: the next request that misses finds out.
        if !names.iter().eq(old.selecting.iter().map(|(name, _)| name)) {
            return store.remove(&self.object);
        }
        let block = object::block(fields.iter().copied(), &said, rules, facts.wall_s);
        if !object::fits(&block) {
            return store.remove(&self.object);
        }
        let tagged = fields.iter().copied();
        let tagged =
            tagged.filter(|(name, _)| name.eq_ignore_ascii_case(rules.tag_header.as_bytes()));
        let draft = Draft {
            status: facts.status,
            fields: block,
            freshness,
            for_all: self.partitioned || said.control.public || said.control.s_maxage_s.is_some(),
            tags: object::tags(tagged.map(|(_, value)| value)),
            ..old.clone()
        };
        let mut body = whole.body;
        body.shrink_to_fit();
        store.insert(Object::new(draft, Bytes::from(body)), since, None);
    }
}

/// Makes a request ask whether a stored answer still is what it was (RFC 9111 §4.3.1). The client's own
/// conditions are another question.
pub fn ask_about(request: &mut Request, object: &Object) {
    const PAIRS: [(&[u8], &[u8]); 2] =
        [(b"If-None-Match", b"etag"), (b"If-Modified-Since", b"last-modified")];
    let edit = request.edit();
    for name in [&b"if-none-match"[..], b"if-modified-since", b"if-range"] {
        edit.remove(name);
    }
    let values = PAIRS.iter().filter_map(|(name, of)| Some((*name, object.field(of)?)));
    edit.fields.extend(values.map(|(name, value)| (name.to_vec(), value.to_vec())));
}

/// Whether an answer goes on as it came, but for what is done anew with each use of it.
pub fn is_plain(answer: &Answer) -> bool {
    answer.filters.is_empty() && answer.edit.is_none() && !answer.switched
}
