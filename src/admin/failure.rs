//! What goes wrong, as HTTP says it: a status and `{"error": …, "reason": …}`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use understudy_model::{Refusal, RefusalKind};

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(super) fn missing() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    pub(super) fn unauthorised(reason: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason)
    }

    pub(super) fn not_serving() -> Self {
        let reason = "this node does not serve clients now: changes are made on the master";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::AccessRefused | RefusalKind::NotAllowed => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, refusal.text.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self.status {
            StatusCode::BAD_REQUEST => "bad_request",
            StatusCode::UNAUTHORIZED => "not_authorised",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::SERVICE_UNAVAILABLE => "not_serving",
            StatusCode::GATEWAY_TIMEOUT => "timeout",
            _ => "failed",
        };
        let body = Json(serde_json::json!({"error": error, "reason": self.reason}));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Basic realm=\"Understudy\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
