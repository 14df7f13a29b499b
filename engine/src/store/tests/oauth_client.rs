use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::snapshot::{self, ClientProof, Endpoint as At, Snapshot, Trust};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::authorization_server::{Server, Wanted, introspect};
use super::run;
use crate::io::wall_ms;
use crate::store::http::{Answer, Clients, Endpoint};
use crate::store::oauth_client::OAuthClient;
use crate::tls::tests::pki::Authority;

/// Tells of one token, to who proves itself.
fn server(wanted: Wanted) -> Server {
    let tokens = HashMap::from([("t".to_string(), json!({ "active": true }))]);
    Server::start(move |seen| {
        let host = seen.field("host").unwrap();
        introspect(seen, &wanted, &format!("http://{host}/introspect"), &tokens)
    })
}

fn ask(from: &snapshot::OAuthClient, at: &At, snapshot: &Snapshot) -> Answer {
    let client = OAuthClient::build(from).unwrap();
    let endpoint = Endpoint::build(at, OAuthClient::identity(from), snapshot).unwrap();
    run(async {
        let parameters = [("token", "t"), ("token_type_hint", "access_token")];
        let question = client.question(&endpoint, &parameters, wall_ms()).await.unwrap();
        Clients::default().ask(&endpoint, question).await.unwrap()
    })
}

fn proof(id: &str, proof: ClientProof) -> snapshot::OAuthClient {
    snapshot::OAuthClient { id: id.into(), proof }
}

fn is_known(from: &snapshot::OAuthClient, server: &Server) -> bool {
    let answer = ask(from, &server.endpoint("/introspect"), &Snapshot::default());
    assert!(matches!(answer.status, 200 | 401), "{answer:?}");
    answer.status == 200
}

#[test]
fn secrets_are_sent_as_the_server_wants_them() {
    // What a form encodes is encoded in both.
    let (id, secret) = ("client:1 ä", "s%c:r+t &=");
    let basic = server(Wanted::Basic(id, secret));
    let post = server(Wanted::Post(id, secret));
    let by_basic = |secret: &str| proof(id, ClientProof::Basic(secret.into()));
    let by_post = |secret: &str| proof(id, ClientProof::Post(secret.into()));
    assert!(is_known(&by_basic(secret), &basic) && !is_known(&by_basic("other"), &basic));
    assert!(is_known(&by_post(secret), &post) && !is_known(&by_post("other"), &post));
    assert!(!is_known(&by_post(secret), &basic) && !is_known(&by_basic(secret), &post));
    assert!(!is_known(&proof(id, ClientProof::None), &post));
}

#[test]
fn assertions_are_signed_for_one_server_and_one_time() {
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let rsa =
        PrivatePkcs8KeyDer::from_pem_slice(include_bytes!("../../auth/jwt/tests/data/rsa2048.pem"))
            .unwrap();
    let rsa = rsa.secret_pkcs8_der().to_vec();
    let public = p256.der_bytes().to_vec();
    let pair = ring::signature::RsaKeyPair::from_pkcs8(&rsa).unwrap();
    let rsa_public = pair.public().as_ref().to_vec();
    let by = |key: Vec<u8>, kid: Option<&str>| {
        proof("c", ClientProof::PrivateKeyJwt { key, kid: kid.map(Into::into) })
    };
    let (es256, rs256) = (server(Wanted::p256("c", public)), server(Wanted::rsa("c", rsa_public)));
    let (ec, rsa) = (by(p256.serialize_der(), Some("k1")), by(rsa, None));
    assert!(is_known(&ec, &es256) && is_known(&rsa, &rs256));
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert!(!is_known(&by(other.serialize_der(), None), &es256));
    assert!(is_known(&ec, &es256));

    let assertions: Vec<String> =
        es256.seen().iter().map(|seen| seen.form["client_assertion"].clone()).collect();
    let part = |assertion: &str, at: usize| -> Value {
        let part = assertion.split('.').nth(at).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let ids: HashSet<String> = assertions.iter().map(|a| part(a, 1)["jti"].to_string()).collect();
    assert_eq!(ids.len(), 3, "no identifier is used twice");
    assert_eq!(part(&assertions[0], 0), json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }));
    let rsa = rs256.seen()[0].form["client_assertion"].clone();
    assert_eq!(part(&rsa, 0), json!({ "alg": "RS256", "typ": "JWT" }));
}

#[test]
fn keys_that_cannot_sign_are_refused_when_they_are_read() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
    for key in [Vec::new(), b"nonsense".to_vec(), ed25519] {
        let from = proof("c", ClientProof::PrivateKeyJwt { key, kid: None });
        assert_eq!(OAuthClient::build(&from).unwrap_err().0, "client.key");
    }
}

#[test]
fn a_certificate_is_shown() {
    let (authority, own) = (Authority::new("servers"), Authority::new("clients"));
    let mine = own.issue(&["gateway"]);
    let wanted = Wanted::Certificate("c", mine.chain[0].clone());
    let tokens = HashMap::from([("t".to_string(), json!({ "active": true }))]);
    let certificate = authority.issue(&["127.0.0.1"]);
    let server = Server::start_tls(&certificate, Some(&own), move |seen| {
        introspect(seen, &wanted, "", &tokens)
    });
    let snapshot = Snapshot {
        certificates: vec![mine],
        trust: vec![Trust { roots: vec![authority.der()], crls: vec![] }],
        ..Snapshot::default()
    };
    let at = At { trust: Some(0), ..server.endpoint("/introspect") };
    let from = proof("c", ClientProof::Tls { identity: 0 });
    assert_eq!(ask(&from, &at, &snapshot).status, 200);
    // Without it there is no connection.
    let endpoint = Endpoint::build(&at, None, &snapshot).unwrap();
    assert!(run(Clients::default().ask(&endpoint, Default::default())).is_err());
    assert_eq!(server.calls(), 1);
}

#[test]
fn debug_shows_no_secrets() {
    let client = OAuthClient::build(&proof("me", ClientProof::Post("hush".into()))).unwrap();
    let shown = format!("{client:?}");
    assert!(shown.contains("me") && !shown.contains("hush"));
}
