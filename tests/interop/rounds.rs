//! Round after round: the sitting master is killed under load of pika, stomp.py and the native
//! client, comes back as slave, and the roles have changed. `UNDERSTUDY_ROUNDS=20` for more.

use crate::support::{Pair, Ports};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use understudy_client::{Client, Message, QueueOptions, SubscribeOptions};

const LOAD: Duration = Duration::from_millis(700);

fn rounds() -> u32 {
    std::env::var("UNDERSTUDY_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn load(python: &Path, kind: &str, round: u32, ports: [&String; 2]) -> Child {
    Command::new(python)
        .arg(crate::script("load.py"))
        .args([kind, &format!("rounds.{kind}.{round}")])
        .args(ports.map(|address| Ports::port(address).to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ends the loads; what they counted.
fn finish(mut loads: [Child; 2]) -> (serde_json::Value, serde_json::Value) {
    loads.iter_mut().for_each(|load| drop(load.stdin.take()));
    let [pika, stomp] = loads.map(|mut load| {
        let mut counted = String::new();
        load.stdout.take().unwrap().read_to_string(&mut counted).unwrap();
        assert!(load.wait().unwrap().success());
        serde_json::from_str(&counted).unwrap()
    });
    (pika, stomp)
}

/// The native client's part of a round; confirmed and duplicates.
async fn native(
    addresses: [String; 2],
    queue: String,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> (u32, u32) {
    let [one, two] = &addresses;
    let uri = format!("failover:(tcp://{one},tcp://{two})?randomize=false&maxReconnectDelay=50");
    let client = Client::connect(&uri).await.unwrap();
    client.declare_queue(queue.as_str(), QueueOptions::default()).await.unwrap();
    let (mut number, mut pending) = (0u32, std::collections::VecDeque::new());
    while !*stop.borrow_and_update() {
        let message = Message::to_queue(queue.as_str(), number.to_be_bytes().to_vec());
        pending.push_back(client.publish_nowait(message).await.unwrap());
        number += 1;
        if pending.len() > 100 {
            pending.pop_front().unwrap().await.unwrap();
        }
    }
    for confirmation in pending {
        confirmation.await.unwrap();
    }
    let mut subscription =
        client.subscribe(queue.as_str(), SubscribeOptions::default()).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut duplicates = 0;
    while (seen.len() as u32) < number {
        let delivery = subscription.next().await.unwrap();
        let body = u32::from_be_bytes(delivery.body()[..].try_into().unwrap());
        duplicates += u32::from(!seen.insert(body));
        assert!(delivery.settle());
    }
    drop(subscription);
    // What was settled is gone from the queue, so anything left is a second copy.
    let left = client.declare_queue(queue.as_str(), QueueOptions::default()).await.unwrap();
    duplicates += left.messages;
    client.close().await;
    (number, duplicates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_kill_9_lose_nothing_confirmed() {
    let Some(python) = crate::python() else {
        return crate::skipped("rounds", "python3-venv");
    };
    let mut pair = Pair::in_sync();
    for round in 1..=rounds() {
        let ports = (pair.master.ports.clone(), pair.slave.ports.clone());
        let pika = load(&python, "pika", round, [&ports.0.amqp, &ports.1.amqp]);
        let stomp = load(&python, "stomp", round, [&ports.0.stomp, &ports.1.stomp]);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let addresses = [ports.0.native.clone(), ports.1.native.clone()];
        let native = tokio::spawn(native(addresses, format!("rounds.native.{round}"), stopped));
        tokio::time::sleep(LOAD).await;
        tokio::task::block_in_place(|| {
            pair.master.kill();
            pair.slave.wait("serving", |status| status["serving"] == true);
        });
        tokio::time::sleep(LOAD).await;
        stop.send_replace(true);
        let (pika, stomp) = tokio::task::block_in_place(|| finish([pika, stomp]));
        let (confirmed, duplicates) = native.await.unwrap();
        println!(
            "round {round}: pika {pika} stomp.py {stomp} native confirmed {confirmed} duplicates {duplicates}"
        );
        for counted in [&pika, &stomp] {
            assert_eq!(counted["lost"], serde_json::json!([]), "{counted}");
            assert!(counted["confirmed"].as_u64().unwrap() > 0, "{counted}");
        }
        assert_eq!(duplicates, 0);
        tokio::task::block_in_place(|| {
            pair.master.start();
            pair.master.wait_in_sync();
            pair.slave.wait_in_sync();
        });
        let Pair { master, slave, .. } = &mut pair;
        std::mem::swap(master, slave);
    }
}
