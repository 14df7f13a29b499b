//! Entry point for fuzzing: it panics where a promise is broken, never on bad input.

use std::sync::OnceLock;

use contract::snapshot::{
    self, Body, Content, Form, Kinds, Operation, Parameter, Place, Validation,
};

use super::api::{Api, Schemas};
use super::fault::{Faults, In};
use super::schema::{Memory, Schema};
use super::{compare, parameter};
use crate::limits;
use crate::message::{HeadLimits, Progress, RequestHead};

const THING: &str = r##"{"$ref":"#/$defs/thing","$defs":{"thing":{"type":"object",
    "properties":{"name":{"type":"string","pattern":"^[a-z]+$","maxLength":8},
    "size":{"type":"integer","multipleOf":3},"tags":{"type":"array","uniqueItems":true,"maxItems":3},
    "parent":{"anyOf":[{"$ref":"#/$defs/thing"},{"type":"null"}]}},
    "required":["name"],"additionalProperties":false}}}"##;

/// An API with a parameter of each form.
pub(super) fn things() -> (snapshot::Api, Validation) {
    let parameter = |name: &str, place, form, schema| Parameter {
        name: name.into(),
        place,
        required: name == "limit",
        form,
        schema: Some(schema),
    };
    let number = Kinds::NUMBER;
    let parameters = vec![
        parameter("id", Place::Path, Form::Scalar(number), 1),
        parameter("limit", Place::Query, Form::Scalar(number), 1),
        parameter("any", Place::Query, Form::Scalar(Kinds::UNKNOWN), 1),
        parameter("tag", Place::Query, Form::Repeated(Kinds::TEXT), 2),
        parameter("ids", Place::Query, Form::Separated(b',', number), 2),
        parameter("p", Place::Query, Form::Separated(b'|', Kinds::TEXT), 2),
        parameter("f", Place::Query, Form::Deep(vec![("size".into(), number)]), 0),
        parameter("j", Place::Query, Form::Json, 0),
        parameter("x-ids", Place::Header, Form::Separated(b',', number), 2),
        parameter("s", Place::Cookie, Form::Scalar(Kinds::BOOL), 3),
    ];
    let content = vec![Content { media_type: "application/json".into(), schema: Some(0) }];
    let body = Some(Body { required: true, content });
    let operation = |template: &str| Operation {
        method: String::new(),
        template: template.into(),
        parameters: parameters.clone(),
        body: body.clone(),
    };
    let operations = vec![operation("/things/{id}"), operation("/things/{id}.{kind}/x")];
    let schemas = [
        THING,
        r#"{"type":"integer","minimum":1,"maximum":100}"#,
        r#"{"type":"array","maxItems":2}"#,
        r#"{"type":"boolean"}"#,
    ];
    let schemas = schemas.map(String::from).into();
    (snapshot::Api { name: "things".into(), operations }, Validation { schemas, apis: vec![] })
}

/// Holds `data` against an API: as a body, and as a request's head.
#[doc(hidden)]
pub fn fuzz_validate(data: &[u8]) {
    static KNOWN: OnceLock<(Api, Schema)> = OnceLock::new();
    let (api, schema) = KNOWN.get_or_init(|| {
        let (from, validation) = things();
        let memory = Memory::default();
        let api = Api::build(&from, &Schemas { from: &validation, memory: &memory });
        (api.expect("an API of ours"), Schema::build(THING).expect("a schema of ours"))
    });
    check(compare(schema, data));
    let mut head = RequestHead::new();
    if head.parse(data, &HeadLimits::REQUEST) != Ok(Progress::Complete) {
        return;
    }
    if let Ok(found) = api.find(head.method(data), head.path(data)) {
        let mut faults = Faults::default();
        parameter::judge(&found, &head, data, &mut faults);
        check(faults);
    }
}

fn check(faults: Faults) {
    let list = faults.into_list();
    assert!(list.len() <= limits::FAULTS);
    for fault in list {
        assert!(fault.pointer.len() <= limits::FAULT_TEXT);
        assert!(fault.message.len() <= limits::FAULT_TEXT);
        assert!(fault.place != In::Body || !fault.message.is_empty());
    }
}
