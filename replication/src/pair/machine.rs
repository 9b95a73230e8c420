//! The backend itself: one match on inputs, and what follows from every one of them.

use crate::pair::config::{PairConfig, Survival};
use crate::pair::core::{Core, Log};
use crate::pair::idle::Idle;
use crate::pair::state::{Next, State};
use crate::pair::view::{Standing, ViewError};
use crate::{Backend, Boot, Input, LogEnd, Output, Status};
use understudy_model::{Epoch, Features, Lsn};

/// One node of a master and slave pair. Holds the rules R1 to R9 of docs/replication.md section 4.
#[derive(Clone)]
pub struct Pair {
    pub(crate) core: Core,
    pub(crate) state: State,
}

impl Pair {
    /// A node starts from what its disk says (docs/replication.md sections 2 and 3): `Alone` leads
    /// at once in a new epoch; every other standing follows until a meeting or the policy says
    /// otherwise.
    ///
    /// # Errors
    /// The view record is unreadable or belongs to something else.
    pub fn new(boot: &Boot, config: PairConfig, out: &mut Vec<Output>) -> Result<Self, ViewError> {
        let mut core = Core::new(boot, config)?;
        if !matches!(core.view.standing, Standing::Alone { .. }) {
            out.push(Output::Follow);
        }
        if core.commit > Lsn::ZERO {
            out.push(Output::Commit { through: core.commit });
        }
        if let Some(why) = &boot.damaged {
            // The claim is given up, so the other node leads, and has all that was answered.
            core.disown_log(true, out);
            core.say(true, format!("{why}: a whole copy is taken from the other node"), out);
        }
        let state = State::Idle(Idle::starting(&mut core));
        let mut pair = Self { core, state };
        let has_arbiter = pair.core.has_arbiter();
        let text = format!(
            "node {} starts, {}; policy {}{}",
            pair.core.view.node,
            pair.core.view.standing,
            pair.core.policy().name(),
            match pair.core.policy().name() {
                _ if has_arbiter => ", the arbiter decides who leads",
                "both" =>
                    ": a cut between living nodes can leave two masters, whose messages are \
                           merged later; shutdown_on_master_failure, shutdown_on_slave_failure or \
                           an arbiter rules that out",
                _ => "",
            }
        );
        pair.core.say(pair.core.policy().name() == "both" && !has_arbiter, text, out);
        pair.finish(out);
        Ok(pair)
    }

    pub(super) fn enter(&mut self, next: Next) {
        // What a stopped node is told does not matter any more.
        if let (Some(state), false) = (next, matches!(self.state, State::Stopped)) {
            self.state = state;
        }
    }

    pub(super) fn leads(&self) -> bool {
        matches!(self.state, State::Lead(_))
    }

    /// What follows from every input: greet, meet, let time and cursors have their say, dial.
    fn finish(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, State::Stopped) {
            return;
        }
        let limit = self.core.config.suspect_ms;
        for link in self.core.links.overdue(self.core.now_ms, limit).0 {
            self.core.drop_link(link, out);
        }
        self.end_fetch_of_lost_link(out);
        self.greet(out);
        while let Some(link) = self.core.links.to_meet() {
            self.meet(link, out);
        }
        self.tick(out);
        self.ask_arbiter(out);
        if let State::Lead(lead) = &mut self.state {
            let next = lead.advance(&mut self.core, out);
            self.enter(next);
        }
        self.dial(out);
        if let State::Lead(lead) = &mut self.state
            && lead.announce
        {
            // Last, because the node answers with the sealed group before it reads on.
            lead.announce = false;
            out.push(Output::Lead { epoch: lead.epoch, leader: self.core.view.node });
        }
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        let core = &mut self.core;
        let next = match &mut self.state {
            State::Idle(idle) => idle.tick(core, out),
            State::Follow(follow) => follow.tick(core, out),
            State::Lead(lead) => lead.tick(core, out),
            State::Stopped => None,
        };
        if next.is_some() {
            self.enter(next);
            // The new state decides at once whether to dial.
            self.tick(out);
        }
    }

    pub(super) fn leading(&self) -> Option<Epoch> {
        match &self.state {
            State::Lead(lead) => Some(lead.epoch),
            _ => None,
        }
    }

    fn ask_arbiter(&mut self, out: &mut Vec<Output>) {
        if matches!(self.state, State::Stopped) {
            return;
        }
        self.core.ask_arbiter(self.leading(), out);
        let Some(verdict) = self.core.take_verdict() else { return };
        let core = &mut self.core;
        let next = match &mut self.state {
            State::Idle(idle) => idle.judged(core, verdict, out),
            State::Lead(lead) => lead.judged(core, verdict, out),
            State::Follow(_) | State::Stopped => None,
        };
        self.enter(next);
        // A refusal leaves something else to ask, or nothing.
        self.tick(out);
    }

    fn log_changed(&mut self, log: LogEnd, out: &mut Vec<Output>) {
        self.core.log = Log::ending(log);
        self.core.log_changes = false;
        self.core.view.history.truncate_after(log.last);
        if let State::Follow(follow) = &mut self.state {
            follow.log_changed(&mut self.core, out);
        }
    }

    fn view_saved(&mut self, version: u64, out: &mut Vec<Output>) -> Next {
        let core = &mut self.core;
        core.view_saved(version);
        core.disk_ms = Some(core.now_ms);
        match &mut self.state {
            State::Idle(idle) => idle.view_saved(core, version, out),
            State::Follow(follow) => follow.view_saved(core, version, out),
            State::Lead(lead) => lead.view_saved(core, version, out),
            State::Stopped => None,
        }
    }

    /// This node did not run for a while (a stopped process, a frozen machine, a hung disk), so
    /// what it did not hear meanwhile says nothing about its peer: that may have gone on without
    /// it, and is looked for before silence counts again.
    fn awoke(&mut self) {
        // Nor is a write that it did not see the end of a disk that hangs.
        self.core.disk_ms = self.core.disk_ms.map(|_| self.core.now_ms);
        let core = &self.core;
        match &mut self.state {
            State::Idle(idle) => idle.awoke(core),
            State::Follow(follow) => follow.heard_ms = core.now_ms,
            State::Lead(lead) => lead.awoke(core),
            State::Stopped => {}
        }
    }

    fn stopping(&mut self, out: &mut Vec<Output>) -> Next {
        match &mut self.state {
            State::Idle(_) => Some(State::stop(Ok("asked to stop".into()), out)),
            State::Follow(follow) => follow.stopping(&mut self.core, out),
            State::Lead(lead) => {
                lead.stopping(&self.core, out);
                None
            }
            State::Stopped => None,
        }
    }

    fn input(&mut self, input: Input, out: &mut Vec<Output>) -> Next {
        match input {
            Input::Linked { link, dialed } => {
                if dialed {
                    self.core.dial_ended();
                }
                self.core.links.add(link, dialed, self.core.now_ms);
            }
            Input::Received { link, frame } => return self.received(link, &frame, out),
            Input::LinkLost { link } => {
                if self.core.links.remove(link) {
                    self.lost(link, out);
                }
            }
            Input::DialFailed { refused } => return self.dial_failed(refused, out),
            Input::Sealed(group) => {
                if let State::Lead(lead) = &mut self.state {
                    lead.sealed(&mut self.core, group);
                }
            }
            Input::Durable { through } => {
                self.core.log.set_durable(through);
                self.core.disk_ms = Some(self.core.now_ms);
                if let State::Follow(follow) = &mut self.state {
                    follow.durable(&mut self.core, out);
                }
            }
            Input::ViewSaved { version } => return self.view_saved(version, out),
            Input::GroupsRead { after, groups } => {
                if let State::Lead(lead) = &mut self.state {
                    return lead.groups_read(&mut self.core, after, groups, out);
                }
            }
            Input::Truncated { log } => self.log_changed(log, out),
            Input::Reclaimed { base } => self.core.log.base = self.core.log.base.max(base),
            Input::SnapshotRead { at, chain, chunk, next } => {
                let core = &mut self.core;
                match &mut self.state {
                    State::Lead(lead) => lead.chunk_read(core, (at, chain), chunk, next, out),
                    State::Follow(follow) => follow.export_read(core, chain, chunk, next, out),
                    State::Idle(_) | State::Stopped => core.copy_read = false,
                }
            }
            Input::Space { left } => {
                self.core.space = left;
                if let State::Follow(follow) = &self.state {
                    follow.space_changed(&self.core, out);
                }
            }
            Input::ChunkStored { at, number } => {
                if let State::Follow(follow) = &self.state {
                    follow.chunks_stored(&self.core, at, number + 1, out);
                }
            }
            Input::Reinjected => {
                if let State::Lead(lead) = &self.state {
                    lead.reinjected(&mut self.core, out);
                }
            }
            Input::Installed { log } => {
                self.core.commit = log.last;
                self.log_changed(log, out);
            }
            Input::ArbiterAnswered { serial, answer } => self.core.arbiter_answered(serial, answer),
            Input::HandOver => self.hand_over(out),
            Input::Promote { force } => self.promote(force, out),
            Input::Resync => return self.resync(out),
            Input::Fetch { id, wanted } => self.fetch(id, wanted, out),
            Input::Compare(digest) => self.compare(digest, out),
            Input::FetchRead { link, id, found } => self.fetch_read(link, id, found, out),
            Input::ForgetSlave { force } => self.forget_slave(force, out),
            Input::Stopping => return self.stopping(out),
            Input::Tick => {}
        }
        None
    }
}

impl Backend for Pair {
    fn handle(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        if matches!(self.state, State::Stopped) {
            return;
        }
        let due_ms = self.deadline_ms();
        self.core.now_ms = self.core.now_ms.max(now_ms);
        let oversleep_ms = self.core.config.suspect_ms / 2;
        if due_ms.is_some_and(|due_ms| due_ms + oversleep_ms < now_ms) {
            self.awoke();
        }
        let next = self.input(input, out);
        self.enter(next);
        self.finish(out);
    }

    fn deadline_ms(&self) -> Option<u64> {
        let core = &self.core;
        let state = match &self.state {
            State::Idle(idle) => idle.deadline_ms(core),
            State::Follow(follow) => follow.deadline_ms(core),
            State::Lead(lead) => lead.deadline_ms(core),
            State::Stopped => return None,
        };
        let may_dial = core.links.is_empty() && core.peer_address().is_some();
        let dial = if may_dial { core.dialer.deadline_ms() } else { None };
        let greeting = core.links.overdue(core.now_ms, core.config.suspect_ms).1;
        let arbiter = core.arbiter_deadline_ms(self.leading());
        [state, dial, greeting, arbiter].into_iter().flatten().min()
    }

    fn retain_after(&self) -> Option<Lsn> {
        match &self.state {
            State::Lead(lead) => lead.retain_after(),
            _ => None,
        }
    }

    fn features_on(&mut self, features: Features) {
        self.core.features_on = features;
    }

    fn status(&self) -> Status {
        let core = &self.core;
        let (role, state, in_sync, peer_durable) = match &self.state {
            State::Idle(idle) => {
                ("slave", idle.state(core.view.copying.is_some()), false, Lsn::ZERO)
            }
            State::Follow(follow) => {
                ("slave", follow.state(), follow.is_synced(), follow.leader_last())
            }
            State::Lead(lead) => {
                let acked = lead.feed().map_or(Lsn::ZERO, |feed| feed.acked());
                ("master", lead.state(), lead.state() == "in-sync", acked)
            }
            State::Stopped => ("slave", "stopped", false, Lsn::ZERO),
        };
        let ahead = match &self.state {
            State::Lead(_) => core.log.appended.0.saturating_sub(peer_durable.0),
            _ => peer_durable.0.saturating_sub(core.log.durable.0),
        };
        Status {
            role,
            state,
            epoch: core.view.promised.number,
            node_id: core.view.node.to_string(),
            cluster_id: core.view.cluster.map_or_else(String::new, |id| format!("{id:032x}")),
            peer_node_id: core.view.peer.map_or_else(String::new, |peer| peer.to_string()),
            peer_address: core.peer_address().map_or_else(String::new, |text| text.to_string()),
            forgotten_node_id: core
                .view
                .forgotten
                .map_or_else(String::new, |node| node.to_string()),
            in_sync,
            slave_takes_over: self.leads() && in_sync && core.policy().orphan() == Survival::Lead,
            durable: core.log.durable.0,
            commit: core.commit.0,
            peer_durable: peer_durable.0,
            lag: ahead,
            arbiter: core.arbiter_state(),
            copies_begun: core.copies.begun,
            copied_bytes: core.copies.bytes,
            saved: core.is_saved(),
            reason: core.reason.clone(),
        }
    }
}
