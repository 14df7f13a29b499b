//! What a signed body has to be (RFC 9530): it is hashed as it comes, and compared with what the
//! signature covers. Otherwise a body could be exchanged under a good signature (RFC 9421 §7.2.8).

use std::fmt;

use ring::digest::{Algorithm, Context, SHA256, SHA512};
use sfv::{BareItem, Dictionary, ListEntry};

use crate::message::Framing;

/// A body on its way, and the digests that it has to have.
#[derive(Clone, Debug)]
pub struct ContentDigest {
    sums: Vec<Sum>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
}

#[derive(Clone)]
struct Sum {
    context: Context,
    wanted: Vec<u8>,
}

/// What is known of a body once some of it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// More of it is to come.
    Some,
    Right,
    Wrong,
}

impl ContentDigest {
    /// The digests in a `Content-Digest`, by all algorithms that we know: others are passed over
    /// (RFC 9530 §2), broken ones such as MD5 among them. `None`: there is nothing to compare with.
    pub fn read(field: &Dictionary, framing: Framing) -> Option<ContentDigest> {
        let known: [(&str, &'static Algorithm); 2] = [("sha-256", &SHA256), ("sha-512", &SHA512)];
        let mut sums = Vec::new();
        for (name, algorithm) in known {
            let Some(entry) = field.get(name) else { continue };
            let ListEntry::Item(item) = entry else { return None };
            let BareItem::ByteSequence(wanted) = &item.bare_item else { return None };
            if wanted.len() != algorithm.output_len() {
                return None;
            }
            sums.push(Sum { context: Context::new(algorithm), wanted: wanted.clone() });
        }
        let left = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        (!sums.is_empty()).then_some(ContentDigest { sums, left })
    }

    /// Takes the next bytes of the body; `end`: there are no more. A body of known length is judged
    /// with its last byte: whoever gets that has the whole.
    pub fn pass(&mut self, bytes: &[u8], end: bool) -> Passed {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        for sum in &mut self.sums {
            sum.context.update(bytes);
        }
        if !end && self.left != Some(0) {
            return Passed::Some;
        }
        match self.sums.iter().all(Sum::is_right) {
            true => Passed::Right,
            false => Passed::Wrong,
        }
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sum").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Sum {
    fn is_right(&self) -> bool {
        self.context.clone().finish().as_ref() == self.wanted
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use ring::digest::digest;
    use sfv::Parser;

    use super::*;

    /// The body of RFC 9421 appendix B.2, where its SHA-512 stands.
    const BODY: &[u8] = b"{\"hello\": \"world\"}";
    const SHA_256: &str = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    const SHA_512: &str = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";

    fn read(field: &str, framing: Framing) -> Option<ContentDigest> {
        ContentDigest::read(&Parser::new(field).parse().unwrap(), framing)
    }

    fn judged(field: &str, body: &[u8]) -> Passed {
        read(field, Framing::Chunked).expect("a known algorithm").pass(body, true)
    }

    #[test]
    fn the_example_of_the_rfc_matches() {
        for field in [SHA_256, SHA_512, &format!("{SHA_256}, {SHA_512}")] {
            assert_eq!(judged(field, BODY), Passed::Right, "{field}");
            assert_eq!(judged(field, b"{\"hello\": \"World\"}"), Passed::Wrong, "{field}");
            assert_eq!(judged(field, b""), Passed::Wrong, "{field}");
        }
    }

    #[test]
    fn all_that_are_known_have_to_match() {
        let other = SHA_256.replace("X48", "X49");
        assert_eq!(judged(&format!("{other}, {SHA_512}"), BODY), Passed::Wrong);
        assert_eq!(judged(&format!("md5=:AA==:, {SHA_512};p=1, new=?1"), BODY), Passed::Right);
    }

    #[test]
    fn what_cannot_be_compared_is_none() {
        let short = "sha-256=:AAAA:";
        for field in ["", "md5=:AA==:", "sha=:AA==:", short, "sha-256=abc", "sha-256=(:AA==:)"] {
            assert!(read(field, Framing::Chunked).is_none(), "{field}");
        }
        assert!(read(&format!("{short}, {SHA_512}"), Framing::Chunked).is_none(), "one is broken");
    }

    #[test]
    fn a_known_length_is_judged_with_the_last_byte() {
        let length = Framing::Length(BODY.len() as u64);
        let mut content = read(SHA_512, length).unwrap();
        assert_eq!(content.pass(b"", false), Passed::Some);
        assert_eq!(content.pass(&BODY[..17], false), Passed::Some);
        assert_eq!(content.clone().pass(b"!", false), Passed::Wrong);
        assert_eq!(content.pass(&BODY[17..], false), Passed::Right);
        let mut unknown = read(SHA_512, Framing::Chunked).unwrap();
        assert_eq!(unknown.pass(BODY, false), Passed::Some);
        assert_eq!(unknown.pass(b"", true), Passed::Right);
        assert_eq!(read(SHA_512, Framing::None).unwrap().pass(b"", true), Passed::Wrong);
    }

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole_is(
            body in proptest::collection::vec(any::<u8>(), 1..300),
            cuts in proptest::collection::vec(0..300_usize, 0..6),
            known in any::<bool>(),
            flip in proptest::option::of(0..300_usize),
        ) {
            let wanted = STANDARD.encode(digest(&SHA256, &body));
            let framing = if known { Framing::Length(body.len() as u64) } else { Framing::Chunked };
            let mut content = read(&format!("sha-256=:{wanted}:"), framing).unwrap();
            let mut sent = body.clone();
            if let Some(at) = flip {
                let at = at % sent.len();
                sent[at] ^= 1;
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % sent.len()).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                prop_assert_eq!(content.pass(&sent[from..cut], false), Passed::Some);
                from = cut;
            }
            let judged = content.pass(&sent[from..], !known);
            prop_assert_eq!(judged, if flip.is_none() { Passed::Right } else { Passed::Wrong });
        }
    }
}
