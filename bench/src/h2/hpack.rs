//! Header compression (RFC 7541): a whole decoder, and as much of an encoder as sends the same
//! fields again and again.

use std::collections::VecDeque;

use super::Broken;
use super::huffman;

/// The dynamic table that both sides start with, in bytes (RFC 9113 §6.5.2).
pub const TABLE_BYTES: usize = 4096;
/// Says that the table is to have no room any more (RFC 7541 §6.3).
pub const EMPTY_TABLE: u8 = 0x20;
/// What an entry counts beyond its strings (RFC 7541 §4.1).
const ENTRY_BYTES: usize = 32;

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    max_bytes: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        let table = VecDeque::new();
        Self { table, bytes: 0, max_bytes: TABLE_BYTES, name: Vec::new(), value: Vec::new() }
    }
}

impl Decoder {
    /// Reads one header block. `field` is called with each name and value; the value of a name
    /// that is not `wanted` may be left undecoded and is not shown.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Broken> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                let (name, value) = self.entry(index)?;
                if wanted(name) {
                    field(name, value);
                }
                continue;
            }
            if first & 0xe0 == 0x20 {
                let size = integer(&mut block, 5)?;
                if size > TABLE_BYTES {
                    return Err(Broken::Compression);
                }
                self.max_bytes = size;
                self.evict(0);
                continue;
            }
            // A literal: to be kept (§6.2.1), or not (§6.2.2, §6.2.3).
            let keep = first & 0x40 != 0;
            let index = integer(&mut block, if keep { 6 } else { 4 })?;
            let mut name = std::mem::take(&mut self.name);
            name.clear();
            if index == 0 {
                string(&mut block)?.decode(&mut name)?;
            } else {
                name.extend_from_slice(self.entry(index)?.0);
            }
            let text = string(&mut block)?;
            let shown = wanted(&name);
            if shown || keep {
                self.value.clear();
                text.decode(&mut self.value)?;
                if shown {
                    field(&name, &self.value);
                }
                if keep {
                    self.keep(name.clone());
                }
            }
            self.name = name;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Broken> {
        let index = index.checked_sub(1).ok_or(Broken::Compression)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.table.get(index - STATIC.len()).ok_or(Broken::Compression)?;
        Ok((&entry.0, &entry.1))
    }

    /// Keeps `name` with the value last decoded.
    fn keep(&mut self, name: Vec<u8>) {
        let bytes = name.len() + self.value.len() + ENTRY_BYTES;
        self.evict(bytes);
        // One that is larger than the table empties it and is not kept (§4.4).
        if bytes <= self.max_bytes {
            self.bytes += bytes;
            self.table.push_front((name, self.value.clone()));
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.max_bytes {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

/// A string as it is on the wire.
struct Text<'a> {
    bytes: &'a [u8],
    coded: bool,
}

impl Text<'_> {
    fn decode(&self, out: &mut Vec<u8>) -> Result<(), Broken> {
        if self.coded {
            huffman::decode(self.bytes, out).ok_or(Broken::Compression)
        } else {
            out.extend_from_slice(self.bytes);
            Ok(())
        }
    }
}

fn string<'a>(block: &mut &'a [u8]) -> Result<Text<'a>, Broken> {
    let coded = block.first().ok_or(Broken::Compression)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Broken::Compression)?;
    *block = rest;
    Ok(Text { bytes, coded })
}

/// Reads an integer with a prefix of so many bits (§5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let (&first, mut rest) = block.split_first().ok_or(Broken::Compression)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(Broken::Compression)?;
            rest = after;
            // Nothing that we take is longer than 2^28 bytes.
            if shift > 21 {
                return Err(Broken::Compression);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

fn put_integer(value: usize, prefix: u32, high: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(high | value as u8);
        return;
    }
    out.push(high | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    let coded = huffman::encoded_bytes(text.as_bytes());
    if coded < text.len() {
        put_integer(coded, 7, 0x80, out);
        huffman::encode(text.as_bytes(), out);
    } else {
        put_integer(text.len(), 7, 0, out);
        out.extend_from_slice(text.as_bytes());
    }
}

fn static_index(test: impl Fn(&(&str, &str)) -> bool) -> usize {
    STATIC.iter().position(test).map_or(0, |at| at + 1)
}

/// The block of `fields` that leaves the other side's table alone.
pub fn stateless(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for &(name, value) in fields {
        match static_index(|entry| *entry == (name, value)) {
            0 => put_literal(name, value, 4, 0, &mut out),
            index => put_integer(index, 7, 0x80, &mut out),
        }
    }
    out
}

fn put_literal(name: &str, value: &str, prefix: u32, high: u8, out: &mut Vec<u8>) {
    let index = static_index(|entry| entry.0 == name);
    put_integer(index, prefix, high, out);
    if index == 0 {
        put_string(name, out);
    }
    put_string(value, out);
}

/// The blocks of `fields` as common clients send them: the first puts what is not in the static
/// table into the other side's dynamic one, all others only point there. `None` if the fields
/// would not fit the table that a peer has at the start.
pub fn indexed(fields: &[(&str, &str)]) -> Option<(Vec<u8>, Vec<u8>)> {
    let known = |field: &(&str, &str)| static_index(|entry| entry == field);
    let kept: Vec<_> = fields.iter().filter(|field| known(field) == 0).collect();
    let bytes: usize = kept.iter().map(|(n, v)| n.len() + v.len() + ENTRY_BYTES).sum();
    if bytes > TABLE_BYTES {
        return None;
    }
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    let mut older = kept.len();
    for field in fields {
        let (name, value) = *field;
        match known(field) {
            0 => {
                put_literal(name, value, 6, 0x40, &mut first);
                older -= 1;
                put_integer(STATIC.len() + 1 + older, 7, 0x80, &mut rest);
            }
            index => {
                put_integer(index, 7, 0x80, &mut first);
                put_integer(index, 7, 0x80, &mut rest);
            }
        }
    }
    Some((first, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let mut out = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(block, |_| true, |name, value| out.push((text(name), text(value))))?;
        Ok(out)
    }

    fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn the_request_examples_of_the_rfc() {
        // RFC 7541 C.4: three requests with Huffman coding on one connection.
        let mut decoder = Decoder::default();
        let first = fields(&mut decoder, &bytes("828684418cf1e3c2e5f23a6ba0ab90f4ff"));
        let common = [(":method", "GET"), (":scheme", "http")];
        let host = (":authority", "www.example.com");
        assert_eq!(first, Ok(owned(&[common[0], common[1], (":path", "/"), host])));
        let second = fields(&mut decoder, &bytes("828684be5886a8eb10649cbf")).unwrap();
        assert_eq!(second.last(), Some(&owned(&[("cache-control", "no-cache")])[0]));
        let third = bytes("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf");
        let third = fields(&mut decoder, &third).unwrap();
        assert_eq!(third[3..], owned(&[host, ("custom-key", "custom-value")]));
        assert_eq!(decoder.bytes, 164);
    }

    #[test]
    fn the_table_evicts_its_oldest() {
        // RFC 7541 C.6, with the table of 256 bytes that the example has.
        let mut decoder = Decoder { max_bytes: 256, ..Decoder::default() };
        let first = "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff\
                     6e919d29ad171863c78f0b97c8e9ae82ae43d3";
        assert_eq!(fields(&mut decoder, &bytes(first)).unwrap().len(), 4);
        assert_eq!(decoder.bytes, 222);
        let second = fields(&mut decoder, &bytes("4883640effc1c0bf")).unwrap();
        assert_eq!(second[0], owned(&[(":status", "307")])[0]);
        assert_eq!(second[3].1, "https://www.example.com");
        assert_eq!(decoder.table.len(), 4);
    }

    #[test]
    fn what_nobody_wants_is_passed_over() {
        let block = stateless(&[(":status", "200"), ("date", "x"), ("grpc-status", "0")]);
        let mut seen = Vec::new();
        let wanted = |name: &[u8]| name == b"grpc-status";
        Decoder::default().decode(&block, wanted, |_, value| seen.push(value.to_vec())).unwrap();
        assert_eq!(seen, [b"0"]);
    }

    #[test]
    fn the_encoders_blocks_say_what_was_asked() {
        let all = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/r500/bytes/128"),
            (":authority", "bench.test"),
            ("te", "trailers"),
            ("x-long", "a much longer value with blanks, to have a length of its own in the code"),
        ];
        let mut decoder = Decoder::default();
        assert_eq!(fields(&mut decoder, &stateless(&all)), Ok(owned(&all)));
        assert_eq!(decoder.table.len(), 0);
        let (first, rest) = indexed(&all).unwrap();
        assert_eq!(fields(&mut decoder, &first), Ok(owned(&all)));
        for _ in 0..3 {
            assert_eq!(fields(&mut decoder, &rest), Ok(owned(&all)));
        }
        assert_eq!(rest.len(), all.len());
        let long = "x".repeat(5000);
        assert!(indexed(&[("a", &long)]).is_none());
    }

    #[test]
    fn broken_blocks_are_refused() {
        for block in
            ["80", "be", "ff", "ffffffffffff0f", "4085", "3fe2ff7f", "0005", "00817f", "418cf1"]
        {
            let block = bytes(block);
            let result = fields(&mut Decoder::default(), &block);
            assert_eq!(result, Err(Broken::Compression), "{block:x?}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Decoder::default().decode(&noise, |_| true, |_, _| {});
        }

        #[test]
        fn integers_are_read_back(value in 0usize..1 << 27, prefix in 1u32..8) {
            let mut out = Vec::new();
            put_integer(value, prefix, 0, &mut out);
            let mut block = &out[..];
            prop_assert_eq!(integer(&mut block, prefix), Ok(value));
            prop_assert!(block.is_empty());
        }
    }
}
