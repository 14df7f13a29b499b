//! What clients and people are told of limits.

use data_encoding::{BASE64, BASE64_NOPAD};
use tests::http2::{H2Client, H2Origin, Reply};
use tests::process::cli;
use tests::spec::Spec;
use tests::{Gateway, Origin};

use super::*;

/// `"few";q=3;w=60` as name and parameters.
fn item(text: &str) -> (String, Vec<(String, u64)>) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().trim_matches('"').to_owned();
    let parameters = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")));
    (name, parameters.collect())
}

#[test]
fn fields_say_how_much_is_left_and_when_there_is_more() {
    let origin = Origin::echo();
    let limit = "{ name: few, requests: 3, per: 60s, fields: { legacy: true } }";
    let gateway = Gateway::single(&spec(&origin, &[limit]));
    for left in (0..3).rev() {
        let response = ask(&gateway, "/", "");
        assert_eq!(response.status, 200);
        let (name, policy) = item(response.field("ratelimit-policy").expect("RateLimit-Policy"));
        assert_eq!((&*name, &policy[..]), ("few", &[("q".into(), 3), ("w".into(), 60)][..]));
        let (name, now) = item(response.field("ratelimit").expect("RateLimit"));
        assert_eq!((&*name, &now[0]), ("few", &("r".into(), left)));
        // What is spent leaves the window by slots.
        assert!(now.iter().any(|(name, t)| name == "t" && *t <= 61), "{now:?}");
        assert_eq!(response.field("x-ratelimit-limit"), Some("3"));
        assert_eq!(response.field("x-ratelimit-remaining"), Some(&*left.to_string()));
        assert!(response.field("x-ratelimit-reset").is_some());
        assert_eq!(response.field("retry-after"), None);
    }
    let refused = ask(&gateway, "/", "");
    limited(&refused);
    let wait: u64 = refused.field("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=61).contains(&wait), "{wait}");
    let (_, now) = item(refused.field("ratelimit").expect("RateLimit"));
    assert_eq!(now[0], ("r".into(), 0));
    assert!(refused.field("ratelimit-policy").is_some());
    assert_eq!(refused.field("x-ratelimit-remaining"), Some("0"));
    // Others' words on the same are not the client's.
    let seen = origin.last();
    assert_eq!(seen.field("ratelimit"), None);
}

#[test]
fn silence_where_fields_are_not_wanted() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(
        &origin,
        &["{ name: mute, requests: 1, per: 1h, fields: { standard: false } }"],
    ));
    let (first, second) = (ask(&gateway, "/", ""), ask(&gateway, "/", ""));
    limited(&second);
    assert!(second.field("retry-after").is_some());
    for response in [first, second] {
        for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-limit"] {
            assert_eq!(response.field(name), None, "{name}");
        }
    }
}

#[test]
fn grpc_is_told_by_status_8_with_retry_info() {
    let origin = H2Origin::clear(|_| {
        Reply::default().request().last(&[
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "0"),
        ])
    });
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .upstream("protocol: http2")
        .also("limits: [ { name: calls, requests: 2, per: 1m } ]")
        .route("limits: [ calls ]");
    let gateway = Gateway::of(&spec);
    let mut client = H2Client::clear(gateway.address());
    let mut call = tests::http2::client::request("POST", "/t.T/Call");
    call.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    let message = [0, 0, 0, 0, 0];
    for _ in 0..2 {
        let answer = client.ask(&call, &message);
        assert_eq!(answer.field("grpc-status").or(answer.trailer("grpc-status")), Some("0"));
    }
    let answer = client.ask(&call, &message);
    // RESOURCE_EXHAUSTED, as a head that is nothing else ("Trailers-Only").
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("8")), "{answer:?}");
    let details = answer.field("grpc-status-details-bin").expect("details").trim_end_matches('=');
    let details = BASE64_NOPAD
        .decode(details.as_bytes())
        .or_else(|_| BASE64.decode(details.as_bytes()))
        .expect("base64");
    let text = String::from_utf8_lossy(&details);
    assert!(text.contains("type.googleapis.com/google.rpc.RetryInfo"), "{text}");
}

#[test]
fn get_limits_lists_who_has_used_what() {
    let origin = Origin::echo();
    let limit = "{ name: few, by: [ { header: x-who } ], requests: 7, per: 1h }";
    let gateway = Gateway::of(&spec(&origin, &[limit]));
    assert_eq!(let_in(&gateway, "/", "X-Who: somebody\r\n", 4), 4);
    let listed = cli(&["get", "limits", "--admin", &gateway.admin_address()]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("few") && listed.stdout.contains("somebody"), "{listed:?}");
    let json = cli(&["get", "limits", "--json", "--admin", &gateway.admin_address()]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert!(json.to_string().contains("somebody"), "{json}");
}
