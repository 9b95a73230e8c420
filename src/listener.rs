//! Client listeners: open while the node serves, closed (connections refused) while it does not.

use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::handle::{Listeners, NodeHandle};
use crate::throttle::Throttle;
use crate::tls::Tls;
use crate::transport::Transport;
use crate::web_socket::WebSocketStream;
use anyhow::Context;
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use understudy_model::{ConnectionId, Session};

const BIND_TRIES: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(500);
/// After a failed accept (no more file descriptors) the next one is tried after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 1_024;
static LIMIT_WARNINGS: Throttle = Throttle::new();

/// Makes the session of a protocol for this connection, at this time in milliseconds. Without randomness
/// for names that must not be guessed there is none.
pub type SessionFactory =
    Arc<dyn Fn(ConnectionId, u64) -> Result<Box<dyn Session>, getrandom::Error> + Send + Sync>;

/// One protocol's listener.
pub struct Listener {
    pub protocol: &'static str,
    pub address: String,
    pub sessions: SessionFactory,
    pub tls: Option<Tls>,
    /// Speaks its protocol in WebSocket messages of at most so many bytes.
    pub web_socket_bytes_max: Option<usize>,
}

/// What all listeners share.
#[derive(Clone)]
pub struct Shared {
    pub node: NodeHandle,
    pub auth: Authenticator,
    pub clock: Clock,
    pub connections_max: usize,
    pub unreachable_s: u32,
    pub connections: Arc<AtomicUsize>,
    pub next_connection: Arc<AtomicU64>,
    pub opened: watch::Sender<Listeners>,
}

impl Listener {
    /// Follows the node's `serving`: binds when it begins, closes when it ends.
    ///
    /// # Errors
    /// The address cannot be bound although the node serves: the process must not go on half open.
    pub async fn run(self, shared: Shared) -> anyhow::Result<()> {
        let mut serving = shared.node.serving.clone();
        // A port of 0 is chosen once and then kept, so that clients find the node again.
        let mut address = self.address.clone();
        loop {
            // The driver is gone: the process ends.
            if serving.wait_for(|serving| *serving).await.is_err() {
                return Ok(());
            }
            let listener = self.bind_patiently(&address, shared.unreachable_s).await?;
            let bound = listener.local_addr()?;
            address = bound.to_string();
            tracing::info!(protocol = self.protocol, address = %bound, "listening");
            announce(&shared.opened, self.protocol, Some(bound));
            tokio::select! {
                () = self.accept(&listener, &shared) => {}
                closed = serving.wait_for(|serving| !*serving) => {
                    if closed.is_err() {
                        return Ok(());
                    }
                }
            }
            drop(listener);
            announce(&shared.opened, self.protocol, None);
            tracing::info!(protocol = self.protocol, address = %bound, "closed");
        }
    }

    /// A slave's port is its own only from the takeover on: some client's outgoing connection may
    /// sit on it for a moment, and that must not end the last node that serves.
    async fn bind_patiently(
        &self,
        address: &str,
        unreachable_s: u32,
    ) -> anyhow::Result<TcpListener> {
        let mut tries_left = BIND_TRIES;
        loop {
            let error = match bind_to_clients(address, unreachable_s).await {
                Ok(listener) => return Ok(listener),
                Err(error) => error,
            };
            tries_left -= 1;
            let problem = format!("listen.{}: cannot bind {address}", self.protocol);
            if tries_left == 0 {
                return Err(error.context(problem));
            }
            tracing::warn!(tries_left, "{problem}: {error:#}");
            tokio::time::sleep(BIND_PAUSE).await;
        }
    }

    async fn accept(&self, listener: &TcpListener, shared: &Shared) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.connect(socket, peer, shared),
                Err(error) => {
                    tracing::warn!(protocol = self.protocol, "accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connect(&self, socket: TcpStream, peer: SocketAddr, shared: &Shared) {
        let count = shared.connections.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(shared.connections.clone());
        if count >= shared.connections_max {
            if let Some(suppressed) = LIMIT_WARNINGS.pass(shared.clock.uptime_ms()) {
                let limit = shared.connections_max;
                tracing::warn!(%peer, limit, suppressed, "refused: limits.connections_max reached");
            }
            return;
        }
        let _ = socket.set_nodelay(true);
        let socket = match &self.tls {
            None => Transport::Clear(socket),
            Some(tls) => match rustls::ServerConnection::new(tls.current()) {
                Ok(connection) => Transport::tls(socket, connection),
                Err(error) => {
                    tracing::error!(protocol = self.protocol, "tls: {error}");
                    return;
                }
            },
        };
        let socket = match self.web_socket_bytes_max {
            None => socket,
            Some(max) => Transport::WebSocket(Box::new(WebSocketStream::new(socket, max))),
        };
        let id = ConnectionId(shared.next_connection.fetch_add(1, Ordering::Relaxed));
        let session = match (self.sessions)(id, shared.clock.now_ms()) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(protocol = self.protocol, %peer, "refused: no randomness: {error}");
                return;
            }
        };
        let connection = Connection {
            id,
            socket,
            tls: self.tls.clone(),
            peer,
            session,
            node: shared.node.clone(),
            auth: shared.auth.clone(),
            clock: shared.clock,
        };
        tokio::spawn(connection.run(slot));
    }
}

/// A connection's place among `connections_max`.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// For those whose protocol sees to a peer that says nothing.
pub(crate) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    bind_to_clients(address, 0).await
}

/// `unreachable_s`: as `limits.unreachable_s`.
pub(crate) async fn bind_to_clients(
    address: &str,
    unreachable_s: u32,
) -> anyhow::Result<TcpListener> {
    let address = tokio::net::lookup_host(address).await?.next().context("no such address")?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the last run may linger in TIME_WAIT; they must not keep a restart out.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: a host that vanished is noticed even without heartbeats.
    socket.set_keepalive(true)?;
    if unreachable_s > 0 {
        let (idle, interval, probes) = keep_alive(unreachable_s);
        sockopt::set_tcp_keepidle(&socket, idle)?;
        sockopt::set_tcp_keepintvl(&socket, interval)?;
        sockopt::set_tcp_keepcnt(&socket, probes)?;
    }
    socket.bind(address)?;
    Ok(socket.listen(BACKLOG)?)
}

/// Silence before the first probe, pauses between them, and how many in vain close the connection:
/// 60 s, 10 s and 6 of 120 s. There is no TCP_USER_TIMEOUT with them: it would also close what is
/// still there and only does not read, as a consumer at work may for hours.
fn keep_alive(unreachable_s: u32) -> (Duration, Duration, u32) {
    let idle_s = (unreachable_s / 2).max(1);
    let interval_s = (unreachable_s / 12).max(1);
    let probes = ((unreachable_s - idle_s) / interval_s).max(1);
    (Duration::from_secs(idle_s.into()), Duration::from_secs(interval_s.into()), probes)
}

pub(crate) fn announce(
    opened: &watch::Sender<Listeners>,
    protocol: &'static str,
    address: Option<SocketAddr>,
) {
    opened.send_modify(|listeners| {
        listeners.retain(|(name, _)| *name != protocol);
        listeners.extend(address.map(|address| (protocol, address.to_string())));
        listeners.sort();
    });
}

#[cfg(test)]
mod tests;
