//! What an action does to a world.

use super::actions::{Action, Source};
use super::rules::Sight;
use super::world::{Call, Item, REGISTER, World};
use crate::pair::tests::disk::Job;
use crate::pair::view::View;
use crate::{ArbiterAnswer, ArbiterCall, Backend, Input, Registers};
use std::rc::Rc;

impl World {
    /// The calm course of things, until nothing goes on by itself.
    pub(super) fn calm(&mut self) {
        for _ in 0..1_000 {
            let Some(source) = self.next() else { return };
            self.apply(Action::Run(source));
        }
        self.violation = Some("somebody is busy without end".to_owned());
    }

    pub(super) fn apply(&mut self, action: Action) {
        self.sights = Sight::default();
        self.say(|| action.to_string());
        let log_changed = self.carry_out(action);
        self.check_state(log_changed);
    }

    /// True if a log was changed other than at its end.
    fn carry_out(&mut self, action: Action) -> bool {
        match action {
            Action::Run(source) => return self.run(source),
            Action::Delay(source) => self.delayed.push(source),
            Action::Start(host) => self.start(host.into()),
            Action::Overtake { wire, to } => self.deliver(wire.into(), to.into()),
            Action::Lose { wire, to } => self.lose(wire.into(), to.into()),
            Action::Tick { host, late } => self.tick(host.into(), late),
            Action::Crash { host, applied } => self.crash(host.into(), applied),
            Action::Cut => {
                self.cut = true;
                self.wires.iter_mut().for_each(|wire| wire.doomed = true);
            }
            Action::Heal => self.cut = false,
            Action::Publish(host) => {
                let number = self.ledger_mut().published();
                let sealed = self.seal(host.into(), &[b'p', host, number]);
                self.input(host.into(), sealed);
            }
            Action::Reclaim(host) => self.reclaim(host.into()),
            Action::LateCall(host) => self.call_arbiter(host.into(), true),
            Action::Silence { host, done } => {
                if done {
                    self.call_arbiter(host.into(), false);
                }
                self.silence(host.into());
            }
            Action::ArbiterRestart => {
                let now_ms = self.now_ms[0];
                if let Some(arbiter) = self.arbiter() {
                    arbiter.registers =
                        Registers::decode(&arbiter.registers.encode(), now_ms).unwrap();
                }
            }
            command => self.command(command),
        }
        false
    }

    fn run(&mut self, source: Source) -> bool {
        self.delayed.retain(|delayed| *delayed != source);
        match source {
            Source::Disk(host) => return self.disk(host.into()),
            Source::Inbox(host) => {
                if let Some(wire) = self.readable(host) {
                    self.deliver(wire, host.into());
                }
            }
            Source::Dial(host) => self.dialed(host.into()),
            Source::Arbiter(host) => self.call_arbiter(host.into(), false),
            Source::Answer(host) => self.answer(host.into()),
            Source::End(host) => {
                if let Some(wire) = self.ended(host) {
                    self.lose(wire, host.into());
                }
            }
        }
        false
    }

    fn command(&mut self, command: Action) {
        let (host, input) = match command {
            Action::HandOver(host) => (host, Input::HandOver),
            Action::Promote { host, force } => (host, Input::Promote { force }),
            Action::Forget { host, force } => (host, Input::ForgetSlave { force }),
            Action::Resync(host) => (host, Input::Resync),
            Action::Stop(host) => (host, Input::Stopping),
            _ => return,
        };
        self.input(host.into(), input);
        let accepted = Sight(self.sights.0 & (Sight::PROMOTION.0 | Sight::FORGOTTEN.0));
        if self.is_forced(command) && accepted != Sight::default() {
            self.lead_apart();
        }
    }

    fn disk(&mut self, host: usize) -> bool {
        let node = self.node(host);
        let Some(process) = &mut node.process else { return false };
        let Some(job) = process.jobs.pop_front() else { return false };
        node.disk.carry_out(job.clone());
        let log = node.disk.end();
        let mut changed = true;
        let input = match job {
            Job::Append(group) => {
                changed = false;
                Input::Durable { through: group.last() }
            }
            Job::SaveView { version, view } => {
                let view = Rc::new(View::decode(&view).unwrap());
                let before = node.view.replace(view);
                self.check_view(host, before.as_deref());
                changed = false;
                Input::ViewSaved { version }
            }
            Job::Truncate { .. } => {
                (process.last, process.chain) = (log.last, log.last_chain);
                Input::Truncated { log }
            }
            Job::Install { last, at, number, .. } => {
                (process.last, process.chain) = (log.last, log.last_chain);
                process.commit = log.last;
                if last { Input::Installed { log } } else { Input::ChunkStored { at, number } }
            }
        };
        self.input(host, input);
        changed
    }

    fn deliver(&mut self, wire: usize, to: usize) {
        let both = self.wires.len() > 1;
        let wire = &mut self.wires[wire];
        let link = wire.link(to);
        match wire.ends[to].inbox.pop_front() {
            Some(Item::Accept) => {
                if both {
                    self.sights |= Sight::CROSSED;
                }
                self.input(to, Input::Linked { link, dialed: false });
            }
            Some(Item::Frame(frame)) => {
                let frame = frame.bytes.clone();
                self.input(to, Input::Received { link, frame });
            }
            None => {}
        }
    }

    fn lose(&mut self, wire: usize, to: usize) {
        let wire = &mut self.wires[wire];
        let link = wire.link(to);
        let end = std::mem::take(&mut wire.ends[to]);
        self.sweep();
        if !matches!(end.inbox.front(), Some(Item::Accept)) {
            self.input(to, Input::LinkLost { link });
        }
    }

    fn dialed(&mut self, host: usize) {
        self.node(host).dialing = false;
        if self.cut {
            self.input(host, Input::DialFailed { refused: false });
        } else if self.process(1 - host).is_none() {
            self.input(host, Input::DialFailed { refused: true });
        } else {
            self.connect(host);
        }
    }

    fn tick(&mut self, host: usize, late: bool) {
        let due_ms = self.process(host).and_then(|process| process.pair.deadline_ms());
        let at_ms = if late { self.lease_end_ms(host) } else { due_ms };
        let at_ms = at_ms.unwrap_or_default().max(self.now_ms[host]);
        self.now_ms[host] = at_ms;
        if self.arbiter.is_some() {
            self.now_ms = [at_ms; 2];
            self.node(1 - host);
        }
        self.input(host, Input::Tick);
    }

    fn crash(&mut self, host: usize, applied: bool) {
        let node = self.node(host);
        if let (Some(process), true) = (&node.process, applied) {
            node.disk.applied = process.commit.min(node.disk.end().last).max(node.disk.applied);
        }
        self.end_process(host);
    }

    fn reclaim(&mut self, host: usize) {
        let to = self.reclaimable(host);
        let disk = &mut self.node(host).disk;
        disk.reclaim(to);
        disk.applied = disk.applied.max(to);
        let base = disk.base.0;
        self.input(host, Input::Reclaimed { base });
    }

    fn call_arbiter(&mut self, host: usize, late: bool) {
        let now_ms = self.now_ms[host];
        let Some(arbiter) = self.arbiter() else { return };
        let calls = &mut arbiter.calls[host];
        let mut lost = false;
        if late {
            if let Some(call) = calls.pop_front() {
                arbiter.registers.handle(now_ms, &REGISTER, &call.call);
            }
        } else {
            // The seam's promise: what came before is not carried out any more.
            calls.retain(|call| !call.orphan);
            if let Some(call) = calls.front_mut() {
                let answer = arbiter.registers.handle(now_ms, &REGISTER, &call.call).0;
                lost = matches!(call.call, ArbiterCall::Swap { .. })
                    && matches!(answer, ArbiterAnswer::Told { done: false, .. });
                call.answer = Some(answer);
            }
        }
        if lost {
            self.sights |= Sight::LOST_SWAP;
        }
    }

    fn answer(&mut self, host: usize) {
        let Some(arbiter) = self.arbiter() else { return };
        let calls = &mut arbiter.calls[host];
        let Some(at) = calls.iter().position(|call| !call.orphan) else { return };
        let Some(Call { serial, answer: Some(answer), .. }) = calls.remove(at) else { return };
        self.input(host, Input::ArbiterAnswered { serial, answer });
    }

    /// A swap that was not carried out may still be on its way.
    fn silence(&mut self, host: usize) {
        let Some(arbiter) = self.arbiter() else { return };
        let calls = &mut arbiter.calls[host];
        let Some(call) = calls.iter_mut().find(|call| !call.orphan) else { return };
        let on_its_way = call.answer.is_none() && matches!(call.call, ArbiterCall::Swap { .. });
        call.answer = Some(ArbiterAnswer::Silent);
        if on_its_way {
            let late = Call { answer: None, orphan: true, ..call.clone() };
            calls.push_front(late);
        }
    }
}
