//! A provider for tests: a real server with one thread for each connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use serde_json::{Value, json};

/// Path → the answer as it goes over the wire. Nothing: it hangs.
pub type Answers = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

pub struct Origin {
    pub address: SocketAddr,
    /// In DER, where it speaks TLS.
    pub root: Option<Vec<u8>>,
    pub hits: Arc<AtomicUsize>,
    answers: Arc<Mutex<Arc<Answers>>>,
}

impl Origin {
    pub fn http(answers: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Origin {
        Origin::start(None, Arc::new(answers))
    }

    /// Over TLS, as `name`.
    pub fn https(
        name: &str,
        answers: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Origin {
        let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = PrivatePkcs8KeyDer::from(own.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], secret.into())
            .unwrap();
        let origin = Origin::start(Some(Arc::new(config)), Arc::new(answers));
        Origin { root: Some(root.der().to_vec()), ..origin }
    }

    fn start(tls: Option<Arc<ServerConfig>>, answers: Arc<Answers>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(Mutex::new(answers));
        let (counted, shared) = (hits.clone(), answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, tls) = (stream.unwrap(), tls.clone());
                let (counted, shared) = (counted.clone(), shared.clone());
                std::thread::spawn(move || match tls {
                    None => _ = serve(&mut stream, &counted, &shared),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        _ = serve(&mut StreamOwned::new(tls, stream), &counted, &shared);
                    }
                });
            }
        });
        Origin { address, root: None, hits, answers }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }

    /// From now on.
    pub fn answer(&self, answers: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }
}

fn serve(
    stream: &mut (impl Read + Write),
    hits: &AtomicUsize,
    answers: &Mutex<Arc<Answers>>,
) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    hits.fetch_add(1, Ordering::Relaxed);
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let answers = answers.lock().unwrap().clone();
    match answers(&path) {
        Some(answer) => stream.write_all(&answer).ok()?,
        // Until the client has enough.
        None => _ = stream.read(&mut byte),
    }
    stream.flush().ok()
}

pub fn ok(fields: &str, body: &str) -> Option<Vec<u8>> {
    let len = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len}\r\n{fields}\r\n");
    Some([head.as_bytes(), body.as_bytes()].concat())
}

pub fn status(line: &str) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 {line}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    Some(head.into_bytes())
}

/// A key set with one key of that name.
pub fn key_set(kid: &str) -> String {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": x }] })
        .to_string()
}

pub fn metadata(issuer: &str, more: &Value) -> String {
    let mut document = json!({ "issuer": issuer });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document.to_string()
}
