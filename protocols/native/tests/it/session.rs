//! Conversations: what is said, what is asked of the broker, what is answered.

use crate::samples;
use bytes::{Bytes, BytesMut};
use understudy_model as model;
use understudy_model::{
    ConsumerNumber, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, QueueId, Refusal, RefusalKind,
    Reply, Request, Session, Token,
};
use understudy_native::*;

const PRODUCER: u128 = 77;

pub(crate) fn options() -> NativeOptions {
    NativeOptions { message_bytes_max: 1_000, frame_bytes_max: 4_000, ..NativeOptions::default() }
}

pub(crate) struct Peer {
    pub(crate) session: NativeSession,
    pub(crate) input: BytesMut,
    pub(crate) out: Outbox,
    now_ms: u64,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let session = NativeSession::new(options(), 0);
        Self { session, input: BytesMut::new(), out: Outbox::default(), now_ms: 0 }
    }

    /// Past the handshake.
    pub(crate) fn ready() -> Self {
        let mut peer = Self::new();
        peer.introduce();
        let outcome = LoginOutcome::Accepted { user: "guest".into(), tags: Vec::new() };
        peer.session.on_login(0, outcome, &mut peer.out);
        peer.bytes(&[]);
        peer.effects(vec![Effect::Reply { token: Token(1), result: Ok(Reply::Done) }]);
        peer.said();
        peer.out = Outbox::default();
        peer
    }

    fn introduce(&mut self) {
        self.bytes(&PREAMBLE);
        let client_name = "test".into();
        self.says(Hello { client_name, producer: PRODUCER, heartbeat_ms: 2_000 });
        self.says(Login { user: "guest".into(), password: Bytes::from_static(b"secret") });
        self.says(Open { request: 1, vhost: "/".into() });
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.on_bytes(self.now_ms, &mut self.input, &mut self.out);
    }

    fn says(&mut self, frame: impl Into<Frame>) {
        let mut out = WriteBuffer::default();
        frame.into().encode(&mut out);
        self.bytes(&out.take_all());
    }

    fn effects(&mut self, mut effects: Vec<Effect>) {
        self.session.on_effects(self.now_ms, &mut effects, &mut self.out);
        assert!(effects.is_empty());
    }

    /// What the session wrote since the last call.
    fn said(&mut self) -> Vec<Frame> {
        let decoder = Decoder { frame_bytes_max: usize::MAX, text_bytes_max: usize::MAX };
        let mut bytes = BytesMut::from(&self.out.write.take_all()[..]);
        std::iter::from_fn(|| decoder.next(&mut bytes).unwrap()).collect()
    }

    fn asked(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out.requests)
    }

    fn is_turned_away(&mut self, code: u16) -> bool {
        let said = self.said();
        self.out.close
            && self.out.complaint.is_some()
            && matches!(said.last(), Some(Frame::Error(error)) if error.code == code)
    }
}

#[test]
fn a_handshake_may_be_sent_at_once_and_waits_for_the_login() {
    let mut peer = Peer::new();
    peer.introduce();
    let login = peer.out.login.take().unwrap();
    assert_eq!((&*login.user, &login.password[..]), ("guest", &b"secret"[..]));
    assert!(peer.asked().is_empty());
    assert!(!peer.input.is_empty(), "open is left until the login is checked");
    let [Frame::HelloOk(hello)] = &peer.said()[..] else { panic!("hello") };
    assert_eq!((hello.heartbeat_ms, hello.frame_bytes_max), (2_000, 4_000));

    let outcome = LoginOutcome::Accepted { user: "guest".into(), tags: Vec::new() };
    peer.session.on_login(0, outcome, &mut peer.out);
    peer.bytes(&[]);
    let [Request::Connect(connect)] = &peer.asked()[..] else { panic!("connect") };
    assert_eq!((&*connect.vhost, &*connect.client_name, connect.token), ("/", "test", Token(1)));
    peer.effects(vec![Effect::Reply { token: Token(1), result: Ok(Reply::Done) }]);
    let user = "guest".into();
    assert_eq!(peer.said(), [LoginOk { user }.into(), Frame::from(Done { request: 1 })]);
}

#[test]
fn a_wrong_login_and_a_wrong_vhost_end_the_connection() {
    let mut peer = Peer::new();
    peer.introduce();
    peer.session.on_login(0, LoginOutcome::Refused, &mut peer.out);
    assert!(peer.is_turned_away(403));
    peer.bytes(&[]);
    assert!(peer.asked().is_empty() && peer.session.deadline_ms().is_none());

    let mut peer = Peer::new();
    peer.introduce();
    let outcome = LoginOutcome::Accepted { user: "guest".into(), tags: Vec::new() };
    peer.session.on_login(0, outcome, &mut peer.out);
    peer.bytes(&[]);
    let refusal = Refusal::new(RefusalKind::NotAllowed, "no vhost");
    peer.effects(vec![Effect::Reply { token: Token(1), result: Err(refusal) }]);
    assert!(matches!(peer.said().last(), Some(Frame::Refused(r)) if r.code == 530));
    assert!(peer.out.close);
}

#[test]
fn strangers_are_turned_away_at_once() {
    for stranger in [&b"AMQP\0\0\x09\x01"[..], b"CONNECT\n", b"\0\0\0\x2a\x01ActiveMQ", b"G"] {
        let mut peer = Peer::new();
        peer.bytes(stranger);
        assert!(peer.is_turned_away(501), "{stranger:?}");
    }
    let mut newer = Peer::new();
    newer.bytes(b"\xF5UNDST\x02\x00");
    assert!(newer.is_turned_away(530));
    let mut impatient = Peer::new();
    impatient.bytes(&PREAMBLE);
    impatient.says(PurgeQueue { request: 1, name: "q".into() });
    assert!(impatient.is_turned_away(505));
    let mut long = Peer::new();
    long.bytes(&PREAMBLE);
    long.bytes(&(FRAME_BYTES_MAX_BEFORE_LOGIN as u32 + 1).to_be_bytes());
    assert!(long.is_turned_away(501));
}

#[test]
fn publishes_are_numbered_for_the_broker_and_confirmed_by_sequence() {
    let mut peer = Peer::ready();
    for sequence in [41, 42, 50, 51] {
        peer.says(samples::publish(sequence, b"body"));
    }
    let asked = peer.asked();
    let numbers: Vec<_> = asked
        .iter()
        .map(|request| match request {
            Request::Publish(p) => (p.confirm.unwrap(), p.producer.unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(1, 41), (2, 42), (3, 50), (4, 51)].map(|(number, sequence)| {
        (number, model::ProducerSequence { producer: PRODUCER, sequence })
    });
    assert_eq!(numbers, expected);

    let refusal = Refusal::new(RefusalKind::NotFound, "no exchange 'exchange'");
    peer.effects(vec![
        Effect::Confirm { channel: 0, through: 1 },
        Effect::Nack { channel: 0, number: 2 },
        Effect::Confirm { channel: 0, through: 2 },
        Effect::PublishRefused { channel: 0, number: Some(3), refusal },
        Effect::Confirm { channel: 0, through: 4 },
    ]);
    let said = peer.said();
    assert_eq!(said[0], Nack { sequence: 42 }.into());
    assert!(matches!(&said[1], Frame::PublishRefused(r) if r.sequence == 50 && r.code == 404));
    assert_eq!(said[2..], [Confirm { through: 51 }.into()]);
}

#[test]
fn a_body_over_the_limit_is_refused_and_the_connection_goes_on() {
    let mut peer = Peer::ready();
    peer.says(samples::publish(1, &[0; 1_001]));
    peer.says(samples::publish(2, &[0; 1_000]));
    assert!(matches!(&peer.said()[..], [Frame::PublishRefused(r)] if r.sequence == 1));
    let [Request::Publish(publish)] = &peer.asked()[..] else { panic!("publish") };
    assert_eq!((publish.confirm, publish.body.len()), (Some(1), 1_000));
    peer.effects(vec![Effect::Confirm { channel: 0, through: 1 }]);
    assert_eq!(peer.said(), [Confirm { through: 2 }.into()]);

    let publishes = vec![samples::publish(3, &[0; 1_001])];
    peer.says(Transaction { request: 5, publishes, ..Transaction::default() });
    assert!(matches!(&peer.said()[..], [Frame::Refused(r)] if r.request == 5));
    assert!(peer.asked().is_empty() && !peer.out.close);
}

#[test]
fn a_transaction_with_a_number_is_known_by_it_and_its_outcome_can_be_asked_for() {
    let mut peer = Peer::ready();
    let publishes = vec![samples::publish(7, b"one")];
    peer.says(Transaction { request: 5, commit: 7, publishes, ..Transaction::default() });
    let [Request::Transaction(asked)] = &peer.asked()[..] else { panic!("transaction") };
    let commit = model::ProducerSequence { producer: PRODUCER, sequence: 7 };
    assert_eq!((asked.commit, asked.publishes[0].producer), (Some(commit), None));
    peer.says(Outcome { request: 6, commit: 7 });
    assert_eq!(peer.asked(), [Request::Outcome { token: Token(6), commit }]);
    let answer = Effect::Reply { token: Token(6), result: Ok(Reply::AlreadyCommitted) };
    let moved = Effect::Moved { addresses: "tcp://b:1".into() };
    peer.effects(vec![answer, moved]);
    let moved = Moved { addresses: "tcp://b:1".into() };
    assert_eq!(peer.said(), [AlreadyCommitted { request: 6 }.into(), Frame::from(moved)]);
}

#[test]
fn a_certificate_stands_for_the_user_that_is_not_named() {
    for (user, expected) in [("", ("orders", true)), ("guest", ("guest", false))] {
        let mut peer = Peer::new();
        peer.session.on_certificate("orders");
        peer.bytes(&PREAMBLE);
        peer.says(Hello { producer: PRODUCER, ..Hello::default() });
        peer.says(Login { user: user.into(), password: Bytes::new() });
        let login = peer.out.login.take().unwrap();
        assert_eq!((&*login.user, login.by_certificate), expected);
    }
}

#[test]
fn a_sequence_that_does_not_rise_ends_the_connection() {
    let mut peer = Peer::ready();
    peer.says(samples::publish(5, b""));
    peer.says(samples::publish(5, b""));
    assert!(peer.is_turned_away(501));
    assert_eq!(peer.asked().len(), 1);
}

#[test]
fn consuming_delivers_and_settles() {
    let mut peer = Peer::ready();
    let queue = Text::from("q");
    let consume = Consume { request: 2, consumer: 1, queue, credit: 10, ..Consume::default() };
    peer.says(Consume { ack: AckMode::Manual, ..consume.clone() });
    let [Request::Consume(asked)] = &peer.asked()[..] else { panic!("consume") };
    assert_eq!(asked.credit, model::Credit::Prefetch(10));

    let mut record = BytesMut::new();
    let publish = model::Publish { body: b"hi"[..].into(), ..model::Publish::default() };
    EnqueueView::encode(&[QueueId(Lsn(7))], &publish, &mut record);
    let delivery = model::Delivery {
        consumer: ConsumerNumber(1),
        queue: QueueId(Lsn(7)),
        lsn: Lsn(9),
        redelivered: false,
        returns: 0,
        record: record.freeze(),
    };
    peer.effects(vec![
        Effect::Reply { token: Token(2), result: Ok(Reply::Done) },
        Effect::Deliver(delivery),
    ]);
    let said = peer.said();
    assert_eq!(said[0], Done { request: 2 }.into());
    assert!(matches!(&said[1], Frame::Deliver(d) if (d.queue, d.lsn) == (7, 9) && d.body == "hi"));

    let deliveries = Deliveries { consumer: 1, queue: 7, lsns: vec![9] };
    peer.says(Settle { request: 0, deliveries: deliveries.clone() });
    peer.says(Return { request: 8, deliveries });
    let [Request::Settle { token: None, deliveries }, Request::Return { token, .. }] =
        &peer.asked()[..]
    else {
        panic!("settle, return")
    };
    assert_eq!(*token, Some(Token(8)));
    let (consumer, queue) = (ConsumerNumber(1), QueueId(Lsn(7)));
    assert_eq!(deliveries[..], [model::DeliveryRef { consumer, queue, lsn: Lsn(9) }]);

    peer.says(consume);
    assert!(peer.is_turned_away(501), "a consumer's number is used once");
}

#[test]
fn broken_properties_and_deep_arguments_are_refused() {
    let mut peer = Peer::ready();
    let properties = Bytes::from_static(&[0x10, 0]);
    peer.says(Publish { properties, ..samples::publish(1, b"") });
    assert!(peer.is_turned_away(501));

    let mut arguments = Vec::new();
    for _ in 0..100 {
        let inside = std::mem::take(&mut arguments);
        arguments.extend([1, b'k', b'F']);
        arguments.extend((inside.len() as u32).to_be_bytes());
        arguments.extend(inside);
    }
    let mut peer = Peer::ready();
    let arguments = Bytes::from(arguments);
    peer.says(DeclareQueue { request: 1, name: "q".into(), arguments, ..Default::default() });
    assert!(peer.is_turned_away(501));
}

#[test]
fn heartbeats_are_sent_and_missed() {
    let mut peer = Peer::ready();
    assert_eq!(peer.session.deadline_ms(), Some(1_000));
    peer.now_ms = 1_000;
    peer.session.on_timer(1_000, &mut peer.out);
    assert_eq!(peer.said(), [Ping { number: 0 }.into()]);
    assert_eq!(peer.session.deadline_ms(), Some(2_000));

    peer.now_ms = 2_500;
    peer.says(Ping { number: 4 });
    assert_eq!(peer.said(), [Pong { number: 4 }.into()]);
    peer.session.on_timer(6_499, &mut peer.out);
    assert!(!peer.out.close);
    peer.session.on_timer(6_500, &mut peer.out);
    assert!(peer.out.close && peer.out.complaint.is_some());
    assert_eq!(peer.session.deadline_ms(), None);
}

#[test]
fn the_handshake_has_its_time() {
    let mut peer = Peer::new();
    assert_eq!(peer.session.deadline_ms(), Some(10_000));
    peer.bytes(&PREAMBLE[..3]);
    peer.session.on_timer(9_999, &mut peer.out);
    assert!(!peer.out.close);
    peer.session.on_timer(10_000, &mut peer.out);
    assert!(peer.out.close && peer.out.complaint.is_some());
}

#[test]
fn the_node_and_the_client_may_close() {
    let mut peer = Peer::ready();
    peer.effects(vec![
        Effect::Close { reason: "not the master".into() },
        Effect::Confirm { channel: 0, through: 1 },
    ]);
    assert_eq!(peer.said(), [Goodbye { reason: "not the master".into() }.into()]);
    assert!(peer.out.close && peer.out.complaint.is_none());

    let mut peer = Peer::ready();
    peer.says(Goodbye { reason: "done".into() });
    peer.says(samples::publish(1, b"late"));
    assert!(peer.out.close && peer.asked().is_empty() && peer.input.is_empty());
}

#[test]
fn a_request_without_a_number_is_done_and_not_answered() {
    let mut peer = Peer::ready();
    peer.says(PurgeQueue { request: 0, name: "q".into() });
    peer.says(PurgeQueue { request: 2, name: "q".into() });
    assert_eq!(peer.asked().len(), 2);
    let refusal = Refusal::new(RefusalKind::NotFound, "no queue 'q'");
    let removed = Reply::Removed { messages: 3 };
    peer.effects(vec![
        Effect::Reply { token: Token(0), result: Err(refusal) },
        Effect::Reply { token: Token(0), result: Ok(removed.clone()) },
        Effect::Reply { token: Token(2), result: Ok(removed) },
    ]);
    assert_eq!(peer.said(), [Removed { request: 2, messages: 3 }.into()]);
}
