use super::*;
use crate::spec::load;

mod callers;

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
        before: None,
    };
    compile(spec, epoch, revision, &inputs)
}

fn spec(text: &str) -> Spec {
    let loaded = load("t.yaml", text);
    loaded.spec.unwrap_or_else(|| panic!("{:#?}", loaded.problems))
}

#[test]
fn defaults_are_those_of_the_snapshot() {
    let spec = spec(include_str!("../../../examples/minimal.yaml"));
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
    let spec = spec(include_str!("../../../examples/limits.yaml"));
    let snapshot = compiled(&spec, 1, 1, &|_| Vec::new());
    let events = snapshot.routes.iter().find(|route| route.name == "events").expect("is there");
    assert_eq!(events.timeouts.total_ms, u32::MAX);
    assert_eq!(events.timeouts.connect_ms, 0);
}
