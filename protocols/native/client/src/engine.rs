//! What a client remembers beyond its connection, and what it does with each command and frame.
//! No input or output here: frames come in, frames go to the write buffer.

mod deliveries;
mod outstanding;

use crate::{
    Error,
    command::{Answer, Command, Make, NewPublish, Subscribe, Verb},
    subscription::Link,
    unconfirmed::{Done, Held, Unconfirmed},
};
use deliveries::end_subscription;
use outstanding::Outstanding;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use understudy_native::{
    Cancel, Credit, Deliver, Deliveries, Frame, HelloOk, Pong, Text, Transaction, WriteBuffer,
};

struct InFlight {
    /// None: is on its way, and must not be asked twice.
    make: Option<Make>,
    repeat: bool,
    /// Of what may wait for a connection: see [`Held`].
    made: Option<Instant>,
    reply: Reply,
}

impl InFlight {
    fn new(reply: Reply) -> Self {
        Self { make: None, repeat: false, made: None, reply }
    }

    fn fail(self, error: &Error) {
        if let Reply::To(answer) = self.reply {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

enum Reply {
    To(Answer),
    Subscribed { consumer: u32 },
    Transaction { sequence: u64 },
    Nobody,
}

pub(crate) struct Engine {
    /// Number of the connection, from 1; rises when one is lost. Shared with all deliveries.
    generation: Arc<AtomicU64>,
    server: HelloOk,
    online: bool,
    /// How long anything waits without a connection.
    timeout: Option<Duration>,
    lost_at: Instant,
    /// Set once no connection will come any more.
    ended: Option<Error>,
    next_sequence: u64,
    next_request: u64,
    next_consumer: u32,
    unconfirmed: Unconfirmed,
    requests: BTreeMap<u64, InFlight>,
    /// By number, which rises: made again in this order they may keep their numbers.
    subscriptions: BTreeMap<u32, Subscribe>,
    /// Of the consumers with manual acks, on this connection.
    outstanding: BTreeMap<u32, Outstanding>,
    /// Where the broker says that the next master is, until there is a new connection.
    moved: Option<Text>,
    /// Settles of a run of deliveries, not yet written.
    run: Option<(Verb, Deliveries)>,
    pub(crate) out: WriteBuffer,
}

impl Engine {
    pub(crate) fn new(link: &Link, window: Arc<Semaphore>, timeout: Option<Duration>) -> Self {
        Self {
            generation: link.generation.clone(),
            server: HelloOk::default(),
            online: false,
            timeout,
            lost_at: Instant::now(),
            ended: None,
            next_sequence: 1,
            // 1 opened the vhost.
            next_request: 2,
            next_consumer: 1,
            unconfirmed: Unconfirmed::new(window),
            requests: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            moved: None,
            run: None,
            out: WriteBuffer::default(),
        }
    }

    /// Nothing is owed to anyone: a closing client may go.
    pub(crate) fn is_idle(&self) -> bool {
        self.unconfirmed.is_empty() && self.requests.is_empty() && self.out.is_empty()
    }

    /// Whether anyone still waits for what only a new connection can bring.
    pub(crate) fn is_awaited(&self) -> bool {
        self.unconfirmed.is_awaited()
            || self
                .requests
                .values()
                .any(|flight| matches!(&flight.reply, Reply::To(answer) if !answer.is_closed()))
    }

    /// A new connection: everything that has no answer goes out again. Topology first, as
    /// publishes may need it.
    pub(crate) fn on_connected(&mut self, server: HelloOk) {
        self.server = server;
        self.online = true;
        for (&request, flight) in &mut self.requests {
            if let Some(make) = &flight.make {
                make(request).encode(&mut self.out);
            }
            if !flight.repeat {
                flight.make = None;
            }
        }
        let consumers: Vec<u32> = self.subscriptions.keys().copied().collect();
        consumers.into_iter().for_each(|consumer| self.consume(consumer));
        for frame in self.unconfirmed.send_again() {
            frame.encode(&mut self.out);
        }
    }

    /// URIs with commas between, empty if the broker does not know; none: no switchover.
    pub(crate) fn take_moved(&mut self) -> Option<Text> {
        self.moved.take()
    }

    pub(crate) fn on_lost(&mut self, error: &Error, now: Instant) {
        self.online = false;
        self.lost_at = now;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.out = WriteBuffer::default();
        self.run = None;
        self.outstanding.clear();
        self.unconfirmed.on_lost();
        let lost = Error::ConnectionLost(error.to_string());
        let kept = self.requests.extract_if(.., |_, flight| flight.make.is_none());
        for (_, flight) in kept {
            flight.fail(&lost);
        }
        for (sequence, request) in self.unconfirmed.transactions() {
            let reply = Reply::Transaction { sequence };
            self.requests.insert(request, InFlight::new(reply));
        }
    }

    /// Without a connection: when something will have waited for as long as it may.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let asked = self.requests.values().find_map(|flight| flight.made);
        let subscribed = self.subscriptions.values().find(|each| each.ready.is_some());
        let subscribed = subscribed.map(|each| each.made);
        let first =
            [self.unconfirmed.first_made(), asked, subscribed].into_iter().flatten().min()?;
        Some(first.max(self.lost_at) + self.timeout?)
    }

    /// Fails what has waited for as long as it may: without a connection, since it was made or the
    /// connection was lost.
    pub(crate) fn time_out(&mut self, now: Instant) {
        let Some(through) = self.timeout.and_then(|timeout| now.checked_sub(timeout)) else {
            return;
        };
        if through < self.lost_at {
            return;
        }
        for request in self.unconfirmed.fail_made_through(through, &Error::Timeout) {
            self.requests.remove(&request);
        }
        let late = |_: &u64, each: &mut InFlight| each.made.is_some_and(|made| made <= through);
        for (_, flight) in self.requests.extract_if(.., late) {
            flight.fail(&Error::Timeout);
        }
        let late = |_: &u32, each: &mut Subscribe| each.ready.is_some() && each.made <= through;
        for (_, subscription) in self.subscriptions.extract_if(.., late) {
            end_subscription(subscription, Error::Timeout);
        }
    }

    /// No connection will come any more: everything fails, and whatever is still asked.
    pub(crate) fn end(&mut self, error: &Error) {
        self.online = false;
        self.ended = Some(error.clone());
        self.unconfirmed.fail_all(error);
        for (_, flight) in std::mem::take(&mut self.requests) {
            flight.fail(error);
        }
        for (_, subscription) in std::mem::take(&mut self.subscriptions) {
            end_subscription(subscription, error.clone());
        }
    }

    pub(crate) fn on_command(&mut self, command: Command) {
        if !matches!(command, Command::Finish(_)) {
            self.flush_run();
        }
        match command {
            Command::Publish(batch) => batch.into_iter().for_each(|publish| self.publish(publish)),
            Command::Transaction { transaction, held, generation, places, done } => {
                if self.transaction(transaction, held, generation, done) {
                    places
                        .into_iter()
                        .for_each(|(consumer, number)| self.done_with(consumer, number));
                }
            }
            Command::Request { make, repeat, made, answer } => {
                self.ask(make, repeat, made, answer);
            }
            Command::Finish(finish) => self.finish(finish),
            Command::Subscribe(subscription) => self.subscribe(subscription),
            Command::Unsubscribe { consumer } => {
                if self.subscriptions.remove(&consumer).is_some() && self.online {
                    let request = self.request(Reply::Nobody);
                    self.send(Cancel { request, consumer });
                }
                self.forget(consumer);
            }
            Command::Refill { consumer, generation, credit } => {
                if self.is_current(generation) {
                    self.send(Credit { consumer, credit });
                }
            }
            // Seen to by the task.
            Command::Close { .. } => {}
        }
    }

    fn publish(&mut self, new: NewPublish) {
        let NewPublish { mut publish, held, done } = new;
        publish.sequence = self.next_sequence;
        self.next_sequence += 1;
        let sequence = publish.sequence;
        self.keep(sequence, held, publish.into(), done);
    }

    /// False: it failed.
    fn transaction(
        &mut self,
        mut transaction: Transaction,
        held: Held,
        generation: Option<u64>,
        done: Done,
    ) -> bool {
        // A sequence is spent even by one without publishes: it is the transaction's number.
        let sequence = self.next_sequence;
        self.next_sequence += (transaction.publishes.len() as u64).max(1);
        let numbers = sequence..;
        for (publish, number) in transaction.publishes.iter_mut().zip(numbers) {
            publish.sequence = number;
        }
        transaction.commit = sequence;
        let stale = generation.is_some_and(|generation| !self.is_current(generation));
        transaction.request = self.request(Reply::Transaction { sequence });
        let request = transaction.request;
        let kept = if stale {
            let _ = done.send(Err(Error::Stale));
            self.unconfirmed.give_up(held);
            false
        } else {
            self.keep(sequence, held, transaction.into(), done)
        };
        if !kept {
            self.requests.remove(&request);
        }
        kept
    }

    /// Keeps what is to be confirmed, and sends it if there is a connection. False: it failed.
    fn keep(&mut self, sequence: u64, held: Held, frame: Frame, done: Done) -> bool {
        let failure = match &self.ended {
            Some(error) => Some(error.clone()),
            None => self.too_long(&frame),
        };
        let sends = self.online && failure.is_none();
        if sends {
            frame.encode(&mut self.out);
        }
        self.unconfirmed.push(sequence, held, frame, sends, done);
        match failure {
            Some(error) => {
                self.unconfirmed.finish(sequence, Err(error));
                false
            }
            None => true,
        }
    }

    /// The broker would close the connection over it, and over its repetition.
    fn too_long(&self, frame: &Frame) -> Option<Error> {
        let limit = usize::try_from(self.server.frame_bytes_max).unwrap_or(usize::MAX);
        (frame.length() > limit)
            .then_some(Error::Invalid("the frame is longer than the broker allows"))
    }

    fn ask(&mut self, make: Make, repeat: bool, made: Instant, answer: Answer) {
        let failure = self.ended.clone().or_else(|| self.too_long(&make(0)));
        if let Some(error) = failure {
            let _ = answer.send(Err(error));
            return;
        }
        let request = self.request(Reply::To(answer));
        self.send(make(request));
        if let Some(flight) = self.requests.get_mut(&request) {
            (flight.repeat, flight.made) = (repeat, Some(made));
            // What waits for a connection is not repeated by being sent then.
            flight.make = (repeat || !self.online).then_some(make);
        }
    }

    fn request(&mut self, reply: Reply) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(request, InFlight::new(reply));
        request
    }

    fn send(&mut self, frame: impl Into<Frame>) {
        if self.online {
            frame.into().encode(&mut self.out);
        }
    }

    fn is_current(&self, generation: u64) -> bool {
        self.online && generation == self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn on_frame(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Confirm(confirm) => self.unconfirmed.confirm(confirm.through),
            Frame::Deliver(deliver) => self.deliver(deliver),
            Frame::AlreadyCommitted(ref f) => self.answered(f.request, Ok(frame)),
            Frame::Done(ref f) => self.answered(f.request, Ok(frame)),
            Frame::QueueOk(ref f) => self.answered(f.request, Ok(frame)),
            Frame::Removed(ref f) => self.answered(f.request, Ok(frame)),
            Frame::GetEmpty(ref f) => self.answered(f.request, Ok(frame)),
            Frame::Got(ref f) => self.answered(f.request, Ok(frame)),
            Frame::Refused(f) => {
                self.answered(f.request, Err(Error::Refused { code: f.code, text: f.text }));
            }
            Frame::Nack(f) => self.unconfirmed.finish(f.sequence, Err(Error::Nacked)),
            Frame::PublishRefused(f) => {
                let refused = Error::Refused { code: f.code, text: f.text };
                self.unconfirmed.finish(f.sequence, Err(refused));
            }
            Frame::Returned(returned) => {
                if !self.unconfirmed.returned(&returned) {
                    tracing::warn!(key = &*returned.routing_key, "a message came back unroutable");
                }
            }
            Frame::Cancelled(f) => {
                if let Some(subscription) = self.subscriptions.remove(&f.consumer) {
                    let text = Text::from_static("the broker ended the consumer");
                    end_subscription(subscription, Error::Refused { code: 404, text });
                }
                self.forget(f.consumer);
            }
            Frame::Blocked(f) => tracing::warn!(reason = &*f.reason, "publishing is blocked"),
            Frame::Unblocked(_) => tracing::info!("publishing goes on"),
            Frame::Moved(f) => self.moved = Some(f.addresses),
            Frame::Ping(ping) => self.send(Pong { number: ping.number }),
            Frame::Pong(_) => {}
            frame => return Err(crate::connection::turned_away(frame)),
        }
        Ok(())
    }

    fn answered(&mut self, request: u64, result: Result<Frame, Error>) {
        let Some(flight) = self.requests.remove(&request) else {
            return;
        };
        match flight.reply {
            Reply::To(answer) => {
                let generation = self.generation.load(Ordering::Acquire);
                let unheard = answer.send(result.map(|frame| (generation, frame)));
                // The caller's future was dropped: the message is for others.
                if let Err(Ok((_, Frame::Got(got)))) = unheard {
                    let Deliver { consumer, queue, lsn, .. } = got.delivery;
                    self.give_back(consumer, queue, lsn, 0);
                }
            }
            Reply::Transaction { sequence } => {
                let already = |frame| matches!(frame, Frame::AlreadyCommitted(_));
                self.unconfirmed.finish(sequence, result.map(already));
            }
            Reply::Subscribed { consumer } => self.subscribed(consumer, result),
            Reply::Nobody => {}
        }
    }
}

#[cfg(test)]
mod tests;
