//! Saved state, in an environment of its own so that saving never holds the log's write lock; and
//! the lock on the data directory.

use crate::StorageError;
use crate::guard::{self, Guard};
use crate::tables::{Table, open_env};
use bytes::{BufMut, Bytes, BytesMut};
use heed::{Env, WithoutTls};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;

const PART_BYTES_MAX: usize = 60_000;
const CRC_BYTES: usize = 4;
const HEADER_BYTES: usize = 8;

/// Slices of state by key: `crc32 (u32) · length (u32) · value`, big endian, cut into parts. The crc covers
/// the key, too: a slice that is found under another's key is damage.
pub struct StateStore {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) table: Table,
    guard: Option<Guard>,
}

impl StateStore {
    /// # Errors
    /// What LMDB and the file system say.
    pub fn open(dir: &Path, map_bytes_max: usize) -> Result<Self, StorageError> {
        let path = dir.join("state");
        std::fs::create_dir_all(&path)?;
        let env = open_env(&path, map_bytes_max, 1)?;
        let mut txn = env.write_txn()?;
        let table = env.create_database(&mut txn, Some("state"))?;
        txn.commit()?;
        Ok(Self { env, table, guard: None })
    }

    /// As [`crate::Log::set_guard`].
    pub fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// Puts (or, without a value, removes) slices in one synced transaction.
    ///
    /// # Errors
    /// What LMDB says; then none of them is changed.
    pub fn put(&mut self, slices: &[(Bytes, Option<Bytes>)]) -> Result<(), StorageError> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in slices {
            let (from, to) = (part_key(key, 0), part_key(key, u32::MAX));
            let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
            self.table.delete_range(&mut txn, &bounds)?;
            let Some(value) = value else { continue };
            let mut whole = BytesMut::with_capacity(HEADER_BYTES + value.len());
            whole.put_u32(0);
            whole.put_u32(value.len() as u32);
            whole.put_slice(value);
            let crc = checksum(key, &whole[CRC_BYTES..]);
            whole[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
            for (part, content) in whole.chunks(PART_BYTES_MAX).enumerate() {
                self.table.put(&mut txn, &part_key(key, part as u32), content)?;
            }
        }
        guard::ask(self.guard.as_ref())?;
        Ok(txn.commit()?)
    }

    /// # Errors
    /// `State` if a slice's checksum does not fit.
    pub fn load(&self) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let txn = self.env.read_txn()?;
        let mut whole: BTreeMap<Bytes, BytesMut> = BTreeMap::new();
        for entry in self.table.iter(&txn)? {
            let (key, content) = entry?;
            let name = key.get(1..key.len().saturating_sub(4)).unwrap_or_default();
            whole.entry(Bytes::copy_from_slice(name)).or_default().extend_from_slice(content);
        }
        whole
            .into_iter()
            .map(|(key, whole)| {
                let mut whole = whole.freeze();
                let name = || StorageError::State(String::from_utf8_lossy(&key).into_owned());
                let (crc, rest) = whole.split_first_chunk::<CRC_BYTES>().ok_or_else(name)?;
                if whole.len() < HEADER_BYTES || checksum(&key, rest) != u32::from_be_bytes(*crc) {
                    return Err(name());
                }
                let value = whole.split_off(HEADER_BYTES);
                Ok((key, value))
            })
            .collect()
    }

    /// # Errors
    /// What LMDB says.
    pub fn clear(&mut self) -> Result<(), StorageError> {
        let mut txn = self.env.write_txn()?;
        self.table.clear(&mut txn)?;
        guard::ask(self.guard.as_ref())?;
        Ok(txn.commit()?)
    }
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    // The end of the key is not the beginning of the value.
    crc.update(&[key.len() as u8]);
    crc.update(key);
    crc.update(rest);
    crc.finalize()
}

/// The length in front keeps one slice's parts apart from those of a longer key.
pub(crate) fn part_key(key: &[u8], part: u32) -> BytesMut {
    let mut whole = BytesMut::with_capacity(key.len() + 5);
    whole.put_u8(key.len() as u8);
    whole.put_slice(key);
    whole.put_u32(part);
    whole
}

/// Keeps a second process out of a data directory, for as long as it lives.
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// # Errors
    /// `Locked` if another process holds it.
    pub fn acquire(dir: &Path) -> Result<Self, StorageError> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(StorageError::Locked { path: dir.to_owned() })
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }
}
