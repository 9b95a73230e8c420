//! Machines whose cables lose real packets: nobody is told, connections stay half open, and the
//! kernels send again more and more seldom. Without the right to make them there is nothing to see.

use crate::support::network::Network;
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, USER};
use serde_json::Value;
use std::time::{Duration, Instant};

/// From the heal on. A dial is lost within a second, and the next one follows within another.
const BACK_LIMIT: Duration = Duration::from_secs(5);
/// Beyond `replication.takeover_ms`.
const LONG: Duration = Duration::from_secs(5);

/// Runs `act` in the network, if there is one.
fn on_machines(act: impl FnOnce(&Network) + Send) {
    if let Some(network) = Network::if_permitted() {
        network.inside(|| act(&network));
    }
}

fn epoch(node: &Node) -> Value {
    node.status().unwrap()["epoch"].clone()
}

fn assert_back_soon(pair: &mut Pair) {
    let healed = Instant::now();
    pair.slave.wait_in_sync();
    pair.master.wait_in_sync();
    let after = healed.elapsed();
    assert!(after < BACK_LIMIT, "in-sync {after:?} after the heal:\n{}", pair.slave.log());
    eprintln!("in-sync {after:?} after the heal");
}

#[test]
fn packets_lost_for_half_a_second_are_sent_again_and_nobody_is_suspected() {
    on_machines(|network| {
        let (mut pair, link) = Pair::over_link(Some(network));
        pair.start_in_sync();
        let before = epoch(&pair.master);
        link.cut();
        std::thread::sleep(Duration::from_millis(500));
        link.heal();
        // What was lost comes, or would have been missed, within `replication.suspect_ms`.
        std::thread::sleep(Duration::from_millis(2_500));
        for node in [&mut pair.master, &mut pair.slave] {
            assert_eq!(node.status().unwrap()["state"], "in-sync");
            assert!(!node.log().contains("link is lost"), "{}", node.log());
            assert_eq!(epoch(node), before);
        }
    });
}

#[test]
fn a_pair_is_in_sync_soon_after_a_long_loss() {
    on_machines(|network| {
        let (mut pair, link) = Pair::over_link(Some(network));
        pair.start_in_sync();
        link.cut();
        std::thread::sleep(LONG);
        link.heal();
        assert_back_soon(&mut pair);
    });
}

#[test]
fn a_pair_is_in_sync_soon_after_a_machine_was_unplugged() {
    on_machines(|network| {
        let (mut pair, _link) = Pair::over_link(Some(network));
        pair.start_in_sync();
        let machine = pair.master.machine.clone().unwrap();
        network.unplug(&machine);
        std::thread::sleep(LONG);
        network.plug_in(&machine);
        assert_back_soon(&mut pair);
    });
}

/// Its last packets are lost, so the other side's connection to the dead process stays.
#[test]
fn a_slave_that_died_behind_a_cut_link_is_taken_back_at_once() {
    on_machines(|network| {
        let (mut pair, link) = Pair::over_link(Some(network));
        pair.start_in_sync();
        link.cut();
        pair.slave.kill();
        pair.slave.start();
        link.heal();
        assert_back_soon(&mut pair);
    });
}

/// No host answers that nobody is there any more, so the slave waits as long as for a silent one.
#[test]
fn a_master_whose_machine_lost_its_power_is_replaced_when_its_time_is_over() {
    on_machines(|network| {
        let (mut pair, _link) = Pair::over_link(Some(network));
        pair.start_in_sync();
        Stomp::connect_as(USER, &pair.master.ports.stomp).publish("/queue/q", numbers(0..200));
        let machine = pair.master.machine.clone().unwrap();
        network.unplug(&machine);
        pair.master.kill();
        let off = Instant::now();
        pair.slave.wait("serving", |status| status["serving"] == true);
        let after = off.elapsed();
        // By default `replication.takeover_ms` is 4,000, counted from the last sign of life.
        let range = Duration::from_millis(3_500)..Duration::from_secs(7);
        assert!(range.contains(&after), "replaced after {after:?}");
        eprintln!("replaced after {after:?}");
        let mut stomp = Stomp::connect_as(USER, &pair.slave.ports.stomp);
        stomp.publish("/queue/q", numbers(200..300));
        network.plug_in(&machine);
        pair.master.start();
        assert_back_soon(&mut pair);
        assert!(stomp.consume("/queue/q", 300).into_iter().eq(numbers(0..300)));
    });
}

/// It promised no heart-beats and nothing is on its way to it: only TCP can find out.
#[test]
fn a_client_whose_machine_lost_its_power_is_closed_when_its_time_is_over() {
    on_machines(|network| {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::standalone_on(network.machine(), directory.path());
        node.configure("[limits]\nunreachable_s = 3\n");
        node.start_serving();
        let machine = network.machine();
        let stomp = node.ports.stomp.clone();
        let mut client = machine.inside(|| Stomp::connect_as(USER, &stomp));
        client.send("SUBSCRIBE\nid:1\ndestination:/queue/q\nreceipt:1\n\n");
        client.receive();
        node.wait("with it", |status| status["counts"]["consumers"] == 1);
        network.unplug(&machine);
        let off = Instant::now();
        node.wait("without it", |status| status["counts"]["connections"] == 0);
        let after = off.elapsed();
        let range = Duration::from_secs(2)..Duration::from_secs(8);
        assert!(range.contains(&after), "closed after {after:?}");
        eprintln!("closed after {after:?}");
    });
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| n.to_string())
}
