use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        vec(any::<char>(), 0..8).prop_map(String::from_iter),
        Just("api.example.com".to_owned()),
        Just(String::new()),
    ]
    .boxed()
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
        |(ip, port, flow, scope)| match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
        },
    )
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (any::<IpAddr>(), 0..=128u8).prop_map(|(network, prefix)| Cidr {
        network,
        prefix: if network.is_ipv4() { prefix.min(32) } else { prefix },
    })
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn certificate() -> impl Strategy<Value = Certificate> {
    (vec(blob(), 1..3), blob()).prop_map(|(chain, key)| Certificate { chain, key })
}

fn trust() -> impl Strategy<Value = Trust> {
    (vec(blob(), 0..3), vec(blob(), 0..2)).prop_map(|(roots, crls)| Trust { roots, crls })
}

fn ticket_key() -> impl Strategy<Value = TicketKey> {
    any::<([u8; 16], [u8; 32])>().prop_map(|(name, secret)| TicketKey { name, secret })
}

fn version() -> impl Strategy<Value = TlsVersion> {
    prop_oneof![Just(TlsVersion::V12), Just(TlsVersion::V13)]
}

/// An index into `len` things; `None` when there are none.
fn index(len: u32) -> BoxedStrategy<Option<u32>> {
    match len {
        0 => Just(None).boxed(),
        len => option::of(0..len).boxed(),
    }
}

fn site(certificates: u32, trust: u32) -> impl Strategy<Value = TlsSite> {
    let auth = (index(trust), any::<bool>())
        .prop_map(|(trust, required)| Some(ClientAuth { trust: trust?, required }));
    (vec(text(), 0..3), 0..certificates, auth)
        .prop_map(|(names, certificate, client_auth)| TlsSite { names, certificate, client_auth })
}

fn listener_tls(certificates: u32, trust: u32) -> BoxedStrategy<Option<ListenerTls>> {
    if certificates == 0 {
        return Just(None).boxed();
    }
    let alpn = vec(prop_oneof![Just(Alpn::Http11), Just(Alpn::H2)], 1..3);
    let sites = vec(site(certificates, trust), 1..3).prop_flat_map(|sites| {
        let default_site = index(sites.len() as u32);
        (Just(sites), default_site)
    });
    option::of((version(), alpn, sites, any::<[u32; 2]>()).prop_map(
        |(min_version, alpn, (sites, default_site), [early_data_bytes, handshake_timeout_ms])| {
            ListenerTls {
                min_version,
                alpn,
                sites,
                default_site,
                early_data_bytes,
                handshake_timeout_ms,
            }
        },
    ))
    .boxed()
}

fn upstream_tls(certificates: u32, trust: u32) -> impl Strategy<Value = Option<UpstreamTls>> {
    let server_name = option::of(text());
    option::of((version(), index(trust), server_name, index(certificates)).prop_map(
        |(min_version, trust, server_name, identity)| UpstreamTls {
            min_version,
            trust,
            server_name,
            identity,
        },
    ))
}

fn health() -> impl Strategy<Value = Option<HealthCheck>> {
    let number = 1..=u32::MAX;
    option::of((text(), [number.clone(), number.clone(), number.clone(), number]).prop_map(
        |(service, [interval_ms, timeout_ms, healthy_after, unhealthy_after])| HealthCheck {
            kind: HealthKind::Grpc { service },
            interval_ms,
            timeout_ms,
            healthy_after,
            unhealthy_after,
        },
    ))
}

fn listener(certificates: u32, trust: u32) -> impl Strategy<Value = Listener> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        text(),
        address(),
        vec(cidr(), 0..3),
        vec(cidr(), 0..3),
        flags,
        any::<[u32; 8]>(),
        any::<u16>(),
        listener_tls(certificates, trust),
    )
        .prop_map(
            |(name, address, trusted_proxies, proxy_protocol_from, flags, n, max_fields, tls)| {
                Listener {
                    name,
                    address,
                    trusted_proxies,
                    proxy_protocol_from,
                    forwarded: flags.0,
                    underscore_fields: if flags.1 {
                        UnderscoreFields::Drop
                    } else {
                        UnderscoreFields::Refuse
                    },
                    tls,
                    h2c: flags.2,
                    limits: ListenerLimits {
                        max_streams: n[7],
                        max_connections: n[0],
                        header_timeout_ms: n[1],
                        idle_timeout_ms: n[2],
                        min_body_rate: n[3],
                        write_timeout_ms: n[4],
                        max_head_bytes: n[5],
                        max_fields,
                        max_requests: n[6],
                    },
                }
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    any::<[u32; 4]>().prop_map(|[connect_ms, first_byte_ms, idle_ms, total_ms]| Timeouts {
        connect_ms,
        first_byte_ms,
        idle_ms,
        total_ms,
    })
}

fn upstream(certificates: u32, trust: u32) -> impl Strategy<Value = Upstream> {
    let balance = prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::Weighted),
        Just(Balance::LeastConnections)
    ];
    let target = (address(), 1..=MAX_WEIGHT, text()).prop_map(|(address, weight, name)| Target {
        address,
        weight,
        name,
    });
    let pool = any::<[u32; 3]>().prop_map(|[max_idle, max_connections, idle_timeout_ms]| Pool {
        max_idle,
        max_connections,
        idle_timeout_ms,
    });
    let host_header = prop_oneof![
        Just(HostHeader::Preserve),
        Just(HostHeader::Target),
        text().prop_map(HostHeader::Literal)
    ];
    let protocol = prop_oneof![Just(Protocol::Http1), Just(Protocol::Http2), Just(Protocol::Auto)];
    let tls = upstream_tls(certificates, trust);
    let new = (protocol, tls, health());
    (text(), balance, vec(target, 0..4), pool, timeouts(), host_header, new).prop_map(
        |(name, balance, targets, pool, timeouts, host_header, (protocol, tls, health))| Upstream {
            name,
            balance,
            targets,
            pool,
            timeouts,
            host_header,
            protocol,
            tls,
            health,
        },
    )
}

fn field_match() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Regex)
    ];
    (text(), value).prop_map(|(name, value)| FieldMatch { name, value })
}

fn route(upstreams: u32) -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex)
    ];
    let rewrite = prop_oneof![
        Just(PathRewrite::Keep),
        Just(PathRewrite::StripPrefix),
        text().prop_map(PathRewrite::ReplacePrefix)
    ];
    let backend =
        (0..upstreams, 0..=MAX_WEIGHT).prop_map(|(upstream, weight)| Backend { upstream, weight });
    let conditions = (vec(field_match(), 0..3), vec(field_match(), 0..3));
    let lists = (vec(text(), 0..3), vec(text(), 0..3), vec(text(), 0..2));
    let last = any::<(u64, bool, bool)>();
    (text(), lists, path, conditions, rewrite, vec(backend, 1..4), timeouts(), last).prop_map(
        |(name, lists, path, (headers, query), rewrite, backends, timeouts, last)| Route {
            name,
            hosts: lists.0,
            path,
            methods: lists.1,
            headers,
            query,
            rewrite,
            backends,
            timeouts,
            max_body_bytes: last.0,
            upgrades: lists.2,
            early_data: last.1,
            grpc_web: last.2,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let node =
        (text(), any::<u32>()).prop_map(|(via, drain_timeout_ms)| Node { via, drain_timeout_ms });
    let secrets = (vec(certificate(), 0..3), vec(trust(), 0..3), vec(ticket_key(), 0..4));
    let parts = secrets.prop_flat_map(|(certificates, trust, ticket_keys)| {
        let counts = (certificates.len() as u32, trust.len() as u32);
        let listeners = vec(listener(counts.0, counts.1), 0..3);
        let routed = vec(upstream(counts.0, counts.1), 1..4).prop_flat_map(|upstreams| {
            let routes = vec(route(upstreams.len() as u32), 0..4);
            (Just(upstreams), routes)
        });
        (Just((certificates, trust, ticket_keys)), listeners, routed)
    });
    (any::<u64>(), any::<u64>(), node, parts).prop_map(|(epoch, revision, node, parts)| {
        let ((certificates, trust, ticket_keys), listeners, (upstreams, routes)) = parts;
        Snapshot {
            epoch,
            revision,
            node,
            certificates,
            trust,
            ticket_keys,
            listeners,
            upstreams,
            routes,
        }
    })
}

/// Makes length and checksum right again, so that a change reaches the fields.
fn reframe(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[HEAD..]);
    let len = bytes.len() as u64;
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
}

proptest! {
    #[test]
    fn a_snapshot_survives_the_round_trip(snapshot in snapshot()) {
        let bytes = snapshot.encode();
        prop_assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
        fuzz_snapshot(&bytes);
        fuzz_snapshot(&bytes[HEAD..]);
    }

    #[test]
    fn damaged_bytes_are_refused(snapshot in snapshot(), at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = snapshot.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Snapshot::decode(&bytes).is_err());
        bytes[at] ^= flip;
        prop_assert!(Snapshot::decode(&bytes[..at]).is_err());
        bytes.push(0);
        prop_assert!(Snapshot::decode(&bytes).is_err());
    }

    #[test]
    fn forged_fields_never_panic(
        snapshot in snapshot(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        let mut bytes = snapshot.encode();
        for (at, value) in changes {
            let at = HEAD + at.index(bytes.len() - HEAD);
            bytes[at] = value;
        }
        fuzz_snapshot(&bytes[HEAD..]);
        let end = HEAD + cut.index(bytes.len() - HEAD);
        fuzz_snapshot(&bytes[HEAD..end]);
    }

    #[test]
    fn a_body_cut_short_is_refused(snapshot in snapshot(), cut: prop::sample::Index) {
        let mut bytes = snapshot.encode();
        bytes.truncate(HEAD + cut.index(bytes.len() - HEAD));
        reframe(&mut bytes);
        let error = Snapshot::decode(&bytes).unwrap_err();
        prop_assert_eq!(error.fault, Fault::Short);
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300)) {
        fuzz_snapshot(&noise);
    }
}

fn small() -> Snapshot {
    Snapshot {
        upstreams: vec![Upstream {
            name: "users".into(),
            balance: Balance::RoundRobin,
            targets: vec![],
            pool: Pool::default(),
            timeouts: Timeouts::default(),
            host_header: HostHeader::Preserve,
            protocol: Protocol::default(),
            tls: None,
            health: None,
        }],
        routes: vec![Route {
            name: "users".into(),
            hosts: vec![],
            path: PathMatch::Prefix("/".into()),
            methods: vec![],
            headers: vec![],
            query: vec![],
            rewrite: PathRewrite::Keep,
            backends: vec![Backend { upstream: 0, weight: 1 }],
            timeouts: Timeouts::default(),
            max_body_bytes: 1 << 20,
            upgrades: vec![],
            early_data: false,
            grpc_web: false,
        }],
        ..Snapshot::default()
    }
}

/// `small`, with a listener that speaks TLS.
fn secure() -> Snapshot {
    Snapshot {
        certificates: vec![Certificate { chain: vec![vec![1], vec![2]], key: vec![3] }],
        trust: vec![Trust { roots: vec![vec![4]], crls: vec![] }],
        ticket_keys: vec![TicketKey { name: [1; 16], secret: [2; 32] }],
        listeners: vec![Listener {
            name: "web".into(),
            address: "127.0.0.1:443".parse().unwrap(),
            trusted_proxies: vec![],
            proxy_protocol_from: vec![],
            forwarded: false,
            underscore_fields: UnderscoreFields::Refuse,
            tls: Some(ListenerTls {
                min_version: TlsVersion::V13,
                alpn: vec![Alpn::H2, Alpn::Http11],
                sites: vec![TlsSite {
                    names: vec!["api.example.com".into()],
                    certificate: 0,
                    client_auth: Some(ClientAuth { trust: 0, required: true }),
                }],
                default_site: Some(0),
                early_data_bytes: 0,
                handshake_timeout_ms: 5_000,
            }),
            h2c: false,
            limits: ListenerLimits::default(),
        }],
        ..small()
    }
}

fn refusal(change: impl FnOnce(&mut Snapshot)) -> DecodeError {
    let mut snapshot = small();
    change(&mut snapshot);
    Snapshot::decode(&snapshot.encode()).unwrap_err()
}

/// The field refused in `secure` after `change`.
fn refused(change: impl FnOnce(&mut Snapshot, &mut ListenerTls)) -> &'static str {
    let mut snapshot = secure();
    let mut tls = snapshot.listeners[0].tls.take().unwrap();
    change(&mut snapshot, &mut tls);
    snapshot.listeners[0].tls = Some(tls);
    Snapshot::decode(&snapshot.encode()).unwrap_err().field
}

#[test]
fn invariants_of_tls_are_held() {
    let whole = secure();
    assert_eq!(Snapshot::decode(&whole.encode()), Ok(whole));
    assert_eq!(refused(|_, tls| tls.alpn.clear()), "listener.tls.alpn");
    assert_eq!(refused(|_, tls| tls.sites.clear()), "listener.tls.sites");
    assert_eq!(refused(|_, tls| tls.default_site = Some(1)), "listener.tls.default_site");
    assert_eq!(refused(|_, tls| tls.sites[0].certificate = 1), "site.certificate");
    assert_eq!(refused(|s, _| s.certificates.clear()), "site.certificate");
    assert_eq!(refused(|s, _| s.trust.clear()), "site.client_auth.trust");
    assert_eq!(refused(|s, _| s.certificates[0].chain.clear()), "certificate.chain");
    let large = |len: usize| vec![0; len + 1];
    assert_eq!(
        refused(|s, _| s.certificates[0].chain = vec![vec![]; MAX_CHAIN + 1]),
        "certificate.chain"
    );
    assert_eq!(refused(|s, _| s.certificates[0].key = large(MAX_DER)), "certificate.key");
    assert_eq!(refused(|s, _| s.trust[0].roots[0] = large(MAX_DER)), "trust.roots");
    assert_eq!(refused(|s, _| s.trust[0].crls.push(large(MAX_CRL))), "trust.crls");
    let keys = vec![TicketKey { name: [0; 16], secret: [0; 32] }; MAX_TICKET_KEYS + 1];
    assert_eq!(refused(|s, _| s.ticket_keys = keys), "ticket_keys");
    let tls = UpstreamTls {
        min_version: TlsVersion::V12,
        trust: Some(0),
        server_name: None,
        identity: Some(0),
    };
    let upstream = |trust, identity| {
        let tls = UpstreamTls { trust, identity, ..tls.clone() };
        refused(|s, _| s.upstreams[0].tls = Some(tls))
    };
    assert_eq!(upstream(Some(1), None), "upstream.tls.trust");
    assert_eq!(upstream(None, Some(1)), "upstream.tls.identity");
    let health = HealthCheck {
        kind: HealthKind::Grpc { service: String::new() },
        interval_ms: 0,
        timeout_ms: 1,
        healthy_after: 1,
        unhealthy_after: 1,
    };
    let error = refusal(|s| s.upstreams[0].health = Some(health));
    assert_eq!(error.field, "upstream.health.interval_ms");
}

#[test]
fn an_index_into_nothing_says_so() {
    let error = refusal(|s| {
        s.upstreams[0].tls = Some(UpstreamTls {
            min_version: TlsVersion::V13,
            trust: Some(0),
            server_name: None,
            identity: None,
        });
    });
    assert_eq!(error.fault, Fault::OutOfRange { found: 0, min: 1, max: 0 });
}

#[test]
fn secrets_are_not_printed() {
    let mut snapshot = secure();
    snapshot.certificates[0].key = b"private".to_vec();
    let text = format!("{snapshot:?}");
    let bytes = format!("{:?}", b"private");
    assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    assert!(!text.contains("2, 2, 2, 2"), "{text}");
}

#[test]
fn the_head_is_judged_first() {
    let bytes = small().encode();
    let fault = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        let error = Snapshot::decode(&bytes).unwrap_err();
        (error.field, error.offset)
    };
    assert_eq!(fault(0, b'x'), ("magic", 0));
    assert_eq!(fault(8, 99), ("format", 8));
    assert_eq!(fault(12, !bytes[12]), ("checksum", 12));
    assert_eq!(fault(23, 1), ("length", 16));
    assert_eq!(Snapshot::decode(b"SLUICE").unwrap_err().fault, Fault::Short);
}

#[test]
fn invariants_of_the_model_are_held() {
    let error = refusal(|s| s.routes[0].backends[0].upstream = 1);
    assert_eq!(error.field, "route.backend.upstream");
    assert_eq!(error.fault, Fault::OutOfRange { found: 1, min: 0, max: 0 });
    assert_eq!(refusal(|s| s.upstreams.clear()).field, "route.backend.upstream");
    assert_eq!(refusal(|s| s.routes[0].backends.clear()).field, "route.backends");
    assert_eq!(refusal(|s| s.routes[0].backends[0].weight = 1001).field, "route.backend.weight");
    let target = |weight| Target { address: "[::1]:80".parse().unwrap(), weight, name: "".into() };
    let error = refusal(|s| s.upstreams[0].targets.push(target(0)));
    assert_eq!(error.field, "upstream.target.weight");
    let error = refusal(|s| {
        s.listeners.push(Listener {
            name: "web".into(),
            address: "127.0.0.1:80".parse().unwrap(),
            trusted_proxies: vec![Cidr { network: "10.0.0.0".parse().unwrap(), prefix: 33 }],
            proxy_protocol_from: vec![],
            forwarded: false,
            underscore_fields: UnderscoreFields::Refuse,
            tls: None,
            h2c: false,
            limits: ListenerLimits::default(),
        });
    });
    assert_eq!(error.field, "cidr.prefix");
    assert_eq!(error.fault, Fault::OutOfRange { found: 33, min: 0, max: 32 });
}

#[test]
fn limits_are_held() {
    assert_eq!(refusal(|s| s.node.via = "v".repeat(MAX_TEXT + 1)).field, "node.via");
    let hosts = vec![String::new(); MAX_ENTRIES + 1];
    assert_eq!(refusal(|s| s.routes[0].hosts = hosts).field, "route.hosts");
    let routes = vec![small().routes[0].clone(); MAX_ROUTES + 1];
    assert_eq!(refusal(|s| s.routes = routes).field, "routes");
    let error = Snapshot::decode(&vec![0; MAX_SNAPSHOT + 1]).unwrap_err();
    assert_eq!(error.field, "snapshot");
}

#[test]
fn a_count_that_lies_takes_no_memory() {
    let mut bytes = small().encode();
    // The body up to the count of listeners: epoch, revision, via, drain time-out, and the counts of
    // certificates, trust and ticket keys.
    let count = HEAD + 8 + 8 + 4 + "sluice".len() + 4 + 3 * 4;
    bytes[count..count + 4].copy_from_slice(&(MAX_LISTENERS as u32).to_le_bytes());
    reframe(&mut bytes);
    let error = Snapshot::decode(&bytes).unwrap_err();
    assert!(error.offset >= count && error.field.starts_with("listener"), "{error}");
}

#[test]
fn an_error_says_where_and_what_to_do() {
    let mut bytes = small().encode();
    bytes[8] = 7;
    let error = Snapshot::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("byte 8") && error.contains("format 7"), "{error}");
    assert!(error.contains("restart `sluice up`"), "{error}");
}

#[test]
fn the_largest_allowed_number_of_routes_passes() {
    let mut snapshot = small();
    let route = snapshot.routes[0].clone();
    snapshot.routes = vec![route; MAX_ROUTES];
    assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
}
