//! The background task: it owns the socket, and makes a new one when it is lost.

use crate::backoff::{Backoff, round};
use crate::client::ConnectionState;
use crate::command::Command;
use crate::connection::{Connection, Target};
use crate::engine::Engine;
use crate::subscription::Link;
use crate::{Error, Result};
use bytes::BytesMut;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use understudy_native::{Decoder, Frame, Goodbye, Ping, Text};

const READ_BYTES: usize = 64 * 1024;
const COMMANDS_PER_TURN: usize = 256;
const SLICES_PER_WRITE: usize = 64;
/// A connection that held for so long starts the back-off anew when it is lost.
const SETTLED: Duration = Duration::from_secs(1);
/// Where the broker has sent us the new master is about to let clients in.
const MOVED_RETRY: Duration = Duration::from_millis(2);
/// Then the list is gone through as after any loss.
const MOVED_PATIENCE: Duration = Duration::from_secs(2);
/// How long the broker may take to close after our goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

struct Task {
    target: Target,
    engine: Engine,
    inbox: mpsc::UnboundedReceiver<Command>,
    state: watch::Sender<ConnectionState>,
    closing: Option<oneshot::Sender<()>>,
    /// The program holds no handle any more.
    abandoned: bool,
    backoff: Backoff,
}

/// Why a connection is left.
enum Left {
    Lost(Error),
    /// Closed by the program, everything answered.
    Done,
}

pub(crate) async fn run(
    target: Target,
    link: Link,
    window: Arc<Semaphore>,
    inbox: mpsc::UnboundedReceiver<Command>,
    state: watch::Sender<ConnectionState>,
    ready: oneshot::Sender<Result<()>>,
) {
    let engine = Engine::new(&link, window.clone(), target.failover.timeout);
    let ended = link.ended.clone();
    // The task's own handle must not keep its inbox open.
    drop(link);
    let backoff = Backoff::default();
    let mut task = Task { target, engine, inbox, state, closing: None, abandoned: false, backoff };
    let error = task.life(ready).await;
    task.engine.end(&error);
    let _ = ended.set(error);
    task.state.send_replace(ConnectionState::Closed);
    window.close();
    // What was asked meanwhile is answered; what comes later is told why by its link.
    task.inbox.close();
    while let Some(command) = task.inbox.recv().await {
        task.engine.on_command(command);
    }
    if let Some(done) = task.closing.take() {
        let _ = done.send(());
    }
}

impl Task {
    /// Connection after connection, until closed or out of attempts.
    async fn life(&mut self, ready: oneshot::Sender<Result<()>>) -> Error {
        let failover = &self.target.failover;
        let startup = match failover.startup_max_reconnect_attempts {
            -1 => failover.max_reconnect_attempts,
            attempts => attempts,
        };
        // 0 forbids to connect again; the first connection is tried for once all the same.
        let startup = if startup == 0 { 1 } else { startup };
        let mut connection = match self.connect(None, None, startup).await {
            Ok(connection) => connection,
            Err(error) => {
                let _ = ready.send(Err(error.clone()));
                return error;
            }
        };
        let _ = ready.send(Ok(()));
        loop {
            self.state.send_replace(ConnectionState::Connected(connection.place.clone()));
            self.engine.on_connected(connection.server.clone());
            let (since, lost_address) = (Instant::now(), connection.address);
            let lost = match self.serve(&mut connection).await {
                Left::Done => return Error::Closed,
                Left::Lost(error) => error,
            };
            drop(connection);
            tracing::info!(%lost, "connection lost");
            self.state.send_replace(ConnectionState::Connecting);
            let moved = self.engine.take_moved();
            let moved = moved.and_then(|uris| self.target.learn(lost_address, &uris));
            self.engine.on_lost(&lost, Instant::now());
            if self.closing.is_some() && self.engine.is_idle() {
                return Error::Closed;
            }
            if since.elapsed() > SETTLED {
                self.backoff.reset();
            }
            let attempts = self.target.failover.max_reconnect_attempts;
            connection = match self.connect(moved, Some((lost_address, lost)), attempts).await {
                Ok(connection) => connection,
                Err(error) => return error,
            };
        }
    }

    /// To where the broker has sent us, else rounds through the list until one lets us in.
    /// Commands are taken meanwhile. `lost`: the address that we were at, and why we left.
    async fn connect(
        &mut self,
        moved: Option<usize>,
        lost: Option<(usize, Error)>,
        attempts: i64,
    ) -> Result<Connection> {
        let since = Instant::now();
        let (lost, why) = lost.unzip();
        while let Some(moved) = moved.filter(|_| attempts != 0 && since.elapsed() < MOVED_PATIENCE)
        {
            match self.round(vec![moved]).await? {
                Ok(connection) => return Ok(connection),
                // Trying again makes a certificate no better.
                Err(Error::Untrusted(_)) => break,
                Err(_) => self.wait(MOVED_RETRY).await?,
            }
        }
        let mut rounds = 0;
        let why = why.map_or(String::new(), |why| format!("{why}; "));
        let mut failure = Error::NoConnection(format!("{why}the address allows no reconnect"));
        loop {
            if attempts >= 0 && rounds >= attempts {
                return Err(failure);
            }
            let delay = self.backoff.next_delay(&self.target.failover);
            self.wait(delay).await?;
            let order = round(&self.target.failover, lost);
            failure = match self.round(order).await? {
                Ok(connection) => return Ok(connection),
                Err(failure) => failure,
            };
            if failure.is_final() && lost.is_none() {
                return Err(failure);
            }
            rounds += 1;
            if self.backoff.should_warn(&self.target.failover) {
                tracing::warn!(%failure, "still no connection");
            }
        }
    }

    /// One round, while commands go on being taken.
    async fn round(&mut self, order: Vec<usize>) -> Result<Result<Connection>> {
        let Self { target, engine, inbox, closing, abandoned, .. } = self;
        let mut attempt = std::pin::pin!(target.round(order));
        loop {
            let timeout = engine.next_timeout();
            tokio::select! {
                result = &mut attempt => return Ok(result),
                () = sleep_until(timeout.unwrap_or_else(Instant::now)), if timeout.is_some() => {
                    engine.time_out(Instant::now());
                }
                command = inbox.recv(), if !*abandoned => {
                    take(engine, closing, abandoned, command);
                    gone(engine, closing.is_some(), *abandoned)?;
                }
            }
        }
    }

    async fn wait(&mut self, delay: Duration) -> Result<()> {
        let until = Instant::now() + delay;
        loop {
            gone(&self.engine, self.closing.is_some(), self.abandoned)?;
            self.engine.time_out(Instant::now());
            if until <= Instant::now() {
                return Ok(());
            }
            let wake = self.engine.next_timeout().map_or(until, |at| at.min(until));
            tokio::select! {
                () = sleep_until(wake) => {}
                command = self.inbox.recv(), if !self.abandoned => {
                    take(&mut self.engine, &mut self.closing, &mut self.abandoned, command);
                }
            }
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> Left {
        let decoder = Decoder {
            frame_bytes_max: self.target.frame_bytes_max(connection.address),
            text_bytes_max: usize::MAX,
        };
        let heartbeat = match connection.server.heartbeat_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        };
        let (mut heard, mut said) = (Instant::now(), Instant::now());
        let mut commands = Vec::new();
        loop {
            if let Err(error) = self.decode(&decoder, &mut connection.input) {
                return Left::Lost(error);
            }
            self.engine.flush_run();
            match self.write(connection) {
                Ok(true) => said = Instant::now(),
                Ok(false) => {}
                Err(error) => return lost(&error),
            }
            if (self.closing.is_some() || self.abandoned) && self.engine.is_idle() {
                return self.goodbye(connection).await;
            }
            let next_ping = heartbeat.map(|beat| said + beat / 2);
            let silent = heartbeat.map(|beat| heard + beat * 2);
            let wake = next_ping.into_iter().chain(silent).min();
            let unsent = !self.engine.out.is_empty() || connection.stream.has_unsent();
            tokio::select! {
                ready = connection.stream.readable() => {
                    let read = ready.and_then(|()| read(connection));
                    match read {
                        Ok(0) => return lost(&io::ErrorKind::UnexpectedEof.into()),
                        Ok(_) => heard = Instant::now(),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return lost(&error),
                    }
                }
                _ = connection.stream.writable(), if unsent => {}
                count = self.inbox.recv_many(&mut commands, COMMANDS_PER_TURN),
                    if !self.abandoned =>
                {
                    self.abandoned |= count == 0;
                    for command in commands.drain(..) {
                        take(&mut self.engine, &mut self.closing, &mut self.abandoned, Some(command));
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    if silent.is_some_and(|at| at <= Instant::now()) {
                        return lost(&io::ErrorKind::TimedOut.into());
                    }
                    // What waits already says as much, once a broker that does not read goes on.
                    if self.engine.out.is_empty() {
                        Frame::from(Ping { number: 0 }).encode(&mut self.engine.out);
                    }
                    said = Instant::now();
                }
            }
        }
    }

    fn decode(&mut self, decoder: &Decoder, input: &mut BytesMut) -> Result<()> {
        loop {
            match decoder.next(input) {
                Ok(Some(frame)) => self.engine.on_frame(frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Error::Protocol(error.to_string())),
            }
        }
    }

    /// Writes what the socket takes now; true if it took anything.
    fn write(&mut self, connection: &mut Connection) -> io::Result<bool> {
        connection.stream.send_rest()?;
        let mut wrote = false;
        while !self.engine.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let filled = self.engine.out.io_slices(&mut slices);
            let filled = slices.get(..filled).unwrap_or_default();
            match connection.stream.try_write_vectored(filled) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.engine.out.advance(written);
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(wrote)
    }

    async fn goodbye(&mut self, connection: &mut Connection) -> Left {
        let reason = Text::from_static("closed by the program");
        Frame::from(Goodbye { reason }).encode(&mut self.engine.out);
        let farewell = async {
            while !self.engine.out.is_empty() {
                connection.stream.writable().await?;
                self.write(connection)?;
            }
            // Closing a socket with unread input resets it, and may take with it what was just sent.
            connection.stream.shutdown().await?;
            while connection.stream.read_buf(&mut connection.input).await? > 0 {
                connection.input.clear();
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        Left::Done
    }
}

fn take(
    engine: &mut Engine,
    closing: &mut Option<oneshot::Sender<()>>,
    abandoned: &mut bool,
    command: Option<Command>,
) {
    match command {
        None => *abandoned = true,
        Some(Command::Close { done }) => *closing = Some(done),
        Some(command) => engine.on_command(command),
    }
}

/// Without a connection there is nothing to stay for if nobody waits for an answer.
fn gone(engine: &Engine, closing: bool, abandoned: bool) -> Result<()> {
    if (closing || abandoned) && !engine.is_awaited() { Err(Error::Closed) } else { Ok(()) }
}

fn lost(error: &io::Error) -> Left {
    Left::Lost(Error::ConnectionLost(error.to_string()))
}

fn read(connection: &mut Connection) -> io::Result<usize> {
    connection.input.reserve(READ_BYTES);
    connection.stream.try_read_buf(&mut connection.input)
}
