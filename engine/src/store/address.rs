//! Which addresses the gateway asks at all. Names in a configuration, and much more those in what
//! providers publish, must not lead it to what only the gateway can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a service at `ip` may be asked. Link-local addresses and clouds' metadata services never
/// are; private ones and this machine only where the operator says so.
pub fn may_be_asked(ip: IpAddr, allow_private: bool) -> bool {
    match kind(ip) {
        Kind::Public => true,
        Kind::Private => allow_private,
        Kind::Never => false,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Never,
}

fn kind(ip: IpAddr) -> Kind {
    match ip {
        IpAddr::V4(ip) => kind_v4(ip),
        IpAddr::V6(ip) => kind_v6(ip),
    }
}

/// IANA's registry of special-purpose addresses (RFC 6890), and metadata services outside of it.
fn kind_v4(ip: Ipv4Addr) -> Kind {
    match ip.octets() {
        // Alibaba's and Azure's metadata; the others' are link-local.
        [100, 100, 100, 200] | [168, 63, 129, 16] => Kind::Never,
        // "This network", link-local, protocol assignments, documentation, 6to4 relays, multicast,
        // reserved and broadcast.
        [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [192, 0, 2, _] | [192, 88, 99, _] => {
            Kind::Never
        }
        [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..] => Kind::Never,
        // Loopback, private use (RFC 1918), carriers' NAT (RFC 6598), benchmarks (RFC 2544).
        [127, ..] | [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Private,
        [100, 64..=127, ..] | [198, 18..=19, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(ip: Ipv6Addr) -> Kind {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        kind_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Private,
        // An IPv4 address in another dress: mapped, compatible (RFC 4291 §2.5.5), behind NAT64
        // (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff | 0, a, b] => embedded(a, b),
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => embedded(a, b),
        [0x2002, a, b, ..] => embedded(a, b),
        // Metadata of AWS and of Google.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Kind::Never
        }
        // Unique local (RFC 4193), and site-local, which it has replaced.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Kind::Private,
        // Global unicast without what is set apart in it: protocol assignments and Teredo
        // (2001::/23), documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Never,
        [0x2000..=0x3fff, ..] => Kind::Public,
        // Link-local, multicast, discard-only, segment routing, and what is not assigned.
        _ => Kind::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(addresses: &[&str], wanted: Kind) {
        for address in addresses {
            assert_eq!(kind(address.parse().unwrap()), wanted, "{address}");
        }
    }

    #[test]
    fn addresses_are_told_apart() {
        all(
            &["8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "198.17.0.1"],
            Kind::Public,
        );
        all(
            &["2606:4700:4700::1111", "2001:200::1", "64:ff9b::8.8.8.8", "::ffff:1.1.1.1"],
            Kind::Public,
        );
        all(&["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255"], Kind::Private);
        all(
            &["192.168.1.1", "100.64.0.1", "198.18.0.1", "::1", "fd12::1", "fec0::1"],
            Kind::Private,
        );
        all(
            &["::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::"],
            Kind::Private,
        );
        all(&["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1"], Kind::Never);
        all(&["240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.7"], Kind::Never);
        all(&["203.0.113.1", "192.0.0.192", "100.100.100.200", "168.63.129.16"], Kind::Never);
        all(&["::", "fe80::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1"], Kind::Never);
        all(&["fd00:ec2::254", "fd20:ce::254", "2001::1", "64:ff9b:1::a00:1"], Kind::Never);
        all(&["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"], Kind::Never);
    }

    #[test]
    fn what_is_private_may_be_allowed_and_nothing_else() {
        let ask = |address: &str, private| may_be_asked(address.parse().unwrap(), private);
        assert!(ask("127.0.0.1", true) && !ask("127.0.0.1", false));
        assert!(!ask("169.254.169.254", true) && ask("8.8.8.8", false));
    }
}
