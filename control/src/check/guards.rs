//! What routes ask of callers.

use std::collections::{HashMap, HashSet};

use super::callers::broken;
use super::{Check, dangling};
use crate::spec::{
    Authenticator, AuthenticatorKind, Balance, HashKey, KeyStore, Origins, Route, RouteAuth,
    Severity, Unidentified,
};

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    let known: HashMap<&str, &Authenticator> =
        spec.authenticators.iter().map(|one| (one.name.as_str(), one)).collect();
    let mut used: HashSet<&str> = HashSet::new();
    for (at, route) in spec.routes.iter().enumerate() {
        let path = format!("routes[{at}]");
        if let Some(auth) = &route.auth {
            used.extend(auth.authenticators.iter().map(String::as_str));
            self::auth(check, &format!("{path}.auth"), auth, &known);
        }
        origins(check, &path, route);
        networks(check, &path, route);
        empty(check, &path, route);
        apis(check, &path, route);
    }
    unused(check, &used);
    hashes(check);
}

fn auth(
    check: &mut Check<'_>,
    path: &str,
    auth: &RouteAuth,
    known: &HashMap<&str, &Authenticator>,
) {
    let spec = check.spec;
    let names: HashSet<&str> = known.keys().copied().collect();
    let field = |check: &Check<'_>, n: usize| {
        let long = format!("{path}.{}[{n}]", if auth.all { "all" } else { "any" });
        let short = format!("{path}[{n}]");
        match (check.places.has(&long), check.places.has(&short)) {
            (true, _) => long,
            (false, true) => short,
            (false, false) => path.to_owned(),
        }
    };
    for (n, name) in auth.authenticators.iter().enumerate() {
        if !names.contains(name.as_str()) {
            let message = dangling("authenticator", name, &names);
            let (field, code) = (field(check, n), "unknown-authenticator");
            check.report(Severity::Error, code, &field, name, message, None);
        }
    }
    if let Unidentified::As(name) = &auth.unidentified {
        let consumers: HashSet<&str> = spec.consumers.iter().map(|one| one.name.as_str()).collect();
        let field = format!("{path}.anonymous");
        if !consumers.contains(name.as_str()) {
            let message = dangling("consumer", name, &consumers);
            check.report(Severity::Error, "unknown-consumer", &field, name, message, None);
        }
    }
    let mine: Vec<&Authenticator> =
        auth.authenticators.iter().filter_map(|name| known.get(name.as_str()).copied()).collect();
    groups(check, path, auth, &mine);
    if auth.unidentified == Unidentified::Pass
        && !(auth.scopes.is_empty() && auth.groups.is_empty())
    {
        let message = "who shows nothing has no scopes and no groups, so nobody passes without a \
                       credential all the same; leave `optional` out";
        check.warn("unused-optional", &format!("{path}.optional"), "true", message.into());
    }
    issuers(check, auth, &mine, &field);
    let asked = spec.listeners.iter().flat_map(|listener| &listener.tls);
    let asked = asked.flat_map(|tls| &tls.certificates).any(|one| one.client_auth.is_some());
    for (n, name) in auth.authenticators.iter().enumerate() {
        let certificate = known
            .get(name.as_str())
            .is_some_and(|one| matches!(one.kind, AuthenticatorKind::Certificate(_)));
        if certificate && !asked && !broken(check, name) && !check.problems.is_broken("listeners") {
            let message = "no listener asks clients for a certificate, so nobody has one here; give \
                           a listener's certificate `client_auth: {mode: request, ca: FILE}`";
            let (field, code) = (field(check, n), "no-client-certificates");
            check.warn(code, &field, name, message.into());
        }
    }
}

/// Groups come from the spec, or from those who say more of a caller than it does.
fn groups(check: &mut Check<'_>, path: &str, auth: &RouteAuth, mine: &[&Authenticator]) {
    let spec = check.spec;
    let told = mine.iter().any(|one| match &one.kind {
        AuthenticatorKind::Jwt(jwt) => jwt.claims.groups_claim.is_some(),
        AuthenticatorKind::Introspection(one) => one.claims.groups_claim.is_some(),
        AuthenticatorKind::Login(login) => login.claims.groups_claim.is_some(),
        AuthenticatorKind::ApiKey(keys) => matches!(keys.store, KeyStore::Redis(_)),
        _ => broken(check, &one.name),
    });
    if told {
        return;
    }
    let known: HashSet<&str> = spec.groups.iter().map(|one| one.name.as_str()).collect();
    for (n, group) in auth.groups.iter().enumerate() {
        if !known.contains(group.as_str()) {
            let message = dangling("group", group, &known);
            let field = format!("{path}.groups[{n}]");
            check.report(Severity::Error, "unknown-group", &field, group, message, None);
        }
    }
}

/// A token is for the first authenticator of its issuer.
fn issuers(
    check: &mut Check<'_>,
    auth: &RouteAuth,
    mine: &[&Authenticator],
    field: &dyn Fn(&Check<'_>, usize) -> String,
) {
    let mut first: HashMap<&str, &str> = HashMap::new();
    for one in mine {
        let AuthenticatorKind::Jwt(jwt) = &one.kind else { continue };
        let issuer = jwt.issuer.as_option().map_or("any", String::as_str);
        let Some(other) = first.get(issuer) else {
            first.insert(issuer, &one.name);
            continue;
        };
        let message = format!(
            "`{}` has the issuer of `{other}`, which goes first and refuses what it does not take; \
             one of them is enough",
            one.name
        );
        let n = auth.authenticators.iter().position(|name| *name == one.name).unwrap_or(0);
        let field = field(check, n);
        check.warn("same-issuer", &field, &one.name, message);
    }
}

fn origins(check: &mut Check<'_>, path: &str, route: &Route) {
    let Some(cors) = &route.cors else { return };
    let field = format!("{path}.cors.credentials");
    if cors.credentials && cors.origins == Origins::Any && !check.problems.is_broken(&field) {
        let message = "with credentials any page could act as whoever visits it; browsers refuse \
                       \"*\" then, too (Fetch standard): list the origins";
        let code = "cors-any-with-credentials";
        check.report(Severity::Error, code, &field, "true", message.into(), None);
    }
}

fn networks(check: &mut Check<'_>, path: &str, route: &Route) {
    let Some(networks) = &route.networks else { return };
    for (n, allowed) in networks.allow.iter().enumerate() {
        if networks.deny.contains(allowed) {
            let message = format!("{allowed} is denied, too, and that goes first");
            let field = format!("{path}.networks.allow[{n}]");
            check.warn("denied-network", &field, &allowed.to_string(), message);
        }
    }
}

/// `auth:` with nothing behind it must not pass for an open door unseen.
fn empty(check: &mut Check<'_>, path: &str, route: &Route) {
    let absent = [
        ("auth", route.auth.is_none(), "to let anyone in"),
        ("networks", route.networks.is_none(), "for all addresses"),
        ("cors", route.cors.is_none(), "to leave it to the upstream"),
        ("external_processor", route.external_processor.is_none(), "to ask no one"),
        ("validate", route.validate.is_none(), "not to look at requests"),
    ];
    for (name, absent, meaning) in absent {
        let field = format!("{path}.{name}");
        if absent && check.places.has(&field) && !check.problems.is_broken(&field) {
            let message = format!("`{name}` is empty; {meaning} leave it out");
            check.report(Severity::Error, "empty-field", &field, "", message, None);
        }
    }
}

/// An API must be there, and what is not looked at says nothing.
fn apis(check: &mut Check<'_>, path: &str, route: &Route) {
    let Some(validate) = &route.validate else { return };
    if let Some(name) = &validate.api {
        let known: HashSet<&str> = check.spec.apis.iter().map(|one| one.name.as_str()).collect();
        if !known.contains(name.as_str()) {
            let (field, message) = (format!("{path}.validate.api"), dangling("API", name, &known));
            check.report(Severity::Error, "unknown-api", &field, name, message, None);
        }
    }
    let field = format!("{path}.validate.max_bytes");
    if validate.max_bytes > route.max_body_bytes && check.places.has(&field) {
        let message = "larger bodies than `max_body_bytes` are refused before";
        check.warn("unused-bound", &field, &validate.max_bytes.to_string(), message.into());
    }
}

fn unused(check: &mut Check<'_>, used: &HashSet<&str>) {
    // Beside an error, a missing use is hardly more than its consequence.
    if check.problems.has_errors() {
        return;
    }
    let spec = check.spec;
    let held = spec.routes.iter().filter_map(|route| route.validate.as_ref()?.api.as_deref());
    let held: HashSet<&str> = held.collect();
    for (at, one) in spec.apis.iter().enumerate() {
        if !held.contains(one.name.as_str()) {
            let message = format!("no route has its requests held against the API `{}`", one.name);
            let (field, code) = (format!("apis[{at}].name"), "unused-api");
            check.report(Severity::Warning, code, &field, &one.name, message, None);
        }
    }
    for (at, one) in check.spec.authenticators.iter().enumerate() {
        if !used.contains(one.name.as_str()) {
            let message = format!("no route asks for the authenticator `{}`", one.name);
            let (field, code) = (format!("authenticators[{at}].name"), "unused-authenticator");
            check.report(Severity::Warning, code, &field, &one.name, message, None);
        }
    }
}

/// A hash of the consumer needs consumers.
fn hashes(check: &mut Check<'_>) {
    let spec = check.spec;
    if check.problems.has_errors() {
        return;
    }
    for (at, upstream) in spec.upstreams.iter().enumerate() {
        let Balance::Hash { key: HashKey::Consumer, .. } = upstream.balance else { continue };
        let known = spec.routes.iter().any(|route| {
            route.auth.is_some() && route.upstreams.iter().any(|one| one.name == upstream.name)
        });
        if !known {
            let message = "no route to this upstream has `auth`, so the client's address is hashed; \
                           write {hash: client_ip}";
            let field = format!("upstreams[{at}].balance.hash");
            check.warn("unused-hash", &field, "consumer", message.into());
        }
    }
}
