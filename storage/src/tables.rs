//! The log's environment in LMDB: its three tables, the format that it is checked for when it is
//! opened, and the record of where the log begins.

use crate::pages::MappedPages;
use crate::redo::Redo;
use crate::tail::Tail;
use crate::{LogOptions, StorageError};
use heed::types::Bytes as Raw;
use heed::{Database, Env, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use understudy_model::Lsn;

pub(crate) type Table = Database<Raw, Raw>;

#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) log: Table,
    pub(crate) cold: Table,
    pub(crate) meta: Table,
    pub(crate) pages: Arc<MappedPages>,
    /// What is not in LMDB yet.
    pub(crate) tail: Arc<Tail>,
    /// [`LogOptions::map_bytes_max`].
    pub(crate) map_bytes_max: u64,
}

/// The map is so much larger than what the log is meant to hold: LMDB gives up its search for a
/// contiguous run of free pages and takes new ones, so a file that is full at one time grows on.
const MAP_FACTOR: usize = 2;
const FORMAT: &[u8] = b"format";
/// Of the whole data directory. 2: the crc of a piece covers its key; 3: that of a slice of state, too;
/// 4: the queue list of an enqueue begins with its length in bytes; 5: small commits wait in [`Redo`].
const FORMAT_VERSION: u32 = 5;
const BASE: &[u8] = b"base";

impl Tables {
    /// Opens or creates the environment in `path`. Also returns the number of its last transaction
    /// before that.
    ///
    /// # Errors
    /// `Format` for a store of another version, and what LMDB says.
    pub(crate) fn open(path: &Path, options: &LogOptions) -> Result<(Self, u64), StorageError> {
        let env = open_env(path, options.map_bytes_max * MAP_FACTOR, 3)?;
        let last_transaction = env.info().last_txn_id as u64;
        let mut txn = env.write_txn()?;
        let log = env.create_database(&mut txn, Some("log"))?;
        let cold = env.create_database(&mut txn, Some("cold"))?;
        let meta = env.create_database(&mut txn, Some("meta"))?;
        check_format(&mut txn, log, meta)?;
        Redo::create(&mut txn, meta)?;
        txn.commit()?;
        let pages = Arc::new(MappedPages::find(&data_file(&env)));
        let map_bytes_max = options.map_bytes_max as u64;
        let tail = Arc::default();
        Ok((Self { env, log, cold, meta, pages, tail, map_bytes_max }, last_transaction))
    }

    pub(crate) fn last_transaction(&self) -> u64 {
        self.env.info().last_txn_id as u64
    }

    pub(crate) fn data_file(&self) -> PathBuf {
        data_file(&self.env)
    }

    /// Where the log is complete from, with the chain hash there.
    pub(crate) fn base(&self, txn: &RoTxn<'_>) -> Result<Option<(Lsn, u128)>, StorageError> {
        let Some(value) = self.meta.get(txn, BASE)? else { return Ok(None) };
        match (value.first_chunk::<8>(), value.last_chunk::<16>()) {
            (Some(at), Some(chain)) => {
                Ok(Some((Lsn(u64::from_be_bytes(*at)), u128::from_be_bytes(*chain))))
            }
            _ => Err(StorageError::corrupt(Lsn::ZERO, "base record")),
        }
    }

    pub(crate) fn put_base(
        &self,
        txn: &mut RwTxn<'_>,
        at: Lsn,
        chain: u128,
    ) -> Result<(), StorageError> {
        let mut value = [0; 24];
        value[..8].copy_from_slice(&at.0.to_be_bytes());
        value[8..].copy_from_slice(&chain.to_be_bytes());
        Ok(self.meta.put(txn, BASE, &value)?)
    }
}

fn data_file(env: &Env<WithoutTls>) -> PathBuf {
    env.path().join("data.mdb")
}

/// LMDB checks nothing of what is on disk, hence `unsafe`: a foreign or torn file is undefined
/// behaviour. The data directory's lock keeps other writers out, and full syncs keep it whole.
#[allow(unsafe_code)]
pub(crate) fn open_env(
    path: &Path,
    map_bytes_max: usize,
    tables: u32,
) -> Result<Env<WithoutTls>, StorageError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes_max).max_dbs(tables);
    Ok(unsafe { options.open(path)? })
}

/// A new store gets this program's format; of another one nothing is touched.
fn check_format(txn: &mut RwTxn<'_>, log: Table, meta: Table) -> Result<(), StorageError> {
    let known = FORMAT_VERSION;
    let found = match meta.get(txn, FORMAT)? {
        Some(found) if *found == known.to_be_bytes() => return Ok(()),
        Some(found) => found.first_chunk().map(|found| u32::from_be_bytes(*found).to_string()),
        None if meta.is_empty(txn)? && log.is_empty(txn)? => {
            return Ok(meta.put(txn, FORMAT, &known.to_be_bytes())?);
        }
        None => Some("1".to_owned()),
    };
    let found = found.unwrap_or_else(|| "unreadable".to_owned());
    Err(StorageError::Format { found, known })
}
