//! Clients as the field has them: they publish with confirms and send again what was not
//! confirmed; they consume with a prefetch and settle; they come back after a lost connection.

use crate::checks::Checks;
use crate::world::Side;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use understudy_model::{
    AckMode, Bind, Body, Connect, ConnectionId, Consume, ConsumerNumber, Credit, DeclareExchange,
    DeclareQueue, DeliveryRef, Effect, ProducerSequence, Properties, Protocol, Publish, Request,
    Table, Text, Token, Value,
};

const QUEUE: &str = "orders";

#[derive(Clone, Copy, Debug)]
pub enum ClientKind {
    /// `messages` in all; with `dedup`, each carries its producer sequence.
    Publisher { messages: u64, dedup: bool, by: Way },
    /// Settles each message; every third settle asks for a receipt.
    Consumer { prefetch: u32 },
}

/// How a publisher's messages come into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Straight,
    /// They expire in another queue and are dead-lettered.
    DeadLetter,
    /// An exchange holds them back.
    Delayed,
}

const WAITING_ROOM: &str = "waiting-room";
const LATER: &str = "later";
/// Long enough for a crash to come in between.
const WAIT_MS: i32 = 40;

fn table(entries: &[(&str, Value)]) -> Bytes {
    let mut table = Table::default();
    entries.iter().for_each(|(name, value)| table.push(name, value.clone()));
    table.to_bytes()
}

impl Way {
    /// What must be there for it.
    fn declarations(self) -> Vec<Request> {
        match self {
            Self::Straight => vec![],
            Self::DeadLetter => vec![Request::DeclareQueue(DeclareQueue {
                token: Token(4),
                name: Text::from_static(WAITING_ROOM),
                durable: true,
                arguments: table(&[
                    ("x-message-ttl", Value::I32(WAIT_MS)),
                    ("x-dead-letter-exchange", Value::text("")),
                    ("x-dead-letter-routing-key", Value::text(QUEUE)),
                ]),
                ..DeclareQueue::default()
            })],
            Self::Delayed => vec![
                Request::DeclareExchange(DeclareExchange {
                    token: Token(5),
                    name: Text::from_static(LATER),
                    kind: Text::from_static("x-delayed-message"),
                    durable: true,
                    arguments: table(&[("x-delayed-type", Value::text("fanout"))]),
                    ..DeclareExchange::default()
                }),
                Request::Bind(Bind {
                    token: Token(6),
                    source: Text::from_static(LATER),
                    destination: Text::from_static(QUEUE),
                    ..Bind::default()
                }),
            ],
        }
    }

    /// Exchange, routing key and properties of a publish.
    fn address(self) -> (Text, Text, Bytes) {
        let text = Text::from_static;
        match self {
            Self::Straight => (text(""), text(QUEUE), Properties::default().to_bytes()),
            Self::DeadLetter => (text(""), text(WAITING_ROOM), Properties::default().to_bytes()),
            Self::Delayed => {
                let mut headers = Table::default();
                headers.push("x-delay", Value::I32(WAIT_MS));
                let headers = Some(headers);
                (text(LATER), text(""), Properties { headers, ..Properties::default() }.to_bytes())
            }
        }
    }
}

pub struct Client {
    id: usize,
    pub kind: ClientKind,
    pub(crate) connection: Option<(Side, ConnectionId)>,
    pub(crate) life: u64,
    /// When the last of what was sent to this client arrives.
    pub(crate) arrives_ms: u64,
    published: u64,
    /// Message numbers by the connection's confirm number.
    unconfirmed: VecDeque<(u64, u64)>,
    next_confirm: u64,
    pub confirmed: u64,
    /// Settles that wait for their receipt.
    receipts: BTreeMap<Token, String>,
    next_token: u64,
    outstanding: u32,
}

impl Client {
    pub(crate) fn new(id: usize, kind: ClientKind) -> Self {
        Self {
            id,
            kind,
            connection: None,
            life: 0,
            arrives_ms: 0,
            published: 0,
            unconfirmed: VecDeque::new(),
            next_confirm: 1,
            confirmed: 0,
            receipts: BTreeMap::new(),
            next_token: 10,
            outstanding: 0,
        }
    }

    pub fn is_done(&self) -> bool {
        match self.kind {
            ClientKind::Publisher { messages, .. } => self.confirmed == messages,
            ClientKind::Consumer { .. } => true,
        }
    }

    /// A publisher that has not got all its confirms.
    pub(crate) fn waits(&self) -> bool {
        self.connection.is_some() && !self.unconfirmed.is_empty()
    }

    pub(crate) fn wants_wake(&self) -> bool {
        match self.kind {
            ClientKind::Publisher { messages, .. } => self.published < messages,
            ClientKind::Consumer { .. } => false,
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.connection = None;
        self.life += 1;
        self.receipts.clear();
        self.outstanding = 0;
    }

    pub(crate) fn connected(
        &mut self,
        side: Side,
        connection: ConnectionId,
        checks: &mut Checks,
    ) -> Vec<Request> {
        self.connection = Some((side, connection));
        self.life += 1;
        let mut requests = vec![
            Request::Connect(Connect {
                token: Token(1),
                protocol: Protocol::Native,
                vhost: Text::from_static("/"),
                vhost_else: None,
                user: Text::from_static("guest"),
                client_name: Text::new(),
                producer: None,
            }),
            Request::DeclareQueue(DeclareQueue {
                token: Token(2),
                name: Text::from_static(QUEUE),
                durable: true,
                ..DeclareQueue::default()
            }),
        ];
        match self.kind {
            ClientKind::Publisher { dedup, by, .. } => {
                requests.extend(by.declarations());
                self.next_confirm = 1;
                let again: Vec<u64> = self.unconfirmed.drain(..).map(|(_, n)| n).collect();
                if !dedup {
                    again.iter().for_each(|n| checks.resent(self.body(*n)));
                }
                requests.extend(again.into_iter().map(|n| self.publish(n)));
            }
            ClientKind::Consumer { prefetch } => requests.push(Request::Consume(Consume {
                token: Token(3),
                consumer: ConsumerNumber(1),
                channel: 0,
                queue: Text::from_static(QUEUE),
                ack: AckMode::Manual,
                exclusive: false,
                priority: 0,
                credit: Credit::Prefetch(prefetch),
                ..Consume::default()
            })),
        }
        requests
    }

    fn publish(&mut self, number: u64) -> Request {
        let confirm = self.next_confirm;
        self.next_confirm += 1;
        self.unconfirmed.push_back((confirm, number));
        let (dedup, by) = match self.kind {
            ClientKind::Publisher { dedup, by, .. } => (dedup, by),
            ClientKind::Consumer { .. } => (false, Way::Straight),
        };
        let (exchange, routing_key, properties) = by.address();
        let producer =
            dedup.then_some(ProducerSequence { producer: self.id as u128 + 1, sequence: number });
        Request::Publish(Publish {
            exchange,
            routing_key,
            properties,
            body: Body::from(Bytes::from(self.body(number))),
            confirm: Some(confirm),
            producer,
            ..Publish::default()
        })
    }

    fn body(&self, number: u64) -> String {
        format!("{}-{number}", self.id)
    }

    /// A publisher sends some more.
    pub(crate) fn more(&mut self, burst: u64, checks: &mut Checks) -> Vec<Request> {
        let ClientKind::Publisher { messages, .. } = self.kind else { return Vec::new() };
        let count = burst.min(messages - self.published);
        (0..count)
            .map(|_| {
                self.published += 1;
                checks.sent(self.body(self.published));
                self.publish(self.published)
            })
            .collect()
    }

    pub(crate) fn on_effects(&mut self, effects: Vec<Effect>, checks: &mut Checks) -> Vec<Request> {
        let mut requests = Vec::new();
        for effect in effects {
            match effect {
                Effect::Confirm { through, .. } => self.on_confirm(through, checks),
                Effect::Deliver(delivery) => {
                    let ClientKind::Consumer { prefetch } = self.kind else { continue };
                    self.outstanding += 1;
                    checks.outstanding(self.outstanding, prefetch);
                    let body = delivery.message().map(|m| m.body.to_vec()).unwrap_or_default();
                    let body = String::from_utf8_lossy(&body).into_owned();
                    checks.received(&body, delivery.redelivered);
                    self.outstanding -= 1;
                    let deliveries = vec![DeliveryRef {
                        consumer: delivery.consumer,
                        queue: delivery.queue,
                        lsn: delivery.lsn,
                    }];
                    let token = (delivery.lsn.0 % 3 == 0).then(|| self.receipt(body));
                    // Some go back once, so that returns are exercised, too.
                    requests.push(if delivery.lsn.0 % 11 == 0 && !delivery.redelivered {
                        Request::Return { deliveries, token: None }
                    } else {
                        Request::Settle { deliveries, token }
                    });
                }
                Effect::Reply { token, result } => {
                    assert!(result.is_ok(), "{result:?}");
                    if let Some(body) = self.receipts.remove(&token) {
                        checks.settled(body);
                    }
                }
                Effect::Blocked { .. } | Effect::Unblocked => {}
                other => panic!("a client of the simulation got {other:?}"),
            }
        }
        requests
    }

    fn receipt(&mut self, body: String) -> Token {
        self.next_token += 1;
        self.receipts.insert(Token(self.next_token), body);
        Token(self.next_token)
    }

    fn on_confirm(&mut self, through: u64, checks: &mut Checks) {
        while self.unconfirmed.front().is_some_and(|(confirm, _)| *confirm <= through) {
            if let Some((_, number)) = self.unconfirmed.pop_front() {
                self.confirmed += 1;
                checks.confirmed(self.body(number));
            }
        }
    }
}
