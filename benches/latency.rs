//! `cargo bench --bench latency`: what a confirm costs with one outstanding publish, beside what a
//! single commit of the storage costs on the same disk, in turns; one node, and a pair. A commit is one
//! of LMDB's transactions, flushed twice, which the target was set by, or what a small one is now
//! (`storage/src/redo.rs`). Both nodes of the pair are on one disk here, so what two commits at once
//! cost is shown as well: a pair on two machines does not pay that.
//! The rest of the targets is measured by `benches/peers`.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use support::{Node, Pair};

const BODY_BYTES: usize = 1024;
const COMMITS: usize = 2_000;
const RUNS: usize = 5;

/// A commit with a view is LMDB's at once.
#[derive(Clone, Copy)]
enum Commit {
    Small,
    Transaction,
}

/// Each committer has a log of its own; they begin each commit together, and it ends when the last
/// of them has synced. Microseconds.
fn median_commit(directory: &Path, commit: Commit, committers: usize) -> f64 {
    let together = Barrier::new(committers);
    let mut commits = std::thread::scope(|scope| {
        let start = |n: usize| {
            let (directory, together) = (directory.join(n.to_string()), &together);
            scope.spawn(move || commits(&directory, commit, together))
        };
        let threads: Vec<_> = (0..committers).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).next_back().unwrap()
    });
    commits.sort_unstable();
    commits[COMMITS / 2].as_secs_f64() * 1e6
}

fn commits(directory: &Path, commit: Commit, together: &Barrier) -> Vec<Duration> {
    use understudy_model::{Lsn, OpenGroup};
    use understudy_storage::{Batch, Log, LogOptions};
    let (mut log, ..) = Log::open(directory, &LogOptions::default()).unwrap();
    let mut open = OpenGroup::new(Lsn(1));
    let view = match commit {
        Commit::Small => None,
        Commit::Transaction => Some(&[][..]),
    };
    let commit = |_| {
        open.push(|out| out.extend_from_slice(&[7; BODY_BYTES]));
        together.wait();
        let start = Instant::now();
        let group = open.seal(1, 0, log.end().last_chain);
        log.commit(&Batch { groups: &[group], view }).unwrap();
        together.wait();
        start.elapsed()
    };
    (0..COMMITS).map(commit).collect()
}

/// Microseconds.
fn median_confirm(address: &str) -> f64 {
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["bench", "--url", &format!("amqp://{address}"), "--json", "--quiet"])
        .args(["--phases", "fill", "--window", "1", "--messages", &COMMITS.to_string()])
        .output()
        .unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    result["phases"][0]["confirm_us"]["p50"].as_f64().unwrap()
}

fn compare(name: &str, address: &str, commit: Commit, committers: usize) {
    let mut runs: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| {
            let directory = tempfile::tempdir().unwrap();
            let before = median_commit(&directory.path().join("before"), commit, committers);
            let confirm = median_confirm(address);
            let after = median_commit(&directory.path().join("after"), commit, committers);
            (f64::midpoint(before, after), confirm)
        })
        .collect();
    let ratio = |run: &(f64, f64)| run.1 / run.0;
    runs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let (took, confirm) = runs[RUNS / 2];
    let what = match (commit, committers) {
        (Commit::Transaction, _) => "one transaction of LMDB's, flushed twice,",
        (Commit::Small, 1) => "a single small commit",
        (Commit::Small, _) => "two small commits at once",
    };
    println!(
        "| {name}: confirm with one outstanding, p50 | {confirm:.0} µs; {what} \
         {took:.0} µs; ratio {:.2} (spread {:.2}–{:.2}) |",
        confirm / took,
        ratio(&runs[0]),
        ratio(&runs[RUNS - 1])
    );
}

fn main() {
    println!("| what | measured |\n|---|---|");
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    compare("standalone", &node.ports.amqp, Commit::Transaction, 1);
    compare("standalone", &node.ports.amqp, Commit::Small, 1);
    drop(node);
    let pair = Pair::in_sync();
    compare("pair", &pair.master.ports.amqp, Commit::Transaction, 1);
    compare("pair", &pair.master.ports.amqp, Commit::Small, 1);
    compare("pair", &pair.master.ports.amqp, Commit::Small, 2);
}
