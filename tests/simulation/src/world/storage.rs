//! What is read from the disks, and what rots there.

use super::{Side, Sometimes, World};
use understudy::node::{Blocked, Input, Node, Outputs};
use understudy_model::{Damage, Place};
use understudy_replication::{Found as FetchFound, Input as BackendInput, Wanted};

impl World {
    pub(super) fn reads(&mut self, side: Side, out: &mut Outputs) {
        for read in out.reads.drain(..) {
            let found = self.machines[side as usize].disk.records(&read.lsns);
            let input = match found {
                Ok(records) => Input::Read { queue: read.queue, asked: read.lsns, records },
                Err(damage) => self.damaged(side, damage, Some(Blocked::Ahead(read))),
            };
            self.tell_node(side, 1, input);
        }
        if let Some((after, bytes_max)) = out.read_groups.take() {
            let input = match self.machines[side as usize].disk.groups_after(after, bytes_max) {
                Ok(groups) => Input::Backend(BackendInput::GroupsRead { after, groups }),
                Err(damage) => {
                    self.damaged(side, damage, Some(Blocked::Groups { after, bytes_max }))
                }
            };
            self.tell_node(side, 1, input);
        }
        if let Some(lsns) = out.snapshot_read.take() {
            let input = match self.machines[side as usize].disk.records(&lsns) {
                Ok(records) => Input::SnapshotRecords { records },
                Err(damage) => self.damaged(side, damage, Some(Blocked::Snapshot { lsns })),
            };
            self.tell_node(side, 1, input);
        }
        for (link, id, wanted) in out.fetch_reads.drain(..) {
            let disk = &self.machines[side as usize].disk;
            let found = match wanted {
                Wanted::Group { holding } => {
                    disk.group_holding(holding).ok().flatten().map(FetchFound::Group)
                }
                Wanted::Records(lsns) => disk.records(&lsns).ok().map(FetchFound::Records),
            };
            let found = found.unwrap_or(FetchFound::Nothing);
            let read = BackendInput::FetchRead { link, id, found };
            self.tell_node(side, 1, Input::Backend(read));
        }
    }

    fn damaged(&self, side: Side, damage: Damage, blocked: Option<Blocked>) -> Input {
        let last = self.machines[side as usize].disk.extent(damage);
        Input::Damaged { damage, last, what: "it has rotten".into(), blocked }
    }

    /// A part of what the disk holds rots; a scrub finds it some time later, or a reader before.
    pub fn corrupt(&mut self, side: Side) {
        let places = self.machines[side as usize].disk.places();
        if places.is_empty() {
            return;
        }
        let many = self.roll(4) == 0;
        for _ in 0..if many { 10 } else { 1 } {
            let damage = places[self.roll(places.len() as u64) as usize];
            self.note(format!("{side:?}: {damage} rots"));
            self.machines[side as usize].disk.damaged.insert(damage);
            self.sometimes.rotten += 1;
            let found_ms = self.roll(800);
            let input = self.damaged(side, damage, None);
            self.tell_node(side, found_ms, input);
        }
    }

    /// The end of its log rots.
    pub fn corrupt_last(&mut self, side: Side) {
        let disk = &mut self.machines[side as usize].disk;
        if let Some(last) = disk.groups.back() {
            disk.damaged.insert(Damage { place: Place::Log, lsn: last.first() });
        }
    }

    /// The saved state loses a queue: what no replay brings back.
    pub fn spoil_state(&mut self, side: Side) {
        self.checks.spoilt = true;
        let state = &mut self.machines[side as usize].disk.state;
        state.retain(|key, _| !key.starts_with(b"q"));
    }

    /// Nothing that its disk holds has rotten.
    pub fn is_whole(&self, side: Side) -> bool {
        self.machines[side as usize].disk.damaged.is_empty()
    }

    /// A node that stopped because of damage is given a disk from a copy.
    pub fn restore_if_stopped(&mut self, side: Side) {
        let machine = &mut self.machines[side as usize];
        if let Some(Err(why)) = &machine.stopped
            && why.contains("damaged")
        {
            machine.disk.damaged.clear();
            self.sometimes.restored += 1;
        }
    }

    /// So far.
    pub fn sometimes(&self) -> Sometimes {
        let running = Side::BOTH.into_iter().filter_map(|side| self.node(side));
        let mut total = self.sometimes;
        for node in running {
            total.repaired += node.repaired();
            total.compared += node.compared();
        }
        total
    }

    /// Repairs that the nodes have made; those of a life that ended count, too.
    pub(super) fn count_repairs(&mut self, side: Side) {
        let repaired = self.node(side).map_or(0, Node::repaired);
        self.sometimes.repaired += repaired;
        self.sometimes.compared += self.node(side).map_or(0, Node::compared);
    }

    /// Both nodes' states, if both are up and at the same LSN.
    pub fn compare_states(&mut self) -> Result<(), String> {
        let [a, b] = &mut self.machines;
        let (Some(a), Some(b)) = (&mut a.node, &mut b.node) else {
            return Err("a node is down".into());
        };
        if a.applied() != b.applied() {
            return Err(format!("applied {} and {}", a.applied(), b.applied()));
        }
        let same = a.state_for_comparison() == b.state_for_comparison();
        if same { Ok(()) } else { Err(format!("states differ at LSN {}", a.applied())) }
    }
}
