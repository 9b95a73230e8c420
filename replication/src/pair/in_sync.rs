//! Who is in the in-sync set, the master's side: a slave is let in (R4) or left behind (R3), always on
//! disk before anything relies on it.

use crate::Output;
use crate::pair::core::Core;
use crate::pair::feed::Stage;
use crate::pair::handing::Handing;
use crate::pair::lead::{Lead, Peer, Saving};
use crate::pair::state::{Next, State};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::view::Standing;

impl Lead {
    /// R4, in this order: require acks, wait for them, give up the exclusive right, tell.
    pub(super) fn widen(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        // Without the arbiter the slave could not be let in, and the right would be given up.
        let ready = self.sole
            && self.opens_at.is_some()
            && !self.is_stopping()
            && core.arbiter_state() != "silent";
        let Peer::Attached(feed) = &mut self.peer else { return };
        if ready && feed.is_caught_up(core) && self.readmission.allows(core.now_ms) {
            feed.stage = Stage::Joining { target: core.log.appended };
            feed.progress_ms = core.now_ms;
        }
        if let Stage::Joining { target } = feed.stage
            && ready
            && feed.acked() >= target
        {
            self.sole = false;
            if let Some(theirs) = core.links.theirs(feed.link).cloned() {
                core.adopt_peer(&theirs);
            }
            core.view.standing = Standing::Synced { epoch: self.epoch, led: true };
            feed.stage = Stage::Widening { target, version: core.save(out) };
            #[cfg(test)]
            if broken::is(Broken::InvitesEarly) {
                self.register_or_invite(core, target, out);
            }
        }
    }

    pub(crate) fn view_saved(
        &mut self,
        core: &mut Core,
        saved: u64,
        out: &mut Vec<Output>,
    ) -> Next {
        if let Handing::GivingUp { version } = self.handing
            && version <= saved
        {
            return Some(self.handed_over(core, out));
        }
        if let Saving::Shrink { version } = self.saving
            && version <= saved
        {
            self.saving = Saving::None;
            self.sole = true;
            core.dialer.slow_down(core.now_ms);
            core.say(true, format!("going on without a slave since LSN {}", core.commit), out);
        }
        match self.feed().map(|feed| feed.stage) {
            Some(Stage::Widening { target, version }) if version <= saved => {
                self.register_or_invite(core, target, out);
            }
            Some(Stage::Resuming { version }) => self.resume(core, version, out),
            _ => {}
        }
        None
    }

    /// R3: `Alone` is on disk before anything is committed without the slave.
    pub(crate) fn shrink(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        // The right that is being given away cannot be taken alone.
        if self.has_given_up() {
            return;
        }
        if !self.is_saving_alone() {
            #[cfg(test)]
            if broken::is(Broken::ShrinksUnasked) {
                return self.save_alone(core, out);
            }
            if core.has_arbiter() {
                self.ask_to_shrink(core, false);
            } else {
                self.save_alone(core, out);
            }
        }
    }

    pub(crate) fn save_alone(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        core.view.standing = Standing::Alone { epoch: self.epoch, since: core.commit };
        self.saving = Saving::Shrink { version: core.save(out) };
        #[cfg(test)]
        if broken::is(Broken::AloneEarly) {
            self.sole = true;
        }
    }

    pub(crate) fn is_shrinking(&self) -> bool {
        self.saving != Saving::None
    }

    pub(crate) fn is_saving_alone(&self) -> bool {
        matches!(self.saving, Saving::Shrink { .. })
    }

    /// The in-sync slave is gone, silent or useless: the policy decides (docs/replication.md section 2).
    pub(crate) fn slave_failed(
        &mut self,
        core: &mut Core,
        why: &str,
        out: &mut Vec<Output>,
    ) -> Next {
        // A slave that looks on would take the hello of the in-sync state for the present.
        core.drop_spoken(None, out);
        self.peer = Peer::None;
        if core.policy().stops_without_slave {
            let text = format!("{why}; shutdown_on_slave_failure is set: this master stops");
            core.say(true, text.clone(), out);
            core.release_lease(self.epoch, out);
            return Some(State::stop(Ok(text), out));
        }
        core.say(true, format!("{why}: going on alone"), out);
        self.shrink(core, out);
        None
    }
}
