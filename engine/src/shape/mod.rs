//! What a route changes of requests and answers, and what it answers itself.

mod captures;
mod values;

pub use captures::Captures;
pub use values::{AnswerValues, RequestValues};
