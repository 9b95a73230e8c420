//! Acks, nacks and rejects: from delivery tags to the broker's names of deliveries.

use crate::{
    channel::{Channel, Mode},
    codec::decode_tag_and_bits,
    connection::Connection,
    fault::Fault,
    unacked::Take,
};
use understudy_model::{DeliveryRef, Outbox, Request};

/// What the client wants with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Settle,
    Discard,
    Return,
}

impl Disposition {
    fn of_refusal(requeue: bool) -> Self {
        if requeue { Self::Return } else { Self::Discard }
    }
}

/// Adds to the last request if that does the same, so that a run of acks is one request.
pub(crate) fn put_disposition(
    out: &mut Outbox,
    disposition: Disposition,
    deliveries: impl IntoIterator<Item = DeliveryRef>,
) {
    match (out.requests.last_mut(), disposition) {
        (Some(Request::Settle { deliveries: last, token: None }), Disposition::Settle)
        | (Some(Request::Discard { deliveries: last, token: None }), Disposition::Discard)
        | (Some(Request::Return { deliveries: last, token: None }), Disposition::Return) => {
            last.extend(deliveries);
        }
        _ => {
            let deliveries = deliveries.into_iter().collect();
            out.requests.push(match disposition {
                Disposition::Settle => Request::Settle { deliveries, token: None },
                Disposition::Discard => Request::Discard { deliveries, token: None },
                Disposition::Return => Request::Return { deliveries, token: None },
            });
        }
    }
}

impl Connection {
    pub(crate) fn on_ack(
        &mut self,
        number: u16,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let (tag, bits) = decode_tag_and_bits(payload)?;
        dispose(self.channel(number)?, tag, bits & 1 != 0, Disposition::Settle, out)
    }

    pub(crate) fn on_nack(
        &mut self,
        number: u16,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let (tag, bits) = decode_tag_and_bits(payload)?;
        let disposition = Disposition::of_refusal(bits & 2 != 0);
        dispose(self.channel(number)?, tag, bits & 1 != 0, disposition, out)
    }

    pub(crate) fn on_reject(
        &mut self,
        number: u16,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let (tag, bits) = decode_tag_and_bits(payload)?;
        dispose(self.channel(number)?, tag, false, Disposition::of_refusal(bits & 1 != 0), out)
    }
}

fn dispose(
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
    disposition: Disposition,
    out: &mut Outbox,
) -> Result<(), Fault> {
    let unknown = || Fault::precondition(format!("unknown delivery tag {tag}"));
    let take = match channel.mode {
        Mode::Transaction(_) => Take::IntoTransaction,
        _ => Take::ForGood,
    };
    let (one, many) = if multiple {
        (None, channel.unacked.take_through(tag, take).ok_or_else(unknown)?)
    } else {
        (Some(channel.unacked.take_one(tag, take).ok_or_else(unknown)?), Vec::new())
    };
    let deliveries = one.into_iter().chain(many);
    match &mut channel.mode {
        Mode::Transaction(buffered) => buffered.dispose(disposition, deliveries),
        // All of none: nothing to ask.
        _ if multiple && deliveries.size_hint().0 == 0 => {}
        _ => put_disposition(out, disposition, deliveries),
    }
    Ok(())
}
