//! Two programs of different versions in one pair: the slave is upgraded first, then the roles are
//! swapped, then the other node. Both speak the highest protocol that both know, and nothing is
//! written into the log that one of them cannot read: a feature is switched on by a command in the
//! log, once an in-sync pair supports it, and from then on a program without it is refused.

use crate::Output;
use crate::pair::core::Core;
use crate::pair::feed::Stage;
use crate::pair::hello::Hello;
use crate::pair::lead::Lead;
use understudy_model::Features;

/// Versions of the protocol between the nodes that a program speaks, from the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols {
    pub least: u64,
    pub most: u64,
}

impl Protocols {
    /// A change of any message's meaning is a new version; a new field at the end of the hello is
    /// none. 2: the queue list of an enqueue begins with its length in bytes.
    pub const OWN: Self = Self { least: 2, most: 2 };

    pub(crate) fn agree_with(self, other: Self) -> Option<u64> {
        let version = self.most.min(other.most);
        (version >= self.least.max(other.least)).then_some(version)
    }
}

/// Whether each of both can read what the other's log may hold.
pub(crate) fn can_pair(one: &Hello, other: &Hello) -> bool {
    lacks(one, other).is_empty() && lacks(other, one).is_empty()
}

/// What `reader` does not know of what the log of `writer` may hold.
fn lacks(reader: &Hello, writer: &Hello) -> Features {
    writer.features_on.without(reader.features)
}

/// For the operator: which features keep the two apart, if any do.
pub(crate) fn misfit(mine: &Hello, theirs: &Hello) -> Option<String> {
    let (own, peers) = (lacks(mine, theirs), lacks(theirs, mine));
    match (own.is_empty(), peers.is_empty()) {
        (true, true) => None,
        (false, _) => Some(format!(
            "the log of node {} needs features {own}, which this program does not know: it is older",
            theirs.node
        )),
        (true, false) => Some(format!(
            "this node's log needs features {peers}, which the program of node {} does not know: it \
             is older",
            theirs.node
        )),
    }
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
