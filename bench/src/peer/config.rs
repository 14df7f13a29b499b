//! The peers' configurations: the same work for all. One worker, keep-alive on both sides,
//! no access log, one matching route; bounds that the scenarios never reach.

use std::fmt::Write;
use std::path::Path;

/// The ports of one run, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub listen: u16,
    pub origin: u16,
    /// For Sluice's admin listener.
    pub admin: u16,
}

/// The path that all scenarios use, before `/bytes/N`: the middle one of Sluice's routes.
pub fn prefix(routes: usize) -> String {
    format!("/r{}", routes / 2)
}

/// What the peers other than Sluice match on; Sluice's is `prefix` of its number of routes.
const MATCH: &str = "/r";

/// Sluice's spec, with `routes` routes that all lead to the origin.
pub fn sluice(ports: Ports, routes: usize) -> String {
    let mut out = format!(
        "version: 1\n\
         access_log: {{ path: \"off\" }}\n\
         admin: {{ listen: \"127.0.0.1:{}\" }}\n\
         listeners: [ {{ name: web, listen: \"127.0.0.1:{}\" }} ]\n\
         upstreams: [ {{ name: origin, targets: [ \"127.0.0.1:{}\" ] }} ]\n\
         routes:\n",
        ports.admin, ports.listen, ports.origin
    );
    for n in 0..routes {
        let _ = writeln!(
            out,
            "  - {{ name: r{n}, match: {{ path: {{ prefix: /r{n} }} }}, upstream: origin }}"
        );
    }
    out
}

pub fn nginx(ports: Ports, directory: &Path) -> String {
    let directory = directory.display();
    let Ports { listen, origin, .. } = ports;
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
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{listen} backlog=4096;
    location {MATCH} {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    )
}

pub fn haproxy(ports: Ports) -> String {
    let Ports { listen, origin, .. } = ports;
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
  bind 127.0.0.1:{listen} backlog 4096
  maxconn 19000
  use_backend origin if {{ path_beg {MATCH} }}

backend origin
  server origin 127.0.0.1:{origin}
"
    )
}

pub fn envoy(ports: Ports) -> String {
    let Ports { listen, origin, .. } = ports;
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
          codec_type: HTTP1
          generate_request_id: false
          stream_idle_timeout: 3600s
          common_http_protocol_options: {{ idle_timeout: 3600s }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: {MATCH} }}
                route: {{ cluster: origin, timeout: 60s }}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
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

    const PORTS: Ports = Ports { listen: 1111, origin: 2222, admin: 3333 };

    #[test]
    fn every_config_names_both_ports() {
        for text in
            [sluice(PORTS, 3), nginx(PORTS, Path::new("/tmp/x")), haproxy(PORTS), envoy(PORTS)]
        {
            assert!(text.contains("1111") && text.contains("2222"), "{text}");
        }
    }

    #[test]
    fn the_spec_has_all_routes_and_the_measured_one() {
        for routes in [10, 1_000, 10_000] {
            let text = sluice(PORTS, routes);
            let lines: Vec<&str> = text.lines().filter(|line| line.contains("name: r")).collect();
            assert_eq!(lines.len(), routes);
            let measured = format!("prefix: {} }}", prefix(routes));
            assert_eq!(lines.iter().filter(|line| line.contains(&measured)).count(), 1);
        }
        assert!(sluice(PORTS, 1).contains("access_log: { path: \"off\" }"));
        assert!(sluice(PORTS, 1).contains("127.0.0.1:3333"));
    }

    #[test]
    fn the_peers_keep_connections_alive_and_log_nothing() {
        let text = nginx(PORTS, Path::new("/tmp/x"));
        for needed in
            ["access_log off", "keepalive 256", "proxy_http_version 1.1", "Connection \"\""]
        {
            assert!(text.contains(needed), "{needed}");
        }
        assert!(haproxy(PORTS).contains("http-reuse always"));
        assert!(!haproxy(PORTS).lines().any(|line| line.trim_start().starts_with("log")));
        assert!(!envoy(PORTS).contains("access_log"));
    }
}
