//! What nodes and a Redis server say to each other. Scripts in Lua are the server's side (`store/limits/`);
//! `account.rs` says the same in Rust, and tests hold them against each other.
//!
//! **Names.** A bucket is the hash `sluice:limit:{TAG}:NAME`, which a person can read: `used`, `held`,
//! `held:NODE`, `seq:NODE`, and what was spent by slot. It expires when nothing in it counts any more.
//!
//! **Clusters.** A cluster is sixteen servers here, its *partitions* (`store/limits/partition.rs`): all keys of one
//! are in one slot, `sluice:limit:{PARTITION}{TAG}:NAME` and `sluice:limit:{PARTITION}:generation`. A slot that
//! goes to another primary, whether that has all that was written or not, is another server.
//!
//! **Statements.** A node has one statement per bucket under way. It says what the node holds now, whatever
//! was granted and lost on the way; statements are numbered, and an older one than the last is ignored, so
//! that what a stopped server reads late does no harm.
//!
//! **Generations.** `sluice:limit:{nodes}:generation` holds a random number, and the `run_id` of the server
//! that made it. A server that has lost it (FLUSHALL), or that is another one (restarted from what it had
//! saved, failed over), begins a new one: what is in buckets of the old one is void (each bucket has its
//! generation in `gen`). It grants nothing
//! - for [`SETTLE_MS`], in which whoever lives connects again, and
//! - until everybody has stated anew what it holds and has spent, and said so ([`Beat::restated`]), of whom
//!   it knows: members that it remembers itself, those that come from another generation, and all whom
//!   these name.
//!
//! Who does not come is waited for until it goes by its part at most, for a window: that is kept for it
//! then, as for any lost node. What those have spent that are no more (they left, were killed, or were
//! forgotten) nobody states anew: nodes say how long ago the last of them ended ([`Beat::gone_ms`]), and
//! the window is waited out from then on.
//!
//! **Members.** Nodes beat several times a second. One from which nothing was heard for [`SILENT_MS`] is
//! *lost*: the server keeps its part of each limit for it (or what it holds, if that is more). A statement
//! or beat proves life only if it says that its node has heard from the server within that time
//! ([`Beat::heard_ms`]): what lay about in a socket does not. A new node lives with its second beat, one
//! that was lost with the first one by which it has stated anew.
//!
//! A node that cannot ask has what it holds, which it may spend anew whenever that ages out of its own
//! window; no more than its part of it, when it has not decided by the truth for half of `SILENT_MS`. One
//! that has heard nothing for `2 * SILENT_MS` and then for the window's length knows that all others leave
//! it its part by now, and may go by it (never of a calendar's period: what is spent of that does not age).
//! One that was not answered for [`ALONE_MS`] comes as a new one when it comes again: soon after, the server
//! forgets it, and others have its part. The server tells in the same way
//! what a node can have done that has ended without a word (another run of it has come, or it is forgotten):
//! what it held counts as spent at that time, and its part does for a window if it may have gone by it.
//!
//! A node's part (`share`, in millionths) is what it was told last. The server never tells parts that are
//! together more than one: it reckons with what each node may still believe. It changes nobody's part while
//! it does not know everybody's.
//!
//! **What this cannot do.** Nodes and servers exceed no sliding limit in whatever way these stop, are cut
//! off, and lose what they knew, but:
//! - A server that has lost everything knows others only by nodes. If none that knows of them comes within
//!   `SETTLE_MS` of the first that comes (all were cut off, say, and only new ones come), or they joined so
//!   shortly before that no other has been told (a beat's time), it grants what these may have. Windows
//!   during which the only node left and the server was flushed begin anew.
//! - What nobody can state any more is waited for no longer than [`FORGET_MS`] since its node has ended. Of
//!   longer windows and of calendar's periods that is given up: after a loss of memory they begin anew as
//!   far as nodes that are no more have spent them.
//! - A node that is cut off for longer than `FORGET_MS`, while others are not, goes on by its part, which
//!   these may have by then, too: it cannot tell that from a server that is down for everybody, and then
//!   refusing everything would be worse.
//! - Requests under way hold concurrency for as long as they last. Of a node that is cut off when the
//!   server loses its memory, or for longer than `FORGET_MS`, those beyond its part are not known.
//! - Tokens that a process holds while it is stopped as a whole (SIGSTOP, a suspended machine) for longer
//!   than `FORGET_MS` it may spend when it goes on, before it sees what time it is.
//! - A node tells anew what it remembers: of more buckets than it has room for not all.
//! - Two processes of one name at a time take each other for dead.
//! - A server that lacks what another has written of this generation must not have its `run_id`: a primary that
//!   becomes a replica and a primary again, while no node beats in between, passes for the one that it was.
//! - Redis may evict nothing (`maxmemory-policy noeviction`), and its clock and the nodes' run at about the
//!   same rate.

use std::sync::Arc;

use super::rule::Rule;

/// Nodes beat this often.
pub const BEAT_MS: u64 = 100;
/// A node that was not heard for so long is lost.
pub const SILENT_MS: u64 = 400;
/// A lost node is forgotten after this, and its part with it.
pub const FORGET_MS: u64 = 10 * 60_000;
/// A node that was not answered for so long is forgotten soon.
pub const ALONE_MS: u64 = FORGET_MS - 15_000;
/// A node states anew at least this often what it holds.
pub const RESTATE_MS: u64 = FORGET_MS / 4;
/// A new generation grants nothing before whoever lives can have come: longer than nodes wait before
/// they connect again.
pub const SETTLE_MS: u64 = 600;
/// A part of the whole is told in these.
pub const MILLION: u64 = 1_000_000;

/// Random; names one run of an engine among all that share limits, with the node's name before it
/// (`NAME#RANDOM`): printable ASCII without spaces.
pub type NodeId = Arc<str>;

/// What a node says of one bucket, and asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// `sluice:limit:{TAG}:NAME`.
    pub key: Arc<str>,
    pub rule: Rule,
    /// One more than the node's last one for this bucket.
    pub seq: u64,
    /// What it holds now, without what is `spent`.
    pub hold: u64,
    /// How long ago, in milliseconds, and how many.
    pub spent: Vec<(u64, u64)>,
    /// Of the requests that wait the first needs so many: less is of no use. 0: nobody waits.
    pub need: u64,
    /// All that wait need so many, `need` included: granted as far as there are any, whatever is fair.
    pub waiting: u64,
    /// How many more it could use, `waiting` included: granted up to what is fair.
    pub want: u64,
}

/// Several statements for one server, judged by one run of its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub node: NodeId,
    pub generation: u64,
    /// The server's time of the last answer that the node got, in milliseconds.
    pub heard_ms: u64,
    pub statements: Vec<Statement>,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In the order of the statements.
    Verdicts { now_ms: u64, verdicts: Vec<Verdict> },
    /// Another generation: state everything anew, then beat with `restated`.
    Generation { now_ms: u64, generation: u64 },
    /// `heard_ms` is too old: beat, then state again.
    Unheard { now_ms: u64 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Added to what the node holds; 0, or at least `need`.
    pub granted: u64,
    /// What the node should hold at most now.
    pub fair: u64,
    /// Spent within the window, by all.
    pub used: u64,
    /// Held by all nodes, this one included, and kept for lost ones.
    pub held: u64,
    /// How long until what was spent first leaves the window, in milliseconds; 0: nothing was.
    pub oldest_ms: u64,
    /// The statement was older than one that was seen already: nothing was done.
    pub stale: bool,
    /// Nothing is granted yet, as not all nodes have stated anew.
    pub restoring: bool,
}

/// A node shows that it lives, and learns of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub node: NodeId,
    /// 0: it knows of none yet.
    pub generation: u64,
    /// The server's, as its node has read it on this connection.
    pub run_id: Arc<str>,
    /// As in [`Call`]; 0: never.
    pub heard_ms: u64,
    /// The part that the node goes by now.
    pub share: u64,
    /// All members that it knows of: whoever a server that lost them must wait for.
    pub members: Vec<NodeId>,
    /// How long ago, in milliseconds, a member has ended last of which it knows; [`FORGET_MS`]: none
    /// within that.
    pub gone_ms: u64,
    /// It has stated all that it holds and has spent, in this generation.
    pub restated: bool,
    /// It holds nothing more, and goes.
    pub leaves: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    pub now_ms: u64,
    pub generation: u64,
    /// The part that the node may go by from now on, in millionths.
    pub share: u64,
    /// All members, this one and lost ones included.
    pub members: Vec<NodeId>,
    /// Buckets of which others need what this node holds.
    pub recalled: Vec<Arc<str>>,
    /// The node was lost: it states everything anew, and beats again; until then the server still
    /// keeps its part for it.
    pub was_lost: bool,
    /// As in [`Beat`].
    pub gone_ms: u64,
}
