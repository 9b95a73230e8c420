//! The rarer methods of class basic.

use crate::{
    codec::cannot_decode,
    connection::{Connection, unimplemented_method},
    fault::{Fault, MethodId, ReplyCode},
    method::{self, put_method},
    reply::{Answer, cancel_ok, qos_ok},
    unacked::Take,
};
use amq_protocol::protocol::{AMQPClass, basic};
use bytes::Bytes;
use understudy_model::{Outbox, Request};

impl Connection {
    pub(crate) fn on_basic(
        &mut self,
        number: u16,
        id: MethodId,
        method: basic::AMQPMethod,
        arguments: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        use basic::AMQPMethod::{Cancel, CancelOk, Consume, Get, Recover, RecoverAsync};
        match method {
            Consume(consume) => self.on_consume(number, id, &consume, arguments, out),
            Cancel(cancel) => self.on_cancel(number, id, &cancel, out),
            Get(get) => self.on_get(number, id, &get, out),
            Recover(recover) => self.on_recover(number, id, recover.requeue, Answer::Recover, out),
            RecoverAsync(recover) => {
                self.on_recover(number, id, recover.requeue, Answer::Nothing, out)
            }
            // The client's answer to our own cancel, which asked for none.
            CancelOk(_) => Ok(()),
            _ => Err(unimplemented_method()),
        }
    }

    pub(crate) fn on_qos(
        &mut self,
        number: u16,
        payload: &Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        // The parser skips the prefetch size, which stands between the id and the count.
        let size = payload.get(4..).and_then(|arguments| arguments.first_chunk::<4>());
        let size = u32::from_be_bytes(*size.ok_or_else(|| cannot_decode(payload))?);
        if size != 0 {
            let text = format!("prefetch_size!=0 ({size})");
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, text));
        }
        let AMQPClass::Basic(basic::AMQPMethod::Qos(qos)) = method::parse(payload)?.class else {
            return Err(unimplemented_method());
        };
        let channel = self.channel(number)?;
        if qos.global {
            channel.has_shared_prefetch = qos.prefetch_count > 0;
            let limit = qos.prefetch_count.into();
            out.requests.push(Request::ChannelPrefetch { channel: number, limit });
        } else {
            channel.prefetch = qos.prefetch_count;
        }
        if self.channel(number)?.has_published {
            // Clients take the answer for a sign that no publish before it was refused.
            let token = self.ask(number, MethodId::QOS, Answer::Qos)?;
            out.requests.push(Request::Barrier { token });
        } else {
            put_method(&mut out.write, number, qos_ok());
        }
        Ok(())
    }

    fn on_recover(
        &mut self,
        number: u16,
        id: MethodId,
        requeue: bool,
        answer: Answer,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "requeue=false"));
        }
        let taken = self.channel(number)?.unacked.take_through(0, Take::ForGood);
        let deliveries = taken.unwrap_or_default();
        let token = Some(self.ask(number, id, answer)?);
        out.requests.push(Request::Return { deliveries, token });
        Ok(())
    }

    fn on_cancel(
        &mut self,
        number: u16,
        id: MethodId,
        cancel: &basic::Cancel,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let tag = method::text(&cancel.consumer_tag);
        match self.channel(number)?.consumers.remove(&tag) {
            Some(consumer) => {
                self.cancelling(consumer);
                self.forget_replies(number, consumer)?;
                let answer = Answer::Cancel { consumer, tag, nowait: cancel.nowait };
                let token = self.ask(number, id, answer)?;
                out.requests.push(Request::Cancel { token, consumer });
            }
            None if cancel.nowait => {}
            None => put_method(&mut out.write, number, cancel_ok(&tag)),
        }
        Ok(())
    }
}
