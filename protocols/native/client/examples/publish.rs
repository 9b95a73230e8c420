//! Publishes numbered messages and waits until all of them are confirmed.
//!
//! `cargo run --example publish -- 'failover:(tcp://localhost:61616)' orders 1000`

use std::{collections::VecDeque, env};
use understudy_client::{Client, Error, Message, QueueOptions};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "failover:(tcp://localhost:61616)".into());
    let queue = arguments.next().unwrap_or_else(|| "orders".into());
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1_000);

    let client = Client::connect(&address).await?;
    client.declare_queue(queue.as_str(), QueueOptions::default()).await?;
    let mut unconfirmed = VecDeque::new();
    for number in 1..=count {
        let message = Message::to_queue(queue.as_str(), format!("order {number}"));
        unconfirmed.push_back(client.publish_nowait(message).await?);
        // As many on their way as pay off; the client's window would bound them too.
        if unconfirmed.len() > 1_000
            && let Some(oldest) = unconfirmed.pop_front()
        {
            oldest.await?;
        }
    }
    for confirmation in unconfirmed {
        confirmation.await?;
    }
    client.close().await;
    Ok(())
}
