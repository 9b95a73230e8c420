//! A thread that moves some connections: works, waits, reads, as one loop.

use super::connection::Connection;
use super::meter::{Latencies, Shared};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How soon a thread sees that the phase ends, nanoseconds.
const LOOK_UP_NS: u64 = 10_000_000;
/// For the brokers' goodbyes.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until the phase is stopped and the connections are closed; gives them back.
pub(super) fn run(mut connections: Vec<Connection>, shared: &Arc<Shared>) -> Vec<Connection> {
    let mut latencies = match Latencies::new() {
        Ok(latencies) => latencies,
        Err(error) => {
            shared.fail(error);
            return connections;
        }
    };
    let mut readable = Vec::new();
    let mut goodbye_until = None;
    while connections.iter().any(|connection| !connection.is_ended()) {
        if shared.stop.load(Ordering::Acquire) {
            let until = *goodbye_until.get_or_insert_with(|| Instant::now() + GOODBYE_PATIENCE);
            if Instant::now() > until {
                break;
            }
        }
        for connection in &mut connections {
            connection.work(shared, &mut latencies);
        }
        wait(&connections, shared, &mut readable);
        for &at in &readable {
            connections[at].read(shared, &mut latencies);
        }
    }
    shared.merge(&latencies);
    connections
}

/// Fills `readable` with the indices of the connections that have something to read.
fn wait(connections: &[Connection], shared: &Shared, readable: &mut Vec<usize>) {
    readable.clear();
    let mut wait_ns = LOOK_UP_NS;
    let mut indices = Vec::with_capacity(connections.len());
    let mut polled = Vec::with_capacity(connections.len());
    for (at, connection) in connections.iter().enumerate() {
        if connection.is_ended() {
            continue;
        }
        wait_ns = wait_ns.min(connection.wait_ns(shared).unwrap_or(u64::MAX));
        if let Some((socket, writes)) = connection.interest() {
            let flags = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            polled.push(PollFd::new(socket, flags));
            indices.push(at);
        }
    }
    // At most ten milliseconds: it fits.
    let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as i64 };
    if poll(&mut polled, Some(&timeout)).is_err() {
        // Interrupted: the next turn looks again.
        return;
    }
    let events = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
    let found = indices.iter().zip(&polled).filter(|(_, fd)| fd.revents().intersects(events));
    readable.extend(found.map(|(&at, _)| at));
}
