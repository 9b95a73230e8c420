//! The world: two nodes, what lies between them, and the order in which things happen.

mod access;
mod machine;
mod network;
mod storage;

use crate::arbiter::{self, Arbiter};
use crate::checks::Checks;
use crate::client::{Client, ClientKind};
use crate::disk::{Disk, Job};
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy::node::{Input, Node, Outputs};
use understudy_model::{Effect, Features, Text};
use understudy_replication::{DiskSpace, LinkId, PairConfig, Role};

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
    /// What its program knows.
    features: Features,
    /// What its clock shows beyond the world's.
    clock_ahead_ms: u64,
    /// The process does not run (SIGSTOP, a frozen machine): what comes waits.
    asleep_until_ms: u64,
    /// Rises with each start and crash: events meant for an earlier life are dropped.
    life: u64,
    stopped: Option<Result<String, String>>,
    room_told: DiskSpace,
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
    Node {
        side: Side,
        life: u64,
        input: Box<Input>,
    },
    Tick {
        side: Side,
        life: u64,
    },
    /// A thread looks at how much room is left on the disk.
    Space {
        side: Side,
        life: u64,
    },
    DiskStep {
        side: Side,
        life: u64,
    },
    Effects {
        client: usize,
        life: u64,
        effects: Vec<Effect>,
    },
    ClientWake {
        client: usize,
    },
    Revive {
        side: Side,
        life: u64,
    },
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
    /// While it is cut, something in between refuses connections, as a dead process's host would.
    refuses: bool,
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
            features: Features::KNOWN,
            disk: Disk::default(),
            clock_ahead_ms: 0,
            asleep_until_ms: 0,
            life: 0,
            stopped: None,
            room_told: DiskSpace::Enough,
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
            refuses: false,
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
            Event::Space { side, life } => {
                if self.machines[side as usize].life == life {
                    self.space(side);
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
            Event::Node { side, life, .. }
            | Event::Space { side, life }
            | Event::DiskStep { side, life } => (side, life, 1),
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
}
