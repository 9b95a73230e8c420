//! The one thread that writes the log. It takes every job that waits, commits appends together
//! with one sync, and reports what is durable. A failed sync ends the process: what the disk then
//! holds is not known, and no later answer may pretend that it is (docs/replication.md, invariant 14).

use crate::commit_times::CommitTimes;
use crate::damage;
use crate::driver::Event;
use crate::inbox::EventSender;
use crate::node::{Input, LogJob};
use crate::ownership::{Ownership, lost};
use crate::space::SpaceWatch;
use crate::stall::Writes;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use understudy_model::{Damage, Group, Lsn, Place, Repair};
use understudy_replication::{Input as BackendInput, LogEnd};
use understudy_storage::{Batch, Log, LogReader, StorageError};

const FULL_RETRY: Duration = Duration::from_millis(100);
const JOBS_PER_BATCH: usize = 256;
/// A segment's live records are copied in reads of this size.
const RELOCATE_BYTES_PER_READ: usize = 4 << 20;

/// A group of at most so many commands and bytes may be committed by the driver itself.
const INLINE_COMMANDS_MAX: u64 = 4;
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// … while commits take no longer than this on average: the driver does nothing else meanwhile.
const INLINE_COMMIT_US_MAX: u64 = 2_000;
/// One commit counts as so much at most in the average: a single pause of the disk says little of
/// the next commit.
const COMMIT_US_COUNTED_MAX: u64 = 4_000;

/// Where jobs are sent to.
#[derive(Clone)]
pub struct LogWriter {
    jobs: mpsc::UnboundedSender<LogJob>,
    shared: Arc<Shared>,
}

/// The log, and what tells whether its thread is idle.
struct Shared {
    log: Mutex<Timed>,
    /// Jobs that are sent and not done.
    waiting: AtomicUsize,
    writes: Arc<Writes>,
    times: Arc<CommitTimes>,
}

struct Timed {
    log: Log,
    /// Running average of a commit, µs.
    commit_us: u64,
    /// Of a directory that others can take.
    ownership: Option<Ownership>,
    writes: Arc<Writes>,
    times: Arc<CommitTimes>,
}

impl Timed {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StorageError> {
        let begin = Instant::now();
        let write = self.writes.begin();
        let result = self.log.commit(batch);
        drop(write);
        let took = begin.elapsed();
        self.times.add(took);
        let took_us = (took.as_micros() as u64).min(COMMIT_US_COUNTED_MAX);
        self.commit_us = (self.commit_us * 7 + took_us) / 8;
        // What was written may be answered only by who still owns it.
        if let (Ok(()), Some(Err(error))) = (&result, self.ownership.as_ref().map(Ownership::check))
        {
            lost(&error);
        }
        result
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Timed> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogWriter {
    /// A writer that is gone has reported why; jobs for it no longer matter.
    pub fn send(&self, job: LogJob) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.jobs.send(job);
    }

    /// Commits a small group on the caller's thread if the writer is idle and the disk is quick:
    /// two wake-ups less for a lone publisher who waits for each confirm. False: it must be sent.
    ///
    /// # Errors
    /// The log cannot be written: the process must end.
    pub fn commit_inline(&self, group: &Group) -> Result<bool, String> {
        let commands = group.last().0 - group.first().0 + 1;
        if commands > INLINE_COMMANDS_MAX
            || group.bytes().len() > INLINE_BYTES_MAX
            || self.shared.waiting.load(Ordering::Relaxed) > 0
        {
            return Ok(false);
        }
        let Ok(mut log) = self.shared.log.try_lock() else { return Ok(false) };
        if log.commit_us > INLINE_COMMIT_US_MAX {
            return Ok(false);
        }
        match log.commit(&Batch { groups: std::slice::from_ref(group), view: None }) {
            Ok(()) => Ok(true),
            Err(StorageError::Full) => Ok(false),
            Err(error) => Err(format!("the log cannot be written: {error}")),
        }
    }

    /// Nothing is sent any more, and all that was sent is done. What cannot be written here is
    /// there at the next start nevertheless.
    pub fn close(&self) {
        if let Err(error) = self.shared.lock().log.take_over() {
            tracing::warn!("the log was not closed: {error}");
        }
    }

    /// What tells whether the disk hangs.
    #[must_use]
    pub fn writes(&self) -> Arc<Writes> {
        self.shared.writes.clone()
    }

    /// How long its commits take.
    #[must_use]
    pub fn commit_times(&self) -> Arc<CommitTimes> {
        self.shared.times.clone()
    }

    /// Jobs wait to be done.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 0
    }

    pub fn start(
        log: Log,
        ownership: Option<Ownership>,
        reader: LogReader,
        data_dir: PathBuf,
        space: SpaceWatch,
        events: EventSender,
    ) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::unbounded_channel();
        let writes = Arc::new(Writes::default());
        let times = Arc::new(CommitTimes::default());
        let timed =
            Timed { log, commit_us: 0, ownership, writes: writes.clone(), times: times.clone() };
        let (log, waiting) = (Mutex::new(timed), AtomicUsize::new(0));
        let shared = Arc::new(Shared { log, waiting, writes, times });
        let thread = WriterThread {
            shared: shared.clone(),
            reader,
            data_dir,
            space,
            written: 0,
            events,
            jobs,
            later: VecDeque::new(),
        };
        std::thread::Builder::new().name("log-writer".into()).spawn(move || thread.run())?;
        Ok(Self { jobs: sender, shared })
    }
}

struct WriterThread {
    shared: Arc<Shared>,
    reader: LogReader,
    data_dir: PathBuf,
    space: SpaceWatch,
    /// Bytes since the last look at what room is left.
    written: usize,
    events: EventSender,
    jobs: mpsc::UnboundedReceiver<LogJob>,
    /// Came while the disk was full, in order.
    later: VecDeque<LogJob>,
}

/// Appends and views that are committed with one sync.
#[derive(Default)]
struct Pending {
    groups: Vec<Group>,
    view: Option<(u64, bytes::Bytes)>,
}

impl WriterThread {
    fn run(mut self) {
        let mut jobs = Vec::new();
        loop {
            if self.reclaim_pending() && self.jobs.is_empty() && self.later.is_empty() {
                // Nobody waits: a slice of reclaim gets a sync of its own.
                let committed = self.shared.lock().commit(&Batch::default());
                match committed {
                    Ok(()) => {}
                    Err(StorageError::Full) => std::thread::sleep(FULL_RETRY),
                    Err(error) => return self.fatal(&error),
                }
            } else if !self.later.is_empty() {
                jobs.extend(self.later.drain(..));
            } else if self.jobs.blocking_recv_many(&mut jobs, JOBS_PER_BATCH) == 0 {
                return;
            }
            let mut pending = Pending::default();
            let taken = jobs.len();
            for job in jobs.drain(..) {
                let done = match job {
                    LogJob::Append(group) => {
                        pending.groups.push(group);
                        Ok(())
                    }
                    LogJob::SaveView { version, view } => {
                        pending.view = Some((version, view));
                        Ok(())
                    }
                    other => self.flush(&mut pending).and_then(|()| self.other(other)),
                };
                if let Err(error) = done {
                    return self.fatal(&error);
                }
            }
            if let Err(error) = self.flush(&mut pending).and_then(|()| self.tell_damage()) {
                return self.fatal(&error);
            }
            self.shared.waiting.fetch_sub(taken, Ordering::Relaxed);
        }
    }

    fn reclaim_pending(&self) -> bool {
        self.shared.lock().log.reclaim_pending()
    }

    /// What keeps reclaim from going on.
    fn tell_damage(&self) -> anyhow::Result<()> {
        let untold = self.shared.lock().log.take_damage();
        if let Some(error) = untold
            && let Some(input) = damage::input(&self.reader, error, None)?
        {
            tell(&self.events, input);
        }
        Ok(())
    }

    fn flush(&mut self, pending: &mut Pending) -> anyhow::Result<()> {
        if pending.groups.is_empty() && pending.view.is_none() {
            return Ok(());
        }
        let view = pending.view.as_ref().map(|(_, view)| &view[..]);
        let committed = self.shared.lock().commit(&Batch { groups: &pending.groups, view });
        match committed {
            Err(StorageError::Full) => return self.flush_when_there_is_room(pending),
            result => result?,
        }
        // The groups first: what a saved view releases may rely on everything before it.
        if let Some(last) = pending.groups.last() {
            tell(&self.events, Input::Durable { through: last.last() });
        }
        if let Some((version, _)) = pending.view.take() {
            tell(&self.events, Input::Backend(BackendInput::ViewSaved { version }));
        }
        self.written += pending.groups.iter().map(|group| group.bytes().len()).sum::<usize>();
        pending.groups.clear();
        Ok(self.space.written(&mut self.written)?)
    }

    /// The disk is full in spite of the alarm: nothing was written, and nobody was answered. Small
    /// steps fit before large ones, and reclaim before all: it may be what makes room.
    fn flush_when_there_is_room(&mut self, pending: &mut Pending) -> anyhow::Result<()> {
        tracing::error!("no room on the disk: commits wait");
        let groups = std::mem::take(&mut pending.groups);
        let view = pending.view.take();
        for group in groups {
            let through = group.last();
            self.commit_when_there_is_room(&Batch { groups: &[group], view: None })?;
            tell(&self.events, Input::Durable { through });
        }
        if let Some((version, view)) = view {
            self.commit_when_there_is_room(&Batch { groups: &[], view: Some(&view) })?;
            tell(&self.events, Input::Backend(BackendInput::ViewSaved { version }));
        }
        tracing::info!("there is room on the disk again");
        Ok(())
    }

    fn commit_when_there_is_room(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        loop {
            let committed = self.shared.lock().commit(batch);
            match committed {
                Err(StorageError::Full) => {}
                result => return Ok(result?),
            }
            while let Ok(job) = self.jobs.try_recv() {
                match job {
                    LogJob::Reclaim { .. } => {
                        self.other(job)?;
                        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    }
                    job => self.later.push_back(job),
                }
            }
            let committed = self.shared.lock().commit(&Batch::default());
            match committed {
                Ok(()) if self.reclaim_pending() => {}
                Ok(()) | Err(StorageError::Full) => std::thread::sleep(FULL_RETRY),
                Err(error) => return Err(error.into()),
            }
            if self.events.is_closed() {
                anyhow::bail!("the node stops while the disk is full");
            }
        }
    }

    fn other(&mut self, job: LogJob) -> anyhow::Result<()> {
        let Self { shared, reader, data_dir, events, .. } = self;
        let log = &mut shared.lock().log;
        match job {
            LogJob::Append(_) | LogJob::SaveView { .. } => {}
            LogJob::Truncate { after } => {
                let log = log_end(log.truncate_after(after)?);
                tell(events, Input::Backend(BackendInput::Truncated { log }));
            }
            LogJob::Reclaim { first, last } => {
                log.reclaim(first, last);
                tell(events, Input::Backend(BackendInput::Reclaimed { base: last }));
            }
            LogJob::Relocate { first, last, lsns } => {
                match relocate(log, reader, &lsns) {
                    Ok(bytes) => {
                        log.reclaim_log_only(first, last);
                        tell(events, Input::Relocated { first, bytes });
                    }
                    Err(error) => {
                        // Nothing was taken out: it is tried again after the repair.
                        damage::input(reader, error, None)?.into_iter().for_each(|input| {
                            tell(events, input);
                        });
                        tell(events, Input::RelocationFailed);
                    }
                }
            }
            LogJob::RepairGroup { damage, group } => {
                let repair = log.repair_group(damage, &group)?;
                tell(events, Input::Repaired { damage, repair });
            }
            LogJob::RepairRecords { damage, records, saved } => {
                match log.repair_records(damage, &records, saved) {
                    Err(error @ StorageError::Damaged { .. }) => {
                        damage::input(reader, error, None)?.into_iter().for_each(|input| {
                            tell(events, input);
                        });
                        tell(events, Input::Repaired { damage, repair: Repair::Blocked });
                    }
                    repair => tell(events, Input::Repaired { damage, repair: repair? }),
                }
            }
            LogJob::Reset { set_aside } => {
                if set_aside {
                    set_aside_log(data_dir)?;
                }
                log.reset(Lsn::ZERO, 0)?;
            }
            LogJob::PutCold { records, at, number } => {
                log.put_cold(&records);
                log.commit(&Batch::default())?;
                tell(events, Input::Backend(BackendInput::ChunkStored { at, number }));
            }
            LogJob::SetBase { at, chain, .. } => {
                let log = log_end(log.set_base(at, chain)?);
                tell(events, Input::Backend(BackendInput::Installed { log }));
            }
        }
        Ok(())
    }

    fn fatal(&self, error: &dyn std::fmt::Display) {
        let _ = self.events.send(Event::Fatal(format!("the log cannot be written: {error}")));
    }
}

/// Copies live records into the cold store, to be committed with the log's deletion.
fn relocate(log: &mut Log, reader: &LogReader, lsns: &[Lsn]) -> Result<u64, StorageError> {
    let mut bytes = 0;
    let mut rest = lsns;
    while !rest.is_empty() {
        let records = reader.records(rest, RELOCATE_BYTES_PER_READ)?;
        let covered = records.last().map_or(0, |(last, _)| rest.partition_point(|l| l <= last));
        // The range is deleted next: what is not found now would be lost.
        if covered != records.len() || covered == 0 {
            let lsn = rest.iter().zip(&records).find(|(lsn, (found, _))| *lsn != found);
            let lsn = lsn.map_or(rest[records.len().min(rest.len() - 1)], |(lsn, _)| *lsn);
            let damage = Damage { place: Place::Log, lsn };
            return Err(StorageError::Damaged { damage, what: "a live message is missing".into() });
        }
        rest = &rest[covered..];
        bytes += records.iter().map(|(_, record)| record.len() as u64).sum::<u64>();
        log.put_cold(&records);
    }
    Ok(bytes)
}

/// Keeps what this node had committed alone before it is replaced by the master's copy.
fn set_aside_log(data_dir: &std::path::Path) -> anyhow::Result<()> {
    let number = (1..).find(|n| !data_dir.join(format!("diverged-{n}")).exists()).unwrap_or(1);
    let kept = data_dir.join(format!("diverged-{number}"));
    std::fs::create_dir_all(kept.join("log"))?;
    for entry in std::fs::read_dir(data_dir.join("log"))? {
        let entry = entry?;
        if entry.file_name() == "data.mdb" {
            std::fs::copy(entry.path(), kept.join("log").join(entry.file_name()))?;
        }
    }
    tracing::warn!(kept = %kept.display(), "the diverged log was set aside");
    Ok(())
}

fn log_end(end: understudy_storage::LogEnd) -> LogEnd {
    LogEnd {
        base: end.base,
        base_chain: end.base_chain,
        last: end.last,
        last_chain: end.last_chain,
    }
}

fn tell(events: &EventSender, input: Input) {
    let _ = events.send(Event::Node(input));
}
