//! One flush for a small commit instead of two.
//!
//! LMDB flushes a transaction's pages, then the meta page that makes it the last one. Without the second
//! flush the store stays whole, but the newest transaction may be undone when the machine loses its
//! power. So the groups of a small commit are written a second time, into a place of the same file, where
//! the first flush covers them: should their transaction be undone, they are appended again at the start.
//! Where a flush takes milliseconds, flushes are what a lone publisher waits for.
//!
//! The place is a value of LMDB's, which nothing rewrites: its pages stay where they are. It has two slots
//! that take turns. A transaction's meta page is flushed with the next one's pages, so at most the last
//! promised one is undone, and the one behind it, which may have torn its own slot, was not promised yet.

use crate::StorageError;
use crate::tables::{Table, Tables};
use bytes::{Buf, BufMut, Bytes};
use heed::{Env, EnvFlags, FlagSetMode, RoTxn, RwTxn, WithoutTls};
use std::fs::File;
use std::os::unix::fs::FileExt;
use understudy_model::Group;

const KEY: &[u8] = b"redo";
/// A power loss may tear a block of the file: none belongs to two slots, or to a slot and to LMDB.
const BLOCK_BYTES: usize = 4096;
const SLOT_BYTES: usize = 17 * BLOCK_BYTES;
const VALUE_BYTES: usize = 2 * SLOT_BYTES + BLOCK_BYTES;
/// `crc32 (u32) · transaction (u64) · length (u32)`, big endian, then each group behind its length
/// (u32). The crc covers all that follows it.
const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

pub(crate) struct Redo {
    file: File,
    /// Of the first slot, in the file.
    offset: u64,
    buffer: Vec<u8>,
}

/// What a slot holds.
struct Entry {
    transaction: u64,
    groups: Vec<Group>,
}

impl Redo {
    /// Makes the place in a store that has none.
    pub(crate) fn create(txn: &mut RwTxn<'_>, meta: Table) -> Result<(), StorageError> {
        if meta.get(txn, KEY)?.is_none() {
            meta.put(txn, KEY, &vec![0; VALUE_BYTES])?;
        }
        Ok(())
    }

    /// None where the mapping cannot be looked up: then each commit is flushed twice.
    pub(crate) fn find(txn: &RoTxn<'_>, tables: &Tables) -> Result<Option<Self>, StorageError> {
        let offset = slots(txn, tables.meta)?.and_then(|slots| tables.pages.offset_of(slots));
        let Some(offset) = offset else { return Ok(None) };
        let file = File::options().write(true).open(tables.data_file())?;
        Ok(Some(Self { file, offset, buffer: Vec::new() }))
    }

    /// Writes the groups of this transaction, to be flushed with its pages. False: they are too large.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write(
        &mut self,
        transaction: u64,
        groups: &[Group],
    ) -> Result<bool, StorageError> {
        let bytes: usize = groups.iter().map(|group| 4 + group.bytes().len()).sum();
        if groups.is_empty() || HEADER_BYTES + bytes > SLOT_BYTES {
            return Ok(false);
        }
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.put_u32(0);
        buffer.put_u64(transaction);
        buffer.put_u32(bytes as u32);
        for group in groups {
            buffer.put_u32(group.bytes().len() as u32);
            buffer.put_slice(group.bytes());
        }
        let crc = crc32fast::hash(&buffer[CRC_BYTES..]);
        buffer[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
        let slot = transaction % 2 * SLOT_BYTES as u64;
        self.file.write_all_at(buffer, self.offset + slot)?;
        Ok(true)
    }
}

/// The slots, from the first whole block of their value on: LMDB maps its file at the edge of a page.
fn slots<'a>(txn: &'a RoTxn<'_>, meta: Table) -> Result<Option<&'a [u8]>, StorageError> {
    let Some(value) = meta.get(txn, KEY)? else { return Ok(None) };
    let start = value.as_ptr() as usize;
    let skipped = start.next_multiple_of(BLOCK_BYTES) - start;
    Ok(value.get(skipped..skipped + 2 * SLOT_BYTES))
}

/// The commits that follow `last`, the store's last transaction, without gap: those were undone.
pub(crate) fn undone(
    txn: &RoTxn<'_>,
    meta: Table,
    last: u64,
) -> Result<Vec<Vec<Group>>, StorageError> {
    let slots = slots(txn, meta)?.unwrap_or_default();
    let mut entries: Vec<_> = slots.chunks_exact(SLOT_BYTES).filter_map(decode).collect();
    entries.retain(|entry| entry.transaction > last);
    entries.sort_unstable_by_key(|entry| entry.transaction);
    let numbered = (last + 1..).zip(entries);
    let undone = numbered.take_while(|(next, entry)| entry.transaction == *next);
    Ok(undone.map(|(_, entry)| entry.groups).collect())
}

/// None: nothing was written there, or not all of it.
fn decode(slot: &[u8]) -> Option<Entry> {
    let mut header = &slot[..HEADER_BYTES];
    let (crc, transaction, len) = (header.get_u32(), header.get_u64(), header.get_u32() as usize);
    let written = slot.get(CRC_BYTES..HEADER_BYTES.checked_add(len)?)?;
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
    Some(Entry { transaction, groups })
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
