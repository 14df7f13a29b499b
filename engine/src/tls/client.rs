//! How an upstream is asked, and whom it must be.

use std::sync::Arc;

use contract::snapshot::{Alpn, Protocol, Snapshot, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::facts::{Cause, HandshakeFailed};
use super::identity::{self, Digest, Fingerprint, Unusable};
use super::server::alpn;
use crate::limits;

/// The TLS of one upstream. Shared by all shards, and so are its sessions.
pub struct ClientSide {
    config: Arc<ClientConfig>,
    /// `None`: the target's host.
    name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for ClientSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientSide({:?})", self.name)
    }
}

impl ClientSide {
    /// Checks everything and builds it.
    pub(super) fn build(
        tls: &UpstreamTls,
        protocol: Protocol,
        snapshot: &Snapshot,
    ) -> Result<ClientSide, Unusable> {
        let name = match &tls.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| {
                Unusable::new("tls.server_name", "write a DNS name or an IP address")
            })?),
        };
        let builder = ClientConfig::builder_with_provider(identity::provider())
            .with_protocol_versions(identity::versions(tls.min_version))
            .map_err(|error| Unusable::new("tls.min_version", error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match tls.trust {
            None => Arc::new(AnyServer(identity::provider())),
            Some(trust) => {
                let (roots, crls) = identity::trust(snapshot, trust, "tls.ca")?;
                verifier(roots, crls, "tls.ca")?
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match tls.identity {
            None => builder.with_no_client_auth(),
            Some(index) => {
                let certified = identity::certified_key(snapshot, index, "tls")?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = alpn(match protocol {
            Protocol::Http1 => &[Alpn::Http11],
            Protocol::Http2 => &[Alpn::H2],
            Protocol::Auto => &[Alpn::H2, Alpn::Http11],
        });
        config.resumption = Resumption::in_memory_sessions(limits::TLS_UPSTREAM_SESSIONS);
        Ok(ClientSide { config: Arc::new(config), name })
    }

    pub(super) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Whom to ask for and to verify: the settings' name, or the host of `target` (`host:port`).
    pub(super) fn server_name(&self, target: &str) -> Result<ServerName<'static>, HandshakeFailed> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host);
        ServerName::try_from(host.to_owned()).map_err(|_| {
            HandshakeFailed::new(Cause::Own, format!("{host:?} is no name to ask for: set one"))
        })
    }
}

/// Who verifies servers by `roots`; `ca` is where these stand in the spec.
pub(super) fn verifier(
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    ca: &str,
) -> Result<Arc<WebPkiServerVerifier>, Unusable> {
    WebPkiServerVerifier::builder_with_provider(roots, identity::provider())
        .with_crls(crls)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| Unusable::new(ca, error.to_string()))
}

/// All that the result of [`ClientSide::build`] depends on.
pub(super) fn fingerprint(
    tls: &UpstreamTls,
    protocol: Protocol,
    snapshot: &Snapshot,
) -> Fingerprint {
    let mut digest = Digest::new("upstream");
    digest.number(tls.min_version as u64);
    digest.number(protocol as u64);
    digest.add(tls.server_name.as_deref().unwrap_or_default().as_bytes());
    digest.number(u64::from(tls.trust.is_some()));
    if let Some(trust) = tls.trust {
        digest.trust(snapshot, trust);
    }
    digest.number(u64::from(tls.identity.is_some()));
    if let Some(identity) = tls.identity {
        digest.certificate(snapshot, identity);
    }
    digest.finish()
}

/// Takes any server for the one that was meant: what `verify: false` asks for. Signatures are still
/// checked, so that at least one peer holds the key it shows from beginning to end.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
