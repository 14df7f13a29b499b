//! What a request's consistent hash goes by.
//!
//! The hashes are the same on every node and in every version, so that several gateways send a
//! client to the same target.

use std::net::IpAddr;

use contract::snapshot::HashKey;

use crate::route::HeaderLookup;

/// The hash of a request's key. Where the header or cookie is missing or empty it is that of the
/// client's address: one target would get all of those requests otherwise.
pub fn of_request(
    key: &HashKey,
    fields: &impl HeaderLookup,
    consumer: Option<&str>,
    client: IpAddr,
) -> u64 {
    let found = match key {
        HashKey::Header(name) => header(fields, name.as_bytes()),
        HashKey::Cookie(name) => cookie(fields, name.as_bytes()),
        HashKey::Consumer => consumer.map(|id| hash(id.as_bytes())),
        HashKey::ClientIp => None,
    };
    found.unwrap_or_else(|| address(client))
}

/// Several lines of a field are one value with commas (RFC 9110 §5.3): a proxy in front of us may
/// have joined them, or not.
fn header(fields: &impl HeaderLookup, name: &[u8]) -> Option<u64> {
    let mut all: Option<Hasher> = None;
    fields.any(name, &mut |value| {
        match &mut all {
            None if value.is_empty() => {}
            None => all.get_or_insert_default().write(value),
            Some(hasher) => {
                hasher.write(b", ");
                hasher.write(value);
            }
        }
        false
    });
    all.map(|hasher| hasher.finish())
}

/// The first cookie of that name, as user agents write them: `name=value; name=value` (RFC 6265
/// §4.2.1, §5.4), in one line or in many (RFC 9113 §8.2.3). Names are case-sensitive; what is in
/// the value, quotes too, is the application's.
fn cookie(fields: &impl HeaderLookup, name: &[u8]) -> Option<u64> {
    let mut found = None;
    fields.any(b"cookie", &mut |line| {
        for pair in line.split(|&byte| byte == b';') {
            let Some(equals) = memchr::memchr(b'=', pair) else { continue };
            let (given, value) = pair.split_at(equals);
            if given.trim_ascii() == name {
                // Without the `=`.
                let value = value.get(1..).unwrap_or_default().trim_ascii();
                found = (!value.is_empty()).then(|| hash(value));
                return true;
            }
        }
        false
    });
    found
}

/// The hash of an address; an IPv4-mapped one is that of the IPv4 address.
fn address(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

/// A hash of bytes: no secret, and for spreading only.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = Hasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// FNV-1a's step over words of eight bytes, with the high half folded in so that every bit of the
/// input reaches every bit of the state.
#[derive(Default)]
struct Hasher {
    state: u64,
    /// Bytes that wait for their word, the first one lowest.
    word: u64,
    len: u64,
}

impl Hasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.word |= u64::from(byte) << (8 * (self.len % 8));
            self.len += 1;
            if self.len.is_multiple_of(8) {
                self.step();
            }
        }
    }

    fn step(&mut self) {
        let word = std::mem::take(&mut self.word);
        self.state = (self.state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.state ^= self.state >> 32;
    }

    fn finish(mut self) -> u64 {
        if !self.len.is_multiple_of(8) {
            self.step();
        }
        mix(self.state ^ self.len)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that leaves no pattern.
#[inline]
pub fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn key(key: HashKey, fields: &[(&str, &str)]) -> u64 {
        of_request(&key, &fields.to_vec(), None, CLIENT)
    }

    fn by_header(fields: &[(&str, &str)]) -> u64 {
        key(HashKey::Header("x-user".into()), fields)
    }

    fn by_cookie(fields: &[(&str, &str)]) -> u64 {
        key(HashKey::Cookie("sid".into()), fields)
    }

    #[test]
    fn a_header_is_found_in_any_case_and_joined() {
        assert_eq!(by_header(&[("Host", "h"), ("X-User", "ann")]), hash(b"ann"));
        assert_ne!(by_header(&[("X-User", "ann")]), by_header(&[("X-User", "bob")]));
        let joined = by_header(&[("x-user", "ann, bob")]);
        assert_eq!(by_header(&[("x-user", "ann"), ("a", "b"), ("x-user", "bob")]), joined);
    }

    #[test]
    fn without_a_key_the_client_s_address_counts() {
        let client = hash(&[192, 0, 2, 7]);
        assert_eq!(key(HashKey::ClientIp, &[("x-user", "ann")]), client);
        assert_eq!(by_header(&[("x-user2", "ann")]), client);
        assert_eq!(by_header(&[("x-user", "")]), client);
        assert_eq!(by_cookie(&[("cookie", "a=1; SID=2; sid2=3; xsid=4; sid")]), client);
        assert_eq!(by_cookie(&[("cookie", "sid=")]), client);
        assert_eq!(by_cookie(&[]), client);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let none: Vec<(&str, &str)> = Vec::new();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let other: IpAddr = "2001:db8::1".parse().unwrap();
        let of = |client| of_request(&HashKey::ClientIp, &none, None, client);
        assert_eq!(of(mapped), of(CLIENT));
        assert_ne!(of(other), of(CLIENT));
    }

    #[test]
    fn a_cookie_is_found_wherever_it_stands() {
        let found = hash(b"k7=");
        for line in ["sid=k7=", "a=1; sid=k7=", "a=1;sid=k7=;b=2", "a; =; \tsid = k7= ; sid=other"]
        {
            assert_eq!(by_cookie(&[("Cookie", line)]), found, "{line}");
        }
        // HTTP/2 may have a line for each.
        assert_eq!(by_cookie(&[("cookie", "a=1"), ("cookie", "sid=k7="), ("x", "y")]), found);
        assert_ne!(by_cookie(&[("cookie", "sid=\"k7=\"")]), found, "quotes are part of it");
    }

    #[test]
    fn hashes_stay_what_they_are() {
        // Other nodes, of other versions, must agree.
        assert_eq!(hash(b""), 0);
        assert_eq!(hash(b"ann"), 0x58b0_c15a_74d8_ca8c);
        assert_eq!(hash(b"a user with a longer name"), 0x508b_1a57_5021_0bc9);
    }

    #[test]
    fn near_keys_spread() {
        // Consecutive numbers over 64 buckets by the highest bits, as the ring goes.
        let mut buckets = [0u32; 64];
        for number in 0..64_000 {
            buckets[(hash(format!("user-{number}").as_bytes()) >> 58) as usize] += 1;
        }
        // 1,000 each, give or take five standard deviations.
        assert!(buckets.iter().all(|count| (840..1160).contains(count)), "{buckets:?}");
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_hash(bytes in prop::collection::vec(any::<u8>(), 0..50), cut in any::<prop::sample::Index>()) {
            let (a, b) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut hasher = Hasher::default();
            hasher.write(a);
            hasher.write(b);
            prop_assert_eq!(hasher.finish(), hash(&bytes));
        }

        #[test]
        fn different_keys_differ(keys in prop::collection::hash_set(prop::collection::vec(any::<u8>(), 0..20), 2..50)) {
            let hashes: HashSet<u64> = keys.iter().map(|key| hash(key)).collect();
            prop_assert_eq!(hashes.len(), keys.len());
        }

        #[test]
        fn no_cookie_line_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let fields = vec![(b"cookie".to_vec(), line)];
            of_request(&HashKey::Cookie("a".into()), &fields, None, CLIENT);
        }
    }
}
