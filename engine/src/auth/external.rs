//! Another service decides about requests.

use contract::snapshot::{self, Snapshot};

use super::credentials::Found;
use super::registry::Unfit;
use super::{Call, Check, Refusal};

/// An authenticator that asks a service.
#[derive(Debug)]
pub struct External {
    rules: snapshot::External,
}

impl External {
    pub fn build(from: &snapshot::External, _snapshot: &Snapshot) -> Result<External, Unfit> {
        Ok(External { rules: from.clone() })
    }

    /// What it decides by: the fields that it gets.
    pub fn credential<'a>(&'a self, _call: Call<'a>) -> Found<'a> {
        Found::Absent
    }

    pub fn verify<'a>(&'a self, _call: Call<'a>, _index: u32, _credential: &[u8]) -> Check<'a> {
        Check::refused(Refusal::Unavailable)
    }
}
