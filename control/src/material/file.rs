//! Reading certificates and keys from files. Nothing here ever tells what is in a key.

use std::{collections::BTreeMap, fs::File, io::Read, os::unix::fs::MetadataExt, path::Path};

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::leaf::Leaf;

/// Largest file with a chain or a key, in bytes.
pub const MAX_PEM: u64 = 1 << 20;
/// Largest file with issuers or revocation lists, in bytes.
const MAX_BUNDLE: u64 = 16 << 20;

/// A file in a state: another one means that it was changed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether it changed in the last `seconds` before `now`, or after it.
    pub fn changed_within(&self, seconds: i64, now: i64) -> bool {
        self.modified.0.max(self.changed.0) >= now - seconds
    }
}

/// The state of each of `files`; symbolic links are followed. `None`: it cannot be looked at.
pub fn stamps<'f>(files: impl Iterator<Item = &'f str>) -> BTreeMap<String, Option<Stamp>> {
    files.map(|file| (file.to_owned(), stamp(Path::new(file)))).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

/// What is wrong with which file.
pub struct Bad {
    /// The key's file, not the certificate's.
    pub key: bool,
    pub code: &'static str,
    pub message: String,
}

/// A certificate chain with its key, as read.
pub struct ReadPair {
    pub chain: Vec<Vec<u8>>,
    pub key: Vec<u8>,
    pub leaf: Leaf,
    /// Anybody on this machine may read the key.
    pub exposed: bool,
}

/// Reads a chain and its key, and holds them against each other.
pub fn pair(cert: &str, key: &str) -> Result<ReadPair, Bad> {
    let bad = |code, message| Bad { key: false, code, message };
    let (bytes, _) = read(cert, MAX_PEM).map_err(|message| bad("unreadable-file", message))?;
    let chain = certificates(&bytes).map_err(|message| bad("bad-certificate", message))?;
    let leaf = chain.first().map(|der| Leaf::read(der)).unwrap_or_else(|| Err(String::new()));
    let leaf = leaf.map_err(|message| bad("bad-certificate", message))?;

    let bad = |code, message| Bad { key: true, code, message };
    let (bytes, mode) = read(key, MAX_PEM).map_err(|message| bad("unreadable-file", message))?;
    let key = private_key(&bytes).map_err(|message| bad("bad-key", message))?;
    let secret = key.secret_der().to_vec();
    let ders = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    match CertifiedKey::from_der(ders, key, &ring::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            let message = format!("the key does not belong to the certificate in {cert}");
            return Err(bad("key-mismatch", message));
        }
        // A key that does not tell its public part cannot be compared; TLS would do as much.
        Err(rustls::Error::InconsistentKeys(_)) => {}
        Err(_) => {
            let message = "the key is of a kind that is not supported; expected RSA (2048 bits or \
                           more), ECDSA (P-256, P-384, P-521) or Ed25519";
            return Err(bad("bad-key", message.into()));
        }
    }
    Ok(ReadPair { chain, key: secret, leaf, exposed: mode & 0o007 != 0 })
}

/// Reads the certificates that others' must come from.
pub fn issuers(file: &str) -> Result<Vec<Vec<u8>>, (&'static str, String)> {
    let (bytes, _) = read(file, MAX_BUNDLE).map_err(|message| ("unreadable-file", message))?;
    let list = certificates(&bytes).map_err(|message| ("bad-certificate", message))?;
    let mut store = RootCertStore::empty();
    for (at, der) in list.iter().enumerate() {
        store.add(CertificateDer::from(der.clone())).map_err(|_| {
            let message = format!("its certificate {} cannot be read", at + 1);
            ("bad-certificate", message)
        })?;
    }
    Ok(list)
}

/// The roots of this machine, in one order.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<Vec<Vec<u8>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Roots that cannot be used are left out: a system's bundle often has one of them.
    let usable = found.certs.into_iter().filter(|der| store.add(der.clone()).is_ok());
    let mut list: Vec<Vec<u8>> = usable.map(|der| der.to_vec()).collect();
    list.sort_unstable();
    list.dedup();
    match list.is_empty() {
        false => Ok(list),
        true => Err("this machine has no root certificates to verify the upstream with; install \
                     ca-certificates, or name its issuer as `ca`"
            .into()),
    }
}

/// Reads revocation lists, in PEM or DER.
pub fn revocations(file: &str) -> Result<Vec<Vec<u8>>, (&'static str, String)> {
    let (bytes, _) = read(file, MAX_BUNDLE).map_err(|message| ("unreadable-file", message))?;
    let list: Vec<Vec<u8>> = match bytes.first() {
        // A DER sequence.
        Some(0x30) => vec![bytes],
        _ => CertificateRevocationListDer::pem_slice_iter(&bytes)
            .map(|one| one.map(|der| der.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| ("bad-crl", broken(&error)))?,
    };
    if list.is_empty() {
        return Err(("bad-crl", "it holds no revocation list (-----BEGIN X509 CRL-----)".into()));
    }
    for (at, der) in list.iter().enumerate() {
        if der.len() > contract::encode::MAX_CRL {
            let message =
                format!("its list {} has {} bytes; at most 8 MiB are taken", at + 1, der.len());
            return Err(("bad-crl", message));
        }
        if CertificateRevocationList::from_der(der).is_err() {
            return Err(("bad-crl", format!("its revocation list {} cannot be read", at + 1)));
        }
    }
    Ok(list)
}

pub fn read(file: &str, most: u64) -> Result<(Vec<u8>, u32), String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{file} does not exist"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{file} may not be read by this user; allow it with chmod or chgrp")
        }
        _ => format!("{file} cannot be read: {error}"),
    };
    // Asked first: opening a pipe would wait for a writer.
    let meta = std::fs::metadata(file).map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("{file} is not a regular file"));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(format!("{file} is larger than {most} bytes"));
    }
    Ok((bytes, meta.mode()))
}

fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let list: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(bytes)
        .map(|one| one.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| broken(&error))?;
    if list.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Err(match bytes.first() {
            Some(0x30) => {
                "it is in DER; make PEM of it: openssl x509 -inform der -in FILE -out FILE.pem"
                    .into()
            }
            _ if text.contains("PRIVATE KEY-----") => {
                "it holds a private key and no certificate; are `cert` and `key` swapped?".into()
            }
            _ => "it holds no certificate (-----BEGIN CERTIFICATE-----)".into(),
        });
    }
    if let Some(large) = list.iter().find(|der| der.len() > contract::encode::MAX_DER) {
        return Err(format!("a certificate of {} bytes; at most 64 KiB are taken", large.len()));
    }
    Ok(list)
}

pub fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("ENCRYPTED") {
        return Err("the key is encrypted, and there is nobody to ask for its pass phrase; \
                    decrypt it: openssl pkey -in FILE -out FILE.key"
            .into());
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound if bytes.first() == Some(&0x30) => {
            "it is in DER; make PEM of it: openssl pkey -inform der -in FILE -out FILE.key".into()
        }
        pem::Error::NoItemsFound if text.contains("BEGIN CERTIFICATE-----") => {
            "it holds a certificate and no private key; are `cert` and `key` swapped?".into()
        }
        pem::Error::NoItemsFound => {
            "it holds no private key (-----BEGIN PRIVATE KEY-----; PKCS#8, SEC1 or PKCS#1)".into()
        }
        error => broken(&error),
    })
}

/// What is wrong with PEM, without a byte of what it holds.
pub fn broken(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "the PEM is cut short: a section has no -----END line".into()
        }
        pem::Error::Base64Decode(_) => "the PEM is damaged: it is not base64 inside".into(),
        pem::Error::IllegalSectionStart { .. } => "the PEM has a broken -----BEGIN line".into(),
        _ => "the PEM cannot be read".into(),
    }
}
