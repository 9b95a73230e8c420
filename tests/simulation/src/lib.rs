//! Two real [`understudy::node::Node`]s in a world made from a seed: disks that lose what was not
//! synced, a link that delays and breaks, clients that publish, consume, settle and reconnect.
//! The invariants of docs/replication.md section 13 are checked at every step and at rest.

mod arbiter;
mod checks;
mod client;
mod disk;
mod faults;
mod random;
mod stories;
mod upgrades;
mod world;

pub use random::{Outcome, SOMETIMES, run_seed};
pub use world::{Side, Sometimes, World, WorldOptions};
