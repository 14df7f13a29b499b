//! What stands around authentication, over real sockets: a shard, a client, and an origin.

use std::collections::HashMap;
use std::net::SocketAddr;

use argon2::password_hash::{PasswordHasher, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::snapshot::{
    self, Auth, AuthenticatorKind, Cidr, Consumer, Cors, Networks, Origins, Password, RouteAuth,
    Snapshot, Throttle, Unidentified,
};

use crate::plan::Plan;
use crate::testing::{Reply, ask, gateway_behind, origin};

/// A gateway, as its clients see it.
#[derive(Clone, Copy)]
struct Gateway(SocketAddr);

impl Gateway {
    fn ask(self, line: &str, fields: &str) -> Reply {
        ask(self.0, line, fields)
    }

    fn get(self, fields: &str) -> Reply {
        self.ask("GET /x", fields)
    }

    /// As `user`, from `address`.
    fn login(self, user: &str, password: &str, address: &str) -> Reply {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        self.get(&format!("Authorization: Basic {pair}\r\nX-Forwarded-For: {address}\r\n"))
    }
}

/// Runs a gateway whose peers are trusted proxies, and `client` beside it. Returns what was counted.
fn run(
    snapshot: Snapshot,
    client: impl FnOnce(Gateway) + Send + 'static,
) -> HashMap<&'static str, u64> {
    let proxies = vec![cidr("127.0.0.0", 8)];
    gateway_behind(proxies, snapshot, |address| client(Gateway(address))).by_name()
}

fn cidr(network: &str, prefix: u8) -> Cidr {
    Cidr { network: network.parse().unwrap(), prefix }
}

fn snapshot(origin: SocketAddr, routes: Vec<snapshot::Route>) -> Snapshot {
    let target =
        snapshot::Target { address: origin, name: origin.to_string(), ..Default::default() };
    let upstream =
        snapshot::Upstream { name: "u".into(), targets: vec![target], ..Default::default() };
    Snapshot { upstreams: vec![upstream], routes, ..Default::default() }
}

fn route(name: &str, methods: &[&str]) -> snapshot::Route {
    snapshot::Route {
        name: name.into(),
        methods: methods.iter().map(|method| method.to_string()).collect(),
        backends: vec![snapshot::Backend { upstream: 0, weight: 1 }],
        max_body_bytes: 1 << 20,
        ..Default::default()
    }
}

/// Two consumers with passwords, as cheap as argon2 allows.
fn auth(throttle: Throttle) -> Auth {
    let hasher = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        argon2::Params::new(8, 1, 1, None).unwrap(),
    );
    let salt = Salt::from_b64("c29tZXNhbHQ").unwrap();
    let consumer = |name: &str, password: &str| Consumer {
        name: format!("team-{name}"),
        groups: vec![format!("group-{name}")],
        passwords: vec![Password {
            username: name.into(),
            hash: hasher.hash_password(password.as_bytes(), salt).unwrap().to_string(),
        }],
        ..Default::default()
    };
    Auth {
        version: 1,
        consumers: vec![consumer("ada", "open sesame"), consumer("bob", "p\u{e4}ss:word")].into(),
        authenticators: vec![snapshot::Authenticator {
            name: "basic".into(),
            kind: AuthenticatorKind::Basic(snapshot::Basic { realm: "here".into() }),
        }],
        throttle,
        ..Default::default()
    }
}

fn guarded() -> Option<RouteAuth> {
    Some(RouteAuth { authenticators: vec![0], hide_credentials: true, ..Default::default() })
}

fn guarded_by(policy: &str) -> Option<RouteAuth> {
    let unidentified = Unidentified::Pass;
    Some(RouteAuth { policy: Some(policy.into()), unidentified, ..guarded().unwrap() })
}

const OFF: Throttle = Throttle { failures: 0, window_ms: 60_000 };

#[test]
fn routes_serve_the_networks_they_are_for() {
    let (address, seen) = origin("", 0);
    let networks = Networks {
        allow: vec![cidr("203.0.113.0", 24), cidr("2001:db8::", 32)],
        deny: vec![cidr("203.0.113.128", 25)],
    };
    let only = snapshot::Route { networks: Some(networks), ..route("r", &[]) };
    run(snapshot(address, vec![only]), |gateway| {
        let from = |list: &str| gateway.get(&format!("X-Forwarded-For: {list}\r\n"));
        assert_eq!(gateway.get("").status(), 403, "the proxy itself");
        assert_eq!(from("203.0.113.5").status(), 200);
        assert_eq!(from("2001:db8::1").status(), 200);
        assert_eq!(from("203.0.113.129").status(), 403);
        assert_eq!(from("198.51.100.1").status(), 403);
        assert_eq!(from("203.0.113.5, 198.51.100.1").status(), 403, "it only says so");
        assert_eq!(from("198.51.100.1, 203.0.113.5, 127.0.0.9").status(), 200);
        assert_eq!(from("203.0.113.5, unknown").status(), 403);
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].contains("X-Forwarded-For: 203.0.113.5, 127.0.0.1\r\n"), "{}", seen[0]);
}

#[test]
fn preflights_are_answered_before_anyone_is_asked() {
    let (address, seen) = origin(
        "Access-Control-Allow-Origin: *\r\naccess-control-expose-headers: x\r\nVary: Accept\r\n",
        0,
    );
    let cors = Cors {
        origins: Origins::Listed(vec!["https://*.example.com".into()]),
        headers: vec!["authorization".into()],
        expose: vec!["X-Total".into()],
        credentials: true,
        max_age_s: 600,
        ..Default::default()
    };
    let shared = snapshot::Route { auth: guarded(), cors: Some(cors), ..route("r", &["GET"]) };
    let plain = snapshot::Route {
        path: snapshot::PathMatch::Prefix("/plain".into()),
        ..route("plain", &["GET", "OPTIONS"])
    };
    let snapshot = Snapshot { auth: auth(OFF), ..snapshot(address, vec![shared, plain]) };
    run(snapshot, |gateway| {
        let app = "Origin: https://app.example.com\r\n";
        let evil = "Origin: https://example.org\r\n";
        let asked = "Access-Control-Request-Method: GET\r\n\
                     Access-Control-Request-Headers: authorization,x-other\r\n";
        let reply = gateway.ask("OPTIONS /x", &format!("{app}{asked}"));
        assert_eq!(reply.status(), 204);
        assert_eq!(reply.only("access-control-allow-origin"), "https://app.example.com");
        assert_eq!(reply.only("access-control-allow-methods"), "GET");
        assert_eq!(reply.only("access-control-allow-headers"), "authorization");
        assert_eq!(reply.only("access-control-allow-credentials"), "true");
        assert_eq!(reply.only("access-control-max-age"), "600");
        assert_eq!(reply.only("vary"), "Origin");
        assert!(reply.all("www-authenticate").is_empty());

        let reply = gateway.ask("OPTIONS /x", &format!("{evil}{asked}"));
        assert_eq!((reply.status(), reply.only("vary")), (204, "Origin"));
        assert!(!reply.0.to_lowercase().contains("access-control"), "{}", reply.0);

        // Scripts may read why they are refused.
        let reply = gateway.get(app);
        assert_eq!(reply.status(), 401);
        assert_eq!(reply.only("access-control-allow-origin"), "https://app.example.com");
        assert_eq!(reply.only("access-control-expose-headers"), "X-Total");

        // Of what the upstream says of it nothing is left.
        let basic = format!("Authorization: Basic {}\r\n", STANDARD.encode("ada:open sesame"));
        let reply = gateway.get(&format!("{app}{basic}"));
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.only("access-control-allow-origin"), "https://app.example.com");
        assert_eq!(reply.only("access-control-expose-headers"), "X-Total");
        assert_eq!(reply.all("vary"), ["Accept", "Origin"]);
        let reply = gateway.get(&format!("{evil}{basic}"));
        assert_eq!(reply.status(), 200);
        assert!(!reply.0.to_lowercase().contains("access-control"), "{}", reply.0);

        // OPTIONS by itself is a method like others: this route does not have it.
        assert_eq!(gateway.ask("OPTIONS /x", app).status(), 405);
        let unknown = format!("{app}Access-Control-Request-Method: PUT\r\n");
        assert_eq!(gateway.ask("OPTIONS /x", &unknown).status(), 405);
        // Without rules it is the upstream's matter.
        let reply = gateway.ask("OPTIONS /plain", &format!("{app}{asked}"));
        assert_eq!((reply.status(), reply.only("access-control-allow-origin")), (200, "*"));
    });
    let seen = seen.lock().unwrap();
    let lines: Vec<&str> = seen.iter().map(|head| head.lines().next().unwrap()).collect();
    assert_eq!(lines, ["GET /x HTTP/1.1", "GET /x HTTP/1.1", "OPTIONS /plain HTTP/1.1"]);
}

#[test]
fn passwords_let_in_whom_they_are_of() {
    let (address, seen) = origin("", 0);
    let guarded = snapshot::Route { auth: guarded(), ..route("r", &[]) };
    let snapshot = Snapshot { auth: auth(OFF), ..snapshot(address, vec![guarded]) };
    run(snapshot, |gateway| {
        let login = |user: &str, password: &str| gateway.login(user, password, "192.0.2.1");
        let reply = gateway.get("");
        assert_eq!(reply.status(), 401);
        assert_eq!(reply.only("www-authenticate"), "Basic realm=\"here\", charset=\"UTF-8\"");
        assert_eq!(login("ada", "open sesame").status(), 200);
        assert_eq!(login("ada", "open sesame").status(), 200, "remembered");
        assert_eq!(login("bob", "p\u{e4}ss:word").status(), 200);
        for (user, password) in
            [("ada", "p\u{e4}ss:word"), ("ada", ""), ("Ada", "open sesame"), ("eve", "open sesame")]
        {
            assert_eq!(login(user, password).status(), 401, "{user}:{password}");
            assert_eq!(login(user, password).status(), 401, "remembered");
        }
        for odd in ["Basic", "Basic !", "Basic YWRh", "basic YWRhOm9wZW4gc2VzYW1l="] {
            assert_eq!(gateway.get(&format!("Authorization: {odd}\r\n")).status(), 401, "{odd}");
        }
        let good = STANDARD.encode("ada:open sesame");
        let twice = format!("Authorization: Basic {good}\r\nAuthorization: Basic {good}\r\n");
        assert_eq!(gateway.get(&twice).status(), 400);
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].contains("X-Consumer-Id: team-ada\r\n"), "{}", seen[0]);
    assert!(seen[0].contains("X-Consumer-Credential: ada\r\n"), "{}", seen[0]);
    assert!(!seen[0].contains("Authorization"), "{}", seen[0]);
    assert!(seen[2].contains("X-Consumer-Id: team-bob\r\n"), "{}", seen[2]);
}

#[test]
fn who_guesses_waits() {
    let (address, _) = origin("", 0);
    let guarded = snapshot::Route { auth: guarded(), ..route("r", &[]) };
    let throttle = Throttle { failures: 3, window_ms: 600_000 };
    let snapshot = Snapshot { auth: auth(throttle), ..snapshot(address, vec![guarded]) };
    run(snapshot, |gateway| {
        let status =
            |user: &str, password: &str, from: &str| gateway.login(user, password, from).status();
        assert_eq!(status("ada", "open sesame", "192.0.2.1"), 200);
        for n in 0..5 {
            let wanted = if n < 3 { 401 } else { 429 };
            assert_eq!(status("eve", &format!("guess {n}"), "192.0.2.1"), wanted, "{n}");
        }
        let reply = gateway.login("bob", "p\u{e4}ss:word", "192.0.2.1");
        assert_eq!(reply.status(), 429, "the right password as well: nobody looks at it");
        let wait_s: u32 = reply.only("retry-after").parse().unwrap();
        assert!((1..=1_200).contains(&wait_s), "{wait_s}");
        assert!(reply.all("www-authenticate").is_empty());
        assert_eq!(status("ada", "open sesame", "192.0.2.1"), 200, "remembered");
        assert_eq!(status("bob", "p\u{e4}ss:word", "192.0.2.2"), 200, "another address");
        assert_eq!(gateway.get("X-Forwarded-For: 192.0.2.1\r\n").status(), 401, "no guess");
    });
}

#[test]
fn guesses_from_everywhere_do_not_lock_out_who_was_here_before() {
    let (address, _) = origin("", 0);
    let guarded = snapshot::Route { auth: guarded(), ..route("r", &[]) };
    let throttle = Throttle { failures: 3, window_ms: 600_000 };
    let snapshot = Snapshot { auth: auth(throttle), ..snapshot(address, vec![guarded]) };
    run(snapshot, |gateway| {
        let status =
            |user: &str, password: &str, from: &str| gateway.login(user, password, from).status();
        assert_eq!(status("bob", "p\u{e4}ss:word", "192.0.2.1"), 200);
        for n in 0..5 {
            let wanted = if n < 3 { 401 } else { 429 };
            let from = format!("198.51.100.{n}");
            assert_eq!(status("bob", &format!("guess {n}"), &from), wanted, "{n}");
        }
        // His own address is no reason to wait: a slip of his is told as one.
        assert_eq!(status("bob", "p\u{e4}ss:wor", "192.0.2.1"), 401);
        assert_eq!(status("ada", "open sesame", "198.51.100.1"), 200, "another user");
    });
}

#[test]
fn policies_decide() {
    let (address, _) = origin("", 0);
    let policy = r#"request.method == "GET" && !has(request.query.fail) ||
        "group-ada" in consumer.groups && request.query.fail == "no""#;
    let guarded = snapshot::Route { auth: guarded_by(policy), ..route("r", &[]) };
    let snapshot = Snapshot { auth: auth(OFF), ..snapshot(address, vec![guarded]) };
    let counts = run(snapshot, |gateway| {
        let as_user = |user: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(user));
        let (ada, bob) = (as_user("ada:open sesame"), as_user("bob:p\u{e4}ss:word"));
        assert_eq!(gateway.get("").status(), 200, "anyone may read");
        assert_eq!(gateway.ask("POST /x?fail=no", &ada).status(), 200);
        assert_eq!(gateway.ask("POST /x?fail=no", &bob).status(), 403);
        assert_eq!(gateway.ask("POST /x?fail=yes", &ada).status(), 403);
        // With a credential it might be otherwise.
        assert_eq!(gateway.ask("POST /x", "").status(), 401);
        assert_eq!(gateway.ask("POST /x", &ada).status(), 403, "there is no such parameter");
        assert_eq!(gateway.ask("POST /x?fail=no&fail=no", &ada).status(), 403, "which one?");
    });
    assert_eq!(counts["sluice_policy_errors_total"], 2);
}

#[test]
fn plans_with_unusable_gates_are_refused() {
    let address = "127.0.0.1:1".parse().unwrap();
    let problem = |route: snapshot::Route| {
        let snapshot = Snapshot { auth: auth(OFF), ..snapshot(address, vec![route]) };
        Plan::build(snapshot).unwrap_err()
    };
    let error = problem(snapshot::Route { auth: guarded_by("request.x"), ..route("r", &[]) });
    assert_eq!((error.entity, &*error.name, &*error.field), ("route", "r", "auth.policy"));
    assert!(error.problem.starts_with("1:8: `request` has no `x`"), "{}", error.problem);
    let cors = Cors { credentials: true, ..Default::default() };
    let error = problem(snapshot::Route { cors: Some(cors), ..route("r", &[]) });
    assert_eq!((error.entity, &*error.field), ("route", "cors.origins"));
}
