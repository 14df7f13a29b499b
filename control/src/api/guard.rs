//! Who may speak to the admin listener.

use std::net::{IpAddr, SocketAddr};

use axum::http::{
    HeaderMap,
    header::{HOST, ORIGIN},
};

/// Judges requests by their `Host` and `Origin`.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    listen: SocketAddr,
}

impl Guard {
    pub fn new(listen: SocketAddr) -> Guard {
        Guard { listen }
    }

    /// `listed`: nobody gets anything below /v1 without proof of who they are.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn judge(&self, path: &str, headers: &HeaderMap, listed: bool) -> Result<(), &'static str> {
        // Beyond the loopback, scrapers and load balancers come by name; what they read there is
        // read-only.
        if !self.listen.ip().is_loopback() && !path.starts_with("/v1/") {
            return Ok(());
        }
        if headers.contains_key(ORIGIN) {
            return Err("requests from web pages (with an Origin field) are refused");
        }
        // A page under a foreign name has no token, and no certificate of ours is good for the name.
        if listed {
            return Ok(());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(listen: &str, path: &str, fields: &[(&'static str, &'static str)]) -> bool {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Guard::new(listen.parse().unwrap()).judge(path, &headers, false).is_ok()
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
    fn who_must_prove_who_they_are_may_use_any_name() {
        let guard = Guard::new("0.0.0.0:9901".parse().unwrap());
        let by_name = [(HOST, "gateway.internal:9901".parse().unwrap())].into_iter().collect();
        assert!(guard.judge("/v1/apply", &by_name, true).is_ok());
        let page = [(ORIGIN, "https://gateway.internal".parse().unwrap())].into_iter().collect();
        assert!(guard.judge("/v1/apply", &page, true).is_err());
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
