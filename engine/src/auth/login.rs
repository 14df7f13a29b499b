//! The login of browsers: authorization code with PKCE, and a session in an encrypted cookie.

use contract::snapshot::{self, CredentialSource, Snapshot};

use super::registry::Unfit;
use super::{Call, Check, Refusal};

/// An authenticator by sessions.
#[derive(Debug)]
pub struct Login {
    pub from: Box<[CredentialSource]>,
}

impl Login {
    pub fn build(from: &snapshot::Login, _snapshot: &Snapshot) -> Result<Login, Unfit> {
        Ok(Login { from: [CredentialSource::Cookie(from.cookie.clone())].into() })
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _index: u32, _credential: &[u8]) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
