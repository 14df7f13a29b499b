//! HTTP Basic (RFC 7617) against argon2id hashes.

use contract::snapshot::{self, CredentialSource, Snapshot};

use super::registry::Unfit;
use super::{Call, Check, Refusal};

/// An authenticator by name and password.
#[derive(Debug)]
pub struct Basic {
    pub from: Box<[CredentialSource]>,
    realm: Box<str>,
}

impl Basic {
    pub fn build(from: &snapshot::Basic, _snapshot: &Snapshot) -> Result<Basic, Unfit> {
        let from_header =
            CredentialSource::Header { name: "authorization".into(), scheme: Some("Basic".into()) };
        Ok(Basic { from: [from_header].into(), realm: from.realm.as_str().into() })
    }

    /// RFC 7617 §2.
    pub fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm)
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _credential: &[u8]) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
