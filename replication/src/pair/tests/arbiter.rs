//! The arbiter of the world: the real registers behind a network that delays, loses and breaks off.

use super::world::{Event, World};
use crate::{
    ArbiterAnswer, ArbiterCall, ArbiterConfig, Backend, Input, PairConfig, Register, Registers,
};
use understudy_model::Text;

const NAME: Text = Text::from_static("pair");

#[derive(Default)]
pub(super) struct Arbiter {
    registers: Registers,
    pub(super) down: bool,
    /// Hosts that cannot reach it.
    pub(super) cut: [bool; 3],
    /// One in so many answers is lost; 0: none.
    pub(super) loses: u64,
    /// Swaps are put aside, without an answer.
    pub(super) delays_swaps: bool,
    late: Option<ArbiterCall>,
    outages: usize,
    /// When the last call of each host arrives: a later one never overtakes.
    last_ms: [u64; 3],
}

pub(super) const LEASE_MS: u64 = 2_000;

pub(super) fn with_arbiter(config: &mut PairConfig) {
    config.arbiter = Some(ArbiterConfig { id: 7, lease_ms: LEASE_MS });
}

impl World {
    pub(super) fn ask_arbiter(&mut self, host: usize, serial: u64, call: ArbiterCall) {
        let run = self.hosts[host].run;
        let at = self.delay().max(self.arbiter.last_ms[host]);
        self.arbiter.last_ms[host] = at;
        self.at(at, Event::AtArbiter { host, run, serial, call });
    }

    pub(super) fn at_arbiter(&mut self, host: usize, run: u64, serial: u64, call: &ArbiterCall) {
        let mut reached = !self.arbiter.down && !self.arbiter.cut[host];
        if reached && self.arbiter.delays_swaps && matches!(call, ArbiterCall::Swap { .. }) {
            self.arbiter.late = Some(*call);
            reached = false;
        }
        let loses = self.arbiter.loses;
        let lost = loses > 0 && self.below(loses) == 0;
        let mut answer = ArbiterAnswer::Silent;
        // What is lost may be lost on the way there, or on the way back.
        if reached && (!lost || self.below(2) == 0) {
            answer = self.arbiter.registers.handle(self.now_ms, &NAME, call).0;
        }
        let mut at = self.delay();
        if lost || !reached {
            answer = ArbiterAnswer::Silent;
            at += self.below(900);
        }
        let input = Input::ArbiterAnswered { serial, answer };
        self.at(at, Event::Input { host, run, input });
    }

    pub(super) fn has_late_swap(&self) -> bool {
        self.arbiter.late.is_some()
    }

    pub(super) fn carry_out_late_swap(&mut self) {
        self.arbiter.delays_swaps = false;
        if let Some(call) = self.arbiter.late.take() {
            self.arbiter.registers.handle(self.now_ms, &NAME, &call);
        }
    }

    pub(super) fn restart_arbiter(&mut self) {
        let bytes = self.arbiter.registers.encode();
        self.arbiter.registers = Registers::decode(&bytes, self.now_ms).unwrap();
        self.arbiter.down = false;
    }

    /// It is cut off from a host, goes down, comes back or starts anew.
    pub(super) fn harm_arbiter(&mut self) {
        let host = self.below(2) as usize;
        self.arbiter.outages += 1;
        match self.below(4) {
            0 => self.arbiter.down = true,
            1 => self.arbiter.cut[host] = true,
            2 => self.arbiter.cut = [false; 3],
            _ => self.restart_arbiter(),
        }
    }

    pub(super) fn heal_arbiter(&mut self) -> usize {
        self.arbiter.cut = [false; 3];
        self.arbiter.loses = 0;
        self.restart_arbiter();
        self.arbiter.outages
    }

    pub(super) fn empty_arbiter(&mut self) {
        self.arbiter.registers = Registers::default();
    }

    /// As after a swap of the leader's that it does not know to be won.
    pub(super) fn leave_slave_out(&mut self) {
        let registers = &mut self.arbiter.registers;
        let ArbiterAnswer::Told { held: Some(held), .. } =
            registers.handle(self.now_ms, &NAME, &ArbiterCall::Read).0
        else {
            panic!("no register");
        };
        let swap = ArbiterCall::Swap {
            expected: held.version,
            register: Register { slave: None, ..held.register },
            lease_ms: held.lease_ms,
            force: false,
        };
        registers.handle(self.now_ms, &NAME, &swap);
    }

    pub(super) fn arbiter_has_both(&self) -> bool {
        self.register().is_some_and(|register| register.slave.is_some())
    }

    /// The register says that host 1 leads alone.
    pub(super) fn swapped_to_host_1(&self) -> bool {
        let node = self.process(1).map(|process| process.pair.status().node_id);
        let register = self.register().filter(|register| register.slave.is_none());
        node.is_some() && register.map(|register| register.leader.to_string()) == node
    }

    pub(super) fn register(&self) -> Option<Register> {
        let mut registers = self.arbiter.registers.clone();
        match registers.handle(self.now_ms, &NAME, &ArbiterCall::Read).0 {
            ArbiterAnswer::Told { held, .. } => held.map(|held| held.register),
            ArbiterAnswer::Silent => None,
        }
    }
}
