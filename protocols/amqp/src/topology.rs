//! Exchanges, queues and bindings. What may be declared is the broker's to decide; here are only
//! the rules that live in a channel, like the meaning of an empty queue name.

use crate::{
    connection::{Connection, unimplemented_method},
    fault::{Fault, MethodId, ReplyCode},
    method::{name, text},
    reply::Answer,
    reply_to::{REPLY_TO, put_reply_to_declared},
};
use amq_protocol::{
    protocol::{exchange, queue},
    types::ShortString,
};
use bytes::Bytes;
use understudy_model::{
    Bind, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Outbox, PurgeQueue, Request,
    Text,
};

const SERVER_NAMED_PREFIX: &str = "amq.gen-";

impl Connection {
    /// The queue that a method means: an empty name is the last one declared on the channel.
    pub(crate) fn queue_name(&mut self, number: u16, queue: &ShortString) -> Result<Text, Fault> {
        let name = name(queue);
        if !name.is_empty() {
            return Ok(name);
        }
        let missing = || Fault::new(ReplyCode::NOT_FOUND, "no previously declared queue");
        self.channel(number)?.last_queue.clone().ok_or_else(missing)
    }

    pub(crate) fn on_queue(
        &mut self,
        number: u16,
        id: MethodId,
        method: queue::AMQPMethod,
        arguments: Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        use queue::AMQPMethod::{Bind, Declare, Delete, Purge, Unbind};
        let request = match method {
            Declare(declare) if declare.queue.as_str() == REPLY_TO => {
                if !declare.nowait {
                    put_reply_to_declared(number, out);
                }
                return Ok(());
            }
            Declare(declare) => self.declare_queue(number, id, &declare, arguments)?,
            Bind(bind) => {
                let answer = Answer::QueueBind.unless(bind.nowait);
                let binding = self.queue_binding(
                    number,
                    [&bind.queue, &bind.exchange, &bind.routing_key],
                    arguments,
                )?;
                Request::Bind(self.asked(number, id, answer, binding)?)
            }
            Unbind(unbind) => {
                let binding = self.queue_binding(
                    number,
                    [&unbind.queue, &unbind.exchange, &unbind.routing_key],
                    arguments,
                )?;
                Request::Unbind(self.asked(number, id, Answer::QueueUnbind, binding)?)
            }
            Purge(purge) => {
                let name = self.queue_name(number, &purge.queue)?;
                let token = self.ask(number, id, Answer::QueuePurge.unless(purge.nowait))?;
                Request::PurgeQueue(PurgeQueue { token, name })
            }
            Delete(delete) => {
                let name = self.queue_name(number, &delete.queue)?;
                let token = self.ask(number, id, Answer::QueueDelete.unless(delete.nowait))?;
                let (if_unused, if_empty) = (delete.if_unused, delete.if_empty);
                Request::DeleteQueue(DeleteQueue { token, name, if_unused, if_empty })
            }
            _ => return Err(unimplemented_method()),
        };
        out.requests.push(request);
        Ok(())
    }

    fn declare_queue(
        &mut self,
        number: u16,
        id: MethodId,
        declare: &queue::Declare,
        arguments: Bytes,
    ) -> Result<Request, Fault> {
        let name = name(&declare.queue);
        if !name.is_empty() {
            self.channel(number)?.last_queue = Some(name.clone());
        }
        Ok(Request::DeclareQueue(DeclareQueue {
            token: self.ask(number, id, Answer::QueueDeclare { nowait: declare.nowait })?,
            name,
            server_named_prefix: Text::from_static(SERVER_NAMED_PREFIX),
            named_by_frontend: false,
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments,
        }))
    }

    fn queue_binding(
        &mut self,
        number: u16,
        [queue, exchange, key]: [&ShortString; 3],
        arguments: Bytes,
    ) -> Result<Bind, Fault> {
        let destination = self.queue_name(number, queue)?;
        // Both empty: the last declared queue, bound with its own name.
        let key = match (queue.as_str(), key.as_str()) {
            ("", "") => destination.clone(),
            _ => text(key),
        };
        let source = name(exchange);
        Ok(Bind { source, destination, key, arguments, ..Bind::default() })
    }

    fn asked(
        &mut self,
        number: u16,
        id: MethodId,
        answer: Answer,
        binding: Bind,
    ) -> Result<Bind, Fault> {
        Ok(Bind { token: self.ask(number, id, answer)?, ..binding })
    }

    pub(crate) fn on_exchange(
        &mut self,
        number: u16,
        id: MethodId,
        method: exchange::AMQPMethod,
        arguments: Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        use exchange::AMQPMethod::{Bind, Declare, Delete, Unbind};
        let request = match method {
            Declare(declare) => Request::DeclareExchange(DeclareExchange {
                token: self.ask(number, id, Answer::ExchangeDeclare.unless(declare.nowait))?,
                name: name(&declare.exchange),
                kind: text(&declare.kind),
                passive: declare.passive,
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments,
            }),
            Delete(delete) => Request::DeleteExchange(DeleteExchange {
                token: self.ask(number, id, Answer::ExchangeDelete.unless(delete.nowait))?,
                name: name(&delete.exchange),
                if_unused: delete.if_unused,
            }),
            Bind(bind) => {
                let binding = exchange_binding(
                    [&bind.destination, &bind.source, &bind.routing_key],
                    arguments,
                );
                let answer = Answer::ExchangeBind.unless(bind.nowait);
                Request::Bind(self.asked(number, id, answer, binding)?)
            }
            Unbind(unbind) => {
                let binding = exchange_binding(
                    [&unbind.destination, &unbind.source, &unbind.routing_key],
                    arguments,
                );
                let answer = Answer::ExchangeUnbind.unless(unbind.nowait);
                Request::Unbind(self.asked(number, id, answer, binding)?)
            }
            _ => return Err(unimplemented_method()),
        };
        out.requests.push(request);
        Ok(())
    }
}

fn exchange_binding([destination, source, key]: [&ShortString; 3], arguments: Bytes) -> Bind {
    Bind {
        source: name(source),
        destination: name(destination),
        to_exchange: true,
        key: text(key),
        arguments,
        ..Bind::default()
    }
}
