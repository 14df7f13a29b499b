//! API keys: looked up by their SHA-256, in the snapshot or in Redis.

use std::rc::Rc;

use contract::snapshot::{self, CredentialSource, Snapshot};

use super::registry::Unfit;
use super::{Call, Check, Identity, Refusal};

/// An authenticator by API keys.
#[derive(Debug)]
pub struct ApiKeys {
    pub from: Box<[CredentialSource]>,
}

impl ApiKeys {
    pub fn build(from: &snapshot::ApiKeys, _snapshot: &Snapshot) -> Result<ApiKeys, Unfit> {
        Ok(ApiKeys { from: from.from.clone().into() })
    }

    pub fn verify<'a>(
        &'a self,
        _call: Call<'a>,
        _credential: &[u8],
        _stale: Option<Rc<Identity>>,
    ) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
