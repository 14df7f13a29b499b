//! Content codings (RFC 9110 §8.4): gzip, deflate, br (RFC 7932) and zstd (RFC 8878).

mod answer;
mod decode;
mod encode;
mod negotiate;

pub use answer::{Compression, Encoding, compress, encode_elsewhere, weaken};
pub use decode::{Decoder, Undecodable, decode_all};
pub use encode::{Encoder, Encoders};
pub use negotiate::{choose, known};

/// A coding other than identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    Gzip,
    /// The zlib format (RFC 1950), as RFC 9110 §8.4.1.2 has it.
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    pub const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

    /// As it stands in fields.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// RFC 9110 §8.4.1: without case; `x-gzip` is gzip.
    pub fn named(name: &[u8]) -> Option<Coding> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match is("x-gzip") {
            true => Some(Coding::Gzip),
            false => Coding::ALL.into_iter().find(|coding| is(coding.name())),
        }
    }

    /// The codings of a message in the order in which they were applied, identity left out.
    ///
    /// # Errors
    /// One that is not known, or more than two: nobody needs more, and each multiplies what a small body
    /// can become.
    pub fn list<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Result<Vec<Coding>, Unknown> {
        let mut list = Vec::new();
        for value in values {
            for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                    continue;
                }
                list.push(Coding::named(name).ok_or(Unknown)?);
            }
        }
        if list.len() > 2 { Err(Unknown) } else { Ok(list) }
    }
}

/// A coding that cannot be undone here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits;

    fn encoded(coding: Coding, level: u8, pieces: &[&[u8]], flush: bool) -> Vec<u8> {
        let encoders = Encoders::default();
        let mut encoder = encoders.take(coding, level);
        let mut out = Vec::new();
        for piece in pieces {
            encoder.pass(piece, flush, &mut out);
        }
        encoder.finish(&mut out);
        encoders.give(encoder);
        out
    }

    #[test]
    fn others_can_read_what_is_encoded() {
        use std::io::Read;
        let text = "hello hello hello ".repeat(100).into_bytes();
        let of = |coding| encoded(coding, 3, &[&text], false);
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&of(Coding::Gzip)[..]).read_to_end(&mut out).unwrap();
        assert_eq!(out, text);
        out.clear();
        flate2::read::ZlibDecoder::new(&of(Coding::Deflate)[..]).read_to_end(&mut out).unwrap();
        assert_eq!(out, text);
        out.clear();
        brotli::Decompressor::new(&of(Coding::Brotli)[..], 4096).read_to_end(&mut out).unwrap();
        assert_eq!(out, text);
        assert_eq!(zstd::decode_all(&of(Coding::Zstd)[..]).unwrap(), text);
    }

    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        for coding in Coding::ALL {
            let mut encoder = Encoders::default().take(coding, 3);
            let mut decoder = Decoder::new(coding, 10_000).unwrap();
            for part in ["data: one\n\n", "data: two\n\n"] {
                let (mut sent, mut got) = (Vec::new(), Vec::new());
                encoder.pass(part.as_bytes(), true, &mut sent);
                decoder.pass(&sent, false, &mut got).unwrap();
                assert_eq!(got, part.as_bytes(), "{coding:?}");
            }
        }
    }

    #[test]
    fn an_encoder_is_used_again() {
        let encoders = Encoders::default();
        for coding in Coding::ALL {
            for cut in [false, true, false] {
                let mut encoder = encoders.take(coding, 3);
                let mut out = Vec::new();
                encoder.pass(b"some text", cut, &mut out);
                if cut {
                    // Given back in the middle: nothing of it may be in the next one.
                    encoders.give(encoder);
                    continue;
                }
                encoder.finish(&mut out);
                encoders.give(encoder);
                assert_eq!(decode_all(&[coding], &out, 100).unwrap(), b"some text");
            }
        }
    }

    #[test]
    fn a_bomb_goes_off_nowhere() {
        let zeros = vec![0; 20 << 20];
        for coding in Coding::ALL {
            let bomb = encoded(coding, 5, &[&zeros], false);
            let most = 10 << 20;
            assert_eq!(
                decode_all(&[coding], &bomb, most),
                Err(Undecodable::TooLarge),
                "{coding:?}"
            );
            // Within the bound, but out of all proportion.
            let found = decode_all(&[coding], &bomb, 1 << 30);
            assert_eq!(found, Err(Undecodable::TooLarge), "{coding:?}: {}", bomb.len());
            let twice = encoded(Coding::Gzip, 5, &[&bomb], false);
            let found = decode_all(&[coding, Coding::Gzip], &twice, 1 << 30);
            assert_eq!(found, Err(Undecodable::TooLarge));
        }
    }

    #[test]
    fn what_is_cut_or_garbled_is_refused() {
        let text = b"hello hello hello hello".repeat(20);
        for coding in Coding::ALL {
            let whole = encoded(coding, 3, &[&text], false);
            for length in 0..whole.len() {
                let found = decode_all(&[coding], &whole[..length], 1000);
                assert_eq!(found, Err(Undecodable::Malformed), "{coding:?} {length}");
            }
            let behind = [&whole[..], b"x"].concat();
            assert_eq!(
                decode_all(&[coding], &behind, 1000),
                Err(Undecodable::Malformed),
                "{coding:?}"
            );
        }
        // Deflate without its zlib header, as some send it.
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut raw, &text).unwrap();
        assert_eq!(decode_all(&[Coding::Deflate], &raw.finish().unwrap(), 1000).unwrap(), text);
        // Members one after the other are one body (RFC 1952 §2.2).
        let members =
            [encoded(Coding::Gzip, 1, &[b"ab"], false), encoded(Coding::Gzip, 1, &[b"c"], false)];
        assert_eq!(decode_all(&[Coding::Gzip], &members.concat(), 1000).unwrap(), b"abc");
    }

    #[test]
    fn codings_are_read_in_their_order() {
        let list = |values: &[&str]| Coding::list(values.iter().map(|value| value.as_bytes()));
        assert_eq!(list(&["GZIP, identity", "br"]), Ok(vec![Coding::Gzip, Coding::Brotli]));
        assert_eq!(list(&["x-gzip,"]), Ok(vec![Coding::Gzip]));
        assert_eq!(list(&[""]), Ok(vec![]));
        assert_eq!(list(&["compress"]), Err(Unknown));
        assert_eq!(list(&["br,br,br"]), Err(Unknown));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn however_it_is_cut_it_comes_back(
            data in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..2000),
            cuts in prop::collection::vec(0usize..2000, 0..5),
            level in 1u8..=9, flush in any::<bool>(), which in 0usize..4, step in 1usize..50,
        ) {
            let coding = Coding::ALL[which];
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([data.len()]) {
                pieces.push(&data[from..cut]);
                from = cut;
            }
            let sent = encoded(coding, level, &pieces, flush);
            prop_assert_eq!(&decode_all(&[coding], &sent, 2000).unwrap(), &data);
            let mut decoder = Decoder::new(coding, 2000).unwrap();
            let mut got = Vec::new();
            for piece in sent.chunks(step) {
                decoder.pass(piece, false, &mut got).unwrap();
            }
            decoder.pass(b"", true, &mut got).unwrap();
            prop_assert_eq!(got, data);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            data in prop::collection::vec(any::<u8>(), 0..200), which in 0usize..4,
        ) {
            if let Ok(out) = decode_all(&[Coding::ALL[which]], &data, 1 << 16) {
                prop_assert!(out.len() <= 1 << 16);
            }
        }
    }

    const _: () = assert!(limits::DECODE_RATIO > 100);
}
