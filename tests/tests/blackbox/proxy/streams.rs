//! Large bodies, slow peers, memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tests::process::rss_kib;
use tests::spec::Spec;
use tests::wire::Wire;
use tests::{Framing, Gateway, Origin, PATIENCE, eventually, get};

const LARGE: u64 = 50 << 20;
/// More than the kernel buffers of two loopback connections, less than [`LARGE`].
const KERNEL: u64 = 32 << 20;

/// A stream of bytes that repeats after a prime, so that a lost or doubled block shows.
struct Pattern {
    at: u64,
}

impl Pattern {
    fn next(&mut self, into: &mut [u8]) {
        for byte in into {
            *byte = (self.at % 65_521 % 251) as u8;
            self.at += 1;
        }
    }
}

/// Counts bytes and checks that they are the pattern's.
#[derive(Default)]
struct Check {
    count: u64,
    wrong_at: Option<u64>,
}

impl Check {
    fn take(&mut self, bytes: &[u8]) {
        let mut expected = vec![0; bytes.len()];
        Pattern { at: self.count }.next(&mut expected);
        if self.wrong_at.is_none() && expected != bytes {
            self.wrong_at = Some(self.count);
        }
        self.count += bytes.len() as u64;
    }

    #[track_caller]
    fn assert_whole(&self, what: &str) {
        assert_eq!((self.count, self.wrong_at), (LARGE, None), "{what}: bytes, first wrong block");
    }
}

/// Writes the whole pattern, chunked or not.
fn write_pattern(wire: &mut Wire, chunked: bool) {
    let mut pattern = Pattern { at: 0 };
    // Not a divisor of anything that buffers are sized by.
    let mut block = vec![0u8; 37_000];
    while pattern.at < LARGE {
        let size = block.len().min((LARGE - pattern.at) as usize);
        pattern.next(&mut block[..size]);
        let sent = if chunked {
            let chunk = [format!("{size:x}\r\n").as_bytes(), &block[..size], b"\r\n"].concat();
            wire.write(&chunk)
        } else {
            wire.write(&block[..size])
        };
        if sent.is_err() {
            return;
        }
    }
    if chunked {
        let _ = wire.write(b"0\r\n\r\n");
    }
}

/// Runs `work` and returns by how many KiB the engine's memory peaked above its start.
fn growth_kib(gateway: &Gateway, work: impl FnOnce()) -> u64 {
    let engine = gateway.pid_of("engine");
    let before = rss_kib(engine);
    let peak = AtomicU64::new(before);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                peak.fetch_max(rss_kib(engine), Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // A failing step must not leave the sampler running.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    peak.into_inner() - before
}

#[test]
fn fifty_megabytes_down_in_bounded_memory() {
    let origin = Origin::raw(|mut wire, _| {
        while let Ok(head) = wire.head() {
            let chunked = head.start.contains("/chunked");
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {LARGE}")
            };
            let _ = wire.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes());
            write_pattern(&mut wire, chunked);
        }
    });
    let gateway = Gateway::front(&origin);
    for target in ["/length", "/chunked"] {
        let mut client = gateway.connect();
        let mut check = Check::default();
        let grown = growth_kib(&gateway, || {
            client.send(get(target));
            let response = client.stream_to("GET", &mut |bytes| check.take(bytes));
            let response = response.unwrap_or_else(|e| panic!("{target}: {e:?}"));
            assert_eq!(response.status, 200);
        });
        check.assert_whole(target);
        assert!(grown < 20 * 1024, "{target}: the engine grew by {grown} KiB");
    }
}

#[test]
fn fifty_megabytes_up_in_bounded_memory() {
    let result = Arc::new(Mutex::new(Check::default()));
    let shared = result.clone();
    let origin = Origin::raw(move |mut wire, _| {
        while let Ok(head) = wire.head() {
            let mut check = Check::default();
            let read = match head.announced() {
                Ok(Some(Framing::Chunked)) => wire.chunked(&mut |b| check.take(b)).map(drop),
                Ok(Some(Framing::Length(n))) => wire.body(n, &mut |b| check.take(b)),
                _ => Ok(()),
            };
            *shared.lock().unwrap() = check;
            let status = if read.is_ok() { "200 OK" } else { "500 Cut" };
            let _ =
                wire.write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    let gateway = Gateway::of(&Spec::to(origin.address()).route("max_body_bytes: 100000000"));
    for chunked in [false, true] {
        let mut client = gateway.connect();
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {LARGE}")
        };
        let grown = growth_kib(&gateway, || {
            client.send(format!("PUT /up HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n"));
            write_pattern(&mut client.wire, chunked);
            let response = client.response().unwrap_or_else(|e| panic!("{framing}: {e:?}"));
            assert_eq!(response.status, 200);
        });
        result.lock().unwrap().assert_whole(&framing);
        assert!(grown < 20 * 1024, "{framing}: the engine grew by {grown} KiB");
    }
}

#[test]
fn a_slow_reader_slows_the_origin() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let origin = Origin::raw(move |mut wire, _| {
        if wire.head().is_err() {
            return;
        }
        let _ =
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
        let block = vec![b'x'; 16 * 1024];
        while counter.load(Ordering::SeqCst) < LARGE && wire.write(&block).is_ok() {
            counter.fetch_add(block.len() as u64, Ordering::SeqCst);
        }
    });
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    client.send(get("/"));
    client.final_head().unwrap_or_else(|e| panic!("{e:?}"));
    // Reads nothing more: the origin must come to a stand. 200 ms without progress is standing.
    let mut last = u64::MAX;
    let stands = eventually(PATIENCE, || {
        thread::sleep(Duration::from_millis(200));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now
    });
    assert!(stands, "the origin never stops sending");
    // The kernel's buffers of two loopback connections grow to some MiB each; the gateway's own are
    // 64 KiB.
    assert!(
        last < 16 << 20,
        "{last} bytes were taken from the origin for a client that reads none"
    );
    // And when the client reads again, everything arrives.
    let mut count = 0;
    client
        .wire
        .body(LARGE, &mut |bytes| count += bytes.len() as u64)
        .unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(count, LARGE);
}

#[test]
fn a_slow_origin_slows_the_uploading_client() {
    let go = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = go.clone();
    let origin = Origin::raw(move |mut wire, _| {
        if wire.head().is_err() {
            return;
        }
        eventually(PATIENCE * 2, || gate.load(Ordering::SeqCst));
        let _ = wire.body(LARGE, &mut |_| {});
        let _ = wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = wire.until_close(&mut |_| {});
    });
    let gateway = Gateway::of(&Spec::to(origin.address()).route("max_body_bytes: 100000000"));
    let mut client = gateway.connect();
    client.send(format!("PUT /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n"));
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let mut writer = Wire::new(client.wire.stream().try_clone().unwrap());
        let sent = &sent;
        scope.spawn(move || {
            let block = vec![b'x'; 16 * 1024];
            while sent.load(Ordering::SeqCst) < LARGE && writer.write(&block).is_ok() {
                sent.fetch_add(block.len() as u64, Ordering::SeqCst);
            }
        });
        let mut last = u64::MAX;
        let stands = eventually(PATIENCE, || {
            thread::sleep(Duration::from_millis(200));
            let now = sent.load(Ordering::SeqCst);
            std::mem::replace(&mut last, now) == now
        });
        go.store(true, Ordering::SeqCst);
        assert!(stands, "the client can send for ever");
        assert!(last < KERNEL, "{last} bytes were taken for an origin that reads none");
    });
    let response = client.response().unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!((response.status, sent.into_inner()), (200, LARGE));
}

#[test]
fn many_connections_at_once() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut clients: Vec<_> = (0..300).map(|_| gateway.connect()).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(get(&format!("/{round}/{n}")));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let response = client.response().unwrap_or_else(|e| panic!("{round}/{n}: {e:?}"));
            assert_eq!(response.text(), format!("GET /{round}/{n}\n"), "answers are mixed up");
        }
    }
    assert_eq!(origin.completed(), 900);
}
