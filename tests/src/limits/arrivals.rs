//! An origin that writes down when each request came, and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{Clock, hurry};
use crate::wire::find;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A request that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub at: u64,
    /// Its number, the last segment of its path.
    pub number: u32,
}

#[derive(Debug, Default)]
struct Records {
    arrivals: Mutex<Vec<Arrival>>,
    /// Of connections of this process; to be shut down at the end.
    streams: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

/// A listening origin; answers 200 at once.
#[derive(Debug)]
pub struct Arrivals {
    address: SocketAddr,
    records: Arc<Records>,
}

impl Arrivals {
    pub fn start(clock: Clock) -> Arrivals {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("an origin's port");
        let port = listener.local_addr().expect("bound address").port();
        let records = Arc::new(Records::default());
        let shared = records.clone();
        thread::spawn(move || {
            hurry();
            while let Ok((stream, _)) = listener.accept() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                shared.streams.lock().expect("streams").extend(stream.try_clone());
                let shared = shared.clone();
                // Threads inherit how much they hurry.
                thread::spawn(move || {
                    let _ = converse(stream, clock, &shared);
                });
            }
        });
        Arrivals { address: (Ipv4Addr::LOCALHOST, port).into(), records }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All so far, by time.
    pub fn taken(&self) -> Vec<Arrival> {
        let mut all = self.records.arrivals.lock().expect("arrivals").clone();
        all.sort_unstable_by_key(|arrival| arrival.at);
        all
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.records.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        for stream in self.records.streams.lock().expect("streams").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Requests have no body here.
fn converse(mut stream: TcpStream, clock: Clock, records: &Records) -> std::io::Result<()> {
    let mut bytes: Vec<u8> = Vec::with_capacity(4096);
    let mut room = [0; 4096];
    loop {
        let read = stream.read(&mut room)?;
        let at = clock.now();
        if read == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&room[..read]);
        while let Some(end) = find(&bytes, b"\r\n\r\n") {
            // GET /a/b/NUMBER HTTP/1.1
            let target = bytes[..end].split(|&byte| byte == b' ').nth(1).unwrap_or_default();
            let last = target.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let number = std::str::from_utf8(last).ok().and_then(|text| text.parse().ok());
            if let Some(number) = number {
                records.arrivals.lock().expect("arrivals").push(Arrival { at, number });
            }
            bytes.drain(..end + 4);
            stream.write_all(ANSWER)?;
        }
    }
}
