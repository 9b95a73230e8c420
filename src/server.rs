//! Starts the node and its shells in order, and stops them in order.

mod hooks;
mod ready_file;
mod sessions;
mod waiting;

use crate::arbiter::ArbiterHandle;
use crate::boot::{Found, boot};
use crate::clock::Clock;
use crate::config::{ArbiterKind, ArbiterSettings, BackendKind, LinkTls, Role, Settings};
use crate::driver::{Driver, Event, Shells, Turn};
use crate::handle::{Listeners, NodeHandle, Overview};
use crate::inbox::{ClientSender, Desk, EventSender};
use crate::listener::{Listener, Shared, announce, bind_to_clients};
use crate::log_writer::LogWriter;
use crate::node::{Input, Node, NodeOptions, Outputs};
use crate::ownership::Ownership;
use crate::peer::{PeerEvent, PeerHandle, Security};
use crate::reader::Reader;
use crate::space::SpaceWatch;
use crate::stall;
use crate::state_writer::StateWriter;
use crate::tls::Tls;
use crate::{admin, auth, scrub};
use anyhow::{Context, anyhow, bail};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use understudy_broker::{Limits, replay_point};
use understudy_model::{Features, Text};
use understudy_replication::{
    ArbiterConfig, Backend, Input as BackendInput, LogEnd, Pair, PairConfig, Role as PairRole,
    Standalone,
};
use understudy_storage::{DataDirLock, Log, LogOptions, LogReader, StateStore, StorageError};
use waiting::Waited;

/// Batches of requests that may wait for the driver; with more, sockets are not read.
const CLIENT_EVENTS_MAX: usize = 1_024;
/// With a longer frame, the driver's thread works while the next is read.
const FRAME_BYTES_PER_OWN_TURN_MAX: usize = 8 * 1024;
/// Headers that may stand in one WebSocket message with a body.
const WEB_SOCKET_OVERHEAD_BYTES: usize = 1 << 20;
const REPLAY_BYTES_PER_READ: usize = 8 << 20;
const STATE_MAP_BYTES: usize = 16 << 30;

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

/// The data directory, opened.
struct Store {
    /// None where two processes are meant to reach the directory.
    _lock: Option<DataDirLock>,
    log: Log,
    reader: LogReader,
    state: StateStore,
    found: Found,
}

impl Store {
    fn open(settings: &Settings, ownership: Option<&Ownership>) -> anyhow::Result<Self> {
        let dir = &settings.data_dir;
        let _lock = match ownership {
            None => Some(DataDirLock::acquire(dir)?),
            Some(_) => None,
        };
        let options = LogOptions { map_bytes_max: settings.storage.map_bytes_max };
        let mut state = StateStore::open(dir, STATE_MAP_BYTES)?;
        let slices = match state.load() {
            Ok(slices) => Ok(slices),
            Err(error @ StorageError::State(_)) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let known = slices.as_ref().ok().and_then(|slices| replay_point(slices));
        let (mut log, reader, damage) = Log::open_damaged(dir, &options, known)?;
        let end = log.end();
        if let Some(ownership) = ownership {
            let guard = |ownership: Ownership| Box::new(move || ownership.check().is_ok());
            log.set_guard(guard(ownership.clone()));
            state.set_guard(guard(ownership.clone()));
        }
        let found = Found {
            view: log.load_view()?,
            log: LogEnd {
                base: end.base,
                base_chain: end.base_chain,
                last: end.last,
                last_chain: end.last_chain,
            },
            damage: damage.map(|damage| damage.to_string()),
            state: slices,
        };
        Ok(Self { _lock, log, reader, state, found })
    }
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
    let desk = Arc::new(Desk::default());
    let (events, inbox) = EventSender::new(desk.clone());
    let (opened, listeners) = watch::channel(Vec::new());
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

    let free_bytes_min = settings.storage.free_bytes_min;
    let space = SpaceWatch::start(reader.clone(), free_bytes_min, events.clone())?;
    let dir = settings.data_dir.clone();
    let log = LogWriter::start(log, ownership.clone(), reader.clone(), dir, space, events.clone())?;
    let scrubbed = scrub::start(reader.clone(), &settings.storage, log.clone(), events.clone())?;
    let state = StateWriter::start(state, log.clone(), events.clone())?;
    let (overview, overview_seen) = watch::channel(Arc::new(Overview::default()));
    let stalled = stall::watch(&settings.storage, log.writes(), overview_seen.clone())?;
    let users = node.broker().users().cloned().collect();
    let (users, users_seen) = watch::channel(Arc::new(users));
    let (serving, serving_seen) = watch::channel(false);
    let (clients, requests) = ClientSender::new(desk.clone(), CLIENT_EVENTS_MAX);
    let handle = NodeHandle {
        events: clients,
        overview: overview_seen,
        users: users_seen.clone(),
        serving: serving_seen,
        listeners,
        client_protocols: client_protocols(&settings),
        scrubbed,
    };
    let authenticator =
        auth::Authenticator::new(users_seen).map_err(|error| anyhow!("no randomness: {error}"))?;
    let reader = Reader::start(reader, events.clone())?;
    let (ended, end) = oneshot::channel();
    let driver = Driver {
        node,
        clock,
        shells: Shells {
            log,
            state,
            reader,
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
    let tls = start_tls(&settings)?;
    let failed = start_listeners(&settings, &shared, tls.as_ref()).await?;
    let hooks = hooks::Hooks {
        settings: settings.hooks.clone(),
        name: settings.name.clone(),
        node: handle.clone(),
    };
    let hooks = tokio::spawn(hooks.run());
    if let Some(path) = ready_file {
        tokio::spawn(ready_file::keep(path.to_owned(), handle.clone()));
    }
    std::thread::Builder::new().name("driver".into()).spawn(move || desk.serve(driver))?;
    let certificates = [security, arbiter_security];
    let ends = wait(end, failed, &events, (tls.as_ref(), &certificates));
    let outcome = unless_stalled(ends, stalled).await?;
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

fn start_tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    if settings.listen.under_tls().iter().all(|address| address.is_none()) {
        return Ok(None);
    }
    Tls::new(&settings.tls).map(Some)
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

/// Tells one arbiter and register from another; the way there may differ between the nodes.
fn arbiter_config(settings: &ArbiterSettings) -> Option<ArbiterConfig> {
    let kind = match &settings.kind {
        ArbiterKind::None => return None,
        ArbiterKind::Understudy { .. } => 1,
        ArbiterKind::Etcd { .. } => 2,
    };
    let name = crc32fast::hash(settings.register.as_bytes());
    Some(ArbiterConfig { id: kind << 32 | u64::from(name), lease_ms: settings.lease_ms })
}

fn make_node(
    settings: &Settings,
    clock: &Clock,
    found: Found,
    reader: &LogReader,
    advertised: Option<SocketAddr>,
    ownership: Option<&Ownership>,
) -> anyhow::Result<(Node, Outputs)> {
    let mut random = [0u64; 8];
    for number in &mut random {
        *number = getrandom::u64().map_err(|error| anyhow!("no randomness: {error}"))?;
    }
    let pair = pair_config(settings, advertised);
    let is_pair = settings.replication.backend == BackendKind::Pair;
    let made = boot(
        &node_options(settings),
        found,
        clock.now_ms(),
        random,
        |boot, out| -> Result<Box<dyn Backend>, String> {
            if is_pair {
                Ok(Box::new(Pair::new(boot, pair.clone(), out).map_err(|error| error.to_string())?))
            } else if let Some(why) = &boot.damaged {
                let data = settings.data_dir.display();
                Err(format!("{why}; nobody else has it: restore {data} from a copy"))
            } else if let Some(ownership) = ownership {
                let owner = Standalone::owner(boot, ownership.epoch(), out);
                Ok(Box::new(owner.map_err(|error| error.to_string())?))
            } else {
                Ok(Box::new(Standalone::new(boot, out).map_err(|error| error.to_string())?))
            }
        },
        |after| reader.groups(after, REPLAY_BYTES_PER_READ).map_err(|error| error.to_string()),
    );
    made.map_err(|error| anyhow!("{error}"))
}

fn pair_config(settings: &Settings, advertised: Option<SocketAddr>) -> PairConfig {
    let replication = &settings.replication;
    let own = replication.advertised_address.clone();
    let own = own.or(advertised.map(|address| address.to_string())).unwrap_or_default();
    PairConfig {
        role: match settings.role {
            Role::Master => PairRole::Master,
            Role::Slave => PairRole::Slave,
        },
        peer_address: replication.master_address.as_deref().map(Text::from),
        advertised_address: Text::from(own),
        client_addresses: Text::from(replication.client_uris.as_str()),
        shutdown_on_master_failure: replication.shutdown_on_master_failure,
        shutdown_on_slave_failure: replication.shutdown_on_slave_failure,
        wait_for_slave: replication.wait_for_slave,
        wait_for_slave_timeout_ms: replication.wait_for_slave_timeout_ms,
        meet_timeout_ms: replication.meet_timeout_ms,
        beat_ms: replication.beat_ms,
        suspect_ms: replication.suspect_ms,
        takeover_ms: replication.takeover_ms,
        arbiter: arbiter_config(&settings.arbiter),
        ..PairConfig::default()
    }
}

fn node_options(settings: &Settings) -> NodeOptions {
    let outbound_bytes_max = settings.limits.outbound_bytes_max;
    NodeOptions {
        limits: Limits { outbound_bytes_max, ..Limits::default() },
        group_bytes_max: settings.limits.group_bytes_max,
        commit_interval_ms: settings.storage.commit_interval_ms,
        cache_bytes_max: settings.limits.cache_bytes_max,
        alarm_policy: settings.alarm_policy,
        save_after_bytes: settings.storage.save_after_bytes,
        retain_bytes: settings.storage.retain_bytes,
        features: Features::KNOWN,
        digest_interval_ms: match settings.replication.backend {
            BackendKind::Standalone => 0,
            _ => settings.replication.digest_interval_ms,
        },
        users: settings.users.iter().map(auth::configured).collect(),
        default_user: auth::default_user(),
    }
}

fn client_protocols(settings: &Settings) -> Vec<&'static str> {
    let listen = &settings.listen;
    let all = [
        ("amqp", &listen.amqp),
        ("stomp", &listen.stomp),
        ("native", &listen.native),
        ("amqp_tls", &listen.amqp_tls),
        ("stomp_tls", &listen.stomp_tls),
        ("native_tls", &listen.native_tls),
        ("stomp_ws", &listen.stomp_ws),
        ("stomp_wss", &listen.stomp_wss),
    ];
    all.into_iter().filter(|(_, address)| address.is_some()).map(|(name, _)| name).collect()
}

/// Without the control socket the node serves its clients all the same.
fn start_control(data_dir: &Path, admin: admin::Admin) {
    match admin::bind_control(data_dir) {
        Ok((listener, path)) => {
            tokio::spawn(async move {
                if let Err(error) = admin::serve_control(listener, admin).await {
                    tracing::error!("control socket {}: {error}", path.display());
                }
            });
        }
        Err(error) => tracing::warn!("no control socket in {}: {error}", data_dir.display()),
    }
}

/// Opens HTTP at once and the client listeners when the node serves. What fails later is told on
/// the returned channel.
async fn start_listeners(
    settings: &Settings,
    shared: &Shared,
    tls: Option<&Tls>,
) -> anyhow::Result<mpsc::UnboundedReceiver<anyhow::Error>> {
    let (failed, failures) = mpsc::unbounded_channel();
    let admin = admin::Admin {
        node: shared.node.clone(),
        auth: shared.auth.clone(),
        clock: shared.clock,
        next_connection: shared.next_connection.clone(),
        message_bytes_max: settings.limits.message_bytes_max,
    };
    start_control(&settings.data_dir, admin.clone());
    if let Some(address) = &settings.listen.http {
        let listener = bind_to_clients(address, shared.unreachable_s)
            .await
            .with_context(|| format!("listen.http: {address}"))?;
        let bound = listener.local_addr()?;
        announce(&shared.opened, "http", Some(bound));
        tracing::info!(protocol = "http", address = %bound, "listening");
        let (admin, failed) = (admin.clone(), failed.clone());
        tokio::spawn(async move {
            if let Err(error) = admin::serve(listener, admin).await {
                let _ = failed.send(error.into());
            }
        });
    }
    let amqp = sessions::amqp(settings);
    let given = &settings.stomp;
    let stomp = sessions::stomp(settings, &given.dialect);
    let stomp_tls = sessions::stomp(settings, &given.dialect_tls);
    let stomp_ws = sessions::stomp(settings, &given.dialect_ws);
    let stomp_wss = sessions::stomp(settings, &given.dialect_wss);
    let native = sessions::native(settings);
    let listen = &settings.listen;
    let web_socket_bytes_max =
        settings.limits.message_bytes_max as usize + WEB_SOCKET_OVERHEAD_BYTES;
    let clients = [
        ("amqp", &listen.amqp, &amqp, None, None),
        ("stomp", &listen.stomp, &stomp, None, None),
        ("native", &listen.native, &native, None, None),
        ("amqp_tls", &listen.amqp_tls, &amqp, tls, None),
        ("stomp_tls", &listen.stomp_tls, &stomp_tls, tls, None),
        ("native_tls", &listen.native_tls, &native, tls, None),
        ("stomp_ws", &listen.stomp_ws, &stomp_ws, None, Some(web_socket_bytes_max)),
        ("stomp_wss", &listen.stomp_wss, &stomp_wss, tls, Some(web_socket_bytes_max)),
    ];
    for (protocol, address, sessions, tls, web_socket_bytes_max) in clients {
        let Some(address) = address.clone() else { continue };
        let listener = Listener {
            protocol,
            address,
            sessions: sessions.clone(),
            tls: tls.cloned(),
            web_socket_bytes_max,
        };
        let (shared, failed) = (shared.clone(), failed.clone());
        tokio::spawn(async move {
            if let Err(error) = listener.run(shared).await {
                let _ = failed.send(error);
            }
        });
    }
    Ok(failures)
}
