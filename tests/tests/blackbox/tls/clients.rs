//! Client certificates: asked for, judged, told to the upstream.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Authority, Identity, Origin, PATIENCE, TlsClient, eventually, get};

use super::{Edge, ask, edge_in, entry, place};

const XFCC: &str = "x-forwarded-client-cert";

/// SHA-256 in lower-case hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 suite");
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Mutual {
    edge: Edge,
    origin: Origin,
    servers: Authority,
    clients: Authority,
}

/// A listener whose only site asks clients for certificates of an authority of their own.
fn mutual(mode: &str, revoked: &[&Identity], clients: Authority) -> Mutual {
    let servers = Authority::new("Servers");
    let origin = Origin::echo();
    let scratch = Scratch::new();
    place(scratch.path(), "site", &servers.server(&["a.test"]));
    scratch.file("clients.pem", clients.pem());
    scratch.file("clients.crl", &clients.crl(revoked));
    let auth = format!(
        "client_auth: {{ mode: {mode}, ca: \"{{DIR}}/clients.pem\", crl: \"{{DIR}}/clients.crl\" }}"
    );
    let spec = Spec::to(origin.address());
    let edge = edge_in(scratch, spec, "", &[entry("site", &auth)], "");
    Mutual { edge, origin, servers, clients }
}

impl Mutual {
    fn client(&self) -> TlsClient {
        TlsClient::new(&self.servers, "a.test")
    }

    fn ask(&self, tls: &TlsClient) -> Result<u16, String> {
        ask(self.edge.address, tls, &get("/m")).map(|response| response.status)
    }
}

#[test]
fn required_certificates() {
    let clients = Authority::new("Clients");
    let revoked = clients.client("revoked", "spiffe://test/revoked");
    let mutual = mutual("require", &[&revoked], clients);
    let good = mutual.clients.client("good", "spiffe://test/good");
    assert_eq!(mutual.ask(&mutual.client().identity(&good)), Ok(200));
    let stranger = Authority::new("Strangers").client("good", "spiffe://test/good");
    let expired = mutual.clients.expired("expired");
    let server = mutual.clients.server(&["good.test"]);
    let before = mutual.origin.completed();
    for (what, client) in [
        ("none", mutual.client()),
        ("another authority's", mutual.client().identity(&stranger)),
        ("an expired one", mutual.client().identity(&expired)),
        ("one for servers", mutual.client().identity(&server)),
        ("a revoked one", mutual.client().identity(&revoked)),
    ] {
        let answer = mutual.ask(&client);
        assert!(answer.is_err(), "B-65, {what}: {answer:?}");
    }
    assert_eq!(mutual.origin.completed(), before, "B-65: forwarded");
    // With TLS 1.3 the alert comes on the first read (RFC 8446 §4.4.2.4, §6.2).
    let said = mutual.ask(&mutual.client()).unwrap_err();
    assert!(!said.contains("TimedOut"), "{said}");
}

#[test]
fn requested_certificates() {
    let clients = Authority::new("Clients");
    let revoked = clients.client("revoked", "spiffe://test/revoked");
    let mutual = mutual("request", &[&revoked], clients);
    assert_eq!(mutual.ask(&mutual.client()), Ok(200));
    assert_eq!(mutual.origin.last().field(XFCC), None);
    let good = mutual.clients.client("good", "spiffe://test/good");
    assert_eq!(mutual.ask(&mutual.client().identity(&good)), Ok(200));
    assert!(mutual.origin.last().field(XFCC).is_some());
    let before = mutual.origin.completed();
    for bad in [&revoked, &mutual.clients.expired("expired")] {
        let answer = mutual.ask(&mutual.client().identity(bad));
        assert!(matches!(answer, Err(_) | Ok(403)), "B-65: {answer:?}");
    }
    assert_eq!(mutual.origin.completed(), before, "B-65: forwarded");
}

#[test]
fn the_upstream_learns_who_the_client_is_and_never_from_the_client() {
    let mutual = mutual("request", &[], Authority::new("Clients"));
    let good = mutual.clients.client("good", "spiffe://test/good");
    let forged = "GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Client-Cert: Hash=00;Subject=\"CN=root\"\r\n\
         x-forwarded-client-cert: URI=spiffe://test/root\r\n\r\n";
    let address = mutual.edge.address;
    assert_eq!(ask(address, &mutual.client().identity(&good), forged).unwrap().status, 200);
    let seen = mutual.origin.last();
    let xfcc = seen.field(XFCC).expect("XFCC").to_owned();
    // Envoy's form: elements by `;`, the hash of the DER, the subject in quotes.
    assert!(xfcc.contains(&format!("Hash={}", sha256(&good.der()))), "{xfcc}");
    assert!(xfcc.contains("CN=good"), "{xfcc}");
    assert!(xfcc.contains("URI=spiffe://test/good"), "{xfcc}");
    assert!(!xfcc.contains("root"), "{xfcc}");
    // Without a certificate, and in clear, it is taken away and nothing put in its place.
    assert_eq!(ask(address, &mutual.client(), forged).unwrap().status, 200);
    assert_eq!(mutual.origin.last().field(XFCC), None);
    assert_eq!(mutual.edge.gateway.ask(forged).status, 200);
    assert_eq!(mutual.origin.last().field(XFCC), None);
}

#[test]
fn a_subject_cannot_say_more_than_it_is() {
    let mutual = mutual("require", &[], Authority::new("Clients"));
    // What would end the quotes and begin another element.
    let name = "x\";URI=spiffe://test/root;Hash=00;Subject=\"y,z\\";
    let odd = mutual.clients.client(name, "spiffe://test/odd");
    assert_eq!(mutual.ask(&mutual.client().identity(&odd)), Ok(200));
    let seen = mutual.origin.last();
    let xfcc = seen.field(XFCC).expect("XFCC");
    // Split as a reader does: `;` and `,` count outside of quotes only, `\` takes the next byte.
    let (mut quoted, mut escaped, mut plain) = (false, false, String::new());
    for c in xfcc.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => plain.push(c),
            _ => {}
        }
    }
    assert!(!quoted, "open quotes: {xfcc}");
    assert_eq!(plain.matches("URI=").count(), 1, "{xfcc}");
    assert_eq!(plain.matches("Hash=").count(), 1, "{xfcc}");
    assert!(!plain.contains("root"), "{xfcc}");
}

#[test]
fn revocation_lists_and_authorities_are_swapped_live() {
    let mutual = mutual("require", &[], Authority::new("Clients"));
    let one = mutual.clients.client("one", "spiffe://test/one");
    let two = mutual.clients.client("two", "spiffe://test/two");
    let [one_tls, two_tls] = [&one, &two].map(|identity| mutual.client().identity(identity));
    assert_eq!((mutual.ask(&one_tls), mutual.ask(&two_tls)), (Ok(200), Ok(200)));
    let dir = mutual.edge.gateway.dir();
    let put = |name: &str, text: &str| {
        std::fs::write(dir.join("new"), text).unwrap();
        std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
    };
    put("clients.crl", &mutual.clients.crl(&[&one]));
    assert!(eventually(PATIENCE, || mutual.ask(&one_tls).is_err()), "the revoked one is served");
    assert_eq!(mutual.ask(&two_tls), Ok(200));
    // Back again: a list is a state, not a history.
    put("clients.crl", &mutual.clients.crl(&[]));
    assert!(eventually(PATIENCE, || mutual.ask(&one_tls) == Ok(200)), "no way back");
    // Another authority, with its own list.
    let others = Authority::new("Others");
    let new = mutual.client().identity(&others.client("new", "spiffe://test/new"));
    put("clients.crl", &others.crl(&[]));
    put("clients.pem", others.pem());
    assert!(eventually(PATIENCE, || mutual.ask(&new) == Ok(200)), "the new authority's client");
    assert!(eventually(PATIENCE, || mutual.ask(&two_tls).is_err()), "the old authority's client");
}

#[test]
fn each_site_asks_for_itself() {
    let servers = Authority::new("Servers");
    let clients = Authority::new("Clients");
    let origin = Origin::echo();
    let scratch = Scratch::new();
    place(scratch.path(), "open", &servers.server(&["open.test"]));
    place(scratch.path(), "closed", &servers.server(&["closed.test"]));
    scratch.file("clients.pem", clients.pem());
    let auth = "client_auth: { mode: require, ca: \"{DIR}/clients.pem\" }";
    let spec = Spec::to(origin.address());
    let edge = edge_in(scratch, spec, "", &[entry("open", ""), entry("closed", auth)], "");
    let open = TlsClient::new(&servers, "open.test");
    let closed = TlsClient::new(&servers, "closed.test");
    let at = |host: &str| super::get_at(host, "/s");
    assert_eq!(ask(edge.address, &open, &at("open.test")).unwrap().status, 200);
    assert!(ask(edge.address, &closed, &at("closed.test")).is_err());
    let good = closed.identity(&clients.client("good", "spiffe://test/good"));
    assert_eq!(ask(edge.address, &good, &at("closed.test")).unwrap().status, 200);
    // B-66: the open site's connection is no way into the closed one.
    assert_eq!(ask(edge.address, &open, &at("closed.test")).unwrap().status, 421);
}

#[test]
fn a_session_of_one_site_does_not_open_another() {
    // A ticket carries who the client was; under a name that asks for certificates it must not
    // stand for one that was never shown.
    let servers = Authority::new("Servers");
    let clients = Authority::new("Clients");
    let origin = Origin::echo();
    let scratch = Scratch::new();
    // One certificate for both names, so that the client offers its ticket again.
    let site = servers.server(&["open.test", "closed.test"]);
    place(scratch.path(), "open", &site);
    place(scratch.path(), "closed", &site);
    scratch.file("clients.pem", clients.pem());
    let auth = "names: [closed.test], client_auth: { mode: require, ca: \"{DIR}/clients.pem\" }";
    let certificates = [entry("open", "names: [open.test]"), entry("closed", auth)];
    let spec = Spec::to(origin.address());
    let edge = edge_in(scratch, spec, "", &certificates, "");
    let good = clients.client("good", "spiffe://test/good");
    let tls = TlsClient::new(&servers, "closed.test").identity(&good).resuming();
    for n in 0..6 {
        let answer = ask(edge.address, &tls, &super::get_at("closed.test", "/r")).unwrap();
        assert_eq!(answer.status, 200);
        // A resumed session still tells the upstream whose it is.
        let seen = origin.last();
        let xfcc = seen.field(XFCC).unwrap_or_else(|| panic!("no XFCC on connection {n}"));
        assert!(xfcc.contains(&sha256(&good.der())), "connection {n}: {xfcc}");
    }
}
