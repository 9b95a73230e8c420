//! The native client in the demo: the library does the reconnecting and sending again.

use super::client::{Progress, Published};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use understudy_client::{Client, Confirmation, Message, QueueOptions, SubscribeOptions};

const WINDOW: usize = 200;
/// Everything is there already; a queue that gives nothing for so long is empty.
const EMPTY_AFTER: Duration = Duration::from_secs(2);

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) fn publish_until_stopped(
    addresses: &[String; 2],
    queue: &str,
    progress: &Progress,
) -> anyhow::Result<Published> {
    runtime()?.block_on(publish(addresses, queue, progress))
}

async fn publish(
    addresses: &[String; 2],
    queue: &str,
    progress: &Progress,
) -> anyhow::Result<Published> {
    let [one, two] = addresses;
    let uri = format!("failover:(tcp://{one},tcp://{two})?randomize=false&maxReconnectDelay=50");
    let client = Client::connect(&uri).await?;
    client.declare_queue(queue, QueueOptions::default()).await?;
    let mut published = Published { confirmed: 0, resent: 0, first_confirm_at_slave: None };
    let mut unconfirmed: VecDeque<Confirmation> = VecDeque::new();
    let mut next = 1;
    loop {
        let stopping = progress.stop.load(Ordering::SeqCst);
        if !stopping && unconfirmed.len() < WINDOW {
            let message = Message::to_queue(queue, format!("native-{next}"));
            unconfirmed.push_back(client.publish_nowait(message).await?);
            next += 1;
            continue;
        }
        let Some(oldest) = unconfirmed.pop_front() else { break };
        oldest.await?;
        published.confirmed += 1;
        progress.confirmed.fetch_add(1, Ordering::Relaxed);
        // The dead master's last confirms may still be read after the kill.
        let at_slave = progress.killed.load(Ordering::SeqCst)
            && *client.state().borrow()
                == understudy_client::ConnectionState::Connected(two.clone());
        if at_slave && published.first_confirm_at_slave.is_none() {
            published.first_confirm_at_slave = Some(Instant::now());
        }
    }
    client.close().await;
    Ok(published)
}

/// Consumes until everything confirmed is there and nothing more comes.
pub(super) fn drain(
    address: &str,
    queue: &str,
    confirmed: u64,
) -> anyhow::Result<BTreeMap<String, u64>> {
    runtime()?.block_on(async {
        let client = Client::connect(&format!("tcp://{address}")).await?;
        let mut subscription = client.subscribe(queue, SubscribeOptions::default()).await?;
        let mut counts = BTreeMap::new();
        loop {
            let enough = counts.len() as u64 >= confirmed;
            let patience = if enough { EMPTY_AFTER / 4 } else { EMPTY_AFTER };
            let next = tokio::time::timeout(patience, subscription.next()).await;
            let Ok(Some(delivery)) = next else { break };
            let body = String::from_utf8_lossy(delivery.body()).into_owned();
            *counts.entry(body).or_default() += 1;
            delivery.settle();
        }
        drop(subscription);
        client.close().await;
        Ok(counts)
    })
}
