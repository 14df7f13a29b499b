//! Requests held against an API.

use std::time::Duration;

use serde_json::{Value, json};
use tests::http2::H2Client;
use tests::http2::client::request;
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, eventually};

const SHOP: &str = include_str!("../../../examples/openapi/shop.yaml");

fn gateway(origin: &Origin, settings: &str) -> Gateway {
    let scratch = Scratch::new();
    scratch.file("shop.yaml", SHOP);
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .route(&format!("validate: {{ api: shop{settings} }}"))
        .also("apis: [{ name: shop, openapi: \"{DIR}/shop.yaml\" }]");
    Gateway::start_in(scratch, &spec.text(), 1)
}

fn order(bytes: usize) -> String {
    let items: Vec<Value> =
        (0..bytes / 28).map(|n| json!({"sku": format!("AB-{n}"), "count": 1})).collect();
    json!({"customer": "acme", "items": items}).to_string()
}

fn post(body: &str, fields: &str) -> String {
    format!(
        "POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What is wrong, as `in pointer`.
fn wrong(response: &Response) -> Vec<String> {
    let problem: Value = serde_json::from_slice(&response.body).expect("a problem");
    assert_eq!(response.problem().as_deref(), Ok("not_valid"), "{problem}");
    let errors = problem["errors"].as_array().expect("errors");
    let told = |one: &Value| {
        format!("{} {}", one["in"].as_str().unwrap(), one["pointer"].as_str().unwrap())
    };
    errors.iter().map(told).collect()
}

#[test]
fn what_the_api_does_not_describe_is_refused() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    for (target, status, told) in [
        ("/v1/orders?limit=5&state=open&state=paid", 200, ""),
        ("/v1/orders/7", 200, ""),
        ("/v1/orders?limit=500", 400, "query /limit"),
        ("/v1/orders?state=lost", 400, "query /state/0"),
        ("/v1/orders/x", 400, "path /id"),
        ("/v1/else", 404, "path "),
    ] {
        let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.status, status, "{target}: {}", response.text());
        if status != 200 {
            assert_eq!(wrong(&response), [told], "{target}");
        }
    }
    let response = client.ask("DELETE /v1/orders HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.field("allow")), (405, Some("GET, POST")));
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn bodies_go_on_as_they_came_or_not_at_all() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    // Within the head's buffer; behind it; past what the shard judges itself; large.
    for bytes in [100, 6_000, 40_000, 900_000] {
        let body = order(bytes);
        let response = client.ask(post(&body, ""));
        assert_eq!(response.status, 200, "{bytes}: {}", response.text());
        assert_eq!(origin.last().body, body.as_bytes(), "{bytes}");
        let bad = body.replace("acme", "").replace("\"AB-1\"", "\"nothing\"");
        let response = client.ask(post(&bad, ""));
        assert_eq!(response.status, 400, "{bytes}");
        let told = wrong(&response);
        assert!(
            told.iter().all(|one| one == "body /customer" || one == "body /items/1/sku"),
            "{told:?}"
        );
        assert!(!response.text().contains("nothing"), "no value is said again");
    }
    // In chunks, with what follows behind it at once.
    let body = order(20_000);
    let (a, b) = body.split_at(9_000);
    let chunked = |parts: &[&str]| {
        let chunks = parts.iter().map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n\
             Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunks.collect::<String>()
        )
    };
    client.send(chunked(&[a, b]) + &chunked(&[a]) + &chunked(&[a, b]));
    for status in [200, 400, 200] {
        assert_eq!(client.response().expect("an answer").status, status);
    }
    assert_eq!(origin.last().body, body.as_bytes());
    let seen = origin.seen().len();
    for (request, status) in [
        (post("", ""), 400),
        (post("{\"a\":1,\"a\":2}", ""), 400),
        (post(&order(100), "Content-Encoding: gzip\r\n"), 415),
        (post(&order(100), "").replace("application/json", "text/plain"), 415),
    ] {
        let response = client.ask(&request);
        assert_eq!(response.status, status, "{request}: {}", response.text());
        assert_eq!(wrong(&response), ["body "]);
    }
    assert_eq!(origin.seen().len(), seen);
    let response = gateway.connect().ask(post(&order(1_200_000), ""));
    assert_eq!(response.status, 413);
}

#[test]
fn a_body_that_is_awaited_is_asked_for_once() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    let whole = post(&order(30_000), "Expect: 100-continue\r\n");
    let (head, body) = whole.split_once("\r\n\r\n").expect("a head");
    client.send(format!("{head}\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(50));
    client.send(body);
    let (interim, last) = client.final_head().expect("an answer");
    assert_eq!((interim.len(), last.status()), (1, Ok(200)));
}

#[test]
fn streams_of_http2_are_judged_alike() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, "");
    let mut client = H2Client::clear(gateway.address());
    for bytes in [100, 40_000, 400_000] {
        for (body, status) in [(order(bytes), 200), (order(bytes).replace("acme", ""), 400)] {
            let mut fields = request("POST", "/v1/orders");
            fields.push(("content-type", "application/json"));
            let stream = client.begin(&fields, false);
            client.body(stream, body.as_bytes(), true).expect("room");
            let answer = client.answer(stream).expect("an answer");
            assert_eq!(answer.status, status, "{bytes}: {}", answer.text());
            if status == 200 {
                assert_eq!(origin.last().body, body.as_bytes());
            }
        }
    }
}

#[test]
fn a_dry_run_counts_and_lets_through() {
    let origin = Origin::echo();
    let gateway = gateway(&origin, ", mode: log, max_bytes: 20000");
    let mut client = gateway.connect();
    for body in [order(100), order(100).replace("acme", ""), order(60_000)] {
        let response = client.ask(post(&body, ""));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(origin.last().body, body.as_bytes());
    }
    // Its length is not known before it is past the bound.
    let body = order(60_000);
    let (a, b) = body.split_at(15_000);
    let response = client.ask(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
        a.len(),
        b.len()
    ));
    assert_eq!(response.status, 200);
    assert_eq!(origin.last().body, body.as_bytes());
    let count = |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        let (_, metrics) = gateway.admin("/metrics");
        let lines = metrics.lines().filter(|line| {
            line.starts_with("sluice_shard_validation_total{") && line.contains(&label)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let counted = eventually(PATIENCE, || count("dry_run") == 3 && count("passed") == 1);
    assert!(counted, "{} {}", count("dry_run"), count("passed"));
}
