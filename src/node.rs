//! One node of the broker, sans-io: the deterministic core, the replication backend, and what is
//! between sealing and commit. The driver moves it; the simulator runs the very same code.
//!
//! A turn is any number of [`Node::on_input`] and one [`Node::end_turn`].

mod alarm;
#[cfg(test)]
pub(crate) mod alone;
mod commit_delay;
mod compare;
mod copy;
mod effects;
pub(crate) mod features;
mod order;
mod reading;
mod reinject;
mod repair;
mod rules;
mod saving;
mod sealing;
mod turn;

use self::alarm::Alarm;
pub use self::alarm::AlarmPolicy;
use self::commit_delay::CommitDelay;
use self::compare::Comparisons;
use self::effects::push_effect;
use self::order::SessionOrder;
use self::reinject::Reinjection;
pub use self::repair::Blocked;
use self::repair::Repairs;
use self::sealing::LAZY_SEAL_MS;
pub use self::turn::{Input, LogJob, Outputs};
use crate::cache::Cache;
use crate::inflight::Inflight;
use crate::upkeep::Upkeep;
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy_broker::{Broker, ConfiguredUser, Decided, Limits, Slice};
use understudy_model::{
    Command, ConnectionId, Digest, Epoch, Features, Group, Lsn, NewEpoch, NodeId, UserRecord,
};
use understudy_replication::{Backend, Input as BackendInput, Output as BackendOutput, Status};

#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub limits: Limits,
    /// A group is sealed at this size even while the writer is busy.
    pub group_bytes_max: usize,
    /// Least time between commits for publishers who send on without waiting; 0: none.
    pub commit_interval_ms: u64,
    pub cache_bytes_max: usize,
    pub alarm_policy: AlarmPolicy,
    /// State is saved after so many bytes of log.
    pub save_after_bytes: u64,
    /// So much log behind the last save is kept for a slave that comes back.
    pub retain_bytes: u64,
    /// What this program can read.
    pub features: Features,
    /// The next part of the state is compared with the slave's after so long; 0: never.
    pub digest_interval_ms: u64,
    pub users: Vec<ConfiguredUser>,
    /// Made in a store without users if no users are configured.
    pub default_user: UserRecord,
}

pub struct Node {
    options: NodeOptions,
    broker: Broker,
    backend: Box<dyn Backend>,
    inflight: Inflight,
    commit_delay: CommitDelay,
    cache: Cache,
    sessions: BTreeMap<ConnectionId, SessionOrder>,
    upkeep: Upkeep,
    alarm: Alarm,
    repairs: Repairs,
    comparisons: Comparisons,
    /// State on disk holds at least everything through here.
    saved_through: Lsn,
    /// Requests that wait for commits. Those that wait for room are not counted: who sent them is
    /// not read, and consumers, who make room, must be.
    held_bytes: usize,
    leading: Option<Epoch>,
    /// How often the node began to lead since the start.
    masterships: u64,
    serving: bool,
    /// Since when settles wait for a group, milliseconds.
    lazy_since_ms: Option<u64>,
    /// Chain hash at the applied LSN.
    applied_chain: u128,
    /// Slices of a copy that is being installed.
    installing: Option<Vec<(Bytes, Bytes)>>,
    /// What a returning node had committed alone is being taken in.
    reinjection: Option<Reinjection>,
    /// The command that began the mastership.
    epoch_begins: Lsn,
    users_seen: u64,
    more_to_serve: bool,
}

impl Node {
    /// `broker` holds the saved state and `log` is what the disk has; feed what lies between with
    /// [`Self::replay`], then let the backend's first outputs in with [`Self::start`].
    pub fn new(
        options: NodeOptions,
        broker: Broker,
        applied_chain: u128,
        backend: Box<dyn Backend>,
    ) -> Self {
        let inflight = Inflight::new(broker.applied(), applied_chain);
        let cache = Cache::new(options.cache_bytes_max);
        let saved_through = broker.applied();
        let alarm = Alarm::new(options.alarm_policy);
        let commit_delay = CommitDelay::new(options.commit_interval_ms);
        Self {
            options,
            broker,
            backend,
            inflight,
            commit_delay,
            cache,
            sessions: BTreeMap::new(),
            upkeep: Upkeep::default(),
            alarm,
            repairs: Repairs::default(),
            comparisons: Comparisons::default(),
            saved_through,
            held_bytes: 0,
            leading: None,
            masterships: 0,
            serving: false,
            lazy_since_ms: None,
            applied_chain,
            installing: None,
            reinjection: None,
            epoch_begins: Lsn::ZERO,
            users_seen: 0,
            more_to_serve: false,
        }
    }

    /// A group that the log holds behind the saved state. Applied once it is known as committed.
    pub fn replay(&mut self, group: Group) {
        self.inflight.push_foreign(group);
        self.inflight.set_durable(self.inflight.appended());
    }

    /// Applies replayed groups that the backend knows to be committed, so that memory stays
    /// bounded while a long tail is read.
    pub fn replay_committed(&mut self, through: Lsn, out: &mut Outputs) {
        self.commit(0, through, out);
    }

    /// Carries out what the backend wanted when it was made.
    pub fn start(&mut self, now_ms: u64, outputs: Vec<BackendOutput>, out: &mut Outputs) {
        self.broker.replayed();
        let dead = self.broker.dead_log();
        out.log.extend(dead.map(|(first, last)| LogJob::Reclaim { first, last }));
        for output in outputs {
            self.backend_output(now_ms, output, out);
        }
    }

    pub fn on_input(&mut self, now_ms: u64, input: Input, out: &mut Outputs) {
        self.broker.set_now(now_ms);
        match input {
            Input::Requests { connection, requests } => {
                self.requests(connection, requests, out);
            }
            Input::Drained { connection, bytes } => self.broker.drained(connection, bytes),
            Input::Closed { connection } => self.closed(connection),
            Input::Durable { through } => {
                self.inflight.set_durable(through);
                self.backend_input(now_ms, BackendInput::Durable { through }, out);
            }
            Input::Read { queue, asked, records } => {
                self.read_done(now_ms, queue, asked, records, out);
            }
            Input::StateSaved { replay_after } => self.state_saved(replay_after, out),
            Input::Relocated { first, bytes } => {
                self.broker.segment_cold(first, bytes);
                self.upkeep.relocated();
            }
            Input::RelocationFailed => self.upkeep.relocated(),
            Input::Damaged { damage, last, what, blocked } => {
                self.on_damage(now_ms, (damage, last), what, blocked, out);
            }
            Input::Repaired { damage, repair } => self.repair_written(now_ms, damage, repair, out),
            Input::Space { left } => self.space(now_ms, left, out),
            Input::SnapshotRecords { records } => self.snapshot_records(now_ms, &records, out),
            Input::Backend(input) => self.backend_input(now_ms, input, out),
            Input::Tick => self.backend_input(now_ms, BackendInput::Tick, out),
        }
    }

    /// Hands out, seals and looks after the store: once for all inputs of a turn.
    pub fn end_turn(&mut self, now_ms: u64, out: &mut Outputs) {
        if self.leading.is_some() {
            self.reinject_some(now_ms, out);
            // Before its epoch is committed a new master does not know yet what the former one
            // has moved or settled last: to act on that would be to do it twice.
            if self.serving {
                self.broker.set_now(now_ms);
                if self.may_follow_rules() {
                    self.on_time();
                }
                self.serve(out);
                self.follow_rules(out);
            }
            self.seal_if_due(now_ms, out);
        }
        self.compare_some(now_ms, out);
        self.repair_some(now_ms, out);
        self.save_some(out);
    }

    /// When the node wants a [`Input::Tick`] or a turn, if nothing else happens.
    pub fn deadline_ms(&self) -> Option<u64> {
        if self.more_to_serve {
            return Some(0);
        }
        let lazy = self.lazy_since_ms.map(|since| since + LAZY_SEAL_MS);
        let rules = self.broker.deadline_ms().filter(|_| self.may_follow_rules());
        let repair = self.repairs.deadline_ms();
        let compare = self.comparison_due_ms();
        let delayed = self.commit_delay.deadline_ms();
        let deadlines = [self.backend.deadline_ms(), lazy, rules, repair, compare, delayed];
        deadlines.into_iter().flatten().min()
    }

    /// Bytes that are decided and not committed, or that wait for such: the driver takes no more
    /// requests when there are too many.
    pub fn inflight_bytes(&self) -> usize {
        self.inflight.bytes() + self.held_bytes
    }

    pub fn status(&self) -> Status {
        self.backend.status()
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    pub fn is_serving(&self) -> bool {
        self.serving
    }

    pub fn appended(&self) -> Lsn {
        self.inflight.appended()
    }

    pub fn appended_bytes(&self) -> u64 {
        self.inflight.appended_bytes()
    }

    pub fn masterships(&self) -> u64 {
        self.masterships
    }

    pub fn durable(&self) -> Lsn {
        self.inflight.durable()
    }

    pub fn applied(&self) -> Lsn {
        self.broker.applied()
    }

    /// Saves everything that is not saved yet, at a clean stop.
    pub fn final_save(&mut self) -> Vec<Slice> {
        let mut slices: Vec<Slice> =
            self.upkeep.rest(&mut self.broker).map(|id| self.broker.save_queue(id)).collect();
        slices.extend(self.broker.end_save(self.broker.applied(), self.applied_chain));
        slices
    }

    /// What two nodes at the same LSN must have in common: queues, topology, producers.
    pub fn state_for_comparison(&mut self) -> Vec<Slice> {
        let own = [&b"segments"[..], b"replay"];
        let mut slices = self.broker.save_all(self.applied_chain);
        slices.retain(|(key, _)| !own.contains(&&key[..]));
        slices
    }

    /// One number for all of that, and the LSN that it belongs to. Costs a pass over the state.
    pub fn digest(&mut self) -> (Lsn, u128) {
        let mut digest = Digest::default();
        for (key, value) in self.state_for_comparison() {
            digest.add(&key);
            digest.add(&value.unwrap_or_default());
        }
        (self.applied(), digest.finish())
    }

    fn backend_input(&mut self, now_ms: u64, input: BackendInput, out: &mut Outputs) {
        if let BackendInput::Truncated { log } = &input {
            self.inflight.truncate(log.last, log.last_chain);
            self.repairs.truncated(log.last);
        }
        if let BackendInput::Installed { log } = &input {
            self.installed(*log, out);
        }
        let mut outputs = Vec::new();
        self.backend.handle(now_ms, input, &mut outputs);
        for output in outputs {
            self.backend_output(now_ms, output, out);
        }
    }

    fn backend_output(&mut self, now_ms: u64, output: BackendOutput, out: &mut Outputs) {
        match output {
            BackendOutput::Dial { address } => out.dial = Some(address),
            BackendOutput::Send { link, frame } => out.send.push((link, vec![frame])),
            BackendOutput::SendGroup { link, head, group } => {
                out.send.push((link, vec![head, group.bytes().clone()]));
            }
            BackendOutput::HangUp { link } => out.hang_up.push(link),
            BackendOutput::SaveView { version, view } => {
                out.log.push(LogJob::SaveView { version, view });
            }
            BackendOutput::Append(group) => {
                self.inflight.push_foreign(group.clone());
                out.log.push(LogJob::Append(group));
            }
            BackendOutput::Commit { through } => self.commit(now_ms, through, out),
            BackendOutput::Lead { epoch, leader } => self.lead(now_ms, epoch, leader, out),
            BackendOutput::SwitchOn { features } => self.switch_on(features),
            BackendOutput::SlaveSpace { low } => self.slave_space(low, out),
            BackendOutput::OpenFrontends => {
                (self.serving, out.frontends) = (true, Some(true));
            }
            BackendOutput::CloseFrontends { successor } => {
                (self.serving, out.frontends) = (false, Some(false));
                out.successor = successor;
            }
            BackendOutput::Follow => self.follow(),
            BackendOutput::ReadGroups { after, bytes_max } => {
                out.read_groups = Some((after, bytes_max));
            }
            BackendOutput::Truncate { after } => {
                assert!(after >= self.broker.applied(), "applied commands are never cut off");
                out.log.push(LogJob::Truncate { after });
            }
            BackendOutput::ReadSnapshot { cursor, since } => {
                self.read_snapshot(now_ms, cursor, since, out);
            }
            BackendOutput::ReadFetch { link, id, wanted } => {
                out.fetch_reads.push((link, id, wanted));
            }
            BackendOutput::Digest(digest) => self.on_digest(now_ms, digest, out),
            BackendOutput::Fetched { id, found } => self.fetched(now_ms, id, found, out),
            BackendOutput::Reinject { first, last, common, producer, chunk } => {
                self.reinject(first, last, (common, producer), &chunk, out);
            }
            part @ BackendOutput::InstallSnapshot { .. } => self.install(part, out),
            BackendOutput::AskArbiter { serial, call } => out.ask_arbiter.push((serial, call)),
            BackendOutput::Log { warn, text } => out.notices.push((warn, text)),
            BackendOutput::Stop { outcome } => out.stop = Some(outcome),
        }
    }

    /// Applies what is committed now, and only then lets its effects go.
    fn commit(&mut self, now_ms: u64, through: Lsn, out: &mut Outputs) {
        let mut applied_any = false;
        while let Some((group, effects)) = self.inflight.pop_committed(through) {
            let mut cancelled = Vec::new();
            if let Err(malformed) = self.broker.apply_group(&group, &mut cancelled) {
                let text =
                    format!("the log cannot be applied at LSN {}: {malformed}", group.first());
                out.stop = Some(Err(text));
                return;
            }
            self.applied_chain = group.header().chain;
            self.upkeep.applied(group.bytes().len() as u64);
            self.cache.push(group);
            self.compare_if_applied(now_ms, out);
            for (connection, effect) in cancelled.into_iter().chain(effects) {
                push_effect(out, connection, effect);
            }
            applied_any = true;
        }
        if !applied_any {
            return;
        }
        self.look_at_features(out);
        self.broker.release_names();
        if self.broker.topology_version() != self.users_seen {
            self.users_seen = self.broker.topology_version();
            out.users_changed = true;
        }
        // First to those who waited for it, and limits of length hold, before what was pipelined
        // behind it is decided: a get must not take what is a consumer's.
        if self.serving && self.leading.is_some() {
            self.serve(out);
        }
        while let Some(connections) = self.inflight.pop_waiting(self.broker.applied()) {
            for connection in connections {
                self.decide_held(connection, out);
            }
        }
    }

    fn lead(&mut self, now_ms: u64, epoch: Epoch, leader: NodeId, out: &mut Outputs) {
        self.leading = Some(epoch);
        self.masterships += 1;
        self.forget_clients();
        let new_epoch = Command::NewEpoch(NewEpoch { epoch, leader });
        self.epoch_begins = self.inflight.open.push(|out| new_epoch.encode(out));
        let mut decided = Decided {
            open: &mut self.inflight.open,
            effects: &mut self.inflight.open_effects,
            depends_on: Lsn::ZERO,
            topology: false,
        };
        self.broker.seed(&self.options.users, &self.options.default_user, &mut decided);
        self.seal(now_ms, out);
    }

    fn follow(&mut self) {
        self.leading = None;
        self.forget_clients();
    }

    fn forget_clients(&mut self) {
        self.sessions.clear();
        self.held_bytes = 0;
        self.alarm.forget_clients();
        self.inflight.forget_clients();
        self.broker.forget_clients();
        self.upkeep.forget_snapshot();
        self.repairs.forget_reads();
        self.comparisons.forget_peer();
        self.reinjection = None;
        self.lazy_since_ms = None;
        self.commit_delay.forget();
        self.more_to_serve = false;
    }

    fn serve(&mut self, out: &mut Outputs) {
        let mut effects = Vec::new();
        self.more_to_serve = self.broker.serve(&mut self.cache, &mut effects, &mut out.reads);
        for (connection, effect) in effects {
            push_effect(out, connection, effect);
        }
    }
}
