//! Any bounds on GraphQL requests.

use proptest::collection::vec;
use proptest::prelude::*;

use super::text;
use crate::encode::{MAX_QUERY_BATCH, MAX_QUERY_BYTES, MAX_QUERY_DEPTH, MAX_QUERY_TOKENS};
use crate::snapshot::Graphql;

pub fn graphql() -> impl Strategy<Value = Graphql> {
    let bounds = (1..=MAX_QUERY_DEPTH, any::<[u32; 2]>(), 1..=MAX_QUERY_TOKENS);
    let sizes = (1..=MAX_QUERY_BATCH, 1..=MAX_QUERY_BYTES, any::<bool>());
    let lists = (vec(text(), 0..3), vec((text(), any::<u32>()), 0..3));
    let listed = (vec(text(), 0..3), vec(text(), 0..3));
    (bounds, sizes, lists, listed).prop_map(|(bounds, sizes, lists, listed)| Graphql {
        max_depth: bounds.0,
        max_cost: bounds.1[0],
        max_aliases: bounds.1[1],
        max_tokens: bounds.2,
        max_batch: sizes.0,
        max_bytes: sizes.1,
        introspection: sizes.2,
        list_arguments: lists.0,
        weights: lists.1,
        operations: listed.0,
        documents: listed.1,
    })
}
