//! Takes the node's turns: drains what waits into inputs, ends the turn, and hands the outputs to
//! the shells (`driver/outputs.rs`). The only place that reads the clock for the node. One turn at a time, under the lock
//! of `inbox.rs`, which says whose thread it runs on.

mod outputs;
#[cfg(test)]
mod tests;

use crate::arbiter::ArbiterHandle;
use crate::clock::Clock;
use crate::handle::{ClientEvent, Overview};
use crate::lag::LagHistory;
use crate::log_writer::LogWriter;
use crate::mailbox::EffectSender;
use crate::node::{Input, Node, Outputs};
use crate::peer::{PeerEvent, PeerHandle};
use crate::reader::Reader;
use crate::state_writer::StateWriter;
use crate::trace::TraceSwitch;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use understudy_model::{ConnectionId, Effect, Group, UserRecord};
use understudy_replication::Input as BackendInput;

/// What reaches the driver from our own threads; never bounded, since each is an answer.
pub enum Event {
    Node(Input),
    Peer(PeerEvent),
    /// Stop cleanly.
    Stop,
    /// A thread cannot go on: end the process without another answer to any client.
    Fatal(String),
}

/// Batches of client events taken in one turn at most.
const CLIENT_EVENTS_PER_TURN: usize = 256;
/// No more are taken in the turn after so many requests, fewer than a turn hands out at most. With
/// long turns, who publishes without waiting for confirms takes the node's time from the consumers.
const REQUESTS_PER_TURN: usize = 1_024;
const OVERVIEW_INTERVAL_MS: u64 = 100;
/// A task takes at most so many turns in a row: a request, its commit, and what that releases.
const TURNS_OF_A_TASK: usize = 4;

pub struct Shells {
    pub log: LogWriter,
    pub state: StateWriter,
    pub reader: Reader,
    pub peer: Option<PeerHandle>,
    pub arbiter: Option<ArbiterHandle>,
    pub overview: watch::Sender<Arc<Overview>>,
    pub users: watch::Sender<Arc<Vec<UserRecord>>>,
    pub serving: watch::Sender<bool>,
}

pub struct Driver {
    pub node: Node,
    pub clock: Clock,
    pub shells: Shells,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub clients: mpsc::Receiver<ClientEvent>,
    pub inflight_bytes_max: usize,
    pub name: String,
    /// Why the node ended: told once.
    pub ended: oneshot::Sender<Outcome>,
    pub turn: Turn,
}

/// How the node ended: why it stopped, or what broke.
pub type Outcome = Result<String, String>;

/// A connection, as the driver knows it.
struct Client {
    effects: EffectSender,
    peer: Option<SocketAddr>,
    trace: TraceSwitch,
}

/// What lives from turn to turn.
#[derive(Default)]
pub struct Turn {
    /// None was taken yet: `outputs` holds what the start has left to do.
    fresh: bool,
    /// What the driver has done itself, for the next turn.
    done: Vec<Input>,
    /// A group that is committed here if nothing else has come until the next turn.
    lone: Option<Group>,
    connections: BTreeMap<ConnectionId, Client>,
    outputs: Outputs,
    /// Effects were handed out in this or an earlier turn of the same caller.
    woke_tasks: bool,
    /// … to tasks other than the caller.
    woke_others: bool,
    /// For the connection whose task takes the turn: through its channel it would wake itself.
    own_effects: Vec<Effect>,
    overview_at_ms: u64,
    overview_due: bool,
    lag: LagHistory,
    last_state: (&'static str, bool),
    outcome: Option<Outcome>,
    /// When the driver's thread wakes by itself.
    parked_until_ms: Option<u64>,
}

impl Turn {
    #[must_use]
    pub fn new(first: Outputs) -> Self {
        Self { fresh: true, outputs: first, ..Self::default() }
    }
}

/// Whose thread a turn runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Driver,
    /// A task of the runtime, a connection's or the link's. While it is blocked, tasks that it has
    /// woken may wait for its thread.
    Task(Option<ConnectionId>),
}

impl Driver {
    /// On the driver's own thread: takes turns until nothing is left to do, and says for how long.
    ///
    /// # Errors
    /// The node has ended.
    pub fn turns(&mut self) -> Result<Option<Duration>, Outcome> {
        while !self.rests() {
            self.take(Caller::Driver);
        }
        if let Some(outcome) = self.turn.outcome.take() {
            return Err(outcome);
        }
        let wake_at_ms = self.wake_at_ms();
        self.turn.parked_until_ms = wake_at_ms;
        Ok(wake_at_ms.map(|at| self.clock.until(at)))
    }

    /// On a task of the runtime, after it has sent one small event. False: the driver's thread has
    /// to go on, because there is more, or what is left would hold up other tasks. `own` gets the
    /// effects for `connection`, whose task must yield then if [`Self::has_woken_tasks`].
    pub fn take_turn(&mut self, connection: Option<ConnectionId>, own: &mut Vec<Effect>) -> bool {
        let done = self.take_turns_of_task(connection);
        own.append(&mut self.turn.own_effects);
        done
    }

    /// Whether the last caller's turns have woken other tasks.
    #[must_use]
    pub fn has_woken_tasks(&self) -> bool {
        self.turn.woke_others
    }

    fn take_turns_of_task(&mut self, connection: Option<ConnectionId>) -> bool {
        // Why the node has ended is for its thread to tell; another turn would forget it.
        if self.turn.outcome.is_some() || self.events.len() + self.clients.len() > 1 {
            return false;
        }
        self.turn.woke_others = false;
        self.turn.woke_tasks = false;
        for _ in 0..TURNS_OF_A_TASK {
            self.take(Caller::Task(connection));
            if self.rests() {
                let sooner = match (self.wake_at_ms(), self.turn.parked_until_ms) {
                    (Some(at), Some(parked)) => at < parked,
                    (at, parked) => at.is_some() && parked.is_none(),
                };
                return !sooner && self.turn.outcome.is_none();
            }
            if self.turn.lone.is_some() {
                return false;
            }
        }
        false
    }

    /// The node has ended: saves the last state and tells.
    pub fn end(mut self, outcome: Outcome) {
        if outcome.is_ok() {
            let slices = self.node.final_save();
            self.shells.state.save_and_stop(slices);
            self.shells.log.close();
        }
        let _ = self.ended.send(outcome);
    }

    /// Too much that is not committed: requests stay in their channel, and their sockets unread.
    fn accepts(&self) -> bool {
        self.node.inflight_bytes() < self.inflight_bytes_max
    }

    fn wake_at_ms(&self) -> Option<u64> {
        let turn = &self.turn;
        let overview = turn.overview_due.then(|| turn.overview_at_ms + OVERVIEW_INTERVAL_MS);
        [self.node.deadline_ms(), overview].into_iter().flatten().min()
    }

    fn rests(&self) -> bool {
        let turn = &self.turn;
        let is_due = |at| at <= self.clock.now_ms();
        turn.outcome.is_some()
            || !turn.fresh
                && turn.lone.is_none()
                && turn.done.is_empty()
                && self.events.is_empty()
                && (self.clients.is_empty() || !self.accepts())
                && !self.wake_at_ms().is_some_and(is_due)
    }

    /// One turn.
    fn take(&mut self, caller: Caller) {
        if let Err(broken) = self.inputs() {
            self.turn.outcome = Some(Err(broken));
            return;
        }
        self.turn.fresh = false;
        let now_ms = self.clock.now_ms();
        self.node.end_turn(now_ms, &mut self.turn.outputs);
        if let Err(broken) = self.carry_out(now_ms, caller) {
            self.turn.outcome = Some(Err(broken));
        }
    }

    fn inputs(&mut self) -> Result<(), String> {
        if let Some(group) = self.turn.lone.take() {
            self.commit_lone(group)?;
        }
        for done in std::mem::take(&mut self.turn.done) {
            let now_ms = self.clock.now_ms();
            self.on_event(now_ms, Event::Node(done))?;
        }
        // Everything that has come meanwhile belongs to the same turn.
        let now_ms = self.clock.now_ms();
        while let Ok(event) = self.events.try_recv() {
            self.on_event(now_ms, event)?;
        }
        let mut taken = 0;
        for _ in 0..CLIENT_EVENTS_PER_TURN {
            if taken >= REQUESTS_PER_TURN || !self.accepts() {
                break;
            }
            let Ok(event) = self.clients.try_recv() else { break };
            if let ClientEvent::Requests { requests, .. } = &event {
                taken += requests.len();
            }
            self.on_client(now_ms, event);
        }
        if self.node.deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
            self.node.on_input(now_ms, Input::Tick, &mut self.turn.outputs);
        }
        Ok(())
    }

    fn on_event(&mut self, now_ms: u64, event: Event) -> Result<(), String> {
        let input = match event {
            Event::Node(input) => input,
            Event::Stop => Input::Backend(BackendInput::Stopping),
            Event::Fatal(why) => return Err(why),
            Event::Peer(event) => Input::Backend(match event {
                PeerEvent::Linked { link, dialed } => BackendInput::Linked { link, dialed },
                PeerEvent::Received { link, frame } => BackendInput::Received { link, frame },
                PeerEvent::Lost { link } => BackendInput::LinkLost { link },
                PeerEvent::DialFailed { refused } => BackendInput::DialFailed { refused },
            }),
        };
        self.node.on_input(now_ms, input, &mut self.turn.outputs);
        Ok(())
    }

    fn on_client(&mut self, now_ms: u64, event: ClientEvent) {
        let turn = &mut self.turn;
        let out = &mut turn.outputs;
        match event {
            ClientEvent::Opened { connection, effects, peer, trace } => {
                if self.node.is_serving() {
                    turn.connections.insert(connection, Client { effects, peer, trace });
                }
            }
            ClientEvent::Requests { connection, requests } => {
                if let Some(client) = turn.connections.get(&connection) {
                    client.effects.taken();
                }
                self.node.on_input(now_ms, Input::Requests { connection, requests }, out);
            }
            ClientEvent::Drained { connection, bytes } => {
                self.node.on_input(now_ms, Input::Drained { connection, bytes }, out);
            }
            ClientEvent::Digest(answer) => {
                let _ = answer.send(self.node.digest());
            }
            ClientEvent::HandOver => {
                self.node.on_input(now_ms, Input::Backend(BackendInput::HandOver), out);
            }
            ClientEvent::Promote { force, answer } => {
                self.node.on_input(now_ms, Input::Backend(BackendInput::Promote { force }), out);
                let _ = answer.send(self.node.status());
            }
            ClientEvent::Resync(answer) => {
                self.node.on_input(now_ms, Input::Backend(BackendInput::Resync), out);
                let _ = answer.send(self.node.status());
            }
            ClientEvent::ForgetSlave { force, answer } => {
                let forget = BackendInput::ForgetSlave { force };
                self.node.on_input(now_ms, Input::Backend(forget), out);
                let _ = answer.send(self.node.status());
            }
            ClientEvent::Inspect(inspect) => {
                let peer = |id| turn.connections.get(&id).and_then(|client| client.peer);
                inspect.answer(self.node.broker(), peer);
            }
            ClientEvent::Trace { connection, on, answer } => {
                let client = turn.connections.get(&connection);
                let client = client.filter(|_| self.node.broker().has_client(connection));
                if let Some(client) = client {
                    client.trace.turn(on);
                }
                let _ = answer.send(client.is_some());
            }
            ClientEvent::Closed { connection } => {
                turn.connections.remove(&connection);
                self.node.on_input(now_ms, Input::Closed { connection }, out);
            }
        }
    }
}
