//! Who is calling: API keys, tokens, certificates and signatures, from the outside. Rows B-62 and B-63.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use ring::{digest, hmac};
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Authority, Gateway, Identity, Origin, Response, TlsClient};

use crate::tls::{ask as ask_tls, edge_in, entry, place};

const KEY: &str = "slk_for-the-suite-only-0123456789";
const SECRET: &[u8] = b"a secret of this suite, which is long enough";
const ISSUER: &str = "https://issuer.test";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn spec(origin: &Origin) -> Spec {
    let key = HEXLOWER.encode(digest::digest(&digest::SHA256, KEY.as_bytes()).as_ref());
    let old =
        HEXLOWER.encode(digest::digest(&digest::SHA256, b"slk_an-old-key-of-this-suite").as_ref());
    let secret = String::from_utf8_lossy(SECRET);
    Spec::to(origin.address())
        .also(&format!(
            "consumers:\n\
             \x20 - name: app\n\
             \x20   scopes: [ read ]\n\
             \x20   api_keys: [ {{ prefix: slk_for, sha256: {key} }}, {{ prefix: slk_an, sha256: {old}, \
             expires: 2020-01-01T00:00:00Z }} ]\n\
             \x20   signing_keys: [ {{ id: k1, secret: {{ inline: \"{secret}\" }} }} ]\n\
             \x20   subjects: [ {{ authenticator: tokens, value: user-7 }} ]\n\
             \x20 - {{ name: guest }}"
        ))
        .also(&format!(
            "authenticators:\n\
             \x20 - {{ name: keys, api_key: {{ from: [ {{ header: x-api-key }}, {{ query: key }}, \
             {{ cookie: key }} ] }} }}\n\
             \x20 - name: tokens\n\
             \x20   jwt: {{ issuer: \"{ISSUER}\", audiences: [ suite ], claim_headers: {{ tenant: x-tenant }}, \
             keys: [ {{ secret: {{ inline: \"{secret}\" }}, algorithm: HS256, kid: one }} ] }}\n\
             \x20 - {{ name: signed, signature: {{ components: [ \"@method\", \"@path\" ], max_age_s: 60 }} }}"
        ))
}

fn route(name: &str, auth: &str) -> String {
    format!("{{ name: {name}, match: {{ path: /{name} }}, upstream: origin, auth: {auth} }}")
}

fn ask(gateway: &Gateway, target: &str, fields: &str) -> Response {
    gateway.ask(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

#[test]
fn keys_in_each_place_and_none_of_them_goes_on() {
    let origin = Origin::echo();
    let spec = spec(&origin)
        .also_route(&route("keys", "{ any: [ keys ], hide_credentials: true }"))
        .also_route(&route("write", "{ any: [ keys ], scopes: [ write ] }"))
        .also_route(&route("open", "{ any: [ keys ], anonymous: guest }"))
        .also_route(&route("maybe", "{ any: [ keys ], optional: true }"));
    let gateway = Gateway::of(&spec);
    for (target, fields) in [
        ("/keys?a=1", format!("X-API-Key: {KEY}\r\n")),
        (&format!("/keys?a=1&key={KEY}"), String::new()),
        ("/keys?a=1", format!("Cookie: key={KEY}\r\n")),
    ] {
        let forged = format!("{fields}X-Consumer-Id: root\r\nX-Consumer-Groups: staff\r\n");
        assert_eq!(ask(&gateway, target, &forged).status, 200, "{target} {fields}");
        let seen = origin.last();
        assert_eq!(seen.all("x-consumer-id"), ["app"], "only the gateway says who calls");
        assert_eq!(seen.field("x-consumer-groups"), None);
        assert_eq!(seen.field("x-consumer-credential"), Some("slk_for"));
        assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
    }
    let before = origin.completed();
    let missing = ask(&gateway, "/keys", "");
    assert_eq!((missing.status, missing.problem().as_deref()), (401, Ok("credential_missing")));
    assert!(missing.field("www-authenticate").is_some(), "RFC 9110 §15.5.2");
    for wrong in ["slk_not-one-of-ours", "slk_an-old-key-of-this-suite", "x"] {
        let refused = ask(&gateway, "/keys", &format!("X-API-Key: {wrong}\r\n"));
        assert_eq!(refused.status, 401, "{wrong}");
        let open = ask(&gateway, "/open", &format!("X-API-Key: {wrong}\r\n"));
        assert_eq!(open.status, 401, "nobody is let in as a guest with a wrong key");
    }
    let two = ask(&gateway, &format!("/keys?key={KEY}"), &format!("X-API-Key: {KEY}\r\n"));
    assert_eq!((two.status, two.problem().as_deref()), (400, Ok("credential_ambiguous")), "B-63");
    let scope = ask(&gateway, "/write", &format!("X-API-Key: {KEY}\r\n"));
    assert_eq!((scope.status, scope.problem().as_deref()), (403, Ok("scope_missing")));
    assert_eq!(origin.completed(), before, "nothing of these reached the upstream");
    assert_eq!(ask(&gateway, "/open", "").status, 200);
    assert_eq!(origin.last().field("x-consumer-id"), Some("guest"));
    assert_eq!(ask(&gateway, "/maybe", "X-Consumer-Id: root\r\n").status, 200);
    assert_eq!(origin.last().field("x-consumer-id"), None);
}

/// A token with this header and these claims, signed with the suite's secret.
fn token(header: &str, claims: &str) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn claims(more: &str) -> String {
    let (from, to) = (now_s() - 10, now_s() + 600);
    format!(
        "{{\"iss\":\"{ISSUER}\",\"aud\":\"suite\",\"sub\":\"user-7\",\"tenant\":\"acme\",\
         \"scope\":\"read\",\"iat\":{from},\"exp\":{to}{more}}}"
    )
}

#[test]
fn b_62_tokens() {
    let origin = Origin::echo();
    let spec = spec(&origin).also_route(&route("tokens", "tokens"));
    let gateway = Gateway::of(&spec);
    let header = "{\"alg\":\"HS256\",\"kid\":\"one\",\"typ\":\"JWT\"}";
    let good = token(header, &claims(""));
    let send = |token: &str| {
        ask(&gateway, "/tokens", &format!("X-Tenant: forged\r\nAuthorization: Bearer {token}\r\n"))
    };
    for _ in 0..4 {
        assert_eq!(send(&good).status, 200, "first seen or remembered, on any shard");
        let seen = origin.last();
        assert_eq!(seen.field("x-consumer-id"), Some("app"));
        assert_eq!(seen.all("x-tenant"), ["acme"]);
    }
    let before = origin.completed();
    let alg = |alg: &str| token(&format!("{{\"alg\":\"{alg}\",\"kid\":\"one\"}}"), &claims(""));
    let (past, soon) = (now_s() - 3_600, now_s() + 3_600);
    let changed = |from: &str, to: &str| token(header, &claims("").replace(from, to));
    let unsigned = good.rsplit_once('.').expect("dots").0.to_owned();
    let mut flipped = good.clone().into_bytes();
    let last = flipped.len() - 5;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let ended = claims("");
    let ended = ended.replace(&format!("\"exp\":{}", now_s() + 600), &format!("\"exp\":{past}"));
    for (what, token) in [
        ("alg none", alg("none")),
        ("alg None", alg("None")),
        ("alg nOnE", alg("nOnE")),
        ("another algorithm", alg("HS512")),
        ("an asymmetric one", alg("RS256")),
        ("no signature", format!("{unsigned}.")),
        ("two parts", unsigned.clone()),
        ("four parts", format!("{good}.AAAA")),
        ("another signature", String::from_utf8(flipped).expect("text")),
        ("padding", format!("{good}=")),
        ("crit", token("{\"alg\":\"HS256\",\"crit\":[\"x\"],\"x\":1}", &claims(""))),
        ("b64", token("{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}", &claims(""))),
        ("a key of its own", token("{\"alg\":\"HS256\",\"kid\":\"x\",\"jwk\":{}}", &claims(""))),
        ("a kid with a path", token("{\"alg\":\"HS256\",\"kid\":\"../one\"}", &claims(""))),
        ("a claim twice", token(header, &claims(",\"sub\":\"root\""))),
        ("expired", token(header, &ended)),
        ("not yet", token(header, &claims(&format!(",\"nbf\":{soon}")))),
        ("another audience", changed("suite", "else")),
        ("another issuer", changed("issuer.test", "evil.test")),
        ("no JSON", token(header, "nothing")),
        ("not base64url", good.replace('.', "+.")),
        ("64 KiB", "A".repeat(20 * 1024)),
    ] {
        let refused = send(&token);
        assert_eq!(refused.status, 401, "{what}");
        let challenge = refused.field("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
        assert_eq!(refused.problem().as_deref(), Ok("credential_invalid"), "{what}");
    }
    assert_eq!(origin.completed(), before, "none of them reached the upstream");
}

#[test]
fn signed_requests() {
    let origin = Origin::echo();
    let spec = spec(&origin).also_route(&route("signed", "signed"));
    let gateway = Gateway::of(&spec);
    let send = |method: &str, path: &str, created: u64| {
        let parameters = format!("(\"@method\" \"@path\");created={created};keyid=\"k1\"");
        let base =
            format!("\"@method\": GET\n\"@path\": /signed\n\"@signature-params\": {parameters}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let value = BASE64.encode(hmac::sign(&key, base.as_bytes()).as_ref());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a.test\r\nSignature-Input: s={parameters}\r\n\
             Signature: s=:{value}:\r\n\r\n"
        );
        gateway.ask(request).status
    };
    assert_eq!(send("GET", "/signed", now_s()), 200);
    assert_eq!(origin.last().field("x-consumer-id"), Some("app"));
    assert_eq!(send("DELETE", "/signed", now_s()), 401, "another method");
    assert_eq!(send("GET", "/signed/more", now_s()), 401, "another path");
    assert_eq!(send("GET", "/signed", now_s() - 120), 401, "too old");
    assert_eq!(ask(&gateway, "/signed", "").status, 401);
}

#[test]
fn certificates_say_who_calls_and_with_a_key_both_have_to() {
    let (servers, clients) = (Authority::new("Servers"), Authority::new("Clients"));
    let origin = Origin::echo();
    let scratch = Scratch::new();
    place(scratch.path(), "site", &servers.server(&["a.test"]));
    scratch.file("clients.pem", clients.pem());
    let key = HEXLOWER.encode(digest::digest(&digest::SHA256, KEY.as_bytes()).as_ref());
    let spec = Spec::to(origin.address())
        .also(&format!(
            "consumers:\n\
             \x20 - {{ name: billing, certificates: [ {{ uri: \"spiffe://test/ns/*/billing\" }} ] }}\n\
             \x20 - {{ name: app, certificates: [ {{ uri: spiffe://test/app }} ], \
             api_keys: [ {{ sha256: {key} }} ] }}"
        ))
        .also(
            "authenticators: [ { name: mesh, certificate: { consumer_required: true } }, \
             { name: keys, api_key: {} } ]",
        )
        .also_route(&route("mesh", "mesh"))
        .also_route(&route("both", "{ all: [ mesh, keys ] }"));
    let auth = "client_auth: { mode: request, ca: \"{DIR}/clients.pem\" }";
    let edge = edge_in(scratch, spec, "", &[entry("site", auth)], "");
    let send = |identity: Option<&Identity>, path: &str, fields: &str| {
        let mut tls = TlsClient::new(&servers, "a.test");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        ask_tls(edge.address, &tls, &request).map(|response| response.status)
    };
    let billing = clients.client("b", "spiffe://test/ns/prod/billing");
    assert_eq!(send(Some(&billing), "/mesh", ""), Ok(200));
    assert_eq!(origin.last().field("x-consumer-id"), Some("billing"));
    let stranger = clients.client("s", "spiffe://test/ns/a/b/billing");
    assert_eq!(send(Some(&stranger), "/mesh", ""), Ok(401), "nobody's");
    assert_eq!(send(None, "/mesh", "X-Forwarded-Client-Cert: Hash=00\r\n"), Ok(401));
    let app = clients.client("a", "spiffe://test/app");
    let with_key = format!("X-API-Key: {KEY}\r\n");
    assert_eq!(send(Some(&app), "/both", &with_key), Ok(200));
    assert_eq!(origin.last().field("x-consumer-id"), Some("app"));
    assert_eq!(send(Some(&app), "/both", ""), Ok(401), "one of two");
    assert_eq!(send(None, "/both", &with_key), Ok(401), "the other one");
    assert_eq!(send(Some(&billing), "/both", &with_key), Ok(401), "of two callers");
}

#[test]
fn a_key_taken_out_of_the_spec_ends_with_the_apply() {
    let origin = Origin::echo();
    let with = spec(&origin).also_route(&route("keys", "keys"));
    let mut gateway = Gateway::of(&with);
    let status = |gateway: &Gateway| ask(gateway, "/keys", &format!("X-API-Key: {KEY}\r\n")).status;
    for _ in 0..4 {
        assert_eq!(status(&gateway), 200);
    }
    let key = HEXLOWER.encode(digest::digest(&digest::SHA256, KEY.as_bytes()).as_ref());
    gateway.apply(&with.text().replace(&key, &"f".repeat(64)));
    for _ in 0..4 {
        assert_eq!(status(&gateway), 401, "no shard remembers it");
    }
    let (code, metrics) = gateway.admin("/metrics");
    assert_eq!(code, 200);
    for outcome in ["known", "invalid"] {
        let of = |line: &&str| {
            line.starts_with("sluice_shard_auth_total{")
                && line.contains(&format!("outcome=\"{outcome}\""))
        };
        let counts = metrics.lines().filter(of).filter_map(|line| line.rsplit(' ').next());
        let counted: f64 = counts.filter_map(|count| count.parse::<f64>().ok()).sum();
        assert_eq!(counted, 4.0, "{outcome}");
    }
}
