//! An open connection: its channels, its consumers, and the answers it waits for.

use crate::{
    channel::{Channel, Content, Phase, Slot},
    codec::{method_id, put_ack},
    fault::{Fault, MethodId, ReplyCode},
    frame::{Frame, FrameKind},
    handshake::Tuning,
    login::Client,
    method::{self, put_method, short},
    options::AmqpOptions,
    reply::{Answer, Pending},
    settle::{Disposition, put_disposition},
};
use amq_protocol::protocol::{
    AMQPClass, access, channel,
    connection::{AMQPMethod as ConnectionMethod, UpdateSecretOk},
};
use bytes::Bytes;
use std::collections::BTreeMap;
use understudy_model::{AckMode, ConsumerNumber, Outbox, Request, Text, Token};

pub(crate) struct Consumer {
    pub(crate) channel: u16,
    pub(crate) tag: Text,
    pub(crate) ack: AckMode,
    /// Its tag is free again, deliveries may still come.
    pub(crate) cancelling: bool,
}

/// What becomes of the connection after a frame or an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    /// The client said `connection.close`.
    ClosedByClient,
    /// The node wants it closed.
    Forced(Text),
}

/// Who logged in.
pub(crate) struct Identity {
    pub(crate) user: Text,
    /// May publish in the name of others.
    pub(crate) impersonator: bool,
}

pub(crate) struct Connection {
    pub(crate) options: AmqpOptions,
    pub(crate) tuning: Tuning,
    pub(crate) client: Client,
    pub(crate) identity: Identity,
    pub(crate) vhost: Text,
    /// By channel number; as long as the highest one in use needs.
    slots: Vec<Slot>,
    pub(crate) consumers: BTreeMap<ConsumerNumber, Consumer>,
    pub(crate) pending: BTreeMap<Token, Pending>,
    last_token: Token,
    last_consumer: ConsumerNumber,
    last_generation: u64,
    /// In open transactions and incomplete bodies of all channels.
    held_bytes: u64,
    pub(crate) now_ms: u64,
    /// Channels with confirms to write, until the effects at hand are through.
    confirming: Vec<u16>,
}

/// For requests whose answer nobody waits for.
pub(crate) const NOBODY: Token = Token(0);

impl Connection {
    pub(crate) fn new(
        options: AmqpOptions,
        tuning: Tuning,
        client: Client,
        identity: Identity,
        vhost: Text,
    ) -> Self {
        Self {
            options,
            tuning,
            client,
            identity,
            vhost,
            slots: Vec::new(),
            consumers: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_token: NOBODY,
            last_consumer: ConsumerNumber(0),
            last_generation: 0,
            held_bytes: 0,
            now_ms: 0,
            confirming: Vec::new(),
        }
    }

    /// Whether the broker has taken the connection.
    pub(crate) fn is_accepted(&self) -> bool {
        !self.pending.values().any(|pending| *pending == Pending::Connect)
    }

    pub(crate) fn on_frame(&mut self, frame: Frame, out: &mut Outbox) -> Result<Next, Fault> {
        if frame.channel == 0 {
            return self.on_connection_frame(&frame, out);
        }
        if frame.kind == FrameKind::Heartbeat {
            return Err(frame.unexpected());
        }
        let number = frame.channel;
        let result = self.on_channel_frame(frame, out);
        self.contain(number, result, out)?;
        Ok(Next::Continue)
    }

    /// Keeps a fault of the soft kind to its channel.
    pub(crate) fn contain(
        &mut self,
        number: u16,
        result: Result<(), Fault>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        match result {
            Err(fault) if !fault.closes_connection() => {
                self.close_channel(number, &fault, out);
                Ok(())
            }
            other => other,
        }
    }

    fn on_connection_frame(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Next, Fault> {
        match frame.kind {
            FrameKind::Heartbeat => return Ok(Next::Continue),
            FrameKind::Header | FrameKind::Body => return Err(frame.unexpected()),
            FrameKind::Method => {}
        }
        let id = method_id(&frame.payload)?;
        match method::parse(&frame.payload)?.class {
            AMQPClass::Connection(ConnectionMethod::Close(_)) => Ok(Next::ClosedByClient),
            AMQPClass::Connection(ConnectionMethod::UpdateSecret(_)) => {
                let answer = ConnectionMethod::UpdateSecretOk(UpdateSecretOk {});
                put_method(&mut out.write, 0, AMQPClass::Connection(answer));
                Ok(Next::Continue)
            }
            _ => {
                let text = "unexpected method in connection state running";
                Err(Fault::new(ReplyCode::CHANNEL_ERROR, text).at(id))
            }
        }
    }

    fn on_channel_frame(&mut self, frame: Frame, out: &mut Outbox) -> Result<(), Fault> {
        let number = frame.channel;
        let phase = self.slot(number)?.channel.as_ref().map(|channel| channel.phase);
        if phase == Some(Phase::Open) {
            return match frame.kind {
                FrameKind::Method => self.on_method(number, &frame.payload, out),
                FrameKind::Header => self.on_content_header(number, frame.payload, out),
                FrameKind::Body => self.on_content_body(number, frame.payload, out),
                FrameKind::Heartbeat => Err(frame.unexpected()),
            };
        }
        let id = match frame.kind {
            FrameKind::Method => method_id(&frame.payload)?,
            _ => MethodId::NONE,
        };
        match (phase, id) {
            (None, MethodId::CHANNEL_OPEN) => self.open_channel(number, out),
            // The answer to a `channel.close` that crossed the client's own.
            (None, MethodId::CHANNEL_CLOSE_OK) => Ok(()),
            (None, _) => {
                Err(Fault::new(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'").at(id))
            }
            (Some(Phase::ClosedHere), MethodId::CHANNEL_CLOSE_OK) => {
                self.slot(number)?.channel = None;
                Ok(())
            }
            (Some(Phase::ClosedHere), MethodId::CHANNEL_CLOSE) => {
                put_channel_close_ok(number, out);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_method(&mut self, number: u16, payload: &Bytes, out: &mut Outbox) -> Result<(), Fault> {
        let id = method_id(payload)?;
        self.check_no_content_awaited(number)?;
        let result = match id {
            MethodId::PUBLISH => self.on_publish(number, payload),
            MethodId::ACK => self.on_ack(number, payload, out),
            MethodId::NACK => self.on_nack(number, payload, out),
            MethodId::REJECT => self.on_reject(number, payload, out),
            MethodId::QOS => self.on_qos(number, payload, out),
            _ => self.on_rare_method(number, id, payload, out),
        };
        result.map_err(|fault| fault.at(id))
    }

    fn check_no_content_awaited(&mut self, number: u16) -> Result<(), Fault> {
        let text = match self.channel(number)?.content {
            Content::None => return Ok(()),
            Content::Header(_) => {
                "expected content header for class 60, got non content header frame instead"
            }
            Content::Body(_) => "expected content body, got non content body frame instead",
        };
        Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, text).at(MethodId::PUBLISH))
    }

    fn on_rare_method(
        &mut self,
        number: u16,
        id: MethodId,
        payload: &Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let method = method::parse(payload)?;
        match method.class {
            AMQPClass::Basic(basic) => self.on_basic(number, id, basic, &method.table, out),
            AMQPClass::Queue(queue) => self.on_queue(number, id, queue, method.table, out),
            AMQPClass::Exchange(exchange) => {
                self.on_exchange(number, id, exchange, method.table, out)
            }
            AMQPClass::Tx(tx) => self.on_tx(number, id, &tx, out),
            AMQPClass::Confirm(confirm) => self.on_confirm(number, &confirm, out),
            AMQPClass::Channel(channel) => self.on_channel(number, &channel, out),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                let answer = access::AMQPMethod::RequestOk(access::RequestOk {});
                put_method(&mut out.write, number, AMQPClass::Access(answer));
                Ok(())
            }
            AMQPClass::Access(_) | AMQPClass::Connection(_) => Err(unimplemented_method()),
        }
    }

    fn on_channel(
        &mut self,
        number: u16,
        method: &channel::AMQPMethod,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        use channel::AMQPMethod::{Close, CloseOk, Flow, FlowOk, Open};
        match method {
            Open(_) => Err(Fault::new(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen")),
            Close(_) => self.close_for_client(number, out),
            Flow(flow) if flow.active => {
                let answer = FlowOk(channel::FlowOk { active: true });
                put_method(&mut out.write, number, AMQPClass::Channel(answer));
                Ok(())
            }
            Flow(_) => Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "active=false")),
            CloseOk(_) | FlowOk(_) => Ok(()),
            _ => Err(unimplemented_method()),
        }
    }

    fn open_channel(&mut self, number: u16, out: &mut Outbox) -> Result<(), Fault> {
        let getter = self.next_consumer();
        self.last_generation += 1;
        let generation = self.last_generation;
        self.slot(number)?.channel = Some(Box::new(Channel::new(generation, getter)));
        let answer = channel::AMQPMethod::OpenOk(channel::OpenOk {});
        put_method(&mut out.write, number, AMQPClass::Channel(answer));
        Ok(())
    }

    fn close_for_client(&mut self, number: u16, out: &mut Outbox) -> Result<(), Fault> {
        self.flush_confirms_of(number, out);
        self.release_channel(number, Phase::ClosedByClient, out)
    }

    fn close_channel(&mut self, number: u16, fault: &Fault, out: &mut Outbox) {
        self.flush_confirms_of(number, out);
        let close = channel::Close {
            reply_code: fault.code.0,
            reply_text: short(&fault.reply_text()),
            class_id: fault.method.class,
            method_id: fault.method.method,
        };
        put_method(&mut out.write, number, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
        // It exists: a channel that is not open yields faults of the connection only.
        let _ = self.release_channel(number, Phase::ClosedHere, out);
    }

    /// Gives back what the channel holds, and asks to be told when all that it asked is through.
    fn release_channel(
        &mut self,
        number: u16,
        phase: Phase,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let held_bytes = self.channel(number)?.held_bytes();
        self.release_bytes(held_bytes);
        let channel = self.channel(number)?;
        channel.phase = phase;
        channel.content = Content::None;
        channel.mode = crate::channel::Mode::Plain;
        channel.replies = None;
        let consumers = std::mem::take(&mut channel.consumers);
        let unacked = channel.unacked.take_all();
        let has_shared_prefetch = channel.has_shared_prefetch;
        // Consumers go first, or the broker would hand them what is given back.
        for consumer in consumers.into_values() {
            out.requests.push(Request::Cancel { token: NOBODY, consumer });
        }
        // Also those whose cancel is not answered yet.
        self.consumers.retain(|_, consumer| consumer.channel != number);
        if !unacked.is_empty() {
            put_disposition(out, Disposition::Return, unacked);
        }
        if has_shared_prefetch {
            out.requests.push(Request::ChannelPrefetch { channel: number, limit: 0 });
        }
        self.slot(number)?.draining += 1;
        let token = self.next_token();
        self.pending.insert(token, Pending::Drained { channel: number });
        out.requests.push(Request::Barrier { token });
        Ok(())
    }

    /// A barrier that [`Self::release_channel`] asked for is through.
    pub(crate) fn on_drained(&mut self, number: u16, out: &mut Outbox) -> Result<(), Fault> {
        let slot = self.slot(number)?;
        slot.draining = slot.draining.saturating_sub(1);
        let closed = |channel: &Channel| channel.phase == Phase::ClosedByClient;
        if slot.channel.as_deref().is_some_and(closed) {
            slot.channel = None;
            put_channel_close_ok(number, out);
        }
        Ok(())
    }

    pub(crate) fn slot(&mut self, number: u16) -> Result<&mut Slot, Fault> {
        let channel_max = self.tuning.channel_max;
        if number > channel_max {
            let text = format!("channel {number} is above the agreed channel_max ({channel_max})");
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text));
        }
        let index = usize::from(number);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        Ok(&mut self.slots[index])
    }

    pub(crate) fn channel(&mut self, number: u16) -> Result<&mut Channel, Fault> {
        self.slot(number)?
            .channel
            .as_deref_mut()
            .ok_or_else(|| Fault::new(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'"))
    }

    /// The channel, if an effect that names only its number is meant for it.
    pub(crate) fn settled_channel(&mut self, number: u16) -> Option<&mut Channel> {
        self.slots.get_mut(usize::from(number))?.settled()
    }

    /// Counts what the client makes the connection keep.
    pub(crate) fn hold_bytes(&mut self, bytes: u64) -> Result<(), Fault> {
        let limit = self.options.held_bytes_max;
        self.held_bytes += bytes;
        if self.held_bytes > limit {
            let text =
                format!("transactions and incomplete messages are larger than {limit} bytes");
            return Err(Fault::new(ReplyCode::RESOURCE_ERROR, text));
        }
        Ok(())
    }

    pub(crate) fn release_bytes(&mut self, bytes: u64) {
        self.held_bytes -= bytes;
    }

    /// Closes the channels that have waited too long for an ack.
    pub(crate) fn expire_unacked(&mut self, out: &mut Outbox) {
        let timeout_ms = self.options.consumer_timeout_ms;
        for number in 0..self.slots.len() as u16 {
            let Some(channel) = self.settled_channel(number) else { continue };
            let oldest_ms = channel.unacked.oldest_ms();
            if oldest_ms.is_none_or(|oldest_ms| oldest_ms + timeout_ms > self.now_ms) {
                continue;
            }
            let text = format!(
                "delivery acknowledgement on channel {number} timed out. \
                 Timeout value used: {timeout_ms} ms"
            );
            self.close_channel(number, &Fault::precondition(text), out);
        }
    }

    pub(crate) fn next_consumer(&mut self) -> ConsumerNumber {
        self.last_consumer.0 += 1;
        self.last_consumer
    }

    pub(crate) fn next_token(&mut self) -> Token {
        self.last_token.0 += 1;
        self.last_token
    }

    /// A token whose reply is answered on the channel.
    pub(crate) fn ask(
        &mut self,
        channel: u16,
        method: MethodId,
        answer: Answer,
    ) -> Result<Token, Fault> {
        let generation = self.channel(channel)?.generation;
        let token = self.next_token();
        self.pending.insert(token, Pending::Channel { channel, generation, method, answer });
        Ok(token)
    }

    pub(crate) fn confirm_later(&mut self, number: u16, through: u64) {
        let Some(channel) = self.settled_channel(number) else { return };
        if let crate::channel::Mode::Confirm(confirms) = &mut channel.mode
            && confirms.ready < through
        {
            confirms.ready = through;
            if self.confirming.last() != Some(&number) {
                self.confirming.push(number);
            }
        }
    }

    /// One ack for each channel that has something to confirm.
    pub(crate) fn flush_confirms(&mut self, out: &mut Outbox) {
        let mut confirming = std::mem::take(&mut self.confirming);
        for number in confirming.drain(..) {
            self.flush_confirms_of(number, out);
        }
        self.confirming = confirming;
    }

    fn flush_confirms_of(&mut self, number: u16, out: &mut Outbox) {
        let Some(channel) = self.settled_channel(number) else { return };
        if let crate::channel::Mode::Confirm(confirms) = &mut channel.mode
            && confirms.ready > confirms.confirmed
        {
            let multiple = confirms.ready > confirms.confirmed + 1;
            confirms.confirmed = confirms.ready;
            put_ack(out.write.tail(), number, confirms.ready, multiple);
        }
    }
}

pub(crate) fn unimplemented_method() -> Fault {
    Fault::new(ReplyCode::COMMAND_INVALID, "unimplemented method")
}

fn put_channel_close_ok(number: u16, out: &mut Outbox) {
    let answer = channel::AMQPMethod::CloseOk(channel::CloseOk {});
    put_method(&mut out.write, number, AMQPClass::Channel(answer));
}
