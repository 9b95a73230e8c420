//! Digests of the state by parts, by which two nodes at the same LSN are compared. A part is what one
//! turn of the node can afford: about a millisecond.

use crate::broker::Broker;
use crate::facts::Facts;
use crate::queue::Queue;
use bytes::{Bytes, BytesMut};
use understudy_model::{Digest, Lsn, Malformed, QueueId, Reader, Writer};

/// Queues in a part: at most so many, and chunks of 4,096 messages.
const QUEUES_MAX: usize = 256;
const CHUNKS_MAX: usize = 8_192;
/// What is kept for single messages is compared one by one only up to so many of them.
const SINGLES_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Topology,
    Access,
    Producers,
    Delayed,
    /// Those with ids from the first to the second.
    Queues(Lsn, Lsn),
}

const LAST: Lsn = Lsn(u64::MAX);

impl Part {
    /// The last part of a round.
    pub fn ends_round(self) -> bool {
        matches!(self, Self::Queues(_, LAST))
    }

    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        let (kind, from, to) = match self {
            Self::Topology => (0, Lsn::ZERO, Lsn::ZERO),
            Self::Access => (1, Lsn::ZERO, Lsn::ZERO),
            Self::Producers => (2, Lsn::ZERO, Lsn::ZERO),
            Self::Delayed => (3, Lsn::ZERO, Lsn::ZERO),
            Self::Queues(from, to) => (4, from, to),
        };
        w.u8(kind);
        w.varint(from.0);
        w.varint(to.0);
        out.freeze()
    }

    /// # Errors
    /// It is not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let (kind, from, to) = (r.u8()?, Lsn(r.varint()?), Lsn(r.varint()?));
        r.finish()?;
        Ok(match kind {
            0 => Self::Topology,
            1 => Self::Access,
            2 => Self::Producers,
            3 => Self::Delayed,
            4 => Self::Queues(from, to),
            _ => return Err(Malformed("part of the state")),
        })
    }
}

impl Broker {
    /// What is compared after `part`; rounds begin anew.
    pub fn part_after(&self, part: Part) -> Part {
        match part {
            Part::Topology => Part::Access,
            Part::Access => Part::Producers,
            Part::Producers => Part::Delayed,
            Part::Delayed => self.queues_from(Lsn::ZERO),
            Part::Queues(_, LAST) => Part::Topology,
            Part::Queues(_, to) => self.queues_from(to.next()),
        }
    }

    fn queues_from(&self, from: Lsn) -> Part {
        let mut chunks = 0;
        let mut to = from;
        for (count, (id, queue)) in self.queues.range(QueueId(from)..).enumerate() {
            chunks += queue.unsettled().chunks();
            if count > 0 && (count >= QUEUES_MAX || chunks > CHUNKS_MAX) {
                return Part::Queues(from, to);
            }
            to = id.0;
        }
        Part::Queues(from, LAST)
    }

    pub fn digest_of(&self, part: Part) -> u128 {
        let mut digest = Digest::default();
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        match part {
            Part::Topology => self.topology.encode(w),
            Part::Access => self.access.encode(w),
            Part::Producers => self.producers.encode_newest(w, SINGLES_MAX / 4),
            Part::Delayed if self.delayed.len() <= SINGLES_MAX => self.delayed.encode(w),
            Part::Delayed => w.varint(self.delayed.len() as u64),
            Part::Queues(from, to) => {
                for (id, queue) in self.queues.range(QueueId(from)..=QueueId(to)) {
                    queue.add_to(*id, &mut digest);
                }
            }
        }
        digest.add(&out);
        digest.finish()
    }
}

impl Queue {
    fn add_to(&self, id: QueueId, digest: &mut Digest) {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        self.encode_head(id, w);
        w.bool(self.facts.is_some());
        if let Some(facts) = &self.facts {
            facts.encode_some(w);
        }
        digest.add(&out);
        self.unsettled().add_to(digest);
    }
}

impl Facts {
    fn encode_some(&self, w: &mut Writer<'_>) {
        let count = self.count();
        w.varint(count as u64);
        if count <= SINGLES_MAX {
            self.encode(w);
        }
    }
}
