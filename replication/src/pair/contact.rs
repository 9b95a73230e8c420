//! The slave's lease: a slave that answers beats does not try to take over, and will not for
//! `takeover_ms` after it heard the last. So the leader may serve until `lease_ms` after it sent
//! the last beat that was answered, whatever has become of the arbiter.

use std::collections::VecDeque;

/// Beats that may be unanswered; the answers of a slave that owes more do not count any more.
const BEATS_MAX: usize = 64;

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Contact {
    sent_ms: VecDeque<u64>,
    answered_ms: Option<u64>,
    /// A beat was not kept: which one an answer belongs to is not known.
    lost_count: bool,
}

impl Contact {
    pub(crate) fn sent(&mut self, now_ms: u64) {
        self.lost_count |= self.sent_ms.len() >= BEATS_MAX;
        if !self.lost_count {
            self.sent_ms.push_back(now_ms);
        }
    }

    /// Answers come in the order of the beats.
    pub(crate) fn answered(&mut self) {
        if !self.lost_count {
            self.answered_ms = self.sent_ms.pop_front().or(self.answered_ms);
        }
    }

    pub(crate) fn lease_until_ms(&self, lease_ms: u64) -> u64 {
        self.answered_ms.map_or(0, |at_ms| at_ms + lease_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_counts_from_when_the_answered_beat_was_sent() {
        let mut contact = Contact::default();
        assert_eq!(contact.lease_until_ms(100), 0);
        contact.sent(10);
        contact.sent(20);
        contact.answered();
        assert_eq!(contact.lease_until_ms(100), 110);
        contact.answered();
        contact.answered();
        assert_eq!(contact.lease_until_ms(100), 120);
    }
}
