//! Who may call now, and how.

use axum::{Json, extract::State};
use contract::snapshot::{self as flat, AuthenticatorKind};

use data_encoding::HEXLOWER;

use super::model::{ApiKey, Authenticator, Consumer};
use crate::{explain::word, fit::unix_now, records::KeyUses, running::Running};

/// `GET /v1/authenticators`.
pub async fn authenticators(State(running): State<Running>) -> Json<Vec<Authenticator>> {
    Json(ways(&running.current().snapshot))
}

/// `GET /v1/consumers`.
pub async fn consumers(State(running): State<Running>) -> Json<Vec<Consumer>> {
    let uses = running.key_uses();
    Json(callers(&running.current().snapshot.auth, &uses, unix_now()))
}

/// `GET /v1/keys`: the API keys of the spec.
pub async fn keys(State(running): State<Running>) -> Json<Vec<ApiKey>> {
    let uses = running.key_uses();
    Json(api_keys(&running.current().snapshot.auth, &uses))
}

fn ways(snapshot: &flat::Snapshot) -> Vec<Authenticator> {
    let auth = &snapshot.auth;
    let set = |at: u32| auth.key_sets.get(at as usize);
    let asked =
        |endpoint: &flat::Endpoint| Some(endpoint.url.clone()).filter(|url| !url.is_empty());
    let row = |(at, one): (u32, &flat::Authenticator)| {
        let uses = |route: &&flat::Route| {
            route.auth.as_ref().is_some_and(|auth| auth.authenticators.contains(&at))
        };
        let mut row = Authenticator {
            name: one.name.clone(),
            kind: word(&one.kind).into(),
            issuer: None,
            source: None,
            keys: None,
            ready: true,
            routes: snapshot.routes.iter().filter(uses).count(),
        };
        let keys = |row: &mut Authenticator, at: u32| {
            let Some(set) = set(at) else { return };
            row.source = Some(set.source.clone()).filter(|source| !source.is_empty());
            row.keys = set.loaded.then_some(set.keys.len());
            row.ready = set.loaded;
        };
        match &one.kind {
            AuthenticatorKind::ApiKey(keys) => {
                if matches!(keys.store, flat::KeyStore::Redis(_)) {
                    row.source = Some("redis".into());
                }
            }
            AuthenticatorKind::Jwt(jwt) => {
                row.issuer = jwt.tokens.issuer.clone();
                keys(&mut row, jwt.keys);
            }
            AuthenticatorKind::Introspection(one) => {
                row.issuer = one.tokens.issuer.clone();
                row.source = asked(&one.endpoint);
                row.ready = row.source.is_some();
            }
            AuthenticatorKind::Login(login) => {
                row.issuer = login.tokens.issuer.clone();
                keys(&mut row, login.keys);
                row.ready &= !login.authorization_url.is_empty() && !login.token.url.is_empty();
            }
            AuthenticatorKind::Certificate(_)
            | AuthenticatorKind::Basic(_)
            | AuthenticatorKind::Signature(_) => {}
            AuthenticatorKind::External(external) => {
                row.source = asked(&external.endpoint);
            }
        }
        row
    };
    (0..).zip(&auth.authenticators).map(row).collect()
}

fn callers(auth: &flat::Auth, uses: &KeyUses, now: i64) -> Vec<Consumer> {
    let now_ms = now.unsigned_abs() * 1_000;
    let row = |one: &flat::Consumer| {
        let ended = |key: &&flat::ApiKey| key.expires_ms > 0 && key.expires_ms <= now_ms;
        Consumer {
            name: one.name.clone(),
            groups: one.groups.clone(),
            scopes: one.scopes.clone(),
            limits: one.limits.clone(),
            api_keys: one.api_keys.len(),
            expired_api_keys: one.api_keys.iter().filter(ended).count(),
            last_used_s: one.api_keys.iter().filter_map(|key| uses.get(&key.digest)).max().copied(),
            passwords: one.passwords.len(),
            certificates: one.certificates.len(),
            signing_keys: one.signing_keys.len(),
            subjects: one.subjects.len(),
        }
    };
    auth.consumers.iter().map(row).collect()
}

pub fn api_keys(auth: &flat::Auth, uses: &KeyUses) -> Vec<ApiKey> {
    let rows = auth.consumers.iter().flat_map(|consumer| {
        consumer.api_keys.iter().map(|key| ApiKey {
            sha256: HEXLOWER.encode(&key.digest),
            prefix: key.prefix.clone(),
            consumer: consumer.name.clone(),
            expires_ms: Some(key.expires_ms).filter(|at_ms| *at_ms > 0),
            last_used_s: uses.get(&key.digest).copied(),
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fit, material::Material, spec};

    #[test]
    fn rows_tell_what_there_is_and_no_secret() {
        let text = "version: 1
listeners: [{name: a, listen: ':1'}]
upstreams: [{name: u, targets: ['10.0.0.1:1']}]
authenticators:
- {name: keys, api_key: }
- {name: corp, jwt: {issuer: 'https://id.example.com', discovery: true, audiences: [a]}}
- name: own
  jwt: {issuer: any, audiences: any,
    keys: [{secret: {inline: a-secret-of-32-bytes-at-the-least}, algorithm: HS256}]}
limits: [{name: plan, requests: 5, per: 1s}]
groups: [{name: gold, scopes: [b, a], limits: plan}]
consumers:
- name: app
  groups: [gold]
  scopes: [c]
  api_keys: [{sha256: '0000000000000000000000000000000000000000000000000000000000000000',
    expires: 2020-01-01}]
  subjects: [{authenticator: corp, value: x}]
routes: [{name: r, upstream: u, auth: [keys, corp]}, {name: s, upstream: u, match: {path: /s}, auth: own}]
";
        let loaded = spec::load("t.yaml", text);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        let snapshot = fit::plain(&spec, &Material::default());
        let rows = ways(&snapshot);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.kind.as_str(), row.keys, row.ready, row.routes))
            .collect();
        assert_eq!(
            seen,
            [
                ("keys", "api_key", None, true, 1),
                ("corp", "jwt", None, false, 1),
                ("own", "jwt", Some(1), true, 1)
            ]
        );
        let source = "https://id.example.com/.well-known/openid-configuration";
        assert_eq!(rows[1].source.as_deref(), Some(source));
        let rows = callers(&snapshot.auth, &KeyUses::new(), 1_900_000_000);
        assert_eq!(rows[0].last_used_s, None);
        let uses = KeyUses::from([([0; 32], 7), ([1; 32], 9)]);
        let keys = api_keys(&snapshot.auth, &uses);
        assert_eq!(
            (keys.len(), &*keys[0].consumer, &*keys[0].sha256),
            (1, "app", &*"0".repeat(64))
        );
        assert_eq!((keys[0].expires_ms, keys[0].last_used_s), (Some(1_577_836_800_000), Some(7)));
        let rows = callers(&snapshot.auth, &uses, 1_900_000_000);
        assert_eq!(rows[0].last_used_s, Some(7));
        assert_eq!(rows[0].scopes, ["a", "b", "c"]);
        assert_eq!((rows[0].limits.as_deref(), rows[0].expired_api_keys), (Some("plan"), 1));
        assert_eq!((rows[0].api_keys, rows[0].subjects, rows[0].passwords), (1, 1, 0));
    }
}
