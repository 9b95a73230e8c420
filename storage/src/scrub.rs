//! Verifying all that is stored, in steps of one short transaction each: checksums of pieces, hashes
//! of groups, and that each group continues the one in front of it.

use crate::StorageError;
use crate::piece::{self, Key};
use crate::reader::LogReader;
use crate::repair::{header_at_or_before, intact_header, is_damaged};
use heed::RoTxn;
use std::ops::Bound;
use understudy_model::{Damage, GROUP_HEADER_BYTES, GroupHeader, Lsn, Place, RecordsHash};

/// One pass over the log, then the cold store.
pub struct Scrub {
    place: Place,
    /// The last piece that was read.
    after: Option<Key>,
    group: Option<OpenGroup>,
    /// End of the last group, and the chain hash there.
    before: Option<(Lsn, u128)>,
}

/// A group whose pieces are being read.
struct OpenGroup {
    header: GroupHeader,
    hash: RecordsHash,
    bytes: usize,
}

#[derive(Debug, Default)]
pub struct ScrubStep {
    pub bytes: usize,
    pub damaged: Vec<StorageError>,
    /// First record of the last piece that was read.
    pub at: Lsn,
    /// Everything was read.
    pub ended: bool,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { place: Place::Log, after: None, group: None, before: None }
    }
}

impl Scrub {
    /// Reads about `bytes_max` more, and at least one piece.
    ///
    /// # Errors
    /// What LMDB says. Damage is a part of what is returned.
    pub fn step(&mut self, log: &LogReader, bytes_max: usize) -> Result<ScrubStep, StorageError> {
        let txn = log.tables.env.read_txn()?;
        let table = match self.place {
            Place::Log => log.tables.log,
            Place::Cold => log.tables.cold,
        };
        let after = self.after;
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let mut step = ScrubStep::default();
        let mut pieces = table.range(&txn, &(from, Bound::Unbounded))?;
        while step.bytes < bytes_max {
            let Some(entry) = pieces.next() else {
                self.next_place(log, &txn, &mut step)?;
                break;
            };
            let (key, value) = entry?;
            step.bytes += value.len();
            step.at = piece::lsn_of(key);
            self.after = key.first_chunk::<10>().copied();
            match self.place {
                Place::Log => self.log_piece(log, &txn, (key, value), &mut step)?,
                Place::Cold if is_damaged(Place::Cold, table, &txn, step.at)? => {
                    let damage = Damage { place: Place::Cold, lsn: step.at };
                    // Once, whatever the number of its parts.
                    if key.ends_with(&[0, 0]) {
                        step.damaged.push(StorageError::damaged(damage, "a chunk cannot be read"));
                    }
                }
                Place::Cold => {}
            }
        }
        drop(pieces);
        drop(txn);
        log.tables.pages.touched(step.bytes);
        Ok(step)
    }

    fn next_place(
        &mut self,
        log: &LogReader,
        txn: &RoTxn<'_>,
        step: &mut ScrubStep,
    ) -> Result<(), StorageError> {
        self.end_group(log, txn, step)?;
        step.ended = self.place == Place::Cold;
        *self = Self { place: Place::Cold, ..Self::default() };
        Ok(())
    }

    fn log_piece(
        &mut self,
        log: &LogReader,
        txn: &RoTxn<'_>,
        (key, value): (&[u8], &[u8]),
        step: &mut ScrubStep,
    ) -> Result<(), StorageError> {
        let damage = Damage { place: Place::Log, lsn: piece::lsn_of(key) };
        let content = match piece::decode(Place::Log, key, value) {
            Ok((_, content)) => content,
            Err(error) => {
                step.damaged.push(error);
                (self.group, self.before) = (None, None);
                return Ok(());
            }
        };
        let Some(header) = intact_header(key, value) else {
            if piece::begins_group(value) {
                step.damaged.push(StorageError::damaged(damage, "the header of a group"));
            }
            if let Some(group) = &mut self.group {
                group.bytes += content.len();
                group.hash.update(content);
            }
            return Ok(());
        };
        self.end_group(log, txn, step)?;
        let continues = |(last, chain): (Lsn, u128)| {
            last.next() == header.first && header.verify_chain(chain).is_ok()
        };
        if !self.before.is_none_or(continues)
            // The log may have been cut or replaced since the last step.
            && let Some(before) = header_at_or_before(log.tables.log, txn, Lsn(header.first.0 - 1))?
            && !continues((before.last(), before.chain))
        {
            let (last, chain) = (before.last(), before.chain);
            let base = log.tables.base(txn)?.map_or(Lsn::ZERO, |(base, _)| base);
            let missing = last.max(base).next();
            if last.next() == header.first && header.verify_chain(chain).is_err() {
                step.damaged.push(StorageError::damaged(
                    damage,
                    "does not continue the group in front of it",
                ));
            } else if last.next() < header.first && missing < header.first {
                let damage = Damage { place: Place::Log, lsn: missing };
                step.damaged.push(StorageError::damaged(damage, "group is missing"));
            }
        }
        self.before = Some((header.last(), header.chain));
        let mut hash = RecordsHash::default();
        let records = content.get(GROUP_HEADER_BYTES..).unwrap_or_default();
        hash.update(records);
        self.group = Some(OpenGroup { header, hash, bytes: records.len() });
        Ok(())
    }

    /// Its last piece was read. Reclaim may have come in between, hence the second look.
    fn end_group(
        &mut self,
        log: &LogReader,
        txn: &RoTxn<'_>,
        step: &mut ScrubStep,
    ) -> Result<(), StorageError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let whole = group.bytes == group.header.records_bytes as usize
            && group.hash.finish() == group.header.records_hash;
        if whole {
            return Ok(());
        }
        match log.read_group(txn, group.header.first) {
            Err(error @ StorageError::Damaged { .. }) => step.damaged.push(error),
            read => drop(read?),
        }
        Ok(())
    }
}
