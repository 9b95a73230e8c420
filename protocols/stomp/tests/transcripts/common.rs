//! A client and a broker to talk to a session with.

use bytes::BytesMut;
use understudy_model::{
    Body, ConsumerNumber, Delivery, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, Properties,
    Publish, QueueId, Refusal, RefusalKind, Reply, Request, Session, Text, Token,
};
use understudy_stomp::{StompOptions, StompSession};

pub(crate) const ERROR_HEAD: &str = "content-type:text/plain\nversion:1.0,1.1,1.2\n";

pub(crate) struct Peer {
    pub(crate) session: StompSession,
    pub(crate) out: Outbox,
    pub(crate) now_ms: u64,
    input: BytesMut,
}

pub(crate) fn options() -> StompOptions {
    StompOptions {
        server: "Understudy/0.1".into(),
        message_bytes_max: 100_000,
        ..StompOptions::default()
    }
}

impl Peer {
    pub(crate) fn new(options: StompOptions) -> Self {
        let session = StompSession::new(options.into(), "session-s".into(), 1_000);
        Self { session, out: Outbox::default(), now_ms: 1_000, input: BytesMut::new() }
    }

    /// Connected, with nothing left over.
    pub(crate) fn open(version: &str) -> Self {
        Self::open_with(options(), version)
    }

    pub(crate) fn open_with(options: StompOptions, version: &str) -> Self {
        let mut peer = Self::new(options);
        peer.feed(&format!("CONNECT\nlogin:guest\npasscode:p\naccept-version:{version}\n\n\0"));
        peer.login_accepted();
        peer.answer_all();
        assert!(peer.written().starts_with("CONNECTED\n"));
        peer
    }

    pub(crate) fn login_accepted(&mut self) {
        let login = self.out.login.take().expect("a login");
        let outcome = LoginOutcome::Accepted { user: login.user, tags: vec![] };
        self.session.on_login(self.now_ms, outcome, &mut self.out);
        self.session.on_bytes(self.now_ms, &mut self.input, &mut self.out);
    }

    pub(crate) fn feed(&mut self, text: &str) {
        self.feed_bytes(text.as_bytes());
    }

    pub(crate) fn feed_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.on_bytes(self.now_ms, &mut self.input, &mut self.out);
    }

    pub(crate) fn requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.out.requests)
    }

    pub(crate) fn request(&mut self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Without the line end that follows each frame.
    pub(crate) fn written(&mut self) -> String {
        let text = String::from_utf8(self.out.write.take_all().to_vec()).expect("text");
        assert!(!text.ends_with('\0'), "{text:?}");
        text.replace("\0\n", "\0")
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.session.on_effects(self.now_ms, &mut vec![effect], &mut self.out);
    }

    pub(crate) fn answer(&mut self, token: Token) {
        self.effect(Effect::Reply { token, result: Ok(Reply::Done) });
    }

    pub(crate) fn refuse(&mut self, token: Token, kind: RefusalKind, text: &str) {
        self.effect(Effect::Reply { token, result: Err(Refusal::new(kind, text)) });
    }

    /// Does everything that was asked; returns what it was.
    pub(crate) fn answer_all(&mut self) -> Vec<Request> {
        let requests = self.requests();
        for request in &requests {
            if let Some(token) = token(request) {
                self.answer(token);
            }
        }
        requests
    }

    /// The consumer of a SUBSCRIBE that was just answered.
    pub(crate) fn subscribe(&mut self, headers: &str) -> ConsumerNumber {
        self.feed(&format!("SUBSCRIBE\n{headers}\n\n\0"));
        let requests = self.answer_all();
        requests.iter().find_map(consumer).expect("a consume")
    }

    pub(crate) fn deliver(&mut self, consumer: ConsumerNumber, lsn: u64, message: &Message<'_>) {
        let mut record = BytesMut::new();
        let publish = Publish {
            exchange: Text::from(message.exchange),
            routing_key: Text::from(message.key),
            properties: message.properties.to_bytes(),
            body: Body::from(bytes::Bytes::copy_from_slice(message.body)),
            ..Publish::default()
        };
        EnqueueView::encode(&[QueueId(Lsn(1))], &publish, &mut record);
        self.effect(Effect::Deliver(Delivery {
            consumer,
            queue: QueueId(Lsn(1)),
            lsn: Lsn(lsn),
            redelivered: message.redelivered,
            returns: 0,
            record: record.freeze(),
        }));
    }

    /// An ERROR came and the connection ends.
    pub(crate) fn assert_error(&mut self, message: &str, body: &str) {
        let length = body.len();
        let wanted =
            format!("ERROR\nmessage:{message}\n{ERROR_HEAD}content-length:{length}\n\n{body}\0");
        assert_eq!(self.written(), wanted);
        assert!(self.out.close);
    }

    pub(crate) fn assert_error_message(&mut self, message: &str) {
        let written = self.written();
        assert!(written.starts_with(&format!("ERROR\nmessage:{message}\n")), "{written}");
        assert!(self.out.close);
    }
}

#[derive(Default)]
pub(crate) struct Message<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a str,
    pub(crate) properties: Properties,
    pub(crate) body: &'a [u8],
    pub(crate) redelivered: bool,
}

pub(crate) fn plain<'a>(key: &'a str, body: &'a [u8]) -> Message<'a> {
    Message { key, body, ..Message::default() }
}

pub(crate) fn consumer(request: &Request) -> Option<ConsumerNumber> {
    match request {
        Request::Consume(consume) => Some(consume.consumer),
        _ => None,
    }
}

pub(crate) fn token(request: &Request) -> Option<Token> {
    match request {
        Request::Connect(r) => Some(r.token),
        Request::Transaction(r) => Some(r.token),
        Request::DeclareQueue(r) => Some(r.token),
        Request::DeleteQueue(r) => Some(r.token),
        Request::Bind(r) => Some(r.token),
        Request::Consume(r) => Some(r.token),
        Request::Cancel { token, .. } | Request::Barrier { token } => Some(*token),
        Request::Settle { token, .. }
        | Request::Discard { token, .. }
        | Request::Return { token, .. } => *token,
        _ => None,
    }
}

pub(crate) fn publish(request: Request) -> Publish {
    match request {
        Request::Publish(publish) => publish,
        other => panic!("not a publish: {other:?}"),
    }
}

pub(crate) fn body(publish: &Publish) -> Vec<u8> {
    publish.body.pieces().flat_map(|piece| piece.to_vec()).collect()
}
