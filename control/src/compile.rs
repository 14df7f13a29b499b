//! Spec → Snapshot: names become indexes, host names become addresses, defaults are all there.

use std::collections::HashMap;
use std::net::IpAddr;

use contract::snapshot as flat;

use crate::keys::Fetched;
use crate::material::Material;
use crate::spec::{
    Cidr, FieldMatch, Listener, PathMatch, Rewrite, Route, Spec, UnderscoreFields, ValueMatch,
};
use identities::Identities;
use providers::Providers;

pub use providers::jws;

mod callers;
mod identities;
mod providers;
mod upstreams;

/// Where an upstream stands, by its name.
type Indexes<'a> = HashMap<&'a str, flat::UpstreamIndex>;

/// What a spec is compiled with.
pub struct Inputs<'a> {
    /// The addresses of a host name, in any order; none leaves the target out until a later epoch.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
    /// What the spec's files hold.
    pub material: &'a Material,
    /// Keys of session tickets, newest first. Left out when no listener speaks TLS.
    pub ticket_keys: &'a [flat::TicketKey],
    /// Keys that sessions of logins are sealed with where the spec has none, newest first.
    pub cookie_keys: &'a [[u8; 32]],
    /// What providers have said.
    pub fetched: &'a Fetched,
}

/// Compiles a spec that passed [`crate::spec::load`].
///
/// The snapshot does not depend on the order of resolved addresses, so that equal answers make equal
/// snapshots. Total: a backend, mirror or fallback that names no upstream (which a loaded spec cannot have) is left out;
/// what material lacks makes a snapshot that is refused when it is decoded, never one that is less
/// safe than the spec.
pub fn compile(spec: &Spec, epoch: u64, revision: u64, inputs: &Inputs<'_>) -> flat::Snapshot {
    let index: Indexes<'_> =
        (0..).zip(&spec.upstreams).map(|(at, upstream)| (upstream.name.as_str(), at)).collect();
    let places = callers::Places::new(spec);
    let mut identities = Identities::new(inputs.material);
    let listeners: Vec<_> =
        spec.listeners.iter().map(|one| listener(one, &mut identities)).collect();
    let auth = callers::auth(spec, &places, inputs, &mut identities);
    let version = callers::version(&auth, &identities);
    let upstreams = spec
        .upstreams
        .iter()
        .map(|one| flat::Upstream {
            credentials: one.credentials.as_ref().map(|credentials| {
                Providers::new(spec, inputs, &mut identities).credentials(credentials)
            }),
            ..upstreams::upstream(one, &index, inputs.resolve, &mut identities)
        })
        .collect();
    let secure = listeners.iter().any(|listener| listener.tls.is_some());
    flat::Snapshot {
        auth: flat::Auth { version, ..auth },
        epoch,
        revision,
        node: flat::Node {
            via: spec.node.via.clone(),
            drain_timeout_ms: spec.node.drain_timeout_ms,
            locality: spec.node.locality.clone().unwrap_or_default(),
            overload: flat::Overload {
                queue_delay_ms: spec.node.overload.queue_delay_ms,
                memory_percent: spec.node.overload.memory_percent,
            },
        },
        ticket_keys: if secure { inputs.ticket_keys.to_vec() } else { Vec::new() },
        listeners,
        upstreams,
        routes: spec.routes.iter().map(|one| route(one, &index, &places)).collect(),
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

fn route(route: &Route, index: &Indexes<'_>, places: &callers::Places<'_>) -> flat::Route {
    flat::Route {
        auth: route.auth.as_ref().map(|auth| callers::route_auth(auth, places)),
        networks: route.networks.as_ref().map(callers::networks),
        cors: route.cors.as_ref().map(callers::cors),
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
        timeouts: upstreams::route_timeouts(&route.timeouts),
        max_body_bytes: route.max_body_bytes,
        upgrades: route.upgrades.clone(),
        early_data: route.early_data,
        grpc_web: route.grpc_web,
        retry: route.retry.as_ref().map(upstreams::retry),
        hedge: route.hedge.as_ref().map(upstreams::route_hedge),
        priority: upstreams::priority(route.priority),
        mirror: route.mirror.as_ref().and_then(|mirror| upstreams::mirror(mirror, index)),
        deadline_header: route.deadline_header.clone(),
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
<<<<<<< HEAD
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
        let fetched = Fetched::default();
        let inputs = Inputs {
            resolve,
            material: &material,
            ticket_keys: &[],
            cookie_keys: &[[1; 32]],
            fetched: &fetched,
        };
        compile(spec, epoch, revision, &inputs)
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
                backends: vec![flat::Backend { upstream: 0, weight: 1 }],
                timeouts: flat::Timeouts {
                    connect_ms: 0,
                    first_byte_ms: 0,
                    idle_ms: 0,
                    try_ms: 0,
                    total_ms: 0
                },
                max_body_bytes: 10 << 20,
                ..flat::Route::default()
            }]
        );
        let upstream = snapshot.upstreams[0].clone();
        assert_eq!(
            upstream,
            flat::Upstream {
                name: upstream.name.clone(),
                targets: upstream.targets.clone(),
                outlier: Some(flat::Outlier::default()),
                ..flat::Upstream::default()
            }
        );
    }

    #[test]
    fn resilience_reaches_the_snapshot() {
        let text = "version: 1
node: {locality: eu-1a, overload: {queue_delay_ms: 0, memory_percent: 80}}
listeners: [{name: a, listen: ':1'}]
upstreams:
- name: u
  balance: {hash: {header: X-User}, load_percent: 150}
  targets: [{address: '10.0.0.1:1', priority: 1, locality: eu-1b}]
  timeouts: {try_ms: 500}
  retry: {on: [unavailable, 503, reset, 409, resource_exhausted], methods: [POST], body_bytes: 1KiB}
  retry_budget: {percent: 5, min: 0}
  hedge: {quantile: 0.9, min_ms: 7}
  bounds: {max_requests: 100}
  target_bounds: {max_pending: 5}
  breaker: {consecutive: 4}
  fallback: {upstream: w}
  outlier: none
  concurrency: {}
  min_live_percent: 40
  health: {http: {path: '/up?deep=1', statuses: ['200-204', 301], body: ok}}
- name: w
  targets: ['10.0.0.2:1']
  retry: none
  fallback: {body: later}
  health: {tcp: {}}
routes:
- name: r
  upstream: u
  retry: {attempts: 2}
  hedge: none
  priority: high
  mirror: {upstream: w, percent: 1.5}
  deadline_header: X-Deadline
  timeouts: {try_ms: none}
";
        let snapshot = compiled(&spec(text), 1, 1, &|_| Vec::new());
        assert_eq!(flat::Snapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
        assert_eq!(snapshot.node.locality, "eu-1a");
        let overload = flat::Overload { queue_delay_ms: 0, memory_percent: 80 };
        assert_eq!(snapshot.node.overload, overload);
        let [u, w] = &snapshot.upstreams[..] else { panic!("{snapshot:?}") };
        let key = flat::HashKey::Header("x-user".into());
        assert_eq!(u.balance, flat::Balance::Hash { key, load_percent: 150 });
        assert_eq!((u.targets[0].priority, &*u.targets[0].locality), (1, "eu-1b"));
        assert_eq!(u.timeouts.try_ms, 500);
        let on = flat::RetryOn { connect: false, refused: false, reset: true, timeout: false };
        assert_eq!(
            u.retry,
            flat::Retry {
                on,
                statuses: vec![409, 503],
                grpc_statuses: vec![8, 14],
                methods: flat::RetryMethods::Listed(vec!["POST".into()]),
                body_bytes: 1024,
                ..flat::Retry::default()
            }
        );
        assert_eq!(u.retry_budget, flat::RetryBudget { percent: 5, min: 0 });
        assert_eq!(u.hedge, Some(flat::Hedge { quantile_permille: 900, min_ms: 7 }));
        assert_eq!(u.bounds, flat::Bounds { max_requests: 100, max_pending: 0 });
        assert_eq!(u.target_bounds, flat::Bounds { max_requests: 0, max_pending: 5 });
        assert_eq!(u.breaker, Some(flat::Breaker { consecutive: 4, ..Default::default() }));
        assert_eq!(u.target_breaker, None);
        assert_eq!(u.fallback, flat::Fallback::Upstream(1));
        assert_eq!((u.outlier, u.min_live_percent), (None, 40));
        assert_eq!(u.concurrency, Some(flat::AdaptiveConcurrency::default()));
        assert_eq!(
            u.health.as_ref().map(|health| &health.kind),
            Some(&flat::HealthKind::Http {
                path: "/up?deep=1".into(),
                host: None,
                statuses: vec![(200, 204), (301, 301)],
                body: Some("ok".into()),
            })
        );
        assert_eq!(w.retry, flat::Retry { attempts: 1, ..Default::default() });
        let answer = flat::Fallback::Answer {
            status: 503,
            content_type: "text/plain; charset=utf-8".into(),
            body: "later".into(),
        };
        assert_eq!(w.fallback, answer);
        assert_eq!(w.health.as_ref().map(|health| &health.kind), Some(&flat::HealthKind::Tcp));
        let route = &snapshot.routes[0];
        assert_eq!(route.retry, Some(flat::Retry { attempts: 2, ..Default::default() }));
        assert_eq!(route.hedge.map(|hedge| hedge.min_ms), Some(u32::MAX));
        assert_eq!(route.priority, flat::Priority::High);
        assert_eq!(route.mirror, Some(flat::Mirror { upstream: 1, per_ten_thousand: 150 }));
        assert_eq!(route.deadline_header.as_deref(), Some("x-deadline"));
        assert_eq!(route.timeouts.try_ms, u32::MAX);
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
=======
mod tests;
>>>>>>> w5/spec
