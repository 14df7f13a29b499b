//! All that one core owns. Everything here is reached by `&Shard` and touched by one thread.

mod checks;
mod plan;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use checks::Checks;
use contract::snapshot::{Overload, Priority};
pub use plan::ShardPlan;

use crate::auth;
use crate::cache;
use crate::coding::Encoders;
use crate::io::{Io, Swap};
use crate::limit::Limiter;
use crate::limits;
use crate::message::{RequestHead, ResponseHead, write};
use crate::observe::Meter;
use crate::overload::{Memory, Pressure};
use crate::plan::Plan;
use crate::rewrite::RequestId;
use crate::store::{Desk, Store};
use crate::upstream::book::Book;
use crate::upstream::health::checker;
use crate::upstream::pool::Pool;

/// Pools by upstream and address.
pub type Pools = HashMap<(Box<str>, SocketAddr), Rc<Pool>>;

#[allow(clippy::vec_box, reason = "moved by pointer, not by value")]
type Spare<T> = Vec<Box<T>>;

/// A shard's place among those of its node, and what it shares with them beside the plans.
#[derive(Clone, Debug)]
pub struct Seat {
    pub index: u16,
    pub shards: u16,
    pub book: Arc<Book>,
    pub memory: Arc<Memory>,
    pub store: Arc<Store>,
    /// Where control is asked for key sets; `None`: there is none.
    pub wishes: Option<contract::wishes::Wishes>,
    pub throttle: Arc<auth::Throttle>,
    /// Stored answers.
    pub cache: Arc<cache::Store>,
}

pub struct Shard {
    pub io: Io,
    /// For tasks that outlive what began them.
    own: Weak<Shard>,
    seat: Seat,
    checks: Checks,
    pub meter: Meter,
    plans: Arc<Swap<Plan>>,
    current: RefCell<Rc<ShardPlan>>,
    /// Survive plans: a new plan takes over the pools of the targets it still has.
    pools: RefCell<Pools>,
    draining: Cell<bool>,
    /// One per connection task, by its place; woken when a drain begins.
    tasks: RefCell<Vec<Option<Waker>>>,
    vacant: RefCell<Vec<usize>>,
    connections: Cell<u32>,
    // Boxed: a head moves between the exchange's future and here by its pointer.
    request_heads: RefCell<Spare<RequestHead>>,
    response_heads: RefCell<Spare<ResponseHead>>,
    date: Cell<(u64, [u8; write::DATE_LEN])>,
    ids: Cell<[u64; 2]>,
    pressure: Pressure,
    /// What credentials meant.
    credentials: auth::Memory,
    key_uses: auth::KeyUses,
    wishes: auth::Wishes,
    wished: Cell<u64>,
    desk: Desk,
    limiter: Rc<Limiter>,
    /// Copies of requests under way to mirrors.
    pub(crate) mirrors: Rc<Cell<u32>>,
    /// Bytes of bodies that were gathered to be validated and have not gone on.
    pub(crate) gathered: Rc<Cell<usize>>,
    /// For answers that are compressed.
    pub(crate) encoders: Rc<Encoders>,
}

impl Shard {
    /// `seed` is random; request ids come from it.
    pub fn new(
        io: Io,
        meter: Meter,
        plans: Arc<Swap<Plan>>,
        seat: Seat,
        seed: [u64; 2],
    ) -> Rc<Shard> {
        meter.start(&io);
        let desk = Desk::new(&seat.store, seat.index).expect("the store is for all shards");
        let limiter = Limiter::new(io.clone(), seat.store.limit_keys().clone());
        let (old, pools) = (&mut Pools::new(), &mut Pools::new());
        let first = ShardPlan::build(plans.get(), old, pools, &seat.book, seat.index);
        let shard = Rc::new_cyclic(|own| Shard {
            io,
            own: own.clone(),
            seat,
            checks: Checks::default(),
            meter,
            plans,
            current: RefCell::new(first),
            pools: RefCell::default(),
            draining: Cell::new(false),
            tasks: RefCell::default(),
            vacant: RefCell::default(),
            connections: Cell::new(0),
            request_heads: RefCell::default(),
            response_heads: RefCell::default(),
            date: Cell::new((u64::MAX, [b' '; write::DATE_LEN])),
            ids: Cell::new(seed),
            pressure: Pressure::default(),
            credentials: auth::Memory::default(),
            key_uses: auth::KeyUses::default(),
            wishes: auth::Wishes::default(),
            wished: Cell::new(0),
            desk,
            limiter,
            mirrors: Rc::default(),
            gathered: Rc::default(),
            encoders: Rc::default(),
        });
        shard.adopt_whole(shard.plans.get());
        shard
    }

    /// The plan for a request that begins now: the newest one, adopted here if need be.
    #[inline]
    pub fn plan(&self) -> Rc<ShardPlan> {
        if self.plans.number() != self.current.borrow().plan.epoch {
            self.adopt();
        }
        self.current.borrow().clone()
    }

    /// Itself, for a task of its own.
    pub fn own(&self) -> Option<Rc<Shard>> {
        self.own.upgrade()
    }

    /// What the node keeps of answers.
    #[inline]
    pub fn cache(&self) -> &Arc<cache::Store> {
        &self.seat.cache
    }

    /// The epoch adopted last.
    fn epoch(&self) -> u64 {
        self.current.borrow().plan.epoch
    }

    #[cold]
    fn adopt(&self) {
        let plan = self.plans.get();
        let next = self.current.borrow().next(&plan);
        let Some(next) = next else { return self.adopt_whole(plan) };
        plan.limits.open(&self.seat.store);
        *self.current.borrow_mut() = next;
        self.meter.adopted(plan.epoch);
    }

    fn adopt_whole(&self, plan: Arc<Plan>) {
        let epoch = plan.epoch;
        plan.limits.open(&self.seat.store);
        let grants = plan.upstreams.iter().filter_map(|upstream| upstream.credentials.as_ref());
        grants.for_each(|grant| grant.start(&self.seat.store));
        let mut pools = self.pools.borrow_mut();
        let mut old = std::mem::take(&mut *pools);
        let next = ShardPlan::build(plan, &mut old, &mut pools, &self.seat.book, self.seat.index);
        // Targets that the plan no longer has: their busy connections end with their requests.
        old.values().for_each(|pool| pool.clear());
        *self.current.borrow_mut() = next;
        self.meter.adopted(epoch);
        self.checks.look();
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Begins the drain: idle connections end now, busy ones after their request.
    pub fn drain(&self) {
        self.draining.set(true);
        let wakers: Vec<Waker> = self.tasks.borrow().iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Client connections open on this shard.
    pub fn connections(&self) -> u32 {
        self.connections.get()
    }

    /// Counts a client connection until the ticket is dropped.
    pub fn enter(self: &Rc<Self>, waker: Waker) -> Ticket {
        self.connections.set(self.connections.get() + 1);
        let place = self.vacant.borrow_mut().pop();
        let mut tasks = self.tasks.borrow_mut();
        let place = place.unwrap_or_else(|| {
            tasks.push(None);
            tasks.len() - 1
        });
        if let Some(task) = tasks.get_mut(place) {
            *task = Some(waker);
        }
        Ticket { shard: self.clone(), place }
    }

    /// Closes idle upstream connections in time and shows that the shard lives.
    pub async fn keep_house(&self) {
        loop {
            self.io.sleep_ms(limits::HOUSEKEEPING_MS).await;
            let now_ms = self.io.clock().now_ms();
            let pools: Vec<Rc<Pool>> = self.pools.borrow().values().cloned().collect();
            pools.iter().for_each(|pool| pool.sweep(now_ms));
            let (plan, wall_ms) = (self.plan(), self.io.clock().wall_us() / 1_000);
            for (upstream, state) in plan.plan.upstreams.iter().zip(plan.upstreams.iter()) {
                let in_charge = checker(&*upstream.name, self.seat.shards) == self.seat.index;
                state.keep_house(in_charge, now_ms, wall_ms);
            }
            self.limiter.sweep();
            self.tell_key_uses();
            self.meter.housekeeping(&self.io);
        }
    }

    /// Tells control which API keys were used here.
    pub fn tell_key_uses(&self) {
        self.key_uses.tell(|used| self.meter.used(used));
    }

    #[inline]
    pub fn take_request_head(&self) -> Box<RequestHead> {
        self.request_heads.borrow_mut().pop().unwrap_or_default()
    }

    pub fn give_request_head(&self, head: Box<RequestHead>) {
        give(&self.request_heads, head);
    }

    #[inline]
    pub fn take_response_head(&self) -> Box<ResponseHead> {
        let mut head = self.response_heads.borrow_mut().pop().unwrap_or_default();
        head.reset();
        head
    }

    pub fn give_response_head(&self, head: Box<ResponseHead>) {
        give(&self.response_heads, head);
    }

    /// The time of day for `Date` fields.
    #[inline]
    pub fn date(&self) -> [u8; write::DATE_LEN] {
        let now_s = self.io.clock().wall_us() / 1_000_000;
        let (then_s, text) = self.date.get();
        if then_s == now_s {
            return text;
        }
        let text = write::http_date(now_s);
        self.date.set((now_s, text));
        text
    }

    /// A fresh request id of 128 bits.
    #[inline]
    pub fn new_request_id(&self) -> RequestId {
        RequestId::from_words(self.words())
    }

    /// Whether the node has more to do than it can, so that a request of this priority has to go.
    #[inline]
    pub fn refuses(&self, priority: Priority, bounds: &Overload) -> bool {
        let (io, memory) = (&self.io, self.seat.memory.permille());
        let standing_us = io.lag().standing_us();
        let now_ms = io.clock().now_ms();
        self.pressure.refuses(priority, bounds, standing_us, memory, now_ms, || self.random())
    }

    /// What this shard remembers of credentials.
    #[inline]
    pub fn memory(&self) -> &auth::Memory {
        &self.credentials
    }

    /// API keys of the snapshot that were used here, until control is told.
    pub fn key_uses(&self) -> &auth::KeyUses {
        &self.key_uses
    }

    /// Who fails too often, as all shards of the node have seen it.
    pub fn throttle(&self) -> &auth::Throttle {
        &self.seat.throttle
    }

    /// When it asked for key sets.
    pub fn wishes(&self) -> &auth::Wishes {
        &self.wishes
    }

    /// Asks control to fetch the key set of that place again.
    pub fn wish(&self, place: u32) {
        self.wished.set(self.wished.get() + 1);
        if let Some(wishes) = &self.seat.wishes {
            wishes.wish(place);
        }
    }

    /// How often it asked.
    #[cfg(test)]
    pub fn wished(&self) -> u64 {
        self.wished.get()
    }

    /// Where the store thread is asked.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Listens to the store thread, and tells the ledger of limits how this shard stands, for as long as
    /// it lives.
    pub async fn talk_to_store(self: Rc<Self>) {
        let shard = self.clone();
        self.io.spawn(async move { shard.limiter.tend(|ask| shard.desk.ask_limit(ask)).await });
        let _ = self.desk.listen(&self.io, |told| self.limiter.told(&told)).await;
    }

    /// What it may admit.
    #[inline]
    pub fn limiter(&self) -> &Rc<Limiter> {
        &self.limiter
    }

    /// Gives back what it holds of limits: it ends.
    pub fn leave_limits(&self) {
        self.limiter.leave(|ask| self.desk.ask_limit(ask));
    }

    /// Any word.
    #[inline]
    pub fn random(&self) -> u64 {
        self.words()[0]
    }

    /// Two words from a generator with a random seed (xoroshiro128+, not a secret; Blackman and
    /// Vigna 2018).
    #[inline]
    fn words(&self) -> [u64; 2] {
        let [mut a, mut b] = self.ids.get();
        let mut draw = || {
            let out = a.wrapping_add(b);
            b ^= a;
            a = a.rotate_left(24) ^ b ^ (b << 16);
            b = b.rotate_left(37);
            out
        };
        let words = [draw(), draw()];
        self.ids.set([a, b]);
        words
    }
}

fn give<T>(spare: &RefCell<Spare<T>>, head: Box<T>) {
    let mut spare = spare.borrow_mut();
    if spare.len() < limits::SPARE_HEADS {
        spare.push(head);
    }
}

/// A client connection's place in its shard.
pub struct Ticket {
    shard: Rc<Shard>,
    place: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shard.connections.set(self.shard.connections.get() - 1);
        let waker = self.shard.tasks.borrow_mut().get_mut(self.place).and_then(Option::take);
        self.shard.vacant.borrow_mut().push(self.place);
        self.shard.meter.closed();
        drop(waker);
    }
}
