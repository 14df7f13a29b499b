//! A shard of the simulation: it holds tokens, spends them, and asks when it is dry.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::limit::messages::{Ask, Bucket, BucketId, Spent, State, Told};

pub struct Shard {
    pub bucket: Arc<Bucket>,
    id: BucketId,
    free: u64,
    /// Requests that are not answered yet: until when.
    under_way: Vec<u64>,
    spent: SmallVec<[Spent; 2]>,
    /// When the requests that wait came.
    waiting: VecDeque<u64>,
    asking: bool,
    known: bool,
    fair: u64,
    retry_at_ms: u64,
    state: State,
    /// Requests since when, for the rate.
    recent: (u64, u64),
    want: u64,
}

/// What became of requests.
#[derive(Default)]
pub struct Fate {
    pub admitted: u64,
    /// By nothing at all, as `open` says.
    pub unlimited: u64,
    pub refused: u64,
}

impl Shard {
    pub fn new(id: BucketId, bucket: Arc<Bucket>) -> Shard {
        Shard {
            bucket,
            id,
            free: 0,
            under_way: Vec::new(),
            spent: SmallVec::new(),
            waiting: VecDeque::new(),
            asking: false,
            known: false,
            fair: u64::MAX,
            retry_at_ms: 0,
            state: State::Exact,
            recent: (0, 0),
            want: 1,
        }
    }

    /// A request comes.
    pub fn request(&mut self, now_ms: u64, answer_ms: u64) -> Fate {
        self.recent.0 += 1;
        if now_ms >= self.recent.1 + 20 {
            (self.want, self.recent) = (self.recent.0.max(1), (0, now_ms));
        }
        if self.free > 0 {
            self.take(now_ms, answer_ms);
            return Fate { admitted: 1, ..Fate::default() };
        }
        if now_ms < self.retry_at_ms {
            return match self.state {
                State::Open => Fate { unlimited: 1, ..Fate::default() },
                _ => Fate { refused: 1, ..Fate::default() },
            };
        }
        self.waiting.push_back(now_ms);
        Fate::default()
    }

    fn take(&mut self, now_ms: u64, answer_ms: u64) {
        self.free -= 1;
        self.under_way.push(now_ms + answer_ms);
    }

    pub fn tell(&mut self, told: &Told, now_ms: u64, answer_ms: u64) -> Fate {
        let mut fate = Fate::default();
        if told.answers {
            self.asking = false;
        }
        if told.unknown {
            self.known = false;
            return fate;
        }
        self.free += told.granted;
        self.fair = told.fair;
        self.retry_at_ms = told.retry_at_ms;
        self.state = told.state;
        while self.free > 0 && self.waiting.pop_front().is_some() {
            self.take(now_ms, answer_ms);
            fate.admitted += 1;
        }
        if told.answers && now_ms < self.retry_at_ms {
            let rest = std::mem::take(&mut self.waiting).len() as u64;
            match self.state {
                State::Open => fate.unlimited += rest,
                _ => fate.refused += rest,
            }
        }
        fate
    }

    /// Lets time pass; an ask, if there is reason for one.
    pub fn ask(&mut self, now_ms: u64, window_ms: u64) -> Option<Ask> {
        self.under_way.sort_unstable();
        let answered = self.under_way.partition_point(|until| *until <= now_ms);
        for at_ms in self.under_way.drain(..answered) {
            match self.spent.last_mut() {
                Some(last) if last.at_ms >= at_ms => last.tokens += 1,
                _ => self.spent.push(Spent { at_ms, tokens: 1 }),
            }
        }
        if self.asking {
            return None;
        }
        let old = |spent: &Spent| now_ms >= spent.at_ms + (window_ms / 16).max(1);
        let over = self.free + self.under_way.len() as u64 > self.fair && self.free > 0;
        let dry = !self.waiting.is_empty()
            || now_ms >= self.retry_at_ms && self.free < self.want / 2 && self.recent.0 > 0;
        if !(dry || over || self.spent.first().is_some_and(old)) {
            return None;
        }
        if over {
            self.free = self.free.min(self.fair.saturating_sub(self.under_way.len() as u64));
            self.fair = u64::MAX;
        }
        self.asking = true;
        let waiting = self.waiting.len() as u64;
        let bucket = (!self.known).then(|| self.bucket.clone());
        self.known = true;
        Some(Ask {
            id: self.id,
            bucket,
            hold: self.free + self.under_way.len() as u64,
            spent: std::mem::take(&mut self.spent),
            need: waiting.min(1),
            waiting,
            want: waiting + if over { 0 } else { self.want },
            debt: 0,
            last: false,
        })
    }
}
