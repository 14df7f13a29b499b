//! Certificates and trust of a snapshot: each once, named by its index.

use std::collections::HashMap;

use contract::snapshot as flat;

use crate::material::{Material, TrustFiles};
use crate::spec::{Alpn, ClientAuthMode, ListenerTls, TlsVersion, UpstreamTls};

/// Points at nothing, so that decoding refuses the snapshot. It stands for material that is not
/// there; without it a peer might pass unverified.
pub const NOTHING: u32 = u32::MAX;

/// Certificates or revocation lists.
type Ders<'m> = &'m [Vec<u8>];

/// Gathers what listeners and upstreams ask for.
pub struct Identities<'m> {
    material: &'m Material,
    pub certificates: Vec<flat::Certificate>,
    pub trust: Vec<flat::Trust>,
    known_certificates: HashMap<(Ders<'m>, &'m [u8]), u32>,
    known_trust: HashMap<(Ders<'m>, Ders<'m>), u32>,
}

impl<'m> Identities<'m> {
    pub fn new(material: &'m Material) -> Identities<'m> {
        Identities {
            material,
            certificates: Vec::new(),
            trust: Vec::new(),
            known_certificates: HashMap::new(),
            known_trust: HashMap::new(),
        }
    }

    pub fn listener(&mut self, tls: &ListenerTls) -> flat::ListenerTls {
        let sites = tls.certificates.iter().map(|one| flat::TlsSite {
            names: self.material.names(one),
            certificate: self.certificate(&one.cert, &one.key),
            client_auth: one.client_auth.as_ref().map(|auth| flat::ClientAuth {
                trust: self.trust(Some(auth.ca.clone()), auth.crl.clone()),
                required: auth.mode == ClientAuthMode::Require,
            }),
        });
        flat::ListenerTls {
            min_version: version(tls.min_version),
            sites: sites.collect(),
            alpn: tls
                .alpn
                .iter()
                .map(|alpn| match alpn {
                    Alpn::H2 => flat::Alpn::H2,
                    Alpn::Http11 => flat::Alpn::Http11,
                })
                .collect(),
            default_site: (!tls.strict_sni).then_some(0),
            early_data_bytes: u32::try_from(tls.early_data).unwrap_or(u32::MAX),
            handshake_timeout_ms: tls.handshake_timeout_ms,
        }
    }

    pub fn upstream(&mut self, tls: &UpstreamTls) -> flat::UpstreamTls {
        let identity = tls.cert.as_deref().zip(tls.key.as_deref());
        flat::UpstreamTls {
            min_version: version(tls.min_version),
            trust: tls.verify.then(|| self.trust(tls.ca.clone(), None)),
            server_name: tls.server_name.clone(),
            identity: identity.map(|(cert, key)| self.certificate(cert, key)),
        }
    }

    pub fn certificate(&mut self, cert: &str, key: &str) -> flat::CertificateIndex {
        let Some(pair) = self.material.pair(cert, key) else { return NOTHING };
        let one = &pair.certificate;
        let list = &mut self.certificates;
        *self.known_certificates.entry((&one.chain, &one.key)).or_insert_with(|| {
            list.push(one.clone());
            (list.len() - 1) as u32
        })
    }

    pub fn trust(&mut self, ca: Option<String>, crl: Option<String>) -> flat::TrustIndex {
        let Some(trust) = self.material.trust(&TrustFiles { ca, crl }) else { return NOTHING };
        let list = &mut self.trust;
        *self.known_trust.entry((&trust.roots, &trust.crls)).or_insert_with(|| {
            list.push(trust.clone());
            (list.len() - 1) as u32
        })
    }
}

fn version(version: TlsVersion) -> flat::TlsVersion {
    match version {
        TlsVersion::V12 => flat::TlsVersion::V12,
        TlsVersion::V13 => flat::TlsVersion::V13,
    }
}
