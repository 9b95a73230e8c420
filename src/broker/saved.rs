//! Saved state: what a restart begins from, so that it need not read the whole log.
//!
//! It is written in slices, only what changed, while the broker goes on; each slice may therefore
//! hold a later state than the LSN that the round began with. Replaying the log from there over
//! it leads to the same state, because applying a command twice does what applying it once does.

use crate::access::Access;
use crate::broker::{Broker, Limits};
use crate::delayed::Delayed;
use crate::producers::Producers;
use crate::queue::Queue;
use crate::segments::Segments;
use crate::topology::Topology;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;
use understudy_model::{Features, Lsn, Malformed, QueueId, Reader, Writer};

/// A piece of saved state under its key; no value: the key is to be removed.
pub type Slice = (Bytes, Option<Bytes>);

const TOPOLOGY: &[u8] = b"topology";
/// Permissions and policies.
const ACCESS: &[u8] = b"access";
const PRODUCERS: &[u8] = b"producers";
/// Messages that wait for their time.
const DELAYED: &[u8] = b"delayed";
const SEGMENTS: &[u8] = b"segments";
/// Where replay begins: applied LSN and chain hash there. Written last in a round.
const REPLAY: &[u8] = b"replay";
/// Features that are on; not there while none is.
const FEATURES: &[u8] = b"features";
const QUEUE_PREFIX: u8 = b'q';

/// Where replay begins over saved state: an LSN, a group's end, and the chain hash there.
pub fn replay_point(slices: &[(Bytes, Bytes)]) -> Option<(Lsn, u128)> {
    let (_, value) = slices.iter().find(|(key, _)| key == REPLAY)?;
    let mut r = Reader(value);
    Some((Lsn(r.varint().ok()?), r.u128().ok()?))
}

impl Broker {
    /// Queues that changed since they were saved; takes them off the list of what to save.
    pub fn begin_save(&mut self) -> BTreeSet<QueueId> {
        std::mem::take(&mut self.dirty_queues)
    }

    pub fn save_queue(&self, id: QueueId) -> Slice {
        let mut key = BytesMut::with_capacity(9);
        key.extend_from_slice(&[QUEUE_PREFIX]);
        key.extend_from_slice(&id.0.0.to_be_bytes());
        let value = self.queues.get(&id).map(|queue| {
            let mut out = BytesMut::new();
            queue.encode(id, &mut Writer(&mut out));
            out.freeze()
        });
        (key.freeze(), value)
    }

    /// The slices that end a round: all but the queues.
    pub fn end_save(&mut self, replay_after: Lsn, chain: u128) -> Vec<Slice> {
        let slice = |key: &'static [u8], encode: &dyn Fn(&mut Writer<'_>)| {
            let mut out = BytesMut::new();
            encode(&mut Writer(&mut out));
            (Bytes::from_static(key), Some(out.freeze()))
        };
        let mut slices = Vec::new();
        if std::mem::take(&mut self.topology_dirty) {
            slices.push(slice(TOPOLOGY, &|w| self.topology.encode(w)));
        }
        if std::mem::take(&mut self.access_dirty) {
            slices.push(slice(ACCESS, &|w| self.access.encode(w)));
        }
        if std::mem::take(&mut self.delayed.dirty) {
            slices.push(slice(DELAYED, &|w| self.delayed.encode(w)));
        }
        if !self.features.is_empty() {
            slices.push(slice(FEATURES, &|w| w.varint(self.features.0)));
        }
        slices.push(slice(PRODUCERS, &|w| self.producers.encode(w)));
        slices.push(slice(SEGMENTS, &|w| self.segments.encode(w)));
        slices.push(slice(REPLAY, &|w| {
            w.varint(replay_after.0);
            w.u128(chain);
        }));
        slices
    }

    /// Everything at once, as of now: for a snapshot.
    pub fn save_all(&mut self, chain: u128) -> Vec<Slice> {
        // What the next round has to save is no matter of a snapshot.
        let dirty = (self.topology_dirty, self.access_dirty, self.delayed.dirty);
        (self.topology_dirty, self.access_dirty, self.delayed.dirty) = (true, true, true);
        let mut slices: Vec<Slice> = self.queues.keys().map(|id| self.save_queue(*id)).collect();
        slices.extend(self.end_save(self.applied, chain));
        (self.topology_dirty, self.access_dirty, self.delayed.dirty) = dirty;
        slices
    }

    /// The state that the slices hold, and the chain hash at its `applied` LSN.
    ///
    /// # Errors
    /// A slice that cannot be read. Without slices the state is empty.
    pub fn load(limits: Limits, slices: &[(Bytes, Bytes)]) -> Result<(Self, u128), Malformed> {
        let mut broker = Self::new(limits);
        let mut chain = 0;
        for (key, value) in slices {
            let mut r = Reader(value);
            match &key[..] {
                TOPOLOGY => broker.topology = Topology::decode(&mut r)?,
                ACCESS => broker.access = Access::decode(&mut r)?,
                PRODUCERS => broker.producers = Producers::decode(&mut r)?,
                DELAYED => broker.delayed = Delayed::decode(&mut r)?,
                FEATURES => broker.features = Features(r.varint()?),
                SEGMENTS => broker.segments = Segments::decode(&mut r)?,
                REPLAY => {
                    broker.applied = Lsn(r.varint()?);
                    chain = r.u128()?;
                }
                [QUEUE_PREFIX, ..] => {
                    let (id, queue) = Queue::decode(&mut r)?;
                    broker.queues.insert(id, Box::new(queue));
                }
                _ => return Err(Malformed("saved state: unknown slice")),
            }
        }
        for (id, queue) in &broker.queues {
            broker.topology.declare_queue(*id, &queue.spec);
        }
        for vhost in broker.topology.vhosts.keys().cloned().collect::<Vec<_>>() {
            broker.topology.apply_policies(&vhost, &broker.access.policies);
        }
        for id in broker.queues.keys().copied().collect::<Vec<_>>() {
            let rules = broker.queues.get(&id).map(|queue| broker.rules_of(&queue.spec));
            if let (Some(queue), Some(rules)) = (broker.queues.get_mut(&id), rules) {
                queue.rules = rules;
            }
        }
        Ok((broker, chain))
    }

    /// To be called when replay has reached the end of the log: live counts follow from queues.
    pub fn replayed(&mut self) {
        self.segments.clear_live();
        for queue in self.queues.values() {
            let unsettled = queue.unsettled();
            self.segments.add_live(|first, last| unsettled.count_range(first, last));
        }
        let delayed = &self.delayed;
        self.segments.add_live(|first, last| delayed.range(first, last).count() as u64);
        self.forget_clients();
        self.to_serve.extend(self.queues.keys());
    }

    /// The segments of a copy: everything up to the snapshot lies in the cold store.
    pub fn reset_segments(&mut self) {
        let live = self.live_messages(Lsn(1), self.applied);
        self.segments.reset(&live, self.applied);
    }
}
