//! STOMP 1.2 in a hundred lines: receipts for publishes and for some acks.

use crate::clients::{Consumer, Outcome, Publisher, Received};
use crate::support::USER;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFETCH: u32 = 20;
/// The broker's promise, and how long it may be silent until the connection is given up.
const BEAT_MS: u64 = 1_000;
const SILENCE_MAX: Duration = Duration::from_secs(3);

struct Stomp {
    socket: TcpStream,
    input: Vec<u8>,
    heard: Instant,
    next_receipt: u64,
}

struct Frame {
    command: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Frame {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// A frame from the front of `input`, and how many bytes it took.
fn parse(input: &[u8]) -> Option<(Frame, usize)> {
    let begin = input.iter().take_while(|byte| **byte == b'\n').count();
    let head_len = input[begin..].windows(2).position(|pair| pair == b"\n\n")?;
    let head = String::from_utf8_lossy(&input[begin..begin + head_len]).into_owned();
    let mut lines = head.lines();
    let command = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut frame = Frame { command, headers, body: Vec::new() };
    let rest = &input[begin + head_len + 2..];
    let length = match frame.header("content-length").parse::<usize>() {
        Ok(length) => length,
        Err(_) => rest.iter().position(|byte| *byte == 0)?,
    };
    frame.body = rest.get(..length)?.to_vec();
    (rest.len() > length).then_some((frame, begin + head_len + 2 + length + 1))
}

impl Stomp {
    async fn connect(addresses: &[String]) -> Outcome<Self> {
        let mut why = String::new();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => {
                    let (input, heard) = (Vec::new(), Instant::now());
                    let mut stomp = Self { socket, input, heard, next_receipt: 1 };
                    let head = format!(
                        "accept-version:1.2\nhost:/\nlogin:{USER}\npasscode:{USER}\n\
                         heart-beat:0,{BEAT_MS}"
                    );
                    stomp.send("CONNECT", &head, b"").await?;
                    stomp.expect("CONNECTED").await?;
                    return Ok(stomp);
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    async fn send(&mut self, command: &str, head: &str, body: &[u8]) -> Outcome<()> {
        let mut frame = format!("{command}\n{head}\n\n").into_bytes();
        frame.extend_from_slice(body);
        frame.push(0);
        self.socket.write_all(&frame).await.map_err(|error| error.to_string())
    }

    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Outcome<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.input) {
                self.input.drain(..length);
                return match frame.command.as_str() {
                    "ERROR" => Err(frame.header("message").to_owned()),
                    _ => Ok(frame),
                };
            }
            let read = self.socket.read_buf(&mut self.input).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the broker closed the connection".to_owned());
            }
            self.heard = Instant::now();
        }
    }

    async fn expect(&mut self, command: &str) -> Outcome<Frame> {
        let frame = self.next().await?;
        match frame.command == command {
            true => Ok(frame),
            false => Err(format!("{} instead of {command}", frame.command)),
        }
    }

    fn receipt(&mut self) -> u64 {
        self.next_receipt += 1;
        self.next_receipt
    }
}

pub(crate) struct StompPublisher {
    stomp: Stomp,
    queue: String,
    receipts: VecDeque<u64>,
}

impl Publisher for StompPublisher {
    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let stomp = Stomp::connect(addresses).await?;
        Ok(Self { stomp, queue: queue.to_owned(), receipts: VecDeque::new() })
    }

    async fn send(&mut self, body: Vec<u8>) -> Outcome<()> {
        let receipt = self.stomp.receipt();
        let head = format!(
            "destination:/queue/{}\npersistent:true\nreceipt:{receipt}\ncontent-length:{}",
            self.queue,
            body.len()
        );
        self.receipts.push_back(receipt);
        self.stomp.send("SEND", &head, &body).await
    }

    async fn confirmed(&mut self) -> Outcome<()> {
        let oldest = self.receipts.pop_front().ok_or("nothing to be confirmed")?;
        let frame = self.stomp.expect("RECEIPT").await?;
        match frame.header("receipt-id") == oldest.to_string() {
            true => Ok(()),
            false => Err("receipts out of order".to_owned()),
        }
    }
}

pub(crate) struct StompConsumer {
    stomp: Stomp,
    /// Came while a receipt was awaited.
    early: VecDeque<Frame>,
}

impl StompConsumer {
    fn as_received(frame: Frame) -> Received<String> {
        let redelivered = frame.header("redelivered") == "true";
        let handle = frame.header("ack").to_owned();
        Received { body: frame.body, redelivered, handle }
    }
}

impl Consumer for StompConsumer {
    type Handle = String;

    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let mut stomp = Stomp::connect(addresses).await?;
        let head = format!(
            "id:1\ndestination:/queue/{queue}\nack:client-individual\nprefetch-count:{PREFETCH}"
        );
        stomp.send("SUBSCRIBE", &head, b"").await?;
        Ok(Self { stomp, early: VecDeque::new() })
    }

    async fn receive(&mut self) -> Outcome<Received<String>> {
        if let Some(frame) = self.early.pop_front() {
            return Ok(Self::as_received(frame));
        }
        // Called again and again by whoever waits, so the limit needs no clock of its own.
        if self.stomp.heard.elapsed() > SILENCE_MAX {
            return Err(format!("the broker is silent for {SILENCE_MAX:?}"));
        }
        self.stomp.expect("MESSAGE").await.map(Self::as_received)
    }

    async fn settle(&mut self, id: String) -> Outcome<()> {
        self.stomp.send("ACK", &format!("id:{id}"), b"").await
    }

    async fn settle_for_good(&mut self, id: String) -> Outcome<bool> {
        let receipt = self.stomp.receipt().to_string();
        self.stomp.send("ACK", &format!("id:{id}\nreceipt:{receipt}"), b"").await?;
        loop {
            let frame = self.stomp.next().await?;
            match frame.command.as_str() {
                "RECEIPT" if frame.header("receipt-id") == receipt => return Ok(true),
                "MESSAGE" => self.early.push_back(frame),
                other => return Err(format!("{other} instead of a receipt")),
            }
        }
    }

    async fn give_back(&mut self, id: String) -> Outcome<()> {
        self.stomp.send("NACK", &format!("id:{id}"), b"").await
    }
}
