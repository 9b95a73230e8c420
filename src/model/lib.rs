//! The words that cross Understudy's boundaries; no behaviour beyond encode and decode.
//!
//! A session turns bytes into [`Request`]s; the broker decides them into [`Command`]s, which are
//! sealed into [`Group`]s; applying a committed group yields [`Effect`]s for sessions.

mod access;
mod codec;
mod command;
mod damage;
mod definition;
mod effect;
mod enqueue;
mod epoch;
mod features;
mod group;
mod ids;
mod message;
mod properties;
mod request;
mod session;
mod table;

pub use access::{ApplyTo, Change, Manage, PermissionRecord, PolicyRecord};
pub use codec::{Digest, Malformed, Reader, Writer};
pub use command::{Command, NewEpoch, SettleRanges};
pub use damage::{Damage, Place, Repair};
pub use definition::{BindTarget, Binding, ExchangeSpec, QueueSpec, UserRecord};
pub use effect::{Delivery, Effect, Refusal, RefusalKind, Reply, Returned};
pub use enqueue::{DeadLetterView, DelayView, EnqueueView, message_of};
pub use epoch::{EpochHistory, EpochStart};
pub use features::Features;
pub use group::{GROUP_HEADER_BYTES, Group, GroupError, GroupHeader, OpenGroup, RecordsHash};
pub use ids::{ConnectionId, ConsumerNumber, Epoch, Lsn, NodeId, QueueId, Token};
pub use message::{Body, MessageView};
pub use properties::{Properties, PropertiesView};
pub use request::{
    AckMode, Bind, Connect, Consume, ConsumeMode, Credit, DeclareExchange, DeclareQueue,
    DeleteExchange, DeleteQueue, DeliveryRef, Get, ProducerSequence, Protocol, Publish, PurgeQueue,
    Request, Transaction,
};
pub use session::{Login, LoginOutcome, Outbox, Session, WriteBuffer};
pub use table::{FieldView, TABLE_DEPTH_MAX, Table, Value, check_table_depth, fields, type_name};

/// The longest time that a message or an unused queue may live, milliseconds: RabbitMQ's ten years.
pub const TIME_TO_LIVE_MS_MAX: i64 = 10 * 365 * 24 * 3_600_000;

/// Names, keys and other short texts: UTF-8 in a shared buffer, so that a slice costs no copy.
pub use bytestring::ByteString as Text;
