//! A disk: jobs of the log writer take effect one after the other, some time after they were
//! given; a crash loses those that had none yet.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use understudy::node::{Input, LogJob};
use understudy_broker::{Slice, replay_point};
use understudy_model::{Damage, Group, Lsn, Place, Repair};
use understudy_replication::{DiskSpace, Input as BackendInput, LogEnd};

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
    /// What has rotten: groups by their first command, and records of the cold store.
    pub(crate) damaged: BTreeSet<Damage>,
    /// How often this disk set a diverged log aside.
    pub(crate) set_aside: u64,
    /// Nothing is synced before.
    pub(crate) hangs_until_ms: u64,
    pub(crate) room: Room,
    /// The next sync fails; whether what it was to write is there nevertheless.
    pub(crate) fails: Option<bool>,
    /// A sync has failed: the process must end.
    pub(crate) broken: Option<String>,
}

/// How long room is short.
#[derive(Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) low_until_ms: u64,
    /// Only what is needed to hand over is left.
    pub(crate) full_from_ms: u64,
    pub(crate) full_until_ms: u64,
}

impl Room {
    pub(crate) fn left(self, now_ms: u64) -> DiskSpace {
        match now_ms {
            now if (self.full_from_ms..self.full_until_ms).contains(&now) => DiskSpace::Full,
            now if now < self.low_until_ms => DiskSpace::Low,
            _ => DiskSpace::Enough,
        }
    }

    pub(crate) fn changes_ms(self) -> [u64; 3] {
        [self.full_from_ms, self.full_until_ms, self.low_until_ms]
    }
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
        self.pending.front().map(|(at, _)| (*at).max(self.hangs_until_ms))
    }

    /// Carries out the job that is due; returns what the node is told.
    pub(crate) fn step(&mut self, now_ms: u64) -> Option<Input> {
        while self.next_ms().is_some_and(|at| at <= now_ms) {
            let (_, job) = self.pending.pop_front()?;
            if let Some(reaches_the_disk) = self.fails.take() {
                if reaches_the_disk {
                    self.carry_out(job);
                }
                self.pending.clear();
                self.broken = Some("a sync has failed".to_owned());
                return None;
            }
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
        self.fails = None;
        self.broken = None;
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

    /// Ends early in front of damage, but not before the first group.
    pub(crate) fn groups_after(&self, after: Lsn, bytes_max: usize) -> Result<Vec<Group>, Damage> {
        if after < self.base {
            return Ok(Vec::new());
        }
        let mut bytes = 0;
        let following = self.groups.iter().filter(|group| group.first() > after);
        let mut groups = Vec::new();
        for group in following {
            if bytes >= bytes_max {
                break;
            }
            let damage = Damage { place: Place::Log, lsn: group.first() };
            if self.damaged.contains(&damage) {
                if groups.is_empty() {
                    return Err(damage);
                }
                break;
            }
            bytes += group.bytes().len();
            groups.push(group.clone());
        }
        Ok(groups)
    }

    /// Ends early in front of damage, but not before the first record.
    pub(crate) fn records(&self, lsns: &[Lsn]) -> Result<Vec<(Lsn, Bytes)>, Damage> {
        let mut found = Vec::new();
        for lsn in lsns {
            match self.record(*lsn) {
                Ok(record) => found.extend(record.map(|record| (*lsn, record))),
                Err(damage) if found.is_empty() => return Err(damage),
                Err(_) => break,
            }
            if found.len() == 50 {
                break;
            }
        }
        Ok(found)
    }

    fn record(&self, lsn: Lsn) -> Result<Option<Bytes>, Damage> {
        let in_log = self.group_holding(lsn)?.and_then(|group| group.record(lsn));
        let damage = Damage { place: Place::Cold, lsn };
        match in_log.or_else(|| self.cold.get(&lsn).cloned()) {
            Some(_) if self.damaged.contains(&damage) => Err(damage),
            record => Ok(record),
        }
    }

    pub(crate) fn group_holding(&self, lsn: Lsn) -> Result<Option<Group>, Damage> {
        let at = self.groups.partition_point(|group| group.last() < lsn);
        let Some(group) = self.groups.get(at).filter(|group| group.contains(lsn)) else {
            return Ok(None);
        };
        let damage = Damage { place: Place::Log, lsn: group.first() };
        if self.damaged.contains(&damage) { Err(damage) } else { Ok(Some(group.clone())) }
    }

    /// No record behind it is lost with that damage.
    pub(crate) fn extent(&self, damage: Damage) -> Lsn {
        let holding = self.groups.iter().find(|group| group.contains(damage.lsn));
        match (damage.place, holding) {
            (Place::Log, Some(group)) => group.last(),
            _ => damage.lsn,
        }
    }

    /// As the storage says it at start: saved state may know where the log ended.
    pub(crate) fn unreadable_end(&self) -> Option<String> {
        let last = self.groups.back()?;
        let damage = Damage { place: Place::Log, lsn: last.first() };
        let slices: Vec<_> = self.state.clone().into_iter().collect();
        let known = replay_point(&slices).is_some_and(|(lsn, _)| lsn >= last.last());
        (self.damaged.contains(&damage) && !known).then(|| format!("{damage} is damaged"))
    }

    /// All that can rot.
    pub(crate) fn places(&self) -> Vec<Damage> {
        let groups = self.groups.iter().map(|group| (Place::Log, group.first()));
        let cold = self.cold.keys().map(|lsn| (Place::Cold, *lsn));
        groups.chain(cold).map(|(place, lsn)| Damage { place, lsn }).collect()
    }

    /// As the storage does it, for whole groups.
    fn repair_group(&mut self, damage: Damage, group: Group) -> Input {
        let base = self.base;
        let repair = match self.groups.iter_mut().find(|own| own.contains(damage.lsn)) {
            Some(own) if *own == group => {
                self.damaged.remove(&Damage { place: Place::Log, lsn: group.first() });
                Repair::Done { base }
            }
            Some(_) => Repair::Unfit(format!("{group:?} is another")),
            None => Repair::Done { base },
        };
        Input::Repaired { damage, repair }
    }

    fn repair_records(&mut self, damage: Damage, records: Vec<(Lsn, Bytes)>, saved: Lsn) -> Input {
        let at = self.groups.iter().position(|group| group.contains(damage.lsn));
        if let (Place::Log, Some(at)) = (damage.place, at)
            && self.damaged.contains(&damage)
        {
            let group = &self.groups[at];
            if group.last() > self.base {
                let until = group.last();
                if until > saved {
                    return Input::Repaired { damage, repair: Repair::NotSaved { until } };
                }
                (self.base, self.base_chain) = (until, group.header().chain);
            }
            self.groups.remove(at);
        }
        self.damaged.remove(&damage);
        self.cold.extend(records);
        Input::Repaired { damage, repair: Repair::Done { base: self.base } }
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
                self.damaged.retain(|damage| damage.lsn <= after);
                backend(BackendInput::Truncated { log: self.end() })
            }
            LogJob::Reclaim { first, last } => {
                self.cold.retain(|lsn, _| *lsn < first || *lsn > last);
                self.forget_damage();
                self.reclaim(first, last);
                backend(BackendInput::Reclaimed { base: last })
            }
            LogJob::Relocate { first, last, lsns } => {
                let all: Result<Vec<_>, Damage> =
                    lsns.iter().map(|lsn| Ok((*lsn, self.record(*lsn)?))).collect();
                let Ok(all) = all else { return Some(Input::RelocationFailed) };
                let all: Vec<_> =
                    all.into_iter().filter_map(|(lsn, record)| Some((lsn, record?))).collect();
                let bytes = all.iter().map(|(_, record)| record.len() as u64).sum();
                self.cold.extend(all);
                self.reclaim(first, last);
                Some(Input::Relocated { first, bytes })
            }
            LogJob::RepairGroup { damage, group } => Some(self.repair_group(damage, group)),
            LogJob::RepairRecords { damage, records, saved } => {
                Some(self.repair_records(damage, records, saved))
            }
            LogJob::Reset { set_aside } => {
                self.set_aside += u64::from(set_aside);
                self.groups.clear();
                self.damaged.clear();
                self.cold.clear();
                self.state.clear();
                (self.base, self.base_chain) = (Lsn::ZERO, 0);
                None
            }
            LogJob::PutCold { records, at, number } => {
                self.cold.extend(records);
                backend(BackendInput::ChunkStored { at, number })
            }
            LogJob::SetBase { at, chain, state } => {
                self.state = state.into_iter().collect();
                (self.base, self.base_chain) = (at, chain);
                backend(BackendInput::Installed { log: self.end() })
            }
        }
    }

    /// What was given back is not damaged.
    fn forget_damage(&mut self) {
        let there: BTreeSet<Damage> = self.places().into_iter().collect();
        self.damaged.retain(|damage| there.contains(damage));
    }

    fn reclaim(&mut self, first: Lsn, last: Lsn) {
        if let Some(end) = self.groups.iter().find(|group| group.last() == last)
            && last > self.base
        {
            (self.base, self.base_chain) = (last, end.header().chain);
        }
        self.groups.retain(|group| group.last() < first || group.first() > last);
        self.forget_damage();
    }
}
