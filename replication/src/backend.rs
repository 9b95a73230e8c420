//! The seam: what every replication backend is told and what it may ask for.

use crate::{ArbiterAnswer, ArbiterCall};
use bytes::Bytes;
use understudy_model::{Epoch, Features, Group, Lsn, NodeId, Text};

/// One authenticated connection to the other node; a new one for each TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Where the local log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The log is complete from `base + 1` on; older records may have been reclaimed.
    pub base: Lsn,
    /// Chain hash of the group that ended at `base`; 0 at the very beginning.
    pub base_chain: u128,
    /// Last durable LSN; always the end of a group.
    pub last: Lsn,
    pub last_chain: u128,
}

/// What a backend finds when the process starts.
#[derive(Clone, Debug)]
pub struct Boot {
    pub now_ms: u64,
    /// The view record of the last run; none in a new data directory.
    pub view: Option<Bytes>,
    pub log: LogEnd,
    /// The broker's state holds everything up to here; at most `log.last`.
    pub applied: Lsn,
    /// Switched on in that state.
    pub features: Features,
    /// Log or state cannot be read, so that nothing of it can be served: why.
    pub damaged: Option<String>,
    /// Fresh random numbers, the only ones that the backend gets.
    pub random: [u64; 8],
}

/// How far the making of a snapshot has come; opaque to the backend. 0 begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SnapshotCursor(pub u64);

/// What a node's disk has lost, asked of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The group that holds this command.
    Group { holding: Lsn },
    /// These commands, wherever they are kept. Ascending.
    Records(Vec<Lsn>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Group(Group),
    /// Those that are there; may end early for size, but not before the first one.
    Records(Vec<(Lsn, Bytes)>),
    /// The peer cannot give it.
    Nothing,
    /// No peer is attached whose log is known to be the same, or it went away.
    NoPeer,
    /// There is no second node.
    Nobody,
}

/// A part of the node's state, hashed as of one LSN. What a part is, is the node's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDigest {
    pub at: Lsn,
    pub part: Bytes,
    pub hash: u128,
    /// The slave's answer; none: the master's question.
    pub differs: Option<bool>,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// A link stands and both sides have proved the shared secret.
    Linked {
        link: LinkId,
        dialed: bool,
    },
    /// A whole frame from the peer.
    Received {
        link: LinkId,
        frame: Bytes,
    },
    LinkLost {
        link: LinkId,
    },
    /// What became of [`Output::Dial`], if not a link. `refused`: the host answered that nobody
    /// listens there, so the peer's process is gone; otherwise there was no answer.
    DialFailed {
        refused: bool,
    },
    /// The leader's node sealed a group. It is on its way to the local log already.
    Sealed(Group),
    /// The local log is durable up to here, a group's end.
    Durable {
        through: Lsn,
    },
    /// The view of this version and all before it are durable.
    ViewSaved {
        version: u64,
    },
    /// Answer to [`Output::ReadGroups`]: groups that follow `after` without gap; none when the
    /// log no longer reaches back so far (or ends there).
    GroupsRead {
        after: Lsn,
        groups: Vec<Group>,
    },
    /// Answer to [`Output::Truncate`].
    Truncated {
        log: LogEnd,
    },
    /// Reclaim moved the log's base.
    Reclaimed {
        base: Lsn,
    },
    /// Answer to [`Output::ReadSnapshot`]. `at` and `chain` are those of the whole snapshot.
    /// `next` is none after the last chunk.
    SnapshotRead {
        at: Lsn,
        chain: u128,
        chunk: Bytes,
        next: Option<SnapshotCursor>,
    },
    /// Answer to [`Output::Reinject`].
    Reinjected,
    /// What room is left on this node's disk, whenever that changes.
    Space {
        left: DiskSpace,
    },
    /// Answer to every other [`Output::InstallSnapshot`]: it is on disk, and all before it.
    ChunkStored {
        at: Lsn,
        number: u64,
    },
    /// Answer to the `last` [`Output::InstallSnapshot`]: state and log now begin at the snapshot.
    Installed {
        log: LogEnd,
    },
    /// Answer to [`Output::AskArbiter`].
    ArbiterAnswered {
        serial: u64,
        answer: ArbiterAnswer,
    },
    /// The operator wants the in-sync slave to lead from now on (switchover).
    HandOver,
    /// The operator says that the peer is dead and shall not be waited for. `force`: even if this
    /// copy may lack commands that were answered.
    Promote {
        force: bool,
    },
    /// Ask the peer for what is lost here; answered by [`Output::Fetched`] with the same `id`. A
    /// newer question replaces one that is not answered.
    Fetch {
        id: u64,
        wanted: Wanted,
    },
    /// For the peer, which gets it as [`Output::Digest`] if its log is known to be the same.
    Compare(StateDigest),
    /// Answer to [`Output::ReadFetch`].
    FetchRead {
        link: LinkId,
        id: u64,
        found: Found,
    },
    /// The operator wants this slave to take a whole new copy, or the node cannot repair its own.
    Resync,
    /// The operator says that this master's slave is gone for good. `force`: even if it is attached.
    ForgetSlave {
        force: bool,
    },
    /// The process is asked to stop: say so to the peer, then emit [`Output::Stop`].
    Stopping,
    /// Time has passed; sent at or after [`Backend::deadline_ms`].
    Tick,
}

#[derive(Clone, Debug)]
pub enum Output {
    /// Open a link to the peer's replication listener; one attempt.
    Dial {
        address: Text,
    },
    Send {
        link: LinkId,
        frame: Bytes,
    },
    /// A sealed group for the peer, preceded by `head` in the same frame. Kept apart so that the
    /// group's own buffer is sent.
    SendGroup {
        link: LinkId,
        head: Bytes,
        group: Group,
    },
    HangUp {
        link: LinkId,
    },
    /// Make the view durable; answered by [`Input::ViewSaved`].
    SaveView {
        version: u64,
        view: Bytes,
    },
    /// Follower: write the group to the local log; [`Input::Durable`] follows.
    Append(Group),
    /// Everything up to here, a group's end, is committed: apply it and release its effects.
    Commit {
        through: Lsn,
    },
    /// Leader from now on. The node seals a `NewEpoch` as the first command behind the log's end.
    Lead {
        epoch: Epoch,
        leader: NodeId,
    },
    /// Leader: seal a command that switches these on.
    SwitchOn {
        features: Features,
    },
    /// Leader: too little room is left on the disk of the slave that commits wait for, or enough
    /// again: publishers wait.
    SlaveSpace {
        low: bool,
    },
    /// The new epoch is committed and clients may come in.
    OpenFrontends,
    /// No client may be served: close listeners and connections, forget what is not committed.
    /// `successor`: another node leads next, as planned, and tells clients to come there; an empty
    /// text if it has not told where.
    CloseFrontends {
        successor: Option<Text>,
    },
    /// Not the leader (any more): forget groups that are not committed, then follow.
    Follow,
    ReadGroups {
        after: Lsn,
        bytes_max: usize,
    },
    /// Cut the log behind `after`; nothing of that was committed here. Answered by `Truncated`.
    Truncate {
        after: Lsn,
    },
    /// The peer on `link` has lost this; answered by [`Input::FetchRead`].
    ReadFetch {
        link: LinkId,
        id: u64,
        wanted: Wanted,
    },
    Fetched {
        id: u64,
        found: Found,
    },
    Digest(StateDigest),
    ReadSnapshot {
        cursor: SnapshotCursor,
        /// Only messages behind this LSN, after the state; none: everything.
        since: Option<Lsn>,
    },
    /// Leader: part of what a returning node had committed behind `common` in a partition, to be
    /// brought in. The `first` one begins anew; each is answered by [`Input::Reinjected`] when
    /// what came of it is committed. `producer` names the divergent log.
    Reinject {
        first: bool,
        last: bool,
        common: Lsn,
        producer: u128,
        chunk: Bytes,
    },
    /// Part of a whole copy. The `first` one wipes local log and state (after setting aside what
    /// was there, if `set_aside`); the `last` one is answered by [`Input::Installed`].
    InstallSnapshot {
        first: bool,
        last: bool,
        set_aside: bool,
        /// Which part it is, from 0.
        number: u64,
        at: Lsn,
        chain: u128,
        chunk: Bytes,
    },
    /// One call of the arbiter's seam; answered by [`Input::ArbiterAnswered`] within a bound.
    AskArbiter {
        serial: u64,
        call: ArbiterCall,
    },
    /// One line for the log: a change of state worth telling the operator.
    Log {
        warn: bool,
        text: String,
    },
    /// End the process: cleanly (`Ok`), or because of a broken rule.
    Stop {
        outcome: Result<String, String>,
    },
}

/// What is left of a node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskSpace {
    #[default]
    Enough,
    /// What is left is for settles: publishers wait.
    Low,
    /// That, too, is nearly used up.
    Full,
}

/// What `/api/replication` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `master` or `slave`: what the node does now, not what its file says.
    pub role: &'static str,
    /// `alone`, `syncing`, `joining`, `in-sync`, `holding`, `meeting`, `waiting`, …
    pub state: &'static str,
    pub epoch: u64,
    pub node_id: String,
    pub cluster_id: String,
    pub peer_node_id: String,
    pub peer_address: String,
    /// The node that had its place and was given up by the operator.
    pub forgotten_node_id: String,
    /// Whether the peer's copy holds everything that was answered.
    pub in_sync: bool,
    /// This node leads, and if it ends its slave does by itself.
    pub slave_takes_over: bool,
    pub durable: u64,
    pub commit: u64,
    /// Last LSN that the peer has on disk, as far as is known here.
    pub peer_durable: u64,
    /// Commands that the peer still lacks.
    pub lag: u64,
    /// Whole copies that were begun since the start, taken or given.
    pub copies_begun: u64,
    /// Bytes of the last one so far.
    pub copied_bytes: u64,
    /// All that this says is on disk.
    pub saved: bool,
    /// `none`: not configured; `answers`; `silent`.
    pub arbiter: &'static str,
    pub reason: String,
}

pub trait Backend: Send {
    fn handle(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>);

    /// When [`Input::Tick`] is due next, on the clock of `now_ms`.
    fn deadline_ms(&self) -> Option<u64>;

    /// Groups after this LSN must stay in the log: the peer is being brought up from there.
    fn retain_after(&self) -> Option<Lsn>;

    fn status(&self) -> Status;

    /// The state that is applied has these switched on.
    fn features_on(&mut self, _features: Features) {}
}
