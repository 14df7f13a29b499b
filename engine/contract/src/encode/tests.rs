use super::*;
use proptest::collection::vec;
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

fn listener() -> impl Strategy<Value = Listener> {
    let flags = (any::<bool>(), any::<bool>());
    (
        text(),
        address(),
        vec(cidr(), 0..3),
        vec(cidr(), 0..3),
        flags,
        any::<[u32; 7]>(),
        any::<u16>(),
    )
        .prop_map(
            |(name, address, trusted_proxies, proxy_protocol_from, flags, n, max_fields)| {
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
                    tls: None,
                    h2c: false,
                    limits: ListenerLimits {
                        max_streams: 100,
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

fn upstream() -> impl Strategy<Value = Upstream> {
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
    (text(), balance, vec(target, 0..4), pool, timeouts(), host_header).prop_map(
        |(name, balance, targets, pool, timeouts, host_header)| Upstream {
            name,
            balance,
            targets,
            pool,
            timeouts,
            host_header,
            protocol: Protocol::default(),
            tls: None,
            health: None,
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
    (text(), lists, path, conditions, rewrite, vec(backend, 1..4), timeouts(), any::<u64>())
        .prop_map(|(name, lists, path, (headers, query), rewrite, backends, timeouts, body)| {
            Route {
                name,
                hosts: lists.0,
                path,
                methods: lists.1,
                headers,
                query,
                rewrite,
                backends,
                timeouts,
                max_body_bytes: body,
                upgrades: lists.2,
                early_data: false,
                grpc_web: false,
            }
        })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let node =
        (text(), any::<u32>()).prop_map(|(via, drain_timeout_ms)| Node { via, drain_timeout_ms });
    let routed = vec(upstream(), 1..4).prop_flat_map(|upstreams| {
        let routes = vec(route(upstreams.len() as u32), 0..4);
        (Just(upstreams), routes)
    });
    (any::<u64>(), any::<u64>(), node, vec(listener(), 0..3), routed).prop_map(
        |(epoch, revision, node, listeners, (upstreams, routes))| Snapshot {
            certificates: vec![],
            trust: vec![],
            ticket_keys: vec![],
            epoch,
            revision,
            node,
            listeners,
            upstreams,
            routes,
        },
    )
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

fn refusal(change: impl FnOnce(&mut Snapshot)) -> DecodeError {
    let mut snapshot = small();
    change(&mut snapshot);
    Snapshot::decode(&snapshot.encode()).unwrap_err()
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
    // The body up to the count of listeners: epoch, revision, via, drain time-out.
    let count = HEAD + 8 + 8 + 4 + "sluice".len() + 4;
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
