//! Features: what a program may write into the log that an older one cannot read, one bit each. A
//! command that is new belongs to one, and is written only while that is on.

use std::fmt;

/// A set of features, up to 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u64);

impl Features {
    pub const NONE: Self = Self(0);
    /// What this program can read and write. A number is never used again.
    pub const KNOWN: Self = Self::NONE;

    pub fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The numbers, as the log and the operator know them.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = (0..64).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| bit.to_string());
        f.write_str(&numbers.collect::<Vec<_>>().join(", "))
    }
}
