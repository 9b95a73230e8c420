//! What an admitted client may ask: frames into requests.

use super::{Fault, MESSAGE_TOO_LARGE, NativeSession, send, unexpected};
use crate::{Deliveries, Frame, Publish, PublishRefused, Refused};
use bytes::Bytes;
use understudy_model as model;
use understudy_model::{
    ConsumerNumber, DeliveryRef, Lsn, Malformed, Outbox, ProducerSequence, PropertiesView, QueueId,
    Request, Text, Token, check_table_depth,
};

/// The whole connection is one channel to the broker.
const CHANNEL: u16 = 0;

/// Deliveries of gets are outstanding under this number; consumers have higher ones.
const GET_CONSUMER: ConsumerNumber = ConsumerNumber(0);

/// A block of no properties: its flags.
const NO_PROPERTIES: Bytes = Bytes::from_static(&[0, 0]);

impl NativeSession {
    pub(super) fn on_request(&mut self, frame: Frame, out: &mut Outbox) -> Result<(), Fault> {
        let request = match frame {
            Frame::Publish(publish) => return self.publish(publish, out),
            Frame::Transaction(transaction) => return self.transaction(transaction, out),
            Frame::Outcome(f) => Request::Outcome {
                token: Token(f.request),
                commit: self.producer_sequence(f.commit),
            },
            Frame::Settle(f) => {
                Request::Settle { deliveries: refs(&f.deliveries), token: answer_to(f.request) }
            }
            Frame::Discard(f) => {
                Request::Discard { deliveries: refs(&f.deliveries), token: answer_to(f.request) }
            }
            Frame::Return(f) => {
                Request::Return { deliveries: refs(&f.deliveries), token: answer_to(f.request) }
            }
            Frame::Credit(f) => {
                Request::AddCredit { consumer: ConsumerNumber(f.consumer), credit: f.credit }
            }
            Frame::Consume(consume) => self.consume(consume)?,
            Frame::Cancel(f) => {
                Request::Cancel { token: Token(f.request), consumer: ConsumerNumber(f.consumer) }
            }
            Frame::Get(f) => Request::Get(model::Get {
                token: Token(f.request),
                queue: f.queue,
                ack: f.ack,
                consumer: GET_CONSUMER,
            }),
            frame => topology(frame)?,
        };
        out.requests.push(request);
        Ok(())
    }

    fn publish(&mut self, publish: Publish, out: &mut Outbox) -> Result<(), Fault> {
        self.numbers.accept(publish.sequence)?;
        if publish.body.len() > self.options.message_bytes_max {
            let limit = self.options.message_bytes_max;
            let text = format!("message of {} bytes, the limit is {limit}", publish.body.len());
            let (sequence, code) = (publish.sequence, MESSAGE_TOO_LARGE);
            send(out, PublishRefused { sequence, code, text: Text::from(text) });
            return Ok(());
        }
        let confirm = publish.flags.confirm.then(|| self.numbers.number());
        out.requests.push(Request::Publish(self.to_model(publish, confirm)?));
        Ok(())
    }

    fn to_model(&self, publish: Publish, confirm: Option<u64>) -> Result<model::Publish, Fault> {
        let producer = self.producer_sequence(publish.sequence);
        Ok(model::Publish {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            properties: checked_properties(publish.properties)?,
            body: publish.body.into(),
            channel: CHANNEL,
            confirm,
            mandatory: publish.flags.mandatory,
            declare_missing: publish.flags.declare_missing,
            producer: (publish.flags.dedup && self.producer != 0).then_some(producer),
        })
    }

    fn producer_sequence(&self, sequence: u64) -> ProducerSequence {
        ProducerSequence { producer: self.producer, sequence }
    }

    fn transaction(
        &mut self,
        transaction: crate::Transaction,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let request = transaction.request;
        let is_remembered = transaction.commit > 0 && self.producer != 0;
        let commit = is_remembered.then(|| self.producer_sequence(transaction.commit));
        let mut too_large = false;
        let mut publishes = Vec::with_capacity(transaction.publishes.len());
        for publish in transaction.publishes {
            self.numbers.accept(publish.sequence)?;
            too_large |= publish.body.len() > self.options.message_bytes_max;
            let mut publish = self.to_model(publish, None)?;
            // The whole is remembered under its own number.
            publish.producer = publish.producer.filter(|_| commit.is_none());
            publishes.push(publish);
        }
        if too_large {
            let text = format!("a message is over {} bytes", self.options.message_bytes_max);
            send(out, Refused { request, code: MESSAGE_TOO_LARGE, text: Text::from(text) });
            return Ok(());
        }
        let all = |lists: &[Deliveries]| lists.iter().flat_map(refs).collect();
        out.requests.push(Request::Transaction(Box::new(model::Transaction {
            token: Token(request),
            commit,
            publishes,
            settles: all(&transaction.settles),
            discards: all(&transaction.discards),
            returns: all(&transaction.returns),
        })));
        Ok(())
    }

    fn consume(&mut self, consume: crate::Consume) -> Result<Request, Fault> {
        if consume.consumer <= self.last_consumer {
            return Err(Malformed("consume: the consumer's number does not rise").into());
        }
        self.last_consumer = consume.consumer;
        Ok(Request::Consume(model::Consume {
            token: Token(consume.request),
            consumer: ConsumerNumber(consume.consumer),
            channel: CHANNEL,
            queue: consume.queue,
            ack: consume.ack,
            exclusive: consume.exclusive,
            priority: consume.priority,
            credit: match consume.windowed {
                true => model::Credit::Window(consume.credit),
                false => model::Credit::Prefetch(consume.credit),
            },
            ..model::Consume::default()
        }))
    }
}

fn topology(frame: Frame) -> Result<Request, Fault> {
    Ok(match frame {
        Frame::DeclareQueue(f) => Request::DeclareQueue(model::DeclareQueue {
            token: Token(f.request),
            name: f.name,
            server_named_prefix: Text::from_static("native.gen-"),
            named_by_frontend: false,
            passive: f.passive,
            durable: f.durable,
            exclusive: f.exclusive,
            auto_delete: f.auto_delete,
            arguments: checked_table(f.arguments)?,
        }),
        Frame::DeleteQueue(f) => Request::DeleteQueue(model::DeleteQueue {
            token: Token(f.request),
            name: f.name,
            if_unused: f.if_unused,
            if_empty: f.if_empty,
        }),
        Frame::PurgeQueue(f) => {
            Request::PurgeQueue(model::PurgeQueue { token: Token(f.request), name: f.name })
        }
        Frame::DeclareExchange(f) => Request::DeclareExchange(model::DeclareExchange {
            token: Token(f.request),
            name: f.name,
            kind: f.kind,
            passive: f.passive,
            durable: f.durable,
            auto_delete: f.auto_delete,
            internal: f.internal,
            arguments: checked_table(f.arguments)?,
        }),
        Frame::DeleteExchange(f) => Request::DeleteExchange(model::DeleteExchange {
            token: Token(f.request),
            name: f.name,
            if_unused: f.if_unused,
        }),
        Frame::Bind(f) => Request::Bind(model::Bind {
            token: Token(f.request),
            source: f.source,
            destination: f.destination,
            to_exchange: f.to_exchange,
            key: f.key,
            arguments: checked_table(f.arguments)?,
        }),
        Frame::Unbind(f) => Request::Unbind(model::Bind {
            token: Token(f.request),
            source: f.source,
            destination: f.destination,
            to_exchange: f.to_exchange,
            key: f.key,
            arguments: checked_table(f.arguments)?,
        }),
        frame => return Err(unexpected(&frame)),
    })
}

fn answer_to(request: u64) -> Option<Token> {
    (request > 0).then_some(Token(request))
}

fn refs(deliveries: &Deliveries) -> Vec<DeliveryRef> {
    let consumer = ConsumerNumber(deliveries.consumer);
    let queue = QueueId(Lsn(deliveries.queue));
    deliveries.lsns.iter().map(|&lsn| DeliveryRef { consumer, queue, lsn: Lsn(lsn) }).collect()
}

fn checked_properties(properties: Bytes) -> Result<Bytes, Malformed> {
    if properties.is_empty() {
        return Ok(NO_PROPERTIES);
    }
    PropertiesView::decode(&properties)?.headers.map_or(Ok(()), check_table_depth)?;
    Ok(properties)
}

fn checked_table(arguments: Bytes) -> Result<Bytes, Malformed> {
    check_table_depth(&arguments)?;
    Ok(arguments)
}
