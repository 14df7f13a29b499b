//! Changing the configuration while traffic flows.

use tests::load::{Judge, Load, ok};
use tests::origin::answer_with;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, eventually, get};

/// An origin that answers with what of a version reached it: the path's and the host's.
fn versioned_origin() -> Origin {
    Origin::start(|seen| {
        answer_with(
            "200 OK",
            "",
            &format!("{} {}", seen.target, seen.field("host").unwrap_or("none")),
        )
    })
}

/// A spec that puts its number into two places of a request that the origin can see.
fn version(origin: &Origin, n: usize) -> String {
    Spec::to(origin.address())
        .route(&format!("rewrite: {{ replace_prefix: /v{n} }}"))
        .upstream(&format!("host_header: {{ value: v{n}.test }}"))
        .text()
}

/// The one version that an answer shows.
fn seen_version(response: &Response) -> Result<usize, String> {
    let text = response.text();
    let parsed = text.split_once(' ').and_then(|(path, host)| {
        let path: usize = path.strip_prefix("/v")?.strip_suffix("/x")?.parse().ok()?;
        let host: usize = host.strip_prefix('v')?.strip_suffix(".test")?.parse().ok()?;
        Some((path, host))
    });
    match parsed {
        Some((path, host)) if path == host => Ok(path),
        Some((path, host)) => Err(format!("a mix of versions {path} and {host}")),
        None => Err(format!("{} {text:?}", response.head.start)),
    }
}

/// A connection stays on its shard, and a shard never goes back.
fn monotonic() -> Judge {
    let mut last = 0;
    Box::new(move |response| {
        let version = seen_version(response)?;
        if version < last {
            return Err(format!("version {version} after {last}"));
        }
        last = version;
        Ok(())
    })
}

#[test]
fn a_thousand_applies_fail_nothing_and_mix_nothing() {
    let origin = versioned_origin();
    let mut gateway = Gateway::start(&version(&origin, 0));
    // Half of the connections live through all of it (never renewed: renewing would reset what
    // the judge knows about order, as another shard may answer).
    let steady = Load::start(gateway.address(), 4, 0, &get("/x"), monotonic);
    let fresh = Load::start(gateway.address(), 4, 20, &get("/x"), || {
        Box::new(|r| seen_version(r).map(drop))
    });
    for n in 1..=1_000 {
        gateway.apply(&version(&origin, n));
    }
    let answered = || gateway.ask(get("/x"));
    assert!(
        eventually(PATIENCE, || seen_version(&answered()) == Ok(1_000)),
        "the last version does not serve"
    );
    steady.await_more(10);
    let served = steady.stop_clean() + fresh.stop_clean();
    assert!(served > 1_000, "only {served} requests were made meanwhile");
    let status = gateway.admin_json("/v1/status");
    assert_eq!(status["converged"], true, "{status}");
    assert!(status["epoch"].as_u64() >= Some(1_001), "{status}");
}

#[test]
fn an_applied_version_serves_on_every_shard_when_apply_returns() {
    let origin = versioned_origin();
    let mut gateway = Gateway::start(&version(&origin, 0));
    // Enough connections to meet both shards.
    let mut clients: Vec<_> = (0..16).map(|_| gateway.connect()).collect();
    for n in 1..=20 {
        gateway.apply(&version(&origin, n));
        for client in &mut clients {
            assert_eq!(seen_version(&client.ask(get("/x"))), Ok(n), "an apply that has returned");
        }
    }
}

#[test]
fn bad_specs_are_refused_whole_while_serving() {
    let origin = versioned_origin();
    let mut gateway = Gateway::start(&version(&origin, 7));
    let epoch = gateway.admin_json("/v1/status")["epoch"].clone();
    let load = Load::start(gateway.address(), 4, 20, &get("/x"), || {
        Box::new(|response| match seen_version(response)? {
            7 => Ok(()),
            other => Err(format!("version {other} of a refused spec")),
        })
    });
    let good = version(&origin, 8);
    for (what, bad) in [
        ("no YAML", "version: [1".to_owned()),
        ("empty", String::new()),
        ("a list", "- 1\n".to_owned()),
        ("an unknown field", good.replace("upstreams:", "upstreans:")),
        ("an unknown field deep inside", good.replace("host_header:", "host_headr:")),
        ("a dangling upstream", good.replace("upstream: origin", "upstream: orign")),
        ("a bad regex", good.replace("path: { prefix: / }", "path: { regex: \"(\" }")),
        (
            "a huge regex",
            good.replace(
                "path: { prefix: / }",
                &format!("path: {{ regex: \"{}\" }}", "(a{1,1000}){1,1000}"),
            ),
        ),
        ("a wrong type", good.replace("version: 1", "version: one")),
        ("another version", good.replace("version: 1", "version: 2")),
        ("a bad port", good.replace("127.0.0.1:{PORT}", "127.0.0.1:123456")),
        ("a negative number", good.replace("weight: 1", "weight: -1")),
        (
            "a duplicate name",
            good.replace(
                "routes:\n",
                "routes:\n  - { name: all, match: { path: { exact: /dup } }, upstream: origin }\n",
            ),
        ),
        ("a bad prefix", good.replace("prefix: /v8", "prefix: v8 x")),
    ] {
        assert_ne!(bad, good, "{what}: nothing was broken");
        let (status, body) = gateway.try_apply(&bad);
        assert!((400..500).contains(&status), "{what}: {status} {body}");
        assert!(body.len() > 40, "{what}: the error says too little: {body}");
    }
    load.await_more(100);
    load.stop_clean();
    assert_eq!(
        gateway.admin_json("/v1/status")["epoch"],
        epoch,
        "a refused spec changed the epoch"
    );
    gateway.apply(&good);
    assert_eq!(seen_version(&gateway.ask(get("/x"))), Ok(8), "a good spec is taken afterwards");
}

#[test]
fn listeners_come_and_go() {
    let origin = versioned_origin();
    let one = version(&origin, 1);
    let two = one.replace(
        "upstreams:\n",
        "  - { name: second, listen: \"127.0.0.1:{PORT2}\" }\nupstreams:\n",
    );
    let mut gateway = Gateway::start(&one);
    let second = gateway.address_of("PORT2");
    let load = Load::start(gateway.address(), 4, 20, &get("/x"), ok);
    for _ in 0..3 {
        assert!(tests::Client::try_connect(second).is_err(), "nobody listens there yet");
        gateway.apply(&two);
        let serves = || {
            tests::Client::try_connect(second).is_ok_and(|mut client| {
                client.send(get("/x")).response().is_ok_and(|r| r.status == 200)
            })
        };
        assert!(eventually(PATIENCE, serves), "a listener that was added does not serve");
        gateway.apply(&one);
        assert!(
            eventually(PATIENCE, || tests::Client::try_connect(second).is_err()),
            "a listener that was removed is still open"
        );
    }
    load.stop_clean();
}

#[test]
fn routes_come_and_go() {
    let origin = Origin::echo();
    let base = Spec::to(origin.address()).matching("hosts: [a.test]");
    let more = base.clone().also_route(
        "{ name: extra, match: { hosts: [b.test], path: { prefix: / } }, upstream: origin }",
    );
    let mut gateway = Gateway::of(&base);
    let mut client = gateway.connect();
    let ask_b = "GET /x HTTP/1.1\r\nHost: b.test\r\n\r\n";
    for _ in 0..5 {
        assert_eq!(client.ask(ask_b).status, 404);
        gateway.apply(&more.text());
        assert_eq!(client.ask(ask_b).status, 200);
        gateway.apply(&base.text());
    }
}

#[test]
fn targets_move_without_a_failure() {
    let (old, new) = (Origin::echo(), Origin::echo());
    let mut gateway = Gateway::of(&Spec::to(old.address()));
    let load = Load::start(gateway.address(), 4, 50, &get("/x"), ok);
    for _ in 0..20 {
        gateway.apply(&Spec::to(new.address()).text());
        gateway.apply(&Spec::to(old.address()).text());
    }
    gateway.apply(&Spec::to(new.address()).text());
    load.await_more(100);
    load.stop_clean();
    let before = old.completed();
    for _ in 0..20 {
        assert_eq!(gateway.ask(get("/x")).status, 200);
    }
    assert_eq!(old.completed(), before, "the old target is still asked");
}

#[test]
fn a_request_keeps_the_plan_it_began_with() {
    let origin = versioned_origin();
    let slow = Origin::start(|seen| {
        answer_with("200 OK", "", &seen.target).after(std::time::Duration::from_millis(700))
    });
    let mut gateway =
        Gateway::of(&Spec::to(slow.address()).route("rewrite: { replace_prefix: /old }"));
    let mut client = gateway.connect();
    client.send(get("/x"));
    slow.await_seen(1);
    gateway.apply(&version(&origin, 2));
    let response = client.response().unwrap_or_else(|e| panic!("begun before the apply: {e:?}"));
    assert_eq!(response.text(), "/old/x");
    assert_eq!(seen_version(&client.ask(get("/x"))), Ok(2), "the next one on the same connection");
}

#[test]
fn rollback_serves_the_earlier_version() {
    let origin = versioned_origin();
    let mut gateway = Gateway::start(&version(&origin, 1));
    let first = gateway.admin_json("/v1/status")["revision"].as_u64().unwrap();
    gateway.apply(&version(&origin, 2));
    gateway.apply(&version(&origin, 3));
    let (status, body) = gateway.admin_post("/v1/rollback", "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(seen_version(&gateway.ask(get("/x"))), Ok(2));
    let (status, body) = gateway.admin_post(&format!("/v1/rollback?to={first}"), "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(seen_version(&gateway.ask(get("/x"))), Ok(1));
    let (status, body) = gateway.admin_post("/v1/rollback?to=999999", "");
    assert!((400..500).contains(&status), "{status} {body}");
    assert_eq!(seen_version(&gateway.ask(get("/x"))), Ok(1));
}
