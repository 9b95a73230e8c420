//! What must hold at every step, whatever happens (docs/replication.md section 13).

use super::disk::Job;
use super::world::World;
use crate::Output;
use crate::pair::view::Standing;
use understudy_model::Lsn;

impl World {
    pub(super) fn commit(&mut self, host: usize, through: Lsn) {
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        assert!(through > process.commit || process.leading.is_none(), "commit moves forward");
        process.commit = process.commit.max(through);
        self.applied(host, through);
        let h = &mut self.hosts[host];
        let Some(process) = &mut h.process else { return };
        let mark = (through, h.disk.chain_at(through));
        assert!(h.disk.holds(mark) && mark.1 != 0, "committed is durable, at a group's end");
        let Some(epoch) = process.leading else { return };
        let committer = *self.committers.entry(epoch).or_insert(host);
        assert_eq!(committer, host, "one node commits in epoch {epoch}");
        let synced = matches!(h.disk.standing(), Standing::Synced { .. });
        let peers = self.hosts.iter().enumerate().filter(|(index, _)| *index != host);
        let elsewhere = peers.filter(|(_, peer)| peer.disk.holds(mark)).count();
        assert!(!synced || elsewhere > 0, "host {host}: {through} is on one disk of two");
        if self.excused || self.hosts[host].disk.holds(self.confirmed) {
            self.confirmed = mark;
        } else {
            panic!("host {host} commits {through} on a log without {:?}", self.confirmed);
        }
    }

    /// With an arbiter no partition gives two leaders: whoever runs and serves is the only one.
    pub(super) fn check_one_serves(&self) {
        let awake = |index: &usize| self.hosts[*index].sleeps_until_ms <= self.now_ms;
        let arbitrated = |index: &usize| self.hosts[*index].config.arbiter.is_some();
        let hosts = (0..self.hosts.len()).filter(arbitrated).filter(awake);
        let serving: Vec<usize> = hosts.filter(|host| self.serves(*host)).collect();
        assert!(serving.len() < 2, "{} ms: both serve: {serving:?}", self.now_ms);
    }

    /// What may not be asked of a node.
    pub(super) fn check_before(&mut self, host: usize, output: &Output) {
        let Some(process) = self.process(host) else { return };
        let disk = &self.hosts[host].disk;
        match output {
            Output::Lead { .. } => {
                let pending = process.jobs.iter().any(|job| match job {
                    Job::Append(g) => (g.last(), g.header().chain) == self.confirmed,
                    _ => false,
                });
                let complete = disk.holds(self.confirmed) || pending;
                assert!(self.excused || complete, "host {host} leads without {:?}", self.confirmed);
                assert!(matches!(disk.standing(), Standing::Alone { .. }), "R3");
                self.leads += 1;
            }
            Output::Truncate { after } => {
                assert!(*after >= process.commit, "committed commands are never cut off");
                self.truncations += 1;
            }
            Output::InstallSnapshot { first: true, set_aside, .. } => {
                let own = (process.commit, disk.chain_at(process.commit));
                let others = self.hosts.iter().enumerate().filter(|(index, _)| *index != host);
                let elsewhere = others.filter(|(_, other)| other.disk.holds(own)).count();
                assert!(*set_aside || elsewhere > 0, "host {host} would lose {own:?}");
                self.copies += 1;
            }
            _ => {}
        }
    }
}
