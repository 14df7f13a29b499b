//! Certificates, trust, ticket keys, and how listeners and upstreams use them.

use super::{Counts, DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most certificates (own identities) of a snapshot.
pub const MAX_CERTIFICATES: usize = 10_000;
/// Most sets of trust anchors of a snapshot.
pub const MAX_TRUST: usize = 10_000;
/// Most keys of session tickets.
pub const MAX_TICKET_KEYS: usize = 16;
/// Longest chain of one certificate.
pub const MAX_CHAIN: usize = 32;
/// Largest certificate or private key, in bytes.
pub const MAX_DER: usize = 64 * 1024;
/// Largest revocation list, in bytes.
pub const MAX_CRL: usize = 8 * 1024 * 1024;

pub(super) fn write_certificate(out: &mut Out, certificate: &Certificate) {
    out.list(&certificate.chain, |out, der| out.blob(der));
    out.blob(&certificate.key);
}

pub(super) fn read_certificate(input: &mut In<'_>) -> Result<Certificate, DecodeError> {
    Ok(Certificate {
        chain: input.some("certificate.chain", MAX_CHAIN, |input| {
            input.blob("certificate.chain", MAX_DER)
        })?,
        key: input.blob("certificate.key", MAX_DER)?,
    })
}

pub(super) fn write_trust(out: &mut Out, trust: &Trust) {
    out.list(&trust.roots, |out, der| out.blob(der));
    out.list(&trust.crls, |out, der| out.blob(der));
}

pub(super) fn read_trust(input: &mut In<'_>) -> Result<Trust, DecodeError> {
    Ok(Trust {
        roots: input
            .list("trust.roots", MAX_ENTRIES, |input| input.blob("trust.roots", MAX_DER))?,
        crls: input.list("trust.crls", MAX_ENTRIES, |input| input.blob("trust.crls", MAX_CRL))?,
    })
}

pub(super) fn write_ticket_key(out: &mut Out, key: &TicketKey) {
    out.bytes.extend_from_slice(&key.name);
    out.bytes.extend_from_slice(&key.secret);
}

pub(super) fn read_ticket_key(input: &mut In<'_>) -> Result<TicketKey, DecodeError> {
    Ok(TicketKey {
        name: input.array("ticket_key.name")?,
        secret: input.array("ticket_key.secret")?,
    })
}

pub(super) fn write_listener_tls(out: &mut Out, tls: &ListenerTls) {
    write_version(out, tls.min_version);
    out.list(&tls.alpn, |out, alpn| {
        out.u8(match alpn {
            Alpn::Http11 => 0,
            Alpn::H2 => 1,
        });
    });
    out.list(&tls.sites, |out, site| {
        out.list(&site.names, |out, name| out.text(name));
        out.u32(site.certificate);
        out.option(site.client_auth.as_ref(), |out, auth| {
            out.u32(auth.trust);
            out.u8(auth.required.into());
        });
    });
    out.option(tls.default_site.as_ref(), |out, site| out.u32(*site));
    out.u32(tls.early_data_bytes);
    out.u32(tls.handshake_timeout_ms);
}

pub(super) fn read_listener_tls(
    input: &mut In<'_>,
    counts: Counts,
) -> Result<ListenerTls, DecodeError> {
    let min_version = read_version(input, "listener.tls.min_version")?;
    let alpn = input.some("listener.tls.alpn", MAX_ENTRIES, |input| {
        match input.u8("listener.tls.alpn")? {
            0 => Ok(Alpn::Http11),
            1 => Ok(Alpn::H2),
            other => Err(input.tag("listener.tls.alpn", other)),
        }
    })?;
    let sites = input.some("listener.tls.sites", MAX_ENTRIES, |input| read_site(input, counts))?;
    let default_site = input.option("listener.tls.default_site", |input| {
        input.index("listener.tls.default_site", sites.len())
    })?;
    Ok(ListenerTls {
        min_version,
        alpn,
        sites,
        default_site,
        early_data_bytes: input.u32("listener.tls.early_data_bytes")?,
        handshake_timeout_ms: input.u32("listener.tls.handshake_timeout_ms")?,
    })
}

fn read_site(input: &mut In<'_>, counts: Counts) -> Result<TlsSite, DecodeError> {
    Ok(TlsSite {
        names: input.list("site.names", MAX_ENTRIES, |input| input.text("site.name"))?,
        certificate: input.index("site.certificate", counts.certificates)?,
        client_auth: input.option("site.client_auth", |input| {
            Ok(ClientAuth {
                trust: input.index("site.client_auth.trust", counts.trust)?,
                required: input.bool("site.client_auth.required")?,
            })
        })?,
    })
}

pub(super) fn write_upstream_tls(out: &mut Out, tls: &UpstreamTls) {
    write_version(out, tls.min_version);
    out.option(tls.trust.as_ref(), |out, trust| out.u32(*trust));
    out.option(tls.server_name.as_ref(), |out, name| out.text(name));
    out.option(tls.identity.as_ref(), |out, identity| out.u32(*identity));
}

pub(super) fn read_upstream_tls(
    input: &mut In<'_>,
    counts: Counts,
) -> Result<UpstreamTls, DecodeError> {
    Ok(UpstreamTls {
        min_version: read_version(input, "upstream.tls.min_version")?,
        trust: input.option("upstream.tls.trust", |input| {
            input.index("upstream.tls.trust", counts.trust)
        })?,
        server_name: input
            .option("upstream.tls.server_name", |input| input.text("upstream.tls.server_name"))?,
        identity: input.option("upstream.tls.identity", |input| {
            input.index("upstream.tls.identity", counts.certificates)
        })?,
    })
}

fn write_version(out: &mut Out, version: TlsVersion) {
    out.u8(match version {
        TlsVersion::V12 => 0,
        TlsVersion::V13 => 1,
    });
}

fn read_version(input: &mut In<'_>, field: &'static str) -> Result<TlsVersion, DecodeError> {
    match input.u8(field)? {
        0 => Ok(TlsVersion::V12),
        1 => Ok(TlsVersion::V13),
        other => Err(input.tag(field, other)),
    }
}
