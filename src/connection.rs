//! One task per client socket: read → session → one batch of requests; effects → session → one
//! write. Knows no protocol: the session does.

use crate::auth::{Authenticator, Checked};
use crate::clock::Clock;
use crate::handle::{ClientEvent, NodeHandle};
use crate::inbox::ClientSender;
use crate::mailbox::{EffectReceiver, mailbox};
use crate::throttle::Throttle;
use crate::tls::Tls;
use crate::trace::FrameTrace;
use crate::transport::Transport;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use understudy_model::{ConnectionId, Effect, Login, LoginOutcome, Outbox, Session};

/// A read takes at most so much. A quiet connection gets by with less: there may be many of them.
const READ_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES_MIN: usize = 4 * 1024;
/// With more than this unsent, nothing more is read from the client.
const UNSENT_BYTES_MAX: usize = 4 << 20;
/// Written bytes are reported in portions of at least this; when all is written, of a quarter.
const DRAINED_REPORT_BYTES: u64 = 64 * 1024;
/// How long a closing connection may take to accept the last bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const SLICES_PER_WRITE: usize = 64;
/// With more requests than this in one read, the driver's thread works while the next are read.
const REQUESTS_PER_OWN_TURN_MAX: usize = 4;
/// Anybody can make logins and handshakes fail; they must not fill the disk with the log of it.
static LOGIN_WARNINGS: Throttle = Throttle::new();
static COMPLAINTS: Throttle = Throttle::new();

pub struct Connection {
    pub id: ConnectionId,
    pub socket: Transport,
    /// How to read the client's certificate, under TLS.
    pub tls: Option<Tls>,
    pub peer: SocketAddr,
    pub session: Box<dyn Session>,
    pub node: NodeHandle,
    pub auth: Authenticator,
    pub clock: Clock,
}

/// Tells the driver exactly once that the connection is gone, however its task ends.
pub(crate) struct Farewell {
    pub(crate) id: ConnectionId,
    pub(crate) events: ClientSender,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let closed = ClientEvent::Closed { connection: self.id };
        let Err(mpsc::error::TrySendError::Full(closed)) = self.events.try_send(closed) else {
            return;
        };
        // Without a runtime the process is about to end, and the driver with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let events = self.events.clone();
            runtime.spawn(async move {
                let _ = events.send(closed).await;
            });
        }
    }
}

struct State {
    input: BytesMut,
    /// Size of the next read: follows what the client sends.
    read_bytes: usize,
    outbox: Outbox,
    trace: FrameTrace,
    /// Events that did not fit into the driver's channel yet, in order.
    waiting: VecDeque<ClientEvent>,
    drained: u64,
    /// What the driver sends.
    inbox: EffectReceiver,
    /// What a turn of the node that this task has taken brought. Goes before what is in `inbox`.
    own: Vec<Effect>,
    /// That turn has woken tasks which may wait for this thread.
    must_yield: bool,
    /// Publishing is stopped: what the client sends stays in its socket.
    blocked: bool,
    eof: bool,
    /// A check that takes long; the client's next bytes wait for it.
    checking: Option<(Login, oneshot::Receiver<LoginOutcome>)>,
}

impl State {
    fn follow(&mut self, read: usize) {
        if read >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 4).max(READ_BYTES_MIN);
        }
    }
}

impl Connection {
    /// `held` is dropped when the connection is gone: its place among others.
    ///
    /// Spawned as it is: a block around it would hold the connection a second time.
    pub async fn run<T>(mut self, held: T) {
        let (effects, inbox) = mailbox();
        let trace = FrameTrace::default();
        let opened = ClientEvent::Opened {
            connection: self.id,
            effects,
            peer: Some(self.peer),
            trace: trace.switch.clone(),
        };
        if self.node.events.send(opened).await.is_err() {
            return;
        }
        let farewell = Farewell { id: self.id, events: self.node.events.clone() };
        let mut state = State {
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            outbox: Outbox::default(),
            trace,
            waiting: VecDeque::new(),
            drained: 0,
            inbox,
            own: Vec::new(),
            must_yield: false,
            blocked: false,
            eof: false,
            checking: None,
        };
        if let Err(error) = self.serve(&mut state).await {
            tracing::debug!(connection = %self.id, peer = %self.peer, "socket: {error}");
        }
        let flush = self.flush(farewell, &mut state);
        let flushed = tokio::time::timeout(CLOSE_TIMEOUT, flush).await;
        drop(state);
        if let Ok(Ok(())) = flushed {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.linger()).await;
        }
        drop(held);
    }

    async fn serve(&mut self, state: &mut State) -> io::Result<()> {
        let mut timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(Duration::from_secs(3600)));
        let mut timer_at_ms = u64::MAX;
        let events = self.node.events.clone();
        while !state.outbox.close && !state.eof {
            while !state.own.is_empty() {
                let effects = std::mem::take(&mut state.own);
                self.on_effects(effects, state);
            }
            if state.outbox.close {
                // The last answer is written behind the farewell.
                break;
            }
            self.write_some(state)?;
            if std::mem::take(&mut state.must_yield) {
                tokio::task::yield_now().await;
            }
            if let Some(deadline) = self.session.deadline_ms()
                && deadline < timer_at_ms
            {
                timer_at_ms = deadline;
                timer.as_mut().reset(self.clock.instant(deadline).into());
            }
            let may_read = !state.blocked
                && state.inbox.has_room()
                && state.waiting.is_empty()
                && state.checking.is_none()
                && state.outbox.write.len() < UNSENT_BYTES_MAX;
            let unsent = !state.outbox.write.is_empty() || self.socket.has_unsent();
            // Not biased: under load effects never end, and yet acks must be read.
            tokio::select! {
                batch = state.inbox.recv() => match batch {
                    Some(effects) => self.on_effects(effects, state),
                    // The driver does not know this connection: the node does not serve.
                    None => return Ok(()),
                },
                permit = events.reserve(), if !state.waiting.is_empty() => {
                    match (permit, state.waiting.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        _ => return Ok(()),
                    }
                }
                outcome = checked(&mut state.checking), if state.checking.is_some() => {
                    if let Some((login, _)) = state.checking.take() {
                        let now_ms = self.clock.now_ms();
                        self.logged_in(now_ms, &login, outcome, state);
                        self.carry_out(now_ms, state);
                    }
                }
                ready = self.socket.writable(), if unsent => ready?,
                ready = self.socket.readable(), if may_read => {
                    ready?;
                    self.read_some(state)?;
                }
                () = &mut timer, if timer_at_ms != u64::MAX => {
                    timer_at_ms = u64::MAX;
                    let now_ms = self.clock.now_ms();
                    if !may_read {
                        self.session.on_unread(now_ms);
                    }
                    if self.session.deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
                        // It is quiet: its buffers may be needed elsewhere.
                        state.outbox.write.release();
                        self.session.on_timer(now_ms, &mut state.outbox);
                        self.carry_out(now_ms, state);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_some(&mut self, state: &mut State) -> io::Result<()> {
        let spare = state.input.capacity() - state.input.len();
        if spare < state.read_bytes {
            state.input.reserve(state.read_bytes);
        }
        match self.socket.try_read_buf(&mut state.input) {
            Ok(0) => state.eof = true,
            Ok(read) => {
                state.follow(read);
                state.trace.on_read(self.id, &state.input[state.input.len() - read..]);
                self.show_certificate();
                let now_ms = self.clock.now_ms();
                self.session.on_bytes(now_ms, &mut state.input, &mut state.outbox);
                self.carry_out(now_ms, state);
            }
            // Follows each read: only then is the socket known to have no more. A quiet connection
            // keeps no buffer.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if state.input.is_empty() && state.read_bytes == READ_BYTES_MIN {
                    state.input = BytesMut::new();
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Once, before the session sees the first bytes: the handshake is through then.
    fn show_certificate(&mut self) {
        let Some(tls) = self.tls.take() else { return };
        let user = self.socket.certificate().and_then(|certificate| tls.user_of(certificate));
        if let Some(user) = user {
            self.session.on_certificate(&user);
        }
    }

    fn on_effects(&mut self, mut effects: Vec<Effect>, state: &mut State) {
        let now_ms = self.clock.now_ms();
        loop {
            for effect in &effects {
                match effect {
                    Effect::Blocked { held, .. } => state.blocked = *held,
                    Effect::Unblocked => state.blocked = false,
                    _ => {}
                }
            }
            self.session.on_effects(now_ms, &mut effects, &mut state.outbox);
            match state.inbox.try_recv() {
                Some(more) => effects = more,
                None => break,
            }
        }
        self.carry_out(now_ms, state);
    }

    /// Login and requests; what cannot be sent at once waits, and stops the reading.
    fn carry_out(&mut self, now_ms: u64, state: &mut State) {
        while let Some(login) = state.outbox.login.take() {
            match self.auth.check(&login, self.peer.ip()) {
                Checked::Now(outcome) => self.logged_in(now_ms, &login, outcome, state),
                Checked::Later(later) => state.checking = Some((login, later)),
            }
        }
        if let Some(complaint) = state.outbox.complaint.take()
            && let Some(suppressed) = COMPLAINTS.pass(self.clock.uptime_ms())
        {
            let peer = self.peer;
            tracing::info!(connection = %self.id, %peer, suppressed, "client error: {complaint}");
        }
        if !state.outbox.requests.is_empty() {
            let requests = std::mem::take(&mut state.outbox.requests);
            state.inbox.sent_requests();
            self.tell(state, ClientEvent::Requests { connection: self.id, requests });
        }
    }

    fn logged_in(&mut self, now_ms: u64, login: &Login, outcome: LoginOutcome, state: &mut State) {
        if outcome == LoginOutcome::Refused
            && let Some(suppressed) = LOGIN_WARNINGS.pass(self.clock.uptime_ms())
        {
            tracing::warn!(peer = %self.peer, user = %login.user, suppressed, "login refused");
        }
        self.session.on_login(now_ms, outcome, &mut state.outbox);
        if !state.outbox.close {
            self.session.on_bytes(now_ms, &mut state.input, &mut state.outbox);
        }
    }

    fn tell(&self, state: &mut State, event: ClientEvent) {
        if !state.waiting.is_empty() {
            match (state.waiting.back_mut(), event) {
                (
                    Some(ClientEvent::Drained { bytes: before, .. }),
                    ClientEvent::Drained { bytes, .. },
                ) => *before += bytes,
                (_, event) => state.waiting.push_back(event),
            }
            return;
        }
        let events = &self.node.events;
        let sent = match &event {
            ClientEvent::Requests { requests, .. }
                if requests.len() <= REQUESTS_PER_OWN_TURN_MAX =>
            {
                events
                    .submit(event, self.id, &mut state.inbox, &mut state.own)
                    .map(|woke_others| state.must_yield |= woke_others)
            }
            _ => events.try_send(event),
        };
        if let Err(mpsc::error::TrySendError::Full(event)) = sent {
            state.waiting.push_back(event);
        }
    }

    /// Writes as much as the socket takes now.
    fn write_some(&mut self, state: &mut State) -> io::Result<()> {
        self.socket.send_rest()?;
        while !state.outbox.write.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let filled = state.outbox.write.io_slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    state.trace.on_written(self.id, &slices[..filled], written);
                    state.outbox.write.advance(written);
                    state.drained += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let all = state.outbox.write.is_empty() && state.drained >= DRAINED_REPORT_BYTES / 4;
        if state.drained >= DRAINED_REPORT_BYTES || all {
            let bytes = std::mem::take(&mut state.drained);
            self.tell(state, ClientEvent::Drained { connection: self.id, bytes });
        }
        Ok(())
    }

    /// What the driver still has to know and the client still has to get.
    async fn flush(&mut self, farewell: Farewell, state: &mut State) -> io::Result<()> {
        while let Some(event) = state.waiting.pop_front() {
            if self.node.events.send(event).await.is_err() {
                break;
            }
        }
        // In front of the client's last answer: what was its own is gone when it reads that, and
        // its deliveries are back in their queues, however long it keeps the socket.
        drop(farewell);
        while !state.outbox.write.is_empty() || self.socket.has_unsent() {
            self.socket.writable().await?;
            self.write_some(state)?;
        }
        if state.outbox.client_closes {
            return Ok(());
        }
        self.socket.shutdown().await
    }

    /// A close with unread input would be a reset, and the client might lose our last words.
    async fn linger(&mut self) {
        self.socket.discard_rest().await;
    }
}

/// The outcome of the check under way; a check that has died refuses.
async fn checked(checking: &mut Option<(Login, oneshot::Receiver<LoginOutcome>)>) -> LoginOutcome {
    match checking {
        Some((_, later)) => later.await.unwrap_or(LoginOutcome::Refused),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
