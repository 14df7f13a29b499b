//! Handshakes with clients: versions, names, certificates.

use rustls::{AlertDescription, Error};

use super::*;

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn versions_and_application_protocols() {
    for (version, protocols, expected) in [
        (&rustls::version::TLS13, &[b"h2".to_vec(), b"http/1.1".to_vec()][..], Some(Alpn::H2)),
        (&rustls::version::TLS13, &[b"http/1.1".to_vec()][..], Some(Alpn::Http11)),
        (&rustls::version::TLS12, &[b"http/1.1".to_vec(), b"h2".to_vec()][..], Some(Alpn::H2)),
        (&rustls::version::TLS12, &[][..], None),
    ] {
        let setup = Setup::new(&[&["a.test"]]);
        let mut config = client_config(&setup.authority, None, &[version]);
        config.alpn_protocols = protocols.to_vec();
        let results = echo_server(small(), vec![setup.side()], move |address| {
            let mut client = dial(&Arc::new(config), address, "A.test");
            round(&mut client, b"hello").unwrap();
            let cipher = client.conn.negotiated_cipher_suite().unwrap();
            assert!(cipher.tls13().is_some() || cipher.suite().as_str().unwrap().contains("ECDHE"));
        });
        let [Ok(seen)] = &results[..] else { panic!("{results:?}") };
        let is_13 = version.version == rustls::ProtocolVersion::TLSv1_3;
        assert_eq!(seen.version == TlsVersion::V13, is_13);
        assert_eq!((seen.alpn, seen.site, seen.resumed), (expected, 0, false));
        assert_eq!(seen.sni.as_deref(), Some("a.test"));
    }
}

#[test]
fn a_version_too_old_or_no_protocol_in_common_is_refused() {
    let mut setup = Setup::new(&[&["a.test"]]);
    setup.tls.min_version = TlsVersion::V13;
    let old = client_config(&setup.authority, None, &[&rustls::version::TLS12]);
    let mut other = setup.client(None);
    other.alpn_protocols = vec![b"smtp".to_vec()];
    let results = echo_server(small(), vec![setup.side(), setup.side()], move |address| {
        let mut client = dial(&Arc::new(old), address, "a.test");
        let error = round(&mut client, b"x").unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::ProtocolVersion), "{error}");
        let mut client = dial(&Arc::new(other), address, "a.test");
        let error = round(&mut client, b"x").unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{error}");
    });
    assert!(matches!(results[..], [Err(Cause::NothingInCommon), Err(Cause::NothingInCommon)]));
}

#[test]
fn server_names_choose_the_site() {
    let mut setup =
        Setup::new(&[&["a.test"], &["*.b.test", "b.test"], &["x.b.test", "*.deep.b.test"]]);
    let config = Arc::new(setup.client(None));
    let cases =
        [("a.test", 0), ("b.test", 1), ("y.b.test", 1), ("x.b.test", 2), ("z.deep.b.test", 2)];
    let sides = vec![setup.side(); cases.len()];
    let dialed = config.clone();
    let results = echo_server(small(), sides, move |address| {
        for (name, _) in cases {
            round(&mut dial(&dialed, address, name), b"x").unwrap();
        }
    });
    for (result, (name, site)) in results.iter().zip(cases) {
        assert_eq!(result.as_ref().unwrap().site, site, "{name}");
    }
    // An unknown name, and none: the default site, or a refusal.
    let sides = vec![setup.side(), setup.side()];
    let dialed = config.clone();
    let results = echo_server(small(), sides, move |address| {
        let error = round(&mut dial(&dialed, address, "a.b.c.test"), b"x").unwrap_err();
        assert!(matches!(
            error.get_ref().unwrap().downcast_ref(),
            Some(Error::InvalidCertificate(_))
        ));
        round(&mut dial(&dialed, address, "127.0.0.1"), b"x").unwrap_err();
    });
    assert!(results.iter().all(|result| matches!(result, Err(Cause::Alert))), "{results:?}");
    setup.tls.default_site = None;
    let results = echo_server(small(), vec![setup.side()], move |address| {
        let error = round(&mut dial(&config, address, "c.test"), b"x").unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
    });
    assert!(matches!(results[..], [Err(Cause::UnknownName)]), "{results:?}");
}

#[test]
fn hosts_belong_to_sites() {
    let mut setup = Setup::new(&[&["a.test"], &["*.b.test"], &["c.test"]]);
    setup.tls.sites[2].certificate = 0;
    let side = setup.side();
    assert_eq!(side.covers("A.test"), Some(0));
    assert_eq!(side.covers("a.test."), Some(0));
    assert_eq!(side.covers("x.b.test"), Some(1));
    assert_eq!(side.covers("x.y.b.test"), None);
    assert_eq!(side.covers(".b.test"), None);
    assert_eq!(side.covers("b.test"), None);
    assert!(side.same_authority(0, 2) && side.same_authority(1, 1));
    assert!(!side.same_authority(0, 1) && !side.same_authority(0, 9));
}

#[test]
fn client_certificates_are_required_and_judged() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut setup = Setup::new(&[&["a.test"]]);
        let clients = Authority::new("Clients");
        let strangers = Authority::new("Strangers");
        setup.client_auth(&clients, vec![clients.crl(&[7])], true);
        let good = clients.with_serial(&["good.client"], 8);
        let cases = [
            (Some(good), None),
            (None, Some(AlertDescription::CertificateRequired)),
            (Some(clients.expired(&["c"])), Some(AlertDescription::CertificateExpired)),
            (Some(clients.with_serial(&["c"], 7)), Some(AlertDescription::CertificateRevoked)),
            (Some(strangers.issue(&["c"])), Some(AlertDescription::UnknownCA)),
        ];
        let configs: Vec<_> = cases
            .iter()
            .map(|(identity, expected)| {
                let config = client_config(&setup.authority, identity.as_ref(), &[version]);
                (Arc::new(config), *expected)
            })
            .collect();
        let sides = vec![setup.side(); configs.len()];
        let results = echo_server(small(), sides, move |address| {
            for (config, expected) in configs {
                let result = round(&mut dial(&config, address, "a.test"), b"hello");
                match expected {
                    None => result.unwrap(),
                    Some(expected) => {
                        let error = result.unwrap_err();
                        assert_eq!(alert(&error), Some(expected), "{error:?}");
                    }
                }
            }
        });
        let xfcc = results[0].as_ref().unwrap().xfcc.as_deref().unwrap();
        assert!(xfcc.starts_with("Hash=") && xfcc.contains(";Subject=\"CN=leaf\";DNS=good.client"));
        let refused = &results[1..];
        assert!(refused.iter().all(|r| matches!(r, Err(Cause::Certificate))), "{refused:?}");
    }
}

#[test]
fn requested_certificates_may_be_missing_but_not_wrong() {
    let mut setup = Setup::new(&[&["a.test"]]);
    let clients = Authority::new("Clients");
    setup.client_auth(&clients, Vec::new(), false);
    let none = Arc::new(setup.client(None));
    let wrong = Arc::new(setup.client(Some(&setup.authority.issue(&["c"]))));
    let results = echo_server(small(), vec![setup.side(), setup.side()], move |address| {
        round(&mut dial(&none, address, "a.test"), b"hello").unwrap();
        round(&mut dial(&wrong, address, "a.test"), b"hello").unwrap_err();
    });
    assert!(matches!(&results[..], [Ok(Seen { xfcc: None, .. }), Err(Cause::Certificate)]));
}

#[test]
fn what_is_no_tls_and_what_never_comes_ends() {
    let mut setup = Setup::new(&[&["a.test"]]);
    setup.tls.handshake_timeout_ms = 100;
    let sides = vec![setup.side(); 4];
    let results = echo_server(small(), sides, move |address| {
        let mut clear = tcp(address);
        clear.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        clear.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert");
        let mut silent = tcp(address);
        assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
        let mut partial = tcp(address);
        partial.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        assert_eq!(partial.read(&mut [0; 16]).unwrap_or(0), 0);
        drop(tcp(address));
    });
    let expected = [Cause::NotTls, Cause::Timeout, Cause::Timeout, Cause::Gone];
    let causes: Vec<_> = results.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(causes, expected);
}
