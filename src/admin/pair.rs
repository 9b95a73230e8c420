//! The operator's switchover, promotion, resync and forgetting, which ask the node and then watch
//! what becomes of it; and the digest that two nodes are compared by.

use super::Admin;
use super::failure::Failure;
use super::principal::{Level, Principal};
use crate::handle::{ClientEvent, Overview};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
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
    let status = admin.node.overview.borrow().replication.clone();
    if status.role != "master" || !status.in_sync {
        let reason = format!(
            "a switchover begins at a master whose slave is in-sync; this is the {}, {}",
            status.role, status.state
        );
        return Err(Failure::new(StatusCode::CONFLICT, reason));
    }
    let events = &admin.node.events;
    events.send(ClientEvent::HandOver).await.map_err(|_| Failure::not_serving())?;
    let follows = watch(&admin, "not done in time", |now| {
        let now = &now.replication;
        now.role == "slave" && now.in_sync && now.epoch > status.epoch
    });
    let epoch = follows.await?.replication.epoch;
    Ok(Json(json!({"role": "slave", "epoch": epoch})))
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
        return Err(refused(status));
    }
    let serves = watch(&admin, "promoted, but not serving yet", |now| now.serving);
    let epoch = serves.await?.replication.epoch;
    Ok(Json(json!({"role": "master", "epoch": epoch})))
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
        return Err(refused(status));
    }
    let late = "the copy begins as soon as the master is met, which has not happened yet";
    watch(&admin, late, |now| now.replication.copies_begun > status.copies_begun).await?;
    Ok(Json(json!({"state": "copying"})))
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
        return Err(refused(status));
    }
    watch(&admin, "not on disk yet", |now| {
        let now = &now.replication;
        now.forgotten_node_id == status.forgotten_node_id && now.saved
    })
    .await?;
    Ok(Json(json!({"role": "master"})))
}

fn refused(status: Status) -> Failure {
    let reason = match status.reason.is_empty() {
        true => format!("this node has no peer: its state is {}", status.state),
        false => status.reason,
    };
    Failure::new(StatusCode::CONFLICT, reason)
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

/// Waits until the node is as wanted; `late` says what has not happened in time.
async fn watch(
    admin: &Admin,
    late: &str,
    mut wanted: impl FnMut(&Overview) -> bool,
) -> Result<Arc<Overview>, Failure> {
    let mut overview = admin.node.overview.clone();
    let reached = overview.wait_for(|now| wanted(now));
    match tokio::time::timeout(SWITCHOVER_TIMEOUT, reached).await {
        Ok(Ok(now)) => Ok(now.clone()),
        Ok(Err(_)) => Err(Failure::not_serving()),
        Err(_) => {
            let now = admin.node.overview.borrow().replication.clone();
            let reason = format!("{late}: this is the {}, {}", now.role, now.state);
            Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, reason))
        }
    }
}
