//! Our own client, against our own server and against rustls'.

use contract::snapshot::{Protocol, UpstreamTls};
use rustls::server::ServerConnection;
use rustls::{ServerConfig, Stream as Borrowed};

use super::*;
use crate::io::connect as connect_tcp;

const TLS: UpstreamTls =
    UpstreamTls { min_version: TlsVersion::V12, trust: Some(0), server_name: None, identity: None };

fn side(tls: &UpstreamTls, protocol: Protocol, authority: &Authority) -> Arc<ClientSide> {
    let trust = Trust { roots: vec![authority.der()], crls: Vec::new() };
    let certificates = vec![authority.issue(&["we.test"])];
    let snapshot = Snapshot { trust: vec![trust], certificates, ..Snapshot::default() };
    Memory::default().upstream(tls, protocol, &snapshot).unwrap()
}

/// A blocking rustls server; each connection echoes what comes first.
fn serve(count: usize, certificate: &Certificate, alpn: &[&[u8]], ask: bool) -> SocketAddr {
    let chain = certificate.chain.iter().cloned().map(Into::into).collect::<Vec<_>>();
    let mut roots = RootCertStore::empty();
    roots.add(chain.last().cloned().unwrap()).unwrap();
    let builder = ServerConfig::builder_with_provider(identity::provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if ask {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            identity::provider(),
        );
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = certificate.key.clone().try_into().unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let config = Arc::new(config);
    let (socket, address) = listener();
    std::thread::spawn(move || {
        for _ in 0..count {
            let Ok((mut tcp, _)) = socket.accept() else { return };
            tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = Borrowed::new(&mut connection, &mut tcp);
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut bytes) {
                let _ = stream.write_all(&bytes[..len]);
            }
        }
    });
    address
}

/// The protocol and whether it was resumed, or why not.
type Asked = Result<(Option<Alpn>, bool), (Cause, String)>;

/// Connects and says hello.
fn ask(side: &Arc<ClientSide>, address: SocketAddr, name: &str, times: usize) -> Vec<Asked> {
    let results = Arc::new(Mutex::new(Vec::new()));
    let (out, side, name) = (results.clone(), side.clone(), name.to_owned());
    shard(small(), move |io| async move {
        for _ in 0..times {
            let stream = connect_tcp(&io, address).await.unwrap();
            let watch = io.watch();
            watch.set_in(5_000);
            let result = match connect(&io, stream, &side, &name, &watch).await {
                Ok(tls) => {
                    tls.try_send(SendBuf::Static(b"hello")).unwrap();
                    let echo = tls.recv().await.unwrap().unwrap();
                    assert_eq!(echo.bytes(), b"hello");
                    assert!(!tls.has_input(), "tickets are no input");
                    let facts = tls.facts();
                    Ok((facts.alpn, facts.resumed))
                }
                Err(failed) => Err((failed.cause, failed.detail)),
            };
            out.lock().unwrap().push(result);
        }
        settle(&io).await;
    });
    std::mem::take(&mut *results.lock().unwrap())
}

#[test]
fn an_upstream_must_be_whom_we_mean() {
    let authority = Authority::new("Upstreams");
    let good = authority.issue(&["up.test", "127.0.0.1"]);
    let side_of = |tls: &UpstreamTls| side(tls, Protocol::Http1, &authority);
    let named = UpstreamTls { server_name: Some("up.test".into()), ..TLS };
    let unverified = UpstreamTls { trust: None, ..TLS };
    for (certificate, tls, target, problem) in [
        (&good, &TLS, "up.test:443", None),
        (&good, &TLS, "127.0.0.1:443", None),
        (&good, &named, "elsewhere.test:443", None),
        (&good, &TLS, "elsewhere.test:443", Some("not valid for name")),
        (&authority.expired(&["up.test"]), &TLS, "up.test:443", Some("expired")),
        (&pki::self_signed(&["up.test"]), &TLS, "up.test:443", Some("UnknownIssuer")),
        (&pki::self_signed(&["other.test"]), &unverified, "up.test:443", None),
    ] {
        let address = serve(1, certificate, &[b"http/1.1"], false);
        let results = ask(&side_of(tls), address, target, 1);
        match (&results[0], problem) {
            (Ok((alpn, _)), None) => assert_eq!(*alpn, Some(Alpn::Http11)),
            (Err((Cause::Certificate, detail)), Some(problem)) => {
                assert!(detail.contains(problem), "{detail}");
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn protocols_identity_and_sessions() {
    let authority = Authority::new("Upstreams");
    let certificate = authority.issue(&["up.test"]);
    for (protocol, spoken, expected) in [
        (Protocol::Auto, &[b"h2".as_slice(), b"http/1.1"][..], Some(Alpn::H2)),
        (Protocol::Auto, &[b"http/1.1".as_slice()][..], Some(Alpn::Http11)),
        (Protocol::Auto, &[][..], None),
        (Protocol::Http1, &[b"h2".as_slice(), b"http/1.1"][..], Some(Alpn::Http11)),
        (Protocol::Http2, &[b"http/1.1".as_slice(), b"h2"][..], Some(Alpn::H2)),
    ] {
        let address = serve(2, &certificate, spoken, true);
        let tls = UpstreamTls { identity: Some(0), ..TLS };
        let results = ask(&side(&tls, protocol, &authority), address, "up.test:1", 2);
        assert_eq!(results, [Ok((expected, false)), Ok((expected, true))]);
    }
    // No identity where one is asked for: TLS 1.3 says so with the first answer.
    let address = serve(1, &certificate, &[], true);
    let side = side(&TLS, Protocol::Http1, &authority);
    shard(small(), move |io| async move {
        let stream = connect_tcp(&io, address).await.unwrap();
        let watch = io.watch();
        watch.set_in(5_000);
        let tls = connect(&io, stream, &side, "up.test:1", &watch).await.unwrap();
        assert!(tls.recv().await.is_err());
        assert!(
            matches!(tls.recv().await, Err(error) if error.kind() == std::io::ErrorKind::InvalidData)
        );
    });
}

#[test]
fn silence_and_clear_text_are_told_apart() {
    let authority = Authority::new("Upstreams");
    let (socket, address) = listener();
    let peer = std::thread::spawn(move || {
        let (mut clear, _) = socket.accept().unwrap();
        clear.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let (silent, _) = socket.accept().unwrap();
        (clear, silent)
    });
    let side = side(&TLS, Protocol::Http1, &authority);
    shard(small(), move |io| async move {
        for expected in [Cause::NotTls, Cause::Timeout] {
            let stream = connect_tcp(&io, address).await.unwrap();
            let watch = io.watch();
            watch.set_in(if expected == Cause::Timeout { 50 } else { 5_000 });
            let failed = connect(&io, stream, &side, "up.test:1", &watch).await.err().unwrap();
            assert_eq!(failed.cause, expected, "{failed}");
        }
    });
    drop(peer.join().unwrap());
}

#[test]
fn our_own_ends_understand_each_other() {
    let setup = Setup::new(&[&["a.test"]]);
    let server = setup.side();
    let client = side(&TLS, Protocol::Auto, &setup.authority);
    let (socket, address) = listener();
    shard(RingConfig { buffers: 64, depth: 16, ..RingConfig::default() }, move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        let served = io.clone();
        io.spawn(async move {
            let (stream, _) = acceptor.accept().await.unwrap();
            let watch = served.watch();
            watch.set_in(5_000);
            let tls = accept(&served, stream, &server, &watch).await.unwrap();
            echo(&tls).await.unwrap();
            assert_eq!(tls.facts().alpn, Some(Alpn::H2));
        });
        let stream = connect_tcp(&io, address).await.unwrap();
        let watch = io.watch();
        watch.set_in(20_000);
        let tls =
            std::rc::Rc::new(connect(&io, stream, &client, "a.test:1", &watch).await.unwrap());
        assert_eq!(tls.facts().cipher, "TLS_AES_256_GCM_SHA384");
        let whole: Vec<u8> = (0..1usize << 20).map(|n| (n * 7 + n / 255) as u8).collect();
        let (writer, expected) = (tls.clone(), whole.clone());
        io.spawn(async move {
            // One send far larger than a piece, then many small ones.
            writer.send(SendBuf::Vec(whole)).await.unwrap();
            for _ in 0..1_000 {
                writer.send(SendBuf::Static(b"small")).await.unwrap();
            }
            writer.flush().await.unwrap();
            writer.shutdown_write();
        });
        let mut back = Vec::new();
        while let Some(chunk) = watch.bound(tls.recv()).await.expect("in time").unwrap() {
            back.extend_from_slice(chunk.bytes());
        }
        assert!(back[..1 << 20] == expected && back[1 << 20..] == b"small".repeat(1_000));
        drop(tls);
        settle(&io).await;
    });
}
