//! Group commit for publishers who send on without waiting for their answers: they lose nothing
//! if a commit waits a moment for more of theirs, and the disk is spared most of its syncs. Nobody
//! who waits for each answer is held up for it.

use understudy_model::Lsn;

/// After delays that brought nothing, so many groups at most go without one.
const EXEMPT_MAX: u32 = 64;

/// When the last group was sealed, and whether the open one waits for company.
pub(super) struct CommitDelay {
    /// Least time between two seals while it applies; 0: never.
    interval_ms: u64,
    sealed_at_ms: u64,
    /// A publisher who has earlier commands that are not committed has sent more.
    pipelined: bool,
    /// What the next LSN was when the open group could have been sealed.
    held_at: Option<Lsn>,
    /// Groups that still go without delay, since the last delay brought nothing: a window that is
    /// full, for instance, sends no more until it is answered.
    exempt: u32,
    exempt_next: u32,
}

impl CommitDelay {
    pub(super) fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            sealed_at_ms: 0,
            pipelined: false,
            held_at: None,
            exempt: 0,
            exempt_next: 1,
        }
    }

    pub(super) fn pipelined(&mut self) {
        self.pipelined = true;
    }

    /// Whether the open group, which goes up to `next`, is to wait although it could be sealed.
    pub(super) fn holds(&mut self, now_ms: u64, next: Lsn) -> bool {
        if !self.pipelined || self.exempt > 0 || now_ms >= self.sealed_at_ms + self.interval_ms {
            return false;
        }
        self.held_at.get_or_insert(next);
        true
    }

    /// The open group, which goes up to `next`, is sealed.
    pub(super) fn sealed(&mut self, now_ms: u64, next: Lsn) {
        match self.held_at.take() {
            Some(at) if next > at => self.exempt_next = 1,
            Some(_) => {
                self.exempt = self.exempt_next;
                self.exempt_next = (self.exempt_next * 2).min(EXEMPT_MAX);
            }
            None => self.exempt = self.exempt.saturating_sub(1),
        }
        self.pipelined = false;
        self.sealed_at_ms = now_ms;
    }

    /// When a group that waits is to be sealed.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.held_at.map(|_| self.sealed_at_ms + self.interval_ms)
    }

    /// The open group is no more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.interval_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed_at(now_ms: u64) -> CommitDelay {
        let mut delay = CommitDelay::new(2);
        delay.sealed(now_ms, Lsn(1));
        delay
    }

    #[test]
    fn who_waits_for_each_answer_is_not_held_up() {
        let mut delay = sealed_at(10);
        assert!(!delay.holds(10, Lsn(2)));
        assert_eq!(delay.deadline_ms(), None);
    }

    #[test]
    fn who_sends_on_waits_until_the_interval_is_over() {
        let mut delay = sealed_at(10);
        delay.pipelined();
        assert!(delay.holds(10, Lsn(2)) && delay.holds(11, Lsn(3)));
        assert_eq!(delay.deadline_ms(), Some(12));
        assert!(!delay.holds(12, Lsn(4)));
        delay.sealed(12, Lsn(4));
        assert_eq!(delay.deadline_ms(), None);
        assert!(!delay.holds(12, Lsn(5)), "the next group asks anew");
    }

    #[test]
    fn delays_that_bring_nothing_become_rare_and_come_back_with_company() {
        let mut delay = sealed_at(0);
        let mut held = Vec::new();
        for now in 1..200 {
            delay.pipelined();
            if delay.holds(now - 1, Lsn(now)) {
                held.push(now);
            }
            delay.sealed(now - 1, Lsn(now));
        }
        assert_eq!(held, [1, 3, 6, 11, 20, 37, 70, 135]);
        // A delay that brings something: the next one is not put off.
        let mut now = 200;
        while {
            delay.pipelined();
            !delay.holds(now, Lsn(now))
        } {
            delay.sealed(now, Lsn(now));
            now += 1;
        }
        delay.sealed(now, Lsn(now + 1));
        delay.pipelined();
        assert!(delay.holds(now, Lsn(now + 1)));
    }

    #[test]
    fn an_interval_of_zero_holds_nothing() {
        let mut delay = CommitDelay::new(0);
        delay.sealed(5, Lsn(1));
        delay.pipelined();
        assert!(!delay.holds(5, Lsn(2)));
    }
}
