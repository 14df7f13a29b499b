//! TLS towards services that the gateway asks itself, for a client that is not ours.

use std::sync::Arc;

use contract::snapshot::{Alpn, CertificateIndex, Snapshot, TlsVersion, TrustIndex};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::client::verifier;
use super::identity::{self, Digest, Fingerprint, Unusable};
use super::server::alpn;

/// Settings for services whom `trust` vouches for (`None`: whom the system trusts), which are shown
/// `identity`.
///
/// # Errors
/// What cannot be used.
pub fn outbound(
    trust: Option<TrustIndex>,
    identity: Option<CertificateIndex>,
    snapshot: &Snapshot,
) -> Result<ClientConfig, Unusable> {
    let (roots, crls) = match trust {
        Some(trust) => identity::trust(snapshot, trust, "ca")?,
        None => (Arc::new(system_roots()?), Vec::new()),
    };
    let builder = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(identity::versions(TlsVersion::V12))
        .map_err(|error| Unusable::new("ca", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(roots, crls, "ca")?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(index) => {
            let certified = identity::certified_key(snapshot, index, "client")?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = alpn(&[Alpn::H2, Alpn::Http11]);
    Ok(config)
}

/// Settings that trust nobody: for a client that does not speak TLS.
///
/// # Errors
/// None, unless the provider has no cipher suites.
pub fn outbound_to_none() -> Result<ClientConfig, Unusable> {
    let builder = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(identity::versions(TlsVersion::V12))
        .map_err(|error| Unusable::new("ca", error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// All that the result of [`outbound`] depends on.
pub fn outbound_fingerprint(
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

fn system_roots() -> Result<RootCertStore, Unusable> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match store.is_empty() {
        true => Err(Unusable::new(
            "ca",
            "the system has no trusted roots: install ca-certificates, or name a file",
        )),
        false => Ok(store),
    }
}
