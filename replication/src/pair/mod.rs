//! Master and slave without a third service (docs/replication.md).
//!
//! `machine` is the one match on inputs; `connect` sees to the links, `operator` to what the operator
//! asks. `state` says what a node does; each state is one file: `idle`, `follow`, `lead` (with `attend`,
//! its side of the links, `feed`, what it sends, and `in_sync`, whose acks count). `meeting`, `plan`
//! and `judging` are decisions without effects.

mod arbitration;
mod attend;
mod claiming;
mod code;
mod compare;
mod config;
mod connect;
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
mod in_sync;
mod judging;
mod lead;
mod links;
mod machine;
mod meeting;
mod message;
mod operator;
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
