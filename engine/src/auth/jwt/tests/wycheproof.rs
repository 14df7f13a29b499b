//! The vectors of Wycheproof: all that it calls invalid is refused, and where we refuse more, we say
//! why.

use contract::snapshot::{JwsAlgorithm as A, KeyMaterial, VerifyKey};
use serde_json::Value;

use super::*;
use crate::auth::jwt::parse::{self, Token};
use crate::auth::jwt::verify::Verdict;

const VECTORS: &str = include_str!("data/wycheproof/json_web_signature_test.json");

/// What Wycheproof calls valid and is refused here.
const STRICTER: [(u64, &str); 4] = [
    // The key says PS256, and what a key says counts (RFC 7517 §4.4, RFC 8725 §3.1).
    (346, "PS384 by a key for PS256"),
    (350, "PS384 by a key for PS256"),
    // RFC 7515 §2 and RFC 4648 §3.3: what is not of the alphabet is not skipped.
    (372, "`?` in the header"),
    (373, "`?` in the payload"),
];

/// What Wycheproof calls invalid and is the very text of 357, which it calls valid: the padding that
/// it tells of was lost when the vectors were written. `refusals` has padding of its own.
const MISNAMED: [u64; 2] = [367, 370];

/// The key of a group as control would make it; `None`: it is not for signatures, so that no key
/// gets as far as here.
fn key(group: &Value) -> Option<VerifyKey> {
    let jwk = group.get("public").or_else(|| group.get("private"))?;
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| parse::decoded(text(name)?.as_bytes()).ok();
    let wrong_use = text("use").is_some_and(|it| it != "sig");
    let wrong_operations = jwk
        .get("key_ops")
        .and_then(Value::as_array)
        .is_some_and(|operations| !operations.contains(&"verify".into()));
    if wrong_use || wrong_operations {
        return None;
    }
    // A slip of the RFC 7520 groups: there is no ES521.
    let algorithm = match text("alg")? {
        "ES521" => A::Es512,
        other => A::from_name(other)?,
    };
    let point = || Some([vec![4], bytes("x")?, bytes("y")?].concat());
    let material = match (text("kty")?, text("crv")) {
        ("oct", _) => KeyMaterial::Hmac(bytes("k")?),
        ("RSA", _) => KeyMaterial::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
        ("EC", Some("P-256")) => KeyMaterial::P256(point()?),
        ("EC", Some("P-521")) => KeyMaterial::P521(point()?),
        other => panic!("a key of kind {other:?}"),
    };
    Some(VerifyKey { kid: text("kid").map(str::to_owned), algorithms: vec![algorithm], material })
}

#[test]
fn what_is_invalid_is_refused_and_what_is_valid_is_good() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut count, mut good, mut wrong, mut plain) = (0, 0, Vec::new(), String::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = key(group).map(|key| key_set(vec![key]));
        for test in group["tests"].as_array().unwrap() {
            count += 1;
            let id = test["tcId"].as_u64().unwrap();
            let text = match &test["jws"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let verdict = keys
                .as_ref()
                .and_then(|keys| Token::read(text.as_bytes()).ok().map(|token| keys.judge(&token)));
            let is_good = verdict == Some(Verdict::Good);
            if id == 357 {
                plain.clone_from(&text);
            }
            let misnamed = MISNAMED.contains(&id);
            assert!(!misnamed || text == plain, "{id} is no longer misnamed");
            let stricter = STRICTER.iter().any(|(listed, _)| *listed == id);
            let wanted = misnamed || test["result"] == "valid" && !stricter;
            assert!(!stricter || test["result"] == "valid", "{id} is no exception");
            good += u32::from(is_good);
            if is_good != wanted {
                wrong.push(format!("{id} {} ({}): {verdict:?}", test["comment"], group["comment"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(vectors["numberOfTests"], count);
    assert!(good >= 40, "only {good} good ones: were all groups run?");
}
