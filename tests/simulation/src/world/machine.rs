//! The two machines: their processes start and end, their disks fail, and the operator tells them what
//! to do.

use super::{Event, Side, World, WorldOptions};
use crate::disk::{Disk, Room};
use understudy::boot::{Found, boot};
use understudy::node::{AlarmPolicy, Input, NodeOptions, Outputs};
use understudy_broker::Limits;
use understudy_model::{Features, Text, UserRecord};
use understudy_replication::{Backend, DiskSpace, Input as BackendInput, LinkId, Pair, Role};

impl World {
    /// Starts the node from what its disk holds.
    pub fn start(&mut self, side: Side) {
        if self.machines[side as usize].node.is_some() {
            return;
        }
        let clock_ahead_ms = self.roll(self.options.clocks_apart_ms_max + 1);
        let random = std::array::from_fn(|_| self.roll(u64::MAX));
        let mut config = self.options.pair.clone();
        config.role = self.machines[side as usize].role;
        config.peer_address = (config.role == Role::Slave).then(|| side.other().address());
        config.advertised_address = side.address();
        config.features = self.machines[side as usize].features;
        let options = node_options(&self.options, config.features);
        let world_ms = self.now_ms;
        let machine = &mut self.machines[side as usize];
        machine.clock_ahead_ms = clock_ahead_ms;
        machine.asleep_until_ms = 0;
        let now_ms = world_ms + clock_ahead_ms;
        let found = Found {
            view: machine.disk.view.clone(),
            log: machine.disk.end(),
            damage: machine.disk.unreadable_end(),
            state: Ok(machine.disk.state.clone().into_iter().collect()),
        };
        let disk = &machine.disk;
        let made = boot(
            &options,
            found,
            now_ms,
            random,
            |boot, out| {
                let pair =
                    Pair::new(boot, config.clone(), out).map_err(|error| error.to_string())?;
                Ok(Box::new(pair) as Box<dyn Backend>)
            },
            |after| {
                disk.groups_after(after, 4_096).map_err(|damage| format!("{damage} is damaged"))
            },
        );
        let (node, out) = match made {
            Ok(made) => made,
            Err(error) if error.contains("damaged") => {
                // The operator restores the disk from a copy.
                machine.disk.damaged.clear();
                self.sometimes.restored += 1;
                self.note(format!("{side:?} is restored: {error}"));
                return self.start(side);
            }
            Err(error) if error.contains("does not know") => {
                machine.stopped = Some(Err(error.clone()));
                return self.note(format!("{side:?} does not start: {error}"));
            }
            Err(error) => panic!("seed {}: {side:?} cannot start: {error}", self.options.seed),
        };
        machine.node = Some(node);
        machine.life += 1;
        machine.stopped = None;
        machine.room_told = DiskSpace::Enough;
        self.note(format!("{side:?} starts"));
        self.turn(side, None, out);
        self.look_at_room(side, 1);
    }

    /// Power off: what was not synced is lost, but for a random part.
    pub fn crash(&mut self, side: Side) {
        if self.machines[side as usize].node.is_none() {
            return;
        }
        self.note(format!("{side:?} crashes"));
        self.lose_unsynced(side);
        self.end_life(side);
    }

    pub(super) fn lose_unsynced(&mut self, side: Side) {
        let pending = self.machines[side as usize].disk.pending() as u64;
        let survive = self.roll(pending + 1) as usize;
        self.machines[side as usize].disk.crash(survive);
    }

    pub(super) fn end_life(&mut self, side: Side) {
        self.count_repairs(side);
        let machine = &mut self.machines[side as usize];
        machine.node = None;
        machine.life += 1;
        machine.tick_at = None;
        machine.disk_at = None;
        self.checks.forget(side);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.hang_up(side, link);
        }
        self.forget_calls(side);
        self.drop_clients(side);
    }

    /// A node's process ends, and is started again if somebody looks after it.
    pub(super) fn end_by_itself(&mut self, side: Side, outcome: Result<String, String>) -> bool {
        self.note(format!("{side:?} stops: {outcome:?}"));
        self.machines[side as usize].stopped = Some(outcome);
        self.lose_unsynced(side);
        self.end_life(side);
        if self.options.supervised {
            let life = self.machines[side as usize].life;
            let delay = 300 + self.roll(2_000);
            self.at(delay, Event::Revive { side, life });
        }
        true
    }

    /// The process does not run for so long, though it lives.
    pub fn pause(&mut self, side: Side, pause_ms: u64) {
        self.note(format!("{side:?} is stopped for {pause_ms} ms"));
        self.machines[side as usize].asleep_until_ms = self.now_ms + pause_ms;
    }

    /// Syncs hang for so long.
    pub fn hang_disk(&mut self, side: Side, hang_ms: u64) {
        self.note(format!("{side:?}'s disk hangs for {hang_ms} ms"));
        self.machines[side as usize].disk.hangs_until_ms = self.now_ms + hang_ms;
        self.schedule(side);
    }

    /// The next sync fails: the process ends.
    pub fn fail_sync(&mut self, side: Side) {
        self.note(format!("{side:?}'s next sync fails"));
        let reaches_the_disk = self.roll(2) == 0;
        self.machines[side as usize].disk.fails = Some(reaches_the_disk);
    }

    /// Little room is left. `wholly`: not even for what is under way.
    pub fn fill_disk(&mut self, side: Side, low_ms: u64, wholly: bool) {
        self.note(format!("{side:?}'s disk is full for {low_ms} ms"));
        let low_until_ms = self.now_ms + low_ms;
        let disk = &mut self.machines[side as usize].disk;
        disk.room = Room { low_until_ms, ..Room::default() };
        if wholly {
            disk.hangs_until_ms = low_until_ms;
        }
        self.look_at_room(side, 0);
        self.schedule(side);
    }

    /// As above, and after `low_ms` next to none, for `full_ms`.
    pub fn use_up_disk(&mut self, side: Side, low_ms: u64, full_ms: u64) {
        self.note(format!("{side:?}'s disk is used up in {low_ms} ms for {full_ms} ms"));
        let full_from_ms = self.now_ms + low_ms;
        let full_until_ms = full_from_ms + full_ms;
        let room = Room { low_until_ms: full_until_ms, full_from_ms, full_until_ms };
        self.machines[side as usize].disk.room = room;
        self.look_at_room(side, 0);
    }

    /// The process looks then, and whenever that changes.
    fn look_at_room(&mut self, side: Side, delay_ms: u64) {
        let machine = &self.machines[side as usize];
        let (life, now_ms) = (machine.life, self.now_ms);
        let changes_ms = machine.disk.room.changes_ms();
        let later = changes_ms.into_iter().filter(|at| *at > now_ms).map(|at| at - now_ms);
        for delay_ms in later.chain([delay_ms]) {
            self.at(delay_ms, Event::Space { side, life });
        }
    }

    pub(super) fn space(&mut self, side: Side) {
        let machine = &mut self.machines[side as usize];
        let left = machine.disk.room.left(self.now_ms);
        if std::mem::replace(&mut machine.room_told, left) != left {
            self.turn(side, Some(Input::Space { left }), Outputs::default());
        }
    }

    /// Its program is replaced by one that knows these, for its next start.
    pub fn install(&mut self, side: Side, features: Features) {
        self.note(format!("{side:?} gets a program that knows features {features}"));
        self.machines[side as usize].features = features;
    }

    /// SIGTERM.
    pub fn stop(&mut self, side: Side) {
        let serves = if self.serving() == Some(side) { "serves" } else { "does not serve" };
        self.note(format!("{side:?}, which {serves}, is asked to stop"));
        self.tell_node(side, 0, Input::Backend(BackendInput::Stopping));
    }

    /// The node's disk is replaced by an empty one, and its file made that of a slave: an empty
    /// master would begin a cluster of its own.
    pub fn replace_disk(&mut self, side: Side) {
        self.note(format!("{side:?} gets an empty disk"));
        self.machines[side as usize].role = Role::Slave;
        self.end_life(side);
        let machine = &mut self.machines[side as usize];
        self.checks.replaced(side, machine.disk.end().last);
        machine.disk = Disk::default();
    }

    /// The operator asks this node to hand its mastership over.
    pub fn hand_over(&mut self, side: Side) {
        self.note(format!("{side:?} is asked to hand over"));
        self.tell_node(side, 0, Input::Backend(BackendInput::HandOver));
    }

    /// The operator wants this slave to take a whole new copy.
    pub fn resync(&mut self, side: Side) {
        self.note(format!("{side:?} is asked to resync"));
        self.tell_node(side, 0, Input::Backend(BackendInput::Resync));
    }

    /// The operator says that the other node is dead.
    pub fn promote(&mut self, side: Side, force: bool) {
        self.note(format!("{side:?} is promoted, force: {force}"));
        self.tell_node(side, 0, Input::Backend(BackendInput::Promote { force }));
    }

    /// The operator says that the slave is gone for good, and its copy with it.
    pub fn forget_slave(&mut self, side: Side) {
        self.note(format!("{side:?} is asked to forget its slave"));
        self.tell_node(side, 0, Input::Backend(BackendInput::ForgetSlave { force: true }));
    }
}

fn node_options(options: &WorldOptions, features: Features) -> NodeOptions {
    let user = UserRecord {
        name: Text::from_static("guest"),
        password_hash: Text::from_static("sha256:none"),
        tags: Vec::new(),
    };
    NodeOptions {
        // Small, so that the log's front is given back.
        limits: Limits { segment_bytes_min: 16 << 10, ..Limits::default() },
        group_bytes_max: 4 << 10,
        commit_interval_ms: 1,
        // Small, so that backlogs are read from the log.
        cache_bytes_max: 8 << 10,
        alarm_policy: AlarmPolicy::Block,
        save_after_bytes: options.save_after_bytes,
        retain_bytes: options.retain_bytes,
        features,
        digest_interval_ms: 150,
        users: Vec::new(),
        default_user: user,
    }
}
