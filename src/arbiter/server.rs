//! `understudy arbiter`: a tiny process in a third place that holds the registers of pairs.

use super::store::Store;
use super::wire::{Opening, invalid, read_frame, write_frame};
use crate::clock::Clock;
use crate::config::{ArbiterSettings, Settings};
use crate::listener::bind;
use crate::peer::{Secret, Security, Side, Socket, prove};
use crate::throttle::Throttle;
use anyhow::Context;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore, mpsc};
use understudy_model::Text;
use understudy_replication::{ArbiterCall, Registers};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A leader renews several times a second; who says nothing for so long is gone.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
const CONNECTIONS_MAX: usize = 256;
static REFUSAL_WARNINGS: Throttle = Throttle::new();

struct Arbiter {
    clock: Clock,
    secret: Secret,
    security: Security,
    state: Mutex<State>,
    room: Semaphore,
    /// Why the process must end.
    broken: mpsc::UnboundedSender<io::Error>,
}

struct State {
    registers: Registers,
    store: Store,
    /// The newest connection of each node: what an older one still holds is not carried out any
    /// more, for the node has not heard what became of it and goes on without it.
    newest: BTreeMap<(Text, Text), u64>,
    connections: u64,
    /// A save has failed. What memory says may not be on disk, so nobody hears of it while the
    /// process ends: a node that did would go on alone beside a register that does not say so.
    failed: bool,
}

/// Runs the arbiter until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or a disk that does not keep the registers.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let address = settings.listen.arbiter.as_deref().context("listen.arbiter: no address")?;
    let security = match &settings.arbiter.tls {
        Some(link) => Security::tls(link, &settings.tls)?,
        None => Security::clear(),
    };
    let (broken, mut breaks) = mpsc::unbounded_channel();
    let arbiter = Arbiter::open(&settings.arbiter, &settings.data_dir, security.clone(), broken)?;
    let listener = bind(address).await.with_context(|| format!("listen.arbiter: {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "arbiter: listening");
    tokio::spawn(accept(listener, Arc::new(arbiter)));
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            Some(error) = breaks.recv() => {
                return Err(error).context("the registers cannot be written");
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match security.reload() {
                Ok(()) => tracing::info!("SIGHUP: new connections get the certificate of now"),
                Err(error) => tracing::warn!("SIGHUP: {error:#}; the certificate of before stays"),
            },
        }
    }
}

async fn accept(listener: TcpListener, arbiter: Arc<Arbiter>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let arbiter = arbiter.clone();
                tokio::spawn(async move {
                    let Ok(_room) = arbiter.room.try_acquire() else { return };
                    if let Err(error) = arbiter.attend(socket).await
                        && error.kind() != io::ErrorKind::UnexpectedEof
                        && let Some(suppressed) = REFUSAL_WARNINGS.pass(arbiter.clock.uptime_ms())
                    {
                        tracing::warn!(%peer, suppressed, "connection dropped: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl Arbiter {
    fn open(
        settings: &ArbiterSettings,
        data_dir: &Path,
        security: Security,
        broken: mpsc::UnboundedSender<io::Error>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let (store, registers) = Store::open(data_dir, clock.now_ms())
            .with_context(|| format!("data directory {}", data_dir.display()))?;
        Ok(Self {
            clock,
            secret: Secret::of_arbiter(&settings.user, &settings.password),
            security,
            state: Mutex::new(State {
                registers,
                store,
                newest: BTreeMap::new(),
                connections: 0,
                failed: false,
            }),
            room: Semaphore::new(CONNECTIONS_MAX),
            broken,
        })
    }

    async fn attend(&self, socket: TcpStream) -> io::Result<()> {
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.greet(socket));
        let (mut socket, opening) = opened.await.map_err(timed_out)??;
        let key = (opening.register.clone(), opening.node);
        let connection = {
            let mut state = self.state.lock().await;
            state.connections += 1;
            let connection = state.connections;
            state.newest.insert(key.clone(), connection);
            connection
        };
        let result = async {
            write_frame(socket.as_duplex(), &[]).await?;
            loop {
                let frame = read_frame(socket.as_duplex());
                let frame =
                    tokio::time::timeout(IDLE_TIMEOUT, frame).await.map_err(timed_out)??;
                let call = ArbiterCall::decode(&frame).map_err(invalid)?;
                let Some(answer) = self.carry_out(&key, connection, &call).await? else {
                    return Ok(());
                };
                write_frame(socket.as_duplex(), &answer).await?;
            }
        };
        let result = result.await;
        let mut state = self.state.lock().await;
        if state.newest.get(&key) == Some(&connection) {
            state.newest.remove(&key);
        }
        result
    }

    async fn greet(&self, socket: TcpStream) -> io::Result<(Socket, Opening)> {
        socket.set_nodelay(true)?;
        let mut socket = self.security.accept(socket).await?;
        prove(socket.as_duplex(), &self.secret, Side::Acceptor).await?;
        let opening = Opening::decode(&read_frame(socket.as_duplex()).await?).map_err(invalid)?;
        Ok((socket, opening))
    }

    /// None: the node has a newer connection.
    async fn carry_out(
        &self,
        key: &(Text, Text),
        connection: u64,
        call: &ArbiterCall,
    ) -> io::Result<Option<Bytes>> {
        let mut state = self.state.lock().await;
        if state.newest.get(key) != Some(&connection) {
            return Ok(None);
        }
        if state.failed {
            return Err(io::Error::other("the registers cannot be written"));
        }
        let (answer, changed) = state.registers.handle(self.clock.now_ms(), &key.0, call);
        if changed {
            let saved = tokio::task::block_in_place(|| state.store.save(&state.registers));
            if let Err(error) = saved {
                let kind = error.kind();
                state.failed = true;
                let _ = self.broken.send(error);
                return Err(kind.into());
            }
            if let ArbiterCall::Swap { register, .. } = call {
                tracing::info!(
                    pair = %key.0,
                    epoch = register.epoch.number,
                    leader = %register.leader,
                    slave = register.slave.map(|node| node.to_string()).unwrap_or_default(),
                    "register written"
                );
            }
        }
        Ok(Some(answer.encode()))
    }
}

/// On a free port; its address.
#[cfg(test)]
pub(super) async fn start_for_test(settings: &ArbiterSettings, directory: &Path) -> String {
    let (broken, _) = mpsc::unbounded_channel();
    let arbiter = Arbiter::open(settings, directory, Security::clear(), broken).unwrap();
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(accept(listener, Arc::new(arbiter)));
    address
}
