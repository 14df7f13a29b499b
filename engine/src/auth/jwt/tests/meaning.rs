//! From claims to a caller.

use contract::snapshot::{ClaimRule, ClaimTest, Consumer, Subject};

use super::*;
use crate::auth::jwt::claims::{check_lifetime, identify};
use crate::auth::{Identity, Refusal, Registry};

fn registry() -> Registry {
    let mut snapshot = snapshot_of(rules(), loaded(), 1);
    let subject = |value: &str| Subject { authenticator: 0, value: value.into() };
    snapshot.auth.consumers = vec![
        Consumer {
            name: "ada".into(),
            groups: vec!["staff".into()],
            scopes: vec!["read".into(), "write".into()],
            limits: Some("gold".into()),
            ..Consumer::default()
        },
        Consumer { name: "bob".into(), subjects: vec![subject("4711")], ..Consumer::default() },
    ]
    .into();
    Registry::build(&snapshot).unwrap()
}

fn with(rules: &JwtRules, change: impl FnOnce(&mut Value)) -> Result<Identity, Refusal> {
    let mut claims = claims();
    change(&mut claims);
    let Value::Object(claims) = claims else { unreachable!() };
    check_lifetime(rules, &claims)?;
    identify(&rules.tokens, &registry(), 0, claims, NOW_S * 1_000)
}

fn plain(change: impl FnOnce(&mut Value)) -> Result<Identity, Refusal> {
    with(&rules(), change)
}

/// Whether the claim `name` may be `value`.
fn taken(name: &str, value: Value) -> bool {
    taken_by(&rules(), name, value)
}

fn taken_by(rules: &JwtRules, name: &str, value: Value) -> bool {
    match with(rules, |claims| claims[name] = value) {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Invalid);
            false
        }
    }
}

fn texts(list: &[Box<str>]) -> Vec<&str> {
    list.iter().map(|text| &**text).collect()
}

#[test]
fn times_are_numbers_with_some_leeway() {
    assert!(taken("exp", (NOW_S - 9).into()) && !taken("exp", (NOW_S - 10).into()));
    assert!(taken("exp", json!(NOW_S as f64 - 9.5)) && !taken("exp", json!(NOW_S as f64 - 10.5)));
    assert!(taken("nbf", (NOW_S + 10).into()) && !taken("nbf", (NOW_S + 11).into()));
    assert!(!taken("nbf", json!(NOW_S as f64 + 10.001)));
    assert!(taken("iat", (NOW_S + 10).into()) && !taken("iat", (NOW_S + 11).into()));
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("1"), json!(null), json!([NOW_S]), json!({}), json!(true)] {
            assert!(!taken(name, value));
        }
        assert_eq!(taken(name, json!(1e300)), name == "exp");
        assert_eq!(taken(name, json!(u64::MAX)), name == "exp");
        assert_eq!(taken(name, json!(-1e300)), name != "exp");
        assert_eq!(taken(name, json!(i64::MIN)), name != "exp");
        assert_eq!(taken(name, json!(0)), name != "exp");
    }
}

#[test]
fn an_identity_ends_with_its_token() {
    let identity = plain(|_| {}).unwrap();
    assert_eq!(identity.until_ms, (NOW_S + 300 + 10) * 1_000);
    assert_eq!(plain(|c| c["exp"] = json!(1e300)).unwrap().until_ms, i64::MAX as u64);
    assert_eq!(plain(|c| c["exp"] = json!(NOW_S as f64 + 0.5)).unwrap().until_ms % 1_000, 500);
    let endless = JwtRules { allow_endless: true, ..rules() };
    let without = |claims: &mut Value| _ = claims.as_object_mut().unwrap().remove("exp");
    assert_eq!(plain(without).unwrap_err(), Refusal::Invalid);
    let identity = with(&endless, without).unwrap();
    assert_eq!(identity.until_ms, NOW_S * 1_000 + crate::limits::AUTH_ENDLESS_MS);
}

#[test]
fn lifetimes_are_bounded() {
    let rules = JwtRules { max_lifetime_s: 300, ..rules() };
    assert!(taken_by(&rules, "exp", (NOW_S + 300).into()));
    assert!(!taken_by(&rules, "exp", (NOW_S + 301).into()));
    assert!(!taken_by(&rules, "exp", json!(1e300)));
    assert!(!taken_by(&rules, "iat", (NOW_S - 1).into()));
    let no_iat = |nbf: Option<u64>| {
        with(&rules, |claims| {
            claims.as_object_mut().unwrap().remove("iat");
            if let Some(nbf) = nbf {
                claims["nbf"] = nbf.into();
            }
        })
    };
    assert!(no_iat(Some(NOW_S)).is_ok() && no_iat(Some(NOW_S - 1)).is_err());
    assert!(no_iat(None).is_err(), "nobody knows since when it is");
    let endless = JwtRules { allow_endless: true, ..rules.clone() };
    assert!(with(&endless, |c| _ = c.as_object_mut().unwrap().remove("exp")).is_err());
}

#[test]
fn issuer_and_audience_are_exact() {
    assert!(!taken("iss", json!("https://issuer.example/")));
    assert!(!taken("iss", json!("HTTPS://issuer.example")));
    assert!(!taken("iss", json!(["https://issuer.example"])));
    assert!(taken("aud", json!("other")) && taken("aud", json!(["x", "api"])));
    for aud in [
        json!("API"),
        json!("api "),
        json!(["x"]),
        json!([]),
        json!(null),
        json!({}),
        json!(["api", 1]),
        json!([["api"]]),
    ] {
        assert!(!taken("aud", aud.clone()), "{aud}");
    }
    let mut any = rules();
    (any.tokens.issuer, any.tokens.audiences) = (None, vec![]);
    assert!(taken_by(&any, "iss", json!("x")) && taken_by(&any, "aud", json!(null)));
}

#[test]
fn rules_ask_for_claims_at_any_depth() {
    let rule = |claim: &str, test: ClaimTest| {
        let mut rules = rules();
        rules.tokens.require = vec![ClaimRule { claim: claim.into(), test }];
        rules
    };
    let one_of = |values: &[&str]| ClaimTest::OneOf(values.iter().map(|v| (*v).into()).collect());
    let claims = |claims: &mut Value| {
        claims["realm_access"] = json!({ "roles": ["admin", "user"], "a.b": { "c": 1 } });
        claims["https://x.example/roles"] = json!({ "list": ["x"] });
        claims["email_verified"] = true.into();
        claims["level"] = 3.into();
        claims["nothing"] = Value::Null;
        claims["tenant"] = "eu-west".into();
    };
    for (claim, test, holds) in [
        ("tenant", ClaimTest::Present, true),
        ("email_verified", ClaimTest::Present, true),
        ("nothing", ClaimTest::Present, false),
        ("realm_access", ClaimTest::Present, true),
        ("realm_access.roles", ClaimTest::Present, true),
        ("realm_access.roles.admin", ClaimTest::Present, false),
        ("realm_access.a.b.c", ClaimTest::Present, true),
        ("https://x.example/roles.list", one_of(&["x"]), true),
        ("realm_access.", ClaimTest::Present, false),
        (".", ClaimTest::Present, false),
        ("", ClaimTest::Present, false),
        ("realm_access.roles", one_of(&["root", "admin"]), true),
        ("realm_access.roles", one_of(&["root"]), false),
        ("realm_access", one_of(&["roles"]), false),
        ("email_verified", one_of(&["true"]), true),
        ("level", one_of(&["3"]), true),
        ("level", one_of(&["4"]), false),
        ("missing", one_of(&["null", ""]), false),
        ("tenant", ClaimTest::Prefix("eu-".into()), true),
        ("tenant", ClaimTest::Prefix("us-".into()), false),
        ("realm_access.roles", ClaimTest::Prefix("adm".into()), true),
        ("level", ClaimTest::Prefix("3".into()), false),
    ] {
        let told = with(&rule(claim, test.clone()), claims);
        assert_eq!(told.is_ok(), holds, "{claim} {test:?}");
    }
}

#[test]
fn a_token_never_widens_what_a_consumer_may_do() {
    let scopes = |change: &dyn Fn(&mut Value)| plain(change).unwrap().scopes;
    let of_stranger = |value: Value| {
        scopes(&|claims| (claims["sub"], claims["scope"]) = ("eve".into(), value.clone()))
    };
    assert_eq!(texts(&of_stranger(json!("write  read read"))), ["read", "write"]);
    assert_eq!(texts(&of_stranger(json!(["b", "a"]))), ["a", "b"]);
    assert!(of_stranger(json!(7)).is_empty());
    let both = scopes(&|claims| {
        claims["sub"] = "eve".into();
        (claims["scope"], claims["scp"]) = ("b".into(), json!(["a"]));
    });
    assert_eq!(texts(&both), ["a", "b"]);
    let of_consumer = |value: Value| scopes(&|claims| claims["scope"] = value.clone());
    assert_eq!(texts(&scopes(&|_| {})), ["read", "write"], "the token does not say");
    assert_eq!(texts(&of_consumer(json!("read admin"))), ["read"]);
    assert!(of_consumer(json!("")).is_empty(), "it says: none");
}

#[test]
fn callers_are_consumers_by_subject_or_name() {
    let identity = plain(|_| {}).unwrap();
    assert_eq!((identity.consumer, &*identity.id), (Some(0), "ada"));
    assert_eq!(identity.limits.as_deref(), Some("gold"));
    assert!(identity.claims.is_some_and(|claims| claims["sub"] == "ada"));
    let identity = plain(|claims| claims["sub"] = 4711.into()).unwrap();
    assert_eq!((identity.consumer, &*identity.id), (Some(1), "bob"));
    let identity = plain(|claims| claims["sub"] = "eve".into()).unwrap();
    assert_eq!((identity.consumer, &*identity.id), (None, "eve"));
    let mut by_client = rules();
    by_client.tokens.consumer_claim = "act.client".into();
    let identity = with(&by_client, |claims| claims["act"] = json!({ "client": "bob" })).unwrap();
    assert_eq!(identity.consumer, Some(1));
    let identity = with(&by_client, |_| {}).unwrap();
    assert_eq!((identity.consumer, &*identity.id), (None, "ada"), "called so, but not known by it");
    by_client.tokens.consumer_required = true;
    assert_eq!(with(&by_client, |_| {}).unwrap_err(), Refusal::Invalid);
    assert!(with(&by_client, |claims| claims["act"] = json!({ "client": "bob" })).is_ok());
    assert!(!taken("sub", json!("a\u{7f}")) && !taken("sub", json!("a\tb")));
    assert_eq!(&*plain(|c| c["sub"] = json!(["x"])).unwrap().id, "");
}

#[test]
fn groups_of_both_count() {
    let mut rules = rules();
    rules.tokens.groups_claim = Some("realm.groups".into());
    let groups = |value: Value| {
        with(&rules, |claims| claims["realm"] = json!({ "groups": value })).map(|it| it.groups)
    };
    assert_eq!(texts(&groups(json!(["staff", "cn=a,b", 3])).unwrap()), ["staff", "cn=a,b"]);
    assert_eq!(texts(&groups(json!("x y")).unwrap()), ["staff", "x", "y"]);
    assert_eq!(texts(&groups(Value::Null).unwrap()), ["staff"]);
    assert_eq!(groups(json!(["a\r\nb"])).unwrap_err(), Refusal::Invalid);
}

#[test]
fn upstreams_are_told_claims_that_fit_a_field() {
    let mut rules = rules();
    let told = ["text", "number", "truth", "list", "a.b", "object", "control", "empty", "missing"];
    rules.tokens.claim_headers =
        told.map(|claim| (claim.to_owned(), format!("x-{}", claim.replace('.', "-")))).into();
    let identity = with(&rules, |claims| {
        claims["text"] = " grüße ".into();
        claims["number"] = 1.5.into();
        claims["truth"] = false.into();
        claims["list"] = json!(["a", 1, null, { "x": 1 }, "b"]);
        claims["a"] = json!({ "b": "c" });
        claims["object"] = json!({ "x": 1 });
        claims["control"] = "a\r\nx-evil: 1".into();
        claims["empty"] = " ".into();
    })
    .unwrap();
    let fields: Vec<_> = identity
        .fields
        .iter()
        .map(|(name, value)| (&**name, std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        fields,
        [
            ("x-text", "grüße"),
            ("x-number", "1.5"),
            ("x-truth", "false"),
            ("x-list", "a,1,b"),
            ("x-a-b", "c"),
        ]
    );
}

/// Providers name claims of others by URLs, as OpenID Connect Core §5.1.2 advises: the dots in these are
/// no steps of a path.
#[test]
fn claims_whose_names_have_dots_are_found() {
    let mut rules = rules();
    rules.tokens.groups_claim = Some("https://example.com/roles".into());
    rules.tokens.scope_claims = vec!["https://api.example.com/permissions".into()];
    rules.tokens.consumer_claim = "https://example.com/app.id".into();
    let told = ["https://example.com/org.name", "a.b", "a.b.c", "x.y", "p.q"];
    rules.tokens.claim_headers =
        told.iter().zip(0..).map(|(claim, n)| ((*claim).into(), format!("x-{n}"))).collect();
    let present = ClaimTest::Present;
    rules.tokens.require =
        vec![ClaimRule { claim: "https://example.com/org.name".into(), test: present }];
    let identity = with(&rules, |claims| {
        claims["https://example.com/roles"] = json!(["admin", "auditor"]);
        claims["https://api.example.com/permissions"] = "read delete".into();
        claims["https://example.com/app"] = json!({ "id": "ada" });
        // Inside of a claim whose own name has dots.
        claims["https://example.com/org"] = json!({ "name": "Acme" });
        // The whole name goes before the path, whatever stands first.
        claims["a"] = json!({ "b": "nested", "b.c": "nested with a dot" });
        claims["a.b"] = "whole".into();
        // A claim that is null is as if it were not there, and no path is looked for behind it.
        claims["x.y"] = Value::Null;
        claims["x"] = json!({ "y": "behind" });
        // What is no object has nothing in it.
        claims["p"] = json!([{ "q": 1 }]);
    })
    .unwrap();
    assert_eq!(&*identity.id, "ada");
    assert_eq!(texts(&identity.groups), ["staff", "admin", "auditor"]);
    assert_eq!(texts(&identity.scopes), ["read"], "of ada's");
    let fields: Vec<(&str, &[u8])> =
        identity.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(fields, [("x-0", &b"Acme"[..]), ("x-1", b"whole"), ("x-2", b"nested with a dot")]);
    assert_eq!(with(&rules, |_| {}).unwrap_err(), Refusal::Invalid, "it has to be there");
}

#[test]
fn tokens_are_bound_to_certificates_or_to_nothing() {
    let bound = json!({ "x5t#S256": encoded(&[7; 32]) });
    assert_eq!(plain(|c| c["cnf"] = bound.clone()).unwrap().certificate, Some([7; 32]));
    for cnf in [
        json!({}),
        json!(null),
        json!("x"),
        json!({ "jkt": "x" }),
        json!({ "x5t#S256": encoded(&[7; 31]) }),
        json!({ "x5t#S256": format!("{}=", encoded(&[7; 32])) }),
        json!({ "x5t#S256": 1 }),
    ] {
        assert!(!taken("cnf", cnf));
    }
    let mut rules = rules();
    rules.tokens.bound_only = true;
    assert!(taken_by(&rules, "cnf", bound) && with(&rules, |_| {}).is_err());
}

#[test]
fn a_credential_is_named_by_its_id() {
    let identity = plain(|claims| claims["jti"] = "j-1".into()).unwrap();
    assert_eq!(identity.credential.as_deref(), Some("j-1"));
    assert_eq!(plain(|claims| claims["jti"] = 1.into()).unwrap().credential, None);
    assert!(!taken("jti", json!("a\nb")));
}
