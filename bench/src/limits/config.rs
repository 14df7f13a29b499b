//! The same route with and without a limit that is never reached, in each gateway's words.

use std::path::Path;

use super::Case;
use crate::peer;

/// Far more than a core answers.
const REQUESTS: u32 = 1_000_000;
const PER_S: u32 = 10;

pub fn sluice(listen: u16, admin: u16, origin: u16, redis: u16) -> String {
    let limit = |name: &str, more: &str| {
        format!("  - {{ name: {name}, requests: {REQUESTS}, per: {PER_S}s{more} }}\n")
    };
    let limits = [
        limit("local", ", mode: local"),
        limit("leased", ""),
        limit("strict", ", mode: strict"),
        limit("keys", ", by: [ { header: x-key } ]"),
        limit("tell", ", fields: { standard: false }"),
    ];
    let route = |name: &str, limits: &str| {
        format!(
            "  - {{ name: {name}, match: {{ path: {{ prefix: /{name} }} }}, \
             rewrite: {{ strip_prefix: true }}, upstream: origin{limits} }}\n"
        )
    };
    let routes = [
        route("open", ""),
        route("local", ", limits: [ local ]"),
        route("leased", ", limits: [ leased ]"),
        route("silent", ", limits: [ tell ]"),
        route("strict", ", limits: [ strict ]"),
        route("keys", ", limits: [ keys ]"),
    ];
    format!(
        "version: 1
access_log: {{ path: \"off\" }}
admin: {{ listen: \"127.0.0.1:{admin}\" }}
node: {{ name: bench }}
redis: {{ urls: [ \"redis://127.0.0.1:{redis}\" ] }}
listeners: [ {{ name: web, listen: \"127.0.0.1:{listen}\" }} ]
upstreams: [ {{ name: origin, targets: [ \"127.0.0.1:{origin}\" ] }} ]
limits:
{}routes:
{}",
        limits.concat(),
        routes.concat()
    )
}

/// Where Debian has the module that runs Lua.
const LUA: &str = "/usr/lib/nginx/modules/ngx_http_lua_module.so";
const NDK: &str = "/usr/lib/nginx/modules/ndk_http_module.so";

pub fn nginx_has_lua() -> bool {
    Path::new(LUA).is_file() && Path::new(NDK).is_file()
}

/// `limit_req` in its shared memory; with Lua also what gateways on nginx do with Redis: a counter
/// of a fixed window, asked for each request over connections that are kept.
pub fn nginx(listen: u16, origin: u16, redis: u16, directory: &Path) -> String {
    let begin = peer::config::nginx_process(directory);
    let (mut load, mut strict) = (String::new(), String::new());
    if nginx_has_lua() {
        load = format!("load_module {NDK};\nload_module {LUA};\n");
        strict = format!(
            "    location /strict/ {{
      access_by_lua_block {{
        local redis = ngx.socket.tcp()
        redis:settimeout(1000)
        if not redis:connect(\"127.0.0.1\", {redis}) then return ngx.exit(500) end
        local script = \"local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], {PER_S}) end return n\"
        redis:send(\"*4\\r\\n$4\\r\\nEVAL\\r\\n$\" .. #script .. \"\\r\\n\" .. script .. \"\\r\\n$1\\r\\n1\\r\\n$3\\r\\nhot\\r\\n\")
        local line = redis:receive(\"*l\")
        local used = line and tonumber(line:sub(2))
        if not used then return ngx.exit(500) end
        redis:setkeepalive(60000, 100)
        if used > {REQUESTS} then return ngx.exit(429) end
      }}
      proxy_pass http://origin/;
    }}
"
        );
    }
    format!(
        "{load}{begin}  limit_req_zone $server_name zone=hot:1m rate={rate}r/s;
  limit_req_zone $http_x_key zone=keys:64m rate={rate}r/s;
  limit_req_status 429;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{listen} reuseport;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    location /open/ {{ proxy_pass http://origin/; }}
    location /local/ {{ limit_req zone=hot burst=100000 nodelay; proxy_pass http://origin/; }}
    location /keys/ {{ limit_req zone=keys burst=100000 nodelay; proxy_pass http://origin/; }}
{strict}  }}
}}
",
        rate = REQUESTS / PER_S
    )
}

/// Its token bucket in the process. Its limits by Redis are asked of a service beside it, which is not
/// part of it.
pub fn envoy(listen: u16, origin: u16) -> String {
    let route = |case: &str, limit: &str| {
        format!(
            "              - match: {{ prefix: \"/{case}/\" }}
                route: {{ cluster: origin, prefix_rewrite: \"/\", timeout: 0s }}
{limit}"
        )
    };
    let bucket = format!(
        "                typed_per_filter_config:
                  envoy.filters.http.local_ratelimit:
                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                    stat_prefix: hot
                    token_bucket: {{ max_tokens: {REQUESTS}, tokens_per_fill: {REQUESTS}, fill_interval: {PER_S}s }}
                    filter_enabled: {{ default_value: {{ numerator: 100, denominator: HUNDRED }} }}
                    filter_enforced: {{ default_value: {{ numerator: 100, denominator: HUNDRED }} }}
"
    );
    let filter =
        "          - name: envoy.filters.http.local_ratelimit
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: none
";
    let begin = peer::config::envoy_process(listen, "HTTP1", filter);
    let routes = [route("open", ""), route(Case::Local.path(), &bucket)].concat();
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
