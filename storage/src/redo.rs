//! One write and one flush for a small commit.
//!
//! LMDB writes a transaction's pages, some seven of them here and there in its file, flushes, writes
//! the meta page that makes the transaction the last one, and flushes again. Where a flush takes milliseconds
//! and each place costs a request to the disk, that is what a lone publisher waits for. So the groups of a
//! small commit are written to one place, behind those of the commits before, and flushed once.
//! They are LMDB's when there are 128 KiB of them, or with the next commit that needs LMDB: until then
//! [`crate::tail`] has them for readers, and what a crash finds here is appended to the log at the start.
//!
//! The place is a value of LMDB's, which nothing rewrites: its pages stay where they are. It has two halves
//! that take turns, one a transaction. The transaction that takes a half's groups over may itself leave
//! out its second flush: its meta page is flushed by what is written next, and until the transaction
//! behind it is complete its half is not written again.

use crate::StorageError;
use crate::tables::{Table, Tables};
use bytes::{Buf, BufMut, Bytes};
use heed::{Env, EnvFlags, FlagSetMode, RoTxn, RwTxn, WithoutTls};
use std::fs::File;
use std::os::unix::fs::FileExt;
use understudy_model::{Damage, Group, Lsn, Place};

const KEY: &[u8] = b"redo";
/// A power loss may tear a block of the file: none belongs to two entries, or to an entry and to LMDB.
const BLOCK_BYTES: usize = 4096;
const HALF_BYTES: usize = 256 * BLOCK_BYTES;
const VALUE_BYTES: usize = 2 * HALF_BYTES + BLOCK_BYTES;
/// LMDB takes over about so much of groups at once: the commit that meets it waits for that, too. All of a
/// half at once made p99 at 5,000 messages a second half as long again.
const TAKEN_OVER_BYTES: usize = 128 * 1024;
/// What is larger is written once, to LMDB: its bytes cost more than its flush.
const ENTRY_BYTES_MAX: usize = 17 * BLOCK_BYTES;
/// `crc32 (u32) · transaction (u64) · number (u32) · length (u32) · last LSN before it (u64) · chain
/// hash there (u128)`, big endian, then each group behind its length (u32). The crc covers all that follows it.
const HEADER_BYTES: usize = 44;
const CRC_BYTES: usize = 4;

pub(crate) struct Redo {
    file: File,
    /// Of the first half, in the file.
    offset: u64,
    /// LMDB's, that will take over what is written now.
    transaction: u64,
    /// Of the next entry, in its transaction.
    number: u32,
    /// Of the half.
    used_bytes: usize,
    /// Of the groups in it.
    group_bytes: usize,
    /// The entry that is being written.
    buffer: Vec<u8>,
}

/// The groups of one commit.
struct Entry {
    transaction: u64,
    number: u32,
    /// Last LSN of the log before it, and the chain hash there.
    before: (Lsn, u128),
    groups: Vec<Group>,
}

/// The commits that LMDB does not have, in order.
#[derive(Default)]
pub(crate) struct Undone {
    /// Where LMDB's log ends.
    pub(crate) before: Option<(Lsn, u128)>,
    /// By LMDB's transaction that was to have them.
    pub(crate) transactions: Vec<Vec<Group>>,
}

impl Redo {
    /// Makes the place in a store that has none.
    pub(crate) fn create(txn: &mut RwTxn<'_>, meta: Table) -> Result<(), StorageError> {
        if meta.get(txn, KEY)?.is_none() {
            meta.put(txn, KEY, &vec![0; VALUE_BYTES])?;
        }
        Ok(())
    }

    /// None where the mapping cannot be looked up: then each commit is LMDB's.
    pub(crate) fn find(tables: &Tables) -> Result<Option<Self>, StorageError> {
        let txn = tables.env.read_txn()?;
        let offset = halves(&txn, tables.meta)?.and_then(|halves| tables.pages.offset_of(halves));
        let Some(offset) = offset else { return Ok(None) };
        let file = File::options().write(true).open(tables.data_file())?;
        let transaction = tables.last_transaction() + 1;
        let buffer = Vec::with_capacity(ENTRY_BYTES_MAX);
        let (number, used_bytes, group_bytes) = (0, 0, 0);
        Ok(Some(Self { file, offset, transaction, number, used_bytes, group_bytes, buffer }))
    }

    /// LMDB has all that was written until now: `transaction` was its last one.
    pub(crate) fn taken_over(&mut self, transaction: u64) {
        self.transaction = transaction + 1;
        (self.number, self.used_bytes, self.group_bytes) = (0, 0, 0);
    }

    pub(crate) fn is_small(groups: &[Group]) -> bool {
        !groups.is_empty() && entry_bytes(groups) <= ENTRY_BYTES_MAX
    }

    pub(crate) fn has_room_for(&self, groups: &[Group]) -> bool {
        self.group_bytes < TAKEN_OVER_BYTES && self.used_bytes + entry_bytes(groups) <= HALF_BYTES
    }

    /// Writes a commit behind the one before, for which there must be room. It is durable after the next
    /// flush of the file, and counts once [`Self::advance`] was called.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(
        &mut self,
        before: (Lsn, u128),
        groups: &[Group],
    ) -> Result<(), StorageError> {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.put_u32(0);
        buffer.put_u64(self.transaction);
        buffer.put_u32(self.number);
        buffer.put_u32(group_bytes(groups) as u32);
        buffer.put_u64(before.0.0);
        buffer.put_u128(before.1);
        for group in groups {
            buffer.put_u32(group.bytes().len() as u32);
            buffer.put_slice(group.bytes());
        }
        let crc = crc32fast::hash(&buffer[CRC_BYTES..]);
        buffer[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
        // Whole blocks: of a part the kernel would have to read the rest first.
        buffer.resize(buffer.len().next_multiple_of(BLOCK_BYTES), 0);
        let half = self.transaction % 2 * HALF_BYTES as u64;
        self.file.write_all_at(buffer, self.offset + half + self.used_bytes as u64)?;
        Ok(())
    }

    /// The entry that was written with these groups is the log's.
    pub(crate) fn advance(&mut self, groups: &[Group]) {
        self.number += 1;
        self.used_bytes += self.buffer.len();
        self.group_bytes += group_bytes(groups);
    }

    /// # Errors
    /// The disk has failed: what it holds is not known.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        Ok(self.file.sync_data()?)
    }
}

/// With the length in front of each.
fn group_bytes(groups: &[Group]) -> usize {
    groups.iter().map(|group| 4 + group.bytes().len()).sum()
}

fn entry_bytes(groups: &[Group]) -> usize {
    (HEADER_BYTES + group_bytes(groups)).next_multiple_of(BLOCK_BYTES)
}

/// The halves, from the first whole block of their value on: LMDB maps its file at the edge of a page.
fn halves<'a>(txn: &'a RoTxn<'_>, meta: Table) -> Result<Option<&'a [u8]>, StorageError> {
    let Some(value) = meta.get(txn, KEY)? else { return Ok(None) };
    let start = value.as_ptr() as usize;
    let skipped = start.next_multiple_of(BLOCK_BYTES) - start;
    Ok(value.get(skipped..skipped + 2 * HALF_BYTES))
}

/// The commits of the transactions that follow `last`, LMDB's last one, without gap.
///
/// # Errors
/// `Damaged` if one is missing in front of another: an entry is written when the one before is flushed, so
/// only the last may be torn, and was not promised then.
pub(crate) fn undone(tables: &Tables, last: u64) -> Result<Undone, StorageError> {
    let txn = tables.env.read_txn()?;
    let halves = halves(&txn, tables.meta)?.unwrap_or_default();
    let mut undone = Undone::default();
    for transaction in last + 1..=last + 2 {
        let mut entries = Vec::new();
        for half in halves.chunks_exact(HALF_BYTES) {
            entries.extend(entries_of(half).filter(|entry| entry.transaction == transaction));
        }
        let Some(first) = entries.first() else { break };
        undone.before.get_or_insert(first.before);
        for (number, entry) in (0..).zip(&entries) {
            if entry.number != number {
                let damage = Damage { place: Place::Log, lsn: entry.before.0 };
                let what = "a commit in front of another one";
                return Err(StorageError::damaged(damage, what));
            }
        }
        undone.transactions.push(entries.into_iter().flat_map(|entry| entry.groups).collect());
    }
    Ok(undone)
}

/// What can be read of a half, in order.
fn entries_of(half: &[u8]) -> impl Iterator<Item = Entry> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at + BLOCK_BYTES <= half.len() {
            if let Some(entry) = decode(&half[at..]) {
                at += entry_bytes(&entry.groups);
                return Some(entry);
            }
            at += BLOCK_BYTES;
        }
        None
    })
}

/// None: nothing was written there, or not all of it.
fn decode(bytes: &[u8]) -> Option<Entry> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    let (crc, transaction, number) = (header.get_u32(), header.get_u64(), header.get_u32());
    let len = header.get_u32() as usize;
    let before = (Lsn(header.get_u64()), header.get_u128());
    let written = bytes.get(CRC_BYTES..HEADER_BYTES.checked_add(len)?)?;
    if crc32fast::hash(written) != crc {
        return None;
    }
    let mut rest = &written[HEADER_BYTES - CRC_BYTES..];
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let len = rest.try_get_u32().ok()? as usize;
        let (group, behind) = rest.split_at_checked(len)?;
        groups.push(Group::decode(Bytes::copy_from_slice(group)).ok()?);
        rest = behind;
    }
    Some(Entry { transaction, number, before, groups })
}

/// Leaves out the flush of the meta page.
///
/// Unsafe: a power loss may undo the transaction, which [`Redo`] is for; and no two threads may set
/// flags at once, which the owner of the [`Log`] does alone.
#[allow(unsafe_code)]
pub(crate) fn commit_flushed_once(
    env: &Env<WithoutTls>,
    txn: RwTxn<'_>,
) -> Result<(), StorageError> {
    unsafe { env.set_flags(EnvFlags::NO_META_SYNC, FlagSetMode::Enable)? };
    let committed = txn.commit();
    unsafe { env.set_flags(EnvFlags::NO_META_SYNC, FlagSetMode::Disable)? };
    Ok(committed?)
}
