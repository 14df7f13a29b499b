//! HTTP services that are asked about callers: how they are reached, and what of them is believed.
//!
//! Asked on the store thread only. A redirect is an answer like any other, as whoever is asked must
//! not name who is asked next; proxies of the environment are not used; answers and waiting have
//! bounds; and addresses are judged behind the resolver, so that no name leads anywhere else.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::snapshot::{self, Alpn, CertificateIndex, Snapshot};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::address::may_be_asked;
use crate::auth::jwt::json;
use crate::auth::registry::Unfit;
use crate::io::monotonic_ms;
use crate::limits;
use crate::tls;

/// A service that is asked. Built with the plan; its connections are those of [`Clients`].
pub struct Endpoint {
    /// `None`: nobody knows yet where it is.
    url: Option<Url>,
    timeout: Duration,
    way: Way,
    /// Bounds the questions that are open at once.
    open: Semaphore,
    /// When a failure was told to the operator last; monotonic milliseconds.
    told_ms: AtomicU64,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl fmt::Display for Endpoint {
    /// Without a query, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            None => f.write_str("(not known yet)"),
            Some(url) => {
                write!(f, "{}{}", url.origin().ascii_serialization(), url.path())
            }
        }
    }
}

/// How a service is reached: services with the same share connections.
#[derive(Clone)]
struct Way {
    /// Of all that follows.
    fingerprint: tls::Fingerprint,
    /// On clear text it trusts nobody.
    tls: Arc<ClientConfig>,
    allow_private: bool,
}

impl Endpoint {
    /// The service at `from`, to which we show `identity` over TLS. A URL that nobody can ask is as
    /// good as none: it may have come from a provider, which must not keep the rest from working.
    ///
    /// # Errors
    /// What of its certificates cannot be used.
    pub fn build(
        from: &snapshot::Endpoint,
        identity: Option<CertificateIndex>,
        snapshot: &Snapshot,
    ) -> Result<Endpoint, Unfit> {
        let url = Url::parse(&from.url).ok().filter(is_askable);
        let mut digest = tls::Digest::new("endpoint");
        digest.number(u64::from(from.allow_private));
        let service = tls::Service {
            trust: from.trust,
            identity,
            alpn: &[Alpn::H2, Alpn::Http11],
            field: "ca",
        };
        let tls = match url.as_ref().is_some_and(|url| url.scheme() == "https") {
            true => tls::ServiceTls::build(service, snapshot),
            false => tls::ServiceTls::of_nobody(),
        };
        let tls = tls.map_err(|unusable| (unusable.field, unusable.problem))?;
        digest.add(&tls.fingerprint);
        Ok(Endpoint {
            url,
            timeout: Duration::from_millis(from.timeout_ms.max(1).into()),
            way: Way {
                fingerprint: digest.finish(),
                tls: tls.config,
                allow_private: from.allow_private,
            },
            open: Semaphore::new(limits::ENDPOINT_QUESTIONS),
            told_ms: AtomicU64::new(0),
        })
    }

    /// What it is called by its own protocol (`aud` of an assertion).
    pub fn url(&self) -> Option<&str> {
        self.url.as_ref().map(Url::as_str)
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Tells the operator that this service is of no use, now and then.
    pub fn complain(&self, why: &dyn fmt::Display) {
        let now_ms = monotonic_ms();
        let told_ms = self.told_ms.load(Ordering::Relaxed);
        if told_ms == 0 || now_ms.saturating_sub(told_ms) >= limits::COMPLAINT_MS {
            self.told_ms.store(now_ms, Ordering::Relaxed);
            eprintln!("sluice: {self}: {why}");
        }
    }
}

fn is_askable(url: &Url) -> bool {
    // A password in a URL would go to whoever it leads to.
    let plain = url.username().is_empty() && url.password().is_none();
    matches!(url.scheme(), "http" | "https") && url.has_host() && plain
}

/// What is asked.
#[derive(Default)]
pub struct Question {
    pub fields: HeaderMap,
    /// A form that is sent by POST; otherwise it is a GET.
    pub form: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a 200 that says it is JSON, and is an object in which no name stands twice.
    ///
    /// # Errors
    /// What else it is.
    pub fn object(&self) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
        if self.status != 200 {
            return Err(Failure::Status(self.status));
        }
        let kind = self.fields.get("content-type").map_or(&[][..], HeaderValue::as_bytes);
        let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if !kind.eq_ignore_ascii_case(b"application/json") {
            return Err(Failure::Malformed("it is no application/json"));
        }
        json::object(&self.body).ok_or(Failure::Malformed("it is no JSON object"))
    }
}

/// Why there is no answer, or none that is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("its address is not known yet")]
    Unknown,
    #[error("its address may not be asked (allow_private is for private networks)")]
    Forbidden,
    #[error("it gave no answer in time")]
    Timeout,
    #[error("it cannot be reached")]
    Unreachable,
    #[error("its answer is too large")]
    TooLarge,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("its answer is malformed: {0}")]
    Malformed(&'static str),
}

/// The connections to all services, by the way they are reached. They live over plans.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<tls::Fingerprint, Known>>);

struct Known {
    client: Client,
    used: Instant,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// Asks `endpoint`.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(&self, endpoint: &Endpoint, question: Question) -> Result<Answer, Failure> {
        let url = endpoint.url.as_ref().ok_or(Failure::Unknown)?;
        // Literal addresses are never resolved.
        let literal = url.host_str().map(|host| host.trim_matches(['[', ']']).parse::<IpAddr>());
        if let Some(Ok(ip)) = literal
            && !may_be_asked(ip, endpoint.way.allow_private)
        {
            return Err(Failure::Forbidden);
        }
        let client = self.client(&endpoint.way)?;
        let request = match question.form {
            None => client.get(url.clone()),
            Some(form) => client
                .post(url.clone())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form),
        };
        let asked = async {
            let _place = endpoint.open.acquire().await.map_err(|_| Failure::Unreachable)?;
            read(request.headers(question.fields)).await
        };
        timeout(endpoint.timeout, asked).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Ways that there are connections for.
    #[cfg(test)]
    pub fn ways(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn client(&self, way: &Way) -> Result<Client, Failure> {
        let now = Instant::now();
        let known = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&way.fingerprint) {
            known.used = now;
            return Ok(known.client.clone());
        }
        // What no plan asks any more.
        known.retain(|_, known| now - known.used < Duration::from_millis(limits::CLIENT_IDLE_MS));
        let client = way.client().map_err(|_| Failure::Unreachable)?;
        known.insert(way.fingerprint, Known { client: client.clone(), used: now });
        Ok(client)
    }
}

impl Way {
    fn client(&self) -> Result<Client, reqwest::Error> {
        Client::builder()
            .user_agent("sluice")
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .dns_resolver(Resolver {
                allow_private: self.allow_private,
                lookups: Arc::new(Semaphore::new(limits::LOOKUPS)),
            })
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(32)
            // A connection that has died quietly is found out before its questions pile up.
            .http2_keep_alive_interval(Duration::from_secs(5))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .build()
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
    let mut response = request.send().await.map_err(|error| why(&error))?;
    let announced = response.content_length().unwrap_or(0);
    if announced > limits::ENDPOINT_ANSWER as u64 {
        return Err(Failure::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| why(&error))? {
        if body.len() + piece.len() > limits::ENDPOINT_ANSWER {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    let status = response.status().as_u16();
    Ok(Answer { status, fields: std::mem::take(response.headers_mut()), body })
}

fn why(error: &reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoneAllowed>() {
            return Failure::Forbidden;
        }
        cause = error.source();
    }
    Failure::Unreachable
}

/// The system's resolver, without the addresses that may not be asked.
struct Resolver {
    allow_private: bool,
    /// Each look-up holds a thread, of which there are few.
    lookups: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
#[error("none of its addresses may be asked")]
struct NoneAllowed;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (allow_private, lookups) = (self.allow_private, self.lookups.clone());
        // A task of its own: its place is free when the look-up is over, not when nobody waits.
        let looked_up = tokio::spawn(async move {
            let _place = lookups.acquire_owned().await?;
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| may_be_asked(address.ip(), allow_private)).collect();
            match allowed.is_empty() {
                true => Err(Box::<dyn Error + Send + Sync>::from(NoneAllowed)),
                false => Ok(allowed),
            }
        });
        Box::pin(async move {
            let addresses = looked_up.await??;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
