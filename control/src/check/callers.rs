//! Consumers: what they refer to, and credentials that two of them have.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use contract::encode::MAX_CREDENTIALS;

use super::{Check, dangling};
use crate::spec::{AuthenticatorKind, Consumer, Severity};

pub fn check(check: &mut Check<'_>) {
    references(check);
    credentials(check);
    unusable(check);
}

fn references(check: &mut Check<'_>) {
    let spec = check.spec;
    let groups: HashSet<&str> = spec.groups.iter().map(|one| one.name.as_str()).collect();
    let kinds: HashMap<&str, &AuthenticatorKind> =
        spec.authenticators.iter().map(|one| (one.name.as_str(), &one.kind)).collect();
    let authenticators: HashSet<&str> = kinds.keys().copied().collect();
    for (at, consumer) in spec.consumers.iter().enumerate() {
        for (n, group) in consumer.groups.iter().enumerate() {
            if !groups.contains(group.as_str()) {
                let message = dangling("group", group, &groups);
                let field = format!("consumers[{at}].groups[{n}]");
                check.report(Severity::Error, "unknown-group", &field, group, message, None);
            }
        }
        for (n, subject) in consumer.subjects.iter().enumerate() {
            let (name, field) =
                (&subject.authenticator, format!("consumers[{at}].subjects[{n}].authenticator"));
            // An empty one has its own message.
            if name.is_empty() || check.problems.is_broken(&field) {
                continue;
            }
            let Some(kind) = kinds.get(name.as_str()) else {
                let message = dangling("authenticator", name, &authenticators);
                let code = "unknown-authenticator";
                check.report(Severity::Error, code, &field, name, message, None);
                continue;
            };
            let tokens = matches!(
                kind,
                AuthenticatorKind::Jwt(_)
                    | AuthenticatorKind::Introspection(_)
                    | AuthenticatorKind::Login(_)
            );
            if !tokens && !broken(check, name) {
                let message = format!(
                    "subjects are of authenticators by tokens (jwt, introspection, login), and \
                     `{name}` is one by {}",
                    kind.word()
                );
                let code = "subject-without-tokens";
                check.report(Severity::Error, code, &field, name, message, None);
            }
        }
    }
}

/// Whether the authenticator of this name could not be read as a whole.
pub(super) fn broken(check: &Check<'_>, name: &str) -> bool {
    let at = check.spec.authenticators.iter().position(|one| one.name == name);
    at.is_some_and(|at| check.problems.is_broken(&format!("authenticators[{at}]")))
}

/// Things that mean one consumer, so that no two may have the same.
struct Unique<K> {
    first: HashMap<K, String>,
    severity: Severity,
    code: &'static str,
    /// What there is twice.
    what: &'static str,
}

impl<K: Eq + Hash> Unique<K> {
    fn new(severity: Severity, code: &'static str, what: &'static str) -> Unique<K> {
        Unique { first: HashMap::new(), severity, code, what }
    }

    fn add(&mut self, check: &mut Check<'_>, key: K, field: String, value: &str) {
        let Some(other) = self.first.get(&key) else {
            self.first.insert(key, field);
            return;
        };
        let related = check.places.get(other);
        let whose = other.split('.').next().unwrap_or(other);
        let message = format!(
            "this {} is there already, in {whose} on line {}; each may be there once",
            self.what, related.line
        );
        check.report(self.severity, self.code, &field, value, message, Some(related));
    }
}

fn credentials(check: &mut Check<'_>) {
    let error = Severity::Error;
    let mut hashes = Unique::new(error, "duplicate-key-hash", "API key");
    let mut prefixes = Unique::new(Severity::Warning, "duplicate-prefix", "prefix");
    let mut usernames = Unique::new(error, "duplicate-username", "username");
    let mut ids = Unique::new(error, "duplicate-key-id", "key id");
    let mut certificates = Unique::new(error, "duplicate-certificate", "certificate");
    let mut subjects = Unique::new(error, "duplicate-subject", "subject");
    for (at, consumer) in check.spec.consumers.iter().enumerate() {
        let path = format!("consumers[{at}]");
        counts(check, &path, consumer);
        for (n, key) in consumer.api_keys.iter().enumerate() {
            let path = format!("{path}.api_keys[{n}]");
            hashes.add(check, key.sha256, format!("{path}.sha256"), "");
            if let Some(prefix) = &key.prefix {
                prefixes.add(check, prefix, format!("{path}.prefix"), prefix);
            }
        }
        for (n, password) in consumer.passwords.iter().enumerate() {
            let (name, field) = (&password.username, format!("{path}.passwords[{n}].username"));
            usernames.add(check, name, field, name);
        }
        for (n, key) in consumer.signing_keys.iter().enumerate() {
            let (id, field) = (&key.id, format!("{path}.signing_keys[{n}].id"));
            ids.add(check, id, field, id);
        }
        for (n, one) in consumer.certificates.iter().enumerate() {
            certificates.add(check, one, format!("{path}.certificates[{n}]"), "");
        }
        for (n, one) in consumer.subjects.iter().enumerate() {
            let field = format!("{path}.subjects[{n}].value");
            subjects.add(check, (&one.authenticator, &one.value), field, &one.value);
        }
    }
}

fn counts(check: &mut Check<'_>, path: &str, consumer: &Consumer) {
    let kinds = [
        ("api_keys", consumer.api_keys.len()),
        ("passwords", consumer.passwords.len()),
        ("certificates", consumer.certificates.len()),
        ("signing_keys", consumer.signing_keys.len()),
    ];
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > MAX_CREDENTIALS) {
        let message = format!("{count} of one consumer; at most {MAX_CREDENTIALS}");
        let field = format!("{path}.{kind}");
        check.report(Severity::Error, "too-many-credentials", &field, "", message, None);
    }
}

/// Credentials that no authenticator would ever look at.
fn unusable(check: &mut Check<'_>) {
    // Beside an error, a missing use is hardly more than its consequence.
    if check.problems.has_errors() {
        return;
    }
    let spec = check.spec;
    type Has = fn(&Consumer) -> bool;
    let kinds: [(&str, &str, Has); 4] = [
        ("api_key", "api_keys", |consumer| !consumer.api_keys.is_empty()),
        ("basic", "passwords", |consumer| !consumer.passwords.is_empty()),
        ("certificate", "certificates", |consumer| !consumer.certificates.is_empty()),
        ("signature", "signing_keys", |consumer| !consumer.signing_keys.is_empty()),
    ];
    for (word, field, has) in kinds {
        let taken = spec.authenticators.iter().any(|one| one.kind.word() == word);
        let given = spec.consumers.iter().position(|one| has(one));
        if let (false, Some(at)) = (taken, given) {
            let message = format!(
                "no authenticator takes them, so they are good for nothing; add one like \
                 {{name: {word}, {word}: {{}}}}"
            );
            let field = format!("consumers[{at}].{field}");
            check.report(Severity::Warning, "unused-credential", &field, "", message, None);
        }
    }
}
