//! The lazy thread that saves state into its own environment, so that saving never holds the
//! log's write lock.

use crate::driver::Event;
use crate::inbox::EventSender;
use crate::log_writer::LogWriter;
use crate::node::{Input, LogJob};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use understudy_broker::Slice;
use understudy_model::Lsn;
use understudy_storage::{StateStore, StorageError};

const FULL_RETRY: std::time::Duration = std::time::Duration::from_millis(100);

pub enum StateJob {
    Save {
        slices: Vec<Slice>,
        ends: Option<Lsn>,
    },
    Clear,
    /// The state of a copy; then the log's base is set.
    Replace {
        state: Vec<(Bytes, Bytes)>,
        at: Lsn,
        chain: u128,
    },
    /// Save these and tell when done.
    Last {
        slices: Vec<Slice>,
        done: oneshot::Sender<()>,
    },
}

pub struct StateWriter(mpsc::UnboundedSender<StateJob>);

impl StateWriter {
    pub fn start(store: StateStore, log: LogWriter, events: EventSender) -> std::io::Result<Self> {
        let (sender, jobs) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || run(store, &log, &events, jobs))?;
        Ok(Self(sender))
    }

    pub fn send(&self, job: StateJob) {
        let _ = self.0.send(job);
    }

    /// Blocks until the last slices are on disk. State is derivable, so a failure here only makes
    /// the next start slower.
    pub fn save_and_stop(&self, slices: Vec<Slice>) {
        let (done, wait) = oneshot::channel();
        self.send(StateJob::Last { slices, done });
        let _ = wait.blocking_recv();
    }
}

fn run(
    mut store: StateStore,
    log: &LogWriter,
    events: &EventSender,
    mut jobs: mpsc::UnboundedReceiver<StateJob>,
) {
    while let Some(job) = jobs.blocking_recv() {
        let result = match job {
            StateJob::Save { slices, ends } => put(&mut store, &slices, events).map(|()| {
                if let Some(replay_after) = ends {
                    let saved = Input::StateSaved { replay_after };
                    let _ = events.send(Event::Node(saved));
                }
            }),
            StateJob::Clear => store.clear(),
            StateJob::Replace { state, at, chain } => {
                let slices: Vec<Slice> = state.into_iter().map(|(k, v)| (k, Some(v))).collect();
                store.clear().and_then(|()| store.put(&slices)).map(|()| {
                    log.send(LogJob::SetBase { at, chain, state: Vec::new() });
                })
            }
            StateJob::Last { slices, done } => {
                let result = store.put(&slices);
                let _ = done.send(());
                result
            }
        };
        if let Err(error) = result {
            let _ = events.send(Event::Fatal(format!("state cannot be saved: {error}")));
            return;
        }
    }
}

/// On a full disk saving waits until there is room: nothing depends on it but the next start.
fn put(store: &mut StateStore, slices: &[Slice], events: &EventSender) -> Result<(), StorageError> {
    loop {
        match store.put(slices) {
            Err(StorageError::Full) if !events.is_closed() => std::thread::sleep(FULL_RETRY),
            result => return result,
        }
    }
}
