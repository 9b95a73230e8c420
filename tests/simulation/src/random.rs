//! One run from a seed: faults while clients work; then everything is healed and must come to rest
//! with nothing lost.

use crate::client::{Client, ClientKind, Way};
use crate::faults::fault;
use crate::world::{Side, Sometimes, World, WorldOptions};
use std::collections::BTreeMap;
use understudy_replication::PairConfig;

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
pub const SOMETIMES: [(&str, &str); 16] = [
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
    ("empty disk", "gets an empty disk"),
    ("full disk", "disk is full"),
    ("back-pressure", "publishers wait for room"),
];

/// Faults of a run.
const FAULTS: u64 = 6;
const REST_MS_MAX: u64 = 300_000;
const CLOCKS_APART_MS_MAX: u64 = 5_000;

/// Who may go on alone by itself.
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

impl Policy {
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 8 {
            0..=2 => Self::Both,
            3 | 7 => Self::BothApart,
            4 => Self::SlaveSurvives,
            5 => Self::MasterSurvives,
            _ => Self::None,
        }
    }

    fn config(self) -> PairConfig {
        PairConfig {
            shutdown_on_master_failure: matches!(self, Self::MasterSurvives | Self::None),
            shutdown_on_slave_failure: matches!(self, Self::SlaveSurvives | Self::None),
            ..PairConfig::default()
        }
    }
}

pub fn run_seed(seed: u64) -> Outcome {
    let policy = Policy::of(seed);
    let mut world = World::new(WorldOptions {
        seed,
        pair: policy.config(),
        latency_ms_max: 1 + seed % 7,
        sync_ms_max: 1 + seed % 5,
        supervised: true,
        clocks_apart_ms_max: CLOCKS_APART_MS_MAX,
        // Faults come while there is work.
        pace_ms_max: 250,
        ..WorldOptions::default()
    });
    world.checks.partitioned = policy == Policy::BothApart;
    world.note(format!("policy {policy:?}"));
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
    world.start(Side::A);
    world.start(Side::B);
    let settle_ms = 200 + world.roll(1_500);
    world.run_ms(settle_ms);
    for _ in 0..FAULTS {
        fault(&mut world, policy);
        let pause_ms = world.roll(3_000);
        world.run_ms(pause_ms);
    }
    rest(&mut world);
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
