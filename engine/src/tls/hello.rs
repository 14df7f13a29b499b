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
