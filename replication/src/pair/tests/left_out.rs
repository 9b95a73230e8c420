//! A slave that is back just as the arbiter's register leaves it out.

use super::arbiter_stories::{HOLD_MS, commit, in_sync};
use super::world::World;
use crate::pair::random::Random;
use understudy_model::Lsn;

/// The slave is dropped because its disk hangs, and is back before the master hears that it may go on
/// alone. Found by the random runs: it was in-sync from then on without a place in the register.
fn back_while_the_register_is_changed(seed: u64) -> World {
    let mut world = in_sync();
    world.random = Random::new(&[seed; 8]);
    world.slowness_ms = 1 + seed % 10;
    world.hosts[1].hangs_until_ms = world.now_ms + 2_100;
    world.publish(0, 1);
    assert!(world.until(3_000, |w| !w.arbiter_has_both()), "{:?}", world.hosts[0].logs);
    world
}

#[test]
fn a_slave_that_is_back_while_the_register_leaves_it_out_is_put_in_again() {
    for seed in 0..60 {
        let mut world = back_while_the_register_is_changed(seed);
        let whole = world.until(5_000, |w| w.in_sync_pair(0, 1) && w.arbiter_has_both());
        assert!(whole, "{seed}: {:?}", world.hosts[0].logs);
        world.crash(0);
        assert!(world.until(2 * HOLD_MS, |w| w.serves(1)), "{seed}: {:?}", world.hosts[1].logs);
    }
}

/// The master holds until the arbiter answers, and the link is not made and dropped all the while.
#[test]
fn a_slave_that_finds_itself_left_out_of_the_register_is_taken_in_anew() {
    for seed in 0..20 {
        let mut world = in_sync();
        world.random = Random::new(&[seed; 8]);
        world.leave_slave_out();
        world.arbiter.cut[0] = true;
        world.cut();
        world.run(100);
        world.heal();
        let said = world.hosts[1].logs.len();
        world.run(1_000);
        let lines = world.hosts[1].logs.len() - said;
        assert!(lines < 10, "{seed}: {:?}", world.hosts[1].logs);
        world.arbiter.cut[0] = false;
        let whole = world.until(9_000, |w| w.in_sync_pair(0, 1) && w.arbiter_has_both());
        assert!(whole, "{seed}: {:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
        assert!(world.serves(0));
        world.publish(0, 1);
        let last = Lsn(commit(&world, 0).0 + 1);
        assert!(world.until(500, |w| commit(w, 0) >= last), "{seed}: {:?}", world.hosts[0].logs);
    }
}
