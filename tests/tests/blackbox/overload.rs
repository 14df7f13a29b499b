//! What a node refuses when it is asked more than it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tests::client::get;
use tests::http2::H2Client;
use tests::http2::client::request;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, eventually};

const CONNECTIONS: usize = 200;

/// One route of each priority; what is of none is normal.
fn spec(origin: &Origin, overload: &str) -> Spec {
    let mut spec = Spec::to(origin.address()).listener("h2c: true").also(overload);
    for priority in ["low", "high", "critical"] {
        spec = spec.also_route(&format!(
            "{{ name: {priority}, match: {{ path: /{priority} }}, upstream: origin, \
             priority: {priority} }}"
        ));
    }
    spec
}

/// Keeps a shard busy with what it answers itself, so that neither an origin nor this process is
/// what is short.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(gateway: SocketAddr) -> Busy {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut streams: Vec<(TcpStream, usize)> = (0..CONNECTIONS)
            .map(|_| {
                let stream = TcpStream::connect(gateway).expect("a connection");
                stream.set_nonblocking(true).expect("a socket");
                (stream, 0)
            })
            .collect();
        let requests = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
        let thread = std::thread::spawn(move || {
            let mut sink = [0; 64 * 1024];
            while !stopped.load(Ordering::Relaxed) {
                for (stream, sent) in &mut streams {
                    // A full socket is what is wanted.
                    *sent += stream.write(&requests[*sent % requests.len()..]).unwrap_or(0);
                    let _ = stream.read(&mut sink);
                }
            }
        });
        Busy { stop, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn low_priorities_go_first_and_critical_stays() {
    let origin = Origin::echo();
    let overload = "node: { overload: { queue_delay_ms: 1, memory_percent: 0 } }";
    let gateway = Gateway::single(&spec(&origin, overload));
    let status = |path: &str| gateway.ask(get(path)).status;
    for path in ["/low", "/normal", "/high", "/critical"] {
        assert_eq!(status(path), 200, "{path}: nothing is short");
    }
    let busy = Busy::start(gateway.address());
    let refused = eventually(PATIENCE * 2, || {
        assert_eq!(status("/critical"), 200);
        ["/high", "/normal", "/low"].iter().all(|path| status(path) == 503)
    });
    assert!(refused, "{:?}", gateway.metric("sluice_shard_requests_shed_total"));

    let mut client = gateway.connect();
    let answer = client.ask(get("/low"));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(answer.problem().as_deref(), Ok("overload"));
    // A client that were turned away would connect again.
    assert!(!answer.says_close());
    assert_eq!(client.ask(get("/critical")).status, 200);

    let mut client = H2Client::clear(gateway.address());
    let mut call = request("POST", "/low");
    call.push(("content-type", "application/grpc"));
    call.push(("te", "trailers"));
    let answer = client.ask(&call, b"\0\0\0\0\0");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")));
    assert_eq!(client.ask(&request("GET", "/low"), b"").status, 503);
    assert_eq!(client.ask(&request("GET", "/critical"), b"").status, 200);

    drop(busy);
    let recovered = eventually(PATIENCE * 2, || {
        ["/low", "/normal", "/high"].iter().all(|path| status(path) == 200)
    });
    assert!(recovered, "what is over is not forgotten");
    let (_, metrics) = gateway.admin("/metrics");
    for priority in ["low", "normal", "high"] {
        let label = format!("priority=\"{priority}\"");
        let counted = metrics.lines().any(|line| {
            line.starts_with("sluice_shard_requests_shed_total")
                && line.contains(&label)
                && !line.ends_with(" 0")
        });
        assert!(counted, "{priority}: not counted\n{metrics}");
    }
}

#[test]
fn what_is_not_judged_is_not_refused() {
    let origin = Origin::echo();
    let overload = "node: { overload: { queue_delay_ms: 0, memory_percent: 0 } }";
    let gateway = Gateway::single(&spec(&origin, overload));
    let _busy = Busy::start(gateway.address());
    for _ in 0..100 {
        assert_eq!(gateway.ask(get("/low")).status, 200);
    }
}
