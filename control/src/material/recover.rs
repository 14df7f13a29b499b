//! The secrets and keys of authentication out of a snapshot, for a control process that starts while a
//! file cannot be read.

use std::sync::Arc;

use contract::snapshot::{self as flat, Snapshot};
use data_encoding::HEXLOWER;

use super::{Material, TrustFiles};
use crate::spec::{
    AuthenticatorKind, ClientProof, Fetch, KeySource, OAuthClient, Secret, Spec, StaticKey,
    StaticMaterial,
};

impl Material {
    /// What of `snapshot`, compiled from `spec`, came from files with secrets and keys.
    pub(super) fn recover_keyring(&mut self, spec: &Spec, snapshot: &Snapshot) {
        let auth = &snapshot.auth;
        for (consumer, flat) in spec.consumers.iter().zip(&auth.consumers) {
            for (key, flat) in consumer.signing_keys.iter().zip(&flat.signing_keys) {
                self.recover_secret(&key.secret, &flat.secret);
            }
        }
        for (one, flat) in spec.authenticators.iter().zip(&auth.authenticators) {
            match (&one.kind, &flat.kind) {
                (AuthenticatorKind::Jwt(jwt), flat::AuthenticatorKind::Jwt(flat)) => {
                    self.recover_keys(&jwt.keys, auth, flat.keys);
                }
                (
                    AuthenticatorKind::Introspection(one),
                    flat::AuthenticatorKind::Introspection(flat),
                ) => {
                    self.recover_client(snapshot, &one.client, &flat.client);
                    self.recover_ca(snapshot, &one.fetch, flat.endpoint.trust);
                }
                (AuthenticatorKind::Login(login), flat::AuthenticatorKind::Login(flat)) => {
                    self.recover_keys(&login.keys, auth, flat.keys);
                    self.recover_client(snapshot, &login.client, &flat.client);
                    self.recover_ca(snapshot, &login.fetch, flat.token.trust);
                    for (secret, key) in login.cookie_keys.iter().zip(&flat.cookie_keys) {
                        self.recover_secret(secret, HEXLOWER.encode(key).as_bytes());
                    }
                }
                (AuthenticatorKind::External(one), flat::AuthenticatorKind::External(flat)) => {
                    self.recover_ca(snapshot, &one.fetch, flat.endpoint.trust);
                }
                _ => {}
            }
        }
        for (upstream, flat) in spec.upstreams.iter().zip(&snapshot.upstreams) {
            if let (Some(one), Some(flat)) = (&upstream.credentials, &flat.credentials) {
                self.recover_client(snapshot, &one.client, &flat.client);
                self.recover_ca(snapshot, &one.fetch, flat.endpoint.trust);
            }
        }
        if let (Some(redis), Some(flat)) = (&spec.redis, &auth.redis) {
            if let (Some(secret), Some(url)) = (&redis.password, flat.urls.first())
                && let Some(password) = password(url)
            {
                self.recover_secret(secret, &password);
            }
            if let (Some(ca), Some(at)) = (&redis.ca, flat.trust) {
                self.recover_trust(snapshot, TrustFiles { ca: Some(ca.clone()), crl: None }, at);
            }
        }
    }

    fn recover_secret(&mut self, secret: &Secret, bytes: &[u8]) {
        if let Some(key) = secret.key() {
            self.keyring.secrets.insert(key, bytes.into());
        }
    }

    fn recover_ca(&mut self, snapshot: &Snapshot, fetch: &Fetch, trust: Option<u32>) {
        if let (Some(ca), Some(at)) = (&fetch.ca, trust) {
            self.recover_trust(snapshot, TrustFiles { ca: Some(ca.clone()), crl: None }, at);
        }
    }

    fn recover_client(
        &mut self,
        snapshot: &Snapshot,
        client: &OAuthClient,
        flat: &flat::OAuthClient,
    ) {
        match (&client.proof, &flat.proof) {
            (
                ClientProof::Basic(secret) | ClientProof::Post(secret),
                flat::ClientProof::Basic(text) | flat::ClientProof::Post(text),
            ) => self.recover_secret(secret, text.as_bytes()),
            (
                ClientProof::PrivateKeyJwt { key: file, .. },
                flat::ClientProof::PrivateKeyJwt { key, .. },
            ) => {
                self.keyring.private_keys.insert(file.clone(), key.as_slice().into());
            }
            (ClientProof::Tls { cert, key }, flat::ClientProof::Tls { identity }) => {
                self.recover_pair(snapshot, cert, key, *identity);
            }
            _ => {}
        }
    }

    fn recover_keys(&mut self, source: &KeySource, auth: &flat::Auth, at: u32) {
        let Some(set) = auth.key_sets.get(at as usize) else { return };
        match source {
            KeySource::Discovery(_) | KeySource::JwksUrl(_) => {}
            // A snapshot has of a set what one authenticator allows; others may allow the rest.
            KeySource::JwksFile(file) => {
                let known = self.keyring.sets.entry(file.clone()).or_default();
                let known = Arc::make_mut(known);
                for key in &set.keys {
                    let same = known
                        .iter_mut()
                        .find(|other| other.kid == key.kid && other.material == key.material);
                    match same {
                        None => known.push(key.clone()),
                        Some(other) => {
                            other.algorithms.extend(&key.algorithms);
                            other.algorithms.sort_unstable();
                            other.algorithms.dedup();
                        }
                    }
                }
            }
            KeySource::Keys(keys) => {
                for (StaticKey { material, .. }, flat) in keys.iter().zip(&set.keys) {
                    match (material, &flat.material) {
                        (StaticMaterial::Secret(secret), flat::KeyMaterial::Hmac(bytes)) => {
                            self.recover_secret(secret, bytes);
                        }
                        (StaticMaterial::PublicKey(file), key) => {
                            let key = Arc::new(key.clone());
                            self.keyring.public_keys.insert(file.clone(), key);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The password in an address that was made for a snapshot: percent-encoded, behind a colon.
fn password(url: &str) -> Option<Vec<u8>> {
    let (user, _) = url.split_once("://")?.1.split_once('@')?;
    let text = user.split_once(':')?.1.as_bytes();
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'%' {
            out.push(u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Some(out)
}
