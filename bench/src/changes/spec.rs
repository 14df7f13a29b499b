//! A large spec for Sluice, and the same with a little changed.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub routes: usize,
    pub upstreams: usize,
    pub consumers: usize,
}

/// Where things listen.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub listen: u16,
    pub admin: u16,
    pub origin: u16,
}

/// The key of a consumer.
pub fn key(consumer: usize) -> String {
    format!("bench-key-{consumer:06}")
}

/// The name of a route.
pub fn route(at: usize) -> String {
    format!("route-{at:05}")
}

/// The spec as JSON. Every other route asks for an API key. `turn` differs in the last route only.
pub fn json(size: Size, ports: Ports, name: &str, turn: u64) -> String {
    let Size { routes, upstreams, consumers } = size;
    let Ports { listen, admin, origin } = ports;
    let mut out = String::with_capacity(200 * (routes + upstreams + consumers) + 1024);
    let _ = write!(
        out,
        "{{\"version\":1,\"access_log\":{{\"path\":\"off\"}},\
         \"admin\":{{\"listen\":\"127.0.0.1:{admin}\"}},\"node\":{{\"name\":\"{name}\"}},\
         \"listeners\":[{{\"name\":\"web\",\"listen\":\"127.0.0.1:{listen}\"}}],\
         \"authenticators\":[{{\"name\":\"keys\",\"api_key\":{{\"from\":[{{\"header\":\"x-api-key\"}}]}}}}],\
         \"consumers\":["
    );
    list(&mut out, consumers, |out, at| {
        let hash = HEXLOWER.encode(digest(&SHA256, key(at).as_bytes()).as_ref());
        let _ = write!(
            out,
            "{{\"name\":\"consumer-{at:06}\",\"api_keys\":[{{\"sha256\":\"{hash}\"}}]}}"
        );
    });
    out.push_str("],\"upstreams\":[");
    list(&mut out, upstreams, |out, at| {
        let _ =
            write!(out, "{{\"name\":\"upstream-{at:04}\",\"targets\":[\"127.0.0.1:{origin}\"]}}");
    });
    out.push_str("],\"routes\":[");
    list(&mut out, routes, |out, at| {
        let (name, to) = (route(at), at % upstreams.max(1));
        let auth = if at % 2 == 1 { ",\"auth\":\"keys\"" } else { "" };
        let body = if at + 1 == routes { 1_000 + turn } else { 1_000_000 };
        let _ = write!(
            out,
            "{{\"name\":\"{name}\",\"match\":{{\"path\":{{\"prefix\":\"/{name}\"}}}},\
             \"rewrite\":{{\"strip_prefix\":true}},\"upstream\":\"upstream-{to:04}\",\
             \"max_body_bytes\":{body}{auth}}}"
        );
    });
    out.push_str("]}");
    out
}

fn list(out: &mut String, count: usize, mut one: impl FnMut(&mut String, usize)) {
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        one(out, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_of_the_size_that_was_asked_for() {
        let size = Size { routes: 10, upstreams: 3, consumers: 5 };
        let ports = Ports { listen: 1, admin: 2, origin: 3 };
        let spec: serde_json::Value = serde_json::from_str(&json(size, ports, "n", 0)).unwrap();
        let count = |list: &str| spec[list].as_array().unwrap().len();
        assert_eq!([count("routes"), count("upstreams"), count("consumers")], [10, 3, 5]);
        let other: serde_json::Value = serde_json::from_str(&json(size, ports, "n", 1)).unwrap();
        let differ = (0..10).filter(|at| spec["routes"][at] != other["routes"][at]).count();
        assert_eq!((differ, &spec["consumers"]), (1, &other["consumers"]));
    }
}
