//! The process's clock: milliseconds since 1970 when it started, and from then on monotonic, so
//! that a change of the wall clock cannot make time jump for timers and time-outs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_ms: wall.as_millis() as u64 }
    }

    pub fn now_ms(&self) -> u64 {
        self.start_ms + self.start.elapsed().as_millis() as u64
    }

    pub fn uptime_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// How long it takes until this clock shows `at_ms`.
    pub fn until(&self, at_ms: u64) -> Duration {
        self.instant(at_ms).saturating_duration_since(Instant::now())
    }

    /// The instant at which this clock shows `at_ms`.
    pub fn instant(&self, at_ms: u64) -> Instant {
        self.start + Duration::from_millis(at_ms.saturating_sub(self.start_ms))
    }
}
