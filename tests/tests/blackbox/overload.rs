//! What a node refuses when it is asked more than it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tests::cgroup::MemoryGroup;
use tests::client::get;
use tests::http2::H2Client;
use tests::http2::client::request;
use tests::spec::Spec;
use tests::{Client, Gateway, Origin, PATIENCE, Script, eventually};

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
        // Fields cost the gateway more to read than this thread to write.
        let fields = "a: b\r\n".repeat(90);
        let request = format!("OPTIONS * HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let requests = request.into_bytes().repeat(50);
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

const MIB: u64 = 1 << 20;

fn bound(memory_percent: u32) -> String {
    format!("node: {{ overload: {{ queue_delay_ms: 0, memory_percent: {memory_percent} }} }}")
}

/// With more than 1 % of the memory in use: what is refused, in which order, and that it ends.
fn sheds_by_memory(mut gateway: Gateway, spec: impl Fn(u32) -> Spec) {
    const PATHS: [&str; 4] = ["/low", "/normal", "/high", "/critical"];
    // The round of questions in which each was refused first.
    let mut refused = [usize::MAX; 4];
    let mut round = 0;
    let mut client = gateway.connect();
    let all = eventually(PATIENCE * 2, || {
        round += 1;
        for (path, first) in PATHS.iter().zip(&mut refused).rev() {
            let answer = client.ask(get(path));
            if answer.status == 200 {
                continue;
            }
            assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{path}");
            assert_eq!(answer.problem().as_deref(), Ok("overload"), "{path}");
            assert!(!answer.says_close(), "{path}");
            *first = round.min(*first);
        }
        refused[2] != usize::MAX
    });
    assert!(all, "{refused:?} {:?}", gateway.metric("sluice_shard_requests_shed_total"));
    assert!(refused[0] < refused[1] && refused[1] < refused[2], "{refused:?}");
    assert_eq!(refused[3], usize::MAX, "critical is never refused");
    // The bound is the spec's: with another one the same memory is enough.
    gateway.apply(&spec(99).text());
    let recovered = eventually(PATIENCE * 2, || {
        (0..10).all(|_| PATHS.iter().all(|path| client.ask(get(path)).status == 200))
    });
    assert!(recovered, "still refused with another bound");
}

/// In a container, say, with little to spare.
#[test]
fn memory_of_a_cgroup_is_a_bound() {
    let Some(group) = MemoryGroup::with_limit(512 * MIB) else {
        return eprintln!("skipped: no memory cgroup can be made here");
    };
    let origin = Origin::echo();
    let spec = |percent| spec(&origin, &bound(percent));
    let gateway = Gateway::single(&spec(1));
    if !group.take(gateway.pid()) {
        return eprintln!("skipped: no process can be moved to another cgroup here");
    }
    // The engine that the supervisor starts next is born there, with all of its memory.
    gateway.kill("engine");
    assert!(eventually(PATIENCE, || gateway.find("engine").is_some() && gateway.is_ready()));
    let served = || {
        let Ok(mut client) = Client::try_connect(gateway.address()) else { return false };
        client.try_send(get("/critical").as_bytes()).is_ok()
            && client.response().is_ok_and(|answer| answer.status == 200)
    };
    assert!(eventually(PATIENCE, served), "{}", gateway.log_text());
    sheds_by_memory(gateway, spec);
}

/// What an engine has of the memory that it could get on the machine. To have much of it, it is made to
/// keep the bodies of requests for another try.
#[test]
fn memory_of_the_machine_is_a_bound() {
    const BODY: u64 = 15 * MIB;
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()
    });
    // A hundredth of it and half as much again.
    let Some(uploads) = available.map(|kib| (kib * 1024 / 66).div_ceil(BODY)) else {
        return eprintln!("skipped: /proc/meminfo does not say what is available");
    };
    if uploads > 60 {
        return eprintln!("skipped: 1 % of this machine's memory is more than a test should take");
    }
    let (origin, sink) = (Origin::echo(), Origin::start(|_| Script::default().sleep(PATIENCE * 4)));
    let spec = |percent| {
        spec(&origin, &bound(percent))
            .also_upstream("sink", sink.address(), "retry: { body_bytes: 16MiB }")
            .also_route("{ name: sink, match: { path: /sink }, upstream: sink, max_body_bytes: 16MiB, priority: critical }")
    };
    let gateway = Gateway::single(&spec(1));
    assert_eq!(gateway.ask(get("/low")).status, 200, "so much is free");
    let uploading: Vec<JoinHandle<Client>> = (0..uploads)
        .map(|_| {
            let mut client = gateway.connect();
            std::thread::spawn(move || {
                client.send(format!(
                    "PUT /sink HTTP/1.1\r\nHost: a.test\r\nContent-Length: {BODY}\r\n\r\n"
                ));
                client.send(vec![b'x'; BODY as usize]);
                client
            })
        })
        .collect();
    let uploading: Vec<Client> =
        uploading.into_iter().map(|client| client.join().expect("a body is sent")).collect();
    sheds_by_memory(gateway, spec);
    drop(uploading);
}
