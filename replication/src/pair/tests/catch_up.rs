//! Whole copies and tails that are broken off, slow or stuck.

use super::stories::{ends_equal, in_sync, pair_with, publish, standing};
use super::world::World;
use crate::pair::view::Standing;
use crate::{Backend, DiskSpace, Input};
use understudy_model::Lsn;

/// A master whose log begins behind the first groups, and a slave that takes a copy of many chunks.
fn copying() -> World {
    let mut world = pair_with(|_| {});
    world.start(0);
    world.run(50);
    publish(&mut world, 0, 100);
    world.reclaim(0, Lsn(150));
    world.start(1);
    assert!(world.until(2_000, |w| w.copies == 1));
    world
}

fn says(world: &World, host: usize, text: &str) -> usize {
    world.hosts[host].logs.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_copy_goes_on_where_a_broken_link_had_left_it() {
    let mut resumed = 0;
    for cut_after_ms in (0..300).step_by(15) {
        let mut world = copying();
        world.run(cut_after_ms);
        if matches!(standing(&world, 0), Standing::Synced { .. }) {
            // The copy has ended, and a cut is a partition.
            break;
        }
        world.cut();
        world.run(3_500);
        world.heal();
        publish(&mut world, 0, 3);
        assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
        assert_eq!(world.copies, 1, "cut after {cut_after_ms} ms: {:?}", world.hosts[0].logs);
        resumed += says(&world, 0, "goes on behind chunk");
        publish(&mut world, 0, 1);
        world.run(600);
        assert!(ends_equal(&world), "cut after {cut_after_ms} ms");
    }
    assert!(resumed > 5, "{resumed}");
}

#[test]
fn a_copy_of_which_the_master_knows_nothing_any_more_begins_anew() {
    // The slave was away for too long, or the master has been restarted.
    for restarted in [false, true] {
        let mut world = copying();
        world.run(60);
        world.cut();
        if restarted {
            world.run(3_000);
            world.crash(0);
            world.start(0);
        }
        for _ in 0..70 {
            world.run(1_000);
            world.publish(0, 1);
        }
        world.heal();
        assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
        assert_eq!(world.copies, 2, "{restarted}");
        world.run(600);
        publish(&mut world, 0, 1);
        world.run(600);
        assert!(ends_equal(&world));
    }
}

#[test]
fn a_slave_whose_disk_hangs_in_a_copy_is_dropped_and_holds_up_no_commit() {
    let mut world = copying();
    world.run(30);
    world.hosts[1].hangs_until_ms = world.now_ms + 40_000;
    for _ in 0..10 {
        world.publish(0, 1);
        let last = world.last_group(0).map_or(0, |group| group.last().0);
        world.run(100);
        assert!(world.process(0).is_some_and(|p| p.commit.0 >= last), "commits wait for nobody");
    }
    assert!(world.until(15_000, |w| says(w, 0, "the slave's link is lost") > 0));
    world.reclaim(0, Lsn(180));
    assert!(world.until(90_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
}

/// Each time it is in-sync its disk hangs again: the pauses between must grow.
#[test]
fn a_slave_that_hangs_again_and_again_is_taken_back_ever_more_seldom() {
    let mut world = in_sync();
    let mut waited = Vec::new();
    for _ in 0..4 {
        world.hosts[1].hangs_until_ms = world.now_ms + 2_500;
        world.publish(0, 1);
        let dropped = |w: &World| w.process(0).is_some_and(|p| !p.pair.status().in_sync);
        assert!(world.until(4_000, dropped), "{:?}", world.hosts[0].logs);
        let lost_ms = world.now_ms;
        assert!(world.until(30_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
        waited.push(world.now_ms - lost_ms);
    }
    assert!(waited[2] > waited[1] + 500 && waited[3] > waited[2] + 500, "{waited:?}");
    assert!(waited[3] >= 8_000, "{waited:?}");
    // A crash is no hanging disk: it costs no pause.
    let mut world = in_sync();
    world.crash(1);
    world.run(300);
    world.start(1);
    assert!(world.until(900, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
}

#[test]
fn a_slave_low_on_disk_makes_publishers_wait_until_it_has_room_or_is_gone() {
    let spares = |w: &World| w.process(0).is_some_and(|process| process.spares_slave);
    let mut world = in_sync();
    world.input(1, Input::Space { left: DiskSpace::Low });
    assert!(world.until(100, spares));
    world.input(1, Input::Space { left: DiskSpace::Enough });
    assert!(world.until(100, |w| !spares(w)));
    world.input(1, Input::Space { left: DiskSpace::Low });
    assert!(world.until(100, spares));
    world.crash(1);
    assert!(world.until(1_000, |w| !spares(w)), "a slave that is gone needs no care");
    // It comes back as full as it was: no matter while nothing waits for it.
    world.start(1);
    world.input(1, Input::Space { left: DiskSpace::Low });
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1) && spares(w)));
}

/// Full: the slave cannot write, so it does not ack, which is a slave that makes no progress.
#[test]
fn a_slave_whose_disk_is_full_is_dropped_by_the_policy() {
    let mut world = in_sync();
    world.hosts[1].hangs_until_ms = u64::MAX;
    world.publish(0, 1);
    let last = world.last_group(0).map_or(0, |group| group.last().0) + 1;
    let committed = |w: &World| w.process(0).is_some_and(|process| process.commit.0 >= last);
    assert!(world.until(4_000, committed), "{:?}", world.hosts[0].logs);
    assert!(world.serves(0));
}
