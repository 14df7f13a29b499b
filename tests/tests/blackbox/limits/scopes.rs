//! What requests are counted by.

use data_encoding::HEXLOWER;
use ring::digest;
use tests::{Gateway, Origin};

use super::*;

fn key_of(name: &str) -> String {
    format!("slk_for-limits-only-and-{name}")
}

/// `ada` and `bob`, in group gold, and `eve`, who is in none.
fn callers() -> String {
    let mut text = String::from("groups: [ { name: gold } ]\nconsumers:");
    for (name, groups) in [("ada", "gold"), ("bob", "gold"), ("eve", "")] {
        let hash = digest::digest(&digest::SHA256, key_of(name).as_bytes());
        text.push_str(&format!(
            "\n  - {{ name: {name}, groups: [ {groups} ], api_keys: [ {{ sha256: {} }} ] }}",
            HEXLOWER.encode(hash.as_ref())
        ));
    }
    text + "\nauthenticators: [ { name: keys, api_key: {} } ]"
}

fn of(name: &str) -> String {
    format!("X-API-Key: {}\r\n", key_of(name))
}

#[test]
fn by_consumer_and_tier() {
    let origin = Origin::echo();
    let limit = "{ name: plan, by: [ consumer ], requests: 2, per: 1h, \
                 tiers: [ { group: gold, requests: 5, per: 1h } ] }";
    let spec =
        spec(&origin, &[limit]).also(&callers()).route("auth: { any: [ keys ], optional: true }");
    let gateway = Gateway::of(&spec);
    assert_eq!(let_in(&gateway, "/", &of("ada"), 9), 5, "gold");
    assert_eq!(let_in(&gateway, "/", &of("bob"), 9), 5, "gold, too, and not of ada's");
    assert_eq!(let_in(&gateway, "/", &of("eve"), 9), 2);
    assert_eq!(let_in(&gateway, "/", "", 9), 2, "nobody known: by address");
}

#[test]
fn by_group() {
    let origin = Origin::echo();
    let limit = "{ name: team, by: [ group ], requests: 4, per: 1h }";
    let spec = spec(&origin, &[limit]).also(&callers()).route("auth: { any: [ keys ] }");
    let gateway = Gateway::of(&spec);
    assert_eq!(let_in(&gateway, "/", &of("ada"), 3), 3);
    assert_eq!(let_in(&gateway, "/", &of("bob"), 9), 1, "what ada has left");
    assert_eq!(let_in(&gateway, "/", &of("ada"), 9), 0);
}

#[test]
fn by_field() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(
        &origin,
        &["{ name: tenant, by: [ { header: X-Tenant } ], requests: 3, per: 1h }"],
    ));
    assert_eq!(let_in(&gateway, "/", "X-Tenant: a\r\n", 9), 3);
    assert_eq!(let_in(&gateway, "/", "x-tenant: b\r\n", 9), 3);
    assert_eq!(let_in(&gateway, "/", "X-TENANT: b\r\n", 9), 0, "names have no case");
    assert_eq!(let_in(&gateway, "/", "X-Tenant: B\r\n", 9), 3, "values have");
    assert_eq!(let_in(&gateway, "/", "", 9), 3, "none is one value more");
}

#[test]
fn by_address() {
    let origin = Origin::echo();
    let limit = "{ name: net, by: [ address ], requests: 3, per: 1h }";
    let spec = spec(&origin, &[limit]).listener("trusted_proxies: [ \"127.0.0.0/8\" ]");
    let gateway = Gateway::of(&spec);
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    assert_eq!(let_in(&gateway, "/", &from("192.0.2.1"), 9), 3);
    assert_eq!(let_in(&gateway, "/", &from("192.0.2.2"), 9), 3, "IPv4: each its own");
    assert_eq!(let_in(&gateway, "/", &from("2001:db8:0:1::1"), 2), 2);
    let neighbour = from("2001:db8:0:1:ffff::2");
    assert_eq!(let_in(&gateway, "/", &neighbour, 9), 1, "IPv6: a /64 is one");
    assert_eq!(let_in(&gateway, "/", &from("2001:db8:0:2::1"), 9), 3);
}

#[test]
fn by_path_template() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(
        &origin,
        &["{ name: user, by: [ { path: \"/users/{id}/*\" } ], requests: 3, per: 1h }"],
    ));
    assert_eq!(let_in(&gateway, "/users/1/orders", "", 2), 2);
    assert_eq!(let_in(&gateway, "/users/1/carts?x=1", "", 9), 1, "the same user");
    assert_eq!(let_in(&gateway, "/users/2/orders", "", 9), 3);
    assert_eq!(let_in(&gateway, "/users/%31/orders", "", 9), 0, "written otherwise, the same");
    assert_eq!(let_in(&gateway, "/other", "", 9), 9, "what does not match is not limited");
}

#[test]
fn by_route_and_by_several_together() {
    let origin = Origin::echo();
    let limits = [
        "{ name: routes, by: [ route ], requests: 6, per: 1h }",
        "{ name: both, by: [ route, { header: x-who } ], requests: 2, per: 1h }",
    ];
    let spec = spec(&origin, &limits).also_route(
        "{ name: other, match: { path: /other }, upstream: origin, limits: [ routes, both ] }",
    );
    let gateway = Gateway::of(&spec);
    for target in ["/", "/other"] {
        for who in ["a", "b"] {
            assert_eq!(let_in(&gateway, target, &format!("X-Who: {who}\r\n"), 5), 2, "{target}");
        }
        assert_eq!(let_in(&gateway, target, "X-Who: c\r\n", 1), 1);
        assert_eq!(let_in(&gateway, target, "X-Who: d\r\n", 5), 1, "the route's six are gone");
    }
}

#[test]
fn by_nothing_is_one_for_all_routes() {
    let origin = Origin::echo();
    let spec = spec(&origin, &["{ name: all, requests: 4, per: 1h }"])
        .also_route("{ name: other, match: { path: /other }, upstream: origin, limits: [ all ] }");
    let gateway = Gateway::of(&spec);
    assert_eq!(let_in(&gateway, "/", "", 3), 3);
    assert_eq!(let_in(&gateway, "/other", "", 9), 1);
}
