//! One server, as the ledger sees it: whether it can be asked, what it was told, what is under way.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;

use super::super::messages::BucketId;
use super::super::protocol::{
    ALONE_MS, BEAT_MS, Beat, Beaten, Call, FORGET_MS, MILLION, NodeId, SILENT_MS, Statement,
};
use super::super::rule::Span;
use crate::limits;

/// Calls in a row that failed, after which no request waits for this server any more; time-outs that one
/// may take.
const FAILURES: u32 = 3;

/// How far it has come with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no connection.
    Away,
    /// A beat has to say first what the server remembers.
    Beating,
    /// Every bucket is stated anew.
    Restating,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Stays,
    /// As soon as nothing is to be given back.
    Soon,
    /// The server was told.
    Said,
    Done,
}

#[derive(Debug)]
pub(super) struct Link {
    phase: Phase,
    run_id: Arc<str>,
    /// 0: none yet.
    generation: u64,
    /// The server's time, as it was heard last, and when that was.
    heard_server_ms: u64,
    heard_ms: u64,
    /// When that was asked for: the server has heard of this node since.
    asked_ms: u64,
    /// The same of the last answer that came while it decided by the truth.
    sure_ms: u64,
    /// When a member has ended last.
    gone_at_ms: Option<u64>,
    /// The part that this node goes by, in millionths.
    share: u64,
    /// A smaller one that it was told. It goes by that, and says so, when it holds no more than that of
    /// any bucket: only then others may have what it leaves.
    offered: Option<u64>,
    /// Buckets of which it holds more.
    shrinking: HashSet<BucketId>,
    members: Vec<NodeId>,
    failures: u32,
    /// An answer is late: whoever need not know it goes on.
    late: bool,
    /// Too many calls failed; a beat that is answered in time ends that.
    silent: bool,
    /// What the server has to acknowledge before this node is ready, if all was to be stated anew.
    restating: HashSet<BucketId>,
    /// What is to be given back before this node leaves.
    parting: HashSet<BucketId>,
    leave: Leave,
    /// When the beat under way was sent.
    beat_sent_ms: Option<u64>,
    next_beat_ms: u64,
    calls: BTreeMap<u64, UnderWay>,
    numbers: u64,
    /// Buckets to be stated, in their order: those for which somebody waits, and others. One for which
    /// somebody waits by now may be in both; it is stated once (their entries see to that).
    urgent: VecDeque<BucketId>,
    due: VecDeque<BucketId>,
    /// Times that it was lost.
    pub losses: u64,
}

/// A call under way: each bucket, and the number of its statement.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub sent_ms: u64,
    pub about: Vec<(BucketId, u64)>,
    pub was_sent: bool,
}

/// What a beat has told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned {
    pub new_generation: bool,
    /// All is to be stated anew.
    pub restate: bool,
    /// What the server had acknowledged, too.
    pub whole: bool,
    /// Only now it can be asked.
    pub ready: bool,
    /// This node's part has become smaller.
    pub shrink: bool,
}

impl Link {
    /// `numbers`: the last number of a call that was ever given.
    pub fn new(numbers: u64, now_ms: u64) -> Link {
        Link {
            phase: Phase::Away,
            run_id: "".into(),
            generation: 0,
            heard_server_ms: 0,
            heard_ms: now_ms,
            asked_ms: now_ms,
            sure_ms: now_ms,
            gone_at_ms: None,
            share: 0,
            offered: None,
            shrinking: HashSet::new(),
            members: Vec::new(),
            failures: 0,
            late: false,
            silent: false,
            restating: HashSet::new(),
            parting: HashSet::new(),
            leave: Leave::Stays,
            beat_sent_ms: None,
            next_beat_ms: 0,
            calls: BTreeMap::new(),
            numbers,
            urgent: VecDeque::new(),
            due: VecDeque::new(),
            losses: 0,
        }
    }

    /// Decides by the truth.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && !self.silent
    }

    /// It has not answered within the spec's time-out.
    pub fn is_late(&self) -> bool {
        self.late
    }

    pub fn is_away(&self) -> bool {
        self.phase == Phase::Away
    }

    /// The last number of a call.
    pub fn numbers(&self) -> u64 {
        self.numbers
    }

    pub fn connected(&mut self, run_id: Arc<str>, now_ms: u64) {
        self.phase = Phase::Beating;
        self.run_id = run_id;
        (self.late, self.silent) = (false, false);
        self.failures = 0;
        self.next_beat_ms = now_ms;
        self.beat_sent_ms = None;
    }

    /// Returns the calls that will not be answered.
    pub fn disconnected(&mut self, now_ms: u64) -> Vec<UnderWay> {
        self.losses += u64::from(self.is_ready());
        self.phase = Phase::Away;
        self.beat_sent_ms = None;
        self.next_beat_ms = now_ms;
        self.restating.clear();
        self.shrinking.clear();
        self.parting.clear();
        // What was due stays with its entries, which ask again.
        let due = take(&mut self.urgent).into_iter().chain(take(&mut self.due));
        let due = due.map(|id| (id, u64::MAX)).collect();
        let unsent = UnderWay { sent_ms: now_ms, about: due, was_sent: false };
        take(&mut self.calls).into_values().chain([unsent]).collect()
    }

    /// The server answered, at its time `server_ms`, what was asked at `asked_ms`.
    pub fn heard(&mut self, server_ms: u64, asked_ms: u64, now_ms: u64) {
        self.heard_server_ms = self.heard_server_ms.max(server_ms);
        self.heard_ms = self.heard_ms.max(now_ms);
        self.asked_ms = self.asked_ms.max(asked_ms);
        if self.is_ready() {
            self.sure_ms = self.sure_ms.max(asked_ms);
        }
    }

    /// The server does not know us as we thought: a beat clears that up.
    pub fn doubt(&mut self) {
        if self.phase != Phase::Away {
            self.phase = Phase::Beating;
            self.next_beat_ms = 0;
        }
    }

    pub fn beat(&mut self, node: &NodeId, now_ms: u64) -> Option<Beat> {
        let gone = matches!(self.leave, Leave::Said | Leave::Done);
        if self.phase == Phase::Away || self.beat_sent_ms.is_some() || gone || self.is_restating() {
            return None;
        }
        let leaves = self.leave == Leave::Soon && self.parting.is_empty();
        if leaves {
            self.leave = Leave::Said;
        }
        if self.is_forgotten(now_ms) {
            // Others have its part.
            (self.share, self.offered) = (0, None);
        }
        if self.shrinking.is_empty()
            && let Some(offered) = self.offered.take()
        {
            self.share = offered;
        }
        self.beat_sent_ms = Some(now_ms);
        self.next_beat_ms = now_ms + BEAT_MS;
        Some(Beat {
            node: node.clone(),
            generation: self.generation,
            run_id: self.run_id.clone(),
            heard_ms: self.heard_server_ms,
            share: self.share,
            members: self.members.clone(),
            gone_ms: self
                .gone_at_ms
                .map_or(FORGET_MS, |at_ms| now_ms.saturating_sub(at_ms).min(FORGET_MS)),
            restated: self.has_restated() || self.phase == Phase::Ready,
            leaves,
        })
    }

    pub fn is_beat_due(&self, now_ms: u64) -> bool {
        self.phase != Phase::Away
            && self.beat_sent_ms.is_none()
            && !self.is_restating()
            && !matches!(self.leave, Leave::Said | Leave::Done)
            && now_ms >= self.next_beat_ms
    }

    /// While all is stated anew, statements show that the node lives; the next beat says that it is done.
    fn is_restating(&self) -> bool {
        self.phase == Phase::Restating && !self.restating.is_empty()
    }

    /// This node goes, when these are given back.
    pub fn leave(&mut self, parting: HashSet<BucketId>, now_ms: u64) {
        if self.leave == Leave::Stays {
            (self.leave, self.parting) = (Leave::Soon, parting);
            self.next_beat_ms = now_ms;
        }
    }

    /// Nothing more is to be said to it, or it cannot be.
    pub fn has_left(&self) -> bool {
        self.leave == Leave::Done || self.leave != Leave::Stays && !self.is_ready()
    }

    pub fn beat_failed(&mut self) {
        if self.beat_sent_ms.take().is_some() {
            self.fail();
        }
        if self.leave == Leave::Said {
            self.leave = Leave::Done;
        }
    }

    pub fn beaten(&mut self, beat: Beaten, now_ms: u64) -> Learned {
        let Some(sent_ms) = self.beat_sent_ms.take() else { return Learned::default() };
        if self.leave == Leave::Said {
            self.leave = Leave::Done;
            return Learned::default();
        }
        if self.phase == Phase::Away {
            return Learned::default();
        }
        let was_ready = self.is_ready();
        if beat.generation != self.generation {
            // Another server's time may be another.
            self.heard_server_ms = 0;
        }
        self.heard(beat.now_ms, sent_ms, now_ms);
        if beat.gone_ms < FORGET_MS {
            let gone_at_ms = now_ms.saturating_sub(beat.gone_ms);
            self.gone_at_ms = self.gone_at_ms.max(Some(gone_at_ms));
        }
        let shrink = beat.share < self.share;
        self.shrinking.clear();
        match shrink {
            true => self.offered = Some(beat.share),
            false => (self.share, self.offered) = (beat.share, None),
        }
        self.members = beat.members;
        // A server that is slow is as good as none.
        if now_ms.saturating_sub(sent_ms) <= limits::LIMIT_SOON_MS {
            (self.silent, self.failures) = (false, 0);
        }
        let new_generation = beat.generation != self.generation;
        // The first one is nobody's loss.
        let lost_memory = new_generation && self.generation != 0;
        self.generation = beat.generation;
        if new_generation || beat.was_lost {
            self.phase = Phase::Restating;
            self.restating.clear();
            self.next_beat_ms = now_ms;
            let whole = new_generation;
            let new_generation = lost_memory;
            return Learned { new_generation, restate: true, whole, ready: false, shrink };
        }
        if self.phase == Phase::Beating || self.has_restated() {
            self.phase = Phase::Ready;
        }
        Learned { ready: !was_ready && self.is_ready(), shrink, ..Learned::default() }
    }

    /// This bucket is to be stated anew.
    pub fn restate(&mut self, id: BucketId) {
        self.restating.insert(id);
    }

    /// More is held of it than the part that was told last.
    pub fn shrink(&mut self, id: BucketId) {
        self.shrinking.insert(id);
    }

    pub fn has_shrunk(&mut self, id: BucketId) {
        self.shrinking.remove(&id);
    }

    pub fn is_shrinking(&self, id: BucketId) -> bool {
        self.shrinking.contains(&id)
    }

    /// What this node may hold of a limit at rest, however much is left: no more than its part, so that
    /// others may go by theirs when they have lost the server.
    pub fn most(&self, limit: u64) -> u64 {
        part_of(limit, self.offered.unwrap_or(self.share).min(self.share))
    }

    /// All is stated; the server has to be told.
    pub fn has_restated(&self) -> bool {
        self.phase == Phase::Restating && self.restating.is_empty()
    }

    /// To be stated as soon as there is room; what is urgent before all else.
    pub fn push_due(&mut self, id: BucketId, urgent: bool) {
        match urgent {
            true => self.urgent.push_back(id),
            false => self.due.push_back(id),
        }
    }

    /// So many as fit one call; none if the server cannot be asked, or has enough to do: what it does not
    /// come to would only wait there, where it cannot be put in order, and would look like silence.
    pub fn take_due(&mut self) -> Vec<BucketId> {
        let asked = matches!(self.phase, Phase::Ready | Phase::Restating);
        if !asked || self.calls.len() >= limits::LIMIT_CALLS {
            return Vec::new();
        }
        let urgent = self.urgent.len().min(limits::LIMIT_STATEMENTS);
        let others = self.due.len().min(limits::LIMIT_STATEMENTS - urgent);
        self.urgent.drain(..urgent).chain(self.due.drain(..others)).collect()
    }

    /// No other node is known: what is held at rest is missed by nobody.
    pub fn is_alone(&self) -> bool {
        self.members.len() <= 1
    }

    pub fn call(
        &mut self,
        node: &NodeId,
        statements: Vec<Statement>,
        about: Vec<(BucketId, u64)>,
        now_ms: u64,
    ) -> (u64, Call) {
        self.numbers += 1;
        self.calls.insert(self.numbers, UnderWay { sent_ms: now_ms, about, was_sent: true });
        let call = Call {
            node: node.clone(),
            generation: self.generation,
            heard_ms: self.heard_server_ms,
            statements,
        };
        (self.numbers, call)
    }

    pub fn answered(&mut self, number: u64, good: bool, now_ms: u64) -> Option<UnderWay> {
        let call = self.calls.remove(&number)?;
        match good {
            true => (self.failures, self.late) = (0, false),
            false => self.fail(),
        }
        for (id, _) in &call.about {
            self.restating.remove(id);
            self.parting.remove(id);
        }
        if self.leave == Leave::Soon && self.parting.is_empty() {
            self.next_beat_ms = now_ms;
        }
        Some(call)
    }

    fn fail(&mut self) {
        self.failures += 1;
        if self.failures >= FAILURES && !self.silent {
            self.losses += u64::from(self.phase == Phase::Ready);
            self.silent = true;
        }
    }

    /// Whether requests may have to go on without it by now: it is late, or lost. A late answer is waited
    /// for where the limit is shared: without it nobody knows what has become free meanwhile, and a
    /// bucket that is new here would be refused for nothing.
    pub fn lapses(&mut self, timeout_ms: u64, now_ms: u64) -> bool {
        let was = (self.late, self.silent);
        self.late = now_ms >= self.late_at_ms(timeout_ms);
        if !self.silent && now_ms >= self.lost_at_ms(timeout_ms) {
            self.failures = FAILURES;
            self.fail();
        }
        self.late && !was.0 || self.silent && !was.1
    }

    /// When it will be late if nothing comes from it.
    fn late_at_ms(&self, timeout_ms: u64) -> u64 {
        self.calls.values().next().map_or(u64::MAX, |call| call.sent_ms + timeout_ms)
    }

    /// When it will be lost if nothing comes from it.
    fn lost_at_ms(&self, timeout_ms: u64) -> u64 {
        let call = self.calls.values().next().map(|call| {
            call.sent_ms + (u64::from(FAILURES) * timeout_ms).max(limits::LIMIT_SOON_MS)
        });
        let beat = self.beat_sent_ms.map(|sent_ms| sent_ms + beat_ms(timeout_ms));
        call.into_iter().chain(beat).min().unwrap_or(u64::MAX)
    }

    pub fn next_ms(&self, timeout_ms: u64) -> u64 {
        let beat = match (self.phase, self.beat_sent_ms) {
            (Phase::Away, _) => u64::MAX,
            _ if matches!(self.leave, Leave::Said | Leave::Done) => u64::MAX,
            (_, None) if self.is_restating() => u64::MAX,
            (_, Some(_)) => u64::MAX,
            (_, None) => self.next_beat_ms,
        };
        let late_at_ms = if self.late { u64::MAX } else { self.late_at_ms(timeout_ms) };
        let lost_at_ms = if self.silent { u64::MAX } else { self.lost_at_ms(timeout_ms) };
        beat.min(late_at_ms).min(lost_at_ms)
    }

    /// What is left of an allowance of this node's own by now. While all others may still go by what
    /// they were granted it is what it was. Then none may have more than its part; and when all that was
    /// spent beyond that has left the window, each may have as much.
    pub fn allowance(&self, before: u64, limit: u64, span: Span, now_ms: u64) -> u64 {
        let part = part_of(limit, self.share);
        let window_ms = match span {
            Span::Sliding { ms } => ms + span.slot_ms() + span.reach_ms(),
            // What others have spent of a period counts to its end: nothing is to be had of them.
            Span::Until { .. } => return before,
            Span::Concurrent => 0,
        };
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        match now_ms.saturating_sub(self.sure_ms) {
            unsure_ms if unsure_ms < SILENT_MS / 2 => before,
            _ if silent_ms < 2 * SILENT_MS + window_ms => before.min(part),
            _ => part,
        }
    }

    /// The server, if it goes on for others, will soon have forgotten this node.
    pub fn is_forgotten(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.asked_ms) >= ALONE_MS
    }
}

fn part_of(limit: u64, share: u64) -> u64 {
    let part = u128::from(limit) * u128::from(share.min(MILLION)) / u128::from(MILLION);
    u64::try_from(part).unwrap_or(limit)
}

/// How long the answer to a beat may take until the server counts as silent.
fn beat_ms(timeout_ms: u64) -> u64 {
    BEAT_MS.max(u64::from(FAILURES) * timeout_ms)
}
