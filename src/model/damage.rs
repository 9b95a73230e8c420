//! What a node's disk has lost, and what became of a repair.

use crate::Lsn;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Log,
    Cold,
}

/// A piece that cannot be read, or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    pub place: Place,
    /// Its first record.
    pub lsn: Lsn,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Log => write!(f, "the log at LSN {}", self.lsn),
            Place::Cold => write!(f, "the cold store at LSN {}", self.lsn),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The damage is gone, or was given back meanwhile. The log is complete from `base` on.
    Done { base: Lsn },
    /// What came does not belong there; nothing was changed.
    Unfit(String),
    /// Other damage is in the way.
    Blocked,
    /// The log would have to begin behind `until`, and no saved state reaches so far yet.
    NotSaved { until: Lsn },
}
