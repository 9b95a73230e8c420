//! Switchover: the slave agrees, the master drains, gives up its right on disk, and tells the in-sync slave to lead
//! (docs/replication.md section 10). A crash or a lost message in between leaves the slave in-sync and this
//! node lagging: then the slave leads at their next meeting, or takes over as its policy allows.

use crate::pair::core::Core;
use crate::pair::feed::{Feed, Stage};
use crate::pair::idle::Idle;
use crate::pair::lead::{Lead, Peer};
use crate::pair::message::Message;
use crate::pair::state::State;
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::view::Standing;
use crate::{DiskSpace, Output};

/// A switchover for the disk's sake that was abandoned is tried again after so long: clients are shut
/// out meanwhile.
const FULL_RETRY_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Handing {
    No,
    /// Clients are shut out; what they asked for is being committed. `agreed`: the slave will not
    /// give up its claim, so that not both do.
    Draining {
        until_ms: u64,
        agreed: bool,
    },
    /// `Lagging` is being saved; there is no way back.
    GivingUp {
        version: u64,
    },
}

impl Handing {
    pub(crate) fn until_ms(self) -> Option<u64> {
        match self {
            Self::Draining { until_ms, .. } => Some(until_ms),
            Self::No | Self::GivingUp { .. } => None,
        }
    }

    pub(crate) fn agree(&mut self) {
        if let Self::Draining { agreed, .. } = self {
            *agreed = true;
        }
    }
}

impl Lead {
    pub(crate) fn hand_over(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        let ready = self.open && !self.is_stopping() && self.handing == Handing::No;
        let Some(feed) = self.feed().filter(|feed| ready && feed.stage == Stage::Synced) else {
            core.say(true, "switchover refused: the slave is not in-sync".into(), out);
            return;
        };
        core.send(feed.link, &Message::HandoverAsk { epoch: self.epoch }, out);
        core.say(false, "switchover: clients are shut out".into(), out);
        let until_ms = core.now_ms + core.config.suspect_ms;
        self.handing = Handing::Draining { until_ms, agreed: false };
        self.close(Some(core.peer_client_addresses.clone()), out);
    }

    /// The slave leads on while this node can still write that down; once it cannot, commits wait for
    /// room, and with them everybody. Not to a slave that is low itself, which would hand back.
    pub(crate) fn hand_over_if_full(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        let has_room = |feed: &Feed| feed.low_on_space == Some(false);
        let is_full = core.space == DiskSpace::Full && self.full_again_ms <= core.now_ms;
        let may = self.open && !self.is_stopping() && self.handing == Handing::No;
        if is_full && may && self.slave_is_synced() && self.feed().is_some_and(has_room) {
            self.full_again_ms = core.now_ms + FULL_RETRY_MS;
            let text = "the disk is nearly full, and the slave's is not: it is to lead";
            core.say(true, text.into(), out);
            self.hand_over(core, out);
        }
    }

    fn slave_is_synced(&self) -> bool {
        self.feed().is_some_and(|feed| feed.stage == Stage::Synced)
    }

    pub(crate) fn has_given_up(&self) -> bool {
        matches!(self.handing, Handing::GivingUp { .. })
    }

    /// From here on nothing more is sealed, so the slave's log is the whole log.
    pub(crate) fn hand_over_if_drained(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        let drained = core.commit == core.log.appended && self.slave_is_synced();
        if !matches!(self.handing, Handing::Draining { agreed: true, .. }) || !drained {
            return;
        }
        core.view.standing = Standing::Lagging { epoch: self.epoch };
        self.handing = Handing::GivingUp { version: core.save(out) };
        #[cfg(test)]
        if let (true, Some(feed)) = (broken::is(Broken::HandsOverEarly), self.feed()) {
            core.send(feed.link, &Message::Handover { epoch: self.epoch }, out);
        }
        out.push(Output::Follow);
    }

    /// The right is given up on disk (R4): the slave may take it.
    pub(crate) fn handed_over(&mut self, core: &mut Core, out: &mut Vec<Output>) -> State {
        core.say(false, format!("epoch {} is handed over", self.epoch), out);
        core.release_lease(self.epoch, out);
        if let Peer::Attached(feed) = &self.peer {
            core.send(feed.link, &Message::Handover { epoch: self.epoch }, out);
            core.drop_link(feed.link, out);
        }
        core.drop_spoken(None, out);
        State::Idle(Idle::starting(core))
    }

    /// The switchover cannot be carried through: clients come in again.
    pub(crate) fn stay(&mut self, core: &mut Core, why: &str, out: &mut Vec<Output>) {
        if matches!(self.handing, Handing::Draining { .. }) {
            self.handing = Handing::No;
            core.say(true, format!("switchover abandoned: {why}"), out);
        }
    }

    pub(crate) fn stay_if_late(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        if self.handing.until_ms().is_some_and(|until| until <= core.now_ms) {
            self.stay(core, "the slave did not confirm everything in time", out);
        }
    }
}
