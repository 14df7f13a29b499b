//! What a connection's handshake means for the requests on it.

use std::sync::Arc;

use crate::tls::{ClientCertificate, ServerSide, TlsFacts};

/// Kept from the handshake to the connection's end, whatever the plans in between say.
pub struct Secured {
    side: Arc<ServerSide>,
    /// Under which of the side's sites it came.
    site: u32,
    /// The client's certificate.
    pub peer: Option<ClientCertificate>,
}

impl Secured {
    pub fn new(side: Arc<ServerSide>, facts: &TlsFacts) -> Secured {
        Secured { side, site: facts.site, peer: facts.client.clone() }
    }

    /// Whether the connection may carry requests for `host` (without a port).
    pub fn covers(&self, host: &[u8]) -> bool {
        let site = std::str::from_utf8(host).ok().and_then(|host| self.side.site_of(host));
        site.is_some_and(|site| self.side.same_authority(site, self.site))
    }
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").field("site", &self.site).finish_non_exhaustive()
    }
}
