//! The deterministic machine: it decides requests into commands, applies committed commands, and
//! serves consumers. No clock, no randomness, no I/O; the same log gives the same state anywhere.

mod access;
#[cfg(test)]
mod access_tests;
mod apply;
mod arguments;
mod bind;
mod broker;
mod clients;
mod compare;
mod consistent_hash;
mod dead_letter;
mod decide;
mod declare;
mod delayed;
mod dispatch;
#[cfg(test)]
mod dispatch_tests;
mod expiry;
mod facts;
mod inspect;
mod lsn_set;
mod manage;
mod overflow;
mod pattern;
mod policy;
mod producers;
mod publish;
mod queue;
mod reinject;
#[cfg(test)]
mod reinject_tests;
mod routing;
mod rules;
#[cfg(test)]
mod rules_tests;
mod saved;
mod segments;
mod selection;
#[cfg(test)]
mod selection_tests;
mod sender_selected;
#[cfg(test)]
mod test_world;
mod timers;
mod topic;
mod topology;
mod traffic;
#[cfg(test)]
mod traffic_tests;
#[cfg(test)]
mod transaction_tests;

pub use broker::{Broker, Counts, Limits, LiveMessages};
pub use compare::Part;
pub use decide::{Decided, Wait, waits_for_own_commits};
pub use dispatch::{Contents, ReadAhead};
pub use inspect::{
    Accounts, BindingRow, ConnectionRow, ConsumerRow, Cursor, ExchangeRow, Page, Query, QueueRow,
};
pub use manage::ConfiguredUser;
pub use pattern::check_pattern;
pub use reinject::Divergence;
pub use saved::{Slice, replay_point};
pub use segments::Segment;
pub use traffic::{Counted, Traffic};
