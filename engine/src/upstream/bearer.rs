//! The token that requests to an upstream carry, as one shard has it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::shard::Shard;
use crate::store::grant::Grant;

/// A copy of a [`Grant`]'s token: requests share it without touching what other shards touch.
pub struct Bearer {
    grant: Arc<Grant>,
    number: Cell<u64>,
    authorization: RefCell<Rc<[u8]>>,
    expires_ms: Cell<u64>,
}

impl Bearer {
    pub fn new(grant: Arc<Grant>) -> Bearer {
        Bearer {
            grant,
            number: Cell::new(0),
            authorization: RefCell::new(Rc::from([])),
            expires_ms: Cell::new(0),
        }
    }

    /// The value of `Authorization`, if there is a token that is still good.
    #[inline]
    pub fn get(&self, now_ms: u64) -> Option<Rc<[u8]>> {
        if self.grant.number() != self.number.get() {
            self.take();
        }
        (now_ms < self.expires_ms.get()).then(|| self.authorization.borrow().clone())
    }

    #[cold]
    fn take(&self) {
        // Before the token: should that change meanwhile, it is taken again.
        self.number.set(self.grant.number());
        if let Some(token) = &*self.grant.current() {
            *self.authorization.borrow_mut() = Rc::from(&*token.authorization);
            self.expires_ms.set(token.expires_ms);
        }
    }

    /// The same; waits for the first one.
    pub async fn get_soon(&self, shard: &Shard) -> Option<Rc<[u8]>> {
        let clock = shard.io.clock();
        if let Some(authorization) = self.get(clock.now_ms()) {
            return Some(authorization);
        }
        // Boxed: once in the life of a grant.
        Box::pin(shard.desk().ask(self.grant.clone().wait())).await.ok()?;
        self.get(clock.now_ms())
    }

    /// The upstream has answered 401, or UNAUTHENTICATED.
    pub fn doubt(&self, now_ms: u64) {
        self.grant.doubt(now_ms);
    }
}
