//! When to try the peer's address again.

/// First pause after a loss: the kernel still takes connections for a process that is dying, whose
/// memory and sockets are being cleared away, and only the refusal after that is proof.
const DYING_MS: u64 = 5;

/// One attempt at a time, with growing pauses between them.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Dialer {
    pub(crate) wanted: bool,
    running: bool,
    /// The running attempt began after the loss that it is to explain; an older one may have been
    /// refused by a process that has connected to us since.
    tells: bool,
    next_ms: u64,
    delay_ms: u64,
    least_ms: u64,
    most_ms: u64,
}

impl Dialer {
    pub(crate) fn new(least_ms: u64, most_ms: u64) -> Self {
        let least_ms = least_ms.max(1);
        Self {
            wanted: false,
            running: false,
            tells: false,
            next_ms: 0,
            delay_ms: least_ms,
            least_ms,
            most_ms: most_ms.max(least_ms),
        }
    }

    /// The peer was lost just now: find out at once what became of it.
    pub(crate) fn investigate(&mut self, now_ms: u64) {
        self.next_ms = now_ms;
        self.delay_ms = self.least_ms.min(DYING_MS);
        self.tells = false;
    }

    /// Nobody waits for the peer: try seldom.
    pub(crate) fn slow_down(&mut self, now_ms: u64) {
        self.delay_ms = self.most_ms;
        self.next_ms = now_ms + self.delay_ms;
    }

    /// Whether an attempt is to begin now; it then counts as running.
    pub(crate) fn start(&mut self, now_ms: u64) -> bool {
        if !self.wanted || self.running || now_ms < self.next_ms {
            return false;
        }
        self.running = true;
        self.tells = true;
        true
    }

    /// The attempt ended. True if its outcome says something about the peer's present.
    pub(crate) fn ended(&mut self, now_ms: u64, random: u64) -> bool {
        self.running = false;
        let tells = self.tells;
        if tells {
            self.next_ms = now_ms + self.delay_ms - random % (self.delay_ms / 2 + 1);
            self.delay_ms = (self.delay_ms * 2).min(self.most_ms);
        }
        tells
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        (self.wanted && !self.running).then_some(self.next_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_an_attempt_from_before_the_loss_proves_nothing() {
        let mut dialer = Dialer::new(100, 300);
        assert!(!dialer.start(0));
        dialer.wanted = true;
        assert!(dialer.start(0));
        assert!(!dialer.start(0));
        dialer.investigate(5);
        assert!(!dialer.ended(6, 0));
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            let now = dialer.deadline_ms().unwrap_or(0);
            assert!(dialer.start(now));
            assert!(dialer.ended(now, pause / 4));
            assert_eq!(dialer.deadline_ms(), Some(now + pause - pause / 4));
        }
    }
}
