//! Processes die, stop and return.

use super::super::world::World;
use super::words::{
    Disk::{Alone, Followed, Lagging, Led},
    LogIs::{Continued, Cut, Kept, SetAside},
    Node::{Dead, Holds, Serves, Stopped, Waits},
    Outcome, SWAPPED, UNCHANGED,
};
use super::{Row, Setting, Survivor, let_host_1_lead};
use crate::Input;
use crate::pair::view::Standing;

#[test]
fn the_masters_process_dies() {
    let taken_over = Outcome::of((Dead, Led), (Serves, Alone), 1, Continued);
    let left = Outcome::of((Dead, Led), (Stopped, Followed), 0, Continued);
    let outcomes = [taken_over, taken_over, left, left];
    Row::new(|world, _| world.crash(0), outcomes, outcomes).check();
}

/// What it had written and not answered is on its disk alone.
#[test]
fn the_master_dies_with_an_unanswered_tail() {
    let taken_over = Outcome::of((Dead, Led), (Serves, Alone), 1, Cut);
    // Nobody led since: the longer log does.
    let left = Outcome::of((Dead, Led), (Stopped, Followed), 0, Continued);
    let outcomes = [taken_over, taken_over, left, left];
    let happens = |world: &mut World, _| {
        world.cut();
        world.publish(0, 4);
        world.run(30);
        world.crash(0);
        world.heal();
    };
    Row::new(happens, outcomes, outcomes).check();
}

#[test]
fn the_slaves_process_dies() {
    let alone = Outcome::of((Serves, Alone), (Dead, Followed), 0, Continued);
    let stops = Outcome::of((Stopped, Led), (Dead, Followed), 0, Continued);
    let outcomes = [alone, stops, alone, stops];
    let happens = |world: &mut World, _| {
        world.publish(0, 1);
        world.crash(1);
    };
    Row::new(happens, outcomes, outcomes).check();
}

fn both_crash(world: &mut World) {
    world.crash(0);
    world.crash(1);
}

#[test]
fn both_crash_and_the_old_master_is_up_first() {
    let serves = Outcome::of((Serves, Alone), (Dead, Followed), 0, Continued);
    let waits = Outcome::of((Waits, Led), (Dead, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        both_crash(world);
        world.start(0);
    };
    Row::new(happens, [serves, waits, serves, waits], [serves; 4]).check();
}

#[test]
fn both_crash_and_the_old_slave_is_up_first() {
    let serves = Outcome::of((Dead, Led), (Serves, Alone), 1, Continued);
    let waits = Outcome::of((Dead, Led), (Waits, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        both_crash(world);
        world.start(1);
    };
    Row::new(happens, [waits, serves, waits, waits], [serves; 4]).check();
}

#[test]
fn both_crash_and_both_come_back() {
    let happens = |world: &mut World, _| {
        both_crash(world);
        world.start(1);
        world.start(0);
    };
    Row::same(happens, UNCHANGED).check();
}

/// The slave has what its master had not yet on its own disk: nobody was answered.
#[test]
fn both_crash_and_the_slaves_log_is_the_longer_one() {
    let happens = |world: &mut World, _| {
        world.hosts[0].hangs_until_ms = world.now_ms + 1_000;
        world.publish(0, 2);
        world.run(30);
        assert!(world.hosts[1].disk.end().last > world.hosts[0].disk.end().last);
        both_crash(world);
        world.hosts[0].hangs_until_ms = 0;
        world.start(0);
        world.start(1);
    };
    // With an arbiter the first swap wins, unless they meet before.
    Row::new(happens, [SWAPPED; 4], [Outcome::as_it_comes(); 4]).check();
}

/// Replaced by its slave, which has died since.
#[test]
fn the_old_master_returns_stale_and_finds_nobody() {
    let waits = Outcome::of((Waits, Led), (Dead, Alone), 1, Continued);
    // The price of `both`, and of an operator's promotion under `master_survives`: it serves what it
    // has, and what the other had answered comes in when they meet.
    let serves = Outcome::of((Serves, Alone), (Dead, Alone), 0, SetAside).led_by_either();
    let happens = |world: &mut World, setting: Setting| {
        world.crash(0);
        let_host_1_lead(world);
        world.publish(1, 3);
        world.run(100);
        world.crash(1);
        world.excused |= !setting.arbiter && setting.survivor == Survivor::Master;
        world.start(0);
    };
    Row::new(happens, [serves, waits, serves, waits], [waits; 4]).check();
}

#[test]
fn the_old_master_returns_and_finds_its_successor() {
    let happens = |world: &mut World, _| {
        world.crash(0);
        let_host_1_lead(world);
        world.publish(1, 3);
        world.run(100);
        world.start(0);
    };
    Row::same(happens, SWAPPED).check();
}

/// Killed and started again before its slave has made up its mind.
#[test]
fn the_master_is_back_at_once() {
    let happens = |world: &mut World, _| {
        world.publish(0, 1);
        world.crash(0);
        let pause_ms = world.below(60);
        world.run(pause_ms);
        world.start(0);
    };
    Row::same(happens, Outcome::as_it_comes()).check();
}

#[test]
fn the_master_is_asked_to_stop() {
    let taken_over = Outcome::of((Stopped, Led), (Serves, Alone), 1, Continued);
    let left = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    let outcomes = [taken_over, taken_over, left, left];
    let happens = |world: &mut World, _| {
        world.publish(0, 2);
        world.input(0, Input::Stopping);
    };
    Row::new(happens, outcomes, outcomes).check();
}

/// An orderly farewell is no failure: the master serves on under every policy, also after a restart.
#[test]
fn the_slave_is_asked_to_stop() {
    let alone = Outcome::of((Serves, Alone), (Stopped, Lagging), 0, Continued);
    Row::same(|world, _| world.input(1, Input::Stopping), alone).check();
    let happens = |world: &mut World, _| {
        world.input(1, Input::Stopping);
        world.run(1_000);
        world.crash(0);
        world.start(0);
    };
    Row::same(happens, alone).check();
}

/// To the master it has died.
#[test]
fn the_slave_is_asked_to_stop_and_its_goodbye_is_lost() {
    let alone = Outcome::of((Serves, Alone), (Stopped, Lagging), 0, Continued);
    let stops = Outcome::of((Stopped, Led), (Stopped, Lagging), 0, Continued);
    let outcomes = [alone, stops, alone, stops];
    let happens = |world: &mut World, _| {
        world.input(1, Input::Stopping);
        world.cut();
    };
    Row::new(happens, outcomes, outcomes).check();
}

/// It has left and come back: from then on its death is a failure again.
#[test]
fn the_slave_that_had_left_dies() {
    let alone = Outcome::of((Serves, Alone), (Dead, Followed), 0, Continued);
    let stops = Outcome::of((Stopped, Led), (Dead, Followed), 0, Continued);
    let outcomes = [alone, stops, alone, stops];
    let happens = |world: &mut World, _| {
        world.input(1, Input::Stopping);
        world.run(1_000);
        world.start(1);
        assert!(world.until(10_000, |w| w.in_sync_pair(0, 1)), "{:#?}", world.hosts[1].logs);
        world.crash(1);
    };
    Row::new(happens, outcomes, outcomes).check();
}

#[test]
fn a_stale_slave_finds_its_master_gone() {
    let dead = Outcome::of((Dead, Alone), (Waits, Lagging), 0, Continued);
    let happens = |world: &mut World, _| {
        world.input(1, Input::Stopping);
        world.run(1_000);
        world.publish(0, 3);
        world.run(100);
        world.crash(0);
        world.start(1);
    };
    Row::same(happens, dead).check();
}

#[test]
fn a_switchover() {
    let happens = |world: &mut World, _| {
        world.publish(0, 3);
        world.input(0, Input::HandOver);
    };
    Row::same(happens, SWAPPED).check();
}

/// It had agreed, and the master has given up its right on disk.
#[test]
fn the_heir_of_a_switchover_dies() {
    let nobody = Outcome::of((Waits, Lagging), (Dead, Followed), 1, Continued);
    // The register says that the old one still may lead.
    let led = Outcome::of((Serves, Alone), (Dead, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        world.input(0, Input::HandOver);
        let lagging = |w: &World| matches!(w.hosts[0].disk.standing(), Standing::Lagging { .. });
        assert!(world.until(1_000, lagging));
        world.crash(1);
    };
    Row::new(happens, [nobody; 4], [led; 4]).check();
}

#[test]
fn the_operator_promotes_the_slave_of_a_dead_master() {
    let led = Outcome::of((Dead, Led), (Serves, Alone), 1, Continued);
    let happens = |world: &mut World, _| {
        world.crash(0);
        let_host_1_lead(world);
    };
    Row::same(happens, led).check();
}

/// By force, of a copy that lacks what was answered; its master returns.
#[test]
fn the_operator_promotes_a_stale_slave_and_both_have_written() {
    let forced = Outcome::of((Dead, Alone), (Serves, Alone), 1, SetAside);
    let happens = |world: &mut World, _| {
        world.input(1, Input::Stopping);
        world.run(1_000);
        world.publish(0, 3);
        world.run(100);
        world.crash(0);
        world.start(1);
        world.run(6_000);
        world.excused = true;
        world.input(1, Input::Promote { force: true });
        assert!(world.until(1_000, |w| w.serves(1)), "{:#?}", world.hosts[1].logs);
    };
    // With an arbiter the register's leader stays; without one both epochs are equally high.
    Row::new(happens, [forced.led_by_either(); 4], [forced; 4]).check();
}

#[test]
fn the_arbiter_is_lost_and_then_the_slave() {
    let holds = Outcome::of((Holds, Led), (Dead, Followed), 0, Continued);
    let stops = Outcome::of((Stopped, Led), (Dead, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        world.arbiter.down = true;
        world.run(1_000);
        world.crash(1);
    };
    let with_arbiter = [holds, stops, holds, stops];
    Row { without_arbiter: None, ..Row::new(happens, with_arbiter, with_arbiter) }.check();
}

#[test]
fn the_arbiter_is_lost_and_then_the_master() {
    let waits = Outcome::of((Dead, Led), (Waits, Followed), 0, Kept).led_by_either();
    let stops = Outcome::of((Dead, Led), (Stopped, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        world.arbiter.down = true;
        world.run(1_000);
        world.crash(0);
    };
    let with_arbiter = [waits, waits, stops, stops];
    Row { without_arbiter: None, ..Row::new(happens, with_arbiter, with_arbiter) }.check();
}
