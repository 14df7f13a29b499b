//! What each operation in flight belongs to. A slot is freed only by its last completion, so the
//! kernel never holds memory that is gone.

use std::rc::Rc;
use std::task::Waker;

use super::accept::Accepting;
use super::stream::Conn;

/// Identifies one operation: slot index and generation, as the ring's `user_data`. The generation
/// keeps a late cancel from hitting the slot's next owner.
pub(super) type Token = u64;

pub(super) enum Slot {
    Free {
        next: u32,
    },
    /// One completion, awaited by one future.
    Once(Once),
    Recv(Rc<Conn>),
    Send(Rc<Conn>),
    Accept(Rc<Accepting>),
    /// A deadline of the driver. The kernel reads the time when the operation is submitted.
    Timeout {
        due_ms: u64,
        _after: Box<io_uring::types::Timespec>,
    },
    /// Poll of one of glommio's rings, by its index.
    Guest(usize),
}

#[derive(Default)]
pub(super) struct Once {
    pub(super) waker: Option<Waker>,
    pub(super) result: Option<i32>,
    /// The future is gone; the completion frees the slot.
    pub(super) abandoned: bool,
    /// An address that the kernel may read until the completion.
    #[allow(dead_code, reason = "read by the kernel")]
    pub(super) address: Option<Box<libc::sockaddr_storage>>,
}

const NONE: u32 = u32::MAX;

pub(super) struct Slots {
    slots: Vec<(u32, Slot)>,
    free: u32,
    in_flight: usize,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots { slots: Vec::new(), free: NONE, in_flight: 0 }
    }

    #[inline]
    pub(super) fn insert(&mut self, slot: Slot) -> Token {
        self.in_flight += 1;
        if self.free == NONE {
            self.slots.push((0, slot));
            return (self.slots.len() - 1) as Token;
        }
        let index = self.free;
        let (generation, old) = &mut self.slots[index as usize];
        if let Slot::Free { next } = *old {
            self.free = next;
        }
        *old = slot;
        (u64::from(*generation) << 32) | u64::from(index)
    }

    /// The live slot of `token`.
    #[inline]
    pub(super) fn get(&mut self, token: Token) -> Option<&mut Slot> {
        match self.slots.get_mut(token as u32 as usize) {
            Some((generation, slot)) if u64::from(*generation) == token >> 32 => match slot {
                Slot::Free { .. } => None,
                slot => Some(slot),
            },
            _ => None,
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, token: Token) -> Option<Slot> {
        let index = token as u32;
        self.get(token)?;
        let (generation, slot) = &mut self.slots[index as usize];
        *generation = generation.wrapping_add(1);
        let old = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = index;
        self.in_flight -= 1;
        Some(old)
    }

    /// Operations whose last completion has not come.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}
