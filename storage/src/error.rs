//! What can go wrong in the store.

use std::path::PathBuf;
use understudy_model::{Damage, GroupError, Lsn};

/// What can go wrong below the broker. All but `Full` at a write mean that the process must end.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("another process owns the data directory")]
    NotOwner,
    #[error("the store is full: raise storage.map_bytes_max or free disk space")]
    Full,
    /// What a peer's copy, or a copy of the data directory, can replace.
    #[error("{damage} is damaged: {what}")]
    Damaged { damage: Damage, what: String },
    #[error("the log is corrupt at LSN {lsn}: {what}")]
    Corrupt { lsn: Lsn, what: String },
    #[error("group at LSN {first} does not follow the log's end {last}")]
    Gap { first: Lsn, last: Lsn },
    #[error(
        "the data directory has storage format {found}, this program knows {known} only: start the \
         version that wrote it, or begin with an empty directory"
    )]
    Format { found: String, known: u32 },
    #[error("saved state is corrupt: {0}")]
    State(String),
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error("{0}")]
    Lmdb(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StorageError {
    pub(crate) fn damaged(damage: Damage, what: impl ToString) -> Self {
        Self::Damaged { damage, what: what.to_string() }
    }

    pub(crate) fn corrupt(lsn: Lsn, what: impl ToString) -> Self {
        Self::Corrupt { lsn, what: what.to_string() }
    }
}

impl From<heed::Error> for StorageError {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => Self::Full,
            heed::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => Self::Full,
            heed::Error::Io(io) => Self::Io(io),
            other => Self::Lmdb(other.to_string()),
        }
    }
}

impl From<GroupError> for StorageError {
    fn from(error: GroupError) -> Self {
        let lsn = match error {
            GroupError::Hash { first }
            | GroupError::Chain { first }
            | GroupError::Records { first } => first,
            GroupError::Short | GroupError::NotAGroup | GroupError::Version(_) => Lsn::ZERO,
        };
        Self::corrupt(lsn, error)
    }
}
