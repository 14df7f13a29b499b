//! Whoever waits for tokens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// Whoever waits for tokens.
#[derive(Debug, Default)]
pub struct Parked {
    woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Parked {
    /// Whether there was an answer. If not, `waker` is woken by one.
    pub fn is_woken(&self, waker: &Waker) -> bool {
        if !self.woken.get() {
            *self.waker.borrow_mut() = Some(waker.clone());
        }
        self.woken.get()
    }

    pub fn was_woken(&self) -> bool {
        self.woken.get()
    }

    pub fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

pub(super) struct Waiter {
    pub(super) cost: u64,
    /// `None`: a dry run, which goes on without.
    pub(super) parked: Option<Rc<Parked>>,
}

impl Waiter {
    /// Whether it is still there, and was not woken for another of its buckets.
    pub(super) fn is_there(&self) -> bool {
        self.parked.as_ref().is_none_or(|parked| !parked.woken.get())
    }
}
