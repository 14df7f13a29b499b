//! Entry point for fuzzing: it panics where the readers break a promise, never on bad input.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::snapshot::{
    self, ClaimRule, ClaimTest, JwsAlgorithm, Jwt, KeyMaterial, Tokens, VerifyKey,
};

use super::claims::{Claims, check_lifetime, identify};
use super::json;
use super::parse::Token;
use super::verify::{KeySet, Verdict};
use crate::auth::{Identity, Registry};

const NOW_MS: u64 = 1_700_000_000_000;

/// Reads `data` as a token and its payload, and `data` itself, as claims.
pub fn fuzz_jwt(data: &[u8]) {
    if let Ok(token) = Token::read(data) {
        check(data, &token);
        if let Some(claims) = json::object(&token.payload) {
            check_claims(claims);
        }
    }
    if let Some(claims) = json::object(data) {
        check_claims(claims);
    }
}

fn check(data: &[u8], token: &Token) {
    let mut again = token.signed.clone();
    again.push(b'.');
    again.extend_from_slice(URL_SAFE_NO_PAD.encode(&token.signature).as_bytes());
    assert_eq!(again, data, "there is one way to write a token");
    let key = VerifyKey {
        kid: None,
        algorithms: vec![JwsAlgorithm::Hs256, JwsAlgorithm::Hs384, JwsAlgorithm::Hs512],
        material: KeyMaterial::Hmac(vec![7; 64]),
    };
    let from = snapshot::KeySet { keys: vec![key], loaded: true, ..snapshot::KeySet::default() };
    let keys = KeySet::build(&from).expect("the key is good");
    assert_ne!(keys.judge(token), Verdict::Good, "nobody knows the secret");
}

fn check_claims(claims: Claims) {
    let tokens = Tokens {
        from: Vec::new(),
        issuer: None,
        audiences: Vec::new(),
        require: vec![ClaimRule { claim: "sub".into(), test: ClaimTest::Present }],
        scope_claims: vec!["scope".into(), "scp".into()],
        groups_claim: Some("a.b.groups".into()),
        consumer_claim: "sub".into(),
        consumer_required: false,
        claim_headers: vec![("email".into(), "x-email".into()), ("a.b.c".into(), "x-c".into())],
        bound_only: false,
        leeway_s: 5,
    };
    let rules =
        Jwt { tokens, keys: 0, max_lifetime_s: 86_400, allow_endless: false, access_token: false };
    let lifetime = check_lifetime(&rules, &claims);
    let identity = identify(&rules.tokens, &Registry::default(), 0, claims, NOW_MS);
    let Ok(Identity { id, groups, scopes, fields, credential, until_ms, .. }) = identity else {
        return;
    };
    assert!(until_ms > NOW_MS);
    if lifetime.is_ok() {
        assert!(until_ms <= NOW_MS + (86_400 + 2 * 5) * 1_000);
    }
    let texts = groups.iter().map(|group| group.as_bytes());
    let texts = texts.chain([id.as_bytes()]).chain(credential.as_deref().map(str::as_bytes));
    let safe = |text: &[u8]| !text.iter().any(u8::is_ascii_control);
    assert!(texts.chain(fields.iter().map(|(_, value)| &**value)).all(safe));
    assert!(scopes.is_sorted());
}
