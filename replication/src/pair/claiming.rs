//! How a node that does not lead takes the role: by its disk alone or, with an arbiter, by a won swap
//! of the register first.

use crate::Output;
use crate::pair::arbitration::hold_ms;
use crate::pair::core::Core;
use crate::pair::idle::{Idle, Step};
use crate::pair::judging::{Refusal, Verdict, Want};
use crate::pair::state::{Next, State};
use crate::pair::view::Standing;

impl Core {
    /// How long a node that starts looks for its peer. With an arbiter it may have answered the
    /// peer's beats in its former run, and the peer serves by that for a while.
    pub(crate) fn silence_ms(&self) -> u64 {
        let hold_ms = self.lease_ms().map_or(0, hold_ms);
        self.config.meet_timeout_ms.max(hold_ms)
    }

    /// How long a slave waits for a silent master.
    pub(crate) fn takeover_ms(&self) -> u64 {
        let hold_ms = self.lease_ms().map_or(0, hold_ms);
        self.config.takeover_ms.max(hold_ms)
    }
}

impl Idle {
    /// The in-sync set was this node, or the arbiter knows that it is the last leader's own return:
    /// nobody needs to be looked for. The arbiter still decides.
    pub(crate) fn is_sure_to_lead(&self, core: &Core) -> bool {
        match core.view.standing {
            _ if self.claims => false,
            Standing::Alone { .. } => !core.has_arbiter() || self.deadline_ms.is_some(),
            Standing::Synced { led: true, .. } => core.has_arbiter() && self.deadline_ms.is_some(),
            _ => false,
        }
    }

    /// Takes the role, or asks the arbiter for it. `force`: by the operator's word.
    pub(crate) fn claim(&mut self, core: &mut Core, force: bool, out: &mut Vec<Output>) {
        if core.has_arbiter() {
            self.claims = true;
            self.deadline_ms = None;
            core.want(Want::Lead { epoch: None, force });
        } else {
            let epoch = core.next_epoch();
            self.assume(core, None, epoch, out);
        }
    }

    /// The peer is met: what it says counts first.
    pub(crate) fn no_claim(&mut self, core: &mut Core) {
        if self.claims {
            self.claims = false;
            core.want_nothing();
        }
    }

    /// Nothing came of the meeting.
    pub(crate) fn seek(&mut self, core: &mut Core) {
        if core.has_arbiter() {
            core.want_nothing();
            self.deadline_ms = Some(core.now_ms + core.silence_ms());
        }
        self.go(core, Step::Seeking);
    }

    /// The register says whose copies are complete, whatever the own disk says of its standing.
    pub(crate) fn decide_by_arbiter(
        &mut self,
        core: &mut Core,
        why: &str,
        out: &mut Vec<Output>,
    ) -> Next {
        if self.orphan && core.policy().stops_without_master {
            let text = format!("{why}; shutdown_on_master_failure is set: this slave stops");
            core.say(true, text.clone(), out);
            return Some(State::stop(Ok(text), out));
        }
        if core.view.standing == Standing::Empty || core.view.copying.is_some() {
            let text = format!("waiting for the master: {why}, and this node has no whole copy");
            core.say(true, text, out);
            return None;
        }
        core.say(true, format!("{why}: the arbiter is asked for the role"), out);
        self.claim(core, false, out);
        None
    }

    pub(crate) fn stop_at_foreign_register(&self, core: &mut Core, out: &mut Vec<Output>) -> State {
        let text = format!("refused by the arbiter: {}", Refusal::Foreign.explain());
        core.say(true, text.clone(), out);
        State::stop(Err(text), out)
    }

    pub(crate) fn judged(
        &mut self,
        core: &mut Core,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) -> Next {
        let link = match self.step {
            Step::Seeking if self.claims => None,
            Step::Claiming { link, .. } => Some(link),
            // A link came first. The swap, if it was one, is begun again by the next claim.
            _ => return None,
        };
        self.claims = false;
        match verdict {
            Verdict::Granted(register) => {
                let text = format!("the arbiter grants epoch {}", register.epoch);
                core.say(false, text, out);
                self.assume(core, link, register.epoch, out);
                None
            }
            Verdict::Refused(refusal) => {
                let why = refusal.explain();
                core.say(true, format!("waiting for the peer: the arbiter refuses: {why}"), out);
                if let Some(link) = link {
                    core.drop_link(link, out);
                    self.seek(core);
                }
                None
            }
        }
    }
}
