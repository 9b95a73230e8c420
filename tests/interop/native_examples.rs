//! The examples of `understudy-client`, as their first lines say to run them, against a real pair.

use crate::support::Pair;
use crate::{limited, run_quietly};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use understudy_client::{Client, DeleteQueueOptions};

/// `cargo test --workspace` has built it.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    if !example.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "understudy-client", "--examples"]);
        run_quietly(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    }
    example
}

/// Deletes it; returns how many messages were in it.
fn delete(list: &str, queue: &str) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(list).await.unwrap();
        let messages = client.delete_queue(queue, DeleteQueueOptions::default()).await.unwrap();
        client.close().await;
        messages
    })
}

#[test]
fn the_examples_run_over_a_takeover() {
    const ORDERS: u32 = 5_000;
    let mut pair = Pair::in_sync();
    let [one, two] = [&pair.master, &pair.slave].map(|node| &node.ports.native);
    let list = format!("failover:(tcp://{one},tcp://{two})");
    let mut publish = Command::new(example("publish"));
    publish.args([&list, "orders", &ORDERS.to_string()]);
    let mut publishing = limited(&publish).spawn().unwrap();
    let messages = |status: &serde_json::Value| status["counts"]["messages"].as_u64().unwrap();
    pair.master.wait("at work", |status| messages(status) > 0);
    pair.master.kill();
    assert!(publishing.wait().unwrap().success());
    assert_eq!(delete(&list, "orders"), ORDERS, "each once");

    run_quietly(Command::new(example("publish")).args([&list, "orders", "50"]));
    let moved =
        limited(Command::new(example("transfer")).args([&list, "orders", "bills"])).output();
    let moved = moved.unwrap();
    assert!(moved.status.success(), "{moved:?}");
    let said = String::from_utf8(moved.stderr).unwrap();
    assert_eq!(said, "50 moved, 0 begun again\n");

    let mut consume = Command::new(example("consume"));
    let consume = limited(consume.args([&list, "bills"])).stdout(Stdio::piped()).spawn();
    let mut consume = consume.unwrap();
    let mut lines = BufReader::new(consume.stdout.take().unwrap()).lines();
    for number in 1..=50 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("a bill for order {number}"));
    }
    pair.slave.wait("settled", |status| messages(status) == 0);
    assert_eq!(delete(&list, "bills"), 0);
    assert!(lines.next().is_none());
    assert!(!consume.wait().unwrap().success(), "it says why it ended");
}
