//! Consumers: a snapshot may hold very many, so what is absent takes one byte, or the four of a count.

use super::{Counts, DecodeError, Fault, In, Known, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most consumers of a snapshot.
pub const MAX_CONSUMERS: usize = 200_000;
/// Most credentials of one kind (keys, passwords, certificates, signing keys) of a consumer.
pub const MAX_CREDENTIALS: usize = 1_000;
/// Longest secret that requests are signed with, in bytes.
pub const MAX_SIGNING_SECRET: usize = 4_096;

/// All of them.
pub(super) fn bytes(consumers: &Consumers) -> &[u8] {
    consumers.bytes(|list| {
        let mut out = Out::default();
        out.list(list, write);
        out.bytes
    })
}

/// All of them; those of `before`, where the bytes are the same.
pub(super) fn read_all(
    input: &mut In<'_>,
    counts: Counts,
    before: Option<&Known>,
) -> Result<Consumers, DecodeError> {
    let len = input.u32("auth.consumers")? as usize;
    let mut part = input.part("auth.consumers", len)?;
    if let Some(before) = before
        && counts.authenticators >= before.authenticators
        && bytes(&before.consumers) == part.rest()
    {
        return Ok(before.consumers.clone());
    }
    let consumers = part.list("auth.consumers", MAX_CONSUMERS, |input| read(input, counts))?;
    part.end()?;
    Ok(consumers.into())
}

fn write(out: &mut Out, consumer: &Consumer) {
    out.text(&consumer.name);
    out.texts(&consumer.groups);
    out.texts(&consumer.scopes);
    out.option(consumer.limits.as_ref(), |out, limits| out.text(limits));
    out.list(&consumer.api_keys, write_api_key);
    out.list(&consumer.passwords, |out, password| {
        out.text(&password.username);
        out.text(&password.hash);
    });
    out.list(&consumer.certificates, write_certificate_match);
    out.list(&consumer.signing_keys, |out, key| {
        out.text(&key.id);
        out.blob(&key.secret);
    });
    out.list(&consumer.subjects, |out, subject| {
        out.u32(subject.authenticator);
        out.text(&subject.value);
    });
}

fn read(input: &mut In<'_>, counts: Counts) -> Result<Consumer, DecodeError> {
    Ok(Consumer {
        name: input.text("consumer.name")?,
        groups: input.texts("consumer.groups", MAX_ENTRIES)?,
        scopes: read_sorted(input, "consumer.scopes")?,
        limits: input.option("consumer.limits", |input| input.text("consumer.limits"))?,
        api_keys: input.list("consumer.api_keys", MAX_CREDENTIALS, read_api_key)?,
        passwords: input.list("consumer.passwords", MAX_CREDENTIALS, |input| {
            Ok(Password {
                username: input.text("consumer.password.username")?,
                hash: input.text("consumer.password.hash")?,
            })
        })?,
        certificates: input.list(
            "consumer.certificates",
            MAX_CREDENTIALS,
            read_certificate_match,
        )?,
        signing_keys: input.list("consumer.signing_keys", MAX_CREDENTIALS, read_signing_key)?,
        subjects: input.list("consumer.subjects", MAX_ENTRIES, |input| {
            Ok(Subject {
                authenticator: input
                    .index("consumer.subject.authenticator", counts.authenticators)?,
                value: input.text("consumer.subject.value")?,
            })
        })?,
    })
}

fn write_api_key(out: &mut Out, key: &ApiKey) {
    out.bytes.extend_from_slice(&key.digest);
    out.text(&key.prefix);
    out.u64(key.expires_ms);
    out.option(key.scopes.as_ref(), |out, scopes| out.texts(scopes));
    out.option(key.limits.as_ref(), |out, limits| out.text(limits));
}

fn read_api_key(input: &mut In<'_>) -> Result<ApiKey, DecodeError> {
    Ok(ApiKey {
        digest: input.array("consumer.api_key.digest")?,
        prefix: input.text("consumer.api_key.prefix")?,
        expires_ms: input.u64("consumer.api_key.expires_ms")?,
        scopes: input.option("consumer.api_key.scopes", |input| {
            read_sorted(input, "consumer.api_key.scopes")
        })?,
        limits: input
            .option("consumer.api_key.limits", |input| input.text("consumer.api_key.limits"))?,
    })
}

fn write_certificate_match(out: &mut Out, certificate: &CertificateMatch) {
    match certificate {
        CertificateMatch::Fingerprint(digest) => {
            out.u8(0);
            out.bytes.extend_from_slice(digest);
        }
        CertificateMatch::CommonName(pattern) => write_pattern(out, 1, pattern),
        CertificateMatch::Dns(pattern) => write_pattern(out, 2, pattern),
        CertificateMatch::Uri(pattern) => write_pattern(out, 3, pattern),
        CertificateMatch::Email(pattern) => write_pattern(out, 4, pattern),
    }
}

fn read_certificate_match(input: &mut In<'_>) -> Result<CertificateMatch, DecodeError> {
    const FIELD: &str = "consumer.certificate";
    Ok(match input.u8(FIELD)? {
        0 => CertificateMatch::Fingerprint(input.array(FIELD)?),
        1 => CertificateMatch::CommonName(read_pattern(input)?),
        2 => CertificateMatch::Dns(read_pattern(input)?),
        3 => CertificateMatch::Uri(read_pattern(input)?),
        4 => CertificateMatch::Email(read_pattern(input)?),
        other => return Err(input.tag(FIELD, other)),
    })
}

fn write_pattern(out: &mut Out, kind: u8, pattern: &NamePattern) {
    out.u8(kind);
    let (tag, text) = match pattern {
        NamePattern::Exact(text) => (0, text),
        NamePattern::Glob(text) => (1, text),
    };
    out.u8(tag);
    out.text(text);
}

fn read_pattern(input: &mut In<'_>) -> Result<NamePattern, DecodeError> {
    const FIELD: &str = "consumer.certificate.pattern";
    Ok(match input.u8(FIELD)? {
        0 => NamePattern::Exact(input.text(FIELD)?),
        1 => NamePattern::Glob(input.text(FIELD)?),
        other => return Err(input.tag(FIELD, other)),
    })
}

fn read_signing_key(input: &mut In<'_>) -> Result<SigningKey, DecodeError> {
    const SECRET: &str = "consumer.signing_key.secret";
    let id = input.text("consumer.signing_key.id")?;
    let empty = input.fault(SECRET, Fault::Key);
    let secret = input.blob(SECRET, MAX_SIGNING_SECRET)?;
    if secret.is_empty() {
        // Anybody could sign with it.
        return Err(empty);
    }
    Ok(SigningKey { id, secret })
}

/// Texts in ascending order, none twice: they are searched by halves.
fn read_sorted(input: &mut In<'_>, field: &'static str) -> Result<Vec<String>, DecodeError> {
    let unsorted = input.fault(field, Fault::Order);
    let texts = input.texts(field, MAX_ENTRIES)?;
    match texts.is_sorted_by(|one, two| one < two) {
        true => Ok(texts),
        false => Err(unsorted),
    }
}
