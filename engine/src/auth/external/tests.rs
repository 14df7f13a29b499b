//! A real service that decides about requests.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contract::snapshot::{
    self, Authenticator, AuthenticatorKind, Backend, Consumer, Endpoint, Route, RouteAuth,
    Snapshot, Unidentified,
};

use crate::auth::jwt::tests::gate::{gate, gates};
use crate::plan::Plan;
use crate::store::tests::authorization_server::{Reply, Server};

fn external(endpoint: Endpoint) -> snapshot::External {
    snapshot::External {
        endpoint,
        send: vec!["cookie".into(), "x-team".into()],
        take: vec!["x-user".into(), "authorization".into()],
        consumer_header: Some("x-consumer".into()),
        cache_ms: 0,
    }
}

fn snapshot_of(external: snapshot::External) -> Snapshot {
    let mut snapshot = Snapshot { epoch: 1, ..Snapshot::default() };
    snapshot.auth.version = 1;
    let ada = Consumer { name: "ada".into(), scopes: vec!["s".into()], ..Consumer::default() };
    snapshot.auth.consumers = vec![ada].into();
    snapshot.auth.authenticators = vec![Authenticator {
        name: "ext".into(),
        kind: AuthenticatorKind::External(Box::new(external)),
    }];
    snapshot.upstreams = vec![snapshot::Upstream::default()];
    snapshot.routes = vec![Route {
        backends: vec![Backend { upstream: 0, weight: 1 }],
        auth: Some(RouteAuth {
            authenticators: vec![0],
            unidentified: Unidentified::Pass,
            ..RouteAuth::default()
        }),
        ..Default::default()
    }];
    snapshot
}

#[test]
fn it_is_shown_what_it_needs_and_no_more() {
    let server = Arc::new(Server::start(|_| Reply::new(200)));
    let seen = server.clone();
    gate(snapshot_of(external(server.endpoint("/check"))), move |gate| async move {
        let request = "POST /a/%2e/b?c=1&d HTTP/1.1\r\nHost: api.example:81\r\n\
            Cookie: sid=1\r\nX-Team: red\r\nX-Team: blue\r\nX-Secret: 1\r\nAuthorization: Bearer x\r\n\
            X-Forwarded-Method: GET\r\nX-Forwarded-For: 8.8.8.8\r\nContent-Length: 2\r\n\r\nhi";
        assert!(gate.send(request, "::ffff:192.0.2.9").await.is_in());
        let seen = seen.seen().remove(0);
        assert_eq!((&*seen.method, &*seen.path), ("GET", "/check"));
        let field = |name: &str| seen.field(name);
        assert_eq!(field("x-forwarded-method"), Some("POST"));
        assert_eq!(field("x-forwarded-uri"), Some("/a/b?c=1&d"));
        assert_eq!(field("x-forwarded-host"), Some("api.example:81"));
        assert_eq!(field("x-forwarded-proto"), Some("http"));
        assert_eq!(field("x-forwarded-for"), Some("192.0.2.9"));
        assert_eq!(field("cookie"), Some("sid=1"));
        let teams: Vec<_> = seen.fields.get_all("x-team").iter().collect();
        assert_eq!(teams, ["red", "blue"]);
        assert_eq!((field("x-secret"), field("authorization")), (None, None));
        assert_eq!(field("content-length"), None);
    });
}

#[test]
fn statuses_are_decisions_or_nobodys_word() {
    for (status, wanted) in [
        (200, 200),
        (204, 200),
        (299, 200),
        (401, 401),
        (403, 403),
        (302, 503),
        (304, 503),
        (400, 503),
        (404, 503),
        (407, 503),
        (429, 503),
        (500, 503),
        (503, 503),
    ] {
        let server = Server::start(move |_| {
            Reply::new(status).with("location", "/").with("x-consumer", "ada")
        });
        gate(snapshot_of(external(server.endpoint("/"))), move |gate| async move {
            assert_eq!(gate.ask("").await.status(), wanted, "{status}");
            assert_eq!(gate.ask("").await.status(), wanted, "{status}");
        });
        assert_eq!(server.calls(), 2, "it is asked each time");
    }
    let slow = Server::start(|_| Reply::new(200).after_ms(5_000));
    let endpoint = Endpoint { timeout_ms: 100, ..slow.endpoint("/") };
    gate(snapshot_of(external(endpoint)), |gate| async move {
        assert_eq!(gate.ask("").await.status(), 503);
    });
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = Endpoint { url: format!("http://{gone}/"), ..slow.endpoint("/") };
    gate(snapshot_of(external(endpoint)), |gate| async move {
        assert_eq!(gate.ask("").await.status(), 503);
    });
}

#[test]
fn a_401_has_a_challenge_the_services_or_ours() {
    let server = Server::start(|seen| match seen.field("cookie") {
        Some("sid=two") => Reply::new(401)
            .with("www-authenticate", "Bearer realm=\"id\", error=\"invalid_token\"")
            .with("www-authenticate", "DPoP algs=\"ES256\""),
        Some("sid=long") => Reply::new(401).with("www-authenticate", "x".repeat(20_000)),
        Some("sid=denied") => Reply::new(403).with("www-authenticate", "Bearer"),
        _ => Reply::new(401),
    });
    let server = Arc::new(server);
    for cache_ms in [0, 60_000] {
        let rules = snapshot::External { cache_ms, ..external(server.endpoint("/")) };
        let calls = server.clone();
        gate(snapshot_of(rules), move |gate| async move {
            let before = calls.calls();
            for _ in 0..2 {
                let told = gate.ask("Cookie: sid=two\r\n").await;
                assert_eq!(told.status(), 401);
                let wanted =
                    ["Bearer realm=\"id\", error=\"invalid_token\"", "DPoP algs=\"ES256\""];
                assert_eq!(told.challenges(), wanted);
            }
            assert_eq!(calls.calls() - before, if cache_ms == 0 { 2 } else { 1 });
            for fields in ["", "Cookie: sid=long\r\n"] {
                let told = gate.ask(fields).await;
                assert_eq!(told.status(), 401);
                assert_eq!(told.challenges(), ["Sluice realm=\"sluice\""]);
            }
            let told = gate.ask("Cookie: sid=denied\r\n").await;
            assert_eq!((told.status(), told.challenges()), (403, &[][..]));
        });
    }
}

#[test]
fn what_it_says_goes_to_upstreams_and_clients_cannot_say_it() {
    let server = Server::start(|seen| match seen.field("cookie") {
        Some("sid=ada") => Reply::new(200)
            .with("x-consumer", "ada")
            .with("x-user", "7")
            .with("x-user", "8")
            .with("authorization", "Bearer inner")
            .with("x-more", "not asked for"),
        Some("sid=eve") => Reply::new(200).with("x-consumer", "eve"),
        Some("sid=two") => Reply::new(200).with("x-consumer", "eve").with("x-consumer", "ada"),
        Some("sid=long") => Reply::new(200).with("x-user", "x".repeat(20_000)),
        _ => Reply::new(200),
    });
    gate(snapshot_of(external(server.endpoint("/"))), move |gate| async move {
        let forged = "X-User: forged\r\nAuthorization: Bearer outer\r\nX-Kept: 1\r\n";
        let told = gate.ask(&format!("Cookie: sid=ada\r\n{forged}")).await;
        assert_eq!(told.forwarded("x-user"), [] as [&str; 0]);
        assert_eq!(told.forwarded("authorization"), [] as [&str; 0]);
        assert_eq!(told.forwarded("x-kept"), ["1"]);
        let identity = told.identity();
        assert_eq!((identity.consumer, &*identity.id), (Some(0), "ada"));
        assert!(identity.has_scope("s"));
        let field = |name: &str, value: &str| (Box::from(name), Box::from(value.as_bytes()));
        let wanted =
            [field("x-user", "7"), field("x-user", "8"), field("authorization", "Bearer inner")];
        assert_eq!(*identity.fields, wanted);
        // Of whom it says nothing.
        let told = gate.ask(forged).await;
        assert_eq!(told.forwarded("x-user"), [] as [&str; 0]);
        let identity = told.identity();
        assert_eq!((identity.consumer, &*identity.id, identity.fields.len()), (None, "", 0));
        let identity = gate.ask("Cookie: sid=eve\r\n").await.identity();
        assert_eq!((identity.consumer, &*identity.id), (None, "eve"));
        for broken in ["two", "long"] {
            assert_eq!(gate.ask(&format!("Cookie: sid={broken}\r\n")).await.status(), 503);
        }
    });
}

#[test]
fn decisions_are_believed_for_what_they_were_made_on() {
    let server = Arc::new(Server::start(|seen| match seen.field("cookie") {
        Some(_) => Reply::new(200),
        None => Reply::new(403),
    }));
    let asked = server.clone();
    let rules = snapshot::External { cache_ms: 60_000, ..external(server.endpoint("/")) };
    gates(snapshot_of(rules), 2, move |gates| async move {
        let base = "GET /x?y HTTP/1.1\r\nHost: h\r\nCookie: a\r\n\r\n";
        let ask = async |request: &str, from: &str| {
            for gate in &gates {
                assert!(gate.send(request, from).await.is_in(), "{request}");
            }
            asked.calls()
        };
        for _ in 0..3 {
            assert_eq!(ask(base, "192.0.2.1").await, 1);
        }
        let unseen = base.replace("\r\n\r\n", "\r\nX-Other: 1\r\n\r\n");
        assert_eq!(ask(&unseen, "192.0.2.1").await, 1, "it does not see that");
        // Whatever else it is told makes another decision.
        let others = [
            base.replace("GET", "DELETE"),
            base.replace("/x", "/admin"),
            base.replace("?y", "?y=2"),
            base.replace("Host: h", "Host: i"),
            base.replace("Cookie: a", "Cookie: b"),
            base.replace("\r\n\r\n", "\r\nX-Team: red\r\n\r\n"),
            base.replace("\r\n\r\n", "\r\nX-Team: re\r\nX-Team: d\r\n\r\n"),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_eq!(ask(other, "192.0.2.1").await, 2 + n, "{other}");
        }
        let count = asked.calls();
        assert_eq!(ask(base, "192.0.2.2").await, count + 1, "another client");
        for gate in &gates {
            for _ in 0..3 {
                assert_eq!(gate.ask("").await.status(), 403);
            }
        }
        assert_eq!(asked.calls(), count + 2);
        gates[0].io.sleep_ms(1_100).await;
        assert_eq!(gates[0].ask("").await.status(), 403);
        assert_eq!(asked.calls(), count + 3, "a no is believed for a second");
    });
}

#[test]
fn fields_of_the_connection_are_neither_sent_nor_taken() {
    let endpoint = Endpoint { timeout_ms: 1, ..Endpoint::default() };
    let count = AtomicUsize::new(0);
    let refused = |change: &dyn Fn(&mut snapshot::External, String)| {
        for name in ["host", "connection", "content-length", "transfer-encoding", "te", "a b", ""] {
            let mut rules = external(endpoint.clone());
            change(&mut rules, name.into());
            let error = Plan::build(snapshot_of(rules)).unwrap_err();
            assert_eq!((error.entity, &*error.name), ("authenticator", "ext"), "{name}");
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    refused(&|rules, name| rules.send.push(name));
    refused(&|rules, name| rules.take.push(name));
    refused(&|rules, name| rules.consumer_header = Some(name));
    assert_eq!(count.into_inner(), 21);
}
