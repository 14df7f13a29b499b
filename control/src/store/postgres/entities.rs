//! Rows for what the latest revision consists of, for people to query.

use serde_json::Value;
use tokio_postgres::Transaction;

use super::Fault;
use crate::{spec, store::StoreError};

/// Lists of the spec, and the table and kind that each goes to.
const LISTS: [(&str, &str, Option<&str>); 8] = [
    ("routes", "routes", None),
    ("upstreams", "upstreams", None),
    ("consumers", "consumers", None),
    ("limits", "policies", Some("limit")),
    ("authenticators", "policies", Some("authenticator")),
    ("groups", "policies", Some("group")),
    ("apis", "policies", Some("api")),
    ("protos", "policies", Some("proto")),
];

/// Makes the tables say what `spec` says. With a `diff` to the revision before, lists that it does
/// not touch are left alone.
pub async fn write(
    change: &Transaction<'_>,
    revision: i64,
    spec: &str,
    diff: &Value,
) -> Result<(), Fault> {
    let touched = |list: &str| match diff {
        Value::Object(lists) => {
            let named = lists.get(list).is_none_or(|changes| {
                let parts = ["added", "removed", "changed"];
                // Whatever is not plainly empty is written.
                !parts.iter().all(|part| match changes.get(part) {
                    None => true,
                    Some(Value::Array(names)) => names.is_empty(),
                    Some(_) => false,
                })
            });
            named || list == "routes" && lists.contains_key("moved_routes")
        }
        _ => true,
    };
    let lists: Vec<_> = LISTS.into_iter().filter(|(list, ..)| touched(list)).collect();
    if lists.is_empty() {
        return Ok(());
    }
    let mut spec: Value = serde_json::from_str(spec)
        .map_err(|error| StoreError::Failed(format!("the spec is no JSON: {error}")))?;
    spec::redact(&mut spec);
    for (list, table, kind) in lists {
        let rows = spec.get(list).map_or_else(|| "[]".into(), Value::to_string);
        let (column, value, key) = match kind {
            Some(kind) => ("kind, ", format!("'{kind}', "), "kind, name"),
            None => ("", String::new(), "name"),
        };
        let of_kind = kind.map(|kind| format!("kind = '{kind}' AND ")).unwrap_or_default();
        // Rows that stay as they are are not written.
        let statement = format!(
            "WITH new AS MATERIALIZED (
                SELECT value->>'name' AS name, coalesce(value->>'workspace', 'default') AS workspace,
                    position, value AS spec
                FROM jsonb_array_elements($1::text::jsonb) WITH ORDINALITY AS all_of (value, position)
                WHERE value->>'name' IS NOT NULL
            ), gone AS (
                DELETE FROM {table} WHERE {of_kind}NOT EXISTS (
                    SELECT FROM new WHERE new.name = {table}.name)
            )
            INSERT INTO {table} ({column}name, workspace, position, spec, revision)
            SELECT {value}name, workspace, position, spec, $2::bigint FROM new
            ON CONFLICT ({key}) DO UPDATE SET workspace = excluded.workspace,
                position = excluded.position, spec = excluded.spec, revision = excluded.revision
            WHERE ({table}.spec, {table}.position) IS DISTINCT FROM (excluded.spec, excluded.position)"
        );
        change.execute(&statement, &[&rows, &revision]).await?;
    }
    Ok(())
}
