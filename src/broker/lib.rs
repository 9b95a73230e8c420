//! The deterministic machine: it decides requests into commands, applies committed commands, and
//! serves consumers. No clock, no randomness, no I/O; the same log gives the same state anywhere.

mod access;
#[cfg(test)]
mod access_tests;
mod arguments;
mod broker;
mod clients;
mod decide;
mod declare;
mod dispatch;
mod inspect;
mod lsn_set;
mod manage;
mod pattern;
mod policy;
mod producers;
mod queue;
mod routing;
mod saved;
mod segments;
mod topic;
mod topology;

pub use broker::{Broker, Counts, Limits};
pub use decide::{Decided, Wait, waits_for_own_commits};
pub use dispatch::{Contents, ReadAhead};
pub use inspect::{
    Accounts, BindingRow, ConnectionRow, ConsumerRow, Cursor, ExchangeRow, Page, Query, QueueRow,
};
pub use manage::ConfiguredUser;
pub use pattern::check_pattern;
pub use saved::Slice;
pub use segments::Segment;
