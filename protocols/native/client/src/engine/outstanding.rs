//! What a subscription was given and has not finished: what a cumulative settle means.

use std::collections::VecDeque;

/// Of one consumer, in the order of the deliveries.
#[derive(Default)]
pub(super) struct Outstanding {
    /// Of the last delivery; from 1.
    last: u64,
    entries: VecDeque<Entry>,
}

struct Entry {
    number: u64,
    lsn: u64,
    /// Finished, but not those before it.
    finished: bool,
}

impl Outstanding {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the delivery's number.
    pub(super) fn deliver(&mut self, lsn: u64) -> u64 {
        self.last += 1;
        self.entries.push_back(Entry { number: self.last, lsn, finished: false });
        self.last
    }

    pub(super) fn finish(&mut self, number: u64) {
        let index = self.entries.partition_point(|entry| entry.number < number);
        if let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.number == number) {
            entry.finished = true;
        }
        while self.entries.pop_front_if(|entry| entry.finished).is_some() {}
    }

    /// The LSNs of all up to this one that are not finished; they are now.
    pub(super) fn finish_through(&mut self, number: u64) -> impl Iterator<Item = u64> {
        let end = self.entries.partition_point(|entry| entry.number <= number);
        self.entries.drain(..end).filter(|entry| !entry.finished).map(|entry| entry.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cumulative_settle_leaves_out_what_is_finished_and_what_came_later() {
        let mut outstanding = Outstanding::default();
        let numbers: Vec<u64> = [40, 41, 12, 43, 44].map(|lsn| outstanding.deliver(lsn)).into();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        outstanding.finish(2);
        outstanding.finish(1);
        outstanding.finish(1);
        outstanding.finish(5);
        assert_eq!(outstanding.finish_through(4).collect::<Vec<_>>(), [12, 43]);
        assert_eq!(outstanding.finish_through(9).count(), 0);
        assert_eq!(outstanding.deliver(50), 6);
    }
}
