//! What services have answered, for all shards of the node: so that a second shard need not ask again,
//! and those who ask the same at the same time share one question.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::limits;

/// SHA-256 of what is asked about: credentials themselves are not kept.
pub type Key = [u8; 32];

/// An answer, and for how long it is believed.
#[derive(Clone, Debug)]
pub struct Believed<T> {
    pub value: T,
    /// Milliseconds since the Unix epoch; 0: not beyond those who wait for it.
    pub until_ms: u64,
    /// What it weighs in memory, about.
    pub bytes: usize,
}

impl<T> Believed<T> {
    /// Of use to those who wait for it only.
    pub fn once(value: T) -> Believed<T> {
        Believed { value, until_ms: 0, bytes: 0 }
    }
}

/// Bounded as `auth::Memory` is: two generations.
pub struct Answers<T>(Mutex<Inner<T>>);

struct Inner<T> {
    young: HashMap<Key, Believed<T>>,
    old: HashMap<Key, Believed<T>>,
    /// Of the young generation.
    bytes: usize,
    asking: HashMap<Key, Arc<OnceCell<Believed<T>>>>,
}

impl<T> Default for Answers<T> {
    fn default() -> Answers<T> {
        Answers(Mutex::new(Inner {
            young: HashMap::new(),
            old: HashMap::new(),
            bytes: 0,
            asking: HashMap::new(),
        }))
    }
}

impl<T> fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl<T: Clone> Answers<T> {
    /// What is believed about `key` at `now_ms`, else what `ask` finds out. Of those who come while it
    /// is being asked nobody asks again; should who asks be dropped, the next one of them goes on.
    pub async fn get<F>(&self, key: Key, now_ms: u64, ask: impl FnOnce() -> F) -> Believed<T>
    where
        F: Future<Output = Believed<T>>,
    {
        let asking = {
            let mut inner = self.inner();
            if let Some(believed) = inner.find(&key, now_ms) {
                return believed;
            }
            inner.asking.entry(key).or_default().clone()
        };
        let believed = asking.get_or_init(ask).await.clone();
        let mut inner = self.inner();
        if inner.asking.get(&key).is_some_and(|current| Arc::ptr_eq(current, &asking)) {
            inner.asking.remove(&key);
            if believed.until_ms > 0 {
                inner.insert(key, believed.clone());
            }
        }
        believed
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        let inner = self.inner();
        inner.young.len() + inner.old.len()
    }
}

impl<T: Clone> Inner<T> {
    fn find(&mut self, key: &Key, now_ms: u64) -> Option<Believed<T>> {
        if let Some(believed) = self.young.get(key) {
            return Some(believed.clone()).filter(|believed| believed.until_ms > now_ms);
        }
        let believed = self.old.remove(key).filter(|believed| believed.until_ms > now_ms)?;
        self.insert(*key, believed.clone());
        Some(believed)
    }

    fn insert(&mut self, key: Key, believed: Believed<T>) {
        if self.young.len() >= limits::ANSWERS || self.bytes >= limits::ANSWERS_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += believed.bytes;
        self.young.insert(key, believed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::tests::run;

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    fn until(value: usize, until_ms: u64) -> Believed<usize> {
        Believed { value, until_ms, bytes: 100 }
    }

    #[test]
    fn an_answer_is_believed_until_its_end() {
        let answers = Answers::default();
        run(async {
            let ask = |now_ms, value| answers.get(key(1), now_ms, async move || until(value, 100));
            assert_eq!(ask(10, 1).await.value, 1);
            assert_eq!(ask(99, 2).await.value, 1);
            assert_eq!(ask(100, 3).await.value, 3);
            let other = answers.get(key(2), 10, async || until(4, 100));
            assert_eq!(other.await.value, 4);
        });
    }

    #[test]
    fn who_comes_meanwhile_waits_for_the_same_answer() {
        let (answers, asked) = (Arc::new(Answers::default()), Arc::new(AtomicUsize::new(0)));
        run(async {
            for round in 1..=2 {
                let tasks: Vec<_> = (0..100)
                    .map(|_| {
                        let (answers, asked) = (answers.clone(), asked.clone());
                        tokio::spawn(async move {
                            let ask = async || {
                                let nth = asked.fetch_add(1, Ordering::SeqCst);
                                tokio::task::yield_now().await;
                                Believed::once(nth)
                            };
                            answers.get(key(1), 10, ask).await.value
                        })
                    })
                    .collect();
                for task in tasks {
                    assert_eq!(task.await.unwrap(), round - 1);
                }
                assert_eq!(asked.load(Ordering::SeqCst), round, "what is not kept is asked again");
            }
        });
        assert_eq!(answers.len(), 0);
        assert!(answers.inner().asking.is_empty());
    }

    #[test]
    fn a_question_that_is_given_up_is_taken_over() {
        let answers = Arc::new(Answers::default());
        run(async {
            let stuck = answers.clone();
            let first = tokio::spawn(async move {
                stuck.get(key(1), 10, async || std::future::pending().await).await
            });
            tokio::task::yield_now().await;
            let second = answers.get(key(1), 10, async || until(2, 100));
            let (value, ()) = tokio::join!(second, async {
                tokio::task::yield_now().await;
                first.abort();
            });
            assert_eq!(value.value, 2);
        });
    }

    #[test]
    fn a_flood_does_not_drive_out_what_is_in_use() {
        let answers = Answers::default();
        run(async {
            let mine = || answers.get(key(0), 10, async || until(7, 100));
            mine().await;
            for n in 1..3 * limits::ANSWERS {
                answers.get(key(n), 10, async || until(n, 100)).await;
                if n % 1_000 == 0 {
                    let kept = answers.get(key(0), 10, async || unreachable!("it is known"));
                    assert_eq!(kept.await.value, 7);
                }
            }
        });
        assert!(answers.len() <= 2 * limits::ANSWERS);
        let heavy = Answers::default();
        run(async {
            let bytes = limits::ANSWERS_BYTES / 4;
            for n in 0..100 {
                heavy.get(key(n), 10, async || Believed { value: 0, until_ms: 100, bytes }).await;
            }
        });
        assert!(heavy.len() <= 10);
    }
}
