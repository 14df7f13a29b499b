//! A queue that many threads put into, and that wakes the one that takes out. No lock is between them.
//!
//! Nothing stays behind unseen because both sides keep an order: whoever puts something in rings after
//! it is in; whoever was woken silences the bell before it takes out, and does not sleep while there is
//! something left. Tests have loom go through all orders in which threads can meet here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crossbeam_queue::SegQueue;
use tokio::sync::Notify;

/// What is taken out in the order in which it was put in.
pub trait Queue {
    type Item;

    fn push(&self, item: Self::Item);
    fn pop(&self) -> Option<Self::Item>;
    fn is_empty(&self) -> bool;
}

/// Wakes the thread that takes out. It may ring before anybody waits: whoever waits then is woken at once.
pub trait Bell {
    fn ring(&self);

    /// What has rung so far wakes nobody any more.
    fn silence(&self);
}

#[derive(Debug)]
pub struct WakeQueue<Q, B> {
    queue: Q,
    bell: B,
}

impl<Q: Queue, B: Bell> WakeQueue<Q, B> {
    pub fn new(queue: Q, bell: B) -> WakeQueue<Q, B> {
        WakeQueue { queue, bell }
    }

    /// What is waited for until there is something to take.
    pub fn bell(&self) -> &B {
        &self.bell
    }

    pub fn put(&self, item: Q::Item) {
        self.put_all([item]);
    }

    /// Wakes once for all of them.
    pub fn put_all(&self, items: impl IntoIterator<Item = Q::Item>) {
        let mut any = false;
        for item in items {
            self.queue.push(item);
            any = true;
        }
        // Not before: it could be heard, and the queue found empty, in between.
        if any {
            self.bell.ring();
        }
    }

    /// Takes out what is there, `most` at most. Only if it [is empty](WakeQueue::is_empty) after that may
    /// the bell be waited for: what is left has rung already.
    pub fn take(&self, most: usize, mut take: impl FnMut(Q::Item)) {
        // Not after: what is put in once the last one was taken would have rung for nothing.
        self.bell.silence();
        for _ in 0..most {
            match self.queue.pop() {
                Some(item) => take(item),
                None => break,
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<T> Queue for SegQueue<T> {
    type Item = T;

    fn push(&self, item: T) {
        SegQueue::push(self, item);
    }

    fn pop(&self) -> Option<T> {
        SegQueue::pop(self)
    }

    fn is_empty(&self) -> bool {
        SegQueue::is_empty(self)
    }
}

/// A permit that stays until who waits takes it: that silences it.
impl Bell for Notify {
    fn ring(&self) {
        self.notify_one();
    }

    fn silence(&self) {}
}

/// An eventfd, which a shard's ring can wait for. Silencing it does not block, whether it has rung or not.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// # Errors
    /// No descriptor is to be had.
    pub fn open() -> std::io::Result<EventFd> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(EventFd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Bell for EventFd {
    fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

#[cfg(test)]
pub(super) mod tests;
