//! TLS as clients and origins of a test speak it, on rustls over blocking sockets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned, SupportedProtocolVersion,
};

use crate::PATIENCE;
use crate::certificates::{Authority, Identity, ders};
use crate::stream::Stream;

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub struct Agreed {
    pub version: ProtocolVersion,
    pub alpn: Option<String>,
    pub resumed: bool,
    /// The peer's leaf, DER.
    pub certificate: Vec<u8>,
}

/// Opens TLS connections; one that resumes remembers the tickets of its earlier ones.
#[derive(Debug, Clone)]
pub struct TlsClient {
    roots: RootCertStore,
    name: String,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    identity: Option<Identity>,
    resumption: Resumption,
    sni: bool,
    early: bool,
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for der in ders(pem) {
        roots.add(der).expect("a root");
    }
    roots
}

impl TlsClient {
    /// Trusts `authority` and asks for `name`; TLS 1.2 and 1.3, HTTP/1.1, nothing resumed.
    pub fn new(authority: &Authority, name: &str) -> TlsClient {
        TlsClient {
            roots: roots(authority.pem()),
            name: name.into(),
            alpn: vec![b"http/1.1".to_vec()],
            versions: vec![&TLS13, &TLS12],
            identity: None,
            resumption: Resumption::disabled(),
            sni: true,
            early: false,
        }
    }

    pub fn alpn(mut self, protocols: &[&str]) -> TlsClient {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    pub fn only(mut self, version: ProtocolVersion) -> TlsClient {
        self.versions = vec![if version == ProtocolVersion::TLSv1_2 { &TLS12 } else { &TLS13 }];
        self
    }

    /// Shows this certificate when asked.
    pub fn identity(mut self, identity: &Identity) -> TlsClient {
        self.identity = Some(identity.clone());
        self
    }

    pub fn resuming(mut self) -> TlsClient {
        self.resumption = Resumption::in_memory_sessions(64);
        self
    }

    /// Resumes, and may send early data.
    pub fn early(mut self) -> TlsClient {
        self.early = true;
        self.resuming()
    }

    /// Sends no server name; the certificate must still be valid for the name.
    pub fn no_sni(mut self) -> TlsClient {
        self.sni = false;
        self
    }

    fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            Some(identity) => builder
                .with_client_auth_cert(identity.chain(), identity.private_key())
                .expect("a client certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.clone();
        config.resumption = self.resumption.clone();
        config.enable_sni = self.sni;
        config.enable_early_data = self.early;
        Arc::new(config)
    }

    fn begin(&self, address: SocketAddr) -> io::Result<(ClientConnection, TcpStream)> {
        let name = ServerName::try_from(self.name.clone()).expect("a server name");
        let connection = ClientConnection::new(self.config(), name).map_err(io::Error::other)?;
        let tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        Ok((connection, tcp))
    }

    /// Connects and finishes the handshake as the client sees its end. With TLS 1.3 a refusal of
    /// the client's certificate comes after that, on the first read.
    pub fn connect(&self, address: SocketAddr) -> io::Result<(Stream, Agreed)> {
        let (mut connection, mut tcp) = self.begin(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let agreed = agreed(&connection);
        Ok((Stream::Client(Box::new(StreamOwned::new(connection, tcp))), agreed))
    }

    /// Sends `bytes` as early data; returns the connection after the handshake and whether the
    /// server took them. The client must hold a ticket that allows it.
    pub fn connect_early(&self, address: SocketAddr, bytes: &[u8]) -> io::Result<(Stream, bool)> {
        let (mut connection, mut tcp) = self.begin(address)?;
        let mut early = connection.early_data().ok_or_else(|| io::Error::other("no ticket"))?;
        early.write_all(bytes)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let taken = connection.is_early_data_accepted();
        Ok((Stream::Client(Box::new(StreamOwned::new(connection, tcp))), taken))
    }

    /// The address's certificate, by a handshake of its own.
    #[track_caller]
    pub fn look(&self, address: SocketAddr) -> Agreed {
        let (_, agreed) =
            self.connect(address).unwrap_or_else(|e| panic!("handshake for {}: {e}", self.name));
        agreed
    }
}

fn agreed(connection: &ClientConnection) -> Agreed {
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    Agreed {
        version: connection.protocol_version().expect("a version"),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        certificate: leaf.map(|der| der.to_vec()).unwrap_or_default(),
    }
}

/// How a TLS origin behaves.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// Shows `identity` and speaks the first of `alpn` that the client offers.
    pub fn new(identity: &Identity, alpn: &[&str]) -> TlsServer {
        TlsServer::build(identity, alpn, None)
    }

    /// As [`TlsServer::new`], for clients with a certificate from `authority` only.
    pub fn asking(identity: &Identity, alpn: &[&str], authority: &Authority) -> TlsServer {
        TlsServer::build(identity, alpn, Some(authority))
    }

    fn build(identity: &Identity, alpn: &[&str], authority: Option<&Authority>) -> TlsServer {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("versions");
        let builder = match authority {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots(authority.pem())),
                    provider,
                )
                .build()
                .expect("a verifier"),
            ),
        };
        let mut config = builder
            .with_single_cert(identity.chain(), identity.private_key())
            .expect("a server certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsServer { config: Arc::new(config) }
    }

    /// Finishes the handshake of an accepted connection.
    pub fn accept(&self, mut tcp: TcpStream) -> io::Result<(Stream, Accepted)> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        let mut connection =
            ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let accepted = Accepted {
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            name: connection.server_name().map(str::to_owned),
            client: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|der| der.to_vec()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((Stream::Server(Box::new(StreamOwned::new(connection, tcp))), accepted))
    }
}

/// What a TLS origin learned of its client in the handshake.
#[derive(Debug, Clone, Default)]
pub struct Accepted {
    pub alpn: Option<String>,
    pub name: Option<String>,
    /// The client's leaf, DER.
    pub client: Option<Vec<u8>>,
    pub resumed: bool,
}
