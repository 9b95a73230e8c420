//! What goes into a turn of the node, and what it wants done.

use super::Blocked;
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy_broker::{ReadAhead, Slice};
use understudy_model::{ConnectionId, Damage, Effect, Group, Lsn, QueueId, Repair, Request, Text};
use understudy_replication::{ArbiterCall, DiskSpace, Input as BackendInput, LinkId, Wanted};

/// Everything that can happen to a node.
#[derive(Debug)]
pub enum Input {
    Requests {
        connection: ConnectionId,
        requests: Vec<Request>,
    },
    /// The connection's socket took so many more bytes.
    Drained {
        connection: ConnectionId,
        bytes: u64,
    },
    Closed {
        connection: ConnectionId,
    },
    /// Log writer: durable up to here, a group's end.
    Durable {
        through: Lsn,
    },
    /// Answer to [`Outputs::reads`].
    Read {
        queue: QueueId,
        asked: Vec<Lsn>,
        records: Vec<(Lsn, Bytes)>,
    },
    /// State writer: the slices that ended the round are on disk.
    StateSaved {
        replay_after: Lsn,
    },
    /// Log writer: the segment's live records are packed away.
    Relocated {
        first: Lsn,
        bytes: u64,
    },
    /// … or could not be read.
    RelocationFailed,
    /// A thread has hit a piece on disk that cannot be read, or is not there. It holds nothing
    /// behind `last`.
    Damaged {
        damage: Damage,
        last: Lsn,
        what: String,
        blocked: Option<Blocked>,
    },
    /// Log writer: what became of a repair.
    Repaired {
        damage: Damage,
        repair: Repair,
    },
    /// What room is left in the store, whenever that changes.
    Space {
        left: DiskSpace,
    },
    /// Answer to [`Outputs::snapshot_read`].
    SnapshotRecords {
        records: Vec<(Lsn, Bytes)>,
    },
    /// Links, views and the rest of what concerns the replication backend only.
    Backend(BackendInput),
    /// Time has passed.
    Tick,
}

/// Jobs for the log writer, in order.
#[derive(Debug)]
pub enum LogJob {
    Append(Group),
    SaveView {
        version: u64,
        view: Bytes,
    },
    Truncate {
        after: Lsn,
    },
    Reclaim {
        first: Lsn,
        last: Lsn,
    },
    /// Pack these live records of the segment away and reclaim it.
    Relocate {
        first: Lsn,
        last: Lsn,
        lsns: Vec<Lsn>,
    },
    /// Put the peer's group in the damaged one's place.
    RepairGroup {
        damage: Damage,
        group: Group,
    },
    /// Take the damaged piece out; `records` are all that lives of it.
    RepairRecords {
        damage: Damage,
        records: Vec<(Lsn, Bytes)>,
        /// The end of what saved state covers.
        saved: Lsn,
    },
    /// Begin a copy: an empty log.
    Reset {
        set_aside: bool,
    },
    /// Part of a copy: the records of that chunk, perhaps none.
    PutCold {
        records: Vec<(Lsn, Bytes)>,
        at: Lsn,
        number: u64,
    },
    /// End a copy: `state` is saved first, then the log begins behind `at`.
    SetBase {
        at: Lsn,
        chain: u128,
        state: Vec<(Bytes, Bytes)>,
    },
}

/// What a turn wants done. The driver carries it out and clears it.
#[derive(Default)]
pub struct Outputs {
    pub effects: BTreeMap<ConnectionId, Vec<Effect>>,
    pub log: Vec<LogJob>,
    /// Messages that queues hand out next and the cache does not hold.
    pub reads: Vec<ReadAhead>,
    /// Groups for the slave: those behind the LSN, about so many bytes.
    pub read_groups: Option<(Lsn, usize)>,
    /// Messages for the peer's copy.
    pub snapshot_read: Option<Vec<Lsn>>,
    /// What the peer has lost.
    pub fetch_reads: Vec<(LinkId, u64, Wanted)>,
    /// Slices of state for the state writer.
    pub save: Vec<Slice>,
    /// Those slices end a round: a restart then replays the log behind this LSN only.
    pub save_ends: Option<Lsn>,
    pub ask_arbiter: Vec<(u64, ArbiterCall)>,
    pub dial: Option<Text>,
    pub send: Vec<(LinkId, Vec<Bytes>)>,
    pub hang_up: Vec<LinkId>,
    /// Open the client listeners, or close them and all connections.
    pub frontends: Option<bool>,
    /// Of a planned close: where the next master's clients find it.
    pub successor: Option<Text>,
    pub users_changed: bool,
    /// Lines for the log; true: a warning.
    pub notices: Vec<(bool, String)>,
    /// The node has ended: why it stopped, or what broke.
    pub stop: Option<Result<String, String>>,
}
