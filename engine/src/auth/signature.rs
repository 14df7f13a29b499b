//! Signed requests (RFC 9421) with HMAC-SHA-256.

use contract::snapshot::{self, CredentialSource, Snapshot};

use super::credentials::Found;
use super::registry::Unfit;
use super::{Call, Check, Refusal};

/// An authenticator by signatures over requests.
#[derive(Debug)]
pub struct Signature {
    pub from: Box<[CredentialSource]>,
    rules: snapshot::Signature,
}

impl Signature {
    pub fn build(from: &snapshot::Signature, _snapshot: &Snapshot) -> Result<Signature, Unfit> {
        Ok(Signature { from: [].into(), rules: from.clone() })
    }

    pub fn credential<'a>(&'a self, _call: Call<'a>) -> Found<'a> {
        Found::Absent
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _credential: &[u8]) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
