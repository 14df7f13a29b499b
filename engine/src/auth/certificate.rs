//! Client certificates, which the handshake has verified: whose they are.

use std::collections::HashMap;
use std::sync::Arc;

use contract::snapshot::{self, CertificateMatch, ConsumerIndex, NamePattern, Snapshot};

use super::registry::Unfit;
use super::{Call, Check, Identity, Refusal};
use crate::limits;
use crate::tls::{CertificateNames, ClientCertificate};

/// An authenticator by client certificates.
#[derive(Debug)]
pub struct Certificates {
    consumer_required: bool,
    owners: Owners,
}

/// Whose certificates are whose. A fingerprint goes before an exact name, that before a pattern; of
/// patterns the first in the order of the spec.
#[derive(Debug, Default)]
struct Owners {
    fingerprints: HashMap<[u8; 32], ConsumerIndex>,
    exact: HashMap<(NameKind, Box<str>), ConsumerIndex>,
    patterns: Vec<(NameKind, Glob, ConsumerIndex)>,
}

/// In the order in which a certificate's names are looked at: what is made for machines first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum NameKind {
    Uri,
    Dns,
    Email,
    CommonName,
}

impl Certificates {
    pub fn build(from: &snapshot::Certificates, snapshot: &Snapshot) -> Result<Self, Unfit> {
        let mut owners = Owners::default();
        for (index, consumer) in snapshot.auth.consumers.iter().enumerate() {
            for wanted in &consumer.certificates {
                owners.add(wanted, index as ConsumerIndex);
            }
        }
        Ok(Certificates { consumer_required: from.consumer_required, owners })
    }

    pub fn verify<'a>(&'a self, call: Call<'a>) -> Check<'a> {
        let Some(peer) = call.client.tls.as_ref().and_then(|tls| tls.peer.as_ref()) else {
            return Check::refused(Refusal::Invalid);
        };
        let consumer = self.owners.find(&peer.fingerprint, &peer.names);
        let identity = match consumer {
            Some(consumer) => call.registry.identity(consumer),
            None if self.consumer_required => return Check::refused(Refusal::Invalid),
            None => match first_name(&peer.names) {
                Some(id) => Identity { id: id.into(), ..Identity::default() },
                None => return Check::refused(Refusal::Invalid),
            },
        };
        // The certificate itself was verified for this connection; remembered is only whose it is.
        let until_ms = call.wall_ms() + limits::AUTH_CERTIFICATE_MS;
        Check::known(Identity { credential: Some(short(peer)), until_ms, ..identity })
    }
}

impl Owners {
    fn add(&mut self, wanted: &CertificateMatch, consumer: ConsumerIndex) {
        let (kind, pattern) = match wanted {
            CertificateMatch::Fingerprint(fingerprint) => {
                self.fingerprints.entry(*fingerprint).or_insert(consumer);
                return;
            }
            CertificateMatch::CommonName(pattern) => (NameKind::CommonName, pattern),
            CertificateMatch::Dns(pattern) => (NameKind::Dns, pattern),
            CertificateMatch::Uri(pattern) => (NameKind::Uri, pattern),
            CertificateMatch::Email(pattern) => (NameKind::Email, pattern),
        };
        match pattern {
            NamePattern::Exact(name) => {
                self.exact.entry((kind, kind.folded(name))).or_insert(consumer);
            }
            NamePattern::Glob(glob) => {
                self.patterns.push((kind, Glob::new(&kind.folded(glob)), consumer));
            }
        }
    }

    fn find(&self, fingerprint: &[u8; 32], names: &CertificateNames) -> Option<ConsumerIndex> {
        if let Some(consumer) = self.fingerprints.get(fingerprint) {
            return Some(*consumer);
        }
        let folded: Vec<(NameKind, Box<str>)> =
            all(names).map(|(kind, name)| (kind, kind.folded(name))).collect();
        if let Some(consumer) = folded.iter().find_map(|name| self.exact.get(name)) {
            return Some(*consumer);
        }
        let met = |kind: NameKind, glob: &Glob| {
            folded.iter().any(|(found, name)| *found == kind && glob.matches(name))
        };
        self.patterns.iter().find(|(kind, glob, _)| met(*kind, glob)).map(|(.., owner)| *owner)
    }
}

impl NameKind {
    /// As names of this kind are compared: DNS names and the hosts of addresses have no case
    /// (RFC 5280 §7.2, §7.5), the rest has.
    fn folded(self, name: &str) -> Box<str> {
        match self {
            NameKind::Dns => name.to_ascii_lowercase().into(),
            NameKind::Email => match name.rsplit_once('@') {
                Some((local, host)) => format!("{local}@{}", host.to_ascii_lowercase()).into(),
                None => name.into(),
            },
            NameKind::Uri | NameKind::CommonName => name.into(),
        }
    }
}

fn all(names: &CertificateNames) -> impl Iterator<Item = (NameKind, &str)> {
    let uris = names.uris.iter().map(|name| (NameKind::Uri, &**name));
    let dns = names.dns.iter().map(|name| (NameKind::Dns, &**name));
    let emails = names.emails.iter().map(|name| (NameKind::Email, &**name));
    let common = names.common_name.iter().map(|name| (NameKind::CommonName, &**name));
    uris.chain(dns).chain(emails).chain(common)
}

fn first_name(names: &CertificateNames) -> Option<&str> {
    all(names).next().map(|(_, name)| name)
}

/// The start of the fingerprint: enough to tell certificates apart in records.
fn short(peer: &ClientCertificate) -> Arc<str> {
    peer.fingerprint.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// A pattern of a name: `*` stands for any characters but `.`, `/` and `@`, `**` for any at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Within,
    Any,
}

impl Glob {
    pub fn new(pattern: &str) -> Glob {
        let mut parts = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("**") {
                parts.push(Part::Any);
                rest = after.trim_start_matches('*');
            } else if let Some(after) = rest.strip_prefix('*') {
                parts.push(Part::Within);
                rest = after;
            } else {
                let end = rest.find('*').unwrap_or(rest.len());
                let (text, after) = rest.split_at(end);
                parts.push(Part::Text(text.into()));
                rest = after;
            }
        }
        Glob(parts.into())
    }

    /// Whether all of `name` is met. Takes time in proportion to pattern × name at most: it keeps the
    /// set of places reached rather than trying each.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for part in &self.0 {
            match part {
                Part::Text(text) => {
                    let text = text.as_bytes();
                    let mut next = vec![false; name.len() + 1];
                    for at in (0..reached.len()).filter(|at| reached[*at]) {
                        if name[at..].starts_with(text) {
                            next[at + text.len()] = true;
                        }
                    }
                    reached = next;
                }
                Part::Within | Part::Any => {
                    for at in 1..reached.len() {
                        let separates = matches!(name[at - 1], b'.' | b'/' | b'@');
                        if reached[at - 1] && (*part == Part::Any || !separates) {
                            reached[at] = true;
                        }
                    }
                }
            }
        }
        reached[name.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(dns: &[&str], uris: &[&str], emails: &[&str], cn: Option<&str>) -> CertificateNames {
        let boxed = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        CertificateNames {
            common_name: cn.map(Into::into),
            dns: boxed(dns),
            uris: boxed(uris),
            emails: boxed(emails),
        }
    }

    fn owners(all: &[CertificateMatch]) -> Owners {
        let mut owners = Owners::default();
        for (index, wanted) in all.iter().enumerate() {
            owners.add(wanted, index as u32);
        }
        owners
    }

    #[test]
    fn a_fingerprint_goes_before_a_name_and_that_before_a_pattern() {
        let exact = |name: &str| NamePattern::Exact(name.into());
        let glob = |name: &str| NamePattern::Glob(name.into());
        let owners = owners(&[
            CertificateMatch::Dns(glob("*.svc.test")),
            CertificateMatch::Dns(exact("A.svc.test")),
            CertificateMatch::Fingerprint([7; 32]),
            CertificateMatch::Uri(glob("spiffe://test/ns/*/sa/web")),
            CertificateMatch::Email(exact("Ann@Example.Test")),
            CertificateMatch::CommonName(exact("client-7")),
        ]);
        let find = |fingerprint, names: CertificateNames| owners.find(&[fingerprint; 32], &names);
        assert_eq!(find(7, names(&["a.svc.test"], &[], &[], None)), Some(2));
        assert_eq!(find(0, names(&["a.SVC.test"], &[], &[], None)), Some(1));
        assert_eq!(find(0, names(&["b.svc.test"], &[], &[], None)), Some(0));
        assert_eq!(find(0, names(&["b.c.svc.test"], &[], &[], None)), None);
        assert_eq!(find(0, names(&[], &["spiffe://test/ns/prod/sa/web"], &[], None)), Some(3));
        assert_eq!(find(0, names(&[], &["spiffe://test/ns/a/b/sa/web"], &[], None)), None);
        assert_eq!(find(0, names(&[], &["SPIFFE://test/ns/prod/sa/web"], &[], None)), None);
        assert_eq!(find(0, names(&[], &[], &["Ann@EXAMPLE.test"], None)), Some(4));
        assert_eq!(find(0, names(&[], &[], &["ann@example.test"], None)), None, "RFC 5321 §2.4");
        assert_eq!(find(0, names(&[], &[], &[], Some("client-7"))), Some(5));
        assert_eq!(find(0, names(&["client-7"], &[], &[], None)), None, "another kind of name");
    }

    #[test]
    fn stars_stop_at_separators_and_double_stars_do_not() {
        let met = |glob: &str, name: &str| Glob::new(glob).matches(name);
        assert!(met("*", "abc") && !met("*", "a.b") && met("**", "a.b/c") && met("*", ""));
        assert!(met("spiffe://x/**", "spiffe://x/a/b") && !met("spiffe://x/*", "spiffe://x/a/b"));
        assert!(met("a*c*", "abcd") && met("a**d", "a.b.d") && !met("a*d", "a.d"));
        assert!(met("plain", "plain") && !met("plain", "plainer") && !met("", "a") && met("", ""));
        assert!(met("***", "a.b"), "more stars are two");
    }

    proptest! {
        #[test]
        fn globs_are_what_regular_expressions_say(
            glob in "[ab.*]{0,8}",
            name in "[ab./@]{0,12}",
        ) {
            let mut pattern = String::from("^(?s)");
            let mut rest = glob.as_str();
            while let Some(c) = rest.chars().next() {
                if rest.starts_with("**") {
                    pattern.push_str(".*");
                    rest = rest.trim_start_matches('*');
                } else {
                    pattern.push_str(&match c {
                        '*' => "[^./@]*".to_string(),
                        c => regex::escape(&c.to_string()),
                    });
                    rest = &rest[c.len_utf8()..];
                }
            }
            pattern.push('$');
            let expected = regex::Regex::new(&pattern).unwrap().is_match(&name);
            prop_assert_eq!(Glob::new(&glob).matches(&name), expected, "{}", pattern);
        }
    }
}
