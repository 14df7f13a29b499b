use std::sync::Arc;
use std::time::Duration;

use contract::snapshot::{self, ClientCredentials, ClientProof, OAuthClient, Snapshot, Upstream};
use serde_json::json;

use super::authorization_server::{Reply, Server};
use crate::io::monotonic_ms;
use crate::plan::{Memory, Plan};
use crate::store::Store;
use crate::store::grant::Grant;

fn credentials(server: &Server, secret: &str) -> ClientCredentials {
    ClientCredentials {
        endpoint: server.endpoint("/token"),
        client: OAuthClient { id: "gw".into(), proof: ClientProof::Post(secret.into()) },
        scopes: vec![],
        audience: None,
    }
}

fn issuing() -> Server {
    Server::start(|_| Reply::json(&json!({ "access_token": "t", "expires_in": 3_600 })))
}

fn upstream(credentials: ClientCredentials) -> Upstream {
    Upstream { name: "u".into(), credentials: Some(credentials), ..Upstream::default() }
}

/// Waits until `done`, for a second.
fn soon(done: impl Fn() -> bool) -> bool {
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        done()
    })
}

#[test]
fn it_lives_over_plans_for_as_long_as_its_settings_are_the_same() {
    let (server, store, memory) = (issuing(), Store::start(1).unwrap(), Memory::default());
    let plan = |secrets: &[&str]| {
        let upstreams =
            secrets.iter().map(|secret| upstream(credentials(&server, secret))).collect();
        Plan::build_with(Snapshot { upstreams, ..Snapshot::default() }, &memory).unwrap()
    };
    let grant = |plan: &Plan, at: usize| plan.upstreams[at].credentials.clone().unwrap();
    let first = plan(&["one", "one", "two"]);
    let one = grant(&first, 0);
    assert!(Arc::ptr_eq(&one, &grant(&first, 1)) && !Arc::ptr_eq(&one, &grant(&first, 2)));
    // As each shard does that adopts the plan.
    (0..4).for_each(|_| one.start(&store));
    assert!(soon(|| one.number() == 1));
    let second = plan(&["three", "one"]);
    drop(first);
    assert!(Arc::ptr_eq(&one, &grant(&second, 1)));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.calls(), 1, "one task, one token");
    let weak = Arc::downgrade(&one);
    drop((second, one));
    assert!(soon(|| weak.strong_count() == 0), "nobody keeps what no plan has");
}

#[test]
fn it_is_fetched_anew_once_in_a_while_however_many_doubt_it() {
    let (server, store) = (issuing(), Store::start(1).unwrap());
    let from = credentials(&server, "s");
    let grant = Arc::new(Grant::build(&from, &Snapshot::default()).unwrap());
    grant.start(&store);
    assert!(soon(|| grant.number() == 1));
    (0..100).for_each(|_| grant.doubt(monotonic_ms()));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.calls(), 1);
    let later_ms = monotonic_ms() + 10_000;
    grant.doubt(later_ms);
    assert!(soon(|| grant.number() == 2));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.calls(), 2);
}

#[test]
fn a_plan_says_which_settings_cannot_be_used() {
    let server = issuing();
    let mut bad = credentials(&server, "s");
    bad.client.proof = ClientProof::PrivateKeyJwt { key: b"no key".to_vec(), kid: None };
    let build = |credentials| {
        let upstreams = vec![upstream(credentials)];
        Plan::build(Snapshot { upstreams, ..Snapshot::default() }).unwrap_err()
    };
    let error = build(bad);
    assert_eq!(
        (error.entity, &*error.name, &*error.field),
        ("upstream", "u", "credentials.client.key")
    );
    let mut bad = credentials(&server, "s");
    bad.client.proof = ClientProof::Tls { identity: 3 };
    bad.endpoint = snapshot::Endpoint { url: "https://as.example/".into(), ..bad.endpoint };
    assert_eq!(build(bad).field, "credentials.client.cert");
}
