//! Writes the messages of a queue to standard output, one a line, and settles them. Goes on over
//! a takeover; ends when the queue is deleted.
//!
//! `cargo run --example consume -- 'failover:(tcp://localhost:61616)' orders`

use std::{env, io::Write};
use understudy_client::{Client, Error, QueueOptions, SubscribeOptions};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "failover:(tcp://localhost:61616)".into());
    let queue = arguments.next().unwrap_or_else(|| "orders".into());

    let client = Client::connect(&address).await?;
    client.declare_queue(queue.as_str(), QueueOptions::default()).await?;
    let mut deliveries = client.subscribe(queue, SubscribeOptions::default()).await?;
    while let Some(delivery) = deliveries.next().await {
        let line = [&delivery.body()[..], b"\n"].concat();
        if std::io::stdout().write_all(&line).is_err() {
            break;
        }
        delivery.settle();
    }
    match deliveries.error() {
        Some(error) => Err(error.clone()),
        None => Ok(()),
    }
}
