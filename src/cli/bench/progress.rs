//! The live line.

use super::load::PhaseKind;
use super::meter::Counters;
use std::io::{IsTerminal, Write};

pub(super) struct Progress {
    kind: PhaseKind,
    shows: bool,
    /// A line is written over; else each is one of its own.
    overwrites: bool,
    last_ns: u64,
    last: [u64; 3],
}

impl Progress {
    pub(super) fn new(kind: PhaseKind, shows: bool) -> Self {
        let overwrites = std::io::stderr().is_terminal();
        Self { kind, shows, overwrites, last_ns: 0, last: [0; 3] }
    }

    /// Shows a line each second; may be called more often.
    pub(super) fn show(&mut self, elapsed_ns: u64, counters: &Counters) {
        let since_ns = elapsed_ns.saturating_sub(self.last_ns);
        if !self.shows || since_ns < 1_000_000_000 {
            return;
        }
        let now = [&counters.published, &counters.confirmed, &counters.received].map(Counters::get);
        let rate = |at: usize| (now[at] - self.last[at]) * 1_000_000_000 / since_ns;
        // What is sent again is still the same message.
        let [nacked, again] = [&counters.nacked, &counters.sent_again].map(Counters::get);
        let answered = now[1] + nacked + again;
        let line = format!(
            "{} {:>4} s: published {}/s, confirmed {}/s, received {}/s; unconfirmed {}, \
             duplicates {}, out of order {}, reconnects {}",
            self.kind.name(),
            elapsed_ns / 1_000_000_000,
            rate(0),
            rate(1),
            rate(2),
            now[0].saturating_sub(answered),
            Counters::get(&counters.duplicates),
            Counters::get(&counters.out_of_order),
            Counters::get(&counters.reconnects),
        );
        // Where nobody can see it, nothing is lost.
        let mut stderr = std::io::stderr().lock();
        let _ = if self.overwrites {
            write!(stderr, "\r\x1b[K{line}")
        } else {
            writeln!(stderr, "{line}")
        };
        let _ = stderr.flush();
        (self.last_ns, self.last) = (elapsed_ns, now);
    }

    pub(super) fn finish(&self) {
        if self.shows && self.overwrites {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
