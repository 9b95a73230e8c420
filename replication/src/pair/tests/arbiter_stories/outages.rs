//! The arbiter is away, has lost its data, or carries out late what it was told.

use super::{HOLD_MS, commit, in_sync, publish, standing, state};
use crate::pair::tests::world::World;
use crate::pair::view::Standing;
use crate::{Backend, Input};
use understudy_model::Lsn;
#[test]
fn arbiter_lost_nothing_happens_while_the_pair_is_connected() {
    let mut world = in_sync();
    world.arbiter.down = true;
    for _ in 0..200 {
        world.publish(0, 1);
        world.run(100);
        assert!(world.serves(0) && world.in_sync_pair(0, 1));
    }
    // A short cut of the link is no failure yet.
    world.cut();
    world.run(700);
    world.heal();
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    world.restart_arbiter();
    world.run(1_000);
    assert!(world.serves(0));
    assert_eq!(world.leads, 1);
}

#[test]
fn arbiter_lost_a_second_failure_holds_until_it_is_back() {
    for victim in [0, 1] {
        let mut world = in_sync();
        world.arbiter.down = true;
        world.run(1_000);
        world.crash(victim);
        let survivor = 1 - victim;
        world.publish(0, 1);
        let answered = commit(&world, survivor);
        world.run(30_000);
        assert!(!world.serves(survivor), "{:?}", world.hosts[survivor].logs);
        assert!(commit(&world, survivor).0 <= answered.0 + 1);
        world.restart_arbiter();
        let back = world.until(2 * HOLD_MS, |w| w.serves(survivor));
        assert!(back, "{victim}: {:?}", world.hosts[survivor].logs);
        world.start(victim);
        assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)));
    }
}

#[test]
fn arbiter_lost_the_pair_that_finds_itself_again_serves_again() {
    let mut world = in_sync();
    world.arbiter.down = true;
    world.cut();
    world.run(10_000);
    assert!(!world.serves(0) && !world.serves(1));
    world.heal();
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1) && w.serves(0)));
    assert_eq!(world.leads, 1);
}

#[test]
fn a_master_that_is_alone_needs_no_arbiter() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| state(w, 0) == "alone"));
    world.arbiter.down = true;
    for _ in 0..100 {
        world.publish(0, 1);
        world.run(100);
        assert!(world.serves(0));
    }
    // The slave catches up, but is let in only with the arbiter.
    world.start(1);
    world.run(5_000);
    assert!(world.serves(0) && !world.is_in_sync(0));
    world.crash(1);
    world.publish(0, 1);
    world.run(5_000);
    assert!(world.serves(0), "{:?}", world.hosts[0].logs);
    world.start(1);
    world.restart_arbiter();
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn arbiter_data_lost_a_pair_that_is_connected_registers_again() {
    let mut world = in_sync();
    world.empty_arbiter();
    assert!(world.until(3_000, |w| w.arbiter_has_both()), "{:?}", world.hosts[0].logs);
    assert_eq!(world.leads, 1);
    // One node alone cannot say what the register held.
    world.crash(0);
    world.crash(1);
    world.empty_arbiter();
    world.start(1);
    world.run(30_000);
    assert!(!world.serves(1));
    world.start(0);
    assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
}

/// Seed 57 of the simulator: nobody could free the master.
#[test]
fn arbiter_data_lost_and_slave_gone_for_good_the_operator_has_it_forgotten() {
    let mut world = in_sync();
    world.arbiter.down = true;
    world.crash(1);
    world.publish(0, 1);
    let last = Lsn(commit(&world, 0).0 + 1);
    world.empty_arbiter();
    world.run(500);
    world.arbiter.down = false;
    world.run(20_000);
    assert!(!world.serves(0) && commit(&world, 0) < last);
    let reason = world.process(0).unwrap().pair.status().reason;
    assert!(reason.contains("forget_slave --force"), "{reason}");
    world.input(0, Input::ForgetSlave { force: false });
    world.run(2_000);
    assert!(!world.serves(0) && commit(&world, 0) < last, "it may have gone on alone");
    world.input(0, Input::ForgetSlave { force: true });
    world.run(2_000);
    assert!(world.serves(0) && commit(&world, 0) >= last, "{:?}", world.hosts[0].logs);
    assert_eq!(world.register().unwrap().slave, None);
    world.start(2);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 2)), "{:?}", world.hosts[2].logs);
}

/// Host 1 was granted the role and died before it knew; then it gave its claim up for host 0, which
/// the arbiter does not let lead.
fn elected_in_vain() -> World {
    let mut world = in_sync();
    world.crash(0);
    assert!(world.until(2 * HOLD_MS, World::swapped_to_host_1));
    world.arbiter.down = true;
    world.crash(1);
    world.start(0);
    world.start(1);
    let promised = |w: &World| matches!(standing(w, 1), Standing::Lagging { .. });
    assert!(world.until(20_000, promised), "{:?}", world.hosts[1].logs);
    world.run(10_000);
    assert!(!world.serves(0) && !world.serves(1));
    world.arbiter.cut[1] = true;
    world.restart_arbiter();
    let refused =
        |w: &World| w.hosts[0].logs.iter().any(|log| log.contains("not in the in-sync set"));
    assert!(world.until(20_000, refused), "{:?}", world.hosts[0].logs);
    world.run(3_000);
    assert!(!world.serves(0) && !world.serves(1));
    world
}

#[test]
fn arbiter_lost_and_an_election_in_vain_what_the_register_says_holds() {
    let mut world = elected_in_vain();
    world.arbiter.cut[1] = false;
    let serves = world.until(3_000, |w| w.in_sync_pair(0, 1) && w.serves(1));
    assert!(serves, "{:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
}

/// Seed 3513 of the simulator: host 0 stood by what it had read, and both waited for ever.
#[test]
fn arbiter_data_lost_after_an_election_in_vain_the_copy_that_nobody_overtook_leads() {
    let mut world = elected_in_vain();
    world.empty_arbiter();
    world.arbiter.cut[1] = false;
    let back = world.until(20_000, |w| w.in_sync_pair(0, 1));
    assert!(back, "{:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
}

/// Seed 330 of the simulator: both waited for ever.
#[test]
fn arbiter_data_lost_while_a_slave_is_let_in_and_dies_it_is_let_in_once_it_is_back() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| state(w, 0) == "alone"));
    publish(&mut world, 0, 2);
    world.start(1);
    let is_let_in = |w: &World| !matches!(state(w, 0), "alone" | "following");
    assert!(world.until(5_000, is_let_in), "{:?}", world.hosts[0].logs);
    world.arbiter.down = true;
    let given_up = |w: &World| matches!(standing(w, 0), Standing::Synced { .. });
    assert!(world.until(1_500, given_up), "{:?}", world.hosts[0].logs);
    assert!(matches!(standing(&world, 1), Standing::Lagging { .. }), "it is not invited yet");
    world.crash(1);
    world.empty_arbiter();
    world.run(500);
    world.arbiter.down = false;
    world.start(1);
    assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    assert!(world.arbiter_has_both());
}

/// Seed 1539 of the simulator: the master waited for ever.
#[test]
fn a_master_that_was_alone_claims_its_role_again_after_a_stranger_was_met_instead() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| state(w, 0) == "alone"));
    publish(&mut world, 0, 2);
    world.crash(0);
    world.arbiter.down = true;
    world.start(2);
    world.start(0);
    world.run(3_000);
    assert!(!world.serves(0));
    world.restart_arbiter();
    assert!(world.until(10_000, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
    assert!(world.until(10_000, |w| w.in_sync_pair(0, 2)), "{:?}", world.hosts[2].logs);
}

/// A pair in sync whose master, while the slave was away, has tried to do without it; the arbiter
/// does that late.
fn shrunk_late() -> World {
    let mut world = in_sync();
    world.arbiter.delays_swaps = true;
    world.crash(1);
    assert!(world.until(1_000, World::has_late_swap), "{:?}", world.hosts[0].logs);
    world.arbiter.cut[0] = true;
    world
}

/// Seeds 2154 and 3345 of the simulator: the pair was in-sync, but the slave could never have
/// taken over …
#[test]
fn a_slave_that_is_back_before_a_late_swap_without_it_is_let_into_the_register_again() {
    let mut world = shrunk_late();
    world.start(1);
    world.run(500);
    world.carry_out_late_swap();
    world.arbiter.cut[0] = false;
    let whole = |w: &World| w.in_sync_pair(0, 1) && w.arbiter_has_both();
    assert!(world.until(5_000, whole), "{:?}", world.hosts[0].logs);
    assert!(!world.hosts[0].logs.iter().any(|line| line.contains("going on without a slave")));
    world.crash(0);
    assert!(world.until(2 * HOLD_MS, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
}

/// … and once it was started again, the two connected and broke off without end.
#[test]
fn a_slave_that_the_register_has_lost_joins_anew() {
    let mut world = shrunk_late();
    world.start(1);
    world.run(500);
    world.carry_out_late_swap();
    world.arbiter.cut[0] = false;
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    world.arbiter.cut[0] = true;
    assert!(!world.arbiter_has_both());
    world.crash(1);
    world.start(1);
    world.run(1_000);
    world.arbiter.cut[0] = false;
    let whole = |w: &World| w.in_sync_pair(0, 1) && w.arbiter_has_both();
    assert!(world.until(5_000, whole), "{:?}", world.hosts[0].logs);
}

/// The master has died over it, the slave has led and gone: the version tells that the swap is from before.
#[test]
fn a_swap_that_comes_late_takes_nothing_from_who_came_first() {
    let mut world = shrunk_late();
    world.arbiter.delays_swaps = false;
    world.crash(0);
    world.start(1);
    assert!(world.until(3 * HOLD_MS, |w| w.serves(1)), "{:?}", world.hosts[1].logs);
    publish(&mut world, 1, 3);
    // Its lease is given back, so that it keeps nobody out.
    world.input(1, Input::Stopping);
    world.run(100);
    world.arbiter.cut[0] = false;
    world.carry_out_late_swap();
    world.start(0);
    world.run(3 * HOLD_MS);
    assert!(!world.serves(0), "it lacks what was answered: {:?}", world.hosts[0].logs);
    world.start(1);
    assert!(world.until(3 * HOLD_MS, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    assert!(world.serves(1));
}

/// The slave has asked when the lease of its master, which slept, was over; it is no more.
#[test]
fn a_swap_that_comes_late_takes_nothing_from_a_master_whose_lease_lives_again() {
    let mut world = in_sync();
    world.arbiter.delays_swaps = true;
    world.hosts[0].sleeps_until_ms = world.now_ms + 60_000;
    assert!(world.until(3 * HOLD_MS, World::has_late_swap), "{:?}", world.hosts[1].logs);
    world.arbiter.cut[1] = true;
    world.hosts[0].sleeps_until_ms = 0;
    world.cut();
    world.input(0, Input::Tick);
    assert!(world.until(500, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
    world.carry_out_late_swap();
    world.arbiter.cut[1] = false;
    for _ in 0..100 {
        world.run(10);
        assert!(!(world.serves(0) && world.serves(1)), "{:?}", world.hosts[1].logs);
    }
    assert!(world.serves(0), "{:?}", world.hosts[0].logs);
}
