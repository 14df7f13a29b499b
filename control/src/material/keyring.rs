//! Secrets and keys of authentication, as files hold them. Nothing here ever tells what is in them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use contract::encode::MAX_SIGNING_SECRET;
use contract::snapshot::{JwsAlgorithm, KeyMaterial, VerifyKey};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
    pem::{self, PemObject},
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{Load, Material, file, outside};
use crate::{
    compile::jws,
    keys::jwk,
    spec::{self, Part, Secret, SecretUse, Severity, Spec},
};

/// Largest file with a secret, in bytes.
pub(super) const MAX_SECRET: u64 = 64 << 10;

/// Secrets and keys by the file that holds them; secrets that are in none by [`Secret::key`].
#[derive(Clone, Default, PartialEq)]
pub struct Keyring {
    pub(super) secrets: BTreeMap<String, Arc<[u8]>>,
    pub(super) sets: BTreeMap<String, Arc<Vec<VerifyKey>>>,
    pub(super) public_keys: BTreeMap<String, Arc<KeyMaterial>>,
    /// PKCS#8 in DER.
    pub(super) private_keys: BTreeMap<String, Arc<[u8]>>,
}

impl fmt::Debug for Keyring {
    /// Only which files there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.secrets.keys().chain(self.sets.keys());
        let files = files.chain(self.public_keys.keys()).chain(self.private_keys.keys());
        f.debug_set().entries(files).finish()
    }
}

impl Material {
    pub fn secret<'a>(&'a self, secret: &'a Secret) -> Option<&'a [u8]> {
        match secret {
            Secret::Inline(text) => Some(text.as_bytes()),
            other => self.keyring.secrets.get(&other.key()?).map(Arc::as_ref),
        }
    }

    /// A secret that is text.
    pub fn text<'a>(&'a self, secret: &'a Secret) -> Option<&'a str> {
        std::str::from_utf8(self.secret(secret)?).ok()
    }

    /// All keys of a file with a set.
    pub fn key_set(&self, file: &str) -> Option<&[VerifyKey]> {
        self.keyring.sets.get(file).map(|set| set.as_slice())
    }

    pub fn public_key(&self, file: &str) -> Option<&KeyMaterial> {
        self.keyring.public_keys.get(file).map(Arc::as_ref)
    }

    pub fn private_key(&self, file: &str) -> Option<&[u8]> {
        self.keyring.private_keys.get(file).map(Arc::as_ref)
    }
}

/// 32 bytes in hexadecimal or base64.
pub fn seal(text: &[u8]) -> Option<[u8; 32]> {
    let encodings = [HEXLOWER_PERMISSIVE, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
    encodings.iter().find_map(|encoding| encoding.decode(text).ok()?.try_into().ok())
}

impl Load<'_> {
    /// Reads what authentication needs.
    pub(super) fn keyring(&mut self, spec: &Spec) {
        // Only a walk that could change the parts finds them; specs are read when people change them.
        let mut parts = spec.clone();
        for (field, part) in parts.auth_parts_mut() {
            match part {
                Part::Secret(Secret::File(file), usage) => {
                    self.secret_file(format!("{field}.file"), file, usage);
                }
                Part::Secret(Secret::Env(name), usage) => {
                    let (key, field) = (format!("env:{name}"), format!("{field}.env"));
                    match outside::variable(name) {
                        Some(Ok(value)) => self.outside(&key, field, name, Some(value), usage),
                        Some(Err(message)) => {
                            self.fault(Severity::Error, "no-variable", field, name, message);
                            self.keep(|ring| &mut ring.secrets, |ring| &ring.secrets, &key);
                        }
                        None => self.outside(&key, field, name, None, usage),
                    }
                }
                Part::Secret(Secret::Command(command), usage) => {
                    let (key, field) = (command.key(), format!("{field}.command"));
                    let said = outside::said(command);
                    self.outside(&key, field, &command.to_string(), said, usage);
                }
                Part::Secret(Secret::Inline(text), usage) => {
                    if let Err(message) = fit(text.as_bytes(), usage) {
                        let field = format!("{field}.inline");
                        self.fault(Severity::Error, "bad-secret", field, "", message);
                    }
                }
                Part::Ca(ca) => {
                    self.trust(field.strip_suffix(".ca").unwrap_or(&field), Some(ca), None);
                }
                Part::Jwks(file, algorithms) => self.set_file(field, file, algorithms),
                Part::PublicKey(file, algorithm) => self.public_key(field, file, algorithm),
                Part::PrivateKey(file) => self.private_key(field, file),
                Part::Pair(cert, key) => {
                    self.pair(&field, cert, key);
                }
            }
        }
        self.expiries(spec);
    }

    fn secret_file(&mut self, field: String, name: &str, usage: SecretUse) {
        let known = self.material.keyring.secrets.get(name).cloned();
        let read = match known {
            Some(secret) => Ok((secret, 0)),
            None => file::read(name, MAX_SECRET).map(|(bytes, mode)| (bare(&bytes).into(), mode)),
        };
        let (secret, mode) = match read {
            Ok(read) => read,
            Err(message) => {
                self.fault(Severity::Error, "unreadable-file", field, name, message);
                self.keep(|ring| &mut ring.secrets, |ring| &ring.secrets, name);
                return;
            }
        };
        if let Err(message) = fit(&secret, usage) {
            self.fault(Severity::Error, "bad-secret", field, name, message);
            self.keep(|ring| &mut ring.secrets, |ring| &ring.secrets, name);
            return;
        }
        if mode & 0o007 != 0 {
            let message = format!("anybody on this machine may read this secret: chmod 600 {name}");
            self.fault(Severity::Warning, "exposed-secret", field, name, message);
        }
        self.material.keyring.secrets.insert(name.into(), secret);
    }

    /// Takes a secret that is in no file; without a value what was there before, or a stand-in.
    fn outside(
        &mut self,
        key: &str,
        field: String,
        shown: &str,
        value: Option<Arc<[u8]>>,
        usage: SecretUse,
    ) {
        if let Some(value) = value {
            match fit(&value, usage) {
                Ok(()) => {
                    self.material.keyring.secrets.insert(key.into(), value);
                    return;
                }
                Err(message) => self.fault(Severity::Error, "bad-secret", field, shown, message),
            }
            self.keep(|ring| &mut ring.secrets, |ring| &ring.secrets, key);
            return;
        }
        self.keep(|ring| &mut ring.secrets, |ring| &ring.secrets, key);
        let stand_in: Vec<u8> = match usage {
            SecretUse::Text => b"stand-in".to_vec(),
            SecretUse::Hmac(least) => vec![b'-'; least],
            SecretUse::Seal => vec![b'0'; 64],
        };
        let secrets = &mut self.material.keyring.secrets;
        let held = secrets.get(key).filter(|held| fit(held, usage).is_ok());
        if held.is_none() || self.material.pending.contains(key) {
            secrets.insert(key.into(), stand_in.into());
            self.material.pending.insert(key.into());
        }
    }

    fn set_file(&mut self, field: String, name: &str, allowed: &[spec::JwsAlgorithm]) {
        let set = match self.material.keyring.sets.get(name).cloned() {
            Some(set) => Ok(set),
            None => file::read(name, jwk::MAX_BYTES as u64)
                .map_err(|message| ("unreadable-file", message))
                .and_then(|(bytes, _)| {
                    let set = jwk::parse(&bytes, &JwsAlgorithm::ALL).map(Arc::new);
                    set.map_err(|error| ("bad-jwks", format!("{name} is no JWK Set: {error}")))
                }),
        };
        let allowed: Vec<JwsAlgorithm> = allowed.iter().copied().map(jws).collect();
        let usable = |set: &Arc<Vec<VerifyKey>>| !jwk::narrowed(set, &allowed).is_empty();
        match set {
            Ok(set) if usable(&set) => {
                self.material.keyring.sets.insert(name.into(), set);
            }
            Ok(_) => {
                let message = format!("no key in {name} is for any of the algorithms");
                self.fault(Severity::Error, "bad-jwks", field, name, message);
                self.keep(|ring| &mut ring.sets, |ring| &ring.sets, name);
            }
            Err((code, message)) => {
                self.fault(Severity::Error, code, field, name, message);
                self.keep(|ring| &mut ring.sets, |ring| &ring.sets, name);
            }
        }
    }

    fn public_key(&mut self, field: String, name: &str, algorithm: spec::JwsAlgorithm) {
        let read = file::read(name, file::MAX_PEM)
            .map_err(|message| ("unreadable-file", message))
            .and_then(|(bytes, _)| public_key(&bytes).map_err(|message| ("bad-key", message)));
        let read = read.and_then(|key| match key.is_sound() && key.suits(jws(algorithm)) {
            true => Ok(key),
            false => {
                let message =
                    format!("{name} holds {}, which is not for {}", kind(&key), algorithm.name());
                Err(("algorithm-mismatch", message))
            }
        });
        match read {
            Ok(key) => {
                self.material.keyring.public_keys.insert(name.into(), Arc::new(key));
            }
            Err((code, message)) => {
                self.fault(Severity::Error, code, field, name, message);
                self.keep(|ring| &mut ring.public_keys, |ring| &ring.public_keys, name);
            }
        }
    }

    fn private_key(&mut self, field: String, name: &str) {
        let read = file::read(name, file::MAX_PEM)
            .map_err(|message| ("unreadable-file", message))
            .and_then(|(bytes, mode)| match signing_key(&bytes, name) {
                Ok(key) => Ok((key, mode)),
                Err(message) => Err(("bad-key", message)),
            });
        match read {
            Ok((key, mode)) => {
                if mode & 0o007 != 0 {
                    let message = format!(
                        "anybody on this machine may use this private key: chmod 600 {name}"
                    );
                    self.fault(Severity::Warning, "exposed-key", field, name, message);
                }
                self.material.keyring.private_keys.insert(name.into(), key.into());
            }
            Err((code, message)) => {
                self.fault(Severity::Error, code, field, name, message);
                self.keep(|ring| &mut ring.private_keys, |ring| &ring.private_keys, name);
            }
        }
    }

    /// Goes on with what the file held before.
    fn keep<T: Clone>(
        &mut self,
        now: fn(&mut Keyring) -> &mut BTreeMap<String, T>,
        before: fn(&Keyring) -> &BTreeMap<String, T>,
        name: &str,
    ) {
        let held = self.before.and_then(|material| before(&material.keyring).get(name));
        if let Some(held) = held.cloned() {
            now(&mut self.material.keyring).entry(name.into()).or_insert(held);
        }
    }

    fn expiries(&mut self, spec: &Spec) {
        for (at, consumer) in spec.consumers.iter().enumerate() {
            for (n, key) in consumer.api_keys.iter().enumerate() {
                let Some(expires) = key.expires.filter(|time| i64::from(time.0) <= self.now) else {
                    continue;
                };
                let message = format!("this key of `{}` has ended; take it out", consumer.name);
                let field = format!("consumers[{at}].api_keys[{n}].expires");
                let value = expires.to_string();
                self.fault(Severity::Warning, "expired-key", field, &value, message);
            }
        }
    }
}

/// Without the newline that editors and `echo` put at the end.
fn bare(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Whether a secret is good for what it is to be used for.
fn fit(secret: &[u8], usage: SecretUse) -> Result<(), String> {
    match usage {
        _ if secret.is_empty() => Err("the secret is empty".into()),
        SecretUse::Text => match std::str::from_utf8(secret) {
            Ok(text) if !text.contains(char::is_control) => Ok(()),
            _ => Err("the secret is to be sent as text, and is none".into()),
        },
        SecretUse::Hmac(least) if secret.len() < least => Err(format!(
            "the secret has {} bytes, and must have {least} at least: openssl rand -base64 {least}",
            secret.len()
        )),
        SecretUse::Hmac(_) if secret.len() > MAX_SIGNING_SECRET => {
            Err(format!("the secret has {} bytes; at most {MAX_SIGNING_SECRET}", secret.len()))
        }
        SecretUse::Hmac(_) => Ok(()),
        SecretUse::Seal => match seal(secret) {
            Some(_) => Ok(()),
            None => Err("a key of the cookie has 32 bytes in hexadecimal or base64: openssl rand \
                         -base64 32"
                .into()),
        },
    }
}

fn public_key(bytes: &[u8]) -> Result<KeyMaterial, String> {
    let text = String::from_utf8_lossy(bytes);
    let unreadable = || {
        "the key is of a kind that is not supported; expected RSA, P-256, P-384 or Ed25519"
            .to_string()
    };
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which does not belong here: openssl pkey -in FILE \
                    -pubout -out FILE.pub"
            .into());
    }
    if let Ok(der) = SubjectPublicKeyInfoDer::from_pem_slice(bytes) {
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| unreadable())?;
        return material(&info).ok_or_else(unreadable);
    }
    match CertificateDer::from_pem_slice(bytes) {
        Ok(der) => {
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
            material(certificate.public_key()).ok_or_else(unreadable)
        }
        Err(pem::Error::NoItemsFound) => {
            Err("it holds no public key (-----BEGIN PUBLIC KEY-----) and no certificate, in PEM"
                .into())
        }
        Err(error) => Err(file::broken(&error)),
    }
}

fn material(info: &SubjectPublicKeyInfo<'_>) -> Option<KeyMaterial> {
    let number = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().to_vec()
    };
    Some(match info.parsed() {
        Ok(PublicKey::RSA(key)) => {
            KeyMaterial::Rsa { modulus: number(key.modulus), exponent: number(key.exponent) }
        }
        Ok(PublicKey::EC(point)) => {
            let point = point.data().to_vec();
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            // RFC 5480 §2.1.1.1.
            match curve.as_str() {
                "1.2.840.10045.3.1.7" => KeyMaterial::P256(point),
                "1.3.132.0.34" => KeyMaterial::P384(point),
                "1.3.132.0.35" => KeyMaterial::P521(point),
                _ => return None,
            }
        }
        // RFC 8410 §3.
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            KeyMaterial::Ed25519(info.subject_public_key.data.as_ref().try_into().ok()?)
        }
        _ => return None,
    })
}

fn kind(key: &KeyMaterial) -> String {
    match key {
        KeyMaterial::Rsa { modulus, .. } => format!("an RSA key of {} bits", modulus.len() * 8),
        KeyMaterial::P256(_) => "a P-256 key".into(),
        KeyMaterial::P384(_) => "a P-384 key".into(),
        KeyMaterial::P521(_) => "a P-521 key".into(),
        KeyMaterial::Ed25519(_) => "an Ed25519 key".into(),
        KeyMaterial::Hmac(_) => "a secret".into(),
    }
}

/// A key that signs assertions: RSA or P-256, as PKCS#8.
fn signing_key(bytes: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let der = match file::private_key(bytes)? {
        PrivateKeyDer::Pkcs8(der) => der.secret_pkcs8_der().to_vec(),
        _ => {
            return Err(format!(
                "the key is not in PKCS#8: openssl pkcs8 -topk8 -nocrypt -in {name} -out {name}.p8"
            ));
        }
    };
    let random = ring::rand::SystemRandom::new();
    let usable = RsaKeyPair::from_pkcs8(&der).is_ok()
        || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).is_ok();
    match usable {
        true => Ok(der),
        false => {
            Err("the key is of a kind that does not sign assertions here; expected RSA of 2048 \
                      bits or more, or P-256"
                .into())
        }
    }
}
