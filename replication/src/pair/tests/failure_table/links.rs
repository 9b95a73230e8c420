//! The network, the arbiter, and processes that do not run for a while.

use super::super::world::World;
use super::words::{
    Disk::{Alone, Followed, Led},
    LogIs::{Continued, Cut, Kept, SetAside},
    Node::{Holds, Serves, Stopped, Waits},
    Outcome, SWAPPED, UNCHANGED,
};
use super::{Row, Setting};
use crate::{Input, LinkId};
use bytes::Bytes;

#[test]
fn the_link_is_lost_and_both_live() {
    let apart = Outcome::of((Serves, Alone), (Serves, Alone), 1, SetAside);
    let slave_leads = Outcome::of((Stopped, Led), (Serves, Alone), 1, Cut);
    let master_leads = Outcome::of((Serves, Alone), (Stopped, Followed), 0, Continued);
    let nobody = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    let slave_is_refused = Outcome::of((Serves, Alone), (Waits, Followed), 0, Continued);
    let without = [apart, slave_leads, master_leads, nobody];
    let with = [slave_is_refused, slave_leads, master_leads, nobody];
    Row::new(|world, _| world.cut(), without, with).check();
}

#[test]
fn the_link_is_lost_and_the_master_has_lost_the_arbiter_too() {
    let holds = Outcome::of((Holds, Led), (Serves, Alone), 1, Cut);
    let stops = Outcome::of((Stopped, Led), (Serves, Alone), 1, Cut);
    let master_holds = Outcome::of((Holds, Led), (Stopped, Followed), 0, Continued);
    let nobody = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    let happens = |world: &mut World, _| {
        world.arbiter.cut[0] = true;
        world.cut();
    };
    let with_arbiter = [holds, stops, master_holds, nobody];
    Row { without_arbiter: None, ..Row::new(happens, with_arbiter, with_arbiter) }.check();
}

#[test]
fn the_link_is_lost_for_a_moment() {
    let happens = |world: &mut World, _| {
        world.cut();
        world.publish(0, 2);
        world.run(700);
        world.heal();
    };
    Row::same(happens, UNCHANGED).check();
}

#[test]
fn nonsense_comes_in() {
    let happens = |world: &mut World, _| {
        for host in [0, 1] {
            let link = LinkId(9_999);
            for frame in [&b""[..], b"\x01", b"\x09\x00", b"\xff\xff\xff", b"\x01\x07\x00"] {
                world.input(host, Input::Linked { link, dialed: false });
                let frame = Bytes::copy_from_slice(frame);
                world.input(host, Input::Received { link, frame });
            }
        }
    };
    Row::same(happens, UNCHANGED).check();
}

#[test]
fn the_arbiter_is_lost() {
    let happens = |world: &mut World, _| world.arbiter.down = true;
    Row { without_arbiter: None, ..Row::same(happens, UNCHANGED) }.check();
}

#[test]
fn the_arbiters_data_is_lost() {
    let happens = |world: &mut World, _| {
        world.empty_arbiter();
        assert!(world.until(3_000, |w| w.arbiter_has_both()), "registered again");
    };
    Row { without_arbiter: None, ..Row::same(happens, UNCHANGED) }.check();
}

/// Longer than the slave waits for it.
const SLEEP_MS: u64 = 8_000;

#[test]
fn the_masters_process_sleeps() {
    let master_leads = Outcome::of((Serves, Alone), (Stopped, Followed), 0, Continued);
    let nobody = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    // It may write something down before it hears, and answers nothing.
    let replaced = Outcome { log: Kept, ..SWAPPED };
    let outcomes = [replaced, replaced, master_leads, nobody];
    let happens = |world: &mut World, _| {
        world.hosts[0].sleeps_until_ms = world.now_ms + SLEEP_MS;
    };
    Row::new(happens, outcomes, outcomes).check();
}

#[test]
fn the_slaves_process_sleeps() {
    let slave_leads = Outcome::of((Stopped, Led), (Serves, Alone), 1, Kept);
    let nobody = Outcome::of((Stopped, Led), (Stopped, Followed), 0, Continued);
    let outcomes = [UNCHANGED, slave_leads, UNCHANGED, nobody];
    let happens = |world: &mut World, _: Setting| {
        world.hosts[1].sleeps_until_ms = world.now_ms + SLEEP_MS;
    };
    Row::new(happens, outcomes, outcomes).check();
}
