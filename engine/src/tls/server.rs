//! What a listener shows and asks, by server name.

use std::collections::HashMap;
use std::sync::Arc;

use contract::snapshot::{Alpn, ClientAuth, ListenerTls, Snapshot, TlsSite, TlsVersion};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::identity::{self, Digest, Fingerprint, Unusable};
use super::memory::Memory;
use super::sessions::SiteSessions;
use super::tickets::Tickets;

struct Site {
    config: Arc<ServerConfig>,
    certificate: u32,
    client_auth: Option<ClientAuth>,
}

/// The TLS of one listener. Shared by all shards.
pub struct ServerSide {
    sites: Vec<Site>,
    exact: HashMap<Box<str>, u32>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, u32>,
    default_site: Option<u32>,
    handshake_timeout_ms: u32,
}

impl std::fmt::Debug for ServerSide {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerSide({} sites)", self.sites.len())
    }
}

impl ServerSide {
    /// Checks everything and builds it.
    pub(super) fn build(
        tls: &ListenerTls,
        snapshot: &Snapshot,
        memory: &Memory,
    ) -> Result<ServerSide, Unusable> {
        let mut side = ServerSide {
            sites: Vec::with_capacity(tls.sites.len()),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default_site: tls.default_site.filter(|site| (*site as usize) < tls.sites.len()),
            handshake_timeout_ms: tls.handshake_timeout_ms,
        };
        if tls.sites.is_empty() {
            return Err(Unusable::new("tls.certificates", "at least one is needed"));
        }
        for (n, site) in tls.sites.iter().enumerate() {
            let config = Arc::new(config(tls, site, n, snapshot, memory)?);
            let (certificate, client_auth) = (site.certificate, site.client_auth);
            side.sites.push(Site { config, certificate, client_auth });
            for name in &site.names {
                let name = name.to_ascii_lowercase();
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut side.wildcard, parent),
                    None => (&mut side.exact, name.as_str()),
                };
                names.entry(name.into()).or_insert(n as u32);
            }
        }
        Ok(side)
    }

    /// Milliseconds from the accept to the end of the handshake.
    pub fn handshake_timeout_ms(&self) -> u32 {
        self.handshake_timeout_ms
    }

    /// The site that a host (without port, in any case) belongs to.
    pub fn covers(&self, host: &str) -> Option<u32> {
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.covers_lower(&host.to_ascii_lowercase());
        }
        self.covers_lower(host)
    }

    /// The site that answers for a host: its own, else the default's; `None`: no one does.
    pub fn site_of(&self, host: &str) -> Option<u32> {
        self.covers(host).or(self.default_site)
    }

    fn covers_lower(&self, host: &str) -> Option<u32> {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.exact.get(host).copied().or_else(|| {
            // Exactly one label (RFC 6125 §6.4.3).
            let (label, parent) = host.split_once('.')?;
            (!label.is_empty()).then(|| self.wildcard.get(parent).copied()).flatten()
        })
    }

    /// Whether what was shown and asked under one site holds for the other as well: a request for a
    /// host of `b` may then be served on a connection to `a` (RFC 9110 §7.4, RFC 9113 §9.1.1).
    pub fn same_authority(&self, a: u32, b: u32) -> bool {
        let site = |index: u32| self.sites.get(index as usize);
        match (site(a), site(b)) {
            _ if a == b => true,
            (Some(a), Some(b)) => a.certificate == b.certificate && a.client_auth == b.client_auth,
            _ => false,
        }
    }

    /// The site for a client that asks for `name`.
    pub(super) fn choose(&self, name: Option<&str>) -> Option<(u32, &Arc<ServerConfig>)> {
        let site = name.and_then(|name| self.covers_lower(name)).or(self.default_site)?;
        self.sites.get(site as usize).map(|found| (site, &found.config))
    }
}

/// All that the result of [`ServerSide::build`] depends on.
pub(super) fn fingerprint(tls: &ListenerTls, snapshot: &Snapshot) -> Fingerprint {
    let mut digest = Digest::new("listener");
    digest.number(tls.min_version as u64);
    tls.alpn.iter().for_each(|alpn| digest.number(*alpn as u64));
    digest.number(tls.default_site.map_or(u64::MAX, u64::from));
    digest.number(u64::from(tls.early_data_bytes));
    digest.number(u64::from(tls.handshake_timeout_ms));
    for site in &tls.sites {
        digest.number(site.names.len() as u64);
        site.names.iter().for_each(|name| digest.add(name.as_bytes()));
        // By number too: `same_authority` tells sites apart by it.
        digest.number(u64::from(site.certificate));
        digest.certificate(snapshot, site.certificate);
        digest.number(site.client_auth.map_or(u64::MAX, |auth| u64::from(auth.trust)));
        digest.add(&policy(site, snapshot));
    }
    for key in &snapshot.ticket_keys {
        digest.add(&key.name);
        digest.add(&key.secret);
    }
    digest.finish()
}

/// Whom the site admits: sessions of one policy are not resumed under another.
fn policy(site: &TlsSite, snapshot: &Snapshot) -> Fingerprint {
    let mut digest = Digest::new("policy");
    if let Some(auth) = site.client_auth {
        digest.number(1 + u64::from(auth.required));
        digest.trust(snapshot, auth.trust);
    }
    digest.finish()
}

fn config(
    tls: &ListenerTls,
    site: &TlsSite,
    n: usize,
    snapshot: &Snapshot,
    memory: &Memory,
) -> Result<ServerConfig, Unusable> {
    let at = format!("tls.certificates[{n}]");
    let certified = identity::certified_key(snapshot, site.certificate, &at)?;
    let verifier = match site.client_auth {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(auth) => client_verifier(auth, snapshot, &format!("{at}.client_auth"))?,
    };
    let mut config = ServerConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(identity::versions(tls.min_version))
        .map_err(|error| Unusable::new("tls.min_version", error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn(&tls.alpn);
    // Of TLS 1.2's suites ours come strongest first (RFC 9325 §4.2.1). TLS 1.3 has no weak one, and its
    // clients know best which their hardware likes.
    config.ignore_client_order = tls.min_version == TlsVersion::V12;
    let policy = policy(site, snapshot);
    if tls.early_data_bytes > 0 {
        // Stateless tickets could be replayed with their early data, so these are remembered.
        config.max_early_data_size = tls.early_data_bytes;
        config.send_half_rtt_data = true;
        let sessions = memory.sessions();
        config.session_storage = Arc::new(SiteSessions { sessions, policy });
    } else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new(&snapshot.ticket_keys, &policy));
    }
    Ok(config)
}

pub(super) fn alpn(protocols: &[Alpn]) -> Vec<Vec<u8>> {
    let name = |alpn: &Alpn| match alpn {
        Alpn::H2 => b"h2".to_vec(),
        Alpn::Http11 => b"http/1.1".to_vec(),
    };
    protocols.iter().map(name).collect()
}

/// The end entity must not be revoked by a list of its issuer; without such a list its status is
/// unknown, which is let pass. A list past its nextUpdate still revokes what it names, and nothing
/// else follows from its age: that it was not renewed must not lock every client out.
fn client_verifier(
    auth: ClientAuth,
    snapshot: &Snapshot,
    at: &str,
) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
    let (ca, crl) = (format!("{at}.ca"), format!("{at}.crl"));
    let (roots, crls) = identity::trust(snapshot, auth.trust, &ca)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, identity::provider())
        .with_crls(crls)
        .only_check_end_entity_revocation()
        .allow_unknown_revocation_status();
    if !auth.required {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|error| Unusable::new(crl, format!("the revocation list is unusable: {error}")))
}
