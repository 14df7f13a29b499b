//! A response parser that takes bytes as they come and says when an answer has ended.

use crate::faults::origin::{BODY_BYTES, ID_DIGITS, ID_FIELD};
use crate::wire::{Body, Fields, HeadBuffer, Malformed, decimal, first_line, value};

/// One finished answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The server will close the connection after this answer.
    pub close: bool,
    /// The id of the request that it belongs to, where ids are checked and the answer is whole:
    /// head and body agree, and the body has all of its bytes.
    pub id: Option<u64>,
}

/// What of a body matters to the check of its id.
#[derive(Debug, Default)]
struct Seal {
    begin: Vec<u8>,
    bytes: usize,
}

impl Seal {
    fn take(&mut self, body: &[u8]) {
        let missing = ID_DIGITS.saturating_sub(self.begin.len());
        self.begin.extend_from_slice(body.get(..missing).unwrap_or(body));
        self.bytes += body.len();
    }

    /// The answer with its id, if this body is the one that belongs to it.
    fn close(&self, answer: Answer) -> Answer {
        let right = self.bytes == BODY_BYTES && digits(&self.begin) == answer.id;
        Answer { id: answer.id.filter(|_| right), ..answer }
    }
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    head: HeadBuffer,
    /// `Some` while a body is being read.
    body: Option<(Answer, Body)>,
    /// Answers to HEAD have no body whatever their fields say (RFC 9110 §9.3.2).
    head_only: bool,
    /// Set where ids are checked. Bodies must then have a length: chunks are not taken apart.
    seal: Option<Seal>,
}

impl Parser {
    pub fn new(head_only: bool) -> Self {
        Self { head: HeadBuffer::default(), body: None, head_only, seal: None }
    }

    /// Reads the ids of answers, too.
    pub fn checking(head_only: bool) -> Self {
        Self { seal: Some(Seal::default()), ..Self::new(head_only) }
    }

    /// Whether `answer` is not the one to the request `id`. Without a check none is.
    pub fn is_wrong(&self, answer: &Answer, id: u64) -> bool {
        match answer.id {
            Some(other) => other != id,
            // Proxies refuse with answers of their own.
            None => self.seal.is_some() && answer.status == 200,
        }
    }

    /// Takes some of `input`: at most to the end of one answer. Returns the bytes used, and the
    /// answer if it has ended. Interim answers (1xx) are passed over.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Answer>), Malformed> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Some((answer, body)) = self.body.as_mut() else {
                if rest.is_empty() {
                    return Ok((used, None));
                }
                let (head_only, checks) = (self.head_only, self.seal.is_some());
                let parse = |head: &[u8]| parse_head(head, head_only, checks);
                let (took, head) = self.head.take(rest, parse)?;
                used += took;
                if let Some(seal) = &mut self.seal {
                    *seal = Seal::default();
                }
                match head {
                    None => return Ok((used, None)),
                    Some((answer, _)) if answer.status / 100 == 1 => continue,
                    Some((answer, Body::Ended)) => return Ok((used, Some(answer))),
                    Some(begun) => self.body = Some(begun),
                }
                continue;
            };
            let took = body.skip(rest)?;
            used += took;
            if let Some(seal) = &mut self.seal {
                seal.take(rest.get(..took).unwrap_or_default());
            }
            if *body == Body::Ended {
                let answer = *answer;
                self.body = None;
                let answer = self.seal.as_ref().map_or(answer, |seal| seal.close(answer));
                return Ok((used, Some(answer)));
            }
            return Ok((used, None));
        }
    }

    /// The connection has ended: the answer, if that is how its body was to end.
    pub fn end(&mut self) -> Option<Answer> {
        match self.body.take() {
            Some((answer, Body::UntilClose)) => {
                Some(self.seal.as_ref().map_or(answer, |seal| seal.close(answer)))
            }
            _ => None,
        }
    }
}

fn parse_head(head: &[u8], head_only: bool, checks: bool) -> Result<(Answer, Body), Malformed> {
    let line = first_line(head);
    let minor = match line.get(..9) {
        Some(b"HTTP/1.1 ") => 1,
        Some(b"HTTP/1.0 ") => 0,
        _ => return Err(Malformed::FirstLine),
    };
    let status = line.get(9..12).and_then(decimal).ok_or(Malformed::FirstLine)? as u16;
    let fields = Fields::parse(head)?;
    // RFC 9112 §6.3: what decides the length, in this order.
    let body = if head_only || status / 100 == 1 || status == 204 || status == 304 {
        Body::Ended
    } else if fields.chunked {
        Body::CHUNKED
    } else {
        match fields.content_length {
            Some(0) => Body::Ended,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        }
    };
    let close = fields.close || (minor == 0 && !fields.keep_alive) || body == Body::UntilClose;
    let id = if checks { value(head, ID_FIELD.as_bytes()).and_then(digits) } else { None };
    Ok((Answer { status, close, id }, body))
}

/// An id: all of its digits.
fn digits(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == ID_DIGITS)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
        HTTP/1.0 500 No\r\ncontent-length: 1\r\nConnection: keep-alive\r\n\r\nx\
        HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";

    fn answers(pieces: &[&[u8]]) -> Vec<(u16, bool)> {
        let mut parser = Parser::new(false);
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (used, answer) = parser.feed(rest).unwrap();
                out.extend(answer.map(|answer| (answer.status, answer.close)));
                rest = &rest[used..];
            }
        }
        out
    }

    fn expected() -> Vec<(u16, bool)> {
        [(200, false), (204, false), (404, false), (200, false), (500, false), (503, true)].into()
    }

    #[test]
    fn one_piece() {
        assert_eq!(answers(&[STREAM]), expected());
    }

    #[test]
    fn every_single_split_and_byte_by_byte() {
        for at in 0..STREAM.len() {
            let (left, right) = STREAM.split_at(at);
            assert_eq!(answers(&[left, right]), expected(), "split at {at}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(answers(&bytes), expected());
    }

    proptest! {
        #[test]
        fn any_splits(mut cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&STREAM[from..cut]);
                from = cut;
            }
            pieces.push(&STREAM[from..]);
            prop_assert_eq!(answers(&pieces), expected());
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut parser = Parser::new(false);
            let mut rest = &noise[..];
            while !rest.is_empty() {
                let Ok((used, _)) = parser.feed(rest) else { break };
                prop_assert!(used > 0);
                rest = &rest[used..];
            }
        }
    }

    #[test]
    fn a_body_may_end_with_the_connection() {
        let mut parser = Parser::new(false);
        let input = b"HTTP/1.1 200 OK\r\n\r\nsome";
        assert_eq!(parser.feed(input), Ok((input.len(), None)));
        assert_eq!(parser.end(), Some(Answer { status: 200, close: true, id: None }));
    }

    #[test]
    fn a_cut_body_is_no_answer() {
        let mut parser = Parser::new(false);
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome").unwrap();
        assert_eq!(parser.end(), None);
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut parser = Parser::new(true);
        let input = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        let answer = Answer { status: 200, close: false, id: None };
        assert_eq!(parser.feed(input), Ok((input.len(), Some(answer))));
    }

    #[test]
    fn only_the_whole_answer_to_this_request_is_right() {
        let answer = |head: &str, body: &str, length: usize| {
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\nX-Bench-Id: {head}\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes();
            bytes.resize(bytes.len() + length - body.len(), b'x');
            let mut parser = Parser::checking(false);
            let mut answer = None;
            for piece in bytes.chunks(7) {
                answer = parser.feed(piece).unwrap().1;
            }
            (answer.unwrap(), parser)
        };
        let (mine, other) = ("00000000000000000042", "00000000000000000043");
        let (good, parser) = answer(mine, mine, BODY_BYTES);
        assert_eq!(good.id, Some(42));
        assert!(!parser.is_wrong(&good, 42) && parser.is_wrong(&good, 43));
        for (head, body, length) in
            [(mine, other, BODY_BYTES), (mine, mine, BODY_BYTES - 1), ("", mine, BODY_BYTES)]
        {
            let (bad, parser) = answer(head, body, length);
            assert!(parser.is_wrong(&bad, 42), "{head} {body} {length}");
        }
        assert!(!Parser::new(false).is_wrong(&Answer { id: None, ..good }, 42));
        assert!(!parser.is_wrong(&Answer { status: 502, close: false, id: None }, 42));
        assert!(parser.is_wrong(&Answer { status: 503, close: false, id: Some(41) }, 42));
    }
}
