//! Any rules of validation.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::text;
use crate::encode::MAX_VALIDATED_BODY;
use crate::snapshot::*;

fn kinds() -> impl Strategy<Value = Kinds> {
    (0..=Kinds::ALL).prop_map(Kinds)
}

fn parameter(schemas: u32) -> impl Strategy<Value = Parameter> {
    let form = prop_oneof![
        kinds().prop_map(Form::Scalar),
        kinds().prop_map(Form::Repeated),
        (any::<u8>(), kinds()).prop_map(|(separator, kinds)| Form::Separated(separator, kinds)),
        vec((text(), kinds()), 0..3).prop_map(Form::Deep),
        Just(Form::Json),
    ];
    let place = select(vec![Place::Path, Place::Query, Place::Header, Place::Cookie]);
    (text(), place, any::<bool>(), form, option::of(0..schemas)).prop_map(
        |(name, place, required, form, schema)| Parameter { name, place, required, form, schema },
    )
}

fn operation(schemas: u32) -> impl Strategy<Value = Operation> {
    let content = (text(), option::of(0..schemas))
        .prop_map(|(media_type, schema)| Content { media_type, schema });
    let body = (any::<bool>(), vec(content, 0..3))
        .prop_map(|(required, content)| Body { required, content });
    (text(), text(), vec(parameter(schemas), 0..3), option::of(body)).prop_map(
        |(method, template, parameters, body)| Operation { method, template, parameters, body },
    )
}

/// Rules, and what a route makes of them.
pub fn validation() -> impl Strategy<Value = (Validation, Option<RouteValidation>)> {
    let api = |schemas| {
        (text(), vec(operation(schemas), 0..3))
            .prop_map(|(name, operations)| Api { name, operations })
    };
    let all = vec(text(), 1..4).prop_flat_map(move |schemas| {
        let apis = vec(api(schemas.len() as u32), 1..3);
        (Just(schemas), apis)
    });
    let route = (any::<(u32, bool, bool, bool, bool)>(), 0..=MAX_VALIDATED_BODY);
    (all, option::of(route)).prop_map(|((schemas, apis), route)| {
        let route = route.map(|((api, parameters, body, dry_run, refuse_unknown), max_bytes)| {
            let api = api % apis.len() as u32;
            RouteValidation { api, parameters, body, max_bytes, dry_run, refuse_unknown }
        });
        (Validation { schemas, apis }, route)
    })
}
