//! One run from a seed: faults while clients work; then everything is healed and must come to rest
//! with nothing lost.

use crate::client::{Client, ClientKind, Way};
use crate::faults::{arbiter_fault, fault};
use crate::world::{Side, Sometimes, World, WorldOptions};
use std::collections::BTreeMap;
use understudy_replication::{ArbiterConfig, PairConfig};

/// What a run came to; `violations` is empty if all held.
pub struct Outcome {
    pub violations: Vec<String>,
    pub confirmed: usize,
    pub duplicates: u64,
    pub sometimes: Sometimes,
    pub log: Vec<String>,
    /// How often each of [`SOMETIMES`] came.
    pub seen: BTreeMap<&'static str, u64>,
}

/// What must come now and then, or the runs prove little; and how the log says it.
pub const SOMETIMES: [(&str, &str); 33] = [
    ("takeover", "going on without the peer"),
    ("going on alone", "going on alone"),
    ("rejoin by tail", ": Continue"),
    ("resumption in the same epoch", "back in-sync with the master"),
    ("rejoin by copy", ": Copy"),
    ("cut of an uncommitted tail", ": Cut"),
    ("divergence", ": Export"),
    ("re-injection", "taken over from the returning node"),
    ("diverged log set aside", "is set aside"),
    ("switchover", "is handed over"),
    ("stop by policy", "is set: this"),
    ("failed sync", "a sync has failed"),
    ("damage", " rots"),
    ("clean stop of a master", ", which serves, is asked"),
    ("clean stop of a slave", "the slave has said goodbye"),
    ("handover of a full master", "the disk is nearly full, and the slave's is not"),
    ("cut that looks like a death", "connections are refused"),
    ("failed sync of the arbiter", "arbiter: its sync has failed"),
    ("hung sync of the arbiter", "arbiter: a sync has hung"),
    ("empty disk", "gets an empty disk"),
    ("full disk", "disk is full"),
    ("back-pressure", "publishers wait for room"),
    ("takeover by the arbiter's word", "arbiter: the role passes to"),
    ("lease lost", "no lease: clients are shut out"),
    ("role lost with the disk", "the disk hangs: the role is given up"),
    ("alone through the arbiter's restart", "is alone as before the restart"),
    ("slave refused by the arbiter", "the arbiter refuses: this node is not in the in-sync set"),
    ("mastership replaced", "the arbiter refuses: another mastership has begun"),
    ("lost swap", "writes nothing: another came first"),
    ("late call", "carried out that nobody waits for any more"),
    ("call of an older connection", "call of an older connection is not carried out"),
    ("arbiter's data lost", "loses its data"),
    ("register written again", "the register is there again"),
];

/// Faults of a run.
const FAULTS: u64 = 6;
const REST_MS_MAX: u64 = 300_000;
const CLOCKS_APART_MS_MAX: u64 = 5_000;
const LEASE_MS: u64 = 2_000;

/// Who may go on alone by itself, without an arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Within faults after which nobody serves beside the master.
    Both,
    /// With cuts and pauses that last until both serve.
    BothApart,
    SlaveSurvives,
    MasterSurvives,
    None,
}

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) policy: Policy,
    pub(crate) arbiter: bool,
}

impl Setting {
    pub(crate) fn of(seed: u64) -> Self {
        let policy = match seed % 8 {
            0..=2 => Policy::Both,
            3 | 7 => Policy::BothApart,
            4 => Policy::SlaveSurvives,
            5 => Policy::MasterSurvives,
            _ => Policy::None,
        };
        let arbiter = seed.is_multiple_of(3);
        // With an arbiter nobody is ever apart.
        let policy = if arbiter && policy == Policy::BothApart { Policy::Both } else { policy };
        Self { policy, arbiter }
    }

    /// Silence or a second fault may cost what was confirmed.
    pub(crate) fn is_frail(self) -> bool {
        self.policy == Policy::Both && !self.arbiter
    }

    pub(crate) fn master_may_be_alone(self) -> bool {
        matches!(self.policy, Policy::Both | Policy::MasterSurvives)
    }

    fn config(self) -> PairConfig {
        let policy = self.policy;
        PairConfig {
            shutdown_on_master_failure: matches!(policy, Policy::MasterSurvives | Policy::None),
            shutdown_on_slave_failure: matches!(policy, Policy::SlaveSurvives | Policy::None),
            arbiter: self.arbiter.then_some(ArbiterConfig { id: 1, lease_ms: LEASE_MS }),
            ..PairConfig::default()
        }
    }
}

pub fn run_seed(seed: u64) -> Outcome {
    let setting = Setting::of(seed);
    let mut world = World::new(WorldOptions {
        seed,
        pair: setting.config(),
        latency_ms_max: 1 + seed % 7,
        sync_ms_max: 1 + seed % 5,
        supervised: true,
        clocks_apart_ms_max: CLOCKS_APART_MS_MAX,
        // Faults come while there is work.
        pace_ms_max: 250,
        ..WorldOptions::default()
    });
    world.checks.partitioned = setting.policy == Policy::BothApart;
    world.note(format!("{setting:?}"));
    world.add_client(ClientKind::Publisher { messages: 250, dedup: true, by: Way::Straight });
    world.add_client(ClientKind::Publisher { messages: 200, dedup: false, by: Way::Straight });
    for by in [Way::DeadLetter, Way::Delayed] {
        let publisher = world.add_client(ClientKind::Publisher { messages: 100, dedup: true, by });
        if by == Way::Delayed {
            world.checks.unordered.insert(publisher.to_string());
        }
    }
    world.add_client(ClientKind::Consumer { prefetch: 5 });
    world.add_client(ClientKind::Consumer { prefetch: 1 });
    world.start_arbiter();
    world.start(Side::A);
    world.start(Side::B);
    let settle_ms = 200 + world.roll(1_500);
    world.run_ms(settle_ms);
    for _ in 0..FAULTS {
        if setting.arbiter {
            arbiter_fault(&mut world);
        }
        fault(&mut world, setting);
        let pause_ms = world.roll(3_000);
        world.run_ms(pause_ms);
    }
    rest(&mut world);
    if !matches!(setting.policy, Policy::Both | Policy::BothApart) || setting.arbiter {
        let apart = [": Export", "taken over from the returning node"];
        let found = world.log.iter().find(|line| apart.iter().any(|text| line.contains(text)));
        if let Some(line) = found.cloned() {
            world.checks.violations.push(format!("nobody may lead apart: {line}"));
        }
    }
    let lost = world.checks.lost().into_iter().cloned().collect::<Vec<_>>();
    if !lost.is_empty() {
        world.checks.violations.push(format!("confirmed and lost: {lost:?}"));
    }
    let count = |text: &str| world.log.iter().filter(|line| line.contains(text)).count() as u64;
    Outcome {
        seen: SOMETIMES.into_iter().map(|(name, text)| (name, count(text))).collect(),
        violations: std::mem::take(&mut world.checks.violations),
        confirmed: world.checks.confirmed_count(),
        duplicates: world.checks.duplicates(),
        sometimes: world.sometimes(),
        log: world.log,
    }
}

fn rest(world: &mut World) {
    world.heal_link();
    world.heal_arbiter();
    world.start_arbiter();
    for side in Side::BOTH {
        world.restore_if_stopped(side);
        world.start(side);
    }
    let rested = world.run_until(REST_MS_MAX, |world| {
        world.in_sync()
            && world.clients.iter().all(Client::is_done)
            && world.checks.lost().is_empty()
            && world.node(Side::A).is_some_and(|a| a.broker().counts().unsettled == 0)
            && world.node(Side::B).is_some_and(|b| b.broker().counts().unsettled == 0)
    });
    if !rested {
        let states: Vec<String> = Side::BOTH
            .into_iter()
            .map(|side| {
                format!("{:?}", world.node(side).map(|n| (n.status(), n.broker().counts())))
            })
            .collect();
        world.checks.violations.push(format!("never came to rest: {states:?}"));
        return;
    }
    world.run_ms(2_000);
    if let Err(difference) = world.compare_states() {
        world.checks.violations.push(difference);
    }
    // The arbiter's disk may hang on for a while (seed 927).
    if !world.run_until(REST_MS_MAX, World::has_both_registered) {
        world.checks.violations.push("in-sync, and not both in the register".to_owned());
    }
    // Saved state and the tail of the log give the same state again.
    for side in Side::BOTH {
        world.crash(side);
        world.start(side);
        if !world.run_until(REST_MS_MAX, World::in_sync) {
            world.checks.violations.push(format!("no rest after a restart of {side:?}"));
        }
        world.run_ms(2_000);
        if let Err(difference) = world.compare_states() {
            world.checks.violations.push(format!("after a restart: {difference}"));
        }
    }
}
