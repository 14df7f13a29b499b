//! Certificates, keys and trust of the snapshot, checked and in rustls' form.

use std::sync::{Arc, LazyLock};

use contract::snapshot::{Certificate, Snapshot, TlsVersion, Trust};
use ring::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SupportedProtocolVersion, version};

/// Why a listener's or an upstream's TLS cannot be used, in the words of the spec.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// As `tls.certificates[0].key`.
    pub field: String,
    pub problem: String,
}

impl Unusable {
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Unusable {
        Unusable { field: field.into(), problem: problem.into() }
    }
}

/// *ring*, with what it has by default: AEAD suites with forward secrecy only, X25519 and the NIST
/// curves.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static MODERN: &[&SupportedProtocolVersion] = &[&version::TLS13];
    static BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    match min {
        TlsVersion::V13 => MODERN,
        TlsVersion::V12 => BOTH,
    }
}

/// The certificate chain with its key, which must belong to it.
pub(super) fn certified_key(
    snapshot: &Snapshot,
    index: u32,
    at: &str,
) -> Result<Arc<CertifiedKey>, Unusable> {
    let cert = |problem: String| Unusable::new(format!("{at}.cert"), problem);
    let key = |problem: String| Unusable::new(format!("{at}.key"), problem);
    let Some(Certificate { chain, key: secret }) = snapshot.certificates.get(index as usize) else {
        return Err(cert(format!("there is no certificate {index} in the snapshot")));
    };
    if chain.is_empty() {
        return Err(cert("there is no certificate in the file: put the leaf first".into()));
    }
    let chain: Vec<CertificateDer<'static>> = chain.iter().cloned().map(Into::into).collect();
    let secret = PrivateKeyDer::try_from(secret.clone()).map_err(|_| {
        key("this is no private key: write PKCS#8, SEC1 or PKCS#1, unencrypted".into())
    })?;
    let secret = provider().key_provider.load_private_key(secret).map_err(|_| {
        key("this key cannot be used: take ECDSA P-256 or P-384, Ed25519 or RSA (2048 bits or more)"
            .into())
    })?;
    let certified = CertifiedKey::new(chain, secret);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(certified))
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(key("the key does not belong to the certificate (the leaf stands first)".into()))
        }
        Err(error) => Err(cert(format!("the certificate is unreadable: {error}"))),
    }
}

/// Trust anchors and revocation lists.
pub(super) fn trust(
    snapshot: &Snapshot,
    index: u32,
    ca: &str,
) -> Result<(Arc<RootCertStore>, Vec<CertificateRevocationListDer<'static>>), Unusable> {
    let Some(Trust { roots, crls }) = snapshot.trust.get(index as usize) else {
        return Err(Unusable::new(ca, format!("there is no trust {index} in the snapshot")));
    };
    let mut store = RootCertStore::empty();
    for (n, root) in roots.iter().enumerate() {
        store.add(root.clone().into()).map_err(|error| {
            Unusable::new(ca, format!("certificate {} is unreadable: {error}", n + 1))
        })?;
    }
    if store.is_empty() {
        return Err(Unusable::new(ca, "there is no certificate in the file"));
    }
    let crls = crls.iter().cloned().map(CertificateRevocationListDer::from).collect();
    Ok((Arc::new(store), crls))
}

/// SHA-256 over settings: equal ones give the same.
pub type Fingerprint = [u8; 32];

/// Takes in settings, each with its length, so that no two lists of them are the same bytes.
pub struct Digest(Context);

impl Digest {
    pub fn new(what: &str) -> Digest {
        let mut digest = Digest(Context::new(&SHA256));
        digest.add(what.as_bytes());
        digest
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    pub fn all(&mut self, items: &[Vec<u8>]) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| self.add(item));
    }

    pub fn certificate(&mut self, snapshot: &Snapshot, index: u32) {
        if let Some(certificate) = snapshot.certificates.get(index as usize) {
            self.all(&certificate.chain);
            self.add(&certificate.key);
        }
    }

    pub fn trust(&mut self, snapshot: &Snapshot, index: u32) {
        if let Some(trust) = snapshot.trust.get(index as usize) {
            self.all(&trust.roots);
            self.all(&trust.crls);
        }
    }

    pub fn finish(self) -> Fingerprint {
        let mut fingerprint = [0; 32];
        let digest = self.0.finish();
        fingerprint.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        fingerprint
    }
}
