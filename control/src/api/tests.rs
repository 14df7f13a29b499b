use std::collections::HashSet;

use serde_json::Value;

use super::{openapi, table};

/// Every `$ref` below `value`.
fn references<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

#[test]
fn the_document_says_all_of_every_operation() {
    let document = openapi::document();
    let operations = table::operations(&mut openapi::generator());
    let mut told = HashSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, one) in methods.as_object().unwrap() {
            assert!(told.insert((path.clone(), method.to_uppercase())));
            let id = one["operationId"].as_str().unwrap();
            assert!(!one["summary"].as_str().unwrap().is_empty(), "{id}");
            for parameter in one["parameters"].as_array().unwrap() {
                assert!(!parameter["description"].as_str().unwrap().is_empty(), "{id} {parameter}");
                assert!(parameter["schema"].is_object(), "{id} {parameter}");
            }
            let answers = one["responses"].as_object().unwrap();
            assert!(answers.keys().any(|status| status.starts_with('2')), "{id}");
            if path.starts_with("/v1/") {
                for status in ["400", "401", "403", "503"] {
                    assert!(answers.contains_key(status), "{id} {status}");
                }
                assert!(one.get("security").is_none(), "{id}");
            } else {
                assert_eq!(one["security"], serde_json::json!([]), "{id}");
            }
        }
    }
    let known: HashSet<(String, String)> =
        operations.iter().map(|one| (one.path.clone(), one.method.to_string())).collect();
    assert_eq!(told, known);
    let ids: HashSet<&str> = operations.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), operations.len(), "an id is there twice");
    let mut all = Vec::new();
    references(&document, &mut all);
    for reference in all {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn whatever_changes_something_asks_for_a_role_and_is_audited() {
    for one in table::operations(&mut openapi::generator()) {
        let question = ["validate", "diff", "try", "explain"].contains(&one.id);
        assert_eq!(one.changes, one.method != axum::http::Method::GET && !question, "{}", one.id);
        assert_eq!(one.role.is_some(), one.path.starts_with("/v1/"), "{}", one.id);
        assert!(!one.changes || one.role >= Some(crate::spec::Role::Editor), "{}", one.id);
    }
}
