//! Subscriptions, their deliveries, and what becomes of those.

use super::{Engine, Outstanding, Reply};
use crate::{
    AckMode, Error,
    command::{Command, Finish, Subscribe, Verb},
    subscription::Event,
};
use std::sync::atomic::Ordering;
use understudy_native::{Consume, Deliver, Deliveries, Frame, LIST_ITEMS_MAX};

impl Engine {
    pub(super) fn subscribe(&mut self, subscription: Subscribe) {
        if let Some(error) = self.ended.clone() {
            return end_subscription(subscription, error);
        }
        let consumer = self.next_consumer;
        self.next_consumer += 1;
        self.subscriptions.insert(consumer, subscription);
        if self.online {
            self.consume(consumer);
        }
    }

    pub(super) fn consume(&mut self, consumer: u32) {
        let request = self.request(Reply::Subscribed { consumer });
        let Some(Subscribe { queue, options, .. }) = self.subscriptions.get(&consumer) else {
            return;
        };
        let frame = Consume {
            request,
            consumer,
            queue: queue.clone(),
            ack: options.ack,
            exclusive: options.exclusive,
            priority: options.priority,
            windowed: options.ack == AckMode::Auto && options.credit > 0,
            credit: options.credit,
        };
        self.send(frame);
    }

    pub(super) fn subscribed(&mut self, consumer: u32, result: Result<Frame, Error>) {
        if let Err(error) = result {
            if let Some(subscription) = self.subscriptions.remove(&consumer) {
                end_subscription(subscription, error);
            }
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(&consumer) else {
            return;
        };
        let Some(ready) = subscription.ready.take() else {
            return;
        };
        if ready.send(Ok(consumer)).is_err() {
            // The caller went away while it subscribed: no one would ever read the deliveries.
            self.on_command(Command::Unsubscribe { consumer });
        }
    }

    pub(super) fn deliver(&mut self, deliver: Deliver) {
        let generation = self.generation.load(Ordering::Acquire);
        let (consumer, queue, lsn) = (deliver.consumer, deliver.queue, deliver.lsn);
        let mut number = 0;
        let undelivered = match self.subscriptions.get(&consumer) {
            None => true,
            Some(subscription) => {
                if subscription.options.ack == AckMode::Manual {
                    number = self.outstanding.entry(consumer).or_default().deliver(lsn);
                }
                let event = Event::Deliver { generation, number, deliver };
                subscription.events.send(event).is_err()
            }
        };
        // The subscription was dropped a moment ago, or its caller gave up waiting for it. Left
        // alone, the broker would hand the message out to it again and again. A return of one
        // with auto ack it ignores.
        if undelivered {
            self.on_command(Command::Unsubscribe { consumer });
            self.give_back(consumer, queue, lsn, number);
        }
    }

    pub(super) fn give_back(&mut self, consumer: u32, queue: u64, lsn: u64, number: u64) {
        let generation = self.generation.load(Ordering::Acquire);
        let (verb, through, answer) = (Verb::Return, false, None);
        self.finish(Finish { verb, generation, consumer, queue, lsn, number, through, answer });
    }

    pub(super) fn finish(&mut self, finish: Finish) {
        if !self.is_current(finish.generation) {
            if let Some(answer) = finish.answer {
                let _ = answer.send(Err(Error::Stale));
            }
            return;
        }
        let Finish { verb, consumer, queue, lsn, number, through, answer, .. } = finish;
        if through && let Some(outstanding) = self.outstanding.get_mut(&consumer) {
            for lsn in outstanding.finish_through(number).collect::<Vec<_>>() {
                self.add_to_run(verb, consumer, queue, lsn);
            }
            return self.forget(consumer);
        }
        self.done_with(consumer, number);
        let Some(answer) = answer else {
            return self.add_to_run(verb, consumer, queue, lsn);
        };
        self.flush_run();
        let request = self.request(Reply::To(answer));
        self.send(verb.frame(request, Deliveries { consumer, queue, lsns: vec![lsn] }));
    }

    /// A later cumulative settle does not mean this delivery.
    pub(super) fn done_with(&mut self, consumer: u32, number: u64) {
        if let Some(outstanding) = self.outstanding.get_mut(&consumer) {
            outstanding.finish(number);
        }
        self.forget(consumer);
    }

    /// Of a consumer that has ended only what is not finished is of interest.
    pub(super) fn forget(&mut self, consumer: u32) {
        if !self.subscriptions.contains_key(&consumer)
            && self.outstanding.get(&consumer).is_some_and(Outstanding::is_empty)
        {
            self.outstanding.remove(&consumer);
        }
    }

    fn add_to_run(&mut self, verb: Verb, consumer: u32, queue: u64, lsn: u64) {
        match &mut self.run {
            Some((run_verb, run))
                if *run_verb == verb
                    && (run.consumer, run.queue) == (consumer, queue)
                    && run.lsns.len() < LIST_ITEMS_MAX =>
            {
                run.lsns.push(lsn);
            }
            _ => {
                self.flush_run();
                self.run = Some((verb, Deliveries { consumer, queue, lsns: vec![lsn] }));
            }
        }
    }

    /// To be called behind each batch of commands.
    pub(crate) fn flush_run(&mut self) {
        if let Some((verb, deliveries)) = self.run.take() {
            self.send(verb.frame(0, deliveries));
        }
    }
}

pub(super) fn end_subscription(subscription: Subscribe, error: Error) {
    match subscription.ready {
        Some(ready) => drop(ready.send(Err(error))),
        None => drop(subscription.events.send(Event::End(error))),
    }
}
