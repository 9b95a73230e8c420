//! The thread that reads the log for backlogs, catch-up and snapshots: a page fault there must not
//! stop the driver.

use crate::damage;
use crate::driver::Event;
use crate::inbox::EventSender;
use crate::node::{Blocked, Input};
use tokio::sync::mpsc;
use understudy_broker::ReadAhead;
use understudy_model::Lsn;
use understudy_replication::{Found, Input as BackendInput, LinkId, Wanted};
use understudy_storage::{LogReader, StorageError};

/// One read gives at most so much (and at least one record).
const READ_BYTES_MAX: usize = 1 << 20;

pub enum ReadJob {
    Ahead(ReadAhead),
    Groups {
        after: Lsn,
        bytes_max: usize,
    },
    Snapshot {
        lsns: Vec<Lsn>,
    },
    /// For the peer.
    Fetch {
        link: LinkId,
        id: u64,
        wanted: Wanted,
    },
}

#[derive(Clone)]
pub struct Reader(mpsc::UnboundedSender<ReadJob>);

impl Reader {
    pub fn start(log: LogReader, events: EventSender) -> std::io::Result<Self> {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                match read(&log, job) {
                    Ok(inputs) => {
                        if !inputs.into_iter().all(|input| events.send(Event::Node(input)).is_ok())
                        {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ =
                            events.send(Event::Fatal(format!("the log cannot be read: {error}")));
                        return;
                    }
                }
            }
        })?;
        Ok(Self(sender))
    }

    pub fn send(&self, job: ReadJob) {
        let _ = self.0.send(job);
    }
}

fn read(log: &LogReader, job: ReadJob) -> Result<Vec<Input>, StorageError> {
    let (read, blocked) = match job {
        ReadJob::Ahead(ahead) => match log.records(&ahead.lsns, READ_BYTES_MAX) {
            Ok(records) => {
                let ReadAhead { queue, lsns } = ahead;
                return Ok(vec![Input::Read { queue, asked: lsns, records }]);
            }
            Err(error) => (Err(error), Some(Blocked::Ahead(ahead))),
        },
        ReadJob::Groups { after, bytes_max } => {
            let groups = log.groups(after, bytes_max);
            let read = groups.map(|groups| BackendInput::GroupsRead { after, groups });
            (read.map(Input::Backend), Some(Blocked::Groups { after, bytes_max }))
        }
        ReadJob::Snapshot { lsns } => {
            let records = log.records(&lsns, READ_BYTES_MAX);
            let read = records.map(|records| Input::SnapshotRecords { records });
            (read, Some(Blocked::Snapshot { lsns }))
        }
        ReadJob::Fetch { link, id, wanted } => return fetch(log, link, id, &wanted),
    };
    match read {
        Ok(input) => Ok(vec![input]),
        Err(error) => Ok(damage::input(log, error, blocked)?.into_iter().collect()),
    }
}

/// What is damaged here too is not there for the peer.
fn fetch(
    log: &LogReader,
    link: LinkId,
    id: u64,
    wanted: &Wanted,
) -> Result<Vec<Input>, StorageError> {
    let found = match wanted {
        Wanted::Group { holding } => {
            log.group_holding(*holding).map(|group| group.map_or(Found::Nothing, Found::Group))
        }
        Wanted::Records(lsns) => log.records(lsns, READ_BYTES_MAX).map(Found::Records),
    };
    let mut inputs = Vec::new();
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            inputs.extend(damage::input(log, error, None)?);
            Found::Nothing
        }
    };
    inputs.push(Input::Backend(BackendInput::FetchRead { link, id, found }));
    Ok(inputs)
}
