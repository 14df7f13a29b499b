//! HTTP Basic (RFC 7617) against argon2id hashes.
//!
//! A hash is made to take long, so it is computed by the store's threads, few at a time and with few
//! waiting: whoever comes when they are busy is told so (503) at once. A good password is remembered
//! for a while, by a keyed digest: what a shard keeps in its memory opens nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHashString};
use argon2::{Argon2, Params, PasswordVerifier};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::snapshot::{self, ConsumerIndex, CredentialSource, Snapshot};
use ring::hmac;
use ring::rand::SystemRandom;

use super::credentials::{self, Found};
use super::registry::Unfit;
use super::{Call, Check, Identity, Outcome, Refusal};
use crate::limits;
use crate::store::places::Places;
use crate::upstream::hash_key;

/// An authenticator by name and password.
pub struct Basic {
    pub from: Box<[CredentialSource]>,
    /// As it stands in a challenge, between quotes.
    realm: Box<str>,
    users: HashMap<Box<str>, User>,
    /// Of all users, in the order of their names: what unknown users' passwords are compared with.
    decoys: Box<[Arc<PasswordHashString>]>,
    /// Under what passwords are remembered. Of this registry alone, and written down nowhere.
    key: hmac::Key,
    /// Of passwords that are hashed, or wait for it.
    hashing: Arc<Places>,
}

struct User {
    consumer: ConsumerIndex,
    hash: Arc<PasswordHashString>,
}

impl fmt::Debug for Basic {
    /// Without hashes and key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Basic {
    /// # Errors
    /// The realm cannot stand in a challenge, or a hash is none of argon2id, or takes too long.
    pub fn build(from: &snapshot::Basic, snapshot: &Snapshot) -> Result<Basic, Unfit> {
        let from_header =
            CredentialSource::Header { name: "authorization".into(), scheme: Some("Basic".into()) };
        let mut users = HashMap::new();
        let mut names = Vec::new();
        for (index, consumer) in snapshot.auth.consumers.iter().enumerate() {
            for password in &consumer.passwords {
                let hash = read_hash(&password.hash).map_err(|problem| {
                    let (name, user) = (&consumer.name, &password.username);
                    let problem = format!("the hash of `{user}` (consumer `{name}`) {problem}");
                    ("passwords".to_string(), problem)
                })?;
                let user = User { consumer: index as u32, hash: Arc::new(hash) };
                names.push((password.username.as_str(), user.hash.clone()));
                users.insert(password.username.as_str().into(), user);
            }
        }
        names.sort_by_key(|(name, _)| *name);
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| ("realm".to_string(), "the system has no random numbers".to_string()))?;
        Ok(Basic {
            from: [from_header].into(),
            realm: quoted(&from.realm)?,
            users,
            decoys: names.into_iter().map(|(_, hash)| hash).collect(),
            key,
            hashing: Places::new(limits::BASIC_HASHES, limits::BASIC_WAITING),
        })
    }

    /// RFC 7617 §2.
    pub fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm)
    }

    /// What a password is remembered by.
    pub fn credential<'a>(&'a self, call: Call<'a>) -> Found<'a> {
        match credentials::find(call, &self.from) {
            Found::One(sent) => {
                Found::One(Cow::Owned(hmac::sign(&self.key, &sent).as_ref().to_vec()))
            }
            found => found,
        }
    }

    /// The user that a request names.
    pub fn user(&self, call: Call<'_>) -> Option<String> {
        Some(self.read(call)?.0)
    }

    fn read(&self, call: Call<'_>) -> Option<(String, String)> {
        match credentials::find(call, &self.from) {
            Found::One(sent) => read_pair(&sent),
            _ => None,
        }
    }

    pub fn verify<'a>(&'a self, call: Call<'a>) -> Check<'a> {
        let Some((name, password)) = self.read(call) else {
            return Check::refused(Refusal::Invalid);
        };
        let user = self.users.get(name.as_str());
        // An unknown user takes as long as a known one: as some one of them, always the same.
        let decoy = || {
            let at = hash_key::hash(name.as_bytes()) % (self.decoys.len().max(1) as u64);
            self.decoys.get(at as usize)
        };
        let Some(hash) = user.map(|user| &user.hash).or_else(decoy).cloned() else {
            return Check::refused(Refusal::Invalid);
        };
        let Some(place) = self.hashing.take() else { return Check::refused(Refusal::Unavailable) };
        let consumer = user.map(|user| user.consumer);
        Check::later(async move {
            let work = move || {
                let hash = hash.password_hash();
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            };
            let asked = call.shard.desk().ask(async move { place.work(work).await });
            match (asked.await, consumer) {
                (Ok(Some(true)), Some(consumer)) => Outcome::Known(
                    Identity {
                        credential: Some(name.into()),
                        until_ms: call.wall_ms() + limits::BASIC_MEMORY_MS,
                        ..call.registry.identity(consumer)
                    }
                    .into(),
                ),
                (Ok(Some(_)), _) => Outcome::Refused(Refusal::Invalid),
                _ => Outcome::Refused(Refusal::Unavailable),
            }
        })
    }
}

/// User and password of a credential (RFC 7617 §2): in Base64, of UTF-8 without control characters, up
/// to the first colon and behind it.
fn read_pair(sent: &[u8]) -> Option<(String, String)> {
    if sent.len() > limits::BASIC_CREDENTIAL {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(sent).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    (!text.chars().any(char::is_control)).then(|| (name.to_string(), password.to_string()))
}

/// A hash that can be computed in bounded memory and time.
fn read_hash(text: &str) -> Result<PasswordHashString, String> {
    let hash = PasswordHash::new(text)
        .map_err(|error| format!("is no PHC string ($argon2id$…): {error}"))?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(format!("is of {}; only argon2id is taken", hash.algorithm));
    }
    if hash.version.is_some_and(|version| version != u32::from(argon2::Version::V0x13)) {
        return Err("is of an old version; v=19 is taken".into());
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("has no salt or no hash".into());
    }
    let params = Params::try_from(&hash).map_err(|error| format!("has odd parameters: {error}"))?;
    let (memory_kib, passes) = (params.m_cost(), params.t_cost());
    if memory_kib > limits::ARGON2_KIB || passes > limits::ARGON2_PASSES {
        return Err(format!(
            "takes too much: m={memory_kib},t={passes}, where m={},t={} is the most",
            limits::ARGON2_KIB,
            limits::ARGON2_PASSES
        ));
    }
    Ok(hash.serialize())
}

/// RFC 9110 §5.6.4.
fn quoted(realm: &str) -> Result<Box<str>, Unfit> {
    if let Some(odd) = realm.chars().find(|char| !matches!(char, ' '..='~')) {
        let problem = format!("has {odd:?}, which cannot stand in WWW-Authenticate; use ASCII");
        return Err(("realm".into(), problem));
    }
    Ok(realm.replace('\\', "\\\\").replace('"', "\\\"").into())
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{Auth, Consumer, Password};
    use proptest::prelude::*;

    use super::*;

    fn build(realm: &str, hash: &str) -> Result<Basic, Unfit> {
        let password = Password { username: "ada".into(), hash: hash.into() };
        let consumer =
            Consumer { name: "c".into(), passwords: vec![password], ..Default::default() };
        let auth = Auth { consumers: vec![consumer].into(), ..Default::default() };
        let snapshot = Snapshot { auth, ..Default::default() };
        Basic::build(&snapshot::Basic { realm: realm.into() }, &snapshot)
    }

    #[test]
    fn pairs_are_read_strictly() {
        let read = |text: &[u8]| read_pair(STANDARD.encode(text).as_bytes());
        let pair = |name: &str, password: &str| Some((name.to_string(), password.to_string()));
        // RFC 7617 §2, §2.1.
        assert_eq!(read_pair(b"QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(read_pair(b"dGVzdDoxMjPCow=="), pair("test", "123\u{a3}"));
        assert_eq!(read(b"a:b:c"), pair("a", "b:c"), "passwords may have colons");
        assert_eq!(read(b":"), pair("", ""));
        for bad in [&b"no colon"[..], b"a:\xff", b"a\n:b", b"a:b\x7f", b"a:\xc2\x80", b""] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        for bad in [&b"YTpi "[..], b"YTpi=", b"YT pi", b"YTp", b"YTpiY", b"YTo*", b"YTpjZB=="] {
            assert_eq!(read_pair(bad), None, "{bad:?}");
        }
        assert_eq!(read(&[b'a'; limits::BASIC_CREDENTIAL]), None);
    }

    #[test]
    fn hashes_that_cannot_be_used_are_refused_when_they_are_read() {
        let salt = "c29tZXNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        assert!(build("r", &format!("$argon2id$v=19$m=19456,t=2,p=1${salt}")).is_ok());
        for bad in [
            "secret".to_string(),
            "$2b$12$abcdefghijklmnopqrstuv".to_string(),
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ".to_string(),
            format!("$argon2i$v=19$m=19456,t=2,p=1${salt}"),
            format!("$argon2id$v=16$m=19456,t=2,p=1${salt}"),
            format!("$argon2id$v=19$m=4194304,t=2,p=1${salt}"),
            format!("$argon2id$v=19$m=19456,t=2000,p=1${salt}"),
        ] {
            let (field, problem) = build("r", &bad).unwrap_err();
            assert!(field == "passwords" && problem.contains("`ada` (consumer `c`)"), "{problem}");
            assert!(!problem.contains(salt), "{problem}");
        }
    }

    #[test]
    fn realms_stay_between_their_quotes() {
        let none = Basic::build(&snapshot::Basic::default(), &Snapshot::default()).unwrap();
        assert_eq!(none.challenge(), "Basic realm=\"\", charset=\"UTF-8\"");
        assert_eq!(&*quoted("a \"b\\").unwrap(), "a \\\"b\\\\");
        assert_eq!(quoted("a\r\nb").unwrap_err().0, "realm");
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let hashing = Places::new(limits::BASIC_HASHES, limits::BASIC_WAITING);
        let places: Vec<_> = (0..limits::BASIC_WAITING).map(|_| hashing.take().unwrap()).collect();
        assert!(hashing.take().is_none());
        drop(places);
        assert!(hashing.take().is_some());
    }

    proptest! {
        #[test]
        fn any_pair_comes_back(name in "[^:\\p{Cc}]{0,20}", password in "[^\\p{Cc}]{0,20}") {
            let sent = STANDARD.encode(format!("{name}:{password}"));
            prop_assert_eq!(read_pair(sent.as_bytes()), Some((name, password)));
        }

        #[test]
        fn no_bytes_are_too_odd(sent in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_pair(&sent);
        }
    }
}
