//! One run from a seed: crashes, cuts and delays while clients work; then everything is healed
//! and must come to rest with nothing lost.

use crate::client::{Client, ClientKind, Way};
use crate::world::{Side, Sometimes, World, WorldOptions};

/// What a run came to; `violations` is empty if all held.
pub struct Outcome {
    pub violations: Vec<String>,
    pub confirmed: usize,
    pub duplicates: u64,
    pub sometimes: Sometimes,
    pub log: Vec<String>,
}

const FAULTS: u64 = 6;
const REST_MS_MAX: u64 = 300_000;

/// Every fourth run has cuts that last until both nodes serve.
fn has_partitions(seed: u64) -> bool {
    seed % 4 == 3
}

pub fn run_seed(seed: u64) -> Outcome {
    let mut world = World::new(WorldOptions {
        seed,
        latency_ms_max: 1 + seed % 7,
        sync_ms_max: 1 + seed % 5,
        ..WorldOptions::default()
    });
    world.checks.partitioned = has_partitions(seed);
    world.add_client(ClientKind::Publisher { messages: 150, dedup: true, by: Way::Straight });
    world.add_client(ClientKind::Publisher { messages: 100, dedup: false, by: Way::Straight });
    for by in [Way::DeadLetter, Way::Delayed] {
        world.add_client(ClientKind::Publisher { messages: 60, dedup: true, by });
    }
    world.add_client(ClientKind::Consumer { prefetch: 5 });
    world.add_client(ClientKind::Consumer { prefetch: 1 });
    world.start(Side::A);
    world.start(Side::B);
    let settle_ms = 200 + world.roll(1_500);
    world.run_ms(settle_ms);
    for _ in 0..FAULTS {
        fault(&mut world);
        let pause_ms = world.roll(3_000);
        world.run_ms(pause_ms);
    }
    rest(&mut world);
    let lost = world.checks.lost().into_iter().cloned().collect::<Vec<_>>();
    if !lost.is_empty() {
        world.checks.violations.push(format!("confirmed and lost: {lost:?}"));
    }
    Outcome {
        violations: std::mem::take(&mut world.checks.violations),
        confirmed: world.checks.confirmed_count(),
        duplicates: world.checks.duplicates(),
        sometimes: world.sometimes(),
        log: world.log,
    }
}

/// Only one node is down at a time, and cuts are shorter than the time after which a node goes on
/// alone: within these faults nothing confirmed may be lost and no order broken.
fn fault(world: &mut World) {
    let side = if world.roll(2) == 0 { Side::A } else { Side::B };
    match world.roll(9) {
        0..=2 => {
            // A second crash while the first victim is not back in sync would be a double fault.
            if !world.in_sync() {
                return;
            }
            world.crash(side);
            let down_ms = world.roll(8_000);
            world.run_ms(down_ms);
            world.start(side);
        }
        3 => {
            world.cut_link();
            let cut_ms = world.roll(if has_partitions(world.options.seed) { 9_000 } else { 1_200 });
            world.run_ms(cut_ms);
            world.heal_link();
        }
        4 => {
            // Sometimes the master dies, or the link is cut, in the middle of it.
            let Some(master) = world.serving().filter(|_| world.in_sync()) else { return };
            world.hand_over(master);
            let until_ms = world.roll(60);
            world.run_ms(until_ms);
            match world.roll(4) {
                0 => {
                    world.crash(side);
                    let down_ms = world.roll(8_000);
                    world.run_ms(down_ms);
                    world.start(side);
                }
                1 => {
                    world.cut_link();
                    let cut_ms = world.roll(1_200);
                    world.run_ms(cut_ms);
                    world.heal_link();
                }
                _ => {}
            }
        }
        6 => {
            // One of the two copies stays good.
            if world.in_sync() && world.is_whole(side.other()) {
                world.corrupt(side);
            }
        }
        5 => {
            let client = world.roll(world.clients.len() as u64) as usize;
            world.drop_client(client);
        }
        _ => {
            // Both lose power at once; the old master may be first or last to come back.
            world.crash(Side::A);
            world.crash(Side::B);
            world.start(side);
            let apart_ms = world.roll(2_000);
            world.run_ms(apart_ms);
            world.start(side.other());
        }
    }
}

fn rest(world: &mut World) {
    if world.cut {
        world.heal_link();
    }
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
}
