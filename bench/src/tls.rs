//! TLS for the load and the origin: rustls without its I/O, between two byte buffers.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error,
    HandshakeKind, NamedGroup, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion, version,
};

/// Where the system's authorities are, on Debian and most others.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Sessions kept for resumption.
const SESSIONS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(format!("{text:?} is not 1.2 or 1.3")),
        }
    }

    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &version::TLS12,
            Self::Tls13 => &version::TLS13,
        }
    }
}

/// Whom a client trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Everybody, without a look at the certificate or what is signed with it.
    Anybody,
    /// The system's authorities.
    System,
    /// The certificates of a PEM file.
    File(PathBuf),
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub chain: String,
    pub key: String,
}

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub struct Client {
    pub trust: Trust,
    /// Shown to servers that ask for a certificate.
    pub identity: Option<Identity>,
    /// Both, if none is given.
    pub version: Option<Version>,
    pub http2: bool,
    /// Connections after the first resume its session.
    pub resume: bool,
    /// Only AES-128-GCM and X25519, so that all servers do the same work.
    pub equal_work: bool,
}

impl Client {
    /// One that offers everything, and has no certificate to show.
    pub fn new(trust: Trust) -> Self {
        let (identity, version) = (None, None);
        Self { trust, identity, version, http2: false, resume: true, equal_work: false }
    }

    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = provider(self.equal_work);
        let versions: Vec<_> = [Version::Tls13, Version::Tls12]
            .into_iter()
            .filter(|&version| self.version.is_none_or(|only| only == version))
            .map(Version::supported)
            .collect();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .map_err(|error| error.to_string())?;
        let builder = match &self.trust {
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified))
            }
            Trust::System => builder.with_root_certificates(roots(Path::new(SYSTEM_ROOTS))?),
            Trust::File(path) => builder.with_root_certificates(roots(path)?),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let (chain, key) = certified(chain.as_bytes(), key.as_bytes())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
            }
        };
        config.alpn_protocols =
            vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        config.resumption = if self.resume {
            Resumption::store(Arc::new(Sessions::default()))
        } else {
            Resumption::disabled()
        };
        Ok(Arc::new(config))
    }
}

/// What is offered and taken. With `equal_work` it is AES-128-GCM and X25519, whatever the other
/// side would rather have.
fn provider(equal_work: bool) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if equal_work {
        let suites = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        // The first is what is shared; without P-256 a server of TLS 1.2 may not show its
        // certificate (RFC 8422 §5.1.1).
        let groups = [NamedGroup::X25519, NamedGroup::secp256r1];
        provider.kx_groups.retain(|group| groups.contains(&group.name()));
        provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519);
    }
    provider
}

/// The sessions of a run, which are all with one server. The store that rustls has keeps eight
/// tickets for a server: with more connections than that not every one could resume.
#[derive(Debug, Default)]
struct Sessions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Each is for one use (RFC 8446 §C.4).
    tls13: Vec<Tls13ClientSessionValue>,
}

impl Sessions {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tls13.len() < SESSIONS {
            kept.tls13.push(value);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tls13.pop()
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |error: &dyn fmt::Display| format!("cannot read {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
        // Some of a system's may be of kinds that we do not know.
        let _ = roots.add(certificate.map_err(|e| wrong(&e))?);
    }
    if roots.is_empty() { Err(wrong(&"no certificate in it")) } else { Ok(roots) }
}

/// Takes any certificate, and does not spend CPU time on its signature either.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}

/// The name that all certificates made here are for.
pub const NAME: &str = "bench.test";

/// A self-signed certificate with an ECDSA P-256 key, and the key, as PEM.
pub fn self_signed() -> Result<(String, String), String> {
    let names = [NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// An authority, as PEM, and a certificate of its making for a client of that common name.
pub fn authority_for(common_name: &str) -> Result<(String, Identity), String> {
    let made = || -> Result<(String, Identity), rcgen::Error> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(DnType::CommonName, "bench authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut leaf = CertificateParams::default();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate()?;
        let chain = leaf.signed_by(&key, &authority)?.pem();
        Ok((authority.pem(), Identity { chain, key: key.serialize_pem() }))
    };
    made().map_err(|error| error.to_string())
}

/// A chain and its key from PEM.
fn certified(
    chain: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("the certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    Ok((chain, key))
}

/// A server's configuration from a PEM chain and its key; both versions, h2 and http/1.1.
pub fn server(chain: &[u8], key: &[u8], equal_work: bool) -> Result<Arc<ServerConfig>, String> {
    let (chain, key) = certified(chain, key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider(equal_work)))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

/// One side of one connection.
pub struct Session {
    tls: Connection,
}

impl Session {
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    fn new(mut tls: Connection) -> Self {
        // What is written goes to the socket's buffer, which has a bound of its own.
        tls.set_buffer_limit(None);
        Self { tls }
    }

    /// Takes what came. Appends what it says to `plain`, and what is to be sent for it to `out`.
    /// `false` means that the peer says no more.
    pub fn feed(
        &mut self,
        mut wire: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut open = true;
        while !wire.is_empty() {
            let took = self.tls.read_tls(&mut wire).unwrap_or(0);
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert.
                    self.flush(out);
                    return Err(error);
                }
            };
            let bytes = state.plaintext_bytes_to_read();
            if bytes > 0 {
                let from = plain.len();
                plain.resize(from + bytes, 0);
                let room = plain.get_mut(from..).unwrap_or_default();
                if self.tls.reader().read_exact(room).is_err() {
                    plain.truncate(from);
                }
            }
            open &= !state.peer_has_closed();
            if took == 0 && bytes == 0 {
                break;
            }
        }
        self.flush(out);
        Ok(open)
    }

    /// Encrypts `plain` onto the end of `out`.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        io::Write::write_all(&mut self.tls.writer(), plain)?;
        self.flush(out);
        Ok(())
    }

    /// What is to be sent of the handshake.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            // A Vec takes everything.
            if self.tls.write_tls(out).is_err() {
                return;
            }
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    pub fn speaks_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"h2")
    }

    pub fn resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    fn client(trust: Trust, version: Option<Version>) -> Arc<ClientConfig> {
        let mut client = Client::new(trust);
        (client.version, client.http2, client.equal_work) = (version, true, true);
        client.config().unwrap()
    }

    /// Passes bytes between the two, in pieces of so many, until both are quiet.
    fn talk(client: &mut Session, server: &mut Session, piece: usize) -> Result<Vec<u8>, Error> {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
        client.flush(&mut to_server);
        let mut said = false;
        for _ in 0..20 {
            for bytes in std::mem::take(&mut to_server).chunks(piece) {
                server.feed(bytes, &mut at_server, &mut to_client)?;
            }
            for bytes in std::mem::take(&mut to_client).chunks(piece) {
                client.feed(bytes, &mut at_client, &mut to_server)?;
            }
            if !client.is_handshaking() && !said {
                said = true;
                client.write(&[b'x'; 50_000], &mut to_server).unwrap();
            }
        }
        Ok(at_server)
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from(NAME).unwrap()
    }

    #[test]
    fn both_versions_in_any_pieces_and_resumed() {
        let (chain, key) = self_signed().unwrap();
        let server_config = server(chain.as_bytes(), key.as_bytes(), false).unwrap();
        for version in [Version::Tls12, Version::Tls13] {
            let config = client(Trust::Anybody, Some(version));
            for (n, piece) in [100_000, 1, 1000].into_iter().enumerate() {
                let mut client = Session::client(config.clone(), name()).unwrap();
                let mut server = Session::server(server_config.clone()).unwrap();
                assert_eq!(talk(&mut client, &mut server, piece).unwrap().len(), 50_000);
                assert!(client.speaks_http2() && server.speaks_http2());
                assert_eq!(client.resumed(), n > 0, "{version:?}");
            }
        }
    }

    /// A server that lets nobody in without a certificate of that authority's making.
    fn strict(authority: &str) -> Arc<ServerConfig> {
        let (chain, key) = self_signed().unwrap();
        let (chain, key) = certified(chain.as_bytes(), key.as_bytes()).unwrap();
        let provider = Arc::new(provider(true));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.ticketer = ring::Ticketer::new().unwrap();
        Arc::new(config)
    }

    #[test]
    fn a_client_shows_its_certificate_and_resumes_the_session_that_it_got_for_it() {
        let (authority, identity) = authority_for("someone").unwrap();
        let (server_config, stranger) = (strict(&authority), authority_for("someone").unwrap().1);
        for (identity, admitted) in [(Some(identity), true), (Some(stranger), false), (None, false)]
        {
            let mut config = Client::new(Trust::Anybody);
            (config.identity, config.version) = (identity, Some(Version::Tls13));
            let config = config.config().unwrap();
            for n in 0..3 {
                let mut client = Session::client(config.clone(), name()).unwrap();
                let mut server = Session::server(server_config.clone()).unwrap();
                assert_eq!(talk(&mut client, &mut server, 1000).is_ok(), admitted);
                assert_eq!(client.resumed(), admitted && n > 0);
            }
        }
    }

    #[test]
    fn a_stranger_is_refused_unless_told() {
        let (chain, key) = self_signed().unwrap();
        let server_config = server(chain.as_bytes(), key.as_bytes(), false).unwrap();
        let directory = std::env::temp_dir().join(format!("bench-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("ca.pem");
        for (ca, trusted) in [(chain, true), (self_signed().unwrap().0, false)] {
            std::fs::write(&path, ca).unwrap();
            let config = client(Trust::File(path.clone()), None);
            let mut client = Session::client(config, name()).unwrap();
            let mut server = Session::server(server_config.clone()).unwrap();
            assert_eq!(talk(&mut client, &mut server, 1000).is_ok(), trusted);
        }
        std::fs::write(&path, "nothing").unwrap();
        assert!(roots(&path).unwrap_err().contains("no certificate"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn noise_is_an_error() {
        let mut session = Session::client(client(Trust::Anybody, None), name()).unwrap();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        assert!(session.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut plain, &mut out).is_err());
    }
}
