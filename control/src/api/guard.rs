//! Who may speak to the admin listener.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Problem;

/// Judges requests by their `Host` and `Origin`.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    listen: SocketAddr,
}

impl Guard {
    pub fn new(listen: SocketAddr) -> Guard {
        Guard { listen }
    }

    /// # Errors
    /// Why the request is refused.
    fn judge(&self, path: &str, headers: &HeaderMap) -> Result<(), &'static str> {
        // Beyond the loopback, scrapers and load balancers come by name; what they read there is
        // read-only.
        if !self.listen.ip().is_loopback() && !path.starts_with("/v1/") {
            return Ok(());
        }
        if headers.contains_key(ORIGIN) {
            return Err("requests from web pages (with an Origin field) are refused");
        }
        match headers.get(HOST).map(|host| host.to_str().unwrap_or("?")) {
            None => Ok(()),
            Some(host) if self.knows(host) => Ok(()),
            Some(_) => Err("the Host field names neither the loopback nor the admin address"),
        }
    }

    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        match bare.parse::<IpAddr>() {
            // Rebinding needs a name; with the wildcard address any of ours may be meant.
            Ok(ip) => {
                ip.is_loopback() || ip == self.listen.ip() || self.listen.ip().is_unspecified()
            }
            Err(_) => false,
        }
    }
}

pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.judge(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => Problem::forbidden(why).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(listen: &str, path: &str, fields: &[(&'static str, &'static str)]) -> bool {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Guard::new(listen.parse().unwrap()).judge(path, &headers).is_ok()
    }

    #[test]
    fn on_the_loopback_only_loopback_hosts_pass() {
        let host = |host| judge("127.0.0.1:9901", "/metrics", &[("host", host)]);
        for good in ["127.0.0.1:9901", "localhost", "LOCALHOST:1", "[::1]:9901", "127.0.0.2"] {
            assert!(host(good), "{good}");
        }
        for bad in ["evil.example:9901", "10.0.0.1", "localhost.evil.example", "", "[::1", "a:b"] {
            assert!(!host(bad), "{bad}");
        }
        assert!(judge("127.0.0.1:9901", "/v1/spec", &[]));
    }

    #[test]
    fn web_pages_never_pass() {
        let fields = [("host", "localhost"), ("origin", "http://localhost")];
        assert!(!judge("127.0.0.1:9901", "/healthz", &fields));
        assert!(!judge("0.0.0.0:9901", "/v1/apply", &fields));
        assert!(!judge("127.0.0.1:9901", "/v1/apply", &[("origin", "null")]));
    }

    #[test]
    fn elsewhere_names_may_read_health_but_not_steer() {
        let by_name = [("host", "gateway.internal")];
        assert!(judge("10.0.0.1:9901", "/metrics", &by_name));
        assert!(!judge("10.0.0.1:9901", "/v1/apply", &by_name));
        assert!(judge("10.0.0.1:9901", "/v1/apply", &[("host", "10.0.0.1:9901")]));
        assert!(judge("0.0.0.0:9901", "/v1/apply", &[("host", "10.0.0.7:9901")]));
    }
}
