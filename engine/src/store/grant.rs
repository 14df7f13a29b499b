//! Tokens that upstreams get from us in place of the client's (client credentials, RFC 6749 §4.4): one
//! for all shards and all plans with the same settings, fetched again before it ends.
//!
//! A task on the store thread keeps it. Shards look at its number, which costs a load, and take the
//! token when that has changed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use contract::snapshot::{self, ClientProof, Snapshot};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::Store;
use super::http::{Clients, Endpoint, Failure};
use super::oauth_client::OAuthClient;
use crate::auth::registry::Unfit;
use crate::io::{Swap, monotonic_ms, wall_ms};
use crate::limits;
use crate::tls::{Digest, Fingerprint, service_fingerprint};

/// A token that is kept.
pub struct Grant {
    endpoint: Endpoint,
    client: OAuthClient,
    parameters: Vec<(&'static str, String)>,
    current: Swap<Option<Token>>,
    /// The first attempt to get one is over.
    tried: watch::Sender<bool>,
    /// Wakes the task: the token may be no good, or nobody needs it any more.
    wake: Arc<Notify>,
    started: AtomicBool,
    /// When it was fetched last, or is to be; monotonic milliseconds.
    fetched_ms: AtomicU64,
}

pub struct Token {
    /// `Bearer …`.
    pub authorization: Box<[u8]>,
    /// Monotonic milliseconds.
    pub expires_ms: u64,
}

impl fmt::Debug for Grant {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Grant {
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn build(from: &snapshot::ClientCredentials, snapshot: &Snapshot) -> Result<Grant, Unfit> {
        let mut parameters = vec![("grant_type", "client_credentials".to_string())];
        if !from.scopes.is_empty() {
            parameters.push(("scope", from.scopes.join(" ")));
        }
        if let Some(audience) = &from.audience {
            parameters.push(("audience", audience.clone()));
            // Those who know RFC 8707 want it as a URI and call it so; parameters that a server does
            // not know it ignores (RFC 6749 §3.2).
            if reqwest::Url::parse(audience).is_ok_and(|url| url.fragment().is_none()) {
                parameters.push(("resource", audience.clone()));
            }
        }
        let identity = OAuthClient::identity(&from.client);
        Ok(Grant {
            endpoint: Endpoint::build(&from.endpoint, identity, snapshot)?,
            client: OAuthClient::build(&from.client)?,
            parameters,
            current: Swap::new(Arc::new(None), 0),
            tried: watch::Sender::new(false),
            wake: Arc::default(),
            started: AtomicBool::new(false),
            fetched_ms: AtomicU64::new(0),
        })
    }

    /// Keeps the token from now on, on the store's thread. Every shard may say so.
    pub fn start(self: &Arc<Self>, store: &Store) {
        if !self.started.swap(true, Ordering::AcqRel) {
            let (grant, wake) = (Arc::downgrade(self), self.wake.clone());
            store.runtime().spawn(keep(grant, store.http(), wake));
        }
    }

    /// Changes with the token; 0: there was none yet.
    #[inline]
    pub fn number(&self) -> u64 {
        self.current.number()
    }

    pub fn current(&self) -> Arc<Option<Token>> {
        self.current.get()
    }

    /// Waits until the first attempt to get a token is over. For the store's thread.
    pub async fn wait(self: Arc<Self>) {
        let mut tried = self.tried.subscribe();
        let _ = timeout(self.endpoint.timeout(), tried.wait_for(|tried| *tried)).await;
    }

    /// An upstream does not take the token: it is fetched anew, if that was not done just now.
    pub fn doubt(&self, now_ms: u64) {
        let last_ms = self.fetched_ms.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(last_ms) >= limits::GRANT_DOUBT_MS;
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        if due && self.fetched_ms.compare_exchange(last_ms, now_ms, success, failure).is_ok() {
            self.wake.notify_one();
        }
    }

    async fn fetch(&self, http: &Clients) -> Result<(Token, u64), Failure> {
        let begun_ms = monotonic_ms();
        self.fetched_ms.store(begun_ms, Ordering::Release);
        let parameters: Vec<(&str, &str)> =
            self.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let question = self.client.question(&self.endpoint, &parameters, wall_ms()).await?;
        let answer = http.ask(&self.endpoint, question).await?;
        let object = answer.object()?;
        let Some(token) = object.get("access_token").and_then(Value::as_str) else {
            return Err(Failure::Malformed("there is no access_token"));
        };
        // RFC 6749 A.12. Anything else could end a field.
        let sound = |byte: u8| matches!(byte, 0x21..=0x7e);
        if token.is_empty() || token.len() > limits::AUTH_CREDENTIAL || !token.bytes().all(sound) {
            return Err(Failure::Malformed("the access_token is no token"));
        }
        let kind = object.get("token_type").map_or(Some("Bearer"), Value::as_str);
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(Failure::Malformed("the token_type is not Bearer"));
        }
        let life_ms = life_ms(object.get("expires_in"))?;
        let authorization = [b"Bearer ", token.as_bytes()].concat().into();
        Ok((Token { authorization, expires_ms: begun_ms + life_ms }, life_ms))
    }

    fn put(&self, token: Token) {
        self.current.set(Arc::new(Some(token)), self.current.number() + 1);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Keeps the token of `grant` for as long as a plan has it.
async fn keep(grant: Weak<Grant>, http: Arc<Clients>, wake: Arc<Notify>) {
    let mut failures = 0;
    while let Some(own) = grant.upgrade() {
        let pause_ms = match own.fetch(&http).await {
            Ok((token, life_ms)) => {
                own.put(token);
                failures = 0;
                ahead_ms(life_ms, random())
            }
            Err(failure) => {
                own.endpoint.complain(&failure);
                failures += 1;
                back_off_ms(failures, random())
            }
        };
        own.tried.send_replace(true);
        drop(own);
        let _ = timeout(Duration::from_millis(pause_ms), wake.notified()).await;
    }
}

fn random() -> u8 {
    let mut byte = [128];
    // Without chance all gateways ask at the same time, which is no reason to fail.
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

/// How long a token lives (RFC 6749 §5.1), some servers say it as a text.
fn life_ms(expires_in: Option<&Value>) -> Result<u64, Failure> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Ok(limits::GRANT_LIFE_MS),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_f64(),
    };
    match seconds {
        Some(seconds) if seconds > 0.0 => {
            Ok(((seconds * 1_000.0) as u64).min(limits::GRANT_LONGEST_MS))
        }
        _ => Err(Failure::Malformed("expires_in is no time")),
    }
}

/// When to fetch the next token: after 75 to 85 % of its life, at least 5 s before its end where it
/// lives long enough for that.
fn ahead_ms(life_ms: u64, random: u8) -> u64 {
    let part_ms = life_ms / 100 * (75 + u64::from(random) / 24).min(85);
    let last_ms = if life_ms >= 10_000 { life_ms - 5_000 } else { life_ms / 2 };
    part_ms.min(last_ms).max(limits::GRANT_PAUSE_MS)
}

/// A second after the first failure, twice as long after each further one; some earlier than others.
fn back_off_ms(failures: u32, random: u8) -> u64 {
    let most_ms = limits::GRANT_PAUSE_MS << failures.saturating_sub(1).min(16);
    let most_ms = most_ms.min(limits::GRANT_BACK_OFF_MS);
    most_ms - most_ms / 4 * u64::from(random) / 255
}

/// All that the token depends on.
pub fn fingerprint(from: &snapshot::ClientCredentials, snapshot: &Snapshot) -> Fingerprint {
    let snapshot::ClientCredentials { endpoint, client, scopes, audience } = from;
    let mut digest = Digest::new("grant");
    digest.add(endpoint.url.as_bytes());
    digest.number(u64::from(endpoint.allow_private));
    digest.number(endpoint.timeout_ms.into());
    let identity = OAuthClient::identity(client);
    digest.add(&service_fingerprint(endpoint.trust, identity, snapshot));
    digest.add(client.id.as_bytes());
    match &client.proof {
        ClientProof::None => digest.number(0),
        ClientProof::Basic(secret) => {
            digest.number(1);
            digest.add(secret.as_bytes());
        }
        ClientProof::Post(secret) => {
            digest.number(2);
            digest.add(secret.as_bytes());
        }
        ClientProof::PrivateKeyJwt { key, kid } => {
            digest.number(3 + u64::from(kid.is_some()));
            digest.add(key);
            digest.add(kid.as_deref().unwrap_or_default().as_bytes());
        }
        ClientProof::Tls { .. } => digest.number(5),
    }
    digest.number(scopes.len() as u64);
    scopes.iter().for_each(|scope| digest.add(scope.as_bytes()));
    digest.number(u64::from(audience.is_some()));
    digest.add(audience.as_deref().unwrap_or_default().as_bytes());
    digest.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_token_is_fetched_ahead() {
        for random in [0, 128, 255] {
            let hour = ahead_ms(3_600_000, random);
            assert!((2_700_000..=3_060_000).contains(&hour), "{hour}");
            assert_eq!(ahead_ms(10_000, random), 5_000);
            assert_eq!(ahead_ms(20_000, 255), 15_000);
            assert_eq!(ahead_ms(4_000, random), 2_000);
            assert_eq!(ahead_ms(100, random), limits::GRANT_PAUSE_MS);
        }
        assert!(ahead_ms(3_600_000, 0) < ahead_ms(3_600_000, 255));
    }

    #[test]
    fn failures_are_waited_out_ever_longer() {
        let pauses: Vec<u64> = (1..=8).map(|failures| back_off_ms(failures, 0)).collect();
        assert_eq!(pauses[..4], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(pauses[7], limits::GRANT_BACK_OFF_MS);
        assert_eq!(back_off_ms(u32::MAX, 255), limits::GRANT_BACK_OFF_MS * 3 / 4);
    }

    #[test]
    fn lives_are_numbers_of_seconds() {
        let life = |value: Value| life_ms(Some(&value)).ok();
        assert_eq!(life_ms(None), Ok(limits::GRANT_LIFE_MS));
        assert_eq!(life(json!(60)), Some(60_000));
        assert_eq!(life(json!("3599")), Some(3_599_000));
        assert_eq!(life(json!(1e300)), Some(limits::GRANT_LONGEST_MS));
        for bad in [json!(0), json!(-1), json!("soon"), json!("NaN"), json!([]), json!(true)] {
            assert_eq!(life(bad), None);
        }
    }
}
