//! The last look before a commit, for a store that another process may take over.

use crate::StorageError;

/// Asked with the write transaction open: whether it may be committed.
pub type Guard = Box<dyn Fn() -> bool + Send>;

pub(crate) fn ask(guard: Option<&Guard>) -> Result<(), StorageError> {
    match guard {
        Some(may_commit) if !may_commit() => Err(StorageError::NotOwner),
        _ => Ok(()),
    }
}
