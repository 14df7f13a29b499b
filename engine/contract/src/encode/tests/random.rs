//! Any snapshot, with every field of the model.

use super::*;
use proptest::option;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

mod aggregate;
mod auth;
mod cache;
mod graphql;
mod limit;
mod payload;
mod shape;
mod transcode;
mod validation;

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
    let status = (100..=599u16, 100..=599u16).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let http = (text(), option::of(text()), vec(status, 1..3), option::of(text()));
    let kind = prop_oneof![
        text().prop_map(|service| HealthKind::Grpc { service }),
        http.prop_map(|(path, host, statuses, body)| {
            HealthKind::Http { path, host, statuses, body }
        }),
        Just(HealthKind::Tcp),
    ];
    option::of((kind, [number.clone(), number.clone(), number.clone(), number]).prop_map(
        |(kind, [interval_ms, timeout_ms, healthy_after, unhealthy_after])| HealthCheck {
            kind,
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
    any::<[u32; 5]>().prop_map(|[connect_ms, first_byte_ms, idle_ms, try_ms, total_ms]| Timeouts {
        connect_ms,
        first_byte_ms,
        idle_ms,
        try_ms,
        total_ms,
    })
}

fn balance() -> impl Strategy<Value = Balance> {
    let key = prop_oneof![
        text().prop_map(HashKey::Header),
        text().prop_map(HashKey::Cookie),
        Just(HashKey::ClientIp),
        Just(HashKey::Consumer)
    ];
    prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::Weighted),
        Just(Balance::LeastConnections),
        Just(Balance::PowerOfTwo),
        (key, 101..=1_000u16).prop_map(|(key, load_percent)| Balance::Hash { key, load_percent })
    ]
}

fn target() -> impl Strategy<Value = Target> {
    (address(), 1..=MAX_WEIGHT, text(), any::<u8>(), text()).prop_map(
        |(address, weight, name, priority, locality)| Target {
            address,
            weight,
            name,
            priority,
            locality,
        },
    )
}

/// One of `upstreams` upstreams.
fn upstream(certificates: u32, trust: u32, upstreams: u32) -> impl Strategy<Value = Upstream> {
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
    let reach = (protocol, upstream_tls(certificates, trust), health(), 0..=100u8);
    let tries = (retry(), (0..=100u8, any::<u32>()), option::of(hedge()));
    let bounds = (bounds(), bounds(), option::of(breaker()), option::of(breaker()));
    let credentials = option::of(auth::client_credentials(certificates, trust));
    let rest = (fallback(upstreams), option::of(outlier()), option::of(concurrency()), credentials);
    let first = (text(), balance(), vec(target(), 0..4), pool, timeouts(), host_header);
    (first, reach, tries, bounds, rest).prop_map(|(first, reach, tries, bounds, rest)| {
        let (name, balance, targets, pool, timeouts, host_header) = first;
        let (protocol, tls, health, min_live_percent) = reach;
        let (retry, (percent, min), hedge) = tries;
        let (bounds, target_bounds, breaker, target_breaker) = bounds;
        let (fallback, outlier, concurrency, credentials) = rest;
        Upstream {
            name,
            balance,
            targets,
            pool,
            timeouts,
            host_header,
            protocol,
            tls,
            health,
            min_live_percent,
            retry,
            retry_budget: RetryBudget { percent, min },
            hedge,
            bounds,
            target_bounds,
            breaker,
            target_breaker,
            fallback,
            outlier,
            concurrency,
            credentials,
        }
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let methods = prop_oneof![
        Just(RetryMethods::Idempotent),
        Just(RetryMethods::Any),
        vec(text(), 0..3).prop_map(RetryMethods::Listed)
    ];
    let statuses = proptest::collection::btree_set(400..=599u16, 0..4);
    let grpc_statuses = proptest::collection::btree_set(1..=16u8, 0..4);
    let on = any::<[bool; 4]>();
    let numbers = (1..=MAX_ATTEMPTS, 0..=MAX_KEPT_BODY, any::<[u32; 3]>());
    let listed = (statuses, grpc_statuses);
    (on, listed, methods, numbers).prop_map(|(on, (statuses, grpc_statuses), methods, numbers)| {
        let [connect, refused, reset, timeout] = on;
        let (attempts, body_bytes, [backoff_base_ms, backoff_max_ms, retry_after_max_ms]) = numbers;
        Retry {
            attempts,
            on: RetryOn { connect, refused, reset, timeout },
            statuses: statuses.into_iter().collect(),
            grpc_statuses: grpc_statuses.into_iter().collect(),
            methods,
            backoff_base_ms,
            backoff_max_ms,
            retry_after_max_ms,
            body_bytes,
        }
    })
}

fn hedge() -> impl Strategy<Value = Hedge> {
    (1..=999u16, any::<u32>())
        .prop_map(|(quantile_permille, min_ms)| Hedge { quantile_permille, min_ms })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    any::<[u32; 2]>().prop_map(|[max_requests, max_pending]| Bounds { max_requests, max_pending })
}

fn breaker() -> impl Strategy<Value = Breaker> {
    let some = 1..=u32::MAX;
    ([0..=100u8, 0..=100u8], any::<[u32; 3]>(), [some.clone(), some.clone(), some]).prop_map(
        |([error_percent, slow_percent], [consecutive, slow_ms, min_requests], some)| Breaker {
            consecutive,
            error_percent,
            slow_percent,
            slow_ms,
            window_ms: some[0],
            min_requests,
            open_ms: some[1],
            probes: some[2],
        },
    )
}

fn fallback(upstreams: u32) -> impl Strategy<Value = Fallback> {
    prop_oneof![
        Just(Fallback::Refuse),
        (200..=599u16, text(), text()).prop_map(|(status, content_type, body)| Fallback::Answer {
            status,
            content_type,
            body
        }),
        (0..upstreams).prop_map(Fallback::Upstream),
    ]
}

fn outlier() -> impl Strategy<Value = Outlier> {
    let some = 1..=u32::MAX;
    ([0..=100u8, 0..=100u8], any::<[u32; 7]>(), [some.clone(), some.clone(), some]).prop_map(
        |([max_ejected_percent, panic_percent], n, some)| Outlier {
            consecutive_5xx: n[0],
            consecutive_gateway: n[1],
            interval_ms: some[0],
            min_targets: n[2],
            min_requests: n[3],
            stdev_permille: n[4],
            latency_percent: n[5],
            base_ejection_ms: some[1],
            max_ejection_ms: some[2],
            max_ejected_percent,
            panic_percent,
            slow_start_ms: n[6],
        },
    )
}

fn concurrency() -> impl Strategy<Value = AdaptiveConcurrency> {
    (1..=u32::MAX, 1..=u32::MAX, any::<u32>()).prop_map(|(one, other, tolerance_percent)| {
        AdaptiveConcurrency { min: one.min(other), max: one.max(other), tolerance_percent }
    })
}

fn field_match() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        text().prop_map(ValueMatch::Exact),
        text().prop_map(ValueMatch::Regex)
    ];
    (text(), value).prop_map(|(name, value)| FieldMatch { name, value })
}

/// A route to some of `upstreams` upstreams, for callers known by some of `authenticators` as some of
/// `consumers`.
fn route(upstreams: u32, authenticators: u32, consumers: u32) -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex),
        text().prop_map(PathMatch::Template)
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
    let priority = prop_oneof![
        Just(Priority::Low),
        Just(Priority::Normal),
        Just(Priority::High),
        Just(Priority::Critical)
    ];
    let mirror = (0..upstreams, 0..=10_000u16)
        .prop_map(|(upstream, per_ten_thousand)| Mirror { upstream, per_ten_thousand });
    let tries = (option::of(retry()), option::of(hedge()), priority, option::of(mirror));
    let callers = auth::route_auth(authenticators, consumers);
    let callers = (callers, option::of(auth::networks()), option::of(auth::cors()));
    let view = || {
        prop_oneof![
            Just(ProcessorView::Nothing),
            Just(ProcessorView::Head),
            Just(ProcessorView::Body)
        ]
    };
    let processor =
        (0..upstreams, view(), view(), 1..=MAX_PROCESSOR_MS, 0..=MAX_PROCESSED_BODY, any::<bool>())
            .prop_map(
                |(upstream, request, response, timeout_ms, max_body_bytes, pass_on_failure)| {
                    Processor {
                        upstream,
                        request,
                        response,
                        timeout_ms,
                        max_body_bytes,
                        pass_on_failure,
                    }
                },
            );
    let shape = option::of(shape::shape().prop_map(Box::new));
    let payload = option::of(payload::payload().prop_map(Box::new));
    let last = (last, tries, option::of(text()), callers, (shape, payload, option::of(processor)));
    (text(), lists, path, conditions, rewrite, vec(backend, 0..4), timeouts(), last).prop_map(
        |(name, lists, path, (headers, query), rewrite, backends, timeouts, last)| Route {
            name,
            hosts: lists.0,
            path,
            methods: lists.1,
            headers,
            query,
            rewrite,
            backends: served(backends, last.4.0.as_deref()),
            shape: last.4.0,
            aggregate: None,
            timeouts,
            max_body_bytes: last.0.0,
            payload: last.4.1,
            upgrades: lists.2,
            early_data: last.0.1,
            grpc_web: last.0.2,
            transcode: None,
            retry: last.1.0,
            hedge: last.1.1,
            priority: last.1.2,
            mirror: last.1.3,
            deadline_header: last.2,
            auth: last.3.0,
            networks: last.3.1,
            cors: last.3.2,
            processor: last.4.2,
            limits: Vec::new(),
            validation: None,
            graphql: None,
            cache: None,
        },
    )
}

/// A route that does not answer itself has an upstream.
fn served(mut backends: Vec<Backend>, shape: Option<&RouteShape>) -> Vec<Backend> {
    let answers = shape.is_some_and(|shape| shape.answer.is_some());
    if backends.is_empty() && !answers {
        backends.push(Backend { upstream: 0, weight: 1 });
    }
    backends
}

/// Any snapshot that holds the invariants of the model.
pub fn snapshot() -> impl Strategy<Value = Snapshot> {
    let node = ((text(), text()), text(), any::<[u32; 2]>(), 0..=100u8).prop_map(
        |((via, name), locality, [drain_timeout_ms, queue_delay_ms], memory_percent)| Node {
            via,
            name,
            drain_timeout_ms,
            locality,
            overload: Overload { queue_delay_ms, memory_percent },
        },
    );
    let secrets = (vec(certificate(), 0..3), vec(trust(), 0..3), vec(ticket_key(), 0..4));
    let parts = secrets.prop_flat_map(|(certificates, trust, ticket_keys)| {
        let counts = (certificates.len() as u32, trust.len() as u32);
        let listeners = vec(listener(counts.0, counts.1), 0..3);
        let routed = (1..4u32, auth::auth(counts.0, counts.1));
        let routed = routed.prop_flat_map(move |(count, auth)| {
            let known = (auth.authenticators.len() as u32, auth.consumers.len() as u32);
            let upstreams = vec(upstream(counts.0, counts.1, count), count as usize);
            (Just(auth), upstreams, vec(route(count, known.0, known.1), 0..4))
        });
        (Just((certificates, trust, ticket_keys)), listeners, routed)
    });
    let limits = (vec(limit::policy(), 0..3), vec(any::<u32>(), 0..3));
    let calls = (option::of(aggregate::aggregate()), option::of(graphql::graphql()));
    let more = (cache::cache(), transcode::transcode(), calls);
    let limits = (limits, validation::validation(), more);
    let numbers = (any::<u64>(), any::<u64>());
    (numbers, node, limits, parts).prop_map(|((epoch, revision), node, limits, parts)| {
        let ((certificates, trust, ticket_keys), listeners, (auth, upstreams, mut routes)) = parts;
        let ((policies, named), (validation, on_routes), more) = limits;
        let ((cache, on_route), (protos, transcode), aggregate) = more;
        let known = policies.len() as u32;
        let named: Vec<u32> = match known {
            0 => Vec::new(),
            known => named.into_iter().map(|any| any % known).collect(),
        };
        if let Some(route) = routes.first_mut() {
            route.limits = named.clone();
            route.validation = on_routes;
            route.transcode = transcode;
            route.cache = on_route;
            route.aggregate = aggregate.0.map(Box::new);
            route.graphql = aggregate.1.map(Box::new);
            if route.aggregate.is_some() {
                route.backends.clear();
            }
        }
        let limits = Limits { policies, everywhere: named };
        Snapshot {
            epoch,
            revision,
            node,
            certificates,
            trust,
            ticket_keys,
            auth,
            limits,
            validation,
            protos,
            cache,
            listeners,
            upstreams,
            routes,
        }
    })
}
