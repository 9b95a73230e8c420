//! A small STOMP 1.2 client that shows frames as they are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Stomp {
    socket: TcpStream,
    input: Vec<u8>,
}

#[derive(Debug)]
pub struct Frame {
    pub command: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Frame {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

impl Stomp {
    pub fn connect(address: &str) -> Self {
        Self::connect_as("guest", address)
    }

    /// The password is the user's name.
    pub fn connect_as(user: &str, address: &str) -> Self {
        let mut stomp = Self::open(address);
        let login = format!("login:{user}\npasscode:{user}");
        stomp.send(&format!("CONNECT\naccept-version:1.2\nhost:/\n{login}\n\n"));
        let connected = stomp.receive();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        stomp
    }

    /// None if nobody answers there, or closes at once.
    pub fn try_connect(address: &str) -> Option<Self> {
        let mut socket = TcpStream::connect(address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        socket.set_nodelay(true).ok()?;
        let connect = b"CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0";
        socket.write_all(connect).ok()?;
        let mut buffer = [0; 16 * 1024];
        let read = socket.read(&mut buffer).ok().filter(|read| *read > 0)?;
        let mut stomp = Self { socket, input: buffer[..read].to_vec() };
        let connected = stomp.receive();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        Some(stomp)
    }

    pub fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, input: Vec::new() }
    }

    /// The frame without its NUL.
    pub fn send(&mut self, frame: &str) {
        self.socket.write_all(format!("{frame}\0").as_bytes()).unwrap();
    }

    /// As it is: the rest is to follow.
    pub fn send_part(&mut self, part: &str) {
        self.socket.write_all(part.as_bytes()).unwrap();
    }

    pub fn receive(&mut self) -> Frame {
        self.try_receive().expect("the broker closed the connection")
    }

    /// None when the connection has ended.
    pub fn try_receive(&mut self) -> Option<Frame> {
        loop {
            let begin = self.input.iter().take_while(|b| **b == b'\n').count();
            if let Some(end) = self.input[begin..].iter().position(|b| *b == 0) {
                let text = String::from_utf8_lossy(&self.input[begin..begin + end]).into_owned();
                self.input.drain(..=begin + end);
                let (head, body) = text.split_once("\n\n").unwrap();
                let mut lines = head.lines();
                return Some(Frame {
                    command: lines.next().unwrap().to_owned(),
                    headers: lines
                        .filter_map(|line| line.split_once(':'))
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                    body: body.to_owned(),
                });
            }
            let mut buffer = [0; 16 * 1024];
            let read = self.socket.read(&mut buffer).ok().filter(|read| *read > 0)?;
            self.input.extend_from_slice(&buffer[..read]);
        }
    }

    /// Sends `bodies`, each with a receipt, and waits for all receipts.
    pub fn publish(&mut self, destination: &str, bodies: impl IntoIterator<Item = String>) {
        let mut count = 0;
        for body in bodies {
            self.send(&format!(
                "SEND\ndestination:{destination}\npersistent:true\nreceipt:{count}\n\n{body}"
            ));
            count += 1;
        }
        for _ in 0..count {
            let receipt = self.receive();
            assert_eq!(receipt.command, "RECEIPT", "{receipt:?}");
        }
    }

    /// False if it is not known to be taken.
    pub fn try_publish(&mut self, destination: &str, body: &str) -> bool {
        let frame = format!("SEND\ndestination:{destination}\nreceipt:r\n\n{body}\0");
        self.socket.write_all(frame.as_bytes()).is_ok()
            && self.try_receive().is_some_and(|frame| frame.command == "RECEIPT")
    }

    /// Receives and acks `count` messages of a queue.
    pub fn consume(&mut self, destination: &str, count: usize) -> Vec<String> {
        self.send(&format!(
            "SUBSCRIBE\nid:1\ndestination:{destination}\nack:client-individual\n\n"
        ));
        let mut bodies = Vec::new();
        for number in 0..count {
            let message = self.receive();
            assert_eq!(message.command, "MESSAGE", "{message:?}");
            self.send(&format!("ACK\nid:{}\nreceipt:a{number}\n\n", message.header("ack")));
            bodies.push(message.body);
            let next = self.receive_receipt(&format!("a{number}"), &mut bodies, count);
            if next == count {
                break;
            }
        }
        bodies
    }

    /// Bodies of the messages that come until the broker closes the connection.
    pub fn rest(&mut self) -> Vec<String> {
        let _ = self.socket.read_to_end(&mut self.input);
        let mut bodies = Vec::new();
        while self.input.contains(&0) {
            let frame = self.receive();
            if frame.command == "MESSAGE" {
                bodies.push(frame.body);
            }
        }
        bodies
    }

    /// Deliveries may come before the receipt of an ack.
    fn receive_receipt(&mut self, id: &str, bodies: &mut Vec<String>, count: usize) -> usize {
        let mut waiting = vec![id.to_owned()];
        while !waiting.is_empty() {
            let frame = self.receive();
            if frame.command == "RECEIPT" {
                waiting.retain(|id| id != frame.header("receipt-id"));
            } else {
                assert_eq!(frame.command, "MESSAGE", "{frame:?}");
                let id = format!("b{}", bodies.len());
                self.send(&format!("ACK\nid:{}\nreceipt:{id}\n\n", frame.header("ack")));
                bodies.push(frame.body);
                waiting.push(id);
            }
        }
        assert!(bodies.len() <= count, "{} messages instead of {count}", bodies.len());
        bodies.len()
    }
}
