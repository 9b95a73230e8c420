//! How much room the store has: tells the node when too little is left and when there is enough
//! again. The log writer looks as it writes; a thread looks as time goes by, because others may
//! use the same disk.

use crate::driver::Event;
use crate::inbox::EventSender;
use crate::node::Input;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use understudy_replication::DiskSpace;
use understudy_storage::{LogReader, StorageError};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The log writer looks after so many bytes.
const LOOK_AFTER_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct SpaceWatch {
    log: LogReader,
    free_bytes_min: u64,
    events: EventSender,
    told: Arc<Mutex<DiskSpace>>,
    left: Arc<SpaceLeft>,
}

/// What was left at the last look.
#[derive(Debug)]
pub struct SpaceLeft {
    pub free_bytes_min: u64,
    map_bytes: AtomicU64,
    disk_bytes: AtomicU64,
}

impl Default for SpaceLeft {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SpaceLeft {
    fn new(free_bytes_min: u64) -> Self {
        let unknown = || AtomicU64::new(u64::MAX);
        Self { free_bytes_min, map_bytes: unknown(), disk_bytes: unknown() }
    }

    /// Of the log's map and of the file system; none before the first look.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        let bytes = (self.map_bytes.load(Relaxed), self.disk_bytes.load(Relaxed));
        (bytes.0 != u64::MAX && bytes.1 != u64::MAX).then_some(bytes)
    }
}

impl SpaceWatch {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        log: LogReader,
        free_bytes_min: u64,
        events: EventSender,
    ) -> std::io::Result<Self> {
        let left = Arc::new(SpaceLeft::new(free_bytes_min));
        let watch = Self { log, free_bytes_min, events, told: Arc::default(), left };
        let looking = watch.clone();
        let look = move || {
            while !looking.events.is_closed() {
                if let Err(error) = looking.look() {
                    tracing::error!("cannot see how much room is left: {error}");
                    return;
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        };
        std::thread::Builder::new().name("space".into()).spawn(look)?;
        Ok(watch)
    }

    /// `written` bytes were written since the last look; looks, and sets it back, when it is time.
    ///
    /// # Errors
    /// What LMDB and the file system say.
    pub fn written(&self, written: &mut usize) -> Result<(), StorageError> {
        if *written < LOOK_AFTER_BYTES {
            return Ok(());
        }
        *written = 0;
        self.look()
    }

    #[must_use]
    pub fn left(&self) -> Arc<SpaceLeft> {
        self.left.clone()
    }

    fn look(&self) -> Result<(), StorageError> {
        let space = self.log.space()?;
        self.left.map_bytes.store(space.map_bytes, Relaxed);
        self.left.disk_bytes.store(space.disk_bytes, Relaxed);
        let left = space.least_bytes();
        // Held while sending: of two changes the later one must come last.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = judge(*told, left, self.free_bytes_min);
        if now != *told {
            match (*told, now) {
                (_, DiskSpace::Full) => tracing::error!(left_bytes = left, "nearly out of disk"),
                (DiskSpace::Enough, _) => {
                    tracing::warn!(
                        left_bytes = left,
                        "low on disk: publishers wait, or are refused (storage.alarm_policy)"
                    );
                }
                (_, DiskSpace::Enough) => {
                    tracing::info!(left_bytes = left, "the disk alarm is over");
                }
                (_, DiskSpace::Low) => tracing::info!(left_bytes = left, "less short of disk"),
            }
            *told = now;
            let _ = self.events.send(Event::Node(Input::Space { left: now }));
        }
        Ok(())
    }
}

/// A level ends with a quarter more (the last one: twice as much) than it began with, or it would come
/// and go.
fn judge(before: DiskSpace, left: u64, free_bytes_min: u64) -> DiskSpace {
    let quarter = free_bytes_min / 4;
    let full = if before == DiskSpace::Full { quarter * 2 } else { quarter };
    let low = if before == DiskSpace::Enough { free_bytes_min } else { quarter * 5 };
    match left {
        _ if left < full => DiskSpace::Full,
        _ if left < low => DiskSpace::Low,
        _ => DiskSpace::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_and_go_at_different_marks() {
        let mut space = DiskSpace::Enough;
        for (left, expected) in [
            (100, DiskSpace::Enough),
            (99, DiskSpace::Low),
            (124, DiskSpace::Low),
            (125, DiskSpace::Enough),
            (24, DiskSpace::Full),
            (49, DiskSpace::Full),
            (50, DiskSpace::Low),
            (25, DiskSpace::Low),
            (10, DiskSpace::Full),
            (125, DiskSpace::Enough),
        ] {
            space = judge(space, left, 100);
            assert_eq!(space, expected, "{left}");
        }
        assert_eq!(judge(DiskSpace::Enough, 0, 0), DiskSpace::Enough, "no alarm is wanted");
    }
}
