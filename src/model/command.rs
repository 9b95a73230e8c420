//! Commands: what happens, decided and stated plainly. A disk and wire format: variants are
//! added, never changed; an unknown one is an error that refuses the log or the link.

use crate::{
    Binding, DeadLetterView, DelayView, EnqueueView, Epoch, ExchangeSpec, Features, Lsn, Malformed,
    NodeId, PermissionRecord, PolicyRecord, ProducerSequence, QueueId, QueueSpec, Reader, Text,
    UserRecord, Writer,
};
use bytes::BytesMut;

pub(crate) const ENQUEUE: u8 = 1;
const SETTLE: u8 = 2;
const DELIVERED: u8 = 3;
const NEW_EPOCH: u8 = 4;
const DECLARE_EXCHANGE: u8 = 5;
const DELETE_EXCHANGE: u8 = 6;
const DECLARE_QUEUE: u8 = 7;
const DELETE_QUEUE: u8 = 8;
const BIND: u8 = 9;
const UNBIND: u8 = 10;
const PUT_USER: u8 = 11;
const DELETE_USER: u8 = 12;
const PUT_VHOST: u8 = 13;
const DELETE_VHOST: u8 = 14;
const PUT_PERMISSION: u8 = 32;
const CLEAR_PERMISSION: u8 = 33;
const PUT_POLICY: u8 = 34;
const CLEAR_POLICY: u8 = 35;
pub(crate) const DEAD_LETTER: u8 = 40;
pub(crate) const DELAY: u8 = 41;
const RETURNED: u8 = 42;
const FEATURES_ON: u8 = 43;
/// As `ENQUEUE`.
pub(crate) const ENQUEUE_AGAIN: u8 = 48;
const COMMITTED: u8 = 56;

#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    Enqueue(EnqueueView<'a>),
    DeadLetter(DeadLetterView<'a>),
    Delay(DelayView<'a>),
    /// Messages of the queue were returned, now for the so many-th time.
    Returned {
        queue: QueueId,
        counts: Vec<(Lsn, u32)>,
    },
    /// The messages of the queue in these LSN ranges are finished for good.
    Settle {
        queue: QueueId,
        ranges: SettleRanges,
    },
    /// Every message of the queue up to `through` may have been handed out: it is flagged
    /// redelivered when it is handed out after a takeover or restart.
    Delivered {
        queue: QueueId,
        through: Lsn,
    },
    /// A producer's transaction of this number happened: what it consists of is in this group.
    Committed(ProducerSequence),
    NewEpoch(NewEpoch),
    /// Commands of these features may follow.
    FeaturesOn(Features),
    DeclareExchange(ExchangeSpec),
    DeleteExchange {
        vhost: Text,
        name: Text,
    },
    /// The command's own LSN becomes the queue's id.
    DeclareQueue(QueueSpec),
    DeleteQueue {
        queue: QueueId,
    },
    Bind(Binding),
    Unbind(Binding),
    PutUser(UserRecord),
    DeleteUser {
        name: Text,
    },
    PutVhost {
        name: Text,
    },
    DeleteVhost {
        name: Text,
    },
    PutPermission(PermissionRecord),
    ClearPermission {
        user: Text,
        vhost: Text,
    },
    PutPolicy(PolicyRecord),
    ClearPolicy {
        vhost: Text,
        name: Text,
    },
}

/// A mastership begins. Transient and exclusive objects of the former one are swept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    pub epoch: Epoch,
    pub leader: NodeId,
}

/// Inclusive LSN ranges in ascending order, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleRanges(pub Vec<(Lsn, Lsn)>);

impl SettleRanges {
    fn encode(&self, out: &mut Writer<'_>) {
        out.varint(self.0.len() as u64);
        let mut before = 0;
        for &(from, to) in &self.0 {
            // Written otherwise, no node could read its log again.
            assert!(before <= from.0 && from <= to, "settle ranges {:?}", self.0);
            out.varint(from.0 - before);
            out.varint(to.0 - from.0);
            before = to.0;
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        const RANGES: Malformed = Malformed("settle ranges");
        let count = reader.varint()?;
        let mut ranges = Vec::new();
        let mut before = 0u64;
        for _ in 0..count {
            let from = before.checked_add(reader.varint()?).ok_or(RANGES)?;
            let to = from.checked_add(reader.varint()?).ok_or(RANGES)?;
            ranges.push((Lsn(from), Lsn(to)));
            before = to;
        }
        Ok(Self(ranges))
    }
}

impl<'a> Command<'a> {
    /// Appends the record. `Enqueue` is written by [`EnqueueView::encode`] straight from the
    /// request, so a command built from a view cannot be encoded again.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut w = Writer(out);
        match self {
            Self::Enqueue(_) | Self::DeadLetter(_) | Self::Delay(_) => {
                unreachable!("messages are encoded from the publish request")
            }
            Self::Settle { queue, ranges } => {
                w.u8(SETTLE);
                w.varint(queue.0.0);
                ranges.encode(&mut w);
            }
            Self::Delivered { queue, through } => {
                w.u8(DELIVERED);
                w.varint(queue.0.0);
                w.varint(through.0);
            }
            Self::NewEpoch(NewEpoch { epoch, leader }) => {
                w.u8(NEW_EPOCH);
                w.varint(epoch.number);
                w.varint(epoch.generation);
                w.u128(leader.0);
            }
            Self::FeaturesOn(features) => {
                w.u8(FEATURES_ON);
                w.varint(features.0);
            }
            Self::DeclareExchange(spec) => {
                w.u8(DECLARE_EXCHANGE);
                spec.encode(&mut w);
            }
            Self::DeleteExchange { vhost, name } => {
                w.u8(DELETE_EXCHANGE);
                w.text(vhost);
                w.text(name);
            }
            Self::DeclareQueue(spec) => {
                w.u8(DECLARE_QUEUE);
                spec.encode(&mut w);
            }
            Self::DeleteQueue { queue } => {
                w.u8(DELETE_QUEUE);
                w.varint(queue.0.0);
            }
            Self::Bind(binding) => {
                w.u8(BIND);
                binding.encode(&mut w);
            }
            Self::Unbind(binding) => {
                w.u8(UNBIND);
                binding.encode(&mut w);
            }
            Self::PutUser(user) => {
                w.u8(PUT_USER);
                user.encode(&mut w);
            }
            Self::DeleteUser { name } => {
                w.u8(DELETE_USER);
                w.text(name);
            }
            Self::PutVhost { name } => {
                w.u8(PUT_VHOST);
                w.text(name);
            }
            Self::DeleteVhost { name } => {
                w.u8(DELETE_VHOST);
                w.text(name);
            }
            _ => self.encode_further(&mut w),
        }
    }

    fn encode_further(&self, w: &mut Writer<'_>) {
        match self {
            Self::PutPermission(permission) => {
                w.u8(PUT_PERMISSION);
                permission.encode(w);
            }
            Self::Returned { queue, counts } => {
                w.u8(RETURNED);
                w.varint(queue.0.0);
                w.varint(counts.len() as u64);
                for (lsn, count) in counts {
                    w.varint(lsn.0);
                    w.varint(u64::from(*count));
                }
            }
            Self::Committed(ProducerSequence { producer, sequence }) => {
                w.u8(COMMITTED);
                w.u128(*producer);
                w.varint(*sequence);
            }
            Self::ClearPermission { user, vhost } => {
                w.u8(CLEAR_PERMISSION);
                w.text(user);
                w.text(vhost);
            }
            Self::PutPolicy(policy) => {
                w.u8(PUT_POLICY);
                policy.encode(w);
            }
            Self::ClearPolicy { vhost, name } => {
                w.u8(CLEAR_POLICY);
                w.text(vhost);
                w.text(name);
            }
            _ => {}
        }
    }

    pub fn decode(record: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader(record);
        let queue = |r: &mut Reader<'_>| r.varint().map(|id| QueueId(Lsn(id)));
        let command = match r.u8()? {
            ENQUEUE => Self::Enqueue(EnqueueView::decode(&mut r, false)?),
            ENQUEUE_AGAIN => Self::Enqueue(EnqueueView::decode(&mut r, true)?),
            DEAD_LETTER => Self::DeadLetter(DeadLetterView::decode(&mut r)?),
            DELAY => Self::Delay(DelayView::decode(&mut r)?),
            RETURNED => {
                let queue = queue(&mut r)?;
                let count = r.varint()?;
                let counts = (0..count).map(|_| Ok((Lsn(r.varint()?), r.varint_u32()?)));
                Self::Returned { queue, counts: counts.collect::<Result<_, Malformed>>()? }
            }
            SETTLE => Self::Settle { queue: queue(&mut r)?, ranges: SettleRanges::decode(&mut r)? },
            DELIVERED => Self::Delivered { queue: queue(&mut r)?, through: Lsn(r.varint()?) },
            COMMITTED => {
                Self::Committed(ProducerSequence { producer: r.u128()?, sequence: r.varint()? })
            }
            NEW_EPOCH => Self::NewEpoch(NewEpoch {
                epoch: Epoch { number: r.varint()?, generation: r.varint()? },
                leader: NodeId(r.u128()?),
            }),
            FEATURES_ON => Self::FeaturesOn(Features(r.varint()?)),
            DECLARE_EXCHANGE => Self::DeclareExchange(ExchangeSpec::decode(&mut r)?),
            DELETE_EXCHANGE => Self::DeleteExchange { vhost: r.text()?, name: r.text()? },
            DECLARE_QUEUE => Self::DeclareQueue(QueueSpec::decode(&mut r)?),
            DELETE_QUEUE => Self::DeleteQueue { queue: queue(&mut r)? },
            BIND => Self::Bind(Binding::decode(&mut r)?),
            UNBIND => Self::Unbind(Binding::decode(&mut r)?),
            PUT_USER => Self::PutUser(UserRecord::decode(&mut r)?),
            DELETE_USER => Self::DeleteUser { name: r.text()? },
            PUT_VHOST => Self::PutVhost { name: r.text()? },
            DELETE_VHOST => Self::DeleteVhost { name: r.text()? },
            PUT_PERMISSION => Self::PutPermission(PermissionRecord::decode(&mut r)?),
            CLEAR_PERMISSION => Self::ClearPermission { user: r.text()?, vhost: r.text()? },
            PUT_POLICY => Self::PutPolicy(PolicyRecord::decode(&mut r)?),
            CLEAR_POLICY => Self::ClearPolicy { vhost: r.text()?, name: r.text()? },
            _ => return Err(Malformed("command: a kind that this version does not know")),
        };
        r.finish()?;
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BindTarget, Body, ProducerSequence, Publish, message_of};
    use bytes::Bytes;

    fn all() -> Vec<Command<'static>> {
        let text = Text::from_static;
        let spec = |exclusive| QueueSpec {
            vhost: text("/"),
            name: text("orders"),
            durable: true,
            exclusive,
            auto_delete: false,
            arguments: Bytes::from_static(b"\x01kV"),
        };
        let binding = |target| Binding {
            vhost: text("/"),
            source: text("amq.topic"),
            target,
            key: text("a.#"),
            arguments: Bytes::new(),
        };
        let ranges = SettleRanges(vec![(Lsn(3), Lsn(3)), (Lsn(5), Lsn(900))]);
        let epoch = Epoch { number: 3, generation: u64::MAX };
        vec![
            Command::Settle { queue: QueueId(Lsn(9)), ranges },
            Command::Delivered { queue: QueueId(Lsn(9)), through: Lsn(12) },
            Command::NewEpoch(NewEpoch { epoch, leader: NodeId(7) }),
            Command::FeaturesOn(Features(1 << 63)),
            Command::DeclareQueue(spec(true)),
            Command::DeleteQueue { queue: QueueId(Lsn(4)) },
            Command::Bind(binding(BindTarget::Queue(QueueId(Lsn(1))))),
            Command::Unbind(binding(BindTarget::Exchange(text("x")))),
            Command::DeleteExchange { vhost: text("/"), name: text("x") },
            Command::PutUser(UserRecord {
                name: text("guest"),
                password_hash: text("sha256:abc"),
                tags: vec![text("administrator")],
            }),
            Command::DeleteUser { name: text("guest") },
            Command::PutVhost { name: text("v") },
            Command::DeleteVhost { name: text("v") },
            Command::PutPermission(PermissionRecord {
                user: text("ann"),
                vhost: text("/"),
                configure: text(""),
                write: text("^orders$"),
                read: text(".*"),
            }),
            Command::ClearPermission { user: text("ann"), vhost: text("/") },
            Command::PutPolicy(PolicyRecord {
                vhost: text("/"),
                name: text("short"),
                pattern: text("^tmp"),
                apply_to: crate::ApplyTo::Queues,
                priority: -7,
                definition: Bytes::from_static(b"\x01kV"),
            }),
            Command::ClearPolicy { vhost: text("/"), name: text("short") },
            Command::Returned { queue: QueueId(Lsn(9)), counts: vec![(Lsn(12), 1), (Lsn(14), 3)] },
            Command::Committed(ProducerSequence { producer: u128::MAX, sequence: 300 }),
        ]
    }

    #[test]
    fn commands_round_trip_and_every_truncation_is_refused() {
        for command in all() {
            let mut out = BytesMut::new();
            command.encode(&mut out);
            assert_eq!(Command::decode(&out), Ok(command));
            for end in 0..out.len() {
                assert!(Command::decode(&out[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_dead_letter_names_where_it_comes_from() {
        let publish = Publish {
            body: Body::from(Bytes::from_static(b"dead")),
            properties: Bytes::from_static(&[0, 0]),
            ..Publish::default()
        };
        let mut out = BytesMut::new();
        DeadLetterView::encode(QueueId(Lsn(4)), Lsn(77), &[QueueId(Lsn(9))], &publish, &mut out);
        let command = Command::decode(&out).unwrap();
        assert_eq!(message_of(&out).unwrap().body, b"dead");
        let Command::DeadLetter(moved) = command else { panic!("not a dead letter") };
        assert_eq!((moved.queue, moved.lsn), (QueueId(Lsn(4)), Lsn(77)));
        assert_eq!(moved.enqueue.queues().collect::<Vec<_>>(), [QueueId(Lsn(9))]);
        assert!((1..8).all(|end| Command::decode(&out[..end]).is_err()));
    }

    #[test]
    fn an_enqueue_keeps_queues_producer_and_message() {
        let mut body = Body::from(Bytes::from_static(b"hel"));
        body.push(Bytes::from_static(b"lo"));
        let publish = Publish {
            exchange: Text::from_static("ex"),
            routing_key: Text::from_static("key"),
            properties: Bytes::from_static(&[0, 0]),
            body,
            producer: Some(ProducerSequence { producer: 77, sequence: 5 }),
            ..Publish::default()
        };
        let mut out = BytesMut::new();
        EnqueueView::encode(&[QueueId(Lsn(1)), QueueId(Lsn(300))], &publish, &mut out);
        let Ok(Command::Enqueue(view)) = Command::decode(&out) else { panic!("not an enqueue") };
        assert_eq!(view.queues().map(|q| q.0.0).collect::<Vec<_>>(), [1, 300]);
        assert_eq!(view.producer, publish.producer);
        assert_eq!(view.message.body, b"hello");
        assert_eq!((view.message.exchange, view.message.routing_key), ("ex", "key"));
    }

    #[test]
    fn a_message_is_found_behind_whatever_stands_before_it() {
        let publish = Publish {
            body: Body::from(Bytes::from_static(b"hello")),
            properties: Bytes::from_static(&[0, 0]),
            producer: Some(ProducerSequence { producer: 77, sequence: 5 }),
            ..Publish::default()
        };
        let queues: Vec<_> = (0..40).map(|shift| QueueId(Lsn(1 << shift))).collect();
        let from = (QueueId(Lsn(1 << 20)), Lsn(1 << 40));
        let mut records = vec![BytesMut::new(); 3];
        EnqueueView::encode(&queues, &publish, &mut records[0]);
        DeadLetterView::encode(from.0, from.1, &queues, &publish, &mut records[1]);
        DelayView::encode("a vhost", 1 << 50, &publish, &mut records[2]);
        for record in &records {
            assert!(Command::decode(record).is_ok());
            assert_eq!(message_of(record).unwrap().body, b"hello");
        }
        let mut settle = BytesMut::new();
        let ranges = SettleRanges(vec![(Lsn(1), Lsn(2))]);
        Command::Settle { queue: QueueId(Lsn(1)), ranges }.encode(&mut settle);
        assert!(message_of(&settle).is_err());
    }

    #[test]
    fn a_queue_list_that_ends_in_the_middle_of_a_number_is_refused() {
        let mut out = BytesMut::new();
        let queues = [QueueId(Lsn(1)), QueueId(Lsn(300))];
        EnqueueView::encode(&queues, &Publish::default(), &mut out);
        assert_eq!(out[1..5], [3, 1, 0xac, 2], "length in bytes, then the ids");
        assert!(Command::decode(&out).is_ok());
        out[4] |= 0x80;
        assert!(Command::decode(&out).is_err());
    }
}
