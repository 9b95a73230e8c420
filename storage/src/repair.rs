//! What is damaged in the store, and putting what a peer still has into its place. A transaction of
//! LMDB is all or nothing, so a bad piece is never an unfinished write: it is never skipped and never
//! cut off.

use crate::log::Log;
use crate::reader::{LogReader, holding};
use crate::tables::Table;
use crate::{StorageError, cold, piece};
use bytes::Bytes;
use heed::RoTxn;
use std::ops::Bound;
use understudy_model::{Damage, Group, GroupHeader, Lsn, Place, Repair};

/// A piece holds no more records than that: each is at least a length.
const RECORDS_PER_PIECE_MAX: u64 = (piece::CONTENT_BYTES_MAX / 4) as u64;

impl LogReader {
    /// The whole group that holds `lsn`, verified. None if the log does not have it (any more).
    ///
    /// # Errors
    /// `Damaged` if it cannot be read.
    pub fn group_holding(&self, lsn: Lsn) -> Result<Option<Group>, StorageError> {
        if let Some(group) = self.tables.tail.holding(lsn) {
            return Ok(Some(group));
        }
        let txn = self.tables.env.read_txn()?;
        let Some(header) = header_at_or_before(self.tables.log, &txn, lsn)? else {
            return Ok(None);
        };
        if header.last() < lsn {
            return Ok(None);
        }
        self.read_group(&txn, header.first)
    }

    /// The first and the last LSN of what the damaged piece may hold; none if it is whole (again),
    /// or gone.
    ///
    /// # Errors
    /// What LMDB says.
    pub fn extent(&self, damage: Damage) -> Result<Option<(Lsn, Lsn)>, StorageError> {
        let txn = self.tables.env.read_txn()?;
        let table = match damage.place {
            Place::Log => self.tables.log,
            Place::Cold => self.tables.cold,
        };
        if !is_damaged(damage.place, table, &txn, damage.lsn)? {
            return Ok(None);
        }
        let from = piece::key(damage.lsn, u16::MAX);
        let bounds = (Bound::Excluded(&from[..]), Bound::Unbounded);
        let next = table.range(&txn, &bounds)?.next().transpose()?;
        let mut last = next.map_or(Lsn(u64::MAX), |(key, _)| Lsn(piece::lsn_of(key).0 - 1));
        if damage.place == Place::Log {
            // Behind a stretch that was given back the next piece is far away.
            last = last.min(Lsn(damage.lsn.0.saturating_add(RECORDS_PER_PIECE_MAX)));
        }
        Ok(Some((damage.lsn, last)))
    }
}

impl Log {
    /// Writes a group that is damaged here anew, in one synced transaction, if it fits what is left
    /// around it: its own header, its neighbours' chain, the log's ends.
    ///
    /// # Errors
    /// What LMDB says.
    pub fn repair_group(&mut self, damage: Damage, group: &Group) -> Result<Repair, StorageError> {
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.put_tail(&mut txn)?;
        let done = Repair::Done { base: self.end.base };
        if !group.contains(damage.lsn) {
            return Ok(Repair::Unfit(format!("{group:?} does not hold LSN {}", damage.lsn)));
        }
        if damage.lsn > self.end.last || !self.lacks(&txn, damage, group)? {
            return Ok(done);
        }
        if let Err(why) = self.fits(&txn, group)? {
            return Ok(Repair::Unfit(why));
        }
        let (from, to) = (piece::key(group.first(), 0), piece::key(group.last(), u16::MAX));
        let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        tables.log.delete_range(&mut txn, &bounds)?;
        piece::cut_group(group, &mut self.scratch, |key, piece| {
            Ok(tables.log.put(&mut txn, &key, piece)?)
        })?;
        self.commit_owned(txn)?;
        self.unblock();
        Ok(done)
    }

    /// Takes a damaged piece out and packs `records`, all that lives of it, into the cold store: in
    /// one synced transaction. The log is then complete only behind the damaged group, which
    /// saved state has to reach: `saved`.
    ///
    /// # Errors
    /// What LMDB says; `Damaged` if the cold store is damaged where the records belong.
    pub fn repair_records(
        &mut self,
        damage: Damage,
        records: &[(Lsn, Bytes)],
        saved: Lsn,
    ) -> Result<Repair, StorageError> {
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.put_tail(&mut txn)?;
        let mut end = self.end;
        let table = match damage.place {
            Place::Log => tables.log,
            Place::Cold => tables.cold,
        };
        if is_damaged(damage.place, table, &txn, damage.lsn)? {
            if damage.place == Place::Log && damage.lsn > end.base {
                (end.base, end.base_chain) = self.base_behind(&txn, damage.lsn)?;
                if end.base > saved {
                    return Ok(Repair::NotSaved { until: end.base });
                }
                self.tables.put_base(&mut txn, end.base, end.base_chain)?;
            }
            cold::delete_chunk(table, &mut txn, damage.lsn)?;
        }
        let records = records.iter().cloned().collect();
        cold::insert(tables.cold, &mut txn, records, &mut self.scratch)?;
        self.commit_owned(txn)?;
        self.end = end;
        self.unblock();
        Ok(Repair::Done { base: end.base })
    }

    /// Whether the group's place holds anything but that group. A stretch that was given back
    /// meanwhile lacks nothing.
    fn lacks(&self, txn: &RoTxn<'_>, damage: Damage, group: &Group) -> Result<bool, StorageError> {
        let (from, to) = (piece::key(group.first(), 0), piece::key(group.last(), u16::MAX));
        let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        if damage.lsn <= self.end.base && self.tables.log.range(txn, &bounds)?.next().is_none() {
            return Ok(false);
        }
        let reader = LogReader::new(self.tables.clone());
        Ok(!matches!(reader.read_group(txn, group.first()), Ok(Some(found)) if found == *group))
    }

    fn fits(&self, txn: &RoTxn<'_>, group: &Group) -> Result<Result<(), String>, StorageError> {
        let table = self.tables.log;
        let refuse = |what: &str| Ok(Err(format!("{group:?} of the peer {what}")));
        if group.last() > self.end.last {
            return refuse("reaches behind the log's end");
        }
        if group.last() == self.end.last && group.header().chain != self.end.last_chain {
            return refuse("has another chain than the log's end");
        }
        if let Some(own) = header_at_or_before(table, txn, group.last())?
            && own.last() >= group.first()
            && own != *group.header()
        {
            return refuse("overlaps another group");
        }
        let before = Lsn(group.first().0 - 1);
        let chain = match header_at_or_before(table, txn, before)? {
            Some(header) if header.last() == before => Some(header.chain),
            _ => self.tables.base(txn)?.filter(|base| base.0 == before).map(|base| base.1),
        };
        if chain.is_some_and(|chain| group.verify_chain(chain).is_err()) {
            return refuse("does not continue the group in front of it");
        }
        let next = table.get(txn, &piece::key(group.last().next(), 0))?;
        if let Some(next) = next.and_then(|value| {
            let key = piece::key(group.last().next(), 0);
            intact_header(&key, value)
        }) && next.verify_chain(group.header().chain).is_err()
        {
            return refuse("is not continued by the group behind it");
        }
        Ok(Ok(()))
    }

    /// The end of the first group that can vouch for the chain, at or behind `lsn`.
    fn base_behind(&self, txn: &RoTxn<'_>, lsn: Lsn) -> Result<(Lsn, u128), StorageError> {
        if let Some(own) = header_at_or_before(self.tables.log, txn, lsn)?
            && own.last() >= lsn
        {
            return Ok((own.last(), own.chain));
        }
        let from = piece::key(lsn, u16::MAX);
        let bounds = (Bound::Excluded(&from[..]), Bound::Unbounded);
        for entry in self.tables.log.range(txn, &bounds)? {
            let (key, value) = entry?;
            if let Some(header) = intact_header(key, value) {
                return Ok((header.last(), header.chain));
            }
        }
        Ok((self.end.last, self.end.last_chain))
    }
}

pub(crate) fn is_damaged(
    place: Place,
    table: Table,
    txn: &RoTxn<'_>,
    lsn: Lsn,
) -> Result<bool, StorageError> {
    let (from, to) = (piece::key(lsn, 0), piece::key(lsn, u16::MAX));
    let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    let Some((key, _)) = table.range(txn, &bounds)?.next().transpose()? else {
        return Ok(false);
    };
    if *key != piece::key(lsn, 0) {
        // What reclaim has left of a long record.
        return Ok(false);
    }
    let whole = match holding(place, table, txn, &[lsn]) {
        Ok(Some((kind, first, content))) => match place {
            Place::Log => piece::records_of_log(kind, first, &content).all(|found| found.is_ok()),
            Place::Cold => piece::records_of_cold(first, &content).all(|found| found.is_ok()),
        },
        Ok(None) => true,
        Err(StorageError::Damaged { .. }) => false,
        Err(error) => return Err(error),
    };
    Ok(!whole)
}

pub(crate) fn intact_header(key: &[u8], value: &[u8]) -> Option<GroupHeader> {
    if !piece::begins_group(value) {
        return None;
    }
    let (_, content) = piece::decode(Place::Log, key, value).ok()?;
    GroupHeader::decode(content).ok().filter(|header| header.first == piece::lsn_of(key))
}

/// The nearest group whose header can be read.
pub(crate) fn header_at_or_before(
    table: Table,
    txn: &RoTxn<'_>,
    lsn: Lsn,
) -> Result<Option<GroupHeader>, StorageError> {
    let key = piece::key(lsn, u16::MAX);
    let bounds = (Bound::Unbounded, Bound::Included(&key[..]));
    for entry in table.rev_range(txn, &bounds)? {
        let (key, value) = entry?;
        if let Some(header) = intact_header(key, value) {
            return Ok(Some(header));
        }
    }
    Ok(None)
}
