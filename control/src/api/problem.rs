//! Refusals as `application/problem+json` (RFC 9457).

use axum::{
    Extension,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use super::model::ProblemDocument;
use crate::{running::Refused, store::StoreError};

/// Why an answer is a refusal, for the audit log.
#[derive(Clone, Debug)]
pub struct Detail(pub String);

/// An answer that is not the one asked for.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// Last part of the stable `type`.
    kind: &'static str,
    title: &'static str,
    detail: String,
    problems: Vec<serde_json::Value>,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem { status, kind, title, detail: detail.into(), problems: Vec::new() }
    }

    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Nobody is proven", detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    pub fn reused(detail: impl Into<String>) -> Problem {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem::new(status, "idempotency-key-reused", "Idempotency key used before", detail)
    }

    pub fn method_not_allowed() -> Problem {
        let detail = "the Allow field says which methods there are here";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "No such method here", detail)
    }

    pub fn timeout() -> Problem {
        let detail = "the body did not come in time";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail)
    }

    pub fn too_large() -> Problem {
        let detail = format!("the body is larger than {} bytes", crate::spec::MAX_BYTES);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    pub fn media_type(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Media type", detail)
    }

    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Refused", detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail)
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let detail = refused.to_string();
        let (status, kind, title) = match &refused {
            Refused::Spec(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bad-spec", "The spec has problems")
            }
            Refused::Listener(_) => {
                (StatusCode::CONFLICT, "listener", "A listener cannot be opened")
            }
            Refused::NoRevision(_) | Refused::NoSpec => {
                (StatusCode::NOT_FOUND, "no-revision", "No such revision")
            }
            Refused::Question(_) => (StatusCode::BAD_REQUEST, "bad-request", "Bad request"),
            Refused::Changed { .. } => {
                (StatusCode::PRECONDITION_FAILED, "changed", "The running revision is another one")
            }
            Refused::Store(StoreError::Changed { .. }) => {
                (StatusCode::PRECONDITION_FAILED, "changed", "The latest revision is another one")
            }
            Refused::Store(StoreError::OnTrial { .. }) => {
                (StatusCode::CONFLICT, "on-trial", "A revision is on trial")
            }
            Refused::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Refused"),
            Refused::NoEntity(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Refused::Precondition(_) => {
                (StatusCode::PRECONDITION_FAILED, "changed", "It is another one now")
            }
            Refused::Conflict(_) => (StatusCode::CONFLICT, "conflict", "Conflict"),
            Refused::Store(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store", "The revision store failed")
            }
            Refused::Publish(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "publish", "Not every shard took the change")
            }
            Refused::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            }
        };
        let mut problem = Problem::new(status, kind, title, detail);
        if let Refused::Spec(problems) = &refused {
            // Plain data with string keys: this cannot fail.
            problem.problems =
                problems.iter().filter_map(|one| serde_json::to_value(one).ok()).collect();
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let detail = Detail(self.detail.clone());
        let document = ProblemDocument {
            kind: format!("urn:sluice:problem:{}", self.kind),
            title: self.title.into(),
            status: self.status.as_u16(),
            detail: self.detail,
            problems: self.problems,
        };
        let body = serde_json::to_string(&document).unwrap_or_default();
        let kind = [(CONTENT_TYPE, "application/problem+json")];
        (self.status, Extension(detail), kind, body).into_response()
    }
}
