//! Frames between the two nodes (docs/replication.md section 5.4). A frame is one byte of kind and the rest.

use crate::pair::code::Code;
use crate::pair::compare::Comparison;
use crate::pair::copying::Taken;
use crate::pair::fetch::{Answer, Question};
use crate::pair::hello::{Hello, put_front};
use crate::pair::upgrade::Protocols;
use crate::pair::view::{get_epoch, put_epoch};
use bytes::{Buf, Bytes, BytesMut};
use understudy_model::{Epoch, Lsn, Malformed, Reader, Writer};

/// Where a follower's log ends, and what it wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    /// End of the log, with its chain hash; the next group wanted follows it.
    pub(crate) last: Lsn,
    pub(crate) chain: u128,
    pub(crate) durable: Lsn,
    /// A whole copy is wanted instead.
    pub(crate) copy: bool,
    /// The part of it that is here already.
    pub(crate) taken: Option<Taken>,
    /// The follower still is a member of this epoch's in-sync set.
    pub(crate) synced: bool,
}

/// A piece of a whole copy, which holds the state at `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) epoch: Epoch,
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// Of a copy: which part, from 0.
    pub(crate) number: u64,
    pub(crate) at: Lsn,
    pub(crate) chain: u128,
    pub(crate) bytes: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Box<Hello>),
    /// A hello of another protocol version.
    Foreign {
        protocols: Protocols,
        leads: bool,
    },
    Reject {
        code: Code,
        leads: bool,
        promised: Epoch,
    },
    /// From the winner of an election: may I lead this epoch?
    Propose {
        epoch: Epoch,
    },
    /// It is promised on disk, and the own claim is given up (R1, R4).
    Promise {
        epoch: Epoch,
    },
    Position(Position),
    /// The leader cannot continue the follower's log: a whole copy is needed.
    NeedCopy {
        epoch: Epoch,
        diverged: bool,
    },
    Chunk(Chunk),
    /// So many chunks are on the slave's disk.
    ChunkAck {
        epoch: Epoch,
        chunks: u64,
    },
    /// What the sender had committed alone behind the common point `at`; `chain` names its log.
    Export(Chunk),
    /// It is committed.
    ExportAck {
        epoch: Epoch,
    },
    /// One sealed group; `group` is its bytes.
    Group {
        epoch: Epoch,
        commit: Lsn,
        group: Bytes,
    },
    /// `low`: little room is left on the sender's disk.
    Ack {
        epoch: Epoch,
        durable: Lsn,
        low: bool,
    },
    /// The leader requires this follower's acks, on disk, and they reach `at` (R4).
    InSync {
        epoch: Epoch,
        at: Lsn,
    },
    InSyncOk {
        epoch: Epoch,
    },
    Beat {
        epoch: Epoch,
        commit: Lsn,
    },
    BeatOk {
        epoch: Epoch,
        durable: Lsn,
        low: bool,
    },
    /// The sender's process ends. A slave has given up its standing before it says so.
    Goodbye {
        epoch: Epoch,
    },
    /// What the sender's disk has lost.
    Fetch(Question),
    Fetched(Answer),
    Digest(Comparison),
    /// From the master: will you lead, and not give up your claim meanwhile?
    HandoverAsk {
        epoch: Epoch,
    },
    HandoverOk {
        epoch: Epoch,
    },
    /// Everything is committed on both, and the sender has given up its right to lead on disk.
    Handover {
        epoch: Epoch,
    },
}

const HELLO: u8 = 1;
const REJECT: u8 = 2;
const PROPOSE: u8 = 3;
const PROMISE: u8 = 4;
const POSITION: u8 = 5;
const NEED_COPY: u8 = 6;
const CHUNK: u8 = 7;
const CHUNK_ACK: u8 = 8;
const GROUP: u8 = 9;
const ACK: u8 = 10;
const IN_SYNC: u8 = 11;
const IN_SYNC_OK: u8 = 12;
const BEAT: u8 = 13;
const BEAT_OK: u8 = 14;
const GOODBYE: u8 = 15;
const HANDOVER: u8 = 16;
const HANDOVER_ASK: u8 = 17;
const HANDOVER_OK: u8 = 18;
const EXPORT: u8 = 19;
const EXPORT_ACK: u8 = 20;
const FETCH: u8 = 40;
const FETCHED: u8 = 41;
const DIGEST: u8 = 42;

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        match self {
            Self::Hello(hello) => {
                w.u8(HELLO);
                hello.encode(w);
            }
            Self::Foreign { protocols, leads } => {
                w.u8(HELLO);
                put_front(w, *protocols, *leads);
            }
            Self::Reject { code, leads, promised } => {
                w.u8(REJECT);
                w.u8(*code as u8);
                w.bool(*leads);
                put_epoch(w, *promised);
            }
            Self::Propose { epoch } => put_head(w, PROPOSE, *epoch),
            Self::Promise { epoch } => put_head(w, PROMISE, *epoch),
            Self::Position(position) => put_position(w, position),
            Self::NeedCopy { epoch, diverged } => {
                put_head(w, NEED_COPY, *epoch);
                w.bool(*diverged);
            }
            Self::Chunk(chunk) => put_chunk(w, CHUNK, chunk),
            Self::Export(chunk) => put_chunk(w, EXPORT, chunk),
            Self::ExportAck { epoch } => put_head(w, EXPORT_ACK, *epoch),
            Self::Fetch(question) => question.encode(FETCH, w),
            Self::Fetched(answer) => answer.encode(FETCHED, w),
            Self::Digest(comparison) => comparison.encode(DIGEST, w),
            Self::ChunkAck { epoch, chunks } => put_lsn(w, CHUNK_ACK, *epoch, Lsn(*chunks)),
            Self::Group { epoch, commit, group } => {
                put_head(w, GROUP, *epoch);
                w.varint(commit.0);
                w.0.extend_from_slice(group);
            }
            Self::Ack { epoch, durable, low } => put_state(w, ACK, *epoch, *durable, *low),
            Self::InSync { epoch, at } => put_lsn(w, IN_SYNC, *epoch, *at),
            Self::InSyncOk { epoch } => put_head(w, IN_SYNC_OK, *epoch),
            Self::Beat { epoch, commit } => put_lsn(w, BEAT, *epoch, *commit),
            Self::BeatOk { epoch, durable, low } => put_state(w, BEAT_OK, *epoch, *durable, *low),
            Self::Goodbye { epoch } => put_head(w, GOODBYE, *epoch),
            Self::HandoverAsk { epoch } => put_head(w, HANDOVER_ASK, *epoch),
            Self::HandoverOk { epoch } => put_head(w, HANDOVER_OK, *epoch),
            Self::Handover { epoch } => put_head(w, HANDOVER, *epoch),
        }
        out.freeze()
    }

    /// The front of a group's frame; the group's own bytes follow without a copy.
    pub(crate) fn group_head(epoch: Epoch, commit: Lsn) -> Bytes {
        Self::Group { epoch, commit, group: Bytes::new() }.encode()
    }

    /// `own`: what this program speaks.
    pub(crate) fn decode(frame: &Bytes, own: Protocols) -> Result<Self, Malformed> {
        let mut r = Reader(frame);
        let kind = r.u8()?;
        if kind == HELLO {
            return decode_hello(r, own);
        }
        if kind == REJECT {
            return decode_reject(r);
        }
        let epoch = get_epoch(&mut r)?;
        if kind == GROUP {
            let commit = Lsn(r.varint()?);
            let mut group = frame.clone();
            group.advance(frame.len() - r.0.len());
            return Ok(Self::Group { epoch, commit, group });
        }
        let message = match kind {
            PROPOSE => Self::Propose { epoch },
            PROMISE => Self::Promise { epoch },
            POSITION => Self::Position(get_position(epoch, &mut r)?),
            NEED_COPY => Self::NeedCopy { epoch, diverged: r.bool()? },
            CHUNK => Self::Chunk(get_chunk(epoch, &mut r)?),
            EXPORT => Self::Export(get_chunk(epoch, &mut r)?),
            EXPORT_ACK => Self::ExportAck { epoch },
            FETCH => Self::Fetch(Question::decode(epoch, &mut r)?),
            FETCHED => Self::Fetched(Answer::decode(epoch, frame, &mut r)?),
            DIGEST => Self::Digest(Comparison::decode(epoch, &mut r)?),
            CHUNK_ACK => Self::ChunkAck { epoch, chunks: r.varint()? },
            ACK => Self::Ack { epoch, durable: Lsn(r.varint()?), low: r.bool()? },
            IN_SYNC => Self::InSync { epoch, at: Lsn(r.varint()?) },
            IN_SYNC_OK => Self::InSyncOk { epoch },
            BEAT => Self::Beat { epoch, commit: Lsn(r.varint()?) },
            BEAT_OK => Self::BeatOk { epoch, durable: Lsn(r.varint()?), low: r.bool()? },
            GOODBYE => Self::Goodbye { epoch },
            HANDOVER => Self::Handover { epoch },
            HANDOVER_ASK => Self::HandoverAsk { epoch },
            HANDOVER_OK => Self::HandoverOk { epoch },
            _ => return Err(Malformed("kind of message")),
        };
        r.finish()?;
        Ok(message)
    }
}

fn put_head(w: &mut Writer<'_>, kind: u8, epoch: Epoch) {
    w.u8(kind);
    put_epoch(w, epoch);
}

fn put_lsn(w: &mut Writer<'_>, kind: u8, epoch: Epoch, lsn: Lsn) {
    put_head(w, kind, epoch);
    w.varint(lsn.0);
}

fn put_state(w: &mut Writer<'_>, kind: u8, epoch: Epoch, durable: Lsn, low: bool) {
    put_lsn(w, kind, epoch, durable);
    w.bool(low);
}

fn put_position(w: &mut Writer<'_>, position: &Position) {
    put_lsn(w, POSITION, position.epoch, position.last);
    w.u128(position.chain);
    w.varint(position.durable.0);
    w.bool(position.copy);
    w.bool(position.taken.is_some());
    if let Some(taken) = position.taken {
        w.varint(taken.at.0);
        w.u128(taken.chain);
        w.varint(taken.chunks);
    }
    w.bool(position.synced);
}

fn get_position(epoch: Epoch, r: &mut Reader<'_>) -> Result<Position, Malformed> {
    Ok(Position {
        epoch,
        last: Lsn(r.varint()?),
        chain: r.u128()?,
        durable: Lsn(r.varint()?),
        copy: r.bool()?,
        taken: get_taken(r)?,
        synced: r.bool()?,
    })
}

fn get_taken(r: &mut Reader<'_>) -> Result<Option<Taken>, Malformed> {
    if !r.bool()? {
        return Ok(None);
    }
    let (at, chain) = (Lsn(r.varint()?), r.u128()?);
    Ok(Some(Taken { at, chain, chunks: r.varint()? }))
}

fn put_chunk(w: &mut Writer<'_>, kind: u8, chunk: &Chunk) {
    put_head(w, kind, chunk.epoch);
    w.bool(chunk.first);
    w.bool(chunk.last);
    w.varint(chunk.number);
    w.varint(chunk.at.0);
    w.u128(chunk.chain);
    w.bytes(&chunk.bytes);
}

fn get_chunk(epoch: Epoch, r: &mut Reader<'_>) -> Result<Chunk, Malformed> {
    Ok(Chunk {
        epoch,
        first: r.bool()?,
        last: r.bool()?,
        number: r.varint()?,
        at: Lsn(r.varint()?),
        chain: r.u128()?,
        bytes: r.owned_bytes()?,
    })
}

fn decode_hello(mut r: Reader<'_>, own: Protocols) -> Result<Message, Malformed> {
    let protocols = Protocols { least: r.varint()?, most: r.varint()? };
    let leads = r.bool()?;
    if own.agree_with(protocols).is_none() {
        return Ok(Message::Foreign { protocols, leads });
    }
    let hello = Hello::decode(protocols, leads, &mut r)?;
    r.finish()?;
    Ok(Message::Hello(Box::new(hello)))
}

fn decode_reject(mut r: Reader<'_>) -> Result<Message, Malformed> {
    let code = usize::from(r.u8()?);
    let code = Code::ALL.get(code).copied().unwrap_or(Code::Other);
    let leads = r.bool()?;
    let promised = get_epoch(&mut r)?;
    Ok(Message::Reject { code, leads, promised })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::config::{Policy, Role};
    use crate::pair::view::Standing;
    use understudy_model::{EpochHistory, EpochStart, NodeId, Text};

    fn hello(epoch: Epoch) -> Hello {
        Hello {
            protocols: Protocols::OWN,
            features: understudy_model::Features::NONE,
            features_on: understudy_model::Features::NONE,
            leading: Some(epoch),
            process: 5,
            serial: 2,
            cluster: Some(77),
            node: NodeId(1),
            peer: None,
            forgotten: None,
            role: Role::Slave,
            standing: Standing::Synced { epoch, led: false },
            promised: epoch,
            history: EpochHistory(vec![EpochStart { epoch, first: Lsn(1), leader: NodeId(1) }]),
            base: Lsn(0),
            last: Lsn(300),
            chain: 9,
            commit: Lsn(200),
            address: Text::from_static("host:5673"),
            client_addresses: Text::from_static("tcp://host:61616"),
            policy: Policy { stops_without_master: true, stops_without_slave: false },
            arbiter: 9,
        }
    }

    #[test]
    fn every_message_reads_back_and_no_part_of_one_is_taken_for_it() {
        let epoch = Epoch { number: 2, generation: u64::MAX };
        let lsn = Lsn(300);
        let chunk = Bytes::from_static(b"chunk");
        let mut messages = vec![
            Message::Hello(Box::new(hello(epoch))),
            Message::Foreign { protocols: Protocols { least: 8, most: 9 }, leads: true },
            Message::Propose { epoch },
            Message::Promise { epoch },
            Message::NeedCopy { epoch, diverged: true },
            Message::ChunkAck { epoch, chunks: 300 },
            Message::Ack { epoch, durable: lsn, low: true },
            Message::InSync { epoch, at: lsn },
            Message::InSyncOk { epoch },
            Message::Beat { epoch, commit: lsn },
            Message::BeatOk { epoch, durable: lsn, low: false },
            Message::Goodbye { epoch },
            Message::Handover { epoch },
            Message::HandoverAsk { epoch },
            Message::ExportAck { epoch },
            Message::HandoverOk { epoch },
            Message::Position(Position {
                epoch,
                last: lsn,
                chain: 4,
                durable: lsn,
                copy: false,
                taken: Some(Taken { at: lsn, chain: 5, chunks: 2 }),
                synced: true,
            }),
            Message::Chunk(Chunk {
                epoch,
                first: true,
                last: false,
                number: 0,
                at: lsn,
                chain: 3,
                bytes: chunk,
            }),
        ];
        if let Some(Message::Chunk(chunk)) = messages.last().cloned() {
            messages.push(Message::Export(chunk));
        }
        messages.extend(Code::ALL.map(|code| Message::Reject {
            code,
            leads: true,
            promised: epoch,
        }));
        for message in messages {
            let frame = message.encode();
            assert_eq!(Message::decode(&frame, Protocols::OWN), Ok(message));
            for length in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..length), Protocols::OWN).is_err());
            }
        }
    }

    #[test]
    fn a_newer_program_may_say_more_in_its_hello_and_refuse_for_its_own_reasons() {
        let epoch = Epoch { number: 2, generation: 1 };
        let newer = Protocols { most: Protocols::OWN.most + 1, ..Protocols::OWN };
        let hello = Hello { protocols: newer, ..hello(epoch) };
        let frame = Message::Hello(Box::new(hello.clone())).encode();
        // kind, least, most, leads; then the rest with its length.
        let (front, rest) = frame.split_at(4);
        let mut rest = Reader(rest).bytes().unwrap().to_vec();
        rest.extend_from_slice(b"what the next version adds");
        let mut longer = BytesMut::from(front);
        Writer(&mut longer).bytes(&rest);
        let read = Message::decode(&longer.freeze(), Protocols::OWN);
        assert_eq!(read, Ok(Message::Hello(Box::new(hello))));
        let refusal = Message::Reject { code: Code::Version, leads: true, promised: epoch };
        let mut frame = BytesMut::from(&refusal.encode()[..]);
        frame[1] = 200;
        frame.extend_from_slice(b"more");
        let read = Message::decode(&frame.freeze(), Protocols::OWN);
        assert_eq!(read, Ok(Message::Reject { code: Code::Other, leads: true, promised: epoch }));
    }

    #[test]
    fn a_group_follows_its_head() {
        let epoch = Epoch { number: 2, generation: 1 };
        let mut frame = BytesMut::from(&Message::group_head(epoch, Lsn(7))[..]);
        frame.extend_from_slice(b"the group");
        let group = Bytes::from_static(b"the group");
        let expected = Message::Group { epoch, commit: Lsn(7), group };
        assert_eq!(Message::decode(&frame.freeze(), Protocols::OWN), Ok(expected));
    }
}
