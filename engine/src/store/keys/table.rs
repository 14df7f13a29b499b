//! What a node knows of API keys in Redis. Bounded, and pure: the time is an argument.
//!
//! Two kinds of knowledge: *tracked*, learned while Redis tells of changes, which holds until it says
//! otherwise (or for `cache_ms`, whichever is sooner); and the rest, which is believed for a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::snapshot::RedisKeys;
use foldhash::quality::RandomState;
use tokio::sync::OnceCell;

use super::record::Record;
use crate::limits;

/// SHA-256 of a key.
pub type Digest = [u8; 32];

/// What is known of a key.
#[derive(Clone, Debug)]
pub enum Answer {
    Known(Standing),
    /// There is no such key.
    Unknown,
    /// There is a record that does not say who calls.
    Malformed,
    /// Nobody can say.
    Unavailable,
}

/// A key that is good, and for how long that may be believed.
#[derive(Clone, Debug)]
pub struct Standing {
    pub record: Arc<Record>,
    /// Believed without a question for this long from now on, in milliseconds.
    pub fresh_ms: u64,
    /// Redis forgets the record by itself after this long; `u64::MAX`: never.
    pub ends_ms: u64,
    /// Turned on when this no longer holds.
    pub revoked: Arc<AtomicBool>,
    /// Redis cannot be asked; this is what it said before.
    pub on_grace: bool,
}

/// For how long what is known is believed, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub cache_ms: u64,
    pub negative_ms: u64,
    pub grace_ms: u64,
}

impl Terms {
    pub fn of(keys: &RedisKeys) -> Terms {
        Terms {
            cache_ms: keys.cache_ms.into(),
            negative_ms: keys.negative_ms.into(),
            grace_ms: keys.grace_ms.into(),
        }
    }
}

/// What shards hold on to. Whoever forgets it tells them by that.
#[derive(Debug, Default)]
struct Hold(Arc<AtomicBool>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Known {
    record: Arc<Record>,
    hold: Hold,
    /// The session that would have told of a change; 0: none.
    session: u64,
    /// When Redis said so last. While a session lives, it says so all the time.
    confirmed_ms: u64,
    ends_ms: u64,
    /// When its use was noted last.
    noted_ms: Option<u64>,
}

impl Known {
    fn fresh_until(&self, terms: &Terms, now_ms: u64) -> u64 {
        let most_ms = match self.session {
            0 => terms.cache_ms.min(limits::KEY_UNTRACKED_MS),
            _ => terms.cache_ms,
        };
        (self.confirmed_ms + most_ms).min(now_ms + limits::KEY_ASK_MS).min(self.ends_ms)
    }

    fn answer(&self, until_ms: u64, now_ms: u64, on_grace: bool) -> Answer {
        let ends_ms = match self.ends_ms {
            u64::MAX => u64::MAX,
            ends_ms => ends_ms.saturating_sub(now_ms),
        };
        Answer::Known(Standing {
            record: self.record.clone(),
            fresh_ms: until_ms.saturating_sub(now_ms),
            ends_ms,
            revoked: self.hold.0.clone(),
            on_grace,
        })
    }
}

#[derive(Debug)]
struct Absent {
    until_ms: u64,
    /// There is something, but no record.
    malformed: bool,
}

/// A question that is under way.
#[derive(Debug, Default)]
struct Asking {
    answer: Arc<OnceCell<Answer>>,
    /// Redis told of a change meanwhile: the answer may be from before.
    changed: bool,
}

/// Two generations, as in `auth::memory`: what is asked for stays.
#[derive(Debug)]
struct Generations<V> {
    young: HashMap<Digest, V, RandomState>,
    old: HashMap<Digest, V, RandomState>,
    /// In each.
    most: usize,
}

impl<V> Generations<V> {
    fn new(most: usize) -> Generations<V> {
        Generations { young: HashMap::default(), old: HashMap::default(), most }
    }

    fn get_mut(&mut self, digest: &Digest) -> Option<&mut V> {
        if self.young.len() >= self.most {
            // To move it would be to forget the old ones, which takes longer than a look-up may.
            return self.young.get_mut(digest).or_else(|| self.old.get_mut(digest));
        }
        if let Some(value) = self.old.remove(digest) {
            self.young.insert(*digest, value);
        }
        self.young.get_mut(digest)
    }

    fn insert(&mut self, digest: Digest, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, value);
    }

    fn remove(&mut self, digest: &Digest) {
        self.young.remove(digest);
        self.old.remove(digest);
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// What a node knows.
#[derive(Debug)]
pub struct Table {
    terms: Terms,
    known: Generations<Known>,
    /// Apart, so that wrong keys cannot drive out good ones.
    absent: Generations<Absent>,
    asking: HashMap<Digest, Asking>,
    /// When keys were used of which that is not written yet.
    used: HashMap<Digest, u64>,
}

impl Table {
    pub fn new(terms: Terms) -> Table {
        Table {
            terms,
            known: Generations::new(limits::KEYS_KNOWN),
            absent: Generations::new(limits::KEYS_ABSENT),
            asking: HashMap::new(),
            used: HashMap::new(),
        }
    }

    /// What is known of a key, if that may be believed without a question. A use of the key.
    pub fn recall(&mut self, digest: &Digest, now_ms: u64) -> Option<Answer> {
        if let Some(known) = self.known.get_mut(digest) {
            let until_ms = known.fresh_until(&self.terms, now_ms);
            if now_ms < until_ms {
                let answer = known.answer(until_ms, now_ms, false);
                note(&mut self.used, known, digest, now_ms);
                return Some(answer);
            }
            return None;
        }
        let absent = self.absent.get_mut(digest)?;
        if now_ms < absent.until_ms {
            return Some(if absent.malformed { Answer::Malformed } else { Answer::Unknown });
        }
        self.absent.remove(digest);
        None
    }

    /// Where the answer for a key will be, for all who ask for it meanwhile.
    pub fn ask(&mut self, digest: &Digest) -> Arc<OnceCell<Answer>> {
        self.asking.entry(*digest).or_default().answer.clone()
    }

    /// Whether Redis told of a change of the key since it was last asked for this.
    pub fn take_changed(&mut self, digest: &Digest) -> bool {
        self.asking.get_mut(digest).is_some_and(|asking| std::mem::take(&mut asking.changed))
    }

    /// The question is answered.
    pub fn asked(&mut self, digest: &Digest) {
        self.asking.remove(digest);
    }

    /// Redis has this record, which it forgets at `ends_ms`. `session` would tell of changes; 0: nobody.
    pub fn learn(
        &mut self,
        digest: &Digest,
        record: Record,
        session: u64,
        ends_ms: u64,
        now_ms: u64,
    ) -> Answer {
        self.absent.remove(digest);
        let before = self.known.get_mut(digest);
        let noted_ms = before.as_ref().and_then(|known| known.noted_ms);
        let mut fresh = Known {
            record: Arc::new(record),
            hold: Hold::default(),
            session,
            confirmed_ms: now_ms,
            ends_ms,
            noted_ms,
        };
        match before {
            Some(known) => {
                // The same as before: shards may go on with what they have.
                if known.record == fresh.record {
                    std::mem::swap(&mut known.hold, &mut fresh.hold);
                }
                *known = fresh;
            }
            None => self.known.insert(*digest, fresh),
        }
        match self.recall(digest, now_ms) {
            Some(answer) => answer,
            // `cache_ms: 0`, or about to be forgotten: good for this once.
            None => self.last_word(digest, now_ms),
        }
    }

    fn last_word(&mut self, digest: &Digest, now_ms: u64) -> Answer {
        match self.known.get_mut(digest) {
            Some(known) if now_ms < known.ends_ms => {
                note(&mut self.used, known, digest, now_ms);
                known.answer(now_ms, now_ms, false)
            }
            _ => Answer::Unknown,
        }
    }

    /// Redis has no record, or one that is none.
    pub fn learn_absent(
        &mut self,
        digest: &Digest,
        malformed: bool,
        tracked: bool,
        now_ms: u64,
    ) -> Answer {
        self.known.remove(digest);
        let most_ms = match tracked {
            true => self.terms.negative_ms,
            false => self.terms.negative_ms.min(limits::KEY_UNTRACKED_MS),
        };
        self.absent.insert(*digest, Absent { until_ms: now_ms + most_ms, malformed });
        if malformed { Answer::Malformed } else { Answer::Unknown }
    }

    /// Redis cannot be asked: known keys go on for a while.
    pub fn grace(&mut self, digest: &Digest, now_ms: u64) -> Answer {
        let Some(known) = self.known.get_mut(digest) else { return Answer::Unavailable };
        if known.session != 0 {
            known.confirmed_ms = now_ms;
        }
        let until_ms = (known.confirmed_ms + self.terms.grace_ms).min(known.ends_ms);
        if now_ms >= until_ms {
            return Answer::Unavailable;
        }
        note(&mut self.used, known, digest, now_ms);
        known.answer(until_ms.min(now_ms + limits::KEY_UNTRACKED_MS), now_ms, true)
    }

    /// Redis says that a record came, changed or went.
    pub fn changed(&mut self, digest: &Digest) {
        if let Some(asking) = self.asking.get_mut(digest) {
            asking.changed = true;
        }
        self.known.remove(digest);
        self.absent.remove(digest);
    }

    /// The server of `session` says that all its records went.
    pub fn flushed(&mut self, session: u64) {
        self.asking.values_mut().for_each(|asking| asking.changed = true);
        self.known.retain(|known| known.session != session);
        self.absent.clear();
    }

    /// `session` is over: nobody tells any more. The last that was heard was at `heard_ms`.
    pub fn lost(&mut self, session: u64, heard_ms: u64) {
        if session == 0 {
            return;
        }
        self.known.retain(|known| {
            if known.session == session {
                known.session = 0;
                known.confirmed_ms = known.confirmed_ms.max(heard_ms);
                known.hold = Hold::default();
            }
            true
        });
        self.absent.clear();
    }

    /// A session begins: what was learned without one is to be asked for again.
    pub fn begun(&mut self) {
        self.known.retain(|known| {
            if known.session == 0 {
                known.hold = Hold::default();
            }
            true
        });
        self.absent.clear();
    }

    /// The keys whose use is not written yet, and when that was.
    pub fn take_used(&mut self) -> HashMap<Digest, u64> {
        std::mem::take(&mut self.used)
    }

    /// How many good keys, absent ones, and questions there are.
    #[cfg(test)]
    pub fn counts(&self) -> [usize; 3] {
        [
            self.known.young.len() + self.known.old.len(),
            self.absent.young.len() + self.absent.old.len(),
            self.asking.len(),
        ]
    }
}

/// Notes that a key was used, once a minute.
fn note(used: &mut HashMap<Digest, u64>, known: &mut Known, digest: &Digest, now_ms: u64) {
    let due = known.noted_ms.is_none_or(|noted_ms| now_ms >= noted_ms + limits::KEY_USED_MS);
    if due && used.len() < limits::KEYS_USED {
        known.noted_ms = Some(now_ms);
        used.insert(*digest, now_ms);
    }
}
