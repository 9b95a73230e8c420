//! Clients as the field has them: they publish with confirms and send again what was not
//! confirmed; they consume, settle, give back; they come back after a lost connection. No call
//! without a limit in time.

use crate::ledger::{Ledger, Seen, body};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) type Outcome<T> = Result<T, String>;

pub(crate) trait Publisher: Sized + Send {
    /// How long a confirm may take before the connection is given up.
    const PATIENCE: Duration = Duration::from_secs(5);

    fn connect(addresses: &[String], queue: &str) -> impl Future<Output = Outcome<Self>> + Send;
    fn send(&mut self, body: Vec<u8>) -> impl Future<Output = Outcome<()>> + Send;
    /// Waits until the oldest message without an answer is confirmed.
    fn confirmed(&mut self) -> impl Future<Output = Outcome<()>> + Send;
}

pub(crate) struct Received<H> {
    pub(crate) body: Vec<u8>,
    pub(crate) redelivered: bool,
    pub(crate) handle: H,
}

pub(crate) trait Consumer: Sized + Send {
    type Handle: Send;

    fn connect(addresses: &[String], queue: &str) -> impl Future<Output = Outcome<Self>> + Send;
    /// Dropping the future loses nothing.
    fn receive(&mut self) -> impl Future<Output = Outcome<Received<Self::Handle>>> + Send;
    fn settle(&mut self, handle: Self::Handle) -> impl Future<Output = Outcome<()>> + Send;
    /// Waits until the broker has confirmed it. False: the protocol has no such thing, and it
    /// was settled without.
    fn settle_for_good(
        &mut self,
        handle: Self::Handle,
    ) -> impl Future<Output = Outcome<bool>> + Send;
    fn give_back(&mut self, handle: Self::Handle) -> impl Future<Output = Outcome<()>> + Send;
}

const CALL_LIMIT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(20);
/// Unconfirmed messages of a publisher.
const WINDOW: usize = 20;

/// What all clients of a pair share with the test.
pub(crate) struct Traffic {
    pub(crate) ledger: Mutex<Ledger>,
    /// Nothing new is published.
    pub(crate) paused: AtomicBool,
    pub(crate) ended: AtomicBool,
    /// Rises when consumers are to connect anew.
    pub(crate) reconnects: AtomicU64,
    /// Publishers that have no confirm to wait for.
    pub(crate) idle: AtomicU64,
    random: AtomicU64,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ledger: Mutex::default(),
            paused: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            reconnects: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            random: AtomicU64::new(seed),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// 0 to `below - 1`.
    fn roll(&self, below: u64) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % below
    }

    /// The list, from a random place on.
    fn shuffled(&self, addresses: &[String]) -> Vec<String> {
        let mut addresses = addresses.to_vec();
        let places = self.roll(addresses.len() as u64) as usize;
        addresses.rotate_left(places);
        addresses
    }

    fn size(&self) -> usize {
        match self.roll(100) {
            0 => 70_000,
            1..=20 => 4_000,
            _ => 60,
        }
    }
}

pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("{what} takes longer than {limit:?}")),
    }
}

/// Publishes until the traffic ends.
pub(crate) async fn publish<P: Publisher>(
    traffic: &Traffic,
    name: String,
    addresses: Vec<String>,
    queue: &str,
) {
    let mut unconfirmed = VecDeque::new();
    let mut next = 1;
    while !traffic.is_ended() {
        let addresses = traffic.shuffled(&addresses);
        if let Ok(mut publisher) =
            within(CALL_LIMIT, "connect", P::connect(&addresses, queue)).await
        {
            let _ = publish_connected(traffic, &name, &mut publisher, &mut unconfirmed, &mut next)
                .await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn publish_connected<P: Publisher>(
    traffic: &Traffic,
    name: &str,
    publisher: &mut P,
    unconfirmed: &mut VecDeque<String>,
    next: &mut u64,
) -> Outcome<()> {
    for message in unconfirmed.iter() {
        let bytes = traffic.ledger().resent(message);
        within(CALL_LIMIT, "publish", publisher.send(body(message, bytes))).await?;
    }
    while !traffic.is_ended() {
        let paused = traffic.paused.load(Ordering::SeqCst);
        if paused && unconfirmed.is_empty() {
            traffic.idle.fetch_add(1, Ordering::SeqCst);
            while traffic.paused.load(Ordering::SeqCst) && !traffic.is_ended() {
                tokio::time::sleep(RETRY).await;
            }
            traffic.idle.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        if !paused && unconfirmed.len() < WINDOW {
            let (message, bytes) = (format!("{name}-{next}"), traffic.size());
            *next += 1;
            traffic.ledger().sent(&message, bytes);
            unconfirmed.push_back(message.clone());
            within(CALL_LIMIT, "publish", publisher.send(body(&message, bytes))).await?;
            continue;
        }
        within(P::PATIENCE, "confirm", publisher.confirmed()).await?;
        if let Some(message) = unconfirmed.pop_front() {
            traffic.ledger().confirmed(&message);
        }
        let pause = traffic.roll(8);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// Consumes until the traffic ends.
pub(crate) async fn consume<C: Consumer>(traffic: &Traffic, addresses: Vec<String>, queue: &str) {
    while !traffic.is_ended() {
        let addresses = traffic.shuffled(&addresses);
        if let Ok(mut consumer) = within(CALL_LIMIT, "connect", C::connect(&addresses, queue)).await
        {
            let _ = consume_connected(traffic, &mut consumer).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn consume_connected<C: Consumer>(traffic: &Traffic, consumer: &mut C) -> Outcome<()> {
    let mut seen = Seen::default();
    let reconnects = traffic.reconnects.load(Ordering::SeqCst);
    while !traffic.is_ended() && traffic.reconnects.load(Ordering::SeqCst) == reconnects {
        let Ok(received) = tokio::time::timeout(IDLE, consumer.receive()).await else { continue };
        let Received { body, redelivered, handle } = received?;
        let name = traffic.ledger().received(&body, redelivered, &mut seen);
        match traffic.roll(400) {
            0 => return Ok(()),
            1..=20 if !redelivered => {
                within(CALL_LIMIT, "return", consumer.give_back(handle)).await?;
            }
            21..=80 => {
                let settle = consumer.settle_for_good(handle);
                if within(CALL_LIMIT, "settle", settle).await? {
                    traffic.ledger().settled(&name);
                }
            }
            _ => within(CALL_LIMIT, "settle", consumer.settle(handle)).await?,
        }
    }
    Ok(())
}
