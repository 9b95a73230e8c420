//! Starts the node and its shells in order, and stops them in order.

mod hooks;
mod listeners;
mod make_node;
mod ready_file;
mod sessions;
mod store;
mod waiting;

use self::make_node::make_node;
use self::store::{Store, Threads};
use self::waiting::Waited;
use crate::arbiter::ArbiterHandle;
use crate::auth;
use crate::clock::Clock;
use crate::config::{BackendKind, LinkTls, Settings};
use crate::driver::{Driver, Event, Shells, Turn};
use crate::handle::{Listeners, NodeHandle, Overview};
use crate::inbox::{ClientSender, EventSender, SharedDriver};
use crate::listener::{Shared, announce};
use crate::node::{Input, Node};
use crate::ownership::Ownership;
use crate::peer::{PeerEvent, PeerHandle, Security};
use crate::tls::Tls;
use anyhow::{Context, anyhow, bail};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use understudy_replication::Input as BackendInput;

/// Batches of requests that may wait for the driver; with more, sockets are not read.
const CLIENT_EVENTS_MAX: usize = 1_024;
/// With a longer frame, the driver's thread works while the next is read.
const FRAME_BYTES_PER_OWN_TURN_MAX: usize = 8 * 1024;

/// Runs a node until it is told to stop, or must.
///
/// # Errors
/// Whatever keeps it from starting, or made it stop other than by request.
pub fn run(settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.limits.worker_threads)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(settings, ready_file));
    // Connections are told to close by now; what still runs holds nothing that must be kept.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

async fn serve(settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let clock = Clock::start();
    let ownership = match waiting::for_ownership(&settings, clock).await? {
        Waited::Private => None,
        Waited::Owned(ownership) => Some(ownership),
        Waited::Stopped => return Ok(()),
    };
    let outcome = serve_node(settings, clock, ownership.clone(), ready_file).await;
    if let (Some(ownership), Ok(())) = (ownership, &outcome) {
        ownership.release();
    }
    outcome
}

async fn serve_node(
    settings: Settings,
    clock: Clock,
    ownership: Option<Ownership>,
    ready_file: Option<&Path>,
) -> anyhow::Result<()> {
    let store = Store::open(&settings, ownership.as_ref())
        .with_context(|| format!("data directory {}", settings.data_dir.display()))?;
    let shared_driver = Arc::new(SharedDriver::default());
    let (events, inbox) = EventSender::new(shared_driver.clone());
    let tls = listeners::start_tls(&settings)?;
    let listeners = listeners::of_clients(&settings, tls.as_ref());
    let (opened, opened_seen) = watch::channel(Vec::new());
    let security = link_security(&settings, settings.replication.tls.as_ref())?;
    let (peer, advertised) = start_peer(&settings, security.clone(), &events, &opened).await?;
    let links = peer.clone();
    let Store { _lock, log, reader, mut state, found } = store;
    let state_is_bad = found.state.is_err();
    let (node, first) =
        make_node(&settings, &clock, found, &reader, advertised, ownership.as_ref())?;
    // It is made anew, or replaced by a copy.
    state_is_bad.then(|| state.clear()).transpose()?;
    let (arbiter, arbiter_security) = start_arbiter(&settings, &node, &events)?;
    let (overview, overview_seen) = watch::channel(Arc::new(Overview::default()));
    let opened_store = (log, state, reader);
    let threads =
        Threads::start(&settings, opened_store, ownership, &events, overview_seen.clone())?;
    let users = node.broker().users().cloned().collect();
    let (users, users_seen) = watch::channel(Arc::new(users));
    let (serving, serving_seen) = watch::channel(false);
    let (clients, requests) = ClientSender::new(shared_driver.clone(), CLIENT_EVENTS_MAX);
    let handle = NodeHandle {
        events: clients,
        overview: overview_seen,
        users: users_seen.clone(),
        serving: serving_seen,
        listeners: opened_seen,
        client_protocols: listeners.iter().map(|listener| listener.protocol).collect(),
        measured: threads.measured,
    };
    let authenticator =
        auth::Authenticator::new(users_seen).map_err(|error| anyhow!("no randomness: {error}"))?;
    let (ended, end) = oneshot::channel();
    let driver = Driver {
        node,
        clock,
        shells: Shells {
            log: threads.log,
            state: threads.state,
            reader: threads.reader,
            peer,
            arbiter: arbiter.clone(),
            overview,
            users,
            serving,
        },
        events: inbox,
        clients: requests,
        inflight_bytes_max: settings.limits.inflight_bytes_max,
        name: settings.name.clone(),
        ended,
        turn: Turn::new(first),
    };
    let shared = Shared {
        node: handle.clone(),
        auth: authenticator,
        clock,
        connections_max: settings.limits.connections_max,
        unreachable_s: settings.limits.unreachable_s,
        connections: Arc::new(AtomicUsize::new(0)),
        next_connection: Arc::new(AtomicU64::new(1)),
        opened,
    };
    let failed = listeners::start(&settings, &shared, listeners).await?;
    let hooks = hooks::Hooks {
        settings: settings.hooks.clone(),
        name: settings.name.clone(),
        node: handle.clone(),
    };
    let hooks = tokio::spawn(hooks.run());
    if let Some(path) = ready_file {
        tokio::spawn(ready_file::keep(path.to_owned(), handle.clone()));
    }
    std::thread::Builder::new().name("driver".into()).spawn(move || shared_driver.serve(driver))?;
    let certificates = [security, arbiter_security];
    let ends = wait(end, failed, &events, (tls.as_ref(), &certificates));
    let outcome = unless_stalled(ends, threads.stalled).await?;
    close_links(links, arbiter).await;
    // The address of a master that stops is given up before its process ends.
    let _ = hooks.await;
    outcome
}

/// Until the node has ended. A signal, or a listener that cannot be opened, asks it to.
async fn wait(
    mut end: oneshot::Receiver<Result<String, String>>,
    mut failed: mpsc::UnboundedReceiver<anyhow::Error>,
    events: &EventSender,
    certificates: (Option<&Tls>, &[Security; 2]),
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut failure = None;
    loop {
        tokio::select! {
            outcome = &mut end => {
                let outcome = outcome.map_err(|_| anyhow!("the driver thread has died"))?;
                return match (failure, outcome) {
                    (Some(failure), _) => Err(failure),
                    (None, Ok(reason)) => {
                        tracing::info!("stopped: {reason}");
                        Ok(())
                    }
                    (None, Err(reason)) => bail!("{reason}"),
                };
            }
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                let _ = events.send(Event::Stop);
            }
            _ = interrupt.recv() => {
                tracing::info!("SIGINT: stopping");
                let _ = events.send(Event::Stop);
            }
            _ = hangup.recv() => reload(certificates),
            Some(error) = failed.recv() => {
                tracing::error!("{error:#}");
                failure = Some(error);
                let _ = events.send(Event::Stop);
            }
        }
    }
}

/// # Errors
/// The disk hangs, and nothing can be waited for any more.
async fn unless_stalled(
    ends: impl Future<Output = anyhow::Result<()>>,
    stalled: oneshot::Receiver<String>,
) -> anyhow::Result<anyhow::Result<()>> {
    tokio::select! {
        outcome = ends => Ok(outcome),
        Ok(why) = stalled => bail!(why),
    }
}

/// Reads the files of `[tls]` and of the links as a start would.
///
/// # Errors
/// A file that is missing, or does not hold what it should; the error names it.
pub fn check_certificates(settings: &Settings) -> anyhow::Result<()> {
    listeners::start_tls(settings)?;
    link_security(settings, settings.replication.tls.as_ref())?;
    link_security(settings, settings.arbiter.tls.as_ref())?;
    Ok(())
}

fn reload((tls, links): (Option<&Tls>, &[Security; 2])) {
    let of_clients = tls.map_or(Ok(()), Tls::reload);
    match of_clients.and_then(|()| links.iter().try_for_each(Security::reload)) {
        Ok(()) if tls.is_none() && links.iter().all(Security::is_clear) => {
            tracing::info!("SIGHUP: there is nothing to read again without [tls]");
        }
        Ok(()) => tracing::info!("SIGHUP: new connections get the certificate of now"),
        Err(error) => {
            tracing::warn!("SIGHUP: {error:#}; the certificate of before stays");
        }
    }
}

async fn start_peer(
    settings: &Settings,
    security: Security,
    events: &EventSender,
    opened: &watch::Sender<Listeners>,
) -> anyhow::Result<(Option<PeerHandle>, Option<SocketAddr>)> {
    let replication = &settings.replication;
    let (Some(address), BackendKind::Pair) = (&settings.listen.replication, replication.backend)
    else {
        return Ok((None, None));
    };
    let events = events.clone();
    let tell = move |event| {
        let small = matches!(&event, PeerEvent::Received { frame, .. } if frame.len() <= FRAME_BYTES_PER_OWN_TURN_MAX);
        let event = Event::Peer(event);
        let must_yield =
            if small { events.submit(event) } else { events.send(event).map(|()| false) };
        must_yield.unwrap_or(false)
    };
    let (peer, bound) =
        PeerHandle::start(address, &replication.user, &replication.password, security, tell)
            .await?;
    announce(opened, "replication", Some(bound));
    tracing::info!(protocol = "replication", address = %bound, "listening");
    Ok((Some(peer), Some(bound)))
}

fn link_security(settings: &Settings, link: Option<&LinkTls>) -> anyhow::Result<Security> {
    match link {
        Some(link) => Security::tls(link, &settings.tls),
        None => Ok(Security::clear()),
    }
}

/// What was said last arrives.
async fn close_links(links: Option<PeerHandle>, arbiter: Option<ArbiterHandle>) {
    if let Some(links) = links {
        links.close().await;
    }
    if let Some(arbiter) = arbiter {
        arbiter.close().await;
    }
}

fn start_arbiter(
    settings: &Settings,
    node: &Node,
    events: &EventSender,
) -> anyhow::Result<(Option<ArbiterHandle>, Security)> {
    let given = &settings.arbiter;
    let security = link_security(settings, given.tls.as_ref())?;
    let events = events.clone();
    let tell = move |serial, answer| {
        let answered = BackendInput::ArbiterAnswered { serial, answer };
        let _ = events.send(Event::Node(Input::Backend(answered)));
    };
    let node_id = node.status().node_id;
    Ok((ArbiterHandle::start(given, security.clone(), &node_id, tell)?, security))
}
