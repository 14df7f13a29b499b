//! A JSON Schema validator for the keywords that [`schema`] uses, so that the schema and the walk
//! are held together without a dependency.

use regex::Regex;
use serde_json::Value;

use super::EXAMPLES;
use crate::spec::{load, schema};

const NOTES: [&str; 5] = ["$schema", "$defs", "title", "description", "default"];

/// Where and why the value does not fit [`schema`]; empty: it does.
pub fn against_schema(value: &Value) -> Vec<String> {
    let root = schema();
    let mut out = Vec::new();
    validate(&root, &root, value, "", &mut out);
    out
}

fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let mut out = Vec::new();
    validate(root, schema, value, "", &mut out);
    out.is_empty()
}

fn validate(root: &Value, schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    let Value::Object(keywords) = schema else {
        assert_eq!(schema, &Value::Bool(true), "{path}");
        return;
    };
    let empty = serde_json::Map::new();
    let properties = keywords.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for (keyword, rule) in keywords {
        let ok = match (keyword.as_str(), value) {
            ("$ref", _) => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#'));
                let target = root.pointer(pointer.expect("a local reference")).expect("exists");
                validate(root, target, value, path, out);
                true
            }
            ("type", _) => {
                let types = match rule {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                types.iter().any(|one| is_type(value, one.as_str().expect("a type")))
            }
            ("enum", _) => rule.as_array().expect("a list").contains(value),
            ("const", _) => rule == value,
            ("anyOf", _) => rule.as_array().expect("a list").iter().any(|s| fits(root, s, value)),
            ("oneOf", _) => {
                let rules = rule.as_array().expect("a list").iter();
                rules.filter(|s| fits(root, s, value)).count() == 1
            }
            ("properties", Value::Object(fields)) => {
                for (name, field) in fields {
                    if let Some(schema) = properties.get(name) {
                        validate(root, schema, field, &format!("{path}.{name}"), out);
                    }
                }
                true
            }
            ("additionalProperties", Value::Object(fields)) => {
                let others = fields.iter().filter(|(name, _)| !properties.contains_key(*name));
                match rule {
                    Value::Bool(false) => others.count() == 0,
                    rule => {
                        for (name, field) in others {
                            validate(root, rule, field, &format!("{path}.{name}"), out);
                        }
                        true
                    }
                }
            }
            ("required", Value::Object(fields)) => {
                let names = rule.as_array().expect("a list").iter();
                names.filter_map(Value::as_str).all(|name| fields.contains_key(name))
            }
            ("items", Value::Array(items)) => {
                for (at, item) in items.iter().enumerate() {
                    validate(root, rule, item, &format!("{path}[{at}]"), out);
                }
                true
            }
            ("minItems", Value::Array(items)) => Some(items.len() as u64) >= rule.as_u64(),
            ("maxItems", Value::Array(items)) => Some(items.len() as u64) <= rule.as_u64(),
            ("minLength", Value::String(text)) => {
                Some(text.chars().count() as u64) >= rule.as_u64()
            }
            ("maxLength", Value::String(text)) => {
                Some(text.chars().count() as u64) <= rule.as_u64()
            }
            ("minimum", Value::Number(number)) => number.as_f64() >= rule.as_f64(),
            ("maximum", Value::Number(number)) => number.as_f64() <= rule.as_f64(),
            ("pattern", Value::String(text)) => {
                Regex::new(rule.as_str().expect("text")).expect("a pattern").is_match(text)
            }
            ("format", _) => true,
            (
                "properties"
                | "additionalProperties"
                | "required"
                | "items"
                | "minItems"
                | "maxItems"
                | "minLength"
                | "maxLength"
                | "minimum"
                | "maximum"
                | "pattern",
                _,
            ) => true,
            (note, _) => {
                assert!(NOTES.contains(&note), "the keyword {note} is not known here");
                true
            }
        };
        if !ok {
            out.push(format!("{path}: {value} breaks {keyword} {rule}"));
        }
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("the type {other} is not known here"),
    }
}

/// A YAML text as JSON.
pub(crate) fn as_json(text: &str) -> Value {
    use crate::spec::tree::{Node, Value as Tree};
    fn convert(node: &Node) -> Value {
        match &node.value {
            Tree::Null => Value::Null,
            Tree::Bool(value) => (*value).into(),
            Tree::Integer(number) => i64::try_from(*number).expect("fits").into(),
            Tree::Float(text) => text.parse::<f64>().expect("is a number").into(),
            Tree::Text(text) => text.as_str().into(),
            Tree::List(items) => items.iter().map(|item| convert(item)).collect(),
            Tree::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), convert(&entry.value))).collect()
            }
        }
    }
    let mut problems = crate::spec::Problems::new("t");
    convert(&crate::spec::tree::parse(text, &mut problems).expect("is YAML"))
}

#[test]
fn the_schema_takes_every_example() {
    for (name, text) in EXAMPLES {
        assert_eq!(against_schema(&as_json(text)), Vec::<String>::new(), "{name}");
        let spec = load(name, text).spec.expect("loads");
        let canonical = serde_json::to_value(&spec).expect("serialises");
        assert_eq!(against_schema(&canonical), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_schema_refuses_what_loading_refuses() {
    let good = "version: 1\nlisteners: [{name: web, listen: ':80'}]\n\
                upstreams: [{name: a, targets: ['a:1']}]\nroutes: [{name: r, upstream: a}]\n";
    assert_eq!(against_schema(&as_json(good)), Vec::<String>::new());
    for (from, to) in [
        ("version: 1", "version: 2"),
        ("listen:", "lisen:"),
        ("':80'", "80"),
        ("[{name: web, listen: ':80'}]", "[]"),
        ("name: web", "name: '-'"),
        ("['a:1']", "[]"),
        ("['a:1']", "[{address: 'a:1', weight: 0}]"),
        ("['a:1']", "['a:1'], balance: random"),
        ("['a:1']", "['a:1'], pool: {max_connections: 0}"),
        ("['a:1']", "['a:1'], timeouts: {total_ms: never}"),
        (", upstream: a", ""),
        ("upstream: a", "upstream: a, upstreams: [{name: a}]"),
        ("upstream: a", "upstream: a, match: {path: {exakt: /}}"),
        ("upstream: a", "upstream: a, match: {headers: [{exact: x}]}"),
        ("upstream: a", "upstream: a, max_body_bytes: much"),
        ("upstream: a", "upstream: a, rewrite: {strip_prefix: 1}"),
        ("['a:1']", "['a:1'], balance: hash"),
        ("['a:1']", "['a:1'], balance: {hash: client_ip, load_percent: 100}"),
        ("['a:1']", "['a:1'], balance: {hash: cookie}"),
        ("['a:1']", "[{address: 'a:1', priority: 256}]"),
        ("['a:1']", "['a:1'], health: {interval_ms: 1000}"),
        ("['a:1']", "['a:1'], health: {tcp: {}, http: {path: /}}"),
        ("['a:1']", "['a:1'], health: {http: {path: /, statuses: [2xx]}}"),
        ("['a:1']", "['a:1'], health: {http: {path: up}}"),
        ("['a:1']", "['a:1'], retry: {attempts: 0}"),
        ("['a:1']", "['a:1'], retry: {on: [301]}"),
        ("['a:1']", "['a:1'], retry: {on: []}"),
        ("['a:1']", "['a:1'], retry: {on: [ok]}"),
        ("['a:1']", "['a:1'], retry: never"),
        ("['a:1']", "['a:1'], hedge: {quantile: 95}"),
        ("['a:1']", "['a:1'], breaker: {probes: 0}"),
        ("['a:1']", "['a:1'], fallback: {upstream: b, status: 200}"),
        ("['a:1']", "['a:1'], outlier: {panic_percent: 101}"),
        ("['a:1']", "['a:1'], concurrency: {min: 0}"),
        ("upstream: a", "upstream: a, mirror: {upstream: a, percent: 101}"),
        ("upstream: a", "upstream: a, priority: urgent"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(!against_schema(&as_json(&bad)).is_empty(), "{bad}");
        assert!(load("t", &bad).spec.is_none(), "{bad}");
    }
}

/// The same for callers, whose schema is put together of several types.
#[test]
fn the_schema_refuses_callers_that_loading_refuses() {
    let good = "version: 1\nlisteners: [{name: web, listen: ':80'}]\nredis: {url: 'redis://a'}\n\
        upstreams: [{name: a, targets: ['a:1'], credentials: {token_url: 'https://a/t',\n  client: {id: a, \
        secret: {file: s}}}}]\nauthenticators:\n- {name: k, api_key: {from: [bearer, {header: x}], store: \
        redis}}\n- {name: j, jwt: {issuer: any, audiences: [b], jwks_file: f, require: [t, {claim: u, equals: \
        1}],\n    claim_headers: {sub: x-a}}}\n- {name: s, jwt: {issuer: i, audiences: any, keys: [{secret: \
        {file: s}, algorithm: HS256}]}}\nconsumers: [{name: c, certificates: [{dns: '*.x'}], subjects: \
        [{authenticator: j, value: v}]}]\nroutes: [{name: r, upstream: a, auth: {any: [k, j, s], optional: \
        true}, cors: {origins: '*'}}]\n";
    assert_eq!(against_schema(&as_json(good)), Vec::<String>::new());
    let problems = load("t", good).problems;
    assert!(
        problems.iter().all(|one| one.severity == crate::spec::Severity::Warning),
        "{problems:?}"
    );
    for (from, to) in [
        ("url: 'redis", "urls: 'redis"),
        ("{url: 'redis://a'}", "{}"),
        ("[bearer,", "[basic,"),
        ("{header: x}", "{headers: x}"),
        ("store: redis", "store: {redis: {prefx: a}}"),
        ("store: redis", "store: rediss"),
        ("api_key: {from", "api_key: {form"),
        (", jwks_file: f", ""),
        (", jwks_file: f", ", jwks_file: f, jwks_url: 'https://a/k'"),
        ("issuer: any, ", ""),
        ("audiences: [b]", "audience: [b]"),
        ("equals: 1", "equal: 1"),
        ("claim_headers: {sub: x-a}", "claim_headers: {sub: 1}"),
        (", algorithm: HS256", ""),
        ("algorithm: HS256", "algorithm: HS257"),
        ("{secret: {file: s}, algorithm", "{secret: {path: s}, algorithm"),
        ("{secret: {file: s}, algorithm", "{algorithm"),
        ("[{dns: '*.x'}]", "[{dns: a, cn: b}]"),
        ("any: [k, j, s]", "some: [k, j, s]"),
        ("any: [k, j, s]", "any: [k, j, s], all: [k]"),
        ("origins: '*'", "origins: all"),
        ("token_url: 'https://a/t',", ""),
        ("client: {id: a,", "client: {"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        assert!(!against_schema(&as_json(&bad)).is_empty(), "{bad}");
        assert!(load("t", &bad).spec.is_none(), "{bad}");
    }
}

#[test]
fn the_schema_says_which_draft_it_is() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let description = schema.pointer("/properties/listeners/description");
    assert_eq!(description.and_then(Value::as_str), Some("Addresses the gateway listens on."));
}
