//! Consumers, groups and their credentials.

use argon2::password_hash::PasswordHash;

use super::fields::{Fields, Walk};
use super::parts::{DAY_MS, count, flag, locality, name, one_of};
use super::route::unique;
use super::tls::file;
use crate::spec::model::*;
use crate::spec::problem::Severity;
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

/// Longest secret or key that stands in a spec, in bytes.
const MAX_INLINE: usize = 4_096;
/// Most words of a command, and the longest, in bytes.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT: usize = 4_096;
/// What stands for an inline secret where a spec is shown.
pub const REDACTED: &str = "[redacted]";
/// Most memory that the check of one password may take, in KiB.
const MAX_HASH_KIB: u32 = 256 * 1_024;

pub(super) fn group(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Group> {
    let Some(f) = &walk.fields(node, path, &["name", "workspace", "scopes", "limits"]) else {
        return Some(Group::default());
    };
    Some(Group {
        name: name(walk, f),
        workspace: f.read(walk, "workspace", locality),
        scopes: f.read(walk, "scopes", scopes).unwrap_or_default(),
        limits: f.read(walk, "limits", locality),
    })
}

pub(super) fn scopes(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    unique(walk, node, path, "bad-scope", scalars::scope)
}

pub(super) fn consumer(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Consumer> {
    const KNOWN: &[&str] = &[
        "name",
        "workspace",
        "groups",
        "scopes",
        "limits",
        "api_keys",
        "passwords",
        "certificates",
        "signing_keys",
        "subjects",
    ];
    let Some(f) = &walk.fields(node, path, KNOWN) else {
        return Some(Consumer::default());
    };
    Some(Consumer {
        name: name(walk, f),
        workspace: f.read(walk, "workspace", locality),
        groups: f.read(walk, "groups", names).unwrap_or_default(),
        scopes: f.read(walk, "scopes", scopes).unwrap_or_default(),
        limits: f.read(walk, "limits", locality),
        api_keys: list(walk, f, "api_keys", api_key),
        passwords: list(walk, f, "passwords", password),
        certificates: list(walk, f, "certificates", certificate),
        signing_keys: list(walk, f, "signing_keys", signing_key),
        subjects: list(walk, f, "subjects", subject),
    })
}

fn list<T>(
    walk: &mut Walk<'_>,
    fields: &Fields<'_>,
    name: &str,
    read: fn(&mut Walk<'_>, &Node, &str) -> Option<T>,
) -> Vec<T> {
    let whole = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.list(node, path, read);
    fields.read(walk, name, whole).unwrap_or_default()
}

/// Names of other things; that they exist is checked with the whole.
pub(super) fn names(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    unique(walk, node, path, "bad-name", scalars::name)
}

fn api_key(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ApiKey> {
    const KNOWN: &[&str] = &["sha256", "prefix", "expires", "scopes", "limits", "key"];
    let f = &walk.fields(node, path, KNOWN)?;
    if let Some(key) = f.node("key") {
        // Without the value: it is a key.
        let message = "the key itself does not belong here; write its hash as `sha256`, which \
                       `sluice keys hash` tells";
        walk.problems.error("plain-secret", key.mark, &f.at("key"), None, message.into());
        walk.problems.mark_broken(&f.at("sha256"));
        return None;
    }
    let sha256 = f.require(walk, "sha256", "the key's SHA-256, from `sluice keys hash`", digest);
    let prefix = f.read(walk, "prefix", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            match text.len() {
                1..=16 if text.chars().all(fits) => Ok(text.into()),
                17.. => Err("a prefix has at most 16 characters: more would tell the key".into()),
                _ => Err("expected the first characters of the key, like slk_ab12cd".into()),
            }
        })
    });
    Some(ApiKey {
        sha256: sha256?,
        prefix,
        expires: f.read(walk, "expires", |walk, node, path| {
            walk.parsed(node, path, "bad-time", str::parse)
        }),
        scopes: f.read(walk, "scopes", scopes),
        limits: f.read(walk, "limits", locality),
    })
}

/// A hash that is no secret, unless somebody wrote the secret instead.
pub(super) fn digest(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<scalars::Digest> {
    walk.places.set(path, node.mark);
    let parsed = match &node.value {
        Value::Text(text) => text.parse(),
        Value::Integer(_) | Value::Float(_) => Err("expected text; put it in quotes".into()),
        _ => Err("expected a SHA-256 hash: 64 hexadecimal digits".to_string()),
    };
    parsed.map_err(|message| walk.problems.error("bad-hash", node.mark, path, None, message)).ok()
}

fn password(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Password> {
    let f = &walk.fields(node, path, &["username", "hash", "password"])?;
    if let Some(password) = f.node("password") {
        let message = "the password itself does not belong here; write its hash as `hash`, which \
                       `sluice password hash` makes";
        walk.problems.error("plain-secret", password.mark, &f.at("password"), None, message.into());
        return None;
    }
    let username = f.require(walk, "username", "a name to log in with", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text {
            // RFC 7617 §2: the name ends at the first colon.
            text if text.contains(':') => Err("a username has no colon (RFC 7617 §2)".into()),
            text if text.is_empty() || text.len() > 256 || text.contains(char::is_control) => {
                Err("a username has 1 to 256 characters".into())
            }
            text => Ok(text.to_string()),
        })
    });
    let hash = f.require(walk, "hash", "$argon2id$..., from `sluice password hash`", hash);
    Some(Password { username: username?, hash: hash? })
}

/// A password's hash. Nothing of the text is repeated: it may be the password.
fn hash(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.places.set(path, node.mark);
    let mut refuse = |message: String| {
        walk.problems.error("bad-hash", node.mark, path, None, message);
        None
    };
    let Value::Text(text) = &node.value else {
        return refuse("expected a hash, $argon2id$..., from `sluice password hash`".into());
    };
    if text == REDACTED {
        let message = "this stands for a hash where a spec is shown; write the hash again, from \
                       `sluice password hash`";
        walk.problems.error("redacted-secret", node.mark, path, None, message.into());
        return None;
    }
    if let Some(kind) = other_kind(text) {
        return refuse(format!(
            "this is {kind}; passwords are hashed with argon2id, which `sluice password hash` does"
        ));
    }
    let Some(cost) = cost(text) else {
        return refuse(
            "this is no hash by argon2id that can be read; `sluice password hash` makes \
                       one"
            .into(),
        );
    };
    if cost.memory_kib > MAX_HASH_KIB {
        return refuse(format!(
            "each check of this password would take {} MiB; at most {} are taken",
            cost.memory_kib / 1_024,
            MAX_HASH_KIB / 1_024
        ));
    }
    if !cost.is_enough() {
        let message = "the hash is cheaper to break than it should be (OWASP: m=19456, t=2, p=1); \
                       make a new one with `sluice password hash`";
        let (mark, code) = (node.mark, "weak-hash");
        walk.problems.add(Severity::Warning, code, mark, path, None, message.into(), None);
    }
    Some(text.clone())
}

/// What a password check costs.
struct Cost {
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// The configurations of equal strength in OWASP's Password Storage Cheat Sheet.
    fn is_enough(&self) -> bool {
        const LEAST: [(u32, u32); 5] =
            [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
        LEAST.iter().any(|(kib, passes)| self.memory_kib >= *kib && self.passes >= *passes)
    }
}

fn cost(text: &str) -> Option<Cost> {
    let hash = PasswordHash::new(text).ok()?;
    let params = argon2::Params::try_from(&hash).ok()?;
    let whole = hash.algorithm.as_str() == "argon2id"
        && hash.version == Some(argon2::Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.is_some_and(|output| output.len() >= 16);
    whole.then(|| Cost { memory_kib: params.m_cost(), passes: params.t_cost() })
}

/// What people have instead of argon2id.
fn other_kind(text: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 10] = [
        ("$2a$", "bcrypt"),
        ("$2b$", "bcrypt"),
        ("$2y$", "bcrypt"),
        ("$argon2i$", "argon2i"),
        ("$argon2d$", "argon2d"),
        ("$apr1$", "Apache's MD5"),
        ("$1$", "MD5"),
        ("$5$", "SHA-crypt"),
        ("$6$", "SHA-crypt"),
        ("{SHA}", "SHA-1"),
    ];
    let known = KINDS.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, kind)| *kind);
    known.or_else(|| (!text.starts_with('$')).then_some("no hash but plain text"))
}

fn certificate(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<CertificateMatch> {
    const KNOWN: &[&str] = &["dns", "uri", "cn", "email", "sha256"];
    let f = &walk.fields(node, path, KNOWN)?;
    one_of(walk, f, KNOWN)?;
    let pattern = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-value", |text| match text {
            "*" | "**" => Err("this would be any certificate; name one, or leave it out and let \
                               the listener's client_auth decide"
                .into()),
            text if text.is_empty() || text.len() > 1_024 || text.contains(char::is_control) => {
                Err("expected a name of 1 to 1024 characters, in which * may stand for some".into())
            }
            text => Ok(text.to_string()),
        })
    };
    // DNS names have no case (RFC 4343).
    let dns = f.read(walk, "dns", pattern).map(|dns| dns.to_ascii_lowercase());
    dns.map(CertificateMatch::Dns)
        .or_else(|| f.read(walk, "uri", pattern).map(CertificateMatch::Uri))
        .or_else(|| f.read(walk, "cn", pattern).map(CertificateMatch::Cn))
        .or_else(|| f.read(walk, "email", pattern).map(CertificateMatch::Email))
        .or_else(|| f.read(walk, "sha256", digest).map(CertificateMatch::Sha256))
}

fn signing_key(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<SigningKey> {
    let f = &walk.fields(node, path, &["id", "secret"])?;
    let id = f.require(walk, "id", "what signatures call the key", key_id);
    let secret = f.require(walk, "secret", "{file: NAME}", secret);
    Some(SigningKey { id: id?, secret: secret? })
}

/// What signatures and tokens call a key.
pub(super) fn key_id(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-value", |text| {
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        match !text.is_empty() && text.len() <= 256 && text.bytes().all(fits) {
            true => Ok(text.into()),
            false => Err("expected a name of 1 to 256 ASCII characters".into()),
        }
    })
}

fn subject(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Subject> {
    let Some(f) = &walk.fields(node, path, &["authenticator", "value"]) else {
        return Some(Subject::default());
    };
    let authenticator =
        f.require(walk, "authenticator", "the name of an authenticator", |walk, node, path| {
            walk.text(node, path)
        });
    let value = f.require(walk, "value", "the value of its consumer_claim", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            1..=1_024 => Ok(text.into()),
            _ => Err("expected 1 to 1024 characters".into()),
        })
    });
    Some(Subject {
        authenticator: authenticator.unwrap_or_default(),
        value: value.unwrap_or_default(),
    })
}

/// A secret. Nothing of a text is ever repeated.
pub(super) fn secret(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Secret> {
    if !matches!(node.value, Value::Map(_)) {
        walk.places.set(path, node.mark);
        let message = "expected a secret as {file: NAME}, {env: NAME} or {command: [PROGRAM, ...]}";
        walk.problems.error("wrong-type", node.mark, path, None, message.into());
        return None;
    }
    const FORMS: &[&str] = &["file", "env", "command", "inline"];
    let f = &walk.fields(node, path, &["file", "env", "command", "inline", "refresh"])?;
    one_of(walk, f, FORMS)?;
    if let (Some(node), None) = (f.node("refresh"), f.node("command")) {
        let message = "only a command is run again; a file is watched".into();
        walk.error("conflicting-fields", node, &f.at("refresh"), message);
    }
    if let Some(node) = f.node("inline") {
        return inline(walk, node, &f.at("inline")).map(Secret::Inline);
    }
    if f.node("env").is_some() {
        return f.read(walk, "env", variable).map(Secret::Env);
    }
    if f.node("command").is_some() {
        let refresh = f.read(walk, "refresh", |walk, node, path| {
            walk.parsed(node, path, "bad-value", str::parse)
        });
        let command = f.read(walk, "command", program)?;
        return Some(Secret::Command(SecretCommand {
            command,
            refresh: refresh.unwrap_or_default(),
        }));
    }
    f.read(walk, "file", file).map(Secret::File)
}

fn variable(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-value", |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let digit = text.starts_with(|c: char| c.is_ascii_digit());
        match !text.is_empty() && !digit && text.len() <= 256 && text.chars().all(fits) {
            true => Ok(text.into()),
            false => Err("expected the name of an environment variable, like CLIENT_SECRET".into()),
        }
    })
}

/// A program with its arguments.
fn program(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    const EXPECTED: &str = "a program and its arguments, like [vault, read, -field=key, secret/a]";
    let Value::List(items) = &node.value else {
        // As one text it would need a shell.
        walk.wrong_type(node, path, EXPECTED);
        return None;
    };
    if items.is_empty() || items.len() > MAX_ARGUMENTS {
        let message = format!("expected {EXPECTED}; at most {MAX_ARGUMENTS} in all");
        walk.error("bad-value", node, path, message);
        return None;
    }
    let count = items.len();
    let list = walk.list(node, path, |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text {
            text if text.contains('\0') => Err("an argument has no NUL byte".into()),
            text if text.len() > MAX_ARGUMENT => {
                Err(format!("an argument has at most {MAX_ARGUMENT} bytes"))
            }
            text => Ok(text.to_string()),
        })
    })?;
    if list.first().is_some_and(String::is_empty) {
        walk.error("bad-value", node, path, format!("expected {EXPECTED}"));
        return None;
    }
    // One that could not be read has an error already.
    (list.len() == count).then_some(list)
}

fn inline(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.places.set(path, node.mark);
    let mut refuse = |code, message: &str| {
        walk.problems.error(code, node.mark, path, None, message.into());
        None
    };
    let Value::Text(text) = &node.value else {
        return refuse("wrong-type", "expected a secret as text, in quotes");
    };
    match text.as_str() {
        REDACTED => refuse(
            "redacted-secret",
            "this stands for a secret where a spec is shown; write the secret again, best into a \
             file: {file: NAME}",
        ),
        "" => refuse("bad-value", "the secret is empty"),
        text if text.len() > MAX_INLINE => refuse("bad-value", "the secret is too long"),
        text => {
            let message = "whoever reads this spec reads the secret; write it into a file: \
                           {file: NAME}";
            let (mark, code) = (node.mark, "inline-secret");
            walk.problems.add(Severity::Warning, code, mark, path, None, message.into(), None);
            Some(text.to_string())
        }
    }
}

pub(super) fn settings(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AuthSettings> {
    let f = &walk.fields(node, path, &["throttle"])?;
    let throttle = f.read(walk, "throttle", |walk, node, path| {
        let d = Throttle::default();
        let f = &walk.fields(node, path, &["failures", "window_ms"])?;
        Some(Throttle {
            failures: count(walk, f, "failures", 0, 1_000_000, d.failures),
            window_ms: count(walk, f, "window_ms", 1_000, DAY_MS, d.window_ms),
        })
    });
    Some(AuthSettings { throttle: throttle.unwrap_or_default() })
}

pub(super) fn redis(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Redis> {
    let f = &walk.fields(
        node,
        path,
        &["url", "urls", "cluster", "sentinel", "limits_timeout_ms", "username", "password", "ca"],
    )?;
    one_of(walk, f, &["url", "urls"]);
    let one = f.read(walk, "url", redis_url).map(|url| vec![url]);
    let several = f.read(walk, "urls", |walk, node, path| {
        let list = walk.list(node, path, redis_url)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = "expected at least one address, like redis://127.0.0.1:6379".into();
            walk.error("empty-list", node, path, message);
        }
        Some(list)
    });
    if let (Some(name), None) = (f.node("username"), f.node("password")) {
        let message = "a user needs its password; `password` is missing beside `username`".into();
        walk.error("missing-field", name, &f.at("username"), message);
    }
    Some(Redis {
        urls: one.or(several).unwrap_or_default(),
        cluster: flag(walk, f, "cluster", false),
        sentinel: f.read(walk, "sentinel", locality),
        limits_timeout_ms: count(walk, f, "limits_timeout_ms", 1, 10_000, LIMITS_TIMEOUT_MS),
        username: f.read(walk, "username", |walk, node, path| {
            walk.parsed(node, path, "bad-value", |text| match text.len() {
                1..=256 if !text.contains(char::is_whitespace) => Ok(text.into()),
                _ => Err("expected the name of a Redis user".into()),
            })
        }),
        password: f.read(walk, "password", secret),
        ca: f.read(walk, "ca", file),
    })
}

/// An address in which there may be a password all the same: nothing of it is repeated.
fn redis_url(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    let text = walk.text(node, path)?;
    let excerpt = (!text.contains('@')).then_some(text.as_str());
    scalars::redis_url(&text)
        .map_err(|message| walk.problems.error("bad-url", node.mark, path, excerpt, message))
        .ok()
}
