//! The operator's switchover, promotion, resync and forgetting, which ask the node and then watch
//! what becomes of it; and the digest that two nodes are compared by.

use super::Admin;
use super::failure::Failure;
use super::principal::{Level, Principal};
use crate::handle::ClientEvent;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;
use understudy_replication::Status;

/// Twice the default time after which a slave that does not confirm ends the attempt, and more.
const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/api/replication/switchover", post(switchover))
        .route("/api/replication/promote", post(promote))
        .route("/api/replication/resync", post(resync))
        .route("/api/replication/forget-slave", post(forget_slave))
        .route("/api/replication/digest", get(digest))
}

/// Answers when this node follows the new master, or says why nothing was done.
async fn switchover(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Failure> {
    principal.need(Level::Administrator)?;
    let mut overview = admin.node.overview.clone();
    let status = overview.borrow_and_update().replication.clone();
    if status.role != "master" || !status.in_sync {
        let reason = format!(
            "a switchover begins at a master whose slave is in-sync; this is the {}, {}",
            status.role, status.state
        );
        return Err(Failure::new(StatusCode::CONFLICT, reason));
    }
    let events = &admin.node.events;
    events.send(ClientEvent::HandOver).await.map_err(|_| Failure::not_serving())?;
    let epoch = status.epoch;
    let follows = overview.wait_for(|overview| {
        let now = &overview.replication;
        now.role == "slave" && now.in_sync && now.epoch > epoch
    });
    match tokio::time::timeout(SWITCHOVER_TIMEOUT, follows).await {
        Ok(Ok(overview)) => Ok(Json(json!({"role": "slave", "epoch": overview.replication.epoch}))),
        Ok(Err(_)) => Err(Failure::not_serving()),
        Err(_) => {
            let now = admin.node.overview.borrow().replication.clone();
            let reason = format!("not done in time: this is the {}, {}", now.role, now.state);
            Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, reason))
        }
    }
}

/// Two nodes whose applied LSN is equal have equal digests.
async fn digest(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Failure> {
    principal.need(Level::Monitoring)?;
    let (answer, answered) = oneshot::channel();
    let events = &admin.node.events;
    events.send(ClientEvent::Digest(answer)).await.map_err(|_| Failure::not_serving())?;
    let (applied, digest) = answered.await.map_err(|_| Failure::not_serving())?;
    Ok(Json(json!({"applied": applied.0, "digest": format!("{digest:032x}")})))
}

/// Of a request that is refused without.
#[derive(Deserialize)]
struct Forced {
    #[serde(default)]
    force: bool,
}

/// Answers when this node serves, or says why it was not promoted.
async fn promote(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
    Query(Forced { force }): Query<Forced>,
) -> Result<Json<Value>, Failure> {
    principal.need(Level::Administrator)?;
    let (answer, answered) = oneshot::channel();
    let status = ask(&admin, ClientEvent::Promote { force, answer }, answered).await?;
    if status.state != "taking-over" {
        return Err(Failure::new(StatusCode::CONFLICT, status.reason));
    }
    let mut overview = admin.node.overview.clone();
    let serves = overview.wait_for(|now| now.serving);
    match tokio::time::timeout(SWITCHOVER_TIMEOUT, serves).await {
        Ok(Ok(now)) => Ok(Json(json!({"role": "master", "epoch": now.replication.epoch}))),
        Ok(Err(_)) => Err(Failure::not_serving()),
        Err(_) => Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, "promoted, but not serving yet")),
    }
}

/// Answers when the copy has begun: the slave's claim to hold everything is given up on its disk.
async fn resync(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Value>, Failure> {
    principal.need(Level::Administrator)?;
    let (answer, answered) = oneshot::channel();
    let status = ask(&admin, ClientEvent::Resync(answer), answered).await?;
    if status.state != "awaiting-copy" {
        return Err(Failure::new(StatusCode::CONFLICT, status.reason));
    }
    let mut overview = admin.node.overview.clone();
    let begun = overview.wait_for(|now| now.replication.copies_begun > status.copies_begun);
    match tokio::time::timeout(SWITCHOVER_TIMEOUT, begun).await {
        Ok(Ok(_)) => Ok(Json(json!({"state": "copying"}))),
        Ok(Err(_)) => Err(Failure::not_serving()),
        Err(_) => {
            let reason = "the copy begins as soon as the master is met, which has not happened yet";
            Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, reason))
        }
    }
}

/// Answers when the disk says so. Asked again it is done already.
async fn forget_slave(
    State(admin): State<Admin>,
    Extension(principal): Extension<Principal>,
    Query(Forced { force }): Query<Forced>,
) -> Result<Json<Value>, Failure> {
    principal.need(Level::Administrator)?;
    let (answer, answered) = oneshot::channel();
    let status = ask(&admin, ClientEvent::ForgetSlave { force, answer }, answered).await?;
    let none_is_left = status.peer_node_id.is_empty() && !status.forgotten_node_id.is_empty();
    if status.role != "master" || !none_is_left {
        return Err(Failure::new(StatusCode::CONFLICT, status.reason));
    }
    let mut overview = admin.node.overview.clone();
    let forgotten = overview.wait_for(|now| {
        let now = &now.replication;
        now.forgotten_node_id == status.forgotten_node_id && now.saved
    });
    match tokio::time::timeout(SWITCHOVER_TIMEOUT, forgotten).await {
        Ok(Ok(_)) => Ok(Json(json!({"role": "master"}))),
        Ok(Err(_)) => Err(Failure::not_serving()),
        Err(_) => Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, "not on disk yet")),
    }
}

/// What the node makes of an event, once it has taken it in.
async fn ask(
    admin: &Admin,
    event: ClientEvent,
    answered: oneshot::Receiver<Status>,
) -> Result<Status, Failure> {
    admin.node.events.send(event).await.map_err(|_| Failure::not_serving())?;
    answered.await.map_err(|_| Failure::not_serving())
}
