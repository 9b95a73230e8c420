//! A whole copy in slices, master's and slave's side. A slice is read when the one before is on the
//! slave's disk, all but two, so the copy goes as fast as that disk and no faster. A link that
//! breaks costs nothing but the slices on their way: while both processes live, the master keeps
//! what it reads from, for a time, and the slave says how much it has.

use crate::pair::core::Core;
use crate::pair::feed::Stage;
use crate::pair::follow::{Follow, Stage as FollowStage};
use crate::pair::lead::{Lead, Peer};
use crate::pair::message::{Chunk, Message};
use crate::{LinkId, Output, SnapshotCursor};
use bytes::Bytes;
use std::collections::VecDeque;
use understudy_model::{Epoch, Lsn, NodeId};

/// Chunks that may be read and not yet on the slave's disk.
const CHUNKS_IN_FLIGHT_MAX: usize = 2;
/// So long a copy waits for a slave that was lost: the log behind it stays meanwhile.
const HELD_MS: u64 = 60_000;

/// How much of which copy a slave has taken in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taken {
    pub(crate) at: Lsn,
    pub(crate) chain: u128,
    pub(crate) chunks: u64,
}

/// The same, at the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taking {
    /// Another mastership cuts its copy elsewhere.
    epoch: Epoch,
    taken: Taken,
}

impl Core {
    pub(crate) fn taken(&self, epoch: Epoch) -> Option<Taken> {
        self.taking.filter(|taking| taking.epoch == epoch).map(|taking| taking.taken)
    }

    /// Whether this is the chunk that comes next; counts it.
    pub(crate) fn takes(&mut self, chunk: &Chunk) -> bool {
        if chunk.first {
            let taken = Taken { at: chunk.at, chain: chunk.chain, chunks: 0 };
            self.taking = Some(Taking { epoch: chunk.epoch, taken });
        }
        let Some(Taking { epoch, taken }) = &mut self.taking else { return false };
        let fits = *epoch == chunk.epoch
            && (taken.at, taken.chain, taken.chunks) == (chunk.at, chunk.chain, chunk.number);
        taken.chunks += 1;
        if !fits || chunk.last {
            self.taking = None;
        }
        fits
    }
}

impl Follow {
    /// So many chunks of the copy at `at` are on this node's disk.
    pub(crate) fn chunks_stored(&self, core: &Core, at: Lsn, chunks: u64, out: &mut Vec<Output>) {
        // The disk may have been busy with a copy that was given up.
        let current = core.taken(self.epoch).is_some_and(|taken| taken.at == at);
        if current && matches!(self.stage, FollowStage::Copying { .. }) {
            core.send(self.link, &Message::ChunkAck { epoch: self.epoch, chunks }, out);
        }
    }
}

/// At the master. Outlives the link.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Copying {
    slave: NodeId,
    /// LSN and chain hash of the whole; known with the first chunk.
    end: Option<(Lsn, u128)>,
    /// To be read next; none: being read, or all was read.
    next: Option<SnapshotCursor>,
    /// On the slave's disk.
    stored: u64,
    /// Read, and not known to be there; whether it is the last one.
    unstored: VecDeque<(bool, Bytes)>,
    /// What follows must stay in the log.
    pub(crate) floor: Lsn,
    /// The slave was lost; until when it is waited for.
    held_until_ms: Option<u64>,
}

impl Copying {
    fn new(core: &Core, slave: NodeId) -> Self {
        Self {
            slave,
            end: None,
            next: Some(SnapshotCursor::default()),
            stored: 0,
            unstored: VecDeque::new(),
            floor: core.commit,
            held_until_ms: None,
        }
    }

    /// Whether the slave's part is the front of this copy, and the rest is still here.
    fn continues(&self, slave: NodeId, taken: Option<Taken>) -> bool {
        let produced = self.stored + self.unstored.len() as u64;
        self.slave == slave
            && taken.is_some_and(|taken| {
                self.end == Some((taken.at, taken.chain))
                    && (self.stored..=produced).contains(&taken.chunks)
            })
    }

    fn read(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        // An answer may be due to a copy that was given up; reading on would mix the two.
        if core.copy_read || self.unstored.len() >= CHUNKS_IN_FLIGHT_MAX {
            return;
        }
        if let Some(cursor) = self.next.take() {
            core.copy_read = true;
            out.push(Output::ReadSnapshot { cursor, since: None });
        }
    }

    fn chunk(&self, epoch: Epoch, index: usize) -> Option<Chunk> {
        let (at, chain) = self.end?;
        let (last, bytes) = self.unstored.get(index)?.clone();
        let number = self.stored + index as u64;
        Some(Chunk { epoch, first: number == 0, last, number, at, chain, bytes })
    }
}

impl Lead {
    /// The slave attached on `link` wants a whole copy, or the rest of one.
    pub(crate) fn begin_copy(
        &mut self,
        core: &mut Core,
        link: LinkId,
        taken: Option<Taken>,
        out: &mut Vec<Output>,
    ) {
        let Some(slave) = core.links.theirs(link).map(|theirs| theirs.node) else { return };
        let held = self.copying.take().filter(|held| held.continues(slave, taken));
        if let (Some(_), Some(taken)) = (&held, taken) {
            let text = format!("the copy at {} goes on behind chunk {}", taken.at, taken.chunks);
            core.say(false, text, out);
        }
        let mut copying = held.unwrap_or_else(|| Copying::new(core, slave));
        let taken = taken.filter(|_| copying.end.is_some()).map_or(0, |taken| taken.chunks);
        copying.unstored.drain(..(taken - copying.stored.min(taken)) as usize);
        copying.stored = copying.stored.max(taken);
        copying.held_until_ms = None;
        for chunk in (0..copying.unstored.len()).filter_map(|at| copying.chunk(self.epoch, at)) {
            core.send(link, &Message::Chunk(chunk), out);
        }
        copying.read(core, out);
        self.copying = Some(copying);
        self.sent_all_chunks();
    }

    /// The slave says its position next.
    fn sent_all_chunks(&mut self) {
        let Some(copying) = &self.copying else { return };
        let Peer::Attached(feed) = &mut self.peer else { return };
        let all = copying.unstored.back().is_some_and(|(last, _)| *last);
        if all && feed.stage == Stage::Copying {
            feed.stage = Stage::Greeted;
        }
    }

    pub(crate) fn chunk_read(
        &mut self,
        core: &mut Core,
        end: (Lsn, u128),
        bytes: Bytes,
        next: Option<SnapshotCursor>,
        out: &mut Vec<Output>,
    ) {
        core.copy_read = false;
        let Some(copying) = &mut self.copying else { return };
        if copying.next.is_some() {
            // The answer to the read of a copy that was given up.
            return copying.read(core, out);
        }
        copying.end = Some(end);
        copying.floor = copying.floor.min(end.0);
        copying.next = next;
        copying.unstored.push_back((next.is_none(), bytes));
        let newest = copying.unstored.len() - 1;
        let is_lone = newest == 0;
        if let Peer::Attached(feed) = &mut self.peer
            && feed.stage == Stage::Copying
            && let Some(chunk) = copying.chunk(self.epoch, newest)
        {
            if is_lone {
                // Only from now on is there something to make progress with.
                feed.progress_ms = core.now_ms;
            }
            core.copies.chunk(chunk.first, chunk.bytes.len());
            core.send(feed.link, &Message::Chunk(chunk), out);
            copying.read(core, out);
        }
        self.sent_all_chunks();
    }

    /// So many chunks are on the slave's disk. False: nonsense.
    pub(crate) fn chunks_stored(
        &mut self,
        core: &mut Core,
        chunks: u64,
        out: &mut Vec<Output>,
    ) -> bool {
        let Peer::Attached(feed) = &mut self.peer else { return false };
        let Some(copying) = &mut self.copying else { return true };
        if chunks > copying.stored + copying.unstored.len() as u64 {
            return false;
        }
        feed.progress_ms = core.now_ms;
        while copying.stored < chunks && copying.unstored.pop_front().is_some() {
            copying.stored += 1;
        }
        copying.read(core, out);
        true
    }

    /// Bytes are on their way to the slave and none has arrived.
    pub(crate) fn awaits_chunks(&self) -> bool {
        self.copying.as_ref().is_some_and(|copying| !copying.unstored.is_empty())
    }

    pub(crate) fn hold_copy(&mut self, core: &Core) {
        if let Some(copying) = &mut self.copying {
            copying.held_until_ms = Some(core.now_ms + HELD_MS);
        }
    }

    pub(crate) fn give_up_held_copy(&mut self, core: &Core) {
        let until_ms = self.copying.as_ref().and_then(|copying| copying.held_until_ms);
        if until_ms.is_some_and(|until_ms| until_ms <= core.now_ms) {
            self.copying = None;
        }
    }
}
