//! Garbage, half frames, oversized frames and slow readers on every port: a protocol error or a
//! closed connection, no panic, bounded memory, nobody else affected.

use crate::support::Node;
use crate::support::stomp::Stomp;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Sends and reads until the broker closes, or nothing more comes.
fn provoke(address: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = [0; 4096];
    while matches!(socket.read(&mut answer), Ok(read) if read > 0) {}
}

fn amqp_frame(kind: u8, channel: u16, size: u32, payload: &[u8], end: u8) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(channel.to_be_bytes());
    frame.extend(size.to_be_bytes());
    frame.extend(payload);
    frame.push(end);
    frame
}

fn resident_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn garbage_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let mut bystander = Stomp::connect(&node.ports.stomp);
    let ports = node.ports.clone();
    let header = b"AMQP\0\0\x09\x01".to_vec();
    let mut cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"AMQP\0\x01\0\0".to_vec(),
        [header.clone(), amqp_frame(9, 0, 1, b"x", 0xce)].concat(),
        [header.clone(), amqp_frame(1, 0, u32::MAX, b"", 0xce)].concat(),
        [header.clone(), amqp_frame(1, 0, 4, b"\0\x0a\0\x0b", 0)].concat(),
        [header.clone(), amqp_frame(1, 0, 4, b"\0\x0a\0\x0b", 0xce)].concat(),
        [header.clone(), amqp_frame(1, 7, 4, b"\0\x3c\0\x28", 0xce)].concat(),
        header.clone(),
        b"CONNECT\naccept-version:1.2\ncontent-length:99999999999\n\n\0".to_vec(),
        b"CONNECT\naccept-version:9.9\nlogin:guest\npasscode:guest\n\n\0".to_vec(),
        b"SEND\ndestination:/queue/x\n\nbefore connecting\0".to_vec(),
        [b"CONNECT\n".to_vec(), vec![b'h'; 200_000]].concat(),
        vec![0; 100_000],
        vec![0xff; 100_000],
    ];
    let mut random = 0x5eed_u64;
    for _ in 0..60 {
        let length = xorshift(&mut random) % 2_000;
        let noise: Vec<u8> = (0..length).map(|_| xorshift(&mut random) as u8).collect();
        cases.push(if xorshift(&mut random).is_multiple_of(2) {
            [header.clone(), noise].concat()
        } else {
            noise
        });
    }
    for case in &cases {
        for address in [&ports.amqp, &ports.stomp, &ports.native] {
            provoke(address, case);
        }
    }
    bystander.publish("/queue/bystander", (0..20).map(|n| n.to_string()));
    assert_eq!(bystander.consume("/queue/bystander", 20).len(), 20);
    assert!(node.is_running(), "{}", node.log());
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn half_open_frames_and_slow_readers_cost_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let body = "x".repeat(10_000);
    let mut publisher = Stomp::connect(&node.ports.stomp);
    for _ in 0..10 {
        publisher.publish("/queue/slow", (0..1_000).map(|_| body.clone()));
    }
    let before = resident_bytes(node.pid());
    // Each asks for everything and reads nothing.
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut stomp = Stomp::connect(&node.ports.stomp);
        stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/slow\nack:auto\nprefetch-count:0\n\n");
        slow.push(stomp);
    }
    let mut half: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(&node.ports.amqp).unwrap();
        socket.write_all(b"AMQP\0\0\x09\x01\x01\0\0\0\0\x0f\xff").unwrap();
        half.push(socket);
    }
    // The broker goes on for others, and holds no more than its limits say.
    let mut other = Stomp::connect(&node.ports.stomp);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        other.publish("/queue/other", (0..10).map(|n| n.to_string()));
    }
    let grown = resident_bytes(node.pid()).saturating_sub(before);
    assert!(grown < 150 << 20, "grew by {} MiB", grown >> 20);
    assert!(node.is_running());
    drop((slow, half));
    let mut reader = Stomp::connect(&node.ports.stomp);
    reader.publish("/queue/after", ["done".to_owned()]);
    assert_eq!(reader.consume("/queue/after", 1), ["done"]);
}
