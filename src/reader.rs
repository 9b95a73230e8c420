//! The thread that reads the log for backlogs, catch-up and snapshots: a page fault there must not
//! stop the driver.

use crate::driver::Event;
use crate::inbox::EventSender;
use crate::node::Input;
use tokio::sync::mpsc;
use understudy_broker::ReadAhead;
use understudy_model::Lsn;
use understudy_replication::Input as BackendInput;
use understudy_storage::{LogReader, StorageError};

/// One read gives at most so much (and at least one record).
const READ_BYTES_MAX: usize = 1 << 20;

pub enum ReadJob {
    Ahead(ReadAhead),
    Groups { after: Lsn, bytes_max: usize },
    Snapshot { lsns: Vec<Lsn> },
}

#[derive(Clone)]
pub struct Reader(mpsc::UnboundedSender<ReadJob>);

impl Reader {
    pub fn start(log: LogReader, events: EventSender) -> std::io::Result<Self> {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                let event = match read(&log, job) {
                    Ok(input) => Event::Node(input),
                    Err(error) => Event::Fatal(format!("the log cannot be read: {error}")),
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self(sender))
    }

    pub fn send(&self, job: ReadJob) {
        let _ = self.0.send(job);
    }
}

fn read(log: &LogReader, job: ReadJob) -> Result<Input, StorageError> {
    Ok(match job {
        ReadJob::Ahead(ReadAhead { queue, lsns }) => {
            let records = log.records(&lsns, READ_BYTES_MAX)?;
            Input::Read { queue, asked: lsns, records }
        }
        ReadJob::Groups { after, bytes_max } => {
            let groups = log.groups(after, bytes_max)?;
            Input::Backend(BackendInput::GroupsRead { after, groups })
        }
        ReadJob::Snapshot { lsns } => {
            Input::SnapshotRecords { records: log.records(&lsns, READ_BYTES_MAX)? }
        }
    })
}
