//! From a socket to a TLS stream, on either side.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;

use contract::snapshot::{Alpn, TlsVersion};
use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;

use super::client::ClientSide;
use super::facts::{Cause, HandshakeFailed, TlsFacts};
use super::hello::{self, Hello};
use super::machine::Machine;
use super::peer;
use super::server::ServerSide;
use super::stream::{End, TlsStream};
use crate::io::{Chunk, Elapsed, Io, SendBuf, Stream, Watch};
use crate::limits;

/// A fatal `unrecognized_name` (RFC 6066 §3) in a record of its own: there is no connection yet
/// that could say it.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// Shakes hands with a client. The deadline is that of `watch`.
///
/// With early data it returns before the end of the handshake ([`TlsFacts::is_early`]); the rest
/// happens as the stream is read.
///
/// # Errors
/// Whose fault it was. The client has been told, as far as it can be.
pub async fn accept(
    io: &Io,
    stream: Stream,
    side: &Arc<ServerSide>,
    watch: &Watch,
) -> Result<TlsStream, HandshakeFailed> {
    let started_us = io.clock().now_us();
    let (first, sni) = client_hello(&stream, watch).await?;
    let Some((site, config)) = side.choose(sni.as_deref()) else {
        let _ = stream.try_send(SendBuf::Static(UNRECOGNIZED_NAME));
        linger(io, &stream).await;
        let name = sni.as_deref().unwrap_or("none");
        return Err(HandshakeFailed::new(Cause::UnknownName, format!("server name {name}")));
    };
    let server = UnbufferedServerConnection::new(config.clone())
        .map_err(|error| HandshakeFailed::new(Cause::Own, error.to_string()))?;
    let tls = TlsStream::new(io, stream, Machine::Server(server));
    tls.feed(first);
    if let Err(failed) = drive(&tls, watch).await {
        if !matches!(failed.cause, Cause::Gone | Cause::Timeout) {
            linger(io, tls.socket()).await;
        }
        return Err(failed);
    }
    let facts = facts(io, &tls, started_us);
    let client =
        tls.with_machine(|machine| machine.peer_leaf().map(|leaf| peer::read_client(leaf)));
    tls.set_facts(TlsFacts { sni, site, client, ..facts });
    Ok(tls)
}

/// Shakes hands with an upstream. `target_name` (`host:port`) is whom we ask for and verify, unless
/// the settings name someone. The deadline is that of `watch`.
///
/// # Errors
/// Whose fault it was. The upstream has been told, as far as it can be.
pub async fn connect(
    io: &Io,
    stream: Stream,
    side: &Arc<ClientSide>,
    target_name: &str,
    watch: &Watch,
) -> Result<TlsStream, HandshakeFailed> {
    let started_us = io.clock().now_us();
    let name = side.server_name(target_name)?;
    let client = UnbufferedClientConnection::new(side.config().clone(), name)
        .map_err(|error| HandshakeFailed::new(Cause::Own, error.to_string()))?;
    let tls = TlsStream::new(io, stream, Machine::Client(client));
    tls.begin();
    if let Err(failed) = drive(&tls, watch).await {
        // The alert of a failed verification; whoever does not take it at once goes without.
        let brief = io.watch();
        brief.set_in(limits::LINGER_MS);
        let _ = brief.bound(tls.flush()).await;
        return Err(failed);
    }
    let facts = facts(io, &tls, started_us);
    tls.set_facts(facts);
    // A fresh connection takes a request at once: our last flight is no send in its way.
    match watch.bound(tls.flush()).await {
        Ok(Ok(())) => Ok(tls),
        Ok(Err(error)) => Err(HandshakeFailed::new(Cause::Gone, error.to_string())),
        Err(Elapsed) => Err(HandshakeFailed::new(Cause::Timeout, "the peer was too slow")),
    }
}

/// Receives up to the end of the ClientHello. Returns all that was received.
async fn client_hello(
    stream: &Stream,
    watch: &Watch,
) -> Result<(Chunk, Option<Box<str>>), HandshakeFailed> {
    let mut held = Vec::new();
    loop {
        let chunk = match watch.bound(stream.recv()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(HandshakeFailed::new(Cause::Gone, "before a ClientHello")),
            Ok(Err(error)) => return Err(HandshakeFailed::new(Cause::Gone, error.to_string())),
            Err(Elapsed) => {
                return Err(HandshakeFailed::new(Cause::Timeout, "before a ClientHello"));
            }
        };
        if held.is_empty()
            && let Hello::Whole { name } = hello::peek(chunk.bytes())
        {
            return Ok((chunk, name));
        }
        held.extend_from_slice(chunk.bytes());
        drop(chunk);
        if let Hello::Whole { name } = hello::peek(&held) {
            return Ok((Chunk::from_vec(held), name));
        }
        if held.len() > limits::TLS_CLIENT_HELLO {
            return Err(HandshakeFailed::new(Cause::Protocol, "the ClientHello is too long"));
        }
    }
}

/// Runs the handshake to its end, or to the first early data.
async fn drive(tls: &TlsStream, watch: &Watch) -> Result<(), HandshakeFailed> {
    loop {
        match tls.end() {
            End::Open if !tls.is_handshaking() || tls.has_plain() => return Ok(()),
            End::Open => {}
            // Over at once, but properly: whoever reads sees the end.
            End::Closed if !tls.is_handshaking() => return Ok(()),
            End::Closed | End::Truncated => {
                return Err(HandshakeFailed::new(Cause::Gone, "closed by the peer"));
            }
            End::Socket(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                return Err(HandshakeFailed::new(Cause::Gone, error.to_string()));
            }
            End::Broken => {
                return Err(match tls.take_error() {
                    Some(error) => HandshakeFailed::of(&error),
                    None => HandshakeFailed::new(Cause::Protocol, "unreadable"),
                });
            }
        }
        let progress = async {
            if tls.has_output() {
                let _ = tls.flush().await;
            }
            poll_fn(|cx| tls.poll_records(cx)).await;
        };
        if watch.bound(progress).await.is_err() {
            return Err(HandshakeFailed::new(Cause::Timeout, "the peer was too slow"));
        }
    }
}

fn facts(io: &Io, tls: &TlsStream, started_us: u64) -> TlsFacts {
    let early = tls.is_handshaking();
    tls.with_machine(|machine| TlsFacts {
        version: match machine.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V13,
            _ => TlsVersion::V12,
        },
        cipher: machine.negotiated_cipher_suite().map_or("", |suite| iana_name(suite.suite())),
        alpn: match machine.alpn_protocol() {
            Some(b"h2") => Some(Alpn::H2),
            Some(b"http/1.1") => Some(Alpn::Http11),
            _ => None,
        },
        // Early data comes with a resumed session only.
        resumed: early || machine.is_resumed(),
        handshake_us: u32::try_from(io.clock().now_us() - started_us).unwrap_or(u32::MAX),
        early: Cell::new(early),
        took_early: Cell::new(early),
        ..TlsFacts::none()
    })
}

fn iana_name(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite;
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}

/// Ends a socket so that the alert on its way is not lost to the reset of a close with unread
/// input.
async fn linger(io: &Io, stream: &Stream) {
    let watch = io.watch();
    watch.set_in(limits::LINGER_MS);
    if !matches!(watch.bound(stream.flush()).await, Ok(Ok(()))) {
        return;
    }
    stream.shutdown_write();
    let mut discarded = 0;
    while discarded < limits::TLS_CARRY {
        match watch.bound(stream.recv()).await {
            Ok(Ok(Some(chunk))) => discarded += chunk.len(),
            _ => return,
        }
    }
}
