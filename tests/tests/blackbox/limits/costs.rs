//! Requests that cost more or less than one.

use tests::origin::answer_with;
use tests::{Gateway, Origin, PATIENCE, eventually};

use super::*;

#[test]
fn a_fixed_cost() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&spec(&origin, &["{ name: heavy, requests: 10, per: 1h, cost: 3 }"]));
    assert_eq!(let_in(&gateway, "/", "", 9), 3, "one is left, which is not enough");
}

#[test]
fn a_cost_that_the_request_says() {
    let origin = Origin::echo();
    let limit = "{ name: said, requests: 10, per: 1h, \
                 cost: { header: x-cost, default: 2, max: 5 } }";
    let gateway = Gateway::of(&spec(&origin, &[limit]));
    assert_eq!(let_in(&gateway, "/", "X-Cost: 4\r\n", 1), 1);
    assert_eq!(let_in(&gateway, "/", "", 1), 1, "2 where nothing is said");
    assert_eq!(let_in(&gateway, "/", "X-Cost: 9999\r\n", 1), 0, "5 at the most, 4 are left");
    assert_eq!(let_in(&gateway, "/", "X-Cost: -1\r\n", 1), 1, "no number is 2, never less");
    assert_eq!(let_in(&gateway, "/", "X-Cost: 1\r\n", 9), 2);
}

#[test]
fn a_cost_that_the_answer_says() {
    // As of a GraphQL server, which knows only then.
    let origin = Origin::start(|seen| {
        let cost = seen.target.trim_start_matches('/').to_owned();
        answer_with("200 OK", &format!("X-Cost: {cost}\r\n"), "done")
    });
    let limit = "{ name: told, requests: 20, per: 1h, \
                 cost: { response_header: x-cost, reserve: 2, max: 10 } }";
    let gateway = Gateway::of(&spec(&origin, &[limit]));
    let response = ask(&gateway, "/0", "");
    assert_eq!((response.status, response.field("x-cost")), (200, None), "not for clients");
    // 9 of 20, then 9 more; 2 are left, of which a request that is free needs none in the end.
    assert_eq!(let_in(&gateway, "/9", "", 2), 2);
    let free = || ask(&gateway, "/0", "").status == 200;
    assert!(eventually(PATIENCE, free) && eventually(PATIENCE, free));
    assert!(eventually(PATIENCE, || ask(&gateway, "/2", "").status == 200));
    assert_eq!(let_in(&gateway, "/0", "", 4), 0, "nothing is left to reserve");
}
