//! What the engine tells of limits when it is asked: one line per bucket.

use crate::encode::DecodeError;
use crate::wire::{In, Out};

/// Most lines of an answer.
pub const MAX_LIMIT_LINES: usize = 10_000;

/// One bucket, as the node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitLine {
    /// The policy, the window and the values counted by.
    pub bucket: String,
    /// Empty: it does not count by one.
    pub consumer: String,
    pub limit: u64,
    /// Within the window, by all nodes, as far as this one knows.
    pub used: u64,
    /// What this node has of the limit and has not spent.
    pub leased: u64,
    /// Roughly what is left for everybody.
    pub remaining: u64,
    /// How long until the first that was spent counts no more, in milliseconds; 0: nothing counts.
    pub reset_ms: u64,
    /// `exact`, or how it is decided while Redis cannot be asked: `share`, `denied`, `open`.
    pub state: String,
    /// `strict`, `leased`, or `local`.
    pub mode: String,
}

impl LimitLine {
    /// An answer's bytes. Those past [`MAX_LIMIT_LINES`] are left out.
    pub fn encode(lines: &[LimitLine]) -> Vec<u8> {
        let mut out = Out::default();
        let most = lines.len().min(MAX_LIMIT_LINES);
        out.list(&lines[..most], |out, line| {
            out.text(&line.bucket);
            out.text(&line.consumer);
            for number in [line.limit, line.used, line.leased, line.remaining, line.reset_ms] {
                out.u64(number);
            }
            out.text(&line.state);
            out.text(&line.mode);
        });
        out.bytes
    }

    /// Reads what [`LimitLine::encode`] wrote.
    ///
    /// # Errors
    /// Anything else.
    pub fn decode(bytes: &[u8]) -> Result<Vec<LimitLine>, DecodeError> {
        let mut input = In::new(bytes, 0);
        let lines = input.list("limits", MAX_LIMIT_LINES, |input| {
            Ok(LimitLine {
                bucket: input.text("limits.bucket")?,
                consumer: input.text("limits.consumer")?,
                limit: input.u64("limits.limit")?,
                used: input.u64("limits.used")?,
                leased: input.u64("limits.leased")?,
                remaining: input.u64("limits.remaining")?,
                reset_ms: input.u64("limits.reset_ms")?,
                state: input.text("limits.state")?,
                mode: input.text("limits.mode")?,
            })
        })?;
        input.end()?;
        Ok(lines)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_nothing_else_is_taken() {
        let line = LimitLine {
            bucket: "gold:1s:consumer=acme".into(),
            consumer: "acme".into(),
            limit: 100,
            used: 7,
            leased: 20,
            remaining: 93,
            reset_ms: 850,
            state: "exact".into(),
            mode: "leased".into(),
        };
        let bytes = LimitLine::encode(&[line.clone(), LimitLine::default()]);
        assert_eq!(LimitLine::decode(&bytes), Ok(vec![line, LimitLine::default()]));
        for cut in 0..bytes.len() {
            assert!(LimitLine::decode(&bytes[..cut]).is_err());
        }
        let more = [&bytes[..], b"x"].concat();
        assert!(LimitLine::decode(&more).is_err());
        let many = vec![LimitLine::default(); MAX_LIMIT_LINES + 1];
        let read = LimitLine::decode(&LimitLine::encode(&many)).unwrap();
        assert_eq!(read.len(), MAX_LIMIT_LINES);
    }
}
