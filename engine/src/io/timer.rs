//! Deadlines: a hashed wheel with one lazily moved entry per connection.
//!
//! Setting a deadline is a store. The wheel's entry stays where it is as long as it comes up before
//! the deadline; when it does come up, it looks at the deadline and moves on. So a keep-alive
//! connection with three deadlines per request touches the wheel a few times a minute.
//! (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987.)

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::clock::Clock;

/// Granularity of deadlines, in milliseconds.
const TICK_MS: u64 = 8;
/// Slots of the wheel: about 65 s; later deadlines are looked at once a turn.
const SLOTS: usize = 8192;
const WORDS: usize = SLOTS / 64;
const UNSCHEDULED: u64 = u64::MAX;

struct Entry {
    /// Monotonic milliseconds; 0: none.
    deadline_ms: u64,
    /// Tick of the one wheel entry that counts; others of this id are stale.
    scheduled: u64,
    waker: Option<Waker>,
}

struct Wheel {
    slots: Vec<Vec<u32>>,
    /// Bit per slot that holds anything.
    filled: [u64; WORDS],
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Next tick to look at.
    tick: u64,
}

/// The deadlines of one shard.
pub(super) struct Timer {
    wheel: RefCell<Wheel>,
    /// Entries in the wheel, stale ones too.
    pending: Cell<usize>,
}

impl Timer {
    pub(super) fn new(now_ms: u64) -> Timer {
        Timer {
            wheel: RefCell::new(Wheel {
                slots: (0..SLOTS).map(|_| Vec::new()).collect(),
                filled: [0; WORDS],
                entries: Vec::new(),
                free: Vec::new(),
                tick: now_ms / TICK_MS,
            }),
            pending: Cell::new(0),
        }
    }

    fn open(&self) -> u32 {
        let wheel = &mut *self.wheel.borrow_mut();
        match wheel.free.pop() {
            // The wheel's entry of the id's former owner may remain, and serves the new one: a
            // stream of requests, each with a deadline of its own, leaves no trail behind.
            Some(id) => id,
            None => {
                wheel.entries.push(Entry { deadline_ms: 0, scheduled: UNSCHEDULED, waker: None });
                wheel.entries.len() as u32 - 1
            }
        }
    }

    fn close(&self, id: u32) {
        let wheel = &mut *self.wheel.borrow_mut();
        let entry = &mut wheel.entries[id as usize];
        entry.deadline_ms = 0;
        entry.waker = None;
        wheel.free.push(id);
    }

    #[inline]
    fn set(&self, id: u32, deadline_ms: u64) {
        let wheel = &mut *self.wheel.borrow_mut();
        let entry = &mut wheel.entries[id as usize];
        entry.deadline_ms = deadline_ms;
        if deadline_ms == 0 {
            return;
        }
        if deadline_ms.div_ceil(TICK_MS) < entry.scheduled {
            self.schedule(wheel, id);
        }
    }

    fn schedule(&self, wheel: &mut Wheel, id: u32) {
        let entry = &mut wheel.entries[id as usize];
        let wanted = entry.deadline_ms.div_ceil(TICK_MS);
        let tick = wanted.clamp(wheel.tick + 1, wheel.tick + SLOTS as u64 - 1);
        entry.scheduled = tick;
        let slot = tick as usize % SLOTS;
        wheel.slots[slot].push(id);
        wheel.filled[slot / 64] |= 1 << (slot % 64);
        self.pending.set(self.pending.get() + 1);
    }

    /// Wakes everything that is due.
    pub(super) fn turn(&self, now_ms: u64) {
        if self.pending.get() == 0 {
            self.wheel.borrow_mut().tick = now_ms / TICK_MS;
            return;
        }
        let wheel = &mut *self.wheel.borrow_mut();
        let now = now_ms / TICK_MS;
        // A process that was stopped for longer than a turn looks at each slot once.
        let first = wheel.tick.max(now.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=now {
            let slot = tick as usize % SLOTS;
            if wheel.filled[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            wheel.filled[slot / 64] &= !(1 << (slot % 64));
            let mut due = std::mem::take(&mut wheel.slots[slot]);
            self.pending.set(self.pending.get() - due.len());
            wheel.tick = tick.max(wheel.tick);
            for id in due.drain(..) {
                let entry = &mut wheel.entries[id as usize];
                if entry.scheduled > tick {
                    continue;
                }
                entry.scheduled = UNSCHEDULED;
                if entry.deadline_ms == 0 {
                    continue;
                }
                if entry.deadline_ms <= now_ms {
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                } else {
                    self.schedule(wheel, id);
                }
            }
            if wheel.slots[slot].is_empty() && due.capacity() <= 256 {
                wheel.slots[slot] = due;
            }
        }
        wheel.tick = now;
    }

    /// How long the driver may sleep, in milliseconds (`None`: nothing is scheduled).
    pub(super) fn sleep_ms(&self, now_ms: u64) -> Option<u64> {
        if self.pending.get() == 0 {
            return None;
        }
        let wheel = self.wheel.borrow();
        let now = wheel.tick;
        let start = (now + 1) as usize % SLOTS;
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = wheel.filled[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                let due_ms = (now + 1 + ahead as u64) * TICK_MS;
                return Some(due_ms.saturating_sub(now_ms).max(1));
            }
        }
        None
    }
}

/// The awaited thing did not happen before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// One task's deadline. At most one future at a time is bounded by it.
pub struct Watch {
    timer: Rc<Timer>,
    clock: Rc<Clock>,
    id: u32,
    deadline_ms: Cell<u64>,
}

impl Watch {
    pub(super) fn new(timer: Rc<Timer>, clock: Rc<Clock>) -> Watch {
        let id = timer.open();
        Watch { timer, clock, id, deadline_ms: Cell::new(0) }
    }

    /// The deadline is `ms` milliseconds from now.
    #[inline]
    pub fn set_in(&self, ms: u64) {
        self.set_at(self.clock.now_ms().saturating_add(ms).max(1));
    }

    /// The deadline is at this monotonic millisecond ([`Clock::now_ms`]); 0: none.
    #[inline]
    pub fn set_at(&self, deadline_ms: u64) {
        if self.deadline_ms.replace(deadline_ms) != deadline_ms {
            self.timer.set(self.id, deadline_ms);
        }
    }

    pub fn clear(&self) {
        self.set_at(0);
    }

    pub fn deadline_ms(&self) -> u64 {
        self.deadline_ms.get()
    }

    /// Runs `future` until it is ready or the deadline (also one moved meanwhile) has passed.
    pub async fn bound<T>(&self, future: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll_elapsed(cx).map(Err),
        })
        .await
    }

    /// Ready once the deadline has passed.
    pub fn poll_elapsed(&self, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let deadline = self.deadline_ms.get();
        if deadline != 0 && deadline <= self.clock.now_ms() {
            return Poll::Ready(Elapsed);
        }
        let wheel = &mut *self.timer.wheel.borrow_mut();
        let entry = &mut wheel.entries[self.id as usize];
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        // A deadline that came up with no one waiting left no entry behind.
        if deadline != 0 && entry.scheduled == UNSCHEDULED {
            self.timer.schedule(wheel, self.id);
        }
        Poll::Pending
    }

    /// Sleeps until the deadline.
    pub async fn elapsed(&self) {
        poll_fn(|cx| self.poll_elapsed(cx)).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.timer.close(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Counted(AtomicUsize);
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn arm(timer: &Timer, id: u32, waker: &Waker) {
        timer.wheel.borrow_mut().entries[id as usize].waker = Some(waker.clone());
    }

    #[test]
    fn fires_once_at_the_moved_deadline() {
        let timer = Timer::new(1000);
        let counted = Arc::new(Counted(AtomicUsize::new(0)));
        let waker = Waker::from(counted.clone());
        let id = timer.open();
        arm(&timer, id, &waker);
        timer.set(id, 1500);
        timer.set(id, 3000);
        for now in 1000..2999 {
            timer.turn(now);
            assert_eq!(counted.0.load(Ordering::Relaxed), 0, "early at {now}");
        }
        for now in 2999..3100 {
            timer.turn(now);
        }
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
        assert_eq!(timer.sleep_ms(3200), None, "nothing is left to wait for");
    }

    #[test]
    fn an_earlier_deadline_overtakes_and_a_closed_one_is_silent() {
        let timer = Timer::new(0);
        let counted = Arc::new(Counted(AtomicUsize::new(0)));
        let waker = Waker::from(counted.clone());
        let (slow, gone) = (timer.open(), timer.open());
        arm(&timer, slow, &waker);
        arm(&timer, gone, &waker);
        timer.set(slow, 600_000);
        timer.set(gone, 50);
        timer.close(gone);
        timer.set(slow, 100);
        let mut now = 0;
        let mut turns = 0;
        while let Some(ms) = timer.sleep_ms(now) {
            now += ms;
            timer.turn(now);
            turns += 1;
            assert!(turns < 100_000);
            if counted.0.load(Ordering::Relaxed) == 1 {
                break;
            }
        }
        assert!((100..120).contains(&now), "fired at {now}");
    }

    #[test]
    fn owners_in_turn_share_one_entry_of_the_wheel() {
        let timer = Timer::new(0);
        let counted = Arc::new(Counted(AtomicUsize::new(0)));
        let waker = Waker::from(counted.clone());
        for now in 0..1000 {
            let id = timer.open();
            arm(&timer, id, &waker);
            timer.set(id, now + 30_000);
            timer.close(id);
        }
        assert_eq!(timer.pending.get(), 1);
        let id = timer.open();
        arm(&timer, id, &waker);
        timer.set(id, 40_000);
        for now in 1000..39_990 {
            timer.turn(now);
        }
        assert_eq!(counted.0.load(Ordering::Relaxed), 0, "someone else's deadline");
        (39_990..40_020).for_each(|now| timer.turn(now));
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn survives_a_long_stop() {
        let timer = Timer::new(0);
        let counted = Arc::new(Counted(AtomicUsize::new(0)));
        let waker = Waker::from(counted.clone());
        for n in 0..500 {
            let id = timer.open();
            arm(&timer, id, &waker);
            timer.set(id, 10 + n * 1000);
        }
        timer.turn(10_000_000);
        for now in 0..3 * SLOTS as u64 {
            timer.turn(10_000_000 + now * TICK_MS);
        }
        assert_eq!(counted.0.load(Ordering::Relaxed), 500);
    }
}
