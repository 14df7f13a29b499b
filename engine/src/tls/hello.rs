//! A look at a ClientHello for its server name, before there is a configuration to judge it by.
//! What looks wrong here is left for rustls to refuse.

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// More bytes are needed.
    Partial,
    /// A ClientHello with this server name in lower case, or anything that is none.
    Whole { name: Option<Box<str>> },
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const LONGEST_NAME: usize = 253;

/// Reads the server name out of the records in `bytes`.
pub(super) fn peek(bytes: &[u8]) -> Hello {
    let mut records = Reader(bytes);
    let mut joined = Vec::new();
    loop {
        let Some(record) = records.record() else {
            let plausible = records.0.first().is_none_or(|kind| *kind == HANDSHAKE)
                && records.0.get(1).is_none_or(|major| *major == 3);
            return if plausible { Hello::Partial } else { Hello::Whole { name: None } };
        };
        // Nearly always the whole message is in one record, which is read where it lies.
        let message = if joined.is_empty() {
            record
        } else {
            joined.extend_from_slice(record);
            joined.as_slice()
        };
        if let Some(body) = complete(message) {
            return Hello::Whole { name: body.and_then(server_name) };
        }
        if joined.is_empty() {
            joined.extend_from_slice(record);
        }
    }
}

/// The ClientHello at the start of `message`; `None`: cut off; `Some(None)`: something else.
fn complete(message: &[u8]) -> Option<Option<&[u8]>> {
    let mut reader = Reader(message);
    let kind = reader.u8()?;
    if kind != CLIENT_HELLO {
        return Some(None);
    }
    let high = reader.u8()?;
    let len = usize::from(high) << 16 | usize::from(reader.u16()?);
    reader.take(len).map(Some)
}

/// RFC 8446 §4.1.2 and RFC 6066 §3.
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut hello = Reader(hello);
    hello.take(2 + 32)?;
    hello.short_vector()?;
    hello.vector()?;
    hello.short_vector()?;
    let mut extensions = Reader(hello.vector()?);
    loop {
        let kind = extensions.u16()?;
        let body = extensions.vector()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut list = Reader(Reader(body).vector()?);
        loop {
            let kind = list.u8()?;
            let name = list.vector()?;
            if kind == HOST_NAME {
                let name = std::str::from_utf8(name).ok()?;
                let usable = !name.is_empty() && name.len() <= LONGEST_NAME && name.is_ascii();
                return usable.then(|| name.to_ascii_lowercase().into());
            }
        }
    }
}

/// Takes from the front, or gives `None` and stays where it is.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// With a length of one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// With a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// The payload of a whole handshake record.
    fn record(&mut self) -> Option<&'a [u8]> {
        let mut ahead = Reader(self.0);
        if ahead.u8()? != HANDSHAKE || ahead.u8()? != 3 {
            return None;
        }
        ahead.u8()?;
        let payload = ahead.vector()?;
        self.0 = ahead.0;
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3; 2 + 32];
        body.push(0);
        body.extend(vector(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(vector(extensions));
        let len = (body.len() as u32).to_be_bytes();
        [&[CLIENT_HELLO][..], &len[1..], &body].concat()
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        let list = [&[HOST_NAME][..], &vector(name)].concat();
        [&[0, 0][..], &vector(&vector(&list))].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &vector(part)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_in_one_record_or_many() {
        let other = [&[0, 43][..], &vector(&[2, 3, 4])].concat();
        let message = message(&[other, server_name(b"API.example.com")].concat());
        for size in [message.len(), 40, 7, 1] {
            let bytes = records(&message, size);
            for cut in 0..bytes.len() {
                assert_eq!(peek(&bytes[..cut]), Hello::Partial, "{cut} of {size}");
            }
            let name = Some("api.example.com".into());
            assert_eq!(peek(&bytes), Hello::Whole { name });
        }
    }

    #[test]
    fn what_has_no_name_or_is_no_hello_is_left_to_rustls() {
        let none = Hello::Whole { name: None };
        assert_eq!(peek(b"GET / HTTP/1.1"), none);
        assert_eq!(peek(&[22, 2]), none);
        assert_eq!(peek(&records(&[2, 0, 0, 0], 4)), none);
        for extensions in [Vec::new(), server_name(b""), server_name(&[0xff]), vec![0, 0, 0, 9, 1]]
        {
            assert_eq!(peek(&records(&message(&extensions), 9_999)), none);
        }
        // Lies about lengths, anywhere.
        let good = records(&message(&server_name(b"a.test")), 9_999);
        for at in 5..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = peek(&bad);
            }
        }
    }
}
