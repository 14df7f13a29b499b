//! What commands take that measure cases at several peers in turns.

use std::error::Error;
use std::path::PathBuf;

use serde::Serialize;

use crate::Where;
use crate::peer::{Found, Peer};

#[derive(clap::Args)]
pub struct Turns {
    #[command(flatten)]
    programs: Where,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_parser = Peer::parse)]
    only: Vec<Peer>,
    /// Rounds, interleaved
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of one run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Turns {
    /// Those that are wanted and here; says which are not.
    pub fn peers(&self) -> Vec<Found> {
        let programs = self.programs.programs();
        let wanted = |peer: &Peer| self.only.is_empty() || self.only.contains(peer);
        let mut peers = Vec::new();
        for peer in [Peer::Sluice, Peer::Nginx, Peer::Envoy].into_iter().filter(wanted) {
            match programs.find(peer) {
                Some(found) => peers.push(found),
                None => eprintln!("{peer} is not here and is left out; get it: {}", peer.source()),
            }
        }
        peers
    }

    pub fn rounds(&self) -> usize {
        self.rounds.max(1)
    }

    pub fn seconds(&self) -> f64 {
        self.seconds.clamp(0.1, 3600.0)
    }

    /// Writes the report, where one is wanted.
    pub fn write(&self, report: &impl Serialize) -> Result<(), Box<dyn Error>> {
        match &self.json {
            Some(path) => Ok(std::fs::write(path, serde_json::to_vec_pretty(report)?)?),
            None => Ok(()),
        }
    }
}
