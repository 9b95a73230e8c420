//! A slave that was dropped because it hung is not made a burden again at once: each commit would wait
//! for it until it is dropped once more. It catches up as it likes; its acks are required only after
//! a pause that doubles with each failure.

const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 60_000;
/// So long in-sync, and the past is forgotten.
const GOOD_CONDUCT_MS: u64 = 60_000;

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Readmission {
    pause_ms: u64,
    not_before_ms: u64,
    synced_since_ms: Option<u64>,
}

impl Readmission {
    /// The in-sync slave was silent or made no progress.
    pub(crate) fn failed(&mut self, now_ms: u64) {
        let good = |since_ms| now_ms >= since_ms + GOOD_CONDUCT_MS;
        if self.synced_since_ms.take().is_some_and(good) {
            self.pause_ms = 0;
        }
        self.pause_ms = (self.pause_ms * 2).clamp(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
        self.not_before_ms = now_ms + self.pause_ms;
    }

    pub(crate) fn synced(&mut self, now_ms: u64) {
        self.synced_since_ms = Some(now_ms);
    }

    pub(crate) fn allows(&self, now_ms: u64) -> bool {
        now_ms >= self.not_before_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_forgotten_after_good_conduct() {
        let mut readmission = Readmission::default();
        let mut now_ms = 5_000;
        assert!(readmission.allows(now_ms), "a new slave waits for nothing");
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            readmission.failed(now_ms);
            assert!(!readmission.allows(now_ms + pause_ms - 1));
            assert!(readmission.allows(now_ms + pause_ms));
            now_ms += pause_ms;
            readmission.synced(now_ms);
            now_ms += 100;
        }
        now_ms += GOOD_CONDUCT_MS;
        readmission.failed(now_ms);
        assert!(readmission.allows(now_ms + FIRST_PAUSE_MS));
    }
}
