//! Random settings of who operates the gateway.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::random::{file, texts};
use crate::spec::*;

fn access(at: usize) -> impl Strategy<Value = Access> {
    let role = select(vec![Role::Viewer, Role::Editor, Role::Admin]);
    let names = subsequence(texts(&["default", "team", "1"]), 0..3);
    (role, names, any::<bool>()).prop_map(move |(role, names, token)| Access {
        name: format!("access-{at}"),
        token_sha256: token.then_some(Digest([at as u8; 32])),
        certificate: (!token).then(|| format!("CN {at}: \"x\"")),
        role,
        workspaces: if role == Role::Admin { Vec::new() } else { names },
    })
}

pub fn admin() -> impl Strategy<Value = Admin> {
    let entries = (0..3).map(access).collect::<Vec<_>>();
    (1u16.., any::<bool>(), entries, 0usize..=3, file()).prop_map(
        |(port, tls, mut access, count, file)| {
            access.truncate(count);
            let asks = access.iter().any(|one| one.certificate.is_some());
            let tls = (tls || asks).then(|| AdminTls {
                certificate: file.clone(),
                key: file.clone(),
                client_ca: asks.then_some(file),
            });
            // Beside the listeners' 0.0.0.0.
            Admin { listen: SocketAddr::new([127, 0, 0, 9].into(), port.max(2_000)), tls, access }
        },
    )
}
