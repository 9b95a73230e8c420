//! lapin, the Rust client, with a hand-made failover list.

use crate::support::Pair;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::collections::BTreeSet;
use tokio_stream::StreamExt;

const QUEUE: &str = "interop.lapin";
const COUNT: usize = 600;

pub(crate) async fn connect(addresses: &[String], queue: &str) -> (Connection, Channel) {
    for _ in 0..3_000 {
        for address in addresses {
            let uri = format!("amqp://guest:guest@{address}/%2f");
            let Ok(connection) = Connection::connect(&uri, ConnectionProperties::default()).await
            else {
                continue;
            };
            // Behind a proxy the connection may end as soon as it has begun.
            let Ok(channel) = open(&connection, queue).await else { continue };
            return (connection, channel);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no node lets us in");
}

async fn open(connection: &Connection, queue: &str) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
    Ok(channel)
}

pub(crate) async fn publish(channel: &Channel, queue: &str, number: usize) -> lapin::Result<bool> {
    let confirm = channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            number.to_string().as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        )
        .await?;
    Ok(confirm.await?.is_ack())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lapin_publishes_and_consumes_over_a_takeover() {
    let mut pair = Pair::in_sync();
    let addresses = [pair.master.ports.amqp.clone(), pair.slave.ports.amqp.clone()];
    let (mut _connection, mut channel) = connect(&addresses, QUEUE).await;
    let mut number = 0;
    while number < COUNT {
        match publish(&channel, QUEUE, number).await {
            Ok(acked) => {
                assert!(acked);
                number += 1;
                if number == COUNT / 2 {
                    pair.master.kill();
                }
            }
            Err(_) => (_connection, channel) = connect(&addresses, QUEUE).await,
        }
    }
    let received = take_all(&channel, QUEUE, COUNT).await;
    assert!(received.len() <= COUNT + 1, "{} deliveries of {COUNT} messages", received.len());
}

/// Until each number below `count` was there.
pub(crate) async fn take_all(channel: &Channel, queue: &str, count: usize) -> Vec<usize> {
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue.into(), "tag".into(), options, arguments).await;
    let mut consumer = consumer.unwrap();
    let (mut unique, mut received) = (BTreeSet::new(), Vec::new());
    while unique.len() < count {
        let delivery = consumer.next().await.unwrap().unwrap();
        let number = String::from_utf8(delivery.data.clone()).unwrap().parse().unwrap();
        unique.insert(number);
        received.push(number);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    received
}
