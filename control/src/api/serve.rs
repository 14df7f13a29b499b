//! The connections of the admin listener.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::admit::Peer;
use crate::{
    material::{Material, TrustFiles},
    running::{Current, Running},
    spec::AdminTls,
};

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 256;
/// Longest time for a TLS handshake, and for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Names taken of a client certificate at most.
const MAX_NAMES: usize = 100;

/// Serves for ever. Whether it speaks TLS is settled now; with which certificate, for each connection.
pub async fn serve(listener: TcpListener, router: Router, running: Running) {
    let tls = running
        .current()
        .spec
        .admin
        .tls
        .is_some()
        .then(|| Tls { running: running.clone(), last: Arc::default() });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors, mostly: it passes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut peer = Peer { address, names: Vec::new() };
            match tls {
                None => speak(stream, router, peer).await,
                Some(tls) => {
                    let Some(stream) = tls.accept(stream).await else { return };
                    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    peer.names = leaf.map(|leaf| names(leaf)).unwrap_or_default();
                    speak(stream, router, peer).await;
                }
            }
        });
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    peer: Peer,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        // A router is always ready.
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong with one connection is its client's to know.
    _ = connection.await;
}

/// A configuration, and what it was made of.
type Made = (Arc<Material>, AdminTls, Arc<ServerConfig>);

#[derive(Clone)]
struct Tls {
    running: Running,
    /// What the files held when the configuration was made, and the configuration.
    last: Arc<Mutex<Option<Made>>>,
}

impl Tls {
    async fn accept(
        &self,
        stream: TcpStream,
    ) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.config()?);
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        accepted.ok()?.ok()
    }

    /// The configuration of what runs now, or else the last one that could be made: never clear text.
    fn config(&self) -> Option<Arc<ServerConfig>> {
        let current = self.running.current();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wanted) = &current.spec.admin.tls {
            let same = last.as_ref().is_some_and(|(material, tls, _)| {
                Arc::ptr_eq(material, &current.material) && tls == wanted
            });
            if !same {
                match config(&current, wanted) {
                    Ok(config) => {
                        let material = Arc::clone(&current.material);
                        *last = Some((material, wanted.clone(), Arc::new(config)));
                    }
                    Err(why) => eprintln!("sluice: TLS of the admin listener: {why}"),
                }
            }
        }
        last.as_ref().map(|(.., config)| Arc::clone(config))
    }
}

fn config(current: &Current, tls: &AdminTls) -> Result<ServerConfig, String> {
    let material = &current.material;
    let pair = material.pair(&tls.certificate, &tls.key).ok_or("its certificate cannot be read")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| said(&error))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let files = TrustFiles { ca: Some(ca.clone()), crl: None };
            let trust = material.trust(&files).ok_or("the issuers of clients cannot be read")?;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(
                trust.roots.iter().map(|der| CertificateDer::from(der.as_slice())),
            );
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| said(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain =
        pair.certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(pair.certificate.key.clone())?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| said(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The names in a certificate: of the subject the common name, and the alternative ones.
fn names(der: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(Into::into).collect();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in alternative.value.general_names.iter().take(MAX_NAMES) {
            match name {
                GeneralName::DNSName(name)
                | GeneralName::URI(name)
                | GeneralName::RFC822Name(name) => {
                    names.push((*name).into());
                }
                _ => {}
            }
        }
    }
    names
}
