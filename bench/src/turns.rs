//! What commands take that measure cases at several peers in turns.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::Where;
use crate::peer::{Found, Peer};
use crate::pin::{self, Pinned};

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

/// An origin on a CPU of its own, and where it is.
pub fn origin(
    cpu: usize,
    directory: &Path,
    stop: &AtomicBool,
) -> Result<(Pinned, SocketAddr), Box<dyn Error>> {
    let port = pin::free_port()?;
    let arguments = vec!["origin".to_owned(), "-p".to_owned(), port.to_string()];
    let me = std::env::current_exe()?;
    let mut origin = Pinned::start("origin", cpu, directory, &me, arguments)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    origin.wait_for(address, Duration::from_secs(5), stop)?;
    Ok((origin, address))
}
