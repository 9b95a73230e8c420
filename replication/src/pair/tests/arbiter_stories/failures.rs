//! Nodes and the link between them fail, and the arbiter is there.

use super::{HOLD_MS, commit, in_sync, in_sync_with, publish, standing, state};
use crate::pair::tests::arbiter::LEASE_MS;
use crate::pair::tests::world::World;
use crate::pair::view::Standing;
use understudy_model::Lsn;
#[test]
fn master_crash_the_slave_takes_over_when_the_lease_ends() {
    let mut world = in_sync();
    world.publish(0, 1);
    world.crash(0);
    let killed_ms = world.now_ms;
    assert!(world.until(HOLD_MS + 1_000, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    let after_ms = world.now_ms - killed_ms;
    assert!(after_ms > HOLD_MS - LEASE_MS && after_ms < HOLD_MS + 500, "after {after_ms} ms");
    assert_eq!(world.register().map(|register| register.slave), Some(None));
    publish(&mut world, 1, 3);
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(1) && !world.serves(0));
}

#[test]
fn a_master_that_is_back_before_its_lease_ends_goes_on_at_once() {
    let mut world = in_sync();
    world.crash(0);
    world.run(300);
    world.start(0);
    let started_ms = world.now_ms;
    assert!(world.until(1_000, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
    assert!(world.now_ms - started_ms < 200);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn a_slave_that_is_not_in_sync_is_refused_however_long_it_waits() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| state(w, 0) == "alone"));
    publish(&mut world, 0, 3);
    world.crash(0);
    world.start(1);
    world.run(60_000);
    assert!(!world.serves(1));
    assert!(world.hosts[1].logs.iter().any(|line| line.contains("not in the in-sync set")));
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(0));
}

#[test]
fn slave_crash_the_master_asks_writes_and_only_then_answers() {
    let mut world = in_sync();
    world.crash(1);
    world.publish(0, 1);
    let (lost_ms, last) = (world.now_ms, Lsn(commit(&world, 0).0 + 1));
    assert!(world.until(1_000, |w| commit(w, 0) == last));
    assert!(world.now_ms - lost_ms < 200);
    assert!(matches!(standing(&world, 0), Standing::Alone { .. }));
    assert_eq!(world.register().unwrap().slave, None);
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn link_loss_the_leader_goes_on_and_the_slave_is_refused() {
    let mut world = in_sync();
    world.cut();
    assert!(world.until(4_000, |w| state(w, 0) == "alone"), "{:?}", world.hosts[0].logs);
    publish(&mut world, 0, 3);
    world.run(20_000);
    assert!(world.serves(0) && !world.serves(1));
    world.heal();
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)));
    assert_eq!((world.leads, world.copies), (1, 0));
}

#[test]
fn link_loss_and_the_leader_has_lost_the_arbiter_too_the_slave_takes_over_after_the_lease() {
    let mut world = in_sync();
    world.cut();
    world.arbiter.cut[0] = true;
    let cut_ms = world.now_ms;
    world.publish(0, 1);
    let answered = commit(&world, 0);
    assert!(world.until(LEASE_MS + 300, |w| !w.serves(0)), "clients are shut out in time");
    assert!(world.now_ms - cut_ms > LEASE_MS / 2);
    assert!(world.until(2 * HOLD_MS, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    assert_eq!(commit(&world, 0), answered, "nothing is answered meanwhile");
    publish(&mut world, 1, 2);
    world.heal();
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "the arbiter is still cut off");
    world.arbiter.cut[0] = false;
    world.run(3_000);
    assert!(world.serves(1) && world.in_sync_pair(0, 1));
}

#[test]
fn the_slaves_lease_counts_from_the_beat_and_not_from_when_silence_is_noticed() {
    let mut world = in_sync_with(|config| config.suspect_ms = 20_000);
    world.arbiter.cut[0] = true;
    world.run(10_000);
    assert!(world.serves(0), "the slave's answers are a lease");
    world.cut();
    assert!(world.until(LEASE_MS + 300, |w| !w.serves(0)), "{:?}", world.hosts[0].logs);
}

#[test]
fn both_crash_the_old_master_serves_at_once_the_old_slave_after_the_lease() {
    for (first, within_ms) in [(0, 300), (1, HOLD_MS + 2_000)] {
        let mut world = in_sync();
        world.publish(0, 2);
        world.run(2);
        world.crash(0);
        world.crash(1);
        world.start(first);
        assert!(world.until(within_ms, |w| w.serves(first)), "{:?}", world.hosts[first].logs);
        publish(&mut world, first, 2);
        world.start(1 - first);
        assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{first} first");
    }
}

#[test]
fn both_come_back_from_a_double_crash_the_first_swap_wins() {
    for delay_ms in 0..40 {
        let mut world = in_sync();
        world.publish(0, 2);
        world.run(2);
        world.crash(0);
        world.crash(1);
        world.start(1);
        world.run(delay_ms);
        world.start(0);
        let settled = world.until(20_000, |w| w.in_sync_pair(0, 1));
        assert!(settled, "{delay_ms}: {:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
        let master = usize::from(world.serves(1));
        publish(&mut world, master, 1);
    }
}

#[test]
fn an_old_master_that_returns_stale_is_refused_until_it_is_synced() {
    let mut world = in_sync();
    world.crash(0);
    assert!(world.until(2 * HOLD_MS, |w| w.serves(1)));
    publish(&mut world, 1, 3);
    world.crash(1);
    world.start(0);
    world.run(30_000);
    assert!(!world.serves(0), "{:?}", world.hosts[0].logs);
    world.start(1);
    assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(1));
}

#[test]
fn a_master_whose_disk_hangs_loses_the_role() {
    let mut world = in_sync();
    world.hosts[0].hangs_until_ms = world.now_ms + 20_000;
    world.publish(0, 1);
    assert!(world.until(3 * HOLD_MS, |w| w.serves(1)), "{:?}", world.hosts[0].logs);
    publish(&mut world, 1, 3);
    assert!(world.until(30_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(1));
}

#[test]
fn a_master_that_slept_past_its_lease_serves_nobody_when_it_wakes() {
    for sleep_ms in [LEASE_MS + 100, HOLD_MS, HOLD_MS + 1_000, 60_000] {
        let mut world = in_sync();
        world.hosts[0].sleeps_until_ms = world.now_ms + sleep_ms;
        world.run(sleep_ms);
        let rested = |w: &World| w.in_sync_pair(0, 1) && (w.serves(0) || w.serves(1));
        assert!(world.until(30_000, rested), "{sleep_ms}: {:?}", world.hosts[0].logs);
    }
}
