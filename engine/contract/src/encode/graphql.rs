//! Bounds on GraphQL requests.

use super::{DecodeError, In, MAX_ENTRIES, Out};
use crate::snapshot::Graphql;

/// Deepest that fields may nest: the parser takes no more.
pub const MAX_QUERY_DEPTH: u16 = 100;
/// Most tokens of a document.
pub const MAX_QUERY_TOKENS: u32 = 100_000;
/// Largest body of a GraphQL request, in bytes.
pub const MAX_QUERY_BYTES: u32 = 1024 * 1024;
/// Most operations in one request.
pub const MAX_QUERY_BATCH: u16 = 100;

pub(super) fn write(out: &mut Out, graphql: &Graphql) {
    out.u16(graphql.max_depth);
    out.u32(graphql.max_cost);
    out.u32(graphql.max_aliases);
    out.u32(graphql.max_tokens);
    out.u16(graphql.max_batch);
    out.u32(graphql.max_bytes);
    out.u8(graphql.introspection.into());
    out.texts(&graphql.list_arguments);
    out.list(&graphql.weights, |out, (name, weight)| {
        out.text(name);
        out.u32(*weight);
    });
    out.texts(&graphql.operations);
    out.texts(&graphql.documents);
}

pub(super) fn read(input: &mut In<'_>) -> Result<Graphql, DecodeError> {
    Ok(Graphql {
        max_depth: input.u16_within("graphql.max_depth", 1, MAX_QUERY_DEPTH)?,
        max_cost: input.u32("graphql.max_cost")?,
        max_aliases: input.u32("graphql.max_aliases")?,
        max_tokens: input.u32_within("graphql.max_tokens", 1, MAX_QUERY_TOKENS)?,
        max_batch: input.u16_within("graphql.max_batch", 1, MAX_QUERY_BATCH)?,
        max_bytes: input.u32_within("graphql.max_bytes", 1, MAX_QUERY_BYTES)?,
        introspection: input.bool("graphql.introspection")?,
        list_arguments: input.texts("graphql.list_arguments", MAX_ENTRIES)?,
        weights: input.list("graphql.weights", MAX_ENTRIES, |input| {
            Ok((input.text("graphql.weights")?, input.u32("graphql.weights")?))
        })?,
        operations: input.texts("graphql.operations", MAX_ENTRIES)?,
        documents: input.texts("graphql.documents", MAX_ENTRIES)?,
    })
}
