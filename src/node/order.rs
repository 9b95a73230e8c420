//! The order of one connection's requests: what must wait for commits, or for room, and all that the
//! connection asked behind it. A part of the node, sans-io.

use super::{Node, Outputs, push_effect};
use crate::node::alarm::Room;
use std::collections::VecDeque;
use understudy_broker::{Decided, waits_for_own_commits};
use understudy_model::{ConnectionId, Lsn, Request};

/// Keeps one connection's requests in order.
#[derive(Default)]
pub(super) struct SessionOrder {
    /// Last command that this connection caused.
    pending: Lsn,
    /// Last change of topology among them.
    topology: Lsn,
    held: VecDeque<Request>,
    /// Its part of [`Node::held_bytes`].
    held_bytes: usize,
}

impl Node {
    pub(super) fn requests(
        &mut self,
        connection: ConnectionId,
        requests: Vec<Request>,
        out: &mut Outputs,
    ) {
        if !self.serving {
            return;
        }
        let session = self.sessions.entry(connection).or_default();
        if session.pending > self.broker.applied()
            && requests.iter().any(|request| matches!(request, Request::Publish(_)))
        {
            self.commit_delay.pipelined();
        }
        if !session.held.is_empty() {
            self.hold(connection, requests.into());
            return;
        }
        let mut requests = VecDeque::from(requests);
        self.decide_all(connection, &mut requests, out);
        self.hold(connection, requests);
    }

    /// Decides from the front until one has to wait; that one and all behind it stay.
    fn decide_all(
        &mut self,
        connection: ConnectionId,
        requests: &mut VecDeque<Request>,
        out: &mut Outputs,
    ) {
        while let Some(request) = requests.front() {
            let refusal = match self.room_for(connection, request, out) {
                Room::Enough => None,
                Room::Wait => return,
                Room::Refuse(refusal) => Some(refusal),
            };
            if let Some(until) = self.must_wait(connection, request) {
                self.inflight.wait(connection, until);
                return;
            }
            let start = self.inflight.open_effects.len();
            let mut decided = Decided {
                open: &mut self.inflight.open,
                effects: &mut self.inflight.open_effects,
                depends_on: Lsn::ZERO,
                topology: false,
            };
            let before = decided.open.next_lsn();
            let outcome = match refusal {
                None => self.broker.decide(connection, request, &mut decided),
                Some(refusal) => {
                    self.broker.refuse_to_store(connection, request, refusal, &mut decided);
                    Ok(())
                }
            };
            if let Err(wait) = outcome {
                self.inflight.wait(connection, wait.until);
                return;
            }
            let (depends_on, topology) = (decided.depends_on, decided.topology);
            let next = self.inflight.open.next_lsn();
            let Some(session) = self.sessions.get_mut(&connection) else { return };
            if next > before {
                session.pending = next.prev();
                if topology {
                    session.topology = session.pending;
                }
            }
            session.pending = session.pending.max(depends_on);
            let pending = session.pending;
            if !self.inflight.place_effects(start, pending) {
                let ready = self.inflight.open_effects.drain(start..);
                ready.for_each(|(connection, effect)| push_effect(out, connection, effect));
            }
            requests.pop_front();
        }
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        if let Some(session) = self.sessions.remove(&connection) {
            self.held_bytes -= session.held_bytes;
        }
        self.alarm.forget(connection);
        let mut decided = Decided {
            open: &mut self.inflight.open,
            effects: &mut self.inflight.open_effects,
            depends_on: Lsn::ZERO,
            topology: false,
        };
        self.broker.disconnect(connection, &mut decided);
    }

    pub(super) fn decide_held(&mut self, connection: ConnectionId, out: &mut Outputs) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let mut held = std::mem::take(&mut session.held);
        self.held_bytes -= std::mem::take(&mut session.held_bytes);
        self.decide_all(connection, &mut held, out);
        self.hold(connection, held);
    }

    /// Until when the request waits for what its connection caused before it.
    pub(super) fn must_wait(&self, connection: ConnectionId, request: &Request) -> Option<Lsn> {
        let session = self.sessions.get(&connection)?;
        let applied = self.broker.applied();
        if session.topology > applied {
            return Some(session.topology);
        }
        (session.pending > applied && waits_for_own_commits(request)).then_some(session.pending)
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
}

#[cfg(test)]
mod tests {
    use crate::node::AlarmPolicy;
    use crate::node::alone::{Alone, publish};
    use understudy_model::{
        Bind, ConsumerNumber, Effect, Get, Publish, Reply, Request, Text, Token,
    };

    const TOKEN: Token = Token(7);

    #[test]
    fn a_publish_waits_for_what_its_connection_has_just_bound() {
        let mut node = Alone::new(AlarmPolicy::Block, 0);
        let bind = Bind {
            token: TOKEN,
            source: Text::from_static("amq.topic"),
            destination: Text::from_static("q"),
            key: Text::from_static("news.#"),
            ..Bind::default()
        };
        let (exchange, routing_key) =
            (Text::from_static("amq.topic"), Text::from_static("news.today"));
        let publish = Publish { exchange, routing_key, mandatory: true, ..publish(1) };
        let told = node.ask([Request::Bind(bind), Request::Publish(publish)]);
        let bound = Effect::Reply { token: TOKEN, result: Ok(Reply::Done) };
        assert_eq!(told, [bound, Effect::Confirm { channel: 3, through: 1 }]);
        assert_eq!(node.ready(), 1);
    }

    #[test]
    fn a_get_finds_what_its_connection_has_just_published() {
        let mut node = Alone::new(AlarmPolicy::Block, 0);
        let get = Get { token: TOKEN, queue: Text::from_static("q"), ..Get::default() };
        let told = node.ask([Request::Publish(publish(1)), Request::Get(get)]);
        let [Effect::Confirm { through: 1, .. }, Effect::Got { token, delivery, remaining: 0 }] =
            &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((*token, delivery.consumer), (TOKEN, ConsumerNumber(0)));
    }
}
