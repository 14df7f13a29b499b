//! Bounds on GraphQL requests.

/// What operations a route's upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphql {
    /// How deep fields nest, fragments followed.
    pub max_depth: u16,
    /// Fields by their weights, those in lists as often as the list may be long.
    pub max_cost: u32,
    pub max_aliases: u32,
    pub max_tokens: u32,
    /// Operations in one request.
    pub max_batch: u16,
    /// Largest body, in bytes.
    pub max_bytes: u32,
    /// `__schema` and `__type` may be asked for.
    pub introspection: bool,
    /// Arguments that say how long a list may be.
    pub list_arguments: Vec<String>,
    /// Weights of fields by name; all others weigh 1.
    pub weights: Vec<(String, u32)>,
    /// Names of operations that may be asked. Empty: any, and without a name.
    pub operations: Vec<String>,
    /// SHA-256 of documents that may be asked, in lower-case hexadecimal. Empty: any.
    pub documents: Vec<String>,
}
