//! A disk: jobs of the log writer take effect one after the other, some time after they were
//! given; a crash loses those that had none yet.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use understudy::node::{Input, LogJob};
use understudy_broker::Slice;
use understudy_model::{Group, Lsn};
use understudy_replication::{Input as BackendInput, LogEnd};

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) groups: VecDeque<Group>,
    cold: BTreeMap<Lsn, Bytes>,
    base: Lsn,
    base_chain: u128,
    pub(crate) view: Option<Bytes>,
    pub(crate) state: BTreeMap<Bytes, Bytes>,
    /// Not synced yet, with the time at which each will be.
    pending: VecDeque<(u64, Job)>,
    /// How often this disk set a diverged log aside.
    pub(crate) set_aside: u64,
}

pub(crate) enum Job {
    Log(LogJob),
    Save(Vec<Slice>, Option<Lsn>),
}

impl Disk {
    pub(crate) fn give(&mut self, at_ms: u64, job: Job) {
        // One head, one queue: nothing overtakes.
        let at_ms = self.pending.back().map_or(at_ms, |(before, _)| at_ms.max(*before));
        self.pending.push_back((at_ms, job));
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.pending.front().map(|(at, _)| *at)
    }

    /// Carries out the job that is due; returns what the node is told.
    pub(crate) fn step(&mut self, now_ms: u64) -> Option<Input> {
        while self.pending.front().is_some_and(|(at, _)| *at <= now_ms) {
            let (_, job) = self.pending.pop_front()?;
            if let Some(input) = self.carry_out(job) {
                return Some(input);
            }
        }
        None
    }

    /// Power off: the first `survive` of the pending jobs had reached the platter.
    pub(crate) fn crash(&mut self, survive: usize) {
        for _ in 0..survive {
            if let Some((_, job)) = self.pending.pop_front() {
                self.carry_out(job);
            }
        }
        self.pending.clear();
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn end(&self) -> LogEnd {
        let last = self.groups.back();
        LogEnd {
            base: self.base,
            base_chain: self.base_chain,
            last: last.map_or(self.base, Group::last),
            last_chain: last.map_or(self.base_chain, |group| group.header().chain),
        }
    }

    pub(crate) fn groups_after(&self, after: Lsn, bytes_max: usize) -> Vec<Group> {
        if after < self.base {
            return Vec::new();
        }
        let mut bytes = 0;
        let following = self.groups.iter().filter(|group| group.first() > after);
        let mut groups = Vec::new();
        for group in following {
            if bytes >= bytes_max {
                break;
            }
            bytes += group.bytes().len();
            groups.push(group.clone());
        }
        groups
    }

    pub(crate) fn records(&self, lsns: &[Lsn]) -> Vec<(Lsn, Bytes)> {
        let find = |lsn: &Lsn| {
            let at = self.groups.partition_point(|group| group.last() < *lsn);
            let in_log = self.groups.get(at).and_then(|group| group.record(*lsn));
            in_log.or_else(|| self.cold.get(lsn).cloned())
        };
        lsns.iter().filter_map(|lsn| Some((*lsn, find(lsn)?))).take(50).collect()
    }

    fn carry_out(&mut self, job: Job) -> Option<Input> {
        match job {
            Job::Save(slices, ends) => {
                for (key, value) in slices {
                    match value {
                        Some(value) => self.state.insert(key, value),
                        None => self.state.remove(&key),
                    };
                }
                ends.map(|replay_after| Input::StateSaved { replay_after })
            }
            Job::Log(job) => self.log_job(job),
        }
    }

    fn log_job(&mut self, job: LogJob) -> Option<Input> {
        let backend = |input| Some(Input::Backend(input));
        match job {
            LogJob::Append(group) => {
                let end = self.end();
                assert_eq!(group.first(), end.last.next(), "the log has no gaps");
                assert_eq!(group.verify_chain(end.last_chain), Ok(()), "the chain holds");
                let through = group.last();
                self.groups.push_back(group);
                Some(Input::Durable { through })
            }
            LogJob::SaveView { version, view } => {
                self.view = Some(view);
                backend(BackendInput::ViewSaved { version })
            }
            LogJob::Truncate { after } => {
                self.groups.retain(|group| group.last() <= after);
                backend(BackendInput::Truncated { log: self.end() })
            }
            LogJob::Reclaim { first, last } => {
                self.cold.retain(|lsn, _| *lsn < first || *lsn > last);
                self.reclaim(first, last);
                backend(BackendInput::Reclaimed { base: last })
            }
            LogJob::Relocate { first, last, lsns } => {
                let all: Vec<_> = lsns.chunks(50).flat_map(|chunk| self.records(chunk)).collect();
                let bytes = all.iter().map(|(_, record)| record.len() as u64).sum();
                self.cold.extend(all);
                self.reclaim(first, last);
                Some(Input::Relocated { first, bytes })
            }
            LogJob::Reset { set_aside } => {
                self.set_aside += u64::from(set_aside);
                self.groups.clear();
                self.cold.clear();
                self.state.clear();
                (self.base, self.base_chain) = (Lsn::ZERO, 0);
                None
            }
            LogJob::PutCold(records) => {
                self.cold.extend(records);
                None
            }
            LogJob::SetBase { at, chain, state } => {
                self.state = state.into_iter().collect();
                (self.base, self.base_chain) = (at, chain);
                backend(BackendInput::Installed { log: self.end() })
            }
        }
    }

    fn reclaim(&mut self, first: Lsn, last: Lsn) {
        if let Some(end) = self.groups.iter().find(|group| group.last() == last)
            && last > self.base
        {
            (self.base, self.base_chain) = (last, end.header().chain);
        }
        self.groups.retain(|group| group.last() < first || group.first() > last);
    }
}
