//! A small broker for the session to talk to: answers each request once, or refuses it, and knows
//! which deliveries are outstanding.

use bytes::{Bytes, BytesMut};
use fuzzing::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use understudy_model::{
    AckMode, Consume, ConsumerNumber, Delivery, DeliveryRef, Effect, EnqueueView, Get, Lsn,
    Publish, QueueId, Refusal, RefusalKind, Reply, Request, Returned, Text, Token, Transaction,
};

/// Above it the connection would not be read from.
const OWED_MAX: usize = 200;
const OUTSTANDING_MAX: usize = 500;

#[derive(Default)]
pub(crate) struct Broker {
    owed: VecDeque<Effect>,
    last_token: u64,
    last_lsn: u64,
    stopped: bool,
    active: Vec<(ConsumerNumber, AckMode)>,
    /// How each consumer and getter that ever was acknowledges.
    modes: BTreeMap<ConsumerNumber, AckMode>,
    outstanding: BTreeSet<(ConsumerNumber, Lsn)>,
    /// Per channel, the number of its last publish that is to be confirmed.
    published: BTreeMap<u16, u64>,
    /// The message that is handed out: the last published.
    record: Option<Bytes>,
}

impl Broker {
    pub(crate) fn is_behind(&self) -> bool {
        self.owed.len() > OWED_MAX
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    pub(crate) fn stop_delivering(&mut self) {
        self.stopped = true;
    }

    pub(crate) fn effects(&mut self, count: usize, random: &mut Random) -> Vec<Effect> {
        let count = count.min(self.owed.len());
        let mut effects: Vec<Effect> = self.owed.drain(..count).collect();
        if !self.stopped && random.one_in(50) {
            effects.push(match random.below(6) {
                0 => Effect::Close { reason: Text::from_static("shutdown") },
                1 | 2 => Effect::Unblocked,
                _ => Effect::Blocked { reason: Text::from_static("low on disk"), held: true },
            });
        }
        effects
    }

    pub(crate) fn check_all_given_back(&self) {
        assert!(self.outstanding.is_empty(), "forgotten: {:?}", self.outstanding);
    }

    pub(crate) fn take(&mut self, requests: Vec<Request>, random: &mut Random) {
        for request in requests {
            self.take_one(request, random);
            if random.one_in(3) {
                self.deliver(random);
            }
        }
    }

    fn take_one(&mut self, request: Request, random: &mut Random) {
        let named = |name: Text| Reply::Queue { name, messages: 3, consumers: 1 };
        match request {
            Request::Connect(connect) => {
                self.answer_or_refuse(connect.token, Reply::Done, 40, random)
            }
            Request::Publish(publish) => self.publish(publish, random),
            Request::Transaction(transaction) => self.transact(*transaction, random),
            Request::DeclareQueue(declare) => {
                let made = format!("{}{}", declare.server_named_prefix, declare.token.0);
                let name = if declare.name.is_empty() { Text::from(made) } else { declare.name };
                self.answer_or_refuse(declare.token, named(name), 8, random);
            }
            Request::DeleteQueue(delete) => {
                self.answer_or_refuse(delete.token, Reply::Removed { messages: 2 }, 8, random);
            }
            Request::PurgeQueue(purge) => {
                self.answer_or_refuse(purge.token, Reply::Removed { messages: 2 }, 8, random);
            }
            Request::DeclareExchange(declare) => {
                self.answer_or_refuse(declare.token, Reply::Done, 8, random);
            }
            Request::DeleteExchange(delete) => {
                self.answer_or_refuse(delete.token, Reply::Done, 8, random)
            }
            Request::Bind(bind) | Request::Unbind(bind) => {
                self.answer_or_refuse(bind.token, Reply::Done, 8, random);
            }
            Request::Consume(consume) => self.consume(&consume, random),
            Request::Cancel { token, consumer } => {
                self.active.retain(|(active, _)| *active != consumer);
                if token != Token(0) {
                    self.reply(token, Reply::Done);
                }
            }
            Request::Get(get) => self.get(&get, random),
            Request::Settle { deliveries, token }
            | Request::Discard { deliveries, token }
            | Request::Return { deliveries, token } => {
                self.finish(&deliveries);
                if let Some(token) = token {
                    self.reply(token, Reply::Done);
                }
            }
            Request::Barrier { token } => self.reply(token, Reply::Done),
            Request::ChannelPrefetch { .. } => {}
            Request::AddCredit { .. } | Request::Outcome { .. } | Request::Manage(_) => {
                panic!("not a request of AMQP's")
            }
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        assert!(token.0 > self.last_token, "a token is used once");
        self.last_token = token.0;
        self.owed.push_back(Effect::Reply { token, result: Ok(reply) });
    }

    /// Refused once in `refused_in`; whether it was not.
    fn answer(
        &mut self,
        token: Token,
        reply: Reply,
        refused_in: usize,
        random: &mut Random,
    ) -> bool {
        let refused = random.one_in(refused_in);
        self.reply(token, reply);
        if refused && let Some(Effect::Reply { result, .. }) = self.owed.back_mut() {
            *result = Err(refusal(random));
        }
        !refused
    }

    fn answer_or_refuse(
        &mut self,
        token: Token,
        reply: Reply,
        refused_in: usize,
        random: &mut Random,
    ) {
        self.answer(token, reply, refused_in, random);
    }

    fn consume(&mut self, consume: &Consume, random: &mut Random) {
        let known = self.modes.insert(consume.consumer, consume.ack);
        assert_eq!(known, None, "a consumer's number is fresh");
        if !self.answer(consume.token, Reply::Done, 8, random) {
            return;
        }
        self.active.push((consume.consumer, consume.ack));
        for _ in 0..random.below(4) {
            self.deliver(random);
        }
        if random.one_in(10) {
            self.active.pop();
            self.owed.push_back(Effect::Cancelled { consumer: consume.consumer });
        }
    }

    fn get(&mut self, get: &Get, random: &mut Random) {
        if random.one_in(3) {
            self.answer(get.token, Reply::GetEmpty, 8, random);
            return;
        }
        let delivery = self.delivery(get.consumer, get.ack, random);
        assert!(get.token.0 > self.last_token, "a token is used once");
        self.last_token = get.token.0;
        self.owed.push_back(Effect::Got { token: get.token, delivery, remaining: 1 });
    }

    fn deliver(&mut self, random: &mut Random) {
        if self.stopped || self.active.is_empty() || self.outstanding.len() > OUTSTANDING_MAX {
            return;
        }
        let (consumer, ack) = *random.pick(&self.active);
        let delivery = self.delivery(consumer, ack, random);
        self.owed.push_back(Effect::Deliver(delivery));
    }

    fn delivery(
        &mut self,
        consumer: ConsumerNumber,
        ack: AckMode,
        random: &mut Random,
    ) -> Delivery {
        self.last_lsn += 1;
        let lsn = Lsn(self.last_lsn);
        if ack == AckMode::Manual {
            self.outstanding.insert((consumer, lsn));
        } else {
            self.modes.insert(consumer, ack);
        }
        let record = self.record.get_or_insert_with(|| {
            record_of(&Publish { properties: Bytes::from_static(&[0, 0]), ..Publish::default() })
        });
        Delivery {
            consumer,
            queue: QueueId(Lsn(1)),
            lsn,
            redelivered: random.one_in(2),
            returns: random.below(3) as u32,
            record: record.clone(),
        }
    }

    /// Each is outstanding; or it was settled by being handed out, and is nobody's any more.
    fn finish(&mut self, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let was_there = self.outstanding.remove(&(delivery.consumer, delivery.lsn));
            let automatic = self.modes.get(&delivery.consumer) == Some(&AckMode::Auto);
            assert!(was_there || automatic, "settled twice or never delivered: {delivery:?}");
        }
    }

    fn transact(&mut self, transaction: Transaction, random: &mut Random) {
        for publish in &transaction.publishes {
            assert_eq!(publish.confirm, None);
        }
        if self.answer(transaction.token, Reply::Done, 6, random) {
            for part in [&transaction.settles, &transaction.discards, &transaction.returns] {
                self.finish(part);
            }
        }
    }

    fn publish(&mut self, publish: Publish, random: &mut Random) {
        if publish.mandatory && random.one_in(3) {
            self.owed.push_back(Effect::Returned(Box::new(Returned {
                channel: publish.channel,
                code: 312,
                text: Text::from_static("NO_ROUTE"),
                exchange: publish.exchange.clone(),
                routing_key: publish.routing_key.clone(),
                properties: publish.properties.clone(),
                body: publish.body.clone(),
            })));
        }
        let (channel, number) = (publish.channel, publish.confirm);
        if let Some(number) = number {
            let last = self.published.insert(channel, number).unwrap_or(0);
            // From 1 again on a channel that was opened again.
            assert!(number == last + 1 || number == 1, "{last} then {number}");
        }
        match (random.below(12), number) {
            (0, number) => {
                let refusal = refusal(random);
                self.owed.push_back(Effect::PublishRefused { channel, number, refusal });
            }
            (1, Some(number)) => self.owed.push_back(Effect::Nack { channel, number }),
            (_, Some(through)) => self.owed.push_back(Effect::Confirm { channel, through }),
            _ => {}
        }
        self.record = Some(record_of(&publish));
    }
}

fn record_of(publish: &Publish) -> Bytes {
    let mut record = BytesMut::new();
    EnqueueView::encode(&[QueueId(Lsn(1))], publish, &mut record);
    record.freeze()
}

fn refusal(random: &mut Random) -> Refusal {
    use RefusalKind::{AccessRefused, CommandInvalid, NotAllowed, NotFound, PreconditionFailed};
    let soft = [AccessRefused, NotFound, PreconditionFailed];
    let hard = [CommandInvalid, NotAllowed];
    let kind = if random.one_in(6) { *random.pick(&hard) } else { *random.pick(&soft) };
    Refusal::new(kind, "no")
}
