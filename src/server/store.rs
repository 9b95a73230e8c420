//! The data directory, opened, and the threads that read and write it from then on.

use crate::boot::Found;
use crate::config::Settings;
use crate::handle::{Measured, Overview};
use crate::inbox::EventSender;
use crate::log_writer::LogWriter;
use crate::ownership::Ownership;
use crate::reader::Reader;
use crate::scrub;
use crate::space::SpaceWatch;
use crate::stall;
use crate::state_writer::StateWriter;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use understudy_broker::replay_point;
use understudy_replication::LogEnd;
use understudy_storage::{DataDirLock, Log, LogOptions, LogReader, StateStore, StorageError};

const STATE_MAP_BYTES: usize = 16 << 30;

/// What is in it, under its lock.
pub(super) struct Store {
    /// None where two processes are meant to reach the directory.
    pub(super) _lock: Option<DataDirLock>,
    pub(super) log: Log,
    pub(super) reader: LogReader,
    pub(super) state: StateStore,
    pub(super) found: Found,
}

impl Store {
    /// # Errors
    /// Another process has it, or it cannot be read.
    pub(super) fn open(settings: &Settings, ownership: Option<&Ownership>) -> anyhow::Result<Self> {
        let dir = &settings.data_dir;
        let _lock = match ownership {
            None => Some(DataDirLock::acquire(dir)?),
            Some(_) => None,
        };
        let options = LogOptions { map_bytes_max: settings.storage.map_bytes_max };
        let mut state = StateStore::open(dir, STATE_MAP_BYTES)?;
        let slices = match state.load() {
            Ok(slices) => Ok(slices),
            Err(error @ StorageError::State(_)) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let known = slices.as_ref().ok().and_then(|slices| replay_point(slices));
        let (mut log, reader, damage) = Log::open_damaged(dir, &options, known)?;
        let end = log.end();
        if let Some(ownership) = ownership {
            let guard = |ownership: Ownership| Box::new(move || ownership.check().is_ok());
            log.set_guard(guard(ownership.clone()));
            state.set_guard(guard(ownership.clone()));
        }
        let found = Found {
            view: log.load_view()?,
            log: LogEnd {
                base: end.base,
                base_chain: end.base_chain,
                last: end.last,
                last_chain: end.last_chain,
            },
            damage: damage.map(|damage| damage.to_string()),
            state: slices,
        };
        Ok(Self { _lock, log, reader, state, found })
    }
}

pub(super) struct Threads {
    pub(super) log: LogWriter,
    pub(super) state: StateWriter,
    pub(super) reader: Reader,
    pub(super) measured: Measured,
    /// Told once, if the disk hangs and the process has to end.
    pub(super) stalled: oneshot::Receiver<String>,
}

impl Threads {
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(
        settings: &Settings,
        (log, state, reader): (Log, StateStore, LogReader),
        ownership: Option<Ownership>,
        events: &EventSender,
        overview: watch::Receiver<Arc<Overview>>,
    ) -> anyhow::Result<Self> {
        let storage = &settings.storage;
        let space = SpaceWatch::start(reader.clone(), storage.free_bytes_min, events.clone())?;
        let dir = settings.data_dir.clone();
        let left = space.left();
        let log = LogWriter::start(log, ownership, reader.clone(), dir, space, events.clone())?;
        let scrubbed = scrub::start(reader.clone(), storage, log.clone(), events.clone())?;
        let measured = Measured { scrubbed, commits: log.commit_times(), left };
        let state = StateWriter::start(state, log.clone(), events.clone())?;
        let stalled = stall::watch(storage, log.writes(), overview)?;
        let reader = Reader::start(reader, events.clone())?;
        Ok(Self { log, state, reader, measured, stalled })
    }
}
