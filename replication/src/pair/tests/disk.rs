//! A disk that keeps what was synced, and the log jobs that are still on their way to it.

use crate::pair::view::{Standing, View};
use crate::{Found, LogEnd, Output, Wanted};
use bytes::{Bytes, BytesMut};
use understudy_model::{Features, Group, Lsn, Reader, Writer};

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Disk {
    pub(super) view: Option<Bytes>,
    pub(super) groups: Vec<Group>,
    pub(super) base: (Lsn, u128),
    /// Group ends and chains from the very first, also of what was reclaimed: for the checks.
    pub(super) lineage: Vec<(Lsn, u128)>,
    pub(super) applied: Lsn,
    pub(super) features: Features,
    copy: Vec<u8>,
    /// The process ends instead of the next sync.
    pub(super) next_sync_fails: bool,
    /// What the next start finds wrong with the log.
    pub(super) damaged: Option<String>,
    /// Lineages that were set aside.
    pub(super) aside: Vec<Vec<(Lsn, u128)>>,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Job {
    Append(Group),
    SaveView {
        version: u64,
        view: Bytes,
    },
    Truncate {
        after: Lsn,
    },
    Install {
        first: bool,
        last: bool,
        set_aside: bool,
        number: u64,
        at: Lsn,
        chain: u128,
        chunk: Bytes,
    },
}

impl Job {
    pub(super) fn of(output: &Output) -> Option<Self> {
        match output.clone() {
            Output::Append(group) => Some(Self::Append(group)),
            Output::SaveView { version, view } => Some(Self::SaveView { version, view }),
            Output::Truncate { after } => Some(Self::Truncate { after }),
            Output::InstallSnapshot { first, last, set_aside, number, at, chain, chunk } => {
                Some(Self::Install { first, last, set_aside, number, at, chain, chunk })
            }
            _ => None,
        }
    }
}

impl Disk {
    pub(super) fn end(&self) -> LogEnd {
        let last = self.groups.last();
        LogEnd {
            base: self.base.0,
            base_chain: self.base.1,
            last: last.map_or(self.base.0, Group::last),
            last_chain: last.map_or(self.base.1, |group| group.header().chain),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let view = self.view.as_deref().map(View::decode);
        view.map_or(Standing::Empty, |view| view.unwrap().standing)
    }

    pub(super) fn holds(&self, (lsn, chain): (Lsn, u128)) -> bool {
        lsn == Lsn::ZERO || self.lineage.contains(&(lsn, chain))
    }

    pub(super) fn chain_at(&self, lsn: Lsn) -> u128 {
        let known = self.lineage.iter().find(|(end, _)| *end == lsn);
        known.map_or(0, |(_, chain)| *chain)
    }

    pub(super) fn carry_out(&mut self, job: Job) {
        match job {
            Job::Append(group) => {
                assert_eq!(group.first(), self.end().last.next(), "the log has no gap");
                group.verify_chain(self.end().last_chain).unwrap();
                self.lineage.push((group.last(), group.header().chain));
                self.groups.push(group);
            }
            Job::SaveView { view, .. } => self.view = Some(view),
            Job::Truncate { after } => {
                assert!(after >= self.base.0);
                self.groups.retain(|group| group.last() <= after);
                self.lineage.retain(|(end, _)| *end <= after);
                assert_eq!(self.end().last, after, "cut at a group's end");
            }
            Job::Install { first, last, set_aside, at, chain, chunk, .. } => {
                if first {
                    if set_aside {
                        self.aside.push(self.lineage.clone());
                    }
                    let (view, aside) = (self.view.take(), std::mem::take(&mut self.aside));
                    *self = Self { view, aside, ..Self::default() };
                }
                self.copy.extend_from_slice(&chunk);
                if last {
                    self.lineage = decode_lineage(&std::mem::take(&mut self.copy));
                    self.base = (at, chain);
                    self.applied = at;
                    assert!(self.holds((at, chain)), "the copy is whole and in order");
                }
            }
        }
    }

    pub(super) fn reclaim(&mut self, to: Lsn) {
        while let Some(group) = self.groups.first()
            && group.last() <= to
        {
            self.base = (group.last(), group.header().chain);
            self.groups.remove(0);
        }
    }

    pub(super) fn find(&self, wanted: &Wanted) -> Found {
        let holding = |lsn: Lsn| self.groups.iter().find(|group| group.contains(lsn));
        match wanted {
            Wanted::Group { holding: lsn } => {
                holding(*lsn).map_or(Found::Nothing, |group| Found::Group(group.clone()))
            }
            Wanted::Records(lsns) => {
                let find = |lsn: &Lsn| Some((*lsn, holding(*lsn)?.record(*lsn)?));
                Found::Records(lsns.iter().filter_map(find).collect())
            }
        }
    }

    /// The state up to `at` as bytes.
    pub(super) fn snapshot(&self, at: Lsn) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        for (end, chain) in self.lineage.iter().filter(|(end, _)| *end <= at) {
            w.varint(end.0);
            w.u128(*chain);
        }
        out.freeze()
    }
}

fn decode_lineage(bytes: &[u8]) -> Vec<(Lsn, u128)> {
    let mut r = Reader(bytes);
    let mut lineage = Vec::new();
    while !r.0.is_empty() {
        lineage.push((Lsn(r.varint().unwrap()), r.u128().unwrap()));
    }
    lineage
}
