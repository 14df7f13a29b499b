//! Who sent a request that proxies passed on, as far as they are trusted.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Name, RequestHead};
use crate::plan::Listener;

/// The address that a trusted `peer` forwards for. Each proxy appends whom it heard from, so the
/// fields are read from their end, and the first address that is none of a trusted proxy's is the one:
/// what stands before it the client may have written itself.
///
/// An element that is no address ends the walk at the proxy that passed it on. Where all are trusted
/// it is the first.
pub fn client_address(
    listener: &Listener,
    head: &RequestHead,
    bytes: &[u8],
    peer: IpAddr,
) -> IpAddr {
    let mut last = peer;
    let lines = head.fields.iter().rev().filter(|field| field.id == Name::XForwardedFor);
    for line in lines.filter(|field| !field.drop) {
        for element in line.value.of(bytes).rsplit(|&byte| byte == b',') {
            let Some(address) = address(element.trim_ascii()) else { return last };
            last = address;
            if !listener.trusts(address) {
                return address;
            }
        }
    }
    last
}

/// An address, perhaps with a port, as proxies write it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let address: IpAddr = text.parse().ok().or_else(bracketed).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{self, Cidr, Snapshot};

    use super::*;
    use crate::message::HeadLimits;
    use crate::plan::Plan;

    /// The client of a request from 10.0.0.1 with these lines, where 10.0.0.0/8 and `fd00::/8` are
    /// trusted.
    fn client_of(lines: &[&str]) -> String {
        let trusted = [("10.0.0.0", 8), ("fd00::", 8)];
        let listener = snapshot::Listener {
            name: "l".into(),
            address: "127.0.0.1:80".parse().unwrap(),
            trusted_proxies: trusted
                .map(|(network, prefix)| Cidr { network: network.parse().unwrap(), prefix })
                .into(),
            proxy_protocol_from: vec![],
            forwarded: false,
            underscore_fields: Default::default(),
            tls: None,
            h2c: false,
            limits: Default::default(),
        };
        let snapshot = Snapshot { listeners: vec![listener], ..Default::default() };
        let plan = Plan::build(snapshot).unwrap();
        let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        lines.iter().for_each(|line| text.push_str(&format!("X-Forwarded-For: {line}\r\n")));
        text.push_str("\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes(), &HeadLimits::REQUEST).unwrap();
        let peer = "10.0.0.1".parse().unwrap();
        client_address(&plan.listeners[0], &head, text.as_bytes(), peer).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_clients() {
        assert_eq!(client_of(&[]), "10.0.0.1");
        assert_eq!(client_of(&["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client_of(&["9.9.9.9, 1.1.1.1"]), "1.1.1.1", "9.9.9.9 is only what it says");
        assert_eq!(client_of(&["9.9.9.9, 1.1.1.1,10.2.2.2 , 10.3.3.3"]), "1.1.1.1");
        assert_eq!(client_of(&["9.9.9.9", "1.1.1.1", "10.2.2.2"]), "1.1.1.1", "lines are one list");
        assert_eq!(client_of(&["10.2.2.2, 10.3.3.3"]), "10.2.2.2", "all are trusted");
        assert_eq!(client_of(&["::ffff:10.2.2.2, fd00::1"]), "10.2.2.2");
    }

    #[test]
    fn addresses_come_with_ports_and_in_brackets() {
        assert_eq!(client_of(&["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client_of(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client_of(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client_of(&["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client_of(&["::ffff:1.1.1.1"]), "1.1.1.1");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        for odd in ["unknown", "", "_hidden", "1.1.1", "a, \u{e4}", "1.1.1.1, "] {
            assert_eq!(client_of(&[odd]), "10.0.0.1", "{odd:?}");
        }
        assert_eq!(client_of(&["1.1.1.1, unknown, 10.2.2.2"]), "10.2.2.2");
    }
}
