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

async fn connect(addresses: &[String; 2]) -> (Connection, Channel) {
    for _ in 0..3_000 {
        for address in addresses {
            let uri = format!("amqp://guest:guest@{address}/%2f");
            let Ok(connection) = Connection::connect(&uri, ConnectionProperties::default()).await
            else {
                continue;
            };
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(QUEUE.into(), durable, FieldTable::default()).await.unwrap();
            return (connection, channel);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no node lets us in");
}

async fn publish(channel: &Channel, number: usize) -> lapin::Result<bool> {
    let confirm = channel
        .basic_publish(
            "".into(),
            QUEUE.into(),
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
    let (mut _connection, mut channel) = connect(&addresses).await;
    let mut number = 0;
    while number < COUNT {
        match publish(&channel, number).await {
            Ok(acked) => {
                assert!(acked);
                number += 1;
                if number == COUNT / 2 {
                    pair.master.kill();
                }
            }
            Err(_) => (_connection, channel) = connect(&addresses).await,
        }
    }
    let mut consumer = channel
        .basic_consume(
            QUEUE.into(),
            "tag".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut received = BTreeSet::new();
    let mut count = 0;
    while received.len() < COUNT {
        let delivery = consumer.next().await.unwrap().unwrap();
        let body = String::from_utf8(delivery.data.clone()).unwrap();
        received.insert(body.parse::<usize>().unwrap());
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        count += 1;
    }
    assert!(count <= COUNT + 1, "{count} deliveries of {COUNT} messages");
}
