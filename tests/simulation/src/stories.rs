//! Scripted runs in the words of the requirement.
#![cfg(test)]

use crate::client::{Client, ClientKind, Way};
use crate::random::{Outcome, SOMETIMES, run_seed};
use crate::world::{Side, World, WorldOptions};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

const PUBLISHER: usize = 0;

/// A pair in sync, one publisher of `messages` and one consumer.
fn pair(messages: u64, options: WorldOptions) -> World {
    pair_of(World::new(options), messages)
}

pub(crate) fn pair_of(mut world: World, messages: u64) -> World {
    world.add_client(ClientKind::Publisher { messages, dedup: true, by: Way::Straight });
    world.add_client(ClientKind::Consumer { prefetch: 10 });
    world.start(Side::A);
    world.start(Side::B);
    assert!(world.run_until(20_000, World::in_sync), "{:#?}", world.log);
    world
}

pub(crate) fn drained(world: &mut World) {
    let done = world.run_until(60_000, |world| {
        let serving = world.serving().and_then(|side| world.node(side));
        world.clients.iter().all(Client::is_done)
            && serving.is_some_and(|node| node.broker().counts().unsettled == 0)
    });
    assert!(done, "{:#?}", world.log);
    assert_eq!(world.checks.lost(), Vec::<&String>::new());
    assert_eq!(world.checks.violations, Vec::<String>::new());
}

#[test]
fn a_slave_takes_over_within_half_a_second_of_the_masters_death() {
    let mut world = pair(400, WorldOptions::default());
    world.run_ms(100);
    world.crash(Side::A);
    let died_ms = world.now_ms;
    assert!(world.run_until(5_000, |world| world.serving() == Some(Side::B)));
    assert!(world.now_ms - died_ms < 500, "took {} ms", world.now_ms - died_ms);
    drained(&mut world);
}

#[test]
fn the_old_master_comes_back_as_slave_and_is_in_sync_again() {
    let mut world = pair(500, WorldOptions::default());
    world.run_ms(100);
    world.crash(Side::A);
    world.run_ms(500);
    world.start(Side::A);
    assert!(world.run_until(30_000, World::in_sync), "{:#?}", world.log);
    assert_eq!(world.serving(), Some(Side::B));
    drained(&mut world);
    world.run_ms(2_000);
    assert_eq!(world.compare_states(), Ok(()));
}

#[test]
fn a_master_goes_on_alone_when_its_slave_dies_and_takes_it_back() {
    let mut world = pair(500, WorldOptions::default());
    world.run_ms(100);
    world.crash(Side::B);
    let before = world.clients[PUBLISHER].confirmed;
    world.run_ms(3_000);
    assert!(world.clients[PUBLISHER].confirmed > before, "{:#?}", world.log);
    world.start(Side::B);
    assert!(world.run_until(30_000, World::in_sync), "{:#?}", world.log);
    assert_eq!(world.serving(), Some(Side::A));
    drained(&mut world);
}

#[test]
fn a_new_slave_gets_a_whole_copy_when_the_log_is_reclaimed() {
    let mut world = World::new(WorldOptions::default());
    world.add_client(ClientKind::Publisher { messages: 3_000, dedup: true, by: Way::Straight });
    world.add_client(ClientKind::Consumer { prefetch: 10 });
    world.start(Side::A);
    assert!(world.run_until(60_000, |world| world.clients[PUBLISHER].confirmed > 2_000));
    world.start(Side::B);
    assert!(world.run_until(60_000, World::in_sync), "{:#?}", world.log);
    assert!(world.log.iter().any(|line| line.contains(": Copy")), "{:#?}", world.log);
    world.crash(Side::A);
    drained(&mut world);
}

#[test]
fn a_short_cut_changes_nothing_but_the_delay() {
    let mut world = pair(300, WorldOptions::default());
    world.cut_link();
    world.run_ms(600);
    world.heal_link();
    assert!(world.run_until(20_000, World::in_sync), "{:#?}", world.log);
    assert_eq!(world.serving(), Some(Side::A));
    drained(&mut world);
}

#[test]
fn a_slave_told_to_stop_with_its_master_stops() {
    let mut options = WorldOptions::default();
    options.pair.shutdown_on_master_failure = true;
    let mut world = pair(100, options);
    world.crash(Side::A);
    assert!(world.run_until(20_000, |world| world.stopped(Side::B).is_some()));
    assert_eq!(world.serving(), None);
}

#[test]
fn a_master_told_to_stop_with_its_slave_stops() {
    let mut options = WorldOptions::default();
    options.pair.shutdown_on_slave_failure = true;
    let mut world = pair(100, options);
    world.crash(Side::B);
    assert!(world.run_until(20_000, |world| world.stopped(Side::A).is_some()));
}

#[test]
fn a_switchover_swaps_the_roles_within_150_ms_and_loses_nothing() {
    let mut world = pair(400, WorldOptions::default());
    for (master, slave) in [(Side::A, Side::B), (Side::B, Side::A)] {
        world.run_ms(100);
        assert_eq!(world.serving(), Some(master));
        let asked_ms = world.now_ms;
        world.hand_over(master);
        assert!(world.run_until(5_000, |world| world.serving() == Some(slave)));
        assert!(world.now_ms - asked_ms < 150, "took {} ms", world.now_ms - asked_ms);
        assert!(world.run_until(5_000, World::in_sync), "{:#?}", world.log);
    }
    drained(&mut world);
    world.run_ms(2_000);
    assert_eq!(world.compare_states(), Ok(()));
}

#[test]
fn a_switchover_needs_no_policys_leave() {
    let mut options = WorldOptions::default();
    options.pair.shutdown_on_master_failure = true;
    let mut world = pair(200, options);
    world.run_ms(50);
    world.hand_over(Side::A);
    assert!(world.run_until(5_000, |world| world.serving() == Some(Side::B)), "{:#?}", world.log);
    drained(&mut world);
}

#[test]
fn without_an_in_sync_slave_a_switchover_is_refused() {
    let mut world = pair(200, WorldOptions::default());
    world.crash(Side::B);
    world.run_ms(500);
    world.hand_over(Side::A);
    world.run_ms(1_000);
    assert_eq!(world.serving(), Some(Side::A));
    drained(&mut world);
}

/// A pair of which B, cut short in its work, waits alone for A.
fn orphaned(options: WorldOptions) -> World {
    let mut world = pair(200, options);
    world.run_ms(50);
    world.crash(Side::A);
    world.crash(Side::B);
    world.start(Side::B);
    world.run_ms(10_000);
    assert_eq!(world.serving(), None, "{:#?}", world.log);
    world
}

#[test]
fn an_in_sync_slave_that_waits_is_promoted_by_hand_and_its_old_master_follows() {
    let mut world = orphaned(WorldOptions::default());
    world.promote(Side::B, false);
    assert!(world.run_until(5_000, |world| world.serving() == Some(Side::B)), "{:#?}", world.log);
    world.start(Side::A);
    assert!(world.run_until(20_000, World::in_sync), "{:#?}", world.log);
    assert_eq!(world.serving(), Some(Side::B));
    drained(&mut world);
}

#[test]
fn a_copy_that_may_lack_commands_is_promoted_only_by_force() {
    let mut world = pair(200, WorldOptions::default());
    world.crash(Side::A);
    world.run_ms(1_000);
    world.start(Side::A);
    // Following, and not in-sync yet.
    let lagging =
        |world: &World| world.node(Side::A).is_some_and(|a| a.status().state == "syncing");
    assert!(world.run_until(10_000, lagging), "{:#?}", world.log);
    world.promote(Side::A, true);
    world.run_ms(5);
    assert_eq!(world.serving(), Some(Side::B), "one that follows is never promoted");
    world.crash(Side::B);
    world.run_ms(10_000);
    world.promote(Side::A, false);
    world.run_ms(1_000);
    assert_eq!(world.serving(), None, "{:#?}", world.log);
    world.promote(Side::A, true);
    assert!(world.run_until(5_000, |world| world.serving() == Some(Side::A)), "{:#?}", world.log);
}

#[test]
fn an_empty_node_is_not_promoted_even_by_force() {
    let mut world = World::new(WorldOptions::default());
    world.start(Side::B);
    world.run_ms(6_000);
    world.promote(Side::B, true);
    world.run_ms(3_000);
    assert_eq!(world.serving(), None);
}

/// Both sides serve for `cut_ms`, each with clients of its own; then the link comes back. Nothing
/// is finished any more until the pair is in-sync again, so that what is left is seen to be right.
fn partitioned(seed: u64, cut_ms: u64) -> World {
    let mut world = pair(400, WorldOptions { seed, ..WorldOptions::default() });
    world.add_client(ClientKind::Publisher { messages: 300, dedup: false, by: Way::Straight });
    world.run_ms(100);
    world.checks.partitioned = true;
    world.cut_link();
    assert!(world.run_until(20_000, |world| world.serve_both()), "{:#?}", world.log);
    for _ in 0..2 {
        world.add_client(ClientKind::Publisher { messages: 200, dedup: true, by: Way::Straight });
        world.add_client(ClientKind::Publisher { messages: 100, dedup: false, by: Way::Straight });
        world.add_client(ClientKind::Consumer { prefetch: 3 });
    }
    world.run_ms(cut_ms);
    world.heal_link();
    world
}

#[test]
fn a_partition_heals_by_itself_and_nothing_confirmed_by_either_side_is_lost() {
    let mut stored = 0;
    for seed in 1..=20 {
        let mut world = partitioned(seed, seed * 100);
        assert!(world.run_until(30_000, World::in_sync), "seed {seed}: {:#?}", world.log);
        stored += world.log.iter().filter(|line| line.contains("taken over from")).count();
        // From here on every repetition is flagged, and what was finished stays so.
        world.checks.partitioned = false;
        drained(&mut world);
        world.run_ms(2_000);
        assert_eq!(world.compare_states(), Ok(()), "seed {seed}");
    }
    assert!(stored > 10, "{stored}");
}

#[test]
fn a_heal_that_is_cut_short_by_crashes_loses_nothing_either() {
    for seed in 1..=60 {
        let mut world = partitioned(seed, 500);
        let pause_ms = world.roll(120);
        world.run_ms(pause_ms);
        let side = if seed % 2 == 0 { Side::A } else { Side::B };
        match seed % 3 {
            0 => {
                world.cut_link();
                world.run_ms(300);
                world.heal_link();
            }
            _ => {
                world.crash(side);
                world.run_ms(20);
                world.start(side);
            }
        }
        assert!(world.run_until(60_000, World::in_sync), "seed {seed}: {:#?}", world.log);
        drained(&mut world);
        world.run_ms(2_000);
        assert_eq!(world.compare_states(), Ok(()), "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run_seed(42).log, run_seed(42).log);
}

/// On all cores.
fn outcomes(seeds: RangeInclusive<u64>) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(*seeds.start());
    let work = || {
        let draw = || next.fetch_add(1, Ordering::Relaxed);
        let drawn = std::iter::repeat_with(draw).take_while(|seed| seeds.contains(seed));
        drawn.map(|seed| (seed, run_seed(seed))).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn five_hundred_seeds_lose_nothing_and_meet_everything() {
    let mut seen = BTreeMap::<&str, u64>::new();
    let (mut rotten, mut repaired, mut compared) = (0, 0, 0);
    for (seed, outcome) in outcomes(1..=500) {
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\n{}",
            outcome.violations,
            outcome.log.join("\n")
        );
        rotten += outcome.sometimes.rotten;
        repaired += outcome.sometimes.repaired;
        compared += outcome.sometimes.compared;
        outcome.seen.iter().for_each(|(name, count)| *seen.entry(*name).or_default() += count);
    }
    let names = SOMETIMES.into_iter().map(|(name, _)| name);
    let never: Vec<&str> = names.filter(|name| seen[name] == 0).collect();
    assert!(never.is_empty(), "never seen: {never:?}");
    assert!(compared > 1_000, "{compared}");
    assert!(repaired > 50 && rotten > repaired, "{repaired} of {rotten} were repaired");
}

/// A pair in sync whose backlog lies on disk, and rots on one side.
fn rotten(side: Side) -> World {
    let mut world = World::new(WorldOptions::default());
    let by = Way::Straight;
    world.add_client(ClientKind::Publisher { messages: 300, dedup: true, by });
    world.start(Side::A);
    world.start(Side::B);
    assert!(world.run_until(20_000, World::in_sync), "{:#?}", world.log);
    assert!(world.run_until(20_000, |world| world.clients[PUBLISHER].is_done()));
    for _ in 0..20 {
        world.corrupt(side);
    }
    world
}

#[test]
fn rotten_disks_are_repaired_from_the_other_node() {
    for side in Side::BOTH {
        let mut world = rotten(side);
        let healed = world.run_until(5_000, |world| world.is_whole(side));
        assert!(healed, "{:#?}", world.log);
        assert!(world.sometimes().repaired > 0 && world.in_sync());
        world.add_client(ClientKind::Consumer { prefetch: 10 });
        drained(&mut world);
        world.run_ms(2_000);
        assert_eq!(world.compare_states(), Ok(()));
    }
}

#[test]
fn a_rotten_message_waits_for_the_slave_that_still_has_it() {
    let mut world = rotten(Side::A);
    world.crash(Side::B);
    world.add_client(ClientKind::Consumer { prefetch: 10 });
    world.run_ms(20_000);
    assert!(!world.is_whole(Side::A) && world.serving() == Some(Side::A), "{:#?}", world.log);
    assert!(world.checks.lost().len() > 10, "deliveries wait");
    world.start(Side::B);
    drained(&mut world);
    assert_eq!(world.sometimes().restored, 0);
}

#[test]
fn a_master_whose_message_nobody_has_stops_and_says_which() {
    let mut world = rotten(Side::A);
    world.crash(Side::B);
    world.add_client(ClientKind::Consumer { prefetch: 10 });
    assert!(world.run_until(90_000, |world| world.stopped(Side::A).is_some()), "{:#?}", world.log);
    let why = world.stopped(Side::A).cloned().unwrap().unwrap_err();
    assert!(why.contains("cannot be handed out") && why.contains("LSN"), "{why}");
    assert_eq!(world.checks.violations, Vec::<String>::new());
    world.start(Side::B);
    world.restore_if_stopped(Side::A);
    world.start(Side::A);
    drained(&mut world);
}

#[test]
fn a_slave_that_cannot_read_its_log_at_start_takes_a_whole_copy() {
    let mut world =
        pair(400, WorldOptions { save_after_bytes: 1 << 30, ..WorldOptions::default() });
    world.run_ms(400);
    world.crash(Side::B);
    world.corrupt_last(Side::B);
    world.start(Side::B);
    assert!(world.run_until(30_000, World::in_sync), "{:#?}", world.log);
    assert_eq!((world.set_aside(Side::B), world.sometimes().restored), (1, 0));
    drained(&mut world);
    world.run_ms(2_000);
    assert_eq!(world.compare_states(), Ok(()));
}

#[test]
fn a_node_that_was_alone_does_not_start_with_a_log_that_it_cannot_read() {
    let mut world =
        pair(400, WorldOptions { save_after_bytes: 1 << 30, ..WorldOptions::default() });
    world.crash(Side::B);
    world.run_ms(5_000);
    world.crash(Side::A);
    world.corrupt_last(Side::A);
    world.start(Side::A);
    assert_eq!(world.sometimes().restored, 1, "the operator was asked");
    world.start(Side::B);
    drained(&mut world);
}

#[test]
fn a_state_that_went_wrong_is_an_alarm_on_both_nodes_until_a_resync() {
    let mut world = pair(600, WorldOptions { save_after_bytes: 1, ..WorldOptions::default() });
    world.run_ms(100);
    world.crash(Side::B);
    world.spoil_state(Side::B);
    world.start(Side::B);
    let told = |world: &World, side| world.node(side).is_some_and(|node| node.differs().is_some());
    let both = world.run_until(10_000, |world| told(world, Side::A) && told(world, Side::B));
    assert!(both, "{:#?}", world.log);
    assert!(world.in_sync() && world.serving() == Some(Side::A), "nobody stops");
    world.resync(Side::B);
    let over = world.run_until(20_000, |world| {
        world.in_sync() && !told(world, Side::A) && !told(world, Side::B)
    });
    assert!(over, "{:#?}", world.log);
    drained(&mut world);
    world.run_ms(2_000);
    assert_eq!(world.compare_states(), Ok(()));
}
