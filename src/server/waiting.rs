//! A broker on shared storage before it owns the data directory: no store is open, no client is
//! let in, and the status says `waiting`.

use crate::admin::{self, Admin};
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::config::{BackendKind, Settings};
use crate::handle::{Measured, NodeHandle, Overview};
use crate::inbox::{ClientSender, SharedDriver};
use crate::listener::bind;
use crate::ownership::{Candidate, Ownership, lost};
use anyhow::{Context, anyhow};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use understudy_replication::Status;

pub(super) enum Waited {
    /// Nobody else can have the data directory.
    Private,
    Owned(Ownership),
    /// Asked to stop.
    Stopped,
}

/// Returns when the data directory may be opened.
///
/// # Errors
/// The lease cannot be read or written, or the HTTP address cannot be bound.
pub(super) async fn for_ownership(settings: &Settings, clock: Clock) -> anyhow::Result<Waited> {
    if settings.replication.backend != BackendKind::SharedStorage {
        return Ok(Waited::Private);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let status = serve_status(settings, clock).await?;
    let directory = settings.data_dir.display().to_string();
    let mut candidate = Candidate::new(&settings.data_dir, settings.storage.owner_lease_ms)
        .with_context(|| format!("data directory {directory}"))?;
    tracing::info!(%directory, "waiting for the ownership of the shared data directory");
    let waited = loop {
        let looked = tokio::task::block_in_place(|| candidate.look());
        if let Some(ownership) = looked.context("the lease of the data directory")? {
            break Waited::Owned(ownership);
        }
        tokio::select! {
            () = tokio::time::sleep(candidate.poll_interval()) => {}
            _ = terminate.recv() => break Waited::Stopped,
            _ = interrupt.recv() => break Waited::Stopped,
        }
    };
    if let Some(status) = status {
        status.abort();
        let _ = status.await;
    }
    if let Waited::Owned(ownership) = &waited {
        tracing::info!(epoch = ownership.epoch(), "the data directory is this node's now");
        ownership.keep()?;
        ownership.check().unwrap_or_else(|error| lost(&error));
    }
    Ok(waited)
}

/// Health and status, until the node itself has them.
async fn serve_status(
    settings: &Settings,
    clock: Clock,
) -> anyhow::Result<Option<tokio::task::JoinHandle<()>>> {
    let Some(address) = &settings.listen.http else { return Ok(None) };
    let listener = bind(address).await.with_context(|| format!("listen.http: {address}"))?;
    let replication = Status {
        role: "slave",
        state: "waiting",
        arbiter: "none",
        reason: "another process owns the data directory".into(),
        ..Status::default()
    };
    let name = settings.name.clone();
    let overview = Overview { name, replication, ..Overview::default() };
    let (_, users) = watch::channel(Arc::new(Vec::new()));
    // Nobody takes requests from here: they are answered with "not serving".
    let (events, _) = ClientSender::new(Arc::new(SharedDriver::default()), 1);
    let node = NodeHandle {
        events,
        overview: watch::channel(Arc::new(overview)).1,
        users: users.clone(),
        serving: watch::channel(false).1,
        listeners: watch::channel(Vec::new()).1,
        client_protocols: Vec::new(),
        measured: Measured::default(),
    };
    let auth = Authenticator::new(users).map_err(|error| anyhow!("no randomness: {error}"))?;
    let admin = Admin {
        node,
        auth,
        clock,
        next_connection: Arc::new(AtomicU64::new(1)),
        message_bytes_max: settings.limits.message_bytes_max,
    };
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, admin).await {
            tracing::warn!("status while waiting: {error}");
        }
    })))
}
