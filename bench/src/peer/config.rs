//! The peers' configurations: the same work for all. One worker, keep-alive on both sides,
//! no access log, one matching route; bounds that the scenarios never reach.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::tls::{NAME, Version};

/// What is spoken on both sides of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// On the client's side.
    pub tls: Option<Version>,
    /// On the client's side.
    pub http2: bool,
    /// Unary gRPC, which is HTTP/2 on both sides.
    pub grpc: bool,
    /// TLS 1.3 to the origin, whose certificate is verified.
    pub tls_origin: bool,
}

impl Wire {
    pub const CLEAR: Self = Self { tls: None, http2: false, grpc: false, tls_origin: false };

    fn least(self) -> &'static str {
        if self.tls == Some(Version::Tls12) { "1.2" } else { "1.3" }
    }
}

/// The ports of one run, all on 127.0.0.1, and what is spoken there.
#[derive(Clone, Debug)]
pub struct Setup {
    pub listen: u16,
    pub origin: u16,
    /// For Sluice's admin listener.
    pub admin: u16,
    pub wire: Wire,
    pub certificate: Certificate,
}

/// Files of a certificate in PEM.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Both in one, as HAProxy has it.
    pub both: PathBuf,
}

/// The path that all scenarios use, before `/bytes/N`: the middle one of Sluice's routes.
pub fn prefix(routes: usize) -> String {
    format!("/r{}", routes / 2)
}

/// What the peers other than Sluice match on; Sluice's is `prefix` of its number of routes.
const MATCH: &str = "/r";

/// Sluice's spec, with `routes` routes that all lead to the origin.
pub fn sluice(setup: &Setup, routes: usize) -> String {
    let Setup { listen, origin, admin, wire, certificate } = setup;
    let mut edge = String::new();
    if wire.tls.is_some() {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let least = wire.least();
        edge = format!(
            ", tls: {{ min_version: \"{least}\", \
             certificates: [ {{ cert: \"{chain}\", key: \"{key}\" }} ] }}"
        );
    } else if wire.http2 {
        edge = ", h2c: true".to_owned();
    }
    let chain = certificate.chain.display();
    let mut back = String::new();
    if wire.tls_origin {
        back = format!("tls: {{ ca: \"{chain}\", server_name: {NAME}, min_version: \"1.3\" }}, ");
    }
    if wire.grpc {
        // By ALPN over TLS, by prior knowledge without.
        back += if wire.tls_origin { "protocol: auto, " } else { "protocol: http2, " };
    }
    let mut out = format!(
        "version: 1\n\
         access_log: {{ path: \"off\" }}\n\
         admin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
         listeners: [ {{ name: web, listen: \"127.0.0.1:{listen}\"{edge} }} ]\n\
         upstreams: [ {{ name: origin, {back}targets: [ \"127.0.0.1:{origin}\" ] }} ]\n\
         routes:\n"
    );
    for n in 0..routes {
        let _ = writeln!(
            out,
            "  - {{ name: r{n}, match: {{ path: {{ prefix: /r{n} }} }}, upstream: origin }}"
        );
    }
    out
}

/// What every nginx here begins with, up to the middle of its `http` block.
pub fn nginx_process(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
"
    )
}

pub fn nginx(setup: &Setup, directory: &Path) -> String {
    let process = nginx_process(directory);
    let Setup { listen, origin, wire, certificate, .. } = setup;
    let mut words = String::new();
    let mut edge = String::new();
    if wire.tls.is_some() {
        words += " ssl";
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let version = wire.least();
        edge = format!(
            "    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv{version};
"
        );
    }
    if wire.http2 {
        words += " http2";
    }
    let secure = if wire.tls_origin { "s" } else { "" };
    let (module, mut pass) = if wire.grpc {
        ("grpc", format!("grpc_pass grpc{secure}://origin;"))
    } else {
        let pass = format!(
            "proxy_pass http{secure}://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";"
        );
        ("proxy", pass)
    };
    if wire.tls_origin {
        let chain = certificate.chain.display();
        let _ = write!(
            pass,
            "
      {module}_ssl_protocols TLSv1.3;
      {module}_ssl_verify on;
      {module}_ssl_trusted_certificate {chain};
      {module}_ssl_name {NAME};
      {module}_ssl_server_name on;"
        );
    }
    format!(
        "{process}  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{listen}{words} backlog=4096;
{edge}    location {MATCH} {{
      {pass}
    }}
  }}
}}
"
    )
}

pub fn haproxy(setup: &Setup) -> String {
    let Setup { listen, origin, wire, certificate, .. } = setup;
    let mut edge = String::new();
    if wire.tls.is_some() {
        let (both, version) = (certificate.both.display(), wire.least());
        let alpn = if wire.http2 { "h2" } else { "http/1.1" };
        edge = format!(
            " ssl crt {both} alpn {alpn} ssl-min-ver TLSv{version} ssl-max-ver TLSv{version}"
        );
    } else if wire.http2 {
        edge = " proto h2".to_owned();
    }
    let mut back = String::new();
    if wire.tls_origin {
        let chain = certificate.chain.display();
        let alpn = if wire.grpc { "h2" } else { "http/1.1" };
        back = format!(
            " ssl verify required ca-file {chain} sni str({NAME}) verifyhost {NAME} \
             ssl-min-ver TLSv1.3 alpn {alpn}"
        );
    } else if wire.grpc {
        back = " proto h2".to_owned();
    }
    format!(
        "global
  nbthread 1
  maxconn 19000
  no strict-limits

defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always

frontend web
  bind 127.0.0.1:{listen} backlog 4096{edge}
  maxconn 19000
  use_backend origin if {{ path_beg {MATCH} }}

backend origin
  server origin 127.0.0.1:{origin}{back}
"
    )
}

/// What every Envoy here begins with, up to its routes. `filters` stand before the router.
pub fn envoy_process(listen: u16, codec: &str, filters: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: web
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          codec_type: {codec}
          generate_request_id: false
          stream_idle_timeout: 3600s
          common_http_protocol_options: {{ idle_timeout: 3600s }}
          http_filters:
{filters}          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
"
    )
}

pub fn envoy(setup: &Setup) -> String {
    let Setup { listen, origin, wire, certificate, .. } = setup;
    let mut edge = String::new();
    if wire.tls.is_some() {
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let alpn = if wire.http2 { "h2" } else { "http/1.1" };
        let version = if wire.tls == Some(Version::Tls12) { "TLSv1_2" } else { "TLSv1_3" };
        edge = format!(
            "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [ \"{alpn}\" ]
            tls_params: {{ tls_minimum_protocol_version: {version}, tls_maximum_protocol_version: {version} }}
            tls_certificates:
            - {{ certificate_chain: {{ filename: \"{chain}\" }}, private_key: {{ filename: \"{key}\" }} }}
"
        );
    }
    let mut back = String::new();
    if wire.tls_origin {
        let chain = certificate.chain.display();
        let alpn = if wire.grpc { "h2" } else { "http/1.1" };
        back = format!(
            "    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {NAME}
        common_tls_context:
          alpn_protocols: [ \"{alpn}\" ]
          tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
          validation_context:
            trusted_ca: {{ filename: \"{chain}\" }}
            match_typed_subject_alt_names: [ {{ san_type: DNS, matcher: {{ exact: {NAME} }} }} ]
"
        );
    }
    let codec = if wire.http2 { "HTTP2" } else { "HTTP1" };
    let protocol = if wire.grpc {
        "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
"
    } else {
        ""
    };
    let begin = envoy_process(*listen, codec, "");
    format!(
        "{begin}          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: {MATCH} }}
                route: {{ cluster: origin, timeout: 60s }}
{edge}  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
{back}{protocol}    circuit_breakers:
      thresholds:
      - {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }}
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

    fn setup(wire: Wire) -> Setup {
        let certificate = Certificate {
            chain: "/x/chain.pem".into(),
            key: "/x/key.pem".into(),
            both: "/x/both.pem".into(),
        };
        Setup { listen: 1111, origin: 2222, admin: 3333, wire, certificate }
    }

    fn all(wire: Wire) -> [String; 4] {
        let setup = setup(wire);
        let nginx = nginx(&setup, Path::new("/tmp/x"));
        [sluice(&setup, 3), nginx, haproxy(&setup), envoy(&setup)]
    }

    const TLS: Wire = Wire { tls: Some(Version::Tls13), ..Wire::CLEAR };
    const GRPC: Wire = Wire { http2: true, grpc: true, ..TLS };
    const H2C: Wire = Wire { http2: true, ..Wire::CLEAR };
    const TO_ORIGIN: Wire = Wire { tls_origin: true, ..Wire::CLEAR };

    #[test]
    fn every_config_names_both_ports_and_its_certificate() {
        for wire in [Wire::CLEAR, TLS, GRPC, H2C, TO_ORIGIN] {
            for text in all(wire) {
                assert!(text.contains("1111") && text.contains("2222"), "{text}");
                let secure = wire.tls.is_some() || wire.tls_origin;
                assert_eq!(text.contains(".pem"), secure, "{text}");
            }
        }
    }

    #[test]
    fn only_the_version_that_is_measured_is_spoken() {
        let [sluice, nginx, haproxy, envoy] = all(TLS);
        assert!(sluice.contains("min_version: \"1.3\""));
        assert!(nginx.contains("ssl_protocols TLSv1.3;"));
        assert!(haproxy.contains("ssl-min-ver TLSv1.3"));
        assert!(envoy.contains("tls_minimum_protocol_version: TLSv1_3"));
        let [sluice, nginx, ..] = all(Wire { tls: Some(Version::Tls12), ..TLS });
        assert!(sluice.contains("min_version: \"1.2\""));
        assert!(nginx.contains("ssl_protocols TLSv1.2;"));
    }

    #[test]
    fn the_origins_certificate_is_verified() {
        let [sluice, nginx, haproxy, envoy] = all(TO_ORIGIN);
        assert!(sluice.contains("tls: { ca: \"/x/chain.pem\", server_name: bench.test"));
        assert!(nginx.contains("proxy_ssl_verify on;") && nginx.contains("https://origin"));
        assert!(haproxy.contains("verify required ca-file /x/chain.pem"));
        assert!(envoy.contains("UpstreamTlsContext") && envoy.contains("trusted_ca"));
        let grpc = all(Wire { tls_origin: true, ..GRPC });
        assert!(grpc[0].contains("protocol: auto") && grpc[1].contains("grpcs://origin"));
    }

    #[test]
    fn http2_where_it_is_asked_for() {
        let [sluice, nginx, haproxy, envoy] = all(H2C);
        assert!(sluice.contains("h2c: true") && !sluice.contains("protocol: http2"));
        assert!(nginx.contains("listen 127.0.0.1:1111 http2 backlog"));
        assert!(haproxy.contains("backlog 4096 proto h2") && envoy.contains("codec_type: HTTP2"));
        let [sluice, nginx, haproxy, envoy] = all(GRPC);
        assert!(sluice.contains("protocol: http2"));
        assert!(nginx.contains("grpc_pass grpc://origin;") && nginx.contains(" ssl http2 "));
        assert!(haproxy.contains("127.0.0.1:2222 proto h2"));
        assert!(envoy.contains("http2_protocol_options: {}"));
        for text in all(TLS) {
            assert!(!text.contains("http2") && !text.contains(" h2"), "{text}");
        }
    }

    #[test]
    fn the_spec_has_all_routes_and_the_measured_one() {
        let setup = setup(Wire::CLEAR);
        for routes in [10, 1_000, 10_000] {
            let text = sluice(&setup, routes);
            let lines: Vec<&str> = text.lines().filter(|line| line.contains("name: r")).collect();
            assert_eq!(lines.len(), routes);
            let measured = format!("prefix: {} }}", prefix(routes));
            assert_eq!(lines.iter().filter(|line| line.contains(&measured)).count(), 1);
        }
        assert!(sluice(&setup, 1).contains("access_log: { path: \"off\" }"));
        assert!(sluice(&setup, 1).contains("127.0.0.1:3333"));
    }

    #[test]
    fn the_peers_keep_connections_alive_and_log_nothing() {
        let [_, nginx, haproxy, envoy] = all(Wire::CLEAR);
        for needed in
            ["access_log off", "keepalive 1024", "proxy_http_version 1.1", "Connection \"\""]
        {
            assert!(nginx.contains(needed), "{needed}");
        }
        assert!(haproxy.contains("http-reuse always"));
        assert!(!haproxy.lines().any(|line| line.trim_start().starts_with("log")));
        assert!(!envoy.contains("access_log"));
    }
}
