//! The alarm for a store that runs out of room: publishers wait or are refused, everybody else goes
//! on, so that consumers make room. A part of the node, sans-io.

use super::{Node, Outputs, push_effect};
use std::collections::BTreeSet;
use understudy_model::{ConnectionId, Effect, Refusal, RefusalKind, Request, Text};
use understudy_replication::{DiskSpace, Input as BackendInput};

/// What becomes of a publish while the alarm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmPolicy {
    /// It waits, and all that its connection sends behind it.
    Block,
    /// It is refused.
    Reject,
}

pub(crate) struct Alarm {
    policy: AlarmPolicy,
    /// On the own disk.
    pub(crate) low_space: bool,
    /// On the disk of the slave that commits wait for.
    slave_low: bool,
    /// Connections that wanted to publish, and were told that they cannot.
    told: BTreeSet<ConnectionId>,
}

/// Whether there is room for what a request stores.
pub(crate) enum Room {
    Enough,
    Wait,
    Refuse(Refusal),
}

impl Alarm {
    pub(crate) fn new(policy: AlarmPolicy) -> Self {
        Self { policy, low_space: false, slave_low: false, told: BTreeSet::new() }
    }

    fn room_for(&self, request: &Request) -> Room {
        let fills = match request {
            Request::Publish(_) => true,
            Request::Transaction(transaction) => !transaction.publishes.is_empty(),
            _ => false,
        };
        match self.policy {
            _ if !fills || !self.is_raised() => Room::Enough,
            AlarmPolicy::Block => Room::Wait,
            AlarmPolicy::Reject => {
                let who = if self.low_space { "node" } else { "slave" };
                let text = format!("the {who} is low on disk");
                Room::Refuse(Refusal::new(RefusalKind::PreconditionFailed, text))
            }
        }
    }

    pub(super) fn is_waiting(&self, connection: ConnectionId) -> bool {
        self.policy == AlarmPolicy::Block && self.told.contains(&connection)
    }

    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.told.remove(&connection);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.low_space || self.slave_low
    }

    /// If the alarm is over: who may go on.
    fn take_told(&mut self) -> BTreeSet<ConnectionId> {
        if self.is_raised() { BTreeSet::new() } else { std::mem::take(&mut self.told) }
    }

    pub(crate) fn forget_clients(&mut self) {
        // Told by the backend of the mastership that begins, if it is so.
        self.slave_low = false;
        self.told.clear();
    }
}

impl Node {
    /// Publishers wait for room in the store.
    pub fn is_low_on_space(&self) -> bool {
        self.alarm.is_raised()
    }

    /// Whether there is room for the request; if not, its client is told once.
    pub(super) fn room_for(
        &mut self,
        connection: ConnectionId,
        request: &Request,
        out: &mut Outputs,
    ) -> Room {
        let room = self.alarm.room_for(request);
        if !matches!(room, Room::Enough) && self.alarm.told.insert(connection) {
            let held = matches!(room, Room::Wait);
            let reason = Text::from_static("low on disk");
            push_effect(out, connection, Effect::Blocked { reason, held });
        }
        room
    }

    pub(super) fn space(&mut self, now_ms: u64, left: DiskSpace, out: &mut Outputs) {
        self.alarm.low_space = left != DiskSpace::Enough;
        self.backend_input(now_ms, BackendInput::Space { left }, out);
        self.let_go_on(out);
    }

    pub(super) fn slave_space(&mut self, low: bool, out: &mut Outputs) {
        self.alarm.slave_low = low;
        self.let_go_on(out);
    }

    fn let_go_on(&mut self, out: &mut Outputs) {
        for connection in self.alarm.take_told() {
            push_effect(out, connection, Effect::Unblocked);
            self.decide_held(connection, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Input;
    use crate::node::alone::{Alone, publish};
    use understudy_model::{Publish, Token, Transaction};

    fn transaction() -> Request {
        let publishes = vec![Publish { confirm: None, ..publish(0) }; 2];
        let transaction = Transaction { token: Token(5), publishes, ..Transaction::default() };
        Request::Transaction(Box::new(transaction))
    }

    fn blocked(held: bool) -> Effect {
        Effect::Blocked { reason: Text::from_static("low on disk"), held }
    }

    fn done(token: u64) -> Effect {
        Effect::Reply { token: Token(token), result: Ok(understudy_model::Reply::Done) }
    }

    const CONFIRMED: Effect = Effect::Confirm { channel: 3, through: 1 };

    #[test]
    fn a_publisher_waits_for_the_end_of_the_alarm() {
        let mut node = Alone::new(AlarmPolicy::Block, 0);
        node.turn(Input::Space { left: DiskSpace::Low });
        let barrier = Request::Barrier { token: Token(6) };
        let told = node.ask([Request::Publish(publish(1)), transaction(), barrier]);
        assert_eq!((told, node.ready()), (vec![blocked(true)], 0));
        let told = node.turn(Input::Space { left: DiskSpace::Enough });
        assert_eq!(told, [Effect::Unblocked, CONFIRMED, done(5), done(6)]);
        assert_eq!(node.ready(), 3);
    }

    #[test]
    fn a_publisher_waits_for_room_on_the_slave_too() {
        let mut node = Alone::new(AlarmPolicy::Block, 0);
        node.node.slave_space(true, &mut Outputs::default());
        assert!(node.node.is_low_on_space());
        assert_eq!(node.ask([Request::Publish(publish(1))]), [blocked(true)]);
        let mut out = Outputs::default();
        node.node.slave_space(false, &mut out);
        assert_eq!(out.effects.into_values().collect::<Vec<_>>(), [[Effect::Unblocked]]);
        assert_eq!(node.turn(Input::Tick), [CONFIRMED]);
    }

    #[test]
    fn a_publisher_is_refused_while_the_alarm_stands_and_all_else_goes_on() {
        let mut node = Alone::new(AlarmPolicy::Reject, 0);
        let first = node.ask([Request::Publish(publish(1))]);
        assert_eq!(first, [CONFIRMED]);
        node.turn(Input::Space { left: DiskSpace::Low });
        let refusal = Refusal::new(RefusalKind::PreconditionFailed, "the node is low on disk");
        let refused = |number| {
            let (number, refusal) = (Some(number), refusal.clone());
            Effect::PublishRefused { channel: 3, number, refusal }
        };
        let settles_only = Transaction { token: Token(6), ..Transaction::default() };
        let told = node.ask([
            Request::Publish(publish(2)),
            transaction(),
            Request::Transaction(Box::new(settles_only)),
            Request::Publish(publish(3)),
            Request::Barrier { token: Token(7) },
        ]);
        let whole = Effect::Reply { token: Token(5), result: Err(refusal.clone()) };
        assert_eq!(told, [blocked(false), refused(2), whole, done(6), refused(3), done(7)]);
        assert_eq!((node.ready(), node.node.inflight_bytes()), (1, 0));
        assert_eq!(node.turn(Input::Space { left: DiskSpace::Enough }), [Effect::Unblocked]);
        let last = node.ask([Request::Publish(publish(4))]);
        assert_eq!((last, node.ready()), (vec![Effect::Confirm { channel: 3, through: 4 }], 2));
    }
}
