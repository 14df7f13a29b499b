//! What requests must look like.

use super::{Counts, DecodeError, Fault, In, MAX_ENTRIES, Out};
use crate::snapshot::*;

/// Most schemas of a snapshot.
pub const MAX_SCHEMAS: usize = 100_000;
/// Largest schema, in bytes.
pub const MAX_SCHEMA: usize = 4 * 1024 * 1024;
/// Most APIs of a snapshot: one for each route that has its own rules.
pub const MAX_APIS: usize = 100_000;
/// Most operations of an API.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most parameters of an operation, and keys of one that is an object.
pub const MAX_PARAMETERS: usize = 1_000;
/// Largest body that a route may ask to have validated, in bytes.
pub const MAX_VALIDATED_BODY: u32 = 16 * 1024 * 1024;

pub(super) fn write(out: &mut Out, validation: &Validation) {
    out.list(&validation.schemas, |out, schema| out.blob(schema.as_bytes()));
    out.list(&validation.apis, |out, api| {
        out.text(&api.name);
        out.list(&api.operations, write_operation);
    });
}

pub(super) fn read(input: &mut In<'_>) -> Result<Validation, DecodeError> {
    let schemas = input.list("schemas", MAX_SCHEMAS, |input| {
        let unsound = input.fault("schema", Fault::NotUtf8);
        String::from_utf8(input.blob("schema", MAX_SCHEMA)?).map_err(|_| unsound)
    })?;
    let apis = input.list("apis", MAX_APIS, |input| {
        let name = input.text("api.name")?;
        let operations = input
            .list("api.operations", MAX_OPERATIONS, |input| read_operation(input, schemas.len()))?;
        Ok(Api { name, operations })
    })?;
    Ok(Validation { schemas, apis })
}

fn write_operation(out: &mut Out, operation: &Operation) {
    out.text(&operation.method);
    out.text(&operation.template);
    out.list(&operation.parameters, write_parameter);
    out.option(operation.body.as_ref(), |out, body| {
        out.u8(body.required.into());
        out.list(&body.content, |out, content| {
            out.text(&content.media_type);
            out.option(content.schema.as_ref(), |out, schema| out.u32(*schema));
        });
    });
}

fn read_operation(input: &mut In<'_>, schemas: usize) -> Result<Operation, DecodeError> {
    Ok(Operation {
        method: input.text("operation.method")?,
        template: input.text("operation.template")?,
        parameters: input
            .list("operation.parameters", MAX_PARAMETERS, |input| read_parameter(input, schemas))?,
        body: input.option("operation.body", |input| {
            Ok(Body {
                required: input.bool("body.required")?,
                content: input.list("body.content", MAX_ENTRIES, |input| {
                    Ok(Content {
                        media_type: input.text("content.media_type")?,
                        schema: read_schema(input, schemas)?,
                    })
                })?,
            })
        })?,
    })
}

fn read_schema(input: &mut In<'_>, schemas: usize) -> Result<Option<SchemaIndex>, DecodeError> {
    input.option("schema.index", |input| input.index("schema.index", schemas))
}

fn write_parameter(out: &mut Out, parameter: &Parameter) {
    out.text(&parameter.name);
    out.u8(match parameter.place {
        Place::Path => 0,
        Place::Query => 1,
        Place::Header => 2,
        Place::Cookie => 3,
    });
    out.u8(parameter.required.into());
    match &parameter.form {
        Form::Scalar(kinds) => {
            out.u8(0);
            out.u8(kinds.0);
        }
        Form::Repeated(kinds) => {
            out.u8(1);
            out.u8(kinds.0);
        }
        Form::Separated(separator, kinds) => {
            out.u8(2);
            out.u8(*separator);
            out.u8(kinds.0);
        }
        Form::Deep(keys) => {
            out.u8(3);
            out.list(keys, |out, (name, kinds)| {
                out.text(name);
                out.u8(kinds.0);
            });
        }
        Form::Json => out.u8(4),
    }
    out.option(parameter.schema.as_ref(), |out, schema| out.u32(*schema));
}

fn read_parameter(input: &mut In<'_>, schemas: usize) -> Result<Parameter, DecodeError> {
    Ok(Parameter {
        name: input.text("parameter.name")?,
        place: match input.u8("parameter.place")? {
            0 => Place::Path,
            1 => Place::Query,
            2 => Place::Header,
            3 => Place::Cookie,
            other => return Err(input.tag("parameter.place", other)),
        },
        required: input.bool("parameter.required")?,
        form: match input.u8("parameter.form")? {
            0 => Form::Scalar(read_kinds(input)?),
            1 => Form::Repeated(read_kinds(input)?),
            2 => Form::Separated(input.u8("parameter.separator")?, read_kinds(input)?),
            3 => Form::Deep(input.list("parameter.keys", MAX_PARAMETERS, |input| {
                Ok((input.text("parameter.key")?, read_kinds(input)?))
            })?),
            4 => Form::Json,
            other => return Err(input.tag("parameter.form", other)),
        },
        schema: read_schema(input, schemas)?,
    })
}

fn read_kinds(input: &mut In<'_>) -> Result<Kinds, DecodeError> {
    let bits = input.u8("parameter.kinds")?;
    match bits & !Kinds::ALL {
        0 => Ok(Kinds(bits)),
        _ => Err(input.tag("parameter.kinds", bits)),
    }
}

pub(super) fn write_route(out: &mut Out, route: &RouteValidation) {
    out.u32(route.api);
    out.u8(route.parameters.into());
    out.u8(route.body.into());
    out.u32(route.max_bytes);
    out.u8(route.dry_run.into());
    out.u8(route.refuse_unknown.into());
}

pub(super) fn read_route(
    input: &mut In<'_>,
    counts: Counts,
) -> Result<RouteValidation, DecodeError> {
    Ok(RouteValidation {
        api: input.index("route.validate.api", counts.apis)?,
        parameters: input.bool("route.validate.parameters")?,
        body: input.bool("route.validate.body")?,
        max_bytes: input.u32_within("route.validate.max_bytes", 0, MAX_VALIDATED_BODY)?,
        dry_run: input.bool("route.validate.dry_run")?,
        refuse_unknown: input.bool("route.validate.refuse_unknown")?,
    })
}
