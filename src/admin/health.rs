//! Status and health: for people, load balancers and monitoring.

use super::Admin;
use super::failure::Failure;
use super::principal::{Level, Principal};
use crate::handle::Overview;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::json;

pub(super) async fn replication(State(admin): State<Admin>) -> Response {
    Json(admin.node.overview_json(admin.clock.uptime_ms())).into_response()
}

/// 200 only while clients are served: for load balancers that follow the master.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
    let state = admin.node.overview.borrow().replication.state;
    verdict(admin.node.is_ready(), &format!("not serving: {state}"))
}

pub(super) async fn live() -> Response {
    verdict(true, "")
}

fn alarms(overview: &Overview) -> Response {
    let damage = &overview.repair.first;
    let alarms = [
        overview.disk_alarm.then(|| "disk alarm".to_owned()),
        overview.digest.differs_at.map(|at| format!("the nodes' states differ at LSN {at}")),
        (!damage.is_empty()).then(|| format!("{damage} is damaged")),
    ];
    let alarms: Vec<String> = alarms.into_iter().flatten().collect();
    verdict(alarms.is_empty(), &alarms.join("; "))
}

fn verdict(good: bool, reason: &str) -> Response {
    if good {
        return (StatusCode::OK, Json(json!({"status": "ok"}))).into_response();
    }
    let body = json!({"status": "failed", "reason": reason});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// RabbitMQ's health checks, and two of a pair's own.
pub(super) fn checks() -> Router<Admin> {
    Router::new()
        .route("/api/health/checks/{check}", get(check))
        .route("/api/health/checks/port-listener/{port}", get(port))
        .route("/api/health/checks/protocol-listener/{protocol}", get(protocol))
}

async fn check(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
    Path(check): Path<String>,
) -> Result<Response, Failure> {
    principal.need(Level::Management)?;
    let overview = admin.node.overview.borrow().clone();
    let status = &overview.replication;
    Ok(match check.as_str() {
        "ready-to-serve-clients" | "is-in-service" => {
            verdict(admin.node.is_ready(), &format!("not serving: {}", status.state))
        }
        "is-master" => verdict(status.role == "master", &format!("this is the {}", status.role)),
        "replication-in-sync" => verdict(status.in_sync, &format!("state: {}", status.state)),
        "alarms" | "local-alarms" => alarms(&overview),
        // Their vhosts are always up while the node serves.
        "virtual-hosts" => verdict(admin.node.is_ready(), "not serving"),
        _ => return Err(Failure::missing()),
    })
}

async fn port(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
    Path(port): Path<u16>,
) -> Result<Response, Failure> {
    principal.need(Level::Management)?;
    let wanted = format!(":{port}");
    let open = admin.node.listeners.borrow().iter().any(|(_, at)| at.ends_with(&wanted));
    Ok(verdict(open, &format!("no listener on port {port}")))
}

async fn protocol(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
    Path(protocol): Path<String>,
) -> Result<Response, Failure> {
    principal.need(Level::Management)?;
    let wanted = protocol.to_ascii_lowercase();
    // RabbitMQ's names of the same.
    let name = match wanted.as_str() {
        "amqp091" | "amqp-0-9-1" => "amqp",
        other => other,
    };
    let open = admin.node.listeners.borrow().iter().any(|(listener, _)| *listener == name);
    Ok(verdict(open, &format!("no listener for {protocol}")))
}
