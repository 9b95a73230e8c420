//! The alarm for a store that runs out of room: publishers wait, everybody else goes on, so that
//! consumers make room. A part of the node, sans-io.

use super::{Node, Outputs, push_effect};
use std::collections::{BTreeSet, VecDeque};
use understudy_model::{ConnectionId, Effect, Request, Text};
use understudy_replication::Input as BackendInput;

#[derive(Default)]
pub(crate) struct Alarm {
    /// On the own disk.
    pub(crate) low_space: bool,
    /// On the disk of the slave that commits wait for.
    slave_low: bool,
    /// Connections that wait with a publish, and were told so.
    waiting: BTreeSet<ConnectionId>,
}

impl Alarm {
    /// Whether the request must wait: it would fill the store further.
    pub(crate) fn holds(&self, request: &Request) -> bool {
        self.is_raised()
            && match request {
                Request::Publish(_) => true,
                Request::Transaction(transaction) => !transaction.publishes.is_empty(),
                _ => false,
            }
    }

    /// True the first time: the client is to be told.
    pub(crate) fn wait(&mut self, connection: ConnectionId) -> bool {
        self.waiting.insert(connection)
    }

    pub(crate) fn is_waiting(&self, connection: ConnectionId) -> bool {
        self.waiting.contains(&connection)
    }

    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.waiting.remove(&connection);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.low_space || self.slave_low
    }

    /// If the alarm is over: who waited and may go on.
    fn take_waiting(&mut self) -> BTreeSet<ConnectionId> {
        if self.is_raised() { BTreeSet::new() } else { std::mem::take(&mut self.waiting) }
    }

    pub(crate) fn forget_clients(&mut self) {
        // Told by the backend of the mastership that begins, if it is so.
        self.slave_low = false;
        self.waiting.clear();
    }

    pub(crate) fn reason() -> Text {
        Text::from_static("low on disk")
    }
}

impl Node {
    /// Publishers wait for room in the store.
    pub fn is_low_on_space(&self) -> bool {
        self.alarm.is_raised()
    }

    /// No client waits for room any more.
    pub(super) fn follow(&mut self) {
        self.leading = None;
        self.forget_clients();
    }

    pub(super) fn decide_held(&mut self, connection: ConnectionId, out: &mut Outputs) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let mut held = std::mem::take(&mut session.held);
        self.held_bytes -= std::mem::take(&mut session.held_bytes);
        self.decide_all(connection, &mut held, out);
        self.hold(connection, held);
    }

    /// Keeps requests behind those that the connection's session waits with.
    pub(super) fn hold(&mut self, connection: ConnectionId, requests: VecDeque<Request>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if !self.alarm.is_waiting(connection) {
            let bytes: usize = requests.iter().map(Request::held_bytes).sum();
            session.held_bytes += bytes;
            self.held_bytes += bytes;
        }
        if session.held.is_empty() {
            session.held = requests;
        } else {
            session.held.extend(requests);
        }
    }

    pub(super) fn space(&mut self, now_ms: u64, low: bool, out: &mut Outputs) {
        self.alarm.low_space = low;
        self.backend_input(now_ms, BackendInput::Space { low }, out);
        self.let_go_on(out);
    }

    pub(super) fn slave_space(&mut self, low: bool, out: &mut Outputs) {
        self.alarm.slave_low = low;
        self.let_go_on(out);
    }

    fn let_go_on(&mut self, out: &mut Outputs) {
        for connection in self.alarm.take_waiting() {
            push_effect(out, connection, Effect::Unblocked);
            self.decide_held(connection, out);
        }
    }
}
