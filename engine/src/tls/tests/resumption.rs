//! Session tickets, remembered sessions, early data.

use rustls::client::{ClientConnection, Resumption};

use super::*;

/// A round per side with one client's session store; whether each was resumed.
fn rounds(setup: &Setup, mut config: ClientConfig, sides: Vec<Arc<ServerSide>>) -> Vec<bool> {
    config.resumption = Resumption::in_memory_sessions(16);
    let (config, count) = (Arc::new(config), sides.len());
    let name = setup.tls.sites[0].names[0].clone();
    let results = echo_server(small(), sides, move |address| {
        for _ in 0..count {
            round(&mut dial(&config, address, &name), b"hello").unwrap();
        }
    });
    results.into_iter().map(|result| result.unwrap().resumed).collect()
}

#[test]
fn tickets_hold_wherever_the_keys_are_the_same() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut setup = Setup::new(&[&["a.test"]]);
        let client = || client_config(&setup.authority, None, &[version]);
        // Two engines that know nothing of each other.
        let (one, two) = (setup.side(), setup.side());
        let config = client();
        assert_eq!(
            rounds(&setup, config, vec![one.clone(), two.clone(), one.clone()]),
            [false, true, true]
        );
        // The next key seals, the old one still opens; a forgotten one does not.
        let config = client();
        setup.snapshot.ticket_keys = vec![key(2), key(1)];
        let rotated = setup.side();
        setup.snapshot.ticket_keys = vec![key(2)];
        let forgotten = setup.side();
        assert_eq!(
            rounds(&setup, config, vec![one.clone(), rotated.clone(), forgotten.clone()]),
            [false, true, true]
        );
        let config = client_config(&setup.authority, None, &[version]);
        assert_eq!(rounds(&setup, config, vec![one, forgotten]), [false, false]);
    }
}

#[test]
fn a_session_never_outlives_the_policy_that_admitted_it() {
    let mut setup = Setup::new(&[&["a.test"]]);
    let clients = Authority::new("Clients");
    let identity = clients.with_serial(&["good.client"], 8);
    setup.client_auth(&clients, Vec::new(), true);
    let required = setup.side();
    setup.client_auth(&clients, vec![clients.crl(&[7])], true);
    let with_crl = setup.side();
    setup.client_auth(&clients, Vec::new(), false);
    let requested = setup.side();
    let sides = vec![required.clone(), required, with_crl.clone(), with_crl, requested];
    let resumed = rounds(&setup, setup.client(Some(&identity)), sides);
    assert_eq!(resumed, [false, true, false, true, false]);
}

#[test]
fn a_resumed_session_keeps_the_clients_certificate() {
    let mut setup = Setup::new(&[&["a.test"]]);
    let clients = Authority::new("Clients");
    setup.client_auth(&clients, Vec::new(), true);
    let config = Arc::new(setup.client(Some(&clients.issue(&["good.client"]))));
    let results = echo_server(small(), vec![setup.side(), setup.side()], move |address| {
        round(&mut dial(&config, address, "a.test"), b"hello").unwrap();
        round(&mut dial(&config, address, "a.test"), b"hello").unwrap();
    });
    let [Ok(first), Ok(second)] = &results[..] else { panic!("{results:?}") };
    assert!(!first.resumed && second.resumed && first.xfcc.is_some());
    assert_eq!(first.xfcc, second.xfcc);
}

#[test]
fn early_data_is_taken_once() {
    let mut setup = Setup::new(&[&["a.test"]]);
    setup.tls.early_data_bytes = 4096;
    let memory = Memory::default();
    let side = setup.side_with(&memory);
    // Another plan of the same engine knows the sessions too.
    setup.tls.handshake_timeout_ms += 1;
    let next = setup.side_with(&memory);
    assert!(!Arc::ptr_eq(&side, &next));
    let mut config = setup.client(None);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let sides = vec![side.clone(), next, side.clone(), side];
    let results = echo_server(small(), sides, move |address| {
        round(&mut dial(&config, address, "a.test"), b"hello").unwrap();
        // The client's first flight, with early data, kept for the replay.
        let name = ServerName::try_from("a.test").unwrap();
        let mut connection = ClientConnection::new(config.clone(), name).unwrap();
        connection.early_data().expect("a session with early data").write_all(b"early").unwrap();
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        let mut socket = tcp(address);
        socket.write_all(&flight).unwrap();
        // Answered in half a round trip, before the end of the handshake.
        let mut client = StreamOwned::new(connection, socket);
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"early");
        assert!(client.conn.is_early_data_accepted());
        round(&mut client, b"late").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        drop(client);
        // The replay gets nowhere: its early data is not taken, and it has no keys to go on.
        let mut replay = tcp(address);
        replay.write_all(&flight).unwrap();
        replay.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = replay.read_to_end(&mut Vec::new());
        drop(replay);
        // A client that did it all properly again.
        round(&mut dial(&config, address, "a.test"), b"again").unwrap();
    });
    let [Ok(first), Ok(second), Err(Cause::Gone), Ok(last)] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(!first.resumed && !first.took_early);
    assert!(second.resumed && second.took_early);
    assert!(!last.took_early);
}

#[test]
fn early_data_is_early_until_the_handshake_is_complete() {
    let mut setup = Setup::new(&[&["a.test"]]);
    setup.tls.early_data_bytes = 4096;
    let side = setup.side();
    let mut config = setup.client(None);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let (socket, address) = listener();
    let client = std::thread::spawn(move || {
        round(&mut dial(&config, address, "a.test"), b"hello").unwrap();
        let mut client = dial(&config, address, "a.test");
        client.conn.early_data().unwrap().write_all(b"early").unwrap();
        let mut back = [0; 4];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"wait");
        round(&mut client, b"late").unwrap();
    });
    shard(small(), move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        let watch = io.watch();
        watch.set_in(5_000);
        let (stream, _) = acceptor.accept().await.unwrap();
        echo(&accept(&io, stream, &side, &watch).await.unwrap()).await.unwrap_or(());
        let (stream, _) = acceptor.accept().await.unwrap();
        let tls = accept(&io, stream, &side, &watch).await.unwrap();
        let early = tls.recv().await.unwrap().unwrap();
        assert_eq!(early.bytes(), b"early");
        assert!(tls.facts().is_early() && tls.facts().took_early_data());
        tls.send(SendBuf::Static(b"wait")).await.unwrap();
        let late = tls.recv().await.unwrap().unwrap();
        assert!(!tls.facts().is_early() && tls.facts().took_early_data());
        tls.send(SendBuf::Chunk(late)).await.unwrap();
        tls.flush().await.unwrap();
        drop((tls, acceptor));
        settle(&io).await;
    });
    client.join().unwrap();
}
