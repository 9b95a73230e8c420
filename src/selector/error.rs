//! Why a text is no selector, and where.

use std::fmt;

/// Where a text is no selector, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    /// Counts characters, from 1.
    pub column: usize,
    pub why: String,
}

impl SelectorError {
    pub(crate) fn new(text: &str, byte: usize, why: impl Into<String>) -> Self {
        let before = text.char_indices().take_while(|(at, _)| *at < byte).count();
        Self { column: before + 1, why: why.into() }
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.why)
    }
}

impl std::error::Error for SelectorError {}
