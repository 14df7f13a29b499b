//! The seam to rustls' unbuffered connections: one record in, what has come of it out.

use std::ops::Deref;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, ReadEarlyData, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error, HandshakeKind};

/// Bytes in front of a record's payload (RFC 8446 §5.1).
pub(super) const RECORD_HEADER: usize = 5;
/// Longest payload of a protected record: TLS 1.2 allows 2,048 bytes of expansion (RFC 5246 §6.2.3).
const RECORD_PAYLOAD: usize = 16 * 1024 + 2048;
/// Longest plaintext of one record.
const PLAINTEXT: usize = 16 * 1024;
/// Most that a record adds to its plaintext: header, explicit nonce or content type, tag.
const EXPANSION: usize = RECORD_HEADER + 8 + 16;
/// Room for an alert record.
const ALERT_ROOM: usize = 64;

/// Length of the first record in `bytes` with its header; `None`: the header is not all there.
/// Of what is no record all of `bytes` is given, for rustls to say what is wrong with it.
pub(super) fn record_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [first, ..] if !(20..=24).contains(first) => Some(bytes.len()),
        [_, major, _, high, low, ..] => {
            let payload = usize::from(u16::from_be_bytes([*high, *low]));
            if *major != 3 || payload > RECORD_PAYLOAD {
                return Some(bytes.len());
            }
            Some(RECORD_HEADER + payload)
        }
        _ => None,
    }
}

/// What rustls made of the records it was shown.
#[derive(Debug)]
pub(super) enum Step {
    /// The last record shown held data: `len` bytes of plaintext now stand behind its header (rustls
    /// opens records where they lie). `edge` is what it begins with, to be sure.
    Data {
        len: usize,
        edge: [u8; 8],
    },
    /// Data that came before the end of the handshake.
    Early(Vec<u8>),
    /// Something was done: ask again.
    Again,
    /// Nothing to do before more records come.
    Idle,
    /// The peer's close_notify: it sends nothing more.
    PeerClosed,
    Failed(Error),
}

pub(super) enum Machine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Deref for Machine {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match self {
            Machine::Server(server) => server,
            Machine::Client(client) => client,
        }
    }
}

impl Machine {
    /// Shows the records of `window` to rustls; what is to be sent in turn is put behind `out`.
    /// Returns how many bytes of the window are done with, too.
    pub(super) fn step(&mut self, window: &mut [u8], out: &mut Vec<u8>) -> (usize, Step) {
        match self {
            Machine::Server(server) => settle(server.process_tls_records(window), out, early),
            Machine::Client(client) => {
                settle(client.process_tls_records(window), out, |_: ReadEarlyData<'_, '_, _>| {
                    Vec::new()
                })
            }
        }
    }

    /// Seals `plain` and puts the records behind `out`. `window` is what [`Machine::step`] has seen
    /// and not consumed.
    pub(super) fn seal(
        &mut self,
        window: &mut [u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let room = plain.len() + (plain.len() / PLAINTEXT + 1) * EXPANSION;
        let put = Put { plain: Some(plain), room };
        match self {
            Machine::Server(server) => {
                put.run(out, |out, put| put.settle(server.process_tls_records(window), out))
            }
            Machine::Client(client) => {
                put.run(out, |out, put| put.settle(client.process_tls_records(window), out))
            }
        }
    }

    /// Puts a close_notify behind `out`.
    pub(super) fn close(&mut self, window: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let put = Put { plain: None, room: ALERT_ROOM };
        match self {
            Machine::Server(server) => {
                put.run(out, |out, put| put.settle(server.process_tls_records(window), out))
            }
            Machine::Client(client) => {
                put.run(out, |out, put| put.settle(client.process_tls_records(window), out))
            }
        }
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(super) fn peer_leaf(&self) -> Option<&CertificateDer<'static>> {
        self.peer_certificates().and_then(<[_]>::first)
    }
}

fn early(mut early: ReadEarlyData<'_, '_, ServerConnectionData>) -> Vec<u8> {
    match early.next_record() {
        Some(Ok(record)) => record.payload.to_vec(),
        _ => Vec::new(),
    }
}

fn settle<'c, 'i, Data>(
    status: UnbufferedStatus<'c, 'i, Data>,
    out: &mut Vec<u8>,
    early: impl FnOnce(ReadEarlyData<'c, 'i, Data>) -> Vec<u8>,
) -> (usize, Step) {
    let UnbufferedStatus { discard, state } = status;
    let step = match state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => match traffic.next_record() {
            Some(Ok(record)) => {
                let mut edge = [0; 8];
                edge.iter_mut().zip(record.payload).for_each(|(to, from)| *to = *from);
                Step::Data { len: record.payload.len(), edge }
            }
            Some(Err(error)) => Step::Failed(error),
            None => Step::Again,
        },
        Ok(ConnectionState::ReadEarlyData(data)) => Step::Early(early(data)),
        Ok(ConnectionState::EncodeTlsData(mut data)) => match encode(&mut data, out) {
            Ok(()) => Step::Again,
            Err(error) => Step::Failed(error),
        },
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed) => Step::PeerClosed,
        // Blocked in the handshake, ready to write, closed both ways.
        Ok(_) => Step::Idle,
    };
    (discard, step)
}

fn encode<Data>(
    data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = out.len();
    let written = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => {
            out.resize(start + size.required_size, 0);
            data.encode(out.get_mut(start..).unwrap_or_default())
        }
        other => other,
    };
    let written = written.map_err(|error| Error::General(error.to_string()))?;
    out.truncate(start + written);
    Ok(())
}

/// Something to be written as soon as rustls lets us.
struct Put<'a> {
    /// `None`: a close_notify.
    plain: Option<&'a [u8]>,
    room: usize,
}

impl Put<'_> {
    fn run(
        self,
        out: &mut Vec<u8>,
        mut attempt: impl FnMut(&mut Vec<u8>, &Put<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        // Each try but the last takes away something that waited to be written before.
        while !attempt(out, &self)? {}
        Ok(())
    }

    /// Whether it is written.
    fn settle<Data>(
        &self,
        status: UnbufferedStatus<'_, '_, Data>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        match status.state? {
            ConnectionState::WriteTraffic(traffic) => self.write(traffic, out).map(|()| true),
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out).map(|()| false),
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Ok(false)
            }
            ConnectionState::PeerClosed => Ok(false),
            // Closed by ourselves, or before its time.
            _ => Err(Error::HandshakeNotComplete),
        }
    }

    fn write<Data>(
        &self,
        mut traffic: WriteTraffic<'_, Data>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = out.len();
        let mut room = self.room;
        loop {
            out.resize(start + room, 0);
            let space = out.get_mut(start..).unwrap_or_default();
            let written = match self.plain {
                Some(plain) => traffic.encrypt(plain, space),
                None => traffic.queue_close_notify(space),
            };
            match written {
                Ok(written) => {
                    out.truncate(start + written);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                    room = size.required_size;
                }
                Err(error) => {
                    out.truncate(start);
                    return Err(match error {
                        EncryptError::EncryptExhausted => Error::EncryptError,
                        error => Error::General(error.to_string()),
                    });
                }
            }
        }
    }
}
