use std::time::{Duration, Instant};

use contract::snapshot::{self, Snapshot, Trust};
use serde_json::json;

use super::authorization_server::{Reply, Server};
use super::run;
use crate::limits;
use crate::store::http::{Answer, Clients, Endpoint, Failure, Question};
use crate::tls::tests::pki::Authority;

fn ask_with(clients: &Clients, from: &snapshot::Endpoint) -> Result<Answer, Failure> {
    let endpoint = Endpoint::build(from, None, &Snapshot::default()).unwrap();
    run(clients.ask(&endpoint, Question::default()))
}

fn ask(from: &snapshot::Endpoint) -> Result<Answer, Failure> {
    ask_with(&Clients::default(), from)
}

#[test]
fn answers_are_what_they_are() {
    let server = Server::start(|_| Reply::json(&json!({ "a": 1 })).with("x-own", "2"));
    let answer = ask(&server.endpoint("/x?y=1")).unwrap();
    assert_eq!(answer.object().unwrap()["a"], 1);
    assert_eq!(answer.fields["x-own"], "2");
    let seen = server.seen();
    assert_eq!((&*seen[0].method, &*seen[0].path), ("GET", "/x?y=1"));
    assert_eq!(seen[0].field("user-agent"), Some("sluice"));
}

#[test]
fn redirects_are_not_followed() {
    let aim = Server::start(|_| Reply::json(&json!({ "active": true })));
    let to = aim.url("/");
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let server = Server::start(move |_| Reply::new(status).with("location", to.clone()));
        let answer = ask(&server.endpoint("/")).unwrap();
        assert_eq!(answer.object().unwrap_err(), Failure::Status(status));
    }
    assert_eq!(aim.calls(), 0);
}

#[test]
fn only_json_objects_are_believed() {
    for (kind, body, good) in [
        ("application/json", "{}", true),
        ("Application/JSON; charset=utf-8", "{}", true),
        ("application/json", "[]", false),
        ("application/json", "{", false),
        ("application/json", "", false),
        ("application/json", "{}{}", false),
        ("application/json", r#"{"active":false,"active":true}"#, false),
        ("text/html", "{}", false),
        ("application/jsonp", "{}", false),
        ("", "{}", false),
    ] {
        let server = Server::start(move |_| Reply::new(200).with("content-type", kind).body(body));
        let object = ask(&server.endpoint("/")).unwrap().object();
        assert_eq!(object.is_ok(), good, "{kind} {body}");
    }
    // Thousands of brackets end no thread.
    let deep = [b"{\"a\":".repeat(20_000), b"1".to_vec(), b"}".repeat(20_000)].concat();
    let server = Server::start(move |_| {
        Reply::new(200).with("content-type", "application/json").body(deep.clone())
    });
    assert!(ask(&server.endpoint("/")).unwrap().object().is_err());
}

#[test]
fn answers_and_waiting_have_bounds() {
    for chunked in [false, true] {
        let server = Server::start(move |_| {
            let reply = Reply::new(200).body(vec![b'x'; limits::ENDPOINT_ANSWER + 1]);
            if chunked { reply.with("transfer-encoding", "chunked") } else { reply }
        });
        assert_eq!(ask(&server.endpoint("/")).unwrap_err(), Failure::TooLarge);
    }
    let server = Server::start(|_| Reply::new(200).body(vec![b'x'; limits::ENDPOINT_ANSWER]));
    assert_eq!(ask(&server.endpoint("/")).unwrap().body.len(), limits::ENDPOINT_ANSWER);

    let server = Server::start(|_| Reply::new(200).after_ms(60_000));
    let begun = Instant::now();
    let endpoint = snapshot::Endpoint { timeout_ms: 200, ..server.endpoint("/") };
    assert_eq!(ask(&endpoint).unwrap_err(), Failure::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn who_is_not_there_is_not_asked() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |url: &str| snapshot::Endpoint {
        url: url.into(),
        allow_private: true,
        timeout_ms: 2_000,
        ..Default::default()
    };
    assert_eq!(ask(&at(&format!("http://{gone}/"))).unwrap_err(), Failure::Unreachable);
    for url in ["", "nonsense", "ftp://127.0.0.1/", "file:///etc/passwd", "http://u:p@127.0.0.1/"] {
        assert_eq!(ask(&at(url)).unwrap_err(), Failure::Unknown, "{url}");
    }
}

#[test]
fn addresses_are_guarded_however_they_are_written() {
    let server = Server::start(|_| Reply::new(200));
    let port = server.address.port();
    let at = |host: &str, allow_private| snapshot::Endpoint {
        url: format!("http://{host}:{port}/"),
        allow_private,
        timeout_ms: 2_000,
        ..Default::default()
    };
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        assert_eq!(ask(&at(host, false)).unwrap_err(), Failure::Forbidden, "{host}");
    }
    assert_eq!(server.calls(), 0);
    for host in ["127.0.0.1", "localhost", "0x7f.1"] {
        assert_eq!(ask(&at(host, true)).unwrap().status, 200, "{host}");
    }
    // Never, even so: all of them could reach this machine, or a cloud's metadata.
    for host in ["0.0.0.0", "[::]", "169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
        assert_eq!(ask(&at(host, true)).unwrap_err(), Failure::Forbidden, "{host}");
    }
    assert_eq!(server.calls(), 3);
}

#[test]
fn connections_are_used_again_by_those_that_reach_alike() {
    let server = Server::start(|seen| Reply::new(200).body(seen.path.clone()));
    let clients = Clients::default();
    let (one, two) = (server.endpoint("/1"), server.endpoint("/2"));
    let build = |from| Endpoint::build(from, None, &Snapshot::default()).unwrap();
    // As the next plan builds them.
    let endpoints = [build(&one), build(&two), build(&one)];
    run(async {
        for endpoint in &endpoints {
            assert_eq!(clients.ask(endpoint, Question::default()).await.unwrap().status, 200);
        }
    });
    assert_eq!(clients.ways(), 1);
    let public = snapshot::Endpoint { allow_private: false, ..one };
    assert_eq!(ask_with(&clients, &public).unwrap_err(), Failure::Forbidden);
}

#[test]
fn servers_are_verified() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server =
        |names: &[&str]| Server::start_tls(&ours.issue(names), None, |_| Reply::json(&json!({})));
    let (good, misnamed) = (server(&["127.0.0.1"]), server(&["as.example"]));
    let trust = |authority: &Authority| Trust { roots: vec![authority.der()], crls: vec![] };
    let snapshot = Snapshot { trust: vec![trust(&ours), trust(&other)], ..Snapshot::default() };
    let ask = |server: &Server, trust| {
        let from = snapshot::Endpoint { trust, ..server.endpoint("/") };
        let endpoint = Endpoint::build(&from, None, &snapshot).unwrap();
        run(Clients::default().ask(&endpoint, Question::default()))
    };
    assert_eq!(ask(&good, Some(0)).unwrap().status, 200);
    assert_eq!(good.seen()[0].version, hyper::Version::HTTP_2);
    assert_eq!(ask(&good, Some(1)).unwrap_err(), Failure::Unreachable);
    assert_eq!(ask(&misnamed, Some(0)).unwrap_err(), Failure::Unreachable);
    assert_eq!((good.calls(), misnamed.calls()), (1, 0));
    let from = snapshot::Endpoint { trust: Some(7), ..good.endpoint("/") };
    assert_eq!(Endpoint::build(&from, None, &snapshot).unwrap_err().0, "ca");
}
