//! How a call ends.

use contract::record::Reason;

use crate::local_reply::LocalReply;
use crate::payload::json::Json;

/// How a call has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'a> {
    Answered(Part<'a>),
    /// It failed; its default stands for the answer.
    Stood(Json<'a>, Failed),
    /// It failed, and there is no answer.
    Failed(Failed),
    /// It was not to be made.
    Skipped,
}

/// What a call was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part<'a> {
    /// Of a call for several items: of the last answer.
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Json<'a>,
    /// Items for which there is no answer, in order.
    pub items: Vec<(usize, Failure)>,
    /// Microseconds from its first request to its last answer.
    pub took_us: u64,
}

/// That a call failed, and for which items.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    pub why: Failure,
    /// The item, of a call for several of them.
    pub item: Option<usize>,
    pub took_us: u64,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: Why,
    /// The status that was answered; 0: none was.
    pub status: u16,
    /// The status of the whole, if the call is required.
    pub whole: u16,
    /// A field that goes with that status: `Retry-After`, `WWW-Authenticate`.
    pub field: Option<(&'static str, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The status is no success.
    Status,
    /// The gateway had no answer, for this reason.
    Unanswered(Reason),
    /// The answer is no JSON.
    NotJson,
    /// The answer, or the body of a batch's, is no list.
    NotAList,
    /// What is to be sent needs a value that is missing, or cannot stand there.
    Value(Place),
    /// What is to be sent is no message of the method.
    NotMessage,
    /// There are more items than may be.
    TooManyItems,
    /// The time was up before it began.
    Late,
    /// What all answers may take together is used up.
    TooLarge,
    /// A call that it needs failed.
    Needs(usize),
}

/// Where a value is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
    Items,
}

impl Failure {
    pub fn new(why: Why, whole: u16) -> Failure {
        Failure { why, status: 0, whole, field: None }
    }

    /// The gateway's own answer to a call.
    pub fn unanswered(reply: &LocalReply) -> Failure {
        let late = matches!(
            reply.reason,
            Reason::TotalTimeout
                | Reason::TryTimeout
                | Reason::FirstByteTimeout
                | Reason::ConnectTimeout
                | Reason::DeadlineExceeded
        );
        let whole = match reply.status {
            _ if late => 504,
            status @ (502..=504) => status,
            // An operator's own answer for an upstream that takes nothing, or a request that is none.
            _ => 502,
        };
        Failure {
            field: reply.field.clone().filter(|(name, _)| *name == "Retry-After"),
            ..Failure::new(Why::Unanswered(reply.reason), whole)
        }
    }

    /// In one word, for clients. Nothing of a request or an answer is in it.
    pub fn reason(&self) -> &'static str {
        match self.why {
            Why::Status => "status",
            Why::Unanswered(reason) => reason.name(),
            Why::NotJson => "answer_not_json",
            Why::NotAList => "not_a_list",
            Why::Value(_) => "value_missing",
            Why::NotMessage => "message_invalid",
            Why::TooManyItems => "too_many_items",
            Why::Late => "deadline_exceeded",
            Why::TooLarge => "answer_too_large",
            Why::Needs(_) => "needed_call_failed",
        }
    }

    /// Where a value is missing.
    pub fn place(&self) -> Option<&'static str> {
        match self.why {
            Why::Value(Place::Path) => Some("path"),
            Why::Value(Place::Query) => Some("query"),
            Why::Value(Place::Header) => Some("headers"),
            Why::Value(Place::Items) => Some("in"),
            _ => None,
        }
    }
}

impl<'a> Outcome<'a> {
    /// The answer that others see.
    pub fn body(&self) -> Option<&Json<'a>> {
        match self {
            Outcome::Answered(part) => Some(&part.body),
            Outcome::Stood(body, _) => Some(body),
            Outcome::Failed(_) | Outcome::Skipped => None,
        }
    }

    /// Likewise, taken.
    pub fn take_body(&mut self) -> Option<Json<'a>> {
        match self {
            Outcome::Answered(part) => Some(std::mem::take(&mut part.body)),
            Outcome::Stood(body, _) => Some(std::mem::take(body)),
            Outcome::Failed(_) | Outcome::Skipped => None,
        }
    }

    pub fn failed(&self) -> Option<&Failed> {
        match self {
            Outcome::Stood(_, failed) | Outcome::Failed(failed) => Some(failed),
            Outcome::Answered(_) | Outcome::Skipped => None,
        }
    }

    /// Whether nothing of it is missing.
    pub fn is_complete(&self) -> bool {
        match self {
            Outcome::Answered(part) => part.items.is_empty(),
            Outcome::Skipped => true,
            Outcome::Stood(..) | Outcome::Failed(_) => false,
        }
    }
}
