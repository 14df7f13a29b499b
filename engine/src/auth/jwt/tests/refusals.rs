//! Tokens as attackers send them (B-62): each gets 401 and `invalid_token`, before anything is sent on.

use contract::snapshot::JwsAlgorithm as A;

use super::gate::{Told, gate};
use super::*;
use crate::auth::jwt::parse::{Malformed, Token};

fn malformed(header: &str) -> Malformed {
    let token = Signer::new(A::Hs256).sign(header.as_bytes(), b"{}");
    Token::read(token.as_bytes()).unwrap_err()
}

#[test]
fn headers_say_what_is_wrong_with_them() {
    for (header, problem) in [
        (r#"{"alg":"none"}"#, Malformed::Algorithm),
        (r#"{"alg":"None"}"#, Malformed::Algorithm),
        (r#"{"alg":"nOnE"}"#, Malformed::Algorithm),
        (r#"{"alg":"hs256"}"#, Malformed::Algorithm),
        (r#"{"alg":""}"#, Malformed::Algorithm),
        (r#"{}"#, Malformed::Algorithm),
        (r#"{"alg":null}"#, Malformed::Member),
        (r#"{"alg":["HS256"]}"#, Malformed::Member),
        (r#"{"alg":"HS256","kid":1}"#, Malformed::Member),
        (r#"{"alg":"HS256","kid":null}"#, Malformed::Member),
        (r#"{"alg":"HS256","typ":[]}"#, Malformed::Member),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Malformed::Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Malformed::Critical),
        (r#"{"alg":"HS256","crit":null}"#, Malformed::Critical),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, Malformed::Critical),
        (r#"{"alg":"HS256","b64":false}"#, Malformed::Critical),
        (r#"{"alg":"none","alg":"HS256"}"#, Malformed::Header),
        (r#"{"alg":"HS256","\u0061lg":"HS256"}"#, Malformed::Header),
        (r#"["HS256"]"#, Malformed::Header),
        ("", Malformed::Header),
        (r#"{"alg":"HS256"}{}"#, Malformed::Header),
    ] {
        assert_eq!(malformed(header), problem, "{header}");
    }
    let good = Signer::new(A::Hs256).token(None, &claims());
    assert!(Token::read(good.as_bytes()).is_ok());
    let [header, payload, signature] = &good.split('.').collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    let standard = signature.replace('-', "+").replace('_', "/");
    for (token, problem) in [
        (format!("{header}.{payload}"), Malformed::Parts),
        (format!("{good}."), Malformed::Parts),
        (format!(".{good}"), Malformed::Parts),
        (format!("{header}.{payload}.{signature}.{signature}"), Malformed::Parts),
        (String::new(), Malformed::Parts),
        (format!("{header}.{payload}.{signature}="), Malformed::Base64),
        (format!("{header}.{payload}=.{signature}"), Malformed::Base64),
        (format!("{header}==.{payload}.{signature}"), Malformed::Base64),
        (format!("{header}.{payload}.{standard}+/"), Malformed::Base64),
        (format!("{header}. {payload}.{signature}"), Malformed::Base64),
        (format!("{header}.{payload}.{signature}\n"), Malformed::Base64),
        (format!("..{signature}"), Malformed::Header),
        (format!("{header}.{}.{signature}", "A".repeat(64 * 1024)), Malformed::Length),
    ] {
        assert_eq!(Token::read(token.as_bytes()).unwrap_err(), problem, "{token:.80}");
    }
}

/// The keys of the issuer in [`attacks`]: an RSA key and one on P-256.
fn issuer() -> (Signer, Signer) {
    (Signer::new(A::Rs256), Signer::new(A::Es256))
}

fn attacks(rsa: &Signer, ec: &Signer, now_s: u64) -> Vec<(&'static str, String)> {
    let at = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        claims["iat"] = now_s.into();
        claims["exp"] = (now_s + 300).into();
        change(&mut claims);
        claims
    };
    let good = at(&|_| {});
    let payload = good.to_string();
    let signed = |header: &str| rsa.sign(header.as_bytes(), payload.as_bytes());
    let unsigned = |alg: &str| {
        let header = encoded(format!(r#"{{"alg":"{alg}","kid":"rsa"}}"#).as_bytes());
        format!("{header}.{}.", encoded(payload.as_bytes()))
    };
    let KeyMaterial::Rsa { modulus, .. } = rsa.key(None).material else { unreachable!() };
    let hmac = |secret: &[u8]| {
        let header = r#"{"alg":"HS256","kid":"rsa"}"#;
        Signer::Hmac(A::Hs256, secret.to_vec()).sign(header.as_bytes(), payload.as_bytes())
    };
    let own = Signer::new(A::Es256);
    let stranger = |header: &str| own.sign(header.as_bytes(), payload.as_bytes());
    let KeyMaterial::P256(point) = own.key(None).material else { unreachable!() };
    let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
    let zeros = |header: &str, len: usize| {
        let (header, payload) = (encoded(header.as_bytes()), encoded(payload.as_bytes()));
        format!("{header}.{payload}.{}", encoded(&vec![0; len]))
    };
    let ec_token = ec.token(Some("ec"), &good);
    let twice = payload.replace(r#""sub":"ada""#, r#""sub":"ada","sub":"root""#);
    assert_ne!(twice, payload);
    let long = at(&|claims| claims["pad"] = "x".repeat(64 * 1024).into());
    vec![
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg nOnE", unsigned("nOnE")),
        ("alg none, with a signature", signed(r#"{"alg":"none","kid":"rsa"}"#)),
        ("HS256 with the RSA key's modulus", hmac(&modulus)),
        ("HS256 with the PEM of the key", hmac(include_bytes!("data/rsa2048.pem"))),
        ("PS256 by a key for RS256", {
            let signer = Signer::rsa(A::Ps256, include_bytes!("data/rsa2048.pem"));
            signer.token(Some("rsa"), &good)
        }),
        ("a key in the header (jwk)", {
            let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
            stranger(&format!(r#"{{"alg":"ES256","jwk":{jwk}}}"#))
        }),
        ("a key's address in the header (jku)", {
            stranger(r#"{"alg":"ES256","jku":"https://evil.example/jwks.json"}"#)
        }),
        ("a certificate's address in the header (x5u)", {
            stranger(r#"{"alg":"ES256","x5u":"https://evil.example/cert.pem"}"#)
        }),
        ("a certificate in the header (x5c)", stranger(r#"{"alg":"ES256","x5c":["AAAA"]}"#)),
        ("a path for a kid", stranger(r#"{"alg":"ES256","kid":"../../../../dev/null"}"#)),
        ("an empty secret behind it", {
            let header = r#"{"alg":"HS256","kid":"/dev/null"}"#;
            Signer::Hmac(A::Hs256, vec![]).sign(header.as_bytes(), payload.as_bytes())
        }),
        ("SQL for a kid", stranger(r#"{"alg":"ES256","kid":"x' UNION SELECT 'k';--"}"#)),
        ("an unknown extension", signed(r#"{"alg":"RS256","kid":"rsa","crit":["x"],"x":1}"#)),
        ("b64", signed(r#"{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}"#)),
        ("b64 that is not critical", signed(r#"{"alg":"RS256","kid":"rsa","b64":false}"#)),
        ("a claim twice", rsa.sign(br#"{"alg":"RS256","kid":"rsa"}"#, twice.as_bytes())),
        ("two parts", ec_token.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{ec_token}.AAAA")),
        ("five parts, as of a JWE", "e30.e30.e30.e30.e30".to_owned()),
        ("dots alone", "..".to_owned()),
        ("no token", "opaque".to_owned()),
        ("64 KiB", rsa.token(Some("rsa"), &long)),
        ("padding", format!("{ec_token}==")),
        ("claims that are no object", rsa.sign(br#"{"alg":"RS256","kid":"rsa"}"#, b"[]")),
        ("claims that are not JSON", rsa.sign(br#"{"alg":"RS256","kid":"rsa"}"#, b"\xff{}")),
        ("expired", rsa.token(Some("rsa"), &at(&|c| c["exp"] = (now_s - 11).into()))),
        ("not yet good", rsa.token(Some("rsa"), &at(&|c| c["nbf"] = (now_s + 30).into()))),
        ("issued tomorrow", rsa.token(Some("rsa"), &at(&|c| c["iat"] = (now_s + 86_400).into()))),
        ("without an end", rsa.token(Some("rsa"), &at(&|c| c["exp"] = Value::Null))),
        ("an end in words", rsa.token(Some("rsa"), &at(&|c| c["exp"] = "2099-01-01".into()))),
        ("for someone else", rsa.token(Some("rsa"), &at(&|c| c["aud"] = "billing".into()))),
        ("for nobody", rsa.token(Some("rsa"), &at(&|c| c["aud"] = json!([])))),
        ("by someone else", rsa.token(Some("rsa"), &at(&|c| c["iss"] = "https://x".into()))),
        ("the issuer and a slash", {
            rsa.token(Some("rsa"), &at(&|c| c["iss"] = "https://issuer.example/".into()))
        }),
        ("by nobody", rsa.token(Some("rsa"), &at(&|c| c["iss"] = Value::Null))),
        ("r = s = 0", zeros(r#"{"alg":"ES256","kid":"ec"}"#, 64)),
        ("an empty ES256 signature", zeros(r#"{"alg":"ES256","kid":"ec"}"#, 0)),
        ("an RSA signature of zeros", zeros(r#"{"alg":"RS256","kid":"rsa"}"#, 256)),
        ("a logout token", signed(r#"{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}"#)),
        ("a proof of possession", signed(r#"{"alg":"RS256","typ":"application/dpop+JWT"}"#)),
        ("bound to a key that nobody checks", {
            rsa.token(Some("rsa"), &at(&|c| c["cnf"] = json!({ "jkt": "AAAA" })))
        }),
        ("bound to a certificate that is not there", {
            let bound = json!({ "x5t#S256": encoded(&[1; 32]) });
            rsa.token(Some("rsa"), &at(&|c| c["cnf"] = bound.clone()))
        }),
        ("a field within its name", {
            rsa.token(Some("rsa"), &at(&|c| c["sub"] = "ada\r\nX-Admin: 1".into()))
        }),
    ]
}

#[test]
fn tokens_that_are_not_good_are_refused_with_a_constant_answer() {
    let (rsa, ec) = issuer();
    let keys = vec![rsa.key(Some("rsa")), ec.key(Some("ec"))];
    let snapshot = snapshot_of(rules(), snapshot::KeySet { keys, ..loaded() }, 1);
    gate(snapshot, async move |gate| {
        let now_s = gate.now_s();
        let mut good = claims();
        (good["iat"], good["exp"]) = (now_s.into(), (now_s + 300).into());
        for (signer, kid) in [(&rsa, "rsa"), (&ec, "ec")] {
            for kid in [Some(kid), None] {
                let told = gate.bearer(&signer.token(kid, &good)).await;
                assert_eq!(&*told.identity().id, "ada");
            }
        }
        let attacks = attacks(&rsa, &ec, now_s);
        for (what, token) in &attacks {
            // Once by judging, once by remembering.
            for _ in 0..2 {
                let told = gate.bearer(token).await;
                assert!(told.is_invalid_token(), "{what}: {told:?}");
            }
        }
        let told = gate.bearer("").await;
        assert!(
            matches!(&told, Told::Out { status: 401, challenges }
            if challenges[..] == ["Bearer realm=\"sluice\""]),
            "{told:?}"
        );
        // B-63.
        let token = rsa.token(None, &good);
        let twice = format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n");
        assert_eq!(gate.ask(&twice).await.status(), 400);
    });
}

#[test]
fn only_access_tokens_are_taken_where_they_are_asked_for() {
    let signer = Signer::new(A::EdDsa);
    let keys = snapshot::KeySet { keys: vec![signer.key(None)], ..loaded() };
    let rules = JwtRules { access_token: true, ..rules() };
    gate(snapshot_of(rules, keys, 1), async move |gate| {
        let mut good = claims();
        good["exp"] = (gate.now_s() + 300).into();
        good["iat"] = gate.now_s().into();
        for (typ, taken) in [
            (r#""at+jwt""#, true),
            (r#""AT+JWT""#, true),
            (r#""application/at+jwt""#, true),
            (r#""JWT""#, false),
            (r#""at+jwt;x""#, false),
            (r#""jwt""#, false),
        ] {
            let header = format!(r#"{{"alg":"EdDSA","typ":{typ}}}"#);
            let token = signer.sign(header.as_bytes(), good.to_string().as_bytes());
            let told = gate.bearer(&token).await;
            assert_eq!((told.is_in(), told.is_invalid_token()), (taken, !taken), "{typ}");
        }
        let token = signer.sign(br#"{"alg":"EdDSA"}"#, good.to_string().as_bytes());
        assert!(gate.bearer(&token).await.is_invalid_token());
    });
}

#[test]
fn what_clients_say_in_the_fields_of_claims_goes_no_further() {
    let signer = Signer::new(A::Es256);
    let keys = snapshot::KeySet { keys: vec![signer.key(None)], ..loaded() };
    let mut rules = rules();
    rules.tokens.claim_headers =
        vec![("email".into(), "x-email".into()), ("sub".into(), "x-user".into())];
    gate(snapshot_of(rules, keys, 1), async move |gate| {
        let mut good = claims();
        (good["iat"], good["exp"]) = (gate.now_s().into(), (gate.now_s() + 300).into());
        let token = signer.token(None, &good);
        let fields = "X-Email: root@x\r\nX-USER: root\r\nX-Emails: a\r\n";
        let told = gate.ask(&format!("{fields}Authorization: Bearer {token}\r\n")).await;
        let Told::In { identity, head, bytes } = told else { panic!("{told:?}") };
        let passed = head.fields.iter().filter(|field| !field.drop);
        let passed: Vec<_> =
            passed.map(|field| field.name.of(&bytes).to_ascii_lowercase()).collect();
        assert!(passed.contains(&b"x-emails".to_vec()));
        assert!(!passed.contains(&b"x-email".to_vec()), "though the token has no such claim");
        assert!(!passed.contains(&b"x-user".to_vec()));
        let identity = identity.unwrap();
        assert_eq!(&*identity.fields, [("x-user".into(), b"ada"[..].into())]);
    });
}

#[test]
fn several_issuers_share_a_route() {
    let (one, two) = issuer();
    let mut snapshot =
        snapshot_of(rules(), snapshot::KeySet { keys: vec![one.key(Some("k"))], ..loaded() }, 1);
    let mut other = rules();
    other.keys = 1;
    other.tokens.issuer = Some("https://other.example".into());
    snapshot.auth.authenticators.push(snapshot::Authenticator {
        name: "others".into(),
        kind: snapshot::AuthenticatorKind::Jwt(Box::new(other)),
    });
    snapshot.auth.key_sets.push(snapshot::KeySet { keys: vec![two.key(Some("k"))], ..loaded() });
    gate(snapshot, async move |gate| {
        let mut ours = claims();
        (ours["iat"], ours["exp"]) = (gate.now_s().into(), (gate.now_s() + 300).into());
        let mut theirs = ours.clone();
        theirs["iss"] = "https://other.example".into();
        for (signer, claims, taken) in [
            (&one, &ours, true),
            (&two, &theirs, true),
            (&one, &theirs, false),
            (&two, &ours, false),
        ] {
            for _ in 0..2 {
                let told = gate.bearer(&signer.token(Some("k"), claims)).await;
                assert_eq!((told.is_in(), told.is_invalid_token()), (taken, !taken));
            }
        }
    });
}
