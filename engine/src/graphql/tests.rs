use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules::new(&Graphql {
        max_depth: 4,
        max_cost: 100,
        max_aliases: 2,
        max_tokens: 200,
        max_batch: 2,
        max_bytes: 10_000,
        introspection: false,
        list_arguments: vec!["first".into(), "limit".into()],
        weights: vec![("search".into(), 50), ("free".into(), 0)],
        operations: Vec::new(),
        documents: Vec::new(),
    })
}

fn cost(text: &str, variables: &str) -> Result<u64, &'static str> {
    let variables = Json::parse(variables.as_bytes()).unwrap();
    let measured = measure(text, None, Some(&variables), &rules());
    measured.map(|measured| measured.cost).map_err(|refused| refused.code)
}

#[test]
fn operations_cost_what_they_ask_for() {
    for (text, variables, expected) in [
        ("{a}", "{}", Ok(1)),
        ("query Q {a b {c}}", "{}", Ok(3)),
        ("{users(first: 10) {id name}}", "{}", Ok(21)),
        ("{users(first: 10) {friends(limit: 2) {id}}}", "{}", Ok(31)),
        ("query Q($n: Int) {users(first: $n) {id}}", r#"{"n":7}"#, Ok(8)),
        ("query Q($n: Int = 5) {users(first: $n) {id}}", "{}", Ok(6)),
        ("query Q($p: P) {users(page: $p) {id}}", r#"{"p":{"first":9}}"#, Ok(10)),
        ("{users(page: {first: 6}) {id}}", "{}", Ok(7)),
        ("{search {id} free {id}}", "{}", Ok(52)),
        ("{...F ...F} fragment F on T {a {b}}", "{}", Ok(4)),
        ("{... on T {a} ... @include(if: true) {b}}", "{}", Ok(2)),
        (
            "{users(first: 99999999999999999999) {a {b(first: 99999999999999999999) {c}}}}",
            "{}",
            Ok(u64::MAX),
        ),
        ("{a {b {c {d}}}}", "{}", Ok(4)),
        ("{a {b {c {d {e}}}}}", "{}", Err("QUERY_TOO_DEEP")),
        ("{a {...F}} fragment F on T {b {c {d {e}}}}", "{}", Err("QUERY_TOO_DEEP")),
        ("{x: a y: a}", "{}", Ok(2)),
        ("{x: a y: a z: a}", "{}", Err("TOO_MANY_ALIASES")),
        ("{__typename}", "{}", Ok(1)),
        ("{__schema {types {name}}}", "{}", Err("INTROSPECTION_DISABLED")),
        (
            "{...F} fragment F on Query {__type(name: \"a\") {name}}",
            "{}",
            Err("INTROSPECTION_DISABLED"),
        ),
        (
            "{...A} fragment A on T {...B} fragment B on T {...A}",
            "{}",
            Err("GRAPHQL_VALIDATION_FAILED"),
        ),
        ("{...A}", "{}", Err("GRAPHQL_VALIDATION_FAILED")),
        ("{a", "{}", Err("GRAPHQL_PARSE_FAILED")),
        ("", "{}", Err("GRAPHQL_PARSE_FAILED")),
        ("query A {a} query B {b}", "{}", Err("OPERATION_RESOLUTION_FAILURE")),
        ("type A {a: Int} {a}", "{}", Err("GRAPHQL_VALIDATION_FAILED")),
    ] {
        assert_eq!(cost(text, variables), expected, "{text}");
    }
}

#[test]
fn what_is_built_to_cost_is_cheap_to_refuse() {
    // Twice as much with each fragment; once each is enough.
    let mut text = String::from("{...F0}");
    for at in 0..15 {
        text += &format!(" fragment F{at} on T {{...F{} ...F{}}}", at + 1, at + 1);
    }
    text += " fragment F15 on T {a}";
    let wide = Rules { max_tokens: 10_000, ..rules() };
    assert_eq!(measure(&text, None, None, &wide).map(|one| one.cost), Ok(1 << 15));
    let deep = "{a".repeat(2_000) + &"}".repeat(2_000);
    assert!(measure(&deep, None, None, &wide).is_err());
    let many = format!("{{{}}}", "a ".repeat(300));
    assert_eq!(cost(&many, "{}"), Err("QUERY_TOO_LARGE"));
}

#[test]
fn the_operation_that_is_named_counts() {
    let text = "query A {a} mutation B {b {c}}";
    let named = |name| measure(text, Some(name), None, &rules());
    assert_eq!(named("A").map(|one| (one.kind, one.cost)), Ok((Kind::Query, 1)));
    assert_eq!(named("B").map(|one| (one.kind, one.cost)), Ok((Kind::Mutation, 2)));
    assert_eq!(named("C").map_err(|no| no.code).unwrap_err(), "OPERATION_RESOLUTION_FAILURE");
    let listed = Rules { operations: ["A".into()].into(), ..rules() };
    assert!(measure(text, Some("A"), None, &listed).is_ok());
    assert_eq!(measure(text, Some("B"), None, &listed).unwrap_err().code, "OPERATION_NOT_ALLOWED");
    assert_eq!(measure("{a}", None, None, &listed).unwrap_err().code, "OPERATION_NOT_ALLOWED");
}

fn posted(body: &str, rules: &Rules) -> Result<String, (u16, &'static str)> {
    let judged = judge_body(Content::Json, body.as_bytes(), rules);
    let judged = judged.map_err(|refused| (refused.status, refused.code))?;
    Ok(String::from_utf8(judged.unwrap()).unwrap())
}

#[test]
fn bodies_are_requests_or_batches_of_them() {
    let rules = rules();
    assert_eq!(posted(r#"{"query": "{a}"}"#, &rules).unwrap(), r#"{"query":"{a}"}"#);
    // Whoever is behind us reads what was judged.
    let twice = r#"{"query":"{__schema {a}}","query":"{a}"}"#;
    assert_eq!(posted(twice, &rules).unwrap(), r#"{"query":"{a}"}"#);
    for (body, code) in [
        ("[]", "BATCH_TOO_LARGE"),
        (r#"[{"query":"{a}"},{"query":"{a}"},{"query":"{a}"}]"#, "BATCH_TOO_LARGE"),
        (r#"[{"query":"{search {a}}"},{"query":"{search {a}}"}]"#, "QUERY_TOO_COSTLY"),
        (r#"{"query":"{users(first:100) {a}}"}"#, "QUERY_TOO_COSTLY"),
        (r#"{"query":7}"#, "BAD_REQUEST"),
        ("7", "BAD_REQUEST"),
        ("{", "BAD_REQUEST"),
        ("{}", "BAD_REQUEST"),
        (r#"{"extensions":{"persistedQuery":{"sha256Hash":"00"}}}"#, "PERSISTED_QUERY_NOT_FOUND"),
    ] {
        assert_eq!(posted(body, &rules), Err((400, code)), "{body}");
    }
    let one = Rules { max_batch: 1, ..rules };
    assert_eq!(posted(r#"[{"query":"{a}"}]"#, &one), Err((400, "BATCH_TOO_LARGE")));
}

#[test]
fn documents_may_be_a_list() {
    let listed = Rules { documents: [sha256("{a}").into()].into(), ..rules() };
    assert!(posted(r#"{"query":"{a}"}"#, &listed).is_ok());
    assert_eq!(posted(r#"{"query":"{b}"}"#, &listed), Err((400, "DOCUMENT_NOT_ALLOWED")));
    let hash = sha256("{a}").to_uppercase();
    let body = format!(r#"{{"extensions":{{"persistedQuery":{{"sha256Hash":"{hash}"}}}}}}"#);
    assert!(posted(&body, &listed).is_ok());
}

#[test]
fn queries_come_in_query_strings() {
    let judged =
        |query: &str| judge_query(query.as_bytes(), &rules()).map_err(|no| (no.status, no.code));
    assert_eq!(judged("query=%7Ba%7D&other=1&other=2"), Ok(()));
    assert_eq!(judged("query=mutation%7Ba%7D"), Err((405, "METHOD_NOT_ALLOWED")));
    assert_eq!(judged("query={a}&query={b}"), Err((400, "BAD_REQUEST")));
    assert_eq!(judged("query={a}&variables={"), Err((400, "BAD_REQUEST")));
    assert_eq!(judged(""), Err((400, "BAD_REQUEST")));
    let query = "query=query($n:Int){users(first:$n){id}}&variables={\"n\":200}";
    assert_eq!(judged(query), Err((400, "QUERY_TOO_COSTLY")));
}

proptest! {
    #[test]
    fn noise_never_panics(text in "\\PC{0,60}|[{}()$:.@a ,\"#\\[\\]!=0-9_&]{0,80}", body in "\\PC{0,40}") {
        let _ = measure(&text, None, None, &rules());
        let _ = judge_body(Content::Json, body.as_bytes(), &rules());
        let _ = judge_query(text.as_bytes(), &rules());
    }
}
