//! The same changes in each gateway's words.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::peer;

/// What the gateways are told. All ports are on 127.0.0.1.
pub struct Setup<'a> {
    pub listen: u16,
    /// For Sluice's admin listener.
    pub admin: u16,
    pub origin: u16,
    pub descriptors: &'a Path,
}

/// What is transcoded.
const PROTO: &str = "syntax = \"proto3\";
package bench;
message Note {
  int64 id = 1;
  string title = 2;
  repeated string tags = 3;
  double score = 4;
  bool done = 5;
  string text = 6;
}
service Notes { rpc Echo(Note) returns (Note); }
";

/// Writes the descriptor set that both gateways read.
pub fn descriptors(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = directory.join("notes.proto");
    std::fs::write(&source, PROTO)?;
    let set = protox::compile([&source], [directory])?;
    let path = directory.join("notes.bin");
    std::fs::write(&path, prost::Message::encode_to_vec(&set))?;
    Ok(path)
}

pub fn sluice(setup: &Setup<'_>) -> String {
    let Setup { listen, admin, origin, descriptors } = setup;
    let descriptors = descriptors.display();
    let call = |name: &str| format!("{{ name: {name}, upstream: origin, path: /json/512 }}");
    let calls = ["a", "b", "c"].map(call).join(", ");
    format!(
        "version: 1
access_log: {{ path: \"off\" }}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
protos: [ {{ name: notes, descriptor_set: \"{descriptors}\" }} ]
listeners: [ {{ name: web, listen: \"127.0.0.1:{listen}\" }} ]
upstreams:
  - {{ name: origin, targets: [ \"127.0.0.1:{origin}\" ] }}
  - {{ name: calls, targets: [ \"127.0.0.1:{origin}\" ], protocol: http2 }}
routes:
  - {{ name: open, match: {{ path: /open }}, rewrite: {{ strip_prefix: true }}, upstream: origin }}
  - name: headers
    match: {{ path: /headers }}
    rewrite: {{ strip_prefix: true }}
    upstream: origin
    request: {{ headers: {{ set: {{ X-Tier: gold, X-Route: \"${{route.name}}\" }}, remove: [ User-Agent ] }} }}
    response: {{ headers: {{ set: {{ X-Served: \"1\" }}, remove: [ Content-Type ] }} }}
  - name: body
    match: {{ path: /body }}
    rewrite: {{ strip_prefix: true }}
    upstream: origin
    request_body: {{ steps: [ {{ add: {{ at: /kind, value: note }} }}, {{ remove: /score }} ] }}
  - name: notes
    match: {{ path: /bench.Notes }}
    upstream: calls
    transcode: {{ proto: notes, services: [ bench.Notes ], auto_mapping: true }}
  - name: aggregate
    match: {{ path: {{ exact: /aggregate }} }}
    aggregate: {{ calls: [ {calls} ] }}
"
    )
}

pub fn nginx(setup: &Setup<'_>, directory: &Path) -> String {
    let Setup { listen, origin, .. } = setup;
    let begin = peer::config::nginx_process(directory);
    format!(
        "{begin}  upstream origin {{ server 127.0.0.1:{origin}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{listen} reuseport;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    location /open/ {{ proxy_pass http://origin/; }}
    location /headers/ {{
      proxy_set_header Connection \"\";
      proxy_set_header X-Tier gold;
      proxy_set_header X-Route headers;
      proxy_set_header User-Agent \"\";
      proxy_hide_header Content-Type;
      add_header X-Served 1;
      proxy_pass http://origin/;
    }}
  }}
}}
"
    )
}

pub fn envoy(setup: &Setup<'_>) -> String {
    let Setup { listen, origin, descriptors, .. } = setup;
    let descriptors = descriptors.display();
    format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config:
            virtual_hosts:
            - name: all
              domains: [ \"*\" ]
              routes:
              - match: {{ prefix: \"/open/\" }}
                route: {{ cluster: origin, prefix_rewrite: \"/\", timeout: 0s }}
              - match: {{ prefix: \"/headers/\" }}
                route: {{ cluster: origin, prefix_rewrite: \"/\", timeout: 0s }}
                request_headers_to_add:
                - {{ header: {{ key: x-tier, value: gold }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                - {{ header: {{ key: x-route, value: headers }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                request_headers_to_remove: [ user-agent ]
                response_headers_to_add:
                - {{ header: {{ key: x-served, value: \"1\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
                response_headers_to_remove: [ content-type ]
              - match: {{ prefix: \"/bench.Notes/\" }}
                route: {{ cluster: calls, timeout: 0s }}
          http_filters:
          - name: envoy.filters.http.grpc_json_transcoder
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
              proto_descriptor: {descriptors}
              services: [ bench.Notes ]
              auto_mapping: true
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: origin
    type: STATIC
    circuit_breakers: {{ thresholds: [ {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }} ] }}
    load_assignment:
      cluster_name: origin
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }} }} ] }} ]
  - name: calls
    type: STATIC
    circuit_breakers: {{ thresholds: [ {{ max_connections: 100000, max_pending_requests: 100000, max_requests: 100000 }} ] }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: calls
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }} }} ] }} ]
"
    )
}

pub fn krakend(setup: &Setup<'_>) -> String {
    let Setup { listen, origin, .. } = setup;
    let backend = |group: &str| {
        format!(
            "{{ \"url_pattern\": \"/json/512\", \"host\": [\"http://127.0.0.1:{origin}\"]{group} }}"
        )
    };
    let parts = ["a", "b", "c"].map(|name| backend(&format!(", \"group\": \"{name}\""))).join(", ");
    format!(
        "{{ \"version\": 3, \"port\": {listen}, \"timeout\": \"5s\", \"max_idle_connections_per_host\": 1024,
  \"endpoints\": [
    {{ \"endpoint\": \"/open/json/512\", \"backend\": [ {} ] }},
    {{ \"endpoint\": \"/aggregate\", \"backend\": [ {parts} ] }}
  ] }}",
        backend("")
    )
}
