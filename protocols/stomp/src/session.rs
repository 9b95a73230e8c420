//! One client's connection. See [`StompSession`].

mod effects;
mod handshake;
mod send;
mod settle;
mod subscribe;

use crate::{
    codec::{Command, Decoder, Frame, Limits, Version, put_error, put_receipt},
    error::StompError,
    heartbeat::Heartbeat,
    options::StompOptions,
    subscription::Subscriptions,
    transaction::Transactions,
};
use bytes::{BufMut, BytesMut};
use handshake::Handshake;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use understudy_model::{
    ConsumerNumber, Effect, LoginOutcome, Outbox, Publish, Request, Session, Text, Token,
};

type Result<T = ()> = std::result::Result<T, StompError>;

/// Turns frames into requests and effects into frames. An error is told in an ERROR frame and
/// ends the connection, as STOMP 1.1 and 1.2 demand; so nothing ever has to be taken back.
pub struct StompSession {
    options: Arc<StompOptions>,
    session_id: String,
    started_ms: u64,
    state: State,
    decoder: Decoder,
    /// Input that came while the broker was deciding about CONNECT.
    held: BytesMut,
    version: Version,
    user: Text,
    /// The user that the client's certificate stands for.
    certified: Option<Text>,
    /// What the client calls itself: a part of its durable subscriptions' names.
    client_id: Text,
    heartbeat: Option<Heartbeat>,
    tokens: u64,
    pending: BTreeMap<Token, Pending>,
    confirms: u64,
    /// SENDs that await their confirm, in order.
    receipts: VecDeque<(u64, Text)>,
    subscriptions: Subscriptions,
    transactions: Transactions,
    temp_queues: BTreeMap<Text, TempQueue>,
    /// Queues that a SEND with arguments has declared.
    declared: BTreeSet<Text>,
    /// Counts the queues that got their name from this session.
    queues_named: u32,
}

enum State {
    /// For CONNECT.
    Waiting,
    LoggingIn(Box<Handshake>),
    Connecting(Box<Handshake>),
    Open,
    /// DISCONNECT came; what it waits for is under way.
    Leaving,
    Closed,
}

/// What to do when a request is answered. A refusal always is an ERROR; the receipt is that of
/// the frame that asked.
enum Pending {
    Connect,
    /// One of several requests of a frame.
    Step(Option<Text>),
    Finish(Option<Text>),
    Cancel(ConsumerNumber, Option<Text>),
    /// Receipts of the transaction's frames, and COMMIT's own.
    Commit(Vec<Text>, Option<Text>),
    Disconnect(Option<Text>),
}

struct TempQueue {
    queue: Text,
    /// Tag of the subscription that a SEND's `reply-to` has made.
    automatic: Option<Text>,
}

impl StompSession {
    /// `session_id` must be unique for ever, among all connections of both nodes, and hard to guess:
    /// names of temporary queues are made of it. RabbitMQ's begin with `session-`.
    pub fn new(options: Arc<StompOptions>, session_id: String, now_ms: u64) -> Self {
        let limits = Limits {
            message_bytes_max: options.message_bytes_max,
            header_bytes_max: options.header_bytes_max,
            headers_max: options.headers_max,
        };
        Self {
            options,
            session_id,
            started_ms: now_ms,
            state: State::Waiting,
            decoder: Decoder::new(limits),
            held: BytesMut::new(),
            version: Version::V10,
            user: Text::default(),
            certified: None,
            client_id: Text::default(),
            heartbeat: None,
            tokens: 0,
            pending: BTreeMap::new(),
            confirms: 0,
            receipts: VecDeque::new(),
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            temp_queues: BTreeMap::new(),
            declared: BTreeSet::new(),
            queues_named: 0,
        }
    }

    fn read(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox) {
        loop {
            match &self.state {
                State::Waiting | State::Open => {}
                State::LoggingIn(_) => return,
                State::Connecting(_) => return self.hold(input, out),
                State::Leaving | State::Closed => return input.clear(),
            }
            match self.decoder.next(input) {
                Ok(Some(frame)) => self.take_frame(now_ms, &frame, out),
                Ok(None) => return,
                Err(error) => self.fail(&error, None, out),
            }
        }
    }

    /// Nobody calls with the input when CONNECT is answered, so the session keeps it.
    fn hold(&mut self, input: &mut BytesMut, out: &mut Outbox) {
        if input.is_empty() {
            // Even nothing would keep the buffer that it was read into.
            return;
        }
        self.held.unsplit(input.split());
        let most = self.options.message_bytes_max + self.options.header_bytes_max;
        if self.held.len() > most {
            let error = StompError::new("Bad CONNECT", "Wait for CONNECTED.\n");
            self.fail(&error, None, out);
        }
    }

    fn take_frame(&mut self, now_ms: u64, frame: &Frame, out: &mut Outbox) {
        let done = match (&self.state, &frame.command) {
            (State::Waiting, Command::Connect) => self.connect(now_ms, &frame.headers, out),
            (State::Waiting, _) => {
                let body = "You must log in using CONNECT first\n";
                Err(StompError::new("Illegal command", body))
            }
            (_, Command::Connect) => {
                Err(StompError::new("Illegal command", "You are connected already\n"))
            }
            (_, Command::Send) => self.send(now_ms, frame, out),
            (_, Command::Subscribe) => self.subscribe(&frame.headers, out),
            (_, Command::Unsubscribe) => self.unsubscribe(&frame.headers, out),
            (_, Command::Ack) => self.ack(&frame.headers, out),
            (_, Command::Nack) => self.nack(&frame.headers, out),
            (_, Command::Begin) => self.begin(&frame.headers, out),
            (_, Command::Commit) => self.commit(&frame.headers, out),
            (_, Command::Abort) => self.abort(&frame.headers, out),
            (_, Command::Disconnect) => {
                let token = self.await_reply(Pending::Disconnect(frame.headers.receipt()));
                out.requests.push(Request::Barrier { token });
                self.state = State::Leaving;
                Ok(())
            }
            (_, Command::Unknown(name)) => {
                let body = format!("Could not interpret command \"{name}\"\n");
                Err(StompError::new("Bad command", body))
            }
        };
        if let Err(error) = done {
            self.fail(&error, frame.headers.get("receipt"), out);
        }
    }

    /// A token for a request, and what to do when it is answered.
    fn await_reply(&mut self, pending: Pending) -> Token {
        let token = self.next_token();
        self.pending.insert(token, pending);
        token
    }

    fn next_token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn publish(&mut self, mut publish: Publish, receipt: Option<Text>, out: &mut Outbox) {
        if let Some(receipt) = receipt {
            self.confirms += 1;
            self.receipts.push_back((self.confirms, receipt));
            publish.confirm = Some(self.confirms);
        }
        out.requests.push(Request::Publish(publish));
    }

    fn receipt(&self, receipt: Option<Text>, out: &mut Outbox) {
        if let Some(id) = receipt {
            put_receipt(out.write.tail(), self.version, &id);
        }
    }

    /// The client's mistake.
    fn fail(&mut self, error: &StompError, receipt: Option<&Text>, out: &mut Outbox) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let complaint = format!("{}: {}", error.message, error.body);
        out.complaint = Some(complaint.trim_end().replace('\n', " "));
        let receipt = receipt.or(error.receipt.as_ref());
        put_error(out.write.tail(), self.version, error, receipt.map(|id| &**id));
        self.close(out);
    }

    fn close(&mut self, out: &mut Outbox) {
        self.state = State::Closed;
        self.pending.clear();
        self.held = BytesMut::new();
        out.close = true;
    }

    /// To be called after anything that may have written.
    fn note_written(&mut self, now_ms: u64, before: usize, out: &Outbox) {
        if let Some(heartbeat) = &mut self.heartbeat
            && out.write.len() > before
        {
            heartbeat.sent(now_ms);
        }
    }
}

impl Session for StompSession {
    fn on_certificate(&mut self, user: &str) {
        self.certified = Some(Text::from(user));
    }

    fn on_unread(&mut self, now_ms: u64) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.received(now_ms);
        }
    }

    fn on_bytes(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox) {
        let before = out.write.len();
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.received(now_ms);
        }
        if !self.held.is_empty() && matches!(self.state, State::Open) {
            self.held.unsplit(input.split());
            *input = std::mem::take(&mut self.held);
        }
        self.read(now_ms, input, out);
        self.note_written(now_ms, before, out);
    }

    fn on_effects(&mut self, now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox) {
        let before = out.write.len();
        for effect in effects.drain(..) {
            if matches!(self.state, State::Closed) {
                continue;
            }
            self.take_effect(now_ms, effect, out);
        }
        self.note_written(now_ms, before, out);
    }

    fn on_login(&mut self, _now_ms: u64, outcome: LoginOutcome, out: &mut Outbox) {
        self.logged_in(outcome, out);
    }

    fn on_timer(&mut self, now_ms: u64, out: &mut Outbox) {
        if self.deadline_ms().is_none_or(|at| at > now_ms) {
            return;
        }
        match &mut self.heartbeat {
            None => {
                out.complaint = Some("the handshake took too long".to_owned());
                self.close(out);
            }
            Some(heartbeat) if heartbeat.is_lost(now_ms) => {
                out.complaint = Some("the client's heart-beats stopped".to_owned());
                self.close(out);
            }
            Some(heartbeat) => {
                heartbeat.sent(now_ms);
                out.write.tail().put_u8(b'\n');
            }
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            State::Waiting | State::LoggingIn(_) | State::Connecting(_) => {
                Some(self.started_ms.saturating_add(self.options.handshake_timeout_ms))
            }
            State::Open | State::Leaving => self.heartbeat.as_ref()?.deadline_ms(),
            State::Closed => None,
        }
    }
}
