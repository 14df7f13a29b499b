//! Upstreams that speak HTTP/2, and connections that end under several streams.

use std::collections::VecDeque;

use contract::snapshot::{Protocol, RetryBudget};

use super::*;
use crate::http2::{Config, Connection, Encoder, Event};
use crate::io::Chunk;

/// An origin whose requests say by their path what it does: `/hang`, `/last` (it answers and closes),
/// `/drop` (it closes, the first time). Any other is answered.
fn origin() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = seen.clone();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let told = told.clone();
            std::thread::spawn(move || serve(stream, &told));
        }
    });
    Origin { address, seen }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut connection = Connection::new(Config::SERVER);
    let (mut events, mut buf, mut over) = (VecDeque::new(), [0; 4096], false);
    loop {
        while let Some(out) = connection.take_output(Vec::new()) {
            stream.write_all(&out).unwrap();
        }
        if over {
            return;
        }
        let Ok(len @ 1..) = stream.read(&mut buf) else { return };
        connection.receive(Chunk::copy_of(&buf[..len]), 0, &mut events).unwrap();
        while let Some(event) = events.pop_front() {
            let Event::Head { stream: id, block, .. } = event else { continue };
            let path = String::from_utf8_lossy(block.path()).into_owned();
            let before = {
                let mut seen = seen.lock().unwrap();
                seen.push(path.clone());
                seen.iter().filter(|one| **one == path).count() - 1
            };
            match path.as_str() {
                "/hang" => continue,
                "/drop" if before == 0 => return,
                "/last" => over = true,
                _ => {}
            }
            let mut head = Vec::new();
            Encoder::status(&mut head, 200);
            connection.send_head(id, &head, false).unwrap();
            connection.send_data(id, b"hi", true).unwrap();
        }
    }
}

fn ask_for(gateway: SocketAddr, path: &str) -> Reply {
    ask(gateway, &[format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()])
}

/// Only a stale connection is made good.
fn without_permits(origin: &Origin) -> snapshot::Upstream {
    snapshot::Upstream {
        protocol: Protocol::Http2,
        retry_budget: RetryBudget { percent: 0, min: 0 },
        ..upstream("u", &[origin.address])
    }
}

#[test]
fn a_connection_that_dies_in_use_was_not_stale() {
    let origin = origin();
    let seen = origin.seen.clone();
    let counts = gateway(route(), vec![without_permits(&origin)], move |gateway| {
        assert_eq!(ask_for(gateway, "/x").status, 200);
        let hangs = std::thread::spawn(move || ask_for(gateway, "/hang"));
        while !seen.lock().unwrap().contains(&"/hang".to_owned()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(ask_for(gateway, "/last").status, 200);
        assert_eq!(hangs.join().unwrap().status, 502);
    });
    assert_eq!(origin.seen(), ["/x", "/hang", "/last"]);
    assert_eq!(counts["sluice_upstream_retries_total"], 0);
    assert_eq!(counts["sluice_upstream_retries_over_budget_total"], 1);
}

#[test]
fn a_connection_that_dies_in_silence_may_have_been_stale() {
    let origin = origin();
    let counts = gateway(route(), vec![without_permits(&origin)], move |gateway| {
        assert_eq!(ask_for(gateway, "/x").status, 200);
        assert_eq!(ask_for(gateway, "/drop").status, 200);
    });
    assert_eq!(origin.seen(), ["/x", "/drop", "/drop"]);
    assert_eq!(counts["sluice_upstream_retries_total"], 1);
    assert_eq!(counts["sluice_upstream_retries_over_budget_total"], 0);
}
