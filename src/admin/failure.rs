//! What goes wrong, as HTTP says it: a status and `{"error": …, "reason": …}`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use understudy_model::{Refusal, RefusalKind};

const REASON_BYTES_MAX: usize = 4_096;

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

/// What axum refuses by itself, such as a query that cannot be read, is said in plain text.
pub(super) async fn as_json(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, REASON_BYTES_MAX).await.unwrap_or_default();
    let mut reason = String::from_utf8_lossy(&text).into_owned();
    if reason.is_empty() {
        reason = status.canonical_reason().unwrap_or_default().to_owned();
    }
    let mut response = Failure::new(status, reason).into_response();
    if let Some(methods) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, methods.clone());
    }
    response
}
