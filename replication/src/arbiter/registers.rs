//! The registers themselves: what the arbiter's process and the tests' worlds run. No clock, no
//! disk: the caller gives the time and writes [`Registers::encode`] before it answers.

use super::{ArbiterAnswer, ArbiterCall, Held, Register};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::{get_epoch, put_epoch};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use understudy_model::{Malformed, NodeId, Reader, Text, Writer};

const FORMAT_VERSION: u8 = 1;
/// Pairs that one arbiter serves.
const PAIRS_MAX: usize = 1_024;

#[derive(Clone, Debug, Hash)]
struct Entry {
    version: u64,
    register: Register,
    /// The longest lease that was granted, and when the present one ends.
    lease_ms: u64,
    ends_ms: u64,
}

/// By the name that both nodes of a pair are configured with.
#[derive(Clone, Debug, Default, Hash)]
pub struct Registers(BTreeMap<Text, Entry>);

impl Registers {
    /// Carries out `call`. True: [`Self::encode`] must be on disk before the answer is given.
    pub fn handle(
        &mut self,
        now_ms: u64,
        name: &Text,
        call: &ArbiterCall,
    ) -> (ArbiterAnswer, bool) {
        let (done, changed) = match *call {
            ArbiterCall::Read => (true, false),
            ArbiterCall::Swap { expected, register, lease_ms, force } => {
                let done = self.swap(now_ms, name, expected, register, lease_ms, force);
                (done, done)
            }
            ArbiterCall::Renew { leader, epoch, lease_ms } => {
                match self.0.get_mut(name).filter(|entry| entry.is_led_by(leader, epoch)) {
                    Some(entry) => (true, entry.lease(now_ms, lease_ms)),
                    None => (false, false),
                }
            }
            // Not written: after a restart a lease is taken as held once more, which is safe.
            ArbiterCall::Release { leader, epoch } => {
                match self.0.get_mut(name).filter(|entry| entry.is_led_by(leader, epoch)) {
                    Some(entry) => {
                        entry.ends_ms = now_ms;
                        (true, false)
                    }
                    None => (false, false),
                }
            }
        };
        let held = self.0.get(name).map(|entry| entry.held(now_ms));
        (ArbiterAnswer::Told { done, held }, changed)
    }

    fn swap(
        &mut self,
        now_ms: u64,
        name: &Text,
        expected: u64,
        register: Register,
        lease_ms: u64,
        force: bool,
    ) -> bool {
        let entry = self.0.get(name);
        let version = entry.map_or(0, |entry| entry.version);
        let is_held = |entry: &Entry| {
            entry.ends_ms > now_ms && entry.register.leader != register.leader && !force
        };
        let (is_stale, is_held) = (version != expected, entry.is_some_and(is_held));
        #[cfg(test)]
        let (is_stale, is_held) = (
            is_stale && !broken::is(Broken::IgnoresVersion),
            is_held && !broken::is(Broken::IgnoresLease),
        );
        if is_stale || is_held {
            return false;
        }
        if entry.is_none() && self.0.len() >= PAIRS_MAX {
            return false;
        }
        let ends_ms = now_ms + lease_ms;
        let entry = Entry { version: version + 1, register, lease_ms, ends_ms };
        self.0.insert(name.clone(), entry);
        true
    }

    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        w.u8(FORMAT_VERSION);
        w.varint(self.0.len() as u64);
        for (name, entry) in &self.0 {
            w.text(name);
            w.varint(entry.version);
            entry.register.encode(w);
            w.varint(entry.lease_ms);
        }
        out.freeze()
    }

    /// What a former run wrote. Its leases may have been renewed just before it ended, so each is
    /// held for its whole length from now on.
    ///
    /// # Errors
    /// The bytes are not what [`Self::encode`] makes.
    pub fn decode(bytes: &[u8], now_ms: u64) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        if r.u8()? != FORMAT_VERSION {
            return Err(Malformed("registers: written by another version"));
        }
        let mut entries = BTreeMap::new();
        for _ in 0..r.varint()? {
            let name = r.text()?;
            let version = r.varint()?;
            let register = Register::decode(&mut r)?;
            let lease_ms = r.varint()?;
            let ends_ms = now_ms.saturating_add(lease_ms);
            entries.insert(name, Entry { version, register, lease_ms, ends_ms });
        }
        r.finish()?;
        Ok(Self(entries))
    }
}

impl Entry {
    fn is_led_by(&self, leader: NodeId, epoch: understudy_model::Epoch) -> bool {
        self.register.leader == leader && self.register.epoch == epoch
    }

    /// True if the disk must know of a longer one.
    fn lease(&mut self, now_ms: u64, lease_ms: u64) -> bool {
        self.ends_ms = now_ms + lease_ms;
        let longer = lease_ms > self.lease_ms;
        self.lease_ms = self.lease_ms.max(lease_ms);
        longer
    }

    fn held(&self, now_ms: u64) -> Held {
        let lease_ms = self.ends_ms.saturating_sub(now_ms);
        Held { version: self.version, register: self.register, lease_ms }
    }
}

impl Register {
    /// For a register that others keep.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut Writer(&mut out));
        out.freeze()
    }

    /// # Errors
    /// The bytes are not what [`Self::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let register = Self::decode(&mut r)?;
        r.finish()?;
        Ok(register)
    }

    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.u128(self.cluster);
        put_epoch(w, self.epoch);
        w.u128(self.leader.0);
        w.bool(self.slave.is_some());
        w.u128(self.slave.unwrap_or_default().0);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (cluster, epoch, leader) = (r.u128()?, get_epoch(r)?, NodeId(r.u128()?));
        let (present, slave) = (r.bool()?, NodeId(r.u128()?));
        Ok(Self { cluster, epoch, leader, slave: present.then_some(slave) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::Epoch;

    fn register(leader: u128, number: u64, slave: Option<u128>) -> Register {
        let epoch = Epoch { number, generation: number };
        Register { cluster: 1, epoch, leader: NodeId(leader), slave: slave.map(NodeId) }
    }

    fn swap(expected: u64, register: Register) -> ArbiterCall {
        ArbiterCall::Swap { expected, register, lease_ms: 100, force: false }
    }

    fn told(registers: &mut Registers, now_ms: u64, call: ArbiterCall) -> (bool, Option<Held>) {
        match registers.handle(now_ms, &Text::from_static("a"), &call).0 {
            ArbiterAnswer::Told { done, held } => (done, held),
            ArbiterAnswer::Silent => panic!("registers always answer"),
        }
    }

    #[test]
    fn one_of_two_swaps_of_the_same_version_wins_and_a_lease_keeps_the_other_node_out() {
        let mut registers = Registers::default();
        let (one, two) = (register(1, 1, Some(2)), register(2, 2, None));
        assert_eq!(told(&mut registers, 0, ArbiterCall::Read), (true, None));
        assert!(told(&mut registers, 0, swap(0, one)).0);
        assert!(!told(&mut registers, 0, swap(0, two)).0, "the version has moved on");
        assert!(!told(&mut registers, 99, swap(1, two)).0, "the lease lives");
        let renew = |leader, number, lease_ms| ArbiterCall::Renew {
            leader: NodeId(leader),
            epoch: Epoch { number, generation: number },
            lease_ms,
        };
        assert!(told(&mut registers, 99, renew(1, 1, 100)).0);
        assert!(!told(&mut registers, 99, renew(2, 1, 100)).0);
        assert!(!told(&mut registers, 198, swap(1, two)).0);
        let (done, held) = told(&mut registers, 199, swap(1, two));
        assert!(done);
        assert_eq!(held, Some(Held { version: 2, register: two, lease_ms: 100 }));
        assert!(!told(&mut registers, 200, renew(1, 1, 100)).0, "replaced");
        let release = ArbiterCall::Release { leader: NodeId(2), epoch: two.epoch };
        assert!(told(&mut registers, 200, release).0);
        assert!(told(&mut registers, 200, swap(2, register(1, 3, None))).0);
        // The operator's word.
        let forced = ArbiterCall::Swap { expected: 3, register: two, lease_ms: 100, force: true };
        assert!(told(&mut registers, 201, forced).0);
    }

    #[test]
    fn a_swap_of_another_version_is_not_carried_out_lease_or_not() {
        let mut registers = Registers::default();
        assert!(!told(&mut registers, 0, swap(1, register(1, 1, None))).0, "there is none");
        assert!(told(&mut registers, 0, swap(0, register(1, 1, Some(2)))).0);
        assert!(told(&mut registers, 0, swap(1, register(1, 1, None))).0);
        // The leader's own, and anybody's when the lease has ended.
        for (now_ms, leader, force) in [(1, 1, false), (500, 2, false), (1, 2, true)] {
            for expected in [0, 1, 3] {
                let register = register(leader, 2, None);
                let call = ArbiterCall::Swap { expected, register, lease_ms: 100, force };
                let (done, held) = told(&mut registers, now_ms, call);
                assert!(!done, "{call:?}");
                assert_eq!(held.map(|held| (held.version, held.register.leader.0)), Some((2, 1)));
            }
        }
    }

    #[test]
    fn after_a_restart_every_lease_is_held_once_more() {
        let mut registers = Registers::default();
        told(&mut registers, 0, swap(0, register(1, 1, Some(2))));
        let bytes = registers.encode();
        let mut registers = Registers::decode(&bytes, 5_000).unwrap();
        assert!(!told(&mut registers, 5_099, swap(1, register(2, 2, None))).0);
        assert!(told(&mut registers, 5_100, swap(1, register(2, 2, None))).0);
        for length in 0..bytes.len() {
            assert!(Registers::decode(&bytes[..length], 0).is_err());
        }
    }

    #[test]
    fn pairs_do_not_see_each_other_and_there_is_a_limit() {
        let mut registers = Registers::default();
        for number in 0..=PAIRS_MAX as u64 {
            let name = Text::from(number.to_string());
            let (answer, _) = registers.handle(0, &name, &swap(0, register(1, 1, None)));
            let done = matches!(answer, ArbiterAnswer::Told { done: true, .. });
            assert_eq!(done, number < PAIRS_MAX as u64);
        }
    }
}
