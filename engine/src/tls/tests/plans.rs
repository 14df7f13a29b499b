//! TLS in plans: what is refused, and what is kept.

use contract::snapshot::{Listener, ListenerLimits, Pool, Protocol, Upstream, UpstreamTls};

use super::*;
use crate::plan::Plan;

fn snapshot(setup: &Setup) -> Snapshot {
    let listener = Listener {
        name: "https".into(),
        address: "127.0.0.1:1".parse().unwrap(),
        trusted_proxies: Vec::new(),
        proxy_protocol_from: Vec::new(),
        forwarded: false,
        underscore_fields: Default::default(),
        tls: Some(setup.tls.clone()),
        h2c: false,
        limits: ListenerLimits::default(),
    };
    let upstream = Upstream {
        name: "users".into(),
        balance: Default::default(),
        targets: Vec::new(),
        pool: Pool::default(),
        timeouts: Default::default(),
        host_header: Default::default(),
        protocol: Protocol::Auto,
        tls: Some(UpstreamTls {
            min_version: TlsVersion::V12,
            trust: None,
            server_name: None,
            identity: None,
        }),
        ..Default::default()
    };
    Snapshot { listeners: vec![listener], upstreams: vec![upstream], ..setup.snapshot.clone() }
}

#[test]
fn what_did_not_change_is_built_once() {
    let mut setup = Setup::new(&[&["a.test"], &["b.test"]]);
    let memory = crate::plan::Memory::default();
    let build = |setup: &Setup| Plan::build_with(snapshot(setup), &memory).unwrap();
    let tls = |plan: &Plan| {
        (plan.listeners[0].tls.clone().unwrap(), plan.upstreams[0].tls.clone().unwrap())
    };
    let (one, two) = (build(&setup), build(&setup));
    assert!(Arc::ptr_eq(&tls(&one).0, &tls(&two).0) && Arc::ptr_eq(&tls(&one).1, &tls(&two).1));
    setup.snapshot.ticket_keys.insert(0, key(9));
    let three = build(&setup);
    assert!(!Arc::ptr_eq(&tls(&one).0, &tls(&three).0), "new keys make new configurations");
    assert!(Arc::ptr_eq(&tls(&one).1, &tls(&three).1), "upstreams' sessions are kept");
    let old = Arc::downgrade(&tls(&one).0);
    drop((one, two));
    build(&setup);
    assert!(old.upgrade().is_none(), "what no plan has is forgotten");
}

#[test]
fn what_cannot_be_used_is_named() {
    let good = Setup::new(&[&["a.test"], &["b.test"]]);
    Plan::build(snapshot(&good)).unwrap();
    type Break = fn(&mut Snapshot);
    let listener: [(&str, &str, Break); 7] = [
        ("tls.certificates[1].key", "does not belong", |s| {
            s.certificates[1].key = s.certificates[0].key.clone();
        }),
        ("tls.certificates[0].key", "no private key", |s| s.certificates[0].key = vec![1, 2]),
        ("tls.certificates[0].cert", "unreadable", |s| s.certificates[0].chain = vec![vec![1]]),
        ("tls.certificates[1].cert", "leaf first", |s| s.certificates[1].chain.clear()),
        ("tls.certificates", "at least one", |s| {
            s.listeners[0].tls.as_mut().unwrap().sites.clear();
        }),
        ("tls.certificates[0].client_auth.ca", "certificate 1", |s| {
            s.trust = vec![Trust { roots: vec![vec![9]], crls: Vec::new() }];
            let auth = ClientAuth { trust: 0, required: true };
            s.listeners[0].tls.as_mut().unwrap().sites[0].client_auth = Some(auth);
        }),
        ("tls.certificates[0].client_auth.crl", "revocation list", |s| {
            let roots = vec![s.certificates[0].chain[1].clone()];
            s.trust = vec![Trust { roots, crls: vec![vec![0x30, 0]] }];
            let auth = ClientAuth { trust: 0, required: true };
            s.listeners[0].tls.as_mut().unwrap().sites[0].client_auth = Some(auth);
        }),
    ];
    let upstream: [(&str, &str, Break); 4] = [
        ("tls.server_name", "DNS name", |s| {
            s.upstreams[0].tls.as_mut().unwrap().server_name = Some("a b".into());
        }),
        ("tls.ca", "no certificate", |s| {
            s.trust = vec![Trust::default()];
            s.upstreams[0].tls.as_mut().unwrap().trust = Some(0);
        }),
        ("tls.key", "does not belong", |s| {
            let mut mixed = s.certificates[0].clone();
            mixed.key = s.certificates[1].key.clone();
            s.certificates.push(mixed);
            s.upstreams[0].tls.as_mut().unwrap().identity = Some(2);
        }),
        ("tls.cert", "no certificate 9", |s| {
            s.upstreams[0].tls.as_mut().unwrap().identity = Some(9);
        }),
    ];
    for (entity, name, cases) in
        [("listener", "https", &listener[..]), ("upstream", "users", &upstream[..])]
    {
        for (field, problem, spoil) in cases {
            let mut snapshot = snapshot(&good);
            spoil(&mut snapshot);
            let error = Plan::build(snapshot).unwrap_err();
            assert_eq!((error.entity, error.name.as_str()), (entity, name), "{error}");
            assert_eq!(error.field, *field, "{error}");
            assert!(error.problem.contains(problem), "{error}");
        }
    }
}
