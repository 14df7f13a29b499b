//! Encoding of header blocks, without state: indices of the static table where they match, literals
//! without indexing elsewhere. Such a block means the same on every connection, so it can be
//! written before one is chosen, and again after one failed.

use super::huffman;
use super::table::STATIC;

/// Values shorter than this are never worth Huffman coding.
const SHORTEST: usize = 8;

/// Writes header blocks.
pub struct Encoder;

impl Encoder {
    /// Appends a field. The name is lower-cased on the way (RFC 9113 §8.2.1).
    pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let sensitive = is_sensitive(name);
        // RFC 7541 §6.2.2 without indexing, §6.2.3 never indexed (§7.1.3).
        let kind = if sensitive { 0x10 } else { 0 };
        match static_name(name) {
            Some((index, exact)) if !exact.is_empty() && exact == value => {
                integer(out, 0x80, 7, index);
            }
            Some((index, _)) => {
                integer(out, kind, 4, index);
                literal(out, value);
            }
            None => {
                out.push(kind);
                lower_case(out, name);
                literal(out, value);
            }
        }
    }

    /// `:status`, which must be the first field of a response.
    pub fn status(out: &mut Vec<u8>, status: u16) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let digit = |n: u16| b'0' + (n % 10) as u8;
                let digits = [digit(status / 100), digit(status / 10), digit(status)];
                out.extend_from_slice(&[8, 3]);
                out.extend_from_slice(&digits);
                return;
            }
        };
        out.push(0x80 | index);
    }

    /// `:method`.
    pub fn method(out: &mut Vec<u8>, method: &[u8]) {
        match method {
            b"GET" => out.push(0x82),
            b"POST" => out.push(0x83),
            _ => Encoder::pseudo(out, 2, method),
        }
    }

    /// `:scheme`.
    pub fn scheme(out: &mut Vec<u8>, scheme: &[u8]) {
        match scheme {
            b"http" => out.push(0x86),
            b"https" => out.push(0x87),
            _ => Encoder::pseudo(out, 6, scheme),
        }
    }

    /// `:authority`.
    pub fn authority(out: &mut Vec<u8>, authority: &[u8]) {
        Encoder::pseudo(out, 1, authority);
    }

    /// `:path`: path and query as HTTP/1 has them in the request target.
    pub fn path(out: &mut Vec<u8>, path: &[u8]) {
        match path {
            b"/" => out.push(0x84),
            _ => Encoder::pseudo(out, 4, path),
        }
    }

    /// `:protocol` (RFC 8441).
    pub fn protocol(out: &mut Vec<u8>, protocol: &[u8]) {
        out.push(0);
        lower_case(out, b":protocol");
        literal(out, protocol);
    }

    fn pseudo(out: &mut Vec<u8>, index: u8, value: &[u8]) {
        out.push(index);
        literal(out, value);
    }
}

/// Fields whose values intermediaries must not put into tables (RFC 7541 §7.1.3): a table shared
/// by several parties can be probed.
fn is_sensitive(name: &[u8]) -> bool {
    match name.len() {
        6 => name.eq_ignore_ascii_case(b"cookie"),
        10 => name.eq_ignore_ascii_case(b"set-cookie"),
        13 => name.eq_ignore_ascii_case(b"authorization"),
        19 => name.eq_ignore_ascii_case(b"proxy-authorization"),
        _ => false,
    }
}

/// For each length, where the static names of that length are: (start, end) into [`BY_LENGTH`].
const LONGEST: usize = 27;

/// Static indices of regular names, by length of the name.
const BY_LENGTH: ([u8; 47], [u8; LONGEST + 2]) = {
    let mut order = [0; 47];
    let mut starts = [0; LONGEST + 2];
    let (mut n, mut length) = (0, 0);
    while length <= LONGEST {
        starts[length] = n as u8;
        let mut at = 14; // Behind the pseudo-header fields.
        while at < 61 {
            if STATIC[at].0.len() == length {
                order[n] = at as u8 + 1;
                n += 1;
            }
            at += 1;
        }
        length += 1;
    }
    starts[LONGEST + 1] = n as u8;
    (order, starts)
};

/// The static index of a regular name, in any case, and the value that index would say.
#[inline]
fn static_name(name: &[u8]) -> Option<(usize, &'static [u8])> {
    let (order, starts) = &BY_LENGTH;
    let from = *starts.get(name.len())? as usize;
    let to = *starts.get(name.len() + 1)? as usize;
    for &index in order.get(from..to)? {
        let (known, value) = STATIC.get(index as usize - 1)?;
        if known.eq_ignore_ascii_case(name) {
            return Some((index as usize, value));
        }
    }
    None
}

/// An integer (RFC 7541 §5.1) in the low `bits` of a byte that begins with `kind`.
#[inline]
fn integer(out: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        out.push(kind | value as u8);
        return;
    }
    out.push(kind | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A value: as it is. Huffman coding would save about a fifth of the bytes for several times the
/// work, and it is the work that a gateway runs out of.
#[inline]
fn literal(out: &mut Vec<u8>, value: &[u8]) {
    integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

fn lower_case(out: &mut Vec<u8>, name: &[u8]) {
    integer(out, 0, 7, name.len());
    let start = out.len();
    out.extend_from_slice(name);
    if let Some(name) = out.get_mut(start..) {
        name.make_ascii_lowercase();
    }
}

/// Appends a string in whichever form is shorter. For measurements and tests of decoders.
#[doc(hidden)]
pub fn shortest(out: &mut Vec<u8>, value: &[u8]) {
    let coded = huffman::encoded_len(value);
    if value.len() < SHORTEST || coded >= value.len() {
        literal(out, value);
    } else {
        integer(out, 0x80, 7, coded);
        huffman::encode(value, out);
    }
}
