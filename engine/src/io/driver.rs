//! Starting a shard's thread, and the driver task that owns its wait.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::probe::StartError;
use super::ring::{Io, Ring, RingConfig};

/// How often glommio is made to look at its rings, its timers, and wakes from other threads; in
/// milliseconds.
const ATTENTION_MS: u64 = 10;
/// Its own clock for that, which must never be up: when it is before glommio has run a task in its
/// turn (the thread lost its CPU for a moment, say), glommio 0.9 takes the turn for an idle one, and
/// sleeps in a ring that nothing wakes, however many tasks can run.
const PREEMPT: Duration = Duration::from_secs(86_400);

/// Where and how a shard runs.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// The CPU to pin the thread to; `None`: any (tests).
    pub cpu: Option<usize>,
    pub ring: RingConfig,
}

/// Runs `main` on this thread as a shard: inside a glommio executor, with the driver beside it.
/// Returns when `main` has ended. Call it for one shard after another, as its start looks at the
/// process's descriptors; `started` is called when that is over.
///
/// # Errors
/// [`StartError`] when the kernel refuses a ring, the memory for it, or the CPU.
pub fn launch<F, Fut>(launch: Launch, started: impl FnOnce(), main: F) -> Result<(), StartError>
where
    F: FnOnce(Io) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let before = (descriptors(RING), descriptors(EVENT));
    let placement = launch.cpu.map_or(Placement::Unbound, Placement::Fixed);
    // Small rings: with 8 MiB of lockable memory, deeper ones fail at the 17th executor.
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(64 << 10)
        .ring_depth(128)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|error| StartError::executor(launch.cpu, &error.to_string()))?;
    let fresh = |kind: &str, before: &[RawFd]| -> Vec<RawFd> {
        descriptors(kind).into_iter().filter(|fd| !before.contains(fd)).collect()
    };
    let guests = fresh(RING, &before.0);
    let bell = fresh(EVENT, &before.1).into_iter().find_map(Bell::of);
    let io = Io::new(launch.ring).map_err(|error| StartError::ring(&error))?;
    started();
    executor.run(async move {
        let end = End(Rc::new(Cell::new(Outcome::Running)));
        let outcome = end.0.clone();
        let shard = main(io.clone());
        io.spawn(async move {
            let end = end;
            shard.await;
            end.0.set(Outcome::Returned);
        });
        drive(&io.0, &guests, bell.as_ref(), &outcome).await;
        // A shard whose own task is broken must not linger; its connections' panics are contained.
        assert!(outcome.get() == Outcome::Returned, "the shard's main task panicked");
    });
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Running,
    Returned,
    Panicked,
}

/// Dropped with the main task, also by a panic.
struct End(Rc<Cell<Outcome>>);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.get() == Outcome::Running {
            self.0.set(Outcome::Panicked);
        }
    }
}

/// The driver: takes completions, lets every runnable task run, enters the ring.
///
/// It blocks only when a whole pass over glommio's queue polled none of our tasks: the queue is
/// first in, first out, so nothing else is runnable then.
async fn drive(
    ring: &Rc<Ring>,
    guests: &[RawFd],
    bell: Option<&Bell<'_>>,
    outcome: &Cell<Outcome>,
) {
    for (index, fd) in guests.iter().enumerate() {
        ring.poll_guest(index, *fd);
    }
    let mut due_ms = ring.clock.now_ms() + ATTENTION_MS;
    let mut rung = false;
    while outcome.get() == Outcome::Running {
        ring.clock.refresh();
        ring.lag.turn(ring.clock.now_us(), ring.polls.get());
        ring.reap();
        ring.timer.turn(ring.clock.now_ms());
        // The bell itself makes a guest fire, once.
        let fired = !rung && !ring.guests_fired.borrow().is_empty();
        rung = fired || ring.clock.now_ms() >= due_ms;
        if rung {
            due_ms = ring.clock.now_ms() + ATTENTION_MS;
            bell.iter().for_each(|bell| bell.ring());
        }
        loop {
            let before = ring.polls.get();
            yield_once().await;
            if ring.polls.get() == before {
                break;
            }
        }
        if outcome.get() != Outcome::Running {
            break;
        }
        // glommio has looked at its rings if the bell was rung: the yield above gave way to that.
        rearm_guests(ring, guests);
        let now_ms = ring.clock.now_ms();
        let attention_ms = due_ms.saturating_sub(now_ms).max(1);
        let sleep_ms = ring.timer.sleep_ms(now_ms).unwrap_or(attention_ms);
        ring.arm_timeout(sleep_ms.min(attention_ms));
        ring.enter(true);
    }
    // What the last tasks queued (closes, last sends) still has to reach the kernel.
    for _ in 0..3 {
        ring.enter(false);
        ring.reap();
        yield_once().await;
    }
}

fn rearm_guests(ring: &Rc<Ring>, guests: &[RawFd]) {
    if ring.guests_fired.borrow().is_empty() {
        return;
    }
    let fired = std::mem::take(&mut *ring.guests_fired.borrow_mut());
    for index in fired {
        if let Some(fd) = guests.get(index) {
            ring.poll_guest(index, *fd);
        }
    }
}

/// Goes to the end of the executor's queue.
fn yield_once() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// The eventfd by which threads wake glommio's executor. An event there makes it look at its rings as
/// soon as the task that runs yields, and so never before one has run.
struct Bell<'e> {
    event: BorrowedFd<'e>,
}

impl Bell<'_> {
    /// `fd`, if glommio's rings take what is written there at once.
    fn of(fd: RawFd) -> Option<Self> {
        // SAFETY: the executor owns the descriptor, and is alive for as long as its driver runs.
        let bell = Bell { event: unsafe { BorrowedFd::borrow_raw(fd) } };
        bell.ring();
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let count = told.lines().find_map(|line| line.strip_prefix("eventfd-count:"))?;
        (count.trim() == "0").then_some(bell)
    }

    fn ring(&self) {
        let _ = rustix::io::write(self.event, &1u64.to_ne_bytes());
    }
}

const RING: &str = "anon_inode:[io_uring]";
const EVENT: &str = "anon_inode:[eventfd]";

/// Descriptors of this process of that kind. glommio does not tell its own, so a shard compares before
/// and after it makes its executor.
fn descriptors(kind: &str) -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(io::Result::ok)
        .filter(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == kind)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
