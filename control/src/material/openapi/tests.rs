use std::fs;
use std::path::PathBuf;

use contract::snapshot::{Form, Kinds, Place};
use serde_json::{Value, json};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().into()
    }

    /// What is wrong with `text`, without the directory.
    fn broken(&self, text: &str) -> String {
        let file = self.write("broken.yaml", text);
        let broken = api(&file, None).expect_err(text).to_string();
        broken.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

const SHOP: &str = r##"openapi: 3.0.3
servers: [{url: "https://shop.example.com/v1/"}]
paths:
  /orders:
    parameters:
      - {name: tenant, in: header, required: true, schema: {type: string}}
    get:
      parameters:
        - {name: limit, in: query, schema: {type: integer, minimum: 0, exclusiveMinimum: true}}
        - {name: tag, in: query, schema: {type: array, items: {type: string}}}
        - {name: ids, in: query, explode: false, schema: {type: array, items: {$ref: "#/components/schemas/Id"}}}
        - {name: f, in: query, style: deepObject, schema: {type: object, properties: {min: {type: number}}}}
        - {name: tenant, in: header, schema: {type: string, nullable: true}}
        - {name: o, in: query, schema: {type: object}}
        - {name: Authorization, in: header, schema: {type: string}}
    post:
      requestBody: {$ref: "parts.yaml#/bodies/Order"}
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {$ref: "#/components/schemas/Id"}}]
components:
  schemas:
    Id: {type: integer, nullable: true, enum: [1, 2]}
"##;

const PARTS: &str = r##"bodies:
  Order:
    required: true
    content:
      application/json; charset=utf-8: {schema: {$ref: "#/Order"}}
      text/csv: {schema: {type: string}}
Order:
  type: object
  required: [id, items]
  properties:
    id: {type: integer, readOnly: true}
    items: {type: array, items: {$ref: "#/It~1em"}}
    example: {type: string}
  example: {$ref: "no reference"}
  additionalProperties: false
It/em:
  description: An item
  properties: {parent: {$ref: "#/It~1em"}, "$ref": {type: string}}
"##;

#[test]
fn operations_have_what_their_document_says() {
    let scratch = Scratch::new("openapi");
    scratch.write("parts.yaml", PARTS);
    let file = scratch.write("shop.yaml", SHOP);
    let shop = api(&file, None).unwrap();
    let told: Vec<String> =
        shop.operations.iter().map(|one| format!("{} {}", one.method, one.template)).collect();
    assert_eq!(told, ["GET /v1/orders", "POST /v1/orders", "GET /v1/orders/{id}"]);
    assert_eq!(shop.files.len(), 2);
    assert_eq!(shop.notes.len(), 1, "{:?}", shop.notes);
    assert!(shop.notes[0].contains("shop.yaml:14: parameter `o` is not validated"));

    let (number, text) = (Kinds::NUMBER, Kinds::TEXT);
    let null = |kinds: Kinds| Kinds(kinds.0 | Kinds::NULL.0);
    let parameters = &shop.operations[0].parameters;
    let forms: Vec<(&str, &Form)> =
        parameters.iter().map(|one| (one.name.as_str(), &one.form)).collect();
    assert_eq!(
        forms,
        [
            ("limit", &Form::Scalar(number)),
            ("tag", &Form::Repeated(text)),
            ("ids", &Form::Separated(b',', null(number))),
            ("f", &Form::Deep(vec![("min".into(), number)])),
            ("tenant", &Form::Scalar(null(text))),
        ]
    );
    assert!(!parameters[4].required, "the operation's own goes first");
    let schema = |index: Option<u32>| -> Value {
        serde_json::from_str(&shop.schemas[index.unwrap() as usize]).unwrap()
    };
    assert_eq!(schema(parameters[0].schema), json!({"type": "integer", "exclusiveMinimum": 0}));
    let id = json!({"type": ["integer", "null"], "enum": [1, 2, null]});
    assert_eq!(
        schema(shop.operations[2].parameters[0].schema),
        json!({"$ref": "#/$defs/Id0", "$defs": {"Id0": id}})
    );
    assert_eq!(shop.operations[2].parameters[0].place, Place::Path);

    let body = shop.operations[1].body.as_ref().unwrap();
    assert!(body.required);
    let types: Vec<&str> = body.content.iter().map(|one| one.media_type.as_str()).collect();
    assert_eq!(types, ["application/json", "text/csv"]);
    assert_eq!(body.content[1].schema, None);
    assert_eq!(
        schema(body.content[0].schema),
        json!({"$ref": "#/$defs/Order0", "$defs": {
            "Order0": {
                "type": "object",
                "required": ["items"],
                "properties": {
                    "id": {"type": "integer", "readOnly": true},
                    "items": {"type": "array", "items": {"$ref": "#/$defs/It1em1"}},
                    "example": {"type": "string"},
                },
                "additionalProperties": false,
            },
            "It1em1": {"properties": {
                "parent": {"$ref": "#/$defs/It1em1"},
                "$ref": {"type": "string"},
            }},
        }})
    );
    assert_eq!(api(&file, Some("/x/")).unwrap().operations[0].template, "/x/orders");
}

#[test]
fn what_is_broken_is_told_with_its_line() {
    let scratch = Scratch::new("openapi-broken");
    let paths = |rest: &str| format!("openapi: 3.1.0\npaths:\n  /a:\n    get:\n      {rest}\n");
    let parameter =
        |rest: &str| paths(&format!("parameters: [{{name: a, in: query, schema: {rest}}}]"));
    for (text, told) in [
        ("openapi: 3.1.0\npaths: [", "broken.yaml:"),
        (
            "swagger: '2.0'\n",
            "broken.yaml:1: this is a Swagger 2.0 document; convert it to OpenAPI 3",
        ),
        ("openapi: 3.1.0\n", "broken.yaml:1: it has no `paths`"),
        ("openapi: 3.1.0\npaths: {}\n", "broken.yaml:1: it has no operation"),
        (
            &parameter("{$ref: '#/components/x'}"),
            "broken.yaml:5: `$ref: #/components/x` leads nowhere",
        ),
        (
            &parameter("{$ref: 'https://example.com/a.json'}"),
            "broken.yaml:5: `https://example.com/a.json` is elsewhere",
        ),
        (&parameter("{$ref: 'no.yaml'}"), "broken.yaml:5: `$ref: no.yaml`: "),
        (&parameter("{allOf: {}}"), "broken.yaml:5: `allOf` must hold schemas"),
        (&parameter("{items: 1}"), "broken.yaml:5: expected a schema"),
        (&paths("parameters: [{in: query}]"), "broken.yaml:5: a parameter needs a `name`"),
        (
            &paths("parameters: [{name: id, in: path}]"),
            "broken.yaml:5: the path /a has no parameter `{id}`",
        ),
        (
            &paths("parameters: [{$ref: '#/x'}]\nx: {$ref: '#/x'}"),
            "broken.yaml:6: references lead to references without end",
        ),
    ] {
        let found = scratch.broken(text);
        assert!(found.starts_with(told), "{found}\nexpected {told}");
    }
}

#[test]
fn rules_of_a_route_stand_in_the_spec() {
    let parameters = [json!({"name": "limit", "in": "query", "schema": {"type": "integer"}})];
    let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}});
    let body = OwnBody { schema: SchemaSource::Inline(schema), required: true };
    let rules = own(&parameters, Some(&body)).unwrap();
    assert_eq!(rules.operations[0].parameters[0].form, Form::Scalar(Kinds::NUMBER));
    assert_eq!(rules.operations[0].body.as_ref().unwrap().content[0].media_type, "*+json");
    let whole: Value = serde_json::from_str(&rules.schemas[1]).unwrap();
    assert_eq!(whole, json!({"$ref": "#/$defs/a0", "$defs": {"a0": {"type": "object"}}}));
    let elsewhere =
        OwnBody { schema: SchemaSource::Inline(json!({"$ref": "other.json"})), required: true };
    let (name, broken) = own(&[], Some(&elsewhere)).unwrap_err();
    assert_eq!(name, "body.schema");
    assert!(broken.to_string().contains("cannot refer to files"), "{broken}");
}

#[test]
fn routes_meet_templates() {
    for (template, path, prefix, expected) in [
        ("/a/{id}", "/a/7", false, true),
        ("/a/{id}", "/a", false, false),
        ("/a/{id}", "/a", true, true),
        ("/a/{id}", "/", true, true),
        ("/a/{id}", "/b", true, false),
        ("/a/{id}", "/a/7/x", true, false),
    ] {
        assert_eq!(meets(template, path, prefix), expected, "{template} {path} {prefix}");
    }
}

#[test]
fn templates_are_as_paths_come() {
    let scratch = Scratch::new("openapi-encoded");
    let text = "openapi: 3.1.0\npaths:\n  /über/{größe}/a b:\n    get:\n      parameters:\n      - {name: größe, in: path, required: true, schema: {type: integer}}\n";
    let file = scratch.write("a.yaml", text);
    let described = api(&file, Some("/ä")).unwrap();
    assert_eq!(described.operations[0].template, "/%C3%A4/%C3%BCber/{größe}/a%20b");
}
