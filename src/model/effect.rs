//! Effects: what a client may observe, told to its session after the cause is committed.

use crate::{
    Body, ConsumerNumber, Lsn, Malformed, MessageView, PropertiesView, QueueId, Table, Text, Token,
    Value, message_of,
};
use bytes::Bytes;

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Reply {
        token: Token,
        result: Result<Reply, Refusal>,
    },
    /// Every publish of the channel up to this number is committed, but for those that a `Nack`
    /// or `PublishRefused` named before.
    Confirm {
        channel: u16,
        through: u64,
    },
    /// This publish was not taken (a full queue that rejects).
    Nack {
        channel: u16,
        number: u64,
    },
    /// This publish was the client's mistake (no such exchange, …).
    PublishRefused {
        channel: u16,
        number: Option<u64>,
        refusal: Refusal,
    },
    /// A mandatory publish that no queue took. Precedes its confirm.
    Returned(Box<Returned>),
    Deliver(Delivery),
    /// Answer to a get: the message, and how many ready ones remain.
    Got {
        token: Token,
        delivery: Delivery,
        remaining: u32,
    },
    /// A browsing consumer has seen all that was in the queue, and gets nothing more.
    BrowseEnd {
        consumer: ConsumerNumber,
    },
    /// The broker ended the consumer: its queue is gone.
    Cancelled {
        consumer: ConsumerNumber,
    },
    /// Publishing is stopped until `Unblocked`: a resource runs out.
    Blocked {
        reason: Text,
        /// Publishes wait, and with them all that the client sends: it need not be read. Else
        /// they are refused.
        held: bool,
    },
    Unblocked,
    /// The roles are being exchanged: native clients of the new master connect there, URIs with
    /// commas between; empty: not known. `Close` follows.
    Moved {
        addresses: Text,
    },
    /// The node closes the connection: it stops, or it is no longer the master.
    Close {
        reason: Text,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Queue {
        name: Text,
        messages: u32,
        consumers: u32,
    },
    /// Deleted or purged, with the number of ready messages that went.
    Removed {
        messages: u32,
    },
    GetEmpty,
    /// The transaction of this id was committed before; nothing is done now.
    AlreadyCommitted,
}

/// A request that cannot be done, and whose mistake that is: always the client's. `text` is
/// what follows the code's name, e.g. `no queue 'q' in vhost '/'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub text: Text,
}

impl Refusal {
    pub fn new(kind: RefusalKind, text: impl Into<Text>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// The AMQP reply codes that the broker uses; other frontends map them to their own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    AccessRefused,
    NotFound,
    ResourceLocked,
    PreconditionFailed,
    CommandInvalid,
    ResourceError,
    NotAllowed,
    NotImplemented,
}

impl RefusalKind {
    /// Reply code and name (AMQP 0-9-1 section 1.3, constants).
    pub fn code(self) -> (u16, &'static str) {
        match self {
            Self::AccessRefused => (403, "ACCESS_REFUSED"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::ResourceLocked => (405, "RESOURCE_LOCKED"),
            Self::PreconditionFailed => (406, "PRECONDITION_FAILED"),
            Self::CommandInvalid => (503, "COMMAND_INVALID"),
            Self::ResourceError => (506, "RESOURCE_ERROR"),
            Self::NotAllowed => (530, "NOT_ALLOWED"),
            Self::NotImplemented => (540, "NOT_IMPLEMENTED"),
        }
    }

    /// Errors of AMQP's soft kind close the channel, the others the connection.
    pub fn closes_connection(self) -> bool {
        self.code().0 >= 500
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    pub channel: u16,
    /// 312 NO_ROUTE
    pub code: u16,
    pub text: Text,
    pub exchange: Text,
    pub routing_key: Text,
    pub properties: Bytes,
    pub body: Body,
}

/// One handing of one message to one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub consumer: ConsumerNumber,
    pub queue: QueueId,
    pub lsn: Lsn,
    pub redelivered: bool,
    /// How often it was returned, where the queue counts that.
    pub returns: u32,
    /// The whole `Enqueue` record, a slice of its group's buffer.
    pub record: Bytes,
}

impl Delivery {
    pub fn message(&self) -> Result<MessageView<'_>, Malformed> {
        message_of(&self.record)
    }

    /// The properties with the header `x-delivery-count`, if the message was returned and that is
    /// counted; else they are told as they are.
    pub fn counted_properties(&self, message: &MessageView<'_>) -> Option<Bytes> {
        if self.returns == 0 {
            return None;
        }
        let view = PropertiesView::decode(message.properties).ok()?;
        let headers = view.headers.and_then(|inside| Table::decode(inside).ok());
        let mut headers = headers.unwrap_or_default();
        headers.0.retain(|(name, _)| name != "x-delivery-count");
        headers.push("x-delivery-count", Value::I64(self.returns.into()));
        Some(view.with_headers(&headers))
    }

    /// A part of [`Self::record`] that shares its buffer.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.record.slice_ref(part)
    }
}
