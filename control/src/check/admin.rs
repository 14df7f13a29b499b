//! The admin listener: what its access rules need, and whether it stands open.

use std::collections::HashMap;

use super::Check;
use crate::spec::{Role, Severity};

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    let admin = &spec.admin;
    check.unique("admin.access", admin.access.iter().map(|one| one.name.as_str()));
    let client_ca = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let mut first: HashMap<String, usize> = HashMap::new();
    for (at, one) in admin.access.iter().enumerate() {
        let path = format!("admin.access[{at}]");
        let proof = match (&one.token_sha256, &one.certificate) {
            (Some(token), _) => Some(("token_sha256", token.to_string())),
            (None, Some(name)) => Some(("certificate", name.clone())),
            (None, None) => None,
        };
        if let Some((kind, proof)) = proof {
            let field = format!("{path}.{kind}");
            if let Some(before) = first.insert(proof.clone(), at) {
                let related = check.places.get(&format!("admin.access[{before}].{kind}"));
                let message =
                    format!("this is admin.access[{before}]'s already; give each its own");
                let code = "duplicate-credential";
                check.report(Severity::Error, code, &field, &proof, message, Some(related));
            }
            if kind == "certificate" && !client_ca && !check.problems.is_broken("admin.tls") {
                let message = "no client can show a certificate: say in `admin.tls.client_ca` whose \
                               certificates are believed";
                let code = "no-client-ca";
                check.report(Severity::Error, code, &field, &proof, message.into(), None);
            }
        }
        if one.role == Role::Admin && !one.workspaces.is_empty() {
            let message = "an admin may change who may do what, and so everything; leave \
                           `workspaces` out, or make it an editor";
            let field = format!("{path}.workspaces");
            let code = "conflicting-fields";
            check.report(Severity::Error, code, &field, "", message.into(), None);
        }
    }
    exposure(check);
}

/// Beyond the loopback others can reach it, and hear what is said.
fn exposure(check: &mut Check<'_>) {
    let admin = &check.spec.admin;
    let listen = admin.listen;
    if listen.ip().is_loopback() || check.problems.is_broken("admin.listen") {
        return;
    }
    let (code, message) = match (admin.access.is_empty(), admin.tls.is_some()) {
        (true, _) => (
            "admin-exposed",
            format!(
                "the admin listener has no login and {listen} is not on the loopback: whoever \
                 reaches it can steer the gateway; say in `admin.access` who may, or prefer \
                 127.0.0.1:{}",
                listen.port()
            ),
        ),
        (false, false) => (
            "admin-clear",
            format!(
                "tokens go to {listen} in clear text, and whoever hears one can use it; add \
                 `admin.tls`"
            ),
        ),
        (false, true) => return,
    };
    check.report(Severity::Warning, code, "admin.listen", &listen.to_string(), message, None);
}
