//! What reads and writes a host's disk, in its own time.

use super::disk::Job;
use super::world::{Event, World};
use crate::{Backend, Input, SnapshotCursor};
use understudy_model::Lsn;

const CHUNK_BYTES: usize = 40;

impl World {
    pub(super) fn job(&mut self, host: usize, job: Job) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.jobs.push_back(job);
        if process.jobs.len() == 1 {
            self.run_jobs(host);
        }
    }

    fn run_jobs(&mut self, host: usize) {
        let at = self.delay().max(self.hosts[host].hangs_until_ms);
        let run = self.hosts[host].run;
        self.at(at, Event::JobDone { host, run });
    }

    /// Appends and views that wait are synced together and reported once.
    pub(super) fn jobs_done(&mut self, host: usize) {
        if std::mem::take(&mut self.hosts[host].disk.next_sync_fails) {
            return self.crash(host);
        }
        let batch = 1 + self.below(4);
        let mut inputs = Vec::new();
        for _ in 0..batch {
            let h = &mut self.hosts[host];
            let Some(process) = &mut h.process else { return };
            let Some(job) = process.jobs.pop_front() else { break };
            h.disk.carry_out(job.clone());
            let log = h.disk.end();
            let batched = matches!(job, Job::Append(_) | Job::SaveView { .. });
            let input = match job {
                Job::Append(group) => Some(Input::Durable { through: group.last() }),
                Job::SaveView { version, .. } => Some(Input::ViewSaved { version }),
                Job::Truncate { .. } => {
                    process.begin_at(log);
                    Some(Input::Truncated { log })
                }
                Job::Install { last, at, number, .. } => {
                    process.begin_at(log);
                    process.commit = log.last;
                    Some(if last {
                        Input::Installed { log }
                    } else {
                        Input::ChunkStored { at, number }
                    })
                }
            };
            inputs.extend(input);
            if !batched {
                break;
            }
        }
        if self.process(host).is_some_and(|process| !process.jobs.is_empty()) {
            self.run_jobs(host);
        }
        let newest = |of: fn(&Input) -> bool| inputs.iter().rfind(|input| of(input)).cloned();
        let view = newest(|input| matches!(input, Input::ViewSaved { .. }));
        let durable = newest(|input| matches!(input, Input::Durable { .. }));
        let other = newest(|i| {
            matches!(
                i,
                Input::Truncated { .. } | Input::Installed { .. } | Input::ChunkStored { .. }
            )
        });
        for input in [view, durable, other].into_iter().flatten() {
            if let Input::Installed { log } = &input {
                self.applied(host, log.last);
            }
            self.input(host, input);
        }
    }

    pub(super) fn read_groups(&mut self, host: usize, after: Lsn, bytes_max: usize) {
        let disk = &self.hosts[host].disk;
        let mut bytes = 0;
        let mut groups = Vec::new();
        for group in disk.groups.iter().filter(|group| group.first() > after) {
            if after < disk.base.0 || (bytes > 0 && bytes + group.bytes().len() > bytes_max) {
                break;
            }
            bytes += group.bytes().len();
            groups.push(group.clone());
        }
        self.later(host, Input::GroupsRead { after, groups });
    }

    pub(super) fn read_snapshot(&mut self, host: usize, cursor: SnapshotCursor) {
        let Some(process) = &self.hosts[host].process else { return };
        // The cursor is an offset and the LSN that the copy began at.
        let (offset, mut at) = ((cursor.0 >> 32) as usize, Lsn(cursor.0 & 0xffff_ffff));
        if cursor.0 == 0 {
            at = process.commit;
        }
        let disk = &self.hosts[host].disk;
        let (bytes, chain) = (disk.snapshot(at), disk.chain_at(at));
        let end = (offset + CHUNK_BYTES).min(bytes.len());
        let more = end < bytes.len();
        let next = more.then_some(SnapshotCursor((end as u64) << 32 | at.0));
        let chunk = bytes.slice(offset..end);
        let answer = Input::SnapshotRead { at, chain, chunk, next };
        // What is in memory is answered within the turn.
        if self.below(2) == 0 { self.input(host, answer) } else { self.later(host, answer) }
    }

    pub(super) fn reclaim(&mut self, host: usize, to: Lsn) {
        let Some(process) = &self.hosts[host].process else { return };
        let retain = process.pair.retain_after().unwrap_or(to);
        let to = to.min(retain).min(process.commit);
        let disk = &mut self.hosts[host].disk;
        disk.reclaim(to);
        let base = disk.base.0;
        self.input(host, Input::Reclaimed { base });
    }
}
