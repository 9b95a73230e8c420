//! A slave that was restarted with other settings and is back, in the same epoch, before its master has
//! given it up: what its hello says counts as if it had joined.

use super::arbiter::with_arbiter;
use super::stories::{in_sync_with, standing};
use super::world::World;
use crate::pair::config::Policy;
use crate::pair::random::Random;
use crate::pair::view::{Standing, View};
use crate::{Backend, PairConfig};
use understudy_model::Text;

const SEEDS: u64 = 20;

/// The slave is back, and perhaps not met yet.
fn restarted_with(arbiter: bool, seed: u64, change: fn(&mut PairConfig)) -> World {
    let mut world = in_sync_with(|config| {
        if arbiter {
            with_arbiter(config);
        }
    });
    world.random = Random::new(&[seed; 8]);
    world.slowness_ms = 1 + seed % 10;
    world.crash(1);
    change(&mut world.hosts[1].config);
    world.start(1);
    world
}

fn resumed_with(arbiter: bool, seed: u64, change: fn(&mut PairConfig)) -> World {
    let mut world = restarted_with(arbiter, seed, change);
    until_resumed(&mut world);
    let logs = world.hosts[1].logs.join("\n");
    assert!(world.leads == 1 && logs.contains("back in-sync"), "{seed}: {logs}");
    world
}

/// Before, the master may not have noticed that the process of its slave is another one.
fn until_resumed(world: &mut World) {
    let has_slave = |line: &String| line.contains("the slave is in-sync");
    let known = |w: &World| w.hosts[0].logs.iter().filter(|line| has_slave(line)).count();
    let before = known(world);
    let resumed = world.until(1_500, |w| w.in_sync_pair(0, 1) && known(w) > before);
    assert!(resumed, "{:?} {:?}", world.hosts[0].logs, world.hosts[1].logs);
}

fn stops_without_slave(config: &mut PairConfig) {
    config.shutdown_on_slave_failure = true;
}

fn stops_without_master(config: &mut PairConfig) {
    config.shutdown_on_master_failure = true;
}

fn peer_policy_on_disk(world: &World, host: usize) -> Policy {
    View::decode(world.hosts[host].disk.view.as_ref().unwrap()).unwrap().peer_policy
}

#[test]
fn a_master_stops_by_the_flag_that_its_slave_has_resumed_with() {
    for (arbiter, seed) in [false, true].into_iter().flat_map(|a| (0..SEEDS).map(move |s| (a, s))) {
        let mut world = resumed_with(arbiter, seed, stops_without_slave);
        world.cut();
        // At each commit the world's checks forbid that the two go on apart.
        for _ in 0..40 {
            world.publish(0, 1);
            world.publish(1, 1);
            world.run(500);
        }
        assert!(world.hosts[0].stopped.is_some(), "{arbiter} {seed}: {:?}", world.hosts[0].logs);
        assert!(world.serves(1), "{arbiter} {seed}: {:?}", world.hosts[1].logs);
    }
}

#[test]
fn nobody_survives_alone_once_a_slave_has_resumed_with_both_flags() {
    for seed in 0..SEEDS {
        let mut world = resumed_with(false, seed, |config| {
            stops_without_slave(config);
            stops_without_master(config);
        });
        world.cut();
        world.crash(0);
        world.start(0);
        world.run(30_000);
        let stand = [0, 1].map(|host| standing(&world, host));
        assert!(stand.iter().all(|s| matches!(s, Standing::Synced { .. })), "{seed}: {stand:?}");
        assert!(
            !world.serves(0) && world.hosts[1].stopped.is_some(),
            "{seed}: {:?}",
            world.hosts[1].logs
        );
    }
}

fn knows_in_memory(world: &World) -> bool {
    world.process(0).is_some_and(|p| p.pair.core.view.peer_policy.stops_without_slave)
}

#[test]
fn a_master_says_in_sync_once_the_slaves_flags_are_on_its_disk() {
    for seed in 0..SEEDS {
        let mut world = restarted_with(false, seed, stops_without_slave);
        world.hosts[0].hangs_until_ms = world.now_ms + 400;
        assert!(world.until(1_500, knows_in_memory), "{seed}: {:?}", world.hosts[0].logs);
        assert!(!world.is_in_sync(0) && !peer_policy_on_disk(&world, 0).stops_without_slave);
        assert!(world.until(1_500, |w| w.is_in_sync(0)), "{seed}: {:?}", world.hosts[0].logs);
        assert!(peer_policy_on_disk(&world, 0).stops_without_slave, "{seed}");
        // Whatever becomes of its process, it does not forget them.
        world.crash(0);
        world.cut();
        world.start(0);
        assert!(world.until(9_000, |w| w.serves(1)), "{seed}: {:?}", world.hosts[1].logs);
        world.run(30_000);
        assert!(!world.serves(0), "{seed}: {:?}", world.hosts[0].logs);
    }
}

#[test]
fn a_flag_that_the_slave_has_no_more_when_it_resumes_binds_its_master_no_more() {
    let mut world = in_sync_with(|_| {});
    world.crash(1);
    stops_without_slave(&mut world.hosts[1].config);
    world.start(1);
    until_resumed(&mut world);
    assert!(peer_policy_on_disk(&world, 0).stops_without_slave);
    world.crash(1);
    world.hosts[1].config.shutdown_on_slave_failure = false;
    world.start(1);
    until_resumed(&mut world);
    assert_eq!((world.leads, peer_policy_on_disk(&world, 0)), (1, Policy::default()));
    world.crash(1);
    let alone = |w: &World| matches!(standing(w, 0), Standing::Alone { .. });
    assert!(world.until(1_000, alone), "{:?}", world.hosts[0].logs);
}

#[test]
fn a_master_knows_where_a_slave_that_has_resumed_is_found() {
    let world = resumed_with(false, 1, |config| {
        config.advertised_address = Text::from_static("host-1:2");
        config.client_addresses = Text::from_static("amqp://host-1:5673");
    });
    let pair = &world.process(0).unwrap().pair;
    assert_eq!(pair.status().peer_address, "host-1:2");
    assert_eq!(pair.core.peer_client_addresses, "amqp://host-1:5673");
    let view = View::decode(world.hosts[0].disk.view.as_ref().unwrap()).unwrap();
    assert_eq!(view.peer_address, "host-1:2");
}

#[test]
fn a_slave_that_resumes_with_the_settings_of_before_has_nothing_written() {
    let world = in_sync_with(|_| {});
    let before = [0, 1].map(|host| world.hosts[host].disk.view.clone());
    let world = resumed_with(false, 1, |_| {});
    assert_eq!([0, 1].map(|host| world.hosts[host].disk.view.clone()), before);
    // The flags and the address of a master are those that it leads its epoch with.
    let known = |host: usize| world.process(host).unwrap().pair.core.version();
    assert_eq!(known(1), crate::pair::core::COUNT_FROM);
}
