//! The response cache, as clients and people who operate it see it.

use std::time::Duration;

use tests::certificates::Authority;
use tests::http2::H2Client;
use tests::http2::client::request;
use tests::origin::{Script, Seen, answer_with};
use tests::process::cli;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, TlsClient, eventually, get};

/// A body of so many bytes that is another one for each target.
fn body(target: &str, bytes: usize) -> String {
    format!("{target};").repeat(bytes / (target.len() + 1) + 1)[..bytes].to_owned()
}

/// Fresh for an hour, of the size that `bytes=` in the target says, with the target as its tag.
fn fresh(seen: &Seen) -> Script {
    let bytes = seen.target.split_once("bytes=").map_or(9, |(_, n)| n.parse().expect("a size"));
    let tag = seen.target.split('?').next().unwrap_or_default().replace('/', "t");
    let fields =
        format!("Cache-Control: max-age=3600\r\nSurrogate-Key: all {tag}\r\nETag: \"e\"\r\n");
    answer_with("200 OK", &fields, &body(&seen.target, bytes))
}

fn gateway(origin: &Origin, cache: &str) -> Gateway {
    Gateway::of(
        &Spec::to(origin.address()).listener("h2c: true").route(&format!("cache: {{ {cache} }}")),
    )
}

#[test]
fn what_one_shard_has_fetched_all_have_and_purges_reach_all() {
    let origin = Origin::start(fresh);
    let gateway = gateway(&origin, "");
    let all_hit = |target: &str| {
        // Each connection is some shard's.
        (0..20).all(|_| {
            let response = gateway.ask(get(target));
            assert_eq!(response.text(), body(target, 9));
            response.field("cache-status").expect("is told").starts_with("sluice; hit; ttl=")
        })
    };
    assert!(!all_hit("/a") && all_hit("/a"));
    assert!(!all_hit("/b") && all_hit("/b"));
    let state = gateway.dir().join("state").display().to_string();
    let purge = |what: &[&str]| {
        let outcome = cli(&[&["cache", "purge", "--state", &state], what].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    };
    assert_eq!(&purge(&["--tag", "ta"])[..17], "1 answers purged;");
    assert!(all_hit("/b") && !all_hit("/a") && all_hit("/a"));
    let kept = cli(&["get", "cache", "--state", &state]);
    assert!(kept.stdout.starts_with("2 answers, ") && kept.stdout.contains("all "), "{kept:?}");
    assert_eq!(&purge(&["--prefix", "/b", "--host", "A.test"])[..17], "1 answers purged;");
    assert!(all_hit("/a") && !all_hit("/b"));
    assert_eq!(&purge(&["--route", "other"])[..17], "0 answers purged;");
    assert_eq!(&purge(&["--all"])[..17], "2 answers purged;");
    let (status, text) = gateway.admin_post("/v1/cache/purge", "");
    assert_eq!(status, 400, "{text}");
    let audit = gateway.admin_json("/v1/audit");
    assert!(audit.to_string().contains("cache/purge tag=ta"), "{audit}");
    assert!(gateway.metric("sluice_cache_purged_total").is_some_and(|count| count >= 4.0));
}

#[test]
fn it_serves_clients_of_all_kinds() {
    let authority = Authority::new("Cache");
    let origin = Origin::start(fresh);
    let scratch = tests::scratch::Scratch::new();
    let identity = authority.server(&["a.test"]);
    scratch.file("web.pem", &identity.cert);
    scratch.file("web.key", &identity.key);
    let spec = Spec::to(origin.address()).listener("h2c: true").route("cache: {}").also_listener(
        "PORTTLS",
        "tls: { certificates: [ { cert: \"{DIR}/web.pem\", key: \"{DIR}/web.key\" } ] }",
    );
    let mut gateway = Gateway::start_in(scratch, &spec.text(), 2);
    let secure = gateway.address_of("PORTTLS");
    let tls = TlsClient::new(&authority, "a.test");
    for bytes in [0, 10, 16_384, 16_385, 300_000] {
        let target = format!("/x?bytes={bytes}");
        let wanted = body(&target, bytes);
        for _ in 0..2 {
            let response = gateway.ask(get(&target));
            assert!(response.text() == wanted, "{bytes}");
            let mut h2 = H2Client::clear(gateway.address());
            assert!(h2.ask(&request("GET", &target), b"").text() == wanted, "{bytes}");
            // Another scheme is another answer.
            let mut h2 = H2Client::tls(secure, &tls);
            assert!(h2.ask(&request("GET", &target), b"").text() == wanted, "{bytes}");
        }
        let response = gateway.ask(get(&target));
        assert_eq!(response.field("content-length"), Some(&*bytes.to_string()));
        assert!(response.field("cache-status").expect("is told").contains("; hit;"));
    }
    // Several requests at once, answered one after the other; one with a body that nobody reads.
    let mut client = gateway.connect();
    let with_body = "HEAD /x?bytes=10 HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.send(
        [&*get("/x?bytes=10"), with_body, &get("/x?bytes=300000"), &get("/x?bytes=10")].concat(),
    );
    assert_eq!(client.response().expect("an answer").body.len(), 10);
    let head = client.response_to("HEAD").expect("an answer");
    assert_eq!((head.field("content-length"), head.body.len()), (Some("10"), 0));
    assert_eq!(client.response().expect("an answer").body.len(), 300_000);
    assert_eq!(client.response().expect("an answer").body.len(), 10);
}

#[test]
fn each_consumer_has_answers_of_its_own_by_choice() {
    let origin = Origin::start(|seen| {
        let who = seen.field("x-consumer-id").unwrap_or("nobody").to_owned();
        answer_with("200 OK", "Cache-Control: max-age=3600\r\n", &who)
    });
    // Of key-acme and key-globex.
    const ACME: &str = "6371cb7a907cc8f10740229732c4b6164b285169494b85304468313513427878";
    const GLOBEX: &str = "6434a00879acb6a4faed427b6463c32e2e5e3736404258155c408f29558d268d";
    let spec = Spec::to(origin.address())
        .route("auth: [ keys ], cache: {}")
        .also_route(
            "{ name: own, match: { path: { prefix: /own } }, upstream: origin, auth: [ keys ], \
             cache: { key: { consumer: true } } }",
        )
        .also("authenticators: [ { name: keys, api_key: { from: [ { header: x-api-key } ] } } ]")
        .also(&format!(
            "consumers: [ {{ name: acme, api_keys: [ {{ sha256: \"{ACME}\" }} ] }}, \
             {{ name: globex, api_keys: [ {{ sha256: \"{GLOBEX}\" }} ] }} ]"
        ));
    let gateway = Gateway::of(&spec);
    let ask = |target: &str, key: &str| {
        gateway.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {key}\r\n\r\n"))
    };
    let hits = |target: &str, who: &str| {
        let response = ask(target, &format!("key-{who}"));
        assert_eq!(response.text(), who, "{target}");
        response.field("cache-status").expect("is told").contains("; hit;")
    };
    // Nothing says that others may have it, so nobody has it again.
    for _ in 0..2 {
        assert!(!hits("/all", "acme") && !hits("/all", "globex"));
    }
    assert!(!hits("/own", "acme") && !hits("/own", "globex"));
    assert!(hits("/own", "acme") && hits("/own", "globex"));
    // Whoever is not let in does not get it either.
    assert_eq!(ask("/own", "key-nobody").status, 401);
}

#[test]
fn requests_on_all_shards_wait_for_one() {
    let origin = Origin::start(|seen| match seen.target.as_str() {
        "/ours" => Script::default().sleep(Duration::from_millis(400)).send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 4\r\n\r\nours",
        ),
        _ => Script::default()
            .sleep(Duration::from_millis(400))
            .send("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 4\r\n\r\nmine"),
    });
    let gateway = gateway(&origin, "");
    for (target, times) in [("/ours", 1), ("/mine", 24)] {
        origin.forget();
        let mut clients: Vec<_> = (0..24).map(|_| gateway.connect()).collect();
        clients.iter_mut().for_each(|client| _ = client.send(get(target)));
        for client in &mut clients {
            assert_eq!(client.response().expect("an answer").text(), target[1..]);
        }
        assert_eq!(origin.seen().len(), times, "{target}");
    }
}

#[test]
fn it_never_keeps_more_than_it_may() {
    let origin = Origin::start(fresh);
    let text = |bytes: &str| {
        Spec::to(origin.address())
            .route("cache: {}")
            .also(&format!("cache: {{ max_bytes: {bytes} }}"))
            .text()
    };
    let mut gateway = Gateway::start_with(&text("1MiB"), 2);
    let mut client = gateway.connect();
    for n in 0..200 {
        let response = client.ask(get(&format!("/{n}?bytes=20000")));
        assert_eq!(response.body.len(), 20_000);
        let bytes = gateway.metric("sluice_cache_bytes");
        assert!(bytes.is_none_or(|bytes| bytes <= 1_048_576.0), "{bytes:?}");
    }
    let metric = |name: &str| gateway.metric(name).unwrap_or_default();
    assert!(metric("sluice_cache_bytes") > 900_000.0);
    assert!(metric("sluice_cache_evicted_total") >= 100.0);
    // What is too large is only relayed.
    for _ in 0..2 {
        let response = client.ask(get("/large?bytes=300000"));
        assert_eq!(response.body.len(), 300_000);
        assert!(response.field("cache-status").expect("is told").contains("fwd=uri-miss"));
    }
    drop(client);
    gateway.apply(&text("0"));
    assert!(eventually(PATIENCE, || gateway.metric("sluice_cache_objects") == Some(0.0)));
}

#[test]
fn a_dead_upstream_is_covered_by_what_was_good() {
    let origin = Origin::start(|seen| {
        let fields = "Cache-Control: max-age=1, stale-if-error=600\r\nAge: 1\r\n";
        answer_with("200 OK", fields, &seen.target)
    });
    let gateway = gateway(&origin, "");
    assert_eq!(gateway.ask(get("/a")).text(), "/a");
    drop(origin);
    let response = gateway.ask(get("/a"));
    assert_eq!((response.status, response.text()), (200, "/a".into()));
    assert!(response.field("cache-status").expect("is told").starts_with("sluice; fwd=stale"));
    assert!(gateway.ask(get("/b")).status >= 502);
}
