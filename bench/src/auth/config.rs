//! Routes to the same origin in each gateway's words: one for all, and others that ask who calls.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::{AUDIENCE, CONSUMER, ISSUER};
use crate::peer;

/// What the gateways are told.
pub struct Setup<'a> {
    /// In clear text.
    pub listen: u16,
    /// Over TLS, for clients with a certificate.
    pub mesh: u16,
    /// For Sluice's admin listener.
    pub admin: u16,
    pub origin: u16,
    pub files: &'a Files,
    pub api_key: &'a str,
}

/// Where things are that they read.
pub struct Files {
    pub jwks: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Of the clients' certificates.
    pub authority: PathBuf,
}

impl Files {
    pub fn write(
        directory: &Path,
        jwks: &str,
        server: &(String, String),
        authority: &str,
    ) -> io::Result<Files> {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(Files {
            jwks: write("jwks.json", jwks)?,
            chain: write("chain.pem", &server.0)?,
            key: write("key.pem", &server.1)?,
            authority: write("authority.pem", authority)?,
        })
    }
}

pub fn sluice(setup: &Setup<'_>) -> String {
    let Setup { listen, mesh, admin, origin, files, api_key } = setup;
    let (jwks, chain) = (files.jwks.display(), files.chain.display());
    let (key, authority) = (files.key.display(), files.authority.display());
    let hash = HEXLOWER.encode(digest(&SHA256, api_key.as_bytes()).as_ref());
    let jwt = format!(
        "issuer: \"{ISSUER}\", jwks_file: \"{jwks}\", audiences: [ {AUDIENCE} ], consumer_claim: client_id"
    );
    format!(
        "version: 1
access_log: {{ path: \"off\" }}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
listeners:
  - {{ name: web, listen: \"127.0.0.1:{listen}\" }}
  - name: mesh
    listen: \"127.0.0.1:{mesh}\"
    tls:
      min_version: \"1.3\"
      certificates: [ {{ cert: \"{chain}\", key: \"{key}\", client_auth: {{ mode: require, ca: \"{authority}\" }} }} ]
consumers:
  - {{ name: {CONSUMER}, api_keys: [ {{ sha256: {hash}, prefix: slk_bench }} ], certificates: [ {{ cn: {CONSUMER} }} ] }}
authenticators:
  - {{ name: keys, api_key: {{}} }}
  - {{ name: tokens, jwt: {{ {jwt} }} }}
  - {{ name: certificates, certificate: {{ consumer_required: true }} }}
upstreams: [ {{ name: origin, targets: [ \"127.0.0.1:{origin}\" ] }} ]
routes:
  - {{ name: open, match: {{ path: /open }}, rewrite: {{ strip_prefix: true }}, upstream: origin }}
  - {{ name: key, match: {{ path: /key }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: keys }}
  - {{ name: es256, match: {{ path: /es256 }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: tokens }}
  - {{ name: rs256, match: {{ path: /rs256 }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: tokens }}
  - {{ name: mtls, match: {{ path: /mtls }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: certificates }}
"
    )
}

pub fn nginx(setup: &Setup<'_>, directory: &Path) -> String {
    let Setup { listen, mesh, origin, files, api_key, .. } = setup;
    let (chain, key) = (files.chain.display(), files.key.display());
    let authority = files.authority.display();
    let begin = peer::config::nginx_process(directory);
    format!(
        "{begin}  map_hash_bucket_size 256;
  map $http_x_api_key $consumer {{ default \"\"; \"{api_key}\" {CONSUMER}; }}
  map $ssl_client_s_dn $subject {{ default \"\"; \"CN={CONSUMER}\" {CONSUMER}; }}
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{listen} reuseport;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    location /open/ {{ proxy_pass http://origin/; }}
    location /key/ {{
      if ($consumer = \"\") {{ return 401; }}
      # Those of the server do not count beside any of its own.
      proxy_set_header Connection \"\";
      proxy_set_header X-Consumer-Id $consumer;
      proxy_pass http://origin/;
    }}
  }}
  server {{
    listen 127.0.0.1:{mesh} ssl reuseport;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_client_certificate {authority};
    ssl_verify_client on;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    location /open/ {{ proxy_pass http://origin/; }}
    location /mtls/ {{
      if ($subject = \"\") {{ return 401; }}
      proxy_set_header Connection \"\";
      proxy_set_header X-Consumer-Id $subject;
      proxy_pass http://origin/;
    }}
  }}
}}
"
    )
}

pub fn envoy(setup: &Setup<'_>) -> String {
    let Setup { listen, origin, files, .. } = setup;
    let jwks = files.jwks.display();
    let route = |path: &str| {
        format!(
            "              - match: {{ prefix: \"/{path}/\" }}
                route: {{ cluster: origin, prefix_rewrite: \"/\", timeout: 0s }}
"
        )
    };
    let routes = ["open", "es256", "rs256"].map(route).concat();
    let jwt = format!(
        "          - name: envoy.filters.http.jwt_authn
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                tokens:
                  issuer: \"{ISSUER}\"
                  audiences: [ {AUDIENCE} ]
                  local_jwks: {{ filename: \"{jwks}\" }}
                  forward: true
                  jwt_cache_config: {{ jwt_cache_size: 100000 }}
                  claim_to_headers: [ {{ header_name: x-consumer-id, claim_name: client_id }} ]
              rules:
              - match: {{ prefix: /es256/ }}
                requires: {{ provider_name: tokens }}
              - match: {{ prefix: /rs256/ }}
                requires: {{ provider_name: tokens }}
"
    );
    let begin = peer::config::envoy_process(*listen, "HTTP1", &jwt);
    format!(
        "{begin}          route_config:
            virtual_hosts:
            - name: all
              domains: [ \"*\" ]
              routes:
{routes}  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{ thresholds: [ {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }} ] }}
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_knows_the_routes_of_its_cases() {
        let files = Files {
            jwks: "/x/jwks.json".into(),
            chain: "/x/chain.pem".into(),
            key: "/x/key.pem".into(),
            authority: "/x/authority.pem".into(),
        };
        let setup = Setup {
            listen: 1111,
            mesh: 2222,
            admin: 3333,
            origin: 4444,
            files: &files,
            api_key: "k",
        };
        let (sluice, nginx, envoy) =
            (sluice(&setup), nginx(&setup, Path::new("/x")), envoy(&setup));
        for text in [&sluice, &nginx, &envoy] {
            assert!(text.contains("1111") && text.contains("4444"), "{text}");
        }
        assert!(sluice.contains("mode: require, ca: \"/x/authority.pem\""), "{sluice}");
        assert!(sluice.contains("match: { path: /mtls }") && sluice.contains("auth: certificates"));
        assert!(nginx.contains("ssl_verify_client on;") && nginx.contains("127.0.0.1:2222 ssl"));
        assert!(nginx.contains("ssl_client_certificate /x/authority.pem;"));
        assert!(nginx.contains("\"CN=bench-client\" bench-client;"), "{nginx}");
        assert!(!envoy.contains("2222"), "it takes no part in that");
    }
}
