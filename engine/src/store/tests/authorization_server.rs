//! An HTTP server on a thread of its own, which answers as a test says and remembers what it was asked;
//! and what a strict authorization server makes of how its clients prove themselves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use contract::snapshot::{Certificate, Endpoint};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::tls::tests::pki::Authority;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub version: hyper::Version,
    pub fields: hyper::HeaderMap,
    /// The body, as a form; none of its names may come twice (RFC 6749 §3.2).
    pub form: HashMap<String, String>,
    /// The client's certificate.
    pub peer: Option<Vec<u8>>,
    pub at: Instant,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} came twice");
        Some(value.to_str().expect("text"))
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub after: Duration,
}

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply { status, fields: Vec::new(), body: Vec::new(), after: Duration::ZERO }
    }

    pub fn json(value: &Value) -> Reply {
        Reply::new(200).with("content-type", "application/json").body(value.to_string())
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.fields.push((name, value.into()));
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Reply {
        Reply { body: body.into(), ..self }
    }

    pub fn after_ms(self, ms: u64) -> Reply {
        Reply { after: Duration::from_millis(ms), ..self }
    }
}

type Answers = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// The server. It ends with this.
pub struct Server {
    pub address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    pub fn start(answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::listen(Arc::new(answers), None)
    }

    /// Over TLS, as `certificate` says; who does not show one of `clients` is not served.
    pub fn start_tls(
        certificate: &Certificate,
        clients: Option<&Authority>,
        answers: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().into()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = certificate.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(certificate.key.clone()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Server::listen(Arc::new(answers), Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn listen(answers: Answers, tls: Option<TlsAcceptor>) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let told = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, tls.clone(), answers.clone(), told.clone()));
                }
            });
            let _ = runtime.block_on(ended);
        });
        Server { address, scheme, seen, _end: end }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// It may be asked, and has two seconds.
    pub fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint { url: self.url(path), trust: None, allow_private: true, timeout_ms: 2_000 }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    tls: Option<TlsAcceptor>,
    answers: Answers,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let peer = Arc::new(Mutex::new(None::<Vec<u8>>));
    let shown = peer.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (answers, seen, shown) = (answers.clone(), seen.clone(), shown.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut form = HashMap::new();
            for (name, value) in form_urlencoded::parse(&body) {
                let twice = form.insert(name.to_string(), value.into_owned());
                assert!(twice.is_none(), "{name} came twice");
            }
            let asked = Seen {
                method: head.method.to_string(),
                path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                version: head.version,
                fields: head.headers,
                form,
                peer: shown.lock().unwrap().clone(),
                at: Instant::now(),
            };
            seen.lock().unwrap().push(asked.clone());
            let reply = answers(&asked);
            tokio::time::sleep(reply.after).await;
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.fields {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(reply.body))).unwrap())
        }
    });
    let http = auto::Builder::new(TokioExecutor::new());
    match tls {
        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else { return };
            let (_, connection) = stream.get_ref();
            let shown = connection.peer_certificates().and_then(|chain| chain.first());
            *peer.lock().unwrap() = shown.map(|leaf| leaf.to_vec());
            drop(http.serve_connection(TokioIo::new(stream), service).await);
        }
    }
}

/// How a client has to prove itself, and by nothing else (RFC 6749 §2.3: one way per request).
#[derive(Clone)]
pub enum Wanted {
    Basic(&'static str, &'static str),
    Post(&'static str, &'static str),
    /// The identifier, the public key, and the URL that it has to be for.
    Assertion(&'static str, &'static dyn VerificationAlgorithm, Vec<u8>),
    /// The certificate.
    Certificate(&'static str, Vec<u8>),
}

impl Wanted {
    pub fn rsa(id: &'static str, public: Vec<u8>) -> Wanted {
        Wanted::Assertion(id, &RSA_PKCS1_2048_8192_SHA256, public)
    }

    pub fn p256(id: &'static str, public: Vec<u8>) -> Wanted {
        Wanted::Assertion(id, &ECDSA_P256_SHA256_FIXED, public)
    }

    /// Whether the client has proved itself. `audience`: the endpoint, as it calls itself.
    pub fn proved(&self, seen: &Seen, audience: &str) -> bool {
        let given = |name: &str| seen.form.get(name).map(String::as_str);
        let none_in_form = ["client_id", "client_secret", "client_assertion"]
            .iter()
            .all(|name| given(name).is_none());
        match self {
            Wanted::Basic(id, secret) => {
                let Some(pair) = seen.field("authorization").and_then(|v| v.strip_prefix("Basic "))
                else {
                    return false;
                };
                let pair = String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap();
                let (user, password) = pair.split_once(':').unwrap();
                let decoded = |text: &str| {
                    let pairs = form_urlencoded::parse(text.as_bytes());
                    pairs.map(|(name, _)| name.into_owned()).collect::<String>()
                };
                decoded(user) == *id && decoded(password) == *secret && none_in_form
            }
            Wanted::Post(id, secret) => {
                given("client_id") == Some(id)
                    && given("client_secret") == Some(secret)
                    && seen.field("authorization").is_none()
            }
            Wanted::Certificate(id, certificate) => {
                given("client_id") == Some(id)
                    && given("client_secret").is_none()
                    && seen.peer.as_ref() == Some(certificate)
            }
            Wanted::Assertion(id, algorithm, public) => {
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                assert_eq!(given("client_assertion_type"), Some(kind));
                let assertion = given("client_assertion").unwrap_or_default();
                let Some((signed, signature)) = assertion.rsplit_once('.') else { return false };
                let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
                let key = UnparsedPublicKey::new(*algorithm, public);
                if key.verify(signed.as_bytes(), &signature).is_err() {
                    return false;
                }
                let claims = signed.split('.').nth(1).unwrap();
                let claims: Value =
                    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
                let now_s = crate::io::wall_ms() / 1_000;
                let left_s = claims["exp"].as_u64().unwrap().saturating_sub(now_s);
                claims["iss"] == *id
                    && claims["sub"] == *id
                    && claims["aud"] == audience
                    && claims["jti"].as_str().is_some_and(|jti| jti.len() >= 16)
                    && (50..=60).contains(&left_s)
                    && given("client_secret").is_none()
                    && seen.field("authorization").is_none()
            }
        }
    }
}

/// RFC 7662 §2, as a server that looks closely does it.
pub fn introspect(
    seen: &Seen,
    wanted: &Wanted,
    url: &str,
    tokens: &HashMap<String, Value>,
) -> Reply {
    let form = "application/x-www-form-urlencoded";
    if seen.method != "POST" || seen.field("content-type") != Some(form) {
        return Reply::new(400);
    }
    if seen.field("accept") != Some("application/json") {
        return Reply::new(406);
    }
    if !wanted.proved(seen, url) {
        return Reply::new(401).with("www-authenticate", "Basic");
    }
    if seen.form.get("token_type_hint").map(String::as_str) != Some("access_token") {
        return Reply::new(400);
    }
    let Some(token) = seen.form.get("token") else { return Reply::new(400) };
    Reply::json(tokens.get(token).unwrap_or(&json!({ "active": false })))
}
