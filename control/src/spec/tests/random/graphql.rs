//! Bounds of GraphQL.

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::texts;
use crate::spec::*;

prop_compose! {
    pub fn graphql()(
        (max_depth, max_cost, max_aliases) in (1u16..=100, 1u32.., any::<u32>()),
        (max_tokens, max_batch, max_bytes) in (1u32..=100_000, 1u16..=100, 1u64..=1 << 20),
        introspection in any::<bool>(),
        list_arguments in subsequence(texts(&["first", "null", "_1"]), 0..3),
        weights in subsequence(vec![("search".to_owned(), 5), ("true".to_owned(), 0)], 0..=2),
        operations in subsequence(texts(&["Shop", "null"]), 0..3),
        hashed in any::<bool>(),
    ) -> Box<Graphql> {
        Box::new(Graphql {
            max_depth,
            max_cost,
            max_aliases,
            max_tokens,
            max_batch,
            max_bytes,
            introspection,
            list_arguments,
            weights: weights.into_iter().collect(),
            operations,
            documents: if hashed { vec!["0a".repeat(32)] } else { Vec::new() },
        })
    }
}
