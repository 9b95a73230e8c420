//! How long ago the log had grown to where the slave's copy ends, and by how many bytes it has grown
//! since: from samples, because a log without the slave grows for days.

use std::collections::VecDeque;
use understudy_model::Lsn;

/// With more, each two become one: the longer the lag, the coarser its measure.
const SAMPLES_MAX: usize = 1_024;
const STEP_MS_MIN: u64 = 200;

/// What the log grew by since the sample before.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// When the first of it was seen.
    at_ms: u64,
    /// Its end.
    appended: Lsn,
    /// Of the log up to there, since the start of the process.
    bytes: u64,
}

/// What a slave lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub records: u64,
    /// Of the log, estimated between two samples.
    pub bytes: u64,
    /// When the first command that it lacks was seen in the log; none: it lacks none.
    pub since_ms: Option<u64>,
}

/// Samples of a growing log, ascending.
#[derive(Debug, Default)]
pub(crate) struct LagHistory {
    samples: VecDeque<Sample>,
    /// A sample takes in what comes so soon after its begin.
    step_ms: u64,
    /// What it had on disk when it was heard of last.
    slave_has: Option<Lsn>,
}

impl LagHistory {
    pub(crate) fn note(&mut self, at_ms: u64, appended: Lsn, bytes: u64) {
        if self.samples.back().is_some_and(|last| last.appended > appended) {
            self.samples.clear();
        }
        // The first one only says where the others begin.
        let grows = self.samples.len() > 1;
        match self.samples.back_mut() {
            Some(last) if last.appended == appended => {}
            Some(last) if grows && at_ms < last.at_ms + self.step_ms => {
                (last.appended, last.bytes) = (appended, bytes);
            }
            _ => self.samples.push_back(Sample { at_ms, appended, bytes }),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        let mut all = std::mem::take(&mut self.samples).into_iter();
        self.samples.extend(all.next());
        while let Some(one) = all.next() {
            let end = all.next().unwrap_or(one);
            self.samples.push_back(Sample { at_ms: one.at_ms, ..end });
        }
        self.step_ms = (self.step_ms * 2).max(STEP_MS_MIN);
    }

    /// `slave_has`: through here on its disk; none: it is away. None: what it lacks is not known,
    /// because its copy ends before the first sample.
    pub(crate) fn behind(&mut self, slave_has: Option<Lsn>) -> Option<Behind> {
        self.slave_has = slave_has.or(self.slave_has);
        let slave_has = self.slave_has?;
        let last = *self.samples.back()?;
        let known = self.samples.partition_point(|sample| sample.appended <= slave_has);
        // What the slave has is not asked for again.
        self.samples.drain(..known.checked_sub(1)?);
        if slave_has >= last.appended {
            self.step_ms = 0;
            return Some(Behind::default());
        }
        let (had, lacks) = (self.samples.front()?, self.samples.get(1)?);
        let within = u128::from(lacks.bytes - had.bytes);
        let missing = u128::from(lacks.appended.0 - slave_has.0);
        let of = u128::from(lacks.appended.0 - had.appended.0);
        let part = (within * missing).div_ceil(of) as u64;
        Some(Behind {
            records: last.appended.0 - slave_has.0,
            bytes: last.bytes - lacks.bytes + part,
            since_ms: Some(lacks.at_ms),
        })
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slave_is_as_far_behind_as_the_first_command_that_it_lacks() {
        let mut history = LagHistory::default();
        assert_eq!(history.behind(Some(Lsn(5))), None);
        for (at_ms, appended, bytes) in [(100, 10, 1_000), (200, 20, 3_000), (300, 40, 4_000)] {
            history.note(at_ms, Lsn(appended), bytes);
        }
        history.note(400, Lsn(40), 4_000);
        let mut behind = |has| history.behind(has).map(|b| (b.records, b.bytes, b.since_ms));
        assert_eq!(behind(Some(Lsn(9))), None, "before the first sample");
        assert_eq!(behind(Some(Lsn(10))), Some((30, 3_000, Some(200))));
        assert_eq!(behind(Some(Lsn(15))), Some((25, 2_000, Some(200))));
        assert_eq!(behind(None), Some((25, 2_000, Some(200))), "as it was known last");
        assert_eq!(behind(Some(Lsn(20))), Some((20, 1_000, Some(300))));
        assert_eq!(behind(Some(Lsn(40))), Some((0, 0, None)));
        history.note(500, Lsn(7), 4_100);
        assert_eq!(history.behind(Some(Lsn(6))), None, "the log was cut: begun anew");
    }

    #[test]
    fn a_long_lag_takes_bounded_memory() {
        let mut history = LagHistory::default();
        for number in 1..=100_000 {
            history.note(number * 100, Lsn(number), number * 10);
            assert!(history.samples.len() <= SAMPLES_MAX);
        }
        let behind = history.behind(Some(Lsn(1))).unwrap();
        assert_eq!((behind.records, behind.bytes), (99_999, 999_990));
        // 10,000 s in at most 1,024 steps, each a power of two times 200 ms.
        assert!(behind.since_ms <= Some(200), "{behind:?}");
        let half = history.behind(Some(Lsn(50_000))).unwrap();
        assert_eq!((half.records, half.bytes), (50_000, 500_000));
        assert!(half.since_ms.unwrap().abs_diff(5_000_100) <= 25_600, "{half:?}");
        assert_eq!(history.behind(Some(Lsn(99_999))).map(|behind| behind.bytes), Some(10));
    }
}
