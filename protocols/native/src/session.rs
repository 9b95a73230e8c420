//! The broker's side of one native connection.

mod effects;
mod requests;

use crate::{
    Decoder, Error, FRAME_BYTES_MAX_BEFORE_LOGIN, Frame, Goodbye, Hello, HelloOk, LoginOk,
    NAME_BYTES_MAX, PREAMBLE_BYTES, PREAMBLE_MAGIC, Ping, Pong, VERSION, WireError,
    numbers::PublishNumbers,
};
use bytes::{Buf, BytesMut};
use understudy_model::{
    Connect, Effect, Login, LoginOutcome, Malformed, Outbox, Protocol, Request, Session, Text,
    Token,
};

/// What a session must be told; one value serves all of a node's sessions.
#[derive(Clone, Debug)]
pub struct NativeOptions {
    pub node_name: Text,
    /// The broker's version, shown to clients.
    pub version: Text,
    pub frame_bytes_max: usize,
    /// Of a body. A longer one is refused; the connection goes on.
    pub message_bytes_max: usize,
    /// What clients are asked to keep to; 0: none. A client may wish for less.
    pub heartbeat_ms: u64,
    /// From the accept to the opened vhost.
    pub handshake_timeout_ms: u64,
}

impl Default for NativeOptions {
    fn default() -> Self {
        Self {
            node_name: Text::from_static("understudy"),
            version: Text::from_static(env!("CARGO_PKG_VERSION")),
            frame_bytes_max: 17 * 1024 * 1024,
            message_bytes_max: 16 * 1024 * 1024,
            heartbeat_ms: 10_000,
            handshake_timeout_ms: 10_000,
        }
    }
}

/// A client may not make the broker's timers spin.
const HEARTBEAT_MS_MIN: u64 = 100;

/// Codes of AMQP (its section 1.3) that this session gives itself.
const ACCESS_REFUSED: u16 = 403;
const FRAME_ERROR: u16 = 501;
const UNEXPECTED_FRAME: u16 = 505;
const MESSAGE_TOO_LARGE: u16 = 506;
const NOT_ALLOWED: u16 = 530;
const INTERNAL_ERROR: u16 = 541;

/// How far the handshake has come.
#[derive(Debug, PartialEq)]
enum State {
    Preamble,
    Hello,
    Login,
    /// The credentials are being checked; nothing is read meanwhile.
    LoginAsked,
    Open {
        user: Text,
    },
    /// The broker was asked to let the client in; it must wait for the answer.
    Opening {
        request: u64,
    },
    Ready,
    Closed,
}

/// Why a client is turned away.
struct Fault {
    code: u16,
    text: String,
}

impl Fault {
    fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::new(FRAME_ERROR, error.to_string())
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        WireError::from(malformed).into()
    }
}

/// The native protocol's [`Session`].
pub struct NativeSession {
    options: NativeOptions,
    state: State,
    client_name: Text,
    /// The user that the client's certificate stands for.
    certified: Option<Text>,
    producer: u128,
    numbers: PublishNumbers,
    last_consumer: u32,
    /// Agreed with the client; 0 until then, or if there are none.
    heartbeat_ms: u64,
    started_ms: u64,
    heard_ms: u64,
    sent_ms: u64,
}

impl NativeSession {
    pub fn new(options: NativeOptions, now_ms: u64) -> Self {
        Self {
            options,
            state: State::Preamble,
            client_name: Text::new(),
            certified: None,
            producer: 0,
            numbers: PublishNumbers::default(),
            last_consumer: 0,
            heartbeat_ms: 0,
            started_ms: now_ms,
            heard_ms: now_ms,
            sent_ms: now_ms,
        }
    }

    /// One step forward: the preamble or a frame. False: there is nothing more to take now.
    fn step(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Result<bool, Fault> {
        let frame_bytes_max = match self.state {
            State::LoginAsked | State::Closed => return Ok(false),
            State::Preamble => return self.preamble(input),
            State::Hello | State::Login => FRAME_BYTES_MAX_BEFORE_LOGIN,
            _ => self.options.frame_bytes_max,
        };
        let decoder = Decoder { frame_bytes_max, text_bytes_max: NAME_BYTES_MAX };
        match decoder.next(input)? {
            None => Ok(false),
            Some(frame) => self.on_frame(frame, out).map(|()| true),
        }
    }

    fn preamble(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let seen = input.len().min(PREAMBLE_MAGIC.len());
        if input[..seen] != PREAMBLE_MAGIC[..seen] {
            return Err(Fault::new(FRAME_ERROR, "this port speaks Understudy's native protocol"));
        }
        if input.len() < PREAMBLE_BYTES {
            return Ok(false);
        }
        let version = input[PREAMBLE_MAGIC.len()];
        input.advance(PREAMBLE_BYTES);
        if version != VERSION {
            let text = format!("protocol version {version} is not known, this is {VERSION}");
            return Err(Fault::new(NOT_ALLOWED, text));
        }
        self.state = State::Hello;
        Ok(true)
    }

    fn on_frame(&mut self, frame: Frame, out: &mut Outbox) -> Result<(), Fault> {
        match (&self.state, frame) {
            (_, Frame::Goodbye(_)) => self.close(out),
            (_, Frame::Ping(Ping { number })) => send(out, Pong { number }),
            (_, Frame::Pong(_)) => {}
            (State::Ready, frame) => self.on_request(frame, out)?,
            (State::Hello, Frame::Hello(hello)) => self.hello(hello, out),
            (State::Login, Frame::Login(login)) => {
                let certified = self.certified.clone().filter(|_| login.user.is_empty());
                out.login = Some(Login {
                    by_certificate: certified.is_some(),
                    user: certified.unwrap_or(login.user),
                    password: login.password,
                });
                self.state = State::LoginAsked;
            }
            (State::Open { user }, Frame::Open(open)) => {
                out.requests.push(Request::Connect(Connect {
                    token: Token(open.request),
                    protocol: Protocol::Native,
                    vhost: open.vhost,
                    vhost_else: None,
                    user: user.clone(),
                    client_name: self.client_name.clone(),
                    producer: (self.producer != 0).then_some(self.producer),
                }));
                self.state = State::Opening { request: open.request };
            }
            (_, frame) => return Err(unexpected(&frame)),
        }
        Ok(())
    }

    fn hello(&mut self, hello: Hello, out: &mut Outbox) {
        let wishes = [hello.heartbeat_ms, self.options.heartbeat_ms];
        let heartbeat_ms = wishes.into_iter().filter(|&ms| ms > 0).min().unwrap_or(0);
        if heartbeat_ms > 0 {
            self.heartbeat_ms = heartbeat_ms.max(HEARTBEAT_MS_MIN);
        }
        self.client_name = hello.client_name;
        self.producer = hello.producer;
        self.state = State::Login;
        send(
            out,
            HelloOk {
                node_name: self.options.node_name.clone(),
                version: self.options.version.clone(),
                frame_bytes_max: self.options.frame_bytes_max as u64,
                message_bytes_max: self.options.message_bytes_max as u64,
                heartbeat_ms: self.heartbeat_ms,
            },
        );
    }

    fn close(&mut self, out: &mut Outbox) {
        self.state = State::Closed;
        out.close = true;
    }

    fn fail(&mut self, fault: Fault, out: &mut Outbox) {
        send(out, Error { code: fault.code, text: Text::from(fault.text.as_str()) });
        out.complaint = Some(fault.text);
        self.close(out);
    }

    fn handshaking(&self) -> bool {
        !matches!(self.state, State::Ready | State::Closed)
    }
}

fn send(out: &mut Outbox, frame: impl Into<Frame>) {
    frame.into().encode(&mut out.write);
}

fn unexpected(frame: &Frame) -> Fault {
    Fault::new(UNEXPECTED_FRAME, format!("frame {:#04x} is not expected here", frame.kind()))
}

impl Session for NativeSession {
    fn on_certificate(&mut self, user: &str) {
        self.certified = Some(Text::from(user));
    }

    fn on_unread(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    fn on_bytes(&mut self, now_ms: u64, input: &mut BytesMut, out: &mut Outbox) {
        if !input.is_empty() {
            self.heard_ms = now_ms;
        }
        let unsent = out.write.len();
        loop {
            match self.step(input, out) {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => self.fail(fault, out),
            }
        }
        if self.state == State::Closed {
            input.clear();
        }
        if out.write.len() > unsent {
            self.sent_ms = now_ms;
        }
    }

    fn on_effects(&mut self, now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox) {
        let unsent = out.write.len();
        // Confirms are folded into one behind all other effects of the turn: so a nack or return
        // still precedes the confirm that passes over it.
        let mut confirmed = None;
        for effect in effects.drain(..) {
            if self.state == State::Closed {
                continue;
            }
            if let Effect::Confirm { through, .. } = effect {
                confirmed = confirmed.max(Some(through));
            } else if let Err(fault) = self.on_effect(effect, out) {
                self.fail(fault, out);
            }
        }
        if let Some(through) = confirmed.filter(|_| self.state != State::Closed) {
            send(out, crate::Confirm { through: self.numbers.confirm(through) });
        }
        if out.write.len() > unsent {
            self.sent_ms = now_ms;
        }
    }

    fn on_login(&mut self, now_ms: u64, outcome: LoginOutcome, out: &mut Outbox) {
        if self.state != State::LoginAsked {
            return;
        }
        self.sent_ms = now_ms;
        match outcome {
            LoginOutcome::Accepted { user, .. } => {
                send(out, LoginOk { user: user.clone() });
                self.state = State::Open { user };
            }
            LoginOutcome::Refused => {
                self.fail(Fault::new(ACCESS_REFUSED, "ACCESS_REFUSED - login refused"), out);
            }
        }
    }

    fn on_timer(&mut self, now_ms: u64, out: &mut Outbox) {
        if self.state == State::Closed {
            return;
        }
        let since = |then: u64| now_ms.saturating_sub(then);
        if self.handshaking() && since(self.started_ms) >= self.options.handshake_timeout_ms {
            let text = "the handshake took too long";
            send(out, Goodbye { reason: Text::from_static(text) });
            out.complaint = Some(text.into());
            return self.close(out);
        }
        if self.heartbeat_ms == 0 {
            return;
        }
        if since(self.heard_ms) >= 2 * self.heartbeat_ms {
            out.complaint = Some(format!("nothing heard for {} ms", since(self.heard_ms)));
            return self.close(out);
        }
        if since(self.sent_ms) >= self.heartbeat_ms / 2 {
            send(out, Ping { number: 0 });
            self.sent_ms = now_ms;
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        if self.state == State::Closed {
            return None;
        }
        let handshake =
            self.handshaking().then(|| self.started_ms + self.options.handshake_timeout_ms);
        let heartbeat = (self.heartbeat_ms > 0).then(|| {
            (self.sent_ms + self.heartbeat_ms / 2).min(self.heard_ms + 2 * self.heartbeat_ms)
        });
        handshake.into_iter().chain(heartbeat).min()
    }
}
