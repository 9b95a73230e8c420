//! Transcripts: bytes in, requests and bytes out. Frames are built and read by `amq-protocol`, as
//! a second opinion.

mod channels;
mod consuming;
mod garbage;
mod handshake;
mod hot_methods;
mod publishing;
mod reply_to;
mod tables;
mod transactions;

use crate::{AmqpOptions, AmqpSession};
use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, basic, channel, connection},
    types::FieldTable,
};
use bytes::{Bytes, BytesMut};
use understudy_model::{
    ConsumerNumber, Delivery, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, Publish, QueueId,
    Refusal, RefusalKind, Reply, Request, Session, Text, Token,
};

pub(super) const HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// A client on the other end of a session.
pub(super) struct Client {
    pub(super) session: AmqpSession,
    pub(super) out: Outbox,
    pub(super) now_ms: u64,
    input: BytesMut,
}

impl Client {
    pub(super) fn new() -> Self {
        Self::with(AmqpOptions::default())
    }

    pub(super) fn with(options: AmqpOptions) -> Self {
        Self {
            session: AmqpSession::new(options, 0),
            out: Outbox::default(),
            now_ms: 0,
            input: BytesMut::new(),
        }
    }

    /// Logged in and opened, with all capabilities; nothing left over.
    pub(super) fn open() -> Self {
        Self::open_with(AmqpOptions::default(), 131_072)
    }

    pub(super) fn open_with(options: AmqpOptions, frame_max: u32) -> Self {
        let mut client = Self::with(options);
        client.send_bytes(HEADER);
        client.send(0, start_ok(all_capabilities()));
        assert!(client.out.login.take().is_some());
        client.accept_login("guest", &[]);
        client.send(0, tune_ok(0, frame_max, 60));
        client.send(0, connection_open("/"));
        let token = client.token();
        client.effects([done(token)]);
        client.forget();
        client
    }

    /// An open connection with channel 1 open.
    pub(super) fn with_channel() -> Self {
        let mut client = Self::open();
        client.open_channel(1);
        client
    }

    pub(super) fn open_channel(&mut self, number: u16) {
        self.send(number, channel_open());
        assert_eq!(self.frames(), [method(number, channel_ok())]);
    }

    /// Forgets what was written before.
    pub(super) fn open_channel_after(&mut self, number: u16) {
        self.forget();
        self.open_channel(number);
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.on_bytes(self.now_ms, &mut self.input, &mut self.out);
    }

    pub(super) fn send(&mut self, number: u16, class: AMQPClass) {
        self.send_bytes(&bytes_of(&AMQPFrame::Method(number, class)));
    }

    pub(super) fn basic(&mut self, method: basic::AMQPMethod) {
        self.send(1, AMQPClass::Basic(method));
    }

    pub(super) fn accept_login(&mut self, user: &str, tags: &[&str]) {
        let tags = tags.iter().copied().map(Text::from).collect();
        let outcome = LoginOutcome::Accepted { user: user.into(), tags };
        self.session.on_login(self.now_ms, outcome, &mut self.out);
    }

    pub(super) fn effects(&mut self, effects: impl IntoIterator<Item = Effect>) {
        let mut effects: Vec<_> = effects.into_iter().collect();
        self.session.on_effects(self.now_ms, &mut effects, &mut self.out);
        assert!(effects.is_empty());
    }

    pub(super) fn timer(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.session.on_timer(now_ms, &mut self.out);
    }

    pub(super) fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out.requests)
    }

    /// The token of the only request that waits for an answer.
    pub(super) fn token(&mut self) -> Token {
        let tokens: Vec<_> = self.requests().iter().filter_map(token_of).collect();
        assert_eq!(tokens.len(), 1);
        tokens[0]
    }

    pub(super) fn written(&mut self) -> Bytes {
        self.out.write.take_all()
    }

    pub(super) fn frames(&mut self) -> Vec<AMQPFrame> {
        let written = self.written();
        let mut rest = &written[..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (tail, frame) = parse_frame(rest).unwrap();
            rest = tail;
            frames.push(frame);
        }
        frames
    }

    pub(super) fn forget(&mut self) {
        self.out = Outbox::default();
    }

    /// The only frame written is a `channel.close` of channel 1 with this text.
    pub(super) fn expect_channel_closed(&mut self, code: u16, text: &str, id: (u16, u16)) {
        let close = channel::AMQPMethod::Close(channel::Close {
            reply_code: code,
            reply_text: text.into(),
            class_id: id.0,
            method_id: id.1,
        });
        assert_eq!(self.frames(), [method(1, AMQPClass::Channel(close))]);
        assert!(!self.out.close);
    }

    pub(super) fn expect_connection_closed(&mut self, code: u16, text: &str, id: (u16, u16)) {
        let close = connection::AMQPMethod::Close(connection::Close {
            reply_code: code,
            reply_text: text.into(),
            class_id: id.0,
            method_id: id.1,
        });
        assert_eq!(self.frames(), [method(0, AMQPClass::Connection(close))]);
        assert!(!self.out.close && self.out.complaint.is_some());
        let answer = connection::AMQPMethod::CloseOk(connection::CloseOk {});
        self.send(0, AMQPClass::Connection(answer));
        assert!(self.out.close && self.out.write.is_empty());
    }
}

pub(super) fn token_of(request: &Request) -> Option<Token> {
    let token = match request {
        Request::Connect(connect) => connect.token,
        Request::Transaction(transaction) => transaction.token,
        Request::DeclareQueue(declare) => declare.token,
        Request::DeleteQueue(delete) => delete.token,
        Request::PurgeQueue(purge) => purge.token,
        Request::DeclareExchange(declare) => declare.token,
        Request::DeleteExchange(delete) => delete.token,
        Request::Bind(bind) | Request::Unbind(bind) => bind.token,
        Request::Consume(consume) => consume.token,
        Request::Cancel { token, .. }
        | Request::Barrier { token }
        | Request::Outcome { token, .. } => *token,
        Request::Get(get) => get.token,
        Request::Manage(manage) => manage.token,
        Request::Settle { token, .. }
        | Request::Discard { token, .. }
        | Request::Return { token, .. } => (*token)?,
        Request::Publish(_) | Request::AddCredit { .. } | Request::ChannelPrefetch { .. } => {
            return None;
        }
    };
    (token != Token(0)).then_some(token)
}

pub(super) fn done(token: Token) -> Effect {
    Effect::Reply { token, result: Ok(Reply::Done) }
}

pub(super) fn refused(token: Token, kind: RefusalKind, text: &str) -> Effect {
    Effect::Reply { token, result: Err(Refusal::new(kind, text)) }
}

pub(super) fn bytes_of(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame::<Vec<u8>>(frame)(WriteContext::from(Vec::new())).unwrap().into_inner().0
}

pub(super) fn method(number: u16, class: AMQPClass) -> AMQPFrame {
    AMQPFrame::Method(number, class)
}

pub(super) fn channel_open() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))
}

pub(super) fn channel_ok() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}))
}

pub(super) fn channel_close_ok() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

pub(super) fn channel_close() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close::default()))
}

pub(super) fn connection_open(vhost: &str) -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open {
        virtual_host: vhost.into(),
    }))
}

pub(super) fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> AMQPClass {
    let tune_ok = connection::TuneOk { channel_max, frame_max, heartbeat };
    AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok))
}

pub(super) fn all_capabilities() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in ["authentication_failure_close", "consumer_cancel_notify", "connection.blocked"] {
        capabilities.insert(name.into(), amq_protocol::types::AMQPValue::Boolean(true));
    }
    capabilities
}

pub(super) fn start_ok(capabilities: FieldTable) -> AMQPClass {
    use amq_protocol::types::AMQPValue;
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    client_properties.insert("connection_name".into(), AMQPValue::LongString("me".into()));
    AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: "\0guest\0secret".into(),
        locale: "en_US".into(),
    }))
}

/// The frames of a publish, as a client sends them.
pub(super) fn publish_frames(
    number: u16,
    publish: basic::Publish,
    properties: basic::AMQPProperties,
    body: &[u8],
) -> Vec<u8> {
    let class = AMQPClass::Basic(basic::AMQPMethod::Publish(publish));
    let header = AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties };
    let mut bytes = bytes_of(&AMQPFrame::Method(number, class));
    bytes.extend(bytes_of(&AMQPFrame::Header(number, Box::new(header).as_ref().clone())));
    if !body.is_empty() {
        bytes.extend(bytes_of(&AMQPFrame::Body(number, body.to_vec())));
    }
    bytes
}

pub(super) fn plain_publish(number: u16, key: &str, body: &[u8]) -> Vec<u8> {
    let publish = basic::Publish { routing_key: key.into(), ..basic::Publish::default() };
    publish_frames(number, publish, basic::AMQPProperties::default(), body)
}

pub(super) fn delivery(consumer: ConsumerNumber, lsn: u64, body: &'static [u8]) -> Delivery {
    let publish = Publish {
        exchange: "x".into(),
        routing_key: "k".into(),
        properties: Bytes::from_static(&[0x10, 0, 2]),
        body: body.into(),
        ..Publish::default()
    };
    let queue = QueueId(Lsn(1));
    let mut record = BytesMut::new();
    EnqueueView::encode(&[queue], &publish, &mut record);
    Delivery {
        consumer,
        queue,
        lsn: Lsn(lsn),
        redelivered: false,
        returns: 0,
        record: record.freeze(),
    }
}
