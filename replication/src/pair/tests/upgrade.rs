//! Programs of versions n and n + 1 in one pair. The newer one is injected by its configuration: it
//! speaks one more protocol version and knows one more feature.

use super::stories::{ends_equal, in_sync_with, pair_with, publish};
use super::world::World;
use crate::pair::upgrade::Protocols;
use crate::{Input, PairConfig};
use understudy_model::Features;

const OLD: Features = Features(0b01);
const NEW: Features = Features(0b11);

fn old(config: &mut PairConfig) {
    (config.protocols, config.features) = (Protocols { least: 1, most: 1 }, OLD);
}

fn new(config: &mut PairConfig) {
    (config.protocols, config.features) = (Protocols { least: 1, most: 2 }, NEW);
}

fn restart_as(world: &mut World, host: usize, version: fn(&mut PairConfig)) {
    world.crash(host);
    version(&mut world.hosts[host].config);
    world.start(host);
}

fn on(world: &World) -> [Features; 2] {
    [0, 1].map(|host| world.hosts[host].disk.features)
}

#[test]
fn the_slave_is_upgraded_first_and_a_feature_comes_when_both_have_it() {
    let mut world = in_sync_with(old);
    world.run(600);
    assert_eq!(on(&world), [OLD, OLD], "what both know is switched on by the log");
    restart_as(&mut world, 1, new);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    publish(&mut world, 0, 3);
    // The newer one leads, and still writes nothing that the older one cannot read.
    world.input(0, Input::HandOver);
    assert!(world.until(3_000, |w| w.serves(1) && w.in_sync_pair(0, 1)));
    publish(&mut world, 1, 3);
    world.run(600);
    assert_eq!(on(&world), [OLD, OLD]);
    // Also the other way round, while the upgrade is half done.
    world.input(1, Input::HandOver);
    assert!(world.until(3_000, |w| w.serves(0) && w.in_sync_pair(0, 1)));
    world.input(0, Input::HandOver);
    assert!(world.until(3_000, |w| w.serves(1) && w.in_sync_pair(0, 1)));
    restart_as(&mut world, 0, new);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    world.run(600);
    assert_eq!(on(&world), [NEW, NEW]);
    let switched: Vec<_> = world.switches.iter().map(|(_, features)| *features).collect();
    assert_eq!(switched, [OLD, Features(0b10)], "each by one command");
    publish(&mut world, 1, 2);
    world.run(600);
    assert!(ends_equal(&world));
}

#[test]
fn a_program_that_cannot_read_the_log_is_refused_before_data_flows() {
    let mut world = in_sync_with(new);
    world.run(600);
    assert_eq!(on(&world), [NEW, NEW]);
    // The slave's own state says so, too: no older program may even start with it. A new node is not
    // warned by its own disk.
    world.crash(1);
    world.run(300);
    old(&mut world.hosts[2].config);
    world.start(2);
    assert!(world.until(3_000, |w| w.hosts[2].stopped.is_some()), "{:?}", world.hosts[2].logs);
    let refusal = world.hosts[2].stopped.clone().unwrap().unwrap_err();
    assert!(refusal.contains("FEATURE"), "{refusal}");
    let told = |host: usize, text: &str| {
        let logs = &world.hosts[host].logs;
        assert!(logs.iter().any(|line| line.contains(text)), "{text}: {logs:?}");
    };
    told(2, "needs features 1, which this program does not know");
    told(0, "this node's log needs features 1, which the program of node ");
    assert_eq!((world.hosts[2].disk.view.clone(), world.hosts[2].disk.end().last.0), (None, 0));
    assert!(world.serves(0));
    world.start(1);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)));
}

/// An older program on a data directory of before: as a master it does not take the newer slave's data.
#[test]
fn a_slave_whose_log_the_masters_program_cannot_read_is_refused_and_keeps_its_data() {
    let mut world = in_sync_with(new);
    world.run(600);
    world.crash(1);
    publish(&mut world, 0, 2);
    world.crash(0);
    old(&mut world.hosts[0].config);
    world.hosts[0].disk.features = OLD;
    world.start(0);
    assert!(world.until(3_000, |w| w.serves(0)), "{:?}", world.hosts[0].logs);
    let before = (world.hosts[1].disk.view.clone(), world.hosts[1].disk.end());
    world.start(1);
    assert!(world.until(3_000, |w| w.hosts[1].stopped.is_some()), "{:?}", world.hosts[1].logs);
    let refusal = world.hosts[1].stopped.clone().unwrap().unwrap_err();
    assert!(refusal.contains("FEATURE"), "{refusal}");
    assert_eq!((world.hosts[1].disk.view.clone(), world.hosts[1].disk.end()), before);
    assert!(
        world.hosts[1].logs.iter().any(|line| line.contains("this node's log needs features 1"))
    );
    assert!(world.hosts[0].logs.iter().any(|line| line.contains("needs features 1, which this")));
    assert!(world.serves(0));
    restart_as(&mut world, 0, new);
    world.start(1);
    assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
}

#[test]
fn a_copy_brings_the_features_with_it() {
    let mut world = in_sync_with(new);
    world.run(600);
    world.input(1, Input::Resync);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    world.crash(0);
    assert!(world.until(3_000, |w| w.serves(1)));
    assert_eq!(on(&world)[1], NEW);
    world.start(0);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)));
    assert_eq!(world.switches.len(), 1, "they are not switched on again");
}

#[test]
fn without_a_common_protocol_version_the_slave_is_refused_and_the_master_goes_on() {
    let mut world = in_sync_with(old);
    let before = world.hosts[1].disk.view.clone();
    world.crash(1);
    world.hosts[1].config.protocols = Protocols { least: 2, most: 3 };
    world.start(1);
    assert!(world.until(3_000, |w| w.hosts[1].stopped.is_some()), "{:?}", world.hosts[1].logs);
    assert_eq!(world.hosts[1].disk.view, before);
    for host in [0, 1] {
        let text = world.hosts[host].logs.join("\n");
        assert!(text.contains("versions 2 to 3") || text.contains("versions 1 to 1"), "{text}");
    }
    publish(&mut world, 0, 2);
    assert!(world.serves(0));
}

#[test]
fn a_master_alone_switches_nothing_on() {
    let mut world = pair_with(new);
    world.start(0);
    world.run(1_000);
    publish(&mut world, 0, 3);
    assert!(world.serves(0) && world.switches.is_empty());
}

#[test]
fn versions_agree_on_the_highest_that_both_speak() {
    let versions = |least, most| Protocols { least, most };
    for (one, other, agreed) in [
        (versions(1, 1), versions(1, 2), Some(1)),
        (versions(1, 3), versions(2, 5), Some(3)),
        (versions(1, 1), versions(2, 2), None),
        (versions(4, 5), versions(1, 3), None),
    ] {
        assert_eq!(one.agree_with(other), agreed);
        assert_eq!(other.agree_with(one), agreed);
    }
}
