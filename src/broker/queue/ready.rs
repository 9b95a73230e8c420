//! Which messages are ready, and in which order they are handed out: by LSN, those that were given back
//! and those behind the cursor; in a priority queue by priority first.

use super::{FIRST_PLACE, Place, Queue};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use understudy_model::Lsn;

impl Queue {
    /// Messages that wait for a consumer.
    pub(crate) fn ready(&self) -> u64 {
        self.unsettled.len().saturating_sub(self.memory.taken)
    }

    /// Bodies of ready messages, bytes; counted only while they are limited.
    pub(crate) fn ready_bytes(&self) -> u64 {
        let total = self.facts.as_ref().map_or(0, |facts| facts.size_total());
        total.saturating_sub(self.memory.taken_bytes)
    }

    /// The message to hand out next.
    pub(crate) fn head(&self) -> Option<Lsn> {
        if let Some(ready) = &self.memory.by_priority {
            return ready.first().map(|(_, lsn)| *lsn);
        }
        let fresh = self.next_fresh();
        match self.memory.returned.first() {
            Some(&returned) => Some(fresh.map_or(returned, |fresh| fresh.min(returned))),
            None => fresh,
        }
    }

    /// The ready messages in the order in which they will be handed out.
    pub(crate) fn ready_messages(&self) -> impl Iterator<Item = Lsn> {
        self.ready_from(FIRST_PLACE).map(|(_, lsn)| lsn)
    }

    /// The ready messages from this place on.
    pub(crate) fn ready_from(&self, from: Place) -> impl Iterator<Item = Place> {
        let ordered = self.memory.by_priority.is_some();
        let cursor = if ordered { Lsn(u64::MAX - 2) } else { self.memory.cursor };
        let fresh = self.unsettled.range(from.1.max(cursor.next()), Lsn(u64::MAX - 1));
        let mut fresh = fresh.filter(|lsn| !self.memory.passed.contains(*lsn)).peekable();
        let returned = self.memory.returned.range(from.1..).copied();
        let mut returned = returned.filter(move |_| !ordered).peekable();
        let by_priority = self.memory.by_priority.iter();
        let by_priority = by_priority.flat_map(move |ready| ready.range(from..)).copied();
        let by_arrival = std::iter::from_fn(move || match (returned.peek(), fresh.peek()) {
            (Some(r), Some(f)) if r > f => fresh.next(),
            (Some(_), _) => returned.next(),
            (None, _) => fresh.next(),
        });
        by_priority.chain(by_arrival.map(|lsn| (Reverse(0), lsn)))
    }

    pub(crate) fn place(&self, lsn: Lsn) -> Place {
        let ordered = self.memory.by_priority.is_some();
        (Reverse(if ordered { self.priority(lsn) } else { 0 }), lsn)
    }

    /// The first message behind the cursor that was not handed out in this epoch.
    fn next_fresh(&self) -> Option<Lsn> {
        let mut at = self.memory.cursor;
        loop {
            at = self.unsettled.next_after(at)?;
            if !self.memory.passed.contains(at) {
                return Some(at);
            }
        }
    }

    pub(super) fn is_ready(&self, lsn: Lsn) -> bool {
        let memory = &self.memory;
        if let Some(ready) = &memory.by_priority {
            return ready.contains(&self.place(lsn));
        }
        let fresh = lsn > memory.cursor && !memory.passed.contains(lsn);
        memory.returned.contains(&lsn) || (fresh && self.unsettled.contains(lsn))
    }

    /// Hands out a ready message; returns whether it is to be flagged redelivered.
    pub(crate) fn take(&mut self, lsn: Lsn) -> bool {
        self.memory.taken += 1;
        self.memory.taken_bytes += self.size(lsn);
        let heads_only = self.memory.filters.is_empty() && self.memory.passed.is_empty();
        self.leave_ready(lsn, heads_only) || self.may_have_gone_out(lsn)
    }

    /// Takes a message back. Messages that are settled meanwhile (the queue was purged or made
    /// anew) stay gone.
    pub(crate) fn give_back(&mut self, lsn: Lsn) {
        if self.unsettled.contains(lsn) {
            self.memory.taken = self.memory.taken.saturating_sub(1);
            self.memory.taken_bytes = self.memory.taken_bytes.saturating_sub(self.size(lsn));
            self.memory.returned.insert(lsn);
            let place = self.place(lsn);
            self.memory.filters.given_back(place);
            if let Some(ready) = &mut self.memory.by_priority {
                ready.insert(place);
            }
        }
    }

    /// Returns whether it had been given back before. `is_head`: nothing ready is in front of it.
    pub(super) fn leave_ready(&mut self, lsn: Lsn, is_head: bool) -> bool {
        let place = self.place(lsn);
        self.memory.filters.left(place);
        let was_returned = self.memory.returned.remove(&lsn);
        if let Some(ready) = &mut self.memory.by_priority {
            ready.remove(&place);
        } else if !was_returned && is_head {
            self.memory.cursor = lsn;
        } else if !was_returned {
            self.pass(lsn);
        }
        was_returned
    }

    /// The cursor goes on, or, where a message in front of this one is still ready, stays.
    fn pass(&mut self, lsn: Lsn) {
        if self.next_fresh() != Some(lsn) {
            self.memory.passed.insert(lsn);
            return;
        }
        self.memory.cursor = lsn;
        while let Some(next) = self.unsettled.next_after(self.memory.cursor)
            && self.memory.passed.remove_range(next, next) > 0
        {
            self.memory.cursor = next;
        }
    }

    pub(super) fn remove_by_priority(&mut self, lsn: Lsn) {
        let place = self.place(lsn);
        if let Some(ready) = &mut self.memory.by_priority {
            ready.remove(&place);
        }
    }

    pub(super) fn all_by_priority(&self) -> Option<BTreeSet<Place>> {
        self.rules.priority_max?;
        Some(self.unsettled.iter().map(|lsn| (Reverse(self.priority(lsn)), lsn)).collect())
    }

    /// Before this epoch, or on the other side of a partition.
    fn may_have_gone_out(&self, lsn: Lsn) -> bool {
        lsn <= self.memory.epoch_mark || self.memory.flagged.contains(lsn)
    }

    /// How the flag of a copy stands.
    pub(crate) fn is_redelivery(&self, lsn: Lsn) -> bool {
        self.memory.returned.contains(&lsn) || self.may_have_gone_out(lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::queue;
    use understudy_model::Lsn;

    #[test]
    fn what_was_taken_behind_the_cursor_is_kept_no_longer_than_needed() {
        let mut queue = queue(&[2, 4, 6, 8]);
        for (taken, cursor, passed) in [(6, 0, 1), (4, 0, 2), (2, 6, 0), (8, 8, 0)] {
            queue.pass(Lsn(taken));
            let memory = &queue.memory;
            assert_eq!((memory.cursor, memory.passed.len()), (Lsn(cursor), passed), "{taken}");
        }
    }
}
