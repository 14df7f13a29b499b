use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use random::snapshot;

mod auth;
mod limit;
mod random;

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
            ..Default::default()
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
            aggregate: None,
            timeouts: Timeouts::default(),
            max_body_bytes: 1 << 20,
            upgrades: vec![],
            ..Default::default()
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
    assert_eq!(refusal(|s| s.routes[0].backends[0].weight = 1001).field, "route.backend.weight");
    let target = |weight| Target { weight, ..Target::default() };
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
    // The body up to the count of listeners: epoch, revision, via, name, drain time-out, locality,
    // overload, and the counts of certificates, trust and ticket keys. Then callers: version, no Redis,
    // throttle, the counts of key sets and authenticators, and length and count of consumers. Then limits
    // and validation, two counts each, the count of protos, and the two bounds
    // of the cache.
    let callers = 8 + 1 + 8 + 4 * 4;
    let more = 5 * 4 + 2 * 8;
    let count = HEAD + 8 + 8 + 4 + "sluice".len() + 4 + 4 + 4 + 5 + 3 * 4 + callers + more;
    bytes[count..count + 4].copy_from_slice(&(MAX_LISTENERS as u32).to_le_bytes());
    reframe(&mut bytes);
    let error = Snapshot::decode(&bytes).unwrap_err();
    assert!(error.offset >= count && error.field.starts_with("listener"), "{error}");
}

#[test]
fn an_error_says_where_and_what_to_do() {
    let mut bytes = small().encode();
    bytes[8] = 99;
    let error = Snapshot::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("byte 8") && error.contains("format 99"), "{error}");
    assert!(error.contains("restart `sluice up`"), "{error}");
}

#[test]
fn the_largest_allowed_number_of_routes_passes() {
    let mut snapshot = small();
    let route = snapshot.routes[0].clone();
    snapshot.routes = vec![route; MAX_ROUTES];
    assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
}

/// What is refused in `small` once `change` has been done to its upstream.
fn upstream(change: impl FnOnce(&mut Upstream)) -> &'static str {
    refusal(|s| change(&mut s.upstreams[0])).field
}

#[test]
fn invariants_of_upstreams_are_held() {
    let hash = |load_percent| Balance::Hash { key: HashKey::ClientIp, load_percent };
    assert_eq!(upstream(|u| u.balance = hash(100)), "upstream.balance.load_percent");
    assert_eq!(upstream(|u| u.balance = hash(1_001)), "upstream.balance.load_percent");
    let health = |statuses| HealthCheck {
        kind: HealthKind::Http { path: "/".into(), host: None, statuses, body: None },
        interval_ms: 1,
        timeout_ms: 1,
        healthy_after: 1,
        unhealthy_after: 1,
    };
    for statuses in [vec![], vec![(99, 200)], vec![(300, 299)], vec![(200, 600)]] {
        let field = upstream(|u| u.health = Some(health(statuses)));
        assert_eq!(field, "upstream.health.statuses");
    }
    assert_eq!(upstream(|u| u.min_live_percent = 101), "upstream.min_live_percent");
    assert_eq!(upstream(|u| u.retry.attempts = 0), "retry.attempts");
    assert_eq!(upstream(|u| u.retry.attempts = MAX_ATTEMPTS + 1), "retry.attempts");
    for statuses in [vec![399], vec![503, 502], vec![502, 502], vec![600], vec![599, 600]] {
        assert_eq!(upstream(|u| u.retry.statuses = statuses), "retry.statuses");
    }
    for statuses in [vec![0], vec![14, 13], vec![14, 14], vec![17], vec![16, 17]] {
        let field = upstream(|u| u.retry.grpc_statuses = statuses);
        assert_eq!(field, "retry.grpc_statuses");
    }
    assert_eq!(upstream(|u| u.retry.body_bytes = MAX_KEPT_BODY + 1), "retry.body_bytes");
    assert_eq!(upstream(|u| u.retry_budget.percent = 101), "upstream.retry_budget.percent");
    for quantile_permille in [0, 1000] {
        let field = upstream(|u| u.hedge = Some(Hedge { quantile_permille, min_ms: 0 }));
        assert_eq!(field, "hedge.quantile_permille");
    }
    let breaker = |change: fn(&mut Breaker)| {
        let mut breaker = Breaker::default();
        change(&mut breaker);
        let field = upstream(|u| u.breaker = Some(breaker));
        assert_eq!(upstream(|u| u.target_breaker = Some(breaker)), field);
        field
    };
    assert_eq!(breaker(|b| b.error_percent = 101), "breaker.error_percent");
    assert_eq!(breaker(|b| b.slow_percent = 101), "breaker.slow_percent");
    assert_eq!(breaker(|b| b.window_ms = 0), "breaker.window_ms");
    assert_eq!(breaker(|b| b.open_ms = 0), "breaker.open_ms");
    assert_eq!(breaker(|b| b.probes = 0), "breaker.probes");
    let answer =
        |status| Fallback::Answer { status, content_type: String::new(), body: String::new() };
    assert_eq!(upstream(|u| u.fallback = answer(199)), "upstream.fallback.status");
    assert_eq!(upstream(|u| u.fallback = answer(600)), "upstream.fallback.status");
    assert_eq!(upstream(|u| u.fallback = Fallback::Upstream(1)), "upstream.fallback.upstream");
    let outlier = |change: fn(&mut Outlier)| {
        let mut outlier = Outlier::default();
        change(&mut outlier);
        upstream(|u| u.outlier = Some(outlier))
    };
    assert_eq!(outlier(|o| o.interval_ms = 0), "outlier.interval_ms");
    assert_eq!(outlier(|o| o.base_ejection_ms = 0), "outlier.base_ejection_ms");
    assert_eq!(outlier(|o| o.max_ejection_ms = 0), "outlier.max_ejection_ms");
    assert_eq!(outlier(|o| o.max_ejected_percent = 101), "outlier.max_ejected_percent");
    assert_eq!(outlier(|o| o.panic_percent = 101), "outlier.panic_percent");
    let concurrency = |min, max| {
        let bound = AdaptiveConcurrency { min, max, tolerance_percent: 0 };
        upstream(|u| u.concurrency = Some(bound))
    };
    assert_eq!(concurrency(0, 1), "concurrency.min");
    assert_eq!(concurrency(2, 1), "concurrency.max");
}

#[test]
fn invariants_of_routes_are_held() {
    let route = |change: fn(&mut Route)| refusal(|s| change(&mut s.routes[0])).field;
    let mirror = |upstream, per_ten_thousand| {
        let mirror = Mirror { upstream, per_ten_thousand };
        refusal(|s| s.routes[0].mirror = Some(mirror)).field
    };
    assert_eq!(mirror(1, 0), "route.mirror.upstream");
    assert_eq!(mirror(0, 10_001), "route.mirror.per_ten_thousand");
    let retry = Retry { attempts: 0, ..Retry::default() };
    assert_eq!(refusal(|s| s.routes[0].retry = Some(retry)).field, "retry.attempts");
    assert_eq!(
        route(|r| r.hedge = Some(Hedge { quantile_permille: 0, min_ms: 0 })),
        "hedge.quantile_permille"
    );
    let error = refusal(|s| s.node.overload.memory_percent = 101);
    assert_eq!(error.field, "node.overload.memory_percent");
}

#[test]
fn upstreams_may_point_at_later_ones() {
    let mut snapshot = small();
    let mut first = snapshot.upstreams[0].clone();
    first.fallback = Fallback::Upstream(1);
    snapshot.upstreams.insert(0, first);
    assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
}
