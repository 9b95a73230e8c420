//! What `understudy-client` promises of its requests, its credit and its dropped futures, against a
//! real node. (Takeovers, commits, switchovers and TLS: `native.rs`; reconnecting: the crate's own tests.)

use crate::support::Node;
use std::time::Duration;
use tokio::time::timeout;
use understudy_client::{
    AckMode, Binding, Client, ConnectOptions, DeleteQueueOptions, Delivery, Error, ExchangeOptions,
    Message, Properties, QueueOptions, SubscribeOptions, Table, Value,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn client(options: ConnectOptions) -> (tempfile::TempDir, Node, Client) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    tokio::task::block_in_place(|| node.start_serving());
    let address = format!("tcp://{}", node.ports.native);
    let client = Client::connect_with(&address, options).await.unwrap();
    (directory, node, client)
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Refused { code, .. } | Error::Returned { code, .. } => *code,
        other => panic!("{other}"),
    }
}

async fn take(client: &Client, queue: &str) -> Option<Delivery> {
    client.get(queue, AckMode::Manual).await.unwrap()
}

async fn fill(client: &Client, queue: &str, bodies: std::ops::Range<usize>) {
    let batch = bodies.map(|number| Message::to_queue(queue, number.to_string()));
    for confirmation in client.publish_batch(batch).await.unwrap() {
        confirmation.await.unwrap();
    }
}

/// Ready messages.
async fn ready(client: &Client, queue: &str) -> u32 {
    let asked = QueueOptions { passive: true, ..QueueOptions::default() };
    client.declare_queue(queue, asked).await.unwrap().messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_declared_is_there_and_what_is_removed_is_gone() {
    let (_directory, _node, client) = client(ConnectOptions::default()).await;
    client.declare_exchange("all", "fanout", ExchangeOptions::default()).await.unwrap();
    client.declare_exchange("some", "topic", ExchangeOptions::default()).await.unwrap();
    client.bind(Binding::to_exchange("all", "some", "")).await.unwrap();
    client.declare_queue("tea", QueueOptions::default()).await.unwrap();
    let binding = Binding::to_queue("some", "tea", "order.#");
    client.bind(binding.clone()).await.unwrap();

    // A returned one is known by its whole content: with nothing in it changed on the way.
    let mut headers = Table::default();
    headers.push("BCC", Value::Array(vec![Value::text("nowhere")]));
    let properties = Properties {
        headers: Some(headers),
        message_id: Some("1".into()),
        user_id: Some("guest".into()),
        ..Properties::default()
    };
    let order =
        || Message::to_exchange("all", "order.tea", "one").properties(&properties).mandatory();
    client.publish(order()).await.unwrap();
    assert_eq!(take(&client, "tea").await.unwrap().body(), "one");
    client.unbind(binding).await.unwrap();
    assert_eq!(code(&client.publish(order()).await.unwrap_err()), 312);

    fill(&client, "tea", 0..3).await;
    assert_eq!(client.purge_queue("tea").await, Ok(3));
    fill(&client, "tea", 0..2).await;
    let if_empty = DeleteQueueOptions { if_empty: true, ..DeleteQueueOptions::default() };
    assert_eq!(code(&client.delete_queue("tea", if_empty).await.unwrap_err()), 406);
    assert_eq!(client.delete_queue("tea", DeleteQueueOptions::default()).await, Ok(2));
    assert_eq!(code(&client.purge_queue("tea").await.unwrap_err()), 404);
    let asked = QueueOptions { passive: true, ..QueueOptions::default() };
    assert_eq!(code(&client.declare_queue("tea", asked).await.unwrap_err()), 404);

    assert_eq!(code(&client.delete_exchange("all", true).await.unwrap_err()), 406);
    client.delete_exchange("all", false).await.unwrap();
    let asked = ExchangeOptions { passive: true, ..ExchangeOptions::default() };
    assert_eq!(code(&client.declare_exchange("all", "fanout", asked).await.unwrap_err()), 404);
    let other_kind = client.declare_exchange("some", "direct", ExchangeOptions::default()).await;
    assert_eq!(code(&other_kind.unwrap_err()), 406);
    let chosen = client.declare_queue("", QueueOptions::default()).await.unwrap();
    assert!(!chosen.name.is_empty());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_codes_of_the_documentation() {
    let (_directory, node, client) = client(ConnectOptions::default()).await;
    let other = Client::connect(&format!("tcp://{}", node.ports.native)).await.unwrap();
    let exclusive = QueueOptions { exclusive: true, ..QueueOptions::default() };
    client.declare_queue("mine", exclusive).await.unwrap();
    let theirs = other.declare_queue("mine", QueueOptions::default()).await;
    assert_eq!(code(&theirs.unwrap_err()), 405);
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    let otherwise = QueueOptions { durable: false, ..QueueOptions::default() };
    assert_eq!(code(&client.declare_queue("q", otherwise).await.unwrap_err()), 406);
    let unknown = client.declare_exchange("e", "no such kind", ExchangeOptions::default()).await;
    assert_eq!(code(&unknown.unwrap_err()), 503);
    assert_eq!(code(&client.get("none", AckMode::Manual).await.unwrap_err()), 404);
    let none = client.subscribe("none", SubscribeOptions::default()).await;
    assert_eq!(code(&none.unwrap_err()), 404);

    let alone = SubscribeOptions { exclusive: true, ..SubscribeOptions::default() };
    let alone = client.subscribe("q", alone).await.unwrap();
    let second = other.subscribe("q", SubscribeOptions::default()).await;
    assert_eq!(code(&second.unwrap_err()), 403);
    let if_unused = DeleteQueueOptions { if_unused: true, ..DeleteQueueOptions::default() };
    assert_eq!(code(&client.delete_queue("q", if_unused).await.unwrap_err()), 406);
    assert_eq!(client.delete_queue("none", if_unused).await, Ok(0));
    drop(alone);

    for missing in [Binding::to_queue("none", "q", ""), Binding::to_queue("amq.direct", "none", "")]
    {
        assert_eq!(code(&client.bind(missing.clone()).await.unwrap_err()), 404);
        client.unbind(missing).await.unwrap();
    }
    let of_default = Binding::to_queue("", "q", "q");
    assert_eq!(code(&client.unbind(of_default).await.unwrap_err()), 403);
    client.delete_exchange("none", true).await.unwrap();
    let long = client.declare_queue("q".repeat(256), QueueOptions::default()).await;
    assert!(matches!(long, Err(Error::Invalid(_))), "{long:?}");
    client.close().await;
    let closed = other.clone();
    other.close().await;
    assert_eq!(closed.purge_queue("q").await, Err(Error::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_transaction_changes_nothing_and_its_deliveries_may_be_finished_otherwise() {
    let (_directory, _node, client) = client(ConnectOptions::default()).await;
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    client.declare_queue("out", QueueOptions::default()).await.unwrap();
    fill(&client, "q", 0..2).await;
    let first = take(&client, "q").await.unwrap();
    let mut transaction = client.transaction();
    transaction.publish(Message::to_queue("out", "kept back")).unwrap();
    transaction.publish(Message::to_exchange("none", "", "lost")).unwrap();
    let mandatory = transaction.publish(Message::to_queue("nowhere", "").mandatory());
    assert!(matches!(mandatory, Err(Error::Invalid(_))), "{mandatory:?}");
    transaction.settle(&first);
    assert_eq!(code(&transaction.commit().await.unwrap_err()), 404);
    assert_eq!(ready(&client, "out").await, 0);
    assert!(first.give_back());
    let again = take(&client, "q").await.unwrap();
    assert!(again.redelivered() && again.body() == "0");

    // What is settled when it is handed out is no part of a transaction.
    let auto = client.get("q", AckMode::Auto).await.unwrap().unwrap();
    let mut transaction = client.transaction();
    transaction.publish(Message::to_queue("out", "done")).unwrap();
    transaction.settle(&auto);
    transaction.settle(&again);
    assert!(!transaction.commit().await.unwrap().already);
    assert_eq!(ready(&client, "out").await, 1);
    assert!(take(&client, "q").await.is_none());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_back_comes_again_and_what_is_discarded_is_dead_lettered() {
    let (_directory, _node, client) = client(ConnectOptions::default()).await;
    let mut arguments = Table::default();
    for (name, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead")] {
        arguments.push(name, Value::text(value));
    }
    client.declare_queue("dead", QueueOptions::default()).await.unwrap();
    let options = QueueOptions { arguments, ..QueueOptions::default() };
    client.declare_queue("orders", options).await.unwrap();
    fill(&client, "orders", 0..1).await;

    let first = take(&client, "orders").await.unwrap();
    assert!(!first.redelivered() && first.give_back());
    let again = take(&client, "orders").await.unwrap();
    assert!(again.redelivered() && again.discard());
    assert!(take(&client, "orders").await.is_none());
    // A discard has no answer: when it is committed, the dead letter is there.
    let mut dead = client.subscribe("dead", SubscribeOptions::default()).await.unwrap();
    let dead = timeout(PATIENCE, dead.next()).await.unwrap().unwrap();
    assert_eq!(dead.body(), "0");
    dead.settle_confirmed().await.unwrap();
    assert_eq!(ready(&client, "dead").await, 0);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_bounds_what_is_unsettled_and_is_refilled() {
    let (_directory, _node, client) = client(ConnectOptions::default()).await;
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    fill(&client, "q", 0..10).await;
    let options = SubscribeOptions { credit: 3, ..SubscribeOptions::default() };
    let mut some = client.subscribe("q", options).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(some.next().await.unwrap());
    }
    assert_eq!(ready(&client, "q").await, 7, "no more was handed out than the credit allows");
    assert!(taken.remove(0).settle());
    taken.push(timeout(PATIENCE, some.next()).await.unwrap().unwrap());
    assert_eq!(ready(&client, "q").await, 6);
    // All that it was handed comes to others when it ends.
    for delivery in taken {
        delivery.give_back();
    }
    drop(some);

    let options = SubscribeOptions { credit: 2, ack: AckMode::Auto, ..options };
    let mut all = client.subscribe("q", options).await.unwrap();
    let mut numbers = std::collections::BTreeSet::new();
    for _ in 0..9 {
        let delivery = timeout(PATIENCE, all.next()).await.unwrap().unwrap();
        numbers.insert(delivery.body().clone());
        // Nothing to settle.
        assert!(delivery.settle());
    }
    assert_eq!(numbers.len(), 9);
    assert_eq!(ready(&client, "q").await, 0);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_next_loses_no_delivery() {
    let (_directory, _node, client) = client(ConnectOptions::default()).await;
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    let publisher = client.clone();
    let publishing = tokio::spawn(async move { fill(&publisher, "q", 0..500).await });
    let mut expected = 0;
    while expected < 500 {
        // Polled once, and dropped where nothing is there.
        tokio::select! {
            biased;
            delivery = q.next() => {
                let delivery = delivery.unwrap();
                assert_eq!(delivery.body(), &expected.to_string());
                delivery.settle();
                expected += 1;
            }
            () = tokio::task::yield_now() => {}
        }
    }
    publishing.await.unwrap();
    client.close().await;
}
