//! What is promised, told as a course of events.

use super::world::{World, config};
use crate::pair::view::Standing;
use crate::{Backend, Input, PairConfig, Role};
use understudy_model::Lsn;

pub(super) fn pair_with(change: impl Fn(&mut PairConfig)) -> World {
    let mut configs = vec![config(Role::Master), config(Role::Slave), config(Role::Slave)];
    configs.iter_mut().for_each(change);
    World::new(1, configs)
}

/// Host 0 leads, host 1 is in-sync, some groups are committed on both.
pub(super) fn in_sync_with(change: impl Fn(&mut PairConfig)) -> World {
    let mut world = pair_with(change);
    world.start(0);
    assert!(world.until(50, |w| w.serves(0)), "a new master serves at once");
    world.publish(0, 3);
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    publish(&mut world, 0, 5);
    world
}

pub(super) fn in_sync() -> World {
    in_sync_with(|_| {})
}

pub(super) fn publish(world: &mut World, host: usize, groups: u64) {
    for _ in 0..groups {
        world.publish(host, 2);
        world.run(20);
    }
}

pub(super) fn standing(world: &World, host: usize) -> Standing {
    world.hosts[host].disk.standing()
}

pub(super) fn commit(world: &World, host: usize) -> Lsn {
    world.process(host).map_or(Lsn::ZERO, |process| process.commit)
}

pub(super) fn ends_equal(world: &World) -> bool {
    let ends = [0, 1].map(|host| {
        let end = world.hosts[host].disk.end();
        (end.last, end.last_chain)
    });
    ends[0] == ends[1]
}

#[test]
fn a_slave_attaches_while_the_master_serves_and_becomes_in_sync() {
    let mut world = in_sync();
    world.run(600);
    assert!(ends_equal(&world));
    assert_eq!(commit(&world, 0), commit(&world, 1));
    assert!(matches!(standing(&world, 0), Standing::Synced { led: true, .. }));
    assert!(matches!(standing(&world, 1), Standing::Synced { led: false, .. }));
    assert!(world.serves(0) && !world.serves(1));
    assert_eq!(world.copies, 0, "a log that begins at the beginning is simply sent");
}

#[test]
fn a_killed_master_is_replaced_at_once_and_returns_as_slave() {
    let mut world = in_sync();
    // The last one is on its way when the master dies: not answered, and not on its own disk.
    world.publish(0, 1);
    world.crash(0);
    let killed_ms = world.now_ms;
    assert!(world.until(1_000, |w| w.serves(1)));
    assert!(world.now_ms - killed_ms < 100, "took over after {}", world.now_ms - killed_ms);
    publish(&mut world, 1, 3);
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(1) && !world.serves(0));
    world.run(600);
    assert!(ends_equal(&world));
}

#[test]
fn an_old_masters_unanswered_tail_is_cut_off() {
    let mut world = in_sync();
    // Durable at the master alone: the slave's frames are stuck.
    world.cut();
    world.publish(0, 4);
    world.run(30);
    let tail = world.hosts[0].disk.end().last;
    assert!(commit(&world, 0) < tail, "nothing is answered without the slave");
    world.crash(0);
    world.heal();
    assert!(world.until(1_000, |w| w.serves(1)));
    publish(&mut world, 1, 2);
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
    assert_eq!((world.truncations, world.copies), (1, 0));
    world.run(600);
    assert!(ends_equal(&world));
}

#[test]
fn a_master_that_comes_back_at_once_finds_one_leader_only() {
    for pause_ms in 0..60 {
        let mut world = in_sync();
        world.publish(0, 1);
        world.crash(0);
        world.run(pause_ms);
        world.start(0);
        assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)), "after {pause_ms} ms");
        assert!(world.serves(0) != world.serves(1));
    }
}

#[test]
fn without_its_slave_the_master_writes_alone_before_it_answers() {
    let mut world = in_sync();
    world.crash(1);
    world.publish(0, 1);
    let lost_ms = world.now_ms;
    let last = Lsn(commit(&world, 0).0 + 1);
    // The world's checks hold at each commit: one disk of two is only enough for `Alone`.
    assert!(world.until(1_000, |w| commit(w, 0) == last));
    assert!(world.now_ms - lost_ms < 100);
    assert!(matches!(standing(&world, 0), Standing::Alone { .. }));
    publish(&mut world, 0, 3);
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn a_slave_that_is_back_within_the_deadline_resumes() {
    let mut world = in_sync();
    world.cut();
    world.publish(0, 2);
    world.run(700);
    world.heal();
    assert!(world.until(1_500, |w| w.in_sync_pair(0, 1)));
    world.run(300);
    assert_eq!(world.leads, 1);
    assert!(ends_equal(&world));
    assert!(matches!(standing(&world, 0), Standing::Synced { .. }));
}

#[test]
fn a_stale_slave_waits_however_long_its_master_is_away() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| w.process(0).is_some_and(|p| p.pair.status().state == "alone")));
    publish(&mut world, 0, 3);
    world.crash(0);
    world.start(1);
    world.run(60_000);
    assert!(!world.serves(1), "a slave's file and a missing master are no right to lead");
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
    assert!(world.serves(0));
}

#[test]
fn a_new_slave_never_leads() {
    let mut world = pair_with(|_| {});
    world.start(1);
    world.run(60_000);
    assert!(!world.serves(1));
    assert_eq!(standing(&world, 1), Standing::Empty);
}

#[test]
fn a_second_slave_is_refused_and_harms_nothing() {
    let mut world = in_sync();
    let before = world.hosts[0].disk.view.clone();
    world.start(2);
    assert!(world.until(1_000, |w| w.hosts[2].stopped.is_some()));
    let refusal = world.hosts[2].stopped.clone().unwrap().unwrap_err();
    assert!(refusal.contains("SLOT_TAKEN"), "{refusal}");
    assert_eq!(world.hosts[2].disk.view, None);
    assert_eq!(world.hosts[0].disk.view, before);
    let lost = |line: &String| line.contains("lost");
    assert!(!world.hosts.iter().any(|host| host.logs.iter().any(lost)), "the slave's link stands");
    world.crash(1);
    world.start(2);
    assert!(world.until(1_000, |w| w.hosts[2].stopped.is_some()), "also while the slave is away");
    world.start(1);
    assert!(world.until(1_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn a_new_slave_goes_on_with_its_copy_after_both_have_crashed() {
    let mut world = in_sync();
    world.crash(1);
    assert!(world.until(1_000, |w| w.process(0).is_some_and(|p| p.pair.status().state == "alone")));
    publish(&mut world, 0, 3);
    world.start(2);
    let begun = |world: &World| world.hosts[2].disk.view.is_some();
    assert!(world.until(1_000, |w| begun(w) && matches!(standing(w, 2), Standing::Lagging { .. })));
    world.crash(0);
    world.crash(2);
    world.start(0);
    world.start(2);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 2)), "{:?}", world.hosts[2].stopped);
}

#[test]
fn a_node_of_another_cluster_is_refused_and_keeps_its_data() {
    let mut world = in_sync();
    world.hosts[2].config.role = Role::Master;
    // The checks know one cluster only.
    world.excused = true;
    world.start(2);
    world.run(1_000);
    publish(&mut world, 2, 2);
    world.crash(2);
    let before = [0, 2].map(|host| world.hosts[host].disk.end());
    // As a slave of host 0 it would still lead: its disk says `Alone`, and the link is refused.
    world.hosts[2].config.role = Role::Slave;
    world.start(2);
    world.run(1_000);
    let text = world.hosts[0].logs.join("\n");
    assert!(text.contains("UNRELATED") || !text.contains("refused"), "{text}");
    assert_eq!(before[0], world.hosts[0].disk.end());
    assert!(world.hosts[2].disk.end().last >= before[1].last);
    assert!(world.in_sync_pair(0, 1));
}

#[test]
fn a_slave_behind_the_reclaimed_log_gets_a_whole_copy() {
    let mut world = pair_with(|_| {});
    world.start(0);
    world.run(50);
    publish(&mut world, 0, 30);
    world.reclaim(0, Lsn(40));
    world.start(1);
    assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[1].logs);
    assert_eq!(world.copies, 1);
    publish(&mut world, 0, 1);
    world.run(600);
    assert!(ends_equal(&world));
    assert!(world.hosts[1].disk.base.0 >= Lsn(40));
}

#[test]
fn a_copy_that_breaks_off_begins_again() {
    let mut world = pair_with(|_| {});
    world.start(0);
    world.run(50);
    publish(&mut world, 0, 100);
    world.reclaim(0, Lsn(150));
    world.start(1);
    assert!(world.until(2_000, |w| w.copies == 1));
    world.run(20);
    world.crash(1);
    world.start(1);
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)));
    assert_eq!(world.copies, 2);
}

#[test]
fn after_a_partition_the_higher_epoch_leads_and_the_other_data_is_set_aside() {
    let mut world = in_sync();
    world.excused = true;
    world.cut();
    world.run(6_000);
    assert!(world.serves(0) && world.serves(1), "policy both: each side went on");
    publish(&mut world, 0, 3);
    publish(&mut world, 1, 2);
    let lost = (world.last_group(0).unwrap().last(), world.last_group(0).unwrap().header().chain);
    world.heal();
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)), "{:?}", world.hosts[0].logs);
    assert!(world.serves(1) && !world.serves(0));
    assert!(world.hosts[0].disk.aside[0].contains(&lost), "what was confirmed is kept");
    assert!(world.hosts[0].logs.iter().any(|line| line.contains("set aside")));
    publish(&mut world, 1, 1);
    world.run(600);
    assert!(ends_equal(&world));
}

#[test]
fn policies_without_both_never_lead_twice() {
    for (no_master, no_slave, survivor) in
        [(false, true, Some(1)), (true, false, Some(0)), (true, true, None)]
    {
        let mut world = in_sync_with(|config| {
            config.shutdown_on_master_failure = no_master;
            config.shutdown_on_slave_failure = no_slave;
        });
        world.cut();
        world.run(8_000);
        for host in [0, 1] {
            assert_eq!(world.serves(host), survivor == Some(host), "{no_master} {no_slave} {host}");
            assert_eq!(world.hosts[host].stopped.is_some(), survivor != Some(host));
        }
        world.heal();
        for host in [0, 1] {
            if world.process(host).is_none() {
                world.start(host);
            }
        }
        assert!(world.until(9_000, |w| w.in_sync_pair(0, 1)), "{no_master} {no_slave}");
    }
}

#[test]
fn a_master_that_is_asked_to_stop_hands_over_without_a_pause() {
    let mut world = in_sync();
    world.publish(0, 3);
    world.input(0, Input::Stopping);
    let asked_ms = world.now_ms;
    assert!(world.until(1_000, |w| w.serves(1)));
    assert!(world.now_ms - asked_ms < 100);
    assert_eq!(world.hosts[0].stopped, Some(Ok("asked to stop".into())));
    world.start(0);
    assert!(world.until(2_000, |w| w.in_sync_pair(0, 1)));
}

#[test]
fn a_slave_that_is_asked_to_stop_does_not_hold_up_its_master() {
    let mut world = in_sync();
    world.input(1, Input::Stopping);
    world.publish(0, 1);
    let last = Lsn(commit(&world, 0).0 + 1);
    assert!(world.until(100, |w| commit(w, 0) == last));
    assert!(matches!(standing(&world, 1), Standing::Lagging { .. }));
    assert!(matches!(standing(&world, 0), Standing::Alone { .. }));
}

/// Who has agreed to lead next keeps its claim: the master may have given up its own.
#[test]
fn an_heir_that_is_asked_to_stop_leaves_somebody_who_may_lead() {
    let mut stopped_as_heir = 0;
    for after_ms in 0..30 {
        let mut world = in_sync();
        world.input(0, Input::HandOver);
        world.run(after_ms);
        world.input(1, Input::Stopping);
        assert!(world.until(3_000, |w| w.hosts[1].stopped.is_some() || w.serves(1)));
        stopped_as_heir += usize::from(matches!(standing(&world, 1), Standing::Synced { .. }));
        if world.hosts[1].stopped.is_some() {
            world.start(1);
        }
        let serves = |w: &World| w.serves(0) || w.serves(1);
        assert!(world.until(9_000, serves), "{after_ms}: {:?}", world.hosts[1].logs);
    }
    assert!(stopped_as_heir > 0);
}

#[test]
fn after_a_double_crash_the_pair_finds_itself_again() {
    for first in [0, 1] {
        let mut world = in_sync();
        world.publish(0, 2);
        world.run(2);
        world.crash(0);
        world.crash(1);
        world.start(first);
        world.run(2_000);
        world.start(1 - first);
        assert!(world.until(3_000, |w| w.in_sync_pair(0, 1)), "{first} first");
        publish(&mut world, 0, 1);
    }
}

#[test]
fn an_election_that_is_cut_short_at_any_point_leaves_one_claim() {
    for cut_after_ms in 0..40 {
        for (no_master, no_slave) in [(false, true), (true, false)] {
            let mut world = in_sync_with(|config| {
                config.shutdown_on_master_failure = no_master;
                config.shutdown_on_slave_failure = no_slave;
            });
            for host in [0, 1] {
                world.crash(host);
            }
            for host in [0, 1] {
                world.start(host);
            }
            world.run(cut_after_ms);
            world.cut();
            for _ in 0..100 {
                world.run(100);
                assert!(!(world.serves(0) && world.serves(1)), "cut after {cut_after_ms} ms");
            }
            for host in [0, 1] {
                world.crash(host);
            }
            for host in [0, 1] {
                world.start(host);
            }
            world.run(10_000);
            assert!(!(world.serves(0) && world.serves(1)), "cut after {cut_after_ms} ms, restart");
            world.heal();
            for host in [0, 1] {
                if world.process(host).is_none() {
                    world.start(host);
                }
            }
            world.run(10);
            let healed = world.until(9_000, |w| w.in_sync_pair(0, 1));
            assert!(healed, "cut after {cut_after_ms} ms: {:?}", world.hosts[1].logs);
        }
    }
}

#[test]
fn alone_in_a_double_crash_only_the_configured_master_serves_under_both() {
    let mut world = in_sync();
    world.crash(0);
    world.crash(1);
    world.start(1);
    world.run(30_000);
    assert!(!world.serves(1));
    world.crash(1);
    world.start(0);
    assert!(world.until(6_000, |w| w.serves(0)));
}

#[test]
fn a_master_that_waits_for_its_slave_opens_when_it_is_in_sync() {
    let waits = |config: &mut PairConfig| {
        config.wait_for_slave = true;
        config.wait_for_slave_timeout_ms = 10_000;
    };
    let mut world = pair_with(waits);
    world.start(0);
    world.run(5_000);
    assert!(!world.serves(0));
    world.start(1);
    assert!(world.until(2_000, |w| w.serves(0) && w.is_in_sync(0)));
    world.crash(0);
    assert!(world.until(1_000, |w| w.serves(1)), "a takeover has had its slave");
    let mut world = pair_with(waits);
    world.start(0);
    assert!(world.until(11_000, |w| w.hosts[0].stopped.is_some()));
    assert!(world.hosts[0].stopped.clone().unwrap().is_err());
}

#[test]
fn a_slave_whose_disk_hangs_is_left_behind_and_taken_back() {
    let mut world = in_sync();
    world.hosts[1].hangs_until_ms = world.now_ms + 10_000;
    world.publish(0, 1);
    let asked_ms = world.now_ms;
    let last = Lsn(commit(&world, 0).0 + 1);
    assert!(world.until(3_000, |w| commit(w, 0) == last), "{:?}", world.hosts[0].logs);
    assert!(world.now_ms - asked_ms >= 2_000);
    assert!(world.until(20_000, |w| w.in_sync_pair(0, 1)));
    assert_eq!(world.leads, 1);
}

#[test]
fn nonsense_costs_the_link_and_nothing_else() {
    let mut world = in_sync();
    for host in [0, 1] {
        let link = crate::LinkId(9_999);
        for frame in [&b""[..], b"\x01", b"\x09\x00", b"\xff\xff\xff", b"\x01\x07\x00"] {
            world.input(host, Input::Linked { link, dialed: false });
            let frame = bytes::Bytes::copy_from_slice(frame);
            world.input(host, Input::Received { link, frame });
        }
    }
    world.run(3_000);
    assert!(world.in_sync_pair(0, 1));
    assert_eq!(world.leads, 1);
}

/// A process that slept has heard nothing, which proves nothing: the other one leads by now.
#[test]
fn who_slept_through_a_takeover_looks_for_the_peer_before_it_counts_it_as_silent() {
    for sleeper in [0, 1] {
        for sleep_ms in [2_500, 4_500, 6_000, 60_000] {
            let mut world = in_sync();
            world.hosts[sleeper].sleeps_until_ms = world.now_ms + sleep_ms;
            // Until it is over, whoever says to be in-sync may not have noticed.
            world.run(sleep_ms);
            let rested = |w: &World| w.in_sync_pair(0, 1) && (w.serves(0) || w.serves(1));
            assert!(world.until(10_000, rested), "{sleeper} {sleep_ms}");
            let master = usize::from(world.serves(1));
            publish(&mut world, master, 5);
            world.run(600);
            let slept = &world.hosts[sleeper].logs;
            assert!(!slept.iter().any(|line| line.contains("going on")), "{slept:?}");
            assert!(ends_equal(&world), "{sleeper} {sleep_ms}");
        }
    }
}
