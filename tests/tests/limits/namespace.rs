//! A node in a network namespace of its own: one way to clients and the origin, another one to Redis,
//! which can be cut as networks are, without a word to anybody.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::process::{signal_group, sluice_binary, wait};
use tests::scratch::Scratch;
use tests::spec::Names;
use tests::{PATIENCE, eventually};

/// The namespace with its two links.
pub struct Network {
    name: String,
    /// Where the host is, by the way of clients.
    pub host: Ipv4Addr,
    /// By the way of Redis.
    pub host_of_redis: Ipv4Addr,
    node: Ipv4Addr,
}

/// A node in it.
pub struct Apart {
    pub address: SocketAddr,
    network: Network,
    child: Child,
    _scratch: Scratch,
}

fn ip(words: &[&str]) -> bool {
    let output = Command::new("ip").args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Apart {
    /// `None`: we may not make one.
    pub fn network() -> Option<Network> {
        let id = std::process::id();
        let name = format!("sluice{id}");
        if !ip(&["netns", "add", &name]) {
            return None;
        }
        let third = (id % 250) as u8;
        let at = |last| Ipv4Addr::new(10, 213, third, last);
        let network = Network { host: at(1), node: at(2), host_of_redis: at(5), name };
        let made = network.link("c", network.host, network.node)
            && network.link("r", network.host_of_redis, at(6))
            && ip(&["-n", &network.name, "link", "set", "lo", "up"]);
        made.then_some(network)
    }
}

impl Network {
    /// Name of the host's end of a link.
    fn end(&self, link: &str) -> String {
        format!("{}{link}", self.name)
    }

    fn link(&self, link: &str, host: Ipv4Addr, node: Ipv4Addr) -> bool {
        let (end, name) = (self.end(link), &self.name);
        let (host, node) = (format!("{host}/30"), format!("{node}/30"));
        ip(&["link", "add", &end, "type", "veth", "peer", "name", link, "netns", name])
            && ip(&["addr", "add", &host, "dev", &end])
            && ip(&["link", "set", &end, "up"])
            && ip(&["-n", name, "addr", "add", &node, "dev", link])
            && ip(&["-n", name, "link", "set", link, "up"])
    }

    pub fn start(self, template: &str, shards: usize) -> Apart {
        let scratch = Scratch::new();
        let mut names = Names::new(scratch.path());
        // Its clients are not in its namespace; whoever asks its admin listener is.
        let text = template.replace("127.0.0.1:{PORT}", "0.0.0.0:{PORT}");
        let file = scratch.file("spec.yaml", &names.fill(&text));
        let log = File::create(scratch.path().join("log")).expect("log file");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(sluice_binary())
            .arg("up")
            .arg("-f")
            .arg(file)
            .arg("--state")
            .arg(scratch.path().join("state"))
            .args(["--shards", &shards.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("ip netns exec");
        let address = SocketAddr::from((self.node, names.port("PORT")));
        let listens = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        let apart = Apart { address, network: self, child, _scratch: scratch };
        assert!(eventually(PATIENCE, listens), "the node apart does not listen");
        apart
    }
}

impl Apart {
    /// Cuts the way to Redis, or mends it.
    pub fn part(&self, parted: bool) {
        let end = self.network.end("r");
        assert!(ip(&["link", "set", &end, if parted { "down" } else { "up" }]));
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        signal_group(self.child.id(), Signal::TERM);
        if wait(&mut self.child, PATIENCE).is_none() {
            signal_group(self.child.id(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for link in ["c", "r"] {
            ip(&["link", "del", &self.end(link)]);
        }
        ip(&["netns", "del", &self.name]);
    }
}
