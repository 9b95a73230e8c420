//! AMQP 0-9-1 as a client speaks it, with nothing allocated for a message.

use super::address::Address;
use super::load::{Ack, Load};
use super::wire::{Event, Purpose, Refused, STAMP_BYTES, Stamp, Wire};
use anyhow::{Context, bail};
use std::collections::VecDeque;
use std::sync::Arc;

const FRAME_BYTES_MAX: u32 = 128 * 1024;
const FRAME_OVERHEAD: usize = 8;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const CHANNEL: u16 = 1;

type MethodId = (u16, u16);

/// What is sent next, and the answer that it waits for.
struct Step {
    request: Vec<u8>,
    answer: MethodId,
}

/// A delivery whose body is still coming.
struct Content {
    queue: usize,
    redelivered: bool,
    body_left: u64,
    front: [u8; STAMP_BYTES],
    front_filled: usize,
}

pub(super) struct AmqpWire {
    address: Address,
    load: Arc<Load>,
    purpose: Purpose,
    steps: VecDeque<Step>,
    awaited: Option<MethodId>,
    content: Option<Content>,
    /// One publish to each queue, its stamp still empty.
    templates: Vec<Template>,
    delivered_tag: u64,
    settled_tag: u64,
}

struct Template {
    bytes: Vec<u8>,
    stamp_at: usize,
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
}

fn method(channel: u16, (class, id): MethodId, arguments: &[&[u8]]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend(id.to_be_bytes());
    arguments.iter().for_each(|argument| payload.extend(*argument));
    let mut out = Vec::new();
    put_frame(&mut out, METHOD, channel, &payload);
    out
}

fn short(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(255)];
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// The inside of a field table: whole numbers as such, all else as strings.
pub(super) fn table_inside(pairs: &[(String, String)]) -> Vec<u8> {
    let mut inside = Vec::new();
    for (name, value) in pairs {
        inside.extend(short(name));
        if let Ok(number) = value.parse::<i64>() {
            inside.push(b'l');
            inside.extend(number.to_be_bytes());
        } else {
            inside.push(b'S');
            inside.extend(long(value.as_bytes()));
        }
    }
    inside
}

/// Brokers tell a refused login, and send nacks, to clients that can take it.
fn client_properties() -> Vec<u8> {
    let mut inside = Vec::new();
    for name in ["authentication_failure_close", "publisher_confirms", "basic.nack"] {
        inside.extend(short(name));
        inside.extend(b"t\x01");
    }
    [short("capabilities"), vec![b'F'], long(&inside)].concat()
}

impl Template {
    /// Method, header and body frames of one publish.
    fn new(load: &Load, queue: usize) -> Self {
        let name = load.queue_name(queue);
        let (exchange, key) = if load.fanout { (&load.name[..], "") } else { ("", &name[..]) };
        let mut bytes = method(CHANNEL, (60, 40), &[&[0, 0], &short(exchange), &short(key), &[0]]);
        let mut header = vec![0, 60, 0, 0];
        header.extend((load.size as u64).to_be_bytes());
        // One property: the delivery mode.
        header.extend([0x10, 0, if load.persistent { 2 } else { 1 }]);
        put_frame(&mut bytes, HEADER, CHANNEL, &header);
        let stamp_at = bytes.len() + FRAME_OVERHEAD - 1;
        let body = vec![b'x'; load.size];
        for piece in body.chunks(FRAME_BYTES_MAX as usize - FRAME_OVERHEAD) {
            put_frame(&mut bytes, BODY, CHANNEL, piece);
        }
        Self { bytes, stamp_at }
    }
}

impl AmqpWire {
    pub(super) fn new(address: Address, load: Arc<Load>, purpose: Purpose) -> Self {
        let templates = match purpose {
            Purpose::Publish { .. } => {
                (0..load.queues).map(|queue| Template::new(&load, queue)).collect()
            }
            _ => Vec::new(),
        };
        Self {
            address,
            load,
            purpose,
            steps: VecDeque::new(),
            awaited: None,
            content: None,
            templates,
            delivered_tag: 0,
            settled_tag: 0,
        }
    }

    fn login(&self) -> Vec<Step> {
        let Address { user, password, .. } = &self.address;
        let (mechanism, response) = match user.is_empty() {
            true => ("EXTERNAL", String::new()),
            false => ("PLAIN", format!("\0{user}\0{password}")),
        };
        let properties = long(&client_properties());
        let start_ok: [&[u8]; 4] =
            [&properties, &short(mechanism), &long(response.as_bytes()), &short("en_US")];
        // One channel. No heartbeats: a broker that hangs is to be seen as one.
        let channels_max = CHANNEL.to_be_bytes();
        let tuning: [&[u8]; 3] = [&channels_max, &FRAME_BYTES_MAX.to_be_bytes(), &[0, 0]];
        let mut open = method(0, (10, 31), &tuning);
        open.extend(method(0, (10, 40), &[&short(&self.address.vhost), &[0, 0]]));
        vec![
            Step { request: method(0, (10, 11), &start_ok), answer: (10, 30) },
            Step { request: open, answer: (10, 41) },
            Step { request: method(CHANNEL, (20, 10), &[&[0]]), answer: (20, 11) },
        ]
    }

    fn preparations(&self) -> Vec<Step> {
        let load = &self.load;
        let mut steps = Vec::new();
        let mut step = |id: MethodId, answer: u16, arguments: &[&[u8]]| {
            let request = method(CHANNEL, id, arguments);
            steps.push(Step { request, answer: (id.0, answer) });
        };
        match &self.purpose {
            Purpose::Prepare => {
                let durable = u8::from(load.durable) << 1;
                if load.fanout {
                    let kind = short("fanout");
                    let exchange = short(&load.name);
                    step((40, 10), 11, &[&[0, 0], &exchange, &kind, &[durable], &[0; 4]]);
                }
                for queue in 0..load.queues {
                    let name = short(&load.queue_name(queue));
                    let arguments = long(&table_inside(&load.queue_arguments));
                    step((50, 10), 11, &[&[0, 0], &name, &[durable], &arguments]);
                    if load.fanout {
                        let exchange = short(&load.name);
                        step((50, 20), 21, &[&[0, 0], &name, &exchange, &short(""), &[0; 5]]);
                    }
                    if load.purges {
                        step((50, 30), 31, &[&[0, 0], &name, &[0]]);
                    }
                }
            }
            Purpose::Publish { .. } if load.confirms() => step((85, 10), 11, &[&[0]]),
            Purpose::Publish { .. } => {}
            Purpose::Consume(queues) => {
                step((60, 10), 11, &[&[0; 4], &load.prefetch.to_be_bytes(), &[0]]);
                for queue in queues {
                    let name = short(&load.queue_name(*queue));
                    let bits = u8::from(load.ack == Ack::Auto) << 1;
                    let tag = short(&queue.to_string());
                    step((60, 20), 21, &[&[0, 0], &name, &tag, &[bits], &[0; 4]]);
                }
            }
            Purpose::Remove => {
                for queue in 0..load.queues {
                    let name = short(&load.queue_name(queue));
                    step((50, 40), 41, &[&[0, 0], &name, &[0]]);
                }
                if load.fanout {
                    step((40, 20), 21, &[&[0, 0], &short(&load.name), &[0]]);
                }
            }
        }
        steps
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        match self.steps.pop_front() {
            Some(step) => {
                out.extend(step.request);
                self.awaited = Some(step.answer);
                None
            }
            None => {
                self.awaited = None;
                Some(Event::Ready)
            }
        }
    }

    fn on_method(&mut self, payload: &[u8], out: &mut Vec<u8>) -> anyhow::Result<Option<Event>> {
        let (ids, arguments) = payload.split_first_chunk::<4>().context("a method without id")?;
        let id = (u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]]));
        let number = || -> anyhow::Result<(u64, bool)> {
            let (tag, rest) = arguments.split_first_chunk().context("an ack cut short")?;
            Ok((u64::from_be_bytes(*tag), rest.first().is_some_and(|bits| bits & 1 != 0)))
        };
        match id {
            (60, 60) => self.on_deliver(arguments).context("a delivery cut short").map(|()| None),
            (60, 80) => {
                number().map(|(number, multiple)| Some(Event::Confirmed { number, multiple }))
            }
            (60, 120) => {
                number().map(|(number, multiple)| Some(Event::Nacked { number, multiple }))
            }
            _ if Some(id) == self.awaited => Ok(self.advance(out)),
            (10, 50) | (20, 40) => {
                let text = arguments.get(3..).unwrap_or_default();
                let length = usize::from(arguments.get(2).copied().unwrap_or(0));
                let text = String::from_utf8_lossy(&text[..length.min(text.len())]).into_owned();
                Err(Refused(text).into())
            }
            (10, 51) => Ok(Some(Event::Closed)),
            (60, 30) => bail!("the broker cancelled a consumer: its queue is gone"),
            // connection.blocked and unblocked: the broker stops reading, which is felt anyway.
            (10, 60 | 61) => Ok(None),
            (class, id) => bail!("method {class}.{id} was not expected"),
        }
    }

    /// Consumer tag (our number of the queue), delivery tag, redelivered; the rest is not needed.
    fn on_deliver(&mut self, arguments: &[u8]) -> Option<()> {
        let (&length, rest) = arguments.split_first()?;
        let (consumer_tag, rest) = rest.split_at_checked(length.into())?;
        let queue = std::str::from_utf8(consumer_tag).ok()?.parse().ok()?;
        let (tag, rest) = rest.split_first_chunk()?;
        self.delivered_tag = u64::from_be_bytes(*tag);
        self.content = Some(Content {
            queue,
            redelivered: *rest.first()? != 0,
            body_left: 0,
            front: [0; STAMP_BYTES],
            front_filled: 0,
        });
        Some(())
    }

    fn on_content(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<Option<Event>> {
        let content = self.content.as_mut().context("content without a delivery")?;
        if kind == HEADER {
            let size = payload.get(4..12).and_then(|size| size.first_chunk());
            content.body_left = u64::from_be_bytes(*size.context("a content header cut short")?);
        } else {
            let free = &mut content.front[content.front_filled..];
            let taken = free.len().min(payload.len());
            free[..taken].copy_from_slice(&payload[..taken]);
            content.front_filled += taken;
            content.body_left = content.body_left.saturating_sub(payload.len() as u64);
        }
        if content.body_left > 0 {
            return Ok(None);
        }
        let stamp = Stamp::decode(&content.front);
        let event =
            Event::Delivered { queue: content.queue, redelivered: content.redelivered, stamp };
        self.content = None;
        Ok(Some(event))
    }
}

impl Wire for AmqpWire {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend(b"AMQP\0\0\x09\x01");
        self.awaited = Some((10, 10));
        self.steps = self.login().into_iter().chain(self.preparations()).collect();
    }

    fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, Option<Event>)> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let Some(header) = rest.first_chunk::<7>() else { return Ok((used, None)) };
            let [kind, _, _, s3, s2, s1, s0] = *header;
            if self.awaited == Some((10, 10)) && rest.starts_with(b"AMQP") {
                bail!("the broker speaks another version of AMQP");
            }
            let size = u32::from_be_bytes([s3, s2, s1, s0]) as usize;
            let Some(payload) = rest.get(7..7 + size) else { return Ok((used, None)) };
            let Some(&end) = rest.get(7 + size) else { return Ok((used, None)) };
            if end != FRAME_END {
                bail!("a frame without its end");
            }
            used += size + FRAME_OVERHEAD;
            let event = match kind {
                METHOD => self.on_method(payload, out)?,
                HEADER | BODY => self.on_content(kind, payload)?,
                _ => None,
            };
            if event.is_some() {
                return Ok((used, event));
            }
        }
    }

    fn publish(&mut self, queue: usize, _number: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        let template = &self.templates[queue];
        let at = out.len() + template.stamp_at;
        out.extend_from_slice(&template.bytes);
        if self.load.is_stamped() {
            out[at..at + STAMP_BYTES].copy_from_slice(&stamp.encode());
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        let first = if self.load.ack == Ack::Individual {
            self.settled_tag + 1
        } else {
            self.delivered_tag
        };
        if self.delivered_tag > self.settled_tag {
            let multiple = u8::from(self.load.ack == Ack::Cumulative);
            for tag in first..=self.delivered_tag {
                out.extend_from_slice(&[METHOD, 0, CHANNEL as u8, 0, 0, 0, 13, 0, 60, 0, 80]);
                out.extend_from_slice(&tag.to_be_bytes());
                out.extend_from_slice(&[multiple, FRAME_END]);
            }
        }
        self.settled_tag = self.delivered_tag;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out.extend(method(0, (10, 50), &[&200_u16.to_be_bytes(), &short("done"), &[0; 4]]));
    }
}
