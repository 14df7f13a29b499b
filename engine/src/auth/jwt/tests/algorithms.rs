//! Each algorithm verifies what it signs, and nothing else.

use contract::snapshot::JwsAlgorithm as A;
use proptest::prelude::*;

use super::*;
use crate::auth::jwt::json;
use crate::auth::jwt::parse::{Malformed, Token};
use crate::auth::jwt::verify::Verdict;

fn judge(keys: &KeySet, token: &str) -> Result<Verdict, Malformed> {
    Token::read(token.as_bytes()).map(|token| keys.judge(&token))
}

#[test]
fn what_is_signed_is_verified_by_that_key_and_algorithm_only() {
    let signers: Vec<Signer> = A::ALL.map(Signer::new).into();
    for signer in &signers {
        for kid in [None, Some("a")] {
            let token = signer.token(kid, &claims());
            let keys = key_set(vec![signer.key(Some("a"))]);
            assert_eq!(judge(&keys, &token), Ok(Verdict::Good), "{}", signer.algorithm().name());
            let other = signer.token(Some("b"), &claims());
            assert_eq!(judge(&keys, &other), Ok(Verdict::Unknown));
        }
        // The same text under another algorithm's name, with the same bytes for a signature.
        let token = signer.token(None, &claims());
        for algorithm in A::ALL.into_iter().filter(|one| *one != signer.algorithm()) {
            let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
            let rest = token.split_once('.').unwrap().1;
            let token = format!("{}.{rest}", encoded(header.as_bytes()));
            for key in &signers {
                let verdict = judge(&key_set(vec![key.key(None)]), &token);
                assert_eq!(verdict, Ok(Verdict::Bad));
            }
        }
    }
    let keys = key_set(signers.iter().map(|signer| signer.key(None)).collect());
    for signer in &signers {
        assert_eq!(judge(&keys, &signer.token(None, &claims())), Ok(Verdict::Good));
        // One of the six RSA algorithms is the key's.
        assert_eq!(judge(&keys, &signer.token(Some("x"), &claims())), Ok(Verdict::Good));
    }
}

#[test]
fn keys_of_long_numbers_are_for_the_store_thread() {
    let long = Signer::rsa(A::Rs256, include_bytes!("data/rsa4096.pem"));
    let token = Token::read(long.token(None, &claims()).as_bytes()).unwrap();
    let keys = key_set(vec![long.key(None)]);
    assert!(keys.is_slow_for(&token.header) && keys.judge(&token) == Verdict::Good);
    for (algorithm, slow) in [
        (A::Rs256, false),
        (A::Ps512, false),
        (A::Es256, false),
        (A::EdDsa, false),
        (A::Hs512, false),
        (A::Es384, true),
        (A::Es512, true),
    ] {
        let signer = Signer::new(algorithm);
        let token = Token::read(signer.token(None, &claims()).as_bytes()).unwrap();
        // Beside keys that are none for it.
        let keys = key_set(vec![long.key(Some("long")), signer.key(None)]);
        let slow_beside = keys.is_slow_for(&Token { ..token.clone() }.header);
        assert_eq!(slow_beside, slow || algorithm == A::Rs256, "{}", algorithm.name());
        assert_eq!(key_set(vec![signer.key(None)]).is_slow_for(&token.header), slow);
    }
}

#[test]
fn few_keys_are_tried() {
    let signers: Vec<Signer> = (0..9).map(|_| Signer::new(A::Es256)).collect();
    let keys = key_set(signers.iter().map(|signer| signer.key(None)).collect());
    assert_eq!(judge(&keys, &signers[7].token(None, &claims())), Ok(Verdict::Good));
    assert_eq!(judge(&keys, &signers[8].token(None, &claims())), Ok(Verdict::Bad));
    // A name chooses among any number.
    let named = |(n, signer): (usize, &Signer)| signer.key(Some(&n.to_string()));
    let keys = key_set(signers.iter().enumerate().map(named).collect());
    assert_eq!(judge(&keys, &signers[8].token(Some("8"), &claims())), Ok(Verdict::Good));
    assert_eq!(judge(&keys, &signers[8].token(Some("7"), &claims())), Ok(Verdict::Bad));
}

#[test]
fn keys_that_are_none_are_refused() {
    let good = Signer::new(A::Es512).key(None);
    let refused = |key: VerifyKey| KeySet::build(&snapshot::KeySet { keys: vec![key], ..loaded() });
    assert!(refused(good.clone()).is_ok());
    let point = |change: &dyn Fn(&mut Vec<u8>)| {
        let KeyMaterial::P521(mut point) = good.material.clone() else { unreachable!() };
        change(&mut point);
        VerifyKey { material: KeyMaterial::P521(point), ..good.clone() }
    };
    let rsa = |modulus: Vec<u8>| VerifyKey {
        kid: None,
        algorithms: vec![A::Rs256],
        material: KeyMaterial::Rsa { modulus, exponent: vec![1, 0, 1] },
    };
    let secret = |len: usize, algorithm| VerifyKey {
        kid: None,
        algorithms: vec![algorithm],
        material: KeyMaterial::Hmac(vec![1; len]),
    };
    for key in [
        point(&|point| point.truncate(132)),
        point(&|point| point[0] = 2),
        VerifyKey { algorithms: vec![A::Es256], ..good.clone() },
        VerifyKey { algorithms: vec![], ..good.clone() },
        rsa(vec![0xff; 255]),
        rsa(vec![0xff; 1_025]),
        secret(31, A::Hs256),
        secret(63, A::Hs512),
    ] {
        let error = refused(key).unwrap_err();
        assert!(error.contains("not sound"), "{error}");
    }
    assert!(refused(secret(64, A::Hs512)).is_ok());
}

#[test]
fn points_beside_their_curve_verify_nothing() {
    for algorithm in [A::Es256, A::Es384, A::Es512] {
        let signer = Signer::new(algorithm);
        let mut key = signer.key(None);
        match &mut key.material {
            KeyMaterial::P256(point) | KeyMaterial::P384(point) | KeyMaterial::P521(point) => {
                point[40] ^= 1;
            }
            other => panic!("{other:?}"),
        }
        let token = signer.token(None, &claims());
        assert_eq!(judge(&key_set(vec![key.clone()]), &token), Ok(Verdict::Bad));
        // A provider's bad key must not keep the others from being used.
        assert_eq!(judge(&key_set(vec![key, signer.key(None)]), &token), Ok(Verdict::Good));
    }
}

#[test]
fn keys_are_shown_without_their_material() {
    let keys = key_set(vec![Signer::Hmac(A::Hs256, vec![0x99; 32]).key(Some("k"))]);
    let shown = format!("{keys:?}");
    assert!(shown.contains("Hs256") && !shown.contains("153") && !shown.contains("99"), "{shown}");
}

#[test]
fn whatever_byte_is_changed_the_token_is_refused() {
    for algorithm in A::ALL {
        let signer = Signer::new(algorithm);
        let keys = key_set(vec![signer.key(None)]);
        let token = signer.token(None, &json!({ "sub": "ada" }));
        let slow = key_set(vec![signer.key(None)])
            .is_slow_for(&Token::read(token.as_bytes()).unwrap().header);
        let step = if slow { 7 } else { 1 };
        for at in (0..token.len()).step_by(step) {
            for flip in [1, 2, 0x20, 0x80] {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= flip;
                let verdict = Token::read(&bytes).map(|token| keys.judge(&token));
                assert_ne!(verdict, Ok(Verdict::Good), "{} {at} {flip}", algorithm.name());
            }
        }
        for end in 0..token.len() {
            let cut = token.as_bytes().get(..end).unwrap();
            if let Ok(token) = Token::read(cut) {
                assert!(end + 1 >= token.signed.len());
                assert!(slow || keys.judge(&token) != Verdict::Good);
            }
        }
    }
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| encoded(&bytes)),
        r#"\{("(alg|kid|typ|crit)":("HS256"|"none"|1|\[\]),?){0,4}\}"#
            .prop_map(|json| encoded(json.as_bytes())),
        "[-_a-zA-Z0-9=+/ .]{0,20}",
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::auth::fuzz_jwt(&bytes);
        prop_assert!(json::object(&bytes).is_none_or(|map| bytes.len() > map.len()));
    }

    #[test]
    fn arbitrary_parts_do_no_harm(parts in prop::collection::vec(part(), 1..5)) {
        let text = parts.join(".");
        crate::auth::fuzz_jwt(text.as_bytes());
        if parts.len() != 3 && !text.contains("..") && parts.iter().all(|part| !part.contains('.')) {
            prop_assert_eq!(Token::read(text.as_bytes()), Err(Malformed::Parts));
        }
    }
}
