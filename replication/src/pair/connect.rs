//! Links as they come and go: hellos said and heard, which of two links to the same peer is kept, and
//! which state is told what comes over one.

use crate::pair::code::Code;
use crate::pair::machine::Pair;
use crate::pair::meeting::prefer_new;
use crate::pair::message::Message;
use crate::pair::state::{Next, State, rejected};
use crate::pair::upgrade::misfit;
use crate::{LinkId, Output};
use bytes::Bytes;

impl Pair {
    pub(super) fn dial(&mut self, out: &mut Vec<Output>) {
        if !self.core.links.is_empty() || matches!(self.state, State::Stopped) {
            return;
        }
        let Some(address) = self.core.peer_address() else { return };
        if self.core.dialer.start(self.core.now_ms) {
            out.push(Output::Dial { address });
        }
    }

    pub(super) fn dial_failed(&mut self, refused: bool, out: &mut Vec<Output>) -> Next {
        let tells = self.core.dial_ended();
        // A link that came up meanwhile is better news.
        if !tells || !self.core.links.is_empty() {
            return None;
        }
        match &mut self.state {
            State::Idle(idle) => idle.dial_failed(&mut self.core, refused, out),
            State::Lead(lead) => lead.dial_failed(&mut self.core, refused, out),
            State::Follow(_) | State::Stopped => None,
        }
    }

    pub(super) fn greet(&mut self, out: &mut Vec<Output>) {
        if !self.core.is_settled() {
            return;
        }
        let leading = self.leading();
        let attached = self.session().and_then(|link| self.core.links.theirs(link));
        let attached = attached.map(|theirs| theirs.node);
        for link in self.core.links.silent() {
            self.core.greet(link, leading, attached, out);
        }
    }

    /// The link that the present state depends on.
    fn session(&self) -> Option<LinkId> {
        match &self.state {
            State::Idle(idle) => idle.link(),
            State::Follow(follow) => Some(follow.link),
            State::Lead(lead) => lead.feed().map(|feed| feed.link),
            State::Stopped => None,
        }
    }

    /// `link` is no more; the caller has removed it.
    pub(super) fn lost(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let next = match &mut self.state {
            State::Follow(follow) if follow.link == link => Some(follow.lost(&mut self.core, out)),
            State::Idle(idle) => {
                idle.lost(&mut self.core, link);
                None
            }
            State::Lead(lead) => {
                lead.lost(&mut self.core, link, out);
                None
            }
            State::Follow(_) | State::Stopped => None,
        };
        self.enter(next);
    }

    pub(super) fn received(&mut self, link: LinkId, frame: &Bytes, out: &mut Vec<Output>) -> Next {
        let known = self.core.links.get_mut(link)?;
        let first = known.theirs.is_none();
        match Message::decode(frame, self.core.config.protocols) {
            Ok(Message::Hello(hello)) if first => {
                known.theirs = Some(*hello);
                None
            }
            Ok(Message::Foreign { protocols: theirs, leads }) => {
                let own = self.core.config.protocols;
                let text = format!(
                    "the peer speaks protocol versions {} to {}, this node {} to {}",
                    theirs.least, theirs.most, own.least, own.most
                );
                out.push(Output::Log { warn: true, text });
                let i_lead = self.leads();
                self.core.reject(link, Code::Version, i_lead, out);
                self.lost(link, out);
                if i_lead { None } else { rejected(&mut self.core, Code::Version, leads, out) }
            }
            Ok(message @ Message::Reject { .. }) => self.message(link, message, out),
            Ok(message) if !first => self.message(link, message, out),
            Ok(_) => self.hang_up(link, "a message before the hello", out),
            Err(malformed) => self.hang_up(link, &malformed.to_string(), out),
        }
    }

    fn hang_up(&mut self, link: LinkId, why: &str, out: &mut Vec<Output>) -> Next {
        self.core.say(true, format!("link dropped: {why}"), out);
        self.core.drop_link(link, out);
        self.lost(link, out);
        None
    }

    fn message(&mut self, link: LinkId, message: Message, out: &mut Vec<Output>) -> Next {
        let message = match message {
            Message::Fetch(question) => {
                self.asked(link, question, out);
                return None;
            }
            Message::Fetched(answer) => {
                self.answered(link, answer, out);
                return None;
            }
            Message::Digest(comparison) => {
                self.compared(link, comparison, out);
                return None;
            }
            message => message,
        };
        let core = &mut self.core;
        match &mut self.state {
            State::Idle(idle) => idle.message(core, link, message, out),
            State::Follow(follow) if follow.link == link => follow.message(core, message, out),
            State::Lead(lead) => lead.message(core, link, message, out),
            State::Follow(_) | State::Stopped => {
                core.drop_link(link, out);
                None
            }
        }
    }

    /// Both hellos of `link` are there.
    pub(super) fn meet(&mut self, link: LinkId, out: &mut Vec<Output>) {
        if let Some(known) = self.core.links.get_mut(link) {
            known.met = true;
        }
        let greeted = self.core.links.get(link).and_then(|known| known.greeted());
        if let Some(text) = greeted.and_then(|both| misfit(both.mine, both.theirs)) {
            self.core.say(true, text, out);
        }
        if !self.may_meet(link, out) {
            return;
        }
        let core = &mut self.core;
        let next = match &mut self.state {
            State::Idle(idle) => idle.met(core, link, out),
            State::Lead(lead) => lead.met(core, link, out),
            // Only a link that replaces the master's is met, and that ends following.
            State::Follow(_) | State::Stopped => {
                core.drop_link(link, out);
                None
            }
        };
        self.enter(next);
    }

    /// Settles which of two links to the same peer is kept, and refuses a second peer.
    fn may_meet(&mut self, link: LinkId, out: &mut Vec<Output>) -> bool {
        let leads = self.leads();
        let session = self.session().filter(|session| *session != link);
        let core = &mut self.core;
        let Some(new) = core.links.get(link).and_then(|known| known.greeted()) else {
            return false;
        };
        // The peer decides by what was said; if that is not so any more, say it anew.
        let stands = new.mine.standing == core.standing_to_say(leads)
            && new.mine.leading.is_some() == leads
            && core.arbiter_is_settled();
        if let Some(old_link) = session
            && let Some(old) = core.links.get(old_link).and_then(|known| known.greeted())
        {
            if old.theirs.node != new.theirs.node {
                let text =
                    format!("node {} refused: {}", new.theirs.node, Code::SlotTaken.explain());
                core.say(true, text, out);
                core.reject(link, Code::SlotTaken, leads, out);
                return false;
            }
            if !prefer_new(old, new) {
                core.drop_link(link, out);
                return false;
            }
            core.drop_link(old_link, out);
            self.lost(old_link, out);
        }
        if !stands {
            self.core.drop_link(link, out);
        }
        stands
    }
}
