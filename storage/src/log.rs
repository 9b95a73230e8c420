//! The log: groups in, one synced transaction a commit; its end, its base, and giving back space.

use crate::cold::{self, Records};
use crate::guard::{self, Guard};
use crate::piece;
use crate::redo::{self, Redo, Undone};
use crate::tables::{Table, Tables};
use crate::{LogReader, StorageError};
use bytes::Bytes;
use heed::{PutFlags, RwTxn};
use std::collections::VecDeque;
use std::ops::Bound;
use std::path::Path;
use understudy_model::{Damage, Group, GroupHeader, Lsn, Place};

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The most that the log is meant to hold, bytes.
    pub map_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { map_bytes_max: 64 << 30 }
    }
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The log is complete from `base + 1` on.
    pub base: Lsn,
    /// Chain hash of the group that ended at `base`.
    pub base_chain: u128,
    /// Last durable LSN, a group's end.
    pub last: Lsn,
    pub last_chain: u128,
}

/// What one commit writes.
#[derive(Default)]
pub struct Batch<'a> {
    pub groups: &'a [Group],
    /// The replication backend's view record.
    pub view: Option<&'a [u8]>,
}

/// Used by one thread at a time: LMDB's write transactions belong to the thread that began them.
pub struct Log {
    pub(crate) tables: Tables,
    pub(crate) end: LogEnd,
    /// What keeps reclaim and the cold store from going on.
    blocked_by: Option<Damage>,
    /// … and was not told yet.
    untold: Option<StorageError>,
    /// Ranges of dead log that are deleted piece by piece with later commits.
    reclaim: VecDeque<Reclaim>,
    /// Relocated records that ride in the next commit.
    cold: Records,
    pub(crate) scratch: Vec<u8>,
    guard: Option<Guard>,
    redo: Option<Redo>,
}

#[derive(Clone, Copy)]
struct Reclaim {
    first: Lsn,
    last: Lsn,
    /// Live records of the range were packed away: those stay.
    keep_cold: bool,
}

const VIEW: &[u8] = b"view";
/// A commit deletes so many pieces, and twice as many as it appends: freeing keeps up with
/// filling, and no commit waits long for it.
const RECLAIM_PIECES_MIN: usize = 16;

impl Log {
    /// Opens or creates the log in `dir/log`. Verifies the last group.
    ///
    /// # Errors
    /// Corruption, or what LMDB and the file system say.
    pub fn open(
        dir: &Path,
        options: &LogOptions,
    ) -> Result<(Self, LogReader, LogEnd), StorageError> {
        match Self::open_damaged(dir, options, None)? {
            (log, reader, None) => {
                let end = log.end;
                Ok((log, reader, end))
            }
            (.., Some(damage)) => Err(damage),
        }
    }

    /// As [`Self::open`], but a last group that cannot be read is told, not an error. The log then
    /// seems to end in front of it and must not be written. `known` is where the log once ended,
    /// with the chain hash there: if nothing was written since, that is its end, damaged or not.
    ///
    /// # Errors
    /// As [`Self::open`], but for damage to the last group.
    pub fn open_damaged(
        dir: &Path,
        options: &LogOptions,
        known: Option<(Lsn, u128)>,
    ) -> Result<(Self, LogReader, Option<StorageError>), StorageError> {
        let path = dir.join("log");
        std::fs::create_dir_all(&path)?;
        let (tables, last_transaction) = Tables::open(&path, options)?;
        let reader = LogReader::new(tables.clone());
        let undone = redo::undone(&tables, last_transaction);
        let (undone, torn) = match undone {
            Err(error @ StorageError::Damaged { .. }) => (Undone::default(), Some(error)),
            undone => (undone?, None),
        };
        let (end, damage) = find_end(&tables, &reader, undone.before.or(known))?;
        let damage = damage.or(torn);
        let scratch = Vec::with_capacity(piece::PIECE_BYTES_MAX);
        let (reclaim, cold) = (VecDeque::new(), Records::new());
        let (blocked_by, untold) = (None, None);
        let (guard, redo) = (None, None);
        let mut log = Self { tables, end, blocked_by, untold, reclaim, cold, scratch, guard, redo };
        if damage.is_none() {
            for groups in undone.transactions {
                log.write(&Batch { groups: &groups, view: None })?;
            }
        }
        // With damage it is for what comes after the log was made anew.
        log.redo = Redo::find(&log.tables)?;
        Ok((log, reader, damage))
    }

    /// Asked before each commit, from now on.
    pub fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// # Errors
    /// What LMDB says.
    pub fn load_view(&self) -> Result<Option<Bytes>, StorageError> {
        let txn = self.tables.env.read_txn()?;
        Ok(self.tables.meta.get(&txn, VIEW)?.map(Bytes::copy_from_slice))
    }

    /// Writes the batch, what was staged, and a slice of reclaim, durably: a small one into the redo, else
    /// as one transaction.
    ///
    /// # Errors
    /// `Gap` and `Corrupt` if a group does not continue the log, and `Full` if there is no room:
    /// then nothing is written, and the log is as it was. After any other error it must not be
    /// used any more.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), StorageError> {
        let (reclaim, cold) = (self.reclaim.clone(), self.cold.clone());
        let result = self.write(batch);
        match result {
            Err(StorageError::Full) => {
                (self.reclaim, self.cold) = (reclaim, cold);
                Err(StorageError::Full)
            }
            // Only giving back and packing read what is there; commits go on without them.
            Err(StorageError::Damaged { damage, what }) if self.blocked_by.is_none() => {
                (self.reclaim, self.cold) = (reclaim, cold);
                self.blocked_by = Some(damage);
                self.untold = Some(StorageError::damaged(damage, what));
                self.write(batch)
            }
            result => result,
        }
    }

    /// Damage that keeps reclaim from going on, told once.
    pub fn take_damage(&mut self) -> Option<StorageError> {
        self.untold.take()
    }

    /// Reclaim and packing are tried again.
    pub(crate) fn unblock(&mut self) {
        self.blocked_by = None;
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), StorageError> {
        let mut end = self.end;
        for group in batch.groups {
            if group.first() != end.last.next() {
                return Err(StorageError::Gap { first: group.first(), last: end.last });
            }
            group.verify_chain(end.last_chain)?;
            (end.last, end.last_chain) = (group.last(), group.header().chain);
        }
        // What was packed away is relied on when its log is deleted, a view by the peer.
        let only_groups = batch.view.is_none() && self.cold.is_empty();
        let is_small = only_groups && Redo::is_small(batch.groups);
        if is_small && !self.reclaim_pending() && self.write_redo(batch.groups)? {
            self.end = end;
            return Ok(());
        }
        self.write_tables(batch, is_small, end)
    }

    /// False: there is no place for it.
    fn write_redo(&mut self, groups: &[Group]) -> Result<bool, StorageError> {
        match &self.redo {
            None => return Ok(false),
            Some(redo) if !redo.has_room_for(groups) => self.take_over()?,
            Some(_) => {}
        }
        guard::ask(self.guard.as_ref())?;
        let Some(redo) = &mut self.redo else { return Ok(false) };
        redo.write((self.end.last, self.end.last_chain), groups)?;
        redo.flush()?;
        redo.advance(groups);
        self.tables.tail.push(groups);
        Ok(true)
    }

    /// Gives LMDB what so far only the redo has, in one transaction. An orderly stop ends with it: a
    /// last entry that the disk then damages is not taken for one that was never finished.
    ///
    /// # Errors
    /// `Full` if there is no room: nothing is lost, the redo has it. After any other error the log must
    /// not be used any more.
    pub fn take_over(&mut self) -> Result<(), StorageError> {
        let env = self.tables.env.clone();
        let mut txn = env.write_txn()?;
        self.put_tail(&mut txn)?;
        self.commit_redoable(txn)
    }

    pub(crate) fn put_tail(&mut self, txn: &mut RwTxn<'_>) -> Result<(), StorageError> {
        self.put_groups(txn, &self.tables.tail.groups()).map(drop)
    }

    /// The number of pieces.
    fn put_groups(&mut self, txn: &mut RwTxn<'_>, groups: &[Group]) -> Result<usize, StorageError> {
        let mut pieces = 0;
        for group in groups {
            piece::cut_group(group, &mut self.scratch, |key, piece| {
                pieces += 1;
                Ok(self.tables.log.put_with_flags(txn, PutFlags::APPEND, &key, piece)?)
            })?;
        }
        Ok(pieces)
    }

    /// Writes to LMDB; the log's end will be `end`.
    fn write_tables(
        &mut self,
        batch: &Batch<'_>,
        is_small: bool,
        mut end: LogEnd,
    ) -> Result<(), StorageError> {
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.put_tail(&mut txn)?;
        let pieces = self.put_groups(&mut txn, batch.groups)?;
        if let Some(view) = batch.view {
            tables.meta.put(&mut txn, VIEW, view)?;
        }
        if self.blocked_by.is_none() {
            self.write_cold(&mut txn)?;
            self.delete_some(&mut txn, &mut end, RECLAIM_PIECES_MIN + 2 * pieces)?;
        }
        match &mut self.redo {
            Some(redo) if is_small && redo.has_room_for(batch.groups) => {
                guard::ask(self.guard.as_ref())?;
                redo.write((self.end.last, self.end.last_chain), batch.groups)?;
                self.commit_redoable(txn)?;
            }
            _ => self.commit_owned(txn)?,
        }
        self.end = end;
        tables.pages.touched(batch.groups.iter().map(|group| group.bytes().len()).sum());
        Ok(())
    }

    /// Commits with one flush what is in the redo, unless another process has taken the store.
    fn commit_redoable(&mut self, txn: RwTxn<'_>) -> Result<(), StorageError> {
        guard::ask(self.guard.as_ref())?;
        redo::commit_flushed_once(&self.tables.env, txn)?;
        self.taken_over();
        Ok(())
    }

    /// LMDB has all of the log. A transaction that changed nothing has not used its number.
    fn taken_over(&mut self) {
        self.tables.tail.clear();
        if let Some(redo) = &mut self.redo {
            redo.taken_over(self.tables.last_transaction());
        }
    }

    /// Queues everything from `first` to `last`, a group's end, for deletion, cold records too.
    pub fn reclaim(&mut self, first: Lsn, last: Lsn) {
        self.reclaim.push_back(Reclaim { first, last, keep_cold: false });
    }

    /// As [`Self::reclaim`], for a range whose live records were given to [`Self::put_cold`].
    pub fn reclaim_log_only(&mut self, first: Lsn, last: Lsn) {
        self.reclaim.push_back(Reclaim { first, last, keep_cold: true });
    }

    pub fn reclaim_pending(&self) -> bool {
        !self.reclaim.is_empty() && self.blocked_by.is_none()
    }

    /// Stages records to be packed into the cold store by the next commit.
    pub fn put_cold(&mut self, records: &[(Lsn, Bytes)]) {
        self.cold.extend(records.iter().cloned());
    }

    /// Cuts the log behind `after`, a group's end, and syncs.
    ///
    /// # Errors
    /// `Corrupt` if no group ends there: then nothing is cut.
    pub fn truncate_after(&mut self, after: Lsn) -> Result<LogEnd, StorageError> {
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.put_tail(&mut txn)?;
        if after != self.end.base {
            self.chain_at(&txn, after)?;
        }
        let from = piece::key(after.next(), 0);
        let bounds = (Bound::Included(&from[..]), Bound::Unbounded);
        self.tables.log.delete_range(&mut txn, &bounds)?;
        self.commit_owned(txn)?;
        let reader = LogReader::new(self.tables.clone());
        let (end, damage) = find_end(&self.tables, &reader, None)?;
        damage.map_or(Ok(()), Err)?;
        self.end = end;
        if self.end.last != after {
            let what = format!("no group ends there; the log now ends at {}", self.end.last);
            return Err(StorageError::corrupt(after, what));
        }
        Ok(self.end)
    }

    /// An empty log that begins behind `at`. The view stays.
    ///
    /// # Errors
    /// What LMDB says.
    pub fn reset(&mut self, at: Lsn, chain: u128) -> Result<LogEnd, StorageError> {
        self.reclaim.clear();
        self.cold.clear();
        self.unblock();
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.tables.log.clear(&mut txn)?;
        self.tables.cold.clear(&mut txn)?;
        self.tables.put_base(&mut txn, at, chain)?;
        self.commit_owned(txn)?;
        self.end = LogEnd { base: at, base_chain: chain, last: at, last_chain: chain };
        Ok(self.end)
    }

    /// Ends the installation of a copy: cold records are there, the log begins behind `at`.
    ///
    /// # Errors
    /// What LMDB says.
    pub fn set_base(&mut self, at: Lsn, chain: u128) -> Result<LogEnd, StorageError> {
        let tables = self.tables.clone();
        let mut txn = tables.env.write_txn()?;
        self.write_cold(&mut txn)?;
        self.tables.put_base(&mut txn, at, chain)?;
        self.commit_owned(txn)?;
        self.end = LogEnd { base: at, base_chain: chain, last: at, last_chain: chain };
        Ok(self.end)
    }

    /// Commits with a full sync, unless another process has taken the store. The transaction must
    /// have the tail, or end the log in front of it.
    pub(crate) fn commit_owned(&mut self, txn: RwTxn<'_>) -> Result<(), StorageError> {
        guard::ask(self.guard.as_ref())?;
        txn.commit()?;
        self.taken_over();
        Ok(())
    }

    fn write_cold(&mut self, txn: &mut RwTxn<'_>) -> Result<(), StorageError> {
        let records = std::mem::take(&mut self.cold);
        cold::insert(self.tables.cold, txn, records, &mut self.scratch)
    }

    fn delete_some(
        &mut self,
        txn: &mut RwTxn<'_>,
        end: &mut LogEnd,
        mut pieces: usize,
    ) -> Result<(), StorageError> {
        while let Some(&range) = self.reclaim.front() {
            if pieces == 0 {
                return Ok(());
            }
            if range.last > end.base {
                // Before its header is deleted: the chain at the range's end becomes the base's.
                let chain = self.chain_at(txn, range.last)?;
                (end.base, end.base_chain) = (range.last, chain);
                self.tables.put_base(txn, range.last, chain)?;
            }
            let log = delete_pieces(self.tables.log, txn, range.first, range.last, pieces)?;
            pieces -= log;
            let cold = if range.keep_cold {
                0
            } else {
                let (table, scratch) = (self.tables.cold, &mut self.scratch);
                cold::remove(table, txn, range.first, range.last, pieces, scratch)?
            };
            pieces -= cold;
            if pieces > 0 {
                self.reclaim.pop_front();
            }
        }
        Ok(())
    }

    /// Chain hash of the group that ends at `last`. The group's other pieces may be damaged.
    fn chain_at(&self, txn: &RwTxn<'_>, last: Lsn) -> Result<u128, StorageError> {
        let key = piece::key(last, u16::MAX);
        let bounds = (Bound::Unbounded, Bound::Included(&key[..]));
        for entry in self.tables.log.rev_range(txn, &bounds)? {
            let (key, value) = entry?;
            if piece::begins_group(value) {
                let header = GroupHeader::decode(piece::decode(Place::Log, key, value)?.1)?;
                if header.last() == last {
                    return Ok(header.chain);
                }
                break;
            }
        }
        Err(StorageError::damaged(Damage { place: Place::Log, lsn: last }, "no group ends there"))
    }
}

fn delete_pieces(
    table: Table,
    txn: &mut RwTxn<'_>,
    first: Lsn,
    last: Lsn,
    most: usize,
) -> Result<usize, StorageError> {
    let doomed = cold::keys(table, txn, piece::key(first, 0), piece::key(last, u16::MAX), most)?;
    for key in &doomed {
        table.delete(txn, key)?;
    }
    Ok(doomed.len())
}

/// The log's end, and what keeps its last group from being read.
fn find_end(
    tables: &Tables,
    reader: &LogReader,
    known: Option<(Lsn, u128)>,
) -> Result<(LogEnd, Option<StorageError>), StorageError> {
    let txn = tables.env.read_txn()?;
    let (base, base_chain) = tables.base(&txn)?.unwrap_or_default();
    let mut end = LogEnd { base, base_chain, last: base, last_chain: base_chain };
    let mut damage = None;
    for entry in tables.log.rev_iter(&txn)? {
        let (key, value) = entry?;
        let first = piece::lsn_of(key);
        if first <= base {
            break;
        }
        // A piece says unverified that a group begins with it: if it does not, reading it fails.
        if !piece::begins_group(value) && piece::decode(Place::Log, key, value).is_ok() {
            continue;
        }
        match reader.group_at(first) {
            Ok(group) => {
                (end.last, end.last_chain) = (group.last(), group.header().chain);
                break;
            }
            Err(error @ StorageError::Damaged { .. }) => damage = damage.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    if damage.is_some()
        && let (Some((last, last_chain)), Some(written)) = (known, tables.log.last(&txn)?)
        && piece::lsn_of(written.0) <= last
    {
        (end.last, end.last_chain) = (last, last_chain);
        damage = None;
    }
    Ok((end, damage))
}
