//! The arbiter: one register for each pair, kept in a third place. Who may lead is a won
//! [`ArbiterCall::Swap`] and nothing else (docs/replication.md section 11).
//!
//! The seam is four calls. A backend emits them, the shell carries them out in order, one at a
//! time, and promises one thing: a call that stayed without answer is not carried out behind a
//! later call of the same node that was answered.

mod registers;
mod wire;

pub use registers::Registers;

use understudy_model::{Epoch, NodeId};

/// What the arbiter keeps for one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// The pair's own id: a node of another one has no business here.
    pub cluster: u128,
    pub epoch: Epoch,
    pub leader: NodeId,
    /// The slave whose copy holds everything answered. It and the leader are the in-sync set:
    /// nobody else may lead next.
    pub slave: Option<NodeId>,
}

impl Register {
    pub fn is_in_sync(&self, node: NodeId) -> bool {
        self.leader == node || self.slave == Some(node)
    }
}

/// The register as the arbiter holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Rises with each swap; the first is 1.
    pub version: u64,
    pub register: Register,
    /// What is left of the leader's lease, milliseconds on the arbiter's clock; 0: it is free.
    pub lease_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArbiterCall {
    Read,
    /// Write the register, synced, if it still has the version `expected` (0: there is none) and
    /// no other node than `register.leader` holds a lease. The leader's lease begins anew.
    Swap {
        expected: u64,
        register: Register,
        lease_ms: u64,
        /// The operator's word against a lease.
        force: bool,
    },
    /// The leader's lease begins anew, if that node still leads that epoch.
    Renew {
        leader: NodeId,
        epoch: Epoch,
        lease_ms: u64,
    },
    /// The leader serves nobody any more: its lease ends now.
    Release {
        leader: NodeId,
        epoch: Epoch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ArbiterAnswer {
    /// Whether the call was carried out, and what the register holds now.
    Told { done: bool, held: Option<Held> },
    /// The arbiter could not be asked, or did not answer in time.
    Silent,
}
