//! The native protocol by its client library, which does the reconnecting itself.

use crate::clients::{Consumer, Outcome, Publisher, Received};
use crate::support::USER;
use std::collections::VecDeque;
use std::time::Duration;
use understudy_client::{
    Client, Confirmation, Delivery, Error, Message, QueueOptions, SubscribeOptions, Subscription,
};

const CREDIT: u32 = 20;

fn told(error: Error) -> String {
    error.to_string()
}

async fn client(addresses: &[String], queue: &str) -> Outcome<Client> {
    let option = "?wireFormat.maxInactivityDuration=2000";
    let list: Vec<String> =
        addresses.iter().map(|address| format!("tcp://{USER}:{USER}@{address}{option}")).collect();
    let uri = format!("failover:({})?maxReconnectDelay=50&connectionTimeout=1000", list.join(","));
    let client = Client::connect(&uri).await.map_err(told)?;
    client.declare_queue(queue, QueueOptions::default()).await.map_err(told)?;
    Ok(client)
}

pub(crate) struct NativePublisher {
    client: Client,
    queue: String,
    confirms: VecDeque<Confirmation>,
}

impl Publisher for NativePublisher {
    /// Never to be used up: the client sends again with its sequences, so nothing comes twice.
    const PATIENCE: Duration = Duration::from_secs(120);

    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let client = client(addresses, queue).await?;
        Ok(Self { client, queue: queue.to_owned(), confirms: VecDeque::new() })
    }

    async fn send(&mut self, body: Vec<u8>) -> Outcome<()> {
        let message = Message::to_queue(self.queue.as_str(), body);
        self.confirms.push_back(self.client.publish_nowait(message).await.map_err(told)?);
        Ok(())
    }

    async fn confirmed(&mut self) -> Outcome<()> {
        let oldest = self.confirms.pop_front().ok_or("nothing to be confirmed")?;
        oldest.await.map(|_| ()).map_err(told)
    }
}

pub(crate) struct NativeConsumer {
    _client: Client,
    subscription: Subscription,
}

impl Consumer for NativeConsumer {
    type Handle = Delivery;

    async fn connect(addresses: &[String], queue: &str) -> Outcome<Self> {
        let client = client(addresses, queue).await?;
        let options = SubscribeOptions { credit: CREDIT, ..SubscribeOptions::default() };
        let subscription = client.subscribe(queue, options).await.map_err(told)?;
        Ok(Self { _client: client, subscription })
    }

    async fn receive(&mut self) -> Outcome<Received<Delivery>> {
        let delivery = self.subscription.next().await.ok_or("the subscription has ended")?;
        let (body, redelivered) = (delivery.body().to_vec(), delivery.redelivered());
        Ok(Received { body, redelivered, handle: delivery })
    }

    /// A delivery of a lost connection comes again.
    async fn settle(&mut self, delivery: Delivery) -> Outcome<()> {
        delivery.settle();
        Ok(())
    }

    async fn settle_for_good(&mut self, delivery: Delivery) -> Outcome<bool> {
        match delivery.settle_confirmed().await {
            Ok(()) => Ok(true),
            Err(Error::Stale | Error::ConnectionLost(_)) => Ok(false),
            Err(error) => Err(told(error)),
        }
    }

    async fn give_back(&mut self, delivery: Delivery) -> Outcome<()> {
        delivery.give_back();
        Ok(())
    }
}
