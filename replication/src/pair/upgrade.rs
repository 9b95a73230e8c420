//! Two programs of different versions in one pair: the slave is upgraded first, then the roles are
//! swapped, then the other node. Both speak the highest protocol that both know, and nothing is
//! written into the log that one of them cannot read: a feature is switched on by a command in the
//! log, once an in-sync pair supports it, and from then on a program without it is refused.

use crate::Output;
use crate::pair::core::Core;
use crate::pair::feed::Stage;
use crate::pair::hello::Hello;
use crate::pair::lead::Lead;

/// Versions of the protocol between the nodes that a program speaks, from the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols {
    pub least: u64,
    pub most: u64,
}

impl Protocols {
    /// A change of any message's meaning is a new version; a new field at the end of the hello is
    /// none.
    pub const OWN: Self = Self { least: 1, most: 1 };

    pub(crate) fn agree_with(self, other: Self) -> Option<u64> {
        let version = self.most.min(other.most);
        (version >= self.least.max(other.least)).then_some(version)
    }
}

/// Whether each of both can read what the other's log may hold.
pub(crate) fn can_pair(one: &Hello, other: &Hello) -> bool {
    one.features.contains(other.features_on) && other.features.contains(one.features_on)
}

impl Lead {
    /// Features that both support and the log does not have yet. Asked for once in a mastership: the
    /// command may still be on its way.
    pub(crate) fn switch_on(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        if !self.open {
            return;
        }
        let Some(feed) = self.feed().filter(|feed| feed.stage == Stage::Synced) else { return };
        let Some(theirs) = core.links.theirs(feed.link) else { return };
        let both = core.config.features.and(theirs.features);
        let fresh = both.without(core.features_on).without(self.asked_for);
        if fresh.is_empty() {
            return;
        }
        self.asked_for = self.asked_for.with(fresh);
        core.say(false, format!("both nodes support features {fresh}: switched on"), out);
        out.push(Output::SwitchOn { features: fresh });
    }
}
