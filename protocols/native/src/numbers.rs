//! The client's publish sequences against the broker's confirm numbers.

use std::collections::VecDeque;
use understudy_model::Malformed;

/// The broker wants numbers that rise by one on each connection. A client's sequences rise too,
/// but go on over its connections and leave out what transactions took. They are kept as runs
/// in which both rise together: nearly always one.
#[derive(Debug, Default)]
pub(crate) struct PublishNumbers {
    last_number: u64,
    last_sequence: u64,
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    number: u64,
    sequence: u64,
}

impl PublishNumbers {
    /// A publish uses this sequence: each must be higher than all before.
    pub(crate) fn accept(&mut self, sequence: u64) -> Result<(), Malformed> {
        if sequence <= self.last_sequence {
            return Err(Malformed("publish: the sequence does not rise"));
        }
        self.last_sequence = sequence;
        Ok(())
    }

    /// The number under which the broker is to confirm the sequence accepted last.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        let (number, sequence) = (self.last_number, self.last_sequence);
        let continues =
            self.runs.back().is_some_and(|run| sequence - run.sequence == number - run.number);
        if !continues {
            self.runs.push_back(Run { number, sequence });
        }
        number
    }

    /// The sequence that was given this number; 0 if none was.
    pub(crate) fn sequence(&self, number: u64) -> u64 {
        let behind = self.runs.partition_point(|run| run.number <= number);
        let run = behind.checked_sub(1).and_then(|index| self.runs.get(index));
        run.map_or(0, |run| run.sequence + (number - run.number))
    }

    /// Like [`Self::sequence`], and nothing below `through` is asked for again.
    pub(crate) fn confirm(&mut self, through: u64) -> u64 {
        while self.runs.get(1).is_some_and(|next| next.number <= through) {
            self.runs.pop_front();
        }
        self.sequence(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(numbers: &mut PublishNumbers, sequence: u64) -> u64 {
        numbers.accept(sequence).unwrap();
        numbers.number()
    }

    #[test]
    fn gaps_make_runs_and_confirms_end_them() {
        let mut numbers = PublishNumbers::default();
        for sequence in [501, 502, 503, 600, 601, 700] {
            number(&mut numbers, sequence);
        }
        assert_eq!(numbers.runs.len(), 3);
        let sequences: Vec<u64> = (0..=6).map(|number| numbers.sequence(number)).collect();
        assert_eq!(sequences, [0, 501, 502, 503, 600, 601, 700]);
        assert_eq!(numbers.confirm(3), 503);
        assert_eq!(numbers.confirm(5), 601);
        assert_eq!(numbers.runs.len(), 2);
        assert_eq!(numbers.confirm(6), 700);
        assert_eq!(numbers.runs.len(), 1);
        assert_eq!(number(&mut numbers, 701), 7);
        assert_eq!(numbers.runs.len(), 1);
    }

    #[test]
    fn a_sequence_that_does_not_rise_is_refused() {
        let mut numbers = PublishNumbers::default();
        assert!(numbers.accept(0).is_err());
        assert!(numbers.accept(2).is_ok());
        assert!(numbers.accept(2).is_err());
        assert!(numbers.accept(1).is_err());
    }
}
