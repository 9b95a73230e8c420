//! What goes wrong in a random run, and for how long.

use crate::client::Client;
use crate::random::Setting;
use crate::world::{Side, World};

/// Shorter than the time after which a silent node is given up.
const SHORT_MS: u64 = 1_200;
/// Longer than every time-out.
const LONG_MS: u64 = 9_000;

/// Under `both` without an arbiter only one node is down at a time, and silence is shorter than the time after which a
/// node goes on alone: within these faults nothing confirmed may be lost and no order broken. With
/// an arbiter, and under the other policies, that holds whatever happens.
pub(crate) fn fault(world: &mut World, setting: Setting) {
    let side = if world.roll(2) == 0 { Side::A } else { Side::B };
    let silence_ms = if setting.is_frail() { SHORT_MS } else { LONG_MS };
    match world.roll(21) {
        0..=3 => crash(world, setting, side),
        4 => {
            world.cut_link();
            heal_later(world, silence_ms);
        }
        5 => {
            world.cut_towards(side);
            heal_later(world, silence_ms);
        }
        6 => {
            let slow_ms = 1 + world.roll(300);
            world.slow_link(slow_ms);
            heal_later(world, LONG_MS);
        }
        7 => {
            let pause_ms = world.roll(silence_ms);
            world.pause(side, pause_ms);
            world.run_ms(pause_ms);
        }
        8 => {
            let hang_ms = world.roll(silence_ms);
            world.hang_disk(side, hang_ms);
            world.run_ms(hang_ms);
        }
        9 => {
            if setting.is_frail() && !world.in_sync() {
                return;
            }
            world.fail_sync(side);
            world.run_ms(3_000);
        }
        10 => {
            let wholly = world.roll(2) == 0;
            let full_ms = world.roll(if wholly { silence_ms } else { LONG_MS });
            world.fill_disk(side, full_ms, wholly);
            world.run_ms(full_ms);
            if world.serving() == Some(side) && world.clients.iter().any(Client::waits) {
                world.note("publishers wait for room");
            }
        }
        18 => {
            let (low_ms, full_ms) = (world.roll(1_000), world.roll(LONG_MS));
            world.use_up_disk(side, low_ms, full_ms);
            let run_ms = world.roll(low_ms + full_ms);
            world.run_ms(run_ms);
        }
        19 => {
            // Each of them may be the last one with everything.
            if setting.is_frail() && !world.in_sync() {
                return;
            }
            world.stop(side);
            world.run_ms(3_000);
        }
        // Without an arbiter a refused connection is evidence of death.
        20 if setting.arbiter => {
            world.reject_link();
            heal_later(world, LONG_MS);
        }
        // A new node takes the place only beside a master that may be alone.
        11 if setting.master_may_be_alone() => replace_disk(world, setting),
        // One of the two copies stays good.
        15 if world.in_sync() && world.is_whole(side.other()) => world.corrupt(side),
        12 | 13 => switchover(world, setting, side),
        14 => {
            let client = world.roll(world.clients.len() as u64) as usize;
            world.drop_client(client);
        }
        _ => {
            // Both lose power at once; the old master may be first or last to come back.
            world.crash(Side::A);
            world.crash(Side::B);
            world.start(side);
            let apart_ms = world.roll(if setting.is_frail() { 2_000 } else { LONG_MS });
            world.run_ms(apart_ms);
            world.start(side.other());
        }
    }
}

/// Perhaps something befalls the arbiter, and lasts while the nodes have their own troubles.
pub(crate) fn arbiter_fault(world: &mut World) {
    let side = if world.roll(2) == 0 { Side::A } else { Side::B };
    let for_ms = world.roll(2 * LONG_MS);
    match world.roll(18) {
        0 | 1 => world.crash_arbiter(for_ms, false),
        2 => world.crash_arbiter(for_ms, true),
        3 => {
            // Its leases begin anew.
            let short_ms = world.roll(200);
            world.crash_arbiter(short_ms, false);
        }
        4 => world.pause_arbiter(for_ms),
        5 => world.cut_off_arbiter(side, true, true, for_ms),
        6 => world.cut_off_arbiter(side, true, false, for_ms),
        7 => world.cut_off_arbiter(side, false, true, for_ms),
        8 => {
            world.cut_off_arbiter(side, true, true, for_ms);
            world.cut_link();
            heal_later(world, LONG_MS);
        }
        9 => {
            let slow_ms = world.roll(1_500);
            world.slow_arbiter(slow_ms, for_ms);
        }
        10 | 11 => world.break_arbiter(for_ms),
        16 => world.hang_arbiters_disk(for_ms),
        17 => world.fail_arbiters_sync(for_ms),
        // Without force it decides nothing against the arbiter.
        12 => world.promote(side, false),
        _ => {}
    }
}

fn heal_later(world: &mut World, ms_max: u64) {
    let ms = world.roll(ms_max);
    world.run_ms(ms);
    world.heal_link();
}

fn crash(world: &mut World, setting: Setting, side: Side) {
    // A second crash while the first victim is not back in sync would be a double fault.
    if setting.is_frail() && !world.in_sync() {
        return;
    }
    world.crash(side);
    let down_ms = world.roll(8_000);
    world.run_ms(down_ms);
    world.start(side);
}

/// Sometimes the master dies, or the link is cut, in the middle of it.
fn switchover(world: &mut World, setting: Setting, side: Side) {
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
            heal_later(world, if setting.is_frail() { SHORT_MS } else { LONG_MS });
        }
        _ => {}
    }
}

/// The slave's disk is lost.
fn replace_disk(world: &mut World, setting: Setting) {
    let Some(master) = world.serving().filter(|_| world.in_sync()) else { return };
    let slave = master.other();
    world.crash(slave);
    world.replace_disk(slave);
    let is_alone =
        |world: &World| world.node(master).is_some_and(|node| node.status().state == "alone");
    if !world.run_until(20_000, is_alone) {
        // It died before it could write that it goes on alone, and cannot know that the other's
        // disk is lost: the operator does.
        world.start(master);
        world.promote(master, false);
        if !world.run_until(20_000, is_alone) && setting.arbiter {
            // The arbiter cannot be asked, or has lost what it knew.
            world.heal_arbiter();
            world.start_arbiter();
            // Whichever its state asks for; the other one is refused.
            world.promote(master, true);
            world.forget_slave(master);
            world.run_until(20_000, is_alone);
        }
    }
    world.start(slave);
}
