//! The frames, declared once: the same list yields the types, the encoder and the decoder.
//!
//! Request numbers are the client's own, from 1; a frame with `request` 0 wants no answer.
//! Requests are answered by [`Ok`](Frame::Done), `QueueOk`, `Removed`, `GetEmpty`, `Got` or
//! `Refused`. `arguments` are the inside of an AMQP field table, `properties` a raw AMQP block.

use crate::field::{Field, FrameReader, PublishFlags};
use bytes::Bytes;
use understudy_model::{AckMode, Malformed, Text, WriteBuffer};

/// A type made of fields that lie behind one another.
macro_rules! fields {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Field for $name {
            fn size(&self) -> usize {
                0 $(+ self.$field.size())*
            }
            fn put(&self, _out: &mut WriteBuffer) {
                $(self.$field.put(_out);)*
            }
            fn take(_from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
                Ok(Self { $($field: Field::take(_from)?,)* })
            }
        }
    };
}

macro_rules! frames {
    ($($(#[$doc:meta])* $kind:literal $name:ident $fields:tt)*) => {
        $(fields!($(#[$doc])* $name $fields);)*

        /// One frame, from either side.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame {
            $($(#[$doc])* $name($name),)*
        }

        $(impl From<$name> for Frame {
            fn from(frame: $name) -> Self {
                Self::$name(frame)
            }
        })*

        impl Frame {
            /// The byte that stands behind the length.
            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $kind,)*
                }
            }

            pub(crate) fn fields_size(&self) -> usize {
                match self {
                    $(Self::$name(fields) => fields.size(),)*
                }
            }

            pub(crate) fn put_fields(&self, out: &mut WriteBuffer) {
                match self {
                    $(Self::$name(fields) => fields.put(out),)*
                }
            }

            pub(crate) fn take_fields(
                kind: u8,
                from: &mut FrameReader<'_>,
            ) -> Result<Self, Malformed> {
                match kind {
                    $($kind => Field::take(from).map(Self::$name),)*
                    _ => Err(Malformed("frame: unknown kind")),
                }
            }
        }
    };
}

fields! {
    /// Deliveries of one consumer from one queue.
    Deliveries {
        /// 0 for what a get brought.
        consumer: u32,
        queue: u64,
        lsns: Vec<u64>,
    }
}

frames! {
    /// The client introduces itself.
    0x01 Hello {
        client_name: Text,
        /// Random; the same on every connection of one client object, which has one at a time.
        /// 0: none.
        producer: u128,
        /// What the client wishes; 0: no wish.
        heartbeat_ms: u64,
    }
    0x02 HelloOk {
        node_name: Text,
        /// The broker's version, to be shown to people.
        version: Text,
        frame_bytes_max: u64,
        message_bytes_max: u64,
        /// What both sides keep to; 0: none.
        heartbeat_ms: u64,
    }
    0x03 Login { user: Text, password: Bytes, }
    0x04 LoginOk { user: Text, }
    /// Enters a vhost. Nothing but this frame's answer may be awaited before it is there.
    0x05 Open { request: u64, vhost: Text, }
    /// Sent when nothing else was sent for half a heartbeat. Answered by `Pong` with its number.
    0x06 Ping { number: u64, }
    0x07 Pong { number: u64, }
    /// The sender closes the connection in order.
    0x08 Goodbye { reason: Text, }
    /// The sender closes the connection because the other side made a mistake.
    0x09 Error { code: u16, text: Text, }

    0x10 DeclareQueue {
        request: u64,
        /// Empty: the broker makes a name.
        name: Text,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Bytes,
    }
    0x11 DeleteQueue { request: u64, name: Text, if_unused: bool, if_empty: bool, }
    0x12 PurgeQueue { request: u64, name: Text, }
    0x13 DeclareExchange {
        request: u64,
        name: Text,
        kind: Text,
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Bytes,
    }
    0x14 DeleteExchange { request: u64, name: Text, if_unused: bool, }
    0x15 Bind {
        request: u64,
        source: Text,
        destination: Text,
        to_exchange: bool,
        key: Text,
        arguments: Bytes,
    }
    0x16 Unbind {
        request: u64,
        source: Text,
        destination: Text,
        to_exchange: bool,
        key: Text,
        arguments: Bytes,
    }

    0x20 Publish {
        /// Rises, at least by one, over all publishes of a connection; from 1.
        sequence: u64,
        flags: PublishFlags,
        exchange: Text,
        routing_key: Text,
        properties: Bytes,
        body: Bytes,
    }
    /// Publishes and settles, all or nothing. Answered by `Done` or `AlreadyCommitted`; its
    /// publishes are not confirmed singly, whatever their flags say.
    0x21 Transaction {
        request: u64,
        /// Rises over all transactions of a producer; 0: it is not remembered.
        commit: u64,
        publishes: Vec<Publish>,
        settles: Vec<Deliveries>,
        discards: Vec<Deliveries>,
        returns: Vec<Deliveries>,
    }

    /// Was the transaction of this number committed? Answered by `AlreadyCommitted`, or by
    /// `Refused` 404: then it never will be.
    0x22 Outcome { request: u64, commit: u64, }

    0x30 Consume {
        request: u64,
        /// The client's number for the consumer: from 1, rising over the connection.
        consumer: u32,
        queue: Text,
        ack: AckMode,
        exclusive: bool,
        priority: i32,
        /// False: at most `credit` deliveries unsettled (0: no limit). True: `credit` deliveries
        /// in all, raised by `Credit` frames.
        windowed: bool,
        credit: u32,
    }
    0x31 Cancel { request: u64, consumer: u32, }
    0x32 Credit { consumer: u32, credit: u32, }
    0x33 Get { request: u64, queue: Text, ack: AckMode, }
    /// Finished for good.
    0x34 Settle { request: u64, deliveries: Deliveries, }
    /// Finished without success: dead-lettered where the queue says so.
    0x35 Discard { request: u64, deliveries: Deliveries, }
    /// Given back, to be handed out again.
    0x36 Return { request: u64, deliveries: Deliveries, }

    0x40 Done { request: u64, }
    0x41 QueueOk { request: u64, name: Text, messages: u32, consumers: u32, }
    0x42 Removed { request: u64, messages: u32, }
    0x43 GetEmpty { request: u64, }
    0x44 Got {
        request: u64,
        /// How many ready messages remain.
        remaining: u32,
        delivery: Deliver,
    }
    0x45 Refused { request: u64, code: u16, text: Text, }
    0x46 AlreadyCommitted { request: u64, }

    /// Every publish with `confirm` up to this sequence is committed, but for those that a
    /// `Nack` or `PublishRefused` named.
    0x50 Confirm { through: u64, }
    /// Not taken: a full queue that rejects.
    0x51 Nack { sequence: u64, }
    /// The client's mistake. Sequence 0: of a publish that was not to be confirmed.
    0x52 PublishRefused { sequence: u64, code: u16, text: Text, }
    /// A mandatory publish that no queue took. Precedes its confirm.
    0x53 Returned {
        code: u16,
        text: Text,
        exchange: Text,
        routing_key: Text,
        properties: Bytes,
        body: Bytes,
    }
    0x54 Deliver {
        consumer: u32,
        queue: u64,
        lsn: u64,
        redelivered: bool,
        exchange: Text,
        routing_key: Text,
        properties: Bytes,
        body: Bytes,
    }
    /// The broker ended the consumer: its queue is gone.
    0x55 Cancelled { consumer: u32, }
    /// Publishing is stopped until `Unblocked`.
    0x56 Blocked { reason: Text, }
    0x57 Unblocked {}
    /// The roles are being exchanged: the new master is there, as URIs with commas between;
    /// empty: not known. The connection ends.
    0x58 Moved { addresses: Text, }
}
