//! The scenarios: the work that is measured, and Sluice's targets for it.

use crate::peer::Peer;
use crate::peer::config::Wire;
use crate::tls::Version;

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as answers do.
    Saturated,
    /// So many a second.
    Fixed(u64),
    /// So much of what each peer can do, which is measured first.
    Share(f64),
}

/// What one scenario asks of every peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Requests over so many connections, so many at once on each, for a body of so many bytes.
    Requests { connections: usize, streams: usize, body_bytes: u64, rate: Rate },
    /// So many connections that have had one answer and then stay open.
    Idle { connections: usize },
    /// So many at once, each for one request.
    Handshakes { connections: usize, resume: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub work: Work,
    pub wire: Wire,
    /// The numbers of routes that Sluice is run with.
    pub routes: &'static [usize],
    /// Sluice only.
    pub alone: bool,
}

/// Sluice's number of routes unless the scenario is about it.
pub const ROUTES: usize = 1_000;

const TLS: Wire = Wire { tls: Some(Version::Tls13), ..Wire::CLEAR };
const TLS_12: Wire = Wire { tls: Some(Version::Tls12), ..Wire::CLEAR };
const H2_TLS: Wire = Wire { http2: true, ..TLS };
const H2C: Wire = Wire { http2: true, ..Wire::CLEAR };
const GRPC: Wire = Wire { grpc: true, ..H2_TLS };
const TLS_ORIGIN: Wire = Wire { tls_origin: true, ..Wire::CLEAR };

const fn requests(connections: usize, streams: usize, body_bytes: u64, rate: Rate) -> Work {
    Work::Requests { connections, streams, body_bytes, rate }
}

const fn saturated(connections: usize, body_bytes: u64) -> Work {
    requests(connections, 1, body_bytes, Rate::Saturated)
}

pub const ALL: [Scenario; 18] = [
    Scenario {
        name: "sat64",
        about: "saturated, 64 connections, 128 B bodies",
        work: saturated(64, 128),
        wire: Wire::CLEAR,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "sat256",
        about: "saturated, 256 connections, 128 B bodies",
        work: saturated(256, 128),
        wire: Wire::CLEAR,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "body16k",
        about: "saturated, 64 connections, 16 KiB bodies",
        work: saturated(64, 16_384),
        wire: Wire::CLEAR,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "rate5k",
        about: "5,000 requests/s, 64 connections, 128 B bodies",
        work: requests(64, 1, 128, Rate::Fixed(5_000)),
        wire: Wire::CLEAR,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "idle10k",
        about: "memory of 10,000 idle connections",
        work: Work::Idle { connections: 10_000 },
        wire: Wire::CLEAR,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "routes10k",
        about: "saturated, 64 connections, 128 B bodies, with ever more routes",
        work: saturated(64, 128),
        wire: Wire::CLEAR,
        routes: &[10, 1_000, 10_000],
        alone: true,
    },
    Scenario {
        name: "tls64",
        about: "saturated, TLS 1.3, 64 connections, 128 B bodies",
        work: saturated(64, 128),
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "tls16k",
        about: "saturated, TLS 1.3, 64 connections, 16 KiB bodies",
        work: saturated(64, 16_384),
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "h2tls",
        about: "saturated, HTTP/2 over TLS 1.3, 8 connections of 100 streams, 128 B bodies",
        work: requests(8, 100, 128, Rate::Saturated),
        wire: H2_TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "h2c",
        about: "saturated, HTTP/2 in clear text, 8 connections of 100 streams, 128 B bodies",
        work: requests(8, 100, 128, Rate::Saturated),
        wire: H2C,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "grpc",
        about: "saturated, unary gRPC, TLS 1.3 to the client, 8 connections of 100 streams, 128 B messages",
        work: requests(8, 100, 128, Rate::Saturated),
        wire: GRPC,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "tlsup",
        about: "saturated, TLS 1.3 to the origin, 64 connections, 128 B bodies",
        work: saturated(64, 128),
        wire: TLS_ORIGIN,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "ratetls",
        about: "70 % of what each can do, TLS 1.3, 64 connections, 128 B bodies",
        work: requests(64, 1, 128, Rate::Share(0.7)),
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "idletls",
        about: "memory of 5,000 idle connections over TLS 1.3",
        work: Work::Idle { connections: 5_000 },
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "hsfull",
        about: "TLS 1.3, a full handshake and one request on every connection",
        work: Work::Handshakes { connections: 64, resume: false },
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "hsresumed",
        about: "TLS 1.3, a resumed handshake and one request on every connection",
        work: Work::Handshakes { connections: 64, resume: true },
        wire: TLS,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "hs12full",
        about: "TLS 1.2, a full handshake and one request on every connection",
        work: Work::Handshakes { connections: 64, resume: false },
        wire: TLS_12,
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "hs12resumed",
        about: "TLS 1.2, a resumed handshake and one request on every connection",
        work: Work::Handshakes { connections: 64, resume: true },
        wire: TLS_12,
        routes: &[ROUTES],
        alone: false,
    },
];

/// What `--quick` runs.
pub const QUICK: [&str; 5] = ["tls64", "h2tls", "grpc", "hsfull", "hsresumed"];

pub fn find(name: &str) -> Result<Scenario, String> {
    ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("unknown scenario {name:?}: it is one of {}", known.join(", "))
    })
}

impl Scenario {
    /// Whether `bench handshakes` runs it, rather than `bench compare`.
    pub fn is_handshakes(&self) -> bool {
        matches!(self.work, Work::Handshakes { .. })
    }

    /// Whether each peer is run at a rate of its own.
    pub fn is_share(&self) -> bool {
        matches!(self.work, Work::Requests { rate: Rate::Share(_), .. })
    }

    /// Whether a peer takes part.
    pub fn takes(&self, peer: Peer) -> bool {
        match peer {
            Peer::Sluice => true,
            _ if self.alone => false,
            // Its latency is what the others' is counted against.
            Peer::Direct => matches!(self.work, Work::Requests { rate: Rate::Fixed(_), .. }),
            // It holds an upstream connection for every client by design.
            Peer::Relay => self.wire == Wire::CLEAR && !matches!(self.work, Work::Idle { .. }),
            // The sample speaks neither TLS nor HTTP/2.
            Peer::Pingora => self.wire == Wire::CLEAR,
            _ => true,
        }
    }

    /// Sluice's CPU per request may be at most so many times that of the peer.
    pub fn cpu_target(&self, peer: Peer) -> Option<f64> {
        match (self.name, peer) {
            ("sat64" | "sat256", Peer::Nginx) => Some(0.60),
            ("sat64" | "sat256", Peer::Haproxy) => Some(0.75),
            ("body16k", Peer::Nginx | Peer::Haproxy) => Some(0.80),
            ("rate5k", Peer::Nginx) => Some(1.00),
            ("sat64" | "sat256" | "body16k" | "rate5k", Peer::Relay) => Some(1.35),
            ("tls64" | "h2tls" | "grpc", Peer::Nginx | Peer::Haproxy) => Some(0.70),
            ("tls64" | "h2tls" | "grpc", Peer::Envoy) => Some(0.25),
            _ => None,
        }
    }

    /// The most resident memory for one idle connection, in bytes.
    pub fn idle_bytes(&self) -> f64 {
        if self.wire.tls.is_some() { 48.0 * 1024.0 } else { 16.0 * 1024.0 }
    }
}

/// The most that a request may cost with the largest number of routes, in costs with the least.
pub const ROUTES_RATIO: f64 = 1.10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stand_where_the_peer_takes_part() {
        for scenario in ALL {
            assert_eq!(find(scenario.name), Ok(scenario));
            for peer in Peer::ALL {
                assert!(scenario.cpu_target(peer).is_none() || scenario.takes(peer));
            }
        }
        for name in QUICK {
            assert!(find(name).is_ok(), "{name}");
        }
        assert!(find("tls64").unwrap().takes(Peer::Envoy));
        assert!(!find("tls64").unwrap().takes(Peer::Pingora));
        assert!(find("sat65").unwrap_err().contains("sat64"));
    }
}
