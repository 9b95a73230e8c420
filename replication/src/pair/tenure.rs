//! The master's role under an arbiter: it serves while a lease lives, asks before it goes on without
//! its slave (R3), and lets the slave into the register before it tells it so (R4).

use crate::Output;
use crate::pair::core::Core;
use crate::pair::feed::Stage;
use crate::pair::idle::Idle;
use crate::pair::judging::{Verdict, Want};
use crate::pair::lead::{Lead, Peer, Saving};
use crate::pair::message::Message;
use crate::pair::state::{Next, State};
use understudy_model::Lsn;

impl Lead {
    /// Whether clients may be served: nobody else can have been made the leader.
    pub(crate) fn holds_role(&self, core: &Core) -> bool {
        core.holds_lease(self.epoch) || core.now_ms < self.slave_lease_until_ms(core)
    }

    fn slave_lease_until_ms(&self, core: &Core) -> u64 {
        // A disk that hangs loses this lease, too.
        let lease_ms = core.lease_ms().filter(|lease_ms| core.disk_is_alive(*lease_ms));
        match (self.feed(), lease_ms) {
            (Some(feed), Some(lease_ms)) => {
                let disk_until_ms = core.disk_ms.map_or(0, |at_ms| at_ms + lease_ms);
                feed.contact.lease_until_ms(lease_ms).min(disk_until_ms)
            }
            _ => 0,
        }
    }

    /// When [`Self::holds_role`] ends, as far as is known.
    pub(crate) fn role_until_ms(&self, core: &Core) -> Option<u64> {
        let lease_ms = core.lease_until_ms(self.epoch)?;
        Some(lease_ms.max(self.slave_lease_until_ms(core)))
    }

    pub(crate) fn keep_role(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if core.register_is_gone() && core.wants().is_none() {
            self.register_again(core);
        }
        if self.holds_role(core) || self.is_stopping() {
            return None;
        }
        if self.open {
            let text = "no lease: clients are shut out until the arbiter or the slave answers";
            core.say(true, text.into(), out);
            self.close(None, out);
        }
        let hangs = core.lease_ms().is_some_and(|lease_ms| !core.disk_is_alive(lease_ms));
        if hangs && matches!(self.peer, Peer::Attached(_)) && !self.sole {
            core.say(true, "the disk hangs: the role is given up".into(), out);
            self.step_down(core, None, out);
            return Some(State::Idle(Idle::starting(core)));
        }
        None
    }

    /// The arbiter has lost its data.
    fn register_again(&self, core: &mut Core) {
        let epoch = self.epoch;
        if self.sole {
            core.want(Want::Shrink { epoch, unopposed: false });
        } else {
            self.keep_registered(core);
        }
    }

    /// The slave is in-sync on both disks, so it is in the register. It may have been left out there
    /// just before it came back.
    pub(crate) fn keep_registered(&self, core: &mut Core) {
        if let Some(feed) = self.feed().filter(|feed| feed.stage == Stage::Synced)
            && let Some(slave) = core.links.theirs(feed.link).map(|theirs| theirs.node)
        {
            core.want(Want::Widen { epoch: self.epoch, slave });
        }
    }

    pub(crate) fn ask_to_shrink(&mut self, core: &mut Core, unopposed: bool) {
        self.saving = Saving::Asking;
        core.want(Want::Shrink { epoch: self.epoch, unopposed });
    }

    /// … before the arbiter was asked, or after it has said no: both are in-sync as before.
    pub(crate) fn slave_is_back(&mut self, core: &mut Core) {
        if self.saving == Saving::Asking {
            self.saving = Saving::None;
            core.want_nothing();
        }
    }

    /// `Synced` is on disk.
    pub(crate) fn register_or_invite(
        &mut self,
        core: &mut Core,
        target: Lsn,
        out: &mut Vec<Output>,
    ) {
        let Peer::Attached(feed) = &mut self.peer else { return };
        if !core.has_arbiter() {
            return self.invite(core, target, out);
        }
        feed.stage = Stage::Registering { target };
        if let Some(slave) = core.links.theirs(feed.link).map(|theirs| theirs.node) {
            core.want(Want::Widen { epoch: self.epoch, slave });
        }
    }

    fn invite(&mut self, core: &Core, target: Lsn, out: &mut Vec<Output>) {
        let Peer::Attached(feed) = &mut self.peer else { return };
        feed.stage = Stage::Inviting;
        core.send(feed.link, &Message::InSync { epoch: self.epoch, at: target }, out);
    }

    pub(crate) fn judged(
        &mut self,
        core: &mut Core,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) -> Next {
        match verdict {
            Verdict::Refused(refusal) => {
                let text = format!("the arbiter refuses: {}", refusal.explain());
                core.say(true, text, out);
                self.step_down(core, None, out);
                return Some(State::Idle(Idle::starting(core)));
            }
            Verdict::Granted(register) if register.slave.is_none() => {
                if self.saving == Saving::Asking {
                    self.save_alone(core, out);
                }
            }
            Verdict::Granted(_) => {
                if let Some(Stage::Registering { target }) = self.feed().map(|feed| feed.stage) {
                    self.invite(core, target, out);
                }
            }
        }
        None
    }
}
