//! The master: what is committed, whose acks count, and what to do without a slave.

use crate::pair::copying::Copying;
use crate::pair::core::Core;
use crate::pair::feed::{Feed, Stage};
use crate::pair::handing::Handing;
use crate::pair::message::Message;
use crate::pair::readmission::Readmission;
use crate::pair::recent::Recent;
use crate::pair::state::{Next, State};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::{LinkId, Output};
use understudy_model::{Epoch, Features, Group, Lsn, Text};

/// So many times `suspect_ms` a slave may take for each step of catching up.
const CATCH_UP_LIMITS: u64 = 5;

#[derive(Clone, Debug, Hash)]
pub(crate) enum Peer {
    None,
    /// The in-sync slave is away and nothing is committed until that is decided (hold).
    Lost {
        until_ms: u64,
        acked: Lsn,
        progress_ms: u64,
    },
    Attached(Box<Feed>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Saving {
    None,
    /// The arbiter is asked whether the slave may be left behind; then as below.
    Asking,
    /// `Alone` (R3).
    Shrink {
        version: u64,
    },
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Lead {
    pub(crate) epoch: Epoch,
    /// The disk says `Alone`: what is durable here may be committed without a slave (R3).
    pub(crate) sole: bool,
    /// [`Output::Lead`] is due.
    pub(crate) announce: bool,
    pub(crate) peer: Peer,
    pub(crate) recent: Recent,
    /// Features that were asked to be switched on.
    pub(crate) asked_for: Features,
    /// A whole copy in the making, for the slave that is attached or was lost just now.
    pub(crate) copying: Option<Copying>,
    pub(crate) readmission: Readmission,
    /// Publishers wait because the slave's disk runs out of room.
    spares_slave: bool,
    pub(crate) saving: Saving,
    pub(crate) handing: Handing,
    /// When a disk that is full is a reason to hand over again.
    pub(crate) full_again_ms: u64,
    /// End of the group of `NewEpoch`, once it is sealed.
    pub(crate) opens_at: Option<Lsn>,
    pub(crate) open: bool,
    /// Clients are let in only once a slave is in-sync.
    waits_for_slave: bool,
    /// When waiting for a slave ends the process.
    wait_until_ms: Option<u64>,
    /// Asked to stop; when to do so at the latest.
    stopping_ms: Option<u64>,
}

impl Lead {
    /// The right to lead `epoch` is on disk; the peer on `link` has promised.
    pub(crate) fn begin(
        core: &mut Core,
        epoch: Epoch,
        link: Option<LinkId>,
        out: &mut Vec<Output>,
    ) -> State {
        let timeout = core.config.wait_for_slave_timeout_ms;
        let mut lead = Self {
            epoch,
            sole: true,
            announce: true,
            peer: Peer::None,
            recent: Recent::default(),
            asked_for: Features::NONE,
            copying: None,
            readmission: Readmission::default(),
            spares_slave: false,
            saving: Saving::None,
            handing: Handing::No,
            full_again_ms: 0,
            opens_at: None,
            open: false,
            waits_for_slave: core.config.wait_for_slave && !core.paired,
            wait_until_ms: (core.config.wait_for_slave && !core.paired && timeout > 0)
                .then(|| core.now_ms + timeout),
            stopping_ms: None,
        };
        // The node has forgotten a copy that was being read.
        core.copy_read = false;
        core.reinjecting = false;
        core.dialer.slow_down(core.now_ms);
        core.say(false, format!("leading epoch {epoch} behind LSN {}", core.log.appended), out);
        if let Some(link) = link {
            core.greet(link, Some(epoch), None, out);
            lead.peer = Peer::Attached(Box::new(Feed::new(core, link, epoch, None)));
        }
        State::Lead(Box::new(lead))
    }

    pub(crate) fn feed(&self) -> Option<&Feed> {
        match &self.peer {
            Peer::Attached(feed) => Some(feed),
            Peer::None | Peer::Lost { .. } => None,
        }
    }

    pub(crate) fn state(&self) -> &'static str {
        match &self.peer {
            _ if self.handing != Handing::No => "handing-over",
            Peer::None if self.waits_for_slave && !self.open => "waiting",
            _ if !self.open && self.stopping_ms.is_none() => "starting",
            Peer::None if self.sole => "alone",
            Peer::None | Peer::Lost { .. } => "holding",
            Peer::Attached(feed) => match feed.stage {
                Stage::Synced => "in-sync",
                _ if feed.is_required() => "joining",
                _ => "syncing",
            },
        }
    }

    pub(crate) fn retain_after(&self) -> Option<Lsn> {
        let peer = match &self.peer {
            Peer::None => None,
            Peer::Lost { acked, .. } => Some(*acked),
            Peer::Attached(feed) => Some(feed.retain_after()),
        };
        let copying = self.copying.as_ref().map(|copying| copying.floor);
        peer.into_iter().chain(copying).min()
    }

    pub(crate) fn sealed(&mut self, core: &mut Core, group: Group) {
        if let Peer::Attached(feed) = &mut self.peer
            && feed.acked() >= core.log.appended
        {
            // Only from now on is there something to make progress with.
            feed.progress_ms = core.now_ms;
        }
        core.log.append(&group);
        self.opens_at.get_or_insert(group.last());
        self.recent.push(group);
    }

    /// Everything that follows from the cursors; after each input.
    pub(crate) fn advance(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if let Some(next) = self.pump(core, out) {
            return Some(next);
        }
        self.widen(core, out);
        if let Some(through) = self.committable(core) {
            core.commit_through(through, out);
        }
        let sent = self.feed().map_or(core.log.appended, Feed::sent);
        self.recent.trim(core.log.durable, sent, core.config.window_bytes_max);
        let begun = self.opens_at.is_some_and(|lsn| lsn <= core.commit);
        let may_open = core.paired || !core.config.wait_for_slave;
        self.hand_over_if_full(core, out);
        self.hand_over_if_drained(core, out);
        let stays = self.stopping_ms.is_none() && self.handing == Handing::No;
        if begun && may_open && !self.open && stays && self.holds_role(core) {
            self.open = true;
            self.wait_until_ms = None;
            out.push(Output::OpenFrontends);
        }
        self.spare_slave(core, out);
        self.switch_on(core, out);
        self.stop_if_done(core, out)
    }

    /// A slave that commits wait for must not run full: then it would be a failed one.
    fn spare_slave(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        let is_low = |feed: &Feed| feed.low_on_space == Some(true) && feed.is_required();
        let low = self.feed().is_some_and(is_low);
        if low != self.spares_slave {
            self.spares_slave = low;
            let text = if low { "low on disk" } else { "not low on disk any more" };
            core.say(low, format!("the slave is {text}"), out);
            out.push(Output::SlaveSpace { low });
        }
    }

    /// R2. None: held, the in-sync slave's part is missing.
    fn committable(&self, core: &Core) -> Option<Lsn> {
        #[cfg(test)]
        if broken::is(Broken::AnswersEarly) {
            return Some(core.log.durable);
        }
        match &self.peer {
            Peer::Attached(feed) if feed.is_required() => Some(core.log.durable.min(feed.acked())),
            _ => self.sole.then_some(core.log.durable),
        }
    }

    /// The in-sync slave is back without its claim, by its hello, and has not confirmed that; nothing
    /// is committed.
    pub(crate) fn awaits_claim(&self) -> bool {
        let lacks_claim = self.feed().is_some_and(|feed| !feed.is_required());
        lacks_claim && !self.sole && !self.is_shrinking()
    }

    fn pump(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        let Peer::Attached(feed) = &mut self.peer else { return None };
        match feed.pump(core, &self.recent, out) {
            Ok(()) => None,
            Err(unfit) => self.unfit(core, unfit, out),
        }
    }

    /// The slave's link ended.
    pub(crate) fn lost(&mut self, core: &mut Core, link: LinkId, out: &mut Vec<Output>) {
        let Peer::Attached(feed) = &self.peer else { return };
        if feed.link != link {
            return;
        }
        self.hold_copy(core);
        if self.has_given_up() {
            self.peer = Peer::None;
            return;
        }
        self.stay(core, "the slave's link is lost", out);
        let Peer::Attached(feed) = &self.peer else { return };
        let (acked, progress_ms) = (feed.acked().max(core.commit), feed.progress_ms);
        let waiting = feed.lacks(core);
        if self.sole || self.is_shrinking() {
            core.say(true, "the slave's link is lost".into(), out);
            core.dialer.slow_down(core.now_ms);
            self.peer = Peer::None;
            return;
        }
        core.say(true, "the in-sync slave's link is lost: nothing is answered for now".into(), out);
        core.dialer.investigate(core.now_ms);
        // A slave that comes back again and again without progress is not waited for for ever.
        let since_ms = if waiting { progress_ms } else { core.now_ms };
        let until_ms = since_ms + core.config.suspect_ms;
        self.peer = Peer::Lost { until_ms, acked, progress_ms };
    }

    pub(crate) fn dial_failed(
        &mut self,
        core: &mut Core,
        refused: bool,
        out: &mut Vec<Output>,
    ) -> Next {
        if refused && matches!(self.peer, Peer::Lost { .. }) {
            return self.slave_failed(core, "the slave's process is gone", out);
        }
        None
    }

    /// See `Pair::awoke`.
    pub(crate) fn awoke(&mut self, core: &Core) {
        match &mut self.peer {
            Peer::None => {}
            Peer::Lost { until_ms, .. } => {
                *until_ms = (*until_ms).max(core.now_ms + core.config.suspect_ms);
            }
            Peer::Attached(feed) => {
                feed.heard_ms = core.now_ms;
                feed.progress_ms = core.now_ms;
            }
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if self.has_given_up() {
            core.dialer.wanted = false;
            return None;
        }
        let limit = core.config.suspect_ms;
        let now = core.now_ms;
        self.stay_if_late(core, out);
        if let Some(next) = self.keep_role(core, out) {
            return Some(next);
        }
        self.give_up_held_copy(core);
        let awaits_chunks = self.awaits_chunks();
        let awaits_claim = self.awaits_claim();
        if let Peer::Attached(feed) = &mut self.peer {
            feed.beat(core, out);
            let silent = feed.heard_ms + limit <= now;
            let stuck = (feed.lacks(core) || awaits_claim) && feed.progress_ms + limit <= now;
            // Nothing waits for it but the log, which is kept for it.
            let owes = !feed.is_required() && (feed.owes() || awaits_chunks);
            let idle = owes && feed.progress_ms + CATCH_UP_LIMITS * limit <= now;
            if silent || stuck || idle {
                let link = feed.link;
                core.drop_link(link, out);
                self.lost(core, link, out);
                if let Peer::Lost { until_ms, .. } = &mut self.peer {
                    *until_ms = now;
                }
            }
        }
        if matches!(self.peer, Peer::Lost { until_ms, .. } if until_ms <= now) {
            self.readmission.failed(now);
            return self.slave_failed(core, "the slave is silent or makes no progress", out);
        }
        if self.wait_until_ms.is_some_and(|until| until <= now) && !core.paired {
            let text = "no slave became in-sync within wait_for_slave_timeout".to_owned();
            core.say(true, text.clone(), out);
            return Some(State::stop(Err(text), out));
        }
        core.dialer.wanted = match &self.peer {
            Peer::None => self.sole && core.view.peer.is_some(),
            Peer::Lost { .. } => true,
            Peer::Attached(_) => false,
        };
        None
    }

    pub(crate) fn deadline_ms(&self, core: &Core) -> Option<u64> {
        let limit = core.config.suspect_ms;
        if self.has_given_up() {
            return None;
        }
        let peer = match &self.peer {
            Peer::None => None,
            Peer::Lost { until_ms, .. } => Some(*until_ms),
            Peer::Attached(feed) => {
                let waits = feed.lacks(core) || self.awaits_claim();
                let stuck = waits.then_some(feed.progress_ms + limit);
                Some(feed.beat_ms.min(feed.heard_ms + limit).min(stuck.unwrap_or(u64::MAX)))
            }
        };
        let lease = self.role_until_ms(core).filter(|_| self.open);
        [lease, peer, self.wait_until_ms, self.stopping_ms, self.handing.until_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// SIGTERM on a master: no more clients, then goodbye once the slave has everything.
    pub(crate) fn stopping(&mut self, core: &Core, out: &mut Vec<Output>) {
        if self.stopping_ms.is_none() {
            if !self.has_given_up() {
                self.handing = Handing::No;
            }
            self.stopping_ms = Some(core.now_ms + core.config.suspect_ms);
            self.close(None, out);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping_ms.is_some()
    }

    /// `successor`: where clients find the node that leads next.
    pub(crate) fn close(&mut self, successor: Option<Text>, out: &mut Vec<Output>) {
        if self.open {
            self.open = false;
            out.push(Output::CloseFrontends { successor });
        }
    }

    fn stop_if_done(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        let until_ms = self.stopping_ms?;
        let waits = self.feed().is_some_and(Feed::is_required) && core.commit < core.log.appended;
        if waits && until_ms > core.now_ms {
            return None;
        }
        if let Some(feed) = self.feed() {
            let goodbye = Message::Goodbye { epoch: self.epoch };
            core.send(feed.link, &goodbye, out);
        }
        core.release_lease(self.epoch, out);
        Some(State::stop(Ok("asked to stop".into()), out))
    }

    /// A higher epoch is known, so this one is over.
    pub(crate) fn step_down(
        &mut self,
        core: &mut Core,
        keep: Option<LinkId>,
        out: &mut Vec<Output>,
    ) {
        core.say(true, format!("epoch {} is over: stepping down", self.epoch), out);
        core.drop_spoken(keep, out);
        self.close(None, out);
        // The node forgets a copy that was being read.
        core.copy_read = false;
        out.push(Output::Follow);
    }
}
