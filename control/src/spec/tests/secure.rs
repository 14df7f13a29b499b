//! Broken specs about TLS, HTTP/2, gRPC and health checks: what is said, and where.

use super::broken::{mentions, says};
use crate::spec::{load, *};

/// A listener with `fields`, which begin on line 5, indented by two.
#[track_caller]
fn listener(fields: &str, expected: &[&str]) -> String {
    let text = format!(
        "version: 1\nlisteners:\n- name: a\n  listen: ':1'\n  {fields}\n\
         upstreams: [{{name: u, targets: ['1.2.3.4:5']}}]\nroutes: [{{name: r, upstream: u}}]"
    );
    says(&text, expected).join("\n")
}

/// A listener whose `tls` has `fields` beside a good certificate, on line 5.
#[track_caller]
fn tls(fields: &str, expected: &[&str]) -> String {
    listener(&format!("tls: {{{fields}, certificates: [{{cert: a, key: b}}]}}"), expected)
}

/// A listener with this certificate on line 7.
#[track_caller]
fn certificate(fields: &str, expected: &[&str]) -> String {
    listener(&format!("tls:\n    certificates:\n    - {{{fields}}}"), expected)
}

/// An upstream with `fields` on line 6.
#[track_caller]
fn upstream(fields: &str, expected: &[&str]) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\nroutes: [{{name: r, upstream: u}}]\n\
         upstreams:\n- name: u\n  {fields}\n  targets: ['1.2.3.4:5']\n"
    );
    says(&text, expected).join("\n")
}

#[test]
fn what_the_format_promises_is_read_with_its_defaults() {
    let text = "version: 1
listeners:
- name: https
  listen: ':8443'
  limits: {max_streams: 7}
  tls:
    min_version: 1.2
    early_data: 16KiB
    certificates:
    - {cert: c.pem, key: c.key, names: [API.example.com, '*.example.com'],
       client_auth: {mode: require, ca: ca.pem, crl: ca.crl}}
- {name: clear, listen: ':8080', h2c: true}
upstreams:
- {name: users, protocol: auto, tls: {}, targets: ['users.internal:9443'],
   health: {grpc: {}, interval_ms: 500}}
routes: [{name: r, upstream: users, early_data: true, grpc_web: true}]
";
    let loaded = load("t.yaml", text);
    assert_eq!(loaded.problems, []);
    let spec = loaded.spec.expect("loads");
    let tls = spec.listeners[0].tls.as_ref().expect("is there");
    assert_eq!(
        *tls,
        ListenerTls {
            min_version: TlsVersion::V12,
            alpn: vec![Alpn::H2, Alpn::Http11],
            handshake_timeout_ms: 5_000,
            early_data: 16 << 10,
            strict_sni: false,
            certificates: vec![Certificate {
                cert: "c.pem".into(),
                key: "c.key".into(),
                names: vec!["api.example.com".into(), "*.example.com".into()],
                client_auth: Some(ClientAuth {
                    mode: ClientAuthMode::Require,
                    ca: "ca.pem".into(),
                    crl: Some("ca.crl".into()),
                }),
            }],
        }
    );
    assert_eq!((spec.listeners[0].limits.max_streams, spec.listeners[1].h2c), (7, true));
    let upstream = &spec.upstreams[0];
    assert_eq!(
        (upstream.protocol, upstream.tls.clone()),
        (Protocol::Auto, Some(UpstreamTls::default()))
    );
    let health = upstream.health.as_ref().expect("is there");
    // The usual time-out is a second; it never exceeds the interval.
    assert_eq!((health.interval_ms, health.timeout_ms), (500, 500));
    assert_eq!((health.healthy_after, health.unhealthy_after), (2, 3));
    assert!(spec.routes[0].early_data && spec.routes[0].grpc_web);
}

#[test]
fn listeners_with_tls() {
    mentions(&listener("tls: {}", &["5:8 missing-field"]), "certificates");
    mentions(&listener("tls:", &["5:3 empty-tls"]), "leave it out for clear text");
    listener("tls: true", &["5:8 wrong-type"]);
    listener("tls: {certificates: []}", &["5:23 empty-list"]);
    mentions(
        &listener(
            "tls: {cert: a.pem, key: a.key}",
            &["5:8 missing-field", "5:9 unknown-field", "5:22 unknown-field"],
        ),
        "expected min_version",
    );
    mentions(&tls("min_version: '1.1'", &["5:22 bad-value"]), "RFC 8996");
    mentions(&tls("min_version: 2", &["5:22 wrong-type"]), "\"1.2\" or \"1.3\"");
    tls("min_version: tls13", &["5:22 bad-value"]);
    tls("min_version: 1.3", &[]);
    mentions(&tls("alpn: [http1.1]", &["5:16 bad-value"]), "did you mean `http/1.1`?");
    tls("alpn: []", &["5:15 empty-list"]);
    tls("alpn: [h2, h2]", &["5:20 duplicate-value"]);
    tls("handshake_timeout_ms: 0", &["5:31 out-of-range"]);
    mentions(&tls("early_data: true", &["5:21 wrong-type"]), "16KiB");
    mentions(&tls("early_data: 2MiB", &["5:21 out-of-range"]), "at most 1MiB");
    mentions(&tls("early_data: 1KiB", &["5:21 unused-early-data"]), "answered 425");
    mentions(
        &listener("h2c: true\n  tls: {certificates: [{cert: a, key: b}]}", &["5:8 h2c-with-tls"]),
        "`tls.alpn` offers",
    );
    mentions(&listener("limits: {max_streams: 0}", &["5:25 out-of-range"]), "1 to 10000");
}

#[test]
fn certificates() {
    certificate("cert: a.pem", &["7:7 missing-field"]);
    certificate("cert: '', key: b", &["7:14 bad-value"]);
    mentions(
        &certificate("key: b, cert: '-----BEGIN CERTIFICATE-----'", &["7:22 bad-value"]),
        "not what is in it",
    );
    let message =
        certificate("cert: a, key: '-----BEGIN PRIVATE KEY-----MIIE'", &["7:22 bad-value"]);
    assert!(!message.contains("MIIE"), "{message}");
    let name = |name: &str| {
        certificate(&format!("cert: a, key: b, names: ['{name}']"), &["7:33 bad-server-name"])
    };
    mentions(&name("api.*.com"), "whole first label");
    mentions(&name("*"), "whole first label");
    mentions(&name("a*.example.com"), "whole first label");
    mentions(&name("10.0.0.1"), "no server name for an address");
    mentions(&name("[::1]"), "no server name for an address");
    mentions(&name("a.com:443"), "no scheme, port or path");
    mentions(&name("müller.de"), "xn--");
    certificate("cert: a, key: b, names: [A.com, a.com]", &["7:40 duplicate-value"]);
    let auth = |auth: &str, expected: &[&str]| {
        certificate(&format!("cert: a, key: b, client_auth: {{{auth}}}"), expected)
    };
    mentions(&auth("mode: required, ca: x", &["7:45 bad-value"]), "did you mean `require`?");
    auth("ca: x", &["7:38 missing-field"]);
    auth("mode: request", &["7:38 missing-field"]);
    let two = "tls:\n    certificates:\n    - {cert: a, key: b, names: [a.com, b.com]}\n    \
               - {cert: c, key: d, names: [b.com]}";
    let message = listener(two, &["8:33 duplicate-server-name"]);
    mentions(&message, "`b.com` is a name of another certificate");
    mentions(&message, "(see t.yaml:7:40)");
}

#[test]
fn upstreams_over_tls() {
    upstream("tls: {}", &[]);
    mentions(&upstream("tls:", &["6:3 empty-tls"]), "tls: {}");
    mentions(&upstream("tls: {cert: a}", &["6:15 missing-field"]), "`key` is missing");
    mentions(&upstream("tls: {key: a}", &["6:14 missing-field"]), "`cert` is missing");
    mentions(&upstream("tls: {verify: false}", &["6:17 unverified-upstream"]), "anybody");
    upstream(
        "tls: {verify: false, ca: x}",
        &["6:17 unverified-upstream", "6:28 conflicting-fields"],
    );
    upstream("tls: {server_name: '*.a.com'}", &["6:22 bad-server-name"]);
    mentions(&upstream("protocol: auto", &["6:13 auto-without-tls"]), "ALPN");
    mentions(&upstream("protocol: h2", &["6:13 bad-value"]), "http1, http2, auto");
    upstream("protocol: http2", &[]);
}

#[test]
fn health_checks() {
    let health = |fields: &str, expected: &[&str]| {
        upstream(&format!("protocol: http2\n  health: {{{fields}}}"), expected)
    };
    health("grpc: {service: shop.v1.Orders}", &[]);
    health("interval_ms: 1000", &["7:11 missing-field"]);
    health("grpc: {service: 'a b'}", &["7:28 bad-value"]);
    health("grpc: {}, interval_ms: 10", &["7:35 out-of-range"]);
    mentions(
        &health("grpc: {}, interval_ms: 500, timeout_ms: 501", &["7:52 timeout-past-interval"]),
        "at most interval_ms, 500",
    );
    health("grpc: {}, healthy_after: 0", &["7:37 out-of-range"]);
    mentions(&upstream("health: {grpc: {}}", &["6:18 grpc-over-http1"]), "protocol: http2");
}

#[test]
fn routes() {
    let route = |fields: &str, expected: &[&str]| {
        let text = format!(
            "version: 1\nlisteners: [{{name: a, listen: ':1'}}]\n\
             upstreams: [{{name: u, targets: ['1.2.3.4:5']}}]\n\
             routes: [{{name: r, upstream: u, {fields}}}]"
        );
        says(&text, expected).join("\n")
    };
    mentions(&route("early_data: true", &["4:45 unused-early-data"]), "no listener takes");
    mentions(&route("grpc_web: true", &["4:43 grpc-over-http1"]), "`u` speaks HTTP/1.1");
    route("early_data: yes", &["4:45 wrong-type"]);
}

#[test]
fn a_diff_names_certificates_by_their_file() {
    let text = "version: 1
listeners:
- name: a
  listen: ':1'
  tls: {certificates: [{cert: a.pem, key: a.key}, {cert: b.pem, key: b.key}]}
upstreams: [{name: u, targets: ['1.2.3.4:5']}]
routes: [{name: r, upstream: u}]
";
    let new = text
        .replace("key: b.key", "key: c.key, names: [b.com]")
        .replace("tls: {", "tls: {min_version: '1.2', ")
        .replace("targets", "tls: {ca: /x.pem}, targets")
        .replace("upstream: u", "upstream: u, grpc_web: false, early_data: true");
    let spec = |text: &str| load("t", text).spec.expect("loads");
    let diff = crate::diff::diff(&spec(text), &spec(&new));
    assert_eq!(
        diff.to_string(),
        r#"~ listener a
    ~ tls.certificates[b.pem].key: "b.key" -> "c.key"
    + tls.certificates[b.pem].names: "b.com"
    ~ tls.min_version: "1.3" -> "1.2"
~ upstream u
    + tls: {"ca":"/x.pem","min_version":"1.2","verify":true}
~ route r
    ~ early_data: false -> true
"#
    );
}
