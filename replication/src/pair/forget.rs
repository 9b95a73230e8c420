//! The operator says that the slave is gone for good: its place is free for a new node, and the node
//! that had it is refused from now on, whatever it did meanwhile.

use crate::Output;
use crate::pair::config::Policy;
use crate::pair::core::Core;
use crate::pair::handing::Handing;
use crate::pair::lead::{Lead, Peer};
use understudy_model::Text;

impl Lead {
    /// `force`: even if it is attached, or was lost just now.
    pub(crate) fn forget_slave(
        &mut self,
        core: &mut Core,
        force: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        if self.is_stopping() || self.handing != Handing::No {
            return Err("this master is about to stop or to hand over");
        }
        let attached = self.feed().and_then(|feed| core.links.theirs(feed.link));
        // Said again, with force, when the arbiter's answer is not to be waited for.
        let again = core.view.forgotten.filter(|_| !self.sole);
        let Some(slave) = attached.map(|theirs| theirs.node).or(core.view.peer).or(again) else {
            return Err("this master knows no slave");
        };
        if !force && !matches!(self.peer, Peer::None) {
            return Err("the slave is attached; --force drops it and does without its copy");
        }
        core.say(true, format!("the operator has node {slave} forgotten"), out);
        core.drop_spoken(None, out);
        self.peer = Peer::None;
        core.view.forgotten = Some(slave);
        core.view.peer = None;
        core.view.peer_address = Text::default();
        core.view.peer_policy = Policy::default();
        if !self.sole {
            // The operator's word stands above the policy: it is to go on.
            self.shrink(core, out);
            if force && core.has_arbiter() && !self.is_saving_alone() {
                self.ask_to_shrink(core, true);
            }
        }
        core.save(out);
        Ok(())
    }
}
