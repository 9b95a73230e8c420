//! What may happen next in a world; `carry_out.rs` does it.

use super::world::{REGISTER, World};
use crate::pair::state::State;
use crate::{ArbiterAnswer, ArbiterCall, Backend};
use std::fmt;
use understudy_model::Lsn;

/// What goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The disk of a node completes the next of what it was given.
    Disk(u8),
    /// A node reads what came next on its oldest connection that has something.
    Inbox(u8),
    /// An attempt to connect ends.
    Dial(u8),
    /// The arbiter carries out a node's call; the node hears of it.
    Arbiter(u8),
    Answer(u8),
    /// A node notices that the other end of a connection is closed.
    End(u8),
}

const SOURCES: [Source; 12] = [
    Source::Disk(0),
    Source::Disk(1),
    Source::Inbox(0),
    Source::Inbox(1),
    Source::Dial(0),
    Source::Dial(1),
    Source::Arbiter(0),
    Source::Arbiter(1),
    Source::Answer(0),
    Source::Answer(1),
    Source::End(0),
    Source::End(1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Run(Source),
    /// From here on the source comes behind all others, until it has come once.
    Delay(Source),
    Start(u8),
    /// `to` reads from a connection out of turn, or gives it up: what is on its way there is lost.
    Overtake {
        wire: u8,
        to: u8,
    },
    Lose {
        wire: u8,
        to: u8,
    },
    /// The next deadline passes. `late`: with the lease that the arbiter holds.
    Tick {
        host: u8,
        late: bool,
    },
    /// `applied`: the broker's state was saved just before.
    Crash {
        host: u8,
        applied: bool,
    },
    Cut,
    Heal,
    Publish(u8),
    Reclaim(u8),
    HandOver(u8),
    Promote {
        host: u8,
        force: bool,
    },
    Forget {
        host: u8,
        force: bool,
    },
    Resync(u8),
    Stop(u8),
    /// A call gets no answer. `done`: it is carried out all the same.
    Silence {
        host: u8,
        done: bool,
    },
    /// A call without answer is carried out after all.
    LateCall(u8),
    ArbiterRestart,
}

impl World {
    pub(super) fn is_ready(&self, source: Source) -> bool {
        let node = |host: u8| &self.nodes[usize::from(host)];
        let calls = |host: u8, answered: bool| {
            self.arbiter.as_ref().is_some_and(|arbiter| {
                let call = arbiter.calls[usize::from(host)].iter().find(|call| !call.orphan);
                call.is_some_and(|call| call.answer.is_some() == answered)
            })
        };
        match source {
            Source::Disk(host) => node(host).process.as_ref().is_some_and(|p| !p.jobs.is_empty()),
            Source::Inbox(host) => !self.cut && self.readable(host).is_some(),
            Source::Dial(host) => node(host).dialing && self.wires.len() < 2,
            Source::Arbiter(host) => calls(host, false),
            Source::Answer(host) => calls(host, true),
            Source::End(host) => self.ended(host).is_some(),
        }
    }

    pub(super) fn readable(&self, host: u8) -> Option<usize> {
        self.wires.iter().position(|wire| !wire.ends[usize::from(host)].inbox.is_empty())
    }

    pub(super) fn ended(&self, host: u8) -> Option<usize> {
        let host = usize::from(host);
        self.wires.iter().position(|wire| {
            wire.ends[host].open && wire.ends[host].inbox.is_empty() && !wire.ends[1 - host].open
        })
    }

    /// What comes next if nothing is out of the ordinary.
    pub(super) fn next(&self) -> Option<Source> {
        let ready = |source: &Source| self.is_ready(*source) && !self.delayed.contains(source);
        SOURCES.into_iter().find(ready)
    }

    /// Everything that may happen, and how far it departs from the calm course (0 or 1).
    pub(super) fn choices(&self) -> Vec<(Action, u8)> {
        let mut found = Vec::new();
        let next = self.next();
        if let Some(source) = next {
            found.push((Action::Run(source), 0));
            found.push((Action::Delay(source), 1));
        }
        // What is put off may come whenever nothing else does, and time passes meanwhile.
        let cost = u8::from(next.is_some());
        let late = self.delayed.iter().filter(|source| self.is_ready(**source));
        found.extend(late.map(|source| (Action::Run(*source), cost)));
        let first = self.first_to_tick();
        for host in [0u8, 1] {
            if self.process(host.into()).is_none() {
                found.push((Action::Start(host), cost));
            } else {
                // The shell asks the arbiter one thing at a time.
                let in_turn = first == Some(host) && !self.calls_pile_up();
                let cost = if in_turn { cost } else { 1 };
                self.ticks(host, cost, &mut found);
                self.faults(host, &mut found);
            }
            self.silences(host, cost, &mut found);
        }
        if self.cut {
            found.push((Action::Heal, cost));
        } else {
            found.push((Action::Cut, 1));
        }
        self.departures_of_wires(&mut found);
        found
    }

    /// What the arbiter carries out next for the host changes the register, if nothing speaks against it.
    pub(super) fn is_swapping(&self, host: usize) -> bool {
        self.arbiter.as_ref().is_some_and(|arbiter| {
            let call = arbiter.calls[host].iter().find(|call| !call.orphan);
            call.is_some_and(|call| {
                call.answer.is_none() && matches!(call.call, ArbiterCall::Swap { .. })
            })
        })
    }

    fn calls_pile_up(&self) -> bool {
        self.arbiter.as_ref().is_some_and(|a| a.calls.iter().any(|calls| calls.len() > 1))
    }

    fn first_to_tick(&self) -> Option<u8> {
        let due_ms = |host: u8| {
            let at_ms = self.process(host.into())?.pair.deadline_ms()?;
            Some((at_ms.saturating_sub(self.now_ms[usize::from(host)]), host))
        };
        [0, 1].into_iter().filter_map(due_ms).min().map(|(_, host)| host)
    }

    fn departures_of_wires(&self, found: &mut Vec<(Action, u8)>) {
        for (at, wire) in self.wires.iter().enumerate() {
            for to in [0u8, 1] {
                let ends = [to, 1 - to].map(|host| &wire.ends[usize::from(host)]);
                let wire_at = at as u8;
                let waits = !ends[0].inbox.is_empty();
                if ends[0].open && (wire.doomed || !ends[1].open && waits) {
                    found.push((Action::Lose { wire: wire_at, to }, 1));
                }
                if !self.cut && waits && self.readable(to) != Some(at) {
                    found.push((Action::Overtake { wire: wire_at, to }, 1));
                }
            }
        }
    }

    fn ticks(&self, host: u8, cost: u8, found: &mut Vec<(Action, u8)>) {
        let deadline = self.process(host.into()).and_then(|process| process.pair.deadline_ms());
        if deadline.is_some() {
            found.push((Action::Tick { host, late: false }, cost));
            if self.lease_end_ms(host.into()).is_some() {
                found.push((Action::Tick { host, late: true }, cost));
            }
        }
    }

    fn silences(&self, host: u8, cost: u8, found: &mut Vec<(Action, u8)>) {
        let Some(arbiter) = &self.arbiter else { return };
        let calls = &arbiter.calls[usize::from(host)];
        if calls.iter().any(|call| call.orphan) {
            found.push((Action::LateCall(host), cost));
        }
        if let Some(call) = calls.iter().find(|call| !call.orphan)
            && call.answer != Some(ArbiterAnswer::Silent)
        {
            found.push((Action::Silence { host, done: false }, 1));
            if call.answer.is_none() {
                found.push((Action::Silence { host, done: true }, 1));
            }
        }
        if host == 0 {
            found.push((Action::ArbiterRestart, 1));
        }
    }

    fn faults(&self, host: u8, found: &mut Vec<(Action, u8)>) {
        let node = &self.nodes[usize::from(host)];
        let Some(process) = &node.process else { return };
        let mut departures = vec![Action::Crash { host, applied: false }, Action::Stop(host)];
        if node.disk.applied < process.commit.min(node.disk.end().last) {
            departures.push(Action::Crash { host, applied: true });
        }
        if process.serving && process.leading.is_some() {
            departures.push(Action::Publish(host));
        }
        if self.reclaimable(usize::from(host)) > node.disk.base.0 {
            departures.push(Action::Reclaim(host));
        }
        match &process.pair.state {
            State::Lead(_) => departures.extend([
                Action::HandOver(host),
                Action::Forget { host, force: false },
                Action::Forget { host, force: true },
            ]),
            State::Idle(_) => departures.extend([
                Action::Promote { host, force: false },
                Action::Promote { host, force: true },
            ]),
            State::Follow(_) => departures.push(Action::Resync(host)),
            State::Stopped => {}
        }
        // What goes against the pair's own knowledge counts twice.
        let force = |action| {
            matches!(
                action,
                Action::Promote { force: true, .. } | Action::Forget { force: true, .. }
            )
        };
        let cost = |action| (action, 1 + u8::from(force(action)));
        found.extend(departures.into_iter().map(cost));
    }

    /// With an arbiter, only force goes against what it says; without one, the operator's word is all
    /// there is.
    pub(super) fn is_forced(&self, command: Action) -> bool {
        match command {
            Action::Promote { force, .. } => force || self.arbiter.is_none(),
            Action::Forget { force, .. } => force,
            _ => false,
        }
    }

    pub(super) fn reclaimable(&self, host: usize) -> Lsn {
        let Some(process) = self.process(host) else { return Lsn::ZERO };
        let retain = process.pair.retain_after().unwrap_or(process.commit);
        let ends = self.nodes[host].disk.lineage.iter().map(|(end, _)| *end);
        ends.filter(|end| *end <= retain.min(process.commit)).max().unwrap_or_default()
    }

    /// When the arbiter's lease ends, if a node that waits for that may let its own deadline pass.
    pub(super) fn lease_end_ms(&self, host: usize) -> Option<u64> {
        let mut registers = self.arbiter.as_ref()?.registers.clone();
        let process = self.process(host)?;
        let read = registers.handle(self.now_ms[host], &REGISTER, &ArbiterCall::Read).0;
        let ArbiterAnswer::Told { held: Some(held), .. } = read else { return None };
        let at_ms = self.now_ms[host] + held.lease_ms;
        let due_ms = process.pair.deadline_ms()?;
        (matches!(process.pair.state, State::Idle(_)) && at_ms > due_ms).then_some(at_ms)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(host) => write!(f, "host {host}'s disk completes the next write"),
            Self::Inbox(host) => write!(f, "host {host} reads what came"),
            Self::Dial(host) => write!(f, "host {host}'s attempt to connect ends"),
            Self::Arbiter(host) => write!(f, "the arbiter carries out host {host}'s call"),
            Self::Answer(host) => write!(f, "host {host} hears the arbiter's answer"),
            Self::End(host) => write!(f, "host {host} notices a connection's end"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(source) => write!(f, "{source}"),
            Self::Delay(source) => write!(f, "(not yet: {source})"),
            Self::Start(host) => write!(f, "host {host} starts"),
            Self::Overtake { wire, to } => {
                write!(f, "host {to} reads from connection {wire} first")
            }
            Self::Lose { wire, to } => write!(f, "host {to} loses connection {wire}"),
            Self::Tick { host, late: false } => write!(f, "host {host}'s next deadline passes"),
            Self::Tick { host, .. } => write!(f, "the lease ends and host {host} sees it"),
            Self::Crash { host, applied } => {
                write!(f, "host {host} crashes, its state just saved: {applied}")
            }
            Self::Cut => write!(f, "the network is cut"),
            Self::Heal => write!(f, "the network is whole again"),
            Self::Publish(host) => write!(f, "a client publishes at host {host}"),
            Self::Reclaim(host) => write!(f, "host {host} gives back its log"),
            Self::HandOver(host) => write!(f, "the operator asks host {host} for a switchover"),
            Self::Promote { host, force } => {
                write!(f, "the operator promotes host {host}, force: {force}")
            }
            Self::Forget { host, force } => {
                write!(f, "the operator has host {host} forget its slave, force: {force}")
            }
            Self::Resync(host) => write!(f, "the operator has host {host} take a whole copy"),
            Self::Stop(host) => write!(f, "the operator stops host {host}"),
            Self::Silence { host, done } => {
                write!(f, "host {host} gets no answer from the arbiter, call carried out: {done}")
            }
            Self::LateCall(host) => write!(f, "a call of host {host} without answer comes late"),
            Self::ArbiterRestart => write!(f, "the arbiter starts anew"),
        }
    }
}
