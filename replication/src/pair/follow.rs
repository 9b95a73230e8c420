//! The slave: accept an epoch, bring the own log in line, append what comes, acknowledge.

use crate::pair::core::{Core, Log};
use crate::pair::exporting::Exporting;
use crate::pair::hello::Hello;
use crate::pair::idle::Idle;
use crate::pair::message::{Chunk, Message, Position};
use crate::pair::plan::{Plan, plan};
use crate::pair::state::{Next, State, rejected};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::view::Standing;
use crate::{LinkId, LogEnd, Output, SnapshotCursor};
use bytes::Bytes;
use understudy_model::{Epoch, Group, Lsn};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// The promise is being saved (R1); then the log is cut, if need be.
    Accepting {
        version: u64,
        cut: Option<Lsn>,
    },
    Cutting,
    /// The log is a prefix of the leader's and takes over its history, which is being saved.
    Adopting {
        version: u64,
    },
    /// The promise is being saved; then the leader gets what it lacks.
    Promising {
        version: u64,
        common: Lsn,
    },
    Exporting(Exporting),
    /// "A copy has begun" is being saved, before anything is wiped.
    Clearing {
        version: u64,
        set_aside: bool,
    },
    Copying {
        set_aside: bool,
    },
    Installing,
    Tail,
    /// `Synced` is being saved (R4).
    Joining {
        version: u64,
    },
    Synced,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Follow {
    pub(crate) link: LinkId,
    leader: Hello,
    pub(crate) epoch: Epoch,
    pub(crate) stage: Stage,
    leader_commit: Lsn,
    pub(crate) heard_ms: u64,
    /// Stopping: the standing is being given up.
    leaving: Option<u64>,
    /// Agreed to take over from the master: the claim is not given up any more.
    heir: bool,
}

impl Follow {
    /// `leader` sits in its epoch, and the meeting said to follow it.
    pub(crate) fn begin(
        core: &mut Core,
        link: LinkId,
        leader: Hello,
        out: &mut Vec<Output>,
    ) -> State {
        let epoch = leader.leading.unwrap_or_default();
        let mut follow = Self {
            link,
            epoch,
            stage: Stage::Synced,
            leader_commit: Lsn::ZERO,
            heard_ms: core.now_ms,
            leaving: None,
            heir: false,
            leader,
        };
        let plan = plan(core, &follow.leader);
        // By what was said: the arbiter may have told, since this node was in-sync, that it was left
        // behind, and the leader goes by the hello.
        let said = core.links.get(link).and_then(|known| known.mine.as_ref());
        let member = core.view.standing.is_synced(epoch)
            && said.is_some_and(|mine| mine.standing.is_synced(epoch))
            && follow.leader.standing.is_synced(epoch);
        if member && plan == Plan::Continue {
            core.say(false, format!("back in-sync with the master of epoch {epoch}"), out);
            // A master leads an epoch with one process and its settings, so the view has its flags and
            // address since `accept`.
            core.adopt_peer(&follow.leader);
            follow.send_position(core, out);
        } else {
            follow.accept(core, plan, out);
        }
        core.dialer.wanted = false;
        State::Follow(Box::new(follow))
    }

    /// Everything of the new epoch waits until the promise is on disk (R1). From then on this node
    /// cannot lead until it is in-sync again.
    fn accept(&mut self, core: &mut Core, plan: Plan, out: &mut Vec<Output>) {
        core.say(false, format!("following the master of epoch {}: {plan:?}", self.epoch), out);
        core.adopt_peer(&self.leader);
        core.view.cluster = self.leader.cluster;
        core.view.promised = self.epoch;
        core.view.standing = Standing::Lagging { epoch: self.epoch };
        self.stage = match plan {
            Plan::Continue => {
                core.view.history = self.leader.history.clone();
                Stage::Accepting { version: core.save(out), cut: None }
            }
            // The leader's history would vouch for the tail that is to be cut; it comes after.
            Plan::Cut { after } => Stage::Accepting { version: core.save(out), cut: Some(after) },
            Plan::Export { common } => {
                let text = format!(
                    "this node committed commands from {common} to {} that the master of epoch {} \
                     does not have: it gets them",
                    core.commit, self.epoch
                );
                core.say(true, text, out);
                Stage::Promising { version: core.save(out), common }
            }
            Plan::Copy { set_aside } => self.clear(core, set_aside, out),
        };
    }

    fn clear(&self, core: &mut Core, set_aside: bool, out: &mut Vec<Output>) -> Stage {
        if set_aside {
            let text = "what is here is set aside and a whole copy is taken".to_owned();
            core.say(true, text, out);
        }
        Stage::Clearing { version: core.disown_log(set_aside, out), set_aside }
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.stage {
            Stage::Synced => "in-sync",
            Stage::Joining { .. } => "joining",
            Stage::Tail => "syncing",
            Stage::Promising { .. } | Stage::Exporting(_) => "exporting",
            Stage::Clearing { .. } | Stage::Copying { .. } | Stage::Installing => "copying",
            _ => "meeting",
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.stage == Stage::Synced
    }

    pub(crate) fn leader_last(&self) -> Lsn {
        self.leader.last.max(self.leader_commit)
    }

    pub(crate) fn deadline_ms(&self, core: &Core) -> Option<u64> {
        Some(self.heard_ms + core.config.suspect_ms)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some() || self.heir
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.stage, Stage::Tail | Stage::Joining { .. } | Stage::Synced)
    }

    fn send_position(&self, core: &Core, out: &mut Vec<Output>) {
        let position = Position {
            epoch: self.epoch,
            last: core.log.appended,
            chain: core.log.chain,
            durable: core.log.durable,
            copy: matches!(self.stage, Stage::Copying { .. }),
            taken: core.taken(self.epoch),
            synced: self.stage == Stage::Synced,
        };
        core.send(self.link, &Message::Position(position), out);
    }

    pub(crate) fn tick(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if self.heard_ms + core.config.suspect_ms > core.now_ms {
            return None;
        }
        core.say(true, "the master is silent".into(), out);
        core.drop_link(self.link, out);
        Some(self.lost(core, out))
    }

    /// The link ended: who leads now is open.
    pub(crate) fn lost(&self, core: &mut Core, out: &mut Vec<Output>) -> State {
        if self.leaving.is_some() {
            return State::stop(Ok("asked to stop".into()), out);
        }
        core.say(true, format!("lost the master of epoch {}", self.epoch), out);
        State::Idle(Idle::orphan(core, self.heard_ms))
    }

    pub(crate) fn view_saved(
        &mut self,
        core: &mut Core,
        saved: u64,
        out: &mut Vec<Output>,
    ) -> Next {
        if let Some(next) = self.leave(core, out) {
            return Some(next);
        }
        match self.stage {
            Stage::Accepting { version, cut: Some(after) } if version <= saved => {
                core.log_changes = true;
                out.push(Output::Truncate { after });
                self.stage = Stage::Cutting;
            }
            Stage::Accepting { version, cut: None } | Stage::Adopting { version }
                if version <= saved =>
            {
                self.stage = Stage::Tail;
                self.send_position(core, out);
            }
            Stage::Promising { version, common } if version <= saved => {
                self.stage = Stage::Exporting(Exporting::begin(core, common, out));
            }
            Stage::Clearing { version, set_aside } if version <= saved => {
                self.stage = Stage::Copying { set_aside };
                self.send_position(core, out);
            }
            Stage::Joining { version } if version <= saved && self.leaving.is_none() => {
                self.stage = Stage::Synced;
                core.paired = true;
                core.say(false, format!("in-sync in epoch {}", self.epoch), out);
                core.send(self.link, &Message::InSyncOk { epoch: self.epoch }, out);
            }
            _ => {}
        }
        None
    }

    /// The log now ends where the leader's begins to differ, or holds the whole copy.
    pub(crate) fn log_changed(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        if matches!(self.stage, Stage::Cutting | Stage::Installing) {
            core.view.history = self.leader.history.clone();
            core.view.copying = None;
            self.stage = Stage::Adopting { version: core.save(out) };
        }
    }

    pub(crate) fn durable(&mut self, core: &mut Core, out: &mut Vec<Output>) {
        if self.is_streaming() {
            self.ack(core, out);
            self.advance(core, out);
        }
    }

    fn ack(&self, core: &Core, out: &mut Vec<Output>) {
        let (durable, low) = (core.log.durable, core.is_low_on_space());
        core.send(self.link, &Message::Ack { epoch: self.epoch, durable, low }, out);
    }

    pub(crate) fn space_changed(&self, core: &Core, out: &mut Vec<Output>) {
        if self.is_streaming() {
            self.ack(core, out);
        }
    }

    /// Both are ends of groups of the same log, so the lower one is, too.
    fn advance(&self, core: &mut Core, out: &mut Vec<Output>) {
        core.commit_through(self.leader_commit.min(core.log.durable), out);
    }

    /// SIGTERM on a slave: give up the claim on disk, then say so (docs/replication.md section 10).
    pub(crate) fn stopping(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if self.heir {
            // The master may have given up its right already; somebody must keep one.
            return Some(State::stop(Ok("asked to stop".into()), out));
        }
        if matches!(core.view.standing, Standing::Synced { .. }) {
            core.view.standing = Standing::Lagging { epoch: self.epoch };
            core.save(out);
        }
        // Given up in memory is not enough: the save may be on its way since earlier.
        self.leaving = Some(core.version());
        self.leave(core, out)
    }

    fn leave(&self, core: &Core, out: &mut Vec<Output>) -> Next {
        let saved = core.saved();
        #[cfg(test)]
        let saved = if broken::is(Broken::LeavesEarly) { u64::MAX } else { saved };
        if self.leaving? > saved {
            return None;
        }
        core.send(self.link, &Message::Goodbye { epoch: self.epoch }, out);
        Some(State::stop(Ok("asked to stop".into()), out))
    }

    pub(crate) fn message(
        &mut self,
        core: &mut Core,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Next {
        self.heard_ms = core.now_ms;
        match message {
            Message::Group { epoch, commit, group } if epoch == self.epoch => {
                self.group(core, commit, group, out)
            }
            Message::Beat { epoch, commit } if epoch == self.epoch => {
                let (durable, low) = (core.log.durable, core.is_low_on_space());
                core.send(self.link, &Message::BeatOk { epoch, durable, low }, out);
                if self.is_streaming() {
                    self.leader_commit = self.leader_commit.max(commit);
                    self.advance(core, out);
                }
                None
            }
            Message::ExportAck { epoch } if epoch == self.epoch => {
                if let Stage::Exporting(exporting) = &mut self.stage
                    && exporting.acked(core, out)
                {
                    self.stage = self.clear(core, true, out);
                }
                None
            }
            Message::Chunk(chunk) if chunk.epoch == self.epoch => self.chunk(core, chunk, out),
            Message::NeedCopy { epoch, diverged } if epoch == self.epoch && self.is_streaming() => {
                self.stage = self.clear(core, diverged && core.commit > Lsn::ZERO, out);
                None
            }
            Message::InSync { epoch, at } if epoch == self.epoch => self.in_sync(core, at, out),
            Message::Goodbye { epoch } if epoch == self.epoch => {
                core.drop_link(self.link, out);
                if self.leaving.is_some() {
                    return Some(self.lost(core, out));
                }
                Some(Idle::bereaved(core, out))
            }
            Message::HandoverAsk { epoch } if epoch == self.epoch => {
                // One that leaves says goodbye instead.
                if self.is_synced() && self.leaving.is_none() {
                    self.heir = true;
                    core.send(self.link, &Message::HandoverOk { epoch }, out);
                }
                None
            }
            Message::Handover { epoch } if epoch == self.epoch && self.heir => {
                core.drop_link(self.link, out);
                Some(Idle::heir(core, out))
            }
            Message::Reject { code, leads, promised } => {
                core.heard_of(promised);
                core.drop_link(self.link, out);
                let next = self.lost(core, out);
                rejected(core, code, leads, out).or(Some(next))
            }
            _ => self.break_off(core, "an unexpected message", out),
        }
    }

    /// What comes does not fit: begin again from what is durable here.
    fn break_off(&mut self, core: &mut Core, why: &str, out: &mut Vec<Output>) -> Next {
        core.say(true, format!("link to the master dropped: {why}"), out);
        core.drop_link(self.link, out);
        Some(self.lost(core, out))
    }

    fn group(&mut self, core: &mut Core, commit: Lsn, bytes: Bytes, out: &mut Vec<Output>) -> Next {
        if !self.is_streaming() {
            return self.break_off(core, "a group that was not asked for", out);
        }
        let group = Group::decode(bytes).and_then(|group| {
            group.verify_chain(core.log.chain)?;
            Ok(group)
        });
        let group = match group {
            Ok(group) if group.first() == core.log.appended.next() => group,
            Ok(_) => return self.break_off(core, "a gap in the log", out),
            Err(error) => return self.break_off(core, &error.to_string(), out),
        };
        core.log.append(&group);
        out.push(Output::Append(group));
        self.leader_commit = self.leader_commit.max(commit);
        self.advance(core, out);
        None
    }

    fn chunk(&mut self, core: &mut Core, chunk: Chunk, out: &mut Vec<Output>) -> Next {
        let Stage::Copying { set_aside } = self.stage else {
            return self.break_off(core, "a copy that was not asked for", out);
        };
        if !core.takes(&chunk) {
            return self.break_off(core, "a gap in the copy", out);
        }
        core.copies.chunk(chunk.first, chunk.bytes.len());
        if chunk.first {
            core.log = Log::ending(LogEnd::default());
            core.commit = Lsn::ZERO;
        }
        if chunk.last {
            core.log_changes = true;
            self.stage = Stage::Installing;
        }
        out.push(Output::InstallSnapshot {
            first: chunk.first,
            last: chunk.last,
            set_aside: chunk.first && set_aside,
            number: chunk.number,
            at: chunk.at,
            chain: chunk.chain,
            chunk: chunk.bytes,
        });
        None
    }

    /// A part of the export was read.
    pub(crate) fn export_read(
        &mut self,
        core: &mut Core,
        producer: u128,
        bytes: Bytes,
        next: Option<SnapshotCursor>,
        out: &mut Vec<Output>,
    ) {
        core.copy_read = false;
        if let Stage::Exporting(exporting) = &mut self.stage
            && let Some((first, common)) = exporting.read(core, next, out)
        {
            let last = next.is_none();
            let epoch = self.epoch;
            let chunk = Chunk { epoch, first, last, number: 0, at: common, chain: producer, bytes };
            core.send(self.link, &Message::Export(chunk), out);
        }
    }

    /// R4: the leader requires our acks already, and has given up its exclusive right on disk.
    fn in_sync(&mut self, core: &mut Core, at: Lsn, out: &mut Vec<Output>) -> Next {
        if self.stage != Stage::Tail || core.log.durable < at {
            return self.break_off(core, "in-sync before the log was complete", out);
        }
        if self.leaving.is_none() {
            core.view.standing = Standing::Synced { epoch: self.epoch, led: false };
            self.stage = Stage::Joining { version: core.save(out) };
        }
        None
    }
}
