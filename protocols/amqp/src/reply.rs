//! The broker's replies, and what each of them is to the client.

use crate::{
    connection::{Connection, Next},
    fault::{Fault, MethodId, ReplyCode},
    method::{put_method, short},
    settle::{Disposition, put_disposition},
};
use amq_protocol::protocol::{
    AMQPClass, basic,
    connection::{AMQPMethod as ConnectionMethod, OpenOk},
    exchange, queue, tx,
};
use understudy_model::{AckMode, ConsumerNumber, DeliveryRef, Outbox, Refusal, Reply, Text, Token};

/// The method that a reply is told with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The client asked for none.
    Nothing,
    /// Its name is remembered by the channel, also if the client waits for nothing.
    QueueDeclare {
        nowait: bool,
    },
    QueueBind,
    QueueUnbind,
    QueuePurge,
    QueueDelete,
    ExchangeDeclare,
    ExchangeDelete,
    ExchangeBind,
    ExchangeUnbind,
    Consume {
        consumer: ConsumerNumber,
        nowait: bool,
    },
    Cancel {
        consumer: ConsumerNumber,
        tag: Text,
        nowait: bool,
    },
    Get {
        ack: AckMode,
    },
    Recover,
    Qos,
    TxCommit {
        /// What the transaction was to settle: given back if it is refused.
        deliveries: Vec<DeliveryRef>,
    },
}

impl Answer {
    #[must_use]
    pub(crate) fn unless(self, nowait: bool) -> Self {
        if nowait { Self::Nothing } else { self }
    }
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Connect,
    Channel {
        channel: u16,
        generation: u64,
        method: MethodId,
        answer: Answer,
    },
    /// The channel has been closed: nothing that it asked for is under way any more.
    Drained {
        channel: u16,
    },
}

const CONNECTION_OPEN: MethodId = MethodId::new(10, 40);

impl Connection {
    pub(crate) fn on_reply(
        &mut self,
        token: Token,
        result: Result<Reply, Refusal>,
        out: &mut Outbox,
    ) -> Result<Next, Fault> {
        match self.pending.remove(&token) {
            None => {}
            Some(Pending::Connect) => {
                result.map_err(|refusal| connection_refused(&refusal))?;
                let answer = ConnectionMethod::OpenOk(OpenOk {});
                put_method(&mut out.write, 0, AMQPClass::Connection(answer));
            }
            Some(Pending::Drained { channel }) => self.on_drained(channel, out)?,
            Some(Pending::Channel { channel, generation, method, answer }) => {
                let is_current = self.is_current(channel, generation);
                let result = match result {
                    Ok(reply) if is_current => self.answer(channel, answer, reply, out),
                    Ok(_) => Ok(()),
                    Err(refusal) => self.refuse(answer, &refusal, out),
                };
                if is_current {
                    self.contain(channel, result.map_err(|fault| fault.at(method)), out)?;
                }
            }
        }
        Ok(Next::Continue)
    }

    /// Whether that use of the channel's number is still open.
    pub(crate) fn is_current(&mut self, number: u16, generation: u64) -> bool {
        self.channel(number).is_ok_and(|channel| {
            channel.generation == generation && channel.phase == crate::channel::Phase::Open
        })
    }

    fn refuse(&mut self, answer: Answer, refusal: &Refusal, out: &mut Outbox) -> Result<(), Fault> {
        match answer {
            Answer::Consume { consumer, .. } => {
                self.forget_consumer(consumer)?;
            }
            Answer::TxCommit { deliveries } if !deliveries.is_empty() => {
                put_disposition(out, Disposition::Return, deliveries);
            }
            _ => {}
        }
        Err(Fault::refused(refusal))
    }

    fn answer(
        &mut self,
        number: u16,
        answer: Answer,
        reply: Reply,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let class = match (answer, reply) {
            (Answer::QueueDeclare { nowait }, Reply::Queue { name, messages, consumers }) => {
                let queue = short(&name);
                self.channel(number)?.last_queue = Some(name);
                if nowait {
                    return Ok(());
                }
                queue_class(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                    queue,
                    message_count: messages,
                    consumer_count: consumers,
                }))
            }
            (Answer::Consume { consumer, nowait: false }, _) => {
                let Some(consumer) = self.consumers.get(&consumer) else { return Ok(()) };
                let consumer_tag = short(&consumer.tag);
                AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag }))
            }
            (Answer::Cancel { consumer, tag, nowait }, _) => {
                self.forget_consumer(consumer)?;
                if nowait {
                    return Ok(());
                }
                cancel_ok(&tag)
            }
            (answer, reply) => match plain_answer(&answer, &reply) {
                Some(class) => class,
                None => return Ok(()),
            },
        };
        put_method(&mut out.write, number, class);
        Ok(())
    }
}

/// A virtual host that is missing or closed to the user is 530 here, whatever else it may be.
fn connection_refused(refusal: &Refusal) -> Fault {
    let fault = if refusal.kind.closes_connection() {
        Fault::refused(refusal)
    } else {
        Fault::new(ReplyCode::NOT_ALLOWED, &refusal.text[..])
    };
    fault.at(CONNECTION_OPEN)
}

/// Answers that need nothing but the reply.
fn plain_answer(answer: &Answer, reply: &Reply) -> Option<AMQPClass> {
    let message_count = match reply {
        Reply::Removed { messages } => *messages,
        _ => 0,
    };
    Some(match answer {
        Answer::QueueBind => queue_class(queue::AMQPMethod::BindOk(queue::BindOk {})),
        Answer::QueueUnbind => queue_class(queue::AMQPMethod::UnbindOk(queue::UnbindOk {})),
        Answer::QueuePurge => {
            queue_class(queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count }))
        }
        Answer::QueueDelete => {
            queue_class(queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count }))
        }
        Answer::ExchangeDeclare => {
            exchange_class(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {}))
        }
        Answer::ExchangeDelete => {
            exchange_class(exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {}))
        }
        Answer::ExchangeBind => exchange_class(exchange::AMQPMethod::BindOk(exchange::BindOk {})),
        Answer::ExchangeUnbind => {
            exchange_class(exchange::AMQPMethod::UnbindOk(exchange::UnbindOk {}))
        }
        Answer::Get { .. } => AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})),
        Answer::Qos => qos_ok(),
        Answer::Recover => AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {})),
        Answer::TxCommit { .. } => AMQPClass::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {})),
        Answer::Nothing
        | Answer::QueueDeclare { .. }
        | Answer::Consume { .. }
        | Answer::Cancel { .. } => return None,
    })
}

pub(crate) fn qos_ok() -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {}))
}

pub(crate) fn cancel_ok(tag: &str) -> AMQPClass {
    let consumer_tag = short(tag);
    AMQPClass::Basic(basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag }))
}

fn queue_class(method: queue::AMQPMethod) -> AMQPClass {
    AMQPClass::Queue(method)
}

fn exchange_class(method: exchange::AMQPMethod) -> AMQPClass {
    AMQPClass::Exchange(method)
}
