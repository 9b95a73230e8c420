//! A small broker for the session to talk to: answers each request once, or refuses it, and knows
//! which deliveries are outstanding.

use bytes::{Bytes, BytesMut};
use fuzzing::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use understudy_model::{
    AckMode, Body, ConsumeMode, ConsumerNumber, Delivery, DeliveryRef, Effect, EnqueueView, Lsn,
    Properties, Publish, QueueId, Refusal, RefusalKind, Reply, Request, Table, Text, Token, Value,
};

const OUTSTANDING_MAX: usize = 500;
/// What a session keeps of an outstanding delivery, at most.
const DELIVERY_BYTES_MAX: usize = 128;

#[derive(Default)]
pub(crate) struct Broker {
    owed: VecDeque<Effect>,
    last_token: u64,
    last_lsn: u64,
    active: BTreeMap<ConsumerNumber, (AckMode, ConsumeMode)>,
    outstanding: BTreeSet<(ConsumerNumber, Lsn)>,
    confirms: u64,
    /// The message that is handed out: the last published.
    record: Option<Bytes>,
}

impl Broker {
    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    pub(crate) fn delivered_bytes(&self) -> usize {
        self.outstanding.len() * DELIVERY_BYTES_MAX
    }

    pub(crate) fn effects(&mut self, count: usize, random: &mut Random) -> Vec<Effect> {
        let count = count.min(self.owed.len());
        let mut effects: Vec<Effect> = self.owed.drain(..count).collect();
        if random.one_in(200) {
            effects.push(match random.below(4) {
                0 => Effect::Close { reason: Text::from_static("shutdown") },
                1 => Effect::Unblocked,
                _ => Effect::Blocked { reason: Text::from_static("low on disk"), held: true },
            });
        }
        effects
    }

    pub(crate) fn take(&mut self, requests: Vec<Request>, random: &mut Random) {
        for request in requests {
            self.take_one(request, random);
            if random.one_in(2) {
                self.deliver(random);
            }
        }
    }

    fn take_one(&mut self, request: Request, random: &mut Random) {
        match request {
            Request::Connect(connect) => self.answer(connect.token, 80, random),
            Request::Publish(publish) => self.publish(publish, random),
            Request::Transaction(transaction) => {
                for list in [&transaction.settles, &transaction.discards, &transaction.returns] {
                    self.finish(list);
                }
                self.answer(transaction.token, 20, random);
            }
            Request::DeclareQueue(declare) => self.answer(declare.token, 40, random),
            Request::DeleteQueue(delete) => self.answer(delete.token, 40, random),
            Request::Bind(bind) => self.answer(bind.token, 40, random),
            Request::Consume(consume) => {
                self.active.insert(consume.consumer, (consume.ack, consume.mode));
                self.answer(consume.token, 40, random);
            }
            Request::Cancel { token, consumer } => {
                self.active.remove(&consumer);
                self.answer(token, usize::MAX, random);
            }
            Request::Settle { deliveries, token }
            | Request::Discard { deliveries, token }
            | Request::Return { deliveries, token } => {
                self.finish(&deliveries);
                if let Some(token) = token {
                    self.answer(token, usize::MAX, random);
                }
            }
            Request::Barrier { token } => self.answer(token, usize::MAX, random),
            other => panic!("not a request of STOMP's: {other:?}"),
        }
    }

    fn answer(&mut self, token: Token, refused_in: usize, random: &mut Random) {
        assert!(token.0 > self.last_token, "a token is used once");
        self.last_token = token.0;
        let result = if refused_in < usize::MAX && random.one_in(refused_in) {
            Err(refusal(random))
        } else {
            Ok(Reply::Done)
        };
        self.owed.push_back(Effect::Reply { token, result });
    }

    fn publish(&mut self, publish: Publish, random: &mut Random) {
        let mut record = BytesMut::new();
        EnqueueView::encode(&[QueueId(Lsn(1))], &publish, &mut record);
        self.record = Some(record.freeze());
        if let Some(number) = publish.confirm {
            assert_eq!(number, self.confirms + 1);
            self.confirms = number;
        }
        let (channel, number) = (publish.channel, publish.confirm);
        if random.one_in(200) {
            let refusal = refusal(random);
            self.owed.push_back(Effect::PublishRefused { channel, number, refusal });
        } else if let Some(through) = number {
            self.owed.push_back(Effect::Confirm { channel, through });
        }
    }

    /// Settled once, and never what was not handed out.
    fn finish(&mut self, deliveries: &[DeliveryRef]) {
        for delivery in deliveries {
            let known = self.outstanding.remove(&(delivery.consumer, delivery.lsn));
            assert!(known, "not outstanding: {delivery:?}");
        }
    }

    fn deliver(&mut self, random: &mut Random) {
        let active: Vec<_> = self.active.iter().map(|(number, modes)| (*number, *modes)).collect();
        if active.is_empty() || self.outstanding.len() > OUTSTANDING_MAX {
            return;
        }
        let (consumer, (ack, mode)) = *random.pick(&active);
        let record = match &self.record {
            Some(record) if !random.one_in(4) => record.clone(),
            _ => of_another_protocol(random),
        };
        self.last_lsn += 1;
        let lsn = Lsn(self.last_lsn);
        if mode == ConsumeMode::Browse && random.one_in(3) {
            self.active.remove(&consumer);
            return self.owed.push_back(Effect::BrowseEnd { consumer });
        }
        if mode != ConsumeMode::Browse && ack == AckMode::Manual {
            self.outstanding.insert((consumer, lsn));
        }
        if random.one_in(300) {
            self.active.remove(&consumer);
            return self.owed.push_back(Effect::Cancelled { consumer });
        }
        let (redelivered, returns) = (random.one_in(3), random.below(3) as u32);
        let queue = QueueId(Lsn(1));
        let delivery = Delivery { consumer, queue, lsn, redelivered, returns, record };
        self.owed.push_back(Effect::Deliver(delivery));
    }
}

fn refusal(random: &mut Random) -> Refusal {
    let kinds = [RefusalKind::NotFound, RefusalKind::AccessRefused, RefusalKind::ResourceLocked];
    Refusal::new(*random.pick(&kinds), "no\nqueue: 'q'\0")
}

/// What no STOMP client sends: names and values with anything in them.
fn of_another_protocol(random: &mut Random) -> Bytes {
    let mut any = || {
        let words = ["a", "\n", "\r", ":", "\\", "\0", "é", "content-length", "browser", "%/"];
        let count = random.below(5);
        (0..count).map(|_| *random.pick(&words)).collect::<String>()
    };
    let mut headers = Table::default();
    for _ in 0..4 {
        headers.push(&any(), Value::text(&any()));
    }
    headers.push("void", Value::Void);
    let properties = Properties {
        headers: Some(headers),
        reply_to: Some(Text::from(any())),
        kind: Some(Text::from(any())),
        ..Properties::default()
    };
    let publish = Publish {
        exchange: Text::from(any()),
        routing_key: Text::from(any()),
        properties: properties.to_bytes(),
        body: Body::from(Bytes::from(any())),
        ..Publish::default()
    };
    let mut record = BytesMut::new();
    EnqueueView::encode(&[QueueId(Lsn(1))], &publish, &mut record);
    record.freeze()
}
