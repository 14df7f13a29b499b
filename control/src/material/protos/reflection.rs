//! Descriptors as servers tell them (`grpc.reflection.v1`, and `v1alpha`, which is the same under
//! another name).
//!
//! Only a control process asks, and only for a spec that is about to run, as with commands
//! ([`super::super::outside`]). What was told last stays until something else is.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use contract::encode::MAX_DESCRIPTORS;
use h2::client::SendRequest;
use http::Request;
use prost::bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::super::{Fault, Material, TrustFiles};
use crate::spec::{Severity, Spec, TargetHost, Upstream};

/// Longest that a target may take for all of it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure it is asked again after this, in seconds, or after its `refresh_s` if that is less.
const RETRY_S: i64 = 10;
/// Targets of an upstream that are tried, and addresses of each.
const MAX_TARGETS: usize = 4;
/// Files of a set.
const MAX_FILES: usize = 5_000;

/// What servers have told this process. There is one per process: a spec that is checked again must not
/// ask again.
static TOLD: OnceLock<Mutex<HashMap<String, Told>>> = OnceLock::new();

/// What one upstream has told.
#[derive(Clone)]
struct Told {
    /// `None`: nothing yet.
    set: Option<Arc<Vec<u8>>>,
    /// When it was asked last, in seconds since the Unix epoch.
    at: i64,
    error: Option<String>,
}

/// Lets this process, a control process, ask servers.
pub fn enable() {
    _ = TOLD.set(Mutex::default());
}

/// What is to be asked.
struct Wanted {
    field: String,
    name: String,
    refresh_s: i64,
    hosts: Vec<(String, u16)>,
    /// The name for `:authority`, and for TLS.
    authority: String,
    tls: Option<Result<TlsConnector, String>>,
    server_name: Option<String>,
}

/// By the settings that decide about the answer.
fn key(upstream: &Upstream) -> String {
    let targets: Vec<String> =
        upstream.targets.iter().map(|target| target.address.to_string()).collect();
    format!("{}\0{}\0{:?}", upstream.name, targets.join(","), upstream.tls)
}

/// What an upstream told last; `None`: nothing yet.
pub fn said(spec: &Spec, upstream: &str) -> Option<Arc<Vec<u8>>> {
    let upstream = spec.upstreams.iter().find(|one| one.name == upstream)?;
    let told = TOLD.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    told.get(&key(upstream))?.set.clone()
}

/// Whether one of the spec's servers should be asked now.
pub fn is_due(spec: &Spec, now: i64) -> bool {
    let Some(known) = TOLD.get() else { return false };
    let told = known.lock().unwrap_or_else(PoisonError::into_inner);
    sources(spec).any(|(_, upstream, refresh_s)| due(told.get(&key(upstream)), refresh_s, now))
}

/// Whether a spec has servers that are asked at all.
pub fn is_wanted(spec: &Spec) -> bool {
    TOLD.get().is_some() && sources(spec).next().is_some()
}

fn due(told: Option<&Told>, refresh_s: i64, now: i64) -> bool {
    let Some(Told { at, error, .. }) = told else { return true };
    let wait = if error.is_some() { refresh_s.min(RETRY_S) } else { refresh_s };
    // A clock that was set back must not keep it from ever being asked.
    !(*at..at.saturating_add(wait)).contains(&now)
}

/// Place, upstream and interval of each source.
fn sources(spec: &Spec) -> impl Iterator<Item = (usize, &Upstream, i64)> {
    spec.protos.iter().enumerate().filter_map(|(at, source)| {
        let reflection = source.reflection.as_ref()?;
        let upstream = spec.upstreams.iter().find(|one| one.name == reflection.upstream)?;
        Some((at, &**upstream, i64::from(reflection.refresh_s)))
    })
}

/// Asks those servers that are due, all at once. The faults are those of all; with an answer from before
/// they are warnings.
pub fn run(spec: &Spec, material: &Material, now: i64) -> Vec<Fault> {
    let Some(known) = TOLD.get() else { return Vec::new() };
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for (at, upstream, refresh_s) in sources(spec) {
        wanted.entry(key(upstream)).or_insert_with(|| Wanted {
            field: format!("protos[{at}].reflection"),
            name: upstream.name.clone(),
            refresh_s,
            hosts: hosts(upstream),
            authority: authority(upstream),
            tls: upstream.tls.as_ref().map(|tls| connector(tls, material)),
            server_name: upstream.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        });
    }
    let due: Vec<(&String, &Wanted)> = {
        let told = known.lock().unwrap_or_else(PoisonError::into_inner);
        let due = wanted.iter().filter(|(key, one)| due(told.get(*key), one.refresh_s, now));
        due.collect()
    };
    if !due.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let results: Vec<(&String, Result<Vec<u8>, String>)> = match runtime {
            Ok(runtime) => {
                let asking = due.iter().map(|(_, one)| Box::pin(ask(one)));
                let results = runtime.block_on(together(asking.collect()));
                due.iter().map(|(key, _)| *key).zip(results).collect()
            }
            Err(error) => due.iter().map(|(key, _)| (*key, Err(error.to_string()))).collect(),
        };
        let mut told = known.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, result) in results {
            let entry = told.entry(key.clone()).or_insert(Told { set: None, at: now, error: None });
            entry.at = now;
            match result {
                // The same answer is the same memory.
                Ok(set) if entry.set.as_ref().is_some_and(|own| **own == set) => entry.error = None,
                Ok(set) => (entry.set, entry.error) = (Some(set.into()), None),
                Err(error) => entry.error = Some(error),
            }
        }
        // An earlier spec may come back by a rollback; a day later its servers are none of our business.
        told.retain(|key, one| wanted.contains_key(key) || now - one.at < 86_400);
    }
    let told = known.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = |(key, one): (&String, &Wanted)| {
        let Told { set, error, .. } = told.get(key)?;
        Some(Fault {
            severity: if set.is_some() { Severity::Warning } else { Severity::Error },
            code: "failed-reflection",
            field: one.field.clone(),
            value: one.name.clone(),
            message: error.clone()?,
        })
    };
    wanted.iter().filter_map(fault).collect()
}

/// What all of them come to, one beside the other, so that their time-outs do not add up.
async fn together<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    let mut futures = futures;
    poll_fn(|cx| {
        let mut pending = false;
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none() {
                match Pin::new(future).poll(cx) {
                    Poll::Ready(output) => *done = Some(output),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}

fn hosts(upstream: &Upstream) -> Vec<(String, u16)> {
    let targets = upstream.targets.iter().take(MAX_TARGETS);
    let host = targets.map(|target| match &target.address.host {
        TargetHost::Ip(ip) => (ip.to_string(), target.address.port),
        TargetHost::Name(name) => (name.clone(), target.address.port),
    });
    host.collect()
}

fn authority(upstream: &Upstream) -> String {
    upstream.targets.first().map_or_else(String::new, |target| target.address.to_string())
}

/// TLS as the engine would speak it with the upstream.
fn connector(tls: &crate::spec::UpstreamTls, material: &Material) -> Result<TlsConnector, String> {
    if !tls.verify {
        return Err("reflection does not ask servers whose certificates are not verified".into());
    }
    let files = TrustFiles { ca: tls.ca.clone(), crl: None };
    let trust = material.trust(&files).ok_or("the issuers of the upstream are not known")?;
    let mut roots = rustls::RootCertStore::empty();
    for der in &trust.roots {
        // Some of a system's are of no use to anyone.
        _ = roots.add(der.clone().into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let pair = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => material.pair(cert, key),
        _ => None,
    };
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = pair.certificate.chain.iter().map(|der| der.clone().into()).collect();
            let key = rustls::pki_types::PrivateKeyDer::try_from(pair.certificate.key.clone())?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The first answer of a target.
async fn ask(wanted: &Wanted) -> Result<Vec<u8>, String> {
    let mut last = format!("the upstream `{}` has no target", wanted.name);
    for (host, port) in &wanted.hosts {
        match tokio::time::timeout(TIMEOUT, ask_host(wanted, host, *port)).await {
            Ok(Ok(set)) => return Ok(set),
            Ok(Err(error)) => last = format!("{host}:{port}: {error}"),
            Err(_) => last = format!("{host}:{port}: no answer within {} s", TIMEOUT.as_secs()),
        }
    }
    Err(last)
}

async fn ask_host(wanted: &Wanted, host: &str, port: u16) -> Result<Vec<u8>, String> {
    let addresses =
        tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
    let addresses: Vec<SocketAddr> = addresses.take(MAX_TARGETS).collect();
    let tcp = tokio::net::TcpStream::connect(&addresses[..]).await;
    let tcp = tcp.map_err(|error| error.to_string())?;
    match &wanted.tls {
        None => talk(tcp, &wanted.authority, "http").await,
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(connector)) => {
            let name = wanted.server_name.clone().unwrap_or_else(|| host.to_owned());
            let name = rustls::pki_types::ServerName::try_from(name);
            let name = name.map_err(|error| error.to_string())?;
            let tls = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
            talk(tls, &wanted.authority, "https").await
        }
    }
}

async fn talk<T>(io: T, authority: &str, scheme: &str) -> Result<Vec<u8>, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::handshake(io).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move { _ = connection.await });
    let mut told = Err(String::new());
    for version in ["v1", "v1alpha"] {
        let uri = format!(
            "{scheme}://{authority}/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        );
        told = all(&send, &uri).await;
        // A server that does not know the newer name may know the older.
        if !matches!(&told, Err(error) if error.contains(UNIMPLEMENTED)) {
            break;
        }
    }
    drop(send);
    driver.abort();
    told
}

const UNIMPLEMENTED: &str = "the server has no reflection";

/// All files of all services.
async fn all(send: &SendRequest<Bytes>, uri: &str) -> Result<Vec<u8>, String> {
    let services = ask_one(send, uri, 7, "").await?.services;
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut bytes = 0;
    let mut asked: HashSet<String> = HashSet::new();
    let of_reflection = |name: &String| name.starts_with("grpc.reflection.");
    // Files that services are in, then files that those import.
    let mut questions: VecDeque<(u32, String)> =
        services.into_iter().filter(|name| !of_reflection(name)).map(|name| (4, name)).collect();
    while let Some((field, name)) = questions.pop_front() {
        if field == 3 && (files.contains_key(&name) || !asked.insert(name.clone())) {
            continue;
        }
        for file in ask_one(send, uri, field, &name).await?.files {
            bytes += file.len();
            if bytes > MAX_DESCRIPTORS || files.len() >= MAX_FILES {
                return Err("the server has too many descriptors".into());
            }
            let file = FileDescriptorProto::decode(&*file)
                .map_err(|error| format!("the server told what is no descriptor: {error}"))?;
            let imports = file.dependency.iter().map(|import| (3, import.clone()));
            questions.extend(imports.filter(|(_, import)| !files.contains_key(import)));
            files.insert(file.name().to_owned(), file);
        }
    }
    if files.is_empty() {
        return Err("the server has no services".into());
    }
    Ok(FileDescriptorSet { file: files.into_values().collect() }.encode_to_vec())
}

/// An answer of the service.
#[derive(Default)]
struct Answer {
    services: Vec<String>,
    files: Vec<Vec<u8>>,
}

/// Asks one thing, on a stream of its own.
async fn ask_one(
    send: &SendRequest<Bytes>,
    uri: &str,
    field: u32,
    value: &str,
) -> Result<Answer, String> {
    let failed = |error: h2::Error| error.to_string();
    let request = Request::post(uri)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut send = send.clone().ready().await.map_err(failed)?;
    let (response, mut body) = send.send_request(request, false).map_err(failed)?;
    let mut message = Vec::new();
    prost_reflect::prost::encoding::string::encode(field, &value.to_owned(), &mut message);
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    body.send_data(frame.into(), true).map_err(failed)?;
    let response = response.await.map_err(failed)?;
    if response.status() != 200 {
        return Err(match response.status().as_u16() {
            404 => format!("{UNIMPLEMENTED} (HTTP status 404)"),
            other => format!("it answered with HTTP status {other}"),
        });
    }
    let status = |fields: &http::HeaderMap| {
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        text("grpc-status")
            .map(|code| (code.to_owned(), text("grpc-message").unwrap_or("").to_owned()))
    };
    let mut told = status(response.headers());
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
        if bytes.len() > MAX_DESCRIPTORS {
            return Err("the server has too many descriptors".into());
        }
    }
    if let Some(trailers) = body.trailers().await.map_err(failed)? {
        told = told.or_else(|| status(&trailers));
    }
    match told {
        Some((code, _)) if code == "12" => return Err(UNIMPLEMENTED.into()),
        Some((code, message)) if code != "0" => {
            let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(format!("reflection ended with status {code}: {message}"));
        }
        _ => {}
    }
    let (Some(head), Some(message)) = (bytes.first_chunk::<5>(), bytes.get(5..)) else {
        return Err("the server told nothing".into());
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    match (head[0], message.get(..length)) {
        (0, Some(message)) => answer(message).ok_or("the server told what is no answer")?,
        _ => Err("the server told what is no answer".into()),
    }
}

/// `ServerReflectionResponse`; `None`: it is none.
fn answer(bytes: &[u8]) -> Option<Result<Answer, String>> {
    let mut out = Answer::default();
    for (field, part) in parts(bytes)? {
        match field {
            4 => out.files.extend(parts(part)?.into_iter().map(|(_, file)| file.to_vec())),
            6 => {
                for (_, service) in parts(part)? {
                    let name = parts(service)?.into_iter().find(|(field, _)| *field == 1);
                    out.services.push(String::from_utf8(name?.1.to_vec()).ok()?);
                }
            }
            7 => {
                let message = parts(part)?.into_iter().find(|(field, _)| *field == 2);
                let message = message.map(|(_, text)| String::from_utf8_lossy(text).into_owned());
                let message: String = message
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect();
                return Some(Err(format!("the server does not tell its descriptors: {message}")));
            }
            _ => {}
        }
    }
    Some(Ok(out))
}

/// The fields of a message that are texts, bytes and messages.
fn parts(bytes: &[u8]) -> Option<Vec<(u32, &[u8])>> {
    let mut out = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let tag = varint(&mut left)?;
        match tag & 7 {
            0 => drop(varint(&mut left)?),
            2 => {
                let length = usize::try_from(varint(&mut left)?).ok()?;
                out.push((u32::try_from(tag >> 3).ok()?, left.get(..length)?));
                left = left.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(out)
}

fn varint(left: &mut &[u8]) -> Option<u64> {
    prost_reflect::prost::encoding::decode_varint(left).ok()
}
