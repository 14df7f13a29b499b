//! Key sets and discovery documents over HTTP(S).
//!
//! What is asked is not chosen by whoever sends tokens, but it may be chosen by a tenant who writes a
//! spec, or by a provider in its document. So: no redirects, [`Reach`] for every address, and bounds for
//! size and time.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use contract::snapshot::VerifyKey;
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, AGE, CACHE_CONTROL, HeaderMap},
    redirect::Policy,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde::Deserialize;
use thiserror::Error;

use super::{Metadata, REMOTE_ALGORITHMS, Source, SourceKind, jwk, reach::Reach};
use crate::resolve::Resolver;

/// How long an answer is believed that does not say, and the bounds of what it may say.
pub const USUAL_LIFE: Duration = Duration::from_secs(60 * 60);
pub const MIN_LIFE: Duration = Duration::from_secs(60);
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a document could not be had. Tells nothing of what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    #[error("it answers with status {status}{}", redirect(*status))]
    Status { status: u16 },
    #[error("it has more than {} bytes", jwk::MAX_BYTES)]
    TooLarge,
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("{0}")]
    Unfit(String),
}

fn redirect(status: u16) -> &'static str {
    if (300..400).contains(&status) { "; redirects are not followed" } else { "" }
}

/// What came of a look at a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub metadata: Option<Metadata>,
    pub keys: Option<Vec<VerifyKey>>,
    /// How long all of it may be believed.
    pub life: Duration,
    /// Something is missing.
    pub error: Option<FetchError>,
}

/// Asks sources.
#[derive(Clone)]
pub struct Fetcher {
    resolver: Resolver,
    tls: Arc<ClientConfig>,
}

/// A document as it came.
struct Document {
    bytes: Vec<u8>,
    life: Duration,
}

impl Fetcher {
    /// `roots` are the DER certificates that services must come from.
    pub fn new(resolver: Resolver, roots: &[Vec<u8>]) -> Fetcher {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().map(|der| CertificateDer::from(&**der)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap_or_else(|error| unreachable!("ring has the versions of rustls: {error}"))
            .with_root_certificates(store)
            .with_no_client_auth();
        Fetcher { resolver, tls: Arc::new(tls) }
    }

    /// Fetches what `source` is. `known` is what its document said before: with it, the keys are fetched
    /// alone.
    pub async fn fetch(&self, source: &Source, known: Option<&Metadata>) -> Answer {
        let mut answer = Answer { life: MAX_LIFE, ..Answer::default() };
        if let Err(error) = self.fill(&mut answer, source, known).await {
            answer.error = Some(error);
        }
        answer
    }

    async fn fill(
        &self,
        answer: &mut Answer,
        source: &Source,
        known: Option<&Metadata>,
    ) -> Result<(), FetchError> {
        let (issuer, keys) = match &source.kind {
            SourceKind::Keys => return self.keys(answer, source, &source.url).await,
            SourceKind::Discovery { issuer, keys } => (issuer.as_deref(), *keys),
        };
        if keys && let Some(url) = known.and_then(|known| known.jwks_uri.as_ref()) {
            return self.keys(answer, source, url).await;
        }
        let metadata = self.metadata(answer, source, issuer).await?;
        let url = metadata.jwks_uri.clone();
        answer.metadata = Some(metadata);
        match url {
            Some(url) if keys => self.keys(answer, source, &url).await,
            None if keys => Err(FetchError::Unfit("it names no jwks_uri".into())),
            _ => Ok(()),
        }
    }

    async fn keys(
        &self,
        answer: &mut Answer,
        source: &Source,
        url: &str,
    ) -> Result<(), FetchError> {
        let named = |error| match &source.kind {
            SourceKind::Discovery { .. } => {
                FetchError::Unfit(format!("its jwks_uri {url}: {error}"))
            }
            SourceKind::Keys => error,
        };
        let document = self.get(url, source).await.map_err(named)?;
        let keys = jwk::parse(&document.bytes, &REMOTE_ALGORITHMS)
            .map_err(|error| named(FetchError::Unfit(error.to_string())))?;
        answer.life = answer.life.min(document.life);
        answer.keys = Some(keys);
        Ok(())
    }

    async fn metadata(
        &self,
        answer: &mut Answer,
        source: &Source,
        issuer: Option<&str>,
    ) -> Result<Metadata, FetchError> {
        let mut document = self.get(&source.url, source).await;
        // A server of OAuth without OpenID has its document elsewhere (RFC 8414 §3.1).
        if let (Err(FetchError::Status { .. }), Some(issuer)) = (&document, issuer)
            && let Some(url) = oauth_url(issuer).filter(|_| is_of_issuer(&source.url, issuer))
            && let Ok(other) = self.get(&url, source).await
        {
            document = Ok(other);
        }
        let document = document?;
        answer.life = answer.life.min(document.life);
        read_metadata(&document.bytes, issuer, source.fetch.allow_private)
    }

    async fn get(&self, url: &str, source: &Source) -> Result<Document, FetchError> {
        let unfit = |problem: String| FetchError::Unfit(problem);
        let url: Url = url.parse().map_err(|_| unfit(format!("`{url}` is not a URL")))?;
        let clear = match url.scheme() {
            "https" => false,
            "http" if source.fetch.allow_private => true,
            _ => return Err(unfit("only https:// is asked".into())),
        };
        let reach = Reach { allow_private: source.fetch.allow_private, clear };
        let Some(host) = url.host_str() else { return Err(unfit("the URL has no host".into())) };
        // Literal addresses are not looked up. Whatever way they are written in, `Url` has it in one.
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        if let Some(address) = literal.filter(|address| !reach.allows(*address)) {
            return Err(unfit(reach.refusal(address)));
        }
        let client = Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .dns_resolver(Arc::new(Judging { resolver: self.resolver.clone(), reach }))
            .redirect(Policy::none())
            // A proxy would look names up itself.
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_millis(source.fetch.timeout_ms.into()))
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unreachable_because(&error))?;
        let request = client.get(url).header(ACCEPT, "application/json, application/jwk-set+json");
        let response = request.send().await.map_err(|error| unreachable_because(&error))?;
        if response.remote_addr().is_some_and(|peer| !reach.allows(peer.ip())) {
            return Err(unfit("it is at an address that is not asked".into()));
        }
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { status: response.status().as_u16() });
        }
        let life = life(response.headers());
        Ok(Document { bytes: whole(response).await?, life })
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > jwk::MAX_BYTES => {
                return Err(FetchError::TooLarge);
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(unreachable_because(&error)),
        }
    }
}

/// The first cause: what libraries put around it says less.
fn unreachable_because(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Unreachable("there is no answer in time".into());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    FetchError::Unreachable(cause.to_string())
}

/// Looks names up, and gives those addresses that may be asked.
struct Judging {
    resolver: Resolver,
    reach: Reach,
}

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, reach) = (self.resolver.clone(), self.reach);
        Box::pin(async move {
            let all = resolver.look_up(name.as_str()).await?;
            let allowed: Vec<SocketAddr> = all
                .iter()
                .filter(|address| reach.allows(**address))
                .map(|address| SocketAddr::new(*address, 0))
                .collect();
            match all.first() {
                Some(address) if allowed.is_empty() => Err(reach.refusal(*address).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// How long an answer may be believed (RFC 9111 §4.2), within our bounds.
fn life(fields: &HeaderMap) -> Duration {
    let lines = fields.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut max_age = None;
    for directive in lines.flat_map(|line| line.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return MIN_LIFE,
            "max-age" => {
                let value = value.trim_matches('"').parse::<u64>();
                max_age = max_age.or(value.ok());
            }
            _ => {}
        }
    }
    let Some(max_age) = max_age else { return USUAL_LIFE };
    let age = fields.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse::<u64>().ok());
    let left = max_age.saturating_sub(age.unwrap_or(0));
    Duration::from_secs(left).clamp(MIN_LIFE, MAX_LIFE)
}

/// Whether `url` is where OpenID Connect has an issuer's document.
fn is_of_issuer(url: &str, issuer: &str) -> bool {
    url.strip_suffix("/.well-known/openid-configuration") == Some(issuer.trim_end_matches('/'))
}

/// Where OAuth has it: between host and path.
fn oauth_url(issuer: &str) -> Option<String> {
    let mut url: Url = issuer.parse().ok()?;
    let path = url.path().trim_end_matches('/');
    let path = format!("/.well-known/oauth-authorization-server{path}");
    url.set_path(&path);
    Some(url.into())
}

/// The members of a document that matter here.
#[derive(Deserialize)]
struct Members {
    issuer: String,
    jwks_uri: Option<String>,
    introspection_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
}

fn read_metadata(
    bytes: &[u8],
    issuer: Option<&str>,
    allow_private: bool,
) -> Result<Metadata, FetchError> {
    let members: Members = serde_json::from_slice(bytes).map_err(|_| {
        FetchError::Unfit("it is no provider's metadata (OpenID Connect Discovery 1.0 §3)".into())
    })?;
    // OpenID Connect Discovery 1.0 §4.3, RFC 8414 §3.3: otherwise anyone could speak for it.
    if let Some(issuer) = issuer.filter(|issuer| *issuer != members.issuer) {
        return Err(FetchError::Unfit(format!(
            "it is the document of `{:.200}`, not of `{issuer}`",
            members.issuer.escape_debug().to_string()
        )));
    }
    // Of what cannot be asked nothing is said: whoever needs it will miss it.
    let usable = |url: Option<String>| {
        url.filter(|url| {
            crate::spec::scalars::url(url).is_ok()
                && (url.starts_with("https://") || (allow_private && url.starts_with("http://")))
        })
    };
    Ok(Metadata {
        issuer: members.issuer,
        jwks_uri: usable(members.jwks_uri),
        introspection_endpoint: usable(members.introspection_endpoint),
        authorization_endpoint: usable(members.authorization_endpoint),
        token_endpoint: usable(members.token_endpoint),
        end_session_endpoint: usable(members.end_session_endpoint),
    })
}

#[cfg(test)]
mod tests;
