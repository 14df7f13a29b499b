//! New tokens for old ones (RFC 6749 §6), once per session and node however many requests wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::Digest;
use tokio::sync::OnceCell;

use super::session::Session;
use super::{Provider, Refusal};
use crate::auth::jwt::parse::Token;
use crate::auth::jwt::verify::Verdict;
use crate::limits;
use crate::store::http::Clients;

/// What came of a refresh.
#[derive(Clone, Debug, PartialEq)]
pub enum Refreshed {
    Now(Session),
    /// The provider does not want to hear of the session any more.
    Over,
    /// The provider cannot be asked.
    Unknown,
}

/// The refreshes of a while, by what the browsers had before: a browser sends several requests at once,
/// and some of them still with the old cookie.
#[derive(Debug, Default)]
pub struct Refreshes(Mutex<HashMap<[u8; 32], Refresh>>);

#[derive(Clone, Debug)]
struct Refresh {
    /// Milliseconds since the Unix epoch.
    begun_ms: u64,
    outcome: Arc<OnceCell<Refreshed>>,
}

impl Refreshes {
    fn outcome(&self, key: &Digest, now_ms: u64) -> Option<Arc<OnceCell<Refreshed>>> {
        let mut name = [0; 32];
        name.copy_from_slice(key.as_ref());
        let all = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&name) {
            let lost = known.outcome.get() == Some(&Refreshed::Unknown);
            let old = now_ms.saturating_sub(known.begun_ms) >= limits::REFRESHED_MS;
            if !lost && !old {
                return Some(known.outcome.clone());
            }
        }
        if all.len() >= limits::REFRESHES {
            all.retain(|_, known| now_ms.saturating_sub(known.begun_ms) < limits::REFRESHED_MS);
        }
        if all.len() >= limits::REFRESHES {
            return None;
        }
        let refresh = Refresh { begun_ms: now_ms, outcome: Arc::default() };
        all.insert(name, refresh.clone());
        Some(refresh.outcome)
    }
}

impl Provider {
    /// `key`: a digest of the cookie.
    pub(super) async fn refreshed(
        &self,
        http: &Clients,
        key: Digest,
        session: Session,
        now_ms: u64,
    ) -> Refreshed {
        let Some(outcome) = self.refreshes.outcome(&key, now_ms) else { return Refreshed::Unknown };
        outcome.get_or_init(|| self.refresh(http, session, now_ms)).await.clone()
    }

    async fn refresh(&self, http: &Clients, session: Session, now_ms: u64) -> Refreshed {
        let Some(token) = &session.refresh_token else { return Refreshed::Over };
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let tokens = match self.ask(http, &parameters, now_ms).await {
            Ok(tokens) => tokens,
            Err(Refusal::Unavailable) => return Refreshed::Unknown,
            Err(_) => return Refreshed::Over,
        };
        let mut next = Session {
            access_token: session.access_token.as_ref().and(tokens.access_token.clone()),
            refresh_token: tokens.refresh_token.clone().or(session.refresh_token.clone()),
            expires_s: tokens.expires_s,
            ..session.clone()
        };
        // OpenID Connect Core §12.2: there may be a new identity token, of the same user.
        let token = tokens.id_token.as_deref().map(|text| Token::read(text.as_bytes()));
        // One with a key that we do not have yet says nothing new: what the session says goes on.
        let unknown = |token: &Token| self.keys.judge(token) == Verdict::Unknown;
        if let Some(token) = token
            && !token.as_ref().is_ok_and(unknown)
        {
            let claims =
                token.ok().and_then(|token| self.believed(&self.keys, &token, now_ms).ok());
            let Some(claims) = claims else { return Refreshed::Over };
            if claims.get("sub") != session.claims.get("sub") {
                return Refreshed::Over;
            }
            next.claims = Session::new(&claims, tokens, session.begun_s).claims;
        }
        Refreshed::Now(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refresh_serves_all_until_it_is_old_or_lost() {
        let refreshes = Refreshes::default();
        let key = ring::digest::digest(&ring::digest::SHA256, b"cookie");
        let first = refreshes.outcome(&key, 1_000).unwrap();
        assert!(Arc::ptr_eq(&first, &refreshes.outcome(&key, 2_000).unwrap()));
        first.set(Refreshed::Unknown).unwrap();
        let second = refreshes.outcome(&key, 2_000).unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "who could not be asked is asked again");
        second.set(Refreshed::Over).unwrap();
        assert!(Arc::ptr_eq(&second, &refreshes.outcome(&key, 3_000).unwrap()));
        let late = 2_000 + limits::REFRESHED_MS;
        assert!(!Arc::ptr_eq(&second, &refreshes.outcome(&key, late).unwrap()));
    }

    #[test]
    fn there_are_only_so_many() {
        let refreshes = Refreshes::default();
        for n in 0..limits::REFRESHES {
            let key = ring::digest::digest(&ring::digest::SHA256, &n.to_le_bytes());
            assert!(refreshes.outcome(&key, 1_000).is_some());
        }
        let more = ring::digest::digest(&ring::digest::SHA256, b"more");
        assert!(refreshes.outcome(&more, 1_000).is_none());
        assert!(refreshes.outcome(&more, 1_000 + limits::REFRESHED_MS).is_some());
    }
}
