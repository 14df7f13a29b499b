//! A token's signature against the keys of an issuer.

use std::sync::Arc;

use contract::snapshot;

use super::key::Key;
use super::parse::{Header, Token};
use crate::limits;
use crate::shard::Shard;
use crate::store::NoAnswer;

/// The keys of an issuer.
#[derive(Debug)]
pub struct KeySet {
    /// They have been there once.
    pub loaded: bool,
    /// Where a shard asks for the set to be fetched again; `None`: it cannot change.
    pub wish: Option<u32>,
    keys: Box<[Key]>,
}

/// What the keys say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
    /// It names a key that is not in the set.
    Unknown,
}

impl KeySet {
    /// # Errors
    /// Says which of the keys cannot be used, and why.
    pub fn build(from: &snapshot::KeySet) -> Result<Arc<KeySet>, String> {
        let mut keys = Vec::with_capacity(from.keys.len());
        for (at, key) in from.keys.iter().enumerate() {
            let key = Key::build(key);
            keys.push(key.map_err(|problem| format!("key {at} of {:?}: {problem}", from.source))?);
        }
        Ok(Arc::new(KeySet { loaded: from.loaded, wish: from.wish, keys: keys.into() }))
    }

    /// Whether a key of that name is here.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The keys to try: those of the name, else those without one, and of a token that names none
    /// any. The algorithm has to be the key's in any case (RFC 8725 §3.1).
    fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        let wanted = header.kid.as_deref();
        let named = wanted.is_some_and(|kid| self.has(kid));
        self.keys
            .iter()
            .filter(move |key| wanted.is_none() || key.kid.as_deref() == wanted.filter(|_| named))
            .filter(|key| key.algorithms.contains(&header.algorithm))
            .take(limits::JWT_KEYS)
    }

    /// Whether [`KeySet::judge`] would keep a shard's other requests waiting.
    pub fn is_slow_for(&self, header: &Header) -> bool {
        self.candidates(header).any(Key::is_slow)
    }

    pub fn judge(&self, token: &Token) -> Verdict {
        let Token { header, signed, signature, .. } = token;
        let good = |key: &Key| key.verifies(header.algorithm, signed, signature);
        if self.candidates(header).any(good) {
            return Verdict::Good;
        }
        match &header.kid {
            Some(kid) if !self.has(kid) => Verdict::Unknown,
            _ => Verdict::Bad,
        }
    }

    /// The same, off the shard where it would take too long.
    ///
    /// # Errors
    /// The store thread has too much to do.
    pub async fn judge_aside(
        self: &Arc<Self>,
        shard: &Shard,
        token: Token,
    ) -> Result<Verdict, NoAnswer> {
        if !self.is_slow_for(&token.header) {
            return Ok(self.judge(&token));
        }
        let keys = self.clone();
        shard.desk().compute(move || keys.judge(&token)).await?.ok_or(NoAnswer)
    }
}
