//! Moves the messages of a queue to another, as a program does that works on them: each is taken out and
//! its result put in as one, whatever fails in between. Ends when the queue is empty.
//!
//! `cargo run --example transfer -- 'failover:(tcp://localhost:61616)' orders bills`

use std::env;
use understudy_client::{AckMode, Client, Error, Message, QueueOptions};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "failover:(tcp://localhost:61616)".into());
    let from = arguments.next().unwrap_or_else(|| "orders".into());
    let to = arguments.next().unwrap_or_else(|| "bills".into());

    let client = Client::connect(&address).await?;
    for queue in [&from, &to] {
        client.declare_queue(queue.as_str(), QueueOptions::default()).await?;
    }
    let (mut moved, mut again) = (0, 0);
    while let Some(order) = client.get(from.as_str(), AckMode::Manual).await? {
        let mut transaction = client.transaction();
        let bill = [b"a bill for ", &order.body()[..]].concat();
        transaction.publish(Message::to_queue(to.as_str(), bill))?;
        transaction.settle(&order);
        match transaction.commit().await {
            // `already`: the connection was lost, and the new master had it.
            Ok(_) => moved += 1,
            // Nothing of it happened; the order comes again.
            Err(Error::Stale) => again += 1,
            Err(error) => return Err(error),
        }
    }
    eprintln!("{moved} moved, {again} begun again");
    client.close().await;
    Ok(())
}
