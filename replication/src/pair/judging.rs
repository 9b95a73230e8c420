//! What the arbiter's register allows: whether a wish of this node is granted, refused, put off, or to
//! be written.

use crate::pair::core::Core;
use crate::pair::view::Standing;
use crate::{Held, Register};
use understudy_model::{Epoch, NodeId};

/// What the register should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Want {
    /// This node leads, alone. `epoch`: agreed with the peer, which has given up its own claim on
    /// disk; none: the next one. `force`: by the operator's word.
    Lead { epoch: Option<Epoch>, force: bool },
    /// The leader goes on without its slave (R3). `unopposed`: whatever an arbiter has forgotten,
    /// since the slave has given up its claim, or is gone by the operator's word.
    Shrink { epoch: Epoch, unopposed: bool },
    /// The slave may lead next (R4).
    Widen { epoch: Epoch, slave: NodeId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Granted(Register),
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The register is another pair's.
    Foreign,
    /// Another node leads, or another epoch.
    Replaced,
    /// This copy may lack what was answered.
    NotInSync,
    /// The epoch that was agreed on is not above the register's.
    Stale,
    /// There is no register, and this node alone cannot say what it held.
    NoRegister,
}

impl Refusal {
    pub(crate) fn explain(self) -> &'static str {
        match self {
            Self::Foreign => "its register belongs to another pair",
            Self::Replaced => "another mastership has begun",
            Self::NotInSync => "this node is not in the in-sync set",
            Self::Stale => "the epoch is over already",
            Self::NoRegister => {
                "it knows nothing of this pair, and the peer may have gone on alone: start both \
                 nodes, or promote one with --force"
            }
        }
    }
}

pub(crate) enum Judgement {
    Granted(Register),
    Refused(Refusal),
    /// Leased to the other node, or nothing to build on.
    Later,
    /// The register is gone, and the slave may have gone on alone: nothing to build on.
    Unknown,
    Write {
        expected: u64,
        register: Register,
        force: bool,
    },
}

impl Core {
    /// Whether the register as it was read last allows `want`.
    pub(super) fn judge(&mut self, want: Want) -> Judgement {
        let held = self.held();
        let Some(cluster) = self.view.cluster else { return Judgement::Later };
        if held.is_some_and(|held| held.register.cluster != cluster) {
            return Judgement::Refused(Refusal::Foreign);
        }
        match want {
            Want::Lead { epoch, force } => self.judge_claim(held, cluster, epoch, force),
            Want::Shrink { epoch, unopposed } => {
                self.judge_change(held, cluster, epoch, None, unopposed)
            }
            Want::Widen { epoch, slave } => {
                self.judge_change(held, cluster, epoch, Some(slave), false)
            }
        }
    }

    fn judge_claim(
        &mut self,
        held: Option<Held>,
        cluster: u128,
        agreed: Option<Epoch>,
        force: bool,
    ) -> Judgement {
        let me = self.view.node;
        if let Some(Held { register, lease_ms, .. }) = held {
            // An epoch of ours that is not begun: the swap is done; perhaps its answer was lost, or
            // the process that had sent it.
            let is_new =
                agreed.map_or(register.epoch > self.view.promised, |e| e == register.epoch);
            if is_new && register.leader == me && register.slave.is_none() {
                return Judgement::Granted(register);
            }
            self.heard_of(register.epoch);
            if !force && !register.is_in_sync(me) {
                return Judgement::Refused(Refusal::NotInSync);
            }
            if agreed.is_some_and(|epoch| epoch <= register.epoch) {
                return Judgement::Refused(Refusal::Stale);
            }
            if !force && lease_ms > 0 && register.leader != me {
                return Judgement::Later;
            }
        } else if !force && agreed.is_none() && !self.is_alone_on_disk() {
            return Judgement::Refused(Refusal::NoRegister);
        }
        let expected = held.map_or(0, |held| held.version);
        let epoch = agreed.unwrap_or_else(|| self.next_epoch());
        let register = Register { cluster, epoch, leader: me, slave: None };
        Judgement::Write { expected, register, force }
    }

    /// By the leader of `epoch`, whom only a node of the in-sync set can have replaced.
    fn judge_change(
        &self,
        held: Option<Held>,
        cluster: u128,
        epoch: Epoch,
        slave: Option<NodeId>,
        unopposed: bool,
    ) -> Judgement {
        let leader = self.view.node;
        let register = Register { cluster, epoch, leader, slave };
        let expected = match held {
            Some(held) if held.register == register => return Judgement::Granted(register),
            Some(held) if held.register.leader != leader || held.register.epoch != epoch => {
                return Judgement::Refused(Refusal::Replaced);
            }
            Some(held) => held.version,
            // The arbiter has lost it. The slave is here, so nobody else leads; without it, only
            // the own disk can tell that.
            None if slave.is_some() || self.is_alone_on_disk() || unopposed => 0,
            None => return Judgement::Unknown,
        };
        Judgement::Write { expected, register, force: false }
    }

    fn is_alone_on_disk(&self) -> bool {
        matches!(self.view.standing, Standing::Alone { .. })
    }
}
