//! A client's verified certificate as a header value: `X-Forwarded-Client-Cert` in Envoy's form.
//!
//! Only subject and alternative names are read, out of DER that webpki has accepted before. Names
//! are the issuer's words, so everything outside of visible ASCII is escaped.

use std::fmt::Write;
use std::sync::Arc;

use super::facts::{CertificateNames, ClientCertificate};

/// A client's certificate, as requests on its connection know it. What cannot be read is left out.
pub(super) fn read_client(leaf: &[u8]) -> ClientCertificate {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, leaf).as_ref());
    let read = read(leaf).unwrap_or_default();
    let of = |kind: u8| {
        let names = read.names.iter().filter(move |(found, _)| *found == kind);
        names.map(|(_, name)| name.as_str().into()).collect()
    };
    let names = CertificateNames {
        dns: of(DNS_NAME),
        uris: of(URI_NAME),
        emails: of(EMAIL),
        common_name: read.common_name.as_deref().map(Into::into),
    };
    ClientCertificate {
        xfcc: xfcc(&fingerprint, &read).into(),
        fingerprint,
        names: Arc::new(names),
    }
}

/// `Hash=…;Subject="…";URI=…;DNS=…`: SHA-256 of the certificate, its subject as RFC 2253 writes it,
/// and its alternative names.
fn xfcc(fingerprint: &[u8; 32], read: &Read) -> String {
    let mut out = String::from("Hash=");
    hex(fingerprint, &mut out);
    let _ = write!(out, ";Subject=\"{}\"", read.subject);
    for (label, wanted) in [("URI", URI_NAME), ("DNS", DNS_NAME)] {
        for (kind, name) in &read.names {
            if *kind == wanted {
                let _ = write!(out, ";{label}=");
                value(name, &mut out);
            }
        }
    }
    out
}

/// What is read of a certificate.
#[derive(Default)]
struct Read {
    /// As RFC 2253 writes it.
    subject: String,
    common_name: Option<String>,
    /// Alternative names with their tags.
    names: Vec<(u8, String)>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI_NAME: u8 = 0x86;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Reads DER (X.690) from the front.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag, its content, and all of it.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let len = match first {
            0..=0x7f => usize::from(*first),
            0x81..=0x83 => {
                let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit))
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        let whole = self.0.get(..self.0.len() - after.len())?;
        self.0 = after;
        Some((*tag, content, whole))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content, _) = self.next()?;
        (found == tag).then_some(content)
    }
}

/// The subject, and the alternative names with their tags (RFC 5280 §4.1).
fn read(certificate: &[u8]) -> Option<Read> {
    let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
    let mut fields = Der(signed.expect(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields.next()?;
    }
    let subject = fields.expect(SEQUENCE)?;
    let (subject, common_name) = (distinguished_name(subject)?, common_name(subject));
    let mut names = Vec::new();
    while let Some((tag, content, _)) = fields.next() {
        if tag == EXTENSIONS {
            let mut extensions = Der(Der(content).expect(SEQUENCE)?);
            while let Some(extension) = extensions.expect(SEQUENCE) {
                alternative_names(extension, &mut names);
            }
        }
    }
    Some(Read { subject, common_name, names })
}

fn alternative_names(extension: &[u8], names: &mut Vec<(u8, String)>) -> Option<()> {
    let mut extension = Der(extension);
    if extension.expect(OID)? != SUBJECT_ALT_NAME {
        return None;
    }
    let (mut tag, mut content, _) = extension.next()?;
    if tag == BOOLEAN {
        (tag, content, _) = extension.next()?;
    }
    if tag != OCTETS {
        return None;
    }
    let mut list = Der(Der(content).expect(SEQUENCE)?);
    while let Some((tag, name, _)) = list.next() {
        let visible = name.iter().all(|b| matches!(b, b' '..=b'~'));
        if matches!(tag, EMAIL | DNS_NAME | URI_NAME) && visible {
            names.push((tag, String::from_utf8_lossy(name).into_owned()));
        }
    }
    Some(())
}

/// RFC 2253 §2: the last relative name first.
fn distinguished_name(name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sequence = Der(name);
    while !sequence.0.is_empty() {
        let mut part = String::new();
        let mut set = Der(sequence.expect(SET)?);
        while !set.0.is_empty() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let oid = pair.expect(OID)?;
            let (tag, content, whole) = pair.next()?;
            if !part.is_empty() {
                part.push('+');
            }
            attribute(oid, tag, content, whole, &mut part);
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

/// The last common name, as text.
fn common_name(name: &[u8]) -> Option<String> {
    let mut found = None;
    let mut sequence = Der(name);
    while !sequence.0.is_empty() {
        let mut set = Der(sequence.expect(SET)?);
        while !set.0.is_empty() {
            let mut pair = Der(set.expect(SEQUENCE)?);
            let oid = pair.expect(OID)?;
            let (tag, content, _) = pair.next()?;
            if oid == COMMON_NAME {
                found = text(tag, content).and_then(|text| String::from_utf8(text).ok());
            }
        }
    }
    found.filter(|name| !name.is_empty() && !name.contains(char::is_control))
}

fn attribute(oid: &[u8], tag: u8, content: &[u8], whole: &[u8], out: &mut String) {
    let known = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x55, 4, 42] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        _ => "",
    };
    match text(tag, content) {
        Some(text) if !known.is_empty() => {
            out.push_str(known);
            out.push('=');
            escape(&text, out);
        }
        _ => {
            dotted(oid, out);
            out.push_str("=#");
            hex(whole, out);
        }
    }
}

/// The bytes of a text, in UTF-8 where its type says so.
fn text(tag: u8, content: &[u8]) -> Option<Vec<u8>> {
    match tag {
        // UTF8String, NumericString, PrintableString, TeletexString, IA5String.
        0x0c | 0x12 | 0x13 | 0x14 | 0x16 => Some(content.to_vec()),
        // BMPString.
        0x1e => {
            let units = content.chunks_exact(2).map(|pair| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            });
            let text: String = char::decode_utf16(units)
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect();
            Some(text.into_bytes())
        }
        _ => None,
    }
}

/// RFC 2253 §2.4; so the result may stand between double quotes as well.
fn escape(text: &[u8], out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (n, byte) in text.iter().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b'#' if n == 0 => out.push_str("\\#"),
            b' ' if n == 0 || n == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}

/// A value of its own: between quotes where it would end otherwise.
fn value(name: &str, out: &mut String) {
    if !name.contains([',', ';', '=', '"', '\\', ' ']) {
        out.push_str(name);
        return;
    }
    out.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn dotted(oid: &[u8], out: &mut String) {
    let mut arc: u64 = 0;
    let mut first = true;
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if first {
            let root = (arc / 40).min(2);
            let _ = write!(out, "{root}.{}", arc - root * 40);
        } else {
            let _ = write!(out, ".{arc}");
        }
        (arc, first) = (0, false);
    }
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn leaf(params: CertificateParams) -> Vec<u8> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn subject_and_names_in_envoys_form() {
        let mut params = CertificateParams::new(vec!["a.test".into(), "b.test".into()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://x/y;z=\"1\"".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "A \"quoted\", Inc; é\r\n");
        params
            .distinguished_name
            .push(DnType::CommonName, DnValue::BmpString("# lead".try_into().unwrap()));
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 9]), "x");
        let leaf = leaf(params);
        let mut hash = String::new();
        hex(ring::digest::digest(&ring::digest::SHA256, &leaf).as_ref(), &mut hash);
        assert_eq!(
            read_client(&leaf).xfcc.to_string(),
            format!(
                "Hash={hash};Subject=\"1.2.840.9=#0c0178,CN=\\# lead,O=A \\\"quoted\\\"\\, \
                 Inc\\; \\C3\\A9\\0D\\0A,C=DE\";URI=\"spiffe://x/y;z=\\\"1\\\"\";\
                 DNS=a.test;DNS=b.test"
            )
        );
    }

    #[test]
    fn broken_certificates_give_a_hash_at_least() {
        let leaf = leaf(CertificateParams::new(vec!["a.test".into()]).unwrap());
        for cut in 0..leaf.len() {
            assert!(read_client(&leaf[..cut]).xfcc.starts_with("Hash="));
        }
        for at in 0..leaf.len() {
            for value in [0, 0x30, 0x7f, 0x83, 0xff] {
                let mut bad = leaf.clone();
                bad[at] = value;
                let value = read_client(&bad).xfcc;
                assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')), "{value:?}");
            }
        }
    }
}
