//! API keys and password hashes, made and told offline.

use std::io::{IsTerminal, Read};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version, password_hash::SaltString};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use serde::Serialize;

use super::keys_redis::RedisKeys;
use super::{
    Failure, exit,
    offline::{print_json, print_text},
};

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a new API key and print it, once, with its hash for the spec
    New {
        /// What the key begins with, for people and for scanners of leaked secrets
        #[arg(long, default_value = "slk", value_parser = prefix)]
        prefix: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token for the admin API and print it, once, with its hash for the spec
    AdminToken {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell the hash of the API key or token on the standard input
    Hash {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Redis(RedisKeys),
}

#[derive(Debug, Subcommand)]
pub enum Passwords {
    /// Hash the password on the standard input with argon2id
    Hash {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Longest key or password that is read, in bytes.
const MAX_INPUT: u64 = 4_096;
/// What tokens for the admin API begin with.
pub const ADMIN_PREFIX: &str = "slt";
/// Characters of a key beside its prefix that people are shown.
const SHOWN: usize = 6;
/// 62^43 is more than 2^256.
const DIGITS: usize = 43;

/// An API key as it is printed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Printed {
    /// Only of a new one: it is shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
}

pub fn keys(command: Keys) -> Result<(), Failure> {
    let (printed, json) = match command {
        Keys::New { prefix, json } => (Printed::new(&prefix)?, json),
        Keys::AdminToken { json } => return admin_token(json),
        Keys::Hash { json } => (Printed::of(&input("key")?), json),
        Keys::Redis(command) => return command.run(),
    };
    match json {
        true => print_json(&printed),
        false => print_text(&printed.text()),
    }
    Ok(())
}

fn admin_token(json: bool) -> Result<(), Failure> {
    let Printed { key, sha256, .. } = Printed::new(ADMIN_PREFIX)?;
    let token = key.unwrap_or_default();
    match json {
        true => print_json(&serde_json::json!({ "token": token, "sha256": sha256 })),
        false => print_text(&format!(
            "token   {token}\nsha256  {sha256}\n\n\
             The token is shown this once. Give it to whom it is for, and put its hash into the spec:\n\n\
             admin:\n  access:\n    - {{name: NAME, token_sha256: {sha256}, role: editor}}\n"
        )),
    }
    Ok(())
}

pub fn passwords(command: &Passwords) -> Result<(), Failure> {
    let Passwords::Hash { json } = command;
    let hash = new_hash(&input("password")?)?;
    match json {
        true => print_json(&serde_json::json!({ "hash": hash })),
        false => print_text(&format!("{hash}\n")),
    }
    Ok(())
}

/// A new API key, and what people are shown of it.
pub fn new_key(prefix: &str) -> Result<(String, String), Failure> {
    let Printed { key, prefix, .. } = Printed::new(prefix)?;
    Ok((key.unwrap_or_default(), prefix.unwrap_or_default()))
}

impl Printed {
    /// `prefix_` and 256 bits of randomness in letters and digits, and a checksum by which scanners of
    /// leaked secrets can tell keys from other text.
    fn new(prefix: &str) -> Result<Printed, Failure> {
        let mut bits = [0; 32];
        random(&mut bits)?;
        let body = format!("{prefix}_{}", base62(&bits, DIGITS));
        let check = base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), 6);
        let key = format!("{body}{check}");
        let shown = key.get(..prefix.len() + 1 + SHOWN).map(Into::into);
        Ok(Printed { prefix: shown, ..Printed::of(&key) }.with(key))
    }

    fn of(key: &str) -> Printed {
        let sha256 = HEXLOWER.encode(digest(&SHA256, key.as_bytes()).as_ref());
        Printed { key: None, sha256, prefix: None }
    }

    fn with(self, key: String) -> Printed {
        Printed { key: Some(key), ..self }
    }

    fn text(&self) -> String {
        let Printed { key, sha256, prefix } = self;
        let (Some(key), Some(prefix)) = (key, prefix) else { return format!("{sha256}\n") };
        format!(
            "key     {key}\nsha256  {sha256}\nprefix  {prefix}\n\n\
             The key is shown this once. Give it to whom it is for, and put its hash into the spec:\n\n\
             consumers:\n  - name: NAME\n    api_keys:\n      - {{prefix: {prefix}, sha256: {sha256}}}\n"
        )
    }
}

/// A large number in letters and digits, the most significant first, `width` of them.
fn base62(number: &[u8], width: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = number.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_usize;
        for byte in &mut number {
            let value = rest << 8 | usize::from(*byte);
            *byte = (value / ALPHABET.len()) as u8;
            rest = value % ALPHABET.len();
        }
        *digit = ALPHABET[rest];
    }
    digits.into_iter().map(char::from).collect()
}

/// The hash of a password, with a salt of its own.
pub fn new_hash(password: &str) -> Result<String, Failure> {
    let mut salt = [0; 16];
    random(&mut salt)?;
    hashed(password, &salt)
}

/// A hash by argon2id with the parameters of OWASP's Password Storage Cheat Sheet.
fn hashed(password: &str, salt: &[u8]) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(exit::FAILURE, format!("the password cannot be hashed: {error}"))
    };
    let params = Params::new(19_456, 2, 1, Some(32)).map_err(|error| failed(&error))?;
    let salt = SaltString::encode_b64(salt).map_err(|error| failed(&error))?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password(password.as_bytes(), &salt).map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| Failure::new(exit::FAILURE, "the system gives no randomness"))
}

/// What is on the standard input, without the newline at its end.
fn input(what: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Type the {what}, then Enter and Ctrl-D (it will be seen on this terminal):");
    }
    let mut bytes = Vec::new();
    stdin.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    read(what, bytes).map_err(|message| Failure::new(exit::BAD_SPEC, message))
}

fn read(what: &str, bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() as u64 > MAX_INPUT {
        return Err(format!("the {what} is longer than {MAX_INPUT} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.is_empty() || text.contains(char::is_control) {
        true => Err(format!("expected the {what} on the standard input, in one line")),
        false => Ok(text.into()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match !text.is_empty() && text.len() <= 9 && fits {
        true => Ok(text.into()),
        false => Err("a prefix has 1 to 9 letters, digits or _".into()),
    }
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHash, PasswordVerifier};

    use super::*;

    #[test]
    fn keys_are_random_and_recognised() {
        let one = Printed::new("acme").unwrap();
        let key = one.key.clone().unwrap();
        assert_ne!(Printed::new("acme").unwrap().key, one.key);
        assert_eq!(key.len(), "acme_".len() + 43 + 6);
        assert!(key.starts_with(one.prefix.as_deref().unwrap()), "{one:?}");
        assert_eq!(one.prefix.as_ref().unwrap().len(), "acme_".len() + 6);
        assert_eq!(Printed::of(&key).sha256, one.sha256);
        let (body, check) = key.split_at(key.len() - 6);
        assert_eq!(base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), 6), check);
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let text = one.text();
        let snippet: String = text.split_once("spec:\n\n").unwrap().1.replace("NAME", "app");
        let spec = format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
             authenticators: [{{name: keys, api_key: }}]\n\
             upstreams: [{{name: u, targets: ['10.0.0.1:1']}}]\n\
             routes: [{{name: r, upstream: u, auth: keys}}]\n{snippet}"
        );
        assert_eq!(crate::spec::load("t.yaml", &spec).problems, []);
        assert_eq!(Printed::of("abc").text(), format!("{}\n", Printed::of("abc").sha256));
    }

    #[test]
    fn numbers_in_letters_and_digits() {
        assert_eq!(base62(&[0, 0], 3), "000");
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[62], 2), "10");
        // 2^256 - 1 needs all of the width.
        assert!(!base62(&[255; 32], DIGITS).starts_with('0'));
        assert_eq!(base62(&[255; 32], DIGITS + 1), format!("0{}", base62(&[255; 32], DIGITS)));
    }

    #[test]
    fn passwords_are_hashed_as_the_spec_asks() {
        let hash = hashed("correct horse", &[7; 16]).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"wrong", &parsed).is_err());
        let spec = format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
             authenticators: [{{name: people, basic: }}]\n\
             consumers: [{{name: ann, passwords: [{{username: ann, hash: '{hash}'}}]}}]\n\
             upstreams: [{{name: u, targets: ['10.0.0.1:1']}}]\n\
             routes: [{{name: r, upstream: u, auth: people}}]\n"
        );
        assert_eq!(crate::spec::load("t.yaml", &spec).problems, []);
    }

    #[test]
    fn input_is_one_line() {
        assert_eq!(read("key", b"a b\n".to_vec()), Ok("a b".into()));
        assert_eq!(read("key", b"a\r\n".to_vec()), Ok("a".into()));
        for wrong in [&b""[..], b"\n", b"a\nb\n", b"\xff", &[b'a'; 5_000]] {
            assert!(read("key", wrong.to_vec()).is_err());
        }
        assert!(prefix("acme_1").is_ok() && prefix("").is_err() && prefix("a-b").is_err());
    }
}
