//! The command line: what it prints, and its exit codes.

use rustix::process::Signal;
use serde_json::Value;
use tests::process::{self, Outcome, cli};
use tests::scratch::Scratch;
use tests::spec::{Names, Spec};
use tests::{Gateway, Origin, get};

const GOOD: &str = "\
version: 1
listeners:
  - name: web
    listen: 127.0.0.1:{PORT}
upstreams:
  - name: users
    targets: [\"127.0.0.1:9001\"]
routes:
  - name: users
    match: { hosts: [api.test], path: { prefix: /users }, methods: [GET] }
    upstream: users
  - name: rest
    match: { path: { prefix: / } }
    upstream: users
";

fn file(scratch: &Scratch, text: &str) -> String {
    let text = Names::new(scratch.path()).fill(text);
    scratch.file("spec.yaml", &text).display().to_string()
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {outcome:?}"))
}

/// Where in `text` the first byte of `word` is, as `line:column` from 1.
fn place(text: &str, word: &str) -> String {
    let at = text.find(word).unwrap_or_else(|| panic!("{word:?} is not in the spec"));
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |n| n + 1) + 1;
    format!("{line}:{column}")
}

#[test]
fn check_accepts_a_good_spec() {
    let scratch = Scratch::new();
    let outcome = cli(&["check", &file(&scratch, GOOD)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = cli(&["check", "--json", &file(&scratch, GOOD)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    json(&outcome);
}

#[test]
fn check_shows_each_problem_at_its_place() {
    let scratch = Scratch::new();
    // What is broken, by what, the text at whose place it must be shown, words of the message.
    for (good, bad, at, words) in [
        ("targets:", "tragets:", "tragets", &["tragets", "targets"][..]),
        (
            "    upstream: users\n  - name: rest",
            "    upstream: usres\n  - name: rest",
            "usres",
            &["usres", "users"],
        ),
        ("{ prefix: / }", "{ regex: \"(unclosed\" }", "\"(unclosed", &["(unclosed"]),
        ("methods: [GET]", "methods: GETT ING", "GETT ING", &["GETT ING"]),
        ("127.0.0.1:{PORT}", "127.0.0.1:99999", "127.0.0.1:99999", &["99999"]),
    ] {
        let text = GOOD.replacen(good, bad, 1);
        let path = file(&scratch, &text);
        let filled = std::fs::read_to_string(&path).unwrap();
        let outcome = cli(&["check", &path]);
        assert_eq!(outcome.code, Some(2), "{bad}: {outcome:?}");
        let expected = format!("spec.yaml:{}", place(&filled, at));
        assert!(outcome.text().contains(&expected), "{bad}: no {expected} in\n{}", outcome.text());
        for word in words {
            assert!(outcome.text().contains(word), "{bad}: no {word:?} in\n{}", outcome.text());
        }
    }
}

#[test]
fn check_reports_every_problem_at_once() {
    let scratch = Scratch::new();
    let text = GOOD
        .replacen("targets:", "tragets:", 1)
        .replacen("{ prefix: / }", "{ regex: \"(unclosed\" }", 1)
        .replacen("    upstream: users\n  - name: rest", "    upstream: usres\n  - name: rest", 1);
    let path = file(&scratch, &text);
    let filled = std::fs::read_to_string(&path).unwrap();
    let outcome = cli(&["check", &path]);
    assert_eq!(outcome.code, Some(2));
    for word in ["tragets", "\"(unclosed", "usres"] {
        let expected = format!("spec.yaml:{}", place(&filled, word));
        assert!(outcome.text().contains(&expected), "no {expected} in\n{}", outcome.text());
    }
    let outcome = cli(&["check", "--json", &path]);
    assert_eq!(outcome.code, Some(2));
    json(&outcome);
}

#[test]
fn check_says_what_else_is_wrong() {
    let scratch = Scratch::new();
    for (what, text, code) in [
        ("a shadowed route", GOOD.replace("routes:\n", "routes:\n  - { name: first, match: { hosts: [api.test], path: { prefix: /users }, methods: [GET] }, upstream: users }\n"), None),
        ("a duplicate listener", GOOD.replace("upstreams:\n", "  - { name: web, listen: 127.0.0.1:{PORT} }\nupstreams:\n"), Some(2)),
        ("not YAML", "version: [".to_owned(), Some(2)),
        ("an empty file", String::new(), Some(2)),
    ] {
        let outcome = cli(&["check", &file(&scratch, &text)]);
        if let Some(code) = code {
            assert_eq!(outcome.code, Some(code), "{what}: {outcome:?}");
        }
        assert!(outcome.text().contains("spec.yaml"), "{what}: {outcome:?}");
    }
    let outcome = cli(&["check", "/no/such/file.yaml"]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.text().contains("/no/such/file.yaml"), "{outcome:?}");
}

#[test]
fn up_refuses_a_broken_spec_and_starts_nothing() {
    let scratch = Scratch::new();
    let path = file(&scratch, &GOOD.replacen("targets:", "tragets:", 1));
    let state = scratch.path().join("state").display().to_string();
    let outcome = cli(&["up", "-f", &path, "--state", &state]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.text().contains("tragets"), "{outcome:?}");
}

#[test]
fn schema_is_a_json_schema() {
    let outcome = cli(&["schema"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let schema = json(&outcome);
    assert!(schema["$schema"].as_str().is_some_and(|s| s.contains("json-schema.org")), "{schema}");
    for field in ["version", "listeners", "upstreams", "routes", "admin", "access_log", "node"] {
        assert!(schema["properties"][field].is_object(), "no {field} in the schema");
    }
}

#[test]
fn usage_errors_exit_2_and_help_and_version_0() {
    assert_eq!(cli(&["no-such-command"]).code, Some(2));
    assert_eq!(cli(&["check"]).code, Some(2));
    for args in [&["--help"][..], &["up", "--help"], &["--version"]] {
        let outcome = cli(args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        assert!(outcome.stdout.contains("sluice"), "{args:?}: {outcome:?}");
    }
}

#[test]
fn control_out_of_reach_is_exit_3() {
    let admin = format!("127.0.0.1:{}", tests::scratch::free_port());
    let scratch = Scratch::new();
    let path = file(&scratch, GOOD);
    for args in [
        &["status"][..],
        &["get", "routes"],
        &["apply", "-f", &path, "--yes"],
        &["diff", "-f", &path],
        &["rollback", "--yes"],
        &["explain", "GET", "http://api.test/users"],
    ] {
        let outcome = cli(&[args, &["--admin", &admin]].concat());
        assert_eq!(outcome.code, Some(3), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains(&admin), "{args:?} must say whom it asked: {outcome:?}");
    }
}

#[test]
fn get_and_status() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let admin = gateway.admin_address();
    let run = |args: &[&str]| {
        let outcome = cli(&[args, &["--admin", &admin]].concat());
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        outcome
    };
    for (what, word) in
        [("routes", "all"), ("upstreams", "origin"), ("listeners", "web"), ("revisions", "1")]
    {
        let text = run(&["get", what]);
        assert!(text.stdout.contains(word), "{what}: {text:?}");
        let value = json(&run(&["get", what, "--json"]));
        assert!(value.to_string().contains(word), "{what}: {value}");
    }
    let spec = json(&run(&["get", "spec", "--json"]));
    assert!(spec.to_string().contains(&origin.address().to_string()), "{spec}");
    let status = json(&run(&["status", "--json"]));
    assert_eq!(status["converged"], true, "{status}");
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(2), "{status}");
    for shard in status["shards"].as_array().unwrap() {
        assert_eq!(shard["epoch"], status["epoch"], "{status}");
        assert_eq!(shard["healthy"], true, "{status}");
    }
    assert!(run(&["status"]).stdout.contains("ok"), "the engine's health is shown");
    assert!(run(&["metrics"]).stdout.contains("sluice_config_epoch"));
    let families = json(&run(&["metrics", "--json"]));
    let family = |name| families.as_array()?.iter().find(|one| one["name"] == name);
    let epoch = family("sluice_config_epoch").expect("the epoch's family");
    assert_eq!(epoch["samples"][0]["value"].as_f64(), status["epoch"].as_f64(), "{epoch}");
}

/// Neither the API nor the command line shows a secret that stands in the spec, whatever has it.
#[test]
fn get_spec_shows_no_secret() {
    // Of the password `secret`.
    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
                        Yr0kSRnGDlhHnHFyL4TqbH8CDQkNlNW7OY3rPTQqDeI";
    let origin = Origin::echo();
    let scratch = Scratch::new();
    let (seal, of_tokens) = ("0f".repeat(32), "key-of-tokens-of-at-least-32-bytes");
    // Of a key of 256 random bits, which nobody finds by it.
    let hash = "ab".repeat(32);
    let login = format!(
        "issuer: https://id.example.com, algorithms: [HS256], \
         keys: [ {{ algorithm: HS256, secret: {{ inline: {of_tokens} }} }} ], \
         authorization_url: 'https://id.example.com/a', token_url: 'https://id.example.com/t', \
         client: {{ id: g, secret: {{ inline: client-secret-1 }} }}, \
         cookie_keys: [ {{ inline: '{seal}' }} ]"
    );
    let spec = Spec::to(origin.address())
        .also("redis: { url: 'redis://127.0.0.1:1', password: { inline: redis-password } }")
        .also(&format!(
            "authenticators: [ {{ name: keys, api_key: {{}} }}, {{ name: people, basic: {{}} }}, \
             {{ name: signed, signature: {{}} }}, {{ name: web, login: {{ {login} }} }} ]"
        ))
        .also(&format!(
            "consumers: [ {{ name: one, api_keys: [ {{ sha256: '{hash}' }} ], \
             passwords: [ {{ username: one, hash: '{HASH}' }} ], \
             signing_keys: [ {{ id: k, secret: {{ inline: signing-secret-of-at-least-32-bytes }} }} ] }} ]"
        ))
        .upstream(
            "credentials: { token_url: 'https://id.example.com/t', \
             client: { id: g, secret: { inline: client-secret-2 } } }",
        )
        .route("auth: { any: [ keys, people, signed, web ] }");
    let gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let run = |args: &[&str]| {
        let outcome = cli(&[args, &["--admin", &admin]].concat());
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        outcome.text()
    };
    let changed = spec.text().replace("client-secret-2", "client-secret-3");
    let changed = file(&scratch, &changed.replace("redis-password", "another-password"));
    let answers = [
        run(&["get", "spec"]),
        run(&["get", "spec", "--json"]),
        run(&["get", "consumers", "--json"]),
        run(&["get", "authenticators", "--json"]),
        run(&["get", "revisions", "--json"]),
        cli(&["diff", "-f", &changed, "--admin", &admin]).stdout,
        gateway.admin("/v1/spec").1,
        gateway.admin("/v1/revisions/1").1,
        gateway.admin("/v1/consumers").1,
    ];
    for (at, answer) in answers.iter().enumerate() {
        for secret in [
            "argon2id",
            "redis-password",
            "another-password",
            "client-secret",
            of_tokens,
            seal.as_str(),
            "signing-secret",
        ] {
            assert!(!answer.contains(secret), "{secret} in answer {at}: {answer}");
        }
    }
    let [text, value, .., api, revision, _] = &answers[..] else { unreachable!() };
    for shown in [text, value, api, revision] {
        assert!(shown.contains("[redacted]") && shown.contains(&hash), "{shown}");
    }
}

#[test]
fn apply_diff_and_rollback() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address());
    let mut gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let run = |args: &[&str]| cli(&[args, &["--admin", &admin]].concat());
    let same = gateway.spec_file("same.yaml", &spec.text()).display().to_string();
    let next = spec.clone().route("rewrite: { replace_prefix: /next }").text();
    let next = gateway.spec_file("next.yaml", &next).display().to_string();
    let broken = gateway.spec_file("broken.yaml", &spec.text().replace("targets:", "tragets:"));
    let broken = broken.display().to_string();

    let outcome = run(&["diff", "-f", &same]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.stdout.contains("/next"), "{outcome:?}");
    let outcome = run(&["diff", "-f", &next]);
    assert!(outcome.stdout.contains("/next") && outcome.stdout.contains("all"), "{outcome:?}");
    json(&run(&["diff", "-f", &next, "--json"]));
    for (file, code) in [(&same, 0), (&next, 4), (&broken, 2)] {
        let outcome = run(&["diff", "-f", file, "--exit-code"]);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
    }

    // There is nobody to ask, so nothing is done.
    for args in [&["apply", "-f", &next][..], &["rollback"]] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("say --yes"), "{outcome:?}");
        assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");
    }

    let outcome = run(&["apply", "-f", &next, "--dry-run"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n", "a dry run changes nothing");

    let outcome = run(&["apply", "-f", &broken]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(
        outcome.text().contains("tragets") && outcome.text().contains("broken.yaml:"),
        "{outcome:?}"
    );
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");

    let outcome = run(&["apply", "-f", &next, "-m", "why not", "--json", "--yes"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(json(&outcome)["epoch"].is_u64(), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /next/x\n");
    assert!(run(&["get", "revisions"]).stdout.contains("why not"));

    let outcome = run(&["rollback", "-y"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");
    let outcome = run(&["rollback", "999999", "--yes"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
}

#[test]
fn explain_names_the_route_and_why_not_the_others() {
    let scratch = Scratch::new();
    let path = file(&scratch, GOOD);
    let run = |args: &[&str]| cli(&[&["explain"], args, &["-f", &path]].concat());
    let outcome = run(&["GET", "http://api.test/users/7"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("users"), "{outcome:?}");
    let outcome = run(&["GET", "http://other.test/users/7", "--all"]);
    assert!(
        outcome.stdout.contains("rest") && outcome.stdout.contains("api.test"),
        "why not `users`: {outcome:?}"
    );
    let outcome = run(&["DELETE", "http://api.test/users/7"]);
    assert!(outcome.stdout.contains("405"), "{outcome:?}");
    assert!(outcome.stdout.contains("GET"), "what is allowed: {outcome:?}");
    let value = json(&run(&["GET", "http://api.test/users/7", "--json"]));
    assert!(value.to_string().contains("\"users\""), "{value}");
}

#[test]
fn explain_names_the_limits_that_a_request_meets() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address())
        .also(
            "limits: [ { name: all, requests: 500, per: 1s, everywhere: true }, \
             { name: narrow, by: [ credential ], requests: 3, per: 1s }, \
             { name: users, by: [ { path: '/users/{id}/*' } ], requests: 9, per: 1m }, \
             { name: plan, by: [ consumer ], requests: 7, per: day, dry_run: true, \
             tiers: [ { group: gold, requests: 70, per: day } ] } ]",
        )
        .also("groups: [ { name: gold } ]")
        .also(&format!(
            "consumers: [ {{ name: acme, groups: [ gold ], limits: plan, \
             api_keys: [ {{ sha256: '{}', prefix: acme_x, limits: narrow }} ] }} ]",
            "0a".repeat(32)
        ))
        .route("limits: [ users ]");
    let gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let run = |args: &[&str]| cli(&[&["explain", "GET"], args, &["--admin", &admin]].concat());
    let limits = |args: &[&str]| {
        let value = json(&run(&[args, &["--json"]].concat()));
        let limits = value["outcome"]["limits"].as_array().cloned();
        limits.unwrap_or_else(|| panic!("{value}"))
    };
    let names = |args: &[&str]| -> Vec<String> {
        limits(args).iter().map(|one| format!("{} {}", one["name"], one["of"])).collect()
    };
    let everywhere = "\"all\" \"everywhere\"";
    assert_eq!(names(&["/users/7/orders"]), [everywhere, "\"users\" \"route\""]);
    assert_eq!(names(&["/elsewhere"]), [everywhere], "a path of another form");
    let plan = "\"plan\" \"consumer\"";
    assert_eq!(names(&["/elsewhere", "--consumer", "acme"]), [everywhere, plan]);
    let plan = &limits(&["/elsewhere", "--consumer", "acme"])[1];
    assert_eq!((&plan["tier"], &plan["dry_run"]), (&"gold".into(), &true.into()), "{plan}");
    assert_eq!(plan["windows"], serde_json::json!([{ "requests": 70, "per": "day" }]));
    let text = run(&["/elsewhere", "--consumer", "acme"]).stdout;
    for words in ["gold: 70 per day", "leased (no redis: this node alone), dry run", "all together"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let outcome = run(&["/", "--consumer", "acne"]);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("no consumer `acne`"), "{outcome:?}");
    // A key has limits in place of its consumer's.
    let key = ["/elsewhere", "--consumer", "acme", "--api-key", "acme_x"];
    assert_eq!(names(&key), [everywhere, "\"narrow\" \"key\""]);
    let outcome = run(&["/", "--consumer", "acme", "--api-key", "acme_y"]);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("no key `acme_y`"), "{outcome:?}");
    assert!(outcome.stderr.contains("it has acme_x"), "{outcome:?}");
}

#[test]
fn explain_agrees_with_the_engine() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address())
        .matching("hosts: [\"*.shop.test\"]")
        .also_route("{ name: special, match: { path: { prefix: /special }, headers: [ { name: x-a, exact: \"1\" } ] }, upstream: origin, rewrite: { replace_prefix: /s } }");
    let gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    for (url, header, route) in [
        ("http://a.shop.test/special", "X-A: 1", "all"),
        ("http://other.test/special/x", "X-A: 1", "special"),
        ("http://other.test/special/x", "X-A: 2", ""),
        ("http://shop.test/", "X-A: 1", ""),
    ] {
        let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap();
        let response =
            gateway.ask(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n"));
        let outcome = cli(&["explain", "GET", url, "-H", header, "--admin", &admin]);
        let served = match response.text().as_str() {
            text if text.starts_with("GET /s/") => "special",
            text if text.starts_with("GET ") => "all",
            _ => "",
        };
        assert_eq!(served, route, "{url} {header}");
        if route.is_empty() {
            assert!(outcome.stdout.contains("404"), "{url} {header}: {outcome:?}");
        } else {
            assert!(outcome.stdout.contains(route), "{url} {header}: {outcome:?}");
        }
    }
}

#[test]
fn another_server_on_the_admin_address_is_told_apart() {
    let origin = Origin::echo();
    let address = origin.address().to_string();
    let outcome = cli(&["status", "--admin", &address]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&address), "{outcome:?}");
    assert!(outcome.stderr.contains("admin API"), "{outcome:?}");
}

#[test]
fn a_control_process_that_hangs_is_waited_for_in_bounds() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let admin = gateway.admin_address();
    process::signal(gateway.pid_of("control"), Signal::STOP);
    // `cli` itself bounds the time.
    let outcome = cli(&["status", "--admin", &admin]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains(&admin), "{outcome:?}");
    assert!(outcome.stderr.contains("does not answer"), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).status, 200, "traffic does not need control");
}

#[test]
fn one_state_directory_is_for_one_gateway() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address());
    let mut gateway = Gateway::of(&spec);
    let other = spec.text().replace("{PORT}", "{PORT2}").replace("{ADMIN}", "{PORT3}");
    let other = gateway.spec_file("other.yaml", &other).display().to_string();
    let state = gateway.dir().join("state").display().to_string();
    let outcome = cli(&["up", "-f", &other, "--state", &state]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&state), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).status, 200);
}

#[test]
fn a_port_in_use_is_named_by_up_and_by_apply() {
    let origin = Origin::echo();
    let taken = origin.address().to_string();
    let spec = Spec::to(origin.address());
    let mut gateway = Gateway::of(&spec);
    let clash = spec.text().replace("127.0.0.1:{PORT}", &taken);
    let file = gateway.spec_file("clash.yaml", &clash).display().to_string();
    let outcome = cli(&["apply", "-f", &file, "--yes", "--admin", &gateway.admin_address()]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&taken), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).status, 200, "the old listener stays");

    let file = gateway.spec_file("up.yaml", &clash.replace("{ADMIN}", "{PORT3}"));
    let state = gateway.dir().join("state2").display().to_string();
    let outcome = cli(&["up", "-f", &file.display().to_string(), "--state", &state]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&taken), "{outcome:?}");
}

#[test]
fn up_without_a_spec_says_how_to_give_one() {
    let scratch = Scratch::new();
    let state = scratch.path().join("state").display().to_string();
    let outcome = cli(&["up", "--state", &state]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("-f FILE"), "{outcome:?}");
}

#[test]
fn host_names_are_resolved_and_those_that_are_not_are_noted() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address());
    let mut gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let port = origin.address().port();
    let target = origin.address().to_string();
    let named = |host: &str| spec.text().replace(&target, &format!("{host}:{port}"));

    let file = gateway.spec_file("local.yaml", &named("localhost")).display().to_string();
    let outcome = cli(&["apply", "-f", &file, "--yes", "--admin", &admin]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.stdout.contains("note:"), "{outcome:?}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");

    // RFC 6761 §6.4: no such name, ever.
    let file = gateway.spec_file("lost.yaml", &named("lost.invalid")).display().to_string();
    let outcome = cli(&["apply", "-f", &file, "--yes", "--admin", &admin]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("note: lost.invalid has no address"), "{outcome:?}");
    let answer = gateway.ask(get("/x"));
    assert_eq!(answer.status, 503, "{}", answer.text());
    let status = gateway.admin_json("/v1/status");
    assert_eq!(status["unresolved"][0]["host"], "lost.invalid", "{status}");
    let outcome = cli(&["get", "upstreams", "--admin", &admin]);
    assert!(outcome.stdout.contains("(none resolved)"), "{outcome:?}");
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in [
        "up",
        "check",
        "schema",
        "apply",
        "diff",
        "get",
        "status",
        "explain",
        "rollback",
        "metrics",
        "export",
        "import",
        "completions",
        "man",
    ] {
        let outcome = cli(&[command, "--help"]);
        assert_eq!(outcome.code, Some(0), "{command}: {outcome:?}");
        let examples = outcome.stdout.split_once("Example").map_or("", |(_, after)| after);
        assert!(examples.contains(&format!("sluice {command}")), "{command}: {outcome:?}");
        assert!(!outcome.stdout.contains('\u{1b}'), "{command} colours what is no terminal");
    }
}
