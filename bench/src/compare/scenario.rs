//! The scenarios: the work that is measured, and Sluice's targets for it.

use crate::peer::Peer;

/// What one scenario asks of every peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Requests over so many connections for a body of so many bytes; at a fixed rate, or as
    /// fast as answers come.
    Requests { connections: usize, body_bytes: u64, rate: Option<u64> },
    /// So many connections that have had one answer and then stay open.
    Idle { connections: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub work: Work,
    /// The numbers of routes that Sluice is run with.
    pub routes: &'static [usize],
    /// Sluice only.
    pub alone: bool,
}

/// Sluice's number of routes unless the scenario is about it.
pub const ROUTES: usize = 1_000;

const fn saturated(connections: usize, body_bytes: u64) -> Work {
    Work::Requests { connections, body_bytes, rate: None }
}

pub const ALL: [Scenario; 6] = [
    Scenario {
        name: "sat64",
        about: "saturated, 64 connections, 128 B bodies",
        work: saturated(64, 128),
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "sat256",
        about: "saturated, 256 connections, 128 B bodies",
        work: saturated(256, 128),
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "body16k",
        about: "saturated, 64 connections, 16 KiB bodies",
        work: saturated(64, 16_384),
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "rate5k",
        about: "5,000 requests/s, 64 connections, 128 B bodies",
        work: Work::Requests { connections: 64, body_bytes: 128, rate: Some(5_000) },
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "idle10k",
        about: "memory of 10,000 idle connections",
        work: Work::Idle { connections: 10_000 },
        routes: &[ROUTES],
        alone: false,
    },
    Scenario {
        name: "routes10k",
        about: "saturated, 64 connections, 128 B bodies, with ever more routes",
        work: saturated(64, 128),
        routes: &[10, 1_000, 10_000],
        alone: true,
    },
];

pub fn find(name: &str) -> Result<Scenario, String> {
    ALL.into_iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("unknown scenario {name:?}: it is one of {}", known.join(", "))
    })
}

impl Scenario {
    /// Whether a peer takes part.
    pub fn takes(&self, peer: Peer) -> bool {
        match peer {
            Peer::Sluice => true,
            _ if self.alone => false,
            // Its latency is what the others' is counted against.
            Peer::Direct => matches!(self.work, Work::Requests { rate: Some(_), .. }),
            // It holds an upstream connection for every client by design.
            Peer::Relay => !matches!(self.work, Work::Idle { .. }),
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
            _ => None,
        }
    }
}

/// The most resident memory for one idle connection, in bytes.
pub const IDLE_BYTES: f64 = 16.0 * 1024.0;
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
        assert!(find("sat65").unwrap_err().contains("sat64"));
    }
}
