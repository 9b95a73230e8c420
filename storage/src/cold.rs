//! The cold store: live records of sparse or copied stretches of the log, packed into chunks with
//! their LSNs. Chunks never overlap: a record is found in the one chunk that begins at or before
//! its LSN. Whoever puts records between those of a chunk has the chunk written anew.

use crate::StorageError;
use crate::piece::{self, CONTENT_BYTES_MAX, Key};
use crate::reader::holding;
use crate::tables::Table;
use bytes::Bytes;
use heed::{RwTxn, types::DecodeIgnore};
use std::collections::BTreeMap;
use std::ops::Bound;
use understudy_model::{Lsn, Place};

/// An LSN and a length in front of each record.
const RECORD_HEADER_BYTES: usize = 12;

pub(crate) type Records = BTreeMap<Lsn, Bytes>;

/// Packs `records` into chunks, together with those of every chunk that they reach into.
pub(crate) fn insert(
    table: Table,
    txn: &mut RwTxn<'_>,
    mut records: Records,
    scratch: &mut Vec<u8>,
) -> Result<(), StorageError> {
    let (Some((&from, _)), Some((&to, _))) = (records.first_key_value(), records.last_key_value())
    else {
        return Ok(());
    };
    for old in reaching_into(table, txn, from, to)? {
        for (lsn, record) in old.records()? {
            records.entry(lsn).or_insert(record);
        }
        delete_chunk(table, txn, old.first)?;
    }
    write(table, txn, records, scratch)
}

/// Removes what lies from `first` to `last`, at most about `pieces_max` pieces of it; returns how
/// many went. Records outside of the range stay, also those of chunks that reach out of it.
pub(crate) fn remove(
    table: Table,
    txn: &mut RwTxn<'_>,
    first: Lsn,
    last: Lsn,
    pieces_max: usize,
    scratch: &mut Vec<u8>,
) -> Result<usize, StorageError> {
    if pieces_max == 0 {
        return Ok(0);
    }
    let mut stay = Records::new();
    if let Some(front) = chunk_at(table, txn, first)?.filter(|chunk| chunk.first < first) {
        let inside = |lsn: Lsn| first <= lsn && lsn <= last;
        let (gone, kept): (Vec<_>, Vec<_>) =
            front.records()?.into_iter().partition(|(lsn, _)| inside(*lsn));
        if !gone.is_empty() {
            delete_chunk(table, txn, front.first)?;
            stay.extend(kept);
        }
    }
    let doomed = keys(table, txn, piece::key(first, 0), piece::key(last, u16::MAX), pieces_max)?;
    // Only the last chunk that begins in the range can reach out of it.
    if let Some(key) = doomed.last()
        && let Some(chunk) = chunk_at(table, txn, piece::lsn_of(key))?
    {
        stay.extend(chunk.records()?.into_iter().filter(|(lsn, _)| *lsn > last));
    }
    for key in &doomed {
        table.delete(txn, key)?;
    }
    write(table, txn, stay, scratch)?;
    Ok(doomed.len())
}

struct Chunk {
    first: Lsn,
    content: Bytes,
}

impl Chunk {
    fn records(&self) -> Result<Vec<(Lsn, Bytes)>, StorageError> {
        piece::records_of_cold(self.first, &self.content).collect()
    }
}

/// The chunk that begins at or before `lsn`.
fn chunk_at(table: Table, txn: &RwTxn<'_>, lsn: Lsn) -> Result<Option<Chunk>, StorageError> {
    let found = holding(Place::Cold, table, txn, &[lsn])?;
    Ok(found.map(|(_, first, content)| Chunk { first, content }))
}

fn reaching_into(
    table: Table,
    txn: &RwTxn<'_>,
    from: Lsn,
    to: Lsn,
) -> Result<Vec<Chunk>, StorageError> {
    let mut chunks = Vec::new();
    if let Some(front) = chunk_at(table, txn, from)?
        && front.records()?.iter().any(|(lsn, _)| *lsn >= from)
    {
        chunks.push(front);
    }
    for key in keys(table, txn, piece::key(from, 1), piece::key(to, 0), usize::MAX)? {
        if key.ends_with(&[0, 0]) {
            chunks.extend(chunk_at(table, txn, piece::lsn_of(&key))?);
        }
    }
    Ok(chunks)
}

pub(crate) fn delete_chunk(
    table: Table,
    txn: &mut RwTxn<'_>,
    first: Lsn,
) -> Result<(), StorageError> {
    let (from, to) = (piece::key(first, 0), piece::key(first, u16::MAX));
    table.delete_range(txn, &(Bound::Included(&from[..]), Bound::Included(&to[..])))?;
    Ok(())
}

pub(crate) fn keys(
    table: Table,
    txn: &RwTxn<'_>,
    from: Key,
    to: Key,
    most: usize,
) -> Result<Vec<Key>, StorageError> {
    let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    let table = table.remap_data_type::<DecodeIgnore>();
    let mut found = Vec::new();
    for entry in table.range(txn, &bounds)?.take(most) {
        let (key, ()) = entry?;
        found.extend(key.first_chunk::<10>());
    }
    Ok(found)
}

fn write(
    table: Table,
    txn: &mut RwTxn<'_>,
    records: Records,
    scratch: &mut Vec<u8>,
) -> Result<(), StorageError> {
    let mut chunk = Vec::new();
    let mut first = Lsn::ZERO;
    let mut flush = |first: Lsn, chunk: &mut Vec<u8>| -> Result<(), StorageError> {
        piece::put_parts(first, piece::RECORDS, chunk, scratch, |key, piece| {
            Ok(table.put(txn, &key, piece)?)
        })?;
        chunk.clear();
        Ok(())
    };
    for (lsn, record) in records {
        let length = RECORD_HEADER_BYTES + record.len();
        if !chunk.is_empty() && chunk.len() + length > CONTENT_BYTES_MAX {
            flush(first, &mut chunk)?;
        }
        if chunk.is_empty() {
            first = lsn;
        }
        chunk.extend_from_slice(&lsn.0.to_be_bytes());
        chunk.extend_from_slice(&(record.len() as u32).to_be_bytes());
        chunk.extend_from_slice(&record);
    }
    if chunk.is_empty() { Ok(()) } else { flush(first, &mut chunk) }
}
