//! Master and slave without a third service (docs/replication.md).
//!
//! `state` says what a node does; each state is one file: `idle`, `follow`, `lead` (with `attend`,
//! its side of the links, and `feed`, what it sends). `meeting` and `plan` are pure decisions.

mod arbitration;
mod attend;
mod claiming;
mod compare;
mod config;
mod contact;
mod copying;
mod core;
mod dialer;
mod exporting;
mod feed;
mod fetch;
mod follow;
mod forget;
mod handing;
mod hello;
mod idle;
mod lead;
mod links;
mod machine;
mod meeting;
mod message;
mod plan;
mod random;
mod readmission;
mod recent;
mod resync;
mod state;
mod tenure;
#[cfg(test)]
pub(crate) mod tests;
mod upgrade;
mod view;

pub use config::{ArbiterConfig, PairConfig, Policy, Role};
pub use machine::Pair;
pub use upgrade::Protocols;
pub use view::{Standing, ViewError};
pub(crate) use view::{get_epoch, put_epoch};
