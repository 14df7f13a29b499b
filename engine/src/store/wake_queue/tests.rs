//! Every order in which threads can meet at the queue. Its memory is loom's here, behind a lock: that a
//! `SegQueue`, a `Notify` and an eventfd do what they say is their own tests' concern.

use std::collections::VecDeque;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;

pub(in crate::store) struct Line<T>(Mutex<VecDeque<T>>);

impl<T> Line<T> {
    pub fn new() -> Line<T> {
        Line(Mutex::new(VecDeque::new()))
    }
}

impl<T> Queue for Line<T> {
    type Item = T;

    fn push(&self, item: T) {
        self.0.lock().unwrap().push_back(item);
    }

    fn pop(&self) -> Option<T> {
        self.0.lock().unwrap().pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// As an eventfd it rings until it is silenced; as a permit, until one has waited.
struct TestBell {
    rings: Mutex<bool>,
    rung: Condvar,
    permit: bool,
}

impl TestBell {
    fn new(permit: bool) -> TestBell {
        TestBell { rings: Mutex::new(false), rung: Condvar::new(), permit }
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while !*rings {
            rings = self.rung.wait(rings).unwrap();
        }
        *rings = !self.permit;
    }
}

impl Bell for TestBell {
    fn ring(&self) {
        *self.rings.lock().unwrap() = true;
        self.rung.notify_one();
    }

    fn silence(&self) {
        if !self.permit {
            *self.rings.lock().unwrap() = false;
        }
    }
}

/// Two put in, one of them two at once; the third takes `most` at a time, and sleeps in between as the
/// store thread and shards do. Should it sleep for ever, loom says so.
fn meet(permit: bool, most: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let queue = Arc::new(WakeQueue::new(Line::new(), TestBell::new(permit)));
        let one = queue.clone();
        let one = thread::spawn(move || one.put(10));
        let two = queue.clone();
        let two = thread::spawn(move || two.put_all([20, 21]));
        let mut got = Vec::new();
        while got.len() < 3 {
            queue.bell().wait();
            loop {
                queue.take(most, |item| got.push(item));
                if queue.is_empty() {
                    break;
                }
            }
        }
        one.join().unwrap();
        two.join().unwrap();
        assert!(queue.is_empty());
        got.retain(|item| *item != 10);
        assert_eq!(got, [20, 21], "in their order");
    });
}

#[test]
fn loom_nothing_stays_behind_a_permit() {
    meet(true, 1);
    meet(true, usize::MAX);
}

#[test]
fn loom_nothing_stays_behind_an_eventfd() {
    meet(false, 1);
    meet(false, usize::MAX);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tests live on the system's clocks")]
fn an_eventfd_rings_until_it_is_silenced() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let queue = WakeQueue::new(SegQueue::new(), EventFd::open().unwrap());
    let rings = || {
        let mut fds = [PollFd::new(queue.bell(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    let mut got = Vec::new();
    // Nothing has rung: it does not block.
    queue.take(9, |item| got.push(item));
    assert!(!rings());
    queue.put_all([]);
    assert!(!rings());
    queue.put(1);
    queue.put_all([2, 3]);
    assert!(rings());
    queue.take(2, |item| got.push(item));
    assert!(!rings() && !queue.is_empty());
    queue.take(2, |item| got.push(item));
    assert!(got == [1, 2, 3] && queue.is_empty());
}
