//! The hot methods by hand: nothing is allocated for a publish, an ack or a delivery.

use crate::{
    fault::{Fault, MethodId, ReplyCode, show_bytes},
    frame::{FRAME_END, FRAME_HEADER_BYTES, FRAME_OVERHEAD, FrameKind},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use understudy_model::{Text, WriteBuffer};

const CLASS_BASIC: u16 = 60;
const METHOD_ID_BYTES: usize = 4;
/// Class, weight and body size of a content header.
const CONTENT_HEADER_BYTES: usize = 12;

/// What RabbitMQ says about a method whose arguments it cannot read.
pub(crate) fn cannot_decode(payload: &[u8]) -> Fault {
    let arguments = payload.get(METHOD_ID_BYTES..).unwrap_or_default();
    Fault::new(ReplyCode::FRAME_ERROR, format!("cannot decode {}", show_bytes(arguments)))
}

pub(crate) fn method_id(payload: &[u8]) -> Result<MethodId, Fault> {
    let Some(&[c1, c0, m1, m0]) = payload.first_chunk::<METHOD_ID_BYTES>() else {
        return Err(cannot_decode(payload));
    };
    Ok(MethodId::new(u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0])))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishMethod {
    pub(crate) exchange: Text,
    pub(crate) routing_key: Text,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

impl PublishMethod {
    pub(crate) fn decode(payload: &Bytes) -> Result<Self, Fault> {
        // After the method's id: a reserved short, two short strings, the bits.
        let mut rest = payload.slice(METHOD_ID_BYTES.min(payload.len())..);
        let fields = |rest: &mut Bytes| {
            rest.try_get_u16().ok()?;
            let exchange = take_short(rest)?;
            let routing_key = take_short(rest)?;
            let bits = rest.try_get_u8().ok()?;
            let (mandatory, immediate) = (bits & 1 != 0, bits & 2 != 0);
            rest.is_empty().then_some(Self { exchange, routing_key, mandatory, immediate })
        };
        fields(&mut rest).ok_or_else(|| cannot_decode(payload))
    }
}

fn take_short(rest: &mut Bytes) -> Option<Text> {
    let length = usize::from(rest.try_get_u8().ok()?);
    if rest.len() < length {
        return None;
    }
    Text::try_from(rest.split_to(length)).ok()
}

/// Arguments of ack, nack and reject: a delivery tag and an octet of bits.
pub(crate) fn decode_tag_and_bits(payload: &[u8]) -> Result<(u64, u8), Fault> {
    let fields = || {
        let (tag, bits) = payload.get(METHOD_ID_BYTES..)?.split_first_chunk::<8>()?;
        let [bits] = bits else { return None };
        Some((u64::from_be_bytes(*tag), *bits))
    };
    fields().ok_or_else(|| cannot_decode(payload))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentHeader {
    pub(crate) class: u16,
    pub(crate) body_bytes: u64,
    /// Property flags and list, not yet checked.
    pub(crate) properties: Bytes,
}

impl ContentHeader {
    pub(crate) fn decode(mut payload: Bytes) -> Option<Self> {
        let class = payload.try_get_u16().ok()?;
        payload.try_get_u16().ok()?;
        let body_bytes = payload.try_get_u64().ok()?;
        Some(Self { class, body_bytes, properties: payload })
    }
}

fn put_frame_header(out: &mut BytesMut, kind: FrameKind, channel: u16, size: usize) {
    out.put_u8(kind as u8);
    out.put_u16(channel);
    out.put_u32(size as u32);
}

fn put_method_header(out: &mut BytesMut, channel: u16, id: MethodId, arguments_bytes: usize) {
    let size = METHOD_ID_BYTES + arguments_bytes;
    out.reserve(FRAME_OVERHEAD + size);
    put_frame_header(out, FrameKind::Method, channel, size);
    out.put_u16(id.class);
    out.put_u16(id.method);
}

/// Texts in the log came in as short strings, or were cut to their length by the frontend.
fn put_short(out: &mut BytesMut, text: &str) {
    out.put_u8(short_bytes(text) as u8);
    out.put_slice(&text.as_bytes()[..short_bytes(text)]);
}

fn short_bytes(text: &str) -> usize {
    text.len().min(255)
}

/// Where a message comes from, as deliver, get-ok and return tell it.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
}

impl Origin<'_> {
    fn bytes(self) -> usize {
        2 + short_bytes(self.exchange) + short_bytes(self.routing_key)
    }

    fn put(self, out: &mut BytesMut) {
        put_short(out, self.exchange);
        put_short(out, self.routing_key);
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DeliveryTag {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
}

pub(crate) fn put_deliver(
    out: &mut BytesMut,
    channel: u16,
    consumer_tag: &str,
    delivery: DeliveryTag,
    origin: Origin<'_>,
) {
    let size = 1 + short_bytes(consumer_tag) + 9 + origin.bytes();
    put_method_header(out, channel, MethodId::new(CLASS_BASIC, 60), size);
    put_short(out, consumer_tag);
    out.put_u64(delivery.tag);
    out.put_u8(delivery.redelivered.into());
    origin.put(out);
    out.put_u8(FRAME_END);
}

pub(crate) fn put_get_ok(
    out: &mut BytesMut,
    channel: u16,
    delivery: DeliveryTag,
    origin: Origin<'_>,
    remaining: u32,
) {
    let size = 9 + origin.bytes() + 4;
    put_method_header(out, channel, MethodId::new(CLASS_BASIC, 71), size);
    out.put_u64(delivery.tag);
    out.put_u8(delivery.redelivered.into());
    origin.put(out);
    out.put_u32(remaining);
    out.put_u8(FRAME_END);
}

pub(crate) fn put_return(
    out: &mut BytesMut,
    channel: u16,
    code: u16,
    text: &str,
    origin: Origin<'_>,
) {
    let size = 2 + 1 + short_bytes(text) + origin.bytes();
    put_method_header(out, channel, MethodId::new(CLASS_BASIC, 50), size);
    out.put_u16(code);
    put_short(out, text);
    origin.put(out);
    out.put_u8(FRAME_END);
}

pub(crate) fn put_ack(out: &mut BytesMut, channel: u16, tag: u64, multiple: bool) {
    put_method_header(out, channel, MethodId::ACK, 9);
    out.put_u64(tag);
    out.put_u8(multiple.into());
    out.put_u8(FRAME_END);
}

pub(crate) fn put_nack(out: &mut BytesMut, channel: u16, tag: u64) {
    put_method_header(out, channel, MethodId::NACK, 9);
    out.put_u64(tag);
    out.put_u8(0);
    out.put_u8(FRAME_END);
}

pub(crate) fn put_heartbeat(out: &mut BytesMut) {
    put_frame_header(out, FrameKind::Heartbeat, 0, 0);
    out.put_u8(FRAME_END);
}

pub(crate) fn put_content_header(
    out: &mut BytesMut,
    channel: u16,
    body_bytes: usize,
    properties: &[u8],
) {
    let size = CONTENT_HEADER_BYTES + properties.len();
    out.reserve(FRAME_OVERHEAD + size);
    put_frame_header(out, FrameKind::Header, channel, size);
    out.put_u16(CLASS_BASIC);
    out.put_u16(0);
    out.put_u64(body_bytes as u64);
    out.put_slice(properties);
    out.put_u8(FRAME_END);
}

/// Body frames no longer than `frame_max`. Each piece is a buffer and the part of it to send.
pub(crate) fn put_body<'a>(
    out: &mut WriteBuffer,
    channel: u16,
    frame_max: u32,
    body_bytes: usize,
    pieces: impl Iterator<Item = (&'a Bytes, &'a [u8])>,
) {
    let frame_bytes = frame_max as usize - FRAME_OVERHEAD;
    let mut body_left = body_bytes;
    let mut frame_left = 0;
    for (whole, mut part) in pieces {
        while !part.is_empty() {
            if frame_left == 0 {
                frame_left = frame_bytes.min(body_left);
                out.tail().reserve(FRAME_HEADER_BYTES);
                put_frame_header(out.tail(), FrameKind::Body, channel, frame_left);
            }
            let (now, later) = part.split_at(frame_left.min(part.len()));
            out.put_part(whole, now);
            part = later;
            body_left -= now.len();
            frame_left -= now.len();
            if frame_left == 0 {
                out.tail().put_u8(FRAME_END);
            }
        }
    }
}
