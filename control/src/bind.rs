//! Opening the sockets that the gateway listens on.

use std::{net::SocketAddr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
};

/// Connections the kernel holds per socket until its shard accepts them. The kernel cuts it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One listening socket per shard on `address`, sharing it by `SO_REUSEPORT`.
///
/// # Errors
/// One line that says why not, and what a person can do. Nothing stays open then.
pub fn open(address: SocketAddr, shards: usize) -> Result<Vec<OwnedFd>, String> {
    // SO_REUSEPORT would let us share the port with another gateway of the same user and so get
    // only a part of the connections. A first socket without it finds that out.
    drop(one(address, false).map_err(|error| explain(address, error))?);
    (0..shards).map(|_| one(address, true).map_err(|error| explain(address, error))).collect()
}

fn one(address: SocketAddr, share: bool) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if share {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    // Accepted connections inherit it: no system call for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn explain(address: SocketAddr, error: Errno) -> String {
    let port = address.port();
    match error {
        Errno::ADDRINUSE => format!(
            "{address} is in use by another program; stop it (`ss -ltnp 'sport = :{port}'` shows \
             it), or change `listen`"
        ),
        Errno::ACCESS | Errno::PERM => format!(
            "{address} may not be opened by this user; ports below 1024 need CAP_NET_BIND_SERVICE \
             (or a lower net.ipv4.ip_unprivileged_port_start), or change `listen`"
        ),
        Errno::ADDRNOTAVAIL => {
            format!(
                "{address} is no address of this machine; change `listen` (`ip addr` lists them)"
            )
        }
        Errno::MFILE | Errno::NFILE => {
            format!("{address} cannot be opened: too many open files; raise `ulimit -n`")
        }
        error => format!("{address} cannot be opened: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn opens_one_socket_per_shard() {
        let address = free();
        let sockets = open(address, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_in_use_is_refused_even_when_its_owner_would_share_it() {
        let address = free();
        let _owner = open(address, 1).unwrap();
        let refused = open(address, 1).unwrap_err();
        assert!(refused.contains("in use"), "{refused}");
        assert!(refused.contains(&address.to_string()), "{refused}");
    }

    #[test]
    fn a_foreign_address_is_refused() {
        let refused = open("192.0.2.1:1".parse().unwrap(), 1).unwrap_err();
        assert!(refused.contains("no address of this machine") || refused.contains("1024"));
    }
}
