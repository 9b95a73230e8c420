//! A small blocking AMQP 0-9-1 client, enough for the demo: publish with confirms, consume, ack.
//! Real clients are used in `tests/interop`; the binary carries no client library for a demo.

use super::client::{Confirmed, DemoClient, Received};
use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;

pub(super) struct AmqpClient {
    socket: TcpStream,
    input: Vec<u8>,
    /// A delivery whose body is still to come: its tag and the bytes so far wanted.
    delivery: Option<(u64, usize, Vec<u8>)>,
}

struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

fn short(text: &str, out: &mut Vec<u8>) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

fn method(channel: u16, class: u16, id: u16, arguments: &[u8], out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(4 + arguments.len());
    payload.extend_from_slice(&class.to_be_bytes());
    payload.extend_from_slice(&id.to_be_bytes());
    payload.extend_from_slice(arguments);
    frame(METHOD, channel, &payload, out);
}

impl AmqpClient {
    /// Connects, logs in and opens channel 1 in confirm mode with `queue` declared.
    pub(super) fn connect(address: &str, queue: &str) -> anyhow::Result<Self> {
        let target = address.parse().context("address")?;
        let socket = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut client = Self { socket, input: Vec::new(), delivery: None };
        client.socket.write_all(b"AMQP\0\0\x09\x01")?;
        client.expect(10, 10)?;
        let mut start_ok = vec![0, 0, 0, 0];
        short("PLAIN", &mut start_ok);
        let login = b"\0guest\0guest";
        start_ok.extend_from_slice(&(login.len() as u32).to_be_bytes());
        start_ok.extend_from_slice(login);
        short("en_US", &mut start_ok);
        client.call(0, 10, 11, &start_ok)?;
        client.expect(10, 30)?;
        let mut out = Vec::new();
        method(0, 10, 31, &[0, 16, 0, 2, 0, 0, 0, 0], &mut out);
        method(0, 10, 40, b"\x01/\0\0", &mut out);
        client.socket.write_all(&out)?;
        client.expect(10, 41)?;
        client.call(1, 20, 10, b"\0")?;
        client.expect(20, 11)?;
        let mut declare = vec![0, 0];
        short(queue, &mut declare);
        declare.extend_from_slice(&[0b10, 0, 0, 0, 0]);
        client.call(1, 50, 10, &declare)?;
        client.expect(50, 11)?;
        client.call(1, 85, 10, b"\0")?;
        client.expect(85, 11)?;
        Ok(client)
    }

    fn call(&mut self, channel: u16, class: u16, id: u16, arguments: &[u8]) -> anyhow::Result<()> {
        let mut out = Vec::new();
        method(channel, class, id, arguments, &mut out);
        Ok(self.socket.write_all(&out)?)
    }

    fn expect(&mut self, class: u16, id: u16) -> anyhow::Result<()> {
        loop {
            let frame = self.read_frame()?;
            if frame.kind == METHOD {
                let found = (be_u16(&frame.payload, 0)?, be_u16(&frame.payload, 2)?);
                if found == (class, id) {
                    return Ok(());
                }
                bail!("expected method {class}.{id}, the broker sent {}.{}", found.0, found.1);
            }
        }
    }

    fn read_frame(&mut self) -> anyhow::Result<Frame> {
        loop {
            if let Some(size) = self.input.get(3..7) {
                let size = u32::from_be_bytes(size.try_into()?) as usize;
                if self.input.len() >= size + 8 {
                    let kind = self.input[0];
                    let payload = self.input[7..7 + size].to_vec();
                    self.input.drain(..size + 8);
                    return Ok(Frame { kind, payload });
                }
            }
            let mut buffer = [0; 64 * 1024];
            let read = self.socket.read(&mut buffer)?;
            if read == 0 {
                bail!("the broker closed the connection");
            }
            self.input.extend_from_slice(&buffer[..read]);
        }
    }

    /// A message, once its last body frame is there.
    fn body_frame(&mut self, frame: &Frame) -> anyhow::Result<Option<Received>> {
        let Some((tag, size, body)) = &mut self.delivery else { return Ok(None) };
        match frame.kind {
            HEADER => *size = usize::try_from(be_u64(&frame.payload, 4)?)?,
            BODY => body.extend_from_slice(&frame.payload),
            _ => bail!("a method in the middle of a message"),
        }
        if body.len() < *size || (frame.kind == HEADER && *size > 0) {
            return Ok(None);
        }
        let body = String::from_utf8_lossy(body).into_owned();
        let tag = tag.to_string();
        self.delivery = None;
        Ok(Some(Received { body, tag }))
    }
}

impl DemoClient for AmqpClient {
    fn publish(&mut self, queue: &str, bodies: &[String]) -> anyhow::Result<()> {
        let mut out = Vec::new();
        for body in bodies {
            let mut publish = vec![0, 0];
            short("", &mut publish);
            short(queue, &mut publish);
            publish.push(0);
            method(1, 60, 40, &publish, &mut out);
            let mut header = vec![0, 60, 0, 0];
            header.extend_from_slice(&(body.len() as u64).to_be_bytes());
            header.extend_from_slice(&[0x10, 0, 2]);
            frame(HEADER, 1, &header, &mut out);
            frame(BODY, 1, body.as_bytes(), &mut out);
        }
        Ok(self.socket.write_all(&out)?)
    }

    fn wait_confirms(&mut self) -> anyhow::Result<Confirmed> {
        let frame = self.read_frame()?;
        let found = (be_u16(&frame.payload, 0)?, be_u16(&frame.payload, 2)?);
        if frame.kind != METHOD || found != (60, 80) {
            bail!("expected a confirm, the broker sent {}.{}", found.0, found.1);
        }
        let tag = be_u64(&frame.payload, 4)?;
        let multiple = frame.payload.get(12).is_some_and(|bits| bits & 1 == 1);
        Ok(if multiple { Confirmed::Through(tag) } else { Confirmed::Next })
    }

    fn consume(&mut self, queue: &str) -> anyhow::Result<()> {
        self.call(1, 60, 10, &[0, 0, 0, 0, 1, 0xf4, 0])?;
        self.expect(60, 11)?;
        let mut consume = vec![0, 0];
        short(queue, &mut consume);
        short("demo", &mut consume);
        consume.extend_from_slice(&[0, 0, 0, 0, 0]);
        self.call(1, 60, 20, &consume)?;
        self.expect(60, 21)
    }

    fn receive(&mut self) -> anyhow::Result<Received> {
        loop {
            let frame = self.read_frame()?;
            if frame.kind == METHOD {
                if (be_u16(&frame.payload, 0)?, be_u16(&frame.payload, 2)?) != (60, 60) {
                    continue;
                }
                let tag_at = 5 + usize::from(*frame.payload.get(4).context("consumer tag")?);
                self.delivery = Some((be_u64(&frame.payload, tag_at)?, 0, Vec::new()));
            } else if let Some(received) = self.body_frame(&frame)? {
                return Ok(received);
            }
        }
    }

    fn ack(&mut self, received: &Received) -> anyhow::Result<()> {
        let mut ack = received.tag.parse::<u64>()?.to_be_bytes().to_vec();
        ack.push(0);
        self.call(1, 60, 80, &ack)
    }
}

fn be_u16(bytes: &[u8], at: usize) -> anyhow::Result<u16> {
    let part = bytes.get(at..at + 2).context("frame cut short")?;
    Ok(u16::from_be_bytes(part.try_into()?))
}

fn be_u64(bytes: &[u8], at: usize) -> anyhow::Result<u64> {
    let part = bytes.get(at..at + 8).context("frame cut short")?;
    Ok(u64::from_be_bytes(part.try_into()?))
}
