//! What is done to a pair, drawn from the seed.

use crate::arbiter::Arbiter;
use crate::cluster::{Cluster, Side};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Side),
    KillBoth,
    Terminate(Side),
    Pause(Side),
    PauseBoth,
    Cut,
    CutTowards(Side),
    /// Of all its cables, so that clients and arbiter do not reach it either.
    Unplug(Side),
    /// The same, and the process is no more: nobody says so.
    PowerOff(Side),
    Slow,
    /// The link loses some packets.
    Lossy,
    FullDisk(Side),
    /// Of messages: the node mends itself from the other one.
    FlippedBits(Side),
    /// Of the file: the operator gives it an empty disk.
    FlippedPages(Side),
    Switchover,
    KillArbiter,
    PauseArbiter,
    /// That node cannot reach the arbiter.
    CutArbiter(Side),
    /// Its calls are carried out, and it hears of none.
    CutFromArbiter(Side),
    /// It cannot reach the other node either.
    Isolate(Side),
}

/// The numbers of a round.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to `below - 1`.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }

    pub(crate) fn pause(&mut self, below_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.roll(below_ms)));
    }

    /// What may befall the arbiter, while the pair has its own troubles.
    pub(crate) fn arbiter_fault(&mut self) -> Option<Fault> {
        let side = if self.roll(2) == 0 { Side::A } else { Side::B };
        match self.roll(10) {
            0 | 1 => Some(Fault::KillArbiter),
            2 => Some(Fault::PauseArbiter),
            3 => Some(Fault::CutArbiter(side)),
            4 => Some(Fault::CutFromArbiter(side)),
            5 | 6 => Some(Fault::Isolate(side)),
            _ => None,
        }
    }

    /// Of the link, or of `side`'s machine.
    pub(crate) fn network_fault(&mut self, cluster: &Cluster, side: Side) -> Fault {
        let with_machines = cluster.has_machines();
        match self.roll(8) {
            0 if with_machines => Fault::Lossy,
            0 | 1 => Fault::Slow,
            2 if with_machines => Fault::Unplug(side),
            2 | 3 => Fault::CutTowards(side),
            _ => Fault::Cut,
        }
    }

    /// `master` serves now.
    pub(crate) fn fault(&mut self, cluster: &Cluster, master: Side) -> Fault {
        let slave = master.other();
        let either = if self.roll(2) == 0 { master } else { slave };
        match self.roll(20) {
            0 if cluster.has_machines() => Fault::PowerOff(master),
            0..=2 => Fault::Kill(master),
            3 => Fault::Kill(slave),
            4 | 5 => Fault::KillBoth,
            6 | 7 => Fault::Terminate(master),
            8 => Fault::Terminate(slave),
            9 => Fault::Pause(master),
            10 => Fault::Pause(slave),
            11 => Fault::PauseBoth,
            12..=15 => self.network_fault(cluster, either),
            16 if cluster.has_small_disks() => Fault::FullDisk(either),
            // A new node takes the place of one whose data is bad only beside a master that may
            // be alone.
            17 if self.roll(3) == 0 && cluster.policy.master_may_stay() => {
                Fault::FlippedPages(slave)
            }
            17 => Fault::FlippedBits(either),
            18 if cluster.has_machines() => Fault::PowerOff(either),
            18 => Fault::Kill(either),
            _ => Fault::Switchover,
        }
    }
}

impl Fault {
    /// A node is silent though it lives, so that the other may serve beside it for a while.
    pub(crate) fn is_silence(self) -> bool {
        matches!(
            self,
            Self::Pause(_)
                | Self::PauseBoth
                | Self::Cut
                | Self::CutTowards(_)
                | Self::Slow
                | Self::Lossy
        )
    }

    pub(crate) fn stops_a_node(self) -> bool {
        matches!(self, Self::Pause(_) | Self::PauseBoth)
    }

    /// May come while another one lasts.
    pub(crate) fn combines(self) -> bool {
        !matches!(self, Self::FlippedBits(_) | Self::FlippedPages(_) | Self::FullDisk(_))
    }

    pub(crate) fn begin(self, cluster: &mut Cluster, dice: &mut Dice) {
        match self {
            Self::Kill(side) => cluster.kill(side),
            Self::KillBoth => Side::BOTH.into_iter().for_each(|side| cluster.kill(side)),
            Self::Terminate(side) => cluster.terminate(side),
            Self::Pause(side) => cluster.pause(side),
            Self::PauseBoth => Side::BOTH.into_iter().for_each(|side| cluster.pause(side)),
            Self::Cut => cluster.cut(),
            Self::CutTowards(side) => cluster.cut_towards(side),
            Self::Unplug(side) => cluster.unplug(side),
            Self::PowerOff(side) => {
                cluster.unplug(side);
                cluster.kill(side);
            }
            Self::Slow => cluster.slow_down(1 + dice.roll(100)),
            Self::Lossy => cluster.lose_some(),
            // Either the alarm comes first, or the disk is really full at the next write.
            Self::FullDisk(side) => {
                let spare = [0, 1 << 20, 12 << 20][dice.roll(3) as usize];
                cluster.fill_disk(side, spare);
            }
            Self::FlippedBits(side) => {
                cluster.kill(side);
                let count = 1 + dice.roll(40);
                cluster.flip_bodies(side, count, |below| dice.roll(below));
            }
            Self::FlippedPages(side) => {
                cluster.kill(side);
                let count = 1 + dice.roll(40);
                cluster.flip_pages(side, count, |below| dice.roll(below));
            }
            Self::KillArbiter => cluster.arbiter.iter_mut().for_each(Arbiter::kill),
            Self::PauseArbiter => cluster.arbiter.iter().for_each(|a| a.signal("STOP")),
            Self::CutArbiter(side) => cluster.arbiter.iter().for_each(|a| a.cut(side as usize)),
            Self::CutFromArbiter(side) => {
                cluster.arbiter.iter().for_each(|a| a.cut_towards(side as usize));
            }
            Self::Isolate(side) => {
                cluster.cut();
                cluster.arbiter.iter().for_each(|a| a.cut(side as usize));
            }
            Self::Switchover => {
                if let Some(master) = cluster.master() {
                    cluster.verb(master, &["switchover"]);
                }
            }
        }
    }

    /// The longest that it lasts.
    pub(crate) fn lasts_ms(self) -> u64 {
        match self {
            Self::Switchover => 300,
            Self::KillBoth => 800,
            Self::FlippedBits(_) | Self::FlippedPages(_) => 500,
            _ => 3_500,
        }
    }
}

/// Everything works again. Which node starts first is drawn, too.
pub(crate) fn repair(cluster: &mut Cluster, dice: &mut Dice) {
    cluster.heal();
    cluster.arbiter.iter_mut().for_each(Arbiter::repair);
    let first = if dice.roll(2) == 0 { Side::A } else { Side::B };
    for side in [first, first.other()] {
        cluster.resume(side);
        cluster.empty_disk(side);
        if cluster.node(side).revive() {
            dice.pause(1_000);
        }
    }
}

/// Whether two nodes may have served at one time: then repetitions and another order are no
/// breach. What a node handed out unplugged arrives late, which looks the same.
///
/// With an arbiter never; but a master that was stopped may hand out once more what it had before
/// it notices (docs/arbiter.md).
pub(crate) fn may_have_been_apart(cluster: &Cluster, faults: &[Fault]) -> bool {
    if faults.iter().any(|fault| matches!(fault, Fault::Unplug(_) | Fault::PowerOff(_))) {
        return true;
    }
    if cluster.arbiter.is_some() {
        return faults.iter().any(|fault| fault.stops_a_node());
    }
    cluster.policy.slave_may_lead() && faults.iter().any(|fault| fault.is_silence())
}
