//! A small blocking STOMP 1.2 client for the demo.

use super::client::{Confirmed, DemoClient, Received};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(super) struct StompClient {
    socket: TcpStream,
    input: Vec<u8>,
    next_receipt: u64,
}

struct Frame {
    command: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Frame {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl StompClient {
    pub(super) fn connect(address: &str) -> anyhow::Result<Self> {
        let target = address.parse().context("address")?;
        let socket = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut client = Self { socket, input: Vec::new(), next_receipt: 1 };
        client
            .socket
            .write_all(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0")?;
        let connected = client.read_frame()?;
        if connected.command != "CONNECTED" {
            bail!("login: {} {}", connected.command, connected.body);
        }
        Ok(client)
    }

    fn read_frame(&mut self) -> anyhow::Result<Frame> {
        loop {
            let begin = self.input.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
            // The demo's bodies hold no NUL, so the first one ends the frame.
            if let Some(end) = self.input[begin..].iter().position(|b| *b == 0) {
                let frame = String::from_utf8_lossy(&self.input[begin..begin + end]).into_owned();
                self.input.drain(..=begin + end);
                return parse(&frame);
            }
            let mut buffer = [0; 64 * 1024];
            let read = self.socket.read(&mut buffer)?;
            if read == 0 {
                bail!("the broker closed the connection");
            }
            self.input.extend_from_slice(&buffer[..read]);
        }
    }
}

fn parse(frame: &str) -> anyhow::Result<Frame> {
    let (head, body) = frame.split_once("\n\n").context("a frame without an empty line")?;
    let mut lines = head.lines();
    let command = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Frame { command, headers, body: body.to_owned() })
}

impl DemoClient for StompClient {
    fn publish(&mut self, queue: &str, bodies: &[String]) -> anyhow::Result<()> {
        let mut out = String::new();
        for body in bodies {
            write!(
                out,
                "SEND\ndestination:/queue/{queue}\npersistent:true\nreceipt:{}\n\n{body}\0",
                self.next_receipt
            )?;
            self.next_receipt += 1;
        }
        Ok(self.socket.write_all(out.as_bytes())?)
    }

    fn wait_confirms(&mut self) -> anyhow::Result<Confirmed> {
        let frame = self.read_frame()?;
        if frame.command != "RECEIPT" {
            bail!("expected a receipt, the broker sent {} {}", frame.command, frame.body);
        }
        Ok(Confirmed::Next)
    }

    fn consume(&mut self, queue: &str) -> anyhow::Result<()> {
        let subscribe = format!(
            "SUBSCRIBE\nid:1\ndestination:/queue/{queue}\nack:client-individual\n\
             prefetch-count:500\n\n\0"
        );
        Ok(self.socket.write_all(subscribe.as_bytes())?)
    }

    fn receive(&mut self) -> anyhow::Result<Received> {
        let frame = self.read_frame()?;
        if frame.command != "MESSAGE" {
            bail!("expected a message, the broker sent {} {}", frame.command, frame.body);
        }
        let tag = frame.header("ack").context("ack header")?.to_owned();
        Ok(Received { body: frame.body, tag })
    }

    fn ack(&mut self, received: &Received) -> anyhow::Result<()> {
        Ok(self.socket.write_all(format!("ACK\nid:{}\n\n\0", received.tag).as_bytes())?)
    }
}
