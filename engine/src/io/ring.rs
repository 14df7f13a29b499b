//! The ring itself: submission, completion dispatch, and the handle that everything else holds.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::Buffers;
use super::clock::Clock;
use super::lag::Lag;
use super::slots::{Once, Slot, Slots, Token};
use super::stream::Conn;
use super::timer::{Timer, Watch};

/// Sizes of one shard's ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Submission entries; the completion queue has four times as many.
    pub entries: u32,
    /// Receive buffers (a power of two).
    pub buffers: u16,
    /// Bytes of data per receive buffer.
    pub buffer_bytes: usize,
    /// Buffers offered to the kernel at first; grows to `buffers` on demand.
    pub depth: u16,
    /// Multishot receives; off: one submission per receive (an old kernel, a test).
    pub multishot: bool,
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig {
            entries: 1024,
            buffers: 1024,
            buffer_bytes: 16 * 1024 + 1024,
            depth: 128,
            multishot: true,
        }
    }
}

/// What the reactor counted since it started.
#[derive(Default)]
pub struct IoCounts {
    /// `io_uring_enter` calls.
    pub enters: Cell<u64>,
    /// Those that were allowed to block.
    pub waits: Cell<u64>,
    /// Receives that found no provided buffer.
    pub starved: Cell<u64>,
    /// Receives submitted one by one.
    pub one_shot: Cell<u64>,
    /// Enters that found the completion queue overflowed.
    pub overflows: Cell<u64>,
    /// Sends that the kernel cut short and that were continued.
    pub short_sends: Cell<u64>,
    /// Panics caught at a task's edge.
    pub panics: Cell<u64>,
}

pub(super) fn bump(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// Work that a completion asks for and that needs the submission queue.
pub(super) enum Chore {
    /// Stop a multishot receive whose reader is slower than its peer.
    Pause(Rc<Conn>),
    /// Send the rest of a short send.
    Resend(Rc<Conn>),
}

pub(super) struct Ring {
    // Dropped first: the kernel lets go of the buffers with the ring.
    uring: RefCell<IoUring>,
    pub(super) buffers: Rc<Buffers>,
    slots: RefCell<Slots>,
    pub(super) chores: RefCell<Vec<Chore>>,
    pub(super) clock: Rc<Clock>,
    pub(super) timer: Rc<Timer>,
    pub(super) counts: IoCounts,
    pub(super) multishot: Cell<bool>,
    /// When the earliest time-out in flight completes, in monotonic milliseconds; 0: none is.
    timeout_ms: Cell<u64>,
    /// Polls of this shard's tasks; the driver compares it to learn whether any ran.
    pub(super) polls: Cell<u64>,
    pub(super) lag: Lag,
    /// Guests (glommio's rings) whose poll has fired and is not re-armed.
    pub(super) guests_fired: RefCell<Vec<usize>>,
    /// Output buffers for reuse, so that idle connections own none.
    spare: RefCell<Vec<Vec<u8>>>,
}

/// A shard's reactor. Cheap to clone; not `Send`.
#[derive(Clone)]
pub struct Io(pub(super) Rc<Ring>);

/// The token of operations without a slot.
const QUIET: Token = Token::MAX;
const SPARE_VECS: usize = 256;
const SPARE_BYTES: usize = 32 * 1024;

impl Io {
    pub(super) fn new(config: RingConfig) -> io::Result<Io> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(config.entries * 4)
            .build(config.entries)?;
        let buffers =
            Rc::new(Buffers::new(&uring, config.buffers, config.buffer_bytes, config.depth)?);
        let clock = Rc::new(Clock::new());
        let timer = Rc::new(Timer::new(clock.now_ms()));
        Ok(Io(Rc::new(Ring {
            uring: RefCell::new(uring),
            buffers,
            slots: RefCell::new(Slots::new()),
            chores: RefCell::new(Vec::new()),
            clock,
            timer,
            counts: IoCounts::default(),
            multishot: Cell::new(config.multishot),
            timeout_ms: Cell::new(0),
            polls: Cell::new(0),
            lag: Lag::default(),
            guests_fired: RefCell::new(Vec::new()),
            spare: RefCell::new(Vec::new()),
        })))
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// How long ready work waits for this core.
    pub fn lag(&self) -> &Lag {
        &self.0.lag
    }

    /// A new deadline for the calling task.
    pub fn watch(&self) -> Watch {
        Watch::new(self.0.timer.clone(), self.0.clock.clone())
    }

    pub fn counts(&self) -> &IoCounts {
        &self.0.counts
    }

    /// Operations in flight; a quiet reactor has those of its idle connections and listeners.
    pub fn in_flight(&self) -> usize {
        self.0.slots.borrow().in_flight()
    }

    /// An empty output buffer, reused where possible.
    #[inline]
    pub fn take_vec(&self) -> Vec<u8> {
        self.0.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(2048))
    }

    /// Gives an output buffer back.
    #[inline]
    pub fn give_vec(&self, vec: Vec<u8>) {
        self.0.give_vec(vec);
    }

    /// Runs `future` as a task of this shard. A panic ends only that task and is counted.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(Tracked { ring: self.0.clone(), future: Box::pin(future) }).detach();
    }

    /// Ready when `fd` (an eventfd, a pipe) is readable.
    pub async fn readable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.0.once(entry, None).await.map(|_| ())
    }

    /// Sleeps on a deadline of its own.
    pub async fn sleep_ms(&self, ms: u64) {
        let watch = self.watch();
        watch.set_in(ms);
        watch.elapsed().await;
    }
}

struct Tracked<F> {
    ring: Rc<Ring>,
    future: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Tracked<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.ring.polls.set(self.ring.polls.get() + 1);
        let future = self.future.as_mut();
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                // The panic hook has printed where. The task's streams close as it is dropped.
                bump(&self.ring.counts.panics);
                Poll::Ready(())
            }
        }
    }
}

impl Ring {
    pub(super) fn give_vec(&self, mut vec: Vec<u8>) {
        if vec.capacity() <= SPARE_BYTES {
            let mut spare = self.spare.borrow_mut();
            if spare.len() < SPARE_VECS {
                vec.clear();
                spare.push(vec);
            }
        }
    }

    /// Queues an entry that belongs to `slot`; it is submitted with the next enter.
    #[inline]
    pub(super) fn submit(&self, entry: squeue::Entry, slot: Slot) -> Token {
        let token = self.slots.borrow_mut().insert(slot);
        self.push(&entry.user_data(token));
        token
    }

    fn push(&self, entry: &squeue::Entry) {
        let mut uring = self.uring.borrow_mut();
        loop {
            // SAFETY: whatever the entry points to (buffers, addresses) is owned by its slot or by
            // the Conn that the slot holds, and slots live until the last completion.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: submit what is there. EBUSY and EAGAIN mean that completions must
            // be taken first; GETEVENTS lets the kernel flush them to the completion queue, which
            // is larger than everything that can be outstanding per turn or overflows without loss.
            let queued = uring.submission().len() as u32;
            // SAFETY: plain enter without an argument.
            let _ = unsafe {
                uring.submitter().enter::<libc::sigset_t>(
                    queued,
                    0,
                    io_uring::EnterFlags::GETEVENTS.bits(),
                    None,
                )
            };
            bump(&self.counts.enters);
        }
    }

    /// Queues an operation whose success interests no one; a failure's completion finds no slot.
    fn submit_quietly(&self, entry: squeue::Entry) {
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(QUIET));
    }

    /// Asks for the end of an operation; its own completion still comes and frees its slot.
    pub(super) fn cancel(&self, token: Token) {
        self.submit_quietly(opcode::AsyncCancel::new(token).build());
    }

    pub(super) fn close(&self, fd: RawFd) {
        self.submit_quietly(opcode::Close::new(types::Fd(fd)).build());
    }

    /// One operation with one completion. Dropping the future cancels it.
    pub(super) async fn once(
        self: &Rc<Self>,
        entry: squeue::Entry,
        address: Option<Box<libc::sockaddr_storage>>,
    ) -> io::Result<i32> {
        let once = Once { address, ..Once::default() };
        let token = self.submit(entry, Slot::Once(once));
        let pending = Pending { ring: self, token };
        let result = poll_fn(|cx| {
            let mut slots = self.slots.borrow_mut();
            let Some(Slot::Once(once)) = slots.get(token) else {
                return Poll::Ready(-libc::EBADF);
            };
            if let Some(result) = once.result {
                slots.remove(token);
                return Poll::Ready(result);
            }
            once.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        std::mem::forget(pending);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    /// Hands all completions to their slots. Returns how many there were.
    pub(super) fn reap(self: &Rc<Self>) -> usize {
        const BATCH: usize = 64;
        let mut total = 0;
        loop {
            let mut batch = [const { MaybeUninit::<cqueue::Entry>::uninit() }; BATCH];
            let (count, overflow) = {
                let mut uring = self.uring.borrow_mut();
                let mut queue = uring.completion();
                let overflow = queue.overflow();
                (queue.fill(&mut batch).len(), overflow)
            };
            if overflow > 0 {
                self.counts.overflows.set(u64::from(overflow));
            }
            for entry in &batch[..count] {
                // SAFETY: `fill` initialised the first `count` entries.
                let entry = unsafe { entry.assume_init_ref() };
                self.complete(entry.user_data(), entry.result(), entry.flags());
            }
            total += count;
            if count < BATCH {
                return total;
            }
        }
    }

    fn complete(self: &Rc<Self>, token: Token, result: i32, flags: u32) {
        let more = cqueue::more(flags);
        let mut slots = self.slots.borrow_mut();
        // Only clones or moves leave the borrow: waking or dropping may come back here.
        match slots.get(token) {
            Some(Slot::Recv(conn)) => {
                let conn = conn.clone();
                let last = if more { None } else { slots.remove(token) };
                drop(slots);
                drop(last);
                conn.received(self, result, flags);
            }
            Some(Slot::Send(_)) => {
                let sent = slots.remove(token);
                drop(slots);
                if let Some(Slot::Send(conn)) = sent {
                    conn.sent(self, result);
                }
            }
            Some(Slot::Accept(accepting)) => {
                let accepting = accepting.clone();
                let last = if more { None } else { slots.remove(token) };
                drop(slots);
                drop(last);
                accepting.accepted(result, more);
            }
            Some(Slot::Once(once)) => {
                if once.abandoned {
                    let gone = slots.remove(token);
                    drop(slots);
                    drop(gone);
                } else {
                    once.result = Some(result);
                    let waker = once.waker.take();
                    drop(slots);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
            Some(Slot::Guest(index)) => {
                let index = *index;
                slots.remove(token);
                drop(slots);
                self.guests_fired.borrow_mut().push(index);
            }
            Some(Slot::Timeout { due_ms, .. }) => {
                if *due_ms == self.timeout_ms.get() {
                    self.timeout_ms.set(0);
                }
                slots.remove(token);
            }
            // A completion for nothing we know: the kernel's multishot overflow bugs of old
            // (faults.md 25). There is nothing it could belong to.
            Some(Slot::Free { .. }) | None => {}
        }
    }

    fn run_chores(self: &Rc<Self>) {
        if self.chores.borrow().is_empty() {
            return;
        }
        let chores = std::mem::take(&mut *self.chores.borrow_mut());
        for chore in chores {
            match chore {
                Chore::Pause(conn) => conn.pause(self),
                Chore::Resend(conn) => conn.resend(self),
            }
        }
    }

    /// Submits everything queued and takes completions; blocks for one if `block`.
    ///
    /// GETEVENTS is always given: with DEFER_TASKRUN no completion appears without it. The wait has
    /// no time-out of its own, as that would program a timer on every turn (measured: 8 µs in a
    /// virtual machine); deadlines are an operation in flight, see [`Ring::arm_timeout`].
    pub(super) fn enter(self: &Rc<Self>, block: bool) {
        self.run_chores();
        self.buffers.top_up();
        let mut uring = self.uring.borrow_mut();
        let queued = uring.submission().len() as u32;
        let flags = io_uring::EnterFlags::GETEVENTS.bits();
        bump(&self.counts.enters);
        if block {
            bump(&self.counts.waits);
        }
        // SAFETY: plain enter without an argument. Errors carry no loss: EINTR means "nothing
        // came", EBUSY and EAGAIN leave the entries queued for the next turn.
        let _ = unsafe {
            let want = u32::from(block);
            uring.submitter().enter::<libc::sigset_t>(queued, want, flags, None)
        };
    }

    /// Makes sure that the ring completes something in `sleep_ms` milliseconds at the latest.
    /// One time-out stays in flight over many turns; only an earlier deadline needs another.
    pub(super) fn arm_timeout(&self, sleep_ms: u64) {
        let due_ms = self.clock.now_ms() + sleep_ms;
        if self.timeout_ms.get() != 0 && self.timeout_ms.get() <= due_ms {
            return;
        }
        self.timeout_ms.set(due_ms);
        let after =
            types::Timespec::new().sec(sleep_ms / 1000).nsec((sleep_ms % 1000) as u32 * 1_000_000);
        let after = Box::new(after);
        let entry = opcode::Timeout::new(&raw const *after).build();
        self.submit(entry, Slot::Timeout { due_ms, _after: after });
    }

    /// Polls one of glommio's rings for its next completion. One-shot: a multishot poll of a ring
    /// ends after its first event anyway.
    pub(super) fn poll_guest(&self, index: usize, fd: RawFd) {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
        self.submit(entry, Slot::Guest(index));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Nothing that the kernel may still touch is freed before its completion has come.
        let any = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        self.submit_quietly(any);
        let uring = self.uring.get_mut();
        for _ in 0..1000 {
            let queued = uring.submission().len() as u32;
            let flags = io_uring::EnterFlags::GETEVENTS.bits();
            // SAFETY: plain enter without an argument.
            let _ = unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
            let slots = self.slots.get_mut();
            let done: Vec<_> =
                uring.completion().map(|e| (e.user_data(), cqueue::more(e.flags()))).collect();
            for (token, more) in done {
                if !more {
                    drop(slots.remove(token));
                }
            }
            if slots.in_flight() == 0 {
                return;
            }
            #[allow(clippy::disallowed_methods, reason = "the ring is gone; no task is left")]
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // Rather leak than let the kernel write into freed memory.
        std::mem::forget(self.buffers.clone());
        std::mem::forget(std::mem::replace(self.slots.get_mut(), Slots::new()));
    }
}

/// Cancels a one-shot operation whose future is dropped before its completion.
struct Pending<'a> {
    ring: &'a Rc<Ring>,
    token: Token,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut slots = self.ring.slots.borrow_mut();
        if let Some(Slot::Once(once)) = slots.get(self.token) {
            if once.result.is_some() {
                slots.remove(self.token);
                return;
            }
            once.abandoned = true;
            once.waker = None;
        } else {
            return;
        }
        drop(slots);
        self.ring.cancel(self.token);
    }
}
