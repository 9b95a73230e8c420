//! The world: two nodes, what lies between them, and the order in which things happen.

use crate::arbiter::{self, Arbiter};
use crate::checks::Checks;
use crate::client::{Client, ClientKind};
use crate::disk::{Disk, Job};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use understudy::boot::{Found, boot};
use understudy::node::{AlarmPolicy, Blocked, Input, Node, NodeOptions, Outputs};
use understudy_broker::Limits;
use understudy_model::{ConnectionId, Damage, Effect, Place, Request, Text, UserRecord};
use understudy_replication::{
    Backend, DiskSpace, Found as FetchFound, Input as BackendInput, LinkId, Pair, PairConfig, Role,
    Wanted,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn address(self) -> Text {
        Text::from_static(match self {
            Self::A => "a:1",
            Self::B => "b:1",
        })
    }
}

#[derive(Clone, Debug)]
pub struct WorldOptions {
    pub seed: u64,
    pub pair: PairConfig,
    pub latency_ms_max: u64,
    pub sync_ms_max: u64,
    pub save_after_bytes: u64,
    pub retain_bytes: u64,
    /// A node that stops by its policy is started again after a while.
    pub supervised: bool,
    /// The nodes' clocks differ, and jump at a start, by up to so much.
    pub clocks_apart_ms_max: u64,
    /// Longest pause between a publisher's bursts.
    pub pace_ms_max: u64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            pair: PairConfig::default(),
            latency_ms_max: 3,
            sync_ms_max: 4,
            save_after_bytes: 8 << 10,
            retain_bytes: 0,
            supervised: false,
            clocks_apart_ms_max: 0,
            pace_ms_max: 15,
        }
    }
}

struct Machine {
    node: Option<Node>,
    pub(crate) disk: Disk,
    /// What its file says.
    role: Role,
    /// What its clock shows beyond the world's.
    clock_ahead_ms: u64,
    /// The process does not run (SIGSTOP, a frozen machine): what comes waits.
    asleep_until_ms: u64,
    /// Rises with each start and crash: events meant for an earlier life are dropped.
    life: u64,
    stopped: Option<Result<String, String>>,
    /// A tick is under way for this time.
    tick_at: Option<u64>,
    disk_at: Option<u64>,
}

struct Link {
    /// Frames on it are lost: the cable was cut under it.
    dead: bool,
    /// Frames of each side that a one-way cut holds back.
    held: [Vec<Bytes>; 2],
    /// Frames arrive in order, each direction for itself.
    arrives_at: [u64; 2],
    open: [bool; 2],
}

pub(crate) enum Event {
    Node { side: Side, life: u64, input: Box<Input> },
    Tick { side: Side, life: u64 },
    DiskStep { side: Side, life: u64 },
    Effects { client: usize, life: u64, effects: Vec<Effect> },
    ClientWake { client: usize },
    Revive { side: Side, life: u64 },
    Arbiter(Box<arbiter::Event>),
}

pub struct World {
    pub options: WorldOptions,
    pub now_ms: u64,
    random: u64,
    machines: [Machine; 2],
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    next_connection: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub cut: bool,
    /// Nothing reaches this side from the other.
    pub(crate) deaf: [bool; 2],
    /// The link takes so much longer, milliseconds.
    pub(crate) slow_ms: u64,
    pub(crate) arbiter: Arbiter,
    pub clients: Vec<Client>,
    pub checks: Checks,
    pub sometimes: Sometimes,
    pub log: Vec<String>,
}

/// What must happen in some run, or the faults are not what they seem.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sometimes {
    pub rotten: u64,
    /// What rotted is as it was, by the nodes' own doing.
    pub repaired: u64,
    pub restored: u64,
    /// Parts of the state that were compared.
    pub compared: u64,
}

impl World {
    pub fn new(options: WorldOptions) -> Self {
        let machine = |role| Machine {
            node: None,
            role,
            disk: Disk::default(),
            clock_ahead_ms: 0,
            asleep_until_ms: 0,
            life: 0,
            stopped: None,
            tick_at: None,
            disk_at: None,
        };
        Self {
            random: options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            options,
            now_ms: 1_000,
            machines: [machine(Role::Master), machine(Role::Slave)],
            links: BTreeMap::new(),
            next_link: 1,
            next_connection: 1,
            events: BTreeMap::new(),
            next_event: 0,
            cut: false,
            deaf: [false; 2],
            slow_ms: 0,
            arbiter: Arbiter::default(),
            clients: Vec::new(),
            checks: Checks::default(),
            sometimes: Sometimes::default(),
            log: Vec::new(),
        }
    }

    /// 0 to `below - 1`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    pub(crate) fn at(&mut self, delay_ms: u64, event: Event) {
        let key = (self.now_ms + delay_ms, self.next_event);
        self.next_event += 1;
        self.events.insert(key, event);
    }

    pub(crate) fn latency(&mut self) -> u64 {
        let max = self.options.latency_ms_max;
        1 + self.roll(max)
    }

    pub fn node(&self, side: Side) -> Option<&Node> {
        self.machines[side as usize].node.as_ref()
    }

    pub(crate) fn life(&self, side: Side) -> u64 {
        self.machines[side as usize].life
    }

    pub(crate) fn is_awake(&self, side: Side) -> bool {
        self.machines[side as usize].asleep_until_ms <= self.now_ms
    }

    pub fn stopped(&self, side: Side) -> Option<&Result<String, String>> {
        self.machines[side as usize].stopped.as_ref()
    }

    pub fn set_aside(&self, side: Side) -> u64 {
        self.machines[side as usize].disk.set_aside
    }

    pub fn in_sync(&self) -> bool {
        Side::BOTH.into_iter().all(|side| self.node(side).is_some_and(|n| n.status().in_sync))
    }

    pub fn serve_both(&self) -> bool {
        Side::BOTH.into_iter().all(|side| self.node(side).is_some_and(Node::is_serving))
    }

    pub fn serving(&self) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| self.node(*side).is_some_and(Node::is_serving))
    }

    pub fn note(&mut self, text: impl Into<String>) {
        let line = format!("{:>7} {}", self.now_ms, text.into());
        self.log.push(line);
    }

    pub fn add_client(&mut self, kind: ClientKind) -> usize {
        let client = self.clients.len();
        self.clients.push(Client::new(client, kind));
        self.at(1, Event::ClientWake { client });
        client
    }

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
        let options = node_options(&self.options);
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
            Err(error) => panic!("seed {}: {side:?} cannot start: {error}", self.options.seed),
        };
        machine.node = Some(node);
        machine.life += 1;
        machine.stopped = None;
        let full_ms = machine.disk.full_until_ms.saturating_sub(world_ms);
        self.note(format!("{side:?} starts"));
        self.turn(side, None, out);
        if full_ms > 0 {
            self.tell_node(side, 1, Input::Space { left: DiskSpace::Low });
            self.tell_node(side, 1 + full_ms, Input::Space { left: DiskSpace::Enough });
        }
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

    fn lose_unsynced(&mut self, side: Side) {
        let pending = self.machines[side as usize].disk.pending() as u64;
        let survive = self.roll(pending + 1) as usize;
        self.machines[side as usize].disk.crash(survive);
    }

    fn end_life(&mut self, side: Side) {
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

    /// Frames between the nodes are lost from now on, in both directions.
    pub fn cut_link(&mut self) {
        self.note("the link is cut");
        self.cut = true;
        self.links.values_mut().for_each(|link| link.dead = true);
    }

    /// Nothing reaches `side` from the other node, while what it sends arrives.
    pub fn cut_towards(&mut self, side: Side) {
        self.note(format!("nothing reaches {side:?} any more"));
        self.deaf[side as usize] = true;
    }

    pub fn slow_link(&mut self, slow_ms: u64) {
        self.note(format!("the link takes {slow_ms} ms more"));
        self.slow_ms = slow_ms;
    }

    pub fn heal_link(&mut self) {
        self.note("the link is healed");
        self.cut = false;
        self.deaf = [false; 2];
        self.slow_ms = 0;
        // A stream repeats what was lost, in order.
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            for from in Side::BOTH {
                let held = self
                    .links
                    .get_mut(&id)
                    .map(|link| std::mem::take(&mut link.held[from as usize]));
                held.into_iter().flatten().for_each(|frame| self.send_frame(from, id, &[frame]));
            }
        }
        let dead: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.dead).map(|(id, _)| *id).collect();
        for id in dead {
            for side in Side::BOTH {
                self.lose_link(side, id);
            }
            self.links.remove(&id);
        }
    }

    fn lose_link(&mut self, side: Side, link: LinkId) {
        if self.links.get(&link).is_some_and(|l| l.open[side as usize]) {
            let delay = self.latency();
            self.tell_node(side, delay, Input::Backend(BackendInput::LinkLost { link }));
        }
    }

    /// `side` has closed the link; the other learns of it unless the cable is cut.
    fn hang_up(&mut self, side: Side, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open[side as usize] = false;
        let other = side.other();
        // It learns of that when the link is healed.
        link.dead |= self.deaf[other as usize];
        if !link.dead {
            let at = link.arrives_at[side as usize].saturating_sub(self.now_ms);
            if link.open[other as usize] {
                // Sometimes late, behind what comes on the next link.
                let late_ms = if self.roll(8) == 0 { self.roll(500) } else { 0 };
                let delay = at + 1 + late_ms;
                self.tell_node(other, delay, Input::Backend(BackendInput::LinkLost { link: id }));
            }
            self.links.remove(&id);
        }
    }

    pub(crate) fn tell_node(&mut self, side: Side, delay_ms: u64, input: Input) {
        let life = self.machines[side as usize].life;
        self.at(delay_ms, Event::Node { side, life, input: Box::new(input) });
    }

    /// The next thing happens. False if nothing ever will.
    pub fn step(&mut self) -> bool {
        let Some(((at_ms, number), event)) = self.events.pop_first() else { return false };
        self.now_ms = self.now_ms.max(at_ms);
        if let Some(wakes_ms) = self.sleeps_until(&event) {
            self.events.insert((wakes_ms, number), event);
            return true;
        }
        match event {
            Event::Node { side, life, input } => {
                if self.machines[side as usize].life == life {
                    self.turn(side, Some(*input), Outputs::default());
                }
            }
            Event::Tick { side, life } => {
                let machine = &mut self.machines[side as usize];
                if machine.life == life {
                    machine.tick_at = None;
                    self.turn(side, Some(Input::Tick), Outputs::default());
                }
            }
            Event::DiskStep { side, life } => {
                let now_ms = self.now_ms;
                let machine = &mut self.machines[side as usize];
                if machine.life == life {
                    machine.disk_at = None;
                    let input = machine.disk.step(now_ms);
                    if let Some(broken) = machine.disk.broken.take() {
                        return self.end_by_itself(side, Err(broken));
                    }
                    self.turn(side, input, Outputs::default());
                }
            }
            Event::Revive { side, life } => {
                if self.machines[side as usize].life == life {
                    self.start(side);
                }
            }
            Event::Effects { client, life, effects } => {
                if self.clients[client].life == life {
                    let requests = self.clients[client].on_effects(effects, &mut self.checks);
                    self.send_requests(client, requests);
                }
            }
            Event::ClientWake { client } => self.wake_client(client),
            Event::Arbiter(event) => self.arbiter_event(*event),
        }
        self.check_one_serves();
        true
    }

    /// When a process that does not run takes the event: timers are due as it wakes, sockets have
    /// yet to be read then.
    fn sleeps_until(&self, event: &Event) -> Option<u64> {
        let (side, life, late) = match event {
            Event::Tick { side, life } => (side, life, 0),
            Event::Node { side, life, .. } | Event::DiskStep { side, life } => (side, life, 1),
            Event::Arbiter(event) => match &**event {
                arbiter::Event::Answer { side, life, .. } => (side, life, 1),
                arbiter::Event::Limit { side, life, .. } => (side, life, 2),
                _ => return None,
            },
            _ => return None,
        };
        let machine = &self.machines[*side as usize];
        let wakes_ms = machine.asleep_until_ms + late;
        (machine.life == *life && wakes_ms > self.now_ms).then_some(wakes_ms)
    }

    pub fn run_ms(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            self.step();
        }
        self.now_ms = self.now_ms.max(until);
    }

    /// Runs until `done`, at most `ms`; true if it was reached.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.now_ms + ms;
        while !done(self) {
            match self.events.first_key_value() {
                Some(((at, _), _)) if *at <= until => {
                    self.step();
                }
                _ => return done(self),
            }
        }
        true
    }

    /// A node's process ends, and is started again if somebody looks after it.
    fn end_by_itself(&mut self, side: Side, outcome: Result<String, String>) -> bool {
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

    fn turn(&mut self, side: Side, input: Option<Input>, mut out: Outputs) {
        let now_ms = self.now_ms + self.machines[side as usize].clock_ahead_ms;
        let Some(node) = &mut self.machines[side as usize].node else { return };
        let applied = node.applied();
        if let Some(input) = input {
            node.on_input(now_ms, input, &mut out);
        }
        node.end_turn(now_ms, &mut out);
        let [a, b] = &self.machines;
        let ends = [a.disk.end().last, b.disk.end().last];
        if let Some(node) = &self.machines[side as usize].node {
            self.checks.node(side, node, ends[side.other() as usize], self.options.seed);
            self.checks.effects(side, node, &out);
            if node.applied() > applied {
                self.check_register(side, ends[side.other() as usize]);
            }
        }
        self.carry_out(side, out);
        self.schedule(side);
    }

    fn schedule(&mut self, side: Side) {
        let now_ms = self.now_ms;
        let machine = &mut self.machines[side as usize];
        let life = machine.life;
        let Some(node) = &machine.node else { return };
        let ahead_ms = machine.clock_ahead_ms;
        let tick = node.deadline_ms().map(|at| at.saturating_sub(ahead_ms).max(now_ms + 1));
        let disk = machine.disk.next_ms().map(|at| at.max(now_ms));
        if let Some(at) = tick
            && machine.tick_at.is_none_or(|before| at < before)
        {
            machine.tick_at = Some(at);
            self.at(at - now_ms, Event::Tick { side, life });
        }
        let machine = &mut self.machines[side as usize];
        if let Some(at) = disk
            && machine.disk_at.is_none_or(|before| at < before)
        {
            machine.disk_at = Some(at);
            self.at(at - now_ms, Event::DiskStep { side, life });
        }
    }

    fn carry_out(&mut self, side: Side, mut out: Outputs) {
        for (_, text) in out.notices.drain(..) {
            self.note(format!("{side:?}: {text}"));
        }
        let max = self.options.sync_ms_max;
        for job in out.log.drain(..) {
            let at_ms = self.now_ms + 1 + self.roll(max);
            self.machines[side as usize].disk.give(at_ms, Job::Log(job));
        }
        if !out.save.is_empty() || out.save_ends.is_some() {
            let at_ms = self.now_ms + 1 + self.roll(max);
            let job = Job::Save(std::mem::take(&mut out.save), out.save_ends.take());
            self.machines[side as usize].disk.give(at_ms, job);
        }
        self.reads(side, &mut out);
        for (link, pieces) in out.send.drain(..) {
            self.send_frame(side, link, &pieces);
        }
        for link in std::mem::take(&mut out.hang_up) {
            self.hang_up(side, link);
        }
        if out.dial.take().is_some() {
            self.dial(side);
        }
        self.ask_arbiter(side, std::mem::take(&mut out.ask_arbiter));
        self.check_order(&out);
        for (connection, effects) in std::mem::take(&mut out.effects) {
            let found = self.clients.iter().position(|c| c.connection == Some((side, connection)));
            if let Some(client) = found {
                let life = self.clients[client].life;
                let delay = self.latency();
                // A socket is a stream: what is sent later does not arrive earlier.
                let arrives_ms = (self.now_ms + delay).max(self.clients[client].arrives_ms);
                self.clients[client].arrives_ms = arrives_ms;
                self.at(arrives_ms - self.now_ms, Event::Effects { client, life, effects });
            }
        }
        if out.frontends == Some(false) {
            self.arbiter.was_alone = None;
            self.drop_clients(side);
        }
        if let Some(outcome) = out.stop.take() {
            self.last_calls(side);
            self.end_by_itself(side, outcome);
        }
    }

    /// Effects are kept by connection, so the order within one turn is that of the LSNs.
    fn check_order(&mut self, out: &Outputs) {
        let mut handed_out = BTreeMap::new();
        for effect in out.effects.values().flatten() {
            if let Effect::Deliver(delivery) = effect
                && let Ok(message) = delivery.message()
            {
                handed_out.insert(delivery.lsn, String::from_utf8_lossy(message.body).into_owned());
            }
        }
        handed_out.values().for_each(|body| self.checks.handed_out(body));
    }

    fn reads(&mut self, side: Side, out: &mut Outputs) {
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
    fn count_repairs(&mut self, side: Side) {
        let repaired = self.node(side).map_or(0, Node::repaired);
        self.sometimes.repaired += repaired;
        self.sometimes.compared += self.node(side).map_or(0, Node::compared);
    }

    fn send_frame(&mut self, from: Side, id: LinkId, pieces: &[Bytes]) {
        let delay = self.latency() + self.slow_ms;
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(&id) else { return };
        let other = from.other();
        if link.dead || !link.open[from as usize] || !link.open[other as usize] {
            return;
        }
        if self.deaf[other as usize] {
            link.held[from as usize].push(pieces.concat().into());
            return;
        }
        let at_ms = (now_ms + delay).max(link.arrives_at[from as usize]);
        link.arrives_at[from as usize] = at_ms;
        let mut frame = BytesMut::new();
        pieces.iter().for_each(|piece| frame.extend_from_slice(piece));
        let received = BackendInput::Received { link: id, frame: frame.freeze() };
        self.tell_node(other, at_ms - now_ms, Input::Backend(received));
    }

    fn dial(&mut self, side: Side) {
        let other = side.other();
        let failed = |refused| Input::Backend(BackendInput::DialFailed { refused });
        // A connection needs both ways.
        if self.cut || self.deaf != [false; 2] {
            return self.tell_node(side, 500, failed(false));
        }
        if self.machines[other as usize].node.is_none() {
            return self.tell_node(side, 1, failed(true));
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let delay = self.latency();
        let at_ms = self.now_ms + delay;
        let held = Default::default();
        let state = Link { dead: false, held, arrives_at: [at_ms; 2], open: [true; 2] };
        self.links.insert(link, state);
        self.tell_node(side, delay, Input::Backend(BackendInput::Linked { link, dialed: true }));
        self.tell_node(other, delay, Input::Backend(BackendInput::Linked { link, dialed: false }));
    }

    fn drop_clients(&mut self, side: Side) {
        for client in 0..self.clients.len() {
            if let Some((_, connection)) = self.clients[client].connection.filter(|c| c.0 == side) {
                self.clients[client].disconnected();
                // The node may go on serving: a switchover that is abandoned.
                self.tell_node(side, 2, Input::Closed { connection });
                let delay = 1 + self.roll(20);
                self.at(delay, Event::ClientWake { client });
            }
        }
    }

    /// A client without a connection tries to have one; one with a connection may publish.
    fn wake_client(&mut self, client: usize) {
        if self.clients[client].connection.is_none() {
            let open: Vec<Side> = Side::BOTH
                .into_iter()
                .filter(|side| self.node(*side).is_some_and(Node::is_serving))
                .collect();
            if open.is_empty() {
                return self.at(10, Event::ClientWake { client });
            }
            let side = open[self.roll(open.len() as u64) as usize];
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            let requests = self.clients[client].connected(side, connection, &mut self.checks);
            self.send_requests(client, requests);
        }
        let burst = 1 + self.roll(4);
        let requests = self.clients[client].more(burst, &mut self.checks);
        self.send_requests(client, requests);
        let pause = 1 + self.roll(self.options.pace_ms_max);
        if self.clients[client].wants_wake() {
            self.at(pause, Event::ClientWake { client });
        }
    }

    fn send_requests(&mut self, client: usize, requests: Vec<Request>) {
        if requests.is_empty() {
            return;
        }
        if let Some((side, connection)) = self.clients[client].connection {
            // A client's socket is a stream: equal delays keep its requests in order.
            self.tell_node(side, 2, Input::Requests { connection, requests });
        }
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

    /// No room is left for so long. `wholly`: not even for what is under way.
    pub fn fill_disk(&mut self, side: Side, full_ms: u64, wholly: bool) {
        self.note(format!("{side:?}'s disk is full for {full_ms} ms"));
        let until_ms = self.now_ms + full_ms;
        let disk = &mut self.machines[side as usize].disk;
        disk.full_until_ms = until_ms;
        if wholly {
            disk.hangs_until_ms = until_ms;
        }
        self.tell_node(side, 0, Input::Space { left: DiskSpace::Low });
        self.tell_node(side, full_ms, Input::Space { left: DiskSpace::Enough });
        self.schedule(side);
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

    /// The client's connection breaks without a word.
    pub fn drop_client(&mut self, client: usize) {
        if let Some((side, connection)) = self.clients[client].connection {
            self.clients[client].disconnected();
            self.tell_node(side, 2, Input::Closed { connection });
            self.at(5, Event::ClientWake { client });
        }
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

fn node_options(options: &WorldOptions) -> NodeOptions {
    let user = UserRecord {
        name: Text::from_static("guest"),
        password_hash: Text::from_static("sha256:none"),
        tags: Vec::new(),
    };
    NodeOptions {
        // Small, so that the log's front is given back.
        limits: Limits { segment_bytes_min: 16 << 10, ..Limits::default() },
        group_bytes_max: 4 << 10,
        commit_interval_ms: 2,
        // Small, so that backlogs are read from the log.
        cache_bytes_max: 8 << 10,
        alarm_policy: AlarmPolicy::Block,
        save_after_bytes: options.save_after_bytes,
        retain_bytes: options.retain_bytes,
        features: understudy_model::Features::KNOWN,
        digest_interval_ms: 150,
        users: Vec::new(),
        default_user: user,
    }
}
