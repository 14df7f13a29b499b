//! Things of the running spec, one by one.

use serde_json::json;
use tests::spec::Spec;
use tests::{Gateway, Origin, cli, get};

use super::{call, json, problem};

fn gateway(origin: &Origin) -> Gateway {
    let more = "authenticators: [ { name: keys, api_key: {} } ]\nconsumers: [ { name: acme } ]\n";
    Gateway::of(&Spec::to(origin.address()).also(more))
}

#[test]
fn a_route_comes_changes_moves_and_goes() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let gateway = gateway(&origin);
    let route = json!({"match": {"path": "/new", "methods": ["POST"]}, "upstream": "origin"});
    let put = |fields: &[&str], query: &str| {
        let path = format!("/v1/spec/routes/new{query}");
        call(&gateway, "", ("PUT", &path), fields, &route.to_string())
    };
    let dry = put(&[], "?dry_run=true");
    assert_eq!((dry.status, &json(&dry)["dry_run"]), (200, &json!(true)), "{}", dry.text());
    problem(&call(&gateway, "", ("GET", "/v1/spec/routes/new"), &[], ""), 404);
    let made = put(&["If-None-Match: *"], "?message=first&before=all");
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.field("location"), Some("/v1/spec/routes/new"));
    problem(&put(&["If-None-Match: *"], ""), 412);
    let tag = made.field("etag").expect("a tag").to_owned();
    let read = call(&gateway, "", ("GET", "/v1/spec/routes/new"), &[], "");
    assert_eq!((read.status, read.field("etag")), (200, Some(&*tag)));
    assert_eq!(json(&read)["match"]["path"], json!({"prefix": "/new"}));
    let names = |text: &str| -> Vec<String> {
        let rows: Vec<serde_json::Value> = serde_json::from_str(text).expect("a list");
        rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
    };
    let list =
        |query: &str| call(&gateway, "", ("GET", &format!("/v1/spec/routes{query}")), &[], "");
    assert_eq!(names(&list("").text()), ["new", "all"]);
    // A page at a time.
    let page = list("?limit=1");
    assert_eq!(names(&page.text()), ["new"]);
    let link = page.field("link").expect("a link").to_owned();
    let next = link.trim_start_matches('<').split('>').next().expect("a path").to_owned();
    let page = call(&gateway, "", ("GET", &next), &[], "");
    assert_eq!((names(&page.text()), page.field("link")), (vec!["all".to_owned()], None));
    assert_eq!(names(&list("?prefix=ne").text()), ["new"]);
    assert_eq!(names(&list("?workspace=shop").text()), Vec::<String>::new());
    problem(&list("?limit=0"), 400);
    problem(&list("?cursor=%21"), 400);
    problem(&list("?nothing=1"), 400);

    let patch = |fields: &[&str], query: &str, body: &str| {
        let path = format!("/v1/spec/routes/new{query}");
        call(&gateway, "", ("PATCH", &path), fields, body)
    };
    let body = r#"{"match": {"methods": null}, "workspace": "shop"}"#;
    problem(&patch(&["If-Match: \"other\""], "", body), 412);
    let changed = patch(&[&format!("If-Match: {tag}")], "?after=all", body);
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_ne!(changed.field("etag"), Some(&*tag));
    assert_eq!(names(&list("").text()), ["all", "new"]);
    assert_eq!(names(&list("?workspace=shop").text()), ["new"]);
    assert_eq!(gateway.ask(get("/new")).status, 200);

    // What is wrong is told, and nothing has changed.
    let wrong = patch(&[], "", r#"{"upstream": "nowhere"}"#);
    assert!(problem(&wrong, 422).contains("1 error"), "{}", wrong.text());
    assert!(json(&wrong)["problems"][0]["field"].as_str().unwrap().starts_with("routes[1]"));
    problem(&patch(&[], "", r#"{"name": "other"}"#), 409);
    problem(&patch(&[], "", "[1]"), 400);
    problem(&patch(&[], "", "{"), 400);
    problem(&patch(&["Content-Type: text/plain"], "", body), 415);
    problem(&call(&gateway, "", ("DELETE", "/v1/spec/upstreams/origin"), &[], ""), 422);

    let gone = call(&gateway, "", ("DELETE", "/v1/spec/routes/new?author=ada"), &[], "");
    assert_eq!(gone.status, 200, "{}", gone.text());
    problem(&call(&gateway, "", ("DELETE", "/v1/spec/routes/new"), &[], ""), 404);
    let revisions = gateway.admin_json("/v1/revisions");
    assert_eq!(
        (&revisions[0]["author"], &revisions[0]["message"]),
        (&json!("ada"), &json!("delete route new"))
    );
    assert_eq!(revisions[2]["message"], "first");
    // The canonical form is the source now, and can be applied again.
    let running = gateway.admin_json("/v1/spec");
    let source = running["source"].as_str().expect("a source");
    assert!(source.contains("\nroutes:\n"), "{source}");
    let again =
        call(&gateway, "", ("POST", "/v1/apply"), &["Content-Type: application/yaml"], source);
    assert_eq!(json(&again)["unchanged"], true, "{}", again.text());
}

#[test]
fn keys_of_a_consumer_are_told_once() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let gateway = gateway(&origin);
    let auth = call(&gateway, "", ("PATCH", "/v1/spec/routes/all"), &[], r#"{"auth": "keys"}"#);
    assert_eq!(auth.status, 200, "{}", auth.text());
    let path = "/v1/spec/consumers/acme/keys";
    let wish = r#"{"prefix": "acme", "expires": "2099-01-01"}"#;
    let made = call(&gateway, "", ("POST", path), &["Idempotency-Key: one"], wish);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = json(&made);
    let key = made["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("acme_"));
    let with = |key: &str| {
        gateway.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n")).status
    };
    assert_eq!((with(&key), with("acme_other")), (200, 401));
    // The same again is the same answer without the key; nothing is made twice.
    let again = call(&gateway, "", ("POST", path), &["Idempotency-Key: one"], wish);
    assert_eq!((again.status, again.field("idempotency-replayed")), (201, Some("true")));
    assert_eq!((&json(&again)["key"], &json(&again)["sha256"]), (&json!(null), &made["sha256"]));
    problem(&call(&gateway, "", ("POST", path), &["Idempotency-Key: one"], "{}"), 422);
    let rows = gateway.admin_json(path);
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    for told in ["/v1/spec", "/v1/revisions/2", "/v1/audit", path, "/v1/spec/consumers/acme"] {
        assert!(!gateway.admin(told).1.contains(&key[5..]), "{told} tells the key");
    }
    problem(&call(&gateway, "", ("POST", path), &[], r#"{"prefix": "a b"}"#), 400);
    problem(&call(&gateway, "", ("POST", "/v1/spec/consumers/nobody/keys"), &[], "{}"), 404);
    let one = format!("{path}/{}", made["sha256"].as_str().unwrap());
    assert_eq!(call(&gateway, "", ("DELETE", &one), &[], "").status, 200);
    problem(&call(&gateway, "", ("DELETE", &one), &[], ""), 404);
    assert_eq!(with(&key), 401);
}

#[test]
fn secrets_stay_when_something_else_changes() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let more = "authenticators: [ { name: signed, signature: {} } ]\n\
        consumers: [ { name: acme, signing_keys: [ { id: k, secret: { inline: a-secret-of-32-bytes-and-some-more } } ] } ]\n";
    let gateway = Gateway::of(&Spec::to(origin.address()).route("auth: signed").also(more));
    let read = call(&gateway, "", ("GET", "/v1/spec/consumers/acme"), &[], "");
    assert!(
        read.text().contains("[redacted]") && !read.text().contains("a-secret"),
        "{}",
        read.text()
    );
    problem(&call(&gateway, "", ("PUT", "/v1/spec/consumers/acme"), &[], &read.text()), 422);
    let patched =
        call(&gateway, "", ("PATCH", "/v1/spec/consumers/acme"), &[], r#"{"scopes": ["a"]}"#);
    assert_eq!(patched.status, 200, "{}", patched.text());
    assert!(!patched.text().contains("a-secret"));
    for told in ["/v1/spec", "/v1/revisions/2", "/v1/audit", "/v1/spec/consumers"] {
        let (status, text) = gateway.admin(told);
        assert!(status == 200 && !text.contains("a-secret"), "{told}: {text}");
    }
}

#[test]
fn a_spec_is_tried_before_it_is_applied() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let gateway = gateway(&origin);
    for path in ["/a", "/b", "/a"] {
        assert_eq!(gateway.ask(get(path)).status, 200);
    }
    let spec = gateway.admin_json("/v1/spec")["source"].as_str().unwrap().to_owned();
    let other = spec.replace("prefix: /", "prefix: /a");
    assert_ne!(other, spec);
    let ask = |order: serde_json::Value| {
        let answer = call(&gateway, "", ("POST", "/v1/try"), &[], &order.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        json(&answer)
    };
    let mut tried = json!({});
    let seen = tests::eventually(tests::PATIENCE, || {
        tried = ask(json!({"spec": other}));
        tried["tried"] == 2
    });
    assert!(seen, "{tried}");
    assert_eq!(
        (&tried["different"], &tried["requests"][0]["change"]),
        (&json!(1), &json!("refused"))
    );
    assert_eq!(tried["requests"][0]["path_and_query"], "/b");
    let given = json!([{"method": "GET", "path_and_query": "/a/b"}, {"method": "GET", "path_and_query": "/../x"}]);
    let tried = ask(json!({"spec": other, "requests": given, "all": true}));
    assert_eq!(
        (&tried["requests"][0]["now"]["route"], &tried["requests"][1]["then"]["result"]),
        (&json!("all"), &json!("bad_path")),
        "{tried}"
    );
    problem(&call(&gateway, "", ("POST", "/v1/try"), &[], r#"{"spec": "version: 2"}"#), 422);
    let checked = call(
        &gateway,
        "",
        ("POST", "/v1/validate"),
        &["Content-Type: application/yaml"],
        "version: 2",
    );
    assert_eq!((checked.status, &json(&checked)["ok"]), (200, &json!(false)));
}

#[test]
fn the_command_line_does_all_of_it() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let mut gateway = gateway(&origin);
    let state = gateway.dir().join("state").display().to_string();
    let run = |args: &[&str]| {
        let outcome = cli(&[args, &["--state", &state]].concat());
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        outcome.stdout
    };
    assert_eq!(run(&["entity", "list", "routes"]), "all\n");
    let route =
        gateway.spec_file("route.json", r#"{"match": {"path": "/x"}, "upstream": "origin"}"#);
    run(&["entity", "put", "routes", "x", "-f", route.to_str().unwrap(), "-m", "an x"]);
    run(&["entity", "patch", "routes", "x", r#"{"workspace": "shop"}"#]);
    assert!(run(&["entity", "get", "routes", "x"]).contains("\"shop\""));
    run(&["entity", "delete", "routes", "x", "--dry-run"]);
    assert_eq!(run(&["entity", "list", "routes", "--workspace", "shop"]), "x\n");
    run(&["entity", "delete", "routes", "x"]);
    assert!(run(&["entity", "new-key", "acme"]).contains("slk_"));
    let audit = run(&["audit"]);
    for word in [
        "putRoute",
        "patchRoute",
        "deleteRoute",
        "createConsumerKey",
        "spec/routes/x",
        "127.0.0.1",
        "done",
    ] {
        assert!(audit.contains(word), "no {word} in\n{audit}");
    }
    assert!(run(&["audit", "--verify"]).contains("is whole"));
    let spec = gateway.spec_file(
        "other.yaml",
        &gateway.admin_json("/v1/spec")["source"]
            .as_str()
            .unwrap()
            .replace("prefix: /", "prefix: /a"),
    );
    let tried = run(&["try", "-f", spec.to_str().unwrap(), "--url", "GET /b"]);
    assert!(tried.contains("refused") && tried.contains("1 different"), "{tried}");
    assert!(run(&["audit", "--json", "--limit", "2"]).contains("\"prev_hash\""));
    assert!(cli(&["openapi"]).stdout.contains("\"openapi\": \"3.1.0\""));
}

#[test]
fn the_first_of_its_kind_may_come() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let mut gateway = gateway(&origin);
    let put = |path: &str, body: &str| call(&gateway, "", ("PUT", path), &[], body);
    problem(&put("/v1/spec/apis/shop", r#"{"openapi": "/nowhere.yaml"}"#), 422);
    let limit = put("/v1/spec/limits/plan", r#"{"requests": 5, "per": "1s", "mode": "local"}"#);
    assert!([200, 201].contains(&limit.status), "{}", limit.text());
    let document = "openapi: 3.1.0\npaths: {/a: {get: {responses: {}}}}\n";
    let file = gateway.spec_file("shop-api.yaml", document).display().to_string();
    let api = json!({"openapi": file}).to_string();
    let made = call(&gateway, "", ("PUT", "/v1/spec/apis/shop"), &[], &api);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(gateway.admin_json("/v1/spec/apis")[0]["name"], "shop");
}
