//! The demo: two small origins and a spec that routes to them.

use std::{
    convert::Infallible,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request},
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Json, Response},
    routing::{any, get},
};
use serde::Deserialize;
use serde_json::json;

/// Ports of the two origins, on 127.0.0.1.
pub const PORTS: [u16; 2] = [9101, 9102];

/// The spec `up --demo` runs, for people to read and change.
pub const SPEC: &str = include_str!("demo.yaml");

/// File name under which the demo spec is stored.
pub const SPEC_NAME: &str = "demo.yaml";

/// Longest that `/slow` waits, in milliseconds.
const MAX_SLOW_MS: u64 = 60_000;

/// Largest body that `/echo` reads, in bytes.
const MAX_ECHO_BYTES: usize = 1 << 20;

/// Makes a self-signed certificate for this machine's loopback, where the demo spec looks for it.
pub fn make_certificate(directory: &std::path::Path) -> anyhow::Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut params = rcgen::CertificateParams::new(names)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Sluice demo");
    let certificate = params.self_signed(&key)?;
    for (name, text) in [("demo.pem", certificate.pem()), ("demo.key", key.serialize_pem())] {
        let path = directory.join(name);
        // The new file must be ours from its first moment.
        _ = std::fs::remove_file(&path);
        let mut options = std::fs::OpenOptions::new();
        let file = options.create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Puts the description of the demo's service of gRPC where the demo spec looks for it.
pub fn write_proto(directory: &std::path::Path) -> anyhow::Result<()> {
    let path = directory.join("stock.proto");
    std::fs::write(&path, include_str!("../../examples/protos/stock.proto"))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Serves both origins until the process ends.
pub async fn run_origins() -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for (port, name) in PORTS.into_iter().zip(["one", "two"]) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("the demo origin cannot listen on {address}"))?;
        servers.push(tokio::spawn(async move { axum::serve(listener, origin(name)).await }));
    }
    for server in servers {
        server.await??;
    }
    Ok(())
}

/// One origin that says its `name` in every answer.
fn origin(name: &'static str) -> Router {
    let stamp = move |response: Response| async move { ([("x-origin", name)], response) };
    Router::new()
        .route("/hello", any(move || async move { format!("hello from origin {name}\n") }))
        .route(
            "/users/{id}",
            get(move |Path(id): Path<String>| async move {
                Json(json!({ "id": id, "name": format!("user {id}"), "origin": name }))
            }),
        )
        .route(
            "/users",
            get(move || async move { Json(json!({ "users": [1, 2, 3], "origin": name })) }),
        )
        .route("/products", get(products))
        .route("/products/{id}", get(|Path(id): Path<u32>| async move { Json(product(id)) }))
        .route("/reviews", get(reviews))
        .route("/shop.v1.Stock/Get", axum::routing::post(stock))
        .route("/echo", any(move |request| echo(name, request)))
        .route("/echo/{*below}", any(move |request| echo(name, request)))
        .route("/slow", get(move |query| slow(name, query)))
        .route("/stream", get(move || async move { Body::new(Chunks::new(name)) }))
        .fallback(move |method: Method, uri: Uri| async move {
            let text = format!("origin {name} has nothing at {method} {}\n", uri.path());
            (axum::http::StatusCode::NOT_FOUND, text)
        })
        .layer(axum::middleware::map_response(stamp))
}

/// A product of the shop's catalogue.
fn product(id: u32) -> serde_json::Value {
    json!({
        "id": id,
        "sku": format!("SKU-{id}"),
        "name": format!("product {id}"),
        "price": f64::from(id % 90) + 9.5,
        "related": [id.wrapping_add(1), id.wrapping_add(2)],
    })
}

#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    ids: String,
}

async fn products(Query(ids): Query<Ids>) -> Json<Vec<serde_json::Value>> {
    let ids = ids.ids.split(',').filter_map(|id| id.parse().ok());
    Json(ids.take(100).map(product).collect())
}

#[derive(Deserialize)]
struct Of {
    product: u32,
}

async fn reviews(Query(of): Query<Of>) -> Json<serde_json::Value> {
    Json(json!([
        { "product": of.product, "stars": 5, "text": "as described" },
        { "product": of.product, "stars": of.product % 5 + 1, "text": "came quickly" },
    ]))
}

/// `shop.v1.Stock/Get`, as `examples/protos/stock.proto` describes it.
async fn stock(request: Request) -> Response {
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_ECHO_BYTES).await else {
        return axum::http::StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    // A frame's head, and the one field of the message, which is short.
    let sku = body.get(7..).unwrap_or_default();
    let mut message = vec![0x0a, sku.len() as u8];
    message.extend_from_slice(sku);
    message.extend_from_slice(&[0x10, 42, 0x1a, 5]);
    message.extend_from_slice(b"north");
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", axum::http::HeaderValue::from_static("0"));
    let frames = [http_body::Frame::data(Bytes::from(frame)), http_body::Frame::trailers(trailers)];
    let body = Body::new(Frames(frames.into_iter().collect()));
    ([("content-type", "application/grpc")], body).into_response()
}

/// A body of a few frames.
struct Frames(std::collections::VecDeque<http_body::Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

async fn echo(name: &'static str, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_ECHO_BYTES).await else {
        return axum::http::StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    Json(json!({
        "origin": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers(&head.headers),
        "body": String::from_utf8_lossy(&body),
    }))
    .into_response()
}

fn headers(headers: &HeaderMap) -> Vec<[String; 2]> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| [name.to_string(), text(value.as_bytes())]).collect()
}

#[derive(Deserialize)]
struct Slow {
    #[serde(default = "one_second")]
    ms: u64,
}

fn one_second() -> u64 {
    1_000
}

async fn slow(name: &'static str, Query(slow): Query<Slow>) -> String {
    let ms = slow.ms.min(MAX_SLOW_MS);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("origin {name} waited {ms} ms\n")
}

/// Ten chunks, one every 100 ms.
struct Chunks {
    name: &'static str,
    sent: u32,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl Chunks {
    fn new(name: &'static str) -> Chunks {
        Chunks { name, sent: 0, pause: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.sent == 10 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.pause.as_mut().poll(context));
        self.sent += 1;
        let next = tokio::time::Instant::now() + Duration::from_millis(100);
        self.pause.as_mut().reset(next);
        let chunk = format!("chunk {} of 10 from origin {}\n", self.sent, self.name);
        Poll::Ready(Some(Ok(http_body::Frame::data(chunk.into()))))
    }
}
