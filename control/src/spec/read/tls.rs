//! TLS of listeners and upstreams.

use std::collections::HashSet;

use super::fields::Walk;
use super::parts::{HOUR_MS, flag, ms};
use super::route::size;
use crate::spec::model::{
    Alpn, Certificate, ClientAuth, ClientAuthMode, ListenerTls, MAX_EARLY_DATA, TlsVersion,
    UpstreamTls,
};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn listener_tls(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ListenerTls> {
    const KNOWN: &[&str] = &[
        "min_version",
        "alpn",
        "handshake_timeout_ms",
        "early_data",
        "strict_sni",
        "certificates",
    ];
    let fields = walk.fields(node, path, KNOWN)?;
    let certificates = fields.require(
        walk,
        "certificates",
        "a list like [{cert: certs/a.pem, key: certs/a.key}]",
        |walk, node, path| {
            let list = walk.list(node, path, certificate)?;
            if matches!(&node.value, Value::List(items) if items.is_empty()) {
                let message = "TLS needs at least one certificate".into();
                walk.error("empty-list", node, path, message);
            }
            Some(list)
        },
    );
    let timeout = ListenerTls::default_handshake_timeout_ms();
    Some(ListenerTls {
        min_version: fields
            .read(walk, "min_version", version)
            .unwrap_or_else(ListenerTls::default_version),
        alpn: fields.read(walk, "alpn", alpn).unwrap_or_else(ListenerTls::default_alpn),
        handshake_timeout_ms: ms(walk, &fields, "handshake_timeout_ms", HOUR_MS, timeout),
        early_data: fields.read(walk, "early_data", early_data).unwrap_or_default(),
        strict_sni: flag(walk, &fields, "strict_sni", false),
        certificates: certificates.unwrap_or_default(),
    })
}

pub(super) fn version(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<TlsVersion> {
    // Unquoted, YAML makes a number of it; there is no doubt what is meant.
    let (Value::Text(text) | Value::Float(text)) = &node.value else {
        walk.wrong_type(node, path, "\"1.2\" or \"1.3\"");
        return None;
    };
    match text.as_str() {
        "1.2" => Some(TlsVersion::V12),
        "1.3" => Some(TlsVersion::V13),
        "1.0" | "1.1" => {
            let message = format!("TLS {text} is broken (RFC 8996); expected \"1.2\" or \"1.3\"");
            walk.error("bad-value", node, path, message);
            None
        }
        _ => {
            let message = "expected a version of TLS: \"1.2\" or \"1.3\"".into();
            walk.error("bad-value", node, path, message);
            None
        }
    }
}

fn alpn(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<Alpn>> {
    const WORDS: &[(&str, Alpn)] = &[("h2", Alpn::H2), ("http/1.1", Alpn::Http11)];
    let mut seen = HashSet::new();
    let list = walk.list(node, path, |walk, node, path| {
        let word = walk.word(node, path, WORDS)?;
        if !seen.insert(word) {
            walk.error("duplicate-value", node, path, "this protocol is there twice".into());
            return None;
        }
        Some(word)
    })?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "at least one protocol must be offered: h2, http/1.1".into();
        walk.error("empty-list", node, path, message);
    }
    Some(list)
}

fn early_data(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<u64> {
    if let Value::Bool(_) = node.value {
        walk.wrong_type(node, path, "the most bytes a client may send early, like 16KiB");
        return None;
    }
    let bytes = size(walk, node, path)?;
    walk.places.set(path, node.mark);
    if bytes > MAX_EARLY_DATA {
        let message = format!("{bytes} bytes are too many; at most 1MiB may come early");
        walk.error("out-of-range", node, path, message);
        return None;
    }
    Some(bytes)
}

fn certificate(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Certificate> {
    let Some(fields) = walk.fields(node, path, &["cert", "key", "names", "client_auth"]) else {
        // It still holds its place, so that indexes stay those of the text.
        return Some(Certificate {
            cert: String::new(),
            key: String::new(),
            names: Vec::new(),
            client_auth: None,
        });
    };
    let cert = fields.require(walk, "cert", "a PEM file with the certificate chain", file);
    let key = fields.require(walk, "key", "a PEM file with the private key", file);
    let names = fields.read(walk, "names", |walk, node, path| {
        let mut seen = HashSet::new();
        walk.list(node, path, |walk, node, path| {
            let name = walk.parsed(node, path, "bad-server-name", scalars::server_pattern)?;
            if !seen.insert(name.clone()) {
                walk.error("duplicate-value", node, path, format!("`{name}` is there twice"));
                return None;
            }
            Some(name)
        })
    });
    Some(Certificate {
        cert: cert.unwrap_or_default(),
        key: key.unwrap_or_default(),
        names: names.unwrap_or_default(),
        client_auth: fields.read(walk, "client_auth", client_auth),
    })
}

fn client_auth(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ClientAuth> {
    const MODES: &[(&str, ClientAuthMode)] =
        &[("request", ClientAuthMode::Request), ("require", ClientAuthMode::Require)];
    let fields = walk.fields(node, path, &["mode", "ca", "crl"])?;
    let mode = fields.require(walk, "mode", "request or require", |walk, node, path| {
        walk.word(node, path, MODES)
    });
    let ca = fields.require(walk, "ca", "a PEM file with the issuers of client certificates", file);
    let crl = fields.read(walk, "crl", file);
    Some(ClientAuth { mode: mode?, ca: ca?, crl })
}

pub(super) fn upstream_tls(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<UpstreamTls> {
    const KNOWN: &[&str] = &["ca", "server_name", "cert", "key", "verify", "min_version"];
    let fields = walk.fields(node, path, KNOWN)?;
    let d = UpstreamTls::default();
    let tls = UpstreamTls {
        ca: fields.read(walk, "ca", file),
        server_name: fields.read(walk, "server_name", |walk, node, path| {
            walk.parsed(node, path, "bad-server-name", scalars::server_name)
        }),
        cert: fields.read(walk, "cert", file),
        key: fields.read(walk, "key", file),
        verify: flag(walk, &fields, "verify", d.verify),
        min_version: fields.read(walk, "min_version", version).unwrap_or(d.min_version),
    };
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(node), None) = (fields.node(one), fields.node(other)) {
            let message =
                format!("a certificate needs its key; `{other}` is missing beside `{one}`");
            walk.error("missing-field", node, &fields.at(one), message);
        }
    }
    if let (false, Some(node)) = (tls.verify, fields.node("ca")) {
        let message = "with verify: false nothing is verified against `ca`; leave one of them out";
        walk.error("conflicting-fields", node, &fields.at("ca"), message.into());
    }
    Some(tls)
}

/// The name of a file.
pub(super) fn file(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    // Without the value: it may be a private key.
    if let Value::Text(text) = &node.value
        && text.contains("-----BEGIN")
    {
        let message = "expected the name of a file, not what is in it".into();
        walk.problems.error("bad-value", node.mark, path, None, message);
        return None;
    }
    walk.parsed(node, path, "bad-value", |text| match text {
        "" => Err("expected the name of a file".into()),
        text if text.contains('\0') => Err("a file name has no NUL byte".into()),
        text => Ok(text.to_string()),
    })
}
