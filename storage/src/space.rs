//! How much room the store has left.

use crate::{LogReader, StorageError};
use rustix::fs::statvfs;

/// What can still be written, bytes. Pages that LMDB has freed inside its file count as room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Of [`crate::LogOptions::map_bytes_max`].
    pub map_bytes: u64,
    /// Of the file system, for an unprivileged process.
    pub disk_bytes: u64,
}

impl Space {
    pub fn least_bytes(self) -> u64 {
        self.map_bytes.min(self.disk_bytes)
    }
}

impl LogReader {
    /// # Errors
    /// What LMDB and the file system say.
    pub fn space(&self) -> Result<Space, StorageError> {
        let env = &self.tables.env;
        let used = env.non_free_pages_size()?;
        let reusable = env.real_disk_size()?.saturating_sub(used);
        let disk = statvfs(env.path()).map_err(std::io::Error::from)?;
        Ok(Space {
            map_bytes: self.tables.map_bytes_max.saturating_sub(used),
            disk_bytes: disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(reusable),
        })
    }
}
