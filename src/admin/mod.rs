//! The HTTP listener: status and health, open on both nodes whatever their role. An ordinary
//! reader of what the driver publishes.

use crate::clock::Clock;
use crate::handle::NodeHandle;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Admin {
    node: NodeHandle,
    clock: Clock,
}

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, node: NodeHandle, clock: Clock) -> std::io::Result<()> {
    let router = Router::new()
        .route("/api/replication", get(replication))
        .route("/api/overview", get(replication))
        .route("/api/health/ready", get(ready))
        .route("/api/health/live", get(live))
        .fallback(missing)
        .with_state(Admin { node, clock });
    axum::serve(listener, router).await
}

async fn replication(State(admin): State<Admin>) -> Response {
    Json(admin.node.overview_json(admin.clock.uptime_ms())).into_response()
}

/// 200 only while clients are served: for load balancers that follow the master.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.node.is_ready() {
        (StatusCode::OK, Json(serde_json::json!({"status": "ok"}))).into_response()
    } else {
        let state = admin.node.overview.borrow().replication.state;
        let body =
            serde_json::json!({"status": "failed", "reason": format!("not serving: {state}")});
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

async fn live() -> Response {
    Json(serde_json::json!({"status": "ok"})).into_response()
}

async fn missing() -> Response {
    let body = serde_json::json!({"error": "not_found", "reason": "no such resource"});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
