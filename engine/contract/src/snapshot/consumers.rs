//! The consumers of a snapshot: very many, which seldom change when something else does.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use super::Consumer;

/// A list of consumers that costs nothing to clone, and remembers how it is encoded.
#[derive(Clone, Default)]
pub struct Consumers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    list: Vec<Consumer>,
    bytes: OnceLock<Box<[u8]>>,
}

impl Consumers {
    /// Whether both are the same memory, and so equal.
    pub fn is(&self, other: &Consumers) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The bytes that `encode` makes of the list, which are made once.
    pub(crate) fn bytes(&self, encode: impl FnOnce(&[Consumer]) -> Vec<u8>) -> &[u8] {
        self.0.bytes.get_or_init(|| encode(&self.0.list).into())
    }
}

impl Clone for Inner {
    /// For who is about to change it.
    fn clone(&self) -> Inner {
        Inner { list: self.list.clone(), bytes: OnceLock::new() }
    }
}

impl Deref for Consumers {
    type Target = Vec<Consumer>;

    fn deref(&self) -> &Vec<Consumer> {
        &self.0.list
    }
}

impl DerefMut for Consumers {
    fn deref_mut(&mut self) -> &mut Vec<Consumer> {
        let inner = Arc::make_mut(&mut self.0);
        inner.bytes.take();
        &mut inner.list
    }
}

impl<'a> IntoIterator for &'a Consumers {
    type Item = &'a Consumer;
    type IntoIter = std::slice::Iter<'a, Consumer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Vec<Consumer>> for Consumers {
    fn from(list: Vec<Consumer>) -> Consumers {
        Consumers(Arc::new(Inner { list, bytes: OnceLock::new() }))
    }
}

impl FromIterator<Consumer> for Consumers {
    fn from_iter<I: IntoIterator<Item = Consumer>>(list: I) -> Consumers {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

impl PartialEq for Consumers {
    fn eq(&self, other: &Consumers) -> bool {
        self.is(other) || self.0.list == other.0.list
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.list.fmt(f)
    }
}
