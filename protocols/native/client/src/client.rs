//! The handle that programs hold.

use crate::command::{Command, NewPublish, Subscribe};
use crate::connection::Target;
use crate::message::{check_name, checked_table};
use crate::subscription::Link;
use crate::unconfirmed::{Held, Stored};
use crate::{
    AckMode, Binding, ConnectOptions, DeleteQueueOptions, Delivery, Error, ExchangeOptions,
    Failover, Message, QueueInfo, QueueOptions, Result, SubscribeOptions, Subscription,
    Transaction, task,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use understudy_native::{
    Bind, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Frame, Get, PurgeQueue, Text,
    Unbind,
};

/// A body counts one for each so many bytes in the publish window, and one for itself.
const WEIGHT_BYTES: usize = 4 * 1024;
/// The broker remembers so many commits of a producer (docs/native-protocol.md).
const COMMITS_UNANSWERED_MAX: usize = 64;

/// A message is on disk on the master, and on the slave while that is in-sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The message's number among this client's publishes, from 1.
    pub sequence: u64,
}

/// The answer to a publish, still to come; the errors are those of [`Client::publish`]. Dropping it
/// does not take the message back.
#[derive(Debug)]
pub struct Confirmation(oneshot::Receiver<Result<Stored>>);

impl Future for Confirmation {
    type Output = Result<Confirmed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = Pin::new(&mut self.0).poll(context);
        let confirmed = |stored: Stored| Confirmed { sequence: stored.sequence };
        answered.map(|answer| answer.unwrap_or(Err(Error::Closed)).map(confirmed))
    }
}

/// How the client stands to the brokers of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It tries to have a connection.
    Connecting,
    /// It has one, to this `host:port`.
    Connected(String),
    /// It was closed, or has given up.
    Closed,
}

/// A client; clones share the connection.
///
/// What every request and subscription may fail with besides the errors that stand by it:
/// [`Error::Invalid`] for names of more than 255 bytes and what a frame cannot carry,
/// [`Error::Timeout`] without a connection for the `timeout` of the address, [`Error::NoConnection`],
/// or what the last attempt failed with, once the attempts are used up, [`Error::Closed`] after
/// [`Client::close`], and [`Error::Refused`] with 403 if the user may not do it.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) link: Link,
    window: Arc<Semaphore>,
    window_max: u32,
    commits: Arc<Semaphore>,
    state: watch::Receiver<ConnectionState>,
}

impl Client {
    /// Connects with default options; see [`Failover`] for addresses.
    ///
    /// # Errors
    /// As [`Self::connect_with`].
    ///
    /// # Cancel safety
    /// As [`Self::connect_with`].
    pub async fn connect(address: &str) -> Result<Self> {
        Self::connect_with(address, ConnectOptions::default()).await
    }

    /// Connects to the first broker of the list that lets it in.
    ///
    /// # Errors
    /// [`Error::Address`] for one that cannot be understood, [`Error::Tls`] for its files. If no
    /// broker of the list lets it in: [`Error::Refused`] for a wrong login or vhost,
    /// [`Error::Untrusted`] under TLS, [`Error::NoConnection`] when the attempts allowed at start are
    /// used up. [`Error::Invalid`] outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background until it has a connection or gives up, and closes.
    pub async fn connect_with(address: &str, options: ConnectOptions) -> Result<Self> {
        let failover: Failover = address.parse()?;
        for option in &failover.unknown_options {
            tracing::warn!(%option, "unknown option in the address");
        }
        for option in &failover.ineffective_options {
            tracing::warn!(%option, "option in the address that has no effect here");
        }
        let runtime = Handle::try_current();
        let runtime = runtime.map_err(|_| Error::Invalid("there is no tokio runtime here"))?;
        let target = Target::new(failover, options.clone())?;
        let permits_max = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let window_max = options.publish_window.clamp(1, permits_max);
        let window = Arc::new(Semaphore::new(window_max as usize));
        let (commands, inbox) = mpsc::unbounded_channel();
        let (generation, ended) = (Arc::new(AtomicU64::new(1)), Arc::default());
        let link = Link { commands, generation, ended };
        let (published, state) = watch::channel(ConnectionState::Connecting);
        let (ready, started) = oneshot::channel();
        runtime.spawn(task::run(target, link.clone(), window.clone(), inbox, published, ready));
        started.await.unwrap_or(Err(Error::Closed))?;
        let commits = Arc::new(Semaphore::new(COMMITS_UNANSWERED_MAX));
        Ok(Self { link, window, window_max, commits, state })
    }

    /// Follows the connection's state.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Publishes, and waits until the message is committed on the pair. Over lost connections
    /// it is sent again, and stored once.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Returned`] (mandatory), [`Error::Nacked`],
    /// [`Error::Timeout`], [`Error::Closed`], [`Error::Invalid`].
    ///
    /// # Cancel safety
    /// Dropped while the publish window is full, nothing is published; later the message is
    /// published all the same.
    pub async fn publish(&self, message: Message) -> Result<Confirmed> {
        self.publish_nowait(message).await?.await
    }

    /// Publishes without waiting for the answer, which the returned future brings. Waits only
    /// while the publish window is full.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Closed`] at once; the others come with the answer.
    ///
    /// # Cancel safety
    /// Dropped, nothing is published.
    pub async fn publish_nowait(&self, message: Message) -> Result<Confirmation> {
        let (made, publish) = (Instant::now(), message.into_publish()?);
        let weight = self.reserve(Self::weight(publish.body.len())).await?;
        let (done, answer) = oneshot::channel();
        let held = Held { weight, commit: None, made };
        self.link.send(Command::Publish(vec![NewPublish { publish, held, done }]))?;
        Ok(Confirmation(answer))
    }

    /// Publishes many without waiting for their answers, at less cost for each than one by one.
    /// They keep their order; each succeeds or fails by itself, see [`Self::transaction`] for all
    /// or nothing. Waits while the publish window is full.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one cannot be encoded: none is published then. [`Error::Closed`]. The
    /// others come with the answers.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it has published a beginning of them, maybe none.
    pub async fn publish_batch(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<Confirmation>> {
        let made = Instant::now();
        let publishes = messages.into_iter().map(Message::into_publish);
        let mut publishes = publishes.collect::<Result<Vec<_>>>()?.into_iter().peekable();
        let mut confirmations = Vec::with_capacity(publishes.len());
        while publishes.peek().is_some() {
            let mut batch = Vec::new();
            let mut reserved = 0;
            // As many as the whole window takes, and one at least.
            while let Some(publish) = publishes.next_if(|publish| {
                let weight = Self::weight(publish.body.len());
                reserved == 0 || weight <= self.window_max - reserved
            }) {
                let weight = Self::weight(publish.body.len()).min(self.window_max);
                reserved += weight;
                let (done, answer) = oneshot::channel();
                confirmations.push(Confirmation(answer));
                let held = Held { weight, commit: None, made };
                batch.push(NewPublish { publish, held, done });
            }
            self.reserve(reserved).await?;
            self.link.send(Command::Publish(batch))?;
        }
        Ok(confirmations)
    }

    /// Begins a transaction.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Declares a queue; an empty name lets the broker choose one.
    ///
    /// # Errors
    /// [`Error::Refused`] with 406 if there is one of other properties, 405 if it is another
    /// connection's, 404 if `passive` and missing.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn declare_queue(
        &self,
        name: impl Into<Text>,
        options: QueueOptions,
    ) -> Result<QueueInfo> {
        let name = name.into();
        check_name(&name)?;
        let arguments = checked_table(&options.arguments)?;
        // A name that the broker chooses would be chosen again.
        let repeat = !name.is_empty();
        let QueueOptions { passive, durable, exclusive, auto_delete, .. } = options;
        let make = move |request| {
            let (name, arguments) = (name.clone(), arguments.clone());
            DeclareQueue { request, name, passive, durable, exclusive, auto_delete, arguments }
                .into()
        };
        match self.ask(make, repeat).await? {
            Frame::QueueOk(ok) => {
                Ok(QueueInfo { name: ok.name, messages: ok.messages, consumers: ok.consumers })
            }
            frame => Err(unexpected(&frame)),
        }
    }

    /// Deletes a queue; returns how many ready messages went with it. A missing one is fine.
    ///
    /// # Errors
    /// [`Error::Refused`] with 406 if a condition is not met. [`Error::ConnectionLost`] before the
    /// answer: it may be deleted.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn delete_queue(
        &self,
        name: impl Into<Text>,
        options: DeleteQueueOptions,
    ) -> Result<u32> {
        let name = name.into();
        check_name(&name)?;
        let DeleteQueueOptions { if_unused, if_empty } = options;
        let make =
            move |request| DeleteQueue { request, name: name.clone(), if_unused, if_empty }.into();
        // Somebody may have declared it anew since.
        removed(self.ask(make, false).await?)
    }

    /// Drops a queue's ready messages; returns how many there were.
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 if there is no such queue. [`Error::ConnectionLost`] before the
    /// answer: they may be gone.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn purge_queue(&self, name: impl Into<Text>) -> Result<u32> {
        let name = name.into();
        check_name(&name)?;
        let make = move |request| PurgeQueue { request, name: name.clone() }.into();
        removed(self.ask(make, false).await?)
    }

    /// Declares an exchange of a kind: `direct`, `fanout`, `topic`, `headers`.
    ///
    /// # Errors
    /// [`Error::Refused`] with 406 if there is one of other properties, 503 for an unknown kind.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn declare_exchange(
        &self,
        name: impl Into<Text>,
        kind: impl Into<Text>,
        options: ExchangeOptions,
    ) -> Result<()> {
        let (name, kind) = (name.into(), kind.into());
        check_name(&name)?;
        check_name(&kind)?;
        let arguments = checked_table(&options.arguments)?;
        let ExchangeOptions { passive, durable, auto_delete, internal, .. } = options;
        let make = move |request| {
            let (name, kind, arguments) = (name.clone(), kind.clone(), arguments.clone());
            DeclareExchange {
                request,
                name,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                arguments,
            }
            .into()
        };
        done(self.ask(make, true).await?)
    }

    /// Deletes an exchange. A missing one is fine.
    ///
    /// # Errors
    /// [`Error::Refused`] with 406 if `if_unused` and it has bindings. [`Error::ConnectionLost`]
    /// before the answer: it may be deleted.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn delete_exchange(&self, name: impl Into<Text>, if_unused: bool) -> Result<()> {
        let name = name.into();
        check_name(&name)?;
        let make = move |request| DeleteExchange { request, name: name.clone(), if_unused }.into();
        done(self.ask(make, false).await?)
    }

    /// Binds a queue or an exchange to an exchange.
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 if either is missing.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn bind(&self, binding: Binding) -> Result<()> {
        let arguments = binding.checked()?;
        let make = move |request| {
            let Binding { source, destination, to_exchange, key, .. } = binding.clone();
            let arguments = arguments.clone();
            Bind { request, source, destination, to_exchange, key, arguments }.into()
        };
        done(self.ask(make, true).await?)
    }

    /// Undoes [`Self::bind`]. What is not bound, or not there, is fine.
    ///
    /// # Errors
    /// [`Error::Refused`] with 403 for the default exchange. [`Error::ConnectionLost`] before the
    /// answer: it may be undone.
    ///
    /// # Cancel safety
    /// Dropped, the request is carried out all the same; its answer is lost.
    pub async fn unbind(&self, binding: Binding) -> Result<()> {
        let arguments = binding.checked()?;
        let make = move |request| {
            let Binding { source, destination, to_exchange, key, .. } = binding.clone();
            let arguments = arguments.clone();
            Unbind { request, source, destination, to_exchange, key, arguments }.into()
        };
        done(self.ask(make, false).await?)
    }

    /// Consumes a queue. The subscription is made again after a lost connection.
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 if there is no such queue, 403 if another has it exclusively.
    ///
    /// # Cancel safety
    /// Dropped, the consumer is ended as soon as it has begun, and loses nothing.
    pub async fn subscribe(
        &self,
        queue: impl Into<Text>,
        options: SubscribeOptions,
    ) -> Result<Subscription> {
        let queue = queue.into();
        check_name(&queue)?;
        let (events, inbox) = mpsc::unbounded_channel();
        let (ready, subscribed) = oneshot::channel();
        let made = Instant::now();
        let command = Subscribe { queue, options, made, events, ready: Some(ready) };
        self.link.send(Command::Subscribe(command))?;
        let consumer = subscribed.await.unwrap_or(Err(Error::Closed))?;
        let SubscribeOptions { ack, credit, .. } = options;
        Ok(Subscription::new(self.link.clone(), consumer, ack, credit, inbox))
    }

    /// Takes one message off a queue; none if it has no ready one.
    ///
    /// # Errors
    /// [`Error::Refused`] with 404 if there is no such queue. [`Error::ConnectionLost`] before
    /// the answer: a message taken with [`AckMode::Auto`] may be gone.
    ///
    /// # Cancel safety
    /// Dropped, the message may be taken: with [`AckMode::Manual`] it goes back, at the latest when
    /// the connection ends, with [`AckMode::Auto`] it is gone.
    pub async fn get(&self, queue: impl Into<Text>, ack: AckMode) -> Result<Option<Delivery>> {
        let queue = queue.into();
        check_name(&queue)?;
        let make = move |request| Get { request, queue: queue.clone(), ack }.into();
        match self.ask_with_generation(make, false).await? {
            (generation, Frame::Got(got)) => {
                Ok(Some(Delivery::new(self.link.clone(), generation, ack, got.delivery)))
            }
            (_, Frame::GetEmpty(_)) => Ok(None),
            (_, frame) => Err(unexpected(&frame)),
        }
    }

    /// Waits until everything published is answered, then closes the connection.
    ///
    /// # Cancel safety
    /// Dropped, it closes in the background.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.link.send(Command::Close { done }).is_ok() {
            let _ = closed.await;
        }
    }

    pub(crate) fn weight(body_bytes: usize) -> u32 {
        u32::try_from(1 + body_bytes / WEIGHT_BYTES).unwrap_or(u32::MAX)
    }

    /// Takes a place in the publish window; what is heavier than the window waits for all of it.
    pub(crate) async fn reserve(&self, weight: u32) -> Result<u32> {
        let weight = weight.min(self.window_max);
        let permits = self.window.acquire_many(weight).await.map_err(|_| self.link.error())?;
        // Given back by the task when the answer is there.
        permits.forget();
        Ok(weight)
    }

    pub(crate) async fn reserve_commit(&self) -> Result<OwnedSemaphorePermit> {
        self.commits.clone().acquire_owned().await.map_err(|_| Error::Closed)
    }

    async fn ask(
        &self,
        make: impl Fn(u64) -> Frame + Send + 'static,
        repeat: bool,
    ) -> Result<Frame> {
        self.ask_with_generation(make, repeat).await.map(|(_, frame)| frame)
    }

    /// With the number of the connection that the answer came by.
    async fn ask_with_generation(
        &self,
        make: impl Fn(u64) -> Frame + Send + 'static,
        repeat: bool,
    ) -> Result<(u64, Frame)> {
        let (answer, answered) = oneshot::channel();
        let (make, made) = (Box::new(make), Instant::now());
        self.link.send(Command::Request { make, repeat, made, answer })?;
        answered.await.unwrap_or(Err(Error::Closed))
    }
}

impl Binding {
    fn checked(&self) -> Result<bytes::Bytes> {
        check_name(&self.source)?;
        check_name(&self.destination)?;
        check_name(&self.key)?;
        checked_table(&self.arguments)
    }
}

fn unexpected(frame: &Frame) -> Error {
    Error::Protocol(format!("answer {:#04x} is not expected", frame.kind()))
}

fn done(frame: Frame) -> Result<()> {
    match frame {
        Frame::Done(_) => Ok(()),
        frame => Err(unexpected(&frame)),
    }
}

fn removed(frame: Frame) -> Result<u32> {
    match frame {
        Frame::Removed(removed) => Ok(removed.messages),
        frame => Err(unexpected(&frame)),
    }
}
