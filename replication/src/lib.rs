//! Replication backends behind one seam, sans-io.
//!
//! A backend decides who leads, when a sealed group is committed, and what is told to the peer.
//! It treats groups as bytes with a header, keeps no clock and opens no socket: the shell feeds it
//! [`Input`]s and carries out its [`Output`]s in order.

mod arbiter;
mod backend;
mod pair;
mod standalone;

pub use arbiter::{ArbiterAnswer, ArbiterCall, Held, Register, Registers};
pub use backend::{
    Backend, Boot, DiskSpace, Found, Input, LinkId, LogEnd, Output, SnapshotCursor, StateDigest,
    Status, Wanted,
};
pub use pair::{ArbiterConfig, Pair, PairConfig, Policy, Protocols, Role, Standing, ViewError};
pub use standalone::Standalone;
