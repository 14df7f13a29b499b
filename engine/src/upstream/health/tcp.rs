//! Whether a target takes connections: one of its own is opened, over TLS up to the end of the
//! handshake, and closed again.

use super::{Found, reach};
use crate::io::{Elapsed, Io, Watch, connect};
use crate::plan::{Target, Upstream};
use crate::tls::{self, Cause};

pub async fn check(io: &Io, watch: &Watch, upstream: &Upstream, target: &Target) -> Found {
    let stream = match watch.bound(connect(io, target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if reach::is_ours(&error) => return Found::Nothing,
        Ok(Err(_)) | Err(Elapsed) => return Found::Unhealthy,
    };
    let Some(client) = &upstream.tls else { return Found::Healthy };
    match tls::connect(io, stream, client, &target.name, watch).await {
        Ok(tls) => {
            // With a farewell: what ends without one looks like an attack to some.
            tls.shutdown_write();
            Found::Healthy
        }
        Err(failed) if failed.cause == Cause::Own => Found::Nothing,
        Err(_) => Found::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test is the peer of the reactor")]

    use std::io::Read;
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Arc;

    use contract::snapshot::{self, Snapshot, TlsVersion, Trust, UpstreamTls};
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::io::tests::{listener, shard, small};
    use crate::plan::Plan;

    fn self_signed() -> CertifiedKey<rcgen::KeyPair> {
        generate_simple_self_signed(["t.test".to_owned()]).unwrap()
    }

    /// Checks `address`, over TLS if so, as the plan of such an upstream would.
    fn found(address: SocketAddr, tls: Option<Option<Vec<u8>>>, patience_ms: u64) -> Found {
        let (tell, told) = std::sync::mpsc::channel();
        shard(small(), move |io| async move {
            let mut snapshot = Snapshot::default();
            let trusts = |root: &Option<Vec<u8>>| root.is_some().then_some(0);
            let roots = tls.iter().flatten().cloned().collect();
            snapshot.trust = vec![Trust { roots, crls: Vec::new() }];
            snapshot.upstreams = vec![snapshot::Upstream {
                targets: vec![snapshot::Target {
                    address,
                    name: "t.test:1".into(),
                    ..Default::default()
                }],
                tls: tls.as_ref().map(|root| UpstreamTls {
                    min_version: TlsVersion::V12,
                    trust: trusts(root),
                    server_name: None,
                    identity: None,
                }),
                ..Default::default()
            }];
            let plan = Plan::build(snapshot).unwrap();
            let watch = io.watch();
            watch.set_in(patience_ms);
            let upstream = &plan.upstreams[0];
            tell.send(check(&io, &watch, upstream, &upstream.targets[0]).await).unwrap();
        });
        told.recv().unwrap()
    }

    /// Shakes hands once and reads to the end; tells whether that came with a farewell.
    fn serve(
        socket: TcpListener,
        own: &CertifiedKey<rcgen::KeyPair>,
    ) -> std::thread::JoinHandle<bool> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = own.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        std::thread::spawn(move || {
            let (mut tcp, _) = socket.accept().unwrap();
            let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
            rustls::Stream::new(&mut connection, &mut tcp).read(&mut [0; 100]).is_ok()
        })
    }

    #[test]
    fn who_takes_connections_is_healthy() {
        let (socket, address) = listener();
        assert_eq!(found(address, None, 10_000), Found::Healthy);
        // It was closed again.
        let (mut stream, _) = socket.accept().unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
        drop(socket);
        assert_eq!(found(address, None, 10_000), Found::Unhealthy);
    }

    #[test]
    fn over_tls_the_handshake_counts() {
        let own = self_signed();
        let (socket, address) = listener();
        let server = serve(socket, &own);
        assert_eq!(found(address, Some(None), 10_000), Found::Healthy);
        assert!(server.join().unwrap(), "it ended with close_notify");

        let other = self_signed().cert.der().to_vec();
        let (socket, address) = listener();
        let server = serve(socket, &own);
        assert_eq!(found(address, Some(Some(other)), 10_000), Found::Unhealthy);
        assert!(!server.join().unwrap(), "we do not trust it");
    }

    #[test]
    fn what_takes_connections_alone_is_not_enough_over_tls() {
        let (_silent, address) = listener();
        assert_eq!(found(address, Some(None), 100), Found::Unhealthy);
    }
}
