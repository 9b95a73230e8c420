//! The link between two living nodes is cut, both serve, and the link comes back.

use crate::support::network::Network;
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, USER};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long both sides publish apart. Longer by hand.
fn apart() -> Duration {
    let seconds = std::env::var("UNDERSTUDY_PARTITION_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(2))
}

fn connect(node: &Node) -> Stomp {
    Stomp::connect_as(USER, &node.ports.stomp)
}

fn digest(pair: &Pair, node: &Node) -> String {
    verb(pair, node, &["state_digest"])
}

fn verb(pair: &Pair, node: &Node, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(words)
        .arg("-D")
        .arg(pair.directory.path().join(node.name))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn list_queues(pair: &Pair) -> String {
    verb(pair, &pair.slave, &["list_queues", "-q"])
}

fn publish_for(node: &Node, name: &str, time: Duration) -> (Vec<String>, usize) {
    let mut stomp = connect(node);
    let (mut confirmed, mut own) = (Vec::new(), 0);
    let until = Instant::now() + time;
    while Instant::now() < until {
        let begin = confirmed.len();
        let bodies: Vec<String> = (begin..begin + 50).map(|n| format!("{name}-{n}")).collect();
        stomp.publish("/queue/q", bodies.clone());
        stomp.publish(&format!("/queue/only-{name}"), [format!("own-{own}")]);
        own += 1;
        confirmed.extend(bodies);
    }
    (confirmed, own)
}

#[test]
fn after_a_partition_both_hold_everything_that_either_confirmed_and_are_equal() {
    match Network::if_permitted() {
        Some(network) => network.inside(|| part_and_heal(Some(&network))),
        None => part_and_heal(None),
    }
}

fn part_and_heal(network: Option<&Network>) {
    let (mut pair, link) = Pair::over_link(network);
    pair.start_in_sync();
    let mut expected: BTreeSet<String> = (0..200).map(|n| format!("before-{n}")).collect();
    let mut stomp = connect(&pair.master);
    stomp.publish("/queue/q", expected.iter().cloned());
    stomp.publish("/queue/finished", (0..20).map(|n| n.to_string()));
    link.cut();
    for node in [&mut pair.master, &mut pair.slave] {
        node.wait("alone", |status| status["state"] == "alone" && status["serving"] == true);
    }
    // What one side finishes is finished for both.
    let _ = connect(&pair.master).consume("/queue/finished", 20);
    let ((at_master, own), (at_slave, _)) = std::thread::scope(|scope| {
        let master = scope.spawn(|| publish_for(&pair.master, "master", apart()));
        let slave = scope.spawn(|| publish_for(&pair.slave, "slave", apart()));
        (master.join().unwrap(), slave.join().unwrap())
    });
    link.heal();
    let healed = Instant::now();
    // The slave's epoch is the higher one.
    pair.slave.wait_in_sync();
    pair.master.wait_in_sync();
    let in_sync = healed.elapsed();
    while digest(&pair, &pair.master) != digest(&pair, &pair.slave) {
        assert!(healed.elapsed() < Duration::from_secs(60), "the nodes stay different");
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!(
        "{} and {} messages apart, in-sync {in_sync:?} and equal {:?} after the heal",
        at_master.len(),
        at_slave.len(),
        healed.elapsed()
    );
    expected.extend(at_master);
    expected.extend(at_slave);
    let bodies = connect(&pair.slave).consume("/queue/q", expected.len());
    assert_eq!(bodies.len(), expected.len());
    assert_eq!(bodies.into_iter().collect::<BTreeSet<_>>(), expected);
    // A queue that only the losing side had.
    let bodies = connect(&pair.slave).consume("/queue/only-master", own);
    assert!(bodies.into_iter().eq((0..own).map(|n| format!("own-{n}"))));
    let left = list_queues(&pair);
    assert!(left.contains("finished\t0\n") && left.contains("only-master\t0\n"), "{left}");
}
