//! The failure table's right column (replication.md 8.7), row by row.

use super::arbiter::{LEASE_MS, with_arbiter};
use super::world::{World, config};
use crate::pair::arbitration::hold_ms;
use crate::pair::view::Standing;
use crate::{Backend, Input, PairConfig, Role};
use understudy_model::Lsn;

pub(super) const HOLD_MS: u64 = hold_ms(LEASE_MS);

fn pair_with(change: impl Fn(&mut PairConfig)) -> World {
    let mut configs = vec![config(Role::Master), config(Role::Slave), config(Role::Slave)];
    configs.iter_mut().for_each(with_arbiter);
    configs.iter_mut().for_each(change);
    World::new(1, configs)
}

fn in_sync_with(change: impl Fn(&mut PairConfig)) -> World {
    let mut world = pair_with(change);
    world.start(0);
    assert!(world.until(100, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
    world.publish(0, 3);
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    publish(&mut world, 0, 5);
    world
}

pub(super) fn in_sync() -> World {
    in_sync_with(|_| {})
}

fn publish(world: &mut World, host: usize, groups: u64) {
    for _ in 0..groups {
        world.publish(host, 2);
        world.run(20);
    }
}

fn state(world: &World, host: usize) -> &'static str {
    world.process(host).map_or("down", |process| process.pair.status().state)
}

pub(super) fn commit(world: &World, host: usize) -> Lsn {
    world.process(host).map_or(Lsn::ZERO, |process| process.commit)
}

fn standing(world: &World, host: usize) -> Standing {
    world.hosts[host].disk.standing()
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
