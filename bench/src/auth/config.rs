//! Two routes to the same origin in each gateway's words: one for all, and one that asks who calls.

use std::path::Path;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::{AUDIENCE, ISSUER};
use crate::peer;

pub fn sluice(listen: u16, admin: u16, origin: u16, jwks: &Path, api_key: &str) -> String {
    let (jwks, hash) =
        (jwks.display(), HEXLOWER.encode(digest(&SHA256, api_key.as_bytes()).as_ref()));
    let jwt = format!(
        "issuer: \"{ISSUER}\", jwks_file: \"{jwks}\", audiences: [ {AUDIENCE} ], consumer_claim: client_id"
    );
    format!(
        "version: 1
access_log: {{ path: \"off\" }}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
listeners: [ {{ name: web, listen: \"127.0.0.1:{listen}\" }} ]
consumers:
  - {{ name: bench-client, api_keys: [ {{ sha256: {hash}, prefix: slk_bench }} ] }}
authenticators:
  - {{ name: keys, api_key: {{}} }}
  - {{ name: tokens, jwt: {{ {jwt} }} }}
upstreams: [ {{ name: origin, targets: [ \"127.0.0.1:{origin}\" ] }} ]
routes:
  - {{ name: open, match: {{ path: /open }}, rewrite: {{ strip_prefix: true }}, upstream: origin }}
  - {{ name: key, match: {{ path: /key }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: keys }}
  - {{ name: es256, match: {{ path: /es256 }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: tokens }}
  - {{ name: rs256, match: {{ path: /rs256 }}, rewrite: {{ strip_prefix: true }}, upstream: origin, auth: tokens }}
"
    )
}

pub fn nginx(listen: u16, origin: u16, directory: &Path, api_key: &str) -> String {
    let begin = peer::config::nginx_process(directory);
    format!(
        "{begin}  map_hash_bucket_size 256;
  map $http_x_api_key $consumer {{ default \"\"; \"{api_key}\" bench-client; }}
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
}}
"
    )
}

pub fn envoy(listen: u16, origin: u16, jwks: &Path) -> String {
    let jwks = jwks.display();
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
    let begin = peer::config::envoy_process(listen, "HTTP1", &jwt);
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
