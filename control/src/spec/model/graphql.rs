//! Bounds on GraphQL requests.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::schema;

/// What a GraphQL upstream may be asked. Each request is read before it goes on (POST with JSON or
/// application/graphql, GET with `query`, which has to be a query); what is past a bound is answered as
/// GraphQL does, with `errors` and a status of 400.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Graphql {
    /// How deep fields may nest, fragments followed.
    #[schemars(range(min = 1, max = 100))]
    pub max_depth: u16,
    /// What an operation may cost: each field its weight, fields in a list as often as the list may be
    /// long by its arguments. Of a batch: all operations together.
    pub max_cost: u32,
    /// Aliases in an operation.
    pub max_aliases: u32,
    /// Tokens of a document.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_tokens: u32,
    /// Operations in one request. 1: no batches.
    #[schemars(range(min = 1, max = 100))]
    pub max_batch: u16,
    /// Largest body, in bytes or as "128KiB"; past it 413.
    #[schemars(with = "schema::SizeForm")]
    pub max_bytes: u64,
    /// Whether the schema may be asked for (__schema, __type).
    pub introspection: bool,
    /// Arguments that say how long a list may be, as a number or a variable.
    pub list_arguments: Vec<String>,
    /// Weights of fields, by name; all others weigh 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u32>,
    /// Names of operations that may be asked; others, and those without a name, are refused. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// SHA-256 of documents that may be asked, in hexadecimal; a persisted query (extensions.persistedQuery)
    /// may name its own in place of the document. Empty: any document, and no persisted query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
}

impl Default for Graphql {
    fn default() -> Self {
        Graphql {
            max_depth: 12,
            max_cost: 1_000,
            max_aliases: 20,
            max_tokens: 5_000,
            max_batch: 1,
            max_bytes: 128 * 1024,
            introspection: false,
            list_arguments: ["first", "last", "limit"].map(String::from).to_vec(),
            weights: BTreeMap::new(),
            operations: Vec::new(),
            documents: Vec::new(),
        }
    }
}
