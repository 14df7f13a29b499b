//! Rules that requests are held against.

use proptest::prelude::*;
use proptest::sample::select;

use crate::spec::*;

pub fn validate() -> impl Strategy<Value = Validate> {
    let mode = select(vec![ValidateMode::Enforce, ValidateMode::Log]);
    let undocumented = select(vec![Undocumented::Refuse, Undocumented::Pass]);
    let schema = select(vec![
        SchemaSource::File("/etc/a b.json".into()),
        SchemaSource::Inline(serde_json::json!({"type": ["object", "null"], "minimum": -1.5})),
        SchemaSource::Inline(true.into()),
    ]);
    let numbers = (any::<(bool, bool, bool, bool)>(), 0u64..=16 << 20);
    (mode, undocumented, schema, numbers).prop_map(|(mode, undocumented, schema, numbers)| {
        let ((named, parameters, body, required), max_bytes) = numbers;
        let parameter = serde_json::json!({"name": "a", "in": "query", "schema": {"const": 1e3}});
        Validate {
            api: named.then(|| "shop".into()),
            parameters: match named {
                true => RuleParameters::Flag(parameters),
                false => RuleParameters::Own(vec![parameter; parameters.into()]),
            },
            body: match named || !body {
                true => RuleBody::Flag(named && body),
                false => RuleBody::Own(OwnBody { schema, required }),
            },
            max_bytes,
            mode,
            undocumented,
        }
    })
}
