//! How clients come to the nodes.

use super::{Event, Side, World};
use understudy::node::{Input, Node};
use understudy_model::{ConnectionId, Request};

impl World {
    pub(super) fn drop_clients(&mut self, side: Side) {
        for client in 0..self.clients.len() {
            if let Some((_, connection)) = self.clients[client].connection.filter(|c| c.0 == side) {
                self.clients[client].disconnected();
                // The node may go on serving: a switchover that is abandoned.
                self.tell_node(side, 2, Input::Closed { connection });
                let delay = 1 + self.roll(20);
                self.at(delay, Event::ClientWake { client });
            }
        }
    }

    /// A client without a connection tries to have one; one with a connection may publish.
    pub(super) fn wake_client(&mut self, client: usize) {
        if self.clients[client].connection.is_none() {
            let open: Vec<Side> = Side::BOTH
                .into_iter()
                .filter(|side| self.node(*side).is_some_and(Node::is_serving))
                .collect();
            if open.is_empty() {
                return self.at(10, Event::ClientWake { client });
            }
            let side = open[self.roll(open.len() as u64) as usize];
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let requests = self.clients[client].connected(side, connection, &mut self.checks);
            self.send_requests(client, requests);
        }
        let burst = 1 + self.roll(4);
        let requests = self.clients[client].more(burst, &mut self.checks);
        self.send_requests(client, requests);
        let pause = 1 + self.roll(self.options.pace_ms_max);
        if self.clients[client].wants_wake() {
            self.at(pause, Event::ClientWake { client });
        }
    }

    pub(super) fn send_requests(&mut self, client: usize, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        if let Some((side, connection)) = self.clients[client].connection {
            // A client's socket is a stream: equal delays keep its requests in order.
            self.tell_node(side, 2, Input::Requests { connection, requests });
        }
    }

    /// The client's connection breaks without a word.
    pub fn drop_client(&mut self, client: usize) {
        if let Some((side, connection)) = self.clients[client].connection {
            self.clients[client].disconnected();
            self.tell_node(side, 2, Input::Closed { connection });
            self.at(5, Event::ClientWake { client });
        }
    }
}
