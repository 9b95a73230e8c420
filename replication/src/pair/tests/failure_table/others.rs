//! Other programs and other nodes than the two that belong together.

use super::super::world::World;
use super::words::{
    Disk::{Alone, Empty},
    LogIs::Continued,
    Node::{Refused, Serves},
    Outcome, UNCHANGED,
};
use super::{Row, Setting, pair_in_sync};
use crate::pair::upgrade::Protocols;

/// What host 2 is told when it ends.
fn refusal(world: &mut World) -> String {
    assert!(world.until(3_000, |w| w.hosts[2].stopped.is_some()), "{:?}", world.hosts[2].logs);
    world.hosts[2].stopped.clone().unwrap().unwrap_err()
}

/// A master that never had a slave: no policy is asked.
fn master_alone(setting: Setting, seed: u64) -> World {
    setting.world(seed)
}

#[test]
fn the_slave_speaks_no_version_of_the_masters() {
    let refused = Outcome::of((Serves, Alone), (Refused, Empty), 0, Continued);
    let happens = |world: &mut World, _| {
        let own = std::mem::replace(
            &mut world.hosts[1].config.protocols,
            Protocols { least: 8, most: 9 },
        );
        world.start(1);
        assert!(world.until(3_000, |w| w.hosts[1].stopped.is_some()));
        assert!(world.hosts[1].logs.join("\n").contains("versions"), "{:?}", world.hosts[1].logs);
        world.hosts[1].config.protocols = own;
    };
    Row { begins: master_alone, ..Row::same(happens, refused) }.check();
}

#[test]
fn a_second_slave_comes() {
    let happens = |world: &mut World, _| {
        let before = world.hosts[0].disk.view.clone();
        world.start(2);
        let refusal = refusal(world);
        assert!(refusal.contains("SLOT_TAKEN"), "{refusal}");
        assert_eq!((&world.hosts[0].disk.view, &world.hosts[2].disk.view), (&before, &None));
    };
    Row::same(happens, UNCHANGED).check();
}

/// The slave of another pair, with all it has.
#[test]
fn a_node_of_another_cluster_comes() {
    let happens = |world: &mut World, setting: Setting| {
        world.hosts[2].disk = pair_in_sync(setting, 99).hosts[1].disk.clone();
        let before = world.hosts[2].disk.clone();
        world.start(2);
        let refusal = refusal(world);
        // Whoever it hears first: the arbiter or the master.
        let by_arbiter = setting.arbiter && refusal.contains("another pair");
        assert!(by_arbiter || refusal.contains("UNRELATED"), "{refusal}");
        let after = &world.hosts[2].disk;
        assert_eq!((&after.view, after.end()), (&before.view, before.end()), "not a byte");
    };
    Row::same(happens, UNCHANGED).check();
}
