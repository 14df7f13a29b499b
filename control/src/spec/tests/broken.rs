//! A table of broken specs: what is said, and where.

use crate::spec::load;

/// A sound beginning; what a case adds begins at line 5.
const HEAD: &str = "version: 1
listeners: [{name: web, listen: ':8080'}]
upstreams: [{name: users, targets: ['127.0.0.1:9001']}]
# the case begins below
";

/// Checks all problems of a text: `line:column code`, in order.
#[track_caller]
pub fn says(text: &str, expected: &[&str]) -> Vec<String> {
    let loaded = load("t.yaml", text);
    let found: Vec<String> = loaded
        .problems
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.code))
        .collect();
    let messages: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "\n{text}\n{messages:#?}");
    messages
}

/// A case of one route `r` with the given fields, indented by four.
#[track_caller]
fn route(fields: &str, expected: &[&str]) -> String {
    let text = format!("{HEAD}routes:\n  - name: r\n    upstream: users\n{fields}\n");
    says(&text, expected).join("\n")
}

#[track_caller]
pub fn mentions(message: &str, part: &str) {
    assert!(message.contains(part), "{part:?} is not in {message:?}");
}

#[test]
fn whole_texts() {
    says("", &["1:1 empty-spec"]);
    says("# nothing\n", &["1:1 empty-spec"]);
    says("[]", &["1:1 wrong-type"]);
    says("hello", &["1:1 wrong-type"]);
    says("version: 1\n---\nversion: 1\n", &["2:1 multiple-documents"]);
    says("a: [1, 2\nb: 3", &["2:2 yaml-syntax"]);
    says("version: 1\n  x: 2", &["2:4 yaml-syntax"]);
    says("{\"version\": 1, }}", &["1:17 yaml-syntax"]);
    let star = says("a: [*.example.com]", &["1:5 yaml-syntax"]);
    mentions(&star[0], "in quotes, like \"*.example.com\"");
    let brackets = says("a:\n  listen: [::]:8080\n", &["2:15 yaml-syntax"]);
    mentions(&brackets[0], "in quotes, like \"[::]:8080\"");
    let tab = says("a:\n\tb: 1\n", &["2:2 yaml-syntax"]);
    mentions(&tab[0], "not with tabs");
    says("? [a]\n: b\n", &["1:3 bad-key"]);
    says("version: !python 1\n", &["1:10 bad-tag"]);
    says(&format!("a: {}1{}", "[".repeat(70), "]".repeat(70)), &["1:67 too-deep"]);
    says("a: &a [*a]", &["1:8 bad-alias"]);
}

#[test]
fn aliases_are_bounded() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let list = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    let problems = load("t", &text).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].code, "too-many-values");

    let mut deep = String::from("a0: &a0 [x]\n");
    for n in 1..100_000 {
        deep.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    let problems = load("t", &deep).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].code, "too-deep");
}

#[test]
fn fields_of_the_top() {
    let text = HEAD.replace("version: 1", "verzion: 1");
    says(&text, &["1:1 unknown-field"]);
    says("version: 1\nlisteners:\n", &["1:1 missing-field"]);
}

#[test]
fn versions() {
    let body = "routes: [{name: r, upstream: users}]\n";
    says(&format!("{}{body}", HEAD.replace("version: 1", "version: 2")), &["1:10 bad-version"]);
    says(&format!("{}{body}", HEAD.replace("version: 1", "version: '1'")), &["1:10 bad-version"]);
}

#[test]
fn unknown_fields_name_the_nearest() {
    let message = route("    macth: {path: /x}", &["8:5 unknown-field"]);
    mentions(&message, "routes[0].macth: `macth` is not a field here; did you mean `match`?");
    let message = route("    match: {pfad: /x}", &["8:13 unknown-field"]);
    mentions(&message, "expected hosts, path, methods, headers, query");
    let message = route("    max-body-bytes: 3", &["8:5 unknown-field"]);
    mentions(&message, "did you mean `max_body_bytes`?");
    mentions(&route("    <<: {a: b}", &["8:5 unknown-field"]), "merge keys");
}

#[test]
fn duplicate_keys_point_at_the_first() {
    let message = route("    upstream: users", &["8:5 duplicate-key"]);
    mentions(&message, "(see t.yaml:7:5)");
}

#[test]
fn wrong_types() {
    mentions(
        &route("    match: {hosts: api.example.com}", &["8:20 wrong-type"]),
        "write [\"api.example.com\"]",
    );
    mentions(
        &route("    match: {headers: [{name: x-version, exact: 2}]}", &["8:48 wrong-type"]),
        "expected text (write \"2\", in quotes), found `2`",
    );
    route("    match: 3", &["8:12 wrong-type"]);
    route("    timeouts: {idle_ms: soon}", &["8:25 wrong-type"]);
    route("    timeouts: {idle_ms: 1.5}", &["8:25 wrong-type"]);
    route("    timeouts: {total_ms: never}", &["8:26 wrong-type"]);
    route("    rewrite: {strip_prefix: yes}", &["8:29 wrong-type"]);
    route("    max_body_bytes: [1]", &["8:21 wrong-type"]);
    says(&format!("{HEAD}routes: {{}}\n"), &["5:9 wrong-type"]);
    says(&format!("{HEAD}routes: [7]\n"), &["5:10 wrong-type"]);
}

#[test]
fn numbers_have_ranges() {
    mentions(
        &route("    timeouts: {connect_ms: 0}", &["8:28 out-of-range"]),
        "0 is out of range; expected 1 to 86400000",
    );
    route("    timeouts: {connect_ms: -5}", &["8:28 out-of-range"]);
    route("    timeouts: {connect_ms: 99999999999999999999}", &["8:28 out-of-range"]);
    let listeners = |limits: &str| {
        format!(
            "version: 1\nlisteners:\n- name: a\n  listen: ':1'\n  limits: {{{limits}}}\n\
             upstreams: [{{name: u, targets: ['1.2.3.4:5']}}]\nroutes: [{{name: r, upstream: u}}]"
        )
    };
    says(&listeners("max_fields: 70000"), &["5:24 out-of-range"]);
    says(&listeners("max_fields: 129"), &["5:24 out-of-range"]);
    says(&listeners("max_head_bytes: 1023"), &["5:28 out-of-range"]);
    says(&listeners("max_requests: 4294967296"), &["5:26 out-of-range"]);
}

#[test]
fn sizes() {
    mentions(&route("    max_body_bytes: 10XiB", &["8:21 bad-size"]), "512KiB, 10MiB");
    route("    max_body_bytes: 99999999999TiB", &["8:21 bad-size"]);
    route("    max_body_bytes: 1.5MiB", &["8:21 bad-size"]);
}

#[test]
fn paths() {
    let prefix = |path: &str| route(&format!("    match: {{path: {path}}}"), &["8:19 bad-path"]);
    mentions(&prefix("users"), "a path begins with `/`; write /users");
    mentions(&prefix("/a//b"), "made one `/`");
    mentions(&prefix("/a/../b"), "resolved before matching");
    mentions(&prefix("/a?b=1"), "match.query");
    mentions(&prefix("/%41"), "`%41` is decoded before matching; write A");
    mentions(&prefix("/%c3%bc"), "write %C3 with capitals");
    mentions(&prefix("/ü"), "write /%C3%BC");
    mentions(&prefix("/a%2Fb"), "are refused");
    mentions(&prefix("/..;a/b"), "are refused");
    mentions(&prefix("/a%FF"), "not UTF-8");
    mentions(&prefix("/a%2"), "is not a percent-encoded byte");
    route("    match: {path: {}}", &["8:19 missing-field"]);
    route("    match: {path: {exact: /a, prefix: /b}}", &["8:31 conflicting-fields"]);
    route("    match: {path: {prefix: b}}", &["8:28 bad-path"]);
    route("    rewrite: {replace_prefix: v2}", &["8:31 bad-path"]);
}

#[test]
fn regexes_name_the_place_of_the_error() {
    mentions(
        &route("    match: {path: {regex: '^/x/[0-9+$'}}", &["8:27 bad-regex"]),
        "routes[0].match.path.regex: the pattern is wrong at its character 5: unclosed character",
    );
    mentions(
        &route("    match: {path: {regex: '(a{1000}){1000}'}}", &["8:27 bad-regex"]),
        "grows past",
    );
    route("    match: {path: {regex: ''}}", &["8:27 bad-regex"]);
    route("    match: {query: [{name: q, regex: '('}]}", &["8:38 bad-regex"]);
    route("    match: {headers: [{name: q, regex: '*'}]}", &["8:40 bad-regex"]);
}

#[test]
fn hosts() {
    let host = |host: &str| route(&format!("    match: {{hosts: ['{host}']}}"), &["8:21 bad-host"]);
    mentions(&host("api.example.com:80"), "write api.example.com");
    mentions(&host("*"), "leave `hosts` out");
    mentions(&host("a.*.com"), "whole first label");
    mentions(&host("*example.com"), "whole first label");
    mentions(&host("http://a.com"), "no scheme");
    mentions(&host("müller.de"), "xn--");
    mentions(&host("a..b"), "each label");
    mentions(&host("-a.com"), "inner hyphens");
    mentions(&host("300.1.1.1"), "looks like an IPv4 address");
    route("    match: {hosts: [a.com, A.com]}", &["8:28 duplicate-value"]);
}

#[test]
fn methods() {
    mentions(&route("    match: {methods: [get]}", &["8:23 bad-method"]), "write GET");
    route("    match: {methods: ['G T']}", &["8:23 bad-method"]);
    route("    match: {methods: [CONNECT]}", &["8:23 bad-method"]);
    mentions(&route("    match: {methods: [GTE]}", &["8:23 unusual-method"]), "did you mean GET?");
    route("    match: {methods: [PURGE, REPORT]}", &[]);
}

#[test]
fn conditions() {
    route("    match: {headers: [{name: x-a}]}", &["8:23 missing-field"]);
    route("    match: {headers: [{present: true}]}", &["8:23 missing-field"]);
    route("    match: {headers: [{name: x, present: false}]}", &["8:42 bad-value"]);
    route("    match: {headers: [{name: 'x y', present: true}]}", &["8:30 bad-field-name"]);
    mentions(
        &route("    match: {headers: [{name: ':authority', exact: a}]}", &["8:30 bad-field-name"]),
        "match.hosts",
    );
    route("    match: {headers: [{name: x, exact: ' a'}]}", &["8:40 bad-value"]);
    route("    match: {query: [{name: x, exact: a, regex: b}]}", &["8:41 conflicting-fields"]);
}

#[test]
fn rewrites() {
    mentions(
        &route(
            "    match: {path: {regex: '^/x'}}\n    rewrite: {strip_prefix: true}",
            &["9:14 rewrite-on-regex"],
        ),
        "a regex has no prefix",
    );
    route("    rewrite: {strip_prefix: true, replace_prefix: /v2}", &["8:14 conflicting-fields"]);
    route("    upgrades: [h2c]", &["8:16 bad-value"]);
}

#[test]
fn listeners() {
    let listener = |fields: &str| {
        format!(
            "version: 1\nlisteners:\n- name: a\n  {fields}\n\
             upstreams: [{{name: u, targets: ['1.2.3.4:5']}}]\nroutes: [{{name: r, upstream: u}}]"
        )
    };
    let address = |text: &str, part: &str| {
        let text = listener(&format!("listen: '{text}'"));
        mentions(&says(&text, &["4:11 bad-address"]).join("\n"), part);
    };
    address("8080", "expected address:port");
    address("0.0.0.0", "the port is missing");
    address("localhost:8080", "write 127.0.0.1:8080");
    address("0.0.0.0:99999", "a number from 1 to 65535");
    address(":0", "a number from 1 to 65535");
    address("1.2.3.4:0", "a number from 1 to 65535");
    address("example.com:80", "is not an IP address");
    let cidr = |text: &str, part: &str| {
        let text = listener(&format!("listen: ':1'\n  trusted_proxies: ['{text}']"));
        mentions(&says(&text, &["5:21 bad-cidr"]).join("\n"), part);
    };
    cidr("10.0.0.5/8", "write 10.0.0.0/8");
    cidr("10.0.0.0/33", "from 0 to 32");
    cidr("10.0.0.0/+8", "from 0 to 32");
    cidr("fd00::1/8", "write fd00::/8");
    cidr("::ffff:10.0.0.0/104", "write 10.0.0.0/8");
    cidr("proxy", "is not a network");
    says(&listener("listen: ':1'\n  underscore_fields: allow"), &["5:22 bad-value"]);
    says(&listener("listen: ':1'\n  proxy_protocol: {}"), &["5:19 missing-field"]);
    says(&listener("forwarded: true"), &["3:3 missing-field"]);
    says(&listener("listen: ':1'\nadmin: {listen: '0.0.0.0:9'}"), &["5:17 admin-exposed"]);
    says(&listener("listen: ':1'\nnode: {via: 'a b'}"), &["5:13 bad-value"]);
    says(&listener("listen: ':1'\naccess_log: {path: ''}"), &["5:20 bad-value"]);
    says(&listener("listen: ':1'\naccess_log: {path: false}"), &["5:20 wrong-type"]);
    says(
        "version: 1\nlisteners: []\nupstreams: [{name: u, targets: ['1.2.3.4:5']}]\n\
         routes: [{name: r, upstream: u}]",
        &["2:12 empty-list"],
    );
}

#[test]
fn access_to_the_admin_listener() {
    let admin = |fields: &str, expected: &[&str]| {
        let text = format!(
            "version: 1\nadmin: {{{fields}}}\nlisteners: [{{name: a, listen: ':1'}}]\n\
             upstreams: [{{name: u, targets: ['1.2.3.4:5']}}]\nroutes: [{{name: r, upstream: u}}]"
        );
        says(&text, expected).join("\n")
    };
    let token = format!("token_sha256: {}", "ab".repeat(32));
    let one = |fields: &str| format!("access: [{{name: a, {fields}}}]");
    admin(&one(&format!("{token}, role: viewer, workspaces: [x, y]")), &[]);
    admin(&one(&token), &["2:18 missing-field"]);
    admin(&one(&format!("{token}, role: root")), &["2:114 bad-value"]);
    admin(&one("role: admin"), &["2:18 missing-field"]);
    admin(&one(&format!("role: admin, certificate: a, {token}")), &["2:41 conflicting-fields"]);
    mentions(&admin(&one("role: admin, token: slt_x"), &["2:48 plain-secret"]), "keys hash");
    admin(&one("role: admin, token_sha256: abc"), &["2:55 bad-hash"]);
    mentions(&admin(&one("role: admin, certificate: ops"), &["2:54 no-client-ca"]), "client_ca");
    admin(&one(&format!("{token}, role: admin, workspaces: [x]")), &["2:133 conflicting-fields"]);
    let twice =
        format!("access: [{{name: a, {token}, role: viewer}}, {{name: a, {token}, role: viewer}}]");
    admin(&twice, &["2:130 duplicate-name", "2:147 duplicate-credential"]);
    admin("tls: {certificate: a.pem}", &["2:14 missing-field"]);
    admin("listen: '0.0.0.0:9'", &["2:17 admin-exposed"]);
    admin(
        &format!("listen: '0.0.0.0:9', {}", one(&format!("{token}, role: admin"))),
        &["2:17 admin-clear"],
    );
    let tls = "tls: {certificate: /a.pem, key: /a.key}";
    admin(&format!("listen: '0.0.0.0:9', {tls}, {}", one(&format!("{token}, role: admin"))), &[]);
}

#[test]
fn listener_addresses_clash() {
    let tail = "upstreams: [{name: u, targets: ['1.2.3.4:5']}]\nroutes: [{name: r, upstream: u}]";
    let text = format!(
        "version: 1\nlisteners:\n- {{name: a, listen: ':1'}}\n- {{name: a, listen: '0.0.0.0:1'}}\n\
         - {{name: c, listen: '127.0.0.1:1'}}\n- {{name: d, listen: '127.0.0.1:9901'}}\n{tail}"
    );
    let messages = says(
        &text,
        &[
            "1:1 duplicate-listener",
            "4:10 duplicate-name",
            "4:21 duplicate-listener",
            "5:21 overlapping-listener",
        ],
    );
    mentions(&messages[0], "already the address of listeners[3].listen");
    mentions(&messages[1], "taken by listeners[0] on line 3");
    mentions(&messages[2], "(see t.yaml:3:21)");
}

#[test]
fn upstreams() {
    let upstream = |fields: &str, expected: &[&str]| {
        let text = format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\nroutes: [{{name: r, upstream: u}}]\n\
             upstreams:\n- name: u\n  {fields}\n"
        );
        says(&text, expected).join("\n")
    };
    upstream("balance: weighted", &["5:3 missing-field"]);
    upstream("targets: []", &["6:12 empty-list"]);
    let target = |text: &str| upstream(&format!("targets: ['{text}']"), &["6:13 bad-target"]);
    mentions(&target("127.0.0.1"), "the port is missing");
    mentions(&target("http://a.b:80/x"), "write a.b:80");
    mentions(&target("https://a.b"), "not supported here");
    mentions(&target("::1"), "write [::1]:80");
    mentions(&target("a b:80"), "neither an address nor a host name");
    mentions(&target("10.0.0.300:80"), "looks like an IPv4 address");
    mentions(&target("0.0.0.0:80"), "nothing can be reached");
    mentions(&target("a:0"), "from 1 to 65535");
    upstream("targets: [{address: 'a:1', weight: 0}]", &["6:38 out-of-range"]);
    upstream("targets: [{weight: 2}]", &["6:13 missing-field"]);
    upstream("targets: [{adress: 'a:1'}]", &["6:14 unknown-field"]);
    upstream("targets: ['a:1', 'A:1']", &["6:20 duplicate-target"]);
    upstream(
        "targets: ['a:1', {address: 'b:1', weight: 2}]\n  balance: round_robin",
        &["6:12 ignored-weights"],
    );
    upstream("targets: ['a:1', {address: 'b:1', weight: 2}]", &[]);
    mentions(
        &upstream("targets: ['a:1']\n  balance: wheighted", &["7:12 bad-value"]),
        "did you mean `weighted`?",
    );
    upstream("targets: ['a:1']\n  host_header: client", &["7:16 bad-value"]);
    upstream("targets: ['a:1']\n  host_header: {value: 'a b'}", &["7:24 bad-host"]);
    upstream("targets: ['a:1']\n  host_header: {value: 'a.b:8080'}", &[]);
    upstream("targets: ['a:1']\n  pool: {max_connections: 0}", &["7:27 out-of-range"]);
}

#[test]
fn references() {
    let routes = |routes: &str| format!("{HEAD}routes:\n{routes}\n");
    let text = routes("  - {name: r, upstream: user}");
    let messages = says(&text, &["6:25 unknown-upstream"]);
    mentions(
        &messages[0],
        "routes[0].upstream: there is no upstream `user`; did you mean `users`?",
    );
    let text = routes("  - {name: r, upstream: billing}");
    let messages = says(&text, &["6:25 unknown-upstream"]);
    mentions(&messages[0], "expected one of: users");
    says(&routes("  - {name: r}"), &["6:5 missing-field"]);
    says(&routes("  - {name: r, upstreams: []}"), &["6:26 empty-list"]);
    says(
        &routes("  - {name: r, upstream: users, upstreams: [{name: users}]}"),
        &["6:43 conflicting-fields"],
    );
    says(&routes("  - {name: r, upstreams: [{name: users, weight: 0}]}"), &["6:26 zero-weight"]);
    says(
        &routes("  - {name: r, upstreams: [{name: users}, {name: users}]}"),
        &["6:49 duplicate-value"],
    );
    says(
        &routes("  - {name: r, upstreams: [{name: users, weight: 1001}]}"),
        &["6:49 out-of-range"],
    );
    let text = routes("  - {name: r r, upstream: users}\n  - {name: r, upstream: users}");
    says(&text, &["6:12 bad-name"]);
    says(HEAD, &["1:1 no-routes", "3:20 unused-upstream"]);
}

#[test]
fn routes_collide_and_shadow() {
    let routes = |routes: &[&str], expected: &[&str]| {
        let text: String = routes
            .iter()
            .enumerate()
            .map(|(n, matches)| {
                format!("- {{name: r{n}, upstream: users, match: {{{matches}}}}}\n")
            })
            .collect();
        says(&format!("{HEAD}routes:\n{text}"), expected).join("\n")
    };
    let message = routes(&["path: /x", "path: /x/"], &["7:10 colliding-route"]);
    mentions(&message, "`r1` matches the same requests as `r0`");
    mentions(&message, "(see t.yaml:6:10)");
    routes(
        &["methods: [GET, PUT], path: /x", "methods: [PUT, GET], path: /x"],
        &["7:10 colliding-route"],
    );
    let message = routes(&["path: /x", "path: /x, methods: [GET]"], &["7:10 shadowed-route"]);
    mentions(&message, "put `r1` before it");
    routes(
        &[
            "path: /x, headers: [{name: a, present: true}]",
            "path: /x, headers: [{name: a, exact: b}]",
        ],
        &["7:10 shadowed-route"],
    );
    // More conditions go first, whatever the order.
    routes(&["path: /x", "path: /x, headers: [{name: a, exact: b}]"], &[]);
    routes(
        &[
            "path: /x, headers: [{name: a, exact: b}]",
            "path: /x, headers: [{name: a, exact: b}, {name: a, present: true}]",
        ],
        // The second condition of the other one says nothing new.
        &["6:10 colliding-route"],
    );
    // Two earlier routes share the requests of the third.
    routes(
        &["path: /x, methods: [GET]", "path: /x, methods: [PUT]", "path: /x, methods: [PUT, GET]"],
        &["8:10 shadowed-route"],
    );
    routes(
        &[
            "hosts: [a.com], path: /x",
            "hosts: [b.com], path: /x",
            "hosts: [b.com, a.com], path: /x",
        ],
        &["8:10 shadowed-route"],
    );
    let message = routes(
        &["path: /x, methods: [GET]", "path: /x, methods: [PUT, GET]"],
        &["7:10 partly-shadowed-route"],
    );
    mentions(&message, "`r0` takes some requests of `r1`: GET on any host");
    let message = routes(&["path: /", "path: {regex: '^/x'}"], &["7:10 shadowed-route"]);
    mentions(&message, "a prefix is tried before a regex");
    routes(&["path: {regex: '^/x'}", "path: /"], &["6:10 shadowed-route"]);
    routes(&["path: {regex: '^/x'}", "path: /, methods: [GET]"], &["6:10 shadowed-route"]);
    routes(&["path: {regex: '^/x'}", "path: /, query: [{name: a, present: true}]"], &[]);
    routes(&["path: {regex: '^/x'}", "path: {regex: '^/x'}"], &["7:10 colliding-route"]);
    // Different hosts, paths, kinds and conditions live side by side.
    routes(
        &[
            "hosts: [a.com], path: {regex: '^/x'}",
            "path: {exact: /x}",
            "path: /x, headers: [{name: a, exact: b}]",
            "path: /x, query: [{name: a, exact: b}]",
            "path: /x, methods: [GET]",
            "path: /x",
            "hosts: [a.com], path: /x",
            "path: /",
        ],
        &[],
    );
}

#[test]
fn many_problems_in_one_pass() {
    let text = "version: 1
listeners:
  - name: web
    listen: 0.0.0.0:808080
    limits: {idle_timeout: 5}
upstreams:
  - name: users
    balance: random
    targets: [users.internal]
routes:
  - name: users
    match: {path: {regex: '['}, methods: [get]}
    upstream: userz
  - name: users
    upstream: users
";
    says(
        text,
        &[
            "4:13 bad-address",
            "5:14 unknown-field",
            "8:14 bad-value",
            "9:15 bad-target",
            "12:27 bad-regex",
            "12:43 bad-method",
            "13:15 unknown-upstream",
            "14:11 duplicate-name",
        ],
    );
}

#[test]
fn what_the_engine_bounds() {
    let methods = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("M{n}X")).collect();
        format!("    match: {{path: /x, methods: [GET, TRACK, {}]}}", names.join(", "))
    };
    let codes = |fields: &str| -> Vec<&str> {
        let text = format!("{HEAD}routes:\n  - name: r\n    upstream: users\n{fields}\n");
        load("t", &text).problems.iter().map(|problem| problem.code).collect()
    };
    assert_eq!(codes(&methods(53)), Vec::<&str>::new());
    assert_eq!(codes(&methods(54)), ["too-many-methods"]);
    let conditions = |count: usize| {
        let all: Vec<String> =
            (0..count).map(|n| format!("{{name: q{n}, present: true}}")).collect();
        format!("    match: {{query: [{}]}}", all.join(", "))
    };
    assert_eq!(codes(&conditions(1000)), Vec::<&str>::new());
    assert_eq!(codes(&conditions(1001)), ["too-many-conditions"]);
}

#[test]
fn json_is_read_as_people_and_programs_write_it() {
    let text = "{\n\t\"version\": 1,\n\t\"listeners\":[{\"name\":\"a\",\"listen\":\":1\"}],\n\
                \t\"upstreams\": [{\"name\": \"u\", \"targets\": [\"a.b:1\"]}],\n\
                \t\"routes\": [\n\t\t{\"name\": \"r\", \"upstream\": \"u\", \"match\": {\"query\": [\n\
                \t\t\t{\"name\": \"\\u00fc\\/\\\"\", \"exact\": \"\\ud83d\\ude00\"}]}}\n\t]\n}\n";
    says(text, &[]);
    let spec = load("t", text).spec.expect("loads");
    let query = serde_json::to_value(&spec.routes[0].matches.query).expect("serialises");
    assert_eq!(query, serde_json::json!([{"name": "ü/\"", "exact": "😀"}]));
    assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
}

#[test]
fn lists_have_no_more_entries_than_a_snapshot_takes() {
    let names = |count: usize, one: &dyn Fn(usize) -> String| {
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    let hosts = |count| names(count, &|n| format!("h{n}.example"));
    route(&format!("    match: {{hosts: [{}]}}", hosts(10_000)), &[]);
    let said = route(&format!("    match: {{hosts: [{}]}}", hosts(10_001)), &["8:20 too-many"]);
    mentions(&said, "routes[0].match.hosts: this has 10001 entries; expected at most 10000");
    let listeners = names(1_001, &|n| format!("{{name: l{n}, listen: ':{}'}}", n + 1));
    let text = format!(
        "version: 1\nlisteners: [{listeners}]\nupstreams: [{{name: u, targets: ['a:1']}}]\n\
         routes: [{{name: r, upstream: u}}]\n"
    );
    says(&text, &["2:12 too-many"]);
    // Networks may be many more.
    let networks = names(10_001, &|n| format!("10.{}.{}.1", n / 256, n % 256));
    route(&format!("    networks: {{deny: [{networks}]}}"), &[]);
}
