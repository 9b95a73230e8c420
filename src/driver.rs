//! The one thread that owns the node: drains what waits into inputs, ends the turn, and hands the
//! outputs to the shells. The only place that reads the clock for the node.

use crate::clock::Clock;
use crate::handle::{ClientEvent, Overview};
use crate::log_writer::LogWriter;
use crate::node::{Input, LogJob, Node, Outputs};
use crate::peer::{PeerEvent, PeerHandle};
use crate::reader::{ReadJob, Reader};
use crate::state_writer::{StateJob, StateWriter};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use understudy_model::{ConnectionId, Effect, Text, UserRecord};
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
const OVERVIEW_INTERVAL_MS: u64 = 100;

pub struct Shells {
    pub log: LogWriter,
    pub state: StateWriter,
    pub reader: Reader,
    pub peer: Option<PeerHandle>,
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
    pub ended: oneshot::Sender<Result<String, String>>,
}

/// A connection, as the driver knows it.
struct Client {
    effects: mpsc::UnboundedSender<Vec<Effect>>,
    peer: Option<SocketAddr>,
}

/// What lives as long as the loop.
#[derive(Default)]
struct Turn {
    /// What the driver has done itself, for the next turn.
    done: Vec<Input>,
    connections: BTreeMap<ConnectionId, Client>,
    outputs: Outputs,
    overview_at_ms: u64,
    overview_due: bool,
    last_state: (&'static str, bool),
}

impl Driver {
    /// Runs until the node stops. `first` is what starting it left to do.
    pub fn run(mut self, first: Outputs) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(self.turns(first)),
            Err(error) => Err(format!("cannot start the driver: {error}")),
        };
        if outcome.is_ok() {
            let slices = self.node.final_save();
            self.shells.state.save_and_stop(slices);
        }
        let _ = self.ended.send(outcome);
    }

    async fn turns(&mut self, first: Outputs) -> Result<String, String> {
        let mut turn = Turn { outputs: first, ..Turn::default() };
        let mut events = Vec::new();
        let mut clients = Vec::new();
        loop {
            let now_ms = self.clock.now_ms();
            self.node.end_turn(now_ms, &mut turn.outputs);
            if let Some(outcome) = self.carry_out(now_ms, &mut turn) {
                return outcome;
            }
            if turn.done.is_empty() {
                self.wait(&turn, &mut events, &mut clients).await;
            }
            events.extend(turn.done.drain(..).map(Event::Node));
            // Everything that came meanwhile belongs to the same turn.
            while let Ok(event) = self.events.try_recv() {
                events.push(event);
            }
            let now_ms = self.clock.now_ms();
            for event in events.drain(..) {
                self.on_event(now_ms, event, &mut turn.outputs)?;
            }
            for event in clients.drain(..) {
                self.on_client(now_ms, event, &mut turn);
            }
            if self.node.deadline_ms().is_some_and(|deadline| deadline <= now_ms) {
                self.node.on_input(now_ms, Input::Tick, &mut turn.outputs);
            }
        }
    }

    async fn wait(&mut self, turn: &Turn, events: &mut Vec<Event>, clients: &mut Vec<ClientEvent>) {
        let overview = turn.overview_due.then(|| turn.overview_at_ms + OVERVIEW_INTERVAL_MS);
        let deadline = [self.node.deadline_ms(), overview].into_iter().flatten().min();
        let now_ms = self.clock.now_ms();
        let pause = deadline.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
        // Too much that is not committed: requests stay in their channel, and their sockets unread.
        let accept = self.node.inflight_bytes() < self.inflight_bytes_max;
        if pause == Some(Duration::ZERO) {
            if accept {
                while clients.len() < CLIENT_EVENTS_PER_TURN
                    && let Ok(event) = self.clients.try_recv()
                {
                    clients.push(event);
                }
            }
            return;
        }
        let sleep = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => {
                events.push(event);
                if accept {
                    while clients.len() < CLIENT_EVENTS_PER_TURN
                        && let Ok(event) = self.clients.try_recv()
                    {
                        clients.push(event);
                    }
                }
            }
            _ = self.clients.recv_many(clients, CLIENT_EVENTS_PER_TURN), if accept => {}
            () = sleep => {}
        }
    }

    fn on_event(&mut self, now_ms: u64, event: Event, out: &mut Outputs) -> Result<(), String> {
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
        self.node.on_input(now_ms, input, out);
        Ok(())
    }

    fn on_client(&mut self, now_ms: u64, event: ClientEvent, turn: &mut Turn) {
        let out = &mut turn.outputs;
        match event {
            ClientEvent::Opened { connection, effects, peer } => {
                if self.node.is_serving() {
                    turn.connections.insert(connection, Client { effects, peer });
                }
            }
            ClientEvent::Requests { connection, requests } => {
                self.node.on_input(now_ms, Input::Requests { connection, requests }, out);
            }
            ClientEvent::Drained { connection, bytes } => {
                self.node.on_input(now_ms, Input::Drained { connection, bytes }, out);
            }
            ClientEvent::HandOver => {
                self.node.on_input(now_ms, Input::Backend(BackendInput::HandOver), out);
            }
            ClientEvent::Promote { force, answer } => {
                self.node.on_input(now_ms, Input::Backend(BackendInput::Promote { force }), out);
                let _ = answer.send(self.node.status());
            }
            ClientEvent::Inspect(inspect) => {
                let peer = |id| turn.connections.get(&id).and_then(|client| client.peer);
                inspect.answer(self.node.broker(), peer);
            }
            ClientEvent::Closed { connection } => {
                turn.connections.remove(&connection);
                self.node.on_input(now_ms, Input::Closed { connection }, out);
            }
        }
    }

    /// Some ends the loop.
    fn carry_out(&mut self, now_ms: u64, turn: &mut Turn) -> Option<Result<String, String>> {
        let out = &mut turn.outputs;
        for (warn, text) in out.notices.drain(..) {
            if warn {
                tracing::warn!("{text}");
            } else {
                tracing::info!("{text}");
            }
        }
        // Nothing else to do: then a lone group is committed here, after all the rest.
        let lone = out.log.len() == 1 && self.events.is_empty() && self.clients.is_empty();
        let mut inline = None;
        for job in out.log.drain(..) {
            match job {
                LogJob::Append(group) if lone => inline = Some(group),
                // The state of a copy is on disk before the log says that it begins there.
                LogJob::SetBase { at, chain, state } => {
                    self.shells.state.send(StateJob::Replace { state, at, chain });
                }
                LogJob::Reset { set_aside } => {
                    self.shells.log.send(LogJob::Reset { set_aside });
                    self.shells.state.send(StateJob::Clear);
                }
                job => self.shells.log.send(job),
            }
        }
        if let Some(peer) = &self.shells.peer {
            for (link, pieces) in out.send.drain(..) {
                peer.send(link, pieces);
            }
            out.hang_up.drain(..).for_each(|link| peer.hang_up(link));
            if let Some(address) = out.dial.take() {
                peer.dial(&address);
            }
        }
        self.send_reads(turn);
        self.send_effects(turn);
        self.publish(now_ms, turn);
        let out = &mut turn.outputs;
        if !out.save.is_empty() || out.save_ends.is_some() {
            let slices = std::mem::take(&mut out.save);
            self.shells.state.send(StateJob::Save { slices, ends: out.save_ends.take() });
        }
        let stop = out.stop.take();
        if let Some(group) = inline {
            match self.shells.log.commit_inline(&group) {
                Ok(true) => turn.done.push(Input::Durable { through: group.last() }),
                Ok(false) => self.shells.log.send(LogJob::Append(group)),
                Err(error) => return Some(Err(error)),
            }
        }
        stop
    }

    fn send_reads(&self, turn: &mut Turn) {
        let out = &mut turn.outputs;
        for read in out.reads.drain(..) {
            self.shells.reader.send(ReadJob::Ahead(read));
        }
        if let Some((after, bytes_max)) = out.read_groups.take() {
            self.shells.reader.send(ReadJob::Groups { after, bytes_max });
        }
        if let Some(lsns) = out.snapshot_read.take() {
            self.shells.reader.send(ReadJob::Snapshot { lsns });
        }
    }

    fn send_effects(&self, turn: &mut Turn) {
        for (connection, effects) in std::mem::take(&mut turn.outputs.effects) {
            // A connection that has gone meanwhile needs nothing any more.
            if let Some(client) = turn.connections.get(&connection) {
                let _ = client.effects.send(effects);
            }
        }
        match turn.outputs.frontends.take() {
            Some(true) => {
                self.shells.serving.send_replace(true);
            }
            Some(false) => {
                self.shells.serving.send_replace(false);
                let reason = Text::from_static("this node is no longer the master");
                for (_, client) in std::mem::take(&mut turn.connections) {
                    let _ = client.effects.send(vec![Effect::Close { reason: reason.clone() }]);
                }
            }
            None => {}
        }
        if std::mem::take(&mut turn.outputs.users_changed) {
            let users = self.node.broker().users().cloned().collect();
            self.shells.users.send_replace(Arc::new(users));
        }
    }

    fn publish(&self, now_ms: u64, turn: &mut Turn) {
        let status = self.node.status();
        let state = (status.state, self.node.is_serving());
        let fresh = state != turn.last_state;
        if !fresh && now_ms < turn.overview_at_ms + OVERVIEW_INTERVAL_MS {
            turn.overview_due = true;
            return;
        }
        turn.overview_due = false;
        turn.overview_at_ms = now_ms;
        turn.last_state = state;
        let counts = self.node.broker().counts();
        self.shells.overview.send_modify(|overview| {
            let overview = Arc::make_mut(overview);
            overview.name.clone_from(&self.name);
            overview.serving = self.node.is_serving();
            overview.connections = counts.connections;
            overview.consumers = counts.consumers;
            overview.queues = counts.queues;
            overview.messages = counts.unsettled;
            overview.messages_ready = counts.ready;
            overview.messages_unacked = counts.unsettled.saturating_sub(counts.ready);
            overview.disk_alarm = self.node.is_low_on_space();
            overview.applied = self.node.applied().0;
            overview.appended = self.node.appended().0;
            overview.durable = self.node.durable().0;
            overview.replication = status;
        });
    }
}
