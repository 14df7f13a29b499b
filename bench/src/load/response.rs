//! A response parser that takes bytes as they come and says when an answer has ended.

use crate::wire::{Body, Fields, HeadBuffer, Malformed, decimal, first_line};

/// One finished answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The server will close the connection after this answer.
    pub close: bool,
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    head: HeadBuffer,
    /// `Some` while a body is being read.
    body: Option<(Answer, Body)>,
    /// Answers to HEAD have no body whatever their fields say (RFC 9110 §9.3.2).
    head_only: bool,
}

impl Parser {
    pub fn new(head_only: bool) -> Self {
        Self { head: HeadBuffer::default(), body: None, head_only }
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
                let head_only = self.head_only;
                let (took, head) = self.head.take(rest, |head| parse_head(head, head_only))?;
                used += took;
                match head {
                    None => return Ok((used, None)),
                    Some((answer, _)) if answer.status / 100 == 1 => continue,
                    Some((answer, Body::Ended)) => return Ok((used, Some(answer))),
                    Some(begun) => self.body = Some(begun),
                }
                continue;
            };
            used += body.skip(rest)?;
            if *body == Body::Ended {
                let answer = *answer;
                self.body = None;
                return Ok((used, Some(answer)));
            }
            return Ok((used, None));
        }
    }

    /// The connection has ended: the answer, if that is how its body was to end.
    pub fn end(&mut self) -> Option<Answer> {
        match self.body.take() {
            Some((answer, Body::UntilClose)) => Some(answer),
            _ => None,
        }
    }
}

fn parse_head(head: &[u8], head_only: bool) -> Result<(Answer, Body), Malformed> {
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
    Ok((Answer { status, close }, body))
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
        assert_eq!(parser.end(), Some(Answer { status: 200, close: true }));
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
        let answer = Answer { status: 200, close: false };
        assert_eq!(parser.feed(input), Ok((input.len(), Some(answer))));
    }
}
