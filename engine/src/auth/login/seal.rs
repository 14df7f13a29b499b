//! Cookies that only the gateway can read or make: AES-256-GCM under a key that all nodes have.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// The keys of an authenticator's cookies: the first one seals, all of them open.
pub struct Seals(Box<[LessSafeKey]>);

impl std::fmt::Debug for Seals {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seals({})", self.0.len())
    }
}

impl Seals {
    pub fn new(keys: &[[u8; 32]]) -> Seals {
        let key = |key: &[u8; 32]| UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new);
        Seals(keys.iter().flat_map(key).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` as a cookie's value, good only under `name`: a cookie of one kind is none of another.
    /// `None`: there is no key, or no randomness.
    ///
    /// Nonces are random: with 2^32 cookies of one key the chance that two are alike is 2^-33 (NIST SP
    /// 800-38D §8.3 allows as many).
    pub fn seal(&self, name: &str, text: &[u8]) -> Option<String> {
        let key = self.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut out = text.to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(sealing, Aad::from(name.as_bytes()), &mut out).ok()?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut out);
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What was sealed under `name`; `None`: not by us, or under a key that is gone.
    pub fn open(&self, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let mut text = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text).ok()?;
            let len = opened.len();
            text.truncate(len);
            Some(text)
        })
    }
}

/// `bytes` random bytes in base64url.
pub fn random(bytes: usize) -> Option<String> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_key_opens_and_only_under_the_name() {
        let seals = Seals::new(&[[1; 32]]);
        let sealed = seals.seal("a", b"text").unwrap();
        assert_ne!(sealed, seals.seal("a", b"text").unwrap(), "nonces differ");
        assert_eq!(seals.open("a", sealed.as_bytes()).unwrap(), b"text");
        assert_eq!(seals.open("b", sealed.as_bytes()), None);
        assert_eq!(Seals::new(&[[2; 32]]).open("a", sealed.as_bytes()), None);
        let rotated = Seals::new(&[[2; 32], [1; 32]]);
        assert_eq!(rotated.open("a", sealed.as_bytes()).unwrap(), b"text");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            // The last character has spare bits, which a strict decoder refuses as well.
            assert_eq!(seals.open("a", &bad), None, "{at}");
        }
        for bad in ["", "A", "AAAA", "!!!!", &"A".repeat(40)] {
            assert_eq!(seals.open("a", bad.as_bytes()), None);
        }
        assert_eq!(Seals::new(&[]).seal("a", b""), None);
    }
}
