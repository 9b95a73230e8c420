//! Disks that are full, slow, hung, broken or damaged. What a full disk means to clients, how a hung one
//! ends the process, and how damage is repaired is the node's: docs/failure-modes.md says where.

use super::super::fetch::ask;
use super::super::world::World;
use super::Row;
use super::words::{
    Disk::{Alone, Followed, Lagging, Led},
    LogIs::{Continued, Kept, SetAside},
    Node::{CatchesUp, Dead, Serves, Stopped, Waits},
    Outcome, SWAPPED, UNCHANGED,
};
use crate::{DiskSpace, Found, Input, Wanted};
use understudy_model::Lsn;

fn spares_slave(world: &World) -> bool {
    world.process(0).is_some_and(|process| process.spares_slave)
}

#[test]
fn the_slave_runs_low_on_disk() {
    let happens = |world: &mut World, _| {
        world.input(1, Input::Space { left: DiskSpace::Low });
        assert!(world.until(300, spares_slave), "publishers wait");
    };
    Row::same(happens, UNCHANGED).check();
}

/// Its reserve is nearly used up, and the slave has room.
#[test]
fn the_masters_disk_is_full() {
    let happens = |world: &mut World, _| {
        world.publish(0, 2);
        world.input(0, Input::Space { left: DiskSpace::Low });
        world.run(2_000);
        assert!(world.serves(0), "settles go on out of the reserve");
        world.input(0, Input::Space { left: DiskSpace::Full });
        assert!(world.until(500, |w| w.serves(1)), "{:?}", world.hosts[0].logs);
        assert!(world.until(2_000, |w| w.in_sync_pair(0, 1) && w.process(1).unwrap().spares_slave));
    };
    Row::same(happens, SWAPPED).check();
}

/// Both are: nobody has anything to gain, and nobody swings.
#[test]
fn the_masters_disk_is_full_and_the_slaves_too() {
    let happens = |world: &mut World, _| {
        let leads = world.leads;
        world.input(1, Input::Space { left: DiskSpace::Full });
        world.run(300);
        world.input(0, Input::Space { left: DiskSpace::Full });
        world.run(5_000);
        // Also not over a link that was made anew, before the slave has told.
        world.cut();
        world.run(200);
        world.heal();
        assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)));
        world.run(5_000);
        assert_eq!(world.leads, leads);
    };
    Row::same(happens, UNCHANGED).check();
}

/// Who was left because it was full is handed back to when it has room, and not before.
#[test]
fn full_disks_hand_the_role_to_and_fro_only_where_there_is_room() {
    let happens = |world: &mut World, _| {
        let full =
            |world: &mut World, host| world.input(host, Input::Space { left: DiskSpace::Full });
        full(world, 0);
        assert!(world.until(3_000, |w| w.serves(1) && w.in_sync_pair(0, 1)));
        let leads = world.leads;
        full(world, 1);
        world.run(70_000);
        assert!(world.serves(1) && world.leads == leads, "host 0 is full");
        world.input(0, Input::Space { left: DiskSpace::Low });
        world.run(2_000);
        assert!(world.serves(1) && world.leads == leads, "host 0 is low");
        world.input(0, Input::Space { left: DiskSpace::Enough });
        assert!(world.until(3_000, |w| w.serves(0) && w.in_sync_pair(0, 1)));
    };
    Row::same(happens, UNCHANGED).check();
}

/// Full, or hung: the slave writes nothing, so it acknowledges nothing.
#[test]
fn the_slaves_disk_takes_nothing_more() {
    let alone = Outcome::of((Serves, Alone), (CatchesUp, Followed), 0, Continued);
    // It would lead, and cannot write that down.
    let slave_is_stuck = Outcome::of((Stopped, Led), (Waits, Followed), 1, Kept);
    let nobody = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        world.hosts[1].hangs_until_ms = world.now_ms + 30_000;
        world.publish(0, 1);
    };
    let without = [alone, slave_is_stuck, alone, nobody];
    // It does not even ask the arbiter.
    let with = [alone, Outcome { leader: Some(0), ..slave_is_stuck }, alone, nobody];
    Row::new(happens, without, with).check();
}

/// Until the watchdog ends the process (`storage.disk_stall_ms`).
#[test]
fn the_masters_disk_hangs() {
    let taken_over = Outcome::of((Dead, Led), (Serves, Alone), 1, Continued);
    let left = Outcome::of((Dead, Led), (Stopped, Followed), 1, Continued);
    let happens = |world: &mut World, _| {
        world.hosts[0].hangs_until_ms = world.now_ms + 30_000;
        world.publish(0, 1);
        let answered = world.confirmed;
        world.run(5_000);
        assert!(world.confirmed == answered || world.serves(1), "nobody is answered");
        world.crash(0);
        world.hosts[0].hangs_until_ms = 0;
    };
    // With an arbiter the first swap wins when both are back, and the longer log does otherwise.
    let either = Outcome { leader: None, log: Kept, ..left };
    Row::new(
        happens,
        [taken_over, taken_over, left, left],
        [taken_over, taken_over, either, either],
    )
    .check();
}

#[test]
fn the_masters_sync_fails() {
    let taken_over = Outcome::of((Dead, Led), (Serves, Alone), 1, Continued);
    let left = Outcome::of((Dead, Led), (Stopped, Followed), 1, Continued);
    let happens = |world: &mut World, _| {
        world.hosts[0].disk.next_sync_fails = true;
        let answered = world.confirmed;
        world.publish(0, 1);
        assert!(world.until(100, |w| w.process(0).is_none()), "the process ends");
        assert_eq!(world.confirmed, answered, "nobody is answered");
    };
    let either = Outcome { leader: None, log: Kept, ..left };
    Row::new(
        happens,
        [taken_over, taken_over, left, left],
        [taken_over, taken_over, either, either],
    )
    .check();
}

#[test]
fn the_slaves_sync_fails() {
    let alone = Outcome::of((Serves, Alone), (Dead, Followed), 0, Continued);
    let stops = Outcome::of((Stopped, Led), (Dead, Followed), 0, Continued);
    let outcomes = [alone, stops, alone, stops];
    let happens = |world: &mut World, _| {
        world.hosts[1].disk.next_sync_fails = true;
        world.publish(0, 1);
        assert!(world.until(100, |w| w.process(1).is_none()), "the process ends");
    };
    Row::new(happens, outcomes, outcomes).check();
}

/// Slow, and yet it goes on: nobody is dropped.
#[test]
fn the_slave_is_slow() {
    let happens = |world: &mut World, _| {
        for _ in 0..20 {
            world.hosts[1].hangs_until_ms = world.now_ms + 400;
            world.publish(0, 1);
            world.run(500);
            assert!(world.in_sync_pair(0, 1));
        }
    };
    Row::same(happens, UNCHANGED).check();
}

#[test]
fn an_entry_is_damaged_and_fetched_from_the_other() {
    let happens = |world: &mut World, _| {
        let last = world.last_group(0).unwrap().clone();
        for host in [0, 1] {
            let found = ask(world, host, 1, Wanted::Group { holding: last.first() });
            assert_eq!(found, Some(Found::Group(last.clone())));
            let beyond = ask(world, host, 2, Wanted::Group { holding: Lsn(9_999) });
            assert_eq!(beyond, Some(Found::Nothing));
        }
    };
    Row::same(happens, UNCHANGED).check();
}

/// More than one entry: it gives up its claim, and what it has is kept.
#[test]
fn the_slaves_log_cannot_be_read_at_start() {
    let copied = Outcome { log: SetAside, ..UNCHANGED };
    let waits = Outcome::of((Stopped, Led), (Waits, Lagging), 0, SetAside);
    let outcomes = [copied, waits, copied, waits];
    let happens = |world: &mut World, _| {
        world.crash(1);
        world.run(100);
        world.hosts[1].disk.damaged = Some("the log is damaged".into());
        world.start(1);
    };
    Row::new(happens, outcomes, outcomes).check();
}

#[test]
fn the_old_masters_log_cannot_be_read_at_start() {
    let copied = Outcome { log: SetAside, ..SWAPPED };
    let happens = |world: &mut World, _| {
        world.crash(0);
        super::let_host_1_lead(world);
        world.hosts[0].disk.damaged = Some("the log is damaged".into());
        world.start(0);
    };
    Row::same(happens, copied).check();
}
