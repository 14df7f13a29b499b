//! What is answered when a body cannot be changed.

use contract::record::Reason;

use super::rule::{Fault, Rule};
use crate::local_reply::LocalReply;
use crate::offload::NotDone;
use crate::validate::{Faults, In};

impl From<NotDone> for Fault {
    fn from(why: NotDone) -> Fault {
        match why {
            NotDone::NoRoom => Fault::NoRoom,
            NotDone::Failed => Fault::Exhausted,
        }
    }
}

fn no_room() -> LocalReply {
    let field = Some(("Retry-After", b"1".to_vec()));
    LocalReply { field, ..LocalReply::new(503, Reason::Overload) }
}

/// The answer to a request whose body cannot be changed.
pub fn of_request(fault: Fault) -> LocalReply {
    match fault {
        Fault::Unreadable(why) | Fault::Unfit(why) => {
            let mut faults = Faults::default();
            faults.add(In::Body, "", &why);
            LocalReply { faults: faults.into_list(), ..LocalReply::new(400, Reason::BodyUnusable) }
        }
        Fault::TooLarge => LocalReply::new(413, Reason::BodyTooLarge),
        Fault::Exhausted => LocalReply::new(500, Reason::Internal),
        Fault::NoRoom => no_room(),
    }
}

/// What a client gets in place of an answer whose body cannot be changed. Not a word of why: that is between
/// the gateway and the upstream.
pub fn of_answer(fault: Fault) -> LocalReply {
    match fault {
        Fault::Unreadable(_) | Fault::Unfit(_) | Fault::Exhausted => {
            LocalReply::new(502, Reason::AnswerUnusable)
        }
        Fault::TooLarge => LocalReply::new(502, Reason::AnswerTooLarge),
        Fault::NoRoom => no_room(),
    }
}

/// The answer to a request whose body has a coding that its rule does not undo (RFC 9110 §12.5.3: says which
/// it does).
pub fn unsupported(rule: &Rule) -> LocalReply {
    let takes: &[u8] = if rule.decode { b"gzip, deflate, br, zstd" } else { b"identity" };
    let field = Some(("Accept-Encoding", takes.to_vec()));
    LocalReply { field, ..LocalReply::new(415, Reason::BodyUnusable) }
}
