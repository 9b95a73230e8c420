//! What all threads count, and how long things took.

use super::seen::Ledger;
use anyhow::Context;
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Three significant digits from a microsecond to an hour, in nanoseconds.
pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).context("a histogram")
}

/// Of one phase, raised once for a read or a write, not for each message.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) published: AtomicU64,
    /// Of the published, those whose confirm was lost with its connection before.
    pub(super) sent_again: AtomicU64,
    /// Or published, if confirms are not asked for.
    pub(super) confirmed: AtomicU64,
    pub(super) nacked: AtomicU64,
    pub(super) received: AtomicU64,
    /// Received for the first time.
    pub(super) received_new: AtomicU64,
    pub(super) duplicates: AtomicU64,
    /// Of the duplicates, those that the broker did not flag as redelivered.
    pub(super) duplicates_unflagged: AtomicU64,
    pub(super) out_of_order: AtomicU64,
    /// Without a stamp of this run.
    pub(super) foreign: AtomicU64,
    pub(super) reconnects: AtomicU64,
    /// Longest time without a confirm while one was awaited.
    pub(super) confirm_gap_ns: AtomicU64,
    /// Of the last confirm or delivery, since the run began.
    pub(super) last_ns: AtomicU64,
}

impl Counters {
    pub(super) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

pub(super) struct Latencies {
    pub(super) confirm: Histogram<u64>,
    pub(super) end_to_end: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { confirm: histogram()?, end_to_end: histogram()? })
    }
}

/// One phase, shared by its threads.
pub(super) struct Shared {
    /// Of the whole run.
    pub(super) epoch: Instant,
    pub(super) counters: Counters,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) latencies: Mutex<Latencies>,
    /// Connections that are not open yet for the first time.
    pub(super) opening: AtomicUsize,
    pub(super) producers_left: AtomicUsize,
    /// Nanoseconds since the epoch; 0: not begun.
    pub(super) began_ns: AtomicU64,
    pub(super) stop_publishing: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) failure: Mutex<Option<anyhow::Error>>,
}

impl Shared {
    /// # Errors
    /// A histogram that cannot be.
    pub(super) fn new(
        epoch: Instant,
        ledger: std::sync::Arc<Ledger>,
        connections: usize,
        producers: usize,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            epoch,
            counters: Counters::default(),
            ledger,
            latencies: Mutex::new(Latencies::new()?),
            opening: AtomicUsize::new(connections),
            producers_left: AtomicUsize::new(producers),
            began_ns: AtomicU64::new(0),
            stop_publishing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn began(&self) -> Option<u64> {
        match self.began_ns.load(Ordering::Acquire) {
            0 => None,
            began => Some(began),
        }
    }

    /// The first failure ends the phase.
    pub(super) fn fail(&self, error: anyhow::Error) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(error);
        }
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn merge(&self, latencies: &Latencies) {
        if let Ok(mut all) = self.latencies.lock() {
            // They have the same bounds, so this cannot fail.
            let _ = all.confirm.add(&latencies.confirm);
            let _ = all.end_to_end.add(&latencies.end_to_end);
        }
    }
}
