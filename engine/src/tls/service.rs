//! TLS with services that the store thread asks, such as Redis and authorization servers: rustls over
//! tokio's sockets.

use std::sync::Arc;

use contract::snapshot::{Alpn, CertificateIndex, Snapshot, TlsVersion, TrustIndex};
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::client::verifier;
use super::identity::{self, Digest, Fingerprint, Unusable};
use super::server::alpn;

/// Whom such a service must be, and what it is shown. Equal where it was built from equal settings.
#[derive(Clone)]
pub struct ServiceTls {
    pub config: Arc<ClientConfig>,
    /// Of all that the settings depend on.
    pub fingerprint: Fingerprint,
}

impl PartialEq for ServiceTls {
    fn eq(&self, other: &ServiceTls) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ServiceTls {}

/// What a service is like, as the snapshot says.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// Who vouches for it; `None`: whom the system trusts.
    pub trust: Option<TrustIndex>,
    /// What it is shown.
    pub identity: Option<CertificateIndex>,
    /// What may be spoken, in order of preference; empty: it is not asked.
    pub alpn: &'a [Alpn],
    /// Where its trust stands in the spec.
    pub field: &'a str,
}

impl ServiceTls {
    /// # Errors
    /// What in the spec must be mended.
    pub fn build(service: Service<'_>, snapshot: &Snapshot) -> Result<ServiceTls, Unusable> {
        let Service { trust, identity, field, .. } = service;
        let mut digest = Digest::new("service");
        digest.add(&fingerprint(trust, identity, snapshot));
        let (roots, crls) = match trust {
            Some(trust) => identity::trust(snapshot, trust, field)?,
            None => (Arc::new(system_roots(&mut digest, field)?), Vec::new()),
        };
        let builder = builder(field)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(roots, crls, field)?);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(index) => {
                let certified = identity::certified_key(snapshot, index, "client")?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = alpn(service.alpn);
        config.alpn_protocols.iter().for_each(|protocol| digest.add(protocol));
        Ok(ServiceTls { config: Arc::new(config), fingerprint: digest.finish() })
    }

    /// Settings that trust nobody: for a client that does not speak TLS.
    ///
    /// # Errors
    /// None, unless the provider has no cipher suites.
    pub fn of_nobody() -> Result<ServiceTls, Unusable> {
        let config = builder("")?.with_root_certificates(RootCertStore::empty());
        let fingerprint = Digest::new("nobody").finish();
        Ok(ServiceTls { config: Arc::new(config.with_no_client_auth()), fingerprint })
    }
}

fn builder(field: &str) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Unusable> {
    ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(identity::versions(TlsVersion::V12))
        .map_err(|error| Unusable::new(field, error.to_string()))
}

/// Of what the snapshot says about a service's trust and what it is shown.
pub fn fingerprint(
    trust: Option<TrustIndex>,
    identity: Option<CertificateIndex>,
    snapshot: &Snapshot,
) -> Fingerprint {
    let mut digest = Digest::new("outbound");
    digest.number(u64::from(trust.is_some()));
    if let Some(trust) = trust {
        digest.trust(snapshot, trust);
    }
    digest.number(u64::from(identity.is_some()));
    if let Some(identity) = identity {
        digest.certificate(snapshot, identity);
    }
    digest.finish()
}

fn system_roots(digest: &mut Digest, field: &str) -> Result<RootCertStore, Unusable> {
    let mut found: Vec<CertificateDer<'static>> = rustls_native_certs::load_native_certs().certs;
    found.sort_unstable_by(|one, two| one.as_ref().cmp(two.as_ref()));
    let mut store = RootCertStore::empty();
    // A system's bundle often has one that cannot be used.
    let usable = found.into_iter().filter(|root| store.add(root.clone()).is_ok());
    usable.for_each(|root| digest.add(&root));
    match store.is_empty() {
        false => Ok(store),
        true => Err(Unusable::new(
            field,
            "the system has no trusted roots: install ca-certificates, or name a file",
        )),
    }
}
