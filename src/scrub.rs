//! The thread that reads all that is stored, slowly, to find damage while the other node can still
//! heal it. Steps are small transactions of their own, so no old reader holds LMDB's free pages.

use crate::config::StorageSettings;
use crate::damage;
use crate::driver::Event;
use crate::inbox::EventSender;
use crate::log_writer::LogWriter;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use understudy_storage::{LogReader, Scrub, StorageError};

const STEPS_PER_SECOND: u32 = 10;
/// While commits wait, only one step in so many is taken.
const STEPS_SKIPPED_MAX: u32 = 7;

/// How far it is.
#[derive(Debug, Default)]
pub struct ScrubProgress {
    passes: AtomicU64,
    /// Of the pass that runs, or the last one.
    bytes: AtomicU64,
    at: AtomicU64,
    damaged: AtomicU64,
}

#[derive(Serialize)]
pub struct ScrubJson {
    /// Since the start.
    pub passes: u64,
    /// Of the pass that runs, or of the last one.
    pub bytes: u64,
    pub lsn: u64,
    /// Damage that was found since the start.
    pub damaged: u64,
}

impl ScrubProgress {
    pub fn json(&self) -> ScrubJson {
        ScrubJson {
            passes: self.passes.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lsn: self.at.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
        }
    }
}

/// # Errors
/// The thread cannot be started.
pub fn start(
    log: LogReader,
    settings: &StorageSettings,
    writer: LogWriter,
    events: EventSender,
) -> std::io::Result<Arc<ScrubProgress>> {
    let progress = Arc::new(ScrubProgress::default());
    if settings.scrub_bytes_per_second == 0 {
        return Ok(progress);
    }
    let step_bytes = (settings.scrub_bytes_per_second / u64::from(STEPS_PER_SECOND)).max(1);
    let interval = Duration::from_secs(settings.scrub_interval_s);
    let shown = progress.clone();
    let scrubber = Scrubber { log, writer, events, progress, step_bytes, interval };
    std::thread::Builder::new().name("scrub".into()).spawn(move || scrubber.run())?;
    Ok(shown)
}

struct Scrubber {
    log: LogReader,
    writer: LogWriter,
    events: EventSender,
    progress: Arc<ScrubProgress>,
    step_bytes: u64,
    interval: Duration,
}

impl Scrubber {
    fn run(self) {
        let mut begun = Instant::now();
        let mut pass = Some(Scrub::default());
        let mut skipped = 0;
        while !self.events.is_closed() {
            std::thread::sleep(Duration::from_secs(1) / STEPS_PER_SECOND);
            if pass.is_none() && begun.elapsed() >= self.interval {
                begun = Instant::now();
                self.progress.bytes.store(0, Relaxed);
                pass = Some(Scrub::default());
            }
            let Some(running) = &mut pass else { continue };
            if self.writer.is_busy() && skipped < STEPS_SKIPPED_MAX {
                skipped += 1;
                continue;
            }
            skipped = 0;
            match self.step(running) {
                Ok(true) => pass = None,
                Ok(false) => {}
                Err(error) => {
                    let _ =
                        self.events.send(Event::Fatal(format!("the log cannot be read: {error}")));
                    return;
                }
            }
        }
    }

    /// True at the end of the pass.
    fn step(&self, pass: &mut Scrub) -> Result<bool, StorageError> {
        let step = pass.step(&self.log, self.step_bytes as usize)?;
        self.progress.bytes.fetch_add(step.bytes as u64, Relaxed);
        self.progress.at.store(step.at.0, Relaxed);
        for found in step.damaged {
            self.progress.damaged.fetch_add(1, Relaxed);
            if let Some(input) = damage::input(&self.log, found, None)? {
                let _ = self.events.send(Event::Node(input));
            }
        }
        if step.ended {
            self.progress.passes.fetch_add(1, Relaxed);
        }
        Ok(step.ended)
    }
}
