//! STOMP 1.2 as a client speaks it. Queues are `/queue/NAME`, with a fanout `/topic/NAME`: names
//! that RabbitMQ, ActiveMQ and we all know.

use super::address::Address;
use super::load::{Ack, Load};
use super::wire::{Event, Purpose, Refused, STAMP_BYTES, Stamp, Wire};
use anyhow::{Context, bail};
use memchr::memchr;
use std::io::Write;
use std::sync::Arc;

const SUBSCRIBED: &[u8] = b"subscribed";
const GOODBYE: &[u8] = b"goodbye";

pub(super) struct StompWire {
    address: Address,
    load: Arc<Load>,
    purpose: Purpose,
    /// Head of a SEND to each queue, up to the receipt's number.
    send_heads: Vec<Vec<u8>>,
    body: Vec<u8>,
    published: u64,
    /// Of the deliveries since the last settle: the last of each queue, or all.
    acks: Vec<Vec<u8>>,
}

impl StompWire {
    pub(super) fn new(address: Address, load: Arc<Load>, purpose: Purpose) -> Self {
        let send_heads = match purpose {
            Purpose::Publish { .. } => {
                (0..load.queues).map(|queue| send_head(&load, queue)).collect()
            }
            _ => Vec::new(),
        };
        let mut body = vec![b'x'; load.size];
        body.push(0);
        let acks = vec![Vec::new(); load.queues];
        Self { address, load, purpose, send_heads, body, published: 0, acks }
    }

    fn subscribe(&self, queues: &[usize], out: &mut Vec<u8>) {
        let ack = match self.load.ack {
            Ack::Auto => "auto",
            Ack::Cumulative => "client",
            Ack::Individual => "client-individual",
        };
        for (at, queue) in queues.iter().enumerate() {
            let destination = destination(&self.load, *queue);
            let mut frame =
                format!("SUBSCRIBE\nid:{queue}\ndestination:{destination}\nack:{ack}\n");
            // With ActiveMQ 0 would mean that nothing comes by itself.
            if self.load.prefetch > 0 && self.load.ack != Ack::Auto {
                let prefetch = self.load.prefetch;
                frame += &format!("prefetch-count:{prefetch}\nactivemq.prefetchSize:{prefetch}\n");
            }
            frame += &queue_headers(&self.load);
            if at + 1 == queues.len() {
                frame += "receipt:subscribed\n";
            }
            out.extend(frame.as_bytes());
            out.extend(b"\n\0");
        }
    }

    fn on_message(&mut self, head: &Head<'_>, body: &[u8]) -> anyhow::Result<Event> {
        let queue = head.get(b"subscription").and_then(number).context("a MESSAGE of no one")?;
        let queue = queue as usize;
        let ack = self.acks.get_mut(queue).context("a MESSAGE of an unknown subscription")?;
        if let Some(id) = head.get(b"ack").filter(|_| self.load.ack != Ack::Auto) {
            if self.load.ack == Ack::Cumulative {
                ack.clear();
            }
            ack.extend_from_slice(b"ACK\nid:");
            ack.extend_from_slice(id);
            ack.extend_from_slice(b"\n\n\0");
        }
        let redelivered = head.get(b"redelivered") == Some(b"true");
        Ok(Event::Delivered { queue, redelivered, stamp: Stamp::decode(body) })
    }

    fn on_frame(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> anyhow::Result<Option<Event>> {
        match head.command {
            b"MESSAGE" => self.on_message(head, body).map(Some),
            b"RECEIPT" => match head.get(b"receipt-id").context("a RECEIPT for nothing")? {
                SUBSCRIBED => Ok(Some(Event::Ready)),
                GOODBYE => Ok(Some(Event::Closed)),
                id => {
                    let number = number(id).context("a RECEIPT that was not asked for")?;
                    Ok(Some(Event::Confirmed { number, multiple: false }))
                }
            },
            b"CONNECTED" => match &self.purpose {
                Purpose::Consume(queues) => {
                    self.subscribe(queues, out);
                    Ok(None)
                }
                // Destinations come into being when they are used, and STOMP cannot delete them.
                Purpose::Prepare | Purpose::Publish { .. } | Purpose::Remove => {
                    Ok(Some(Event::Ready))
                }
            },
            b"ERROR" => {
                let message = head.get(b"message").unwrap_or_default();
                let text = [message, b": ", body].concat();
                Err(Refused(String::from_utf8_lossy(&text).into_owned()).into())
            }
            other => bail!("{} was not expected", String::from_utf8_lossy(other)),
        }
    }
}

fn destination(load: &Load, queue: usize) -> String {
    if load.fanout {
        format!("/topic/{}", load.name)
    } else {
        format!("/queue/{}", load.queue_name(queue))
    }
}

/// What RabbitMQ and we take as the queue's arguments, on SEND and SUBSCRIBE alike.
fn queue_headers(load: &Load) -> String {
    let mut headers = String::new();
    if !load.durable && !load.fanout {
        headers += "durable:false\n";
    }
    for (name, value) in &load.queue_arguments {
        headers += &format!("{name}:{value}\n");
    }
    headers
}

fn send_head(load: &Load, queue: usize) -> Vec<u8> {
    let mut head = format!(
        "SEND\ndestination:{}\npersistent:{}\ncontent-length:{}\n",
        destination(load, queue),
        load.persistent,
        load.size
    );
    head += &queue_headers(load);
    head += if load.confirms() { "receipt:" } else { "\n" };
    head.into_bytes()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A frame's first part, in place.
struct Head<'a> {
    command: &'a [u8],
    /// Lines, the empty one left out.
    headers: &'a [u8],
}

impl<'a> Head<'a> {
    /// The head and its length with the empty line; `None`: it has not all come.
    fn parse(input: &'a [u8]) -> Option<(Self, usize)> {
        let command_end = memchr(b'\n', input)?;
        let mut at = command_end + 1;
        loop {
            let line = memchr(b'\n', &input[at..])?;
            if matches!(&input[at..at + line], b"" | b"\r") {
                let command = trimmed(&input[..command_end]);
                let headers = &input[command_end + 1..at];
                return Some((Self { command, headers }, at + line + 1));
            }
            at += line + 1;
        }
    }

    /// Escaped as it came, which is how it is sent back.
    fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers
            .split(|byte| *byte == b'\n')
            .find_map(|line| Some(trimmed(line.strip_prefix(name)?.strip_prefix(b":")?)))
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Wire for StompWire {
    fn open(&mut self, out: &mut Vec<u8>) {
        let Address { user, password, vhost, .. } = &self.address;
        let login = match user.is_empty() {
            true => String::new(),
            false => format!("login:{user}\npasscode:{password}\n"),
        };
        let connect =
            format!("CONNECT\naccept-version:1.2\nhost:{vhost}\n{login}heart-beat:0,0\n\n\0");
        out.extend(connect.as_bytes());
    }

    fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, Option<Event>)> {
        let mut used = 0;
        loop {
            // Line ends stand between frames.
            let between = input[used..].iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
            used += between.count();
            let rest = &input[used..];
            let Some((head, head_bytes)) = Head::parse(rest) else { return Ok((used, None)) };
            let rest = &rest[head_bytes..];
            let length = match head.get(b"content-length").and_then(number) {
                Some(length) => length as usize,
                None => match memchr(0, rest) {
                    Some(length) => length,
                    None => return Ok((used, None)),
                },
            };
            let Some(&end) = rest.get(length) else { return Ok((used, None)) };
            if end != 0 {
                bail!("a frame without its NUL");
            }
            used += head_bytes + length + 1;
            if let Some(event) = self.on_frame(&head, &rest[..length], out)? {
                return Ok((used, Some(event)));
            }
        }
    }

    fn publish(&mut self, queue: usize, _number: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        self.published += 1;
        out.extend_from_slice(&self.send_heads[queue]);
        if self.load.confirms() {
            // Writing to memory cannot fail.
            let _ = write!(out, "{}\n\n", self.published);
        }
        let at = out.len();
        out.extend_from_slice(&self.body);
        if self.load.is_stamped() {
            out[at..at + STAMP_BYTES].copy_from_slice(&stamp.encode());
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        for ack in &mut self.acks {
            out.append(ack);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out.extend(b"DISCONNECT\nreceipt:goodbye\n\n\0");
    }
}
