//! Looking after the store while the node works: saving state in slices, giving back log that no
//! live message needs, and making the snapshot for a new slave. Sans-io, a part of the node.

use crate::node::LogJob;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;
use understudy_broker::{Broker, LiveMessages, Segment, Slice};
use understudy_model::{Lsn, Malformed, QueueId, Reader, Writer};
use understudy_replication::{Input as BackendInput, SnapshotCursor};

/// A turn saves slices until they are this long together.
const SAVE_BYTES_PER_TURN: usize = 1 << 20;
const SAVE_QUEUES_PER_TURN: usize = 256;
/// A segment with fewer live messages than one in so many commands is packed away.
const SPARSE_DIVISOR: u64 = 4;
/// Below so much log nothing is packed away: it would only be copying.
const RELOCATE_LOG_BYTES_MIN: u64 = 256 << 20;
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
const SNAPSHOT_LSNS_PER_READ: usize = 256;
/// So many LSNs are looked through at a time: a list of all would make commits wait.
const SNAPSHOT_LSNS_PER_LOOK: u64 = 1 << 16;

#[derive(Default)]
pub(crate) struct Upkeep {
    bytes_since_save: u64,
    round: Option<Round>,
    /// The last slices of a round are on their way to the disk.
    ending: bool,
    relocating: bool,
    pub(crate) snapshot: Option<Snapshot>,
}

/// Saving what had changed when the round began.
struct Round {
    replay_after: Lsn,
    chain: u128,
    queues: BTreeSet<QueueId>,
}

impl Upkeep {
    pub(crate) fn applied(&mut self, bytes: u64) {
        self.bytes_since_save += bytes;
    }

    pub(crate) fn bytes_since_save(&self) -> u64 {
        self.bytes_since_save
    }

    pub(crate) fn is_saving(&self) -> bool {
        self.round.is_some() || self.ending
    }

    pub(crate) fn begin(&mut self, broker: &mut Broker, chain: u128) {
        self.bytes_since_save = 0;
        let replay_after = broker.applied();
        self.round = Some(Round { replay_after, chain, queues: broker.begin_save() });
    }

    /// The next slices of the round; with the last ones, the LSN that a replay then begins after.
    pub(crate) fn some_slices(&mut self, broker: &mut Broker) -> (Vec<Slice>, Option<Lsn>) {
        let Some(round) = &mut self.round else { return (Vec::new(), None) };
        let mut slices = Vec::new();
        let mut bytes = 0;
        while bytes < SAVE_BYTES_PER_TURN && slices.len() < SAVE_QUEUES_PER_TURN {
            let Some(queue) = round.queues.pop_first() else { break };
            let slice = broker.save_queue(queue);
            bytes += slice.1.as_ref().map_or(0, Bytes::len);
            slices.push(slice);
        }
        if !round.queues.is_empty() {
            return (slices, None);
        }
        let (replay_after, chain) = (round.replay_after, round.chain);
        slices.extend(broker.end_save(replay_after, chain));
        self.round = None;
        self.ending = true;
        (slices, Some(replay_after))
    }

    pub(crate) fn saved(&mut self) {
        self.ending = false;
    }

    /// Queues that are not saved in their present state, for a stop.
    pub(crate) fn rest(&mut self, broker: &mut Broker) -> impl Iterator<Item = QueueId> + use<> {
        let mut queues = broker.begin_save();
        queues.extend(self.round.take().into_iter().flat_map(|round| round.queues));
        queues.into_iter()
    }

    pub(crate) fn relocated(&mut self) {
        self.relocating = false;
    }

    pub(crate) fn forget_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Segments up to `floor` without live messages are given back, but for `retain_bytes` of the
    /// newest log; one sparse segment at a time is packed away.
    pub(crate) fn reclaim(
        &mut self,
        broker: &mut Broker,
        floor: Lsn,
        retain_bytes: u64,
    ) -> Vec<LogJob> {
        let total: u64 = broker.segments().map(|segment| segment.bytes).sum();
        let mut newer_bytes = total;
        let mut dead = Vec::new();
        let mut sparse: Option<Segment> = None;
        let count = broker.segments().count();
        for (index, segment) in broker.segments().enumerate() {
            newer_bytes -= segment.bytes;
            let open = index + 1 == count;
            if open || segment.last > floor || (!segment.cold && newer_bytes < retain_bytes) {
                break;
            }
            let commands = segment.last.0 - segment.first.0 + 1;
            if segment.live == 0 {
                dead.push(*segment);
            } else if !segment.cold && segment.live < commands / SPARSE_DIVISOR {
                sparse = sparse.or(Some(*segment));
            }
        }
        let mut jobs = Vec::new();
        for segment in dead {
            broker.segment_removed(segment.first);
            jobs.push(LogJob::Reclaim { first: segment.first, last: segment.last });
        }
        if let Some(segment) = sparse
            && !self.relocating
            && total > RELOCATE_LOG_BYTES_MIN
        {
            self.relocating = true;
            let lsns = broker.live_messages(segment.first, segment.last);
            jobs.push(LogJob::Relocate { first: segment.first, last: segment.last, lsns });
        }
        jobs
    }
}

/// A whole copy in the making: all of the state as of one LSN, and the records of all messages
/// that were live then. Messages that are settled and reclaimed meanwhile are left out: the log
/// behind the snapshot says that they are gone.
pub(crate) struct Snapshot {
    /// Who reads it has to know the state before the records.
    slices_first: bool,
    at: Lsn,
    chain: u128,
    slices: Vec<(Bytes, Bytes)>,
    live: LiveMessages,
    /// The next messages whose records are sent, and the first of them that is not.
    lsns: Vec<Lsn>,
    next_lsn: usize,
    asked: usize,
    chunks: u64,
}

const SLICES: u8 = 0;
const RECORDS: u8 = 1;

impl Snapshot {
    /// `since`: only messages behind it, after the state.
    pub(crate) fn take(broker: &mut Broker, chain: u128, since: Option<Lsn>) -> Self {
        let at = broker.applied();
        let slices = broker.save_all(chain);
        Self {
            slices_first: since.is_some(),
            at,
            chain,
            slices: slices.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
            live: broker.live_now(since.unwrap_or(Lsn::ZERO).next(), at),
            lsns: Vec::new(),
            next_lsn: 0,
            asked: 0,
            chunks: 0,
        }
    }

    /// Messages whose records the next chunk needs, if records are not all sent.
    pub(crate) fn next_lsns(&mut self) -> Option<Vec<Lsn>> {
        if self.slices_first && !self.slices.is_empty() {
            return None;
        }
        if self.next_lsn >= self.lsns.len() {
            (self.lsns, self.next_lsn) = (self.live.next_within(SNAPSHOT_LSNS_PER_LOOK), 0);
        }
        let rest = &self.lsns[self.next_lsn..];
        let lsns = &rest[..rest.len().min(SNAPSHOT_LSNS_PER_READ)];
        self.asked = lsns.len();
        (!lsns.is_empty()).then(|| lsns.to_vec())
    }

    /// None: the answer to a read for an earlier snapshot.
    pub(crate) fn records_chunk(&mut self, records: &[(Lsn, Bytes)]) -> Option<BackendInput> {
        let asked = &self.lsns[self.next_lsn..][..self.asked];
        if records.iter().any(|(lsn, _)| asked.binary_search(lsn).is_err()) {
            return None;
        }
        let count = std::mem::take(&mut self.asked);
        // A read ends early at a size; then it goes on behind the last record it gave.
        match records.last() {
            Some((last, _)) => self.next_lsn = self.lsns.partition_point(|lsn| lsn <= last),
            None => self.next_lsn += count,
        }
        let mut out = BytesMut::new();
        let mut w = Writer(&mut out);
        w.u8(RECORDS);
        w.varint(records.len() as u64);
        for (lsn, record) in records {
            w.varint(lsn.0);
            w.bytes(record);
        }
        Some(self.answer(out.freeze(), true))
    }

    pub(crate) fn next_slices(&mut self, _cursor: SnapshotCursor) -> BackendInput {
        let mut out = BytesMut::new();
        let mut count = 0;
        let mut body = BytesMut::new();
        while body.len() < SNAPSHOT_CHUNK_BYTES {
            let Some((key, value)) = self.slices.pop() else { break };
            let mut w = Writer(&mut body);
            w.bytes(&key);
            w.bytes(&value);
            count += 1;
        }
        let mut w = Writer(&mut out);
        w.u8(SLICES);
        w.varint(count);
        out.extend_from_slice(&body);
        // Records that follow end with a chunk without any.
        let more = !self.slices.is_empty() || (self.slices_first && count > 0);
        self.answer(out.freeze(), more)
    }

    fn answer(&mut self, chunk: Bytes, more: bool) -> BackendInput {
        self.chunks += 1;
        let next = more.then_some(SnapshotCursor(self.chunks));
        BackendInput::SnapshotRead { at: self.at, chain: self.chain, chunk, next }
    }

    /// Reads a chunk at the slave: slices are gathered, records returned.
    pub(crate) fn decode(
        chunk: &Bytes,
        slices: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<Vec<(Lsn, Bytes)>, Malformed> {
        let mut r = Reader(chunk);
        let mut records = Vec::new();
        let kind = r.u8()?;
        for _ in 0..r.varint()? {
            match kind {
                SLICES => slices.push((r.owned_bytes()?, r.owned_bytes()?)),
                RECORDS => records.push((Lsn(r.varint()?), chunk.slice_ref(r.bytes()?))),
                _ => return Err(Malformed("snapshot chunk")),
            }
        }
        r.finish()?;
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_broker::Limits;
    use understudy_model::{Command, Features, OpenGroup};

    /// Segments of one group and one command each, of which nothing lives.
    fn dead_segments(count: u64) -> Broker {
        let mut broker = Broker::new(Limits { segment_bytes_min: 1, ..Limits::default() });
        let mut open = OpenGroup::new(Lsn(1));
        for _ in 0..count {
            open.push(|out| Command::FeaturesOn(Features::NONE).encode(out));
            broker.apply_group(&open.seal(1, 0, 0), &mut Vec::new()).unwrap();
        }
        broker
    }

    fn reclaimed(jobs: &[LogJob]) -> Vec<u64> {
        let first = |job: &LogJob| match job {
            LogJob::Reclaim { first, .. } => first.0,
            other => panic!("{other:?}"),
        };
        jobs.iter().map(first).collect()
    }

    #[test]
    fn only_dead_log_that_saved_state_covers_is_given_back() {
        let mut broker = dead_segments(6);
        let mut upkeep = Upkeep::default();
        assert_eq!(reclaimed(&upkeep.reclaim(&mut broker, Lsn(3), 0)), [1, 2, 3]);
        assert!(upkeep.reclaim(&mut broker, Lsn(3), 0).is_empty());
        // The last segment is still being written.
        assert_eq!(reclaimed(&upkeep.reclaim(&mut broker, Lsn(9), 0)), [4, 5]);
    }

    #[test]
    fn the_newest_log_is_kept_for_a_slave_that_comes_back() {
        let mut broker = dead_segments(6);
        let bytes = broker.segments().next().map_or(0, |segment| segment.bytes);
        let retained = Upkeep::default().reclaim(&mut broker, Lsn(9), 3 * bytes);
        assert_eq!(reclaimed(&retained), [1, 2, 3]);
    }
}
