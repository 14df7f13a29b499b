//! Answers that are composed of the answers to several calls.
//!
//! `plan` is compiled with the route. For a request, `run` makes the calls, as many at once as may be and
//! each after those that its templates name (`view` is what these see, `ask` what they make of it, `repeat`
//! calls for lists), until all have ended or a required one has failed. `compose` makes one body of what
//! they were answered, `answer` the head that goes with it.
//!
//! JSON is never copied more than it must be: bodies live in `run::Bodies` for as long as the request, and
//! all values borrow from them.

mod answer;
mod ask;
mod body;
mod compose;
mod dotted;
mod freshness;
mod outcome;
mod plan;
mod repeat;
mod run;
mod stream;
#[cfg(test)]
mod tests;
mod view;

pub use answer::answer;
pub use plan::Aggregate;
