//! The command log and the saved state in LMDB; the only user of heed.
//!
//! A group is bytes with a header here: storage knows records and LSNs, not what a command means.
//! Whoever has the [`Log`] writes, one thread at a time: LMDB's write transactions begin and end inside one
//! call. Readers are short.

mod cold;
mod error;
mod guard;
mod log;
mod pages;
mod piece;
mod reader;
mod redo;
#[cfg(test)]
mod redo_tests;
mod repair;
#[cfg(test)]
mod repair_tests;
mod scrub;
mod space;
mod state;
mod tables;
mod tail;
#[cfg(test)]
mod tests;

pub use error::StorageError;
pub use guard::Guard;
pub use log::{Batch, Log, LogEnd, LogOptions};
pub use reader::LogReader;
pub use scrub::{Scrub, ScrubStep};
pub use space::Space;
pub use state::{DataDirLock, StateStore};
