//! The response cache: how it stands, and what is to go.

use axum::Json;
use axum::extract::{Extension, State};
use contract::Purge;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Problem;
use super::admit::Caller;
use super::extract::Params;
use super::model::CacheState;
use crate::running::Running;
use crate::store::AuditDraft;

/// Which stored answers are to go: those of which all that is said is true.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct What {
    /// All of them; only by itself.
    #[serde(default)]
    all: bool,
    /// Those of this route.
    route: Option<String>,
    /// Those with this tag.
    tag: Option<String>,
    /// Those for this host, with its port where requests have one.
    host: Option<String>,
    /// Those for this path, whatever their query.
    path: Option<String>,
    /// Those whose path begins so.
    prefix: Option<String>,
}

impl What {
    /// # Errors
    /// It says nothing, or two things that exclude each other.
    fn purge(self) -> Result<Purge, &'static str> {
        let What { all, route, tag, host, path, prefix } = self;
        let said: Vec<&String> =
            [&route, &tag, &host, &path, &prefix].into_iter().flatten().collect();
        let empty = said.iter().any(|text| text.is_empty());
        match (all, said.len()) {
            (false, 0) => return Err("say which: all, route, tag, host, path or prefix"),
            (true, 1..) => return Err("all goes by itself"),
            _ if empty => return Err("an empty text names nothing"),
            _ if path.is_some() && prefix.is_some() => {
                return Err("path and prefix exclude each other");
            }
            _ => {}
        }
        Ok(Purge {
            route: route.unwrap_or_default(),
            tag: tag.unwrap_or_default(),
            host: host.unwrap_or_default().to_ascii_lowercase(),
            below: prefix.is_some(),
            path: prefix.or(path).unwrap_or_default(),
        })
    }
}

/// `GET /v1/cache`: what this node keeps.
pub async fn standing(State(running): State<Running>) -> Result<Json<CacheState>, Problem> {
    let report = running.inquiry().cache(None).await.map_err(Problem::unavailable)?;
    Ok(Json(report.into()))
}

/// `POST /v1/cache/purge?tag=…`: has stored answers of this node go.
pub async fn purge(
    State(running): State<Running>,
    Params(what): Params<What>,
    caller: Extension<Caller>,
) -> Result<Json<CacheState>, Problem> {
    let purge = what.purge().map_err(Problem::bad_request)?;
    let route = Some(&*purge.route).filter(|route| !route.is_empty());
    caller.by.may_purge(route, &running.current().spec).map_err(Problem::forbidden)?;
    let deed = caller.deed("");
    let deed = AuditDraft { target: format!("{} {}", deed.target, told(&purge)), ..deed };
    let report = running.inquiry().cache(Some(purge)).await.map_err(Problem::unavailable)?;
    running.store().audit(deed).await.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Json(report.into()))
}

/// For the audit log.
fn told(purge: &Purge) -> String {
    let path = if purge.below { "prefix" } else { "path" };
    let parts =
        [("route", &purge.route), ("tag", &purge.tag), ("host", &purge.host), (path, &purge.path)];
    let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<String> = parts.map(|(name, value)| format!("{name}={value}")).collect();
    let text = if parts.is_empty() { "all".into() } else { parts.join(" ") };
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: serde_json::Value) -> Result<Purge, &'static str> {
        serde_json::from_value::<What>(query).unwrap().purge()
    }

    #[test]
    fn what_goes_is_said() {
        assert_eq!(of(serde_json::json!({"all": true})), Ok(Purge::default()));
        let below =
            Purge { path: "/a".into(), below: true, host: "b.test".into(), ..Purge::default() };
        assert_eq!(of(serde_json::json!({"prefix": "/a", "host": "B.test"})), Ok(below));
        for wrong in [
            serde_json::json!({}),
            serde_json::json!({"all": false}),
            serde_json::json!({"all": true, "tag": "a"}),
            serde_json::json!({"path": "/a", "prefix": "/a"}),
            serde_json::json!({"tag": ""}),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
