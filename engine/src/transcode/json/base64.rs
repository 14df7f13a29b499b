//! Base64 (RFC 4648): written with the standard alphabet and padding, read with either alphabet, with
//! padding or not, and with the line ends of RFC 2045.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static VALUES: [u8; 256] = {
    let mut values = [255u8; 256];
    let mut at = 0;
    while at < 64 {
        values[STANDARD[at] as usize] = at as u8;
        at += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
};

/// Appends `bytes` as text.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = STANDARD[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { digit } else { b'=' });
        }
    }
}

/// The bytes of `text`; `None`: it is none.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0u32, 0u32);
    let mut padding = 0;
    for &byte in text {
        let value = VALUES[usize::from(byte)];
        match byte {
            b'=' => padding += 1,
            b'\r' | b'\n' => {}
            _ if value == 255 || padding > 0 => return None,
            _ => {
                bits = bits << 6 | u32::from(value);
                count += 1;
                if count == 4 {
                    out.extend_from_slice(&[(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
                    (bits, count) = (0, 0);
                }
            }
        }
    }
    let whole = match count {
        0 => padding == 0,
        2 => {
            out.push((bits >> 4) as u8);
            matches!(padding, 0 | 2)
        }
        3 => {
            out.extend_from_slice(&[(bits >> 10) as u8, (bits >> 2) as u8]);
            matches!(padding, 0 | 1)
        }
        _ => false,
    };
    whole.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for len in 0..20u8 {
            let bytes: Vec<u8> = (0..len).map(|at| at.wrapping_mul(83) ^ 0xfb).collect();
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            assert_eq!(decode(&text), Some(bytes.clone()));
            let bare: Vec<u8> = text.iter().copied().filter(|b| *b != b'=').collect();
            assert_eq!(decode(&bare), Some(bytes.clone()));
            let url = bare.iter().map(|b| match b {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            });
            assert_eq!(decode(&url.collect::<Vec<_>>()), Some(bytes));
        }
        assert_eq!(decode(b"-_"), Some(vec![0xfb]));
        assert_eq!(decode(b"AAEC\r\nAQI="), Some(vec![0, 1, 2, 1, 2]));
        for bad in [&b"A"[..], b"A=", b"AQ=", b"AQ===", b"A Q", b"AQI=A", b"=", b"AAEC="] {
            assert_eq!(decode(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
