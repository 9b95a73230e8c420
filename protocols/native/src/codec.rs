//! Preamble and framing: `u32` length (big endian, of kind and fields), `u8` kind, fields.

use crate::{
    Frame,
    field::{Field, FrameReader, put_varint, varint_size},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use understudy_model::{Delivery, Malformed, MessageView, WriteBuffer, Writer};

/// Version of the protocol that this code speaks.
pub const VERSION: u8 = 1;

/// The first byte is no letter and no line end (STOMP) and not `A` (AMQP); the fifth is not 1
/// (OpenWire, whose `ActiveMQ` follows there).
pub const PREAMBLE_MAGIC: [u8; 6] = *b"\xF5UNDST";

pub const PREAMBLE_BYTES: usize = 8;

/// What a client sends first: the magic, the version, and a byte that is reserved and 0.
pub const PREAMBLE: [u8; PREAMBLE_BYTES] = *b"\xF5UNDST\x01\x00";

/// No one who has not said who he is needs more.
pub const FRAME_BYTES_MAX_BEFORE_LOGIN: usize = 16 * 1024;

/// Items of one list in a frame: deliveries settled at once, publishes of a transaction.
pub const LIST_ITEMS_MAX: usize = 65_536;

/// Of names and keys, as in AMQP: every one may have to travel to an AMQP client.
pub const NAME_BYTES_MAX: usize = 255;

const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    FrameTooLong { length: usize, limit: usize },
    Malformed(Malformed),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameTooLong { length, limit } => {
                write!(f, "frame of {length} bytes, the limit is {limit}")
            }
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}

impl From<Malformed> for WireError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Takes frames off the front of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Of a frame without its length field.
    pub frame_bytes_max: usize,
    /// The broker holds a client to [`NAME_BYTES_MAX`]; its own explanations may be longer.
    pub text_bytes_max: usize,
}

impl Decoder {
    /// The next whole frame, if it is there. Bodies, properties and texts share the buffer.
    pub fn next(&self, input: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(length) = input.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.frame_bytes_max {
            return Err(WireError::FrameTooLong { length, limit: self.frame_bytes_max });
        }
        let whole_bytes = LENGTH_BYTES + length;
        if input.len() < whole_bytes {
            // A long frame then arrives in one allocation and not in doublings.
            input.reserve(whole_bytes - input.len());
            return Ok(None);
        }
        input.advance(LENGTH_BYTES);
        Ok(Some(self.decode(&input.split_to(length).freeze())?))
    }

    fn decode(&self, frame: &Bytes) -> Result<Frame, Malformed> {
        let mut reader = FrameReader::new(frame, self.text_bytes_max);
        let kind = reader.rest.u8()?;
        let frame = Frame::take_fields(kind, &mut reader)?;
        reader.rest.finish()?;
        Ok(frame)
    }
}

impl Frame {
    /// What a [`Decoder`] holds against its limit: kind and fields.
    pub fn length(&self) -> usize {
        1 + self.fields_size()
    }

    /// Appends the frame; long bodies are shared and not copied.
    pub fn encode(&self, out: &mut WriteBuffer) {
        put_head(out, self.kind(), self.fields_size());
        self.put_fields(out);
    }
}

fn put_head(out: &mut WriteBuffer, kind: u8, fields_bytes: usize) {
    out.tail().put_u32((1 + fields_bytes) as u32);
    out.tail().put_u8(kind);
}

/// What stands before the message in a `Deliver` or `Got`.
struct DeliveryHead<'a> {
    delivery: &'a Delivery,
    message: MessageView<'a>,
}

impl DeliveryHead<'_> {
    fn size(&self) -> usize {
        let texts = [
            self.message.exchange.as_bytes(),
            self.message.routing_key.as_bytes(),
            self.message.properties,
            self.message.body,
        ];
        self.delivery.consumer.0.size()
            + varint_size(self.delivery.queue.0.0)
            + varint_size(self.delivery.lsn.0)
            + 1
            + texts.iter().map(|text| varint_size(text.len() as u64) + text.len()).sum::<usize>()
    }

    fn put(&self, out: &mut WriteBuffer) {
        let mut writer = Writer(out.tail());
        writer.varint(self.delivery.consumer.0.into());
        writer.varint(self.delivery.queue.0.0);
        writer.varint(self.delivery.lsn.0);
        writer.bool(self.delivery.redelivered);
        writer.text(self.message.exchange);
        writer.text(self.message.routing_key);
        writer.bytes(self.message.properties);
        put_varint(out, self.message.body.len() as u64);
        out.put_part(&self.delivery.record, self.message.body);
    }
}

const DELIVER: u8 = 0x54;
const GOT: u8 = 0x44;

/// Same bytes as [`Frame::Deliver`], straight from the record: the hot path.
pub(crate) fn put_deliver(delivery: &Delivery, out: &mut WriteBuffer) -> Result<(), Malformed> {
    let head = DeliveryHead { delivery, message: delivery.message()? };
    put_head(out, DELIVER, head.size());
    head.put(out);
    Ok(())
}

/// Same bytes as [`Frame::Got`].
pub(crate) fn put_got(
    request: u64,
    remaining: u32,
    delivery: &Delivery,
    out: &mut WriteBuffer,
) -> Result<(), Malformed> {
    let head = DeliveryHead { delivery, message: delivery.message()? };
    put_head(out, GOT, request.size() + remaining.size() + head.size());
    request.put(out);
    remaining.put(out);
    head.put(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Deliver, Got};
    use understudy_model::{ConsumerNumber, EnqueueView, Lsn, Publish, QueueId};

    fn delivery(body: &'static [u8]) -> Delivery {
        let publish = Publish {
            exchange: "ex".into(),
            routing_key: "key".into(),
            properties: Bytes::from_static(&[0, 0]),
            body: body.into(),
            ..Publish::default()
        };
        let mut record = BytesMut::new();
        EnqueueView::encode(&[QueueId(Lsn(7))], &publish, &mut record);
        Delivery {
            consumer: ConsumerNumber(300),
            queue: QueueId(Lsn(7)),
            lsn: Lsn(1 << 40),
            redelivered: true,
            returns: 0,
            record: record.freeze(),
        }
    }

    #[test]
    fn deliveries_written_from_the_record_are_the_frames() {
        for body in [&b"hi"[..], &[5u8; 10_000][..]] {
            let delivery = delivery(body);
            let frame = Deliver {
                consumer: 300,
                queue: 7,
                lsn: 1 << 40,
                redelivered: true,
                exchange: "ex".into(),
                routing_key: "key".into(),
                properties: Bytes::from_static(&[0, 0]),
                body: Bytes::from_static(body),
            };
            let (mut direct, mut by_frame) = (WriteBuffer::default(), WriteBuffer::default());
            put_deliver(&delivery, &mut direct).unwrap();
            put_got(9, 1_000, &delivery, &mut direct).unwrap();
            Frame::from(frame.clone()).encode(&mut by_frame);
            let got = Got { request: 9, remaining: 1_000, delivery: frame };
            Frame::from(got).encode(&mut by_frame);
            assert_eq!(direct.take_all(), by_frame.take_all());
        }
    }

    #[test]
    fn the_preamble_is_no_other_protocols() {
        assert_eq!(PREAMBLE[..6], PREAMBLE_MAGIC);
        assert_eq!(PREAMBLE[6], VERSION);
        assert_ne!(PREAMBLE[4], 1, "OpenWire");
        assert!(!PREAMBLE[0].is_ascii(), "STOMP, AMQP");
    }
}
