//! Hands the outputs of a turn to the shells, in the order that they rely on.

use super::{Caller, Driver, OVERVIEW_INTERVAL_MS};
use crate::handle::{DigestJson, RepairJson};
use crate::node::{Input, LogJob, Node};
use crate::reader::ReadJob;
use crate::state_writer::StateJob;
use std::sync::Arc;
use understudy_model::{Effect, Group, Lsn, Text};

impl Driver {
    /// # Errors
    /// The log cannot be written.
    pub(super) fn carry_out(&mut self, now_ms: u64, caller: Caller) -> Result<(), String> {
        for (warn, text) in self.turn.outputs.notices.drain(..) {
            if warn {
                tracing::warn!("{text}");
            } else {
                tracing::info!("{text}");
            }
        }
        self.send_log_jobs();
        self.send_to_peer();
        self.ask_arbiter();
        self.send_reads();
        self.send_effects(caller);
        self.publish(now_ms);
        let turn = &mut self.turn;
        let out = &mut turn.outputs;
        if !out.save.is_empty() || out.save_ends.is_some() {
            let slices = std::mem::take(&mut out.save);
            self.shells.state.send(StateJob::Save { slices, ends: out.save_ends.take() });
        }
        turn.outcome = out.stop.take();
        // What was handed out goes ahead of the disk, whosever thread this is.
        if (caller == Caller::Driver || !turn.woke_tasks)
            && let Some(group) = turn.lone.take()
        {
            self.commit_lone(group)?;
        }
        Ok(())
    }

    pub(super) fn commit_lone(&mut self, group: Group) -> Result<(), String> {
        if self.shells.log.commit_inline(&group)? {
            self.turn.done.push(Input::Durable { through: group.last() });
        } else {
            self.shells.log.send(LogJob::Append(group));
        }
        Ok(())
    }

    fn send_log_jobs(&mut self) {
        let jobs = &mut self.turn.outputs.log;
        // Nothing else to do: then a lone group is committed here, after all the rest.
        let lone = jobs.len() == 1 && self.events.is_empty() && self.clients.is_empty();
        for job in jobs.drain(..) {
            match job {
                LogJob::Append(group) if lone => self.turn.lone = Some(group),
                // The state of a copy is on disk before the log says that it begins there.
                LogJob::SetBase { at, chain, state } => {
                    self.shells.state.send(StateJob::Replace { state, at, chain });
                }
                LogJob::Reset { set_aside } => {
                    self.shells.log.send(LogJob::Reset { set_aside });
                    self.shells.state.send(StateJob::Clear);
                }
                job => self.shells.log.send(job),
            }
        }
    }

    fn send_to_peer(&mut self) {
        let Some(peer) = &self.shells.peer else { return };
        let turn = &mut self.turn;
        for (link, pieces) in turn.outputs.send.drain(..) {
            let woke_its_task = !peer.send(link, pieces);
            turn.woke_tasks |= woke_its_task;
            turn.woke_others |= woke_its_task;
        }
        turn.outputs.hang_up.drain(..).for_each(|link| peer.hang_up(link));
        if let Some(address) = turn.outputs.dial.take() {
            peer.dial(&address);
        }
    }

    fn ask_arbiter(&mut self) {
        let calls = self.turn.outputs.ask_arbiter.drain(..);
        if let Some(arbiter) = &self.shells.arbiter {
            calls.for_each(|(serial, call)| arbiter.ask(serial, call));
        }
    }

    fn send_reads(&mut self) {
        let out = &mut self.turn.outputs;
        for read in out.reads.drain(..) {
            self.shells.reader.send(ReadJob::Ahead(read));
        }
        if let Some((after, bytes_max)) = out.read_groups.take() {
            self.shells.reader.send(ReadJob::Groups { after, bytes_max });
        }
        for (link, id, wanted) in out.fetch_reads.drain(..) {
            self.shells.reader.send(ReadJob::Fetch { link, id, wanted });
        }
        if let Some(lsns) = out.snapshot_read.take() {
            self.shells.reader.send(ReadJob::Snapshot { lsns });
        }
    }

    fn send_effects(&mut self, caller: Caller) {
        let turn = &mut self.turn;
        turn.woke_tasks |= !turn.outputs.effects.is_empty();
        for (connection, effects) in std::mem::take(&mut turn.outputs.effects) {
            if caller == Caller::Task(Some(connection)) {
                turn.own_effects.extend(effects);
                continue;
            }
            turn.woke_others = true;
            // A connection that has gone meanwhile needs nothing any more.
            if let Some(client) = turn.connections.get(&connection) {
                let _ = client.effects.send(effects);
            }
        }
        match turn.outputs.frontends.take() {
            Some(true) => {
                self.shells.serving.send_replace(true);
            }
            Some(false) => {
                self.shells.serving.send_replace(false);
                let moved = turn.outputs.successor.take();
                let moved = moved.map(|addresses| Effect::Moved { addresses });
                let reason = Text::from_static("this node is no longer the master");
                let last: Vec<_> = moved.into_iter().chain([Effect::Close { reason }]).collect();
                for (_, client) in std::mem::take(&mut turn.connections) {
                    let _ = client.effects.send(last.clone());
                }
            }
            None => {}
        }
        if std::mem::take(&mut turn.outputs.users_changed) {
            let users = self.node.broker().users().cloned().collect();
            self.shells.users.send_replace(Arc::new(users));
        }
    }

    fn publish(&mut self, now_ms: u64) {
        let turn = &mut self.turn;
        let status = self.node.status();
        let state = (status.state, self.node.is_serving());
        let fresh = state != turn.last_state;
        if !fresh && now_ms < turn.overview_at_ms + OVERVIEW_INTERVAL_MS {
            turn.overview_due = true;
            return;
        }
        turn.overview_due = false;
        turn.overview_at_ms = now_ms;
        turn.last_state = state;
        let counts = self.node.broker().counts();
        let appended_bytes = self.node.appended_bytes();
        let slave_behind = if status.role == "master" {
            turn.lag.note(now_ms, self.node.appended(), appended_bytes);
            let slave_has = (status.peer_durable > 0).then_some(Lsn(status.peer_durable));
            turn.lag.behind(slave_has)
        } else {
            turn.lag.forget();
            None
        };
        self.shells.overview.send_modify(|overview| {
            let overview = Arc::make_mut(overview);
            overview.name.clone_from(&self.name);
            overview.serving = self.node.is_serving();
            overview.connections = counts.connections;
            overview.consumers = counts.consumers;
            overview.queues = counts.queues;
            overview.messages = counts.unsettled;
            overview.messages_ready = counts.ready;
            overview.messages_unacked = counts.unsettled.saturating_sub(counts.ready);
            overview.disk_alarm = self.node.is_low_on_space();
            overview.repair = repair(&self.node);
            overview.digest = digest(&self.node);
            overview.applied = self.node.applied().0;
            overview.appended = self.node.appended().0;
            overview.durable = self.node.durable().0;
            overview.appended_bytes = appended_bytes;
            overview.masterships = self.node.masterships();
            overview.slave_behind = slave_behind;
            overview.traffic.clone_from(self.node.broker().traffic());
            overview.replication = status;
        });
    }
}

fn digest(node: &Node) -> DigestJson {
    let differs = node.differs();
    DigestJson {
        compared: node.compared(),
        differs: differs.map_or_else(String::new, |(at, part)| format!("{part:?} at LSN {at}")),
        differs_at: differs.map(|(at, _)| at.0),
    }
}

fn repair(node: &Node) -> RepairJson {
    RepairJson {
        damaged: node.damaged().count() as u64,
        first: node.damaged().next().map_or_else(String::new, |damage| damage.to_string()),
        repaired: node.repaired(),
    }
}
