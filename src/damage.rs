//! Damage that a thread has hit in the store, on its way to the node.

use crate::node::{Blocked, Input};
use understudy_storage::{LogReader, StorageError};

/// What the node is told, with the read that is to be made again. None: it is gone already.
///
/// # Errors
/// `error` itself if it is no damage, or what LMDB says.
pub(crate) fn input(
    log: &LogReader,
    error: StorageError,
    blocked: Option<Blocked>,
) -> Result<Option<Input>, StorageError> {
    let StorageError::Damaged { damage, what } = error else { return Err(error) };
    // A piece that is missing holds at least what was looked for.
    let last = log.extent(damage)?.map_or(damage.lsn, |(_, last)| last);
    Ok(Some(Input::Damaged { damage, last, what, blocked }))
}
