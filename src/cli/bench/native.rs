//! Our native protocol as a client speaks it, with the codec that broker and client share.

use super::address::Address;
use super::amqp::table_inside;
use super::load::{Ack, Load};
use super::wire::{Event, Purpose, Refused, STAMP_BYTES, Stamp, Wire};
use anyhow::bail;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use understudy_native::{
    AckMode, Bind, Consume, DeclareExchange, DeclareQueue, Decoder, DeleteExchange, DeleteQueue,
    Deliveries, Frame, Goodbye, Hello, Login, Open, PREAMBLE, Pong, Publish, PublishFlags,
    PurgeQueue, Settle, Text, WriteBuffer,
};

/// Longer than any broker would agree to.
const FRAME_BYTES_MAX: usize = 1 << 30;
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Of an encoded publish: length, kind, and the sequence 1.
const LENGTH_BYTES: usize = 4;
const SEQUENCE_AT: usize = LENGTH_BYTES + 1;

pub(super) struct NativeWire {
    address: Address,
    load: Arc<Load>,
    purpose: Purpose,
    input: BytesMut,
    last_request: u64,
    /// Requests without an answer.
    awaited: u64,
    closing: bool,
    /// To each queue: kind of a publish, and what stands behind its sequence.
    templates: Vec<(u8, Vec<u8>)>,
    /// Sequences without a confirm on this connection, and how many were published before them.
    unconfirmed: VecDeque<u64>,
    confirmed: u64,
    /// By queue: since the last settle.
    unsettled: Vec<Deliveries>,
}

fn put(frame: impl Into<Frame>, out: &mut Vec<u8>) {
    let mut buffer = WriteBuffer::default();
    frame.into().encode(&mut buffer);
    out.extend_from_slice(&buffer.take_all());
}

fn template(load: &Load, queue: usize) -> (u8, Vec<u8>) {
    let name = load.queue_name(queue);
    let (exchange, routing_key) = if load.fanout { (&load.name[..], "") } else { ("", &name[..]) };
    // Flags of an AMQP property block with nothing but the delivery mode.
    let properties = [0x10, 0, if load.persistent { 2 } else { 1 }];
    let mut out = Vec::new();
    let publish = Publish {
        sequence: 1,
        // What is sent again after a lost connection is stored once.
        flags: PublishFlags {
            confirm: load.confirms(),
            dedup: load.confirms(),
            ..PublishFlags::default()
        },
        exchange: Text::from(exchange),
        routing_key: Text::from(routing_key),
        properties: Bytes::copy_from_slice(&properties),
        body: Bytes::from(vec![b'x'; load.size]),
    };
    put(publish, &mut out);
    (out[LENGTH_BYTES], out.split_off(SEQUENCE_AT + 1))
}

impl NativeWire {
    pub(super) fn new(address: Address, load: Arc<Load>, purpose: Purpose) -> Self {
        let templates = match purpose {
            Purpose::Publish { .. } => {
                (0..load.queues).map(|queue| template(&load, queue)).collect()
            }
            _ => Vec::new(),
        };
        Self {
            unsettled: vec![Deliveries::default(); load.queues],
            address,
            load,
            purpose,
            input: BytesMut::new(),
            last_request: 0,
            awaited: 0,
            closing: false,
            templates,
            unconfirmed: VecDeque::new(),
            confirmed: 0,
        }
    }

    fn request(&mut self) -> u64 {
        self.awaited += 1;
        self.last_request += 1;
        self.last_request
    }

    fn queue_name(&self, queue: usize) -> Text {
        Text::from(self.load.queue_name(queue))
    }

    fn prepare(&mut self, out: &mut Vec<u8>) {
        let load = Arc::clone(&self.load);
        let exchange = || Text::from(&load.name[..]);
        if load.fanout {
            let (request, kind) = (self.request(), Text::from("fanout"));
            let durable = load.durable;
            put(
                DeclareExchange { request, name: exchange(), kind, durable, ..Default::default() },
                out,
            );
        }
        for queue in 0..load.queues {
            let name = self.queue_name(queue);
            let declare = DeclareQueue {
                request: self.request(),
                name: name.clone(),
                durable: load.durable,
                arguments: Bytes::from(table_inside(&load.queue_arguments)),
                ..DeclareQueue::default()
            };
            put(declare, out);
            if load.fanout {
                let (request, destination) = (self.request(), name.clone());
                put(Bind { request, source: exchange(), destination, ..Bind::default() }, out);
            }
            if load.purges {
                put(PurgeQueue { request: self.request(), name }, out);
            }
        }
    }

    fn consume(&mut self, queues: &[usize], out: &mut Vec<u8>) {
        let ack = if self.load.ack == Ack::Auto { AckMode::Auto } else { AckMode::Manual };
        for &queue in queues {
            let consume = Consume {
                request: self.request(),
                consumer: consumer_of(queue),
                queue: self.queue_name(queue),
                ack,
                credit: self.load.prefetch.into(),
                ..Consume::default()
            };
            put(consume, out);
        }
    }

    fn remove(&mut self, out: &mut Vec<u8>) {
        for queue in 0..self.load.queues {
            let (request, name) = (self.request(), self.queue_name(queue));
            put(DeleteQueue { request, name, ..DeleteQueue::default() }, out);
        }
        if self.load.fanout {
            let (request, name) = (self.request(), Text::from(&self.load.name[..]));
            put(DeleteExchange { request, name, ..DeleteExchange::default() }, out);
        }
    }

    fn on_answer(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited > 0 {
            return None;
        }
        if self.closing {
            put(Goodbye { reason: Text::from("done") }, out);
            return Some(Event::Closed);
        }
        Some(Event::Ready)
    }

    fn on_frame(&mut self, frame: Frame, out: &mut Vec<u8>) -> anyhow::Result<Option<Event>> {
        Ok(match frame {
            Frame::Deliver(deliver) => {
                let queue = (deliver.consumer as usize).wrapping_sub(1);
                let Some(unsettled) = self.unsettled.get_mut(queue) else {
                    bail!("a delivery to an unknown consumer");
                };
                if self.load.ack != Ack::Auto {
                    (unsettled.consumer, unsettled.queue) = (deliver.consumer, deliver.queue);
                    unsettled.lsns.push(deliver.lsn);
                }
                let stamp = Stamp::decode(&deliver.body);
                Some(Event::Delivered { queue, redelivered: deliver.redelivered, stamp })
            }
            Frame::Confirm(confirm) => {
                let count = self.unconfirmed.partition_point(|number| *number <= confirm.through);
                self.unconfirmed.drain(..count);
                self.confirmed += count as u64;
                (count > 0).then_some(Event::Confirmed { number: self.confirmed, multiple: true })
            }
            Frame::Nack(nack) => {
                let at = self.unconfirmed.partition_point(|number| *number < nack.sequence);
                Some(Event::Nacked { number: self.confirmed + 1 + at as u64, multiple: false })
            }
            Frame::Done(_) | Frame::QueueOk(_) | Frame::Removed(_) => self.on_answer(out),
            Frame::Refused(_) if self.closing => self.on_answer(out),
            Frame::Refused(refused) => return Err(Refused(refused.text.to_string()).into()),
            Frame::PublishRefused(refused) => return Err(Refused(refused.text.to_string()).into()),
            Frame::Error(error) => return Err(Refused(error.text.to_string()).into()),
            Frame::Goodbye(goodbye) => bail!("the broker says goodbye: {}", goodbye.reason),
            Frame::Cancelled(_) => bail!("the broker cancelled a consumer: its queue is gone"),
            Frame::Ping(ping) => {
                put(Pong { number: ping.number }, out);
                None
            }
            Frame::HelloOk(_) | Frame::LoginOk(_) | Frame::Pong(_) => None,
            Frame::Blocked(_) | Frame::Unblocked(_) => None,
            frame => bail!("a frame of kind {:#x} was not expected", frame.kind()),
        })
    }
}

fn consumer_of(queue: usize) -> u32 {
    queue as u32 + 1
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Wire for NativeWire {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&PREAMBLE);
        let client_name = Text::from("understudy bench");
        let producer = match self.purpose {
            Purpose::Publish { producer } => producer,
            _ => 0,
        };
        put(Hello { client_name, producer, heartbeat_ms: 0 }, out);
        let user = Text::from(&self.address.user[..]);
        put(Login { user, password: Bytes::from(self.address.password.clone()) }, out);
        let vhost = Text::from(&self.address.vhost[..]);
        put(Open { request: self.request(), vhost }, out);
    }

    fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, Option<Event>)> {
        self.input.extend_from_slice(input);
        let decoder = Decoder { frame_bytes_max: FRAME_BYTES_MAX, text_bytes_max: TEXT_BYTES_MAX };
        while let Some(frame) = decoder.next(&mut self.input)? {
            let event = self.on_frame(frame, out)?;
            if event == Some(Event::Ready) && self.last_request == 1 {
                // The vhost is open.
                match self.purpose.clone() {
                    Purpose::Prepare => self.prepare(out),
                    Purpose::Publish { .. } => {}
                    Purpose::Consume(queues) => self.consume(&queues, out),
                    Purpose::Remove => self.remove(out),
                }
                if self.awaited > 0 {
                    continue;
                }
            }
            if event.is_some() {
                return Ok((input.len(), event));
            }
        }
        Ok((input.len(), None))
    }

    fn publish(&mut self, queue: usize, number: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        if self.load.confirms() {
            self.unconfirmed.push_back(number);
        }
        let (kind, rest) = &self.templates[queue];
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.push(*kind);
        put_varint(number, out);
        out.extend_from_slice(rest);
        let length = (out.len() - start - LENGTH_BYTES) as u32;
        out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        if self.load.is_stamped() {
            // The body stands last.
            let at = out.len() - self.load.size;
            out[at..at + STAMP_BYTES].copy_from_slice(&stamp.encode());
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        for unsettled in &mut self.unsettled {
            if !unsettled.lsns.is_empty() {
                let deliveries = std::mem::take(unsettled);
                put(Settle { request: 0, deliveries }, out);
            }
        }
    }

    /// Reading a queue's state waits for everything that the connection asked before.
    fn close(&mut self, out: &mut Vec<u8>) {
        self.closing = true;
        let (request, name) = (self.request(), self.queue_name(0));
        put(DeclareQueue { request, name, passive: true, ..DeclareQueue::default() }, out);
    }
}
