use super::*;
use crate::{
    compile::{Inputs, compile},
    keys::{REMOTE_ALGORITHMS, jwk, origin::key_set, sources},
    material::Material,
    spec::load,
};

const SPEC: &str = "
version: 1
listeners: [{name: web, listen: ':8080'}]
upstreams:
- name: users
  targets: ['127.0.0.1:9001']
authenticators:
- {name: one, jwt: {issuer: 'https://one.example', discovery: true, audiences: any}}
- {name: eddsa, jwt: {issuer: 'https://one.example', discovery: true, audiences: any, algorithms: [EdDSA]}}
- {name: two, jwt: {issuer: any, jwks_url: 'https://two.example/keys', audiences: [api]}}
- {name: gone, jwt: {issuer: any, jwks_url: 'https://gone.example/keys', audiences: [api]}}
routes: [{name: all, upstream: users}]
";

#[test]
fn a_new_control_process_knows_what_the_engine_knows() {
    let loaded = load("t.yaml", SPEC);
    let spec = loaded.spec.unwrap_or_else(|| panic!("{:#?}", loaded.problems));
    let document = "https://one.example/.well-known/openid-configuration";
    let keys = |kid: &str| jwk::parse(key_set(kid).as_bytes(), &REMOTE_ALGORITHMS).unwrap();
    let mut fetched = Fetched::default();
    fetched.sets.insert(document.into(), keys("a"));
    fetched.sets.insert("https://two.example/keys".into(), keys("b"));
    let compiled = |fetched: &Fetched| {
        let inputs = Inputs {
            resolve: &|_: &str| Vec::new(),
            material: &Material::default(),
            ticket_keys: &[],
            cookie_keys: &[[1; 32]],
            fetched,
            before: None,
        };
        compile(&spec, 3, 1, &inputs)
    };
    let snapshot = compiled(&fetched);
    let recovered = recover(&spec, &snapshot);
    assert_eq!(recovered, fetched);
    assert_eq!(compiled(&recovered), snapshot);
    assert_eq!(sources(&spec).len(), 3);

    // A name that means another set now.
    let moved = SPEC.replace("two.example", "three.example");
    let spec = load("t.yaml", &moved).spec.unwrap();
    let recovered = recover(&spec, &snapshot);
    assert_eq!(recovered.sets.keys().collect::<Vec<_>>(), [document]);
}
