//! Who may do what.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tests::process::{self, cli, sluice_binary};
use tests::scratch::Scratch;
use tests::spec::{Names, Spec};
use tests::{Authority, Gateway, Origin, PATIENCE, TlsClient, eventually};

use super::{call, json, problem};

fn token() -> (String, String) {
    let outcome = cli(&["keys", "admin-token", "--json"]);
    let made: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let field = |name: &str| made[name].as_str().expect("text").to_owned();
    (field("token"), field("sha256"))
}

/// A gateway with a viewer, an editor, one of the workspace `shop`, and an admin; and their tokens.
fn gateway(origin: &Origin) -> (Gateway, [String; 4]) {
    let made = [token(), token(), token(), token()];
    let roles = ["viewer", "editor", "editor, workspaces: [ shop ]", "admin"];
    let entry = |((_, sha256), role): (&(String, String), &str)| {
        let name = format!("{}{}", &role[..5], role.len());
        format!("{{ name: {name}, token_sha256: \"{sha256}\", role: {role} }}")
    };
    let access: Vec<String> = made.iter().zip(roles).map(entry).collect();
    let text = Spec::to(origin.address())
        .also_route("{ name: shop, workspace: shop, match: { path: /shop }, upstream: origin }")
        .text();
    let listen = "admin: { listen: \"127.0.0.1:{ADMIN}\"";
    assert!(text.contains(listen), "{text}");
    let text = text.replacen(listen, &format!("{listen}, access: [ {} ]", access.join(", ")), 1);
    (Gateway::start(&text), made.map(|(token, _)| token))
}

#[test]
fn roles_and_workspaces_hold() {
    let origin = Origin::start(|_| tests::answer("hello"));
    let (gateway, [viewer, editor, shop, admin]) = gateway(&origin);
    let status = |token: &str, method: &str, path: &str, body: &str| {
        call(&gateway, token, (method, path), &[], body).status
    };
    // Nobody without a token, whatever it is.
    for path in ["/v1/status", "/v1/spec", "/v1/openapi.json", "/v1/nothing", "/v1/audit"] {
        let answer = call(&gateway, "", ("GET", path), &[], "");
        problem(&answer, 401);
        assert!(answer.field("www-authenticate").is_some_and(|field| field.starts_with("Bearer")));
        for wrong in ["slt_wrong", &viewer[1..], &format!("{viewer}x")] {
            assert_eq!(status(wrong, "GET", path, ""), 401, "{path}");
        }
    }
    for field in ["Authorization: Basic YTpi", "Authorization: bearer", "Authorization: Bearer  "] {
        problem(&call(&gateway, "", ("GET", "/v1/status"), &[field], ""), 401);
    }
    assert_eq!(gateway.admin("/healthz").0, 200);

    // Another number each time: what changes nothing is refused to no editor.
    let mut size = 0;
    for (name, token, reads, own, others, listener, admins) in [
        ("viewer", &viewer, 200, 403, 403, 403, 403),
        ("editor", &editor, 200, 200, 200, 200, 403),
        ("shop", &shop, 200, 200, 403, 403, 403),
        ("admin", &admin, 200, 200, 200, 200, 200),
    ] {
        size += 1;
        let patch = &format!("{{\"max_body_bytes\": {size}}}");
        assert_eq!(status(token, "GET", "/v1/spec/routes", ""), reads, "{name}");
        assert_eq!(status(token, "PATCH", "/v1/spec/routes/shop", patch), own, "{name}");
        assert_eq!(status(token, "PATCH", "/v1/spec/routes/all", patch), others, "{name}");
        let limits = r#"{"forwarded": true}"#;
        assert_eq!(
            status(token, "PATCH", "/v1/spec/listeners/web?dry_run=true", limits),
            listener,
            "{name}"
        );
        assert_eq!(status(token, "GET", "/v1/audit", ""), admins, "{name}");
    }
    // Whole specs are judged by what they change, and only an admin changes who may.
    let source = gateway_source(&gateway, &admin);
    let apply = |token: &str, text: &str| {
        call(
            &gateway,
            token,
            ("POST", "/v1/apply?author=root"),
            &["Content-Type: application/yaml"],
            text,
        )
    };
    let of_shop = source.replace("/shop", "/shop2");
    assert!(problem(&apply(&viewer, &of_shop), 403).contains("role editor"));
    assert_eq!(apply(&shop, &of_shop).status, 200);
    let of_all = of_shop.replace("role: viewer", "role: editor");
    assert_ne!(of_all, of_shop);
    assert!(problem(&apply(&editor, &of_all), 403).contains("role admin"));
    assert!(problem(&apply(&shop, &of_all), 403).contains("role admin"));
    let revisions = json(&call(&gateway, &admin, ("GET", "/v1/revisions"), &[], ""));
    // Who is listed is the author, whoever they say they are.
    assert!(revisions[0]["author"].as_str().unwrap().starts_with("edito"), "{revisions}");

    let audit = json(&call(&gateway, &admin, ("GET", "/v1/audit?limit=1000"), &[], ""));
    let rows = audit.as_array().unwrap();
    let outcome = |row: &Value| row["outcome"].as_str().unwrap().to_owned();
    assert!(
        rows.iter().any(|row| outcome(row).contains("role editor")
            && row["actor"].as_str().unwrap().starts_with("viewe")),
        "{audit}"
    );
    assert!(rows.iter().any(|row| outcome(row).contains("workspace `default`")), "{audit}");
    assert!(rows.iter().any(|row| outcome(row) == "done" && row["action"] == "apply"), "{audit}");
    let verdict = json(&call(&gateway, &admin, ("GET", "/v1/audit/verdict"), &[], ""));
    assert_eq!((&verdict["broken"], &verdict["entries"]), (&Value::Null, &rows[0]["seq"]));
    // The user of this machine needs no token of the list.
    let state = gateway.dir().join("state").display().to_string();
    assert_eq!(cli(&["status", "--state", &state]).code, Some(0));
    let address = gateway.admin_address();
    let outcome = cli(&["status", "--admin", &address, "--token", "slt_wrong"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(cli(&["get", "routes", "--admin", &address, "--token", &viewer]).code, Some(0));
}

fn gateway_source(gateway: &Gateway, token: &str) -> String {
    let spec = json(&call(gateway, token, ("GET", "/v1/spec"), &[], ""));
    spec["source"].as_str().expect("a source").to_owned()
}

#[test]
fn certificates_are_proof_over_tls() {
    let scratch = Scratch::new();
    let (authority, other) = (Authority::new("ours"), Authority::new("others"));
    let server = authority.server(&["localhost", "gateway.test"]);
    let ops = authority.client("ops", "spiffe://test/ops");
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("server.pem", &server.cert),
        ("server.key", &server.key),
        ("ops.pem", &ops.cert),
        ("ops.key", &ops.key),
    ] {
        scratch.file(name, text);
    }
    let mut names = Names::new(scratch.path());
    let text = "version: 1
admin:
  listen: 127.0.0.1:{ADMIN}
  tls: { certificate: server.pem, key: server.key, client_ca: ca.pem }
  access: [ { name: ops, certificate: spiffe://test/ops, role: editor } ]
listeners: [ { name: web, listen: '127.0.0.1:{PORT}' } ]
";
    let file = scratch.file("spec.yaml", &names.fill(text));
    let state = scratch.path().join("state").display().to_string();
    let mut gateway = Command::new(sluice_binary())
        .args(["up", "--shards", "1", "--state", &state, "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sluice");
    // The user of this machine finds it by the state directory, over TLS.
    let ready = eventually(PATIENCE, || cli(&["status", "--state", &state]).code == Some(0));
    let port = names.port("ADMIN");
    let ask = |client: &TlsClient| -> Option<u16> {
        let (stream, _) = client.connect(([127, 0, 0, 1], port).into()).ok()?;
        let mut client = tests::Client::over(stream);
        client.send("GET /v1/status HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n");
        client.response().ok().map(|answer| answer.status)
    };
    let known = ask(&TlsClient::new(&authority, "gateway.test").identity(&ops));
    let nobody = ask(&TlsClient::new(&authority, "gateway.test"));
    let foreign = other.client("ops", "spiffe://test/ops");
    let foreign = ask(&TlsClient::new(&authority, "gateway.test").identity(&foreign));
    let third = authority.client("third", "spiffe://test/third");
    let third = ask(&TlsClient::new(&authority, "gateway.test").identity(&third));
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let url = format!("https://localhost:{port}");
    let remote = |more: &[&str]| {
        cli(&[&["status", "--admin", &url, "--ca", &path("ca.pem")], more].concat())
    };
    let by_cert = remote(&["--cert", &path("ops.pem"), "--key", &path("ops.key")]);
    let without = remote(&[]);
    let unverified = cli(&["status", "--admin", &url]);
    process::signal(gateway.id(), Signal::TERM);
    let _ = gateway.wait();
    assert!(ready);
    assert_eq!((known, nobody, foreign, third), (Some(200), Some(401), None, Some(401)));
    assert_eq!(by_cert.code, Some(0), "{by_cert:?}");
    assert_eq!(without.code, Some(1), "{without:?}");
    assert_eq!(unverified.code, Some(3), "{unverified:?}");
}
