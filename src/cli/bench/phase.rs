//! One phase: its threads, what is watched meanwhile, and what came of it.

use super::connection::{Connection, Role};
use super::consumer::Consumer;
use super::load::{Load, PhaseKind};
use super::meter::{Counters, Latencies, Shared};
use super::process::{self, Memory};
use super::producer::Producer;
use super::progress::Progress;
use super::seen::Ledger;
use super::worker;
use anyhow::{Context, bail};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What goes on from phase to phase.
pub(super) struct Run {
    pub(super) load: Arc<Load>,
    pub(super) epoch: Instant,
    pub(super) ledger: Arc<Ledger>,
    pub(super) threads: usize,
    pub(super) server_pids: Vec<u32>,
    pub(super) shows_progress: bool,
    /// By producer: where its streams go on.
    pub(super) next_sequences: Vec<Vec<u64>>,
    /// Deliveries that are still to come.
    pub(super) backlog: u64,
    /// A phase has published.
    pub(super) published: bool,
}

pub(super) struct ServerUse {
    pub(super) pid: u32,
    pub(super) cpu: Duration,
    pub(super) peak: Memory,
}

pub(super) struct PhaseResult {
    pub(super) kind: PhaseKind,
    /// From the first publish allowed, or the first connection of a drain, to the last confirm or
    /// delivery.
    pub(super) seconds: f64,
    pub(super) counters: Counters,
    pub(super) latencies: Latencies,
    pub(super) servers: Vec<ServerUse>,
    pub(super) client_cpu: Duration,
    /// Messages per second of the first and the last tenth.
    pub(super) tenths: Option<(f64, f64)>,
    /// Everything that was to come has come.
    pub(super) complete: bool,
    /// With a rate: messages whose time had come when publishing ended, and which no latency tells of.
    pub(super) not_sent: Option<u64>,
}

impl PhaseResult {
    /// Messages that the phase is about: delivered, or in a fill confirmed.
    pub(super) fn messages(&self) -> u64 {
        counted(self.kind, &self.counters)
    }
}

fn counted(kind: PhaseKind, counters: &Counters) -> u64 {
    let counter = if kind.consumes() { &counters.received_new } else { &counters.confirmed };
    Counters::get(counter)
}

/// What was seen while the phase ran.
struct Watched {
    servers: Vec<ServerUse>,
    client_cpu: Duration,
    /// Nanoseconds since the beginning, messages by then.
    samples: Vec<(u64, u64)>,
    complete: bool,
    /// With a rate: messages whose time came before publishing was ended.
    due: Option<u64>,
}

impl Run {
    /// # Errors
    /// A connection could not be opened or was lost, or the broker refused.
    pub(super) fn phase(&mut self, kind: PhaseKind) -> anyhow::Result<PhaseResult> {
        let connections = self.connections(kind)?;
        let shared = Arc::new(self.shared(kind, connections.len())?);
        let mut dealt: Vec<Vec<Connection>> = (0..self.threads).map(|_| Vec::new()).collect();
        for (at, connection) in connections.into_iter().enumerate() {
            dealt[at % self.threads].push(connection);
        }
        let threads: Vec<_> = dealt
            .into_iter()
            .filter(|connections| !connections.is_empty())
            .map(|connections| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || worker::run(connections, &shared))
            })
            .collect();
        let watched = self.watch(kind, &shared);
        shared.stop.store(true, Ordering::Release);
        for thread in threads {
            let Ok(connections) = thread.join() else { bail!("a thread of the load panicked") };
            self.take_back(connections);
        }
        let shared = Arc::into_inner(shared).context("the threads have ended")?;
        if let Some(failure) = shared.failure.into_inner().unwrap_or(None) {
            return Err(failure);
        }
        let watched = watched?;
        let began_ns = shared.began_ns.into_inner();
        let last_ns = Counters::get(&shared.counters.last_ns).max(began_ns + 1);
        self.keep_books(kind, &shared.counters);
        let [published, again] =
            [&shared.counters.published, &shared.counters.sent_again].map(Counters::get);
        let not_sent = watched.due.map(|due| due.saturating_sub(published - again));
        Ok(PhaseResult {
            kind,
            seconds: (last_ns - began_ns) as f64 / 1e9,
            tenths: tenths(&watched.samples),
            counters: shared.counters,
            latencies: shared.latencies.into_inner().ok().context("the latencies")?,
            servers: watched.servers,
            client_cpu: watched.client_cpu,
            complete: watched.complete,
            not_sent,
        })
    }

    fn shared(&self, kind: PhaseKind, connections: usize) -> anyhow::Result<Shared> {
        let producers = if kind.publishes() { self.load.producers } else { 0 };
        Shared::new(self.epoch, Arc::clone(&self.ledger), connections, producers)
    }

    fn connections(&mut self, kind: PhaseKind) -> anyhow::Result<Vec<Connection>> {
        let mut roles = Vec::new();
        if kind.publishes() {
            for (number, next) in self.next_sequences.iter_mut().enumerate() {
                let producer = Producer::new(number, Arc::clone(&self.load), std::mem::take(next))?;
                roles.push(Role::Producer(Box::new(producer)));
            }
        }
        if kind.consumes() {
            let consumers = 0..self.load.consumers;
            let consumer = |number| Box::new(Consumer::new(number, Arc::clone(&self.load)));
            roles.extend(consumers.map(|number| Role::Consumer(consumer(number))));
        }
        let connection = |role| Connection::new(Arc::clone(&self.load), role);
        Ok(roles.into_iter().map(connection).collect())
    }

    fn take_back(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            if let Role::Producer(producer) = connection.into_role() {
                let (number, next) = producer.into_next_sequences();
                self.next_sequences[number] = next;
            }
        }
    }

    fn keep_books(&mut self, kind: PhaseKind, counters: &Counters) {
        self.backlog = self.expected(kind, counters);
        self.backlog = self.backlog.saturating_sub(Counters::get(&counters.received_new));
        self.published |= kind.publishes();
    }

    /// Deliveries that this phase is to bring.
    fn expected(&self, kind: PhaseKind, counters: &Counters) -> u64 {
        if kind.publishes() {
            self.backlog + Counters::get(&counters.confirmed) * self.load.copies()
        } else if self.published {
            self.backlog
        } else {
            // Another run has filled the queues.
            self.load.messages * self.load.copies()
        }
    }

    fn watch(&self, kind: PhaseKind, shared: &Shared) -> anyhow::Result<Watched> {
        // Deliveries come as soon as a consumer is there, so a drain counts from before that.
        if kind.publishes() {
            self.await_connections(shared)?;
        }
        let mut servers = Vec::new();
        for &pid in &self.server_pids {
            servers.push(ServerUse { pid, cpu: process::cpu(pid)?, peak: Memory::default() });
        }
        let own = process::cpu(std::process::id()).unwrap_or_default();
        let began_ns = shared.now_ns();
        shared.began_ns.store(began_ns, Ordering::Release);
        self.await_connections(shared)?;

        let mut progress = Progress::new(kind, self.shows_progress);
        let mut samples = Vec::new();
        let (mut next_sample, mut complete) = (Instant::now(), false);
        let (mut seen, mut seen_at) = (0, Instant::now());
        // If nothing ends it earlier, all of them are sent.
        let rate = self.load.rate.filter(|_| kind.publishes());
        let mut due = rate.map(|_| self.load.messages);
        while !shared.stop.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_EVERY);
            let counters = &shared.counters;
            if Instant::now() >= next_sample {
                next_sample += SAMPLE_EVERY;
                let elapsed_ns = shared.now_ns() - began_ns;
                samples.push((elapsed_ns, counted(kind, counters)));
                sample_memory(&mut servers);
                progress.show(elapsed_ns, counters);
                if self.load.duration.is_some_and(|most| elapsed_ns as u128 >= most.as_nanos()) {
                    let ended = shared.stop_publishing.swap(true, Ordering::AcqRel);
                    if let Some(rate) = rate.filter(|_| !ended) {
                        let by_now = (rate * elapsed_ns as f64 / 1e9) as u64;
                        due = Some(by_now.min(self.load.messages));
                    }
                }
            }
            let now = moved(counters);
            if now != seen {
                (seen, seen_at) = (now, Instant::now());
            }
            let published = shared.producers_left.load(Ordering::Acquire) == 0;
            let received = Counters::get(&counters.received_new);
            complete = published && (!kind.consumes() || received >= self.expected(kind, counters));
            if complete || seen_at.elapsed() > self.load.patience {
                break;
            }
        }
        let last_ns = Counters::get(&shared.counters.last_ns).saturating_sub(began_ns);
        samples.push((last_ns, counted(kind, &shared.counters)));
        for server in &mut servers {
            // One that was killed on purpose has nothing more to tell.
            server.cpu = process::cpu(server.pid).unwrap_or_default().saturating_sub(server.cpu);
        }
        progress.finish();
        let own_now = process::cpu(std::process::id()).unwrap_or_default();
        Ok(Watched { servers, client_cpu: own_now.saturating_sub(own), samples, complete, due })
    }

    fn await_connections(&self, shared: &Shared) -> anyhow::Result<()> {
        let until = Instant::now() + self.load.patience;
        while shared.opening.load(Ordering::Acquire) > 0 {
            if shared.stop.load(Ordering::Acquire) {
                bail!("stopped");
            }
            if Instant::now() > until {
                bail!("not all connections were opened in time");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn moved(counters: &Counters) -> u64 {
    let all = [&counters.published, &counters.confirmed, &counters.nacked, &counters.received];
    all.into_iter().map(Counters::get).sum()
}

fn sample_memory(servers: &mut [ServerUse]) {
    for server in servers {
        if let Ok(memory) = process::memory(server.pid) {
            server.peak.resident = server.peak.resident.max(memory.resident);
            server.peak.anonymous = server.peak.anonymous.max(memory.anonymous);
        }
    }
}

/// Rates over the first and the last tenth of the messages.
fn tenths(samples: &[(u64, u64)]) -> Option<(f64, f64)> {
    let (end_ns, all) = *samples.last()?;
    // Between two samples it rises evenly.
    let time_of = |count: f64| {
        let mut before = (0.0, 0.0);
        for &(ns, now) in samples {
            let after = (ns as f64, now as f64);
            if after.1 >= count && after.1 > before.1 {
                return before.0 + (after.0 - before.0) * (count - before.1) / (after.1 - before.1);
            }
            before = after;
        }
        end_ns as f64
    };
    let tenth = all as f64 / 10.0;
    let (first_ns, last_ns) = (time_of(tenth), end_ns as f64 - time_of(9.0 * tenth));
    (samples.len() > 20 && all > 0).then(|| (tenth * 1e9 / first_ns, tenth * 1e9 / last_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_halves_shows_in_its_tenths() {
        // 1,000 a millisecond for 100 ms, then half of it.
        let quick = (1..=100).map(|ms| (ms * 1_000_000, ms * 1_000));
        let slow = (1..=100).map(|ms| ((100 + ms) * 1_000_000, 100_000 + ms * 500));
        let (first, last) = tenths(&quick.chain(slow).collect::<Vec<_>>()).unwrap();
        assert_eq!((first.round(), last.round()), (1_000_000.0, 500_000.0));
        assert_eq!(tenths(&[(1, 1)]), None, "too short to tell");
    }
}
