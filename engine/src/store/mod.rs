//! The store thread: whatever takes a while and is no request to an upstream happens there, on tokio,
//! off the pinned cores: Redis, authorization servers, password hashes, slow signatures, large bodies to validate.
//!
//! A shard asks ([`Desk::ask`]) and awaits. The answer goes into a slot of its own; the shard is told by
//! an eventfd that it reads through its ring, as a waker of another thread would not reach the reactor.

pub(crate) mod address;
pub mod answers;
pub mod grant;
pub mod http;
pub mod keys;
pub mod limits;
pub mod oauth_client;
pub mod places;
pub mod redis;
#[cfg(test)]
pub(crate) mod tests;
mod wake_queue;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::SegQueue;
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinError, JoinHandle};

use self::keys::Keys;
use self::places::Places;
use self::redis::Redis;
use self::wake_queue::{Bell, EventFd, Queue, WakeQueue};
use crate::io::Io;
use crate::limit::Keys as LimitKeys;
use crate::limit::messages::{self, Ask};
use crate::limits as bounds;
use crate::payload::jq::Workers;

/// The store thread, as all shards know it.
#[derive(Debug)]
pub struct Store {
    runtime: Handle,
    inboxes: Box<[Arc<Inbox>]>,
    open: Mutex<Open>,
    /// Connections to services that are asked over HTTP.
    http: Arc<http::Clients>,
    /// What callers may ask for, as far as it is counted.
    limits: Arc<limits::Hub>,
    limit_keys: LimitKeys,
    /// For large bodies that are held against schemas.
    validations: Arc<Places>,
    /// For large bodies that are changed.
    payloads: Arc<Places>,
    /// For jq programs.
    jq_places: Arc<Places>,
    jq: Arc<Workers>,
    _limiting: Task,
    /// Ends the thread when it is dropped.
    _alive: tokio::sync::oneshot::Sender<()>,
}

/// What lives on over plans, for as long as one has it.
#[derive(Debug, Default)]
struct Open {
    redis: Vec<Weak<Redis>>,
    keys: Vec<Weak<Keys>>,
}

/// What is still there and meant, or a new one.
fn kept<T>(
    list: &mut Vec<Weak<T>>,
    meant: impl Fn(&T) -> bool,
    open: impl FnOnce() -> T,
) -> Arc<T> {
    list.retain(|one| one.strong_count() > 0);
    if let Some(one) = list.iter().filter_map(Weak::upgrade).find(|one| meant(one)) {
        return one;
    }
    let one = Arc::new(open());
    list.push(Arc::downgrade(&one));
    one
}

/// Where a shard learns what it waits for.
type Inbox = WakeQueue<SegQueue<News>, EventFd>;

/// What a shard is told.
#[derive(Debug)]
enum News {
    /// The question with this ticket is answered.
    Answered(u64),
    /// What the ledger of limits says.
    Limit(messages::Told),
}

/// Tells shards what the ledger of limits says: each of them is woken once.
fn deliver<Q: Queue<Item = News>, B: Bell>(
    told: &mut Vec<(u16, messages::Told)>,
    inboxes: &[Arc<WakeQueue<Q, B>>],
) {
    // What is for the same shard stays in its order.
    told.sort_by_key(|(shard, _)| *shard);
    let mut told = told.drain(..).peekable();
    while let Some(&(shard, _)) = told.peek() {
        let own = std::iter::from_fn(|| told.next_if(|(to, _)| *to == shard));
        let news = own.map(|(_, told)| News::Limit(told));
        match inboxes.get(usize::from(shard)) {
            Some(inbox) => inbox.put_all(news),
            None => news.for_each(drop),
        }
    }
}

impl Store {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or thread is to be had.
    pub fn start(shards: usize) -> io::Result<Arc<Store>> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(bounds::STORE_THREADS)
            .thread_name("store-work")
            .on_thread_start(|| contract::background::give_way(bounds::STORE_NICE))
            .build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        std::thread::Builder::new().name("store".into()).spawn(move || {
            let _ = runtime.block_on(gone);
            runtime.shutdown_background();
        })?;
        let inbox = || Ok(Arc::new(Inbox::new(SegQueue::new(), EventFd::open()?)));
        let inboxes = (0..shards).map(|_| inbox()).collect::<io::Result<Box<[_]>>>()?;
        let (limits, limiting) = limits::Hub::start(&handle, &inboxes);
        let (open, http) = (Mutex::default(), Arc::default());
        Ok(Arc::new(Store {
            runtime: handle,
            inboxes,
            open,
            http,
            limits,
            limit_keys: LimitKeys::default(),
            validations: Places::new(bounds::VALIDATIONS, bounds::VALIDATIONS_WAITING),
            payloads: Places::new(bounds::PAYLOADS, bounds::PAYLOADS_WAITING),
            jq_places: Places::new(bounds::JQ_WORKERS, bounds::JQ_WAITING),
            jq: Arc::default(),
            _limiting: limiting,
            _alive: alive,
        }))
    }

    /// The runtime, for what lives there by itself.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The way to services over HTTP, for work on this thread.
    pub fn http(&self) -> Arc<http::Clients> {
        self.http.clone()
    }

    /// The node's ledger of limits.
    pub fn limits(&self) -> &limits::Hub {
        &self.limits
    }

    /// The node's places for bodies that are held against schemas.
    pub fn validations(&self) -> &Arc<Places> {
        &self.validations
    }

    /// The node's places for large bodies that are changed or encoded.
    pub fn payloads(&self) -> &Arc<Places> {
        &self.payloads
    }

    /// The node's places for jq programs.
    pub fn jq_places(&self) -> &Arc<Places> {
        &self.jq_places
    }

    /// The processes in which jq programs run.
    pub fn jq(&self) -> &Arc<Workers> {
        &self.jq
    }

    /// By what all shards find the same buckets.
    pub fn limit_keys(&self) -> &LimitKeys {
        &self.limit_keys
    }

    /// The connections of these settings, opened if need be.
    pub fn redis(&self, settings: &redis::Settings) -> Arc<Redis> {
        let open = || Redis::open(settings.clone(), &self.runtime);
        let mut kept_open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        kept(&mut kept_open.redis, |redis| redis.settings() == settings, open)
    }

    /// What the node knows of API keys in Redis.
    pub fn keys(&self, settings: &keys::Settings) -> Arc<Keys> {
        let redis = self.redis(&settings.redis);
        let open = || Keys::open(settings.clone(), redis, &self.runtime);
        let mut kept_open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        kept(&mut kept_open.keys, |keys| keys.settings() == settings, open)
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Task<T = ()>(JoinHandle<T>);

impl Task {
    pub fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(runtime.spawn(work))
    }
}

impl<T> From<JoinHandle<T>> for Task<T> {
    fn from(task: JoinHandle<T>) -> Task<T> {
        Task(task)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One shard's side of the store thread.
pub struct Desk {
    store: Arc<Store>,
    inbox: Arc<Inbox>,
    shard: u16,
    tickets: Cell<u64>,
    waiting: Rc<RefCell<HashMap<u64, Option<Waker>>>>,
}

/// The answer was never given: the work panicked, or there were too many questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

impl Desk {
    /// The desk of shard `index`; `None` past the shards that the store was started for.
    pub fn new(store: &Arc<Store>, index: u16) -> Option<Desk> {
        let inbox = store.inboxes.get(usize::from(index))?.clone();
        Some(Desk {
            store: store.clone(),
            inbox,
            shard: index,
            tickets: Cell::new(0),
            waiting: Rc::default(),
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Says to the ledger of limits how this shard stands. What it answers comes to [`Desk::listen`].
    pub fn ask_limit(&self, ask: Ask) {
        self.store.limits.ask(self.shard, ask);
    }

    /// Has `work` done on the store thread. It goes on to its end even if the answer is not awaited.
    pub fn ask<T, F>(&self, work: F) -> Asked<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        let slot: Arc<Mutex<Option<T>>> = Arc::default();
        let refused = self.waiting.borrow().len() >= bounds::STORE_QUESTIONS;
        let asked = Asked { ticket, slot: slot.clone(), waiting: self.waiting.clone(), refused };
        if refused {
            return asked;
        }
        self.waiting.borrow_mut().insert(ticket, None);
        // Told when dropped: a panic is an answer, too.
        let told = Told { ticket, inbox: self.inbox.clone() };
        self.store.runtime.spawn(async move {
            let told = told;
            let answer = work.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            drop(told);
        });
        asked
    }

    /// The same for work that computes: on a thread that may block.
    pub fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Asked<Option<T>> {
        let runtime = self.store.runtime.clone();
        self.ask(async move { runtime.spawn_blocking(work).await.ok() })
    }

    /// Wakes those whose answers have come, and passes on what the ledger of limits says, for as long as
    /// the shard lives.
    ///
    /// # Errors
    /// The eventfd cannot be waited for.
    pub async fn listen(&self, io: &Io, told: impl Fn(messages::Told)) -> io::Result<()> {
        loop {
            io.readable(self.inbox.bell().as_fd()).await?;
            self.inbox.take(usize::MAX, |news| match news {
                News::Answered(ticket) => {
                    let waker = self.waiting.borrow_mut().remove(&ticket).flatten();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                News::Limit(news) => told(news),
            });
        }
    }
}

struct Told {
    ticket: u64,
    inbox: Arc<Inbox>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.inbox.put(News::Answered(self.ticket));
    }
}

/// An answer that is to come.
pub struct Asked<T> {
    ticket: u64,
    slot: Arc<Mutex<Option<T>>>,
    /// Who is in there waits; who is no more has been answered.
    waiting: Rc<RefCell<HashMap<u64, Option<Waker>>>>,
    refused: bool,
}

impl<T> Future for Asked<T> {
    type Output = Result<T, NoAnswer>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.refused {
            return Poll::Ready(Err(NoAnswer));
        }
        if let Some(waker) = self.waiting.borrow_mut().get_mut(&self.ticket) {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let answer = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        Poll::Ready(answer.ok_or(NoAnswer))
    }
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        // Still counted against the bound until the work is done.
        if let Some(waker) = self.waiting.borrow_mut().get_mut(&self.ticket) {
            *waker = None;
        }
    }
}
