//! Control's own listener, and who may use it.

use super::consumers::{digest, names};
use super::fields::Walk;
use super::parts::{name, one_of, socket_address};
use super::tls::file;
use crate::spec::model::{Access, Admin, AdminTls, DEFAULT_ADMIN, Role};
use crate::spec::tree::Node;

/// Longest name in a client certificate.
const MAX_CERTIFICATE_NAME: usize = 1_000;

pub(super) fn admin(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Admin> {
    let f = walk.fields(node, path, &["listen", "tls", "access"])?;
    Some(Admin {
        listen: f.read(walk, "listen", socket_address).unwrap_or(DEFAULT_ADMIN),
        tls: f.read(walk, "tls", tls),
        access: f
            .read(walk, "access", |walk, node, path| walk.list(node, path, access))
            .unwrap_or_default(),
    })
}

fn tls(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<AdminTls> {
    let f = walk.fields(node, path, &["certificate", "key", "client_ca"])?;
    let certificate = f.require(walk, "certificate", "a file with the certificate chain", file);
    let key = f.require(walk, "key", "a file with the private key", file);
    let client_ca = f.read(walk, "client_ca", file);
    Some(AdminTls { certificate: certificate?, key: key?, client_ca })
}

fn access(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Access> {
    const KNOWN: &[&str] = &["name", "token_sha256", "token", "certificate", "role", "workspaces"];
    const ROLES: &[(&str, Role)] =
        &[("viewer", Role::Viewer), ("editor", Role::Editor), ("admin", Role::Admin)];
    let f = &walk.fields(node, path, KNOWN)?;
    if let Some(token) = f.node("token") {
        // Without the value: it is a secret.
        let message = "the token itself does not belong here; write its hash as `token_sha256`, \
                       which `sluice keys hash` tells";
        walk.problems.error("plain-secret", token.mark, &f.at("token"), None, message.into());
        return None;
    }
    let name = name(walk, f);
    let role = f.require(walk, "role", "viewer, editor or admin", |walk, node, path| {
        walk.word(node, path, ROLES)
    });
    let workspaces = f.read(walk, "workspaces", names).unwrap_or_default();
    one_of(walk, f, &["token_sha256", "certificate"])?;
    let token_sha256 = f.read(walk, "token_sha256", digest);
    let certificate = f.read(walk, "certificate", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text {
            "" => Err("expected a name in the client's certificate".into()),
            text if text.len() > MAX_CERTIFICATE_NAME || text.contains(char::is_control) => {
                Err("no certificate has such a name".into())
            }
            text => Ok(text.into()),
        })
    });
    Some(Access { name, token_sha256, certificate, role: role?, workspaces })
}
