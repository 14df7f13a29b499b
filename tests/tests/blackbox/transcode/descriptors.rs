//! Where descriptors come from, and how they change.

use tests::http2::{H2Origin, H2Seen, Reply};
use tests::{PATIENCE, eventually};

use super::*;

#[test]
fn files_that_change_are_taken_live() {
    let origin = H2Origin::clear(serve);
    let gateway = gateway(&origin, "");
    assert_eq!(gateway.ask(request("GET /v1/items/7?price=1", "", "")).status, 400);
    std::fs::write(gateway.dir().join("item.proto"), ITEM.replace("count = 2", "price = 2"))
        .unwrap();
    // Of the file that is named no longer fits what it imports.
    std::fs::write(gateway.dir().join("shop.proto"), PROTO.replace("{count}", "{price}")).unwrap();
    let there = eventually(PATIENCE, || {
        gateway.ask(request("GET /v1/items/7?price=1", "", "")).status == 200
    });
    assert!(there, "{}", gateway.log_text());
    // What cannot be used changes nothing.
    std::fs::write(gateway.dir().join("item.proto"), "syntax = \"proto3\";\nmessage").unwrap();
    let told = eventually(PATIENCE, || gateway.log_text().contains("item.proto: expected"));
    assert!(told, "{}", gateway.log_text());
    assert_eq!(gateway.ask(request("GET /v1/items/7?price=1", "", "")).status, 200);
}

#[test]
fn bindings_that_clash_are_refused_with_their_place() {
    let origin = H2Origin::clear(serve);
    let mut gateway = gateway(&origin, "");
    for (settings, expected) in [
        (
            ", bindings: [{ selector: shop.v1.Shop.Plain, get: \"/v1/{name=items/*}\" }]",
            "routes[0].transcode",
        ),
        (", bindings: [{ selector: shop.v1.Shop.Plain, get: \"/v1/{no}\" }]", "bindings[0]"),
        (", bindings: [{ selector: shop.v1.Shop.No, get: \"/v1/a\" }]", "bindings[0].selector"),
    ] {
        let route = format!("transcode: {{ proto: shop, services: [shop.v1.Shop]{settings} }}");
        let (status, text) = gateway.try_apply(&spec(&origin, &route).text());
        assert!((400..500).contains(&status) && text.contains(expected), "{status} {text}");
    }
    let route = "transcode: { proto: shop, services: [shop.v1.Shop], bindings: [{ selector: \
                 shop.v1.Shop.Get, get: \"/v2/{name}\" }] }";
    gateway.apply(&spec(&origin, route).text());
    assert_eq!(gateway.ask(request("GET /v2/x", "", "")).status, 200);
    assert_eq!(
        gateway.ask(request("GET /v1/short/x", "", "")).status,
        404,
        "its annotation is out"
    );
}

/// Descriptors of a service with one method: `Get`, of messages with one text.
fn described(field: &str) -> Vec<u8> {
    let label = number(4, 1);
    let own = [text(1, field), number(3, 1), label, number(5, 9)].concat();
    let message = [text(1, "Item"), text(2, own)].concat();
    let method = [text(1, "Get"), text(2, ".live.Item"), text(3, ".live.Item")].concat();
    let service = [text(1, "Live"), text(2, method)].concat();
    [text(1, "live.proto"), text(2, "live"), text(4, message), text(6, service), text(12, "proto3")]
        .concat()
}

fn reflect(seen: &H2Seen, version: &str, answer: fn(&[u8]) -> Vec<u8>) -> Reply {
    let own = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    match seen.path() {
        path if path == own => Reply::default().head(OK).answer(answer).last(END),
        "/live.Live/Get" => Reply::default().request().head(OK).answer(<[u8]>::to_vec).last(END),
        _ => Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
        ]),
    }
}

/// Answers `list_services` and what is in which file.
fn told(question: &[u8], field: &str) -> Vec<u8> {
    match question.get(5) {
        Some(0x3a) => frame(text(6, text(1, text(1, "live.Live")))),
        _ => frame(text(4, text(1, described(field)))),
    }
}

#[test]
fn servers_tell_their_descriptors() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static CHANGED: AtomicBool = AtomicBool::new(false);
    for version in ["v1", "v1alpha"] {
        CHANGED.store(false, Ordering::SeqCst);
        let origin = H2Origin::clear(move |seen| {
            reflect(seen, version, |question| {
                told(question, if CHANGED.load(Ordering::SeqCst) { "title" } else { "name" })
            })
        });
        let spec = Spec::to(origin.address())
            .upstream("protocol: http2")
            .route("transcode: { proto: live, services: [live.Live], auto_mapping: true }")
            .also("protos: [{ name: live, reflection: { upstream: origin, refresh_s: 1 } }]");
        let gateway = Gateway::of(&spec);
        let response = gateway.ask(request("POST /live.Live/Get", "", r#"{"name": "x"}"#));
        assert_eq!(
            (response.status, response.text()),
            (200, r#"{"name":"x"}"#.into()),
            "{version}"
        );
        CHANGED.store(true, Ordering::SeqCst);
        let there = eventually(PATIENCE, || {
            gateway.ask(request("POST /live.Live/Get", "", r#"{"title": "x"}"#)).status == 200
        });
        assert!(there, "{version}: {}", gateway.log_text());
    }
}

#[test]
fn a_server_without_descriptors_is_told_of() {
    let origin = H2Origin::clear(serve);
    let mut gateway = Gateway::of(&Spec::to(origin.address()).upstream("protocol: http2"));
    let spec = Spec::to(origin.address())
        .upstream("protocol: http2")
        .route("transcode: { proto: live, services: [live.Live], auto_mapping: true }")
        .also("protos: [{ name: live, reflection: { upstream: origin } }]");
    let (status, text) = gateway.try_apply(&spec.text());
    assert!((400..500).contains(&status) && text.contains("no reflection"), "{status} {text}");
}
