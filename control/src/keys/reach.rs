//! Which addresses may be asked when a URL comes from a spec, or from a provider's document.
//!
//! Names are looked up by us and connections go to the addresses that were judged, so that a name
//! cannot mean one address when it is judged and another when it is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where clouds keep secrets, and what is no one's address. Not asked, whatever the spec says.
    Never,
    /// This machine, or networks that are not the internet.
    Private,
    Public,
}

/// Services of clouds to their machines that are not link-local: they hand out secrets, too.
const METADATA: [IpAddr; 5] = [
    // AWS.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Google.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Oracle.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub allow_private: bool,
    /// Over `http://`: only where nobody is on the way.
    pub clear: bool,
}

impl Reach {
    pub fn allows(self, address: IpAddr) -> bool {
        match kind(address) {
            Kind::Never => false,
            Kind::Private => self.allow_private,
            Kind::Public => !self.clear,
        }
    }

    /// Why an address is not asked, for people.
    pub fn refusal(self, address: IpAddr) -> String {
        match kind(address) {
            Kind::Never => format!("{address} is never asked"),
            Kind::Private => {
                format!(
                    "{address} is a private address, which is asked only with `allow_private: true`"
                )
            }
            Kind::Public => format!("{address} is not asked over http://"),
        }
    }
}

pub fn kind(address: IpAddr) -> Kind {
    if METADATA.contains(&address) {
        return Kind::Never;
    }
    match address {
        IpAddr::V4(v4) => of_v4(v4),
        IpAddr::V6(v6) => of_v6(v6),
    }
}

/// The registry of RFC 6890.
fn of_v4(v4: Ipv4Addr) -> Kind {
    match v4.octets() {
        // "This network"; link-local; multicast; broadcast.
        [0, ..] | [169, 254, ..] | [224..=239, ..] | [255, 255, 255, 255] => Kind::Never,
        [10 | 127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Carriers' (RFC 6598), protocol assignments, benchmarks, documentation, the future.
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

fn of_v6(v6: Ipv6Addr) -> Kind {
    let [a, b, c, .., g, h] = v6.segments();
    let embedded = |high: u16, low: u16| {
        kind(IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Private,
        // Ways to write an IPv4 address: mapped (RFC 4291), translated (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff, ..] => embedded(g, h),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(g, h),
        [0x2002, ..] => embedded(b, c),
        // Unspecified and IPv4-compatible; Teredo; discarded; link-local; multicast.
        [0, 0, 0, 0, 0, 0, ..] | [0x2001, 0, ..] | [0x100, 0, 0, 0, ..] => Kind::Never,
        _ if a & 0xffc0 == 0xfe80 || a & 0xff00 == 0xff00 => Kind::Never,
        // Unique local, site-local (of old), translated locally, documentation.
        _ if a & 0xfe00 == 0xfc00 || a & 0xffc0 == 0xfec0 => Kind::Private,
        [0x64, 0xff9b, 1, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Private,
        // Nothing else outside 2000::/3 is anybody's.
        _ if a & 0xe000 != 0x2000 => Kind::Never,
        _ => Kind::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_for_what_they_are() {
        for (kinds, addresses) in [
            (
                Kind::Never,
                "0.0.0.0 0.1.2.3 169.254.169.254 169.254.0.1 224.0.0.1 239.255.255.255 \
                 255.255.255.255 100.100.100.200 168.63.129.16 192.0.0.192 :: fe80::1 febf::1 \
                 ff02::1 fd00:ec2::254 fd20:ce::254 ::ffff:169.254.169.254 ::ffff:0.0.0.0 \
                 64:ff9b::169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 ::a9fe:a9fe \
                 ::127.0.0.1 2001::1 100::1 4000::1 ::ffff:100.100.100.200",
            ),
            (
                Kind::Private,
                "127.0.0.1 127.255.0.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 \
                 198.18.0.1 192.0.2.1 198.51.100.1 203.0.113.9 240.0.0.1 192.0.0.1 ::1 fc00::1 \
                 fd12::1 fec0::1 ::ffff:127.0.0.1 ::ffff:10.1.1.1 64:ff9b::10.0.0.1 \
                 2002:7f00:1::1 64:ff9b:1::1 2001:db8::1",
            ),
            (
                Kind::Public,
                "1.1.1.1 8.8.8.8 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 192.0.1.1 \
                 198.20.0.1 2606:4700::1111 2001:4860:4860::8888 ::ffff:1.1.1.1 64:ff9b::1.1.1.1",
            ),
        ] {
            for text in addresses.split_whitespace() {
                assert_eq!(kind(text.parse().unwrap()), kinds, "{text}");
            }
        }
    }

    #[test]
    fn private_ones_are_asked_where_that_is_allowed_and_others_not_in_the_clear() {
        let [never, private, public] =
            ["169.254.169.254", "10.0.0.1", "1.1.1.1"].map(|text| text.parse().unwrap());
        for (allow_private, clear, allowed) in [
            (false, false, [false, false, true]),
            (true, false, [false, true, true]),
            (false, true, [false, false, false]),
            (true, true, [false, true, false]),
        ] {
            let reach = Reach { allow_private, clear };
            assert_eq!([never, private, public].map(|one| reach.allows(one)), allowed, "{reach:?}");
        }
    }
}
