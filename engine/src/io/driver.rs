//! Starting a shard's thread, and the driver task that owns its wait.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::probe::StartError;
use super::ring::{Io, Ring, RingConfig};

/// How glommio's timers tick; also how long its main ring may wait for attention.
const PREEMPT: Duration = Duration::from_millis(10);

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
    let before = ring_descriptors();
    let placement = launch.cpu.map_or(Placement::Unbound, Placement::Fixed);
    // Small rings: with 8 MiB of lockable memory, deeper ones fail at the 17th executor.
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(64 << 10)
        .ring_depth(128)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|error| StartError::executor(launch.cpu, &error.to_string()))?;
    let guests: Vec<RawFd> =
        ring_descriptors().into_iter().filter(|fd| !before.contains(fd)).collect();
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
        drive(&io.0, &guests, &outcome).await;
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
async fn drive(ring: &Rc<Ring>, guests: &[RawFd], outcome: &Cell<Outcome>) {
    for (index, fd) in guests.iter().enumerate() {
        ring.poll_guest(index, *fd);
    }
    let executor = glommio::executor();
    while outcome.get() == Outcome::Running {
        ring.clock.refresh();
        ring.lag.turn(ring.clock.now_us(), ring.polls.get());
        ring.reap();
        ring.timer.turn(ring.clock.now_ms());
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
        // glommio looks at its rings when its latency ring asks for preemption, which the yield
        // above gave way to. An event on its other rings waits for the next tick: polling those
        // again at once would only fire again.
        if !executor.need_preempt() {
            rearm_guests(ring, guests);
        }
        if let Some(sleep_ms) = ring.timer.sleep_ms(ring.clock.now_ms()) {
            ring.arm_timeout(sleep_ms);
        }
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

/// io_uring descriptors of this process. glommio does not tell its own, so a shard compares before
/// and after it makes its executor.
fn ring_descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .filter_map(io::Result::ok)
        .filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|target| target.as_os_str() == "anon_inode:[io_uring]")
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
