//! Lines of log that anybody outside can cause: at most one a second of a kind, with the number of
//! those left out.

use std::sync::atomic::{AtomicU64, Ordering};

const INTERVAL_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// From when on the next line may pass.
    next_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self { next_ms: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Some if the line may be written; the number of lines that were left out before it.
    pub(crate) fn pass(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let ours = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(
                    next_ms,
                    now_ms + INTERVAL_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if ours {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_the_number_of_those_left_out() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass(0), Some(0));
        assert_eq!(throttle.pass(10), None);
        assert_eq!(throttle.pass(999), None);
        assert_eq!(throttle.pass(1_000), Some(2));
        assert_eq!(throttle.pass(1_001), None);
    }
}
