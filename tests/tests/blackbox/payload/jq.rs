//! jq programs.

use tests::origin::answer_with;
use tests::{Origin, get};

use super::{gateway, post};

const JSON: &str = "application/json";

#[test]
fn programs_change_bodies_and_those_that_run_away_harm_nobody() {
    let origin = Origin::start(|seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        answer_with("200 OK", "Content-Type: application/json\r\n", &body)
    });
    let settings = "request_body: { jq_timeout_ms: 1500, steps: [ { remove: /secret }, { jq: '\
                    if .loop then (def f: f; f) elif .bomb then (reduce range(99) as $i (\"xx\"; . + .)) \
                    elif .deep then (def g: 1 + g; g) elif .two then 1, 2 \
                    else {total: ([.items[].n] | add), id} end' }, { add: { at: /by, value: jq } } ] }";
    let gateway = gateway(&origin, settings);
    let mut client = gateway.connect();
    let good = r#"{"items":[{"n":1},{"n":2}],"id":1234567890123456789012,"secret":1}"#;
    let want = r#"{"total":3,"id":1234567890123456789012,"by":"jq"}"#;
    assert_eq!(client.ask(post(JSON, "", good)).text(), want);
    for bad in ["loop", "bomb", "deep"] {
        let response = client.ask(post(JSON, "", format!("{{\"{bad}\":true}}")));
        assert_eq!(response.status, 500, "{bad}");
        assert_eq!(client.ask(post(JSON, "", good)).text(), want, "after {bad}");
    }
    let response = client.ask(post(JSON, "", "{\"two\":true}"));
    assert_eq!((response.status, response.problem().as_deref()), (400, Ok("body_unusable")));
    assert_eq!(client.ask(get("/")).status, 200);
}
