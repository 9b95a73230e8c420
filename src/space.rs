//! How much room the store has: tells the node when too little is left and when there is enough
//! again. The log writer looks as it writes; a thread looks as time goes by, because others may
//! use the same disk.

use crate::driver::Event;
use crate::inbox::EventSender;
use crate::node::Input;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use understudy_storage::{LogReader, StorageError};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The log writer looks after so many bytes.
const LOOK_AFTER_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct SpaceWatch {
    log: LogReader,
    free_bytes_min: u64,
    events: EventSender,
    low: Arc<Mutex<bool>>,
}

impl SpaceWatch {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        log: LogReader,
        free_bytes_min: u64,
        events: EventSender,
    ) -> std::io::Result<Self> {
        let watch = Self { log, free_bytes_min, events, low: Arc::default() };
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

    fn look(&self) -> Result<(), StorageError> {
        let left = self.log.space()?.least_bytes();
        // Held while sending: of two changes the later one must come last.
        let mut low = self.low.lock().unwrap_or_else(PoisonError::into_inner);
        // A quarter more than what raised the alarm, or it would come and go.
        let least = if *low { self.free_bytes_min / 4 * 5 } else { self.free_bytes_min };
        if (left < least) != *low {
            *low = left < least;
            if *low {
                tracing::warn!(left_bytes = left, "low on disk: publishers are blocked");
            } else {
                tracing::info!(left_bytes = left, "the disk alarm is over");
            }
            let _ = self.events.send(Event::Node(Input::Space { low: *low }));
        }
        Ok(())
    }
}
