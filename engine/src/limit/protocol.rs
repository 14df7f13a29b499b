//! What nodes and a Redis server say to each other. Scripts in Lua are the server's side
//! (`store/limits/`); `account.rs` says the same in Rust, and tests hold them against each other.
//!
//! **Names.** A bucket is the hash `sluice:limit:{TAG}:NAME`, which a person can read: `used`, `held`,
//! `held:NODE`, `seq:NODE`, and what was spent by slot. It expires when nothing in it counts any more.
//!
//! **Statements.** A node has one statement per bucket under way. It says what the node holds now,
//! whatever was granted and lost on the way; statements are numbered, and an older one than the last is
//! ignored, so that what a stopped server reads late does no harm.
//!
//! **Generations.** `sluice:limit:{nodes}:generation` holds a random number, and the `run_id` of the server that
//! made it. A server that has lost it (FLUSHALL), or that is another one (restarted from what it had
//! saved, failed over), begins a new one: what is in buckets of the old one is void (each bucket has its
//! generation in `gen`). Until every node that anybody remembers has stated anew what it holds and has
//! spent, nothing is granted; it is ready with [`Beat::restated`]. A node that does not come back is
//! waited for as long as the window is: only then nothing that it may have spent counts.
//!
//! **Members.** Nodes beat several times a second. One from which nothing was heard for
//! [`SILENT_MS`](crate::limit::protocol::SILENT_MS) is *lost*: the server keeps its part of each limit
//! for it (or what it holds, if that is more). A statement or beat proves life only if it says that
//! its node has heard from the server within that time ([`Beat::heard_ms`]): what lay about in a socket
//! does not. A node that has heard nothing for `2 * SILENT_MS` and then for the window's length knows
//! that all others leave it its part by now, and may go by it. Before that it has what it holds, which
//! it may spend anew whenever that ages out of its own window.
//!
//! A node's part (`share`, in millionths) is what it was told last. The server never tells parts that
//! are together more than one: it reckons with what each node may still believe.

use std::sync::Arc;

use super::rule::Rule;

/// Nodes beat this often.
pub const BEAT_MS: u64 = 100;
/// A node that was not heard for so long is lost.
pub const SILENT_MS: u64 = 400;
/// A lost node is forgotten after this, and its part with it.
pub const FORGET_MS: u64 = 10 * 60_000;
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
}
