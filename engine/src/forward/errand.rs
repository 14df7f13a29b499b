//! One request's errand at one upstream: admitted, tried as often as is allowed and safe, judged.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use contract::Counter;
use contract::record::{Reason, RetryStop};
use contract::snapshot::{Balance, Timeouts};

use super::attempt::Attempt;
use super::course::{Course, Facts, Next, Outcome, is_idempotent, may_repeat};
use super::outgoing::Outgoing;
use super::{hedge, race, retry_after, soonest};
use crate::answer::{Account, Answer, Carrier};
use crate::body::BodyReader;
use crate::exchange::{Fields, Request, Responder};
use crate::grpc;
use crate::io::{Chunk, Watch};
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{Dialect, Name, ResponseHead};
use crate::plan::{Backend, Route, Target, Upstream};
use crate::shard::{Shard, ShardPlan};
use crate::upload::Upload;
use crate::upstream::{Admitted, Ask, InFlight, Refusal, UpstreamState, hash_key};

pub struct Errand<'r> {
    pub shard: &'r Shard,
    pub responder: &'r Responder,
    pub route: &'r Route,
    pub upstream: &'r Upstream,
    pub state: &'r Rc<UpstreamState>,
    pub timeouts: Timeouts,
    /// What bounds the whole; monotonic milliseconds, 0: nothing does.
    pub deadline_ms: u64,
    /// The client's part in it.
    pub patience_ms: u64,
    /// The method may reach an upstream more than once.
    repeatable: bool,
    /// It is HEAD at the upstream: the answer has no body.
    pub is_head: bool,
    hash: Option<u64>,
    // Tries that go on beside each other share what follows. Never borrowed over an await.
    pub request: RefCell<&'r mut Request>,
    pub outgoing: RefCell<Outgoing>,
    course: RefCell<Course<'r>>,
}

/// What a try has caught: the head of an answer.
pub struct Caught {
    pub carrier: Carrier,
    pub head: Box<ResponseHead>,
    /// The head's bytes and what came behind them.
    pub bytes: Chunk,
    /// The rest of the request's body, still on its way.
    pub upload: Option<Upload>,
    pub switched: bool,
}

/// Why a try has caught nothing.
pub struct Failed {
    pub outcome: Outcome,
    /// The answer if no other try follows.
    pub reply: LocalReply,
}

impl Failed {
    pub fn new(outcome: Outcome, status: u16, reason: Reason) -> Failed {
        Failed { outcome, reply: LocalReply::new(status, reason) }
    }
}

pub fn client_gone() -> Failed {
    Failed { outcome: Outcome::Ours, reply: LocalReply::closing(0, Reason::ClientAborted) }
}

/// There is nothing to authorise us at the upstream.
fn no_token() -> Unserved {
    let field = Some(("Retry-After", b"1".to_vec()));
    Unserved::Reply(LocalReply { field, ..LocalReply::new(503, Reason::AuthUnavailable) })
}

/// Why an upstream gave no answer.
pub enum Unserved {
    /// It does not take the request: what its fallback is for. `begun`: some of it may be gone.
    Refused {
        refusal: Refusal,
        begun: bool,
    },
    Reply(LocalReply),
}

/// A try that has ended, with what counts it.
pub struct Tried {
    pub result: Result<Caught, Failed>,
    pub flight: InFlight,
    pub begun_us: u64,
}

impl<'r> Errand<'r> {
    /// Has the upstream answer the request.
    ///
    /// # Errors
    /// It does not take the request, or the answer to give instead of its own.
    pub async fn run(
        shard: &'r Shard,
        request: &'r mut Request,
        responder: &'r Responder,
        plan: &'r ShardPlan,
        route: &'r Route,
        backend: Backend,
    ) -> Result<Answer, Unserved> {
        let (upstream, state) = plan.upstream(backend);
        request.notes.upstream = Some(backend.upstream);
        let authorization = match state.bearer() {
            None => None,
            Some(bearer) => Some(bearer.get_soon(shard).await.ok_or_else(no_token)?),
        };
        let clock = shard.io.clock();
        let (now_ms, started_us) = (clock.now_ms(), clock.now_us());
        let untouched = |refusal| Unserved::Refused { refusal, begun: false };
        let admitted = state.admit(now_ms).map_err(untouched)?;
        let hash = hash(upstream, request);
        let ask = Ask { tried: &[], hash, random: shard.random(), now_ms };
        let flight = state.pick(&ask).map_err(untouched)?;
        let retry = route.retry(upstream);
        let timeouts = route.timeouts(upstream);
        let patience_ms = request.deadline_ms;
        let deadline_ms = match timeouts.total_ms {
            u32::MAX => patience_ms,
            total_ms => soonest(now_ms + u64::from(total_ms), patience_ms),
        };
        let repeatable = may_repeat(&retry.methods, request.method_out());
        let is_head = request.method_out() == b"HEAD";
        let outgoing =
            Outgoing::new(shard, request, responder, upstream, authorization, retry.body_bytes);
        let errand = Errand {
            shard,
            responder,
            route,
            upstream,
            state,
            timeouts,
            deadline_ms,
            patience_ms,
            repeatable,
            is_head,
            hash,
            request: RefCell::new(request),
            outgoing: RefCell::new(outgoing),
            course: RefCell::new(Course::new(retry, deadline_ms)),
        };
        let (caught, account) = errand.go(admitted, flight, started_us).await?;
        Ok(errand.answer(caught, account))
    }

    async fn go(
        &self,
        admitted: Admitted,
        mut flight: InFlight,
        started_us: u64,
    ) -> Result<(Caught, Account), Unserved> {
        let clock = self.shard.io.clock();
        let mut fresh = false;
        loop {
            let Tried { result: tried, flight: flown, begun_us } =
                self.attempt(flight, fresh).await?;
            let (now_us, now_ms) = (clock.now_us(), clock.now_ms());
            let try_us = micros(now_us - begun_us);
            let whole_us = micros(now_us - started_us);
            let outcome = self.outcome(&tried);
            if outcome.is_unauthorized()
                && let Some(bearer) = self.state.bearer()
            {
                bearer.doubt(now_ms);
            }
            let next = self.next(outcome, flown.index);
            let verdict = next.verdict(outcome);
            let Next::Again { pause_ms, fresh: anew } = next else {
                return match tried {
                    Ok(caught) => {
                        let account = Account::new(flown, admitted, verdict, try_us, whole_us);
                        Ok((caught, account))
                    }
                    Err(failed) => {
                        flown.judge(verdict, try_us, now_ms);
                        admitted.finish(verdict, whole_us, now_ms);
                        Err(Unserved::Reply(failed.reply))
                    }
                };
            };
            flown.judge(verdict, try_us, now_ms);
            // What was in flight there is not any more, however long the pause.
            drop(flown);
            if let Ok(caught) = tried {
                self.discard(caught).await;
            }
            self.shard.meter.count(outcome.counter(anew), 1);
            self.pause(pause_ms).await.map_err(|gone| Unserved::Reply(gone.reply))?;
            fresh = anew;
            flight = self.pick().map_err(|refusal| {
                admitted.finish(verdict, whole_us, now_ms);
                Unserved::Refused { refusal, begun: true }
            })?;
        }
    }

    fn pick(&self) -> Result<InFlight, Refusal> {
        let now_ms = self.shard.io.clock().now_ms();
        let course = self.course.borrow();
        let tried = course.tried();
        self.state.pick(&Ask { tried, hash: self.hash, random: self.shard.random(), now_ms })
    }

    /// Another target than the one at `index`, to be tried beside it.
    pub fn pick_beside(&self, index: usize) -> Option<InFlight> {
        let now_ms = self.shard.io.clock().now_ms();
        let (tried, random) = (&[][..], self.shard.random());
        self.state.pick_other(index, &Ask { tried, hash: self.hash, random, now_ms })
    }

    /// One try, with another beside it where that is asked for.
    async fn attempt(&self, flight: InFlight, fresh: bool) -> Result<Tried, Unserved> {
        let Some(attempt) = self.begin(flight.index, self.responder.watch.clone(), fresh, false)
        else {
            return Err(Unserved::Refused { refusal: Refusal::NoTarget, begun: true });
        };
        match self.hedge_ms() {
            None => {
                let begun_us = self.shard.io.clock().now_us();
                Ok(Tried { result: attempt.run(&flight).await, flight, begun_us })
            }
            // Boxed: by choice only, and large.
            Some(after_ms) => Ok(Box::pin(hedge::run(attempt, flight, after_ms)).await),
        }
    }

    /// Counts a try at a target, and sets it up.
    pub fn begin(
        &self,
        index: usize,
        watch: Rc<Watch>,
        fresh: bool,
        beside: bool,
    ) -> Option<Attempt<'_, 'r>> {
        let target = self.upstream.targets.get(index)?;
        let notes = &mut self.request.borrow_mut().notes;
        notes.attempts = notes.attempts.saturating_add(1);
        notes.target = Some(target.address);
        notes.first_byte_us = 0;
        let try_ms = match self.timeouts.try_ms {
            u32::MAX => 0,
            ms => self.shard.io.clock().now_ms() + u64::from(ms),
        };
        Some(Attempt { errand: self, target, watch, try_ms, fresh, beside })
    }

    /// When this try gets another beside it, in milliseconds from now.
    fn hedge_ms(&self) -> Option<u64> {
        let hedge = self.route.hedge(self.upstream)?;
        let request = self.request.borrow();
        let outgoing = self.outgoing.borrow();
        let suits = request.notes.attempts == 1
            && outgoing.is_whole()
            && outgoing.at_hand()
            && request.upgrade.is_none()
            && is_idempotent(request.method_out());
        if !suits {
            return None;
        }
        let usual_us = self.state.latency_quantile(hedge.quantile_permille)?;
        Some(race::slow_ms(&hedge, usual_us))
    }

    /// What the end of a try means to the course of the request.
    pub fn outcome(&self, tried: &Result<Caught, Failed>) -> Outcome {
        let caught = match tried {
            Ok(caught) => caught,
            Err(failed) => return failed.outcome,
        };
        let retry = self.route.retry(self.upstream);
        let mut retry_after_ms = None;
        let (head, bytes) = (&caught.head, caught.bytes.bytes());
        if self.request.borrow().grpc.is_some()
            && let Some(code) = grpc::status_alone(head, bytes)
        {
            if retry.retry_after_max_ms > 0 && retry.grpc_statuses.contains(&code) {
                retry_after_ms = grpc::pushback_ms(head, bytes);
            }
            let verdict = grpc::verdict(code, self.patience_ms != 0);
            return Outcome::Ended { code, verdict, retry_after_ms };
        }
        let status = head.status;
        if retry.retry_after_max_ms > 0
            && retry.statuses.contains(&status)
            && let Some(value) = head.value(bytes, Name::RetryAfter)
        {
            retry_after_ms = retry_after::parse(value, self.shard.io.clock().wall_us() / 1_000_000);
        }
        Outcome::Answered { status, retry_after_ms }
    }

    /// Whether another try may follow the one that begins.
    pub fn may_go_on(&self, refusals: bool) -> bool {
        self.course.borrow().may_go_on(self.repeatable, refusals)
    }

    /// The request has failed there.
    pub fn note(&self, index: usize) {
        self.course.borrow_mut().note(index);
    }

    fn next(&self, outcome: Outcome, index: usize) -> Next {
        // Most answers are no failure, and need nothing of what follows.
        if !outcome.is_failure(self.route.retry(self.upstream)) {
            return Next::Stop;
        }
        let facts = Facts {
            repeatable: self.repeatable,
            at_hand: self.outgoing.borrow().at_hand(),
            targets: self.upstream.targets.len(),
            now_ms: self.shard.io.clock().now_ms(),
            random: self.shard.random(),
        };
        let mut course = self.course.borrow_mut();
        let next = course.next(outcome, index, &facts, || self.state.retry_permit());
        if next == Next::Stop {
            let stop = course.stop();
            self.request.borrow_mut().notes.retry_stopped = stop;
            let over = u64::from(stop == RetryStop::Budget);
            self.shard.meter.count(Counter::RetriesOverBudget, over);
        }
        next
    }

    /// Writes the request for a target.
    pub fn write(&self, dialect: Dialect, target: &Target) {
        let now_ms = self.shard.io.clock().now_ms();
        let request = &mut **self.request.borrow_mut();
        // The client's deadline is passed on, lowered to the route's own; with a call that the gateway has
        // made of its request, the route's own as well.
        let told = self.patience_ms != 0 || (self.deadline_ms != 0 && request.is_made());
        let timeout_ms = told.then(|| self.deadline_ms.saturating_sub(now_ms));
        let (responder, upstream) = (self.responder, self.upstream);
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.write(request, responder, dialect, upstream, target, timeout_ms);
    }

    fn answer(self, caught: Caught, account: Account) -> Answer {
        let Errand { shard, responder, timeouts, deadline_ms, request, outgoing, .. } = self;
        let outgoing = outgoing.into_inner();
        outgoing.unread_rest(request.into_inner(), responder);
        outgoing.finish(shard);
        let Caught { carrier, head, bytes, upload, switched } = caught;
        // Once its head is passed on, this is the answer.
        if let Some(upload) = &upload {
            upload.forget();
        }
        account.begin(switched, shard.io.clock().now_ms());
        Answer {
            carrier,
            account: Some(account),
            head,
            bytes,
            upload,
            timeouts,
            deadline_ms,
            switched,
            reason: Reason::None,
            edit: None,
            filters: Vec::new(),
            fill: None,
        }
    }

    /// Throws an answer away. Its connection is used again if all of it is here.
    pub async fn discard(&self, caught: Caught) {
        let Caught { carrier, head, mut bytes, upload, switched } = caught;
        if upload.is_some() || switched || !head.keep_alive {
            return;
        }
        let reader = BodyReader::of_response(head.framing);
        let mut over = reader.is_done();
        bytes.advance(head.head_len);
        self.shard.give_response_head(head);
        let rest = Some(bytes).filter(|bytes| !bytes.is_empty());
        let mut source = carrier.source(reader, rest);
        let mut came = 0;
        while !over && came < limits::DISCARDED_ANSWER {
            let now = poll_fn(|cx| match source.poll_piece(cx) {
                Poll::Ready(Ok(piece)) => Poll::Ready(Some(piece)),
                _ => Poll::Ready(None),
            });
            let Some(piece) = now.await else { return };
            came += piece.data.as_ref().map_or(0, Chunk::len);
            over = piece.end;
        }
        carrier.release(over && source.is_clean(), self.shard.io.clock().now_ms());
    }

    async fn pause(&self, ms: u64) -> Result<(), Failed> {
        if ms == 0 {
            return Ok(());
        }
        let Responder { watch, down, .. } = self.responder;
        watch.set_in(ms);
        poll_fn(|cx| {
            if watch.poll_elapsed(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            down.poll_gone(cx).map(|()| Err(client_gone()))
        })
        .await
    }
}

/// What a consistent hash goes by, where the upstream balances by one.
pub fn hash(upstream: &Upstream, request: &Request) -> Option<u64> {
    let Balance::Hash { key, .. } = &upstream.balance else { return None };
    let fields = Fields { head: &request.head, bytes: request.bytes() };
    let consumer = request.identity.as_ref().map(|identity| &*identity.id);
    Some(hash_key::of_request(key, &fields, consumer, request.client_address()))
}

pub fn micros(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(u32::MAX)
}
