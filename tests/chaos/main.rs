//! Real processes as a pair under faults that a seed draws, and clients of all three protocols
//! whose histories are checked.
//!
//! `cargo test --test chaos` runs a few rounds. More, and a certain seed:
//! `UNDERSTUDY_CHAOS_ROUNDS=200 UNDERSTUDY_CHAOS_SEED=7 cargo test --test chaos -- --nocapture`
//! `UNDERSTUDY_CHAOS_ARBITER=1` puts an arbiter beside each pair instead of every other one,
//! `UNDERSTUDY_CHAOS_NETWORK=1` begins each round with a fault of the network, and a longer one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "tests")]

mod amqp;
mod arbiter;
mod clients;
mod cluster;
mod faults;
mod ledger;
mod native;
mod stomp;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use clients::{Consumer, Publisher, Traffic, consume, publish};
use cluster::{Cluster, Policy, Side};
use faults::{Dice, Fault, may_have_been_apart, repair};
use ledger::Repetition;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::Ports;
use support::network::Network;
use tokio::runtime::Runtime;
use watch::Watch;

const ROUNDS: u64 = 8;
/// Rounds of one pair; the next one has another policy.
const ROUNDS_OF_A_PAIR: u64 = 4;
const QUEUES: [&str; 2] = ["chaos-0", "chaos-1"];
const PUBLISHERS: u64 = 6;

/// The longest, if that is what the run is for: the kernels send again ever more seldom.
const NETWORK_FAULT_MS: u64 = 12_000;

const IN_SYNC_LIMIT: Duration = Duration::from_secs(60);
const CONFIRM_LIMIT: Duration = Duration::from_secs(60);
const REPAIR_LIMIT: Duration = Duration::from_secs(30);
const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
const DIGEST_LIMIT: Duration = Duration::from_secs(10);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[derive(Default)]
struct Sum {
    confirmed: u64,
    deliveries: u64,
    repetitions: BTreeMap<Repetition, u64>,
    faults: BTreeMap<String, u64>,
    /// Places, by the nodes themselves.
    repaired: u64,
}

#[test]
fn rounds_of_faults_lose_nothing_that_was_confirmed() {
    match Network::if_permitted().map(Arc::new) {
        Some(network) => network.inside(|| run(Some(&network))),
        None => run(None),
    }
}

fn run(network: Option<&Arc<Network>>) {
    let rounds = number("UNDERSTUDY_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("UNDERSTUDY_CHAOS_SEED").unwrap_or(1);
    let everyone_arbitrated = number("UNDERSTUDY_CHAOS_ARBITER") == Some(1);
    let begun = Instant::now();
    let mut sum = Sum::default();
    let mut done = 0;
    while done < rounds {
        let of_pair = ROUNDS_OF_A_PAIR.min(rounds - done);
        let policy = Policy::ALL[(seed + done / ROUNDS_OF_A_PAIR) as usize % 4];
        // Every other one, and over eight pairs each policy both ways.
        let pair = done / ROUNDS_OF_A_PAIR;
        let arbitrated = everyone_arbitrated || (pair + pair / 4) % 2 == 1;
        let cluster = Cluster::start(policy, arbitrated, network);
        run_pair(cluster, seed + done, of_pair, &mut sum);
        done += of_pair;
    }
    eprintln!(
        "{rounds} rounds from seed {seed} in {:?}: {} messages confirmed, 0 lost, {} deliveries, \
         repetitions {:?}, {} places repaired, faults {:?}",
        begun.elapsed(),
        sum.confirmed,
        sum.deliveries,
        sum.repetitions,
        sum.repaired,
        sum.faults
    );
}

/// The rounds of one pair are numbered by seeds from `seed` on.
fn run_pair(mut cluster: Cluster, seed: u64, rounds: u64, sum: &mut Sum) {
    let (policy, arbitrated) = (cluster.policy, cluster.arbiter.is_some());
    let urls = [cluster.pair.master.url(), cluster.pair.slave.url()];
    let watch = arbitrated.then(|| Watch::start(urls));
    let traffic = Arc::new(Traffic::new(seed));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    spawn_clients(&runtime, &traffic, &cluster);
    for seed in seed..seed + rounds {
        let mut faults = Vec::new();
        let outcome =
            round(&mut cluster, &traffic, watch.as_ref(), seed, &mut faults, &mut sum.repaired);
        let ledger = traffic.ledger();
        eprintln!(
            "seed {seed}, {policy:?}, arbiter {arbitrated}: {faults:?}, {} confirmed, {} deliveries",
            ledger.confirmed, ledger.deliveries
        );
        if outcome.is_err() || !ledger.violations.is_empty() {
            panic!("seed {seed}, {policy:?}, {faults:?}: {outcome:?} {:#?}", ledger.violations);
        }
        for fault in faults {
            let name = format!("{fault:?}");
            let kind = name.split('(').next().unwrap_or_default().to_owned();
            *sum.faults.entry(kind).or_default() += 1;
        }
    }
    if let Some(both) = watch.and_then(Watch::end) {
        panic!("seed {seed}, {policy:?}: {both}");
    }
    traffic.ended.store(true, Ordering::SeqCst);
    let ledger = traffic.ledger();
    sum.confirmed += ledger.confirmed;
    sum.deliveries += ledger.deliveries;
    for (repetition, count) in ledger.repetitions() {
        *sum.repetitions.entry(*repetition).or_default() += count;
    }
    drop(ledger);
    runtime.shutdown_timeout(Duration::from_secs(5));
}

fn spawn_clients(runtime: &Runtime, traffic: &Arc<Traffic>, cluster: &Cluster) {
    let of = |port: fn(&Ports) -> &String| {
        [&cluster.pair.master, &cluster.pair.slave].map(|node| port(&node.ports).clone()).to_vec()
    };
    for (index, queue) in QUEUES.into_iter().enumerate() {
        let publisher = |protocol: &str| format!("{protocol}{index}");
        let [amqp, stomp, native] = [of(|p| &p.amqp), of(|p| &p.stomp), of(|p| &p.native)];
        clients::<amqp::AmqpPublisher, amqp::AmqpConsumer>(
            runtime,
            traffic,
            publisher("amqp"),
            &amqp,
            queue,
        );
        clients::<stomp::StompPublisher, stomp::StompConsumer>(
            runtime,
            traffic,
            publisher("stomp"),
            &stomp,
            queue,
        );
        clients::<native::NativePublisher, native::NativeConsumer>(
            runtime,
            traffic,
            publisher("native"),
            &native,
            queue,
        );
    }
}

/// One publisher and one consumer of a protocol.
fn clients<P: Publisher + 'static, C: Consumer + 'static>(
    runtime: &Runtime,
    traffic: &Arc<Traffic>,
    name: String,
    addresses: &[String],
    queue: &'static str,
) {
    let (shared, list) = (traffic.clone(), addresses.to_vec());
    runtime.spawn(async move { publish::<P>(&shared, name, list, queue).await });
    let (shared, list) = (traffic.clone(), addresses.to_vec());
    runtime.spawn(async move { consume::<C>(&shared, list, queue).await });
}

fn round(
    cluster: &mut Cluster,
    traffic: &Traffic,
    watch: Option<&Watch>,
    seed: u64,
    faults: &mut Vec<Fault>,
    repaired: &mut u64,
) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let merges = cluster.merges();
    traffic.paused.store(false, Ordering::SeqCst);
    dice.pause(1_000);
    let master = cluster.master().ok_or("nobody serves at a round's beginning")?;
    let fault = befall(cluster, watch, &mut dice, master, faults);
    repair(cluster, &mut dice);
    if let Fault::FlippedPages(side) = fault {
        replace_disk_of(cluster, side);
    }
    cluster.wait_in_sync(IN_SYNC_LIMIT)?;
    if let Fault::FlippedBits(side) = fault {
        // It has read all that it holds since it was started.
        wait("the damage is mended", REPAIR_LIMIT, || cluster.is_whole(side))?;
        *repaired += cluster.repaired(side);
    }
    dice.pause(500);
    traffic.paused.store(true, Ordering::SeqCst);
    wait("every publish is confirmed", CONFIRM_LIMIT, || {
        // A cut is suspected when it is over already: the kernels send again more and more seldom.
        cluster.supervise();
        traffic.idle.load(Ordering::SeqCst) == PUBLISHERS
    })?;
    drain(cluster, traffic)?;
    cluster.wait_in_sync(IN_SYNC_LIMIT)?;
    cluster.digests_agree(DIGEST_LIMIT)?;
    let merged = cluster.merges() > merges;
    if merged && cluster.arbiter.is_some() {
        return Err("what one confirmed had to be taken over by the other".into());
    }
    let apart = may_have_been_apart(cluster, faults) || merged;
    traffic.ledger().judge(apart);
    Ok(())
}

/// Up to three faults, and their time. Returns the main one.
fn befall(
    cluster: &mut Cluster,
    watch: Option<&Watch>,
    dice: &mut Dice,
    master: Side,
    faults: &mut Vec<Fault>,
) -> Fault {
    if cluster.arbiter.is_some()
        && let Some(fault) = dice.arbiter_fault()
    {
        faults.push(fault);
        fault.begin(cluster, dice);
        dice.pause(2_000);
    }
    let by_network = number("UNDERSTUDY_CHAOS_NETWORK") == Some(1);
    let fault = if by_network {
        let side = if dice.roll(2) == 0 { Side::A } else { Side::B };
        dice.network_fault(cluster, side)
    } else {
        dice.fault(cluster, master)
    };
    faults.push(fault);
    watch.iter().for_each(|watch| watch.pauses.store(fault.stops_a_node(), Ordering::SeqCst));
    fault.begin(cluster, dice);
    if fault.combines() && dice.roll(3) == 0 {
        dice.pause(1_500);
        let second = dice.fault(cluster, master);
        if second.combines() {
            faults.push(second);
            if second.stops_a_node() {
                watch.iter().for_each(|watch| watch.pauses.store(true, Ordering::SeqCst));
            }
            second.begin(cluster, dice);
        }
    }
    dice.pause(if by_network { NETWORK_FAULT_MS } else { fault.lasts_ms() });
    fault
}

/// The file itself is damaged, which no rule promises to mend: the node has ended, or has not read that
/// part yet, so the operator gives it an empty disk.
fn replace_disk_of(cluster: &mut Cluster, side: Side) {
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until && cluster.node(side).is_running() && !cluster.is_in_sync() {
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.wipe(side);
}

fn wait(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let until = Instant::now() + limit;
    while !done() {
        if Instant::now() > until {
            return Err(format!("not within {limit:?}: {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Everything that was confirmed is delivered. If not, the queues are asked before anybody is
/// blamed: what they hold is not lost, and then consumers get another chance.
fn drain(cluster: &mut Cluster, traffic: &Traffic) -> Result<(), String> {
    let delivered = || traffic.ledger().missing().is_empty();
    let supervised = || {
        cluster.supervise();
        delivered()
    };
    if wait("delivery", DELIVERY_LIMIT, supervised).is_ok() {
        return Ok(());
    }
    let missing = traffic.ledger().missing();
    let master = cluster.master().ok_or("nobody serves")?;
    let held = cluster.verb(
        master,
        &["list_queues", "name", "messages_ready", "messages_unacknowledged", "consumers"],
    );
    let held = String::from_utf8_lossy(&held.stdout).into_owned();
    traffic.reconnects.fetch_add(1, Ordering::SeqCst);
    match wait("delivery", DELIVERY_LIMIT, delivered) {
        Ok(()) => Err(format!(
            "{} messages came only after the consumers had connected anew; before, the master \
             held:\n{held}\n{missing:?}",
            missing.len()
        )),
        Err(_) => Err(format!("LOST: {:?}; the master held:\n{held}", traffic.ledger().missing())),
    }
}
