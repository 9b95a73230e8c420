//! `cargo bench --bench idle`: what idle connections cost one node, resident bytes each and share of
//! a core: 16,000 over STOMP with heart-beats each 10 s both ways, 10,000 over AMQP with 60 s.
//! Other numbers: `-- --connections N --seconds S`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/support/mod.rs"]
mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// A port range has about 28,000 ports for one pair of addresses.
const CONNECTIONS_PER_ADDRESS: usize = 8_000;
/// So many handshakes at a time.
const CONNECTING_MAX: usize = 64;
/// Clock ticks per second of /proc (sysconf _SC_CLK_TCK, always 100 on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy)]
struct Protocol {
    name: &'static str,
    connections: usize,
    beat: &'static [u8],
    beat_each: Duration,
    /// Resident bytes for each connection, and share of a core, that issues 4 and 6 allow.
    targets: (u64, Option<f64>),
}

const STOMP: Protocol = Protocol {
    name: "STOMP",
    connections: 16_000,
    beat: b"\n",
    beat_each: Duration::from_secs(9),
    targets: (10_000, Some(0.1)),
};
const AMQP: Protocol = Protocol {
    name: "AMQP",
    connections: 10_000,
    beat: &[8, 0, 0, 0, 0, 0, 0, 0xce],
    beat_each: Duration::from_secs(30),
    targets: (12_000, None),
};

struct Usage {
    resident_bytes: u64,
    cpu_s: f64,
}

fn usage(pid: u32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    Usage {
        resident_bytes: resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024,
        cpu_s: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
    }
}

async fn open(number: usize, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let host = 1 + number / CONNECTIONS_PER_ADDRESS;
    socket.bind(format!("127.0.0.{host}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn read_until(socket: &mut TcpStream, end: u8) {
    let mut buffer = [0; 4096];
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        if buffer[read - 1] == end {
            return;
        }
    }
}

fn method(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0];
    frame.extend((arguments.len() as u32 + 4).to_be_bytes());
    frame.extend(class.to_be_bytes());
    frame.extend(method.to_be_bytes());
    frame.extend(arguments);
    frame.push(0xce);
    frame
}

async fn log_in(protocol: Protocol, socket: &mut TcpStream) {
    if protocol.name == STOMP.name {
        let connect = "CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\
                       heart-beat:10000,10000\n\n\0";
        socket.write_all(connect.as_bytes()).await.unwrap();
        // A line end follows the frame's NUL.
        return read_until(socket, b'\n').await;
    }
    socket.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    read_until(socket, 0xce).await;
    let start_ok = b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
    socket.write_all(&method(10, 11, start_ok)).await.unwrap();
    read_until(socket, 0xce).await;
    // channel-max 2047, frame-max 131072, heartbeat 60
    let tune_ok = [7, 0xff, 0, 2, 0, 0, 0, 60];
    socket.write_all(&method(10, 31, &tune_ok)).await.unwrap();
    socket.write_all(&method(10, 40, b"\x01/\0\0")).await.unwrap();
    read_until(socket, 0xce).await;
}

/// Beats for ever, and reads what comes.
async fn idle(protocol: Protocol, mut socket: TcpStream) {
    let mut beat = tokio::time::interval(protocol.beat_each);
    let mut buffer = [0; 64];
    loop {
        tokio::select! {
            read = socket.read(&mut buffer) => {
                assert!(read.unwrap() > 0, "the server closed an idle connection");
            }
            _ = beat.tick() => socket.write_all(protocol.beat).await.unwrap(),
        }
    }
}

async fn measure(protocol: Protocol, connections: usize, seconds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let address = if protocol.name == STOMP.name { &node.ports.stomp } else { &node.ports.amqp };
    let to: SocketAddr = address.parse().unwrap();
    let before = usage(node.pid());
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..connections {
        let permit = connecting.clone().acquire_owned().await.unwrap();
        opening.spawn(async move {
            let mut socket = open(number, to).await;
            log_in(protocol, &mut socket).await;
            drop(permit);
            socket
        });
    }
    let mut clients = tokio::task::JoinSet::new();
    while let Some(socket) = opening.join_next().await {
        clients.spawn(idle(protocol, socket.unwrap()));
    }
    // One round of beats, after which the buffers are what they stay.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let (begin, start) = (Instant::now(), usage(node.pid()));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let end = usage(node.pid());
    if let Some(ended) = clients.try_join_next() {
        ended.unwrap();
    }
    let each = (end.resident_bytes - before.resident_bytes) / connections as u64;
    let share = (end.cpu_s - start.cpu_s) / begin.elapsed().as_secs_f64();
    let (bytes_max, share_max) = protocol.targets;
    let share_max = share_max.map_or(String::new(), |max| format!(" (at most {:.0})", max * 100.0));
    println!(
        "| {connections} idle {} connections | {each} bytes each (at most {bytes_max}) | \
         {:.1} % of a core{share_max} |",
        protocol.name,
        share * 100.0
    );
}

fn main() {
    // The server inherits it.
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit =
        Rlimit { current: Some(hard.map_or(40_000, |hard| hard.min(40_000))), maximum: hard };
    setrlimit(Resource::Nofile, limit).unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let seconds = option("--seconds").unwrap_or(30) as u64;
    println!("| what | resident | CPU |\n|---|---|---|");
    for protocol in [STOMP, AMQP] {
        let connections = option("--connections").unwrap_or(protocol.connections);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(measure(protocol, connections, seconds));
    }
}
