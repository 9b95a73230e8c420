//! Reading the log. Each call is one short transaction that copies out what it returns: an old
//! reader would keep LMDB from using freed pages again.

use crate::StorageError;
use crate::log::{Table, Tables};
use crate::piece;
use bytes::{Bytes, BytesMut};
use heed::{Env, RoTxn, WithoutTls};
use std::ops::Bound;
use understudy_model::{Group, GroupHeader, Lsn};

#[derive(Clone)]
pub struct LogReader {
    tables: Tables,
}

impl LogReader {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables }
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.tables.bytes_max
    }

    pub(crate) fn env(&self) -> &Env<WithoutTls> {
        &self.tables.env
    }

    /// The records at `lsns` (ascending), from the log or the cold store; those that are in
    /// neither are left out. Ends early after `bytes_max`, but not before the first record.
    ///
    /// # Errors
    /// `Corrupt` if a piece's checksum does not fit.
    pub fn records(
        &self,
        lsns: &[Lsn],
        bytes_max: usize,
    ) -> Result<Vec<(Lsn, Bytes)>, StorageError> {
        let txn = self.tables.env.read_txn()?;
        let mut found = Vec::with_capacity(lsns.len());
        let mut bytes = 0;
        let mut rest = lsns;
        while let Some(&first) = rest.first() {
            if bytes >= bytes_max {
                break;
            }
            let before = found.len();
            self.take_from_log(&txn, &mut rest, &mut found)?;
            if found.len() == before {
                self.take_from_cold(&txn, &mut rest, &mut found)?;
            }
            if found.len() == before && rest.first() == Some(&first) {
                rest = &rest[1..];
            }
            bytes += found[before..].iter().map(|(_, record)| record.len()).sum::<usize>();
        }
        drop(txn);
        // At least a piece was read for each record that was looked for.
        self.tables.pages.touched(bytes.max(piece::PIECE_BYTES_MAX));
        Ok(found)
    }

    /// Whole groups that follow `after` without gap, verified, about `bytes_max` of them and at
    /// least one. Empty at the log's end, or if the log no longer reaches back to `after`.
    ///
    /// # Errors
    /// `Corrupt` if a checksum does not fit.
    pub fn groups(&self, after: Lsn, bytes_max: usize) -> Result<Vec<Group>, StorageError> {
        let txn = self.tables.env.read_txn()?;
        let mut groups = Vec::new();
        let (mut bytes, mut next) = (0, after.next());
        while bytes < bytes_max {
            let Some(group) = self.read_group(&txn, next)? else { break };
            bytes += group.bytes().len();
            next = group.last().next();
            groups.push(group);
        }
        drop(txn);
        self.tables.pages.touched(bytes);
        Ok(groups)
    }

    pub(crate) fn group_at(&self, first: Lsn) -> Result<Group, StorageError> {
        let txn = self.tables.env.read_txn()?;
        let group = self.read_group(&txn, first)?;
        group.ok_or_else(|| StorageError::corrupt(first, "group is missing"))
    }

    fn read_group(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        first: Lsn,
    ) -> Result<Option<Group>, StorageError> {
        let from = piece::key(first, 0);
        let bounds = (Bound::Included(&from[..]), Bound::Unbounded);
        let mut pieces = self.tables.log.range(txn, &bounds)?;
        let Some(entry) = pieces.next() else { return Ok(None) };
        let (key, value) = entry?;
        if piece::lsn_of(key) != first {
            return Ok(None);
        }
        let (kind, content) = piece::decode(first, value)?;
        if kind != piece::GROUP_START {
            return Err(StorageError::corrupt(first, "no group begins there"));
        }
        let header = GroupHeader::decode(content)?;
        let mut bytes = BytesMut::with_capacity(header.group_bytes());
        bytes.extend_from_slice(content);
        while bytes.len() < header.group_bytes() {
            let Some(entry) = pieces.next() else {
                return Err(StorageError::corrupt(first, "the end of the group is missing"));
            };
            let (key, value) = entry?;
            bytes.extend_from_slice(piece::decode(piece::lsn_of(key), value)?.1);
        }
        Ok(Some(Group::decode(bytes.freeze())?))
    }

    /// Takes from `rest` what lies in the piece that holds its first LSN.
    fn take_from_log(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        rest: &mut &[Lsn],
        found: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), StorageError> {
        let Some((kind, first, content)) = holding(self.tables.log, txn, rest)? else {
            return Ok(());
        };
        take(rest, piece::records_of_log(kind, first, &content), found);
        Ok(())
    }

    fn take_from_cold(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        rest: &mut &[Lsn],
        found: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), StorageError> {
        let Some((_, _, content)) = holding(self.tables.cold, txn, rest)? else { return Ok(()) };
        take(rest, piece::records_of_cold(&content), found);
        Ok(())
    }
}

/// Joins `rest` with ascending `records`, until the records end.
fn take(
    rest: &mut &[Lsn],
    records: impl Iterator<Item = (Lsn, Bytes)>,
    found: &mut Vec<(Lsn, Bytes)>,
) {
    for (lsn, record) in records {
        match rest.first() {
            None => return,
            Some(&wanted) if wanted < lsn => return,
            Some(&wanted) if wanted == lsn => {
                found.push((lsn, record));
                *rest = &rest[1..];
            }
            Some(_) => {}
        }
    }
}

/// The piece, its parts joined, that begins at or before the first wanted LSN.
pub(crate) fn holding(
    table: Table,
    txn: &RoTxn<'_>,
    wanted: &[Lsn],
) -> Result<Option<(u8, Lsn, Bytes)>, StorageError> {
    let Some(&lsn) = wanted.first() else { return Ok(None) };
    let key = piece::key(lsn, 0);
    let Some((key, value)) = table.get_lower_than_or_equal_to(txn, &key)? else {
        return Ok(None);
    };
    let first = piece::lsn_of(key);
    let (kind, content) = match piece::decode(first, value)? {
        // A long record in front: what is wanted is in none of its parts but perhaps its first.
        (piece::CONTINUATION, _) => {
            let key = piece::key(first, 0);
            let value = table.get(txn, &key)?;
            // Without its first part it is being reclaimed: what lives on is in the cold store.
            let Some(value) = value else { return Ok(None) };
            piece::decode(first, value)?
        }
        piece => piece,
    };
    let mut joined = BytesMut::from(content);
    if content.len() == piece::CONTENT_BYTES_MAX {
        for part in 1..=u16::MAX {
            let Some(value) = table.get(txn, &piece::key(first, part))? else { break };
            joined.extend_from_slice(piece::decode(first, value)?.1);
        }
    }
    Ok(Some((kind, first, joined.freeze())))
}
