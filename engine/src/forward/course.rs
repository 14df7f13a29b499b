//! The course of a request at an upstream: after each try, whether another one follows, when, and
//! why not. No I/O, no clock: the forwarding and its simulation drive the same code.

use contract::Counter;
use contract::record::RetryStop;
use contract::snapshot::{Retry, RetryMethods};

use crate::grpc;
use crate::http2::ErrorCode;
use crate::limits;
use crate::mux::StreamFault;
use crate::upstream::{RetryPermit, Verdict};

/// How a try ended, as far as another one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No connection, so nothing was sent.
    NoConnection,
    /// All of the gateway's own connections are taken: nothing was sent, and nothing is known of the
    /// target.
    Exhausted,
    /// The peer did not look at the request (RFC 9113 §8.7). `leaving`: as it takes no more requests
    /// on this connection.
    Refused { leaving: bool },
    /// The connection or stream ended before any byte of an answer. `reused`: the connection had
    /// served before and was silent since, so its peer may have closed it for being idle.
    Reset { reused: bool },
    /// What came is no valid head of an answer, or not all of one.
    Invalid,
    /// `Timeouts::try_ms` passed.
    TryTimeout,
    /// Another of the gateway's time-outs passed.
    Timeout,
    /// The client's own deadline passed. Says nothing of the target, or clients could have targets
    /// ejected at will.
    ClientDeadline,
    /// The head of an answer is here, and nothing of it was passed on.
    Answered { status: u16, retry_after_ms: Option<u64> },
    /// The same of a gRPC call, and it is nothing but its status.
    Ended { code: u8, verdict: Verdict, retry_after_ms: Option<u64> },
    /// The client went away, its body cannot be forwarded, or the upstream does not suit it.
    Ours,
}

impl Outcome {
    /// Whether the upstream does not take who asks: 401, or UNAUTHENTICATED of a call.
    pub fn is_unauthorized(self) -> bool {
        matches!(
            self,
            Outcome::Answered { status: 401, .. }
                | Outcome::Ended { code: grpc::UNAUTHENTICATED, .. }
        )
    }

    /// How a stream ended before the head of an answer. `leaving`: its connection takes no more of
    /// them. `stale`: the connection had served before, and nothing was heard on it since the stream
    /// began.
    pub fn of_fault(fault: StreamFault, leaving: bool, stale: bool) -> Outcome {
        match fault {
            StreamFault::Reset { code: ErrorCode::REFUSED_STREAM, by_peer: true } => {
                Outcome::Refused { leaving }
            }
            // The peer's answer breaks the protocol: our state machine reset the stream.
            StreamFault::Reset { by_peer: false, .. } => Outcome::Invalid,
            // A stream that its peer resets has reached it: no connection went stale.
            StreamFault::Reset { .. } => Outcome::Reset { reused: false },
            StreamFault::Lost => Outcome::Reset { reused: stale },
        }
    }

    /// The connection may have been closed before the request came there.
    pub fn is_stale(self) -> bool {
        matches!(self, Outcome::Reset { reused: true })
    }

    /// What it says of the target where no other try will tell more: a connection that may have gone
    /// stale says nothing.
    pub fn lone_verdict(self) -> Verdict {
        if self.is_stale() { Verdict::Stale } else { self.verdict() }
    }

    /// What it says of the target.
    pub fn verdict(self) -> Verdict {
        match self {
            Outcome::NoConnection
            | Outcome::Refused { leaving: false }
            | Outcome::Reset { .. }
            | Outcome::Invalid
            | Outcome::TryTimeout
            | Outcome::Timeout => Verdict::Gateway,
            Outcome::Answered { status, .. } => match status {
                502..=504 => Verdict::Gateway,
                500.. => Verdict::ServerError,
                _ => Verdict::Good,
            },
            Outcome::Ended { verdict, .. } => verdict,
            Outcome::Exhausted
            | Outcome::Refused { leaving: true }
            | Outcome::ClientDeadline
            | Outcome::Ours => Verdict::Nothing,
        }
    }

    /// What counts the try that follows it; `fresh`: as its connection had gone stale.
    pub fn counter(self, fresh: bool) -> Counter {
        match self {
            Outcome::NoConnection => Counter::RetryConnect,
            Outcome::Exhausted => Counter::RetryExhausted,
            Outcome::Refused { .. } => Counter::RetryRefused,
            Outcome::Reset { .. } if fresh => Counter::RetryStale,
            Outcome::Reset { .. } => Counter::RetryReset,
            Outcome::TryTimeout | Outcome::Timeout | Outcome::ClientDeadline => {
                Counter::RetryTimeout
            }
            Outcome::Invalid | Outcome::Ours => Counter::RetryInvalid,
            Outcome::Answered { .. } => Counter::RetryStatus,
            Outcome::Ended { .. } => Counter::RetryGrpcStatus,
        }
    }

    /// Whether it is a failed try. An answer is one where its status is listed.
    pub fn is_failure(self, retry: &Retry) -> bool {
        match self {
            Outcome::Answered { status, .. } => retry.statuses.contains(&status),
            Outcome::Ended { code, .. } => retry.grpc_statuses.contains(&code),
            _ => true,
        }
    }
}

/// What is known of the request when a try has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its method may reach an upstream more than once ([`may_repeat`]).
    pub repeatable: bool,
    /// All that was sent of its body can be sent again.
    pub at_hand: bool,
    /// Targets of the upstream.
    pub targets: usize,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Any word.
    pub random: u64,
}

/// What follows a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: what came is relayed, or the failure is answered.
    Stop,
    Again {
        pause_ms: u64,
        /// Over a connection that has carried nothing yet.
        fresh: bool,
    },
}

impl Next {
    /// What a try with that outcome says of its target.
    pub fn verdict(self, outcome: Outcome) -> Verdict {
        match self {
            Next::Again { fresh: true, .. } => Verdict::Stale,
            _ => outcome.verdict(),
        }
    }
}

/// A request's tries at one upstream.
pub struct Course<'a, P = RetryPermit> {
    retry: &'a Retry,
    /// Nothing begins after this; monotonic milliseconds, 0: no bound.
    bound_ms: u64,
    /// Tries that count; the retry of a stale connection does not.
    tries: u8,
    tried: [usize; limits::TRIES],
    failed: usize,
    stale: bool,
    permit: Option<P>,
    stop: RetryStop,
}

impl<'a, P> Course<'a, P> {
    pub fn new(retry: &'a Retry, bound_ms: u64) -> Course<'a, P> {
        Course {
            retry,
            bound_ms,
            tries: 1,
            tried: [0; limits::TRIES],
            failed: 0,
            stale: false,
            permit: None,
            stop: RetryStop::None,
        }
    }

    /// Targets that the request has failed at, the latest last.
    pub fn tried(&self) -> &[usize] {
        self.tried.get(..self.failed).unwrap_or_default()
    }

    /// The request has failed, or is under way, at this target.
    pub fn note(&mut self, target: usize) {
        if let Some(place) = self.tried.get_mut(self.failed) {
            *place = target;
            self.failed += 1;
        }
    }

    /// Why no other try was made that the kind of the failure would have allowed.
    pub fn stop(&self) -> RetryStop {
        self.stop
    }

    /// Whether another try may follow at all: whether a body is worth keeping. `refusals`: the peer
    /// can say that it has not looked at a request.
    pub fn may_go_on(&self, repeatable: bool, refusals: bool) -> bool {
        let on = self.retry.on;
        let more = self.tries < self.attempts();
        // A stale connection is worth a try more, however few there may be.
        (repeatable && (more || !self.stale)) || (refusals && on.refused && more)
    }

    fn attempts(&self) -> u8 {
        self.retry.attempts.clamp(1, limits::TRIES as u8)
    }

    /// Decides after a try at `target`. `permit` asks the upstream's retry budget.
    pub fn next(
        &mut self,
        outcome: Outcome,
        target: usize,
        facts: &Facts,
        permit: impl FnOnce() -> Option<P>,
    ) -> Next {
        let once = outcome.is_stale() && !self.stale;
        if once && facts.repeatable && facts.at_hand && self.is_time(facts.now_ms) {
            // The target has not failed: it is as good as any.
            self.stale = true;
            return Next::Again { pause_ms: 0, fresh: true };
        }
        let Some(any_method) = self.class(outcome) else { return Next::Stop };
        self.note(target);
        match self.again(outcome, any_method, facts) {
            Ok(pause_ms) => {
                // The try that has ended gives its permit back first.
                self.permit = None;
                self.permit = permit();
                if self.permit.is_none() {
                    self.stop = RetryStop::Budget;
                    return Next::Stop;
                }
                self.tries += 1;
                Next::Again { pause_ms, fresh: false }
            }
            Err(stop) => {
                self.stop = stop;
                Next::Stop
            }
        }
    }

    /// Whether such an outcome may be tried again (`Some`), and whatever the method (`Some(true)`).
    fn class(&self, outcome: Outcome) -> Option<bool> {
        let Retry { on, statuses, .. } = self.retry;
        let (on, any_method) = match outcome {
            Outcome::NoConnection | Outcome::Exhausted => (on.connect, true),
            Outcome::Refused { .. } => (on.refused, true),
            Outcome::Reset { .. } => (on.reset, false),
            Outcome::TryTimeout => (on.timeout, false),
            Outcome::Answered { .. } | Outcome::Ended { .. } => {
                (outcome.is_failure(self.retry), false)
            }
            // The client would get a 502.
            Outcome::Invalid => (statuses.contains(&502), false),
            Outcome::Timeout | Outcome::ClientDeadline | Outcome::Ours => (false, false),
        };
        on.then_some(any_method)
    }

    fn again(&self, outcome: Outcome, any_method: bool, facts: &Facts) -> Result<u64, RetryStop> {
        if self.tries >= self.attempts() {
            return Err(match self.retry.attempts {
                ..=1 => RetryStop::None,
                _ => RetryStop::Attempts,
            });
        }
        if !any_method && !facts.repeatable {
            return Err(RetryStop::Method);
        }
        if !facts.at_hand {
            return Err(RetryStop::Body);
        }
        let pause_ms = match outcome {
            Outcome::Answered { retry_after_ms: Some(ms), .. }
            | Outcome::Ended { retry_after_ms: Some(ms), .. }
                if self.retry.retry_after_max_ms > 0 =>
            {
                if ms > u64::from(self.retry.retry_after_max_ms) {
                    return Err(RetryStop::RetryAfter);
                }
                ms
            }
            // Another target has done nothing to be spared; and while a request pauses, it holds a
            // permit that others need.
            _ if self.tries == 1 && self.failed < facts.targets => 0,
            _ => self.back_off(facts.random),
        };
        match self.is_time(facts.now_ms.saturating_add(pause_ms)) {
            true => Ok(pause_ms),
            false => Err(RetryStop::Deadline),
        }
    }

    /// "Full jitter" (Brooker, AWS Architecture Blog, 2015): any pause up to a bound that doubles.
    fn back_off(&self, random: u64) -> u64 {
        let base = u64::from(self.retry.backoff_base_ms);
        let doubled = base << u32::from(self.tries - 1).min(16);
        let most = doubled.min(u64::from(self.retry.backoff_max_ms));
        // Multiplied rather than divided: even to within 2^-64 of each value.
        ((u128::from(random) * u128::from(most + 1)) >> 64) as u64
    }

    fn is_time(&self, at_ms: u64) -> bool {
        self.bound_ms == 0 || at_ms < self.bound_ms
    }
}

/// Whether a request with this method may be sent again though an upstream may have acted on it.
pub fn may_repeat(methods: &RetryMethods, method: &[u8]) -> bool {
    match methods {
        RetryMethods::Idempotent => is_idempotent(method),
        RetryMethods::Any => true,
        RetryMethods::Listed(listed) => listed.iter().any(|one| one.as_bytes() == method),
    }
}

/// RFC 9110 §9.2.2.
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::snapshot::RetryOn;
    use proptest::prelude::*;

    const FACTS: Facts =
        Facts { repeatable: true, at_hand: true, targets: 3, now_ms: 1_000, random: u64::MAX };

    fn unavailable(retry_after_ms: Option<u64>) -> Outcome {
        Outcome::Answered { status: 503, retry_after_ms }
    }

    fn ended(code: u8, retry_after_ms: Option<u64>) -> Outcome {
        Outcome::Ended { code, verdict: Verdict::Gateway, retry_after_ms }
    }

    fn course(retry: &Retry) -> Course<'_, ()> {
        Course::new(retry, 0)
    }

    #[test]
    fn each_class_is_tried_again_where_it_is_listed() {
        let all = Retry::default();
        let none = RetryOn { connect: false, refused: false, reset: false, timeout: false };
        let none = Retry { on: none, statuses: vec![], grpc_statuses: vec![], ..Retry::default() };
        for outcome in [
            Outcome::NoConnection,
            Outcome::Exhausted,
            Outcome::Refused { leaving: false },
            Outcome::Refused { leaving: true },
            Outcome::Reset { reused: false },
            Outcome::Invalid,
            Outcome::TryTimeout,
            unavailable(None),
            ended(14, None),
        ] {
            let again = course(&all).next(outcome, 0, &FACTS, || Some(()));
            assert!(matches!(again, Next::Again { fresh: false, .. }), "{outcome:?}");
            assert_eq!(course(&none).next(outcome, 0, &FACTS, || Some(())), Next::Stop);
        }
        for outcome in [
            Outcome::Timeout,
            Outcome::ClientDeadline,
            Outcome::Ours,
            Outcome::Answered { status: 200, retry_after_ms: None },
            Outcome::Answered { status: 500, retry_after_ms: None },
            ended(13, None),
        ] {
            let mut course = course(&all);
            assert_eq!(course.next(outcome, 0, &FACTS, || Some(())), Next::Stop, "{outcome:?}");
            assert_eq!(course.stop(), RetryStop::None);
        }
    }

    #[test]
    fn what_may_have_been_seen_is_not_sent_again_unless_it_may_be() {
        let retry = Retry::default();
        let facts = Facts { repeatable: false, ..FACTS };
        for (outcome, harmless) in [
            (Outcome::NoConnection, true),
            (Outcome::Refused { leaving: false }, true),
            (Outcome::Reset { reused: false }, false),
            (Outcome::Reset { reused: true }, false),
            (Outcome::Invalid, false),
            (Outcome::TryTimeout, false),
            (unavailable(None), false),
            (ended(14, None), false),
        ] {
            let mut course = course(&retry);
            let next = course.next(outcome, 0, &facts, || Some(()));
            assert_eq!(next != Next::Stop, harmless, "{outcome:?}");
            assert_eq!(course.stop() == RetryStop::Method, !harmless, "{outcome:?}");
        }
    }

    #[test]
    fn the_reason_why_not_is_told() {
        let retry = Retry::default();
        let stop = |facts: &Facts, outcome, bound_ms, budget: bool| {
            let mut course: Course<'_, ()> = Course::new(&retry, bound_ms);
            assert_eq!(course.next(outcome, 0, facts, || budget.then_some(())), Next::Stop);
            course.stop()
        };
        let large = Facts { at_hand: false, ..FACTS };
        assert_eq!(stop(&large, Outcome::NoConnection, 0, true), RetryStop::Body);
        assert_eq!(stop(&FACTS, unavailable(None), 0, false), RetryStop::Budget);
        assert_eq!(stop(&FACTS, unavailable(None), 1_000, true), RetryStop::Deadline);
        assert_eq!(stop(&FACTS, unavailable(Some(1_001)), 0, true), RetryStop::RetryAfter);
        assert_eq!(stop(&FACTS, ended(14, Some(u64::MAX)), 0, true), RetryStop::RetryAfter);
        let mut course = course(&retry);
        for _ in 0..2 {
            assert_ne!(course.next(unavailable(None), 0, &FACTS, || Some(())), Next::Stop);
        }
        assert_eq!(course.next(unavailable(None), 0, &FACTS, || Some(())), Next::Stop);
        assert_eq!(course.stop(), RetryStop::Attempts);
        let off = Retry { attempts: 1, ..Retry::default() };
        let mut course = Course::<()>::new(&off, 0);
        assert_eq!(course.next(unavailable(None), 0, &FACTS, || Some(())), Next::Stop);
        assert_eq!(course.stop(), RetryStop::None, "nothing was asked for");
    }

    #[test]
    fn a_stale_connection_costs_no_try_and_no_permit_once() {
        let off = Retry { attempts: 1, ..Retry::default() };
        let mut course = Course::<()>::new(&off, 0);
        let stale = Outcome::Reset { reused: true };
        assert!(course.may_go_on(true, false));
        let next = course.next(stale, 0, &FACTS, || unreachable!());
        assert_eq!(next, Next::Again { pause_ms: 0, fresh: true });
        assert_eq!(next.verdict(stale), Verdict::Stale);
        assert!(course.tried().is_empty());
        assert!(!course.may_go_on(true, true));
        let next = course.next(stale, 0, &FACTS, || Some(()));
        assert_eq!(next, Next::Stop);
        assert_eq!(next.verdict(stale), Verdict::Gateway);
    }

    #[test]
    fn a_stream_ends_as_its_peer_says() {
        let reset = |code, by_peer| StreamFault::Reset { code, by_peer };
        let refused = reset(ErrorCode::REFUSED_STREAM, true);
        for leaving in [false, true] {
            let outcome = Outcome::of_fault(refused, leaving, true);
            assert_eq!(outcome, Outcome::Refused { leaving });
        }
        let theirs = reset(ErrorCode::INTERNAL_ERROR, true);
        let outcome = Outcome::of_fault(theirs, false, true);
        assert_eq!(outcome, Outcome::Reset { reused: false }, "it has reached the peer");
        let ours = reset(ErrorCode::PROTOCOL_ERROR, false);
        assert_eq!(Outcome::of_fault(ours, false, true), Outcome::Invalid);
        for stale in [false, true] {
            let outcome = Outcome::of_fault(StreamFault::Lost, true, stale);
            assert_eq!(outcome, Outcome::Reset { reused: stale });
        }
    }

    #[test]
    fn without_another_try_what_says_nothing_still_does() {
        assert_eq!(Outcome::Reset { reused: true }.lone_verdict(), Verdict::Stale);
        for outcome in
            [Outcome::Exhausted, Outcome::Refused { leaving: true }, Outcome::ClientDeadline]
        {
            assert_eq!(outcome.lone_verdict(), Verdict::Nothing, "{outcome:?}");
        }
        for outcome in [Outcome::Reset { reused: false }, Outcome::Timeout, unavailable(None)] {
            assert_eq!(outcome.lone_verdict(), Verdict::Gateway, "{outcome:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_a_first_one_elsewhere_has_none() {
        let retry = Retry { attempts: 10, ..Retry::default() };
        let mut course = course(&retry);
        let mut pause = |outcome| match course.next(outcome, 0, &FACTS, || Some(())) {
            Next::Again { pause_ms, .. } => pause_ms,
            Next::Stop => unreachable!(),
        };
        assert_eq!(pause(Outcome::TryTimeout), 0);
        let pauses: Vec<u64> = (0..5).map(|_| pause(Outcome::NoConnection)).collect();
        assert_eq!(pauses, [50, 100, 200, 250, 250]);
        assert_eq!(pause(unavailable(Some(700))), 700, "as the upstream asks");
        assert_eq!(pause(unavailable(Some(0))), 0);
        let mut alone = Course::<()>::new(&retry, 0);
        let facts = Facts { targets: 1, ..FACTS };
        let next = alone.next(Outcome::NoConnection, 0, &facts, || Some(()));
        assert_eq!(next, Next::Again { pause_ms: 25, fresh: false }, "nowhere else to go");
    }

    #[test]
    fn a_permit_is_given_back_before_the_next_is_asked_for() {
        let retry = Retry { attempts: 5, ..Retry::default() };
        let one = std::rc::Rc::new(());
        let mut course: Course<'_, std::rc::Rc<()>> = Course::new(&retry, 0);
        for _ in 0..4 {
            let permit = || {
                assert_eq!(std::rc::Rc::strong_count(&one), 1);
                Some(one.clone())
            };
            assert_ne!(course.next(unavailable(None), 0, &FACTS, permit), Next::Stop);
        }
        assert_eq!(std::rc::Rc::strong_count(&one), 2);
        drop(course);
        assert_eq!(std::rc::Rc::strong_count(&one), 1);
    }

    #[test]
    fn a_client_without_patience_has_no_target_ejected() {
        for (outcome, verdict) in [
            (Outcome::ClientDeadline, Verdict::Nothing),
            (Outcome::Ours, Verdict::Nothing),
            (Outcome::Exhausted, Verdict::Nothing),
            (Outcome::Timeout, Verdict::Gateway),
            (Outcome::NoConnection, Verdict::Gateway),
            (Outcome::Answered { status: 500, retry_after_ms: None }, Verdict::ServerError),
            (Outcome::Answered { status: 504, retry_after_ms: None }, Verdict::Gateway),
            (Outcome::Answered { status: 404, retry_after_ms: None }, Verdict::Good),
        ] {
            assert_eq!(Next::Stop.verdict(outcome), verdict, "{outcome:?}");
        }
    }

    #[test]
    fn methods_are_compared_as_they_are() {
        assert!(may_repeat(&RetryMethods::Idempotent, b"PUT"));
        assert!(!may_repeat(&RetryMethods::Idempotent, b"POST"));
        assert!(!may_repeat(&RetryMethods::Idempotent, b"get"));
        assert!(may_repeat(&RetryMethods::Any, b"POST"));
        let listed = RetryMethods::Listed(vec!["POST".into()]);
        assert!(may_repeat(&listed, b"POST") && !may_repeat(&listed, b"GET"));
    }

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::NoConnection),
            Just(Outcome::Exhausted),
            any::<bool>().prop_map(|leaving| Outcome::Refused { leaving }),
            any::<bool>().prop_map(|reused| Outcome::Reset { reused }),
            Just(Outcome::Invalid),
            Just(Outcome::TryTimeout),
            (200u16..600, prop::option::of(0u64..3_000)).prop_map(|(status, retry_after_ms)| {
                Outcome::Answered { status, retry_after_ms }
            }),
            (0u8..=16, prop::option::of(0u64..3_000)).prop_map(|(code, ms)| ended(code, ms)),
        ]
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_happens(
            outcomes in prop::collection::vec((outcomes(), any::<u64>()), 1..20),
            attempts in 0u8..=255,
            base in any::<u32>(),
            max in any::<u32>(),
            bound_ms in 1u64..5_000,
        ) {
            let retry = Retry {
                attempts, backoff_base_ms: base, backoff_max_ms: max, ..Retry::default()
            };
            let mut course = Course::<()>::new(&retry, bound_ms);
            let (mut now_ms, mut counted, mut fresh_ones) = (0, 1, 0);
            for (at, (outcome, random)) in outcomes.into_iter().enumerate() {
                let facts = Facts { now_ms, random, ..FACTS };
                match course.next(outcome, at, &facts, || Some(())) {
                    Next::Stop => break,
                    Next::Again { pause_ms, fresh } => {
                        now_ms += pause_ms;
                        prop_assert!(now_ms < bound_ms);
                        prop_assert!(pause_ms <= u64::from(max).max(1_000));
                        if fresh { fresh_ones += 1 } else { counted += 1 }
                    }
                }
            }
            prop_assert!(fresh_ones <= 1);
            prop_assert!(counted <= usize::from(attempts.clamp(1, 10)));
            prop_assert!(course.tried().len() <= limits::TRIES);
        }
    }
}
