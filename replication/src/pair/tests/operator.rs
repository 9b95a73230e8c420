//! What the operator may say to a pair.

use super::arbiter::with_arbiter;
use super::stories::{ends_equal, in_sync, in_sync_with, publish, standing};
use super::world::World;
use crate::pair::view::Standing;
use crate::{Backend, Input, Role};

/// (stops without master, stops without slave, arbiter): the four survival policies, with and without.
fn settings() -> impl Iterator<Item = (bool, bool, bool)> {
    let bits = |n: u8| (n & 1 > 0, n & 2 > 0, n & 4 > 0);
    (0..8).map(bits)
}

fn in_sync_under((no_master, no_slave, arbiter): (bool, bool, bool)) -> World {
    in_sync_with(|config| {
        config.shutdown_on_master_failure = no_master;
        config.shutdown_on_slave_failure = no_slave;
        if arbiter {
            with_arbiter(config);
        }
    })
}

fn reason(world: &World, host: usize) -> String {
    world.process(host).unwrap().pair.status().reason
}

#[test]
fn a_resync_replaces_the_slaves_copy_while_the_master_serves_under_each_policy() {
    for setting in settings() {
        let mut world = in_sync_under(setting);
        let old = world.last_group(1).map(|group| (group.last(), group.header().chain)).unwrap();
        world.input(1, Input::Resync);
        let asked_ms = world.now_ms;
        world.publish(0, 1);
        let last = world.last_group(0).unwrap().last();
        let committed = world.until(200, |w| w.process(0).is_some_and(|p| p.commit >= last));
        assert!(committed, "{:?} {:?}", world.hosts[0].logs, world.hosts[0].stopped);
        assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
        assert!(world.now_ms - asked_ms < 1_000);
        assert_eq!((world.copies, world.leads), (1, 1));
        assert!(world.hosts[1].disk.aside[0].contains(&old), "what was there is set aside");
        publish(&mut world, 0, 2);
        world.run(600);
        assert!(ends_equal(&world));
    }
}

#[test]
fn a_resync_that_is_cut_short_stays_without_a_claim_and_is_carried_through() {
    for cut_after_ms in 0..40 {
        let mut world = in_sync();
        world.input(1, Input::Resync);
        world.run(cut_after_ms);
        world.crash(1);
        world.start(1);
        assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "after {cut_after_ms} ms");
        assert_eq!(world.leads, 1);
        publish(&mut world, 0, 1);
        world.run(600);
        assert!(ends_equal(&world), "after {cut_after_ms} ms");
    }
}

#[test]
fn a_resync_is_refused_where_it_would_cost_the_only_copy() {
    let mut world = in_sync();
    world.input(0, Input::Resync);
    assert!(reason(&world, 0).contains("resync refused: this is the master"));
    assert!(world.in_sync_pair(0, 1));
    world.crash(0);
    world.crash(1);
    world.start(1);
    world.run(100);
    world.input(1, Input::Resync);
    assert!(reason(&world, 1).contains("resync refused: no master"), "{}", reason(&world, 1));
    assert!(matches!(standing(&world, 1), Standing::Synced { .. }));
}

#[test]
fn a_slave_that_is_gone_for_good_is_forgotten_and_a_new_node_takes_its_place() {
    let mut world = in_sync();
    world.input(0, Input::ForgetSlave { force: false });
    assert!(reason(&world, 0).contains("the slave is attached"), "{}", reason(&world, 0));
    world.input(1, Input::ForgetSlave { force: true });
    assert!(reason(&world, 1).contains("not the master"));
    assert!(world.in_sync_pair(0, 1));
    world.crash(1);
    world.run(500);
    world.input(0, Input::ForgetSlave { force: false });
    world.run(50);
    world.crash(0);
    world.start(0);
    world.run(50);
    let status = world.process(0).unwrap().pair.status();
    assert_eq!(status.peer_node_id, "", "also after a restart");
    // Who had the place is refused before the new one comes, and afterwards; not a byte of its changes.
    let before = world.hosts[1].disk.view.clone();
    for _ in 0..2 {
        world.start(1);
        assert!(world.until(2_000, |w| w.hosts[1].stopped.is_some()), "{:?}", world.hosts[1].logs);
        let refusal = world.hosts[1].stopped.clone().unwrap().unwrap_err();
        assert!(refusal.contains("FORGOTTEN"), "{refusal}");
        assert_eq!(world.hosts[1].disk.view, before);
        if world.process(2).is_none() {
            world.start(2);
            assert!(world.until(2_000, |w| w.in_sync_pair(0, 2)), "{:?}", world.hosts[2].logs);
        }
    }
    assert!(world.serves(0));
}

#[test]
fn an_attached_slave_is_forgotten_by_force_and_the_master_goes_on_under_each_policy() {
    for setting in settings() {
        let mut world = in_sync_under(setting);
        world.publish(0, 1);
        let last = world.last_group(0).map_or(0, |group| group.last().0) + 1;
        world.input(0, Input::ForgetSlave { force: true });
        let committed = world.until(200, |w| w.process(0).is_some_and(|p| p.commit.0 >= last));
        assert!(committed, "{:?} {:?}", world.hosts[0].logs, world.hosts[0].stopped);
        assert!(matches!(standing(&world, 0), Standing::Alone { .. }));
        assert!(world.until(3_000, |w| w.hosts[1].stopped.is_some()), "{:?}", world.hosts[1].logs);
        assert!(world.serves(0), "{setting:?}");
    }
}

#[test]
fn a_master_that_never_had_a_slave_has_none_to_forget() {
    let mut world = super::stories::pair_with(|config| config.role = Role::Master);
    world.start(0);
    world.run(50);
    world.input(0, Input::ForgetSlave { force: true });
    assert!(reason(&world, 0).contains("knows no slave"));
    assert!(world.serves(0));
}
