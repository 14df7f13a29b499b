//! A relay before a server, for the network's faults: late, cut off, silent, or to another server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What it does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pass,
    /// What the server says comes so much later.
    Late(Duration),
    /// Connections stand, and nothing passes until it is let pass again: what was sent comes then.
    Silent,
    /// Connections are reset, and new ones are closed at once.
    Cut,
}

#[derive(Debug)]
struct State {
    way: Way,
    to: SocketAddr,
    streams: Vec<TcpStream>,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A listening relay; a thread for each direction of a connection.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    pub fn to(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a relay's port");
        let address = listener.local_addr().expect("bound address");
        let state = State { way: Way::Pass, to: server, streams: Vec::new(), stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let relay = Relay { address, shared: shared.clone() };
        thread::spawn(move || {
            super::hurry();
            while let Ok((client, _)) = listener.accept() {
                let (way, to) = {
                    let state = shared.state.lock().expect("relay");
                    if state.stop {
                        return;
                    }
                    (state.way, state.to)
                };
                if way == Way::Cut {
                    continue;
                }
                // The server is near: whether it is there shows at once.
                let Ok(server) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else {
                    continue;
                };
                shared.begin(client, server);
            }
        });
        relay
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, way: Way) {
        let mut state = self.shared.state.lock().expect("relay");
        state.way = way;
        if way == Way::Cut {
            state.hang_up();
        }
        self.shared.changed.notify_all();
    }

    /// Cuts all connections; new ones go to `server`.
    pub fn turn_to(&self, server: SocketAddr) {
        let mut state = self.shared.state.lock().expect("relay");
        state.to = server;
        state.hang_up();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().expect("relay");
        state.stop = true;
        state.hang_up();
        drop(state);
        self.shared.changed.notify_all();
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl State {
    fn hang_up(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn begin(self: &Arc<Shared>, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(back), Ok(there)) = (client.try_clone(), server.try_clone()) else { return };
        {
            let mut state = self.state.lock().expect("relay");
            state.streams.extend([client.try_clone(), server.try_clone()].into_iter().flatten());
        }
        let shared = self.clone();
        thread::spawn(move || shared.pass(client, there, false));
        let shared = self.clone();
        thread::spawn(move || shared.pass(server, back, true));
    }

    /// Reads here, and writes by another thread, so that what is late holds up nothing but itself.
    fn pass(self: &Arc<Shared>, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let (tell, told) = mpsc::channel::<(Instant, Vec<u8>)>();
        let shared = self.clone();
        let writer = thread::spawn(move || {
            for (due, bytes) in told {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if !shared.await_passage() || to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut room = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut room) {
            let way = self.state.lock().expect("relay").way;
            let late = match way {
                Way::Late(late) if answers => late,
                _ => Duration::ZERO,
            };
            if tell.send((Instant::now() + late, room[..read].to_vec())).is_err() {
                break;
            }
        }
        drop(tell);
        let _ = writer.join();
        let _ = from.shutdown(Shutdown::Both);
    }

    /// False at the end.
    fn await_passage(&self) -> bool {
        let state = self.state.lock().expect("relay");
        let held = |state: &mut State| state.way == Way::Silent && !state.stop;
        let state = self.changed.wait_while(state, held).expect("relay");
        !state.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::get;
    use crate::{Client, Origin};

    #[test]
    fn it_passes_delays_holds_and_cuts() {
        let (origin, other) = (Origin::echo(), Origin::echo());
        let relay = Relay::to(origin.address());
        let mut client = Client::connect(relay.address());
        assert_eq!(client.ask(get("/1")).text(), "GET /1\n");
        relay.set(Way::Late(Duration::from_millis(100)));
        let before = Instant::now();
        assert_eq!(client.ask(get("/2")).text(), "GET /2\n");
        assert!(before.elapsed() >= Duration::from_millis(100));
        relay.set(Way::Silent);
        client.send(get("/3")).patience(Duration::from_millis(100));
        assert!(client.response().is_err());
        assert_eq!(origin.completed(), 2);
        relay.set(Way::Pass);
        client.patience(crate::PATIENCE);
        assert_eq!(client.response().expect("an answer").text(), "GET /3\n");
        relay.set(Way::Cut);
        client.assert_closed("cut");
        let mut refused = Client::connect(relay.address());
        refused.assert_closed("still cut");
        relay.set(Way::Pass);
        relay.turn_to(other.address());
        assert_eq!(Client::connect(relay.address()).ask(get("/4")).status, 200);
        assert_eq!((origin.completed(), other.completed()), (3, 1));
    }
}
