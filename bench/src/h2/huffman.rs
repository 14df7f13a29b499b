//! Huffman coding of header strings (RFC 7541 §5.2). The code is canonical: of the table in
//! appendix B the lengths alone say everything.

/// Bits of the code of each byte, and of the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
    10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8,
    15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21,
    23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const END_OF_STRING: u16 = 256;

/// The canonical code: symbols by length and value, and for each length its first code, the place
/// of that code's symbol, and the bound (left-aligned in 32 bits) that its codes stay under.
struct Code {
    symbols: [u16; 257],
    codes: [u32; 257],
    first: [u32; LONGEST + 1],
    place: [usize; LONGEST + 1],
    bound: [u64; LONGEST + 1],
}

static CODE: Code = build();

#[allow(clippy::indexing_slicing)]
const fn build() -> Code {
    let mut code = Code {
        symbols: [0; 257],
        codes: [0; 257],
        first: [0; LONGEST + 1],
        place: [0; LONGEST + 1],
        bound: [0; LONGEST + 1],
    };
    let (mut next, mut count, mut length) = (0u32, 0, SHORTEST);
    while length <= LONGEST {
        (code.first[length], code.place[length]) = (next, count);
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                code.symbols[count] = symbol as u16;
                code.codes[symbol] = next;
                count += 1;
                next += 1;
            }
            symbol += 1;
        }
        code.bound[length] = (next as u64) << (32 - length);
        next <<= 1;
        length += 1;
    }
    code
}

/// Appends what `input` decodes to; `None` if it is not well formed.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut bytes = input.iter();
    // The next bits, at the top, and how many of them are there.
    let (mut bits, mut held) = (0u64, 0usize);
    loop {
        while held <= 56 {
            let Some(&byte) = bytes.next() else { break };
            bits |= u64::from(byte) << (56 - held);
            held += 8;
        }
        if held == 0 {
            return Some(());
        }
        let window = bits >> 32;
        let length = (SHORTEST..=LONGEST)
            .find(|&length| CODE.bound.get(length).is_some_and(|&bound| window < bound));
        let length = match length {
            Some(length) if length <= held => length,
            // Fewer than eight ones fill the last byte.
            _ if held < 8 && bits >> (64 - held) == (1 << held) - 1 => return Some(()),
            _ => return None,
        };
        let code = (bits >> (64 - length)) as u32;
        let place = CODE.place.get(length)? + (code - CODE.first.get(length)?) as usize;
        let symbol = *CODE.symbols.get(place)?;
        if symbol == END_OF_STRING {
            return None;
        }
        out.push(symbol as u8);
        bits <<= length;
        held -= length;
    }
}

/// The length of `input` in the code, in bytes.
pub fn encoded_bytes(input: &[u8]) -> usize {
    let length = |&byte: &u8| LENGTHS.get(usize::from(byte)).copied().map_or(0, usize::from);
    input.iter().map(length).sum::<usize>().div_ceil(8)
}

/// Appends `input` in the code.
pub fn encode(input: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u64, 0);
    for &byte in input {
        let at = usize::from(byte);
        let (Some(&code), Some(&length)) = (CODE.codes.get(at), LENGTHS.get(at)) else { return };
        bits = bits << length | u64::from(code);
        held += u32::from(length);
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8 | 0xff >> held);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(input: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541 C.4.1, C.6.1.
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&coded).as_deref(), Some(&b"www.example.com"[..]));
        let mut out = Vec::new();
        encode(b"www.example.com", &mut out);
        assert_eq!(out, coded);
        assert_eq!(decoded(&[0x64, 0x02]).as_deref(), Some(&b"302"[..]));
    }

    #[test]
    fn bad_padding_and_the_end_symbol_are_refused() {
        assert_eq!(decoded(&[0x00]), None, "zeros as padding");
        assert_eq!(decoded(&[0x64, 0x02, 0xff]), None, "eight bits of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "end of string");
        assert_eq!(decoded(&[]).as_deref(), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut coded = Vec::new();
            encode(&text, &mut coded);
            prop_assert_eq!(coded.len(), encoded_bytes(&text));
            prop_assert_eq!(decoded(&coded), Some(text));
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..100)) {
            decoded(&noise);
        }
    }
}
