//! TLS with clients (RFC 8446, RFC 9325): which certificate, which version, whose clients; live
//! changes of it; resumption and early data.

mod clients;
mod resumption;
mod upstream;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ProtocolVersion;
use tests::http2::H2Client;
use tests::http2::client::request;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{
    Authority, Client, Gateway, Identity, Origin, PATIENCE, TlsClient, WireError, eventually, get,
};

/// Writes an identity as NAME.pem and NAME.key, each at once.
pub(crate) fn place(dir: &std::path::Path, name: &str, identity: &Identity) {
    for (end, text) in [("key", &identity.key), ("pem", &identity.cert)] {
        let new = dir.join(format!("{name}.{end}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, dir.join(format!("{name}.{end}"))).unwrap();
    }
}

/// A certificate's entry in a spec, with more settings.
pub(crate) fn entry(name: &str, settings: &str) -> String {
    let comma = if settings.is_empty() { "" } else { ", " };
    format!("{{ cert: \"{{DIR}}/{name}.pem\", key: \"{{DIR}}/{name}.key\"{comma}{settings} }}")
}

/// One TLS listener, besides the clear one, on port PORTTLS.
pub(crate) struct Edge {
    gateway: Gateway,
    pub(crate) address: SocketAddr,
}

/// `settings` of `tls:` and its certificates.
fn edge(spec: Spec, files: &[(&str, &Identity)], settings: &str, certificates: &[String]) -> Edge {
    let scratch = Scratch::new();
    for (name, identity) in files {
        place(scratch.path(), name, identity);
    }
    edge_in(scratch, spec, settings, certificates, "")
}

/// As [`edge`], in a directory with more files, and with more settings of the listener.
pub(crate) fn edge_in(
    scratch: Scratch,
    spec: Spec,
    settings: &str,
    certificates: &[String],
    listener: &str,
) -> Edge {
    let comma = if settings.is_empty() { "" } else { ", " };
    let certificates = certificates.join(", ");
    let spec = spec.also_listener(
        "PORTTLS",
        &format!("tls: {{ certificates: [ {certificates} ]{comma}{settings} }}{listener}"),
    );
    let mut gateway = Gateway::start_in(scratch, &spec.text(), 2);
    let address = gateway.address_of("PORTTLS");
    Edge { gateway, address }
}

/// A request over a TLS connection of its own; `Err`: no handshake or no answer.
pub(crate) fn ask(
    address: SocketAddr,
    tls: &TlsClient,
    text: &str,
) -> Result<tests::Response, String> {
    let (stream, _) = tls.connect(address).map_err(|e| format!("handshake: {e}"))?;
    let mut client = Client::over(stream);
    client.send(text);
    client.response().map_err(|e| format!("{e:?}"))
}

fn get_at(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn certificates_by_server_name() {
    let authority = Authority::new("Names");
    // Each is valid for everything, so that the client takes whichever is shown.
    let everything =
        ["first.test", "api.test", "x.wild.test", "y.x.wild.test", "wild.test", "unknown.test"];
    let [first, exact, wild, inside] = [0; 4].map(|_| authority.server(&everything));
    let origin = Origin::echo();
    let edge = edge(
        Spec::to(origin.address()),
        &[("first", &first), ("exact", &exact), ("wild", &wild), ("inside", &inside)],
        "",
        &[
            entry("first", "names: [first.test]"),
            entry("wild", "names: [\"*.wild.test\"]"),
            entry("exact", "names: [api.test]"),
            entry("inside", "names: [x.wild.test]"),
        ],
    );
    for (name, wanted) in [
        ("first.test", &first),
        ("api.test", &exact),
        ("API.TEST", &exact),
        // An exact name goes before a wildcard.
        ("x.wild.test", &inside),
        // RFC 6125 §6.4.3: the wildcard stands for exactly one label.
        ("y.x.wild.test", &first),
        ("wild.test", &first),
        ("unknown.test", &first),
    ] {
        let shown = TlsClient::new(&authority, name).look(edge.address).certificate;
        assert_eq!(shown, wanted.der(), "{name}");
    }
    let nameless = TlsClient::new(&authority, "unknown.test").no_sni().look(edge.address);
    assert_eq!(nameless.certificate, first.der(), "without a name");
}

#[test]
fn names_default_to_the_certificates_own() {
    let authority = Authority::new("Names");
    let one = authority.server(&["one.test", "also.test"]);
    let two = authority.server(&["*.two.test"]);
    let origin = Origin::echo();
    let edge = edge(
        Spec::to(origin.address()),
        &[("one", &one), ("two", &two)],
        "",
        &[entry("one", ""), entry("two", "")],
    );
    for (name, wanted) in [("one.test", &one), ("also.test", &one), ("a.two.test", &two)] {
        let client = TlsClient::new(&authority, name);
        assert_eq!(client.look(edge.address).certificate, wanted.der(), "{name}");
        assert_eq!(ask(edge.address, &client, &get_at(name, "/x")).unwrap().text(), "GET /x\n");
    }
}

#[test]
fn strict_sni_refuses_strangers() {
    let authority = Authority::new("Strict");
    let site = authority.server(&["site.test", "other.test"]);
    let origin = Origin::echo();
    let edge = edge(
        Spec::to(origin.address()),
        &[("site", &site)],
        "strict_sni: true",
        &[entry("site", "names: [site.test]")],
    );
    let known = TlsClient::new(&authority, "site.test");
    assert_eq!(ask(edge.address, &known, &get_at("site.test", "/")).unwrap().status, 200);
    // RFC 6066 §3.
    let unknown = TlsClient::new(&authority, "other.test").connect(edge.address);
    let said = unknown.map(|(_, agreed)| agreed).unwrap_err().to_string();
    assert!(said.contains("UnrecognisedName") || said.contains("UnrecognizedName"), "{said}");
    assert!(known.no_sni().connect(edge.address).is_err(), "a client without a name");
}

#[test]
fn alpn_chooses_the_protocol() {
    let authority = Authority::new("ALPN");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let both = edge(Spec::to(origin.address()), &[("site", &site)], "", &[entry("site", "")]);
    let client = TlsClient::new(&authority, "a.test");
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        // RFC 7301 §3.2: the server's preference.
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let agreed = client.clone().alpn(offered).look(both.address);
        assert_eq!(agreed.alpn.as_deref(), chosen, "{offered:?}");
    }
    assert!(client.clone().alpn(&["spdy/3"]).connect(both.address).is_err(), "nothing in common");
    // Without ALPN it is HTTP/1.1.
    let silent = ask(both.address, &client.clone().alpn(&[]), &get("/silent")).unwrap();
    assert_eq!(silent.text(), "GET /silent\n");
    let mut h2 = H2Client::tls(both.address, &client);
    assert_eq!(h2.ask(&request("GET", "/h2"), b"").text(), "GET /h2\n");

    let old = edge(
        Spec::to(origin.address()),
        &[("site", &site)],
        "alpn: [http/1.1]",
        &[entry("site", "")],
    );
    let agreed = client.alpn(&["h2", "http/1.1"]).look(old.address);
    assert_eq!(agreed.alpn.as_deref(), Some("http/1.1"));
}

#[test]
fn versions() {
    let authority = Authority::new("Versions");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let files = [("site", &site)];
    let spec = || Spec::to(origin.address());
    let new = edge(spec(), &files, "", &[entry("site", "")]);
    let old = edge(spec(), &files, "min_version: \"1.2\"", &[entry("site", "")]);
    let client = TlsClient::new(&authority, "a.test");
    let [v12, v13] = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];
    assert_eq!(client.look(new.address).version, v13);
    let refused = client.clone().only(v12).connect(new.address);
    let said = refused.map(|(_, agreed)| agreed).unwrap_err().to_string();
    assert!(said.contains("ProtocolVersion"), "B-67: {said}");
    assert_eq!(client.look(old.address).version, v13);
    let client = client.only(v12);
    assert_eq!(client.look(old.address).version, v12);
    assert_eq!(ask(old.address, &client, &get("/old")).unwrap().text(), "GET /old\n");
}

#[test]
fn close_notify_both_ways() {
    let authority = Authority::new("Close");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(Spec::to(origin.address()), &[("site", &site)], "", &[entry("site", "")]);
    let tls = TlsClient::new(&authority, "a.test");
    // From the gateway: an end without it would be an error to the strict client.
    let mut client = Client::over(tls.connect(edge.address).unwrap().0);
    client.send("GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "GET /last\n");
    client.wire.closes_within(PATIENCE).unwrap();
    // From the client: after its close_notify nothing more is asked, and the gateway ends, too.
    let mut client = Client::over(tls.connect(edge.address).unwrap().0);
    assert_eq!(client.ask(get("/one")).text(), "GET /one\n");
    client.wire.half_close();
    client.wire.closes_within(PATIENCE).unwrap();
    // A request before it is still answered.
    let mut client = Client::over(tls.connect(edge.address).unwrap().0);
    client.send(get("/two"));
    client.wire.half_close();
    assert_eq!(client.response().unwrap().text(), "GET /two\n");
}

#[test]
fn a_truncated_request_is_no_request() {
    let authority = Authority::new("Cut");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(Spec::to(origin.address()), &[("site", &site)], "", &[entry("site", "")]);
    let tls = TlsClient::new(&authority, "a.test");
    // FIN without close_notify, inside a body.
    let (stream, _) = tls.connect(edge.address).unwrap();
    let mut client = Client::over(stream);
    client.send("POST /cut HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nhalf");
    let _ = client.wire.stream().shutdown(std::net::Shutdown::Write);
    assert!(!matches!(client.response(), Ok(response) if response.status == 200));
    assert!(!origin.seen().iter().any(|seen| seen.target == "/cut" && seen.complete));
}

#[test]
fn what_is_no_tls_is_dropped() {
    let authority = Authority::new("Garbage");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(Spec::to(origin.address()), &[("site", &site)], "", &[entry("site", "")]);
    let random: Vec<u8> =
        (0..512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (what, bytes) in [
        ("HTTP/1.1 in clear", get("/clear").into_bytes()),
        ("the HTTP/2 preface", tests::http2::frame::PREFACE.to_vec()),
        ("random bytes", random),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a record beyond the limit", [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat()),
        ("application data first", vec![23, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40]),
    ] {
        let mut client = Client::connect(edge.address);
        client.send(&bytes);
        // An alert may come first; what counts is that nothing in clear is served, and the end.
        let mut came = Vec::new();
        match client.wire.until_close(&mut |bytes| came.extend_from_slice(bytes)) {
            Ok(()) | Err(WireError::Reset(_)) => {}
            Err(e) => panic!("B-48, {what}: {e:?}"),
        }
        assert!(came.is_empty() || came.first() == Some(&21), "B-48, {what}: {came:?}");
    }
    let tls = TlsClient::new(&authority, "a.test");
    assert_eq!(ask(edge.address, &tls, &get("/after")).unwrap().text(), "GET /after\n");
    assert!(!origin.received("/clear"));
}

#[test]
fn slow_handshakes_end_at_their_timeout() {
    let authority = Authority::new("Slow");
    let site = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(
        Spec::to(origin.address()),
        &[("site", &site)],
        "handshake_timeout_ms: 400",
        &[entry("site", "")],
    );
    // The beginning of a record that never ends.
    for bytes in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        let mut client = Client::connect(edge.address);
        client.send(bytes);
        let mut came = 0;
        match client.wire.until_close(&mut |bytes| came += bytes.len()) {
            Ok(()) | Err(WireError::Reset(_)) => {}
            Err(e) => panic!("after {bytes:?}: {e:?}"),
        }
    }
    // One byte at a time does not reset the clock.
    let tcp = std::net::TcpStream::connect(edge.address).unwrap();
    let mut dribble = tcp.try_clone().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = thread::spawn(move || {
        let hello = [22u8, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        for byte in hello.iter().chain(std::iter::repeat_n(&0u8, 400)) {
            if stopped.load(Ordering::SeqCst) || dribble.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    let mut client = Client::over(tcp);
    client.patience(PATIENCE);
    let end = client.wire.until_close(&mut |_| {});
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    assert!(matches!(end, Ok(()) | Err(WireError::Reset(_))), "{end:?}");
}

#[test]
fn another_certificates_host_is_misdirected() {
    let authority = Authority::new("Misdirected");
    let a = authority.server(&["a.test", "alias.test"]);
    let b = authority.server(&["b.test"]);
    let origin = Origin::echo();
    let edge = edge(
        Spec::to(origin.address()),
        &[("a", &a), ("b", &b)],
        "",
        &[entry("a", ""), entry("b", "")],
    );
    let tls = TlsClient::new(&authority, "a.test");
    for (host, status) in
        [("a.test", 200), ("alias.test", 200), ("A.test:8443", 200), ("b.test", 421)]
    {
        let response = ask(edge.address, &tls, &get_at(host, "/m")).unwrap();
        assert_eq!(response.status, status, "B-66, h1: {host}");
        let mut h2 = H2Client::tls(edge.address, &tls);
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/m")];
        assert_eq!(h2.ask(&fields, b"").status, status, "B-66, h2: {host}");
        // B-66 keeps the connection.
        let good =
            [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/g")];
        assert_eq!(h2.ask(&good, b"").status, 200);
    }
    let forwarded =
        origin.seen().iter().filter(|seen| seen.field("host") == Some("b.test")).count();
    assert_eq!(forwarded, 0, "B-66: forwarded");
    // A host that no certificate names is the default's, and only its: what the default asks of
    // its clients cannot be got around by way of another site.
    let stranger = get_at("stranger.test", "/m");
    assert_eq!(ask(edge.address, &tls, &stranger).unwrap().status, 200);
    let tls = TlsClient::new(&authority, "b.test");
    assert_eq!(ask(edge.address, &tls, &stranger).unwrap().status, 421, "B-66: no one's host");
}

/// Handshakes over and over, on threads of their own.
struct Handshakes {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Option<String>>>,
}

impl Handshakes {
    fn start(address: SocketAddr, tls: &TlsClient) -> Handshakes {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2).map(|_| {
            let (stop, done, tls) = (stop.clone(), done.clone(), tls.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    match ask(address, &tls, &get("/h")) {
                        Ok(response) if response.status == 200 => {}
                        Ok(response) => return Some(response.head.start),
                        Err(e) => return Some(e),
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                None
            })
        });
        let threads = threads.collect();
        Handshakes { stop, done, threads }
    }

    fn await_more(&self, n: usize) {
        let from = self.done.load(Ordering::SeqCst);
        let there = || self.done.load(Ordering::SeqCst) >= from + n;
        assert!(eventually(PATIENCE, there), "handshakes have stopped");
    }

    fn stop_clean(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), None, "a handshake failed");
        }
    }
}

#[test]
fn certificates_are_swapped_without_a_failed_handshake() {
    let authority = Authority::new("Swap");
    let mut current = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(Spec::to(origin.address()), &[("site", &current)], "", &[entry("site", "")]);
    let tls = TlsClient::new(&authority, "a.test");
    let handshakes = Handshakes::start(edge.address, &tls);
    handshakes.await_more(20);
    for round in 0..3 {
        let next = authority.server(&["a.test"]);
        place(edge.gateway.dir(), "site", &next);
        let seen = || tls.look(edge.address).certificate == next.der();
        assert!(eventually(PATIENCE, seen), "round {round}: the new certificate is never shown");
        // On every shard: none goes back to the old one.
        for _ in 0..20 {
            assert_ne!(tls.look(edge.address).certificate, current.der(), "round {round}");
        }
        handshakes.await_more(20);
        current = next;
    }
    handshakes.stop_clean();
}

#[test]
fn half_a_pair_is_never_served() {
    let authority = Authority::new("Half");
    let first = authority.server(&["a.test"]);
    let next = authority.server(&["a.test"]);
    let origin = Origin::echo();
    let edge = edge(Spec::to(origin.address()), &[("site", &first)], "", &[entry("site", "")]);
    let tls = TlsClient::new(&authority, "a.test");
    let handshakes = Handshakes::start(edge.address, &tls);
    let dir = edge.gateway.dir();
    let (cut, _) = next.cert.split_at(next.cert.len() / 2);
    for (what, file, text) in [
        ("another key's certificate", "site.pem", next.cert.as_str()),
        ("half a certificate", "site.pem", cut),
        ("an empty certificate", "site.pem", ""),
        ("another certificate's key", "site.key", next.key.as_str()),
        ("no key", "site.key", "nonsense"),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
        // Longer than any watch takes to notice; the old pair goes on.
        thread::sleep(Duration::from_millis(1_200));
        assert_eq!(tls.look(edge.address).certificate, first.der(), "{what}");
        place(dir, "site", &first);
    }
    place(dir, "site", &next);
    let seen = || tls.look(edge.address).certificate == next.der();
    assert!(eventually(PATIENCE, seen), "the whole pair is never shown");
    handshakes.stop_clean();
}

#[test]
fn a_bad_certificate_is_refused_with_its_spec() {
    let authority = Authority::new("Bad");
    let site = authority.server(&["a.test"]);
    let other = authority.server(&["b.test"]);
    let origin = Origin::echo();
    let mut edge = edge(Spec::to(origin.address()), &[("site", &site)], "", &[entry("site", "")]);
    let dir = edge.gateway.dir().to_owned();
    std::fs::write(dir.join("mixed.pem"), &other.cert).unwrap();
    std::fs::write(dir.join("mixed.key"), &site.key).unwrap();
    std::fs::write(dir.join("junk.pem"), "junk").unwrap();
    std::fs::write(dir.join("junk.key"), "junk").unwrap();
    for name in ["mixed", "junk", "missing"] {
        let spec = Spec::to(origin.address())
            .also_listener("PORTTLS", &format!("tls: {{ certificates: [ {} ] }}", entry(name, "")));
        let (status, body) = edge.gateway.try_apply(&spec.text());
        assert!((400..500).contains(&status), "{name}: {status} {body}");
        assert!(body.contains("certificates"), "{name}: does not name the field: {body}");
        assert!(!body.contains("PRIVATE KEY"), "{name}: shows a key");
    }
    let tls = TlsClient::new(&authority, "a.test");
    assert_eq!(ask(edge.address, &tls, &get("/still")).unwrap().text(), "GET /still\n");
}
