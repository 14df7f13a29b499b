//! The PROXY protocol, versions 1 and 2, from listed peers only.

use tests::spec::Spec;
use tests::{Gateway, Origin, WireError, get};

fn listening(origin: &Origin) -> Gateway {
    Gateway::of(&Spec::to(origin.address()).listener("proxy_protocol: { from: [\"127.0.0.0/8\"] }"))
}

/// A version 2 header.
fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((addresses.len() as u16).to_be_bytes());
    bytes.extend(addresses);
    bytes
}

const V4: &[u8] = &[203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0, 80];

#[test]
fn the_announced_client_is_forwarded() {
    let origin = Origin::echo();
    let gateway = listening(&origin);
    let v6: Vec<u8> = {
        let source: std::net::Ipv6Addr = "2001:db8::9".parse().unwrap();
        [&source.octets()[..], &std::net::Ipv6Addr::LOCALHOST.octets(), &[0x30, 0x39, 0, 80]]
            .concat()
    };
    let with_tlv = [V4, &[0x04, 0, 2, 0xaa, 0xbb]].concat();
    for (what, header, client) in [
        ("v1 TCP4", b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\r\n".to_vec(), "203.0.113.9"),
        ("v1 TCP6", b"PROXY TCP6 2001:db8::9 ::1 12345 80\r\n".to_vec(), "2001:db8::9"),
        ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("v2 TCP4", v2(1, 0x11, V4), "203.0.113.9"),
        ("v2 TCP6", v2(1, 0x21, &v6), "2001:db8::9"),
        ("v2 with a TLV", v2(1, 0x11, &with_tlv), "203.0.113.9"),
        ("v2 LOCAL", v2(0, 0x00, b""), "127.0.0.1"),
    ] {
        for cut in [0, 5, header.len()] {
            let mut client_side = gateway.connect();
            // The header may come in pieces, and together with the request.
            let whole = [header.as_slice(), get("/pp").as_bytes()].concat();
            client_side.send(&whole[..cut]);
            if cut > 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            client_side.send(&whole[cut..]);
            let response = client_side.response().unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(response.status, 200, "{what}");
            let seen = origin.last();
            let list = seen.field("x-forwarded-for").unwrap_or_default();
            assert_eq!(list, client, "{what}");
            client_side.assert_alive(what);
        }
    }
}

#[test]
fn bad_headers_close_the_connection() {
    let origin = Origin::echo();
    let gateway = listening(&origin);
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200], b"\r\n"].concat();
    for header in [
        b"PROXY TCP4 203.0.113.9 127.0.0.1 12345\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::9 ::1 12345 80\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.999 127.0.0.1 12345 80\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 127.0.0.1 123456 80\r\n".to_vec(),
        b"PROXY TCP5 203.0.113.9 127.0.0.1 12345 80\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\n".to_vec(),
        b"proxy TCP4 203.0.113.9 127.0.0.1 12345 80\r\n".to_vec(),
        long,
        v2(1, 0x11, &V4[..8]),
        v2(2, 0x11, V4),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c".to_vec(),
        // A listed peer must send one.
        Vec::new(),
    ] {
        let mut client = gateway.connect();
        client.send([header.as_slice(), get("/pp").as_bytes()].concat());
        match client.response() {
            Ok(response) => {
                assert_eq!(response.status, 400, "{:?}", String::from_utf8_lossy(&header));
                client.assert_closed("a bad PROXY header");
            }
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("{:?}: {e:?}", String::from_utf8_lossy(&header)),
        }
    }
    assert_eq!(origin.completed(), 0);
}

#[test]
fn an_unlisted_peer_may_not_speak_it() {
    let origin = Origin::echo();
    for setting in ["proxy_protocol: { from: [\"10.0.0.0/8\"] }", "forwarded: false"] {
        let gateway = Gateway::of(&Spec::to(origin.address()).listener(setting));
        for header in [b"PROXY TCP4 6.6.6.6 127.0.0.1 12345 80\r\n".to_vec(), v2(1, 0x11, V4)] {
            let mut client = gateway.connect();
            client.send([header.as_slice(), get("/pp").as_bytes()].concat());
            match client.response() {
                Ok(response) => assert_eq!(response.status, 400, "{setting}"),
                Err(WireError::Closed | WireError::Reset(_)) => {}
                Err(e) => panic!("{setting}: {e:?}"),
            }
        }
        assert_eq!(origin.completed(), 0, "{setting}");
        assert_eq!(gateway.ask(get("/plain")).status, 200, "{setting}: plain HTTP is served");
        assert_eq!(origin.last().field("x-forwarded-for"), Some("127.0.0.1"));
        origin.forget();
    }
}
