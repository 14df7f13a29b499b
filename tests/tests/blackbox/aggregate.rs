//! One answer of several calls, and GraphQL within bounds.

use std::time::Duration;

use serde_json::{Value, json};
use tests::http2::H2Client;
use tests::origin::{Script, answer_with};
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Gateway, Origin, Response};

/// A shop's services in one.
fn shop() -> Origin {
    Origin::start(|seen| {
        let json = |status: &str, fields: &str, body: Value| {
            answer_with(
                status,
                &format!("Content-Type: application/json\r\n{fields}"),
                &body.to_string(),
            )
        };
        let path = seen.target.split('?').next().unwrap_or_default();
        match path {
            "/products/7" => {
                let product =
                    r#"{"id":7,"serial":12345678901234567890123,"price":1.10,"related":[8,9]}"#;
                answer_with("200 OK", "Cache-Control: max-age=60\r\n", product)
            }
            "/products" => json(
                "200 OK",
                "Cache-Control: max-age=9\r\n",
                json!([{"id": 9, "name": "nine"}, {"id": 8, "name": "eight"}]),
            ),
            "/reviews" => json("500 Oops", "", json!({"secret": "stack trace"})),
            "/slow" => {
                let whole: Script = json("200 OK", "", json!(1));
                whole.after(Duration::from_secs(5))
            }
            _ => json("404 Not Found", "", json!({})),
        }
    })
}

const PAGE: &str = r#"
  - name: page
    match: { path: { template: "/page/{id}" } }
    aggregate:
      deadline_ms: 700
      calls:
        - { name: product, upstream: origin, path: "/products/${path.id}", forward_headers: [x-tenant] }
        - name: related
          upstream: origin
          path: /products
          batch: { in: "${call.product.body.related}", by: id }
          query: { ids: '${item | join(",")}' }
        - { name: reviews, upstream: origin, path: /reviews, when: "${query.full}", mode: { default: [] } }
        - { name: slow, upstream: origin, path: /slow, when: "${query.slow}" }
      errors: true
"#;

fn gateway(origin: &Origin) -> Gateway {
    let text = Spec::to(origin.address()).listener("h2c: true").text();
    Gateway::start_in(Scratch::new(), &format!("{}{PAGE}", text.trim_end()), 1)
}

fn get(gateway: &Gateway, target: &str) -> Response {
    let fields = "X-Tenant: t\r\nAuthorization: Bearer secret\r\nCookie: a=b\r\n";
    gateway.connect().ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn a_page_is_one_answer_of_several_calls() {
    let origin = shop();
    let gateway = gateway(&origin);
    let response = get(&gateway, "/page/7");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(
        response.text(),
        r#"{"product":{"id":7,"serial":12345678901234567890123,"price":1.10,"related":[8,9]},"related":[{"id":8,"name":"eight"},{"id":9,"name":"nine"}]}"#
    );
    assert_eq!(response.field("sluice-complete"), Some("true"));
    assert_eq!(response.field("cache-control"), Some("max-age=9"));
    let seen = origin.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].target, "/products?ids=8%2C9");
    assert_eq!(seen[0].field("x-tenant"), Some("t"));
    for one in seen {
        assert_eq!((one.field("authorization"), one.field("cookie")), (None, None));
    }
}

#[test]
fn what_fails_is_told_and_nothing_more() {
    let origin = shop();
    let gateway = gateway(&origin);
    let response = get(&gateway, "/page/7?full=1");
    assert_eq!((response.status, response.field("sluice-complete")), (200, Some("false")));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    let body: Value = serde_json::from_slice(&response.body).expect("JSON");
    let error = json!([{"call": "reviews", "reason": "status", "status": 500}]);
    assert_eq!((&body["errors"], &body["reviews"]), (&error, &json!([])));
    assert!(!response.text().contains("stack"));
    let missing = get(&gateway, "/page/9");
    assert_eq!((missing.status, missing.problem().as_deref()), (404, Ok("call_failed")));
    let late = get(&gateway, "/page/7?slow=1");
    assert_eq!((late.status, late.field("sluice-complete")), (504, Some("false")));
}

#[test]
fn pages_come_over_http2_too() {
    let origin = shop();
    let gateway = gateway(&origin);
    let mut client = H2Client::clear(gateway.address());
    let stream = client.get("/page/7");
    let answer = client.answer(stream).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn graphql_is_held_against_bounds() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address()).route("graphql: { max_depth: 3, max_cost: 50 }");
    let gateway = Gateway::start_in(Scratch::new(), &spec.text(), 1);
    let mut client = gateway.connect();
    let mut ask = |query: &str| {
        let body = json!({ "query": query }).to_string();
        client.ask(format!(
            "POST /graphql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAccept: \
             application/graphql-response+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    assert_eq!(ask("{a {b}}").status, 200);
    for (query, code) in [
        ("{a {b {c {d}}}}", "QUERY_TOO_DEEP"),
        ("{users(first: 100) {id}}", "QUERY_TOO_COSTLY"),
        ("{__schema {types {name}}}", "INTROSPECTION_DISABLED"),
        ("{a", "GRAPHQL_PARSE_FAILED"),
    ] {
        let response = ask(query);
        assert_eq!(response.status, 400, "{query}");
        assert_eq!(response.field("content-type"), Some("application/graphql-response+json"));
        let body: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!(body["errors"][0]["extensions"]["code"], code, "{query}");
    }
    let response = client.ask("GET /graphql?query=mutation%7Ba%7D HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.field("allow")), (405, Some("POST")));
    assert_eq!(origin.seen().len(), 1);
}
