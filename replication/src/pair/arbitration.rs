//! This node's side of the arbiter: what it wants of the register, one call at a time, and how long
//! the lease lasts. The states say what they want; they hear a verdict.
//!
//! Two leases let a leader that is not alone serve: the arbiter's, counted from when the renewal
//! was sent, and the slave's, counted from when the last answered beat was sent (`contact.rs`). The
//! arbiter counts from when it got the renewal and for longer; a slave claims nothing before it
//! has heard nothing for longer. A leader that is alone in the register needs neither.

use crate::pair::core::{COUNT_FROM, Core};
use crate::pair::judging::{Judgement, Refusal, Verdict, Want};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::view::Standing;
use crate::{ArbiterAnswer, ArbiterCall, Held, Output, Register};
use understudy_model::{Epoch, NodeId};

/// Pause before a register that is leased to the other node, or an arbiter that is silent, is
/// asked again.
const RETRY_MS: u64 = 100;

const FORGOT_SLAVE: &str = "nothing is answered: the arbiter knows nothing of this pair, and the \
                            slave may have gone on alone: start it, or have it forgotten \
                            (`understudy forget_slave --force`)";

#[derive(Clone, Debug, Hash)]
struct Pending {
    serial: u64,
    sent_ms: u64,
    call: ArbiterCall,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Arbitration {
    /// How long this node relies on a lease, on its own clock.
    lease_ms: u64,
    want: Option<Want>,
    verdict: Option<Verdict>,
    /// What the last answer said, if nothing has put that in doubt.
    held: Option<Option<Held>>,
    pending: Option<Pending>,
    /// A swap without answer, and when it was sent.
    unsure: Option<(Register, u64)>,
    /// The register is to be read before anything is said to the peer.
    must_read: bool,
    lease_until_ms: u64,
    renew_ms: u64,
    next_ms: u64,
    serial: u64,
    is_silent: bool,
    /// When the last answer came.
    told_ms: u64,
    /// The epoch whose lease is kept.
    leading: Option<Epoch>,
}

impl Arbitration {
    pub(crate) fn new(lease_ms: u64) -> Self {
        Self {
            lease_ms: lease_ms.max(4),
            want: None,
            verdict: None,
            held: None,
            pending: None,
            unsure: None,
            must_read: true,
            lease_until_ms: 0,
            renew_ms: 0,
            next_ms: 0,
            serial: 2 * COUNT_FROM,
            is_silent: false,
            told_ms: 0,
            leading: None,
        }
    }

    /// For how long the arbiter keeps the other node out: longer than this one relies on it, for
    /// clocks that differ in speed (docs/replication.md section 11).
    fn hold_ms(&self) -> u64 {
        hold_ms(self.lease_ms)
    }

    /// A disk that has completed nothing for so long is taken as hanging.
    fn disk_window_ms(&self) -> u64 {
        self.lease_ms / 2
    }

    fn swap_is_open(&self) -> bool {
        let swaps = |pending: &Pending| matches!(pending.call, ArbiterCall::Swap { .. });
        self.unsure.is_some() || self.pending.as_ref().is_some_and(swaps)
    }

    /// Nobody but this leader may lead: no lease is needed.
    fn is_exclusive(&self, me: NodeId, epoch: Epoch) -> bool {
        let alone = |held: Held| {
            let register = held.register;
            register.leader == me && register.epoch == epoch && register.slave.is_none()
        };
        !self.swap_is_open() && self.held.flatten().is_some_and(alone)
    }

    fn accept(&mut self, now_ms: u64, held: Option<Held>) {
        self.told_ms = now_ms;
        self.held = Some(held);
        self.is_silent = false;
        self.must_read = false;
    }
}

/// See [`Arbitration::hold_ms`].
pub(crate) const fn hold_ms(lease_ms: u64) -> u64 {
    lease_ms * 3 / 2 + 1_000
}

impl Core {
    pub(crate) fn has_arbiter(&self) -> bool {
        self.arbiter.is_some()
    }

    pub(crate) fn want(&mut self, want: Want) {
        if let Some(arbiter) = &mut self.arbiter
            && arbiter.want != Some(want)
        {
            arbiter.want = Some(want);
            arbiter.next_ms = self.now_ms;
            if matches!(want, Want::Lead { .. }) {
                // What was read before may be a mastership ago.
                arbiter.held = None;
            }
        }
    }

    pub(crate) fn wants(&self) -> Option<Want> {
        self.arbiter.as_ref()?.want
    }

    /// What is on its way is still waited for: see [`Self::arbiter_is_settled`].
    pub(crate) fn want_nothing(&mut self) {
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.want = None;
        }
    }

    /// A node that does not lead any more reads the register before it speaks to the peer.
    pub(crate) fn read_register(&mut self) {
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.must_read = true;
            arbiter.next_ms = self.now_ms;
            arbiter.held = None;
            arbiter.want = None;
        }
    }

    /// No swap's outcome is open: what a hello says of this node's claim holds.
    pub(crate) fn arbiter_is_settled(&self) -> bool {
        self.arbiter.as_ref().is_none_or(|a| !a.swap_is_open() && !a.must_read)
    }

    /// The register as it was read last, if nothing has put that in doubt.
    pub(super) fn held(&self) -> Option<Held> {
        self.arbiter.as_ref()?.held.flatten()
    }

    pub(crate) fn take_verdict(&mut self) -> Option<Verdict> {
        self.arbiter.as_mut()?.verdict.take()
    }

    /// What this node may claim: where the register is known, it says who is in-sync.
    pub(crate) fn claim(&self) -> Standing {
        let standing = self.view.standing;
        let Some(register) = self.held().map(|held| held.register) else { return standing };
        if Some(register.cluster) != self.view.cluster || self.view.copying.is_some() {
            return standing;
        }
        match standing {
            // Behind a peer that has not given up its claim.
            Standing::Lagging { .. } if register.is_in_sync(self.view.node) => {
                Standing::Synced { epoch: Epoch::default(), led: false }
            }
            Standing::Synced { epoch, .. } if !register.is_in_sync(self.view.node) => {
                Standing::Lagging { epoch }
            }
            _ => standing,
        }
    }

    pub(crate) fn holds_lease(&self, epoch: Epoch) -> bool {
        self.arbiter.as_ref().is_none_or(|arbiter| {
            arbiter.is_exclusive(self.view.node, epoch) || self.now_ms < arbiter.lease_until_ms
        })
    }

    /// Until when [`Self::holds_lease`] holds; none: no end is in sight.
    pub(crate) fn lease_until_ms(&self, epoch: Epoch) -> Option<u64> {
        let arbiter = self.arbiter.as_ref()?;
        (!arbiter.is_exclusive(self.view.node, epoch)).then_some(arbiter.lease_until_ms)
    }

    pub(crate) fn lease_ms(&self) -> Option<u64> {
        self.arbiter.as_ref().map(|arbiter| arbiter.lease_ms)
    }

    /// The register has vanished under a leader in office.
    pub(crate) fn register_is_gone(&self) -> bool {
        self.arbiter.as_ref().is_some_and(|a| a.held == Some(None) && !a.swap_is_open())
    }

    /// The arbiter holds the register of another pair under the configured name.
    pub(crate) fn register_is_foreign(&self) -> bool {
        let (Some(held), Some(cluster)) = (self.held(), self.view.cluster) else { return false };
        held.register.cluster != cluster
    }

    pub(crate) fn arbiter_state(&self) -> &'static str {
        match &self.arbiter {
            None => "none",
            Some(arbiter) if arbiter.is_silent => "silent",
            Some(_) => "answers",
        }
    }

    /// The last write or probe has completed not long ago.
    pub(crate) fn disk_is_alive(&self, within_ms: u64) -> bool {
        self.disk_ms.is_some_and(|at_ms| self.now_ms < at_ms + within_ms)
    }

    fn release_call(&self, epoch: Epoch) -> ArbiterCall {
        ArbiterCall::Release { leader: self.view.node, epoch }
    }

    /// This leader serves nobody any more: who comes next need not wait for the lease's end.
    pub(crate) fn release_lease(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        let call = self.release_call(epoch);
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.lease_until_ms = 0;
            arbiter.serial += 1;
            // Nobody waits for the answer.
            out.push(Output::AskArbiter { serial: arbiter.serial, call });
        }
    }

    pub(crate) fn arbiter_answered(&mut self, serial: u64, answer: ArbiterAnswer) {
        let Some(arbiter) = &mut self.arbiter else { return };
        let Some(pending) = arbiter.pending.take_if(|pending| pending.serial == serial) else {
            return;
        };
        let ArbiterAnswer::Told { done, held } = answer else {
            return self.arbiter_is_silent(&pending);
        };
        #[cfg(test)]
        let (done, held) = match pending.call {
            ArbiterCall::Swap { expected, register, lease_ms, .. }
                if !done && broken::is(Broken::LostSwapCounts) =>
            {
                (true, Some(Held { version: expected + 1, register, lease_ms }))
            }
            _ => (done, held),
        };
        let (now_ms, lease_ms) = (self.now_ms, arbiter.lease_ms);
        arbiter.accept(now_ms, held);
        arbiter.next_ms = now_ms;
        let seen = held.map_or_else(Epoch::default, |held| held.register.epoch);
        match pending.call {
            ArbiterCall::Read => {
                if let Some((register, sent_ms)) = arbiter.unsure.take()
                    && held.is_some_and(|held| held.register == register)
                {
                    arbiter.lease_until_ms = sent_ms + lease_ms;
                }
            }
            ArbiterCall::Swap { .. } | ArbiterCall::Renew { .. } if done => {
                arbiter.lease_until_ms = pending.sent_ms + lease_ms;
                arbiter.renew_ms = pending.sent_ms + lease_ms / 4;
            }
            ArbiterCall::Swap { .. } => arbiter.next_ms = now_ms + RETRY_MS,
            ArbiterCall::Renew { epoch, .. } => {
                arbiter.renew_ms = now_ms + RETRY_MS;
                if held.is_some() && arbiter.leading == Some(epoch) {
                    arbiter.want = None;
                    arbiter.verdict = Some(Verdict::Refused(Refusal::Replaced));
                }
            }
            ArbiterCall::Release { .. } => {}
        }
        self.heard_of(seen);
    }

    fn arbiter_is_silent(&mut self, pending: &Pending) {
        let now_ms = self.now_ms;
        let Some(arbiter) = &mut self.arbiter else { return };
        arbiter.is_silent = true;
        arbiter.must_read = false;
        arbiter.next_ms = now_ms + RETRY_MS;
        arbiter.renew_ms = now_ms + RETRY_MS;
        if let ArbiterCall::Swap { register, .. } = pending.call {
            arbiter.unsure = Some((register, pending.sent_ms));
        }
    }

    /// The next call, if one is due. `leading`: the epoch whose lease is to be kept.
    pub(crate) fn ask_arbiter(&mut self, leading: Option<Epoch>, out: &mut Vec<Output>) {
        let now_ms = self.now_ms;
        let Some(arbiter) = &mut self.arbiter else { return };
        arbiter.leading = leading;
        // The shell answers every call; this is for one that hangs.
        let limit_ms = arbiter.lease_ms;
        if let Some(late) = arbiter.pending.take_if(|p| p.sent_ms + limit_ms <= now_ms) {
            self.arbiter_is_silent(&late);
        }
        if leading.is_some() {
            self.probe_disk(out);
        }
        let Some(arbiter) = &self.arbiter else { return };
        if arbiter.pending.is_some() || now_ms < arbiter.next_ms && !self.renewal_is_due(leading) {
            return;
        }
        let wanted = arbiter.want.is_some() || arbiter.must_read;
        // A swap without answer binds this node until the arbiter is back, so it is not tried at
        // one that may be gone.
        let is_fresh = arbiter.held.is_some() && now_ms <= arbiter.told_ms + RETRY_MS;
        if arbiter.unsure.is_some() || wanted && !is_fresh {
            self.call_arbiter(ArbiterCall::Read, out);
        } else if let Some(want) = arbiter.want {
            self.judge_and_act(want, out);
        } else if let (Some(epoch), true) = (leading, self.renewal_is_due(leading)) {
            let (leader, lease_ms) = (self.view.node, arbiter.hold_ms());
            self.call_arbiter(ArbiterCall::Renew { leader, epoch, lease_ms }, out);
        }
    }

    /// A disk that hangs loses the role: nothing is renewed until it has written again.
    fn renewal_is_due(&self, leading: Option<Epoch>) -> bool {
        self.arbiter.as_ref().is_some_and(|arbiter| {
            leading.is_some()
                && arbiter.renew_ms <= self.now_ms
                && self.disk_is_alive(arbiter.disk_window_ms())
        })
    }

    /// Writes the view once more if nothing else shows that the disk works.
    fn probe_disk(&mut self, out: &mut Vec<Output>) {
        let Some(arbiter) = &self.arbiter else { return };
        let fresh = self.disk_is_alive(arbiter.disk_window_ms() / 2);
        if !fresh && self.saved() == self.version() {
            self.save(out);
        }
    }

    fn call_arbiter(&mut self, call: ArbiterCall, out: &mut Vec<Output>) {
        let sent_ms = self.now_ms;
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.serial += 1;
            let serial = arbiter.serial;
            arbiter.pending = Some(Pending { serial, sent_ms, call });
            out.push(Output::AskArbiter { serial, call });
        }
    }

    fn judge_and_act(&mut self, want: Want, out: &mut Vec<Output>) {
        let judgement = self.judge(want);
        let window_ms = self.arbiter.as_ref().map_or(0, Arbitration::disk_window_ms);
        if matches!(judgement, Judgement::Write { .. }) && !self.disk_is_alive(window_ms) {
            // To lead without a disk would help nobody.
            return self.probe_disk(out);
        }
        if matches!(judgement, Judgement::Unknown) {
            self.say(true, FORGOT_SLAVE.into(), out);
        }
        let now_ms = self.now_ms;
        let Some(arbiter) = &mut self.arbiter else { return };
        match judgement {
            Judgement::Granted(register) => {
                arbiter.want = None;
                arbiter.verdict = Some(Verdict::Granted(register));
            }
            Judgement::Refused(refusal) => {
                arbiter.want = None;
                arbiter.verdict = Some(Verdict::Refused(refusal));
            }
            Judgement::Later | Judgement::Unknown => {
                arbiter.held = None;
                arbiter.next_ms = now_ms + RETRY_MS;
            }
            Judgement::Write { expected, register, force } => {
                let lease_ms = arbiter.hold_ms();
                self.call_arbiter(ArbiterCall::Swap { expected, register, lease_ms, force }, out);
            }
        }
    }

    pub(crate) fn arbiter_deadline_ms(&self, leading: Option<Epoch>) -> Option<u64> {
        let arbiter = self.arbiter.as_ref()?;
        let idle_disk = self.saved() == self.version();
        let probe_ms = self.disk_ms.map_or(0, |at_ms| at_ms + arbiter.disk_window_ms() / 2);
        let probe = (leading.is_some() && idle_disk).then_some(probe_ms);
        let call = if let Some(pending) = &arbiter.pending {
            Some(pending.sent_ms + arbiter.lease_ms)
        } else if arbiter.want.is_some() || arbiter.must_read || arbiter.unsure.is_some() {
            // Behind a probe of the disk, its end is the next event.
            let is_fresh = arbiter.held.is_some() && self.now_ms <= arbiter.told_ms + RETRY_MS;
            let reads = arbiter.must_read || arbiter.unsure.is_some() || !is_fresh;
            let writes = idle_disk || self.disk_is_alive(arbiter.disk_window_ms());
            (reads || writes).then_some(arbiter.next_ms)
        } else {
            let alive = leading.is_some() && self.disk_is_alive(arbiter.disk_window_ms());
            alive.then_some(arbiter.renew_ms)
        };
        [probe, call].into_iter().flatten().min()
    }
}
