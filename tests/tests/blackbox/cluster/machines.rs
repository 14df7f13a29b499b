//! Nodes on networks of their own, which share a PostgreSQL.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tests::origin::answer;
use tests::postgres::PostgresServer;
use tests::scratch::{Scratch, free_port};
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, eventually, get};

use super::version_of;

/// A network of its own, as another machine has it. The database is reached by a socket's path.
struct Machine {
    holder: Child,
}

impl Machine {
    fn new() -> Machine {
        let holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut machine = Machine { holder };
        let mut said = [0; 3];
        let out = machine.holder.stdout.as_mut().expect("a pipe");
        out.read_exact(&mut said).expect("namespaces need root");
        machine
    }

    /// Runs `work` on that network.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let inside = || {
            let network = std::fs::File::open(path).expect("the namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).expect("namespaces need root");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A node, and an origin beside it.
struct Node {
    gateway: Option<Gateway>,
    _origin: Origin,
    machine: Machine,
    line: Line,
}

/// The way from one node to the database: a socket of its own that passes everything on, until it is cut.
struct Line {
    directory: Scratch,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    streams: Vec<UnixStream>,
}

impl Line {
    fn to(database: PathBuf, port: u16) -> Line {
        let name = format!(".s.PGSQL.{port}");
        let directory = Scratch::new();
        let (ours, theirs) = (directory.path().join(&name), database.join(&name));
        let listener = UnixListener::bind(ours).expect("a socket");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        // Ends with the process: nobody connects when the node is gone.
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let mut state = shared.lock().expect("the line");
                let far = UnixStream::connect(&theirs);
                let (Ok(far), false) = (far, state.cut) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (from, to) = (from.expect("a descriptor"), to.expect("a descriptor"));
                    state.streams.push(from.try_clone().expect("a descriptor"));
                    let line = Arc::clone(&shared);
                    std::thread::spawn(move || pass(from, to, &line));
                }
            }
        });
        Line { directory, state }
    }

    /// `silent`: nothing passes any more, but connections stay; else they end.
    fn cut(&self, silent: bool) {
        let mut state = self.state.lock().expect("the line");
        state.cut = true;
        if !silent {
            for stream in state.streams.drain(..) {
                _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// What hung ends, as it does when a real line is back after a while.
    fn mend(&self) {
        self.cut(false);
        self.state.lock().expect("the line").cut = false;
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, line: &Mutex<State>) {
    let mut bytes = [0; 16_384];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        // What is sent into a cut line is lost.
        let cut = line.lock().expect("the line").cut;
        if !cut && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
}

/// Nodes of one store.
pub struct Cluster {
    nodes: Vec<Node>,
    ports: (u16, u16),
    origin: u16,
    pub database: PostgresServer,
}

impl Cluster {
    pub fn start(count: usize) -> Cluster {
        let database = PostgresServer::start_with(&["-c", "unix_socket_directories=.."], &[], None);
        database.database("sluice");
        let (ports, origin) = ((free_port(), free_port()), free_port());
        let mut cluster = Cluster { nodes: Vec::new(), ports, origin, database };
        for n in 0..count {
            let machine = Machine::new();
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], origin));
            let beside =
                machine.run(|| Origin::start_at(Some(address), |seen| answer(&seen.target)));
            let line = Line::to(cluster.database.directory().into(), cluster.database.port);
            cluster.nodes.push(Node { gateway: None, _origin: beside, machine, line });
            cluster.up(n);
        }
        cluster
    }

    fn up(&mut self, n: usize) {
        let (spec, ports) = (self.version(0), self.ports);
        let (name, port) = (format!("node-{n}"), self.database.port);
        let node = &mut self.nodes[n];
        let host = node.line.directory.path().display().to_string().replace('/', "%2F");
        let url = format!("postgres://postgres@{host}:{port}/sluice");
        node.gateway = Some(node.machine.run(|| Gateway::node(&spec, &url, &name, ports)));
    }

    pub fn gateway(&self, n: usize) -> &Gateway {
        self.nodes[n].gateway.as_ref().expect("it runs")
    }

    /// A spec whose number the origin can see.
    pub fn version(&self, n: usize) -> String {
        let origin = std::net::SocketAddr::from(([127, 0, 0, 1], self.origin));
        let spec = Spec::to(origin).route(&format!("rewrite: {{ replace_prefix: /v{n} }}")).text();
        // The same on every node.
        spec.replace("{DIR}/access.jsonl", "off")
    }

    /// The version that node `n` serves.
    pub fn served(&self, n: usize) -> usize {
        self.try_served(n).unwrap_or_else(|error| panic!("node {n}: {error}"))
    }

    fn try_served(&self, n: usize) -> Result<usize, String> {
        let gateway = self.gateway(n);
        version_of(&self.on(n, || gateway.ask(get("/x"))))
    }

    /// Waits until every node has said in the store that it is well.
    pub fn all_known(&self) {
        let known = || {
            let told = self.told(0);
            let nodes = told["nodes"].as_array().expect("nodes");
            let well = |node: &Value| node["state"] == "ok" && node["engine"] == "ok";
            nodes.len() == self.count() && nodes.iter().all(well)
        };
        assert!(eventually(PATIENCE, known), "{}", self.told(0));
    }

    pub fn apply(&self, n: usize, version: usize) -> (u16, String) {
        self.apply_text(n, "", &self.text(version))
    }

    /// As [`Cluster::version`], as it is on the nodes.
    pub fn text(&self, version: usize) -> String {
        let (port, admin) = self.ports;
        let text = self.version(version);
        text.replace("{PORT}", &port.to_string()).replace("{ADMIN}", &admin.to_string())
    }

    pub fn apply_text(&self, n: usize, query: &str, text: &str) -> (u16, String) {
        let gateway = self.gateway(n);
        self.on(n, || gateway.admin_post(&format!("/v1/apply?{query}"), text))
    }

    /// Runs `work` on the network of node `n`.
    pub fn on<T: Send>(&self, n: usize, work: impl FnOnce() -> T + Send) -> T {
        self.nodes[n].machine.run(work)
    }

    /// Port of the origin beside each node.
    pub fn origin(&self) -> u16 {
        self.origin
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Cuts node `n` off from the database.
    pub fn cut(&self, n: usize, silent: bool) {
        self.nodes[n].line.cut(silent);
    }

    pub fn mend(&self, n: usize) {
        self.nodes[n].line.mend();
    }

    #[track_caller]
    pub fn all_serve(&self, version: usize) {
        for n in 0..self.nodes.len() {
            assert!(
                eventually(PATIENCE, || self.try_served(n) == Ok(version)),
                "node {n} serves {:?} and not {version}:\n{}",
                self.try_served(n),
                self.gateway(n).log_text()
            );
        }
    }

    pub fn told(&self, n: usize) -> Value {
        let gateway = self.gateway(n);
        self.nodes[n].machine.run(|| gateway.admin_json("/v1/cluster"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A gateway stops by signals, but looks at its own network.
        for node in &mut self.nodes {
            let gateway = node.gateway.take();
            node.machine.run(|| drop(gateway));
        }
    }
}
