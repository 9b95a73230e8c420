//! `understudy demo`: a pair of real processes, clients of three protocols, a SIGKILL in the
//! middle, and an account of every confirmed message.

mod amqp;
mod client;
mod native;
mod pair;
mod stomp;

use anyhow::{Context, bail};
use client::{DemoClient, Progress, Published, publish_until_stopped};
use pair::{NodeProcess, Ports, Side};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(super) struct DemoArguments {
    /// Leave the pair running and print its addresses.
    #[arg(long)]
    keep: bool,
    /// How long the clients publish before the master is killed, milliseconds.
    #[arg(long, default_value_t = 1_500)]
    warm_up_ms: u64,
    /// How long they go on afterwards, milliseconds.
    #[arg(long, default_value_t = 1_500)]
    go_on_ms: u64,
}

const PROTOCOLS: [&str; 3] = ["amqp", "stomp", "native"];

/// One protocol's line of the table.
struct Account {
    protocol: &'static str,
    published: Published,
    received: u64,
    lost: u64,
    duplicates: u64,
}

pub(super) fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("understudy-demo-").tempdir()?;
    let ports = [Ports::free()?, Ports::free()?];
    say("starting a master and a slave as two processes");
    let mut master = NodeProcess::start(directory.path(), Side::Master, &ports)?;
    let mut slave = NodeProcess::start(directory.path(), Side::Slave, &ports)?;
    slave.wait_for("in-sync", Duration::from_secs(30))?;
    say("the pair is in-sync; publishing through AMQP, STOMP and native with confirms");

    let progress = Arc::new(Progress::default());
    let publishers = start_publishers(&ports, &progress);
    show_for(&progress, Duration::from_millis(arguments.warm_up_ms));
    progress.killed.store(true, Ordering::SeqCst);
    let killed_at = Instant::now();
    master.kill()?;
    say("the master is killed with SIGKILL; the clients go on at the slave");
    show_for(&progress, Duration::from_millis(arguments.go_on_ms));
    progress.stop.store(true, Ordering::SeqCst);
    let published = join(publishers)?;

    say("consuming everything from the slave");
    let mut accounts = Vec::new();
    for (protocol, published) in PROTOCOLS.into_iter().zip(published) {
        accounts.push(consume_all(protocol, published, &ports)?);
    }
    say("starting the old master again");
    let restarted_at = Instant::now();
    let mut old_master = NodeProcess::start(directory.path(), Side::Master, &ports)?;
    old_master.wait_for("in-sync", Duration::from_secs(60))?;
    let resync_ms = restarted_at.elapsed().as_millis();

    let takeover_ms = accounts.iter().filter_map(|a| a.published.first_confirm_at_slave);
    let takeover_ms = takeover_ms.min().map(|at| at.duration_since(killed_at).as_millis());
    let lost = print_table(&accounts, killed_at, takeover_ms, resync_ms);
    if arguments.keep {
        keep(&[&old_master, &slave], directory.keep());
        std::mem::forget((old_master, slave));
    } else {
        old_master.stop();
        slave.stop();
    }
    Ok(if lost == 0 && takeover_ms.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start_publishers(
    ports: &[Ports; 2],
    progress: &Arc<Progress>,
) -> Vec<JoinHandle<anyhow::Result<Published>>> {
    let amqp = ports.clone().map(|p| p.amqp);
    let stomp = ports.clone().map(|p| p.stomp);
    let native = ports.clone().map(|p| p.native);
    let (one, two, three) = (progress.clone(), progress.clone(), progress.clone());
    vec![
        std::thread::spawn(move || {
            publish_until_stopped("amqp", "demo.amqp", &one, || {
                first_open(&amqp, |address| amqp::AmqpClient::connect(address, "demo.amqp"))
            })
        }),
        std::thread::spawn(move || {
            publish_until_stopped("stomp", "demo.stomp", &two, || {
                first_open(&stomp, stomp::StompClient::connect)
            })
        }),
        std::thread::spawn(move || native::publish_until_stopped(&native, "demo.native", &three)),
    ]
}

/// The failover list: the first address that lets us in.
fn first_open<C>(
    addresses: &[String; 2],
    connect: impl Fn(&str) -> anyhow::Result<C>,
) -> anyhow::Result<C> {
    connect(&addresses[0]).or_else(|_| connect(&addresses[1]))
}

fn join(publishers: Vec<JoinHandle<anyhow::Result<Published>>>) -> anyhow::Result<Vec<Published>> {
    let mut all = Vec::new();
    for publisher in publishers {
        match publisher.join() {
            Ok(published) => all.push(published?),
            Err(_) => bail!("a publisher of the demo panicked"),
        }
    }
    Ok(all)
}

fn consume_all(
    protocol: &'static str,
    published: Published,
    ports: &[Ports; 2],
) -> anyhow::Result<Account> {
    let queue = format!("demo.{protocol}");
    let slave = &ports[Side::Slave as usize];
    let counts = match protocol {
        "amqp" => drain(amqp::AmqpClient::connect(&slave.amqp, &queue)?, &queue, &slave.http)?,
        "stomp" => drain(stomp::StompClient::connect(&slave.stomp)?, &queue, &slave.http)?,
        _ => native::drain(&slave.native, &queue, published.confirmed)?,
    };
    let lost = (1..=published.confirmed)
        .filter(|number| !counts.contains_key(&format!("{protocol}-{number}")))
        .count() as u64;
    let received: u64 = counts.values().sum();
    let duplicates = received - counts.len() as u64;
    Ok(Account { protocol, published, received, lost, duplicates })
}

/// Receives and acks until the queue is empty: a marker that is published last comes last.
fn drain<C: DemoClient>(
    mut client: C,
    queue: &str,
    _http: &str,
) -> anyhow::Result<BTreeMap<String, u64>> {
    const MARKER: &str = "end of the demo";
    client.publish(queue, &[MARKER.to_owned()])?;
    client.wait_confirms()?;
    client.consume(queue)?;
    let mut counts = BTreeMap::new();
    loop {
        let received = client.receive()?;
        client.ack(&received)?;
        if received.body == MARKER {
            return Ok(counts);
        }
        *counts.entry(received.body).or_default() += 1;
    }
}

fn show_for(progress: &Progress, duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(250).min(duration));
        say(&format!("  confirmed so far: {}", progress.confirmed.load(Ordering::Relaxed)));
    }
}

#[expect(clippy::print_stdout, reason = "the table is what the demo is for")]
fn print_table(
    accounts: &[Account],
    killed_at: Instant,
    takeover_ms: Option<u128>,
    resync_ms: u128,
) -> u64 {
    println!("\nprotocol  confirmed  received  lost  duplicates  first confirm after the kill");
    for account in accounts {
        let first = account.published.first_confirm_at_slave;
        let first = first.map_or("none".to_owned(), |at| {
            format!("{} ms", at.duration_since(killed_at).as_millis())
        });
        println!(
            "{:<8}  {:>9}  {:>8}  {:>4}  {:>10}  {first}",
            account.protocol,
            account.published.confirmed,
            account.received,
            account.lost,
            account.duplicates
        );
    }
    let lost = accounts.iter().map(|account| account.lost).sum();
    let takeover = takeover_ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
    println!("\nlost      {lost}");
    println!("takeover  {takeover} (SIGKILL to the first confirm from the slave)");
    println!("resync    {resync_ms} ms (start of the old master to in-sync)");
    lost
}

#[expect(clippy::print_stdout, reason = "addresses for the user to go on with")]
fn keep(nodes: &[&NodeProcess], directory: std::path::PathBuf) {
    println!("\nthe pair is left running; its files are in {}", directory.display());
    for node in nodes {
        println!("  {node}");
    }
}

#[expect(clippy::print_stderr, reason = "progress is shown while it runs")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Polls until `done` gives a value.
fn poll<T>(
    what: &str,
    limit: Duration,
    mut done: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        if Instant::now() > until {
            return Err(anyhow::anyhow!("not within {} s", limit.as_secs()))
                .context(what.to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
