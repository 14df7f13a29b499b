//! From where a route may be called: prefixes that are let in, and prefixes that are not.
//!
//! The longest prefix that an address lies in decides. Prefixes nest or are apart, so all of them
//! together cut the addresses into runs of one verdict each; a look-up is one binary search for the
//! run, however many prefixes there are and however deep they nest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use contract::snapshot::{self, Cidr};

/// Which addresses a route serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks {
    v4: Runs,
    v6: Runs,
}

impl Networks {
    pub fn build(from: &snapshot::Networks) -> Networks {
        let (mut v4, mut v6) = (Prefixes::new(), Prefixes::new());
        let allowed = from.allow.iter().map(|cidr| (cidr, true));
        // Denials come last: of equal prefixes they replace what is allowed.
        for (cidr, verdict) in allowed.chain(from.deny.iter().map(|cidr| (cidr, false))) {
            match prefix(cidr) {
                Prefix::V4(start, len) => v4.insert((start, len), verdict),
                Prefix::V6(start, len) => v6.insert((start, len), verdict),
            };
        }
        let otherwise = from.allow.is_empty();
        Networks { v4: Runs::build(&v4, 32, otherwise), v6: Runs::build(&v6, 128, otherwise) }
    }

    /// Whether requests from `ip` are served. An IPv4-mapped address is judged as IPv4.
    pub fn admit(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.find(u32::from(ip).into()),
            IpAddr::V6(ip) => self.v6.find(u128::from(ip)),
        }
    }
}

/// Verdicts by first address and length. In this order a prefix comes right before those in it.
type Prefixes = BTreeMap<(u128, u8), bool>;

enum Prefix {
    V4(u128, u8),
    V6(u128, u8),
}

/// The prefix without bits behind its length. One of IPv4-mapped addresses is one of IPv4.
fn prefix(cidr: &Cidr) -> Prefix {
    let masked = |bits: u128, len: u8, width: u8| bits & !span(len, width);
    match cidr.network {
        IpAddr::V4(ip) => {
            let len = cidr.prefix.min(32);
            Prefix::V4(masked(u32::from(ip).into(), len, 32), len)
        }
        IpAddr::V6(ip) => {
            let len = cidr.prefix.min(128);
            match ip.to_ipv4_mapped().zip(len.checked_sub(96)) {
                Some((ip, len)) => Prefix::V4(masked(u32::from(ip).into(), len, 32), len),
                None => Prefix::V6(masked(u128::from(ip), len, 128), len),
            }
        }
    }
}

/// The bits behind a prefix of `len`: what its last address has more than its first.
fn span(len: u8, width: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(width - len)).unwrap_or(0)
}

/// All addresses of a family as runs of one verdict.
#[derive(Clone, Debug, PartialEq)]
struct Runs {
    /// First addresses, ascending. The first run begins at 0.
    starts: Box<[u128]>,
    verdicts: Box<[bool]>,
}

impl Runs {
    fn build(prefixes: &Prefixes, width: u8, otherwise: bool) -> Runs {
        let mut runs = vec![(0, otherwise)];
        let mut begin = |start: u128, verdict: bool| match runs.last_mut() {
            Some(last) if last.0 == start => last.1 = verdict,
            _ => runs.push((start, verdict)),
        };
        // Last addresses and verdicts of the prefixes that lie around the place the sweep is at, the
        // innermost last.
        let mut around: Vec<(u128, bool)> = Vec::new();
        let end = |around: &mut Vec<(u128, bool)>, before: Option<u128>| {
            let mut ended = Vec::new();
            while let Some(&(last, _)) = around.last()
                && before.is_none_or(|start| last < start)
            {
                around.pop();
                let verdict = around.last().map_or(otherwise, |&(_, verdict)| verdict);
                ended.extend(last.checked_add(1).map(|next| (next, verdict)));
            }
            ended
        };
        for (&(start, len), &verdict) in prefixes {
            for (next, verdict) in end(&mut around, Some(start)) {
                begin(next, verdict);
            }
            begin(start, verdict);
            around.push((start | span(len, width), verdict));
        }
        for (next, verdict) in end(&mut around, None) {
            begin(next, verdict);
        }
        runs.dedup_by_key(|run| run.1);
        let (starts, verdicts): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        Runs { starts: starts.into(), verdicts: verdicts.into() }
    }

    fn find(&self, address: u128) -> bool {
        let after = self.starts.partition_point(|&start| start <= address);
        after.checked_sub(1).and_then(|at| self.verdicts.get(at)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        let (network, prefix) = text.split_once('/').unwrap();
        Cidr { network: network.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let list = |texts: &[&str]| texts.iter().map(|text| cidr(text)).collect();
        Networks::build(&snapshot::Networks { allow: list(allow), deny: list(deny) })
    }

    fn admits(networks: &Networks, ip: &str) -> bool {
        networks.admit(ip.parse().unwrap())
    }

    /// The longest prefix of all, by looking at each.
    fn naive(from: &snapshot::Networks, ip: IpAddr) -> bool {
        let longest = |list: &[Cidr]| {
            list.iter().filter(|cidr| cidr.contains(ip)).map(|cidr| cidr.prefix).max()
        };
        match (longest(&from.allow), longest(&from.deny)) {
            (None, None) => from.allow.is_empty(),
            (allowed, denied) => allowed > denied,
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_of_equal_ones_the_denial() {
        let some = networks(&["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"], &["10.1.0.0/16"]);
        assert!(admits(&some, "10.0.0.0") && admits(&some, "10.255.255.255"));
        assert!(!admits(&some, "10.1.0.0") && !admits(&some, "10.1.255.255"));
        assert!(admits(&some, "10.1.2.0") && admits(&some, "10.1.2.255"));
        assert!(!admits(&some, "10.1.3.0") && admits(&some, "10.2.0.0"));
        assert!(!admits(&some, "9.255.255.255") && !admits(&some, "11.0.0.0"));
        assert!(admits(&some, "2001:db8::1") && !admits(&some, "2001:db9::1"));
        assert!(!admits(&networks(&["10.0.0.0/8"], &["10.0.0.0/8"]), "10.1.1.1"));
    }

    #[test]
    fn without_a_list_of_those_let_in_everyone_else_is() {
        let denied = networks(&[], &["0.0.0.0/1", "ff00::/8"]);
        assert!(!admits(&denied, "127.0.0.1") && admits(&denied, "128.0.0.0"));
        assert!(admits(&denied, "::1") && !admits(&denied, "ff02::1"));
        let nobody = networks(&[], &["0.0.0.0/0", "::/0"]);
        assert!(!admits(&nobody, "255.255.255.255") && !admits(&nobody, "::"));
        let everyone = networks(&[], &[]);
        assert!(admits(&everyone, "1.2.3.4") && admits(&everyone, "::1"));
    }

    #[test]
    fn a_mapped_address_is_one_of_ipv4() {
        let some = networks(&["10.0.0.0/8"], &[]);
        assert!(admits(&some, "::ffff:10.1.1.1") && !admits(&some, "::ffff:11.1.1.1"));
        let mapped = networks(&["::ffff:10.0.0.0/104"], &[]);
        assert!(admits(&mapped, "10.1.1.1") && admits(&mapped, "::ffff:10.1.1.1"));
        assert!(!admits(&mapped, "11.1.1.1"));
        // IPv6 as a whole has nothing to say of IPv4.
        assert!(!admits(&networks(&["::/0"], &[]), "::ffff:10.1.1.1"));
    }

    #[test]
    fn bits_behind_a_prefix_mean_nothing() {
        let some = networks(&["10.1.2.3/8", "2001:db8::1/32"], &[]);
        assert!(admits(&some, "10.200.0.1") && admits(&some, "2001:db8:ffff::"));
    }

    /// Addresses and prefixes that are near each other, so that they nest and touch.
    fn near() -> impl Strategy<Value = IpAddr> {
        let v4 = prop::sample::select(vec![0u32, 0x0a00_0000, 0x0a01_0200, u32::MAX]);
        let v6 = prop::sample::select(vec![0u128, 0x2001_0db8 << 96, 0xffff << 32, u128::MAX]);
        let v4 = (v4, 0..32u32, any::<bool>())
            .prop_map(|(base, bit, flip)| Ipv4Addr::from(base ^ (u32::from(flip) << bit)).into());
        let v6 = (v6, 0..128u32, any::<bool>())
            .prop_map(|(base, bit, flip)| Ipv6Addr::from(base ^ (u128::from(flip) << bit)).into());
        prop_oneof![v4, v6]
    }

    fn list() -> impl Strategy<Value = Vec<Cidr>> {
        let one = (near(), 0..=128u8).prop_map(|(network, prefix)| {
            let prefix = if network.is_ipv4() { prefix.min(32) } else { prefix };
            Cidr { network, prefix }
        });
        // The naive scan knows no prefixes of mapped addresses.
        prop::collection::vec(one, 0..12).prop_map(|list| {
            let plain =
                |cidr: &Cidr| cidr.prefix < 96 || cidr.network.to_canonical() == cidr.network;
            list.into_iter().filter(plain).collect()
        })
    }

    proptest! {
        #[test]
        fn runs_say_what_a_scan_says(allow in list(), deny in list(), ips in prop::collection::vec(near(), 64)) {
            let from = snapshot::Networks { allow, deny };
            let built = Networks::build(&from);
            let edges = from.allow.iter().chain(&from.deny).map(|cidr| cidr.network);
            for ip in ips.into_iter().chain(edges) {
                prop_assert_eq!(built.admit(ip), naive(&from, ip), "{}", ip);
            }
        }
    }
}
