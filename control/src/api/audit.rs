//! Who did what, and who was refused.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{
    Problem,
    extract::Params,
    page::{Page, PageQuery},
};
use crate::{
    running::{Refused, Running},
    store::AuditVerdict,
};

/// `GET /v1/audit`: newest first.
pub async fn list(
    State(running): State<Running>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = Page::new(query.limit, query.cursor.as_deref())?;
    let entries = running.store().audit_list(page.before()?, page.limit as u32 + 1).await;
    let entries = entries.map_err(Refused::Store)?;
    Ok(page.answer("/v1/audit", entries, |entry| entry.seq.to_string()).into_response())
}

/// `GET /v1/audit/verdict`: whether the chain is whole.
pub async fn verdict(State(running): State<Running>) -> Result<Json<AuditVerdict>, Problem> {
    Ok(Json(running.store().audit_verify().await.map_err(Refused::Store)?))
}
