//! Redis, as commands ask it.

use std::{path::Path, sync::Arc, time::Duration};

use contract::snapshot::{RedisAddress, redis_owner};
use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, ClusterInterface, KeysInterface},
    types::{
        Expiration, SetOptions,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ServerConfig, TlsConfig, TlsConnector,
            TlsHostMapping,
        },
    },
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::{
    cli::{Failure, exit},
    material,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names that a page of them has about.
const PAGE: u32 = 500;

/// One server, several, or a cluster.
pub struct Servers {
    /// Of several servers, in their order.
    names: Vec<String>,
    clients: Vec<Client>,
    cluster: bool,
}

impl Servers {
    pub async fn connect(
        urls: &[String],
        cluster: bool,
        ca: Option<&Path>,
    ) -> Result<Servers, Failure> {
        let mut addresses = Vec::new();
        for (at, url) in urls.iter().enumerate() {
            let address = RedisAddress::parse(url).map_err(|problem| {
                Failure::new(exit::BAD_SPEC, format!("--redis, address {}: {problem}", at + 1))
            })?;
            addresses.push(address);
        }
        let tls = match addresses.iter().any(|address| address.tls) {
            true => Some(tls(ca)?),
            false => None,
        };
        let names = addresses.iter().map(RedisAddress::name).collect();
        let mut configs = Vec::new();
        match addresses.first().filter(|_| cluster) {
            Some(seed) => {
                let hosts = addresses.iter().map(|one| (one.host.clone(), one.port)).collect();
                configs.push(config(
                    seed,
                    ServerConfig::new_clustered(hosts),
                    tls.as_ref(),
                    cluster,
                ));
            }
            None => configs.extend(addresses.iter().map(|address| {
                let server = ServerConfig::new_centralized(address.host.as_str(), address.port);
                config(address, server, tls.as_ref(), cluster)
            })),
        }
        let mut servers = Servers { names, clients: Vec::new(), cluster };
        for (at, config) in configs.into_iter().enumerate() {
            servers.clients.push(connect(config).await.map_err(|error| {
                let name = servers.names.get(at).map_or("", String::as_str);
                Failure::new(exit::UNREACHABLE, format!("Redis at {name}: {error}"))
            })?);
        }
        Ok(servers)
    }

    /// Who has `key`.
    fn of(&self, key: &str) -> Result<&Client, Failure> {
        let at = if self.cluster { 0 } else { redis_owner(&self.names, key.as_bytes()) };
        self.clients.get(at).ok_or_else(|| Failure::new(exit::BAD_SPEC, "--redis names no server"))
    }

    pub async fn get(&self, key: &str) -> Result<Option<String>, Failure> {
        self.of(key)?.get(key).await.map_err(failed)
    }

    /// Stores what is not there yet, for `life_ms` or for good.
    pub async fn put(&self, key: &str, text: &str, life_ms: Option<u64>) -> Result<(), Failure> {
        let life = life_ms.map(|ms| Expiration::PX(i64::try_from(ms).unwrap_or(i64::MAX)));
        let once = Some(SetOptions::NX);
        let put: Option<String> =
            self.of(key)?.set(key, text, life, once, false).await.map_err(failed)?;
        put.map(drop).ok_or_else(|| Failure::new(exit::FAILURE, "there is such a key already"))
    }

    /// Whether there was something.
    pub async fn delete(&self, key: &str) -> Result<bool, Failure> {
        let count: u64 = self.of(key)?.del(key).await.map_err(failed)?;
        Ok(count > 0)
    }

    /// The names that begin with `prefix`, in one order, each once.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let pattern = format!("{}*", escaped(prefix));
        let mut names = Vec::new();
        for client in &self.clients {
            let nodes = match self.cluster {
                false => vec![None],
                true => {
                    let routing = client.cached_cluster_state();
                    let nodes = routing.map(|routing| routing.unique_primary_nodes());
                    nodes.unwrap_or_default().into_iter().map(Some).collect()
                }
            };
            for node in nodes {
                let mut cursor = "0".to_owned();
                loop {
                    let (next, page): (String, Vec<String>) = match &node {
                        None => client.scan_page(cursor, pattern.as_str(), Some(PAGE), None).await,
                        Some(node) => {
                            let at = client.with_cluster_node(node);
                            at.scan_page(cursor, pattern.as_str(), Some(PAGE), None).await
                        }
                    }
                    .map_err(failed)?;
                    names.extend(page);
                    if next == "0" {
                        break;
                    }
                    cursor = next;
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

/// For a pattern that means the text itself.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn failed(error: Error) -> Failure {
    Failure::new(exit::FAILURE, format!("Redis: {error}"))
}

async fn connect(config: Config) -> Result<Client, Error> {
    let performance =
        PerformanceConfig { default_command_timeout: PATIENCE, ..PerformanceConfig::default() };
    let connection = ConnectionConfig {
        connection_timeout: PATIENCE,
        internal_command_timeout: PATIENCE,
        ..ConnectionConfig::default()
    };
    let client = Client::new(config, Some(performance), Some(connection), None);
    client.init().await?;
    Ok(client)
}

fn config(
    address: &RedisAddress,
    server: ServerConfig,
    tls: Option<&Arc<ClientConfig>>,
    cluster: bool,
) -> Config {
    let hostnames = if cluster { TlsHostMapping::DefaultHost } else { TlsHostMapping::None };
    Config {
        username: address.username.clone(),
        password: address.password.clone(),
        server,
        database: Some(address.database).filter(|_| !cluster),
        tls: tls.filter(|_| address.tls).map(|tls| TlsConfig {
            connector: TlsConnector::Rustls(tls.clone().into()),
            hostnames,
        }),
        ..Config::default()
    }
}

/// Who vouches for Redis: the certificates in `ca`, or the system's roots.
fn tls(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let bad = |problem: String| Failure::new(exit::BAD_SPEC, format!("--redis-ca: {problem}"));
    let roots = match ca {
        Some(path) => {
            material::issuers(&path.display().to_string()).map_err(|(_, why)| bad(why))?
        }
        None => material::system_roots().map_err(bad)?,
    };
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root)).map_err(|error| bad(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        assert_eq!(escaped("sluice:key:"), "sluice:key:");
        assert_eq!(escaped("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }
}
