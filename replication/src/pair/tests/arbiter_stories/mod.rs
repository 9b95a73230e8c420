//! What an arbiter changes at each failure (docs/replication.md sections 11 and 14), as stories.

mod failures;
mod outages;

use super::arbiter::{LEASE_MS, with_arbiter};
use super::stories;
pub(super) use super::stories::{commit, publish, standing};
use super::world::World;
use crate::pair::arbitration::hold_ms;
use crate::pair::view::Standing;
use crate::{Backend, Input, PairConfig, Role};

pub(super) const HOLD_MS: u64 = hold_ms(LEASE_MS);

fn pair_with(change: impl Fn(&mut PairConfig)) -> World {
    stories::pair_with(|config| {
        with_arbiter(config);
        change(config);
    })
}

fn in_sync_with(change: impl Fn(&mut PairConfig)) -> World {
    stories::in_sync_with(|config| {
        with_arbiter(config);
        change(config);
    })
}

pub(super) fn in_sync() -> World {
    in_sync_with(|_| {})
}

fn state(world: &World, host: usize) -> &'static str {
    world.process(host).map_or("down", |process| process.pair.status().state)
}

fn restart_stopped(world: &mut World) {
    for host in [0, 1] {
        if world.process(host).is_none() {
            world.start(host);
        }
    }
}

#[test]
fn a_new_pair_registers_the_master_then_both() {
    let mut world = pair_with(|_| {});
    world.start(0);
    assert!(world.until(100, |w| w.serves(0)));
    assert_eq!(world.register().map(|register| register.slave), Some(None));
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)));
    let register = world.register().unwrap();
    assert!(register.slave.is_some());
    assert!(matches!(standing(&world, 0), Standing::Synced { led: true, .. }));
}

#[test]
fn the_arbiter_of_another_pair_is_refused() {
    let mut world = in_sync();
    let before = world.register();
    world.hosts[2].config.role = Role::Master;
    world.start(2);
    assert!(world.until(1_000, |w| w.hosts[2].stopped.is_some()));
    let refusal = world.hosts[2].stopped.clone().unwrap().unwrap_err();
    assert!(refusal.contains("another pair"), "{refusal}");
    assert_eq!(world.register(), before);
    assert!(world.in_sync_pair(0, 1));
}

#[test]
fn nodes_with_different_arbiters_do_not_pair() {
    let mut world = pair_with(|_| {});
    world.hosts[1].config.arbiter = None;
    world.start(0);
    world.run(100);
    world.start(1);
    assert!(world.until(1_000, |w| w.hosts[1].stopped.is_some()));
    assert!(world.hosts[1].stopped.clone().unwrap().unwrap_err().contains("ARBITER"));
}

#[test]
fn a_clean_stop_gives_the_lease_back() {
    let mut world = in_sync();
    world.publish(0, 3);
    world.input(0, Input::Stopping);
    let asked_ms = world.now_ms;
    assert!(world.until(2_000, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    assert!(world.now_ms - asked_ms < 500, "{}", world.now_ms - asked_ms);
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn a_switchover_goes_by_the_arbiter_too() {
    let mut world = in_sync();
    world.input(0, Input::HandOver);
    let asked_ms = world.now_ms;
    assert!(world.until(2_000, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    assert!(world.now_ms - asked_ms < 500);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)));
    // The heir dies before it is the leader: the register says that the old one still may lead.
    let mut world = in_sync();
    world.input(0, Input::HandOver);
    world.until(1_000, |w| matches!(standing(w, 0), Standing::Lagging { .. }));
    world.crash(1);
    assert!(world.until(3 * HOLD_MS, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
}

#[test]
fn the_seeds_flags_still_stop_who_is_told_to_stop() {
    let mut world = in_sync_with(|config| config.shutdown_on_slave_failure = true);
    world.cut();
    assert!(world.until(5_000, |w| w.hosts[0].stopped.is_some()));
    assert!(world.until(2 * HOLD_MS, |w| w.serves(1)));
    world.heal();
    restart_stopped(&mut world);
    assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)));
    let mut world = in_sync_with(|config| config.shutdown_on_master_failure = true);
    world.crash(0);
    assert!(world.until(3 * HOLD_MS, |w| w.hosts[1].stopped.is_some()));
}

#[test]
fn the_operators_word_stands_above_the_register() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| state(w, 0) == "alone"));
    publish(&mut world, 0, 2);
    world.crash(0);
    world.start(1);
    world.run(20_000);
    world.input(1, Input::Promote { force: false });
    world.run(3_000);
    assert!(!world.serves(1));
    world.excused = true;
    world.input(1, Input::Promote { force: true });
    assert!(world.until(1_000, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    publish(&mut world, 1, 2);
    world.start(0);
    assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    assert!(world.serves(1));
}

#[test]
fn a_takeover_that_dies_between_the_swap_and_the_disk_is_finished_after_the_restart() {
    for crash_after_ms in 0..30 {
        let mut world = in_sync();
        world.crash(0);
        world.until(2 * HOLD_MS, |w| w.swapped_to_host_1());
        world.run(crash_after_ms);
        world.crash(1);
        world.start(0);
        world.start(1);
        let settled = world.until(30_000, |w| w.in_sync_pair(0, 1));
        assert!(settled, "{crash_after_ms}: {:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
        assert!(world.serves(1), "host 0 was taken out of the set");
    }
}
