//! The Huffman code of RFC 7541 Appendix B. It is canonical, so the lengths are all that has to be
//! written down; codes and decoding tables are computed from them when this is compiled.

/// Bits of each byte's code.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Longest code. 30 ones are EOS.
const LONGEST: usize = 30;

/// Bits that one look into [`SHORT`] covers.
const LOOK: u32 = 10;

/// Codes of each byte, in the low bits.
const CODES: [u32; 256] = codes();

/// By the next [`LOOK`] bits: the byte in the low half and the length of its code in the high
/// half; 0 where the code is longer.
static SHORT: [u16; 1 << LOOK] = short();

/// Bytes in the order of their codes.
static ORDER: [u8; 256] = order();

/// For each length: the first code, and where its byte stands in [`ORDER`].
const FIRST: [(u32, u32); LONGEST + 2] = first();

const fn order() -> [u8; 256] {
    let mut order = [0; 256];
    let (mut n, mut length) = (0, 1);
    while length <= LONGEST {
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                order[n] = byte as u8;
                n += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    order
}

const fn first() -> [(u32, u32); LONGEST + 2] {
    let mut first = [(0, 0); LONGEST + 2];
    let (mut code, mut at, mut length) = (0u32, 0, 1);
    while length <= LONGEST + 1 {
        code <<= 1;
        first[length] = (code, at);
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                code += 1;
                at += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    first
}

const fn codes() -> [u32; 256] {
    let mut codes = [0; 256];
    let (mut code, mut length) = (0u32, 1);
    while length <= LONGEST {
        code <<= 1;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                codes[byte] = code;
                code += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    codes
}

const fn short() -> [u16; 1 << LOOK] {
    let mut table = [0; 1 << LOOK];
    let codes = codes();
    let mut byte = 0;
    while byte < 256 {
        let length = LENGTHS[byte] as u32;
        if length <= LOOK {
            let start = codes[byte] << (LOOK - length);
            let mut n = 0;
            while n < 1 << (LOOK - length) {
                table[(start + n) as usize] = (length as u16) << 8 | byte as u16;
                n += 1;
            }
        }
        byte += 1;
    }
    table
}

/// The code is broken: EOS inside, or padding that is not up to 7 ones (RFC 7541 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCode;

/// Decodes `source` behind what `out` holds, up to `room` bytes; the rest is only counted.
/// Returns the decoded length.
pub(super) fn decode(source: &[u8], out: &mut Vec<u8>, room: usize) -> Result<usize, BadCode> {
    // The shortest code has 5 bits: 8 bytes become at most 12.8.
    out.reserve(room.min(source.len() / 5 * 8 + 8));
    let (mut bits, mut have) = (0u64, 0u32); // The next bits stand in the high end of `bits`.
    let mut rest = source;
    let mut length = 0;
    loop {
        if have < 32 {
            if let Some((four, behind)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*four)) << (32 - have);
                have += 32;
                rest = behind;
            } else {
                for &byte in rest {
                    bits |= u64::from(byte) << (56 - have);
                    have += 8;
                }
                rest = &[];
            }
        }
        // Bits behind the end are zeros; `have` tells them from code.
        let entry = SHORT.get((bits >> (64 - LOOK)) as usize).copied().unwrap_or(0);
        let (byte, used) = if entry != 0 {
            (entry as u8, u32::from(entry >> 8))
        } else {
            // None: EOS, or what begins like it; padding if it is all that is left.
            long((bits >> 34) as u32).unwrap_or((0, u32::MAX))
        };
        if used > have {
            // RFC 7541 §5.2: padding is the beginning of EOS, shorter than a byte.
            let ones = !(u64::MAX.checked_shr(have).unwrap_or(0));
            return if have < 8 && bits & ones == ones { Ok(length) } else { Err(BadCode) };
        }
        if length < room {
            out.push(byte);
        }
        length += 1;
        bits <<= used;
        have -= used;
    }
}

/// The byte whose code begins the 30 bits, and the code's length.
#[cold]
fn long(bits: u32) -> Option<(u8, u32)> {
    for length in LOOK as usize + 1..=LONGEST {
        let code = bits >> (LONGEST - length);
        // Codes of this length come before the first code of the next length, halved.
        let (start, at) = FIRST[length];
        let count = FIRST[length + 1].1 - at;
        if code < start + count {
            let byte = ORDER.get((at + code.checked_sub(start)?) as usize)?;
            return Some((*byte, length as u32));
        }
    }
    None
}

/// Bytes that `text` has when encoded.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| LENGTHS[byte as usize] as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut have) = (0u64, 0u32); // The low `have` bits are still to be written.
    for &byte in text {
        let length = u32::from(LENGTHS[byte as usize]);
        bits = bits << length | u64::from(CODES[byte as usize]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    if have > 0 {
        out.push(((bits << (8 - have)) as u8) | (0xff >> have));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_code_is_the_rfcs() {
        // Spots of RFC 7541 Appendix B, of every length class.
        for (byte, code, bits) in [
            (b'0', 0x0, 5),
            (b' ', 0x14, 6),
            (b':', 0x5c, 7),
            (b'X', 0xfc, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (b'#', 0xffa, 12),
            (0, 0x1ff8, 13),
            (b'<', 0x7ffc, 15),
            (b'\\', 0x7fff0, 19),
            (128, 0xfffe6, 20),
            (9, 0xffffea, 24),
            (255, 0x3ffffee, 26),
            (249, 0xffffffe, 28),
            (10, 0x3ffffffc, 30),
            (22, 0x3ffffffe, 30),
        ] {
            assert_eq!((CODES[byte as usize], LENGTHS[byte as usize]), (code, bits), "{byte}");
        }
    }

    #[test]
    fn padding_must_be_ones_and_short() {
        let mut out = Vec::new();
        // "0" is five zeros: three ones must follow.
        assert_eq!(decode(&[0b0000_0111], &mut out, 9), Ok(1));
        for bad in [&[0b0000_0110][..], &[0, 0, 0], &[0b0000_0111, 0xff]] {
            assert_eq!(decode(bad, &mut out, 9), Err(BadCode), "{bad:?}");
        }
        assert_eq!(decode(&[0xff], &mut out, 9), Err(BadCode), "eight bits of padding");
        assert_eq!(decode(&[0xff; 4], &mut out, 9), Err(BadCode), "EOS");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xfc], &mut out, 9), Err(BadCode), "EOS");
    }

    #[test]
    fn no_more_than_the_room_is_kept() {
        let (mut code, mut out) = (Vec::new(), b"x".to_vec());
        encode(&[b'a'; 100], &mut code);
        assert_eq!(decode(&code, &mut out, 7), Ok(100));
        assert_eq!(out, b"xaaaaaaa");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut code, mut out) = (Vec::new(), Vec::new());
            encode(&text, &mut code);
            prop_assert_eq!(code.len(), encoded_len(&text));
            prop_assert_eq!(decode(&code, &mut out, 1000), Ok(text.len()));
            prop_assert_eq!(out, text);
        }

        /// Whatever decodes is what encoding gives: no two codes of one text.
        #[test]
        fn what_is_decoded_is_encoded(code in prop::collection::vec(any::<u8>(), 0..60)) {
            let (mut text, mut again) = (Vec::new(), Vec::new());
            if let Ok(length) = decode(&code, &mut text, 1000) {
                prop_assert_eq!(length, text.len());
                encode(&text, &mut again);
                prop_assert_eq!(again, code);
            }
        }
    }
}
