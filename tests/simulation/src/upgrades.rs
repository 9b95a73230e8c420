//! Programs of versions n and n + 1 in one pair of real nodes. No program has a feature yet, so the newer
//! one is told that it knows one.
#![cfg(test)]

use crate::stories::{drained, pair_of};
use crate::world::{Side, World, WorldOptions};
use understudy::node::Node;
use understudy_model::Features;

const OLD: Features = Features(0b01);
const NEW: Features = Features(0b11);

/// In sync, under load, with these programs.
fn pair(a: Features, b: Features) -> World {
    let mut world = World::new(WorldOptions::default());
    world.install(Side::A, a);
    world.install(Side::B, b);
    pair_of(world, 1_500)
}

/// In the log, as far as each node has applied it.
fn on(world: &World) -> [Features; 2] {
    Side::BOTH.map(|side| world.node(side).map_or(Features::NONE, |node| node.broker().features()))
}

fn settle(world: &mut World) {
    assert!(world.run_until(20_000, World::in_sync), "{:#?}", world.log);
    world.run_ms(600);
}

fn upgrade(world: &mut World, side: Side) {
    world.stop(side);
    assert!(world.run_until(5_000, |world| world.node(side).is_none()), "{:#?}", world.log);
    world.install(side, NEW);
    world.start(side);
    settle(world);
}

#[test]
fn the_slave_is_upgraded_first_and_the_feature_comes_when_both_nodes_have_it() {
    let mut world = pair(OLD, OLD);
    settle(&mut world);
    assert_eq!(on(&world), [OLD; 2]);
    upgrade(&mut world, Side::B);
    assert_eq!((world.serving(), on(&world)), (Some(Side::A), [OLD; 2]));
    // Newer and older lead in turn, and either can read what the other writes.
    for heir in [Side::B, Side::A, Side::B] {
        world.hand_over(heir.other());
        assert!(world.run_until(5_000, |world| world.serving() == Some(heir)), "{:#?}", world.log);
        settle(&mut world);
        assert_eq!(on(&world), [OLD; 2]);
    }
    upgrade(&mut world, Side::A);
    assert_eq!((world.serving(), on(&world)), (Some(Side::B), [NEW; 2]));
    drained(&mut world);
    world.run_ms(2_000);
    assert_eq!(world.compare_states(), Ok(()));
    // Saved state and log say so after a restart, too.
    for side in Side::BOTH {
        world.crash(side);
        world.start(side);
        settle(&mut world);
    }
    assert_eq!(on(&world), [NEW; 2]);
}

#[test]
fn an_older_program_is_refused_by_its_own_data_and_by_its_peer_before_data_flows() {
    let mut world = pair(NEW, NEW);
    settle(&mut world);
    assert_eq!(on(&world), [NEW; 2]);
    let refused = |world: &World| match world.stopped(Side::B) {
        Some(Err(why)) => why.clone(),
        _ => panic!("{:#?}", world.log),
    };
    world.crash(Side::B);
    world.install(Side::B, OLD);
    world.start(Side::B);
    assert!(refused(&world).contains("needs features 1, which this program does not know"));
    // On an empty disk it has its peer tell it, which has done without a slave since.
    let alone = |world: &World| world.node(Side::A).is_some_and(|a| a.status().state == "alone");
    assert!(world.run_until(5_000, alone), "{:#?}", world.log);
    world.replace_disk(Side::B);
    world.start(Side::B);
    assert!(world.run_until(5_000, |world| world.stopped(Side::B).is_some()), "{:#?}", world.log);
    assert!(refused(&world).contains("FEATURE"), "{}", refused(&world));
    let named = |line: &String| line.contains("needs features 1, which the program of node");
    assert!(world.log.iter().any(named), "{:#?}", world.log);
    assert!(world.node(Side::A).is_some_and(Node::is_serving), "nobody else is disturbed");
    world.install(Side::B, NEW);
    world.start(Side::B);
    settle(&mut world);
    drained(&mut world);
}
