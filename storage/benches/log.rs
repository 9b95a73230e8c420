//! `cargo bench -p understudy-storage`: the log against a plain file with fdatasync, and a queue
//! with a long backlog and mixed sizes. Prints the tables of docs/storage-benchmark.md. Bounded
//! to a few minutes; `-- quick` runs a tenth.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]

use bytes::BufMut;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};
use understudy_model::{Group, Lsn, OpenGroup};
use understudy_storage::{Batch, Log, LogOptions};

const RECORD_BYTES: usize = 1024;

struct Timing {
    records_per_s: f64,
    p50: Duration,
    p99: Duration,
}

fn timing(mut samples: Vec<Duration>, records: usize) -> Timing {
    let total: Duration = samples.iter().sum();
    samples.sort_unstable();
    let at = |share: usize| samples[(samples.len() * share / 100).min(samples.len() - 1)];
    Timing {
        records_per_s: (samples.len() * records) as f64 / total.as_secs_f64(),
        p50: at(50),
        p99: at(99),
    }
}

fn plain_file(dir: &std::path::Path, records: usize, commits: usize) -> Timing {
    let mut file = std::fs::File::create(dir.join("plain")).unwrap();
    let buffer = vec![7; records * RECORD_BYTES];
    let samples = (0..commits)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&buffer).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    timing(samples, records)
}

fn group(log: &Log, sizes: impl Iterator<Item = usize>) -> Group {
    let end = log.end();
    let mut open = OpenGroup::new(end.last.next());
    for size in sizes {
        open.push(|out| out.put_bytes(7, size));
    }
    open.seal(1, 0, end.last_chain)
}

fn append(log: &mut Log, group: &Group) -> Duration {
    let start = Instant::now();
    log.commit(&Batch { groups: std::slice::from_ref(group), view: None }).unwrap();
    start.elapsed()
}

fn log_commits(dir: &std::path::Path, records: usize, commits: usize) -> Timing {
    let (mut log, ..) = Log::open(dir, &LogOptions::default()).unwrap();
    let mut samples = Vec::with_capacity(commits);
    for _ in 0..commits {
        // Sealing (hash and chain) belongs to the cost of a commit here.
        let start = Instant::now();
        let group = group(&log, std::iter::repeat_n(RECORD_BYTES, records));
        let sealing = start.elapsed();
        samples.push(sealing + append(&mut log, &group));
    }
    timing(samples, records)
}

fn compare(scale: usize) {
    println!(
        "| records of 1 KiB a commit | plain file + fdatasync: records/s | p50 / p99 µs | log: records/s | p50 / p99 µs | log ÷ file |"
    );
    println!("|---|---|---|---|---|---|");
    for (records, commits) in [(1, 3_000), (64, 2_000), (512, 1_000)] {
        let commits = commits / scale;
        // A B A B: the disk's mood changes.
        let dir = tempfile::tempdir().unwrap();
        let runs: Vec<(Timing, Timing)> = (0..3)
            .map(|run| {
                let sub = dir.path().join(run.to_string());
                std::fs::create_dir(&sub).unwrap();
                (plain_file(&sub, records, commits), log_commits(&sub, records, commits))
            })
            .collect();
        let median = |pick: &dyn Fn(&(Timing, Timing)) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[1]
        };
        let us = |d: Duration| d.as_secs_f64() * 1e6;
        println!(
            "| {records} | {:.0} | {:.0} / {:.0} | {:.0} | {:.0} / {:.0} | {:.2} |",
            median(&|r| r.0.records_per_s),
            median(&|r| us(r.0.p50)),
            median(&|r| us(r.0.p99)),
            median(&|r| r.1.records_per_s),
            median(&|r| us(r.1.p50)),
            median(&|r| us(r.1.p99)),
            median(&|r| r.1.records_per_s / r.0.records_per_s),
        );
    }
}

/// 100 B to 16 KiB, log-uniform.
fn size(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let exponent = (*state >> 11) as f64 / (1u64 << 53) as f64;
    (100.0 * 160f64.powf(exponent)) as usize
}

/// A FIFO with a backlog: groups of 512 in, the oldest segments out; each sixteenth segment is
/// never consumed, so that holes of its size stay.
fn soak(scale: usize) {
    let backlog = 1_000_000 / scale;
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ..) = Log::open(dir.path(), &LogOptions::default()).unwrap();
    let mut random = 42;
    let mut segments: VecDeque<(Lsn, Lsn, u64, usize)> = VecDeque::new();
    let (mut live, mut live_bytes, mut kept_bytes, mut count) = (0, 0, 0, 0u64);
    let mut peak_bytes = 0;
    println!("\n| part of the run | records/s | worst commit ms | file ÷ live bytes |");
    println!("|---|---|---|---|");
    let parts = 12;
    for part in 0..parts {
        let (start, mut records, mut worst) = (Instant::now(), 0, Duration::ZERO);
        while records < backlog / 3 {
            let group = group(&log, (0..512).map(|_| size(&mut random)));
            worst = worst.max(append(&mut log, &group));
            records += 512;
            live += 512;
            let bytes = group.bytes().len() as u64;
            live_bytes += bytes;
            match segments.back_mut() {
                Some(open) if open.2 < 16 << 20 => {
                    (open.1, open.2, open.3) = (group.last(), open.2 + bytes, open.3 + 512);
                }
                _ => segments.push_back((group.first(), group.last(), bytes, 512)),
            }
            while live > backlog && segments.len() > 1 {
                let Some((first, last, bytes, messages)) = segments.pop_front() else { break };
                count += 1;
                live -= messages;
                if count % 16 == 0 {
                    kept_bytes += bytes;
                } else {
                    live_bytes -= bytes;
                    log.reclaim(first, last);
                }
            }
        }
        peak_bytes = peak_bytes.max(live_bytes);
        let file = std::fs::metadata(dir.path().join("log/data.mdb")).unwrap().len();
        println!(
            "| {}/{parts} | {:.0} | {:.1} | {:.2} |",
            part + 1,
            f64::from(records as u32) / start.elapsed().as_secs_f64(),
            worst.as_secs_f64() * 1e3,
            file as f64 / peak_bytes as f64
        );
    }
    println!("\nkept for ever: {} MiB in holes", kept_bytes >> 20);
}

fn main() {
    let scale = if std::env::args().any(|argument| argument == "quick") { 10 } else { 1 };
    compare(scale);
    soak(scale);
}
