//! The TCP link between the two nodes: a listener that is always open, a dialer, and frames with
//! a checksum. Both sides prove that they know the shared user and password before anything else;
//! neither is ever sent. Under TLS (`secure.rs`) that happens inside.
//!
//! Frame: `length: u32 · crc32: u32 · payload`, big endian. Handshake: both send magic, version
//! and a nonce; then the dialer proves itself and, if it is right, the acceptor does, by
//! HMAC-SHA256 over role and both nonces, keyed by user and password.

mod handshake;
mod link;
mod secure;

pub(crate) use handshake::{Secret, Side, prove};
pub use secure::Security;
pub(crate) use secure::{Duplex, Socket};

use crate::clock::Clock;
use crate::listener::bind;
use crate::throttle::Throttle;
use anyhow::Context;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use understudy_replication::LinkId;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that have not proved themselves; more are closed at once.
const STRANGERS_MAX: usize = 256;
static REFUSAL_WARNINGS: Throttle = Throttle::new();

/// What the link tells the node.
pub enum PeerEvent {
    Linked { link: LinkId, dialed: bool },
    Received { link: LinkId, frame: Bytes },
    Lost { link: LinkId },
    DialFailed { refused: bool },
}

enum PeerCommand {
    Dial {
        address: String,
    },
    HangUp {
        link: LinkId,
    },
    /// A connection has proved itself.
    Established {
        socket: Socket,
        dialed: bool,
    },
    Ended {
        link: LinkId,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Callable from any thread.
#[derive(Clone)]
pub struct PeerHandle {
    commands: mpsc::UnboundedSender<PeerCommand>,
    links: Links,
}

/// Links that are there.
type Links = Arc<Mutex<BTreeMap<LinkId, link::LinkHandle>>>;

impl PeerHandle {
    /// One attempt; ends in `Linked` or `DialFailed`.
    pub fn dial(&self, address: &str) {
        let _ = self.commands.send(PeerCommand::Dial { address: address.to_owned() });
    }

    /// The pieces are one frame. False if a task of the link has to write it, soon.
    pub fn send(&self, link: LinkId, pieces: Vec<Bytes>) -> bool {
        lock(&self.links).get(&link).is_none_or(|handle| handle.send(pieces))
    }

    pub fn hang_up(&self, link: LinkId) {
        let _ = self.commands.send(PeerCommand::HangUp { link });
    }

    /// Closes the listener, and all links once what was queued for them is written, within a bound: a last Goodbye
    /// must reach the peer.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(PeerCommand::Close { done }).is_ok() {
            let _ = closed.await;
        }
    }

    /// Binds the listener and starts serving links; `tell` is called with each event, and says
    /// whether the calling task has to yield then.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(
        address: &str,
        user: &str,
        password: &str,
        security: Security,
        tell: impl Fn(PeerEvent) -> bool + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<(Self, SocketAddr)> {
        let listener =
            bind(address).await.with_context(|| format!("listen.replication: {address}"))?;
        let bound = listener.local_addr()?;
        let secret = Secret::of_pair(user, password);
        let (commands, inbox) = mpsc::unbounded_channel();
        let links = Links::default();
        let accepting =
            tokio::spawn(accept(listener, secret.clone(), security.clone(), commands.clone()));
        let manager = Manager {
            secret,
            security,
            commands: commands.clone(),
            tell,
            links: links.clone(),
            next_link: 1,
            accepting,
        };
        tokio::spawn(manager.run(inbox));
        Ok((Self { commands, links }, bound))
    }
}

/// Each connection is checked in its own task: a stranger who sends nothing holds up nobody, and
/// an existing link never notices.
async fn accept(
    listener: TcpListener,
    secret: Secret,
    security: Security,
    commands: mpsc::UnboundedSender<PeerCommand>,
) {
    let clock = Clock::start();
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("replication: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = strangers.clone().try_acquire_owned() else {
            if let Some(suppressed) = REFUSAL_WARNINGS.pass(clock.uptime_ms()) {
                tracing::warn!(%peer, suppressed, "replication link refused: too many at once");
            }
            continue;
        };
        let (secret, security, commands) = (secret.clone(), security.clone(), commands.clone());
        tokio::spawn(async move {
            let _place = place;
            let accepted = async {
                socket.set_nodelay(true)?;
                let mut socket = security.accept(socket).await?;
                prove(socket.as_duplex(), &secret, Side::Acceptor).await?;
                io::Result::Ok(socket)
            };
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await {
                Ok(Ok(socket)) => {
                    let _ = commands.send(PeerCommand::Established { socket, dialed: false });
                }
                Ok(Err(error)) => {
                    if let Some(suppressed) = REFUSAL_WARNINGS.pass(clock.uptime_ms()) {
                        tracing::warn!(%peer, suppressed, "replication link refused: {error}");
                    }
                }
                // Who only looks whether the port is open.
                Err(_) => tracing::debug!(%peer, "replication link: no handshake"),
            }
        });
    }
}

struct Manager<T> {
    secret: Secret,
    security: Security,
    commands: mpsc::UnboundedSender<PeerCommand>,
    tell: T,
    links: Links,
    next_link: u64,
    accepting: tokio::task::JoinHandle<()>,
}

impl<T: Fn(PeerEvent) -> bool + Clone + Send + Sync + 'static> Manager<T> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<PeerCommand>) {
        while let Some(command) = inbox.recv().await {
            match command {
                PeerCommand::Dial { address } => self.dial(address),
                PeerCommand::HangUp { link } => {
                    // Dropping the handle ends both tasks once what was queued is written.
                    drop(lock(&self.links).remove(&link));
                }
                PeerCommand::Established { socket, dialed } => self.established(socket, dialed),
                PeerCommand::Close { done } => {
                    // From now on the peer is refused: the node behind is no more.
                    self.accepting.abort();
                    let links = std::mem::take(&mut *lock(&self.links));
                    for writer in links.into_values().filter_map(link::LinkHandle::finish) {
                        let _ = tokio::time::timeout(CONNECT_TIMEOUT, writer).await;
                    }
                    let _ = done.send(());
                }
                PeerCommand::Ended { link } => {
                    let known = lock(&self.links).remove(&link);
                    if known.is_some() {
                        (self.tell)(PeerEvent::Lost { link });
                    }
                }
            }
        }
    }

    fn established(&mut self, socket: Socket, dialed: bool) {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let commands = self.commands.clone();
        let received = self.tell.clone();
        // Held while telling, so that what the node sends at once waits for the link's entry; told
        // before its tasks run, so that nothing is told of a link that is not known yet.
        let mut links = lock(&self.links);
        (self.tell)(PeerEvent::Linked { link, dialed });
        let handle = link::start(
            socket,
            move |frame| received(PeerEvent::Received { link, frame }),
            move |why| {
                tracing::debug!(link = link.0, "replication link ended: {why}");
                let _ = commands.send(PeerCommand::Ended { link });
            },
        );
        links.insert(link, handle);
    }

    fn dial(&self, address: String) {
        let (secret, security) = (self.secret.clone(), self.security.clone());
        let (commands, tell) = (self.commands.clone(), self.tell.clone());
        tokio::spawn(async move {
            match connect(&address, &secret, &security).await {
                Ok(socket) => {
                    let _ = commands.send(PeerCommand::Established { socket, dialed: true });
                }
                Err(error) => {
                    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        tracing::error!(%address, "wrong replication user or password");
                    } else if error.kind() == io::ErrorKind::InvalidData {
                        tracing::error!(%address, "replication link: {error}");
                    }
                    tell(PeerEvent::DialFailed { refused });
                }
            }
        });
    }
}

fn lock(links: &Links) -> MutexGuard<'_, BTreeMap<LinkId, link::LinkHandle>> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(address: &str, secret: &Secret, security: &Security) -> io::Result<Socket> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let connect = TcpStream::connect(address);
    let socket = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(timed_out)??;
    let proved = async {
        socket.set_nodelay(true)?;
        let mut socket = security.dial(address, socket).await?;
        prove(socket.as_duplex(), secret, Side::Dialer).await?;
        io::Result::Ok(socket)
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, proved).await.map_err(timed_out)? {
        Ok(socket) => Ok(socket),
        // Only a connect that is refused says that nobody is there.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
