//! How long commits of the log take: one a batch, whoever makes it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds, µs. Prometheus wants them not to change.
const BOUNDS_US: [u64; 11] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000];

#[derive(Debug, Default)]
pub struct CommitTimes {
    /// By bound, each without those below; the last one is for the rest.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl CommitTimes {
    pub fn add(&self, took: Duration) {
        let took_us = took.as_micros() as u64;
        let at = BOUNDS_US.partition_point(|bound_us| *bound_us < took_us);
        self.counts[at].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took_us, Relaxed);
    }

    /// Commits by their upper bound in seconds, each with those below, without those above all.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds =
            BOUNDS_US.iter().map(|bound_us| Duration::from_micros(*bound_us).as_secs_f64());
        bounds.zip(self.counts.iter().scan(0, |below, count| {
            *below += count.load(Relaxed);
            Some(*below)
        }))
    }

    /// That took longer than every bound.
    pub fn longest(&self) -> u64 {
        self.counts[BOUNDS_US.len()].load(Relaxed)
    }

    pub fn sum_s(&self) -> f64 {
        Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_below_their_bounds() {
        let times = CommitTimes::default();
        for took_us in [250, 251, 900_000, 6_000_000] {
            times.add(Duration::from_micros(took_us));
        }
        let cumulated: Vec<_> = times.cumulated().collect();
        assert_eq!(cumulated[..3], [(0.000_25, 1), (0.000_5, 2), (0.001, 2)]);
        assert_eq!(cumulated[8..], [(0.25, 2), (1.0, 3), (5.0, 3)]);
        assert_eq!((times.longest(), times.sum_s()), (1, 6.900_501));
    }
}
