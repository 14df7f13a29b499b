use super::*;
use rustix::io::{FdFlags, fcntl_getfd};
use std::io::{Read, Write};

const SOON: Duration = Duration::from_secs(10);

fn pass(message: Message) -> Message {
    let (a, b) = Bus::pair().unwrap();
    a.send(&message).unwrap();
    b.recv_timeout(SOON).unwrap().unwrap()
}

#[test]
fn every_message_without_descriptors_arrives_as_sent() {
    let v4: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let v6: SocketAddr = "[::1%3]:8080".parse().unwrap();
    for message in [
        Message::CloseListener { address: v6 },
        Message::Drain { timeout_ms: 7 },
        Message::Ready { pid: 1, shards: 2 },
        Message::Rejected { epoch: 3, reason: "no such upstream".into() },
        Message::Adopted { epoch: u64::MAX },
        Message::Drained,
        Message::Bind { id: 9, addresses: vec![v4, v6] },
        Message::Bound { id: 9, error: None },
        Message::Bound { id: 9, error: Some("in use".into()) },
        Message::Published { epoch: 4 },
        Message::EngineUp { pid: 5 },
        Message::EngineDown { reason: "signal 9".into() },
        Message::Shutdown,
        Message::AskCache { id: 9, purge: None },
        Message::AskCache {
            id: 10,
            purge: Some(Purge { tag: "a".into(), below: true, ..Purge::default() }),
        },
        Message::ListLimits { id: 8, consumer: "acme".into(), most: 10 },
    ] {
        let sent = format!("{message:?}");
        assert_eq!(format!("{:?}", pass(message)), sent);
    }
}

#[test]
fn descriptors_arrive_and_are_close_on_exec() {
    type Make = fn(OwnedFd) -> Message;
    let makes: [Make; 6] = [
        |fd| Message::Segment { fd },
        |fd| Message::Snapshot { epoch: 7, fd },
        |fd| Message::Publish { epoch: 7, fd },
        |fd| Message::LastSnapshot { epoch: 7, fd },
        |fd| Message::Limits { id: 7, fd },
        |fd| Message::Cache { id: 7, fd },
    ];
    for make in makes {
        let fd = match pass(make(seal(b"bytes").unwrap())) {
            Message::Segment { fd }
            | Message::Snapshot { epoch: 7, fd }
            | Message::Publish { epoch: 7, fd }
            | Message::LastSnapshot { epoch: 7, fd }
            | Message::Limits { id: 7, fd }
            | Message::Cache { id: 7, fd } => fd,
            other => panic!("{other:?}"),
        };
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(&*read_sealed(&fd).unwrap(), b"bytes");
    }
}

#[test]
fn listening_sockets_arrive_in_their_order_up_to_the_bound() {
    let address = "127.0.0.1:1".parse().unwrap();
    let sockets = |count| {
        let one = |n: usize| seal(&n.to_le_bytes()).unwrap();
        (0..count).map(one).collect::<Vec<_>>()
    };
    for count in [0, 1, MAX_FDS] {
        match pass(Message::Listener { address, sockets: sockets(count) }) {
            Message::Listener { address: got, sockets } => {
                assert_eq!(got, address);
                assert_eq!(sockets.len(), count);
                for (n, socket) in sockets.iter().enumerate() {
                    assert_eq!(&*read_sealed(socket).unwrap(), &n.to_le_bytes());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let (a, _b) = Bus::pair().unwrap();
    let error = a.send(&Message::Listener { address, sockets: sockets(MAX_FDS + 1) });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let reason = "\u{20ac}".repeat(30_000);
    match pass(Message::EngineDown { reason: reason.clone() }) {
        Message::EngineDown { reason: got } => {
            assert!(reason.starts_with(&got) && got.len() > 16_000);
        }
        other => panic!("{other:?}"),
    }
    let addresses = vec!["127.0.0.1:1".parse().unwrap(); 10_000];
    let (a, _b) = Bus::pair().unwrap();
    let error = a.send(&Message::Bind { id: 1, addresses }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_end_of_the_peer_shows_after_all_it_said() {
    let (a, b) = Bus::pair().unwrap();
    a.send(&Message::Adopted { epoch: 1 }).unwrap();
    a.send(&Message::Drained).unwrap();
    b.send(&Message::Shutdown).unwrap();
    // `a` goes with a message unread.
    drop(a);
    assert!(matches!(b.recv().unwrap(), Some(Message::Adopted { epoch: 1 })));
    assert!(matches!(b.recv().unwrap(), Some(Message::Drained)));
    assert!(b.recv().unwrap().is_none());
    assert!(b.recv_timeout(SOON).unwrap().is_none());
    assert_eq!(b.send(&Message::Shutdown).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn silence_times_out() {
    let (_a, b) = Bus::pair().unwrap();
    let error = b.recv_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn nonsense_is_refused_its_descriptors_closed_and_the_next_message_read() {
    let (a, b) = Bus::pair().unwrap();
    let send_raw = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        sendmsg(&a, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    };
    let (mut reader, writer) = io::pipe().unwrap();
    send_raw(&[200], &[writer.as_fd()]);
    send_raw(&[DRAINED], &[writer.as_fd()]);
    send_raw(&[SEGMENT], &[writer.as_fd(), writer.as_fd()]);
    send_raw(&[SEGMENT], &[]);
    send_raw(&[DRAIN, 1, 2], &[]);
    send_raw(&[DRAINED, 0], &[]);
    send_raw(&vec![0; MAX_MESSAGE + 1], &[]);
    for _ in 0..7 {
        let error = b.recv_timeout(SOON).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    a.send(&Message::Drained).unwrap();
    assert!(matches!(b.recv_timeout(SOON).unwrap(), Some(Message::Drained)));
    // With ours closed, nobody holds the pipe open for writing any more.
    (&writer).write_all(b"x").unwrap();
    drop(writer);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"x");
}

/// The child's side of the next test; alone it has no bus to stand on.
#[test]
#[ignore = "started by a_child_inherits_its_end_as_standard_input"]
fn echo_as_a_child() {
    let bus = Bus::from_stdin().unwrap();
    // Standard input is empty now, not the bus.
    assert_eq!(io::stdin().read(&mut [0; 8]).unwrap(), 0);
    while let Some(message) = bus.recv().unwrap() {
        bus.send(&message).unwrap();
    }
}

#[test]
fn a_child_inherits_its_end_as_standard_input() {
    let (ours, theirs) = Bus::pair().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "bus::tests::echo_as_a_child"])
        .stdin(OwnedFd::from(theirs))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    ours.send(&Message::Segment { fd: seal(b"passed on").unwrap() }).unwrap();
    match ours.recv_timeout(SOON).unwrap() {
        Some(Message::Segment { fd }) => assert_eq!(&*read_sealed(fd).unwrap(), b"passed on"),
        other => panic!("{other:?}"),
    }
    drop(ours);
    assert!(child.wait().unwrap().success());
}

#[test]
fn only_a_socket_is_a_bus() {
    assert!(Bus::from_fd(seal(b"x").unwrap()).is_err());
}
