//! What chance and targets do.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Dice(pub u64);

impl Dice {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.word() % n
    }

    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

/// What a target does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    Good,
    Slow,
    RefusesConnections,
    /// Before it has read the request.
    ResetsEarly,
    /// Once it has acted on it.
    ResetsLate,
    RefusesStreams,
    Garbage,
    Hangs,
    Status(u16),
    /// Announces more than it sends.
    Lies,
    /// Closes connections that have served before instead of answering.
    Forgets,
}

pub const TEMPERS: [Temper; 13] = [
    Temper::Good,
    Temper::Slow,
    Temper::RefusesConnections,
    Temper::ResetsEarly,
    Temper::ResetsLate,
    Temper::RefusesStreams,
    Temper::Garbage,
    Temper::Hangs,
    Temper::Status(503),
    Temper::Status(504),
    Temper::Status(500),
    Temper::Lies,
    Temper::Forgets,
];

/// A target: its tempers in turn, each for as long.
pub struct Target {
    pub tempers: Vec<Temper>,
    pub period_us: u64,
}

impl Target {
    pub fn temper(&self, now_us: u64) -> Temper {
        let turn = now_us / self.period_us % self.tempers.len() as u64;
        self.tempers[turn as usize]
    }
}
