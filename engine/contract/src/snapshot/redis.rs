//! Where Redis is, and which of several servers has a key: judged the same by who writes keys and by
//! who reads them.

use std::fmt;

/// A server's address, out of `redis://[user:password@]host[:port][/database]`; `rediss` for TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub tls: bool,
    /// `None`: Redis' `default` user.
    pub username: Option<String>,
    pub password: Option<String>,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    pub database: u8,
}

impl fmt::Debug for RedisAddress {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({})", self.name())
    }
}

const PORT: u16 = 6379;

impl RedisAddress {
    /// # Errors
    /// What is wrong with it, in words that do not repeat it: it may hold a password.
    pub fn parse(url: &str) -> Result<RedisAddress, &'static str> {
        let (tls, rest) = match url.split_once("://") {
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            _ => return Err("write redis://host:port, or rediss:// for TLS"),
        };
        // The last `@`: one in a password would be taken for the end of it.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (username, password) = match user {
            None => (None, None),
            Some(user) => {
                let (name, password) =
                    user.split_once(':').ok_or("write user:password@, or :password@")?;
                let decoded = |text: &str| decoded(text).ok_or("a %XX in it is no text");
                (Some(decoded(name)?).filter(|name| !name.is_empty()), Some(decoded(password)?))
            }
        };
        let (authority, database) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), 0),
            Some((authority, number)) => {
                (authority, number.parse().map_err(|_| "the database is a number up to 255")?)
            }
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a `]` is missing")?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = match port {
            Some("") => PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("the port is wrong")?,
            None => return Err("behind `]` comes a port"),
        };
        let is_sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_sound) {
            return Err("the host is a name or an IP address");
        }
        Ok(RedisAddress { tls, username, password, host: host.into(), port, database })
    }

    /// Its name in messages, and among shards: no secret, and the same when the password changes.
    pub fn name(&self) -> String {
        let RedisAddress { host, port, database, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match database {
            0 => format!("{host}:{port}"),
            database => format!("{host}:{port}/{database}"),
        }
    }
}

/// Percent-decoded; `None` where that is no text.
fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            out.push((digit(at + 1)? << 4 | digit(at + 2)?) as u8);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

/// Which of several servers has `key`, by their [names](RedisAddress::name): the one with the highest
/// weight (rendezvous hashing, Thaler and Ravishankar 1998). The order of the servers means nothing,
/// and one that comes or goes moves no keys but its own. 0 where there are none.
///
/// The weight of a server for a key is the finaliser of SplitMix64 over the exclusive or of two FNV-1a
/// hashes of 64 bits: the name's, and the finalised one of the key. It never changes: it says where
/// keys are stored.
pub fn redis_owner(names: &[impl AsRef<str>], key: &[u8]) -> usize {
    let key = finalised(fnv1a(key));
    let weights = names.iter().enumerate().map(|(at, name)| {
        let name = name.as_ref();
        (finalised(fnv1a(name.as_bytes()) ^ key), name, at)
    });
    weights.max().map_or(0, |(.., at)| at)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn finalised(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Longest text in an API key's record, in bytes.
const WORD: usize = 256;

/// Whether `text` may stand in an API key's record: upstreams are told it as it is, so it has to be the
/// value of a field (RFC 9110 §5.5).
pub fn is_redis_word(text: &str) -> bool {
    (1..=WORD).contains(&text.len())
        && text.trim_matches(' ') == text
        && !text.chars().any(char::is_control)
}

/// Whether it may stand in a list there: these are told with commas (groups) or spaces (scopes, RFC 6749
/// §3.3) between them.
pub fn is_redis_item(text: &str) -> bool {
    is_redis_word(text) && !text.contains([',', ' '])
}

/// Where it stands when an API key was last used, in seconds since the Unix epoch: this and the digest
/// in lower-case hexadecimal. Beside the records, so that who watches those is not told.
pub const REDIS_USED: &str = "sluice:used:";

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parts(url: &str) -> (bool, Option<String>, Option<String>, String, u16, u8) {
        let it = RedisAddress::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        (it.tls, it.username, it.password, it.host, it.port, it.database)
    }

    #[test]
    fn addresses_are_taken_apart() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(parts("redis://h"), (false, None, None, "h".into(), 6379, 0));
        assert_eq!(
            parts("redis://10.0.0.1:7000/"),
            (false, None, None, "10.0.0.1".into(), 7000, 0)
        );
        assert_eq!(
            parts("rediss://u:p%40%3a@h.example:6380/3"),
            (true, text("u"), text("p@:"), "h.example".into(), 6380, 3)
        );
        assert_eq!(parts("redis://:p@q@[::1]:1"), (false, None, text("p@q"), "::1".into(), 1, 0));
        assert_eq!(parts("redis://[::1]/2"), (false, None, None, "::1".into(), 6379, 2));
    }

    #[test]
    fn what_is_no_address_is_refused_without_telling_the_password() {
        for url in [
            "",
            "h:6379",
            "http://h",
            "redis://",
            "redis://:0",
            "redis://h:0",
            "redis://h:65536",
            "redis://h/256",
            "redis://h/x",
            "redis://[::1",
            "redis://[::1]x",
            "redis://h h",
            "redis://h?db=1",
            "redis://secret@h",
            "redis://u:%zz@h",
            "redis://u:%ff@h",
            "redis://h/1/2",
        ] {
            let error = RedisAddress::parse(url).expect_err(url);
            assert!(!error.contains("secret"));
        }
        let debug = format!("{:?}", RedisAddress::parse("redis://u:secret@h/1"));
        assert_eq!(debug, "Ok(RedisAddress(h:6379/1))");
    }

    #[test]
    fn keys_are_spread_evenly_and_stay_where_they_are() {
        let names = ["10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.3:6379", "10.0.0.3:6379/1"];
        let keys: Vec<String> = (0..10_000).map(|n| format!("sluice:key:{n:064x}")).collect();
        let mut shares = [0; 4];
        for key in &keys {
            let at = redis_owner(&names, key.as_bytes());
            shares[at] += 1;
            // Without the last server only its own keys move; the order means nothing.
            let fewer = redis_owner(&names[..3], key.as_bytes());
            assert!(at == 3 || fewer == at);
            let mut turned = names;
            turned.reverse();
            assert_eq!(redis_owner(&turned, key.as_bytes()), 3 - at);
        }
        assert!(shares.iter().all(|share| (2_300..2_700).contains(share)), "{shares:?}");
    }

    #[test]
    fn words_can_be_told_in_a_field() {
        for text in ["acme", "Acme & Söhne, Berlin", &"a".repeat(WORD)] {
            assert!(is_redis_word(text), "{text}");
        }
        for text in ["", " a", "a ", "a\r\nX: 1", "a\u{7f}", "a\u{85}", &"a".repeat(WORD + 1)] {
            assert!(!is_redis_word(text), "{text}");
        }
        assert!(is_redis_item("read:all") && !is_redis_item("a,b") && !is_redis_item("a b"));
    }

    #[test]
    fn where_keys_are_never_changes() {
        let names = ["a:6379", "b:6379", "c:6379"];
        let places: String =
            (0..24).map(|n| redis_owner(&names, format!("k{n}").as_bytes()).to_string()).collect();
        assert_eq!(places, "100200121120012100010120");
        assert_eq!(redis_owner(&names[..0], b"k"), 0);
    }
}
