//! A gateway on a network of its own, and who watches it.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::changes::admin::Admin;
use crate::pin::Pinned;
use crate::usage;

/// Where the admin listener is, in each namespace.
const ADMIN: u16 = 9901;
/// Longest that a node takes to start, and that reports of all take to be in the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the watcher has seen.
#[derive(Default)]
struct Seen {
    /// The revision that all shards serve, and since when.
    served: Mutex<Option<(u64, Instant)>>,
    failures: AtomicU64,
    over: AtomicBool,
}

pub struct Node {
    process: Pinned,
    seen: Arc<Seen>,
    watcher: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts a node that shares the database at `url`, and looks at it every `look`.
    pub fn start(
        program: &Path,
        directory: &Path,
        spec: &Path,
        url: &str,
        cpu: usize,
        look: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let state = directory.join("state");
        std::fs::create_dir_all(&state)?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (program, spec) = (program.display().to_string(), spec.display().to_string());
        let (state, cpu) = (state.display().to_string(), cpu.to_string());
        let inside = "ip link set lo up && exec \"$@\"";
        let arguments = [
            "-n", "sh", "-c", inside, "sh", &program, "up", "-f", &spec, "--state", &state,
            "--cpus", &cpu,
        ];
        let environment = [("SLUICE_STORE", url), ("SLUICE_NODE", &name)];
        let unshare = Path::new("unshare");
        let process = Pinned::start_with(&name, None, directory, unshare, arguments, &environment)?;
        let mut node = Self { process, seen: Arc::default(), watcher: None };
        node.inside(|| Admin::at(ADMIN).wait(PATIENCE).map_err(|error| error.to_string()))
            .map_err(|error| node.process.failure(&error))?;
        let (id, seen) = (node.process.id(), Arc::clone(&node.seen));
        let watcher = std::thread::spawn(move || watch(id, &seen, look));
        node.watcher = Some(watcher);
        Ok(node)
    }

    /// Runs `work` on the node's network.
    fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send,
    ) -> Result<T, String> {
        let id = self.process.id();
        let done =
            std::thread::scope(|scope| scope.spawn(move || enter(id).and_then(|()| work())).join());
        done.unwrap_or_else(|_| Err("a thread panicked".into()))
    }

    /// Applies a spec here; says which revision it is.
    pub fn apply(&self, spec: String) -> Result<u64, Box<dyn Error>> {
        match self.try_apply(spec)? {
            (200, revision) => Ok(revision),
            (status, _) => Err(format!("an apply was answered {status}").into()),
        }
    }

    /// As [`Node::apply`]: the status of the answer, and the revision if there is one.
    pub fn try_apply(&self, spec: String) -> Result<(u16, u64), Box<dyn Error>> {
        let answer = self.inside(move || {
            let answer = Admin::at(ADMIN).ask("POST", "/v1/apply", spec.as_bytes());
            answer.map_err(|error| error.to_string())
        });
        let (status, body) = answer?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok((status, body["revision"].as_u64().unwrap_or_default()))
    }

    /// From the storing of `revision` until each of `count` nodes served it, in ms, by the clock of
    /// the database, as the nodes have reported it.
    pub fn lags(&self, revision: u64, count: usize) -> Result<Vec<f64>, Box<dyn Error>> {
        let begun = Instant::now();
        loop {
            let cluster = self.inside(|| {
                let answer = Admin::at(ADMIN).get("/v1/cluster");
                answer.map_err(|error| error.to_string())
            })?;
            let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
            let own = nodes.iter().filter(|node| node["served"] == revision);
            let lags: Vec<f64> = own.filter_map(|node| node["lag_ms"].as_f64()).collect();
            if lags.len() == count {
                return Ok(lags);
            }
            if begun.elapsed() > PATIENCE {
                let found = lags.len();
                return Err(format!("{found} of {count} nodes report {revision}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The revision that all shards were seen to serve.
    pub fn served(&self) -> u64 {
        self.seen.served.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |seen| seen.0)
    }

    /// From `begun` until what is served now was seen.
    pub fn since(&self, begun: Instant) -> Duration {
        let seen = *self.seen.served.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map_or(Duration::ZERO, |(_, at)| at.saturating_duration_since(begun))
    }

    pub fn failures(&self) -> u64 {
        self.seen.failures.load(Relaxed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.seen.over.store(true, Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Moves this thread into the network namespace of the node whose process is below `id`.
fn enter(id: u32) -> Result<(), String> {
    let work = || -> std::io::Result<()> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let begun = Instant::now();
        loop {
            for id in usage::tree(id) {
                let path = format!("/proc/{id}/ns/net");
                if std::fs::read_link(&path).is_ok_and(|network| network != own) {
                    let network = File::open(path)?;
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(network.as_fd(), kind)?;
                    return Ok(());
                }
            }
            if begun.elapsed() > PATIENCE {
                return Err(std::io::Error::other("it has none"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    work().map_err(|error| format!("a node's network (namespaces need root): {error}"))
}

/// Looks at a node until it is over.
fn watch(id: u32, seen: &Seen, look: Duration) {
    if enter(id).is_err() {
        return;
    }
    let mut admin = Admin::at(ADMIN);
    while !seen.over.load(Relaxed) {
        match admin.get("/v1/status") {
            Ok(status) if status["converged"] == true => {
                let revision = status["revision"].as_u64().unwrap_or_default();
                let mut served = seen.served.lock().unwrap_or_else(PoisonError::into_inner);
                if served.is_none_or(|(before, _)| before != revision) {
                    *served = Some((revision, Instant::now()));
                }
            }
            Ok(_) => {}
            Err(_) => drop(seen.failures.fetch_add(1, Relaxed)),
        }
        std::thread::sleep(look);
    }
}
