//! Routes that serve certain networks only.

use tests::http2::H2Client;
use tests::http2::client::request;
use tests::spec::Spec;
use tests::{Gateway, Origin, get};

const NETWORKS: &str =
    "networks: { allow: [\"203.0.113.0/24\", \"2001:db8::/32\"], deny: [\"203.0.113.128/25\"] }";

fn from(list: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: {list}\r\n\r\n")
}

#[test]
fn the_address_that_trusted_proxies_forward_for_decides() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address())
        .listener("trusted_proxies: [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
        .route(NETWORKS);
    let gateway = Gateway::of(&spec);
    for (list, status) in [
        ("203.0.113.5", 200),
        ("203.0.113.128", 403),
        ("2001:db8::7", 200),
        ("::ffff:203.0.113.5", 200),
        ("198.51.100.1", 403),
        ("198.51.100.1, 203.0.113.5", 200),
        ("198.51.100.1, 203.0.113.5, 10.1.1.1", 200),
        // What stands before an address that is not trusted may be made up.
        ("203.0.113.5, 198.51.100.1", 403),
        ("203.0.113.5, 198.51.100.1, 10.1.1.1", 403),
        ("203.0.113.5, unknown", 403),
        ("", 403),
    ] {
        assert_eq!(gateway.ask(from(list)).status, status, "{list}");
    }
    let two = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 198.51.100.1\r\n\
               X-Forwarded-For: 203.0.113.5\r\n\r\n";
    assert_eq!(gateway.ask(two).status, 200, "lines are one list");
    let refused = gateway.ask(from("198.51.100.1"));
    assert_eq!(refused.problem().as_deref(), Ok("address_denied"));
    assert_eq!(origin.seen().len(), 6);
}

#[test]
fn nobody_else_is_believed() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address()).listener("h2c: true").route(NETWORKS).also_route(
        "{ name: near, match: { path: /near }, upstream: origin, \
                     networks: { deny: [\"128.0.0.0/1\", \"::/0\"] } }",
    );
    let gateway = Gateway::of(&spec);
    assert_eq!(gateway.ask(from("203.0.113.5")).status, 403);
    assert_eq!(gateway.ask(get("/near")).status, 200);
    let mut client = H2Client::clear(gateway.address());
    let mut fields = request("GET", "/");
    fields.push(("x-forwarded-for", "203.0.113.5"));
    assert_eq!(client.ask(&fields, b"").status, 403);
    assert_eq!(client.ask(&request("GET", "/near"), b"").status, 200);
}

#[test]
fn the_address_that_the_proxy_protocol_names_decides() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address())
        .listener("proxy_protocol: { from: [\"127.0.0.0/8\"] }")
        .route(NETWORKS);
    let gateway = Gateway::of(&spec);
    for (client, status) in [("203.0.113.5", 200), ("203.0.113.200", 403)] {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 12345 80\r\n");
        let mut connection = gateway.connect();
        connection.send(header + &from("203.0.113.5"));
        assert_eq!(connection.response().expect("an answer").status, status, "{client}");
    }
}
