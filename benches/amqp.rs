//! `cargo bench --bench amqp`: the first targets, measured on the real process with raw AMQP:
//! server CPU per message, confirm latency with one outstanding beside a single commit of the
//! storage, and a restart with a backlog of a million. Prints what docs/benchmarks.md holds.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{Node, Pair};

const BODY_BYTES: usize = 1024;
const QUEUE: &str = "bench";

struct Amqp {
    socket: TcpStream,
    input: Vec<u8>,
    at: usize,
}

fn frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xce);
}

fn method(channel: u16, class: u16, id: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend(id.to_be_bytes());
    payload.extend(arguments);
    let mut out = Vec::new();
    frame(1, channel, &payload, &mut out);
    out
}

fn short(text: &str) -> Vec<u8> {
    let mut out = vec![text.len() as u8];
    out.extend(text.as_bytes());
    out
}

fn publish_bytes(body: &[u8]) -> Vec<u8> {
    let mut out = method(1, 60, 40, &[&[0, 0, 0][..], &short(QUEUE), &[0]].concat());
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend([0x10, 0, 2]);
    frame(2, 1, &header, &mut out);
    frame(3, 1, body, &mut out);
    out
}

impl Amqp {
    fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut amqp = Self { socket, input: Vec::new(), at: 0 };
        amqp.send(b"AMQP\0\0\x09\x01");
        amqp.wait(10, 10);
        let plain = b"\0guest\0guest";
        let mut start_ok = vec![0, 0, 0, 0];
        start_ok.extend(short("PLAIN"));
        start_ok.extend((plain.len() as u32).to_be_bytes());
        start_ok.extend(plain);
        start_ok.extend(short("en_US"));
        amqp.send(&method(0, 10, 11, &start_ok));
        amqp.wait(10, 30);
        amqp.send(&method(0, 10, 31, &[0, 16, 0, 2, 0, 0, 0, 0]));
        amqp.send(&method(0, 10, 40, b"\x01/\0\0"));
        amqp.wait(10, 41);
        amqp.send(&method(1, 20, 10, b"\0"));
        amqp.wait(20, 11);
        let declare = [&[0, 0][..], &short(QUEUE), &[0b10, 0, 0, 0, 0]].concat();
        amqp.send(&method(1, 50, 10, &declare));
        amqp.wait(50, 11);
        amqp
    }

    fn confirms(mut self) -> Self {
        self.send(&method(1, 85, 10, b"\0"));
        self.wait(85, 11);
        self
    }

    fn consume(&mut self, prefetch: u16) {
        let [high, low] = prefetch.to_be_bytes();
        self.send(&method(1, 60, 10, &[0, 0, 0, 0, high, low, 0]));
        self.wait(60, 11);
        let consume = [&[0, 0][..], &short(QUEUE), &short("c"), &[0, 0, 0, 0, 0]].concat();
        self.send(&method(1, 60, 20, &consume));
        self.wait(60, 21);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn wait(&mut self, class: u16, id: u16) {
        let found = self.next_method();
        assert_eq!((found.0, found.1), (class, id));
    }

    /// Class, method and arguments of the next method frame; content frames are skipped.
    fn next_method(&mut self) -> (u16, u16, Vec<u8>) {
        loop {
            let rest = &self.input[self.at..];
            if rest.len() >= 7 {
                let size = u32::from_be_bytes(rest[3..7].try_into().unwrap()) as usize;
                if rest.len() >= size + 8 {
                    self.at += size + 8;
                    if rest[0] == 1 {
                        let ids = [rest[7], rest[8], rest[9], rest[10]];
                        let class = u16::from_be_bytes([ids[0], ids[1]]);
                        let id = u16::from_be_bytes([ids[2], ids[3]]);
                        return (class, id, rest[11..7 + size].to_vec());
                    }
                    continue;
                }
            }
            self.input.drain(..self.at);
            self.at = 0;
            let mut buffer = [0; 256 * 1024];
            let read = self.socket.read(&mut buffer).unwrap();
            assert!(read > 0, "closed");
            self.input.extend_from_slice(&buffer[..read]);
        }
    }

    /// The highest number that is confirmed now.
    fn confirmed(&mut self) -> u64 {
        let (class, id, arguments) = self.next_method();
        assert_eq!((class, id), (60, 80));
        u64::from_be_bytes(arguments[..8].try_into().unwrap())
    }

    fn deliver(&mut self) -> u64 {
        loop {
            let (class, id, arguments) = self.next_method();
            if (class, id) == (60, 60) {
                let at = 1 + arguments[0] as usize;
                return u64::from_be_bytes(arguments[at..at + 8].try_into().unwrap());
            }
        }
    }

    fn ack(&mut self, tag: u64) {
        let mut arguments = tag.to_be_bytes().to_vec();
        arguments.push(1);
        self.send(&method(1, 60, 80, &arguments));
    }
}

/// User and system time of a process, all threads.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Resident memory: all, and without file pages (LMDB's map).
fn resident_mb(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kb = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (kb("VmRSS:") / 1024, kb("RssAnon:") / 1024)
}

fn produce(address: &str, count: u64, window: u64) {
    let mut producer = Amqp::connect(address).confirms();
    let one = publish_bytes(&[7; BODY_BYTES]);
    let batch: Vec<u8> = (0..10).flat_map(|_| one.clone()).collect();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < count {
        while sent < count && sent + 10 - confirmed <= window {
            producer.send(&batch);
            sent += 10;
        }
        confirmed = producer.confirmed();
    }
}

fn consume(address: &str, count: u64, ack_every: u64) {
    let mut consumer = Amqp::connect(address);
    consumer.consume(1_000);
    for number in 1..=count {
        let tag = consumer.deliver();
        if number % ack_every == 0 || number == count {
            consumer.ack(tag);
        }
    }
}

/// One producer, one consumer, window 1,000, ack every 100: messages per second and CPU.
fn flow(address: &str, pids: &[u32], count: u64) -> (f64, f64) {
    let before: Duration = pids.iter().map(|pid| cpu(*pid)).sum();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| produce(address, count, 1_000));
        scope.spawn(|| consume(address, count, 100));
    });
    let elapsed = start.elapsed().as_secs_f64();
    let used: Duration = pids.iter().map(|pid| cpu(*pid)).sum::<Duration>() - before;
    (count as f64 / elapsed, used.as_secs_f64() * 1e6 / count as f64)
}

fn percentile(samples: &mut [Duration], share: usize) -> f64 {
    samples.sort_unstable();
    samples[(samples.len() * share / 100).min(samples.len() - 1)].as_secs_f64() * 1e6
}

fn latency(address: &str, rounds: usize) -> Vec<Duration> {
    let mut producer = Amqp::connect(address).confirms();
    let one = publish_bytes(&[7; BODY_BYTES]);
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            producer.send(&one);
            producer.confirmed();
            start.elapsed()
        })
        .collect()
}

fn storage_commits(dir: &std::path::Path, rounds: usize) -> Vec<Duration> {
    use understudy_model::{Lsn, OpenGroup};
    use understudy_storage::{Batch, Log, LogOptions};
    let (mut log, ..) = Log::open(dir, &LogOptions::default()).unwrap();
    let mut open = OpenGroup::new(Lsn(1));
    (0..rounds)
        .map(|_| {
            open.push(|out| out.extend_from_slice(&[7; BODY_BYTES]));
            let start = Instant::now();
            let group = open.seal(1, 0, log.end().last_chain);
            log.commit(&Batch { groups: &[group], view: None }).unwrap();
            start.elapsed()
        })
        .collect()
}

fn throughput(name: &str, address: &str, pids: &[u32]) {
    flow(address, pids, 20_000);
    let mut runs: Vec<(f64, f64)> = (0..3).map(|_| flow(address, pids, 200_000)).collect();
    runs.sort_by(|one, other| one.1.total_cmp(&other.1));
    let (rate, cost) = runs[1];
    println!(
        "| {name}: 1 producer, 1 consumer, 1 KiB persistent, window 1,000, ack each 100 | \
         {rate:.0} msg/s, server CPU {cost:.2} µs/msg (spread {:.2}–{:.2}) |",
        runs[0].1, runs[2].1
    );
}

fn compare_latency(name: &str, address: &str, dir: &std::path::Path) {
    let mut ratios = Vec::new();
    let mut medians = (0.0, 0.0);
    for run in 0..3 {
        let sub = dir.join(format!("{name}-{run}"));
        let commit = percentile(&mut storage_commits(&sub, 1_000), 50);
        let confirm = percentile(&mut latency(address, 1_000), 50);
        medians = (commit, confirm);
        ratios.push(confirm / commit);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "| {name}: confirm with one outstanding, p50 | {:.0} µs; a single commit {:.0} µs; ratio \
         {:.2} (spread {:.2}–{:.2}) |",
        medians.1, medians.0, ratios[1], ratios[0], ratios[2]
    );
}

fn restart(node: &mut Node) {
    let count = 1_000_000;
    let start = Instant::now();
    produce(&node.ports.amqp, count, 5_000);
    let fill = count as f64 / start.elapsed().as_secs_f64();
    let filled = resident_mb(node.pid());
    node.kill();
    let start = Instant::now();
    node.start();
    let mut consumer = loop {
        if let Ok(socket) = TcpStream::connect(&node.ports.amqp) {
            drop(socket);
            break Amqp::connect(&node.ports.amqp);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    consumer.consume(1_000);
    consumer.deliver();
    let first = start.elapsed();
    let (all, anonymous) = resident_mb(node.pid());
    println!(
        "| fill 1,000,000 x 1 KiB | {fill:.0} msg/s; resident {} MB ({} MB without file pages) |",
        filled.0, filled.1
    );
    println!(
        "| kill -9 with that backlog, start to first delivery | {:.2} s; resident {all} MB ({anonymous} MB without file pages) |",
        first.as_secs_f64()
    );
    drop(consumer);
    let start = Instant::now();
    consume(&node.ports.amqp, count, 100);
    let drain = count as f64 / start.elapsed().as_secs_f64();
    let (all, anonymous) = resident_mb(node.pid());
    println!("| drain | {drain:.0} msg/s; resident {all} MB ({anonymous} MB without file pages) |");
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    println!("| what | measured |\n|---|---|");
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let address = node.ports.amqp.clone();
    throughput("standalone", &address, &[node.pid()]);
    compare_latency("standalone", &address, directory.path());
    restart(&mut node);
    drop(node);
    let pair = Pair::in_sync();
    let address = pair.master.ports.amqp.clone();
    throughput("pair, both nodes", &address, &[pair.master.pid(), pair.slave.pid()]);
    compare_latency("pair", &address, directory.path());
}
