//! What a client is told: effects into frames.

use super::{Fault, INTERNAL_ERROR, NativeSession, State, send};
use crate::{
    AlreadyCommitted, Blocked, Cancelled, Done, Frame, GetEmpty, Goodbye, Moved, Nack,
    PublishRefused, QueueOk, Refused, Removed, Returned, Unblocked,
    codec::{put_deliver, put_got},
};
use bytes::{Bytes, BytesMut};
use understudy_model::{Body, Effect, Malformed, Outbox, Refusal, Reply, Text, Token};

impl NativeSession {
    pub(super) fn on_effect(&mut self, effect: Effect, out: &mut Outbox) -> Result<(), Fault> {
        match effect {
            Effect::Deliver(delivery) => put_deliver(&delivery, &mut out.write).map_err(broken)?,
            Effect::Got { token, delivery, remaining } => {
                put_got(token.0, remaining, &delivery, &mut out.write).map_err(broken)?;
            }
            Effect::Reply { token, result } => self.on_reply(token, result, out),
            // Folded by the caller.
            Effect::Confirm { .. } => {}
            Effect::Nack { number, .. } => {
                send(out, Nack { sequence: self.numbers.sequence(number) });
            }
            Effect::PublishRefused { number, refusal, .. } => {
                let (code, text) = explain(&refusal);
                let sequence = number.map_or(0, |number| self.numbers.sequence(number));
                send(out, PublishRefused { sequence, code, text });
            }
            Effect::Returned(returned) => send(
                out,
                Returned {
                    code: returned.code,
                    text: returned.text,
                    exchange: returned.exchange,
                    routing_key: returned.routing_key,
                    properties: returned.properties,
                    body: joined(&returned.body),
                },
            ),
            // No consumer of this protocol browses.
            Effect::BrowseEnd { .. } => {}
            Effect::Cancelled { consumer } => send(out, Cancelled { consumer: consumer.0 }),
            Effect::Blocked { reason, .. } => send(out, Blocked { reason }),
            Effect::Unblocked => send(out, Unblocked {}),
            Effect::Moved { addresses } => send(out, Moved { addresses }),
            Effect::Close { reason } => {
                send(out, Goodbye { reason });
                self.close(out);
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, token: Token, result: Result<Reply, Refusal>, out: &mut Outbox) {
        let opening = self.state == State::Opening { request: token.0 };
        let refused = result.is_err();
        // 0 asks for no answer; without this one nobody could go on.
        if token.0 > 0 || opening {
            send(out, reply(token.0, result));
        }
        if opening && refused {
            self.close(out);
        } else if opening {
            self.state = State::Ready;
        }
    }
}

fn reply(request: u64, result: Result<Reply, Refusal>) -> Frame {
    match result {
        Ok(Reply::Done) => Done { request }.into(),
        Ok(Reply::Queue { name, messages, consumers }) => {
            QueueOk { request, name, messages, consumers }.into()
        }
        Ok(Reply::Removed { messages }) => Removed { request, messages }.into(),
        Ok(Reply::AlreadyCommitted) => AlreadyCommitted { request }.into(),
        Ok(Reply::GetEmpty) => GetEmpty { request }.into(),
        Err(refusal) => {
            let (code, text) = explain(&refusal);
            Refused { request, code, text }.into()
        }
    }
}

fn explain(refusal: &Refusal) -> (u16, Text) {
    let (code, name) = refusal.kind.code();
    (code, Text::from(format!("{name} - {}", refusal.text)))
}

/// A native client's body came in one piece; the copy is for what did not.
fn joined(body: &Body) -> Bytes {
    let mut pieces = body.pieces().filter(|piece| !piece.is_empty());
    match (pieces.next(), pieces.next()) {
        (None, _) => Bytes::new(),
        (Some(only), None) => only.clone(),
        _ => {
            let mut all = BytesMut::with_capacity(body.len());
            body.pieces().for_each(|piece| all.extend_from_slice(piece));
            all.freeze()
        }
    }
}

/// The record came from the broker: this is not the client's fault, but it cannot go on either.
fn broken(malformed: Malformed) -> Fault {
    Fault::new(INTERNAL_ERROR, format!("INTERNAL_ERROR - {malformed}"))
}
