//! Spec → Snapshot: names become indexes, host names become addresses, defaults are all there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use contract::snapshot as flat;

use crate::material::Material;
use crate::spec::{
    Balance, Cidr, FieldMatch, HostHeader, Listener, PathMatch, Protocol, Rewrite, Route,
    RouteTimeouts, Spec, TargetHost, Timeouts, TotalMs, UnderscoreFields, Upstream, ValueMatch,
};
use identities::Identities;

mod identities;

/// What a spec is compiled with.
pub struct Inputs<'a> {
    /// The addresses of a host name, in any order; none leaves the target out until a later epoch.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
    /// What the spec's files hold.
    pub material: &'a Material,
    /// Keys of session tickets, newest first. Left out when no listener speaks TLS.
    pub ticket_keys: &'a [flat::TicketKey],
}

/// Compiles a spec that passed [`crate::spec::load`].
///
/// The snapshot does not depend on the order of resolved addresses, so that equal answers make equal
/// snapshots. Total: a backend that names no upstream (which a loaded spec cannot have) is left out;
/// what material lacks makes a snapshot that is refused when it is decoded, never one that is less
/// safe than the spec.
pub fn compile(spec: &Spec, epoch: u64, revision: u64, inputs: &Inputs<'_>) -> flat::Snapshot {
    let index: HashMap<&str, flat::UpstreamIndex> =
        (0..).zip(&spec.upstreams).map(|(at, upstream)| (upstream.name.as_str(), at)).collect();
    let mut identities = Identities::new(inputs.material);
    let listeners: Vec<_> =
        spec.listeners.iter().map(|one| listener(one, &mut identities)).collect();
    let upstreams =
        spec.upstreams.iter().map(|one| upstream(one, inputs.resolve, &mut identities)).collect();
    let secure = listeners.iter().any(|listener| listener.tls.is_some());
    flat::Snapshot {
        epoch,
        revision,
        node: flat::Node {
            via: spec.node.via.clone(),
            drain_timeout_ms: spec.node.drain_timeout_ms,
        },
        ticket_keys: if secure { inputs.ticket_keys.to_vec() } else { Vec::new() },
        listeners,
        upstreams,
        routes: spec.routes.iter().map(|one| route(one, &index)).collect(),
        certificates: identities.certificates,
        trust: identities.trust,
    }
}

fn listener(listener: &Listener, identities: &mut Identities<'_>) -> flat::Listener {
    let limits = &listener.limits;
    flat::Listener {
        name: listener.name.clone(),
        address: listener.listen,
        trusted_proxies: cidrs(&listener.trusted_proxies),
        proxy_protocol_from: cidrs(&listener.proxy_protocol.from),
        forwarded: listener.forwarded,
        underscore_fields: match listener.underscore_fields {
            UnderscoreFields::Refuse => flat::UnderscoreFields::Refuse,
            UnderscoreFields::Drop => flat::UnderscoreFields::Drop,
        },
        tls: listener.tls.as_ref().map(|tls| identities.listener(tls)),
        h2c: listener.h2c,
        limits: flat::ListenerLimits {
            max_connections: limits.max_connections,
            header_timeout_ms: limits.header_timeout_ms,
            idle_timeout_ms: limits.idle_timeout_ms,
            min_body_rate: limits.min_body_rate,
            write_timeout_ms: limits.write_timeout_ms,
            max_head_bytes: limits.max_head_bytes,
            max_fields: limits.max_fields,
            max_requests: limits.max_requests,
            max_streams: limits.max_streams,
        },
    }
}

fn cidrs(list: &[Cidr]) -> Vec<flat::Cidr> {
    list.iter().map(|cidr| flat::Cidr { network: cidr.network, prefix: cidr.prefix }).collect()
}

fn upstream(
    upstream: &Upstream,
    resolve: &dyn Fn(&str) -> Vec<IpAddr>,
    identities: &mut Identities<'_>,
) -> flat::Upstream {
    let mut targets = Vec::with_capacity(upstream.targets.len());
    for target in &upstream.targets {
        let mut addresses = match &target.address.host {
            TargetHost::Ip(ip) => vec![*ip],
            TargetHost::Name(name) => resolve(name),
        };
        addresses.sort_unstable();
        addresses.dedup();
        targets.extend(addresses.into_iter().map(|ip| flat::Target {
            address: SocketAddr::new(ip, target.address.port),
            weight: target.weight,
            name: target.address.to_string(),
        }));
    }
    flat::Upstream {
        name: upstream.name.clone(),
        balance: match upstream.balance {
            Balance::RoundRobin => flat::Balance::RoundRobin,
            Balance::Weighted => flat::Balance::Weighted,
            Balance::LeastConnections => flat::Balance::LeastConnections,
        },
        targets,
        pool: flat::Pool {
            max_idle: upstream.pool.max_idle,
            max_connections: upstream.pool.max_connections,
            idle_timeout_ms: upstream.pool.idle_timeout_ms,
        },
        timeouts: timeouts(&upstream.timeouts),
        host_header: match &upstream.host_header {
            HostHeader::Preserve => flat::HostHeader::Preserve,
            HostHeader::Target => flat::HostHeader::Target,
            HostHeader::Value(value) => flat::HostHeader::Literal(value.clone()),
        },
        protocol: match upstream.protocol {
            Protocol::Http1 => flat::Protocol::Http1,
            Protocol::Http2 => flat::Protocol::Http2,
            Protocol::Auto => flat::Protocol::Auto,
        },
        tls: upstream.tls.as_ref().map(|tls| identities.upstream(tls)),
        health: upstream.health.as_ref().map(|health| flat::HealthCheck {
            kind: flat::HealthKind::Grpc { service: health.grpc.service.clone() },
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
        }),
    }
}

fn timeouts(timeouts: &Timeouts) -> flat::Timeouts {
    flat::Timeouts {
        connect_ms: timeouts.connect_ms,
        first_byte_ms: timeouts.first_byte_ms,
        idle_ms: timeouts.idle_ms,
        total_ms: total(timeouts.total_ms),
    }
}

/// On a route, 0 stands for the upstream's value.
fn route_timeouts(timeouts: &RouteTimeouts) -> flat::Timeouts {
    flat::Timeouts {
        connect_ms: timeouts.connect_ms.unwrap_or(0),
        first_byte_ms: timeouts.first_byte_ms.unwrap_or(0),
        idle_ms: timeouts.idle_ms.unwrap_or(0),
        total_ms: timeouts.total_ms.map_or(0, total),
    }
}

fn total(total: TotalMs) -> u32 {
    match total {
        TotalMs::After(ms) => ms,
        TotalMs::None => u32::MAX,
    }
}

fn route(route: &Route, index: &HashMap<&str, flat::UpstreamIndex>) -> flat::Route {
    flat::Route {
        name: route.name.clone(),
        hosts: route.matches.hosts.clone(),
        path: match &route.matches.path {
            PathMatch::Exact(path) => flat::PathMatch::Exact(path.clone()),
            PathMatch::Prefix(path) => flat::PathMatch::Prefix(path.clone()),
            PathMatch::Regex(pattern) => flat::PathMatch::Regex(pattern.clone()),
        },
        methods: route.matches.methods.clone(),
        headers: route.matches.headers.iter().map(field).collect(),
        query: route.matches.query.iter().map(field).collect(),
        rewrite: match &route.rewrite {
            Rewrite::Keep => flat::PathRewrite::Keep,
            Rewrite::StripPrefix => flat::PathRewrite::StripPrefix,
            Rewrite::ReplacePrefix(prefix) => flat::PathRewrite::ReplacePrefix(prefix.clone()),
        },
        backends: route
            .upstreams
            .iter()
            .filter_map(|backend| {
                let upstream = *index.get(backend.name.as_str())?;
                Some(flat::Backend { upstream, weight: backend.weight })
            })
            .collect(),
        timeouts: route_timeouts(&route.timeouts),
        max_body_bytes: route.max_body_bytes,
        upgrades: route.upgrades.clone(),
        early_data: route.early_data,
        grpc_web: route.grpc_web,
    }
}

fn field(field: &FieldMatch) -> flat::FieldMatch {
    flat::FieldMatch {
        name: field.name.clone(),
        value: match &field.value {
            ValueMatch::Present => flat::ValueMatch::Present,
            ValueMatch::Exact(value) => flat::ValueMatch::Exact(value.clone()),
            ValueMatch::Regex(pattern) => flat::ValueMatch::Regex(pattern.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load;

    fn compiled(
        spec: &Spec,
        epoch: u64,
        revision: u64,
        resolve: &dyn Fn(&str) -> Vec<IpAddr>,
    ) -> flat::Snapshot {
        let material = Material::default();
        compile(spec, epoch, revision, &Inputs { resolve, material: &material, ticket_keys: &[] })
    }

    fn spec(text: &str) -> Spec {
        let loaded = load("t.yaml", text);
        loaded.spec.unwrap_or_else(|| panic!("{:#?}", loaded.problems))
    }

    #[test]
    fn defaults_are_those_of_the_snapshot() {
        let spec = spec(include_str!("../../examples/minimal.yaml"));
        let snapshot = compiled(&spec, 2, 1, &|_| Vec::new());
        assert_eq!(snapshot.node, flat::Node::default());
        assert_eq!(snapshot.listeners[0].limits, flat::ListenerLimits::default());
        assert_eq!(snapshot.upstreams[0].pool, flat::Pool::default());
        assert_eq!(snapshot.upstreams[0].timeouts, flat::Timeouts::default());
        assert_eq!(
            snapshot.routes,
            [flat::Route {
                name: "everything".into(),
                hosts: Vec::new(),
                path: flat::PathMatch::Prefix("/".into()),
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
                rewrite: flat::PathRewrite::Keep,
                backends: vec![flat::Backend { upstream: 0, weight: 1 }],
                timeouts: flat::Timeouts {
                    connect_ms: 0,
                    first_byte_ms: 0,
                    idle_ms: 0,
                    total_ms: 0
                },
                max_body_bytes: 10 << 20,
                upgrades: Vec::new(),
                early_data: false,
                grpc_web: false,
            }]
        );
    }

    #[test]
    fn a_name_becomes_one_target_per_address_in_any_order() {
        let spec = spec(
            "version: 1\nlisteners: [{name: a, listen: ':1'}]\nupstreams:\n- name: u\n  \
             balance: weighted\n  targets: [{address: 'X.internal:81', weight: 3}, '[::1]:82']\n\
             routes: [{name: r, upstream: u}]\n",
        );
        assert_eq!(spec.host_names().into_iter().collect::<Vec<_>>(), ["x.internal"]);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let forth = compiled(&spec, 1, 1, &|_| vec![one, two]);
        let back = compiled(&spec, 1, 1, &|name| match name {
            "x.internal" => vec![two, one, two],
            _ => Vec::new(),
        });
        assert_eq!(forth, back);
        let targets: Vec<String> = forth.upstreams[0]
            .targets
            .iter()
            .map(|target| format!("{} {} {}", target.address, target.weight, target.name))
            .collect();
        let expected =
            ["10.0.0.1:81 3 x.internal:81", "10.0.0.2:81 3 x.internal:81", "[::1]:82 1 [::1]:82"];
        assert_eq!(targets, expected);
        assert_eq!(compiled(&spec, 1, 1, &|_| Vec::new()).upstreams[0].targets.len(), 1);
    }

    #[test]
    fn no_total_bound_is_the_largest_number() {
        let spec = spec(include_str!("../../examples/limits.yaml"));
        let snapshot = compiled(&spec, 1, 1, &|_| Vec::new());
        let events = snapshot.routes.iter().find(|route| route.name == "events").expect("is there");
        assert_eq!(events.timeouts.total_ms, u32::MAX);
        assert_eq!(events.timeouts.connect_ms, 0);
    }
}
