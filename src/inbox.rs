//! How the shells reach the node: two channels, and who takes the turn when something has come.
//! That is the driver's thread, unless a task brings one small thing while the node rests: then it
//! takes the turn itself. A lone publisher is spared two wake-ups of a thread per confirm, and a
//! slave's acknowledgement of a group four.

use crate::driver::{Driver, Event};
use crate::handle::ClientEvent;
use crate::mailbox::EffectReceiver;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;
use tokio::sync::mpsc;
use understudy_model::{ConnectionId, Effect};

/// The driver, and its thread to wake.
#[derive(Default)]
pub struct SharedDriver {
    thread: OnceLock<Thread>,
    /// None before the start and after the end.
    driver: Mutex<Option<Driver>>,
}

/// The node has ended: nobody takes events any more.
#[derive(Debug)]
pub struct Gone;

impl SharedDriver {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Takes the turn in the caller's task if the node rests, and wakes the driver's thread otherwise.
    /// True: other tasks were woken, and one of them may wait for this thread and no other.
    fn take_turn(&self, own: Option<Own<'_>>) -> bool {
        let mut wake = WakeUnlessDone { driver: self, done: false };
        let Ok(mut slot) = self.driver.try_lock() else { return false };
        let Some(driver) = slot.as_mut() else { return false };
        let Some(Own { connection, inbox, effects }) = own else {
            wake.done = driver.take_turn(None, &mut Vec::new());
            return driver.has_woken_tasks();
        };
        // Under the lock, or effects of a later turn could come in between.
        while let Some(before) = inbox.try_recv() {
            effects.extend(before);
        }
        wake.done = driver.take_turn(Some(connection), effects);
        driver.has_woken_tasks()
    }

    /// The driver's thread: runs until the node ends.
    pub fn serve(&self, driver: Driver) {
        let _ = self.thread.set(thread::current());
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(driver);
        loop {
            // Poisoned: a turn has panicked, in whatever thread. Nothing is known of the node then.
            let Ok(mut slot) = self.driver.lock() else { break };
            let Some(driver) = slot.as_mut() else { return };
            match driver.turns() {
                Ok(pause) => {
                    drop(slot);
                    park(pause);
                }
                Err(outcome) => {
                    let driver = slot.take();
                    drop(slot);
                    return driver.into_iter().for_each(|driver| driver.end(outcome.clone()));
                }
            }
        }
        drop(self.driver.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn park(pause: Option<Duration>) {
    match pause {
        Some(pause) => thread::park_timeout(pause),
        None => thread::park(),
    }
}

/// The connection whose task takes a turn.
struct Own<'a> {
    connection: ConnectionId,
    inbox: &'a mut EffectReceiver,
    effects: &'a mut Vec<Effect>,
}

/// Wakes after a panic too: the driver's thread must learn of it.
struct WakeUnlessDone<'a> {
    driver: &'a SharedDriver,
    done: bool,
}

impl Drop for WakeUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.driver.wake();
        }
    }
}

/// From our own shells; never bounded, since each event is an answer.
#[derive(Clone)]
pub struct EventSender {
    channel: mpsc::UnboundedSender<Event>,
    driver: Arc<SharedDriver>,
}

impl EventSender {
    pub fn new(driver: Arc<SharedDriver>) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (channel, inbox) = mpsc::unbounded_channel();
        (Self { channel, driver }, inbox)
    }

    /// # Errors
    /// The node has ended.
    pub fn send(&self, event: Event) -> Result<(), Gone> {
        self.channel.send(event).map_err(|_| Gone)?;
        self.driver.wake();
        Ok(())
    }

    /// As [`Self::send`], for something small: the caller's task may take the node's turn. True: it
    /// has to yield before it takes another.
    ///
    /// # Errors
    /// The node has ended.
    pub fn submit(&self, event: Event) -> Result<bool, Gone> {
        self.channel.send(event).map_err(|_| Gone)?;
        Ok(self.driver.take_turn(None))
    }

    pub fn is_closed(&self) -> bool {
        self.channel.is_closed()
    }
}

/// From connections. Bounded: a full channel stops the reading of sockets.
#[derive(Clone)]
pub struct ClientSender {
    channel: mpsc::Sender<ClientEvent>,
    driver: Arc<SharedDriver>,
}

/// Room for one event.
pub struct Permit<'a> {
    room: mpsc::Permit<'a, ClientEvent>,
    driver: &'a SharedDriver,
}

impl Permit<'_> {
    pub fn send(self, event: ClientEvent) {
        self.room.send(event);
        self.driver.wake();
    }
}

type TrySendError = mpsc::error::TrySendError<ClientEvent>;

impl ClientSender {
    pub fn new(driver: Arc<SharedDriver>, capacity: usize) -> (Self, mpsc::Receiver<ClientEvent>) {
        let (channel, inbox) = mpsc::channel(capacity);
        (Self { channel, driver }, inbox)
    }

    /// Waits for room. Cancel-safe: a future that is dropped has sent nothing.
    ///
    /// # Errors
    /// The node has ended.
    pub async fn send(&self, event: ClientEvent) -> Result<(), Gone> {
        self.reserve().await?.send(event);
        Ok(())
    }

    /// # Errors
    /// The node has ended.
    pub async fn reserve(&self) -> Result<Permit<'_>, Gone> {
        let room = self.channel.reserve().await.map_err(|_| Gone)?;
        Ok(Permit { room, driver: &self.driver })
    }

    /// # Errors
    /// No room, or the node has ended; the error holds the event.
    #[allow(clippy::result_large_err, reason = "the event is handed back, as tokio does")]
    pub fn try_send(&self, event: ClientEvent) -> Result<(), TrySendError> {
        self.channel.try_send(event)?;
        self.driver.wake();
        Ok(())
    }

    /// As [`Self::try_send`], for something small: the task of `connection`, which calls, may take
    /// the node's turn. Its effects, those that wait in its channel first, are put into `effects`.
    /// True: it has to yield before it takes another.
    ///
    /// # Errors
    /// As [`Self::try_send`].
    #[allow(clippy::result_large_err, reason = "the event is handed back, as tokio does")]
    pub fn submit(
        &self,
        event: ClientEvent,
        connection: ConnectionId,
        inbox: &mut EffectReceiver,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, TrySendError> {
        self.channel.try_send(event)?;
        Ok(self.driver.take_turn(Some(Own { connection, inbox, effects })))
    }
}
