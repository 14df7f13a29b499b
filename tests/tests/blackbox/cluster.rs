//! Several nodes on one PostgreSQL, each on a network of its own; and a control that is killed.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tests::load::{Judge, Load};
use tests::origin::answer;
use tests::postgres::PostgresServer;
use tests::process::{self, cli};
use tests::scratch::free_port;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, eventually, get};

/// A network of its own, as another machine has it. The database is reached by its socket's path.
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
        std::io::Read::read_exact(out, &mut said).expect("namespaces need root");
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
}

/// Nodes of one store.
struct Cluster {
    nodes: Vec<Node>,
    ports: (u16, u16),
    origin: u16,
    url: String,
    database: PostgresServer,
}

impl Cluster {
    fn start(count: usize) -> Cluster {
        let database = PostgresServer::start_with(&["-c", "unix_socket_directories=.."], &[], None);
        database.database("sluice");
        let host = database.directory().display().to_string().replace('/', "%2F");
        let url = format!("postgres://postgres@{host}:{}/sluice", database.port);
        let (ports, origin) = ((free_port(), free_port()), free_port());
        let mut cluster = Cluster { nodes: Vec::new(), ports, origin, url, database };
        for n in 0..count {
            let machine = Machine::new();
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], origin));
            let beside =
                machine.run(|| Origin::start_at(Some(address), |seen| answer(&seen.target)));
            cluster.nodes.push(Node { gateway: None, _origin: beside, machine });
            cluster.up(n);
        }
        cluster
    }

    fn up(&mut self, n: usize) {
        let (spec, url, ports) = (self.version(0), self.url.clone(), self.ports);
        let name = format!("node-{n}");
        let node = &mut self.nodes[n];
        node.gateway = Some(node.machine.run(|| Gateway::node(&spec, &url, &name, ports)));
    }

    fn gateway(&self, n: usize) -> &Gateway {
        self.nodes[n].gateway.as_ref().expect("it runs")
    }

    /// A spec whose number the origin can see.
    fn version(&self, n: usize) -> String {
        let origin = std::net::SocketAddr::from(([127, 0, 0, 1], self.origin));
        let spec = Spec::to(origin).route(&format!("rewrite: {{ replace_prefix: /v{n} }}")).text();
        // The same on every node.
        spec.replace("{DIR}/access.jsonl", "off")
    }

    /// The version that node `n` serves.
    fn served(&self, n: usize) -> usize {
        let gateway = self.gateway(n);
        let answer = self.nodes[n].machine.run(|| gateway.ask(get("/x")));
        version_of(&answer).unwrap_or_else(|error| panic!("node {n}: {error}"))
    }

    fn apply(&self, n: usize, version: usize) -> (u16, String) {
        let (port, admin) = self.ports;
        let text = self.version(version);
        let text = text.replace("{PORT}", &port.to_string()).replace("{ADMIN}", &admin.to_string());
        let gateway = self.gateway(n);
        self.nodes[n].machine.run(|| gateway.admin_post("/v1/apply", &text))
    }

    #[track_caller]
    fn all_serve(&self, version: usize) {
        for n in 0..self.nodes.len() {
            assert!(
                eventually(PATIENCE, || self.served(n) == version),
                "node {n} serves {} and not {version}:\n{}",
                self.served(n),
                self.gateway(n).log_text()
            );
        }
    }

    fn told(&self, n: usize) -> Value {
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

/// The one version that an answer shows.
fn version_of(answer: &Response) -> Result<usize, String> {
    let text = answer.text();
    let version = text.strip_prefix("/v").and_then(|rest| rest.strip_suffix("/x"));
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| format!("{} {text:?}", answer.head.start))
}

#[test]
fn what_is_applied_at_one_node_is_served_by_all() {
    let cluster = Cluster::start(2);
    cluster.all_serve(0);
    for version in 1..=5 {
        let (status, body) = cluster.apply(version % 2, version);
        assert_eq!(status, 200, "{body}");
        cluster.all_serve(version);
    }
    let converged = || {
        let told = cluster.told(0);
        let nodes = told["nodes"].as_array().expect("nodes");
        nodes.len() == 2 && nodes.iter().all(|node| node["state"] == "ok")
    };
    assert!(eventually(PATIENCE, converged), "{}", cluster.told(0));
    let told = cluster.told(1);
    assert_eq!(told["latest"], 6, "{told}");
    let lags: Vec<u64> =
        told["nodes"].as_array().unwrap().iter().filter_map(|n| n["lag_ms"].as_u64()).collect();
    assert_eq!(lags.len(), 2, "{told}");
    eprintln!("from the storing to all shards, in ms: {lags:?}");
    // For people, and with the wait for all nodes.
    let admin = cluster.gateway(0).admin_address();
    let shown = cluster.nodes[0].machine.run(|| cli(&["status", "--cluster", "--admin", &admin]));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("node-0 *") && shown.stdout.contains("node-1"), "{shown:?}");
    assert!(!shown.stdout.contains("secret"), "{shown:?}");
}

#[test]
fn without_the_database_traffic_goes_on_and_later_all_catch_up() {
    let mut cluster = Cluster::start(2);
    let (status, body) = cluster.apply(0, 1);
    assert_eq!(status, 200, "{body}");
    cluster.all_serve(1);
    cluster.database.kill();
    let (status, body) = cluster.apply(0, 2);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("PostgreSQL"), "{body}");
    assert!(!body.contains("secret"), "{body}");
    cluster.all_serve(1);
    // A control process that starts without the database knows what ran.
    let gateway = cluster.gateway(1);
    gateway.kill("control");
    let back = || cluster.nodes[1].machine.run(|| gateway.is_ready());
    assert!(eventually(PATIENCE, back), "{}", gateway.log_text());
    assert!(gateway.log_text().contains("starting with revision 2"), "{}", gateway.log_text());
    cluster.all_serve(1);
    let told = cluster.told(1);
    assert!(told["store_error"].is_string(), "{told}");
    // And so does a node that is started.
    let node = &mut cluster.nodes[0];
    let gateway = node.gateway.as_ref().expect("it runs");
    assert!(gateway.dir().join("state/last-revision.json").exists());
    cluster.database.restart();
    let applied = || cluster.apply(0, 3).0 == 200;
    assert!(eventually(PATIENCE, applied), "{}", cluster.gateway(0).log_text());
    cluster.all_serve(3);
}

/// How often control is killed; `./tests/run control-kills` does it 200 times.
fn kills() -> u64 {
    std::env::var("SLUICE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn a_control_that_is_killed_while_it_publishes_leaves_the_old_or_the_new() {
    let origin = Origin::start(|seen| answer(&seen.target));
    let version = |n: u64| {
        Spec::to(origin.address()).route(&format!("rewrite: {{ replace_prefix: /v{n} }}")).text()
    };
    let mut gateway = Gateway::start(&version(0));
    // A connection stays on its shard, and a shard never goes back.
    let judge = || -> Judge {
        let mut last = 0;
        Box::new(move |response| {
            let version = version_of(response)?;
            if version < last {
                return Err(format!("version {version} after {last}"));
            }
            last = version;
            Ok(())
        })
    };
    let load = Load::start(gateway.address(), 2, 0, &get("/x"), judge);
    for n in 1..=kills() {
        let pid = gateway.pid_of("control");
        let text = version(n);
        // Any moment of an apply, from before its check to after its answer.
        let pause = Duration::from_micros(n * 7_919 % 40_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            process::signal(pid, Signal::KILL);
        });
        let file = gateway.spec_file("next.yaml", &text);
        let admin = gateway.admin_address();
        _ = cli(&["apply", "-f", &file.display().to_string(), "--admin", &admin]);
        killer.join().expect("the killer");
        assert!(eventually(PATIENCE, || gateway.is_ready()), "{}", gateway.log_text());
        let now = version_of(&gateway.ask(get("/x"))).expect("an answer") as u64;
        assert!(now <= n, "{now} of {n}");
        // What is stored is what is served.
        let revision = gateway.admin_json("/v1/spec");
        assert!(
            revision["source"].as_str().is_some_and(|text| text.contains(&format!("/v{now} "))),
            "{revision}"
        );
    }
    let last = kills() + 1;
    gateway.apply(&version(last));
    let served = || version_of(&gateway.ask(get("/x"))) == Ok(last as usize);
    assert!(eventually(PATIENCE, served));
    assert!(load.stop_clean() > 0);
}
