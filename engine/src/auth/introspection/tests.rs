//! Tokens that a strict authorization server is asked about, over real sockets.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the gateway")]

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::snapshot::{
    self, Authenticator, AuthenticatorKind, Backend, ClientProof, Consumer, Endpoint, OAuthClient,
    Route, RouteAuth, Snapshot, Tokens, Unidentified,
};
use serde_json::{Value, json};

use crate::auth::jwt::tests::gate::{Gate, Told, gate, gates};
use crate::auth::jwt::tests::{Signer, claims, rules};
use crate::io::wall_ms;
use crate::store::tests::authorization_server::{Reply, Seen, Server, Wanted, introspect};

fn introspection(endpoint: Endpoint) -> snapshot::Introspection {
    snapshot::Introspection {
        tokens: Tokens { issuer: None, audiences: vec![], ..rules().tokens },
        endpoint,
        client: OAuthClient { id: "gw".into(), proof: ClientProof::Basic("s3cret".into()) },
        cache_ms: 60_000,
        negative_ms: 60_000,
    }
}

fn snapshot_of(introspection: snapshot::Introspection) -> Snapshot {
    let mut snapshot = Snapshot { epoch: 1, ..Snapshot::default() };
    snapshot.auth.version = 1;
    snapshot.auth.consumers = vec![Consumer { name: "ada".into(), ..Consumer::default() }].into();
    snapshot.auth.authenticators = vec![Authenticator {
        name: "idp".into(),
        kind: AuthenticatorKind::Introspection(Box::new(introspection)),
    }];
    snapshot
}

/// Knows these tokens, and answers after a while.
fn knowing(tokens: &[(&str, Value)], after_ms: u64) -> Server {
    let tokens: HashMap<String, Value> =
        tokens.iter().map(|(token, value)| ((*token).to_owned(), value.clone())).collect();
    Server::start(move |seen| {
        introspect(seen, &Wanted::Basic("gw", "s3cret"), "", &tokens).after_ms(after_ms)
    })
}

fn active() -> Value {
    json!({ "active": true, "sub": "ada", "scope": "read write", "exp": wall_ms() / 1_000 + 300 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = active();
    claims[name] = value;
    claims
}

/// What becomes of a token that `answers` are given for.
fn told_by(
    answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    test: impl Fn(&Told) + Send + 'static,
) -> Server {
    let server = Server::start(answers);
    let endpoint = Endpoint { timeout_ms: 300, ..server.endpoint("/introspect") };
    gate(snapshot_of(introspection(endpoint)), move |gate| async move {
        test(&gate.bearer("opaque").await);
        // What nobody knew is asked again.
        test(&gate.bearer("opaque").await);
    });
    server
}

#[test]
fn only_a_well_formed_no_refuses_and_all_else_is_nobodys_word() {
    let refused = told_by(
        |_| Reply::json(&json!({ "active": false })),
        |told| assert!(told.is_invalid_token(), "{told:?}"),
    );
    assert_eq!(refused.calls(), 1, "a no is believed for a while");
    let aim = Server::start(|_| Reply::json(&active()));
    let to = aim.url("/");
    let json = |body: &str| Reply::new(200).with("content-type", "application/json").body(body);
    let html = "<html>Log in</html>";
    let kinds: Vec<Reply> = vec![
        Reply::new(500),
        Reply { status: 503, ..Reply::json(&json!({ "active": true })) },
        Reply { status: 400, ..Reply::json(&json!({ "active": false })) },
        Reply { status: 401, ..Reply::json(&json!({ "active": false })) },
        Reply { status: 201, ..Reply::json(&active()) },
        Reply::json(&active()).after_ms(5_000),
        Reply::new(200).with("content-type", "text/html").body(html),
        json(html),
        Reply::new(200).with("content-type", "text/plain").body(active().to_string()),
        Reply::new(200).body(active().to_string()),
        Reply { status: 302, ..Reply::json(&active()) }.with("location", to.clone()),
        Reply { status: 307, ..Reply::json(&active()) }.with("location", to),
        json(""),
        json("[]"),
        json("true"),
        json("{"),
        json("{}"),
        json(r#"{"active":"true"}"#),
        json(r#"{"active":1}"#),
        json(r#"{"active":null}"#),
        json(r#"{"active":false,"active":true}"#),
        json(&format!(r#"{{"active":true,"x":"{}"}}"#, "x".repeat(300_000))),
    ];
    for reply in kinds {
        let shown = format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body));
        let server = told_by(
            move |_| reply.clone(),
            move |told| assert_eq!(told.status(), 503, "{shown:.80}"),
        );
        assert_eq!(server.calls(), 2, "never remembered");
    }
    assert_eq!(aim.calls(), 0, "no redirect is followed");
}

#[test]
fn who_cannot_be_reached_lets_nobody_in() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{nobody}/"), "http://169.254.169.254/".into(), String::new()] {
        let endpoint = Endpoint { url, allow_private: true, timeout_ms: 2_000, trust: None };
        let mut snapshot = snapshot_of(introspection(endpoint));
        snapshot.routes = vec![route(RouteAuth {
            // Not even where nobody need be known.
            unidentified: Unidentified::Pass,
            authenticators: vec![0],
            ..RouteAuth::default()
        })];
        snapshot.upstreams = vec![snapshot::Upstream::default()];
        gate(snapshot, |gate| async move {
            assert_eq!(gate.bearer("opaque").await.status(), 503);
            assert!(gate.ask("").await.is_in());
        });
    }
}

fn route(auth: RouteAuth) -> Route {
    Route {
        backends: vec![Backend { upstream: 0, weight: 1 }],
        auth: Some(auth),
        ..Default::default()
    }
}

#[test]
fn claims_are_judged_as_those_of_any_token() {
    let thumbprint = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
    let server = knowing(
        &[
            ("good", active()),
            ("named", with("sub", json!("stranger"))),
            ("expired", with("exp", json!(wall_ms() / 1_000 - 60))),
            ("early", with("nbf", json!(wall_ms() / 1_000 + 60))),
            ("bad-exp", with("exp", json!("soon"))),
            ("foreign", with("iss", json!("https://other.example"))),
            ("elsewhere", with("aud", json!("other-api"))),
            ("bound", with("cnf", json!({ "x5t#S256": thumbprint }))),
        ],
        0,
    );
    let mut rules = introspection(server.endpoint("/introspect"));
    rules.tokens.claim_headers = vec![("sub".into(), "x-user".into())];
    gate(snapshot_of(rules.clone()), |gate| async move {
        let good = gate.ask("Authorization: Bearer good\r\nX-User: forged\r\n").await;
        assert_eq!(good.forwarded("x-user"), [] as [&str; 0]);
        let identity = good.identity();
        assert_eq!((identity.consumer, &*identity.id), (Some(0), "ada"));
        assert!(identity.has_scope("read") && !identity.has_scope("admin"));
        assert_eq!(&*identity.fields, [("x-user".into(), b"ada".to_vec().into())]);
        let stranger = gate.bearer("named").await.identity();
        assert_eq!((stranger.consumer, &*stranger.id), (None, "stranger"));
        for refused in ["expired", "early", "bad-exp", "bound", "unknown"] {
            assert!(gate.bearer(refused).await.is_invalid_token(), "{refused}");
        }
    });
    rules.tokens.consumer_required = true;
    rules.tokens.audiences = vec!["api".into()];
    rules.tokens.issuer = Some("https://issuer.example".into());
    gate(snapshot_of(rules), |gate| async move {
        for refused in ["good", "named", "foreign", "elsewhere"] {
            assert!(gate.bearer(refused).await.is_invalid_token(), "{refused}");
        }
    });
}

#[test]
fn fields_of_claims_are_taken_from_clients_also_where_nobody_is_known() {
    let server = knowing(&[], 0);
    let mut rules = introspection(server.endpoint("/introspect"));
    rules.tokens.claim_headers = vec![("sub".into(), "x-user".into())];
    let mut snapshot = snapshot_of(rules);
    snapshot.routes = vec![route(RouteAuth {
        unidentified: Unidentified::Pass,
        authenticators: vec![0],
        ..RouteAuth::default()
    })];
    snapshot.upstreams = vec![snapshot::Upstream::default()];
    gate(snapshot, |gate| async move {
        let told = gate.ask("X-User: forged\r\nX-Other: 1\r\n").await;
        assert_eq!(told.forwarded("x-user"), [] as [&str; 0]);
        assert_eq!(told.forwarded("x-other"), ["1"]);
    });
    assert_eq!(server.calls(), 0);
}

#[test]
fn what_no_server_has_issued_is_not_asked_about() {
    let server = knowing(&[], 0);
    gate(snapshot_of(introspection(server.endpoint("/introspect"))), |gate| async move {
        for token in ["a b", "t\u{e9}", "a\tb", &"x".repeat(17 * 1_024)] {
            assert!(gate.bearer(token).await.is_invalid_token(), "{token:.20}");
        }
    });
    assert_eq!(server.calls(), 0);
}

/// Asks `times` at once, of the gates in turn.
async fn all_at_once(gates: &[Gate], times: usize, token: &'static str) -> Vec<u16> {
    let statuses: Rc<Cell<Vec<u16>>> = Rc::default();
    for n in 0..times {
        let (gate, statuses) = (gates[n % gates.len()].clone(), statuses.clone());
        gates[0].io.spawn(async move {
            let status = gate.bearer(token).await.status();
            let mut all = statuses.take();
            all.push(status);
            statuses.set(all);
        });
    }
    loop {
        let all = statuses.take();
        if all.len() == times {
            return all;
        }
        statuses.set(all);
        gates[0].io.sleep_ms(5).await;
    }
}

#[test]
fn one_question_per_token_is_in_flight_on_a_node() {
    let server = Arc::new(knowing(&[("a", active()), ("b", active())], 200));
    let asked = server.clone();
    let snapshot = snapshot_of(introspection(server.endpoint("/introspect")));
    gates(snapshot, 2, move |gates| async move {
        assert_eq!(all_at_once(&gates, 100, "a").await, [200; 100]);
        assert_eq!(asked.calls(), 1);
        assert_eq!(all_at_once(&gates, 100, "b").await, [200; 100]);
        assert_eq!(asked.calls(), 2, "each token has its own");
        assert_eq!(all_at_once(&gates, 100, "unknown").await, [401; 100]);
        assert_eq!(asked.calls(), 3);
        // One shard's answer is the other's, too.
        gates[0].shard.memory().clear();
        assert!(gates[0].bearer("a").await.is_in() && gates[1].bearer("a").await.is_in());
        assert_eq!(asked.calls(), 3);
    });
}

#[test]
fn failures_are_shared_while_they_are_awaited_and_no_longer() {
    let server = Arc::new(Server::start(|_| Reply::new(500).after_ms(200)));
    let asked = server.clone();
    gates(snapshot_of(introspection(server.endpoint("/"))), 2, move |gates| async move {
        assert_eq!(all_at_once(&gates, 50, "a").await, [503; 50]);
        assert_eq!(asked.calls(), 1);
        assert_eq!(gates[0].bearer("a").await.status(), 503);
        assert_eq!(asked.calls(), 2);
    });
}

#[test]
fn answers_are_believed_for_less_than_the_token_lives() {
    let good = Arc::new(AtomicBool::new(true));
    let is_good = good.clone();
    let server = Arc::new(Server::start(move |seen| {
        let ends = |ms: u64| (wall_ms() + ms) as f64 / 1_000.0;
        Reply::json(&match (&*seen.form["token"], is_good.load(Ordering::SeqCst)) {
            (_, false) => json!({ "active": false }),
            ("short", _) => json!({ "active": true, "sub": "ada", "exp": ends(700) }),
            _ => json!({ "active": true, "sub": "ada", "exp": ends(60_000) }),
        })
    }));
    let asked = server.clone();
    let rules = introspection(server.endpoint("/"));
    gate(snapshot_of(rules.clone()), move |gate| async move {
        for _ in 0..3 {
            assert!(gate.bearer("short").await.is_in() && gate.bearer("long").await.is_in());
        }
        assert_eq!(asked.calls(), 2);
        good.store(false, Ordering::SeqCst);
        gate.io.sleep_ms(800).await;
        assert!(gate.bearer("short").await.is_invalid_token(), "its end was known");
        assert!(gate.bearer("long").await.is_in(), "believed a little longer");
        assert_eq!(asked.calls(), 3);
        good.store(true, Ordering::SeqCst);
        gate.io.sleep_ms(1_100).await;
        assert!(gate.bearer("short").await.is_invalid_token(), "the no is believed as well");
        assert_eq!(asked.calls(), 3, "beyond what a shard remembers");
    });
    let (server, asked) = (server.clone(), server.clone());
    let before = server.calls();
    let rules = snapshot::Introspection { cache_ms: 0, ..rules };
    gate(snapshot_of(rules), move |gate| async move {
        for _ in 0..3 {
            assert!(gate.bearer("long").await.is_in());
        }
        assert_eq!(asked.calls(), before + 3, "nothing is remembered where nothing may be");
    });
}

/// JWTs first, introspection second.
fn both(server: &Server, all: bool) -> (Signer, Snapshot) {
    let signer = Signer::new(snapshot::JwsAlgorithm::Es256);
    let keys =
        snapshot::KeySet { loaded: true, keys: vec![signer.key(None)], ..Default::default() };
    let mut snapshot = snapshot_of(introspection(server.endpoint("/introspect")));
    snapshot.auth.key_sets = vec![keys];
    let jwt = AuthenticatorKind::Jwt(Box::new(rules()));
    snapshot.auth.authenticators.insert(0, Authenticator { name: "jwt".into(), kind: jwt });
    snapshot.upstreams = vec![snapshot::Upstream::default()];
    let auth = RouteAuth { authenticators: vec![0, 1], all, ..RouteAuth::default() };
    snapshot.routes = vec![route(auth)];
    (signer, snapshot)
}

fn jwt_claims() -> Value {
    let now_s = wall_ms() / 1_000;
    let mut all = claims();
    all["iat"] = now_s.into();
    all["exp"] = (now_s + 300).into();
    all
}

#[test]
fn who_knows_the_issuer_judges_its_tokens() {
    let server = Arc::new(knowing(&[("opaque", active()), ("o.p.aque", active())], 0));
    let (signer, snapshot) = both(&server, false);
    let asked = server.clone();
    gate(snapshot, move |gate| async move {
        assert!(gate.bearer(&signer.token(None, &jwt_claims())).await.is_in());
        // Badly signed, expired, unreadable: none of these is the server asked to overrule.
        let other = Signer::new(snapshot::JwsAlgorithm::Es256);
        assert!(gate.bearer(&other.token(None, &jwt_claims())).await.is_invalid_token());
        assert!(gate.bearer(&signer.token(None, &claims())).await.is_invalid_token());
        let unreadable = signer.sign(br#"{"alg":"ES256"}"#, b"nothing");
        assert!(gate.bearer(&unreadable).await.is_invalid_token());
        assert_eq!(asked.calls(), 0);
        // What is no JWT, or of another issuer, it is asked about.
        assert!(gate.bearer("opaque").await.is_in() && gate.bearer("o.p.aque").await.is_in());
        let mut foreign = jwt_claims();
        foreign["iss"] = json!("https://other.example");
        assert!(gate.bearer(&signer.token(None, &foreign)).await.is_invalid_token());
        assert_eq!(asked.calls(), 3);
    });
}

#[test]
fn where_all_have_to_agree_the_server_is_asked_about_jwts_as_well() {
    let seen = Server::start(|_| Reply::json(&json!({ "active": true, "sub": "ada" })));
    let (signer, snapshot) = both(&seen, true);
    let token = signer.token(None, &jwt_claims());
    gate(snapshot, move |gate| async move {
        assert!(gate.bearer(&token).await.is_in());
        assert!(gate.bearer("opaque").await.is_invalid_token());
    });
    assert_eq!(seen.calls(), 1);
    let revoked = Server::start(|_| Reply::json(&json!({ "active": false })));
    let (signer, snapshot) = both(&revoked, true);
    let token = signer.token(None, &jwt_claims());
    gate(snapshot, move |gate| async move {
        assert!(gate.bearer(&token).await.is_invalid_token());
    });
}
