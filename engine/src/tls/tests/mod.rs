//! TLS over real sockets, against rustls' own blocking connections on threads.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the reactor")]

mod clients;
pub(crate) mod pki;
mod plans;
mod records;
mod resumption;
mod upstreams;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::snapshot::{
    Alpn, Certificate, ClientAuth, ListenerTls, Snapshot, TicketKey, TlsSite, TlsVersion, Trust,
};
use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, StreamOwned, SupportedProtocolVersion};

use self::pki::Authority;
use super::*;
use crate::io::tests::{listener, shard, small};
use crate::io::{Acceptor, Io, RingConfig, SendBuf};

pub(super) fn key(n: u8) -> TicketKey {
    TicketKey { name: [n; 16], secret: [n.wrapping_mul(31); 32] }
}

/// One listener with a site per list of names, all of one authority.
pub(super) struct Setup {
    pub authority: Authority,
    pub snapshot: Snapshot,
    pub tls: ListenerTls,
}

impl Setup {
    pub fn new(sites: &[&[&str]]) -> Setup {
        let authority = Authority::new("Test CA");
        let mut snapshot = Snapshot { ticket_keys: vec![key(1)], ..Snapshot::default() };
        let mut tls = ListenerTls {
            min_version: TlsVersion::V12,
            alpn: vec![Alpn::H2, Alpn::Http11],
            sites: Vec::new(),
            default_site: Some(0),
            early_data_bytes: 0,
            handshake_timeout_ms: 5_000,
        };
        for (n, names) in sites.iter().enumerate() {
            snapshot.certificates.push(authority.issue(names));
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            tls.sites.push(TlsSite { names, certificate: n as u32, client_auth: None });
        }
        Setup { authority, snapshot, tls }
    }

    /// The site asks for certificates of `authority`.
    pub fn client_auth(&mut self, authority: &Authority, crls: Vec<Vec<u8>>, required: bool) {
        self.snapshot.trust = vec![Trust { roots: vec![authority.der()], crls }];
        self.tls.sites[0].client_auth = Some(ClientAuth { trust: 0, required });
    }

    pub fn side(&self) -> Arc<ServerSide> {
        self.side_with(&Memory::default())
    }

    pub fn side_with(&self, memory: &Memory) -> Arc<ServerSide> {
        memory.listener(&self.tls, &self.snapshot).expect("a usable listener")
    }

    /// A client that trusts the authority.
    pub fn client(&self, identity: Option<&Certificate>) -> ClientConfig {
        client_config(&self.authority, identity, rustls::ALL_VERSIONS)
    }
}

pub(super) fn client_config(
    authority: &Authority,
    identity: Option<&Certificate>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    let builder = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(Certificate { chain, key }) => {
            let chain = chain.iter().cloned().map(Into::into).collect();
            builder.with_client_auth_cert(chain, key.clone().try_into().unwrap()).unwrap()
        }
    }
}

pub(super) type Blocking = StreamOwned<ClientConnection, TcpStream>;

pub(super) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(super) fn dial(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> Blocking {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(config.clone(), name).unwrap();
    StreamOwned::new(connection, tcp(address))
}

/// Sends `message` and reads as much back.
pub(super) fn round(stream: &mut (impl Read + Write), message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    stream.flush()?;
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back)?;
    assert!(back == message, "what came back differs");
    Ok(())
}

/// What became of a connection on the server's side.
#[derive(Debug)]
pub(super) struct Seen {
    pub version: TlsVersion,
    pub alpn: Option<Alpn>,
    pub sni: Option<String>,
    pub site: u32,
    pub resumed: bool,
    pub took_early: bool,
    pub xfcc: Option<String>,
}

pub(super) type Outcomes = Arc<Mutex<Vec<Result<Seen, Cause>>>>;

fn seen(tls: &TlsStream) -> Seen {
    let facts = tls.facts();
    Seen {
        version: facts.version,
        alpn: facts.alpn,
        sni: facts.sni.as_deref().map(str::to_owned),
        site: facts.site,
        resumed: facts.resumed,
        took_early: facts.took_early_data(),
        xfcc: facts.client.as_ref().map(|client| client.xfcc.to_string()),
    }
}

pub(super) async fn echo(tls: &TlsStream) -> std::io::Result<()> {
    while let Some(chunk) = tls.recv().await? {
        tls.send(SendBuf::Chunk(chunk)).await?;
    }
    tls.flush().await?;
    tls.shutdown_write();
    Ok(())
}

/// Accepts and echoes one connection per side, in turn, while `client` runs on a thread. Returns
/// how the handshakes went.
pub(super) fn echo_server(
    ring: RingConfig,
    sides: Vec<Arc<ServerSide>>,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> Vec<Result<Seen, Cause>> {
    let (socket, address) = listener();
    let client = std::thread::spawn(move || client(address));
    let outcomes = Outcomes::default();
    let results = outcomes.clone();
    shard(ring, move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        for side in sides {
            // A client that has failed comes no more.
            let watch = io.watch();
            watch.set_in(10_000);
            let Ok(Ok((stream, _))) = watch.bound(acceptor.accept()).await else { break };
            watch.set_in(u64::from(side.handshake_timeout_ms()));
            let outcome = match accept(&io, stream, &side, &watch).await {
                Ok(tls) => {
                    let _ = echo(&tls).await;
                    Ok(seen(&tls))
                }
                Err(failed) => Err(failed.cause),
            };
            results.lock().unwrap().push(outcome);
        }
        drop(acceptor);
        settle(&io).await;
    });
    client.join().unwrap();
    std::mem::take(&mut *outcomes.lock().unwrap())
}

/// Waits for the end of what was in flight, but the polls of glommio's three rings and time-outs of
/// deadlines past.
pub(super) async fn settle(io: &Io) {
    for _ in 0..40 {
        if io.in_flight() <= 8 {
            return;
        }
        io.sleep_ms(5).await;
    }
    panic!("{} operations are in flight", io.in_flight());
}
