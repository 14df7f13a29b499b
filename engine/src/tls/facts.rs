//! What a handshake has settled, or why there was none.

use std::cell::Cell;
use std::sync::Arc;

use contract::snapshot::{Alpn, TlsVersion};

/// What is known of a connection once its handshake is through (or, with early data, as far as that
/// goes: what the ClientHello and the resumed session said).
#[derive(Debug)]
pub struct TlsFacts {
    pub version: TlsVersion,
    /// IANA name, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The server name that the client asked for, lower case.
    pub sni: Option<Box<str>>,
    pub alpn: Option<Alpn>,
    /// Index into the listener's sites; 0 on connections to upstreams.
    pub site: u32,
    /// A session was resumed: no certificates went over the wire.
    pub resumed: bool,
    /// From the first call to the end of the handshake, in microseconds.
    pub handshake_us: u32,
    /// The certificate that the client has shown, verified.
    pub client: Option<ClientCertificate>,
    pub(super) early: Cell<bool>,
    pub(super) took_early: Cell<bool>,
}

impl TlsFacts {
    /// Before anything is settled.
    pub(super) fn none() -> TlsFacts {
        TlsFacts {
            version: TlsVersion::V12,
            cipher: "",
            sni: None,
            alpn: None,
            site: 0,
            resumed: false,
            handshake_us: 0,
            client: None,
            early: Cell::new(false),
            took_early: Cell::new(false),
        }
    }

    /// Whether what has been received so far came before the end of the handshake: it may be a
    /// replay (RFC 8470 §3). Turns false for good when the handshake is complete.
    pub fn is_early(&self) -> bool {
        self.early.get()
    }

    /// Whether the connection has taken any early data.
    pub fn took_early_data(&self) -> bool {
        self.took_early.get()
    }
}

/// A client's verified certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Value of `X-Forwarded-Client-Cert` in Envoy's form.
    pub xfcc: Box<str>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    pub names: Arc<CertificateNames>,
}

/// Whose a certificate is, in the issuer's words. Names with other characters than visible ASCII (in
/// the common name: with control characters) are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Of the subject, the last one.
    pub common_name: Option<Box<str>>,
    /// Subject alternative names (RFC 5280 §4.2.1.6).
    pub dns: Vec<Box<str>>,
    pub uris: Vec<Box<str>>,
    pub emails: Vec<Box<str>>,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{cause}: {detail}")]
pub struct HandshakeFailed {
    pub cause: Cause,
    /// For a person: what exactly.
    pub detail: String,
}

/// Whose fault a failed handshake is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The peer was too slow.
    #[error("the handshake took too long")]
    Timeout,
    /// The peer closed, or its socket failed.
    #[error("the connection ended during the handshake")]
    Gone,
    /// The peer gave up and said why.
    #[error("the peer refused the handshake")]
    Alert,
    /// The peer's certificate was missing or not acceptable.
    #[error("the peer's certificate was not accepted")]
    Certificate,
    /// The client asked for a server name that there is none of.
    #[error("unknown server name")]
    UnknownName,
    /// The peer does not speak TLS at all.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// No version, cipher or application protocol in common.
    #[error("nothing in common with the peer")]
    NothingInCommon,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol")]
    Protocol,
    /// Our own configuration or system.
    #[error("a fault of our own")]
    Own,
}

impl HandshakeFailed {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> HandshakeFailed {
        HandshakeFailed { cause, detail: detail.into() }
    }

    pub(super) fn of(error: &rustls::Error) -> HandshakeFailed {
        use rustls::Error;
        let cause = match error {
            Error::AlertReceived(_) => Cause::Alert,
            Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::InvalidCertRevocationList(_)
            | Error::UnsupportedNameType => Cause::Certificate,
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Cause::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Cause::NothingInCommon,
            Error::General(_) | Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => {
                Cause::Own
            }
            _ => Cause::Protocol,
        };
        HandshakeFailed::new(cause, error.to_string())
    }
}
