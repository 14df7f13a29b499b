use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::fit;
use crate::spec::{PathMatch, Rewrite, Route, Spec, Unidentified};

const PETSTORE: &str = include_str!("tests/petstore.yaml");
const ORDERS: &str = include_str!("tests/orders.json");
const KONG: &str = include_str!("tests/kong.yaml");
const KONG_MINIMAL: &str = include_str!("tests/kong-minimal.yaml");
const NGINX: &str = include_str!("tests/nginx.conf");
const API: &str = include_str!("tests/conf.d/api.conf");
const SITE: &str = include_str!("tests/site.conf");

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/tests")
}

/// Of the password `secret`: making one takes a while.
fn hash(_: &str) -> Result<String, String> {
    Ok("$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
        Yr0kSRnGDlhHnHFyL4TqbH8CDQkNlNW7OY3rPTQqDeI"
        .into())
}

/// The spec that was written, which the whole checker takes.
fn taken(imported: &Imported) -> Spec {
    let text = &imported.text;
    let checked = fit::load("import.yaml", text.as_bytes(), Some(Path::new("/")), |_| Ok(()));
    let Some(whole) = checked.whole else { panic!("{:#?}\n{text}", checked.problems) };
    whole.spec
}

fn route<'s>(spec: &'s Spec, name: &str) -> &'s Route {
    let found = spec.routes.iter().find(|one| one.name == name);
    found.unwrap_or_else(|| {
        panic!("no {name} among {:?}", spec.routes.iter().map(|one| &one.name).collect::<Vec<_>>())
    })
}

fn is_closed(route: &Route) -> bool {
    let denied = |networks: &crate::spec::Networks| {
        networks.allow.is_empty() && networks.deny.iter().filter(|one| one.prefix == 0).count() == 2
    };
    route.networks.as_ref().is_some_and(denied)
}

/// Each of the texts is said of its line.
fn says(imported: &Imported, expected: &[(usize, &str)]) {
    for (line, words) in expected {
        let said = imported
            .warnings
            .iter()
            .any(|one| one.place.line == *line && one.message.contains(words));
        let all: Vec<String> = imported.warnings.iter().map(ToString::to_string).collect();
        assert!(said, "line {line}: {words} is not said in\n{}", all.join("\n"));
    }
    for warning in &imported.warnings {
        assert!(imported.text.contains(&warning.to_string()), "{warning} is no comment");
    }
}

fn line(text: &str, words: &str) -> usize {
    let at = text.find(words).unwrap_or_else(|| panic!("no {words}"));
    text[..at].matches('\n').count() + 1
}

#[test]
fn a_petstore() {
    let imported = openapi::import("petstore.yaml", PETSTORE, None, None).unwrap();
    let spec = taken(&imported);
    let at = |words| line(PETSTORE, words);
    says(
        &imported,
        &[
            (at("enum: [eu, us]"), "taken as `eu`"),
            (at("  - url: https://{region}"), "`/v2`"),
            (at("apiKey, name: X-API-Key"), "add consumers"),
            (at("openIdConnect,"), "any audience"),
            (at("operationId: reset"), "closed"),
            (at("{'{$request"), "callbacks"),
            (at("$ref: 'other.yaml"), "not in this document"),
            (at("responses: {'200': {description: Odd}}"), "TRACE"),
        ],
    );
    let upstream = &spec.upstreams[0];
    assert_eq!(upstream.targets[0].address.to_string(), "eu.petstore.example.com:443");
    assert!(upstream.tls.is_some());
    let list = route(&spec, "listPets");
    assert_eq!(list.matches.path, PathMatch::Exact("/v1/pets".into()));
    assert_eq!(list.matches.methods, ["GET"]);
    assert_eq!((&list.auth, list.max_body_bytes), (&None, 1 << 20));
    let create = route(&spec, "createPet");
    assert_eq!(create.auth.as_ref().unwrap().authenticators, ["api_key"]);
    assert_eq!(create.limits, ["writes"]);
    let show = route(&spec, "showPetById");
    assert_eq!(show.matches.path, PathMatch::Regex(r"^/v1/pets/[^/]+$".into()));
    assert_eq!(show.auth.as_ref().unwrap().authenticators, ["api_key", "session"]);
    let delete = route(&spec, "showPetById-2");
    assert_eq!(delete.auth.as_ref().unwrap().scopes, ["pets:write"]);
    let mine = route(&spec, "get-pets-mine");
    assert_eq!(mine.auth.as_ref().unwrap().unidentified, Unidentified::Pass);
    let photo = route(&spec, "photo");
    assert!(photo.auth.as_ref().unwrap().all);
    assert_eq!(photo.matches.path, PathMatch::Regex(r"^/v1/pets/[^/]+/photos/[^/]+\.jpg$".into()));
    assert!(is_closed(route(&spec, "reset")));
    assert_eq!(spec.routes.len(), 7);
}

#[test]
fn orders_behind_a_base_path() {
    let error = openapi::import("orders.json", ORDERS, None, None).unwrap_err();
    assert!(error.contains("--upstream"), "{error}");
    let imported =
        openapi::import("orders.json", ORDERS, Some("http://10.0.0.7:8080"), None).unwrap();
    let spec = taken(&imported);
    let put = route(&spec, "items-put-one");
    assert_eq!(put.matches.path, PathMatch::Regex("^/api/v2/orders/[^/]+/items/[^/]+$".into()));
    assert_eq!(put.auth.as_ref().unwrap().scopes, ["orders:write"]);
    assert!(is_closed(route(&spec, "items-put-one-2")), "mutualTLS");
    assert_eq!(route(&spec, "ber").matches.path, PathMatch::Exact("/api/v2/%C3%BCberall".into()));
    says(&imported, &[(line(ORDERS, "\"webhooks\""), "webhooks")]);
    for (text, words) in [
        ("swagger: '2.0'", "Swagger"),
        ("openapi: 4.0.0", "4.0.0"),
        ("a: 1", "openapi"),
        ("- a", "openapi"),
        ("openapi: 3.0.0\nservers: [{url: 'http://a'}]", "no operation"),
    ] {
        let error = openapi::import("x", text, None, None).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_document_with_hosts_and_another_upstream() {
    let imported = openapi::import("p.yaml", PETSTORE, Some("https://inner:8443"), None).unwrap();
    let spec = taken(&imported);
    assert_eq!(spec.upstreams[0].targets[0].address.to_string(), "inner:8443");
    assert_eq!(
        route(&spec, "listPets").matches.hosts,
        ["eu.petstore.example.com", "staging.petstore.example.com"]
    );
}

#[test]
fn requests_are_held_against_the_document() {
    let directory = std::env::temp_dir().join(format!("sluice-import-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("orders.json").display().to_string();
    std::fs::write(&path, ORDERS).unwrap();
    let import = |path: &str, text: &str| {
        let document = openapi::Document { path, named: path };
        openapi::import("orders.json", text, Some("http://10.0.0.7:8080"), Some(document)).unwrap()
    };
    let imported = import(&path, ORDERS);
    let spec = taken(&imported);
    let api = &spec.apis[0];
    assert_eq!((&api.openapi, api.base_path.as_deref()), (&path, Some("/api/v2")));
    for route in &spec.routes {
        let validate = route.validate.as_ref().unwrap_or_else(|| panic!("{}", route.name));
        assert_eq!(validate.api.as_ref(), Some(&api.name));
    }
    assert!(!imported.text.contains("not enforced"), "{}", imported.text);
    // What cannot be used is said, and left out.
    let imported = import("/nowhere/orders.json", ORDERS);
    assert!(imported.text.contains("requests are not validated"), "{}", imported.text);
    assert!(taken(&imported).apis.is_empty());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn kong() {
    let imported = kong::import("kong.yaml", KONG, &hash).unwrap();
    let spec = taken(&imported);
    let at = |words| line(KONG, words);
    says(
        &imported,
        &[
            (at("write_timeout"), "write_timeout"),
            (at("key_in_body"), "bodies"),
            (at("regex_priority"), "order"),
            (at("- name: user-by-id"), "look-around"),
            (at("- name: request-transformer"), "request-transformer"),
            (at("- {name: oauth2"), "oauth2 cannot be taken"),
            (at("- name: billing-admin"), "closed"),
            (at("weight: 0"), "weight 0"),
            (at("- {key: short"), "5 bytes"),
            (at("- {key: rsa"), "in a file"),
            (at("{username: old"), "Kong's hash"),
            (at("- {cert:"), "certificates"),
            (at("[{username: bob, secret: s}]"), "hmacauth_credentials"),
            (at("- {name: rate-limiting, consumer: alice"), "rate-limiting"),
            (at("- {name: of-nobody"), "no service"),
            (at("protocol: tcp") - 1, "tcp"),
            (at("- {name: cors, config: {origins: ['*']"), "any origin"),
        ]
        .into_iter()
        .filter(|(_, words)| *words != "tcp")
        .collect::<Vec<_>>(),
    );
    let users = route(&spec, "users-v1");
    assert_eq!(users.matches.path, PathMatch::Prefix("/v1/users".into()));
    assert_eq!(users.rewrite, Rewrite::ReplacePrefix("/internal".into()));
    assert_eq!(users.matches.hosts, ["api.example.com"]);
    let auth = users.auth.as_ref().unwrap();
    assert_eq!((auth.authenticators.len(), auth.hide_credentials), (1, true));
    assert_eq!(users.limits, ["rate-limiting"]);
    assert!(users.cors.is_some(), "of all");
    let by_id = route(&spec, "user-by-id");
    assert_eq!(by_id.matches.path, PathMatch::Regex(r"^/v1/users/(?<id>\d+)$".into()));
    assert_eq!(by_id.auth, None);
    assert_ne!(by_id.upstreams[0].name, users.upstreams[0].name, "another Host");
    let billing = route(&spec, "billing");
    let auth = billing.auth.as_ref().unwrap();
    assert_eq!(auth.authenticators, ["jwt-alice-issuer"]);
    assert_eq!(auth.groups, ["gold", "admins"]);
    assert_eq!(auth.policy.as_deref(), Some("!('Blocked-Users' in consumer.groups)"));
    assert!(is_closed(route(&spec, "billing-admin")));
    let legacy = route(&spec, "legacy");
    assert_eq!(legacy.auth.as_ref().unwrap().unidentified, Unidentified::As("guest".into()));
    assert!(legacy.cors.as_ref().unwrap().credentials);
    assert_eq!(legacy.max_body_bytes, 8 << 20);
    let alice = spec.consumers.iter().find(|one| one.name == "alice").unwrap();
    assert_eq!((alice.api_keys.len(), alice.passwords.len(), alice.subjects.len()), (1, 1, 1));
    assert_eq!(alice.limits.as_deref(), Some("alice"));
    let pool = spec.upstreams.iter().find(|one| one.name == "users").unwrap();
    assert_eq!(pool.targets.len(), 2);
    assert!(pool.health.is_some());
    assert!(!imported.text.contains("alice-secret-key") && !imported.text.contains("wonderland"));
    taken(&kong::import("kong.yaml", KONG_MINIMAL, &hash).unwrap());
    assert!(kong::import("x", "services: []", &hash).is_err());
}

#[test]
fn nginx() {
    let imported = nginx::import("nginx.conf", NGINX, &here()).unwrap();
    let spec = taken(&imported);
    let at = |words| line(NGINX, words);
    let api = |words| line(API, words);
    says(
        &imported,
        &[
            (at("include mime.types"), "not followed"),
            (at("gzip on"), "gzip"),
            (at("max_fails"), "max_fails=3"),
            (at("server unix:"), "unix:"),
            (at("return 301"), "return 301"),
            (at("http {"), "worker_processes"),
            (api("server_name"), "~^v"),
            (api("proxy_set_header X-Real-IP"), "x-real-ip"),
            (api("location = /health"), "return 200"),
            (api("(?<!x)y"), "look-around"),
            (api("auth_basic \"Staff\""), "auth_basic"),
            (api("http://$arg_host"), "$arg_host"),
            (api("location /static/"), "root /var/www"),
            (api("expires 30d"), "expires"),
            (api("location @late"), "@late"),
            (api("https://images"), "verified"),
        ],
    );
    let named = |path: &str| route(&spec, &format!("api.example.com{path}"));
    let root = named("");
    assert_eq!(root.matches.path, PathMatch::Regex("^/".into()), "behind the others");
    assert_eq!(root.matches.hosts, ["api.example.com", "api.example.org", "*.api.example.org"]);
    assert_eq!(root.limits, ["api-20"]);
    assert_eq!(root.max_body_bytes, 20 << 20);
    let v1 = named("-v1");
    assert_eq!(v1.rewrite, Rewrite::StripPrefix);
    assert_eq!(v1.networks.as_ref().unwrap().allow.len(), 2);
    assert_eq!(v1.timeouts.connect_ms, Some(500));
    assert_eq!(named("-ws").upgrades, ["websocket"]);
    for path in ["-admin", "-health", "-static", "-dynamic"] {
        assert!(is_closed(named(path)), "{path}");
    }
    assert!(named("-admin-open").networks.is_none());
    let status = spec.routes.iter().find(|one| one.name == "status").unwrap();
    assert_eq!(status.networks.as_ref().unwrap().allow.len(), 2, "the loopback alone");
    let app = spec.upstreams.iter().find(|one| one.name == "app").unwrap();
    assert_eq!(app.targets.iter().map(|one| one.priority).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(app.pool.max_idle, 32);
    let listens: Vec<String> = spec.listeners.iter().map(|one| one.listen.to_string()).collect();
    assert_eq!(listens, ["0.0.0.0:8080", "127.0.0.1:8081"], "what only redirects has none");
}

#[test]
fn nginx_with_a_certificate() {
    let directory = std::env::temp_dir().join(format!("sluice-nginx-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["shop.example.com".into()]).unwrap();
    std::fs::write(directory.join("c.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(directory.join("k.pem"), key.serialize_pem()).unwrap();
    let text = SITE.replace("CERT", "c.pem").replace("KEY", "k.pem");
    let imported = nginx::import("site.conf", &text, &directory).unwrap();
    let spec = taken(&imported);
    let tls = spec.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].names, ["shop.example.com"]);
    let api = route(&spec, "shop.example.com-api");
    assert_eq!(api.rewrite, Rewrite::ReplacePrefix("/v2".into()));
    says(&imported, &[(line(SITE, "location ^~"), "`missing`")]);
    std::fs::remove_dir_all(directory).unwrap();
    let elsewhere = nginx::import("site.conf", &text, Path::new("/nonexistent")).unwrap();
    says(&elsewhere, &[(2, "cannot be read from here")]);
}

#[test]
fn names_and_networks() {
    for (wanted, name) in [
        ("getUser", "getUser"),
        ("get /a/{b}/", "get-a-b"),
        ("../..", "route"),
        ("", "route"),
        ("_x.", "x"),
    ] {
        assert_eq!(slug(wanted, "route"), name, "{wanted}");
    }
    assert_eq!(slug(&"a".repeat(300), "x").len(), 100);
    for (text, as_spec) in [
        ("10.1.2.3/8", Some("10.0.0.0/8")),
        ("10.1.2.3", Some("10.1.2.3/32")),
        ("::ffff:10.1.2.3/120", Some("10.1.2.0/24")),
        ("2001:db8::1/32", Some("2001:db8::/32")),
        ("10.0.0.0/0", Some("0.0.0.0/0")),
        ("10.0.0.0/33", None),
        ("unix:", None),
    ] {
        assert_eq!(network(text).as_deref(), as_spec, "{text}");
    }
    let mut draft = Draft::new(String::new());
    let names: Vec<String> = (0..3).map(|_| draft.name(Kind::Routes, &"a".repeat(100))).collect();
    assert!(names.iter().all(|name| name.len() <= 100) && names[1] != names[2], "{names:?}");
}

/// A configuration with a few lines gone, twice there, or with other words in them.
fn broken(text: &'static str) -> impl Strategy<Value = String> {
    let words =
        ["", "[]", "{}", "null", "-1", "*", "~", "/", "{", "}", ";", "'", "a", "99999999999", "é"];
    let edit = (any::<prop::sample::Index>(), 0_u8..4, prop::sample::select(words.to_vec()));
    prop::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut lines: Vec<String> = text.lines().map(Into::into).collect();
        for (at, how, word) in edits {
            if lines.is_empty() {
                break;
            }
            let at = at.index(lines.len());
            match how {
                0 => {
                    lines.remove(at);
                }
                1 => lines.insert(at, lines[at].clone()),
                2 => {
                    let end = lines[at].rfind([' ', ':']).map_or(0, |end| end + 1);
                    lines[at].replace_range(end.., word);
                }
                _ => {
                    let middle = lines[at].len() / 2;
                    if lines[at].is_char_boundary(middle) {
                        lines[at].insert_str(middle, word);
                    }
                }
            }
        }
        lines.join("\n")
    })
}

proptest! {
    /// Whatever it is, it is taken or refused; and what is taken passes the checker.
    #[test]
    fn whatever_is_taken_passes(
        pets in broken(PETSTORE),
        orders in broken(ORDERS),
        kong in broken(KONG),
        conf in broken(API),
        noise in ".{0,200}",
    ) {
        let directory = Path::new("/nonexistent");
        let imports = [
            openapi::import("a", &pets, None, None),
            openapi::import("a", &orders, Some("http://h"), None),
            openapi::import("a", &noise, None, None),
            kong::import("a", &kong, &hash),
            kong::import("a", &noise, &hash),
            nginx::import("a", &conf, directory),
            nginx::import("a", &noise, directory),
        ];
        for imported in imports {
            match imported {
                Ok(imported) => {
                    taken(&imported);
                }
                Err(error) => prop_assert!(!error.contains("defect"), "{}", error),
            }
        }
    }
}
