//! Reading the log. Each call is one short transaction that copies out what it returns: an old
//! reader would keep LMDB from using freed pages again.

use crate::StorageError;
use crate::piece;
use crate::tables::{Table, Tables};
use crate::tail;
use bytes::{Bytes, BytesMut};
use heed::RoTxn;
use std::ops::Bound;
use understudy_model::{Damage, Group, GroupHeader, Lsn, Place};

#[derive(Clone)]
pub struct LogReader {
    pub(crate) tables: Tables,
}

impl LogReader {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables }
    }

    /// The records at `lsns` (ascending), from the log or the cold store; those that are in
    /// neither are left out. Ends early after `bytes_max`, or in front of damage, but not before
    /// the first record.
    ///
    /// # Errors
    /// `Damaged` if the first record cannot be read.
    pub fn records(
        &self,
        lsns: &[Lsn],
        bytes_max: usize,
    ) -> Result<Vec<(Lsn, Bytes)>, StorageError> {
        let (Some(&first), Some(&last)) = (lsns.first(), lsns.last()) else {
            return Ok(Vec::new());
        };
        let tail = self.tables.tail.between(first, last);
        let txn = self.tables.env.read_txn()?;
        let mut found = Vec::with_capacity(lsns.len());
        let mut bytes = 0;
        let mut rest = lsns;
        while let Some(&first) = rest.first() {
            if bytes >= bytes_max {
                break;
            }
            let before = found.len();
            if let Some(group) = tail::find(&tail, first) {
                take_from_group(group, &mut rest, &mut found);
                bytes += bytes_of(&found[before..]);
                continue;
            }
            match self.take_some(&txn, &mut rest, &mut found) {
                Err(StorageError::Damaged { .. }) if !found.is_empty() => break,
                taken => taken?,
            }
            if found.len() == before && rest.first() == Some(&first) {
                rest = &rest[1..];
            }
            bytes += bytes_of(&found[before..]);
        }
        drop(txn);
        // At least a piece was read for each record that was looked for.
        self.tables.pages.touched(bytes.max(piece::PIECE_BYTES_MAX));
        Ok(found)
    }

    fn take_some(
        &self,
        txn: &RoTxn<'_>,
        rest: &mut &[Lsn],
        found: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), StorageError> {
        let before = found.len();
        self.take_from_log(txn, rest, found)?;
        if found.len() == before {
            self.take_from_cold(txn, rest, found)?;
        }
        Ok(())
    }

    /// Whole groups that follow `after` without gap, verified, about `bytes_max` of them and at
    /// least one. Empty at the log's end, or if the log no longer reaches back to `after`. Ends
    /// early in front of damage, but not before the first group.
    ///
    /// # Errors
    /// `Damaged` if the first group cannot be read.
    pub fn groups(&self, after: Lsn, bytes_max: usize) -> Result<Vec<Group>, StorageError> {
        let tail = self.tables.tail.between(after.next(), Lsn(u64::MAX));
        let txn = self.tables.env.read_txn()?;
        let mut groups = Vec::new();
        let (mut bytes, mut next) = (0, after.next());
        while bytes < bytes_max {
            let group = match tail::find(&tail, next) {
                Some(group) => (group.first() == next).then(|| group.clone()),
                None => match self.read_group(&txn, next) {
                    Err(StorageError::Damaged { .. }) if !groups.is_empty() => break,
                    read => read?,
                },
            };
            let Some(group) = group else {
                if groups.is_empty() {
                    self.expect_none(&txn, next)?;
                }
                break;
            };
            bytes += group.bytes().len();
            next = group.last().next();
            groups.push(group);
        }
        drop(txn);
        self.tables.pages.touched(bytes);
        Ok(groups)
    }

    /// What is missing between the log's base and its end is damage.
    fn expect_none(&self, txn: &RoTxn<'_>, next: Lsn) -> Result<(), StorageError> {
        let from = piece::key(next, 0);
        let bounds = (Bound::Included(&from[..]), Bound::Unbounded);
        let base = self.tables.base(txn)?.map_or(Lsn::ZERO, |(base, _)| base);
        if next > base && self.tables.log.range(txn, &bounds)?.next().is_some() {
            return Err(StorageError::damaged(
                Damage { place: Place::Log, lsn: next },
                "group is missing",
            ));
        }
        Ok(())
    }

    pub(crate) fn group_at(&self, first: Lsn) -> Result<Group, StorageError> {
        let txn = self.tables.env.read_txn()?;
        let group = self.read_group(&txn, first)?;
        let damage = Damage { place: Place::Log, lsn: first };
        group.ok_or_else(|| StorageError::damaged(damage, "group is missing"))
    }

    pub(crate) fn read_group(
        &self,
        txn: &RoTxn<'_>,
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
        let damage = Damage { place: Place::Log, lsn: first };
        let (kind, content) = piece::decode(Place::Log, key, value)?;
        if kind != piece::GROUP_START {
            return Err(StorageError::damaged(damage, "no group begins there"));
        }
        let header =
            GroupHeader::decode(content).map_err(|error| StorageError::damaged(damage, error))?;
        if header.first != first {
            return Err(StorageError::damaged(damage, "a group under another's key"));
        }
        let mut bytes = BytesMut::with_capacity(header.group_bytes());
        bytes.extend_from_slice(content);
        while bytes.len() < header.group_bytes() {
            let Some(entry) = pieces.next() else {
                return Err(StorageError::damaged(damage, "the end of the group is missing"));
            };
            let (key, value) = entry?;
            bytes.extend_from_slice(piece::decode(Place::Log, key, value)?.1);
        }
        Ok(Some(
            Group::decode(bytes.freeze()).map_err(|error| StorageError::damaged(damage, error))?,
        ))
    }

    /// Takes from `rest` what lies in the piece that holds its first LSN.
    fn take_from_log(
        &self,
        txn: &RoTxn<'_>,
        rest: &mut &[Lsn],
        found: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), StorageError> {
        let Some((kind, first, content)) = holding(Place::Log, self.tables.log, txn, rest)? else {
            return Ok(());
        };
        take(rest, piece::records_of_log(kind, first, &content), found)
    }

    fn take_from_cold(
        &self,
        txn: &RoTxn<'_>,
        rest: &mut &[Lsn],
        found: &mut Vec<(Lsn, Bytes)>,
    ) -> Result<(), StorageError> {
        let Some((_, first, content)) = holding(Place::Cold, self.tables.cold, txn, rest)? else {
            return Ok(());
        };
        take(rest, piece::records_of_cold(first, &content), found)
    }
}

fn bytes_of(records: &[(Lsn, Bytes)]) -> usize {
    records.iter().map(|(_, record)| record.len()).sum()
}

/// Takes from `rest` what the group holds, its first LSN for one.
fn take_from_group(group: &Group, rest: &mut &[Lsn], found: &mut Vec<(Lsn, Bytes)>) {
    let held = rest.partition_point(|lsn| *lsn <= group.last());
    found.extend(rest[..held].iter().filter_map(|&lsn| Some((lsn, group.record(lsn)?))));
    *rest = &rest[held..];
}

/// Joins `rest` with ascending `records`, until the records end.
fn take(
    rest: &mut &[Lsn],
    records: impl Iterator<Item = Result<(Lsn, Bytes), StorageError>>,
    found: &mut Vec<(Lsn, Bytes)>,
) -> Result<(), StorageError> {
    for record in records {
        let (lsn, record) = record?;
        match rest.first() {
            None => break,
            Some(&wanted) if wanted < lsn => break,
            Some(&wanted) if wanted == lsn => {
                found.push((lsn, record));
                *rest = &rest[1..];
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The piece, its parts joined, that begins at or before the first wanted LSN.
pub(crate) fn holding(
    place: Place,
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
    let (kind, content) = match piece::decode(place, key, value)? {
        // A long record in front: what is wanted is in none of its parts but perhaps its first.
        (piece::CONTINUATION, _) => {
            let key = piece::key(first, 0);
            let value = table.get(txn, &key)?;
            // Without its first part it is being reclaimed: what lives on is in the cold store.
            let Some(value) = value else { return Ok(None) };
            piece::decode(place, &key, value)?
        }
        piece => piece,
    };
    let mut joined = BytesMut::from(content);
    if content.len() == piece::CONTENT_BYTES_MAX {
        for part in 1..=u16::MAX {
            let key = piece::key(first, part);
            let Some(value) = table.get(txn, &key)? else { break };
            joined.extend_from_slice(piece::decode(place, &key, value)?.1);
        }
    }
    Ok(Some((kind, first, joined.freeze())))
}
