//! Bytes through the transport: sizes, splits, ends.

use rustls::client::ClientConnection;

use super::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn a_mebibyte_both_ways_in_pieces_of_any_size() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for ring in [
            RingConfig { buffers: 64, depth: 16, ..RingConfig::default() },
            small(),
            RingConfig { buffers: 4, depth: 2, buffer_bytes: 128, ..small() },
            RingConfig { multishot: false, ..small() },
        ] {
            let setup = Setup::new(&[&["a.test"]]);
            let config = Arc::new(client_config(&setup.authority, None, &[version]));
            // Buffers of 128 bytes are slow.
            let total = if ring.buffer_bytes < 1_000 { 1 << 16 } else { 1 << 20 };
            let results = echo_server(ring, vec![setup.side()], move |address| {
                let mut client = dial(&config, address, "a.test");
                for size in [1, 100, 1_000, 16_384, 16_385, 50_000] {
                    round(&mut client, &pattern(size)).unwrap();
                }
                let whole = pattern(total);
                let mut back = Vec::new();
                for piece in whole.chunks(20_000) {
                    round(&mut client, piece).unwrap();
                    back.extend_from_slice(piece);
                }
                assert!(back == whole);
                client.conn.send_close_notify();
                client.flush().unwrap();
                assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "close_notify is answered");
            });
            assert!(matches!(results[..], [Ok(_)]), "{results:?}");
        }
    }
}

/// Writes `limit` bytes at a time.
struct Dribble(TcpStream, usize);

impl Read for Dribble {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(self.1 * 3 + 1);
        self.0.read(&mut buf[..len])
    }
}

impl Write for Dribble {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(&buf[..buf.len().min(self.1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn the_wire_may_be_split_anywhere() {
    for limit in [1, 2, 7, 130, 1461] {
        let setup = Setup::new(&[&["a.test"]]);
        let config = Arc::new(setup.client(None));
        let results = echo_server(small(), vec![setup.side()], move |address| {
            let name = ServerName::try_from("a.test").unwrap();
            let connection = ClientConnection::new(config, name).unwrap();
            let mut client = StreamOwned::new(connection, Dribble(tcp(address), limit));
            for size in [1, 3, 500, 5_000 + limit] {
                round(&mut client, &pattern(size)).unwrap();
                client.conn.refresh_traffic_keys().unwrap();
            }
        });
        assert!(matches!(results[..], [Ok(_)]), "{results:?}");
    }
}

/// What the server reads up to the end, and how that was, while `client` runs.
fn read_all(client: impl FnOnce(SocketAddr) + Send + 'static, setup: &Setup) -> (Vec<u8>, String) {
    let (socket, address) = listener();
    let client = std::thread::spawn(move || client(address));
    let result = Arc::new(Mutex::new((Vec::new(), String::new())));
    let (out, side) = (result.clone(), setup.side());
    shard(small(), move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        let (stream, _) = acceptor.accept().await.unwrap();
        let watch = io.watch();
        watch.set_in(5_000);
        let tls = accept(&io, stream, &side, &watch).await.unwrap();
        let mut bytes = Vec::new();
        let end = loop {
            match tls.recv().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(chunk.bytes()),
                Ok(None) => break "end".to_owned(),
                Err(error) => break format!("{:?}", error.kind()),
            }
        };
        assert!(tls.has_input() && tls.has_ended(), "an end stays to be received");
        // The other half is open still.
        if end == "end" {
            tls.send(SendBuf::Static(b"late")).await.unwrap();
            tls.flush().await.unwrap();
            tls.shutdown_write();
            assert!(tls.send(SendBuf::Static(b"x")).await.is_err());
        }
        *out.lock().unwrap() = (bytes, end);
        drop((tls, acceptor));
        settle(&io).await;
    });
    client.join().unwrap();
    Arc::into_inner(result).unwrap().into_inner().unwrap()
}

#[test]
fn an_end_without_close_notify_is_an_error() {
    let setup = Setup::new(&[&["a.test"]]);
    let config = Arc::new(setup.client(None));
    let cut = config.clone();
    let result = read_all(
        move |address| {
            let mut client = dial(&cut, address, "a.test");
            client.write_all(b"cut").unwrap();
            client.flush().unwrap();
            client.sock.shutdown(std::net::Shutdown::Write).unwrap();
            // Tickets may come; then the end, as the server gives up.
            let _ = client.read(&mut [0; 16]);
        },
        &setup,
    );
    assert_eq!(result, (b"cut".to_vec(), "UnexpectedEof".to_owned()));
    let result = read_all(
        move |address| {
            let mut client = dial(&config, address, "a.test");
            client.write_all(b"whole").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            let mut late = Vec::new();
            client.read_to_end(&mut late).unwrap();
            assert_eq!(late, b"late");
        },
        &setup,
    );
    assert_eq!(result, (b"whole".to_vec(), "end".to_owned()));
}

#[test]
fn a_broken_record_is_answered_with_an_alert() {
    let setup = Setup::new(&[&["a.test"]]);
    let config = Arc::new(setup.client(None));
    let result = read_all(
        move |address| {
            let mut client = dial(&config, address, "a.test");
            client.write_all(b"fine").unwrap();
            client.flush().unwrap();
            // The handshake is to be over when the record comes: its tickets tell.
            client.sock.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            assert!(client.read(&mut [0; 16]).is_err(), "nothing but tickets comes");
            client.sock.set_read_timeout(None).unwrap();
            let mut record = vec![23, 3, 3, 0, 40];
            record.extend_from_slice(&[7; 40]);
            client.sock.write_all(&record).unwrap();
            let error = client.read(&mut [0; 16]).unwrap_err().to_string();
            assert!(error.contains("BadRecordMac"), "{error}");
        },
        &setup,
    );
    assert_eq!(result, (b"fine".to_vec(), "InvalidData".to_owned()));
}

#[test]
fn a_dropped_stream_closes_with_a_close_notify_unless_it_resets() {
    for reset in [false, true] {
        let setup = Setup::new(&[&["a.test"]]);
        let config = Arc::new(setup.client(None));
        let (socket, address) = listener();
        let client = std::thread::spawn(move || {
            let mut client = dial(&config, address, "a.test");
            let mut bytes = Vec::new();
            let end = client.read_to_end(&mut bytes);
            assert_eq!(bytes, b"answer");
            assert_eq!(end.is_err(), reset, "{end:?}");
        });
        let side = setup.side();
        shard(small(), move |io| async move {
            let acceptor = Acceptor::new(&io, socket.into());
            let (stream, _) = acceptor.accept().await.unwrap();
            let watch = io.watch();
            watch.set_in(5_000);
            let tls = accept(&io, stream, &side, &watch).await.unwrap();
            tls.send(SendBuf::Vec(b"answer".to_vec())).await.unwrap();
            tls.flush().await.unwrap();
            // The client has it before the reset, which would discard it.
            io.sleep_ms(100).await;
            if reset {
                tls.set_reset_on_close();
            }
            drop((tls, acceptor));
            settle(&io).await;
        });
        client.join().unwrap();
    }
}

#[test]
fn handshakes_given_up_leak_nothing() {
    let setup = Setup::new(&[&["a.test"]]);
    let side = setup.side();
    let (socket, address) = listener();
    let client = std::thread::spawn(move || {
        // The first part of a ClientHello, then silence until the server has gone.
        for _ in 0..20 {
            let mut client = tcp(address);
            client.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]).unwrap();
            let _ = client.read(&mut [0; 16]);
        }
    });
    shard(small(), move |io| async move {
        let acceptor = Acceptor::new(&io, socket.into());
        for _ in 0..20 {
            let (stream, _) = acceptor.accept().await.unwrap();
            let (watch, brief) = (io.watch(), io.watch());
            brief.set_in(30);
            assert!(brief.bound(accept(&io, stream, &side, &watch)).await.is_err());
        }
        drop(acceptor);
        settle(&io).await;
    });
    client.join().unwrap();
}
