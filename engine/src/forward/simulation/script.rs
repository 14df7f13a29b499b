//! What chance and targets do, and how a gateway is set up for them.

use contract::snapshot::{
    self, Balance, Bounds, Breaker, Hedge, Mirror, Outlier, Protocol, Retry, RetryBudget,
    RetryMethods, Timeouts,
};

use crate::forward::course::Outcome;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Temper {
    Good,
    Slow,
    RefusesConnections,
    /// Before it has read the request.
    ResetsEarly,
    /// Once it has acted on it.
    ResetsLate,
    /// Over HTTP/1, where there are none, the pool is full.
    RefusesStreams,
    Garbage,
    Hangs,
    Status(u16),
    /// Announces more than it sends.
    Lies,
    /// Answers, and takes no more requests on the connection.
    Leaves,
    /// Ends once it has acted on the request, and its connection with it.
    Dies,
}

pub const TEMPERS: [Temper; 14] = [
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
    Temper::Leaves,
    Temper::Dies,
];

impl Temper {
    /// Whether it has acted on a request by the time that anyone can tell.
    pub fn executes(self) -> bool {
        !matches!(self, Temper::RefusesConnections | Temper::ResetsEarly | Temper::RefusesStreams)
    }

    /// How long it takes, in microseconds; `None`: it never comes to an end.
    pub fn took_us(self, dice: &mut Dice) -> Option<u64> {
        let quick_us = 500 + dice.below(5_000);
        match self {
            Temper::RefusesConnections => Some(200),
            Temper::RefusesStreams => Some(300),
            Temper::Slow => Some(quick_us * 100),
            Temper::Hangs => None,
            _ => Some(quick_us),
        }
    }

    /// How a try over HTTP/1 ends.
    pub fn outcome(self, dice: &mut Dice) -> Outcome {
        match self {
            Temper::RefusesConnections => Outcome::NoConnection,
            Temper::ResetsEarly | Temper::ResetsLate | Temper::Dies => {
                Outcome::Reset { reused: false }
            }
            Temper::RefusesStreams => Outcome::Exhausted,
            Temper::Garbage => Outcome::Invalid,
            Temper::Status(status) => answered(status, dice),
            Temper::Good | Temper::Slow | Temper::Hangs | Temper::Lies | Temper::Leaves => {
                answered(200, dice)
            }
        }
    }
}

/// An answer, which may say when to come again.
pub fn answered(status: u16, dice: &mut Dice) -> Outcome {
    let says = status >= 500 && dice.percent(30);
    Outcome::Answered { status, retry_after_ms: says.then(|| dice.one(&[0, 50, 120_000])) }
}

/// A target: its tempers in turn, each for as long.
pub struct Target {
    tempers: Vec<Temper>,
    period_us: u64,
}

impl Target {
    pub fn new(dice: &mut Dice) -> Target {
        let good = dice.percent(50);
        let turns = 1 + dice.below(4);
        let tempers = (0..turns).map(|_| if good { Temper::Good } else { dice.one(&TEMPERS) });
        Target { tempers: tempers.collect(), period_us: 100_000 + dice.below(900_000) }
    }

    /// Slow at times, and nothing worse.
    pub fn lazy(dice: &mut Dice) -> Target {
        let tempers = vec![Temper::Good, Temper::Good, Temper::Slow];
        Target { tempers, period_us: 20_000 + dice.below(100_000) }
    }

    pub fn temper(&self, now_us: u64) -> Temper {
        let turn = now_us / self.period_us % self.tempers.len() as u64;
        self.tempers[turn as usize]
    }
}

/// The upstream that requests are for.
pub fn upstream(dice: &mut Dice, targets: u64) -> snapshot::Upstream {
    let breaker = |dice: &mut Dice| {
        dice.percent(40).then(|| Breaker {
            consecutive: dice.one(&[0, 5]),
            open_ms: 200,
            window_ms: 2_000,
            ..Breaker::default()
        })
    };
    snapshot::Upstream {
        name: "u".into(),
        balance: dice.one(&[
            Balance::RoundRobin,
            Balance::Weighted,
            Balance::LeastConnections,
            Balance::PowerOfTwo,
            Balance::Hash { key: snapshot::HashKey::ClientIp, load_percent: 125 },
        ]),
        protocol: if dice.percent(35) { Protocol::Http2 } else { Protocol::Http1 },
        targets: (0..targets).map(target).collect(),
        timeouts: Timeouts {
            first_byte_ms: 1_000,
            try_ms: dice.one(&[u32::MAX, 100, 400]),
            total_ms: dice.one(&[500, 3_000]),
            ..Timeouts::default()
        },
        retry: Retry {
            attempts: dice.one(&[1, 2, 3, 5]),
            methods: if dice.percent(80) { RetryMethods::Idempotent } else { RetryMethods::Any },
            body_bytes: 1_000,
            ..Retry::default()
        },
        retry_budget: RetryBudget { percent: dice.one(&[0, 20, 100]), min: dice.one(&[0, 3]) },
        hedge: dice.percent(40).then(|| Hedge {
            quantile_permille: dice.one(&[500, 900, 950]),
            min_ms: dice.one(&[1, 5, 20]),
        }),
        breaker: breaker(dice),
        target_breaker: breaker(dice),
        bounds: Bounds { max_requests: dice.one(&[0, 0, 5]), max_pending: 0 },
        target_bounds: Bounds { max_requests: dice.one(&[0, 0, 5]), max_pending: 0 },
        min_live_percent: dice.one(&[0, 0, 40]),
        outlier: dice.percent(80).then(|| Outlier {
            interval_ms: 500,
            base_ejection_ms: 300,
            max_ejection_ms: 1_500,
            min_requests: 5,
            slow_start_ms: dice.one(&[0, 500]),
            ..Outlier::default()
        }),
        concurrency: dice.percent(20).then(snapshot::AdaptiveConcurrency::default),
        ..Default::default()
    }
}

/// The upstream that gets copies, and of how many requests.
pub fn shadow(dice: &mut Dice) -> (snapshot::Upstream, Mirror) {
    let upstream = snapshot::Upstream {
        name: "m".into(),
        targets: (0..2).map(target).collect(),
        timeouts: Timeouts { total_ms: dice.one(&[300, 20_000]), ..Timeouts::default() },
        bounds: Bounds { max_requests: dice.one(&[0, 0, 10]), max_pending: 0 },
        outlier: Some(Outlier::default()),
        breaker: dice.percent(30).then(Breaker::default),
        ..Default::default()
    };
    (upstream, Mirror { upstream: 1, per_ten_thousand: dice.one(&[500, 5_000, 10_000]) })
}

fn target(at: u64) -> snapshot::Target {
    snapshot::Target {
        address: format!("192.0.2.{}:80", at + 1).parse().unwrap(),
        weight: 1 + (at % 3) as u32,
        name: format!("t{at}:80"),
        ..Default::default()
    }
}
