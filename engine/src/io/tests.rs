//! The reactor against real sockets, and each trap of its design as a test.

#![allow(clippy::disallowed_methods, reason = "a test is the peer of the reactor")]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ring::RingConfig;
use super::*;

pub(crate) fn small() -> RingConfig {
    RingConfig { entries: 64, buffers: 64, buffer_bytes: 2048, depth: 16, multishot: true }
}

/// Runs a shard on a thread of its own and waits for its end.
pub(crate) fn shard<F, Fut>(ring: RingConfig, main: F)
where
    F: FnOnce(Io) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    // glommio's descriptors are told apart by comparing before and after: one start at a time.
    static START: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = START.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (started, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        launch(Launch { cpu: None, ring }, move || started.send(()).unwrap(), main).unwrap();
    });
    let _ = wait.recv();
    drop(guard);
    thread.join().expect("the shard ended without a panic");
}

pub(crate) fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (OwnedFd, TcpStream) {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (server.into(), client)
}

async fn echo(stream: Stream) {
    while let Ok(Some(chunk)) = stream.recv().await {
        if stream.send(SendBuf::Chunk(chunk)).await.is_err() {
            return;
        }
    }
    let _ = stream.flush().await;
}

async fn settle(io: &Io) {
    for _ in 0..20 {
        io.sleep_ms(5).await;
    }
}

fn echo_many(config: RingConfig) {
    let (socket, address) = listener();
    let clients = std::thread::spawn(move || {
        let mut clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        for round in 0..20u8 {
            for (n, client) in clients.iter_mut().enumerate() {
                let message = vec![round ^ n as u8; 1 + (n * 97 + round as usize * 13) % 3000];
                client.write_all(&message).unwrap();
                let mut back = vec![0; message.len()];
                client.read_exact(&mut back).unwrap();
                assert_eq!(message, back);
            }
        }
    });
    shard(config, move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        let open = Rc::new(Cell::new(0));
        for _ in 0..40 {
            let (stream, _) = acceptor.accept().await.unwrap();
            open.set(open.get() + 1);
            let open = open.clone();
            io.spawn(async move {
                echo(stream).await;
                open.set(open.get() - 1);
            });
        }
        while open.get() > 0 {
            io.sleep_ms(5).await;
        }
        drop(acceptor);
        settle(&io).await;
        assert_eq!(io.0.buffers.in_use(), 0, "every buffer came back");
        assert!(io.in_flight() <= 3, "only the polls of glommio's three rings remain");
    });
    clients.join().unwrap();
}

#[test]
fn echoes_over_multishot_receives() {
    echo_many(small());
}

#[test]
fn echoes_over_single_receives() {
    echo_many(RingConfig { multishot: false, ..small() });
}

#[test]
fn too_few_buffers_degrade_and_lose_nothing() {
    echo_many(RingConfig { buffers: 2, depth: 1, buffer_bytes: 128, ..small() });
}

#[test]
fn a_full_submission_queue_is_submitted_on_the_way() {
    echo_many(RingConfig { entries: 4, ..small() });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let (server, client) = pair();
    shard(small(), move |io| async move {
        let stream = Stream::from_fd(&io, server);
        let watch = io.watch();
        watch.set_in(50);
        assert!(watch.bound(stream.recv()).await.is_err());
        assert_eq!(io.0.buffers.in_use(), 0);
        drop(client);
        assert!(matches!(stream.recv().await, Ok(None)));
    });
}

#[test]
fn a_dropped_future_leaks_no_buffer_no_fd_and_no_slot() {
    let (socket, address) = listener();
    let (never_accepts, elsewhere) = listener();
    shard(small(), move |io| async move {
        for round in 0..20 {
            // A receive, a flush behind a full socket, a connect and an accept, all abandoned.
            let acceptor = Acceptor::new(&io, socket.as_fd().try_clone_to_owned().unwrap());
            let mut peer = TcpStream::connect(address).unwrap();
            let (stream, _) = acceptor.accept().await.unwrap();
            peer.write_all(&vec![7; 100 + round * 100]).unwrap();
            let watch = io.watch();
            watch.set_in(1);
            let _ = watch.bound(stream.recv()).await;
            watch.set_in(1);
            let _ = watch.bound(stream.recv()).await;
            watch.set_in(1);
            let big = vec![0u8; 8 << 20];
            let _ = watch
                .bound(async {
                    stream.send(SendBuf::Vec(big)).await.unwrap();
                    stream.flush().await
                })
                .await;
            watch.set_in(1);
            let _ = watch.bound(connect(&io, elsewhere)).await;
            drop(stream);
            drop(acceptor);
            // The descriptor is really closed: the peer sees the end.
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            settle(&io).await;
            let mut rest = [0; 65536];
            let ended = loop {
                match peer.read(&mut rest) {
                    Ok(0) | Err(_) => break true,
                    Ok(_) => {}
                }
            };
            assert!(ended);
        }
        assert_eq!(io.0.buffers.in_use(), 0, "buffers");
        assert!(io.in_flight() <= 3, "only the polls of glommio's three rings remain");
        drop(never_accepts);
    });
}

#[test]
fn a_slow_reader_stops_a_fast_peer() {
    let (server, mut client) = pair();
    const TOTAL: usize = 4 << 20;
    let writer = std::thread::spawn(move || {
        client.write_all(&vec![1; TOTAL]).unwrap();
    });
    shard(small(), move |io| async move {
        let stream = Stream::from_fd(&io, server);
        stream.set_bulk(true);
        let mut got = 0;
        let mut most = 0;
        while let Some(chunk) = stream.recv().await.unwrap() {
            got += chunk.len();
            if got < 64 << 10 {
                io.sleep_ms(2).await;
                most = most.max(io.0.buffers.in_use());
            }
        }
        assert_eq!(got, TOTAL);
        assert!(most <= 2, "{most} buffers were held for a reader that was asleep");
    });
    writer.join().unwrap();
}

#[test]
fn a_multishot_receive_pauses_when_its_reader_sleeps() {
    let (server, mut client) = pair();
    const TOTAL: usize = 8 << 20;
    let writer = std::thread::spawn(move || {
        client.write_all(&vec![1; TOTAL]).unwrap();
    });
    shard(RingConfig { buffers: 1024, depth: 1024, ..small() }, move |io| async move {
        let stream = Stream::from_fd(&io, server);
        let mut got = stream.recv().await.unwrap().map_or(0, |chunk| chunk.len());
        io.sleep_ms(50).await;
        let held = io.0.buffers.in_use() * 2048;
        assert!(held < 1 << 20, "{held} bytes held of {TOTAL}");
        while let Some(chunk) = stream.recv().await.unwrap() {
            got += chunk.len();
        }
        assert_eq!(got, TOTAL);
    });
    writer.join().unwrap();
}

#[test]
fn sends_arrive_whole_and_in_order() {
    let (server, mut client) = pair();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all
    });
    shard(small(), move |io| async move {
        let stream = Stream::from_fd(&io, server);
        for n in 0..100u8 {
            stream.send(SendBuf::Vec(vec![n; 50_000])).await.unwrap();
        }
        stream.flush().await.unwrap();
    });
    let all = reader.join().unwrap();
    assert_eq!(all.len(), 100 * 50_000);
    assert!(all.chunks(50_000).enumerate().all(|(n, part)| part.iter().all(|b| *b == n as u8)));
}

#[test]
fn connects_and_reports_refusals() {
    let (socket, address) = listener();
    let (unused, refused) = listener();
    drop(unused);
    shard(small(), move |io| async move {
        let stream = connect(&io, address).await.unwrap();
        let (mut peer, _) = socket.accept().unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(stream.recv().await.unwrap().unwrap().bytes(), b"hello");
        let error = connect(&io, refused).await.err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_reset_is_an_error_and_stays_one() {
    let (server, client) = pair();
    shard(small(), move |io| async move {
        let stream = Stream::from_fd(&io, server);
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        assert!(stream.recv().await.is_err());
        assert!(stream.recv().await.is_err());
        let mut error = None;
        for _ in 0..3 {
            error = stream.send(SendBuf::Static(b"x")).await.err().or(error);
            error = stream.flush().await.err().or(error);
        }
        assert!(error.is_some(), "sending on a reset connection fails");
    });
}

#[test]
fn glommio_timers_fire_while_the_driver_blocks() {
    // A multishot poll on an io_uring fd ends after one event, so the guest polls are re-armed:
    // several timers in a row would hang otherwise.
    shard(small(), move |io| async move {
        let started = Instant::now();
        for _ in 0..10 {
            glommio::timer::sleep(Duration::from_millis(3)).await;
        }
        assert!(started.elapsed() >= Duration::from_millis(30));
        drop(io);
    });
}

/// glommio sleeps for good when its own timer is up before it has run anything in its turn.
#[test]
fn time_alone_never_has_glommio_look_up() {
    shard(small(), move |io| async move {
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(30));
            assert!(!glommio::executor().need_preempt(), "what was rung for was seen to");
            io.sleep_ms(1).await;
        }
    });
}

#[test]
fn glommio_channels_and_queues_work_beside_the_driver() {
    shard(small(), move |io| async move {
        let (sender, receiver) = glommio::channels::local_channel::new_bounded(1);
        io.spawn(async move {
            for n in 0..100 {
                sender.send(n).await.unwrap();
            }
        });
        let mut sum = 0;
        while let Some(n) = receiver.recv().await {
            sum += n;
        }
        assert_eq!(sum, 4950);
    });
}

#[test]
fn an_eventfd_wakes_a_blocked_shard() {
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let far = event.try_clone().unwrap();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        rustix::io::write(&far, &1u64.to_ne_bytes()).unwrap();
    });
    shard(small(), move |io| async move {
        io.readable(event.as_fd()).await.unwrap();
    });
    waker.join().unwrap();
}

#[test]
fn an_idle_shard_sleeps() {
    let (server, _client) = pair();
    shard(small(), move |io| async move {
        let stream = Stream::from_fd(&io, server);
        let before = io.counts().enters.get();
        let watch = io.watch();
        watch.set_in(500);
        assert!(watch.bound(stream.recv()).await.is_err());
        let enters = io.counts().enters.get() - before;
        assert!(enters < 250, "{enters} enters in half an idle second");
    });
}

#[test]
fn a_panicking_task_ends_alone() {
    let (server, mut client) = pair();
    shard(small(), move |io| async move {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let stream = Stream::from_fd(&io, server);
        io.spawn(async move {
            let _owned = stream;
            std::panic::resume_unwind(Box::new("a defect"));
        });
        settle(&io).await;
        assert_eq!(io.counts().panics.get(), 1);
        // Its stream was closed.
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).unwrap(), 0);
        seen.borrow_mut().push(1);
    });
}

#[test]
fn deadlines_bound_futures_and_can_move() {
    shard(small(), move |io| async move {
        let watch = io.watch();
        let started = io.clock().now_ms();
        watch.set_in(20);
        assert_eq!(watch.bound(std::future::pending::<()>()).await, Err(Elapsed));
        assert!(io.clock().now_ms() - started >= 20);
        watch.set_in(10_000);
        assert_eq!(watch.bound(io.sleep_ms(20)).await, Ok(()));
        watch.clear();
        assert_eq!(watch.bound(io.sleep_ms(20)).await, Ok(()));
    });
}

#[test]
fn a_plain_submit_without_getevents_would_never_complete() {
    // The trap itself, on a bare ring: with DEFER_TASKRUN, completions appear only when an enter
    // carries GETEVENTS.
    let mut ring: io_uring::IoUring =
        io_uring::IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8).unwrap();
    let (server, mut client) = pair();
    let entry = io_uring::opcode::PollAdd::new(
        io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(&server)),
        libc::POLLIN as u32,
    )
    .build();
    // SAFETY: a poll refers to no memory.
    unsafe { ring.submission().push(&entry).unwrap() };
    ring.submit().unwrap();
    client.write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    ring.submit().unwrap();
    assert_eq!(ring.completion().len(), 0, "nothing appears without GETEVENTS");
    // SAFETY: plain enter without an argument.
    unsafe {
        let flags = io_uring::EnterFlags::GETEVENTS.bits();
        ring.submitter().enter::<libc::sigset_t>(0, 0, flags, None).unwrap();
    }
    assert_eq!(ring.completion().len(), 1);
}

#[test]
fn seventeen_executors_fit_the_default_memlock() {
    let threads: Vec<_> = (0..17)
        .map(|_| {
            std::thread::spawn(|| {
                shard(RingConfig::default(), |io| async move { io.sleep_ms(50).await });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
