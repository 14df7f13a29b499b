//! Round trips of any spec, and noise that must not harm.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

mod cache;
mod graphql;
mod limits;
mod transcode;
mod validate;

use cache::route_cache;
use graphql::graphql;
use limits::limits;
use validate::validate;

use super::{EXAMPLES, callers, operators::admin, payload, resilience, shape};
use crate::compile::{Inputs, compile};
use crate::keys::Fetched;
use crate::material::Material;
use crate::spec::*;
use crate::yaml::Yaml;

pub fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_string()).collect()
}

pub fn cidr() -> impl Strategy<Value = Cidr> {
    let text = prop_oneof![
        (any::<u32>(), 0u32..=32).prop_map(|(ip, prefix)| {
            let ones = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            format!("{}/{prefix}", std::net::Ipv4Addr::from(ip & ones))
        }),
        select(vec!["fd00::/8", "::/0", "2001:db8::1/128"]).prop_map(String::from),
    ];
    text.prop_map(|text| text.parse().expect("is a network"))
}

pub fn file() -> impl Strategy<Value = String> {
    select(texts(&["/etc/sluice/a.pem", "certs/b c.key", "../d.crt", "true", "1.5"]))
}

fn version() -> impl Strategy<Value = TlsVersion> {
    select(vec![TlsVersion::V12, TlsVersion::V13])
}

prop_compose! {
    fn client_auth()(
        mode in select(vec![ClientAuthMode::Request, ClientAuthMode::Require]),
        ca in file(),
        crl in option::of(file()),
    ) -> ClientAuth {
        ClientAuth { mode, ca, crl }
    }
}

prop_compose! {
    fn certificate()(
        (cert, key) in (file(), file()),
        client_auth in option::of(client_auth()),
    ) -> Certificate {
        Certificate { cert, key, names: Vec::new(), client_auth }
    }
}

prop_compose! {
    fn listener_tls()(
        min_version in version(),
        alpn in select(vec![
            vec![Alpn::H2, Alpn::Http11], vec![Alpn::Http11, Alpn::H2], vec![Alpn::Http11],
        ]),
        handshake_timeout_ms in 1u32..=3_600_000,
        early_data in 0u64..=MAX_EARLY_DATA,
        strict_sni in any::<bool>(),
        mut certificates in vec(certificate(), 1..4),
        names in subsequence(texts(&["a.com", "*.a.com", "b.c.example", "xn--a.org"]), 0..4),
    ) -> ListenerTls {
        // No two certificates have a name in common.
        for (at, name) in names.into_iter().enumerate() {
            let count = certificates.len();
            certificates[at % count].names.push(name);
        }
        ListenerTls {
            min_version, alpn, handshake_timeout_ms, early_data, strict_sni, certificates,
        }
    }
}

prop_compose! {
    fn upstream_tls()(
        ca in option::of(file()),
        server_name in option::of(select(texts(&["users.internal", "a"]))),
        pair in option::of((file(), file())),
        verify in any::<bool>(),
        min_version in version(),
    ) -> UpstreamTls {
        let (cert, key) = pair.unzip();
        UpstreamTls { ca: ca.filter(|_| verify), server_name, cert, key, verify, min_version }
    }
}

fn health_kind() -> impl Strategy<Value = HealthKind> {
    let range = (100u16..=599, 100u16..=599)
        .prop_map(|(one, other)| StatusRange { first: one.min(other), last: one.max(other) });
    let http = (
        select(texts(&["/", "/healthz?a=b%20c"])),
        option::of(select(texts(&["a.example", "a:81"]))),
        vec(range, 1..3),
        option::of(select(texts(&["ok", "\"up\": true", "1"]))),
    );
    prop_oneof![
        select(texts(&["", "shop.v1.Orders", "a"]))
            .prop_map(|service| HealthKind::Grpc(GrpcHealth { service })),
        http.prop_map(|(path, host, statuses, body)| {
            HealthKind::Http(HttpHealth { path, host, statuses, body })
        }),
        Just(HealthKind::Tcp),
    ]
}

prop_compose! {
    fn health()(
        kind in health_kind(),
        (interval_ms, share) in (100u32..=3_600_000, 1u32..=100),
        (healthy_after, unhealthy_after) in (1u32..=1000, 1u32..=1000),
    ) -> Health {
        Health {
            kind,
            interval_ms,
            timeout_ms: interval_ms / share,
            healthy_after,
            unhealthy_after,
        }
    }
}

prop_compose! {
    fn listener(at: u16)(
        ip in select(vec!["0.0.0.0", "::", "127.0.0.1", "192.168.1.1"]),
        trusted_proxies in vec(cidr(), 0..3),
        from in vec(cidr(), 0..3),
        (forwarded, drop, h2c) in any::<(bool, bool, bool)>(),
        tls in option::of(listener_tls()),
        limits in limits(),
    ) -> Listener {
        let ip: IpAddr = ip.parse().expect("is an address");
        let refuse = UnderscoreFields::Refuse;
        Listener {
            name: format!("listener-{at}"),
            listen: SocketAddr::new(ip, 1000 + at),
            trusted_proxies,
            proxy_protocol: ProxyProtocol { from },
            forwarded,
            underscore_fields: if drop { UnderscoreFields::Drop } else { refuse },
            h2c: h2c && tls.is_none(),
            tls,
            limits,
        }
    }
}

fn total() -> impl Strategy<Value = LimitMs> {
    prop_oneof![Just(LimitMs::None), (1u32..=86_400_000).prop_map(LimitMs::After)]
}

fn locality() -> impl Strategy<Value = Option<String>> {
    option::of(select(texts(&["eu-1a", "1", "null"])))
}

fn target() -> impl Strategy<Value = Target> {
    let host = prop_oneof![
        any::<u32>()
            .prop_filter("0.0.0.0 is no target", |ip| *ip != 0)
            .prop_map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
        select(vec!["[::1]", "users.internal", "a", "x_y.b-c.example.com"]).prop_map(String::from),
    ];
    (host, 1u16.., 1u32..=1000, any::<u8>(), locality()).prop_map(
        |(host, port, weight, priority, locality)| Target {
            address: format!("{host}:{port}").parse().expect("is a target"),
            weight,
            priority,
            locality,
        },
    )
}

fn balance() -> impl Strategy<Value = Balance> {
    let key = select(vec![
        HashKey::ClientIp,
        HashKey::Header("x-user".into()),
        HashKey::Cookie("Sid".into()),
    ]);
    prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::Weighted),
        Just(Balance::LeastConnections),
        Just(Balance::PowerOfTwo),
        (key, 101u16..=1000).prop_map(|(key, load_percent)| Balance::Hash { key, load_percent }),
    ]
}

prop_compose! {
    /// Of upstreams before this one, so that no circle is closed.
    fn upstream(at: usize)(
        balance in balance(),
        targets in vec(target(), 1..4),
        (max_idle, max_connections, idle_timeout_ms) in
            (0u32..=65_535, 1u32..=65_535, 1u32..=86_400_000),
        (connect_ms, first_byte_ms, idle_ms) in
            (1u32..=86_400_000, 1u32..=86_400_000, 1u32..=86_400_000),
        (try_ms, total_ms) in (total(), total()),
        host_header in select(vec![
            HostHeader::Preserve, HostHeader::Target, HostHeader::Value("a.example:81".into()),
        ]),
        protocol in select(vec![Protocol::Http1, Protocol::Http2, Protocol::Auto]),
        tls in option::of(upstream_tls()),
        health in option::of(health()),
        resilience in resilience::upstream(at),
        credentials in option::of(callers::credentials()),
        workspace in locality(),
    ) -> Upstream {
        let protocol = match protocol {
            Protocol::Auto if tls.is_none() => Protocol::Http2,
            protocol => protocol,
        };
        let grpc = |health: &Health| matches!(health.kind, HealthKind::Grpc(_));
        Upstream {
            name: format!("upstream-{at}"),
            workspace,
            balance,
            targets,
            pool: Pool { max_idle, max_connections, idle_timeout_ms },
            timeouts: Timeouts { connect_ms, first_byte_ms, idle_ms, try_ms, total_ms },
            host_header,
            protocol,
            tls,
            health: health.filter(|health| protocol != Protocol::Http1 || !grpc(health)),
            credentials,
            ..resilience
        }
    }
}

fn condition(header: bool) -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        // All that JSON and YAML must carry unharmed: quotes, backslashes, signs, emoji.
        "[ -~äß😀]{0,12}".prop_map(|text| ValueMatch::Exact(text.trim().into())),
        select(vec!["^a+$", "\\d{3}", "true", "1"]).prop_map(|text| ValueMatch::Regex(text.into())),
    ];
    let name = match header {
        true => select(vec!["x-version", "accept", "null", "1"]),
        false => select(vec!["q", "a b", "~", "Ünï"]),
    };
    (name, value).prop_map(|(name, value)| FieldMatch { name: name.into(), value })
}

prop_compose! {
    fn route(at: usize, upstreams: usize, callers: usize)(
        hosts in subsequence(texts(&["a.com", "*.b.com", "127.0.0.1", "[::1]", "xn--a"]), 0..5),
        methods in subsequence(texts(&["GET", "HEAD", "POST", "PURGE"]), 0..4),
        headers in vec(condition(true), 0..3),
        query in vec(condition(false), 0..3),
        (kind, rewrite) in (0..4, 0..3),
        backends in subsequence((0..upstreams).collect::<Vec<_>>(), 1..=upstreams),
        weight in 1u32..=1000,
        connect_ms in option::of(1u32..=86_400_000),
        first_byte_ms in option::of(1u32..=86_400_000),
        idle_ms in option::of(1u32..=86_400_000),
        (try_ms, total_ms) in (option::of(total()), option::of(total())),
        max_body_bytes in 0u64..=1 << 53,
        upgrades in subsequence(texts(&["websocket", "foo/2"]), 0..1),
        (early_data, grpc_web) in any::<(bool, bool)>(),
        (retry, hedge) in
            (
                option::of(resilience::retry().boxed()),
                option::of(resilience::or_none(resilience::hedge().boxed())),
            ),
        priority in
            select(vec![Priority::Low, Priority::Normal, Priority::High, Priority::Critical]),
        (mirrored, per_ten_thousand) in (option::of(0..upstreams), 0u16..=10_000),
        deadline_header in option::of(select(texts(&["x-deadline-ms", "1"]))),
        auth in option::of(callers::route_auth(callers).boxed()),
        (networks, cors) in (option::of(callers::networks().boxed()), option::of(callers::cors().boxed())),
        limits in subsequence(texts(&["plan", "1"]), 0..3),
        (validate, shape, payload, graphql) in (
            option::of(validate().boxed()),
            shape::shape(),
            payload::payload(),
            option::weighted(0.3, graphql().boxed()),
        ),
        cache in option::of(route_cache()),
        aggregate in option::weighted(0.3, super::aggregate::aggregate().boxed()),
        workspace in locality(),
    ) -> Route {
        // Each route has a path of its own, so that none shadows another.
        let path = match kind {
            0 => PathMatch::Exact(format!("/p{at}/")),
            1 => PathMatch::Prefix(format!("/p{at}")),
            3 => PathMatch::Template(format!("/p{at}/{{id}}/{{rest...}}")),
            _ => PathMatch::Regex(format!("^/p{at}\\.[^/\"']*$")),
        };
        let rewrite = match rewrite {
            1 if kind < 2 => Rewrite::StripPrefix,
            2 if kind < 2 => Rewrite::ReplacePrefix("/v2".into()),
            _ => Rewrite::Keep,
        };
        let known = auth.is_some();
        let mirror = mirrored.filter(|at| !backends.contains(at)).map(|at| Mirror {
            upstream: format!("upstream-{at}"),
            per_ten_thousand,
        });
        let (request, response, redirect, respond) = shape;
        let own = redirect.is_some() || respond.is_some();
        let aggregate = aggregate.filter(|_| !own).map(Box::new);
        let own = own || aggregate.is_some();
        let upstreams = backends
            .into_iter()
            .filter(|_| !own)
            .map(|at| Backend { name: format!("upstream-{at}"), weight })
            .collect();
        Route {
            name: format!("route.{at}"),
            workspace,
            matches: Match { hosts, path, methods, headers, query },
            rewrite,
            request,
            response,
            redirect,
            respond,
            upstreams,
            aggregate,
            timeouts: RouteTimeouts { connect_ms, first_byte_ms, idle_ms, try_ms, total_ms },
            max_body_bytes,
            request_body: payload.0,
            response_body: payload.1,
            compress: payload.2,
            upgrades,
            early_data,
            grpc_web,
            transcode: None,
            retry,
            cache: cache.map(|cache| RouteCache {
                key: CacheKey { consumer: cache.key.consumer && known, ..cache.key },
                ..cache
            }),
            hedge,
            priority,
            mirror,
            deadline_header,
            auth,
            networks,
            cors,
            external_processor: None,
            limits,
            validate,
            graphql,
        }
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    (1u16..4, 1usize..4, 0usize..6, 1usize..5).prop_flat_map(
        |(listeners, upstreams, routes, count)| {
            (
                (0..listeners).map(|at| listener(at).boxed()).collect::<Vec<_>>(),
                (0..upstreams).map(|at| upstream(at).boxed()).collect::<Vec<_>>(),
                (0..routes).map(|at| route(at, upstreams, count).boxed()).collect::<Vec<_>>(),
                (
                    ("[a-z0-9.-]{1,20}", option::of(select(texts(&["edge-1", "1", "null"])))),
                    1u32..=3_600_000,
                    locality(),
                    0u32..=60_000,
                    0u8..=100,
                ),
                option::of(select(texts(&["-", "off", "/var/log/a b.log", "true"]))),
                callers::callers(count).boxed(),
                admin().boxed(),
            )
                .prop_map(
                    |(listeners, upstreams, mut routes, node, path, callers, admin)| {
                        let (
                            (via, name),
                            drain_timeout_ms,
                            locality,
                            queue_delay_ms,
                            memory_percent,
                        ) = node;
                        for route in &mut routes {
                            route.grpc_web &= route.upstreams.iter().all(|backend| {
                                let old =
                                    |upstream: &Upstream| upstream.protocol == Protocol::Http1;
                                !upstreams.iter().any(|one| one.name == backend.name && old(one))
                            });
                        }
                        transcode::put(&mut routes, &upstreams);
                        Spec {
                            version: VERSION,
                            node: Node {
                                via,
                                name,
                                drain_timeout_ms,
                                locality,
                                overload: Overload { queue_delay_ms, memory_percent },
                            },
                            admin,
                            access_log: AccessLog { path },
                            redis: callers.redis,
                            auth: callers.auth,
                            authenticators: callers.authenticators,
                            groups: callers.groups,
                            limits: callers.limits,
                            cache: Cache {
                                max_bytes: 1 << 20,
                                max_object_bytes: 1 << (queue_delay_ms % 19),
                            },
                            apis: vec![ApiDocument {
                                name: "shop".into(),
                                workspace: Some("shop".into()),
                                openapi: "/etc/shop.yaml".into(),
                                base_path: None,
                            }],
                            protos: transcode::protos(),
                            consumers: callers.consumers.into(),
                            listeners,
                            upstreams: upstreams.into(),
                            routes: routes.into(),
                        }
                    },
                )
        },
    )
}

pub fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_back(spec in spec()) {
        let value = serde_json::to_value(&spec).expect("serialises");
        let text = Yaml::from(&value).document();
        let loaded = load("canonical.yaml", &text);
        prop_assert_eq!(errors(&loaded), Vec::<String>::new(), "{}", text);
        prop_assert_eq!(loaded.spec.as_ref(), Some(&spec));
        for json in [serde_json::to_string(&spec), serde_json::to_string_pretty(&spec)] {
            let json = json.expect("serialises");
            let loaded = load("canonical.json", &json);
            prop_assert_eq!(errors(&loaded), Vec::<String>::new(), "{}", json);
            prop_assert_eq!(loaded.spec.as_ref(), Some(&spec));
            let direct: Spec = serde_json::from_str(&json).expect("deserialises");
            prop_assert_eq!(&direct, &spec);
        }
        prop_assert!(crate::diff::diff(&spec, &spec).is_empty());
        let value = serde_json::to_value(&spec).expect("serialises");
        prop_assert_eq!(super::validate::against_schema(&value), Vec::<String>::new());
    }

    #[test]
    fn what_loads_compiles(mut spec in spec()) {
        // Their files are not there.
        spec.routes.iter_mut_if(|_| true).for_each(|(_, route)| route.validate = None);
        let resolve = |_: &str| vec![IpAddr::from([10, 0, 0, 1])];
        let inputs =
            Inputs {
                resolve: &resolve,
                material: &Material::default(),
                ticket_keys: &[],
                cookie_keys: &[[1; 32]],
                fetched: &Fetched::default(),
                before: None,
            };
        let snapshot = compile(&spec, 7, 3, &inputs);
        prop_assert_eq!((snapshot.epoch, snapshot.revision), (7, 3));
        prop_assert_eq!(snapshot.routes.len(), spec.routes.len());
        for (flat, route) in snapshot.routes.iter().zip(&spec.routes) {
            let names: Vec<&str> = flat
                .backends
                .iter()
                .map(|backend| snapshot.upstreams[backend.upstream as usize].name.as_str())
                .collect();
            let expected: Vec<&str> =
                route.upstreams.iter().map(|backend| backend.name.as_str()).collect();
            prop_assert_eq!(names, expected);
            let policy = |at: &u32| snapshot.limits.policies[*at as usize].name.as_str();
            prop_assert_eq!(flat.limits.iter().map(policy).collect::<Vec<_>>(), &route.limits[..]);
        }
        for (flat, limit) in snapshot.limits.policies.iter().zip(&spec.limits) {
            let burst = usize::from(limit.burst.is_some());
            prop_assert_eq!(flat.quota.windows.len(), limit.windows.len() + burst);
        }
        if let Some(name) = &spec.node.name {
            prop_assert_eq!(&snapshot.node.name, name);
        }
        let targets: usize = snapshot.upstreams.iter().map(|upstream| upstream.targets.len()).sum();
        let expected: usize = spec.upstreams.iter().map(|upstream| upstream.targets.len()).sum();
        prop_assert_eq!(targets, expected);
        let hedges = snapshot.upstreams.iter().flat_map(|upstream| upstream.hedge);
        let given = spec.upstreams.iter().flat_map(|upstream| upstream.hedge.as_option());
        prop_assert_eq!(hedges.count(), given.count());
        prop_assert_eq!(snapshot.auth.consumers.len(), spec.consumers.len());
        for (flat, one) in snapshot.auth.authenticators.iter().zip(&spec.authenticators) {
            prop_assert_eq!((&flat.name, crate::explain::word(&flat.kind)), (&one.name, one.kind.word()));
        }
        // Files are not there, so that what needs them is refused; the rest is not.
        let mut flat = snapshot;
        flat.listeners.clear();
        for upstream in &mut flat.upstreams {
            (upstream.tls, upstream.credentials) = (None, None);
        }
        flat.auth = contract::snapshot::Auth::default();
        flat.routes.iter_mut().for_each(|route| (route.auth, route.transcode) = (None, None));
        prop_assert_eq!(contract::snapshot::Snapshot::decode(&flat.encode()), Ok(flat));
    }

    #[test]
    fn a_diff_names_all_that_comes_and_goes(old in spec(), new in spec()) {
        let diff = crate::diff::diff(&old, &new);
        prop_assert_eq!(diff.is_empty(), old == new);
        let names = |spec: &Spec| -> HashSet<String> {
            spec.routes.iter().map(|route| route.name.clone()).collect()
        };
        let added: HashSet<String> =
            diff.routes.added.iter().map(|named| named.name.clone()).collect();
        prop_assert_eq!(added, &names(&new) - &names(&old));
    }

    /// Whatever is done to a text, loading it and rendering its problems ends well.
    #[test]
    fn mutated_texts_never_panic(
        example in select(EXAMPLES.to_vec()),
        edits in vec((any::<Index>(), any::<Index>(), 0..5, "[ -~\\n\\t]{0,4}|[\\PC]{1,2}"), 1..8),
    ) {
        let mut chars: Vec<char> = example.1.chars().collect();
        for (at, to, kind, text) in edits {
            if chars.is_empty() {
                break;
            }
            let (at, to) = (at.index(chars.len()), to.index(chars.len()));
            let (low, high) = (at.min(to), at.max(to).min(at.min(to) + 40));
            match kind {
                0 => drop(chars.drain(low..high)),
                1 => drop(chars.splice(low..low, text.chars())),
                2 => drop(chars.splice(low..(low + 1).min(high), text.chars())),
                3 => {
                    let copy = chars[low..high].to_vec();
                    drop(chars.splice(at..at, copy));
                }
                _ => chars.swap(at, to),
            }
        }
        let text: String = chars.into_iter().collect();
        let loaded = load("mutant.yaml", &text);
        prop_assert_eq!(loaded.spec.is_none(), !errors(&loaded).is_empty());
        let _ = render(&loaded.problems, &text, true);
        if let Some(spec) = loaded.spec {
            let json = serde_json::to_string(&spec).expect("serialises");
            prop_assert_eq!(load("again.json", &json).spec, Some(spec));
        }
    }

    #[test]
    fn noise_never_panics(text in "\\PC*|[\\[\\]{}:,&*!|>'\"%@`?\\-# \\n\\ta1]{0,200}") {
        let loaded = load("noise", &text);
        prop_assert!(loaded.spec.is_none() && !errors(&loaded).is_empty());
        let _ = render(&loaded.problems, &text, false);
    }

    #[test]
    fn noise_in_values_never_panics(text in "\\PC{0,40}", number in any::<i64>()) {
        let quoted = serde_json::to_string(&text).expect("is text");
        let spec = format!(
            "version: 1\nnode: {{via: {quoted}}}\nadmin: {{listen: {quoted}}}\nlisteners:\n\
             - {{name: {quoted}, listen: {quoted}, trusted_proxies: [{quoted}], {quoted}: 1}}\n\
             upstreams: [{{name: {quoted}, targets: [{quoted}], host_header: {{value: {quoted}}}}}]\n\
             routes: [{{name: {quoted}, upstream: {quoted}, max_body_bytes: {quoted}, match: {{\
             path: {{regex: {quoted}}}, hosts: [{quoted}], methods: [{quoted}], \
             headers: [{{name: {quoted}, regex: {quoted}}}]}}}}, \
             {{name: r, match: {{path: {quoted}}}, timeouts: {{idle_ms: {number}}}}}]\n"
        );
        let loaded = load("values", &spec);
        prop_assert!(loaded.spec.is_none());
        let _ = render(&loaded.problems, &spec, false);
    }
}
