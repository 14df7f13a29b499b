//! What `sluice up` tells the person who started it.

use std::{io::IsTerminal, net::SocketAddr};

use contract::snapshot::{Listener, Snapshot};

use crate::{cli::color, place::StateDirectory};

/// Prints to stderr, which is not the access log's (`-` is stdout).
pub struct Banner {
    bold: &'static str,
    dim: &'static str,
    plain: &'static str,
    terminal: bool,
}

impl Banner {
    pub fn new() -> Banner {
        let stderr = std::io::stderr();
        let (bold, dim, plain) =
            if color(&stderr) { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        Banner { bold, dim, plain, terminal: stderr.is_terminal() }
    }

    /// A passing state; only on a terminal.
    pub fn progress(&self, text: &str) {
        if self.terminal {
            eprintln!("{}{text}{}", self.dim, self.plain);
        }
    }

    pub fn say(&self, text: &str) {
        eprintln!("sluice: {text}");
    }

    /// Everything serves.
    pub fn ready(&self, snapshot: &Snapshot, cpus: &[usize], state: &StateDirectory, demo: bool) {
        let Banner { bold, dim, plain, .. } = self;
        let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
        eprintln!(
            "{bold}sluice {}{plain} serves revision {} on {} shard{} {dim}(CPU {}){plain}\n",
            env!("CARGO_PKG_VERSION"),
            snapshot.revision,
            cpus.len(),
            if cpus.len() == 1 { "" } else { "s" },
            list.join(", "),
        );
        for listener in &snapshot.listeners {
            let Listener { name, address, tls, .. } = listener;
            match (tls, demo) {
                (None, _) => eprintln!("  {name:<10} http://{address}"),
                (Some(_), false) => eprintln!("  {name:<10} https://{address}"),
                (Some(_), true) => {
                    eprintln!("  {name:<10} https://{address} {dim}(curl -k, HTTP/2){plain}");
                }
            }
        }
        if let Some((tls, admin)) = state.read_admin_url() {
            let scheme = if tls { "https" } else { "http" };
            eprintln!(
                "  {:<10} {scheme}://{admin} {dim}(/metrics /healthz /readyz /v1/status){plain}",
                "admin"
            );
        }
        eprintln!("  {:<10} {}", "state", state.path().display());
        if demo && let Some(listener) = snapshot.listeners.first() {
            self.demo(reachable(listener.address), state);
        }
        eprintln!("\n{dim}Ctrl-C drains and stops.{plain}");
    }

    fn demo(&self, gateway: SocketAddr, state: &StateDirectory) {
        let Banner { bold, plain, .. } = self;
        let me = std::env::args().next().unwrap_or_else(|| "sluice".into());
        let state = state.path().display();
        eprintln!(
            "  {:<10} http://127.0.0.1:{} and :{}\n\n{bold}Try{plain}\n  curl -i http://{gateway}/hello\n  \
             curl -s http://{gateway}/api/users/7\n  curl -s http://{gateway}/shop/products/7\n  \
             curl -s -d 'some text' http://{gateway}/echo/it\n\n\
             {bold}Change it while it runs{plain}\n  {me} get spec --state {state} > my.yaml\n  \
             {me} apply --state {state} -f my.yaml {dim}# after an edit{plain}",
            "origins",
            crate::demo::PORTS[0],
            crate::demo::PORTS[1],
            dim = self.dim,
        );
    }
}

/// What to type into curl for a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    match address {
        SocketAddr::V4(ref mut v4) if v4.ip().is_unspecified() => {
            v4.set_ip(std::net::Ipv4Addr::LOCALHOST);
        }
        SocketAddr::V6(ref mut v6) if v6.ip().is_unspecified() => {
            v6.set_ip(std::net::Ipv6Addr::LOCALHOST);
        }
        _ => {}
    }
    address
}
