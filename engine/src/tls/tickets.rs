//! Stateless session tickets (RFC 5077 §4, RFC 8446 §4.6.1), sealed under keys that control hands
//! out and rotates: any shard, any engine and any node with the same keys opens them.

use contract::snapshot::TicketKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use super::identity::Fingerprint;
use crate::limits;

const NAME: usize = 16;
/// Seconds of the time of sealing, in front of the state.
const TIME: usize = 8;

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

/// The keys of one site: derived from the node's keys and from whom the site trusts, so that a
/// session never outlives the policy that it was admitted under.
pub(super) struct Tickets {
    /// The first one seals.
    keys: Vec<Key>,
    random: SystemRandom,
}

impl std::fmt::Debug for Tickets {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.len())
    }
}

impl Tickets {
    pub(super) fn new(keys: &[TicketKey], policy: &Fingerprint) -> Tickets {
        let derive = |from: &TicketKey| {
            let secret = Salt::new(HKDF_SHA256, &from.name).extract(&from.secret);
            let info = [b"sluice session ticket".as_slice(), policy.as_slice()];
            let okm = secret.expand(&info, &AES_256_GCM).ok()?;
            Some(Key { name: from.name, key: LessSafeKey::new(UnboundKey::from(okm)) })
        };
        Tickets { keys: keys.iter().filter_map(derive).collect(), random: SystemRandom::new() }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        limits::TLS_SESSION_S
    }

    /// Key name, nonce; sealed: time and state; tag. A random nonce is safe for 2^32 tickets of one key
    /// (NIST SP 800-38D §8.3); keys are rotated long before.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let first = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut ticket =
            Vec::with_capacity(NAME + NONCE_LEN + TIME + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&first.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&UnixTime::now().as_secs().to_be_bytes());
        ticket.extend_from_slice(plain);
        let sealed = ticket.get_mut(NAME + NONCE_LEN..)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            first.key.seal_in_place_separate_tag(nonce, Aad::from(first.name), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut state = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.key.open_in_place(nonce, Aad::from(*name), &mut state).ok()?;
        let (time, plain) = opened.split_first_chunk::<TIME>()?;
        let age = UnixTime::now().as_secs().saturating_sub(u64::from_be_bytes(*time));
        (age <= u64::from(limits::TLS_SESSION_S)).then(|| plain.to_vec())
    }
}
