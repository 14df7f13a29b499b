#![allow(clippy::disallowed_methods, reason = "a test is the peer of the reactor")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use contract::snapshot::Protocol;
use proptest::prelude::*;

use super::*;
use crate::http2::{Config, Connection, Encoder, Event};
use crate::io::Chunk;
use crate::io::tests::{listener, shard, small};

/// What a target answers its checks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// `HealthCheckResponse.status`.
    Status(u8),
    /// A head alone with this `grpc-status`.
    Fails(&'static [u8]),
    /// An HTTP status that is no gRPC.
    Http(u16),
    Nothing,
}

/// A target with a health service, for checks of the service `s`.
#[derive(Clone)]
pub(crate) struct Server {
    pub address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(says: Says) -> Server {
        let (listener, address) = listener();
        let server = Server { address, says: Arc::new(Mutex::new(says)), asked: Arc::default() };
        let copy = server.clone();
        std::thread::spawn(move || copy.accept(&listener));
        server
    }

    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn accept(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            let (server, stream) = (self.clone(), stream.unwrap());
            std::thread::spawn(move || server.serve(stream));
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut connection = Connection::new(Config::SERVER);
        let (mut events, mut body) = (VecDeque::new(), Vec::new());
        let mut buf = [0; 4096];
        loop {
            while let Some(out) = connection.take_output(Vec::new()) {
                stream.write_all(&out).unwrap();
            }
            let len = match stream.read(&mut buf) {
                Ok(len) if len > 0 => len,
                _ => return,
            };
            connection.receive(Chunk::copy_of(&buf[..len]), 0, &mut events).unwrap();
            while let Some(event) = events.pop_front() {
                match event {
                    Event::Head { block, .. } => {
                        let line = |name: &[u8]| {
                            block.iter().find(|line| line.0 == name).map(|line| line.1.to_vec())
                        };
                        assert_eq!(line(b":path").unwrap(), b"/grpc.health.v1.Health/Check");
                        assert_eq!(line(b"te").unwrap(), b"trailers");
                    }
                    Event::Data { stream, data, end } => {
                        body.extend_from_slice(data.bytes());
                        connection.release(stream, data.len());
                        if end {
                            assert_eq!(body, b"\0\0\0\0\x03\x0a\x01s");
                            body.clear();
                            self.answer(&mut connection, stream);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn answer(&self, connection: &mut Connection, stream: u32) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (mut head, mut trailers) = (Vec::new(), Vec::new());
        let says = *self.says.lock().unwrap();
        Encoder::status(&mut head, if let Says::Http(status) = says { status } else { 200 });
        Encoder::field(&mut head, b"content-type", b"application/grpc");
        match says {
            Says::Nothing => {}
            Says::Http(_) => drop(connection.send_head(stream, &head, true)),
            Says::Fails(code) => {
                Encoder::field(&mut head, b"grpc-status", code);
                connection.send_head(stream, &head, true).unwrap();
            }
            Says::Status(status) => {
                connection.send_head(stream, &head, false).unwrap();
                let message = [0, 0, 0, 0, 2, 8, status];
                connection.send_data(stream, &message, false).unwrap();
                Encoder::field(&mut trailers, b"grpc-status", b"0");
                connection.send_trailers(stream, &trailers).unwrap();
            }
        }
    }
}

fn settings(healthy_after: u32, unhealthy_after: u32) -> HealthCheck {
    HealthCheck {
        kind: HealthKind::Grpc { service: "s".into() },
        interval_ms: 10,
        timeout_ms: 1_000,
        healthy_after,
        unhealthy_after,
    }
}

#[test]
fn the_first_result_counts_at_once_and_later_ones_in_a_row() {
    let check = settings(2, 3);
    for first in [true, false] {
        let health = Health::default();
        assert!(health.is_usable(), "nothing is known");
        assert_eq!(health.note(first, &check), (!first).then_some(Change::Lost));
        assert_eq!(health.is_usable(), first);
    }
    let health = Health::default();
    health.note(true, &check);
    for success in [false, false, true, false, false] {
        assert_eq!(health.note(success, &check), None);
        assert!(health.is_usable(), "never three failures in a row");
    }
    assert_eq!(health.note(false, &check), Some(Change::Lost));
    assert!(!health.is_usable());
    for success in [true, false, true] {
        assert_eq!(health.note(success, &check), None);
        assert!(!health.is_usable(), "never two successes in a row");
    }
    assert_eq!(health.note(true, &check), Some(Change::Recovered));
    assert!(health.is_usable());
}

proptest! {
    #[test]
    fn intervals_are_a_tenth_off_at_most(interval_ms in 1u32..10_000_000, random in any::<u64>()) {
        let wait_ms = jittered(interval_ms, random);
        let (tenth, interval_ms) = (u64::from(interval_ms / 10), u64::from(interval_ms));
        prop_assert!((interval_ms - tenth..=interval_ms + tenth).contains(&wait_ms));
        prop_assert!(wait_ms > 0);
    }

    #[test]
    fn one_shard_of_the_node_checks(port in any::<u16>(), shards in 1u16..64) {
        let key: Key = ("u".into(), ([10, 0, 0, 1], port).into());
        prop_assert!(checker(&key, shards) < shards);
        prop_assert_eq!(checker(&key, shards), checker(&key.clone(), shards));
    }
}

#[test]
fn jitter_reaches_both_ends() {
    assert_eq!((jittered(1000, 0), jittered(1000, 200), jittered(1000, 201)), (900, 1100, 900));
    assert_eq!(jittered(0, 5), 1);
}

/// Checks `address` once for each patience.
fn found(address: SocketAddr, patience_ms: &'static [u64]) -> Vec<Found> {
    let (tell, told) = std::sync::mpsc::channel();
    shard(small(), move |io| async move {
        let target = Target { address, name: "t:1".into(), ..Default::default() };
        let upstream = Upstream {
            protocol: Protocol::Http2,
            targets: Box::new([target.clone()]),
            ..Upstream::default()
        };
        let pool: Rc<Pool> = Pool::new(&upstream, &target);
        let watch = io.watch();
        for &ms in patience_ms {
            watch.set_in(ms);
            let kind = settings(1, 1).kind;
            let found = check(&io, &watch, &pool, &upstream, &target, &kind).await;
            tell.send(found).unwrap();
        }
    });
    told.iter().collect()
}

#[test]
fn a_serving_target_is_healthy_on_one_connection() {
    let server = Server::start(Says::Status(1));
    assert_eq!(found(server.address, &[5_000; 3]), [Found::Healthy; 3]);
    assert_eq!(server.asked(), 3);
}

#[test]
fn what_does_not_serve_is_unhealthy() {
    for says in [
        Says::Status(0),
        Says::Status(2),
        Says::Status(3),
        Says::Fails(b"12"),
        Says::Fails(b"0"),
        Says::Http(404),
        Says::Http(200),
    ] {
        let server = Server::start(says);
        assert_eq!(found(server.address, &[5_000]), [Found::Unhealthy], "{says:?}");
    }
}

#[test]
fn a_hung_target_runs_into_the_time_out() {
    let server = Server::start(Says::Nothing);
    assert_eq!(found(server.address, &[50, 50]), [Found::Unhealthy; 2]);
    // It takes connections and says nothing at all.
    let (_silent, address) = listener();
    assert_eq!(found(address, &[50]), [Found::Unhealthy]);
}

#[test]
fn a_refused_connection_is_unhealthy() {
    let (gone, address) = listener();
    drop(gone);
    assert_eq!(found(address, &[5_000]), [Found::Unhealthy]);
}

#[test]
fn what_speaks_no_http2_is_unhealthy() {
    let (socket, address) = listener();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_eq!(found(address, &[5_000]), [Found::Unhealthy]);
}
