//! Requests: what a session asks of the broker on its client's behalf.
//!
//! Requests of one connection are decided in the order in which they were sent. A request that
//! carries a `token` is answered by exactly one [`crate::Effect::Reply`] (or `Got`) with that
//! token, after its cause is committed.

use crate::{Body, ConsumerNumber, Lsn, Manage, QueueId, Text, Token};
use bytes::Bytes;

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// First request of a connection, after its login was accepted.
    Connect(Connect),
    Publish(Publish),
    /// Publishes and settles as one: all or nothing, on both nodes.
    Transaction(Box<Transaction>),
    /// Was the transaction of this id committed? [`Reply::AlreadyCommitted`](crate::Reply), or
    /// refused as not found; then it never will be.
    Outcome {
        token: Token,
        commit: ProducerSequence,
    },
    DeclareQueue(DeclareQueue),
    DeleteQueue(DeleteQueue),
    PurgeQueue(PurgeQueue),
    DeclareExchange(DeclareExchange),
    DeleteExchange(DeleteExchange),
    Bind(Bind),
    Unbind(Bind),
    Consume(Consume),
    /// The consumer gets nothing more; its outstanding deliveries stay until settled or returned.
    Cancel {
        token: Token,
        consumer: ConsumerNumber,
    },
    /// Raises the credit of a consumer with [`Credit::Window`].
    AddCredit {
        consumer: ConsumerNumber,
        credit: u32,
    },
    /// At most `limit` outstanding deliveries for all consumers of the channel together; 0: no
    /// limit. AMQP `basic.qos` with `global`.
    ChannelPrefetch {
        channel: u16,
        limit: u32,
    },
    Get(Get),
    /// Finished for good: acked. With a token: answered when committed.
    Settle {
        deliveries: Vec<DeliveryRef>,
        token: Option<Token>,
    },
    /// Finished without success: rejected without requeue. Dead-lettered where the queue says so.
    Discard {
        deliveries: Vec<DeliveryRef>,
        token: Option<Token>,
    },
    /// Given back, to be handed out again from their old place, flagged redelivered.
    Return {
        deliveries: Vec<DeliveryRef>,
        token: Option<Token>,
    },
    /// Answered when everything this connection asked before is committed.
    Barrier {
        token: Token,
    },
    /// Users, vhosts, permissions, policies. No client protocol makes it.
    Manage(Box<Manage>),
}

impl Request {
    /// Roughly what it holds in memory.
    pub fn held_bytes(&self) -> usize {
        let publish = |publish: &Publish| publish.body.len() + publish.properties.len();
        let contents = match self {
            Self::Publish(one) => publish(one),
            Self::Transaction(transaction) => {
                let each = |one| publish(one) + size_of::<Publish>();
                transaction.publishes.iter().map(each).sum()
            }
            _ => 0,
        };
        size_of::<Self>() + contents
    }
}

/// The frontend a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Amqp,
    Stomp,
    Native,
    /// The management interface, for one request: not listed among the connections.
    Management,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    pub token: Token,
    pub protocol: Protocol,
    pub vhost: Text,
    /// Taken if there is no `vhost`.
    pub vhost_else: Option<Text>,
    /// Empty from the management interface of this machine only: nothing is refused to it.
    pub user: Text,
    /// What the client calls itself; empty if it does not say.
    pub client_name: Text,
    /// A new connection of a producer ends its former one: what that one sent and the broker has
    /// not decided yet is never done. So what a client learns on the new one is final.
    pub producer: Option<u128>,
}

/// Identity of a publish for de-duplication: a producer's sequence numbers rise by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProducerSequence {
    /// Random, chosen by the client once.
    pub producer: u128,
    /// From 1. A number at or below the last stored one is confirmed and not stored again.
    pub sequence: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    pub exchange: Text,
    pub routing_key: Text,
    /// Raw AMQP property flags and list, checked by the session with `PropertiesView::decode`.
    pub properties: Bytes,
    pub body: Body,
    /// The session's channel, for confirms, returns and refusals.
    pub channel: u16,
    /// The publish's number on its channel, if it is to be confirmed. Rises by one.
    pub confirm: Option<u64>,
    /// Hand the message back if no queue takes it.
    pub mandatory: bool,
    /// On the default exchange: declare the queue named by the routing key, durable, if missing.
    pub declare_missing: bool,
    pub producer: Option<ProducerSequence>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    pub token: Token,
    /// Under this id it is remembered that it is committed, and not done again.
    pub commit: Option<ProducerSequence>,
    pub publishes: Vec<Publish>,
    pub settles: Vec<DeliveryRef>,
    pub discards: Vec<DeliveryRef>,
    pub returns: Vec<DeliveryRef>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclareQueue {
    pub token: Token,
    /// Empty: the broker makes a name, `server_named_prefix` and a unique ending.
    pub name: Text,
    pub server_named_prefix: Text,
    /// The frontend made the name itself: it may begin with a reserved prefix.
    pub named_by_frontend: bool,
    /// Only ask whether it is there.
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    /// Inside of an AMQP field table, its nesting checked.
    pub arguments: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteQueue {
    pub token: Token,
    pub name: Text,
    pub if_unused: bool,
    pub if_empty: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PurgeQueue {
    pub token: Token,
    pub name: Text,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclareExchange {
    pub token: Token,
    pub name: Text,
    pub kind: Text,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteExchange {
    pub token: Token,
    pub name: Text,
    pub if_unused: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind {
    pub token: Token,
    pub source: Text,
    /// Name of a queue, or of an exchange if `to_exchange`.
    pub destination: Text,
    pub to_exchange: bool,
    pub key: Text,
    pub arguments: Bytes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// Settled by being handed out.
    Auto,
    #[default]
    Manual,
}

/// How many deliveries a consumer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// At most so many outstanding; a settle or return gives one back. 0: no limit. Not counted
    /// for [`AckMode::Auto`].
    Prefetch(u32),
    /// So many in all; raised only by [`Request::AddCredit`].
    Window(u32),
}

impl Default for Credit {
    fn default() -> Self {
        Self::Prefetch(0)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consume {
    pub token: Token,
    /// The session's number for the consumer, fresh for the connection. Deliveries carry it, and
    /// they may follow the reply at once.
    pub consumer: ConsumerNumber,
    pub channel: u16,
    pub queue: Text,
    pub ack: AckMode,
    pub exclusive: bool,
    /// Higher is served first while it has credit.
    pub priority: i32,
    pub credit: Credit,
    /// Only messages for which this holds, in JMS's selector language. Empty: all.
    pub selector: Text,
    pub mode: ConsumeMode,
}

/// What a consumer does to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeMode {
    /// Takes what it gets; what its selector refuses stays for others.
    #[default]
    Take,
    /// Takes what it gets; what the selectors of all its consumers refuse leaves the queue.
    Filter,
    /// Gets copies of what is in the queue now, in order of arrival, and then
    /// [`crate::Effect::BrowseEnd`]. Takes nothing; credit and priority do not matter.
    Browse,
}

/// Take one message. Answered by `Effect::Got` or by `Reply::GetEmpty`, or refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Get {
    pub token: Token,
    pub queue: Text,
    pub ack: AckMode,
    /// The delivery is outstanding under this number, see [`DeliveryRef`]; it needs no consumer,
    /// and may be used for any number of gets.
    pub consumer: ConsumerNumber,
}

/// Which delivery a settle, discard or return means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRef {
    pub consumer: ConsumerNumber,
    pub queue: QueueId,
    pub lsn: Lsn,
}
