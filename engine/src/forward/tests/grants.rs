//! Upstreams that want a token of ours, and a server that issues it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contract::snapshot::{
    self, Authenticator, AuthenticatorKind, ClientCredentials, ClientProof, External, Mirror,
    OAuthClient, RouteAuth, Snapshot,
};
use serde_json::{Value, json};

use super::{
    Act, Origin, Reply as Answered, ask, field, gateway, gateway_of, get, route, upstream,
};
use crate::store::tests::authorization_server::{Reply, Server, Wanted};

/// Issues `token-1`, `token-2`, …, each with `more` said of it.
fn issuing(more: Value, after_ms: u64) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |seen| {
        let grant = seen.form.get("grant_type").map(String::as_str);
        let proved = Wanted::Basic("gw", "s3cret").proved(seen, "");
        if seen.method != "POST" || grant != Some("client_credentials") || !proved {
            return Reply::new(401);
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answer = more.clone();
        answer["access_token"] = format!("token-{number}").into();
        Reply::json(&answer).after_ms(after_ms)
    })
}

fn credentials(server: &Server) -> ClientCredentials {
    ClientCredentials {
        endpoint: server.endpoint("/token"),
        client: OAuthClient { id: "gw".into(), proof: ClientProof::Basic("s3cret".into()) },
        scopes: vec!["read".into(), "write".into()],
        audience: None,
    }
}

fn guarded(origin: &Origin, credentials: ClientCredentials) -> snapshot::Upstream {
    let upstream = upstream("u", &[origin.address]);
    snapshot::Upstream { credentials: Some(credentials), ..upstream }
}

fn tokens_of(origin: &Origin) -> Vec<String> {
    let token = |head: &String| {
        assert_eq!(head.to_lowercase().matches("authorization:").count(), 1, "{head}");
        field(head, "authorization").unwrap_or_default().to_owned()
    };
    origin.seen().iter().map(token).collect()
}

#[test]
fn one_token_goes_with_every_request_in_place_of_the_clients() {
    let server = issuing(json!({ "token_type": "bearer", "expires_in": 3_600 }), 100);
    let origin = Origin::start("o", &[Act::Echo]);
    let audience = Some("https://api.example/v1".to_string());
    let credentials = ClientCredentials { audience, ..credentials(&server) };
    gateway(route(), vec![guarded(&origin, credentials)], |gateway| {
        // The first ones have to wait for it.
        let early: Vec<_> = (0..8).map(|_| std::thread::spawn(move || get(gateway))).collect();
        early.into_iter().for_each(|one| assert_eq!(one.join().unwrap().status, 200));
        let own = b"GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Basic bWU6bWU=\r\n\r\n";
        assert_eq!(ask(gateway, &[own]).status, 200);
    });
    assert_eq!(tokens_of(&origin), ["Bearer token-1"; 9]);
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].form["scope"], "read write");
    assert_eq!(seen[0].form["audience"], "https://api.example/v1");
    assert_eq!(seen[0].form["resource"], "https://api.example/v1");
}

#[test]
fn without_a_token_nothing_is_sent() {
    let json = |value: Value| move |_: &_| Reply::json(&value);
    type Answers =
        Box<dyn Fn(&crate::store::tests::authorization_server::Seen) -> Reply + Send + Sync>;
    let answers: Vec<Answers> = vec![
        Box::new(|_| Reply::new(500)),
        Box::new(|_| Reply::new(302).with("location", "/")),
        Box::new(|_| Reply::json(&json!({ "access_token": "t" })).after_ms(5_000)),
        Box::new(json(json!({ "error": "invalid_client" }))),
        Box::new(json(json!({ "access_token": "" }))),
        Box::new(json(json!({ "access_token": "t\r\nX-Evil: 1" }))),
        Box::new(json(json!({ "access_token": "t", "token_type": "mac" }))),
        Box::new(json(json!({ "access_token": "t", "expires_in": 0 }))),
        Box::new(json(json!({ "access_token": "t".repeat(20_000) }))),
    ];
    for answer in answers {
        let server = Server::start(answer);
        let origin = Origin::start("o", &[Act::Echo]);
        let mut credentials = credentials(&server);
        credentials.endpoint.timeout_ms = 300;
        gateway(route(), vec![guarded(&origin, credentials)], |gateway| {
            let reply = get(gateway);
            assert_eq!(reply.status, 503);
            assert_eq!(field(&reply.head, "retry-after"), Some("1"));
            assert!(reply.body.contains("auth_unavailable"), "{}", reply.body);
            // Nobody waits for what has failed just now.
            let begun = Instant::now();
            assert_eq!(get(gateway).status, 503);
            assert!(begun.elapsed() < Duration::from_millis(250));
        });
        assert!(origin.seen().is_empty());
    }
}

#[test]
fn the_next_token_is_there_before_the_last_one_ends() {
    let server = issuing(json!({ "token_type": "Bearer", "expires_in": 2 }), 0);
    let origin = Origin::start("o", &[Act::Echo]);
    gateway(route(), vec![guarded(&origin, credentials(&server))], |gateway| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(3_500) {
            assert_eq!(get(gateway).status, 200);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut used = tokens_of(&origin);
    used.dedup();
    assert_eq!(used[..3], ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
    let seen = server.seen();
    for pair in seen.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart < Duration::from_millis(1_900) && apart > Duration::from_millis(900));
    }
}

#[test]
fn a_token_is_used_to_its_end_and_no_longer() {
    let alive = Arc::new(AtomicBool::new(true));
    let is_alive = alive.clone();
    let server = Server::start(move |_| match is_alive.swap(false, Ordering::SeqCst) {
        true => Reply::json(&json!({ "access_token": "t", "expires_in": 2 })),
        false => Reply::new(503),
    });
    let origin = Origin::start("o", &[Act::Echo]);
    gateway(route(), vec![guarded(&origin, credentials(&server))], move |gateway| {
        let begun = Instant::now();
        assert_eq!(get(gateway).status, 200);
        std::thread::sleep(Duration::from_millis(1_600).saturating_sub(begun.elapsed()));
        assert_eq!(get(gateway).status, 200, "that the next one cannot be had is no matter yet");
        std::thread::sleep(Duration::from_millis(2_100).saturating_sub(begun.elapsed()));
        assert_eq!(get(gateway).status, 503);
        alive.store(true, Ordering::SeqCst);
        let back = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            get(gateway).status == 200
        });
        assert!(back, "it is asked for until it comes");
    });
}

#[test]
fn an_upstreams_401_has_the_token_fetched_anew_now_and_then() {
    let plain = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    refused_tokens(&[Act::Status(401, "WWW-Authenticate: Bearer\r\n")], plain, |reply| {
        assert_eq!(reply.status, 401, "it is the client's to see");
    });
}

#[test]
fn so_has_a_calls_unauthenticated() {
    let call = b"POST /s/m HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\n\
        TE: trailers\r\nContent-Length: 0\r\n\r\n";
    refused_tokens(&[Act::Ended("16")], call, |reply| {
        assert_eq!((reply.status, field(&reply.head, "grpc-status")), (200, Some("16")));
    });
}

#[test]
fn no_other_status_of_a_call_has() {
    let server = Arc::new(issuing(json!({ "expires_in": 3_600 }), 0));
    let origin = Origin::start("o", &[Act::Ended("7")]);
    let asked = server.clone();
    gateway(route(), vec![guarded(&origin, credentials(&server))], move |gateway| {
        let call = b"POST /s/m HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\n\
            TE: trailers\r\nContent-Length: 0\r\n\r\n";
        let begun = Instant::now();
        assert_eq!(ask(gateway, &[call]).status, 200);
        std::thread::sleep(Duration::from_millis(10_100).saturating_sub(begun.elapsed()));
        assert_eq!(field(&ask(gateway, &[call]).head, "grpc-status"), Some("7"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(asked.calls(), 1);
    });
}

/// An origin answers all of these requests, as `check` has it, by refusing the token.
fn refused_tokens(acts: &'static [Act], request: &'static [u8], check: fn(&Answered)) {
    let server = Arc::new(issuing(json!({ "expires_in": 3_600 }), 0));
    let origin = Origin::start("o", acts);
    let asked = server.clone();
    gateway(route(), vec![guarded(&origin, credentials(&server))], move |gateway| {
        let begun = Instant::now();
        check(&ask(gateway, &[request]));
        assert_eq!(asked.calls(), 1, "the token is new");
        std::thread::sleep(Duration::from_millis(10_100).saturating_sub(begun.elapsed()));
        for _ in 0..10 {
            check(&ask(gateway, &[request]));
        }
        std::thread::sleep(Duration::from_millis(300));
        check(&ask(gateway, &[request]));
        assert_eq!(asked.calls(), 2);
    });
    let tokens = tokens_of(&origin);
    assert_eq!(tokens.len(), 12, "no request is sent again");
    assert_eq!(tokens.last().map(String::as_str), Some("Bearer token-2"));
}

#[test]
fn mirrors_have_tokens_of_their_own() {
    let (one, two) = (issuing(json!({}), 0), issuing(json!({}), 0));
    let (origin, mirror) = (Origin::start("o", &[Act::Echo]), Origin::start("m", &[Act::Echo]));
    let mut other = credentials(&two);
    other.scopes.clear();
    let upstreams = vec![
        guarded(&origin, credentials(&one)),
        snapshot::Upstream { name: "m".into(), ..guarded(&mirror, other) },
    ];
    let route = snapshot::Route {
        mirror: Some(Mirror { upstream: 1, per_ten_thousand: 10_000 }),
        ..route()
    };
    let seen = mirror.seen.clone();
    gateway(route, upstreams, move |gateway| {
        let copied = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(get(gateway).status, 200);
            !seen.lock().unwrap().is_empty()
        });
        assert!(copied);
    });
    assert!(tokens_of(&mirror).iter().all(|token| token == "Bearer token-1"));
    assert!(!two.seen()[0].form.contains_key("scope"));
}

#[test]
fn our_token_goes_before_what_is_known_of_the_caller() {
    let server = issuing(json!({}), 0);
    let decides = Server::start(|_| Reply::new(200).with("authorization", "Bearer theirs"));
    let (origin, open) = (Origin::start("o", &[Act::Echo]), Origin::start("p", &[Act::Echo]));
    let external = External {
        endpoint: decides.endpoint("/"),
        send: vec![],
        take: vec!["authorization".into()],
        consumer_header: None,
        cache_ms: 0,
    };
    for (upstream, origin, wanted) in [
        (guarded(&origin, credentials(&server)), &origin, "Bearer token-1"),
        (upstream("p", &[open.address]), &open, "Bearer theirs"),
    ] {
        let mut snapshot = Snapshot { upstreams: vec![upstream], ..Snapshot::default() };
        snapshot.auth.version = 1;
        snapshot.auth.authenticators = vec![Authenticator {
            name: "ext".into(),
            kind: AuthenticatorKind::External(Box::new(external.clone())),
        }];
        let auth = RouteAuth { authenticators: vec![0], ..RouteAuth::default() };
        snapshot.routes = vec![snapshot::Route { auth: Some(auth), ..route() }];
        gateway_of(snapshot, |gateway| {
            let own = b"GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer mine\r\n\r\n";
            assert_eq!(ask(gateway, &[own]).status, 200);
        });
        assert_eq!(tokens_of(origin), [wanted]);
    }
}
