//! A request and its limits: asked for before it goes on, told when its upstream has it, and given back at
//! its end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use contract::Counter;
use contract::record::Reason;
use contract::snapshot::{LimitCost, LimitIndex};
use smallvec::SmallVec;

use super::fields::{self, Shown};
use super::key::{self, Keys, Subject};
use super::lease::{Few, Hold, Leases, Outcome, Parked, Until, Want};
use super::messages::{Ask, Told};
use super::policy::{Length, Policies, Policy};
use crate::answer::Answer;
use crate::exchange::Request;
use crate::forward::retry_after;
use crate::io::Io;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Name, RequestHead, ResponseHead};
use crate::plan::Route;
use crate::shard::Shard;

/// A shard's leases, and the way to the ledger.
pub struct Limiter {
    io: Io,
    keys: Keys,
    leases: RefCell<Leases>,
    /// Whoever tells the ledger.
    tender: RefCell<Option<Waker>>,
    poked: Cell<bool>,
    /// When it looks by itself, in monotonic milliseconds.
    looks_ms: Cell<u64>,
}

impl Limiter {
    pub fn new(io: Io, keys: Keys) -> Rc<Limiter> {
        Rc::new(Limiter {
            io,
            keys,
            leases: RefCell::default(),
            tender: RefCell::default(),
            poked: Cell::new(false),
            looks_ms: Cell::new(u64::MAX),
        })
    }

    /// Tells the ledger what there is to tell, for as long as the shard lives. Woken like others, it has
    /// its turn behind those that were woken before it: what they all want becomes one `Ask`.
    pub async fn tend(&self, tell: impl Fn(Ask)) {
        let watch = self.io.watch();
        loop {
            match self.leases.borrow().due_ms() {
                Some(due_ms) => {
                    self.looks_ms.set(due_ms);
                    watch.set_at(due_ms);
                }
                None => {
                    self.looks_ms.set(u64::MAX);
                    watch.clear();
                }
            }
            let poked = poll_fn(|cx| {
                if self.poked.replace(false) {
                    return Poll::Ready(());
                }
                *self.tender.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            });
            let _ = watch.bound(poked).await;
            let asks = self.leases.borrow_mut().tick(self.io.clock().now_ms());
            asks.into_iter().for_each(&tell);
        }
    }

    /// Wakes the tender if there is something for it.
    fn poke(&self, leases: &Leases) {
        let sooner = || leases.due_ms().is_some_and(|due_ms| due_ms < self.looks_ms.get());
        if !self.poked.get() && (leases.is_dirty() || sooner()) {
            self.poked.set(true);
            if let Some(waker) = self.tender.take() {
                waker.wake();
            }
        }
    }

    /// What the ledger says.
    pub fn told(&self, told: &Told) {
        let mut leases = self.leases.borrow_mut();
        leases.told(told, self.io.clock().now_ms());
        self.poke(&leases);
    }

    /// Gives back what no request has: the shard ends.
    pub fn leave(&self, tell: impl Fn(Ask)) {
        let asks = self.leases.borrow_mut().leave(self.io.clock().now_ms());
        asks.into_iter().for_each(tell);
    }

    /// Gives back what nobody uses.
    pub fn sweep(&self) {
        let mut leases = self.leases.borrow_mut();
        leases.sweep(self.io.clock().now_ms());
        self.poke(&leases);
    }
}

/// What a request has taken. Whatever becomes of the request, it is settled and given back.
#[derive(Default)]
pub struct Ticket {
    limiter: Option<Rc<Limiter>>,
    holds: Few<Hold>,
    /// Those that hold for it.
    policies: SmallVec<[LimitIndex; 4]>,
    /// What its client is told.
    pub shown: SmallVec<[Shown; 2]>,
}

impl Ticket {
    /// The head of an answer came, or there will be none. `cost`: what it says by the policy at that place.
    fn settle(&mut self, cost: impl Fn(LimitIndex) -> Option<u64>) {
        let Some(limiter) = &self.limiter else { return };
        let now_ms = limiter.io.clock().now_ms();
        let mut leases = limiter.leases.borrow_mut();
        for hold in &mut self.holds {
            let actual = if hold.until() == Until::Answered { cost(hold.policy()) } else { None };
            leases.settle(hold, actual, now_ms);
        }
        limiter.poke(&leases);
    }

    /// The request has ended.
    pub fn end(&mut self) {
        let Some(limiter) = self.limiter.take() else { return };
        let now_ms = limiter.io.clock().now_ms();
        let mut leases = limiter.leases.borrow_mut();
        for mut hold in self.holds.drain(..) {
            leases.end(&mut hold, now_ms);
        }
        limiter.poke(&leases);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where a want comes from: places of the policy, of its quota, and of the window in it.
#[derive(Clone, Copy)]
struct Source {
    policy: LimitIndex,
    quota: u8,
    window: u8,
}

/// Takes what `request` costs of each limit that holds for it; waits if the ledger has to be asked.
///
/// # Errors
/// 429 where a limit is used up, 503 where nobody can say.
pub async fn admit(shard: &Shard, request: &mut Request, route: &Route) -> Result<(), LocalReply> {
    let policies = &request.plan.plan.limits;
    let own = request.identity.as_ref().and_then(|identity| identity.limits.as_deref());
    let own = own.and_then(|name| policies.named(name));
    let own = own.filter(|own| !route.limits.contains(own));
    if route.limits.is_empty() && own.is_none() {
        return Ok(());
    }
    match attempt(shard, request, route, own, true) {
        Attempt::Decided(result) => result,
        // Boxed: rare.
        Attempt::Waits(first) => Box::pin(wait(shard, request, route, own, first)).await,
    }
}

enum Attempt {
    Decided(Result<(), LocalReply>),
    Waits(Waiting),
}

/// Places among those that wait. Dropped, they are given up.
struct Waiting {
    parked: Rc<Parked>,
    limiter: Rc<Limiter>,
    places: Few<u32>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut leases = self.limiter.leases.borrow_mut();
        leases.end_wait(&self.places, &self.parked);
        self.limiter.poke(&leases);
    }
}

async fn wait(
    shard: &Shard,
    request: &mut Request,
    route: &Route,
    own: Option<LimitIndex>,
    first: Waiting,
) -> Result<(), LocalReply> {
    shard.meter.count(Counter::LimitWaits, 1);
    let watch = shard.io.watch();
    watch.set_in(limits::LEASE_WAIT_MS);
    let mut waiting = first;
    loop {
        let woken = poll_fn(|cx| match waiting.parked.is_woken(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let patient = watch.bound(woken).await.is_ok();
        match attempt(shard, request, route, own, patient) {
            Attempt::Decided(result) => return result,
            Attempt::Waits(again) => waiting = again,
        }
    }
}

fn attempt(
    shard: &Shard,
    request: &mut Request,
    route: &Route,
    own: Option<LimitIndex>,
    patient: bool,
) -> Attempt {
    let plan = request.plan.clone();
    let policies = &plan.plan.limits;
    let limiter = shard.limiter();
    let clock = shard.io.clock();
    let (now_ms, wall_ms) = (clock.now_ms(), clock.wall_us() / 1_000);
    let mut wants = Few::<Want>::new();
    let mut sources = Few::<Source>::new();
    let mut holding = SmallVec::<[LimitIndex; 4]>::new();
    let identity = request.identity.clone();
    let address = || request.client_address();
    let subject = Subject {
        identity: identity.as_deref(),
        group: None,
        address: &address,
        head: &request.head,
        bytes: request.bytes(),
        path: request.path(),
        route: &route.name,
    };
    for index in route.limits.iter().copied().chain(own) {
        let Some(policy) = policies.get(index) else { continue };
        let in_group = |group: &str| subject.identity.is_some_and(|known| known.in_group(group));
        let (place, group) = policy.quota_of(in_group);
        let Some(values) = (Subject { group, ..subject }).hash(&limiter.keys, policy) else {
            continue;
        };
        holding.push(index);
        let cost = cost(policy, subject.head, subject.bytes);
        for (at, window) in policy.quota(place).windows.iter().enumerate() {
            let (id, rule) = key::identify(values, window, wall_ms);
            let (cost, until) = match (window.length, &policy.cost) {
                (Length::Concurrent, _) => (1, Until::Ended),
                (_, LimitCost::ResponseHeader { .. }) => (cost, Until::Answered),
                _ => (cost, Until::Reached),
            };
            wants.push(Want {
                id,
                rule,
                mode: policy.mode,
                on_store_failure: policy.on_store_failure,
                cost,
                until,
                dry_run: policy.dry_run,
                policy: index,
            });
            sources.push(Source { policy: index, quota: place, window: at as u8 });
        }
    }
    if holding.is_empty() {
        return Attempt::Decided(Ok(()));
    }
    let make = |at: usize| {
        let source = sources.get(at).copied().unwrap_or(Source { policy: 0, quota: 0, window: 0 });
        let rule = wants.get(at).map(|want| want.rule);
        let found = policies.get(source.policy).zip(rule);
        let found = found.and_then(|(policy, rule)| {
            let window = policy.quota(source.quota).windows.get(usize::from(source.window))?;
            let group = policy.group(source.quota);
            Some((Subject { group, ..subject }).bucket(policy, window, rule, wall_ms))
        });
        Arc::new(found.expect("wants come from windows of policies"))
    };
    let mut leases = limiter.leases.borrow_mut();
    let (mut places, mut holds) = (Few::new(), Few::new());
    let outcome = leases.take(&wants, patient, now_ms, make, &mut places, &mut holds);
    if outcome == Outcome::Dry && patient {
        let parked = Rc::new(Parked::default());
        if leases.wait(&wants, &places, &parked, now_ms) {
            limiter.poke(&leases);
            return Attempt::Waits(Waiting { parked, limiter: limiter.clone(), places });
        }
    }
    let mut shown = SmallVec::new();
    let told = sources.iter().zip(&places).filter(|(source, _)| source.window == 0);
    for (source, &place) in told {
        let (Some(policy), Some(standing)) =
            (policies.get(source.policy), leases.standing(place, now_ms))
        else {
            continue;
        };
        if policy.shows(source.quota) {
            let reset_ms = standing.reset_at_ms.saturating_sub(now_ms);
            shown.push(Shown {
                policy: source.policy,
                quota: source.quota,
                remaining: standing.remaining,
                reset_s: reset_ms.div_ceil(1_000),
            });
        }
    }
    limiter.poke(&leases);
    drop(leases);
    let (counter, result) = match outcome {
        Outcome::Taken { over: true, .. } => (Counter::LimitDryRun, Ok(())),
        Outcome::Taken { shared: true, .. } => (Counter::LimitShared, Ok(())),
        Outcome::Taken { .. } => (Counter::LimitAllowed, Ok(())),
        Outcome::Refused { at, retry_at_ms } => {
            let wait_ms = retry_at_ms.saturating_sub(now_ms).max(1);
            let refused = sources.get(at).map(|source| source.policy);
            for one in shown.iter_mut().filter(|one: &&mut Shown| Some(one.policy) == refused) {
                one.remaining = 0;
                one.reset_s = wait_ms.div_ceil(1_000);
            }
            fields::explain(request, wait_ms);
            (Counter::LimitLimited, Err(limited(wait_ms)))
        }
        Outcome::Dry | Outcome::Unavailable => {
            return Attempt::Decided(Err(unavailable(shard)));
        }
    };
    shard.meter.count(counter, 1);
    request.ticket.shown = shown;
    request.ticket.policies = holding;
    if result.is_ok() {
        request.ticket.holds = holds;
        request.ticket.limiter = Some(limiter.clone());
    }
    Attempt::Decided(result)
}

/// What a request costs before its answer is known.
fn cost(policy: &Policy, head: &RequestHead, bytes: &[u8]) -> u64 {
    let LimitCost::RequestHeader { name, default, most } = &policy.cost else {
        return policy.reserved().into();
    };
    let id = Name::classify(name.as_bytes());
    let mut fields = head.fields.iter().filter(|field| {
        field.id == id
            && (id != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
    });
    // Of two nobody knows which is meant: then it is as if there were none.
    let said = match (fields.next(), fields.next()) {
        (Some(field), None) => retry_after::number(field.value.of(bytes)),
        _ => None,
    };
    match said {
        Some(cost) if cost > 0 => cost.min(u64::from(*most).max(1)),
        _ => u64::from(*default).max(1),
    }
}

fn limited(wait_ms: u64) -> LocalReply {
    let wait_s = wait_ms.div_ceil(1_000).max(1);
    LocalReply {
        field: Some(("Retry-After", wait_s.to_string().into_bytes())),
        ..LocalReply::new(429, Reason::RateLimited)
    }
}

fn unavailable(shard: &Shard) -> LocalReply {
    shard.meter.count(Counter::LimitUnavailable, 1);
    LocalReply {
        field: Some(("Retry-After", b"1".to_vec())),
        ..LocalReply::new(503, Reason::LimitUnavailable)
    }
}

/// An upstream has answered, or there is no answer of one: what the request took is spent. The answer
/// loses what only the gateway is to be told, and what the gateway says itself.
pub fn settle(request: &mut Request, answer: &mut Result<Answer, LocalReply>) {
    if request.ticket.policies.is_empty() {
        return;
    }
    let policies = &request.plan.plan.limits;
    let ticket = &mut request.ticket;
    let Ok(answer) = answer else { return ticket.settle(|_| None) };
    let (head, bytes) = (&mut *answer.head, answer.bytes.bytes());
    ticket.settle(|index| said(policies.get(index)?, head, bytes));
    let names = ticket.policies.iter().filter_map(|index| match &policies.get(*index)?.cost {
        LimitCost::ResponseHeader { name, .. } => Some(name.as_bytes()),
        _ => None,
    });
    let names: SmallVec<[&[u8]; 4]> = names.collect();
    let (standard, legacy) = fields::kinds(policies, &ticket.shown);
    for field in &mut head.fields {
        let name = field.name.of(bytes);
        field.drop |= names.iter().any(|own| own.eq_ignore_ascii_case(name))
            || (field.id == Name::Other && fields::is_ours(name, standard, legacy));
    }
}

/// What an answer says that its request has cost.
fn said(policy: &Policy, head: &ResponseHead, bytes: &[u8]) -> Option<u64> {
    let LimitCost::ResponseHeader { name, most, .. } = &policy.cost else { return None };
    let mut fields = head.fields.iter();
    let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))?;
    let cost = retry_after::number(field.value.of(bytes))?;
    Some(cost.min(u64::from(*most)))
}

/// The limits of a request's plan, and what its client is told of them.
pub fn shown(request: &Request) -> (&Policies, &[Shown]) {
    (&request.plan.plan.limits, &request.ticket.shown)
}

#[cfg(test)]
mod tests;
