//! The arbiter of the world: the real registers in a third process with a disk, a clock and network
//! of its own, and each node's task that carries out its calls as `src/arbiter` does.

use crate::world::{Event as WorldEvent, Side, World};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use understudy::node::Input;
use understudy_model::{Lsn, Text};
use understudy_replication::{
    ArbiterAnswer, ArbiterCall, Input as BackendInput, Register, Registers,
};

const NAME: Text = Text::from_static("pair");
/// Its clock's speed in percent of the nodes': they may differ by a third (docs/arbiter.md).
const SPEED_MIN: u64 = 75;
const SPEED_MAX: u64 = 133;

#[derive(Default)]
pub(crate) struct Arbiter {
    process: Option<Process>,
    /// What it has synced; none: nothing yet, or it was lost.
    disk: Option<Bytes>,
    /// No sync of its disk ends before.
    hangs_until_ms: u64,
    /// The next sync fails: whether what it was to write is there nevertheless, and for how long the
    /// process is away then.
    fails: Option<(bool, u64)>,
    /// Rises with each start and crash.
    life: u64,
    asleep_until_ms: u64,
    /// Nothing passes from a node, or to it.
    from: [bool; 2],
    to: [bool; 2],
    /// What a cut holds back: a stream repeats it when the cut is healed.
    held: Vec<Event>,
    /// One in so many calls finds its connection broken off; 0: none.
    pub(crate) breaks: u64,
    slow_ms: u64,
    callers: [Caller; 2],
    connections: u64,
    numbers: u64,
    /// A node that led alone when the process ended.
    pub(crate) was_alone: Option<Register>,
}

struct Process {
    registers: Registers,
    started_ms: u64,
    clock_begins_ms: u64,
    speed: u64,
    /// A write, and its end: nobody is attended before.
    writing: Option<(u64, Bytes)>,
    /// The newest connection of each node.
    newest: BTreeMap<String, u64>,
}

/// A node's task: one call at a time.
#[derive(Default)]
struct Caller {
    /// And the life of the arbiter that it leads to.
    connection: Option<(u64, u64)>,
    waiting: VecDeque<(u64, ArbiterCall)>,
    /// Number and serial of the call that is not answered yet.
    asked: Option<(u64, u64)>,
}

pub(crate) struct Letter {
    side: Side,
    /// Of the node.
    life: u64,
    node: String,
    connection: u64,
    /// The arbiter's life that the connection leads to.
    leads_to: u64,
    opens: bool,
    number: u64,
    call: ArbiterCall,
    /// The connection breaks before the answer is sent.
    breaks: bool,
}

pub(crate) enum Event {
    Call(Letter),
    Written {
        life: u64,
        letter: Letter,
        answer: ArbiterAnswer,
    },
    Answer {
        side: Side,
        life: u64,
        number: u64,
        answer: ArbiterAnswer,
    },
    /// The answer has taken too long.
    Limit {
        side: Side,
        life: u64,
        number: u64,
    },
    Start {
        life: u64,
    },
    Heal,
}

impl Process {
    fn now_ms(&self, world_ms: u64) -> u64 {
        self.clock_begins_ms + (world_ms - self.started_ms) * self.speed / 100
    }
}

impl Arbiter {
    /// What is synced of the register.
    fn written(&self) -> Option<Register> {
        let mut registers = Registers::decode(self.disk.as_ref()?, 0).ok()?;
        match registers.handle(0, &NAME, &ArbiterCall::Read).0 {
            ArbiterAnswer::Told { held, .. } => held.map(|held| held.register),
            ArbiterAnswer::Silent => None,
        }
    }
}

impl World {
    fn has_arbiter(&self) -> bool {
        self.options.pair.arbiter.is_some()
    }

    fn at_arbiter(&mut self, delay_ms: u64, event: Event) {
        self.at(delay_ms, WorldEvent::Arbiter(Box::new(event)));
    }

    fn way_ms(&mut self) -> u64 {
        self.latency() + self.arbiter.slow_ms
    }

    pub(crate) fn start_arbiter(&mut self) {
        if !self.has_arbiter() || self.arbiter.process.is_some() {
            return;
        }
        let clock_begins_ms = self.roll(1_000_000);
        let speed = SPEED_MIN + self.roll(SPEED_MAX - SPEED_MIN + 1);
        let registers = match &self.arbiter.disk {
            Some(bytes) => Registers::decode(bytes, clock_begins_ms).expect("as it was written"),
            None => Registers::default(),
        };
        self.note("the arbiter starts");
        self.arbiter.life += 1;
        self.arbiter.asleep_until_ms = 0;
        self.arbiter.process = Some(Process {
            registers,
            started_ms: self.now_ms,
            clock_begins_ms,
            speed,
            writing: None,
            newest: BTreeMap::new(),
        });
    }

    /// Power off, and on again after `down_ms`. `wiped`: with an empty disk.
    pub(crate) fn crash_arbiter(&mut self, down_ms: u64, wiped: bool) {
        self.note(format!("the arbiter crashes{}", if wiped { " and loses its data" } else { "" }));
        let written = self.roll(2) == 0;
        if wiped {
            self.arbiter.disk = None;
        }
        self.end_arbiter(down_ms, written && !wiped);
    }

    /// `written`: what was to be synced is on disk nevertheless.
    fn end_arbiter(&mut self, down_ms: u64, written: bool) {
        if let Some(process) = self.arbiter.process.take()
            && let Some((_, bytes)) = process.writing
            && written
        {
            self.arbiter.disk = Some(bytes);
        }
        self.arbiter.was_alone = self.arbiter.written().filter(|r| r.slave.is_none());
        self.arbiter.fails = None;
        self.arbiter.life += 1;
        let life = self.arbiter.life;
        self.at_arbiter(down_ms, Event::Start { life });
    }

    pub(crate) fn pause_arbiter(&mut self, pause_ms: u64) {
        self.note(format!("the arbiter is stopped for {pause_ms} ms"));
        self.arbiter.asleep_until_ms = self.now_ms + pause_ms;
    }

    pub(crate) fn hang_arbiters_disk(&mut self, hang_ms: u64) {
        self.note(format!("the arbiter's disk hangs for {hang_ms} ms"));
        self.arbiter.hangs_until_ms = self.now_ms + hang_ms;
    }

    pub(crate) fn fail_arbiters_sync(&mut self, down_ms: u64) {
        self.note("the arbiter's next sync fails");
        let reaches_the_disk = self.roll(2) == 0;
        self.arbiter.fails = Some((reaches_the_disk, down_ms));
    }

    /// Nothing passes between a node and the arbiter, in one direction or both.
    pub(crate) fn cut_off_arbiter(&mut self, side: Side, from: bool, to: bool, for_ms: u64) {
        self.note(format!("{side:?} is cut off from the arbiter, from {from}, to {to}"));
        self.arbiter.from[side as usize] |= from;
        self.arbiter.to[side as usize] |= to;
        self.at_arbiter(for_ms, Event::Heal);
    }

    pub(crate) fn slow_arbiter(&mut self, slow_ms: u64, for_ms: u64) {
        self.note(format!("the arbiter is {slow_ms} ms further away"));
        self.arbiter.slow_ms = slow_ms;
        self.at_arbiter(for_ms, Event::Heal);
    }

    pub(crate) fn break_arbiter(&mut self, for_ms: u64) {
        self.note("connections to the arbiter break off");
        self.arbiter.breaks = 4;
        self.at_arbiter(for_ms, Event::Heal);
    }

    pub(crate) fn heal_arbiter(&mut self) {
        if !self.has_arbiter() {
            return;
        }
        self.note("the network to the arbiter is healed");
        let arbiter = &mut self.arbiter;
        (arbiter.from, arbiter.to, arbiter.breaks, arbiter.slow_ms) = Default::default();
        for event in std::mem::take(&mut self.arbiter.held) {
            let delay_ms = self.way_ms();
            self.at_arbiter(delay_ms, event);
        }
    }

    pub(crate) fn ask_arbiter(&mut self, side: Side, calls: Vec<(u64, ArbiterCall)>) {
        self.arbiter.callers[side as usize].waiting.extend(calls);
        self.next_call(side);
    }

    fn next_call(&mut self, side: Side) {
        let caller = &mut self.arbiter.callers[side as usize];
        if caller.asked.is_some() {
            return;
        }
        let Some((serial, call)) = caller.waiting.pop_front() else { return };
        self.arbiter.numbers += 1;
        let number = self.arbiter.numbers;
        self.arbiter.callers[side as usize].asked = Some((number, serial));
        let life = self.life(side);
        let limit_ms = self.options.pair.arbiter.as_ref().map_or(0, |arbiter| arbiter.lease_ms / 2);
        self.at_arbiter(limit_ms, Event::Limit { side, life, number });
        if let Some(letter) = self.letter(side, number, call) {
            let delay_ms = self.way_ms();
            self.at_arbiter(delay_ms, Event::Call(letter));
        }
    }

    /// None: there is no connection.
    fn letter(&mut self, side: Side, number: u64, call: ArbiterCall) -> Option<Letter> {
        let life = self.life(side);
        let at = side as usize;
        let opens = self.arbiter.callers[at].connection.is_none();
        if opens {
            // A connection needs both ways.
            if self.arbiter.from[at] || self.arbiter.to[at] {
                return None;
            }
            if self.arbiter.process.is_none() {
                self.answer(side, life, number, ArbiterAnswer::Silent);
                return None;
            }
            self.arbiter.connections += 1;
            self.arbiter.callers[at].connection =
                Some((self.arbiter.connections, self.arbiter.life));
        }
        let (connection, leads_to) = self.arbiter.callers[at].connection?;
        let node = self.node(side).map(|node| node.status().node_id).unwrap_or_default();
        let (breaks, of) = (self.arbiter.breaks, self.roll(self.arbiter.breaks.max(1)));
        let breaks = breaks > 0 && of == 0;
        Some(Letter { side, life, node, connection, leads_to, opens, number, call, breaks })
    }

    /// The process ends by itself: it waits until what it asked last is answered.
    pub(crate) fn last_calls(&mut self, side: Side) {
        for (_, call) in std::mem::take(&mut self.arbiter.callers[side as usize].waiting) {
            if let Some(letter) = self.letter(side, 0, call) {
                let delay_ms = self.way_ms() + 2;
                self.at_arbiter(delay_ms, Event::Call(letter));
            }
        }
    }

    /// What was sent may still be carried out.
    pub(crate) fn forget_calls(&mut self, side: Side) {
        self.arbiter.callers[side as usize] = Caller::default();
    }

    fn answer(&mut self, side: Side, life: u64, number: u64, answer: ArbiterAnswer) {
        let delay_ms = self.way_ms();
        self.at_arbiter(delay_ms, Event::Answer { side, life, number, answer });
    }

    pub(crate) fn arbiter_event(&mut self, event: Event) {
        let wakes_ms = self.arbiter.asleep_until_ms;
        match event {
            Event::Call(letter) if self.arbiter.from[letter.side as usize] => {
                self.arbiter.held.push(Event::Call(letter));
            }
            Event::Answer { side, .. } if self.arbiter.to[side as usize] => {
                self.arbiter.held.push(event);
            }
            Event::Call(_) | Event::Written { .. } if wakes_ms > self.now_ms => {
                let delay_ms = wakes_ms - self.now_ms;
                self.at_arbiter(delay_ms, event);
            }
            Event::Call(letter) => self.called(letter),
            Event::Written { life, letter, answer } => {
                if self.arbiter.life == life {
                    self.synced(letter, answer);
                }
            }
            Event::Answer { side, life, number, answer } if self.life(side) == life => {
                self.answered(side, number, answer);
            }
            Event::Limit { side, life, number } if self.life(side) == life => {
                self.answered(side, number, ArbiterAnswer::Silent);
            }
            Event::Start { life } => {
                if self.arbiter.life == life {
                    self.start_arbiter();
                }
            }
            Event::Heal => self.heal_arbiter(),
            Event::Answer { .. } | Event::Limit { .. } => {}
        }
    }

    fn answered(&mut self, side: Side, number: u64, answer: ArbiterAnswer) {
        let caller = &mut self.arbiter.callers[side as usize];
        let Some((_, serial)) = caller.asked.take_if(|(asked, _)| *asked == number) else { return };
        if answer == ArbiterAnswer::Silent {
            caller.connection = None;
        }
        self.tell_node(side, 0, Input::Backend(BackendInput::ArbiterAnswered { serial, answer }));
        self.next_call(side);
    }

    /// A call arrives.
    fn called(&mut self, letter: Letter) {
        let (now_ms, life) = (self.now_ms, self.arbiter.life);
        let Some(process) = self.arbiter.process.as_mut().filter(|_| life == letter.leads_to)
        else {
            // Nobody knows the connection.
            return self.answer(letter.side, letter.life, letter.number, ArbiterAnswer::Silent);
        };
        if let Some((until_ms, _)) = &process.writing {
            let delay_ms = (*until_ms).max(self.arbiter.hangs_until_ms).saturating_sub(now_ms);
            return self.at_arbiter(delay_ms.max(1), Event::Call(letter));
        }
        if letter.opens {
            process.newest.insert(letter.node.clone(), letter.connection);
        }
        if process.newest.get(&letter.node) != Some(&letter.connection) {
            return self.note("arbiter: a call of an older connection is not carried out");
        }
        let arbiter_ms = process.now_ms(now_ms);
        let (answer, changed) = process.registers.handle(arbiter_ms, &NAME, &letter.call);
        let bytes = process.registers.encode();
        let waits = self.arbiter.callers[letter.side as usize].asked;
        if waits.is_none_or(|(asked, _)| asked != letter.number) && letter.number > 0 {
            self.note("arbiter: a call is carried out that nobody waits for any more");
        }
        if !changed {
            return self.written(&letter, answer);
        }
        let sync_ms = 1 + self.roll(self.options.sync_ms_max);
        if let Some(process) = &mut self.arbiter.process {
            process.writing = Some((now_ms + sync_ms, bytes));
        }
        self.at_arbiter(sync_ms, Event::Written { life, letter, answer });
    }

    /// A sync ends, if the disk lets it.
    fn synced(&mut self, letter: Letter, answer: ArbiterAnswer) {
        let life = self.arbiter.life;
        if self.arbiter.hangs_until_ms > self.now_ms {
            let delay_ms = self.arbiter.hangs_until_ms - self.now_ms;
            return self.at_arbiter(delay_ms, Event::Written { life, letter, answer });
        }
        if let Some((reaches_the_disk, down_ms)) = self.arbiter.fails.take() {
            self.note(format!("arbiter: its sync has failed, written: {reaches_the_disk}"));
            self.end_arbiter(down_ms, reaches_the_disk);
            // Its connections break off with it.
            return self.answer(letter.side, letter.life, letter.number, ArbiterAnswer::Silent);
        }
        self.written(&letter, answer);
    }

    /// What the answer says is on disk.
    fn written(&mut self, letter: &Letter, answer: ArbiterAnswer) {
        let before = self.arbiter.written();
        let writing = self.arbiter.process.as_mut().and_then(|process| process.writing.take());
        if let Some((due_ms, bytes)) = writing {
            self.arbiter.disk = Some(bytes);
            let waits = self.arbiter.callers[letter.side as usize].asked;
            if due_ms < self.now_ms && waits.is_none_or(|(asked, _)| asked != letter.number) {
                self.note("arbiter: a sync has hung until nobody waited for it any more");
            }
        }
        self.note_call(letter, &answer, before);
        if letter.breaks {
            // On the way back; the node learns of it.
            self.note(format!("{:?}'s connection to the arbiter breaks off", letter.side));
            self.answer(letter.side, letter.life, letter.number, ArbiterAnswer::Silent);
        } else {
            self.answer(letter.side, letter.life, letter.number, answer);
        }
    }

    /// For [`crate::SOMETIMES`].
    fn note_call(&mut self, letter: &Letter, answer: &ArbiterAnswer, before: Option<Register>) {
        let ArbiterAnswer::Told { done, held } = *answer else { return };
        let side = letter.side;
        match letter.call {
            ArbiterCall::Swap { register, .. } if done => {
                self.note(format!("arbiter: {side:?} writes {register:?}"));
                if before.is_some_and(|before| before.leader != register.leader) {
                    self.note(format!("arbiter: the role passes to {side:?}"));
                }
                let seeded = before.is_none() && register.epoch.number > 1;
                if seeded {
                    self.note("arbiter: the register is there again");
                }
            }
            ArbiterCall::Swap { expected, .. } => {
                let came_too_late = held.is_some_and(|held| held.version != expected);
                let why = if came_too_late { "another came first" } else { "it is leased" };
                self.note(format!("arbiter: {side:?} writes nothing: {why}"));
            }
            ArbiterCall::Renew { .. } if done => {
                let now = held.map(|held| held.register);
                if self.arbiter.was_alone.take_if(|alone| Some(*alone) == now).is_some() {
                    self.note(format!("arbiter: {side:?} is alone as before the restart"));
                }
            }
            _ => {}
        }
    }

    /// With an arbiter one node serves at each moment, and whoever commits without the other's disk
    /// has been written down as alone before.
    pub(crate) fn check_register(&mut self, side: Side, peer_end: Lsn) {
        if !self.has_arbiter() {
            return;
        }
        let peer_end = peer_end.max(self.checks.replaced[side.other() as usize]);
        let Some(node) = self.node(side).filter(|node| node.is_serving()) else { return };
        if node.applied() <= peer_end || node.status().state == "stopped" {
            return;
        }
        let (me, applied) = (node.status().node_id, node.applied());
        let written = self.arbiter.written();
        let alone =
            |register: Register| register.leader.to_string() == me && register.slave.is_none();
        if !written.is_none_or(alone) {
            let text = format!("{side:?} has committed {applied} alone beside {written:?}");
            self.checks.violations.push(text);
        }
    }

    /// Either node may lead next.
    pub(crate) fn has_both_registered(&self) -> bool {
        let written = self.arbiter.written();
        !self.has_arbiter() || written.is_some_and(|register| register.slave.is_some())
    }

    pub(crate) fn check_one_serves(&mut self) {
        if !self.has_arbiter() || !self.serve_both() {
            return;
        }
        if Side::BOTH.into_iter().all(|side| self.is_awake(side)) {
            let text = format!("{} ms: both nodes serve", self.now_ms);
            self.checks.violations.push(text);
        }
    }
}
