//! The master's side of its links: meetings and what the slave says.

use crate::pair::code::Code;
use crate::pair::core::Core;
use crate::pair::feed::{Feed, Stage, Unfit};
use crate::pair::follow::Follow;
use crate::pair::hello::Hello;
use crate::pair::idle::Idle;
use crate::pair::lead::{Lead, Peer, Saving};
use crate::pair::meeting::{Meeting, meet};
use crate::pair::message::Message;
use crate::pair::state::{Next, State};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::{LinkId, Output};
use understudy_model::{Epoch, Group, Lsn};

impl Lead {
    pub(crate) fn met(&mut self, core: &mut Core, link: LinkId, out: &mut Vec<Output>) -> Next {
        let known = core.links.get(link)?;
        let (mine, theirs) = (known.mine.clone()?, known.theirs.clone()?);
        core.heard_of(theirs.promised);
        match meet(&mine, &theirs) {
            Meeting::Lead => {
                let synced = |hello: &Hello| hello.standing.is_synced(self.epoch);
                let resumes = synced(&mine)
                    && synced(&theirs)
                    && core.view.standing.is_synced(self.epoch)
                    && !self.is_saving_alone();
                self.attach(core, link, resumes.then_some(&theirs), out);
                #[cfg(test)]
                if broken::is(Broken::TrustsHello) {
                    self.came_back_without_claim(core, out);
                }
                None
            }
            Meeting::Follow => {
                self.step_down(core, Some(link), out);
                Some(Follow::begin(core, link, theirs, out))
            }
            Meeting::Renew => {
                self.step_down(core, None, out);
                Some(State::Idle(Idle::starting(core)))
            }
            Meeting::Wait(_) => {
                core.drop_link(link, out);
                None
            }
            Meeting::Reject(code) => {
                let text = format!("node {} refused: {}", theirs.node, code.explain());
                core.say(true, text, out);
                core.reject(link, code, true, out);
                None
            }
        }
    }

    /// What the slave exported is committed here, so that it may forget it.
    pub(crate) fn reinjected(&self, core: &mut Core, out: &mut Vec<Output>) {
        // The answer may be for a link that is gone.
        if std::mem::take(&mut core.reinjecting)
            && let Some(feed) = self.feed()
        {
            core.send(feed.link, &Message::ExportAck { epoch: self.epoch }, out);
        }
    }

    /// `resumes`: the hello of a slave that is in-sync already. Its process may be a new one, started with
    /// other settings.
    fn attach(
        &mut self,
        core: &mut Core,
        link: LinkId,
        resumes: Option<&Hello>,
        out: &mut Vec<Output>,
    ) {
        core.reinjecting = false;
        let version = resumes.map(|theirs| {
            self.slave_is_back(core);
            core.keep_peer(theirs, out)
        });
        let mut feed = Feed::new(core, link, self.epoch, version);
        if let (Some(_), Peer::Lost { progress_ms, acked, .. }) = (version, &self.peer)
            && *acked < core.log.appended
        {
            feed.progress_ms = *progress_ms;
        }
        self.peer = Peer::Attached(Box::new(feed));
    }

    /// What came back has given up its claim on disk, so the right is free to take. Its hello is no
    /// proof of that: links may cross, and it may have been told on the other one since that it is
    /// in-sync. Once it has spoken as this link's follower, it does not listen to another.
    fn came_back_without_claim(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        if self.awaits_claim() {
            self.shrink(core, out);
        }
        // Nobody else can lead, so what the arbiter has forgotten need not be known (seed 330 of the
        // simulator: a master and its slave waited for ever).
        if self.saving == Saving::Asking && self.feed().is_some_and(|feed| !feed.is_required()) {
            self.ask_to_shrink(core, true);
        }
    }

    pub(crate) fn message(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Next {
        if let Message::Reject { code, promised, .. } = message {
            return self.refused(core, link, code, promised, out);
        }
        let Peer::Attached(feed) = &mut self.peer else {
            return self.nonsense(core, link, out);
        };
        if feed.link != link {
            return self.nonsense(core, link, out);
        }
        feed.heard_ms = core.now_ms;
        let sensible = match message {
            Message::Position(position) => match feed.position(core, &position) {
                Ok(true) => {
                    let stage = feed.stage;
                    match stage {
                        Stage::Copying => self.begin_copy(core, link, position.taken, out),
                        Stage::Resuming { version } => self.resume(core, version, out),
                        _ => {}
                    }
                    if stage != Stage::Copying {
                        self.copying = None;
                    }
                    self.came_back_without_claim(core, out);
                    true
                }
                Ok(false) => false,
                Err(unfit) => return self.unfit(core, unfit, out),
            },
            Message::Ack { epoch, durable, low } => {
                feed.low_on_space = Some(low);
                epoch == self.epoch && feed.reported(core, durable)
            }
            Message::BeatOk { epoch, low, .. } => {
                feed.low_on_space = Some(low);
                feed.contact.answered();
                epoch == self.epoch
            }
            Message::Export(chunk) if chunk.epoch == self.epoch && feed.stage == Stage::Greeted => {
                core.reinjecting = true;
                self.came_back_without_claim(core, out);
                if chunk.first {
                    let text = "the returning node had gone on alone: its messages are taken over";
                    core.say(true, text.into(), out);
                }
                out.push(Output::Reinject {
                    first: chunk.first,
                    last: chunk.last,
                    common: chunk.at,
                    producer: chunk.chain,
                    chunk: chunk.bytes,
                });
                true
            }
            Message::ChunkAck { epoch, chunks } if epoch == self.epoch => {
                self.chunks_stored(core, chunks, out)
            }
            Message::InSyncOk { epoch } if epoch == self.epoch && feed.stage == Stage::Inviting => {
                feed.stage = Stage::Synced;
                self.in_sync(core, out);
                true
            }
            Message::HandoverOk { epoch } if epoch == self.epoch => {
                self.handing.agree();
                true
            }
            Message::Goodbye { epoch } if epoch == self.epoch => {
                self.stay(core, "the slave leaves", out);
                self.left(core, link, out);
                true
            }
            _ => false,
        };
        if sensible { None } else { self.nonsense(core, link, out) }
    }

    /// R8: who calls the pair in-sync may rely on a policy that neither disk forgets.
    pub(crate) fn resume(&mut self, core: &mut Core, version: u64, out: &mut Vec<Output>) {
        if version <= core.saved()
            && let Peer::Attached(feed) = &mut self.peer
        {
            feed.stage = Stage::Synced;
            self.in_sync(core, out);
            self.keep_registered(core);
        }
    }

    fn in_sync(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        core.paired = true;
        self.readmission.synced(core.now_ms);
        let policy = core.policy().name();
        let text = format!("the slave is in-sync in epoch {}, policy {policy}", self.epoch);
        core.say(false, text, out);
    }

    fn nonsense(&mut self, core: &mut Core, link: LinkId, out: &mut Vec<Output>) -> Next {
        core.drop_link(link, out);
        self.lost(core, link, out);
        None
    }

    fn refused(
        &mut self,
        core: &mut Core,
        link: LinkId,
        code: Code,
        promised: Epoch,
        out: &mut Vec<Output>,
    ) -> Next {
        core.heard_of(promised);
        core.drop_link(link, out);
        self.lost(core, link, out);
        if code == Code::StaleEpoch && promised > self.epoch {
            self.step_down(core, None, out);
            return Some(State::Idle(Idle::starting(core)));
        }
        core.say(true, format!("the peer refuses: {}", code.explain()), out);
        None
    }

    /// The slave's process ends, and its disk says that its copy is out of date from now on: it can lead
    /// nowhere, so this is no failure, and the master serves on under every policy
    /// (docs/replication.md section 10).
    fn left(&mut self, core: &mut Core, link: LinkId, out: &mut Vec<Output>) {
        core.say(true, "the slave has said goodbye".into(), out);
        core.drop_link(link, out);
        self.peer = Peer::None;
        if !self.sole {
            self.shrink(core, out);
        }
    }

    /// The slave's log cannot be continued from this one: a whole copy, if nothing depends on it.
    pub(crate) fn unfit(&mut self, core: &mut Core, unfit: Unfit, out: &mut Vec<Output>) -> Next {
        let Peer::Attached(feed) = &mut self.peer else { return None };
        if feed.is_required() || !self.sole {
            let link = feed.link;
            core.drop_link(link, out);
            self.lost(core, link, out);
            if let Peer::Lost { .. } = self.peer {
                return self.slave_failed(core, "the slave's log does not continue", out);
            }
            return None;
        }
        feed.need_copy(core, unfit, out);
        None
    }

    pub(crate) fn groups_read(
        &mut self,
        core: &mut Core,
        after: Lsn,
        groups: Vec<Group>,
        out: &mut Vec<Output>,
    ) -> Next {
        let Peer::Attached(feed) = &mut self.peer else { return None };
        match feed.groups_read(core, after, groups, out) {
            Ok(()) => None,
            Err(unfit) => self.unfit(core, unfit, out),
        }
    }
}
