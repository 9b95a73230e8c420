//! Groups: commands sealed together, the unit of write, sync, shipping and commit.
//!
//! The same bytes serve disk, wire, replay and delivery. A group is a header followed by records;
//! a record is `length: u32 (big endian)` and that many bytes of an encoded [`crate::Command`].
//! The n-th record's LSN is `first + n`. The header carries a hash of the records and a chain
//! hash over all groups before it, so two logs with equal chain at an LSN are equal up to it.

use crate::{Lsn, Malformed};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::hash::{Hash, Hasher};
use std::{fmt, sync::Arc};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub const GROUP_HEADER_BYTES: usize = 72;
const MAGIC: u32 = 0x5547_5231;
const FORMAT_VERSION: u16 = 1;
const LENGTH_BYTES: usize = 4;
/// The part of the header that the chain hash covers: all but the chain itself.
const CHAINED_BYTES: usize = GROUP_HEADER_BYTES - 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Number of the mastership that sealed the group.
    pub epoch: u64,
    pub first: Lsn,
    /// At least 1.
    pub count: u32,
    pub records_bytes: u32,
    /// The master's clock when it sealed the group, milliseconds since 1970.
    pub time_ms: u64,
    pub records_hash: u128,
    pub chain: u128,
}

impl GroupHeader {
    /// LSN of the group's last command.
    pub fn last(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.count) - 1)
    }

    /// Whole length on disk and wire, header included.
    pub fn group_bytes(&self) -> usize {
        GROUP_HEADER_BYTES + self.records_bytes as usize
    }

    /// As [`Group::verify_chain`].
    pub fn verify_chain(&self, previous: u128) -> Result<(), GroupError> {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        self.put(&mut bytes);
        if chain(previous, &bytes) == self.chain {
            Ok(())
        } else {
            Err(GroupError::Chain { first: self.first })
        }
    }

    fn put(&self, out: &mut [u8]) {
        let mut out = out;
        out.put_u32(MAGIC);
        out.put_u16(FORMAT_VERSION);
        out.put_u16(0);
        out.put_u64(self.epoch);
        out.put_u64(self.first.0);
        out.put_u32(self.count);
        out.put_u32(self.records_bytes);
        out.put_u64(self.time_ms);
        out.put_u128(self.records_hash);
        out.put_u128(self.chain);
    }

    /// Reads the header at the front of `bytes` without looking at the records.
    pub fn decode(bytes: &[u8]) -> Result<Self, GroupError> {
        let mut header = bytes.get(..GROUP_HEADER_BYTES).ok_or(GroupError::Short)?;
        if header.get_u32() != MAGIC {
            return Err(GroupError::NotAGroup);
        }
        let version = header.get_u16();
        if version != FORMAT_VERSION {
            return Err(GroupError::Version(version));
        }
        header.advance(2);
        let header = Self {
            epoch: header.get_u64(),
            first: Lsn(header.get_u64()),
            count: header.get_u32(),
            records_bytes: header.get_u32(),
            time_ms: header.get_u64(),
            records_hash: header.get_u128(),
            chain: header.get_u128(),
        };
        let room = header.first.0.checked_add(u64::from(header.count)).is_some();
        if header.count == 0 || header.first == Lsn::ZERO || !room {
            return Err(GroupError::NotAGroup);
        }
        Ok(header)
    }
}

/// [`GroupHeader::records_hash`] of records that come in parts.
#[derive(Clone, Default)]
pub struct RecordsHash(Box<Xxh3>);

impl RecordsHash {
    pub fn update(&mut self, records: &[u8]) {
        self.0.update(records);
    }

    pub fn finish(&self) -> u128 {
        self.0.digest128()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupError {
    Short,
    NotAGroup,
    Version(u16),
    Hash { first: Lsn },
    Chain { first: Lsn },
    Records { first: Lsn },
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "group cut short"),
            Self::NotAGroup => write!(f, "not a group header"),
            Self::Version(v) => write!(f, "group format {v}, this program knows {FORMAT_VERSION}"),
            Self::Hash { first } => write!(f, "checksum mismatch in the group at LSN {first}"),
            Self::Chain { first } => write!(f, "broken chain at the group of LSN {first}"),
            Self::Records { first } => write!(f, "records do not fit the group at LSN {first}"),
        }
    }
}

impl std::error::Error for GroupError {}

/// A sealed group. Clones share the buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Group {
    header: GroupHeader,
    bytes: Bytes,
    /// Where each record's length prefix begins in `bytes`.
    offsets: Arc<[u32]>,
}

impl Hash for Group {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.header.chain.hash(state);
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({}..={} e{})", self.header.first, self.header.last(), self.header.epoch)
    }
}

impl Group {
    /// Takes a whole group as read from disk or wire and verifies its hash, not its chain.
    pub fn decode(bytes: Bytes) -> Result<Self, GroupError> {
        let header = GroupHeader::decode(&bytes)?;
        if bytes.len() != header.group_bytes() {
            return Err(GroupError::Short);
        }
        if xxh3_128(&bytes[GROUP_HEADER_BYTES..]) != header.records_hash {
            return Err(GroupError::Hash { first: header.first });
        }
        let malformed = GroupError::Records { first: header.first };
        let mut offsets = Vec::with_capacity((header.count as usize).min(bytes.len() / 4));
        let mut at = GROUP_HEADER_BYTES;
        while at < bytes.len() {
            let length = bytes[at..].first_chunk::<LENGTH_BYTES>().ok_or(malformed)?;
            offsets.push(at as u32);
            at += LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
        }
        if at != bytes.len() || offsets.len() != header.count as usize {
            return Err(malformed);
        }
        Ok(Self { header, bytes, offsets: offsets.into() })
    }

    /// Verifies that this group continues a log whose last group had the chain hash `previous`.
    pub fn verify_chain(&self, previous: u128) -> Result<(), GroupError> {
        if chain(previous, &self.bytes) == self.header.chain {
            Ok(())
        } else {
            Err(GroupError::Chain { first: self.header.first })
        }
    }

    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    pub fn first(&self) -> Lsn {
        self.header.first
    }

    pub fn last(&self) -> Lsn {
        self.header.last()
    }

    /// Header and records, as stored and sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn contains(&self, lsn: Lsn) -> bool {
        self.first() <= lsn && lsn <= self.last()
    }

    /// The encoded command at `lsn`, sharing the group's buffer.
    pub fn record(&self, lsn: Lsn) -> Option<Bytes> {
        let index = usize::try_from(lsn.0.checked_sub(self.header.first.0)?).ok()?;
        let at = *self.offsets.get(index)? as usize + LENGTH_BYTES;
        let end = self.offsets.get(index + 1).map_or(self.bytes.len(), |next| *next as usize);
        Some(self.bytes.slice(at..end))
    }

    /// Where the record of `lsn`, with its length prefix, begins in [`Self::bytes`].
    pub fn record_offset(&self, lsn: Lsn) -> Option<usize> {
        let index = usize::try_from(lsn.0.checked_sub(self.header.first.0)?).ok()?;
        self.offsets.get(index).map(|&at| at as usize)
    }

    /// All records in LSN order, borrowed.
    pub fn records(&self) -> impl Iterator<Item = (Lsn, &[u8])> {
        let ends = self.offsets[1..].iter().map(|&at| at as usize).chain([self.bytes.len()]);
        self.offsets.iter().zip(ends).enumerate().map(|(index, (&at, end))| {
            let lsn = Lsn(self.header.first.0 + index as u64);
            (lsn, &self.bytes[at as usize + LENGTH_BYTES..end])
        })
    }
}

/// A group up to this size is copied out of the buffer that it was filled in: groups are kept for
/// a while, and a small one must not keep a large buffer.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// The group that is being filled. Records are appended in place, and sealing a large group
/// copies nothing.
pub struct OpenGroup {
    bytes: BytesMut,
    offsets: Vec<u32>,
    first: Lsn,
}

impl OpenGroup {
    /// An empty group whose first command will have the LSN `first`.
    pub fn new(first: Lsn) -> Self {
        Self { bytes: BytesMut::new(), offsets: Vec::new(), first }
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes so far, header included.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The LSN that the next pushed command gets.
    pub fn next_lsn(&self) -> Lsn {
        Lsn(self.first.0 + self.offsets.len() as u64)
    }

    /// Appends one record that `encode` writes; returns its LSN.
    pub fn push(&mut self, encode: impl FnOnce(&mut BytesMut)) -> Lsn {
        if self.bytes.is_empty() {
            self.bytes.reserve(64 * 1024);
            self.bytes.put_bytes(0, GROUP_HEADER_BYTES);
        }
        let lsn = self.next_lsn();
        let at = self.bytes.len();
        self.offsets.push(at as u32);
        self.bytes.put_u32(0);
        encode(&mut self.bytes);
        let length = (self.bytes.len() - at - LENGTH_BYTES) as u32;
        self.bytes[at..at + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        lsn
    }

    /// Closes the group and leaves an empty one behind that begins after it.
    ///
    /// # Panics
    /// If the group is empty, or 4 GiB long: the caller decides when there is something to seal.
    pub fn seal(&mut self, epoch: u64, time_ms: u64, previous_chain: u128) -> Group {
        assert!(!self.is_empty(), "an empty group cannot be sealed");
        assert!(u32::try_from(self.bytes.len()).is_ok(), "a group's lengths have 32 bits");
        let mut bytes = std::mem::take(&mut self.bytes);
        let offsets: Arc<[u32]> = self.offsets.as_slice().into();
        let mut header = GroupHeader {
            epoch,
            first: self.first,
            count: offsets.len() as u32,
            records_bytes: (bytes.len() - GROUP_HEADER_BYTES) as u32,
            time_ms,
            records_hash: xxh3_128(&bytes[GROUP_HEADER_BYTES..]),
            chain: 0,
        };
        header.put(&mut bytes[..GROUP_HEADER_BYTES]);
        header.chain = chain(previous_chain, &bytes);
        header.put(&mut bytes[..GROUP_HEADER_BYTES]);
        self.first = self.next_lsn();
        self.offsets.clear();
        if bytes.len() > COPIED_BYTES_MAX {
            return Group { header, bytes: bytes.freeze(), offsets };
        }
        let exact = Bytes::copy_from_slice(&bytes);
        bytes.clear();
        self.bytes = bytes;
        Group { header, bytes: exact, offsets }
    }
}

fn chain(previous: u128, group: &[u8]) -> u128 {
    let mut input = [0u8; 16 + CHAINED_BYTES];
    input[..16].copy_from_slice(&previous.to_be_bytes());
    input[16..].copy_from_slice(&group[..CHAINED_BYTES]);
    xxh3_128(&input)
}

impl From<Malformed> for GroupError {
    fn from(_: Malformed) -> Self {
        Self::NotAGroup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(first: u64, previous: u128) -> Group {
        let mut open = OpenGroup::new(Lsn(first));
        open.push(|out| out.put_slice(b"one"));
        open.push(|out| out.put_slice(b""));
        open.push(|out| out.put_slice(b"three"));
        open.seal(4, 1_000, previous)
    }

    #[test]
    fn a_group_reads_back_as_it_was_sealed() {
        let group = sealed(10, 99);
        let back = Group::decode(group.bytes().clone()).unwrap();
        assert_eq!(back, group);
        assert_eq!(back.verify_chain(99), Ok(()));
        assert_eq!(back.verify_chain(98), Err(GroupError::Chain { first: Lsn(10) }));
        assert_eq!(back.record(Lsn(12)).unwrap(), &b"three"[..]);
        assert_eq!(back.record(Lsn(13)), None);
        assert_eq!(back.record(Lsn(9)), None);
        let records: Vec<_> = back.records().map(|(lsn, r)| (lsn.0, r.len())).collect();
        assert_eq!(records, [(10, 3), (11, 0), (12, 5)]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let group = sealed(1, 0);
        for bit in 0..group.bytes().len() * 8 {
            let mut bytes = BytesMut::from(&group.bytes()[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = Group::decode(bytes.freeze()).and_then(|g| g.verify_chain(0));
            assert!(noticed.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sealing_leaves_a_group_that_continues() {
        let mut open = OpenGroup::new(Lsn(1));
        open.push(|out| out.put_u8(1));
        let one = open.seal(1, 0, 0);
        assert!(open.is_empty());
        assert_eq!(open.push(|out| out.put_u8(2)), Lsn(2));
        let two = open.seal(1, 0, one.header().chain);
        assert_eq!(two.verify_chain(one.header().chain), Ok(()));
    }
}
