//! The records that hold a message: one that was published, or one that moves on by a rule.

use crate::codec::varint_len;
use crate::command::{DEAD_LETTER, DELAY, ENQUEUE, ENQUEUE_AGAIN};
use crate::{
    Lsn, Malformed, MessageView, ProducerSequence, Publish, QueueId, Reader, Text, Writer,
};
use bytes::{BufMut, BytesMut};

/// A message enters queues. The body lies once, however many they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnqueueView<'a> {
    queues: QueueList<'a>,
    pub producer: Option<ProducerSequence>,
    /// It may have been handed out before, by the other side of a partition.
    pub redelivered: bool,
    pub message: MessageView<'a>,
}

/// The encoded queue ids. Their length in bytes stands before them: each of a hundred consumers
/// needs the message, and none of them the list.
#[derive(Clone, Copy, Debug, PartialEq)]
struct QueueList<'a>(&'a [u8]);

impl<'a> QueueList<'a> {
    fn encode(queues: &[QueueId], w: &mut Writer<'_>) {
        w.varint(queues.iter().map(|queue| varint_len(queue.0.0) as u64).sum());
        for queue in queues {
            w.varint(queue.0.0);
        }
    }

    fn check(self) -> Result<(), Malformed> {
        let mut reader = Reader(self.0);
        while !reader.0.is_empty() {
            reader.varint()?;
        }
        Ok(())
    }
}

impl<'a> EnqueueView<'a> {
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + 'a {
        let mut reader = Reader(self.queues.0);
        std::iter::from_fn(move || reader.varint().ok().map(|id| QueueId(Lsn(id))))
    }

    /// Appends the record of a message that enters `queues`. The hot path: no temporary buffer.
    pub fn encode(queues: &[QueueId], publish: &Publish, out: &mut BytesMut) {
        out.put_u8(ENQUEUE);
        Self::encode_inside(queues, publish, out);
    }

    fn encode_inside(queues: &[QueueId], publish: &Publish, out: &mut BytesMut) {
        let text = publish.exchange.len() + publish.routing_key.len() + publish.properties.len();
        out.reserve(64 + queues.len() * 10 + text + publish.body.len());
        let mut w = Writer(out);
        QueueList::encode(queues, &mut w);
        match publish.producer {
            None => w.u8(0),
            Some(ProducerSequence { producer, sequence }) => {
                w.u8(1);
                w.u128(producer);
                w.varint(sequence);
            }
        }
        w.text(&publish.exchange);
        w.text(&publish.routing_key);
        w.bytes(&publish.properties);
        for piece in publish.body.pieces() {
            out.put_slice(piece);
        }
    }

    /// Appends the record of a message that the other side of a partition had stored.
    pub fn encode_again(
        queues: &[QueueId],
        producer: ProducerSequence,
        message: &MessageView<'_>,
        out: &mut BytesMut,
    ) {
        out.put_u8(ENQUEUE_AGAIN);
        Self::encode_copy(queues, producer, message, out);
    }

    fn encode_copy(
        queues: &[QueueId],
        producer: ProducerSequence,
        message: &MessageView<'_>,
        out: &mut BytesMut,
    ) {
        let mut w = Writer(out);
        QueueList::encode(queues, &mut w);
        w.u8(1);
        w.u128(producer.producer);
        w.varint(producer.sequence);
        w.bytes(message.exchange.as_bytes());
        w.bytes(message.routing_key.as_bytes());
        w.bytes(message.properties);
        out.put_slice(message.body);
    }

    pub(crate) fn decode(reader: &mut Reader<'a>, redelivered: bool) -> Result<Self, Malformed> {
        let view = Self::decode_unchecked(reader, redelivered)?;
        view.queues.check()?;
        Ok(view)
    }

    /// Steps over the queue list.
    fn decode_unchecked(reader: &mut Reader<'a>, redelivered: bool) -> Result<Self, Malformed> {
        let queues = QueueList(reader.bytes()?);
        let producer = if reader.bool()? {
            Some(ProducerSequence { producer: reader.u128()?, sequence: reader.varint()? })
        } else {
            None
        };
        Ok(Self { queues, producer, redelivered, message: MessageView::decode(reader)? })
    }
}

/// The message of a record that [`crate::Command::decode`] has read before, for each who is handed
/// it: the rest of the record is not looked at again.
///
/// # Errors
/// The record holds none.
pub fn message_of(record: &[u8]) -> Result<MessageView<'_>, Malformed> {
    let mut reader = Reader(record);
    match reader.u8()? {
        ENQUEUE | ENQUEUE_AGAIN => {}
        DEAD_LETTER => {
            DeadLetterView::decode_from(&mut reader)?;
        }
        DELAY => {
            DelayView::decode_due(&mut reader)?;
        }
        _ => return Err(Malformed("message: the record holds none")),
    }
    Ok(EnqueueView::decode_unchecked(&mut reader, false)?.message)
}

/// A message leaves one queue by a rule and enters others, in one record: it is never in neither,
/// and never moves twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeadLetterView<'a> {
    /// Where it was, and under which LSN. It goes on under that of the record.
    pub queue: QueueId,
    pub lsn: Lsn,
    pub enqueue: EnqueueView<'a>,
}

impl<'a> DeadLetterView<'a> {
    pub fn encode(
        queue: QueueId,
        lsn: Lsn,
        targets: &[QueueId],
        publish: &Publish,
        out: &mut BytesMut,
    ) {
        out.put_u8(DEAD_LETTER);
        let mut w = Writer(out);
        w.varint(queue.0.0);
        w.varint(lsn.0);
        EnqueueView::encode_inside(targets, publish, out);
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (queue, lsn) = Self::decode_from(reader)?;
        Ok(Self { queue, lsn, enqueue: EnqueueView::decode(reader, false)? })
    }

    fn decode_from(reader: &mut Reader<'a>) -> Result<(QueueId, Lsn), Malformed> {
        Ok((QueueId(Lsn(reader.varint()?)), Lsn(reader.varint()?)))
    }
}

/// A message that is routed later.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayView<'a> {
    pub vhost: Text,
    /// Milliseconds since 1970.
    pub due_ms: u64,
    /// Names no queues.
    pub enqueue: EnqueueView<'a>,
}

impl<'a> DelayView<'a> {
    pub fn encode(vhost: &str, due_ms: u64, publish: &Publish, out: &mut BytesMut) {
        out.put_u8(DELAY);
        let mut w = Writer(out);
        w.text(vhost);
        w.varint(due_ms);
        EnqueueView::encode_inside(&[], publish, out);
    }

    /// Appends the record of a delayed message that the other side of a partition had stored.
    pub fn encode_again(&self, producer: ProducerSequence, out: &mut BytesMut) {
        out.put_u8(DELAY);
        let mut w = Writer(out);
        w.text(&self.vhost);
        w.varint(self.due_ms);
        EnqueueView::encode_copy(&[], producer, &self.enqueue.message, out);
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (vhost, due_ms) = Self::decode_due(reader)?;
        Ok(Self { vhost: vhost.into(), due_ms, enqueue: EnqueueView::decode(reader, false)? })
    }

    fn decode_due(reader: &mut Reader<'a>) -> Result<(&'a str, u64), Malformed> {
        Ok((reader.str()?, reader.varint()?))
    }
}
