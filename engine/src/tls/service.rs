//! TLS with services that the store thread asks, such as Redis: rustls over tokio's sockets.

use std::sync::Arc;

use contract::snapshot::{Snapshot, TrustIndex};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::identity::{self, Digest, Fingerprint, Unusable};

/// Whom such a service must be. Equal where it was built from equal settings.
#[derive(Clone)]
pub struct ServiceTls {
    pub config: Arc<ClientConfig>,
    fingerprint: Fingerprint,
}

impl PartialEq for ServiceTls {
    fn eq(&self, other: &ServiceTls) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ServiceTls {}

impl ServiceTls {
    /// `None`: whom the system trusts. `field` names it in the spec.
    ///
    /// # Errors
    /// What in the spec must be mended.
    pub fn build(
        snapshot: &Snapshot,
        trust: Option<TrustIndex>,
        field: &str,
    ) -> Result<ServiceTls, Unusable> {
        let mut digest = Digest::new("service");
        let (roots, crls) = match trust {
            Some(trust) => {
                digest.trust(snapshot, trust);
                identity::trust(snapshot, trust, field)?
            }
            None => (Arc::new(system_roots(&mut digest, field)?), Vec::new()),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, identity::provider())
            .with_crls(crls)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| Unusable::new(field, error.to_string()))?;
        let config = ClientConfig::builder_with_provider(identity::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Unusable::new(field, error.to_string()))?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        Ok(ServiceTls { config: Arc::new(config), fingerprint: digest.finish() })
    }
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
        true => Err(Unusable::new(field, "this machine has no root certificates: name a CA")),
    }
}
