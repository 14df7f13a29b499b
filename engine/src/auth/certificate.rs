//! Client certificates, which the handshake has verified: whose they are.

use contract::snapshot::{self, Snapshot};

use super::registry::Unfit;
use super::{Call, Check, Refusal};

/// An authenticator by client certificates.
#[derive(Debug)]
pub struct Certificates {
    consumer_required: bool,
}

impl Certificates {
    pub fn build(
        from: &snapshot::Certificates,
        _snapshot: &Snapshot,
    ) -> Result<Certificates, Unfit> {
        Ok(Certificates { consumer_required: from.consumer_required })
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _index: u32) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
