use contract::snapshot::JwsAlgorithm::*;

use super::*;
use crate::keys::REMOTE_ALGORITHMS;

const RSA: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6\
    tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2\
    QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f\
    M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

/// RFC 7517, A.1: an EC key for encryption, and an RSA key.
fn example() -> String {
    format!(
        r#"{{"keys": [
            {{"kty":"EC", "crv":"P-256", "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
              "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use":"enc", "kid":"1"}},
            {{"kty":"RSA", "n":"{RSA}", "e":"AQAB", "alg":"RS256", "kid":"2011-04-29"}}
        ]}}"#
    )
}

fn set(keys: &[&str]) -> String {
    format!("{{\"keys\": [{}]}}", keys.join(","))
}

fn parsed(text: &str) -> Vec<VerifyKey> {
    parse(text.as_bytes(), &JwsAlgorithm::ALL).expect("is a set")
}

#[test]
fn the_example_of_the_rfc() {
    let keys = parse(example().as_bytes(), &REMOTE_ALGORITHMS).expect("is a set");
    let [key] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((key.kid.as_deref(), &key.algorithms[..]), (Some("2011-04-29"), &[Rs256][..]));
    let KeyMaterial::Rsa { modulus, exponent } = &key.material else { panic!("{key:?}") };
    assert_eq!((modulus.len(), &exponent[..]), (256, &[1, 0, 1][..]));
    let keys = parsed(&example().replace("\"enc\"", "\"sig\""));
    let [ec, _] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!(ec.algorithms, [Es256]);
    assert!(matches!(&ec.material, KeyMaterial::P256(point) if point.len() == 65 && point[0] == 4));
}

#[test]
fn every_kind_of_key() {
    // RFC 8037, A.2; RFC 7517, A.3.
    let keys = parsed(&set(&[
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        r#"{"kty":"oct","alg":"A128KW","k":"GawgguFyGrWKav7AX4VKUg"}"#,
        r#"{"kty":"oct","kid":"h","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
    ]));
    let [edwards, secret] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!(edwards.algorithms, [EdDsa]);
    assert_eq!(secret.algorithms, [Hs256, Hs384, Hs512]);
    assert!(matches!(&secret.material, KeyMaterial::Hmac(secret) if secret.len() == 64));
    let point = |curve: &str, length: usize| {
        let number = BASE64URL_NOPAD.encode(&vec![7; length]);
        format!(r#"{{"kty":"EC","crv":"{curve}","x":"{number}","y":"{number}"}}"#)
    };
    let keys = parsed(&set(&[&point("P-384", 48), &point("P-521", 66)]));
    let algorithms: Vec<_> = keys.iter().map(|key| &key.algorithms[..]).collect();
    assert_eq!(algorithms, [[Es384], [Es512]]);
    // Secrets do not come from the network.
    let all = set(&[r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}"#]);
    assert_eq!(parse(all.as_bytes(), &REMOTE_ALGORITHMS), Ok(Vec::new()));
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let ed = |more: &str| {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{more}}}"#)
    };
    for unusable in [
        r#"{"kty":"LMS","x":"AA"}"#.to_string(),
        r#"{"kid":"no kty"}"#.into(),
        r#""text""#.into(),
        "null".into(),
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(),
        format!(r#"{{"kty":"RSA","n":"{RSA}"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA}=","e":"AQAB"}}"#),
        format!(r#"{{"kty":"RSA","n":"{RSA}","e":"AQ"}}"#),
        r#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB"}"#.into(),
        r#"{"kty":"EC","crv":"secp256k1","x":"AQAB","y":"AQAB"}"#.into(),
        r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#.into(),
        r#"{"kty":"oct","k":"c2hvcnQ"}"#.into(),
        ed(r#","use":"enc""#),
        ed(r#","key_ops":["sign"]"#),
        ed(r#","alg":"ES256""#),
        ed(r#","alg":"EdDSA2""#),
        ed(r#","kid":7"#),
        ed(&format!(r#","kid":"{}""#, "x".repeat(2_000))),
    ] {
        assert_eq!(parsed(&set(&[&unusable])), [], "{unusable}");
        assert_eq!(parsed(&set(&[&unusable, &ed("")])).len(), 1, "{unusable}");
    }
    for fine in [
        ed(r#","use":"sig","key_ops":["verify"],"alg":"EdDSA","x5t":"AA","more":{"a":1}"#),
        ed(r#","alg":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#),
    ] {
        assert_eq!(parsed(&set(&[&fine])).len(), 1, "{fine}");
    }
    // RFC 7518 §6.3.1.1 has no leading zero, and is not always heeded.
    let bytes = BASE64URL_NOPAD.decode(RSA.as_bytes()).expect("is base64url");
    let padded = BASE64URL_NOPAD.encode(&[&[0][..], &bytes].concat());
    let keys = parsed(&set(&[&format!(r#"{{"kty":"RSA","n":"{padded}","e":"AQAB"}}"#)]));
    assert_eq!(keys[0].algorithms, [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512]);
    assert!(matches!(&keys[0].material, KeyMaterial::Rsa { modulus, .. } if *modulus == bytes));
}

#[test]
fn of_two_keys_with_a_name_the_first_stays() {
    let rsa = |kid: &str, alg: &str| {
        format!(r#"{{"kty":"RSA","n":"{RSA}","e":"AQAB","kid":"{kid}","alg":"{alg}"}}"#)
    };
    let keys = parsed(&set(&[
        &rsa("a", "RS256"),
        &rsa("a", "RS256"),
        // Another algorithm is no doubt about which is meant.
        &rsa("a", "PS256"),
        &rsa("b", "RS256"),
    ]));
    assert_eq!(keys.len(), 3);
}

#[test]
fn what_is_no_set_is_refused() {
    for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[}"#, r#"{"kty":"oct"}"#, "\u{0}"] {
        assert_eq!(parse(wrong.as_bytes(), &JwsAlgorithm::ALL), Err(JwksError::NoSet), "{wrong}");
    }
    assert_eq!(parsed(r#"{"keys":[]}"#), []);
    let many = set(&vec!["null"; MAX_KEYS + 1]);
    assert_eq!(parse(many.as_bytes(), &[Rs256]), Err(JwksError::TooMany));
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES));
    assert_eq!(parse(large.as_bytes(), &[Rs256]), Err(JwksError::TooLarge));
    // Deep nesting ends the parser, not the process.
    let deep = "[".repeat(100_000);
    assert_eq!(parse(deep.as_bytes(), &[Rs256]), Err(JwksError::NoSet));
}

#[test]
fn keys_are_narrowed_to_what_is_allowed() {
    let keys = parsed(&set(&[&format!(r#"{{"kty":"RSA","n":"{RSA}","e":"AQAB"}}"#)]));
    let narrow = narrowed(&keys, &[Es256, Ps256]);
    assert_eq!(narrow.iter().map(|key| &key.algorithms[..]).collect::<Vec<_>>(), [[Ps256]]);
    assert_eq!(narrowed(&keys, &[Es256]), []);
}

proptest::proptest! {
    /// Whatever comes, it is keys that are sound or an error.
    #[test]
    fn noise_never_panics(text in "\\PC{0,64}", at in 0usize..700, with in "[\\PC]{0,3}") {
        let _ = parse(text.as_bytes(), &JwsAlgorithm::ALL);
        let mut mutant = example().replace("\"enc\"", "\"sig\"");
        if mutant.is_char_boundary(at) && at < mutant.len() {
            mutant.insert_str(at, &with);
        }
        for key in parse(mutant.as_bytes(), &JwsAlgorithm::ALL).unwrap_or_default() {
            proptest::prop_assert!(key.is_sound());
        }
    }
}
