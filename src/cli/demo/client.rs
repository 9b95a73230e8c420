//! What the demo asks of a client of any protocol, and the publisher that survives a takeover.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) enum Confirmed {
    /// The oldest without an answer: confirms of one connection come in order.
    Next,
    Through(u64),
}

pub(super) struct Received {
    pub(super) body: String,
    /// What the protocol acks it by.
    pub(super) tag: String,
}

pub(super) trait DemoClient {
    /// Numbers of confirms count from 1 for each connection.
    fn publish(&mut self, queue: &str, bodies: &[String]) -> anyhow::Result<()>;
    fn wait_confirms(&mut self) -> anyhow::Result<Confirmed>;
    fn consume(&mut self, queue: &str) -> anyhow::Result<()>;
    fn receive(&mut self) -> anyhow::Result<Received>;
    fn ack(&mut self, received: &Received) -> anyhow::Result<()>;
}

/// Shared with the thread that shows progress.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) stop: AtomicBool,
    /// The master was killed: the next confirm comes from the slave.
    pub(super) killed: AtomicBool,
    pub(super) confirmed: AtomicU64,
}

/// What a publisher can say in the end.
pub(super) struct Published {
    pub(super) confirmed: u64,
    /// Sent a second time because the first answer was lost.
    pub(super) resent: u64,
    pub(super) first_confirm_at_slave: Option<Instant>,
}

const WINDOW: usize = 200;
const BATCH: usize = 20;
/// After the takeover a publisher goes on for so long before it stops.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Publishes `name-1`, `name-2`, … until told to stop and everything is confirmed. A connection
/// that breaks is made anew through `connect`, and what was not confirmed is sent again.
pub(super) fn publish_until_stopped<C: DemoClient>(
    name: &str,
    queue: &str,
    progress: &Progress,
    mut connect: impl FnMut() -> anyhow::Result<C>,
) -> anyhow::Result<Published> {
    let mut published = Published { confirmed: 0, resent: 0, first_confirm_at_slave: None };
    let mut unconfirmed: VecDeque<u64> = VecDeque::new();
    let mut next = 1;
    let started = Instant::now();
    loop {
        let mut client = match connect() {
            Ok(client) => client,
            Err(error) if started.elapsed() > GIVE_UP => return Err(error),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
        };
        let at_slave = progress.killed.load(Ordering::SeqCst);
        published.resent += unconfirmed.len() as u64;
        let again: Vec<String> = unconfirmed.iter().map(|n| format!("{name}-{n}")).collect();
        // Confirms count from 1 on this connection: message `unconfirmed[n]` has number `n + 1`.
        let mut first_number = 1u64;
        let mut session = || -> anyhow::Result<bool> {
            client.publish(queue, &again)?;
            loop {
                let stopping = progress.stop.load(Ordering::SeqCst);
                if stopping && unconfirmed.is_empty() {
                    return Ok(true);
                }
                if !stopping && unconfirmed.len() + BATCH <= WINDOW {
                    let batch: Vec<u64> = (next..next + BATCH as u64).collect();
                    next += BATCH as u64;
                    unconfirmed.extend(&batch);
                    let bodies: Vec<String> = batch.iter().map(|n| format!("{name}-{n}")).collect();
                    client.publish(queue, &bodies)?;
                    continue;
                }
                let count = match client.wait_confirms()? {
                    Confirmed::Through(number) => number + 1 - first_number,
                    Confirmed::Next => 1,
                };
                for _ in 0..count {
                    unconfirmed.pop_front();
                }
                first_number += count;
                published.confirmed += count;
                progress.confirmed.fetch_add(count, Ordering::Relaxed);
                if at_slave && published.first_confirm_at_slave.is_none() {
                    published.first_confirm_at_slave = Some(Instant::now());
                }
            }
        };
        if let Ok(true) = session() {
            return Ok(published);
        }
    }
}
