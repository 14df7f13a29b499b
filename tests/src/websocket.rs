//! WebSocket frames (RFC 6455 §5) and the handshake's arithmetic, for both ends of the fixtures.

use crate::origin::Origin;
use crate::wire::{Wire, WireError};

/// The key of RFC 6455 §1.3, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame as the client sends it: final, masked.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    length(&mut frame, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame as the server sends it.
pub fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    length(&mut frame, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn length(frame: &mut Vec<u8>, mask: u8, length: usize) {
    match length {
        0..=125 => frame.push(mask | length as u8),
        126..=65_535 => {
            frame.push(mask | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The first whole frame of `bytes`: opcode, payload unmasked, and how long it was.
pub fn parse(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        n => (usize::from(n), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    Some((first & 0x0f, payload.collect(), at + length))
}

/// Reads one frame.
pub fn read(wire: &mut Wire) -> Result<(u8, Vec<u8>), WireError> {
    let mut frame = Vec::new();
    loop {
        if let Some((opcode, payload, _)) = parse(&frame) {
            return Ok((opcode, payload));
        }
        // The lengths show one after the other; no byte of the next frame is taken.
        let more = match frame.len() {
            0..=1 => 2 - frame.len(),
            n => missing(&frame).unwrap_or(n).saturating_sub(n),
        };
        wire.body(more as u64, &mut |bytes| frame.extend_from_slice(bytes))?;
    }
}

/// How long a frame is, as far as its beginning says.
fn missing(frame: &[u8]) -> Option<usize> {
    let second = *frame.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    Some(match second & 0x7f {
        126 if frame.len() < 4 => 4,
        127 if frame.len() < 10 => 10,
        126 => 4 + mask + usize::from(u16::from_be_bytes([frame[2], frame[3]])),
        127 => 10 + mask + u64::from_be_bytes(frame[2..10].try_into().ok()?) as usize,
        n => 2 + mask + usize::from(n),
    })
}

/// An origin that takes each handshake and sends back each message, until a Close comes.
pub fn echo_origin() -> Origin {
    Origin::raw(|mut wire, _| {
        while let Ok(head) = wire.head() {
            let Some(key) = head.get("sec-websocket-key") else {
                let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno\n");
                continue;
            };
            let asked = head.lists("connection", "upgrade") && head.lists("upgrade", "websocket");
            if !asked || head.get("sec-websocket-version") != Some("13") {
                let _ = wire.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept(key)
            );
            let _ = wire.write(answer.as_bytes());
            while let Ok((opcode, payload)) = read(&mut wire) {
                let back = if opcode == PING { PONG } else { opcode };
                if wire.write(&plain(back, &payload)).is_err() || opcode == CLOSE {
                    return;
                }
            }
            return;
        }
    })
}

/// What answers a handshake with `key` (RFC 6455 §4.2.2).
pub fn accept(key: &str) -> String {
    base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

/// RFC 4648 §4.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte));
        let n = n << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(n >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The reverse; `None`: not base64.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let mut n = 0u32;
        let mut letters = 0;
        for (place, letter) in four.iter().enumerate() {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if place >= 2 => continue,
                _ => return None,
            };
            letters += 1;
            n |= u32::from(value) << (18 - 6 * place);
        }
        if four.len() < 4 || letters < 2 {
            return None;
        }
        bytes.extend_from_slice(&n.to_be_bytes()[1..letters]);
    }
    Some(bytes)
}

/// FIPS 180-4 §6.1.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut padded = bytes.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks(64) {
        let mut words = [0u32; 80];
        for (word, four) in words.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        }
        for t in 16..80 {
            words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in words.iter().enumerate() {
            let (f, k) = match t {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(f)
                .wrapping_add(e)
                .wrapping_add(k)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (four, word) in digest.chunks_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(accept(KEY), ACCEPT);
        for text in ["", "f", "fo", "foo", "foob"] {
            assert_eq!(unbase64(&base64(text.as_bytes())).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn frames_come_back() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            for frame in [masked(BINARY, &payload), plain(BINARY, &payload)] {
                assert_eq!(parse(&frame), Some((BINARY, payload.clone(), frame.len())));
                assert_eq!(parse(&frame[..frame.len() - 1]), None);
            }
        }
    }
}
