//! The peers' configurations against failing upstreams: each as a good operator of it would write
//! it for an HTTP API. The same for all: a second to connect, 250 ms for a try or a silence, two seconds
//! for the whole, three tries, no more than half of the targets out at once.

use std::path::Path;

use crate::peer::config::{envoy_process, nginx_process};

/// The ports of one run, all on 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Setup {
    pub listen: u16,
    /// For Sluice's admin listener.
    pub admin: u16,
    pub origins: Vec<u16>,
}

/// Retries, ejection and the retry budget are what a spec has that does not mention them.
pub fn sluice(setup: &Setup) -> String {
    let Setup { listen, admin, origins } = setup;
    let targets: Vec<String> = origins.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let targets = targets.join(", ");
    format!(
        "version: 1
access_log: {{ path: \"off\" }}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
listeners: [ {{ name: web, listen: \"127.0.0.1:{listen}\" }} ]
upstreams:
  - name: origin
    timeouts: {{ connect_ms: 1000, try_ms: 250, idle_ms: 250, total_ms: 2000 }}
    targets: [ {targets} ]
routes: [ {{ name: all, match: {{ path: {{ prefix: / }} }}, upstream: origin }} ]
"
    )
}

pub fn nginx(setup: &Setup, directory: &Path) -> String {
    let process = nginx_process(directory);
    let Setup { listen, origins, .. } = setup;
    let servers: Vec<String> = origins
        .iter()
        .map(|port| format!("    server 127.0.0.1:{port} max_fails=3 fail_timeout=30s;\n"))
        .collect();
    let servers = servers.concat();
    format!(
        "{process}  upstream origin {{
{servers}    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{listen} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_connect_timeout 1s;
      proxy_read_timeout 250ms;
      proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
      proxy_next_upstream_tries 3;
      proxy_next_upstream_timeout 2s;
    }}
  }}
}}
"
    )
}

pub fn haproxy(setup: &Setup) -> String {
    let Setup { listen, origins, .. } = setup;
    let servers: Vec<String> = origins
        .iter()
        .enumerate()
        .map(|(n, port)| format!("  server origin{n} 127.0.0.1:{port}\n"))
        .collect();
    let servers = servers.concat();
    format!(
        "global
  nbthread 1
  maxconn 19000
  no strict-limits

defaults
  mode http
  timeout connect 1s
  timeout client 1h
  timeout server 250ms
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always

frontend web
  bind 127.0.0.1:{listen} backlog 4096
  maxconn 19000
  use_backend origin

backend origin
  balance roundrobin
  retries 2
  option redispatch 1
  retry-on all-retryable-errors
  option httpchk GET /
  http-check send hdr Host origin
  default-server check inter 1s fall 2 rise 3 observe layer7 error-limit 3 on-error mark-down
{servers}"
    )
}

pub fn envoy(setup: &Setup) -> String {
    let Setup { listen, origins, .. } = setup;
    let endpoints: Vec<String> = origins
        .iter()
        .map(|port| {
            format!(
                "        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n"
            )
        })
        .collect();
    let endpoints = endpoints.concat();
    let begin = envoy_process(*listen, "HTTP1", "");
    format!(
        "{begin}          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{ prefix: / }}
                route:
                  cluster: origin
                  timeout: 2s
                  retry_policy:
                    retry_on: 5xx,reset,connect-failure,refused-stream
                    num_retries: 2
                    per_try_timeout: 0.25s
                    retry_back_off: {{ base_interval: 0.025s, max_interval: 0.25s }}
                    host_selection_retry_max_attempts: 5
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        \"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
  clusters:
  - name: origin
    type: STATIC
    lb_policy: LEAST_REQUEST
    connect_timeout: 1s
    circuit_breakers:
      thresholds:
      - max_connections: 100000
        max_pending_requests: 100000
        max_requests: 100000
        retry_budget: {{ budget_percent: {{ value: 20 }}, min_retry_concurrency: 3 }}
    outlier_detection:
      consecutive_5xx: 3
      consecutive_gateway_failure: 3
      enforcing_consecutive_gateway_failure: 100
      interval: 1s
      base_ejection_time: 30s
      max_ejection_percent: 50
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
{endpoints}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_config_names_all_ports() {
        let setup = Setup { listen: 1111, admin: 3333, origins: vec![4441, 4442, 4443] };
        let texts =
            [sluice(&setup), nginx(&setup, Path::new("/tmp/x")), haproxy(&setup), envoy(&setup)];
        for text in texts {
            for port in ["1111", "4441", "4442", "4443"] {
                assert_eq!(text.matches(port).count(), 1, "{port} in\n{text}");
            }
        }
    }
}
